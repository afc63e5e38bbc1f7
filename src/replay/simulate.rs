//! Which steps of each commit's build would be taken from the cache, by a cache that keeps everything and has seen the
//! commits before.
//!
//! Keys are a build's ([`KeyInputs`]); what isn't known without running is a step's *result*. Three rules about it:
//!
//! | rule | a RUN that runs gives | a COPY gives | so its hits are |
//! |---|---|---|---|
//! | [`Rule::Plain`] | something of its own | something of its own | those of a chain of instructions, as with `docker build` |
//! | [`Rule::Plywood`] | something of its own | its files: equal files are an equal layer | those that a build with Plywood has at least |
//! | [`Rule::Same`] | what every RUN gives | its files; of another stage always the same | those that it has at most |
//!
//! A miss by the second rule that is a hit by the third is *assumed*: it stands on what a RUN that ran again gave, and hits if
//! that is what it gave before. All hits of the second rule are certain.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::cache::derive::{self, Allowed, Found};
use crate::cache::key::{CopyInputs, KeyInputs, MatchInputs, SourceInputs, StepInputs};
use crate::cache::state::StateId;
use crate::context::is_pattern;
use crate::digest::{CacheKey, ContentDigest, LayerId};
use crate::graph::{CopyOp, CopySource, FileTree, MountKind, Op, RunOp};
use crate::image::platform::Platform;

use super::evaluate::{Reads, Ready};

/// What is assumed of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Rule {
    Plain,
    Plywood,
    Same,
}

/// A cache under one rule.
pub struct Cache {
    rule: Rule,
    seen: HashSet<CacheKey>,
    /// Keys and results of steps that were met before: most steps of most commits.
    known: HashMap<(OwnId, StateId), (CacheKey, LayerId)>,
}

/// What decides a step besides the state that it stands on; equal for equal inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnId([u8; 32]);

/// What decides each step of a commit by itself: nothing that is only known by running is in it.
#[derive(Debug, Clone, Default)]
pub struct Owns {
    /// One for each step of the plan.
    pub of_step: Vec<OwnId>,
}

impl Owns {
    /// Sums up the steps of a commit; those of `last` are taken over where nothing changed.
    pub(super) fn of(ready: &Ready, last: Option<(&Ready, &Self)>) -> Self {
        let last = last.filter(|(before, _)| Arc::ptr_eq(&before.plan, &ready.plan));
        let one = |(at, step): (usize, &super::plan::Step)| {
            let reads = &ready.reads[at];
            if let Some((before, owns)) = last
                && before.reads[at].inputs == reads.inputs
            {
                return owns.of_step[at];
            }
            let node = &ready.plan.graph.nodes[step.node.0];
            // What other stages give is left out: whether it changed is seen in them.
            let inputs = inputs(&node.op, reads, &|_, path| content_of(&[b"a stage", path.as_bytes()]));
            let inputs = KeyInputs { platform: node.platform.clone(), parent: StateId::scratch(), step: inputs };
            OwnId(*inputs.key().as_bytes())
        };
        Self { of_step: ready.plan.steps.iter().enumerate().map(one).collect() }
    }
}

impl Cache {
    /// Begins empty.
    pub fn new(rule: Rule) -> Self {
        Self { rule, seen: HashSet::new(), known: HashMap::new() }
    }

    /// Builds a commit: returns for each step whether it was a hit. `owns` must be the commit's.
    pub fn build(&mut self, ready: &Ready, owns: &Owns) -> Vec<bool> {
        let graph = &ready.plan.graph;
        let mut states = vec![StateId::scratch(); graph.nodes.len()];
        for (state, node) in states.iter_mut().zip(&graph.nodes) {
            if let Op::Base(Some(request)) = &node.op {
                let image = format!("{:?}", request.source);
                let layer = LayerId::Content(content_of(&[b"image", image.as_bytes(), request.platform.to_string().as_bytes()]));
                *state = StateId::scratch().with(&layer);
            }
        }
        let mut hits = Vec::with_capacity(ready.plan.steps.len());
        for ((step, reads), own) in ready.plan.steps.iter().zip(&*ready.reads).zip(&owns.of_step) {
            let node = &graph.nodes[step.node.0];
            let below = node.parent.map_or_else(StateId::scratch, |parent| states[parent.0]);
            let parent = if matches!(&node.op, Op::Copy(op) if derive::stands_alone(op)) { StateId::scratch() } else { below };
            let (key, layer) = match reads_stages(&node.op) {
                // What it reads of other stages is in its key, and not in `own`.
                true => self.derive(ready, step.node.0, reads, parent, &states),
                false => match self.known.get(&(*own, parent)) {
                    Some(known) => *known,
                    None => {
                        let made = self.derive(ready, step.node.0, reads, parent, &states);
                        self.known.insert((*own, parent), made);
                        made
                    }
                },
            };
            hits.push(!self.seen.insert(key));
            states[step.node.0] = below.with(&layer);
        }
        hits
    }

    /// Derives a step's key, and the layer that it gives.
    fn derive(&self, ready: &Ready, node: usize, reads: &Reads, parent: StateId, states: &[StateId]) -> (CacheKey, LayerId) {
        let node = &ready.plan.graph.nodes[node];
        let of_stage = |tree: &FileTree, path: &str| {
            let FileTree::Node(from) = tree else {
                return content_of(&[b"a named context", format!("{tree:?}").as_bytes(), path.as_bytes()]);
            };
            // A stage that was made anew may hold the same files at this path.
            let state: &[u8] = if self.rule == Rule::Same { b"any" } else { states[from.0].as_bytes() };
            content_of(&[b"a stage's files", state, path.as_bytes()])
        };
        let inputs = KeyInputs { platform: node.platform.clone(), parent, step: inputs(&node.op, reads, &of_stage) };
        let key = inputs.key();
        let of_key = || content_of(&[b"whatever it gives", key.as_bytes()]);
        let content = match (self.rule, &inputs.step) {
            (Rule::Plain, _) | (Rule::Plywood, StepInputs::Run(_)) => of_key(),
            (Rule::Same, StepInputs::Run(_)) => content_of(&[b"what every RUN gives"]),
            (_, StepInputs::Copy(copy)) => copied(copy),
            (_, StepInputs::Workdir(workdir)) => content_of(&[b"directory", workdir.path.as_bytes(), workdir.user.as_bytes()]),
        };
        (key, LayerId::Content(content))
    }
}

/// What a step's own inputs are, given what other stages hold.
fn inputs(op: &Op, reads: &Reads, of_stage: &dyn Fn(&FileTree, &str) -> ContentDigest) -> StepInputs {
    match op {
        Op::Base(_) => unreachable!("a base is no step"),
        Op::Mkdir(op) => derive::workdir(op),
        Op::Run(op) => run(op, reads, of_stage),
        Op::Copy(op) => {
            let sources = op.sources.iter().enumerate().map(|(at, source)| {
                let found = match (source, reads.inputs.get(at)) {
                    (_, Some(Some(matches))) => Found::Paths(matches.clone()),
                    (CopySource::Path(path, _), _) => Found::Paths(vec![from_stage(op, path, of_stage)]),
                    (CopySource::Inline(..), _) => Found::Inline,
                    // Nobody is asked: a URL, and a repository's ref, count as unchanged.
                    (CopySource::Http(url, _), _) => Found::Remote(content_of(&[b"url", url.as_bytes()])),
                    (CopySource::Git(address, _), _) => Found::Remote(content_of(&[b"repository", address.text.as_bytes()])),
                };
                derive::source(op, source, found)
            });
            derive::copy(op, sources.collect())
        }
    }
}

fn run(op: &RunOp, reads: &Reads, of_stage: &dyn Fn(&FileTree, &str) -> ContentDigest) -> StepInputs {
    let mounts = op.mounts.iter().enumerate().map(|(at, mount)| {
        let content = match &mount.kind {
            MountKind::Bind { from, source } | MountKind::Cache { from: Some(from), source, .. } => {
                Some(reads.mounted(at).unwrap_or_else(|| of_stage(from, source)))
            }
            _ => None,
        };
        derive::mount(mount, content)
    });
    derive::run(op, mounts.collect(), Allowed::default())
}

/// What a path of another stage leads to: whatever it is, it is decided by that stage, the path and what is left out of it.
fn from_stage(op: &CopyOp, path: &str, of_stage: &dyn Fn(&FileTree, &str) -> ContentDigest) -> MatchInputs {
    let what = format!("{path}\n{}\n{}", op.parents, op.exclude.join("\n"));
    derive::matched(op, false, path.as_bytes(), of_stage(&op.from, &what))
}

fn reads_stages(op: &Op) -> bool {
    match op {
        Op::Copy(op) => matches!(op.from, FileTree::Node(_)) && op.sources.iter().any(|s| matches!(s, CopySource::Path(..))),
        Op::Run(op) => op.mounts.iter().any(|mount| match &mount.kind {
            MountKind::Bind { from, .. } | MountKind::Cache { from: Some(from), .. } => matches!(from, FileTree::Node(_)),
            _ => false,
        }),
        Op::Base(_) | Op::Mkdir(_) => false,
    }
}

/// What a copy puts down: how its sources are written isn't in it, nor what was left out.
fn copied(copy: &CopyInputs) -> ContentDigest {
    // A pattern stays: whether there was one decides where a single match lands.
    let plain = |pattern: &str| if copy.parents || is_pattern(pattern.as_bytes()) { pattern.to_owned() } else { String::new() };
    let sources = copy.sources.iter().map(|source| SourceInputs { pattern: plain(&source.pattern), ..source.clone() });
    let effective = CopyInputs { sources: sources.collect(), exclude: Vec::new(), ..copy.clone() };
    let any = Platform::new("any", "any", "");
    let inputs = KeyInputs { platform: any, parent: StateId::scratch(), step: StepInputs::Copy(Box::new(effective)) };
    content_of(&[b"files", inputs.key().as_bytes()])
}

/// Hashes parts, each with its length.
fn content_of(parts: &[&[u8]]) -> ContentDigest {
    let mut hasher = blake3::Hasher::new_derive_key("plywood replay: what a step gives");
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    ContentDigest::from_bytes(*hasher.finalize().as_bytes())
}
