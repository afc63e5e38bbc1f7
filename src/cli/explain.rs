//! `ply explain`: what became of each step of a build, and the first cause of each that was not in the cache.

use clap::Args;
use serde_json::{Value, json};

use crate::cache::log::{self, Body, Build, Ending, Outcome, Step};
use crate::cache::miss::{Cause, Place, Reason};
use crate::cli::builds::{self, Chosen, secs};
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::stored;
use crate::store::Store;
use crate::ui::{human, out, text};

/// Tell why the steps of a build ran
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// Number of the build, or -1 for the one before the last [default: the last of this directory, else of all]
    #[arg(value_name = "BUILD", allow_negative_numbers = true)]
    pub build: Option<i64>,
    /// Compare with this build instead of what was known when it ran
    #[arg(long, value_name = "BUILD", allow_negative_numbers = true)]
    pub against: Option<i64>,
    /// Only builds of Dockerfiles with this in their place or name
    #[arg(short = 'f', long, visible_alias = "file", value_name = "TEXT")]
    pub dockerfile: Option<String>,
    /// Only this step, by its number
    #[arg(long, value_name = "N")]
    pub step: Option<usize>,
    /// All causes of each step, not only the first
    #[arg(short, long)]
    pub verbose: bool,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

/// A step, and what is said of it.
struct Told<'a> {
    number: usize,
    step: &'a Step,
    reason: Option<Reason>,
}

/// Prints the explanation.
pub fn run(args: &ExplainArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let all = builds::chosen(&store, args.dockerfile.as_deref(), &Chosen::default())?;
    let known = all.clone();
    let builds = if args.dockerfile.is_some() { all } else { builds::of_directory(all, session) };
    // A number means one build, wherever it was made.
    let of = |name: Option<i64>| if name.is_some_and(|n| n > 0) { known.as_slice() } else { builds.as_slice() };
    let build = builds::named(of(args.build), args.build)?;
    let body = body_of(&store, build)?;
    let against = args.against.map(|name| builds::named(of(Some(name)), Some(name))).transpose()?;
    let reasons = match against {
        Some(old) => log::between(&store, &body, &body_of(&store, old)?).map_err(|e| Failure::of(&e))?,
        None => body.steps.iter().map(|s| s.reason.clone()).collect(),
    };
    let told: Vec<Told<'_>> =
        body.steps.iter().zip(reasons).enumerate().map(|(n, (step, reason))| Told { number: n + 1, step, reason }).collect();
    if let Some(n) = args.step.filter(|n| *n == 0 || *n > told.len()) {
        return Err(Failure::usage(format!("--step {n}: the build has {} steps", told.len())));
    }
    let told: Vec<Told<'_>> = told.into_iter().filter(|t| args.step.is_none_or(|n| n == t.number)).collect();
    let text = match args.format.as_str() {
        "json" => json_of(build, against, &told).to_string() + "\n",
        _ => text_of(build, against, &told, args.verbose, session.env.now_secs),
    };
    Ok(out::result(&text)?)
}

fn body_of(store: &Store, build: &Build) -> Result<Body, Failure> {
    let body = build.body(store).map_err(|e| Failure::of(&e))?;
    body.ok_or_else(|| Failure::message(format!("the steps of build {} are not in the log", build.id)))
}

/// Returns the word for what became of a step.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hit => "hit",
        Outcome::Remote => "remote hit",
        Outcome::Built => "built",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
        Outcome::NotReached => "not reached",
    }
}

/// Returns the word for how a build ended.
pub fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Done => "done",
        Ending::Failed => "failed",
        Ending::Cancelled => "cancelled",
    }
}

/// What the steps shown took and saved.
fn totals(told: &[Told<'_>]) -> (f64, f64) {
    let ran = told.iter().map(|t| t.step.secs).sum();
    let saved = told.iter().filter(|t| t.step.outcome.is_hit()).map(|t| t.step.cost_secs).sum();
    (ran, saved)
}

fn text_of(build: &Build, against: Option<&Build>, told: &[Told<'_>], verbose: bool, now_secs: i64) -> String {
    let head = &build.head;
    let mut lines = vec![format!(
        "build {} of {}, {}: {} in {}, {} of {} steps cached",
        build.id,
        text::one_line(&builds::shown(&build.dockerfile)),
        human::ago(build.started_secs, now_secs),
        ending(head.ending),
        secs(head.secs),
        head.hits,
        head.steps,
    )];
    if let Some(error) = &head.error {
        lines.push(format!("error: {}", text::one_line(error)));
    }
    if let Some(old) = against {
        lines.push(format!("against build {}, {}", old.id, human::ago(old.started_secs, now_secs)));
    }
    for Told { number, step, reason } in told {
        let platform = if told.iter().any(|t| t.step.platform != step.platform) { format!("{} ", step.platform) } else { String::new() };
        let title = text::one_line(&step.title);
        lines.push(format!("#{number} [{platform}{} {}/{}] {title}", step.stage, step.number, step.of));
        let done = match step.outcome {
            Outcome::Hit | Outcome::Remote => format!("{}, saved {}", word(step.outcome), secs(step.cost_secs)),
            Outcome::Built => format!("built in {}", secs(step.secs)),
            Outcome::Failed => format!("failed after {}", secs(step.secs)),
            other => word(other).to_string(),
        };
        let same = against.is_some() && step.key.is_some();
        match reason {
            Some(reason) => lines.push(format!("#{number} {done}: {}", text::one_line(&reason.to_string()))),
            None if same => lines.push(format!("#{number} {done}: nothing differs")),
            None => lines.push(format!("#{number} {done}")),
        }
        let more = reason.as_ref().map(Reason::causes).unwrap_or_default();
        if verbose {
            lines.extend(more.iter().skip(1).map(|c| format!("#{number}   also: {}", text::one_line(&c.to_string()))));
        }
    }
    let (ran, saved) = totals(told);
    lines.push(format!("steps took {}, hits saved {}", secs(ran), secs(saved)));
    lines.join("\n") + "\n"
}

fn json_of(build: &Build, against: Option<&Build>, told: &[Told<'_>]) -> Value {
    let (context, file) = builds::place(&build.dockerfile);
    let (ran, saved) = totals(told);
    json!({
        "build": build.id,
        "against": against.map(|b| b.id),
        "context": context,
        "dockerfile": file,
        "target": build.head.target,
        "started": build.started_secs,
        "secs": build.head.secs,
        "outcome": ending(build.head.ending),
        "error": build.head.error,
        "image": build.head.image,
        "steps": told.iter().map(|t| step_json(t, file)).collect::<Vec<_>>(),
        "totals": {"steps": build.head.steps, "hits": build.head.hits, "ran_secs": ran, "saved_secs": saved},
    })
}

fn step_json(told: &Told<'_>, file: &str) -> Value {
    let Told { number, step, reason } = told;
    let own = Place { file: file.into(), line: step.line, was: false };
    let causes: Vec<Value> = reason.as_ref().map(Reason::causes).unwrap_or_default().iter().map(|c| cause_json(c, &own)).collect();
    let cause = match (reason, causes.first()) {
        (_, Some(first)) => first.clone(),
        (Some(reason), None) => json!({"kind": reason.kind(), "words": reason.to_string(), "place": own.to_string()}),
        (None, None) => Value::Null,
    };
    json!({
        "number": number, "title": step.title, "stage": step.stage, "stage_step": step.number, "stage_steps": step.of,
        "platform": step.platform, "line": step.line, "outcome": word(step.outcome), "cause": cause, "causes": causes,
        "key": step.key, "layer": step.layer, "bytes": step.bytes, "secs": step.secs,
        "cost_secs": step.cost_secs, "saved_secs": if step.outcome.is_hit() { step.cost_secs } else { 0.0 },
    })
}

fn cause_json(cause: &Cause, own: &Place) -> Value {
    let place = cause.place.as_ref().unwrap_or(own);
    json!({
        "kind": cause.difference.kind(), "words": cause.difference.to_string(), "place": place.to_string(),
        "was": place.was, "difference": cause.difference,
    })
}
