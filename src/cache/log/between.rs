//! What differs between two builds of the log, step by step.

use std::collections::BTreeSet;

use super::{Base, Body, Step, inputs, text};
use crate::cache::align::align;
use crate::cache::index::Index as _;
use crate::cache::miss::below::{Culprit, Rung, culprit};
use crate::cache::miss::{self, Cause, Difference, Parent, Place, Reason};
use crate::digest::ContentDigest;
use crate::dockerfile::instruction::File;
use crate::dockerfile::origin::{Setting, line_of};
use crate::dockerfile::parse;
use crate::dockerfile::source::Source;
use crate::store::{Result, Store};

/// Returns for each step of `new` what differs from the step in its place in `old`; none: nothing does.
///
/// A step whose inputs one of the builds did not come to know, or the log forgot, has no difference either.
pub fn between(store: &Store, new: &Body, old: &Body) -> Result<Vec<Option<Reason>>> {
    let file = match &new.dockerfile {
        Some(id) => text(store, id)?.and_then(|t| parse(&Source::new("Dockerfile", t)).ok()),
        None => None,
    };
    let mut reasons = vec![None; new.steps.len()];
    let groups: BTreeSet<(&str, &str)> = new.steps.iter().map(|s| (s.stage.as_str(), s.platform.as_str())).collect();
    for (stage, platform) in groups {
        let of = |body: &Body, exact: bool| -> Vec<usize> {
            let fits = |s: &Step| s.stage == stage && (!exact || s.platform == platform);
            (0..body.steps.len()).filter(|n| fits(&body.steps[*n])).collect()
        };
        let news = of(new, true);
        // Built for another platform then: that is the difference.
        let olds = Some(of(old, true)).filter(|o| !o.is_empty()).unwrap_or_else(|| of(old, false));
        let titles = |body: &Body, at: &[usize]| at.iter().map(|n| body.steps[*n].title.clone()).collect::<Vec<_>>();
        for (n, pair) in news.iter().zip(align(&titles(old, &olds), &titles(new, &news))) {
            reasons[*n] = match pair {
                None => Some(Reason::FirstBuild),
                Some(o) => step_between(store, (new, *n), (old, olds[o]), file.as_ref())?,
            };
        }
    }
    Ok(reasons)
}

fn step_between(store: &Store, (new, n): (&Body, usize), (old, o): (&Body, usize), file: Option<&File>) -> Result<Option<Reason>> {
    let (step, was) = (&new.steps[n], &old.steps[o]);
    if step.key.is_none() || step.key == was.key {
        return Ok(None);
    }
    let slot = |step: &Step| step.inputs.as_ref().map(|id| inputs(store, id)).transpose().map(Option::flatten);
    let (Some(now), Some(then)) = (slot(step)?, slot(was)?) else { return Ok(None) };
    let lists = |tree: &ContentDigest| store.files(tree).ok().flatten();
    let parent = match (step.parent, base_of(new, n)) {
        (Some(p), _) => Parent::Step(format!("step {}", p + 1)),
        (None, Some(base)) => Parent::Base(base.name.clone(), Some(base.digest)),
        (None, None) => Parent::Base("scratch".into(), None),
    };
    let Reason::Changed(causes) = miss::explain(&now, Some(&then), &parent, &lists) else { return Ok(None) };
    let other_platform = now.inputs.platform != then.inputs.platform;
    let of_below = |c: &Cause| matches!(c.difference, Difference::Below(_) | Difference::Base { .. });
    let causes = causes.into_iter().filter(|c| !(other_platform && of_below(c)));
    let refined = causes.map(|cause| match of_below(&cause) {
        true => below((new, n), (old, o)).map_or(cause, Cause::from),
        false => Cause { place: file.and_then(|f| place(f, step, &cause.difference)), ..cause },
    });
    Ok(Some(Reason::Changed(refined.collect())))
}

/// Returns the steps that one stands on, from the bottom up, itself last.
fn chain(body: &Body, at: usize) -> Vec<usize> {
    // A parent is always before: a log that says otherwise is cut there.
    let mut chain: Vec<usize> = std::iter::successors(Some(at), |n| body.steps[*n].parent.filter(|p| p < n)).collect();
    chain.reverse();
    chain
}

fn base_of(body: &Body, at: usize) -> Option<&Base> {
    body.steps[*chain(body, at).first()?].base.and_then(|b| body.bases.get(b))
}

fn below((new, n): (&Body, usize), (old, o): (&Body, usize)) -> Option<Difference> {
    let (base, was) = (base_of(new, n), base_of(old, o));
    if base.map(|b| b.digest) != was.map(|b| b.digest) {
        let name = |b: Option<&Base>| b.map_or_else(|| "scratch".to_string(), |b| b.name.clone());
        let name = if name(base) == name(was) { name(base) } else { format!("{} -> {}", name(was), name(base)) };
        return Some(Difference::Base { name, old: was.map(|b| b.digest), new: base.map(|b| b.digest) });
    }
    let rungs = |body: &Body, chain: &[usize]| -> Vec<Rung> {
        chain.iter().map(|n| Rung { title: body.steps[*n].title.clone(), layer: body.steps[*n].layer }).collect()
    };
    let ours = chain(new, n);
    let step = |n: usize| format!("step {}", ours[n] + 1);
    Some(match culprit(&rungs(new, &ours), &rungs(old, &chain(old, o)))? {
        Culprit::Result(n) => Difference::Step { name: step(n), rebuilt: !new.steps[ours[n]].outcome.is_hit() },
        Culprit::New(n) => Difference::NewStep(step(n)),
        Culprit::Gone(title) => Difference::GoneStep(title),
    })
}

/// Returns the line that a setting of the environment has.
fn place(file: &File, step: &Step, difference: &Difference) -> Option<Place> {
    let setting = match difference {
        Difference::Variable { name, .. } => Setting::Variable(name),
        Difference::Value { what, .. } if what == "user" => Setting::User,
        Difference::Value { what, .. } if what == "working directory" => Setting::Directory,
        _ => return None,
    };
    let named = |s: &crate::dockerfile::instruction::Stage| s.name.as_deref() == Some(step.stage.as_str());
    let stage = file.stages.iter().position(named).or_else(|| step.stage.strip_prefix("stage-")?.parse().ok())?;
    let starts = file.stages.get(stage)?.instructions.iter().map(|i| i.span.start);
    let before = starts.into_iter().find(|start| file.source.line(*start) == step.line);
    line_of(file, stage, before, setting).map(|line| Place { file: "Dockerfile".into(), line, was: false })
}
