//! How long a build is expected to take: its steps played through as its scheduler would, each as long as it last took.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::cache::index::Index as _;
use crate::cache::log::{StepCosts, step_costs};
use crate::engine::error::BuildError;
use crate::engine::event::{StepIndex, StepInfo};
use crate::engine::session::Build;
use crate::graph::{NodeId, order};

use super::foresee;
use super::{Outcome, PlannedStep};

/// How long the steps take.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Expected {
    /// From the first step's begin to the last one's end. Pulls and exports are not in it.
    pub secs: f64,
    /// What all of them take together.
    pub work_secs: f64,
    /// The steps that run and of which nobody knows how long; they count as nothing.
    pub unknown: usize,
    /// The steps that it takes so long for, in order: to shorten any of them shortens the build.
    pub critical_path: Vec<StepIndex>,
}

impl Build<'_> {
    /// Returns what the log knows of the costs of this Dockerfile's steps.
    pub(super) fn past_costs(&self) -> Result<StepCosts, BuildError> {
        Ok(step_costs(self.engine.store, &self.inputs.dockerfile_id)?)
    }

    /// Returns how long a step took when it last ran: itself, else what was in its place.
    pub(super) fn last_cost(&self, id: NodeId, costs: &StepCosts, info: &StepInfo) -> Result<Option<f64>, BuildError> {
        let key = self.results[id.0].get().and_then(|r| r.key);
        if let Some(secs) = costs.of(key.as_ref(), &info.stage, &info.title) {
            return Ok(Some(secs));
        }
        let Some(old) = self.past(id)? else { return Ok(None) };
        let record = self.engine.store.lookup(&old.inputs.key()).map_err(|e| BuildError::caused("asking the cache", &e))?;
        Ok(record.map(|r| r.cost_secs))
    }
}

/// Plays a plan through with so many steps side by side. `all`: those that may hit run too.
pub(super) fn simulate(builds: &[Build<'_>], steps: &[PlannedStep], jobs: usize, all: bool) -> Expected {
    let nodes = foresee::steps(builds);
    let index: BTreeMap<(usize, NodeId), StepIndex> = nodes.iter().enumerate().map(|(step, node)| (*node, step)).collect();
    let waits_for = |step: StepIndex| {
        let (at, id) = nodes[step];
        let mut before: BTreeSet<StepIndex> = BTreeSet::new();
        let inputs = order::dependencies(&builds[at].graph.nodes[id.0]).into_iter();
        before.extend(inputs.filter_map(|d| index.get(&(at, d)).copied()).filter(|d| !is_hit(&steps[*d].outcome)));
        if let Outcome::Equal(maker) = steps[step].outcome {
            before.insert(maker);
        }
        before
    };
    let runs = |step: StepIndex| match steps[step].outcome {
        Outcome::Runs { .. } => true,
        Outcome::Depends(_) => all,
        _ => false,
    };
    let pending: Vec<(StepIndex, BTreeSet<StepIndex>)> =
        (0..steps.len()).filter(|s| !is_hit(&steps[*s].outcome)).map(|s| (s, waits_for(s))).collect();
    let cost = |step: StepIndex| if runs(step) { steps[step].cost_secs.unwrap_or(0.0) } else { 0.0 };
    let mut expected = play(&pending, jobs, &cost);
    expected.unknown = pending.iter().filter(|(s, _)| runs(*s) && steps[*s].cost_secs.is_none()).count();
    expected
}

fn is_hit(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Hit | Outcome::Remote(_))
}

/// Plays steps through as [`crate::engine::schedule::run`] would: of those that are ready the first one starts first.
fn play(pending: &[(StepIndex, BTreeSet<StepIndex>)], jobs: usize, cost: &dyn Fn(StepIndex) -> f64) -> Expected {
    let mut waiting: BTreeMap<StepIndex, BTreeSet<StepIndex>> = pending.iter().cloned().collect();
    let mut running: Vec<(f64, StepIndex)> = Vec::new();
    // For each step the one whose end let it start.
    let mut started_by: BTreeMap<StepIndex, Option<StepIndex>> = BTreeMap::new();
    let (mut now, mut ended, mut last) = (0.0, None, None);
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < jobs.max(1) {
            let Some(next) = waiting.iter().find(|(_, before)| before.is_empty()).map(|(step, _)| *step) else { break };
            waiting.remove(&next);
            started_by.insert(next, ended);
            running.push((now + cost(next), next));
        }
        let Some(first) = (0..running.len()).min_by(|a, b| running[*a].0.total_cmp(&running[*b].0)) else { break };
        let (end, step) = running.swap_remove(first);
        if cost(step) > 0.0 {
            last = Some(step);
        }
        (now, ended) = (end, Some(step));
        for before in waiting.values_mut() {
            before.remove(&step);
        }
    }
    let path = std::iter::successors(last, |step| started_by.get(step).copied().flatten());
    let mut critical_path: Vec<StepIndex> = path.filter(|step| cost(*step) > 0.0).collect();
    critical_path.reverse();
    let work_secs = pending.iter().map(|(step, _)| cost(*step)).sum();
    Expected { secs: now, work_secs, unknown: 0, critical_path }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps as `cost:what it waits for`.
    fn played(steps: &str, jobs: usize) -> (f64, f64, Vec<StepIndex>) {
        let parsed: Vec<(f64, BTreeSet<StepIndex>)> = steps
            .split_whitespace()
            .map(|s| s.split_once(':').unwrap())
            .map(|(cost, before)| (cost.parse().unwrap(), before.split(',').filter_map(|b| b.parse().ok()).collect()))
            .collect();
        let pending: Vec<_> = parsed.iter().enumerate().map(|(n, (_, before))| (n, before.clone())).collect();
        let Expected { secs, work_secs, critical_path, .. } = play(&pending, jobs, &|s| parsed[s].0);
        (secs, work_secs, critical_path)
    }

    #[test]
    fn steps_take_as_long_as_their_longest_chain_and_the_jobs_allow() {
        for (steps, jobs, want) in [
            ("", 2, (0.0, 0.0, vec![])),
            ("1: 2:0 3:1", 4, (6.0, 6.0, vec![0, 1, 2])),
            // Two stages side by side, one on top of both.
            ("5: 1: 2:0,1", 2, (7.0, 8.0, vec![0, 2])),
            ("5: 1: 2:0,1", 1, (8.0, 8.0, vec![0, 1, 2])),
            // A hit between two that run takes no time and is on no path.
            ("5: 0:0 2:1", 2, (7.0, 7.0, vec![0, 2])),
            // Three of a kind for two workers: the third waits for one of the first two.
            ("2: 3: 4:", 2, (6.0, 9.0, vec![0, 2])),
        ] {
            assert_eq!(played(steps, jobs), want, "{steps} with {jobs}");
        }
    }
}
