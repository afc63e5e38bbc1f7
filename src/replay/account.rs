//! Each step of each commit: hit or miss, by which rule, and what began it.
//!
//! A step whose own inputs differ from the last build's is a *culprit*: its files, its text, or a variable that it sees; so is
//! a base of another name. What misses with its own inputs unchanged is *dragged* by the first culprit that it stands on, first
//! in the order of the graph. That a culprit's own step may hit (a change that was undone) changes nothing in this.

use std::collections::HashMap;
use std::sync::Arc;

use crate::graph::{BuildGraph, Op, order};

use super::evaluate::{Outcome, Reads, Ready};
use super::lanes::{Lane, Lanes};
use super::simulate::{Cache, OwnId, Owns, Rule};

/// One step of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Which step.
    pub lane: usize,
    /// By Plywood's rule.
    pub hit: bool,
    /// By the plain rule.
    pub plain_hit: bool,
    /// By the rule that every RUN gives the same.
    pub at_most_hit: bool,
    /// What happened.
    pub what: What,
    /// Who began it, among [`Account::culprits`].
    pub culprit: Option<usize>,
}

/// What happened to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Nothing, or nothing that mattered.
    Hit,
    /// The first build of all.
    Cold,
    /// Its own files changed.
    Files,
    /// The Dockerfile says something else, or has the step anew.
    Text,
    /// A variable that it sees changed.
    Variable,
    /// Its base is another.
    Base,
    /// Something that it stands on changed, for certain.
    Below,
    /// It stands on a RUN that ran again: a miss unless that gave what it gave before.
    Assumed,
}

/// What begins misses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Culprit {
    /// The files of a step.
    Files(usize),
    /// The text of a step, or its appearance.
    Text(usize),
    /// A variable, in a stage.
    Variable(String, String),
    /// The base of a stage.
    Base(String),
}

/// What the builds of a history came to.
#[derive(Debug, Default)]
pub struct Account {
    /// The steps.
    pub lanes: Vec<Lane>,
    /// For each commit its steps; none: it was skipped.
    pub commits: Vec<Option<Vec<Cell>>>,
    /// Who began misses.
    pub culprits: Vec<Culprit>,
}

/// What is kept of the last build.
struct Last {
    ready: Ready,
    owns: Arc<Owns>,
    by_lane: HashMap<usize, (OwnId, Arc<Reads>, usize)>,
}

/// Which rules are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// All three.
    All,
    /// Plywood's alone: the cells say the same for the others.
    Plywood,
}

/// Builds all commits in order.
pub(super) fn account(outcomes: &[Outcome], rules: Rules) -> Account {
    let mut lanes = Lanes::default();
    let mut caches = [Rule::Plywood, Rule::Plain, Rule::Same].map(Cache::new);
    let mut account = Account::default();
    let mut known = HashMap::new();
    let mut last: Option<Last> = None;
    for outcome in outcomes {
        let Ok(ready) = outcome else {
            account.commits.push(None);
            continue;
        };
        let of_plan = lanes.of(&ready.plan);
        if last.as_ref().is_some_and(|last| same(&last.ready, ready)) {
            // The keys of the build before, one by one.
            let hit = |lane: &usize| Cell { lane: *lane, hit: true, plain_hit: true, at_most_hit: true, what: What::Hit, culprit: None };
            account.commits.push(Some(of_plan.iter().map(hit).collect()));
            continue;
        }
        let owns = Arc::new(Owns::of(ready, last.as_ref().map(|last| (&last.ready, &*last.owns))));
        let [hits, plain, at_most] = match rules {
            Rules::All => caches.each_mut().map(|cache| cache.build(ready, &owns)),
            Rules::Plywood => {
                let hits = caches[0].build(ready, &owns);
                [hits.clone(), hits.clone(), hits]
            }
        };
        let began = culprits(ready, &owns, &of_plan, last.as_ref());
        let mut cells = Vec::with_capacity(hits.len());
        for (at, lane) in of_plan.iter().enumerate() {
            let node = ready.plan.steps[at].node.0;
            let began = began[node].as_ref();
            let what = match (hits[at], began) {
                (true, _) => What::Hit,
                (false, _) if last.is_none() => What::Cold,
                (false, Some((culprit, true))) => match culprit {
                    Culprit::Files(_) => What::Files,
                    Culprit::Text(_) => What::Text,
                    Culprit::Variable(..) => What::Variable,
                    Culprit::Base(_) => What::Base,
                },
                (false, _) if at_most[at] => What::Assumed,
                (false, _) => What::Below,
            };
            let culprit = began.filter(|_| !hits[at] && last.is_some()).map(|(culprit, _)| {
                let next = account.culprits.len();
                *known.entry(culprit.clone()).or_insert_with(|| {
                    account.culprits.push(culprit.clone());
                    next
                })
            });
            cells.push(Cell { lane: *lane, hit: hits[at], plain_hit: plain[at], at_most_hit: at_most[at], what, culprit });
        }
        account.commits.push(Some(cells));
        let steps = owns.of_step.iter().zip(&*ready.reads).enumerate();
        let by_lane = of_plan.iter().zip(steps).map(|(lane, (at, (own, reads)))| (*lane, (*own, reads.clone(), at))).collect();
        last = Some(Last { ready: ready.clone(), owns, by_lane });
    }
    lanes.end();
    account.lanes = lanes.lanes;
    account
}

/// Whether two commits have all inputs alike.
fn same(a: &Ready, b: &Ready) -> bool {
    Arc::ptr_eq(&a.plan, &b.plan) && (Arc::ptr_eq(&a.reads, &b.reads) || a.reads.iter().zip(&*b.reads).all(|(a, b)| a.inputs == b.inputs))
}

/// For each node, who began whatever befell it, and whether that is itself.
fn culprits(ready: &Ready, owns: &Owns, lanes: &[usize], last: Option<&Last>) -> Vec<Option<(Culprit, bool)>> {
    let graph = &ready.plan.graph;
    let mut began: Vec<Option<(Culprit, bool)>> = vec![None; graph.nodes.len()];
    let Some(last) = last else { return began };
    for (at, step) in ready.plan.steps.iter().enumerate() {
        let own = own_culprit(ready, owns, lanes, last, at).map(|culprit| (culprit, true));
        let node = &graph.nodes[step.node.0];
        let below = || order::dependencies(node).into_iter().find_map(|d| began[d.0].clone());
        let base = || {
            let inputs = order::dependencies(node).into_iter();
            let bases = inputs.filter(|d| matches!(graph.nodes[d.0].op, Op::Base(_)));
            let known = images(&last.ready.plan.graph);
            let new = bases.filter_map(|d| image(graph, d.0)).find(|image| !known.contains(image));
            new.map(|_| (Culprit::Base(step.stage.clone()), true))
        };
        began[step.node.0] = own.or_else(|| below().map(|(culprit, _)| (culprit, false))).or_else(base);
    }
    began
}

fn own_culprit(ready: &Ready, owns: &Owns, lanes: &[usize], last: &Last, at: usize) -> Option<Culprit> {
    let lane = lanes[at];
    let Some((own, reads, was)) = last.by_lane.get(&lane) else { return Some(Culprit::Text(lane)) };
    if *own == owns.of_step[at] {
        return None;
    }
    let (step, old) = (&ready.plan.steps[at], &last.ready.plan.steps[*was]);
    if step.title == old.title {
        if reads.inputs != ready.reads[at].inputs {
            return Some(Culprit::Files(lane));
        }
        let ops = (&ready.plan.graph.nodes[step.node.0].op, &last.ready.plan.graph.nodes[old.node.0].op);
        if let (Op::Run(new), Op::Run(old)) = ops
            && let Some(name) = changed_variable(new, old)
        {
            return Some(Culprit::Variable(step.stage.clone(), name));
        }
    }
    Some(Culprit::Text(lane))
}

/// Returns the first variable that differs.
fn changed_variable(new: &crate::graph::RunOp, old: &crate::graph::RunOp) -> Option<String> {
    let of = |op: &crate::graph::RunOp| op.env.iter().cloned().collect::<Vec<_>>();
    let (new, old) = (of(new), of(old));
    new.iter().find(|v| !old.contains(v)).or_else(|| old.iter().find(|v| !new.contains(v))).map(|(name, _)| name.clone())
}

fn image(graph: &BuildGraph, node: usize) -> Option<&crate::graph::ImageRequest> {
    match &graph.nodes[node].op {
        Op::Base(image) => image.as_ref(),
        _ => None,
    }
}

fn images(graph: &BuildGraph) -> Vec<&crate::graph::ImageRequest> {
    (0..graph.nodes.len()).filter_map(|node| image(graph, node)).collect()
}
