//! Which step of one Dockerfile of the history is which of another: a lane is a step through its life.
//!
//! Steps are aligned stage by stage and kind by kind, as a build finds the past of a step that missed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::align::align;
use crate::graph::Op;

use super::plan::Plan;

/// A step through the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Its stage, as the newest plan that has it says.
    pub stage: String,
    /// Its title there.
    pub title: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its line in the newest Dockerfile; none: it isn't in there any more.
    pub line: Option<usize>,
}

/// All lanes so far.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    pub lanes: Vec<Lane>,
    /// By a plan's address; the plans are kept by who asks.
    of_plan: HashMap<usize, Arc<[usize]>>,
    last: Option<Arc<Plan>>,
}

impl Lanes {
    /// Returns the lanes of a plan's steps. Plans are to come in the order of the history.
    pub fn of(&mut self, plan: &Arc<Plan>) -> Arc<[usize]> {
        let key = Arc::as_ptr(plan).addr();
        let lanes = match self.of_plan.get(&key) {
            Some(lanes) => lanes.clone(),
            None => {
                let lanes: Arc<[usize]> = self.aligned(plan).into();
                self.of_plan.insert(key, lanes.clone());
                lanes
            }
        };
        if self.last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, plan)) {
            for (lane, step) in lanes.iter().zip(&plan.steps) {
                self.lanes[*lane].stage.clone_from(&step.stage);
                self.lanes[*lane].title.clone_from(&step.title);
            }
            self.last = Some(plan.clone());
        }
        lanes
    }

    /// Notes where the steps of the newest plan stand.
    pub fn end(&mut self) {
        let Some(last) = self.last.clone() else { return };
        for (lane, step) in self.of(&last).iter().zip(&last.steps) {
            self.lanes[*lane].line = Some(step.line);
        }
    }

    fn aligned(&mut self, plan: &Arc<Plan>) -> Vec<usize> {
        let groups = |plan: &Plan| {
            let mut groups: Vec<((String, &'static str), Vec<usize>)> = Vec::new();
            for (at, step) in plan.steps.iter().enumerate() {
                let group = (step.stage.clone(), kind(&plan.graph.nodes[step.node.0].op));
                match groups.iter_mut().find(|(known, _)| *known == group) {
                    Some((_, steps)) => steps.push(at),
                    None => groups.push((group, vec![at])),
                }
            }
            groups
        };
        let mut lanes = vec![usize::MAX; plan.steps.len()];
        let last = self.last.clone();
        let old = last.as_ref().map(|last| (groups(last), self.of_plan[&Arc::as_ptr(last).addr()].clone(), last));
        for (group, steps) in groups(plan) {
            let before = old.as_ref().and_then(|(groups, lanes, last)| {
                groups.iter().find(|(known, _)| *known == group).map(|(_, steps)| (steps.as_slice(), lanes, last))
            });
            let texts = |plan: &Plan, steps: &[usize]| steps.iter().map(|at| plan.steps[*at].title.clone()).collect::<Vec<_>>();
            let pairs = before.map_or_else(Vec::new, |(old, _, last)| align(&texts(last, old), &texts(plan, &steps)));
            for (n, at) in steps.iter().enumerate() {
                let past = pairs.get(n).copied().flatten();
                lanes[*at] = match (past, before) {
                    (Some(past), Some((old, lanes, _))) => lanes[old[past]],
                    _ => {
                        let step = &plan.steps[*at];
                        self.lanes.push(Lane { stage: step.stage.clone(), title: step.title.clone(), kind: group.1, line: None });
                        self.lanes.len() - 1
                    }
                };
            }
        }
        lanes
    }
}

/// Returns the instruction's name.
pub(super) fn kind(op: &Op) -> &'static str {
    match op {
        Op::Base(_) => "FROM",
        Op::Run(_) => "RUN",
        Op::Copy(op) if op.add.is_some() => "ADD",
        Op::Copy(_) => "COPY",
        Op::Mkdir(_) => "WORKDIR",
    }
}
