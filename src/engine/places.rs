//! Which step of the last build a step is compared with, when a miss is to be explained.
//!
//! Slots are numbered by instruction kind within a stage. Compared number by number, a RUN put in between would make
//! every RUN below it look like a changed command. So old and new steps are aligned by what the Dockerfile says first:
//! equal texts are the same place, and only what lies between two of these is paired by order or likeness. What is
//! left over is new. Slots are written when the build is over, so that a build never compares with itself.

use crate::address;
use crate::cache::align::align;
use crate::cache::index::Index as _;
use crate::cache::key::StepInputs;
use crate::cache::record::{Slot, SlotId};
use crate::graph::{NodeId, Op};

use super::error::BuildError;
use super::session::Build;

/// The slots of one kind in one stage, each for the step it was found to be the past of.
pub(super) type Pasts = Vec<(NodeId, Option<Box<Slot>>)>;

/// The steps of one kind in one stage.
pub(super) type Group = (usize, &'static str);

impl Build<'_> {
    /// Returns the last inputs of the place that a step has.
    pub fn past(&self, id: NodeId) -> Result<Option<Slot>, BuildError> {
        let group = self.group_of(id);
        let mut pasts = self.pasts.lock().expect("nobody panics with it");
        let aligned = match pasts.entry(group) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(empty) => empty.insert(self.align_group(group)?),
        };
        Ok(aligned.iter().find(|(n, _)| *n == id).and_then(|(_, slot)| slot.as_deref().cloned()))
    }

    /// Notes what a step was made of, for the next build's explanations.
    pub fn note_place(&self, id: NodeId, slot_id: &SlotId, slot: &Slot) {
        self.noted.lock().expect("nobody panics with it").push((id, slot_id.clone(), slot.clone()));
    }

    /// Writes what was noted, and that the records behind the hits were of use: at the end of a build, however it ended.
    pub fn save_uses(&self) -> Result<(), BuildError> {
        let failed = |e: &(dyn std::error::Error + 'static)| BuildError::caused("writing the cache", e);
        let _one_state = self.engine.store.snapshot()?;
        for (_, id, slot) in self.noted.lock().expect("nobody panics with it").iter() {
            self.engine.store.set_slot(id, slot).map_err(|e| failed(&e))?;
        }
        let hits = self.results.iter().filter_map(|r| r.get()).filter(|r| r.reason.is_none());
        let keys: Vec<_> = hits.filter_map(|r| r.key).collect();
        self.engine.store.touch_records(&keys, self.engine.now_secs()).map_err(|e| failed(&e))
    }

    /// Returns where a step's inputs are kept.
    pub fn slot_id(&self, id: NodeId) -> SlotId {
        let group = self.group_of(id);
        self.slot_of(group, self.group(group).take_while(|n| *n != id).count())
    }

    /// Returns the group that a step is in.
    pub fn group_of(&self, id: NodeId) -> Group {
        let node = &self.graph.nodes[id.0];
        (node.stage, kind(&node.op))
    }

    fn slot_of(&self, group: Group, nth: usize) -> SlotId {
        SlotId::derive(&self.inputs.dockerfile_id, &self.stage_text(group), group.1, nth)
    }

    /// Returns what a group's stage is told apart by.
    pub fn stage_text(&self, group: Group) -> String {
        let node = self.group(group).next().expect("a group has a step");
        let platform = &self.graph.nodes[node.0].platform;
        let name = self.graph.stages.iter().find(|s| s.index == group.0).and_then(|s| s.name.clone());
        let name = name.unwrap_or_else(|| format!("#{}", group.0));
        format!("{name} {platform} {}", self.platform)
    }

    /// Returns the steps of a group, in order.
    pub fn group(&self, (stage, kind_of): Group) -> impl Iterator<Item = NodeId> + '_ {
        let nodes = self.graph.nodes.iter().enumerate();
        nodes.filter(move |(_, n)| n.stage == stage && kind(&n.op) == kind_of).map(|(i, _)| NodeId(i))
    }

    fn align_group(&self, group: Group) -> Result<Pasts, BuildError> {
        let mut old = Vec::new();
        while let Some(slot) =
            self.engine.store.slot(&self.slot_of(group, old.len())).map_err(|e| BuildError::caused("asking the cache", &e))?
        {
            old.push(Some(Box::new(slot)));
        }
        Ok(self.aligned(group, old))
    }

    /// Finds for each step of a group which of the old ones was in its place.
    pub fn aligned(&self, group: Group, mut old: Vec<Option<Box<Slot>>>) -> Pasts {
        let nodes: Vec<NodeId> = self.group(group).collect();
        let was: Vec<String> = old.iter().map(|s| s.as_deref().map(text_of_slot).unwrap_or_default()).collect();
        let is: Vec<String> = nodes.iter().map(|n| text_of_op(&self.graph.nodes[n.0].op)).collect();
        let pairs = align(&was, &is);
        nodes.into_iter().zip(pairs).map(|(node, past)| (node, past.and_then(|p| old[p].take()))).collect()
    }
}

/// Returns the instruction's name: what slots are counted by.
pub(super) fn kind(op: &Op) -> &'static str {
    match op {
        Op::Base(_) => "base",
        Op::Run(_) => "RUN",
        Op::Copy(op) if op.add.is_some() => "ADD",
        Op::Copy(_) => "COPY",
        Op::Mkdir(_) => "WORKDIR",
    }
}

fn text_of_op(op: &Op) -> String {
    match op {
        Op::Base(_) => String::new(),
        Op::Run(op) => op.argv.join(" "),
        Op::Copy(op) => {
            // As the slots have them: without credentials.
            copy_text(op.sources.iter().map(|s| address::redact(s.text())), &op.dest)
        }
        Op::Mkdir(op) => op.path.clone(),
    }
}

fn text_of_slot(slot: &Slot) -> String {
    match &slot.inputs.step {
        StepInputs::Run(run) => run.argv.join(" "),
        StepInputs::Copy(copy) => copy_text(slot.sources.iter().cloned(), &copy.dest),
        StepInputs::Workdir(workdir) => workdir.path.clone(),
    }
}

fn copy_text(sources: impl Iterator<Item = String>, dest: &str) -> String {
    sources.chain([dest.to_string()]).collect::<Vec<_>>().join(" ")
}
