//! Which paths of which context the steps read, so that the rest is never walked.
//!
//! Patterns, not files: a wildcard narrows only down to its last literal directory. A newcomer would forget mounts: a bind
//! mount of the context without `source` reads everything.

use std::collections::{BTreeMap, BTreeSet};

use super::{BuildGraph, CopySource, FileTree, MountKind, Op, order};
use crate::dockerfile::ignore::clean;

/// What is read of one context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathUse {
    /// Any path.
    Everything,
    /// These paths (relative to the root, cleaned) and all below them. A symbolic link among them may lead elsewhere.
    Below(BTreeSet<String>),
}

/// What is read of each context; the main one has the key `None`. A context that is not in here is not read.
pub type ContextUse = BTreeMap<Option<String>, PathUse>;

/// Returns what the needed steps of a graph read.
pub fn context_paths(graph: &BuildGraph) -> ContextUse {
    let needed = order::needed(graph);
    let mut out = ContextUse::new();
    for (_, node) in graph.nodes.iter().enumerate().filter(|(id, _)| needed[*id]) {
        match &node.op {
            Op::Copy(copy) => {
                let paths = copy.sources.iter().filter_map(|source| match source {
                    CopySource::Path(path, _) => Some(path.as_str()),
                    _ => None,
                });
                paths.for_each(|path| add(&mut out, &copy.from, path, true));
            }
            Op::Run(run) => run.mounts.iter().for_each(|mount| match &mount.kind {
                MountKind::Bind { from, source } | MountKind::Cache { from: Some(from), source, .. } => add(&mut out, from, source, false),
                _ => {}
            }),
            Op::Base(_) | Op::Mkdir(_) => {}
        }
    }
    out
}

fn add(out: &mut ContextUse, tree: &FileTree, path: &str, pattern: bool) {
    let FileTree::Context(name) = tree else { return };
    let path = clean(&format!("/{path}"));
    let literal = match path.find(['*', '?', '[', '\\']).filter(|_| pattern) {
        Some(at) => &path[..path[..at].rfind('/').unwrap_or(0)],
        None => path.as_str(),
    };
    let literal = literal.trim_start_matches('/');
    let entry = out.entry(name.clone()).or_insert_with(|| PathUse::Below(BTreeSet::new()));
    match entry {
        PathUse::Below(_) if literal.is_empty() => *entry = PathUse::Everything,
        PathUse::Below(paths) => {
            paths.insert(literal.to_string());
        }
        PathUse::Everything => {}
    }
}
