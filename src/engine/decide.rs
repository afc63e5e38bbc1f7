//! A node's key inputs, and whether their result is at hand already.
//!
//! Nothing is executed here; what files a step takes is found out in [`super::look`].
//!
//! `ply plan` asks here too ([`Effort::Foresee`]): a prediction that went another way than the build would be none. It writes
//! nothing, and where something can't be known a placeholder stands in the inputs, with what it stands for beside them.

use std::time::Instant;

use crate::cache::derive;
use crate::cache::index::Index as _;
use crate::cache::key::KeyInputs;
use crate::cache::miss::Reason;
use crate::cache::record::{Record, Slot, SlotId};
use crate::cache::state::StateId;
use crate::context::Selection;
use crate::digest::{CacheKey, ContentDigest};
use crate::graph::{NodeId, Op};

use super::error::BuildError;
use super::event::{Event, Part};
use super::look::{Look, list_of};
use super::plan::Unknown;
use super::request::Asking;
use super::session::Build;

/// How far to go for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Only what needs no mount and no download; no answer is an answer.
    Cheap,
    /// Whatever it takes.
    Full,
    /// What can be known without making anything; something is always answered.
    Foresee(Asking),
}

impl Effort {
    /// Whether servers are asked.
    pub fn asks(self) -> bool {
        matches!(self, Self::Full | Self::Foresee(Asking::Network))
    }
}

/// What a node's key is made of.
#[derive(Debug)]
pub(super) struct Derived {
    /// What decides its result.
    pub slot: Slot,
    /// The files that a COPY takes, when they had to be looked at.
    pub selection: Option<Selection>,
    /// The files that mounts show, as far as they had to be looked at.
    pub mounted: Vec<Selection>,
    /// What the placeholders among the inputs stand for; none: all is known, but perhaps what the step stands on.
    pub unknown: Vec<Unknown>,
}

/// What is known of a node before it runs.
#[derive(Debug)]
pub(super) struct Decision {
    /// What decides its result.
    pub slot: Slot,
    /// Where its last inputs are kept.
    pub slot_id: SlotId,
    /// The files that a COPY takes, when they had to be looked at.
    pub selection: Option<Selection>,
    /// Its result, or why there is none.
    pub found: Result<Box<Record>, Reason>,
}

impl Build<'_> {
    /// Decides a node; none: [`Effort::Cheap`] was not enough.
    pub fn decide(&self, id: NodeId, effort: Effort) -> Result<Option<Decision>, BuildError> {
        let start = Instant::now();
        let Some(derived) = self.derive(id, effort)? else { return Ok(None) };
        if let Some(step) = self.steps[id.0] {
            self.tell(Event::Part(step, Part::Files, start.elapsed()));
        }
        let found = match self.find(id, &derived.slot.inputs.key())? {
            Some(record) => {
                // Somebody else's result, or an earlier one: the next miss is told by this list.
                derived.selection.as_ref().map_or(Ok(()), |s| self.keep_missing_files(s))?;
                Ok(Box::new(record))
            }
            None => {
                if let Some(selection) = &derived.selection {
                    self.keep_files(selection)?;
                }
                Err(self.why(id, &derived)?)
            }
        };
        let Derived { slot, selection, .. } = derived;
        Ok(Some(Decision { slot, slot_id: self.slot_id(id), selection, found }))
    }

    /// Returns what decides a node's result; none: [`Effort::Cheap`] was not enough.
    pub fn derive(&self, id: NodeId, effort: Effort) -> Result<Option<Derived>, BuildError> {
        let node = &self.graph.nodes[id.0];
        let parent = node.parent.map_or_else(StateId::scratch, |p| self.result(p).chain.state());
        let mut look = Look::with(effort);
        let mut selection = None;
        let (step, parent) = match &node.op {
            Op::Base(_) => unreachable!("bases are not decided"),
            Op::Mkdir(op) => (derive::workdir(op), parent),
            Op::Run(op) => {
                let Some(run) = self.run_inputs(id, op, &mut look)? else { return Ok(None) };
                (run, parent)
            }
            Op::Copy(op) => {
                let Some((sources, found)) = self.copy_sources(id, op, &mut look)? else { return Ok(None) };
                selection = found;
                (derive::copy(op, sources), if derive::stands_alone(op) { StateId::scratch() } else { parent })
            }
        };
        let slot = Slot::new(KeyInputs { platform: node.platform.clone(), parent, step }, look.names);
        Ok(Some(Derived { slot, selection, mounted: look.mounted, unknown: look.unknown }))
    }

    /// Looks the result of a key up that a node may take.
    pub fn find(&self, id: NodeId, key: &CacheKey) -> Result<Option<Record>, BuildError> {
        if self.uncached(id) && !self.shared.has_made(key) {
            return Ok(None);
        }
        self.engine.store.lookup(key).map_err(|e| BuildError::caused("asking the cache", &e))
    }

    /// Tells why a node's result is not at hand.
    pub fn why(&self, id: NodeId, derived: &Derived) -> Result<Reason, BuildError> {
        if self.uncached(id) && !self.shared.has_made(&derived.slot.inputs.key()) {
            return Ok(Reason::NoCache);
        }
        self.explain(id, derived, self.past(id)?.as_ref())
    }

    /// Tells why a node's result is not at hand, by what was in its place.
    pub fn explain(&self, id: NodeId, derived: &Derived, old: Option<&Slot>) -> Result<Reason, BuildError> {
        let looked_at = || derived.selection.iter().chain(&derived.mounted).flat_map(|s| &s.sources);
        let lists = |tree: &ContentDigest| {
            let here = looked_at().find(|source| source.content() == *tree).map(list_of);
            here.or_else(|| self.engine.store.files(tree).ok().flatten())
        };
        self.reason(id, &derived.slot, old, &lists)
    }

    /// Whether the user asked for this node to run.
    pub fn uncached(&self, id: NodeId) -> bool {
        let stage = self.graph.nodes[id.0].stage;
        let named = |s: &crate::graph::StagePlan| {
            let name = s.name.clone().unwrap_or_else(|| s.index.to_string());
            s.index == stage && self.request.no_cache_filter.iter().any(|f| f.eq_ignore_ascii_case(&name))
        };
        self.request.no_cache || self.graph.stages.iter().any(named)
    }
}
