//! A build's entry in the log: what became of each step, and why.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Instant;

use crate::address;
use crate::cache::key;
use crate::cache::log::{self, Base, Body, Ending, Head, NewBuild, Outcome, Step};
use crate::cache::record::{Slot, SlotId};
use crate::graph::NodeId;

use super::error::{BuildError, chain};
use super::result::BuildOutcome;
use super::session::{Build, Origin};

/// Writes a build to the log: its steps for all platforms, in the order in which they are shown.
pub(super) fn write(builds: &[Build<'_>], start: Instant, outcome: &Result<BuildOutcome, BuildError>) -> Result<(), BuildError> {
    let Some(first) = builds.first() else { return Ok(()) };
    let took = start.elapsed();
    let (mut steps, mut inputs, mut bases) = (Vec::new(), Vec::new(), Vec::new());
    for build in builds {
        for (step, slot) in build.logged_steps(start, steps.len(), &mut bases) {
            steps.push(step);
            inputs.push(slot);
        }
    }
    let head = Head {
        target: first.request.target.clone(),
        secs: rounded(took.as_secs_f64()),
        ending: match outcome {
            Ok(_) => Ending::Done,
            Err(BuildError::Cancelled) => Ending::Cancelled,
            Err(_) => Ending::Failed,
        },
        error: outcome.as_ref().err().filter(|e| !matches!(e, BuildError::Cancelled)).map(first_line),
        image: outcome.as_ref().ok().and_then(|o| o.image),
        steps: steps.len(),
        hits: steps.iter().filter(|s| s.outcome.is_hit()).count(),
    };
    let started_secs = first.engine.now_secs().saturating_sub_unsigned(took.as_secs());
    let new = NewBuild {
        dockerfile: first.inputs.dockerfile_id.clone(),
        started_secs,
        head,
        body: Body { key_format: key::FORMAT, bases, dockerfile: None, ignore: None, steps },
        inputs,
        dockerfile_text: address::redact_in_place(first.graph.source.text()),
        ignore: first.inputs.ignoring().map(|i| (i.file.clone(), i.text.clone())),
    };
    log::append(first.engine.store, new)?;
    Ok(())
}

/// Microseconds are enough, and shorter.
fn rounded(secs: f64) -> f64 {
    (secs * 1e6).round() / 1e6
}

fn first_line(error: &BuildError) -> String {
    const SHOWN_CHARS: usize = 300;
    chain(error).lines().next().unwrap_or_default().chars().take(SHOWN_CHARS).collect()
}

impl Build<'_> {
    /// Returns a base's place among `bases`, where it is put if need be; none: it is no image.
    fn logged_base(&self, id: NodeId, bases: &mut Vec<Base>) -> Option<usize> {
        let image = self.inputs.image(self.graph, id)?;
        let platform = self.graph.nodes[id.0].platform.to_string();
        let base = Base { name: image.origin.clone(), platform, digest: image.digest };
        Some(bases.iter().position(|b| *b == base).unwrap_or_else(|| {
            bases.push(base);
            bases.len() - 1
        }))
    }

    /// Returns the steps with their inputs; `before`: how many steps other platforms' builds have before; `bases` gets theirs.
    fn logged_steps(&self, start: Instant, before: usize, bases: &mut Vec<Base>) -> Vec<(Step, Option<Slot>)> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let noted: HashMap<NodeId, (&SlotId, &Slot)> = noted.iter().map(|(id, slot_id, slot)| (*id, (slot_id, slot))).collect();
        let works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<NodeId> = (0..self.graph.nodes.len()).map(NodeId).filter(|id| self.steps[id.0].is_some()).collect();
        let places: HashMap<NodeId, usize> = ids.iter().enumerate().map(|(n, id)| (*id, before + n)).collect();
        let mut out = Vec::with_capacity(ids.len());
        for (id, info) in ids.into_iter().zip(self.plan()) {
            let node = &self.graph.nodes[id.0];
            let (result, work) = (self.results[id.0].get(), works.get(&id));
            let began = work.and_then(|w| w.began);
            let outcome = match (result.map(|r| r.origin), work) {
                (Some(Origin::Cache | Origin::Base), _) => Outcome::Hit,
                (Some(Origin::Elsewhere), _) => Outcome::Remote,
                (Some(Origin::Made), _) => Outcome::Built,
                (None, Some(work)) if work.failed.is_some() => Outcome::Failed,
                (None, Some(_)) => Outcome::Cancelled,
                (None, None) => Outcome::NotReached,
            };
            let wanted = work.and_then(|w| w.wanted.as_ref());
            let known = noted.get(&id).copied().or_else(|| wanted.map(|(slot, slot_id, _)| (slot_id, slot)));
            let secs = result.map(|r| r.took).or_else(|| work.and_then(|w| w.failed)).map_or(0.0, |took| rounded(took.as_secs_f64()));
            let step = Step {
                title: info.title,
                stage: info.stage,
                number: info.number,
                of: info.of,
                platform: node.platform.to_string(),
                line: self.graph.source.line(node.span.start),
                outcome,
                reason: wanted.map(|(_, _, reason)| reason.clone()).filter(|_| !outcome.is_hit()),
                key: known.map(|(_, slot)| slot.inputs.key()),
                inputs: None,
                slot: known.map(|(slot_id, _)| slot_id.clone()),
                parent: node.parent.and_then(|p| places.get(&p)).copied(),
                base: node.parent.and_then(|p| self.logged_base(p, bases)),
                layer: result.and_then(|r| r.layer).map(|l| l.id),
                bytes: result.and_then(|r| r.bytes),
                at_secs: began.map(|began| rounded(began.saturating_duration_since(start).as_secs_f64())),
                secs,
                cost_secs: result.map_or(0.0, |r| rounded(r.cost_secs)),
            };
            out.push((step, known.map(|(_, slot)| slot.clone())));
        }
        out
    }
}
