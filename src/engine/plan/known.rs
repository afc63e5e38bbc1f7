//! Which kept results a step could take whose key is not known.
//!
//! The state that a step stands on is a fold over its layers, so a state can't be taken apart. But each record tells that
//! *its* state and its layer make a further one. From all records together follows of which layers most states are made,
//! and so that a step which stands on one thing now can't come to stand on another.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::cache::index;
use crate::cache::key::{KeyInputs, MountSource, StepInputs};
use crate::cache::record::Record;
use crate::cache::state::StateId;
use crate::digest::{ContentDigest, LayerId};
use crate::engine::error::BuildError;
use crate::engine::session::Build;
use crate::engine::state::{Chain, ChainLayer};

use super::is_placeholder;

/// More pairs of states and linked layers are not tried: what they make is unknown then.
const PAIRS_MAX: usize = 200_000;

/// What the store's records tell.
pub(super) struct Known {
    records: Vec<Record>,
    /// What a state is made of: the one below it and a layer.
    origins: HashMap<StateId, (StateId, LayerId)>,
}

impl Known {
    /// Reads all records, and the layers of the bases.
    pub fn gather(builds: &[Build<'_>]) -> Result<Self, BuildError> {
        let Some(first) = builds.first() else { return Ok(Self { records: Vec::new(), origins: HashMap::new() }) };
        let bodies = first.engine.store.record_bodies()?;
        let records: Vec<Record> = bodies.par_iter().filter_map(|body| index::record_of(body)).collect();
        let mut origins = HashMap::new();
        for record in records.iter().filter(|r| !is_free(&r.inputs)) {
            origins.insert(record.inputs.parent.with(&record.layer), (record.inputs.parent, record.layer));
        }
        for build in builds {
            for result in build.results.iter().filter_map(|r| r.get()).filter(|r| r.key.is_none()) {
                let mut state = StateId::scratch();
                for layer in result.chain.layers().iter().rev() {
                    let next = state.with(&layer.id);
                    origins.insert(next, (state, layer.id));
                    state = next;
                }
            }
        }
        let linked: Vec<LayerId> = records.iter().filter(|r| is_free(&r.inputs)).map(|r| r.layer).collect();
        let states: Vec<StateId> = records.iter().map(|r| r.inputs.parent).chain(origins.keys().copied()).collect();
        if linked.len().saturating_mul(states.len()) <= PAIRS_MAX {
            for (state, layer) in states.iter().flat_map(|s| linked.iter().map(move |l| (s, l))) {
                origins.entry(state.with(layer)).or_insert((*state, *layer));
            }
        }
        Ok(Self { records, origins })
    }

    /// Whether the store has a result that a step may take, by what is known of its inputs and of what it stands on.
    pub fn may_hit(&self, build: &Build<'_>, ours: &KeyInputs, below: &Chain) -> Result<bool, BuildError> {
        for record in self.records.iter().filter(|r| alike(&r.inputs, ours)) {
            if self.may_be(record.inputs.parent, below) && build.engine.store.layer_known(&record.layer)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a file system of which not all is known may turn out to be this state.
    pub fn may_be(&self, state: StateId, chain: &Chain) -> bool {
        let layers = chain.layers();
        let (blurred, known) = layers.split_at(layers.iter().rposition(is_unknown_layer).map_or(0, |lowest| lowest + 1));
        let mut at = state;
        for layer in blurred {
            // Nothing lies under it, and something should.
            if at == StateId::scratch() {
                return false;
            }
            let Some((below, found)) = self.origins.get(&at) else { return true };
            if !is_unknown_layer(layer) && layer.id != *found {
                return false;
            }
            at = *below;
        }
        at == known.iter().rev().fold(StateId::scratch(), |state, layer| state.with(&layer.id))
    }
}

fn is_unknown_layer(layer: &ChainLayer) -> bool {
    matches!(&layer.id, LayerId::Content(c) if is_placeholder(c))
}

/// Whether a part of a file system is not known.
pub(super) fn is_unknown(chain: &Chain) -> bool {
    chain.layers().iter().any(is_unknown_layer)
}

/// Whether two file systems may turn out to be equal: layer by layer, since a state is made of its layers in order.
pub(super) fn may_be_equal(a: &Chain, b: &Chain) -> bool {
    let (a, b) = (a.layers(), b.layers());
    let pair = |(a, b): (&ChainLayer, &ChainLayer)| a.id == b.id || is_unknown_layer(a) || is_unknown_layer(b);
    a.len() == b.len() && a.iter().zip(&b).all(pair)
}

/// Whether a step's result says nothing of what it stands on.
fn is_free(inputs: &KeyInputs) -> bool {
    let linked = matches!(&inputs.step, StepInputs::Copy(copy) if copy.link);
    linked && inputs.parent == StateId::scratch()
}

/// Whether two steps do the same, as far as it is known; what they stand on is left out.
pub(super) fn alike(theirs: &KeyInputs, ours: &KeyInputs) -> bool {
    // Most differ in kind or by their command, and need no copy.
    let near = match (&theirs.step, &ours.step) {
        (StepInputs::Run(a), StepInputs::Run(b)) => a.argv == b.argv,
        (StepInputs::Copy(a), StepInputs::Copy(b)) => a.dest == b.dest,
        (StepInputs::Workdir(a), StepInputs::Workdir(b)) => a == b,
        _ => false,
    };
    near && theirs.platform == ours.platform && likened(theirs, ours).step == ours.step && is_free(theirs) == is_free(ours)
}

/// Returns `theirs` with our placeholders wherever one of the two has one in the other's place.
pub(super) fn likened(theirs: &KeyInputs, ours: &KeyInputs) -> KeyInputs {
    let unknown = |a: &ContentDigest, b: &ContentDigest| is_placeholder(a) || is_placeholder(b);
    let mut out = theirs.clone();
    match (&mut out.step, &ours.step) {
        (StepInputs::Copy(theirs), StepInputs::Copy(ours)) => {
            for (t, o) in theirs.sources.iter_mut().zip(&ours.sources) {
                let blurred = t.matches.iter().chain(&o.matches).any(|m| is_placeholder(&m.content));
                if blurred && (t.kind, &t.pattern) == (o.kind, &o.pattern) {
                    t.matches.clone_from(&o.matches);
                }
            }
        }
        (StepInputs::Run(theirs), StepInputs::Run(ours)) => {
            for (t, o) in theirs.mounts.iter_mut().zip(&ours.mounts) {
                match (&mut t.source, &o.source) {
                    (MountSource::Bind { content: t }, MountSource::Bind { content: o })
                    | (MountSource::Cache { seed: Some(t), .. }, MountSource::Cache { seed: Some(o), .. })
                        if unknown(t, o) =>
                    {
                        *t = *o;
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
    out
}
