//! What would raise the hit rates: Dockerfiles and ignore files rewritten by rule, each replayed over the same history.
//!
//! | file | holds |
//! |---|---|
//! | this | which rewritings are tried, what they gave, and which are worth telling |
//! | `moves`, `sheet` | a Dockerfile's instructions moved |
//! | `shell` | what a RUN's command needs |
//! | `ignored` | lines for the ignore file |
//!
//! A rewriting is applied to each commit's files that it fits. Only those that lose less are shown, and none that makes a
//! commit's build fail for a missing file. That the build still works is not known here: what a command reads is guessed from
//! its name.

mod ignored;
mod moves;
mod sheet;
mod shell;

use serde::Serialize;

use crate::history::{Commit, HistoryError};

use super::account::{self, Account, Culprit, Rules, What};
use super::cost::{Costs, Rule};
use super::evaluate::{Outcome, Ready, Texts, Variant};
use super::report::{self, Totals};
use super::{Because, Readers, Request, newest};
use moves::Move;
use sheet::{Sheet, context_copy, paths};

/// What has to be won, as a part of what is lost.
const WORTH: f64 = 0.02;
/// Seconds (or RUNs) a build that nobody would change a file for.
const NOTHING: f64 = 0.01;
/// Where no cost is known, what a miss of a step that is no RUN weighs beside one that is.
const NO_RUN: f64 = 0.1;
/// Rewritings that are put together.
const TOGETHER: usize = 6;

/// A tested suggestion.
#[derive(Debug, Clone, Serialize)]
pub struct Suggestion {
    /// What to do.
    pub what: String,
    /// What to look at before doing it.
    pub caveat: String,
    /// Rates and seconds as they were.
    pub before: Totals,
    /// The same with the rewritten files.
    pub after: Totals,
    /// What it saves a build, in seconds.
    pub saved_secs: Option<f64>,
    /// Commits whose files were rewritten.
    pub rewritten: usize,
    /// The newest commit's files, before and after.
    pub changes: Vec<Change>,
}

/// A file before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub file: String,
    /// Its old text; empty: it wasn't there.
    pub old: String,
    /// Its new text.
    pub new: String,
}

/// Something to try.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Try {
    Move(Move),
    Ignore(Vec<&'static str>),
}

/// What a trial gave.
struct Trial {
    outcomes: Vec<Outcome>,
    loss: f64,
    rewritten: usize,
    costs: Costs,
}

impl Trial {
    /// Under all rules, for what is told.
    fn totals(&self) -> Totals {
        report::totals(&account::account(&self.outcomes, Rules::All), &self.costs)
    }
}

/// Tries all rewritings, and returns those that are worth it, the best first.
pub(super) fn suggest(
    readers: &mut Readers<'_>,
    request: &Request,
    commits: &[Commit],
    outcomes: &[Outcome],
    account: &Account,
    because: &Because,
    before: &Totals,
) -> Result<Vec<Suggestion>, HistoryError> {
    let Some(last) = newest(outcomes).cloned() else { return Ok(Vec::new()) };
    let lost = loss(account, &request.costs);
    let mut bench = Bench { readers, request, commits, built: outcomes.iter().filter(|o| o.is_ok()).count(), last: &last };
    let mut found: Vec<(Try, Trial)> = Vec::new();
    for one in candidates(&last, account, because) {
        let worth = |trial: &Trial| trial.loss < lost * (1.0 - WORTH) && lost - trial.loss > NOTHING;
        if let Some(trial) = bench.trial(std::slice::from_ref(&one), false)?.filter(worth) {
            found.push((one, trial));
        }
    }
    found.sort_by(|a, b| a.1.loss.total_cmp(&b.1.loss));
    let mut out: Vec<Suggestion> = found.iter().map(|(one, trial)| bench.suggestion(words(one), before, trial)).collect();
    out.extend(bench.together(&found, before)?);
    out.sort_by(|a, b| a.after.plywood_secs.unwrap_or(0.0).total_cmp(&b.after.plywood_secs.unwrap_or(0.0)));
    out.extend(bench.git_directory(last.plan.graph.source.name())?);
    Ok(out)
}

/// What is needed to try something.
struct Bench<'b, 'p> {
    readers: &'b mut Readers<'p>,
    request: &'b Request,
    commits: &'b [Commit],
    /// Commits that build as they are.
    built: usize,
    last: &'b Ready,
}

impl Bench<'_, '_> {
    /// Replays rewritten files; none: they fit nowhere, or builds fail that did not before.
    fn trial(&mut self, tries: &[Try], checkout: bool) -> Result<Option<Trial>, HistoryError> {
        let (parted, rewritten) = (std::sync::Mutex::new(Vec::new()), std::sync::atomic::AtomicUsize::new(0));
        let rewrite = |texts: &Texts, exists: &mut dyn FnMut(&str) -> bool| {
            let mut now = Texts { dockerfile: texts.dockerfile.clone(), ignore: texts.ignore.clone() };
            for one in tries {
                match one {
                    Try::Move(of) => {
                        if let Some(moved) = of.apply(&now.dockerfile, exists) {
                            now.dockerfile = moved.text.into();
                            parted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(moved.parted);
                        }
                    }
                    Try::Ignore(lines) => now.ignore = Some(with_lines(now.ignore.as_deref().unwrap_or(""), lines).into()),
                }
            }
            let changed = now.dockerfile != texts.dockerfile || now.ignore != texts.ignore;
            rewritten.fetch_add(usize::from(changed), std::sync::atomic::Ordering::Relaxed);
            changed.then_some(now)
        };
        let outcomes = self.readers.evaluate(self.commits, Variant { rewrite: Some(&rewrite), checkout })?;
        let rewritten = rewritten.into_inner();
        if (rewritten == 0 && !tries.is_empty()) || outcomes.iter().filter(|o| o.is_ok()).count() < self.built {
            return Ok(None);
        }
        let parted = parted.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let costs = with_parts(&self.request.costs, &parted);
        let loss = loss(&account::account(&outcomes, Rules::Plywood), &costs);
        Ok(Some(Trial { loss, rewritten, outcomes, costs }))
    }

    fn suggestion(&self, (what, caveat): (String, String), before: &Totals, trial: &Trial) -> Suggestion {
        let after = trial.totals();
        let saved_secs = before.plywood_secs.zip(after.plywood_secs).map(|(before, after)| before - after);
        let changes = newest(&trial.outcomes).map(|new| changes(self.last, new)).unwrap_or_default();
        Suggestion { what, caveat, before: before.clone(), after, saved_secs, rewritten: trial.rewritten, changes }
    }

    /// Puts together what helps: each further one only if it helps on top.
    fn together(&mut self, found: &[(Try, Trial)], before: &Totals) -> Result<Option<Suggestion>, HistoryError> {
        let Some((best, trial)) = found.first() else { return Ok(None) };
        let (mut all, mut so_far, mut last) = (vec![best.clone()], trial.loss, None);
        for (one, _) in &found[1..] {
            if all.len() >= TOGETHER {
                break;
            }
            let more: Vec<Try> = all.iter().chain([one]).cloned().collect();
            if let Some(trial) = self.trial(&more, false)?.filter(|t| t.loss < so_far * (1.0 - WORTH)) {
                (all, so_far, last) = (more, trial.loss, Some(trial));
            }
        }
        let Some(trial) = last else { return Ok(None) };
        let (what, caveats): (Vec<_>, Vec<_>) = all.iter().map(words).unzip();
        Ok(Some(self.suggestion((format!("together: {}", what.join("; ")), caveats.join("; ")), before, &trial)))
    }

    /// A checkout has a `.git` that changes with every commit: what that does to builds whose context is one.
    fn git_directory(&mut self, dockerfile: &str) -> Result<Option<Suggestion>, HistoryError> {
        if !self.request.place.context.is_empty() {
            return Ok(None);
        }
        let Some(with) = self.trial(&[], true)? else { return Ok(None) };
        let hidden = [Try::Ignore(vec![".git"])];
        let Some(without) = self.trial(&hidden, true)?.filter(|t| t.loss < with.loss * (1.0 - WORTH)) else { return Ok(None) };
        let what = "ignore .git: in a context that is a checkout it changes with every commit".to_owned();
        let caveat = format!(
            "the rates elsewhere here are of contexts without it, as a git address gives; no command of {dockerfile} may ask git for the version"
        );
        Ok(Some(self.suggestion((what, caveat), &with.totals(), &without)))
    }
}

fn candidates(last: &Ready, account: &Account, because: &Because) -> Vec<Try> {
    let Some(sheet) = Sheet::of(&last.plan.text) else { return Vec::new() };
    let mut out = Vec::new();
    let churn: Vec<(String, u64)> = (0..account.lanes.len())
        .map(|lane| {
            let changed = account.commits.iter().flatten().flatten().filter(|c| c.lane == lane && c.what == What::Files).count();
            (account.lanes[lane].title.clone(), changed as u64)
        })
        .filter(|(_, changed)| *changed > 0)
        .collect();
    for stage in sheet.stages() {
        out.push(Try::Move(Move::InstallFirst { stage: stage.clone() }));
        out.push(Try::Move(Move::HoistRuns { stage: stage.clone() }));
        if churn.len() > 1 {
            out.push(Try::Move(Move::OrderCopies { stage: stage.clone(), churn: churn.clone() }));
        }
        out.push(Try::Move(Move::Link { stage }));
    }
    for culprit in &account.culprits {
        if let Culprit::Variable(stage, name) = culprit {
            out.push(Try::Move(Move::SinkVariable { stage: stage.clone(), name: name.clone() }));
        }
    }
    let copies = sheet.pieces.iter().filter_map(|piece| context_copy(piece.kind()?));
    let named: Vec<String> =
        copies.flat_map(paths).map(|p| p.trim_start_matches(['.', '/']).to_owned()).filter(|p| !p.is_empty()).collect();
    let lines = ignored::lines(because, &named);
    if !lines.is_empty() {
        out.push(Try::Ignore(lines));
    }
    // What leaves the newest Dockerfile as it is helps no one who reads this.
    let fits = |one: &Try| match one {
        Try::Move(of) => of.apply(&last.plan.text, &mut |_| true).is_some(),
        Try::Ignore(_) => true,
    };
    out.into_iter().filter(fits).collect()
}

/// What to do, and what to look at before.
fn words(of: &Try) -> (String, String) {
    let (what, caveat) = match of {
        Try::Move(Move::InstallFirst { stage }) => (
            format!("stage {stage}: copy the manifests and install what they list before the other files are copied"),
            "the install must need nothing but these manifests (no scripts, patches or workspaces of the project)",
        ),
        Try::Move(Move::HoistRuns { stage }) => (
            format!("stage {stage}: run what looks at no copied file before the first COPY"),
            "these commands must not depend on files that were copied before them",
        ),
        Try::Move(Move::SinkVariable { stage, name }) => (
            format!("stage {stage}: declare {name} where it is first used"),
            "no command in between may read it without its name being written there",
        ),
        Try::Move(Move::OrderCopies { stage, .. }) => {
            (format!("stage {stage}: copy first what changes seldom"), "the copies must not write the same files")
        }
        Try::Move(Move::Link { stage }) => (
            format!("stage {stage}: COPY --link, which stands on nothing below it"),
            "a destination that is a link below is replaced, not followed",
        ),
        Try::Ignore(lines) => (format!("ignore files that builds seldom need: {}", lines.join(" ")), "no step may read these files"),
    };
    (what, caveat.to_owned())
}

/// What misses cost a build, in seconds; where no cost is known, in RUNs.
fn loss(account: &Account, costs: &Costs) -> f64 {
    let weight = |lane: &super::Lane| match costs.is_empty() {
        true => {
            if lane.kind == "RUN" {
                1.0
            } else {
                NO_RUN
            }
        }
        false => costs.of(&lane.stage, &lane.title).unwrap_or(0.0),
    };
    let weights: Vec<f64> = account.lanes.iter().map(weight).collect();
    let builds = report::counted(account).count().max(1);
    let missed = report::counted(account).flatten().filter(|cell| !cell.hit).map(|cell| weights[cell.lane]);
    missed.sum::<f64>() / builds as f64
}

/// A RUN that was parted in two: nobody knows which part costs what, so each counts half.
fn with_parts(costs: &Costs, parted: &[([String; 2], String)]) -> Costs {
    let mut out = costs.clone();
    let title = |command: &String| format!("RUN {command}");
    for (parts, whole) in parted {
        let Some(secs) = costs.of("", &title(whole)) else { continue };
        for rule in parts.each_ref().map(|part| Rule { title: title(part), secs: secs / 2.0 }) {
            if !out.rules.contains(&rule) {
                out.rules.insert(0, rule);
            }
        }
    }
    out
}

fn with_lines(text: &str, lines: &[&str]) -> String {
    let mut out = text.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    lines.iter().for_each(|line| out.extend([line, "\n"]));
    out
}

fn changes(old: &Ready, new: &Ready) -> Vec<Change> {
    let mut out = Vec::new();
    if old.plan.text != new.plan.text {
        let file = old.plan.graph.source.name().to_owned();
        out.push(Change { file, old: old.plan.text.to_string(), new: new.plan.text.to_string() });
    }
    let text = |ready: &Ready| ready.ignore.as_ref().map(|(_, text)| text.to_string()).unwrap_or_default();
    if text(old) != text(new) {
        let file = new.ignore.as_ref().map_or(".dockerignore", |(name, _)| name).to_owned();
        out.push(Change { file, old: text(old), new: text(new) });
    }
    out
}
