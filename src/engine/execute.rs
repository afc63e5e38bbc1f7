//! A node's turn: take its result from the cache, or make it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::cache::index::Index as _;
use crate::cache::miss::Reason;
use crate::cache::record::Record;
use crate::graph::{NodeId, Op};
use crate::path::Root;
use crate::snapshot::{Filled, Prepared, SnapshotError};
use crate::store::Staging;

use super::commit::{Keep, Made};
use super::decide::{Decision, Effort};
use super::error::BuildError;
use super::event::{Event, Part};
use super::files::Unwritten;
use super::session::{Build, NodeResult, Origin, Work};
use super::state::{Chain, ChainLayer};

/// What a step's work is done for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Its result; whoever watches hears of it.
    Build,
    /// Only to be compared: nobody hears, and all files are written.
    Again,
    /// Only to learn the layer's digest, for a plan: bytes that are digested already need not be written.
    Foresee,
}

impl Build<'_> {
    /// Settles all nodes whose result is at hand without effort; returns the others, in order.
    pub fn settle(&self) -> Result<Vec<NodeId>, BuildError> {
        let mut pending = Vec::new();
        for id in (0..self.graph.nodes.len()).map(NodeId).filter(|id| self.needed[id.0]) {
            self.go_on()?;
            let node = &self.graph.nodes[id.0];
            if let Op::Base(request) = &node.op {
                let chain = self.base_chain(id, request.is_some());
                self.set(id, NodeResult::base(chain));
                continue;
            }
            let known = crate::graph::order::dependencies(node).iter().all(|d| self.results[d.0].get().is_some());
            let decision = if known { self.decide(id, Effort::Cheap).inspect_err(|_| self.note_failed(id))? } else { None };
            match decision {
                Some(Decision { found: Ok(record), slot, slot_id, .. }) => self.hit(id, &record, &slot, &slot_id, Origin::Cache)?,
                other => {
                    *self.decided[id.0].lock().expect("nobody panics with it") = other;
                    pending.push(id);
                }
            }
        }
        Ok(pending)
    }

    /// Gives a node its result.
    pub fn turn(&self, id: NodeId) -> Result<(), BuildError> {
        self.go_on()?;
        self.take_turn(id).inspect_err(|_| self.note_failed(id))
    }

    /// Remembers for the log that a node could not be done, unless it was interrupted.
    fn note_failed(&self, id: NodeId) {
        if !self.engine.cancel.is_cancelled() {
            let mut works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
            let work = works.entry(id).or_default();
            work.failed = Some(work.began.map_or(Duration::ZERO, |began| began.elapsed()));
        }
    }

    fn take_turn(&self, id: NodeId) -> Result<(), BuildError> {
        let decided = self.decided[id.0].lock().expect("nobody panics with it").take();
        let decision = match decided {
            Some(decision) => decision,
            None => self.decide(id, Effort::Full)?.expect("full effort decides"),
        };
        let Decision { slot, slot_id, found, .. } = &decision;
        if let Ok(record) = found {
            return self.hit(id, record, slot, slot_id, Origin::Cache);
        }
        let key = slot.inputs.key();
        if let Some(record) = self.found_elsewhere(id, &key)? {
            return self.hit(id, &record, slot, slot_id, Origin::Elsewhere);
        }
        let guard = self.engine.store.lock_step_unless(&key, &|| self.engine.cancel.is_cancelled());
        let guard = guard.map_err(|e| BuildError::caused("waiting for another build's step", &e))?.ok_or(BuildError::Cancelled)?;
        // Always, since the decision may be older than another build's, or another stage's, equal step; `--no-cache` or
        // not when it is this build's own.
        if !self.uncached(id) || self.shared.has_made(&key) {
            let found = self.engine.store.lookup(&key).map_err(|e| BuildError::caused("asking the cache", &e))?;
            if let Some(record) = found {
                return self.hit(id, &record, slot, slot_id, Origin::Cache);
            }
        }
        let step = self.steps[id.0].expect("only steps have a turn");
        let reason = decision.found.as_ref().err().cloned().unwrap_or(Reason::NoCache);
        let reason = self.reason_elsewhere(id, slot, reason)?;
        self.tell(Event::Started(step));
        self.tell(Event::Missed(step, reason.to_string()));
        let start = Instant::now();
        let work = Work { wanted: Some((slot.clone(), slot_id.clone(), reason.clone())), began: Some(start), failed: None };
        self.works.lock().unwrap_or_else(PoisonError::into_inner).insert(id, work);
        match self.make(id, &decision, start) {
            Ok(made) => {
                let took = start.elapsed();
                self.set(id, self.made_result(id, &decision, made, reason.clone(), took));
                self.note_place(id, slot_id, slot);
                if made.recorded {
                    self.shared.add_made(key);
                    self.share_made(id, slot, &made, took, &reason);
                }
                self.engine.store.release_when_written(guard)?;
                self.tell(Event::Done(step, took));
                Ok(())
            }
            Err(error) => {
                self.tell(Event::Failed(step));
                Err(error)
            }
        }
    }

    fn make(&self, id: NodeId, decision: &Decision, start: Instant) -> Result<Made, BuildError> {
        let node = &self.graph.nodes[id.0];
        let staging = self.engine.store.stage().map_err(|e| BuildError::caused("making a working directory", &e))?;
        let prepared = self.prepare(id, &self.chain_below(id), &staging)?;
        let begun = self.tell_part(id, Part::Root, start);
        let unwritten = self.work(id, decision, &prepared, Doing::Build)?;
        let mut keep = Keep::Record;
        if let Op::Run(op) = &node.op
            && !self.mounts_are_as_keyed(id, op, decision)
        {
            keep = Keep::LayerOnly;
            let title = &node.title;
            self.tell(Event::Notice(format!("{title}: a mounted file changed while it ran: the result is not taken for later builds")));
        }
        self.go_on()?;
        let worked = self.tell_part(id, Part::Work, begun);
        let layer = prepared.finish(filled_by(&node.op)).map_err(|e| self.snapshot_error(id, &e))?;
        let made = match &unwritten {
            Some(files) => self.commit_packed(id, &layer, files)?,
            None => self.commit(id, &layer)?,
        };
        let made = self.record(id, made, decision, start.elapsed(), keep)?;
        self.tell_part(id, Part::Keep, worked);
        Ok(made)
    }

    /// Tells that a part of a node's work, begun then, is over; returns the time now.
    fn tell_part(&self, id: NodeId, part: Part, begun: Instant) -> Instant {
        let now = Instant::now();
        if let Some(step) = self.steps[id.0] {
            self.tell(Event::Part(step, part, now.duration_since(begun)));
        }
        now
    }

    /// Does a step's work in a prepared root; returns the files that are not written yet.
    pub fn work(&self, id: NodeId, decision: &Decision, prepared: &Prepared, doing: Doing) -> Result<Option<Unwritten>, BuildError> {
        match &self.graph.nodes[id.0].op {
            Op::Run(op) => self.run(id, op, prepared, doing).map(|()| None),
            Op::Copy(op) => self.copy(id, op, decision.selection.as_ref(), prepared, doing),
            Op::Mkdir(op) => self.make_directory(id, op, prepared).map(|()| None),
            Op::Base(_) => unreachable!("bases have no turn"),
        }
    }

    /// Whether a step's layer is put on top of whatever there is: it sees nothing of it.
    pub fn is_linked(&self, id: NodeId) -> bool {
        matches!(&self.graph.nodes[id.0].op, Op::Copy(op) if op.link)
    }

    /// The file system that a node's work is done in.
    pub fn chain_below(&self, id: NodeId) -> Chain {
        if self.is_linked(id) { Chain::default() } else { self.parent_chain(id) }
    }

    /// Puts a root file system together.
    pub fn prepare(&self, id: NodeId, below: &Chain, staging: &Staging) -> Result<Prepared, BuildError> {
        let lowers = self.lowers(below)?;
        self.driver()?.prepare(&lowers, staging.path()).map_err(|e| self.snapshot_error(id, &e))
    }

    /// Opens a prepared root for confined work.
    pub fn root(&self, id: NodeId, prepared: &Prepared) -> Result<Root, BuildError> {
        prepared.root().try_clone_to_owned().map(Root::from_fd).map_err(|e| self.failed(id, "opening the root file system", &e))
    }

    /// Places an error of a root file system.
    pub fn snapshot_error(&self, id: NodeId, error: &SnapshotError) -> BuildError {
        self.failed(id, "", error)
    }

    /// The file system that a node works on.
    pub fn parent_chain(&self, id: NodeId) -> Chain {
        self.graph.nodes[id.0].parent.map_or_else(Chain::default, |p| self.result(p).chain.clone())
    }

    /// Returns the file system of a base node.
    pub fn base_chain(&self, id: NodeId, image: bool) -> Chain {
        let Some(image) = self.inputs.image(self.graph, id).filter(|_| image) else { return Chain::default() };
        let layers = image.layers.iter().map(|l| ChainLayer { id: l.id, empty: false, base: Some(id) });
        layers.fold(Chain::default(), |chain, layer| chain.push(layer))
    }

    /// Gives a node a record's result.
    pub fn hit(
        &self,
        id: NodeId,
        record: &Record,
        slot: &crate::cache::record::Slot,
        slot_id: &crate::cache::record::SlotId,
        origin: Origin,
    ) -> Result<(), BuildError> {
        let store = self.engine.store;
        let facts = store.layer_facts(&record.layer).map_err(|e| BuildError::caused("asking the cache", &e))?;
        let empty = match facts {
            Some(facts) => facts.entries == 0,
            None => self.is_empty_elsewhere(&record.layer)?.unwrap_or(false),
        };
        let layer = ChainLayer { id: record.layer, empty, base: None };
        let result = NodeResult {
            chain: self.parent_chain(id).push(layer),
            layer: Some(layer),
            created_secs: record.created_secs,
            key: Some(record.key),
            origin,
            reason: None,
            took: Duration::ZERO,
            cost_secs: record.cost_secs,
            bytes: facts.map(|f| f.size_bytes),
        };
        self.set(id, result);
        self.note_place(id, slot_id, slot);
        self.share(id, record, layer);
        self.tell(Event::Cached(self.steps[id.0].expect("only steps hit")));
        Ok(())
    }

    fn made_result(&self, id: NodeId, decision: &Decision, made: Made, reason: Reason, took: Duration) -> NodeResult {
        NodeResult {
            chain: self.parent_chain(id).push(made.layer),
            layer: Some(made.layer),
            created_secs: made.created_secs,
            key: Some(decision.slot.inputs.key()),
            origin: Origin::Made,
            reason: Some(reason),
            took,
            cost_secs: took.as_secs_f64(),
            bytes: Some(made.bytes),
        }
    }

    /// Gives a node its result.
    pub fn set(&self, id: NodeId, result: NodeResult) {
        let first = self.results[id.0].set(result).is_ok();
        debug_assert!(first, "a node has one turn");
    }
}

impl NodeResult {
    /// A base's.
    pub fn base(chain: Chain) -> Self {
        let (took, origin) = (Duration::ZERO, Origin::Base);
        Self { chain, layer: None, created_secs: 0, key: None, origin, reason: None, took, cost_secs: 0.0, bytes: None }
    }
}

/// Who fills the root of a node's work.
pub(super) fn filled_by(op: &Op) -> Filled {
    match op {
        Op::Run(_) => Filled::ByCommand,
        Op::Copy(_) | Op::Mkdir(_) | Op::Base(_) => Filled::ByCopy,
    }
}
