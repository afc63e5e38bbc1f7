//! What depends on what, and so what can run side by side.
//!
//! Pure arithmetic on node numbers; inputs always stand before users in [`BuildGraph::nodes`]. A newcomer would look for a
//! topological sort: lowering already gives one.

use super::{BuildGraph, FileTree, MountKind, Node, NodeId, Op, StagePlan};

/// Returns the nodes that must be done before `node`: its parent, what it copies from, what it mounts. Sorted, each once.
pub fn dependencies(node: &Node) -> Vec<NodeId> {
    let mut out: Vec<NodeId> = node.parent.into_iter().collect();
    let mut add = |tree: &FileTree| {
        if let FileTree::Node(id) = tree {
            out.push(*id);
        }
    };
    match &node.op {
        Op::Copy(copy) => add(&copy.from),
        Op::Run(run) => run.mounts.iter().for_each(|mount| match &mount.kind {
            MountKind::Bind { from, .. } | MountKind::Cache { from: Some(from), .. } => add(from),
            _ => {}
        }),
        Op::Base(_) | Op::Mkdir(_) => {}
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Marks the nodes that the target needs; the others need not run.
pub fn needed(graph: &BuildGraph) -> Vec<bool> {
    needed_by(graph, graph.stages.get(graph.target))
}

/// Marks the nodes that these stages need.
pub fn needed_by<'s>(graph: &BuildGraph, stages: impl IntoIterator<Item = &'s StagePlan>) -> Vec<bool> {
    let mut marks = vec![false; graph.nodes.len()];
    for stage in stages {
        marks[stage.last.0] = true;
    }
    // Inputs come before users, so one pass from the end sees each user before its inputs.
    for id in (0..graph.nodes.len()).rev() {
        if marks[id] {
            for input in dependencies(&graph.nodes[id]) {
                marks[input.0] = true;
            }
        }
    }
    marks
}

/// Returns the needed nodes in groups: those of a group depend on earlier groups only.
pub fn levels(graph: &BuildGraph) -> Vec<Vec<NodeId>> {
    let needed = needed(graph);
    let mut level = vec![0; graph.nodes.len()];
    let mut out: Vec<Vec<NodeId>> = Vec::new();
    for (id, node) in graph.nodes.iter().enumerate().filter(|(id, _)| needed[*id]) {
        level[id] = dependencies(node).iter().map(|input| level[input.0] + 1).max().unwrap_or(0);
        if out.len() <= level[id] {
            out.resize(level[id] + 1, Vec::new());
        }
        out[level[id]].push(NodeId(id));
    }
    out
}
