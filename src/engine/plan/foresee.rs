//! Each step's outcome, in the order of the graph: what it stands on is foreseen before it.

use std::collections::{BTreeSet, HashMap};

use crate::cache::derive;
use crate::cache::key::KeyInputs;
use crate::cache::miss::{Cause, Difference, Parent, Reason};
use crate::cache::record::Slot;
use crate::digest::{CacheKey, LayerId};
use crate::engine::decide::{Derived, Effort};
use crate::engine::error::BuildError;
use crate::engine::event::StepIndex;
use crate::engine::session::{Build, NodeResult, Origin};
use crate::engine::state::{Chain, ChainLayer};
use crate::graph::{NodeId, Op, order};

use super::known::{self, Known};
use super::{Asking, Outcome, Unknown, is_placeholder, placeholder};

/// A layer that is in some chain and that nobody made.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Foreseen {
    /// What would have to be known, or made, to have it.
    pub by: Vec<Unknown>,
}

/// A step that runs, or may.
struct Made {
    step: StepIndex,
    outcome: Outcome,
    layer: ChainLayer,
    inputs: KeyInputs,
    below: Chain,
}

struct Forecast<'a> {
    builds: &'a [Build<'a>],
    asking: Asking,
    /// Shared caches that may have what the store has not.
    unasked: &'a [String],
    known: Option<Known>,
    made: HashMap<CacheKey, Made>,
}

/// Returns the steps of all platforms, in the order in which they are numbered.
pub(super) fn steps(builds: &[Build<'_>]) -> Vec<(usize, NodeId)> {
    let of = |(at, build): (usize, &Build<'_>)| {
        let nodes = build.steps.iter().enumerate().filter(|(_, step)| step.is_some());
        nodes.map(|(id, _)| (at, NodeId(id))).collect::<Vec<_>>()
    };
    builds.iter().enumerate().flat_map(of).collect()
}

/// Returns the names of the images that nobody was asked about, each once.
pub(super) fn unresolved(builds: &[Build<'_>]) -> Vec<String> {
    let of = |build: &Build<'_>| {
        let needed = (0..build.graph.nodes.len()).map(NodeId).filter(|id| build.needed[id.0]);
        needed.filter_map(|id| build.inputs.unresolved(build.graph, id).map(str::to_string)).collect::<Vec<_>>()
    };
    let mut names: Vec<String> = builds.iter().flat_map(of).collect();
    names.sort();
    names.dedup();
    names
}

/// Returns the outcome of each step, in the order in which they are numbered, and gives each node its foreseen result.
pub(super) fn forecast(builds: &[Build<'_>], asking: Asking, unasked: &[String]) -> Result<Vec<Outcome>, BuildError> {
    let mut forecast = Forecast { builds, asking, unasked, known: None, made: HashMap::new() };
    let mut outcomes = Vec::new();
    for (at, build) in builds.iter().enumerate() {
        for id in (0..build.graph.nodes.len()).map(NodeId).filter(|id| build.needed[id.0]) {
            build.go_on()?;
            match build.steps[id.0] {
                None => build.set(id, NodeResult::base(build.foreseen_base(id))),
                Some(step) => outcomes.push(forecast.step(at, id, step)?),
            }
        }
    }
    Ok(outcomes)
}

impl Forecast<'_> {
    fn step(&mut self, at: usize, id: NodeId, step: StepIndex) -> Result<Outcome, BuildError> {
        let build = &self.builds[at];
        let below = build.parent_chain(id);
        let base = build.unknown_in(&below).into_iter().filter(|u| matches!(u, Unknown::Base(_))).collect::<Vec<_>>();
        if !base.is_empty() {
            // The image's variables and directory are part of what the step does: nothing of it is known.
            build.set_foreseen(id, CacheKey::from_bytes(*placeholder(&(at, id.0)).as_bytes()), base.clone(), None);
            return Ok(Outcome::Depends(base));
        }
        let derived = build.derive(id, Effort::Foresee(self.asking))?.expect("foreseeing always answers");
        let key = derived.slot.inputs.key();
        if let Some(made) = self.made.get(&key) {
            build.set_layer(id, key, made.layer, Origin::Cache);
            return Ok(match &made.outcome {
                Outcome::Depends(on) => Outcome::Depends(on.clone()),
                _ => Outcome::Equal(made.step),
            });
        }
        let stands = !matches!(&build.graph.nodes[id.0].op, Op::Copy(op) if derive::stands_alone(op));
        let mut unknown: BTreeSet<Unknown> = derived.unknown.iter().cloned().collect();
        unknown.extend(if stands { build.unknown_in(&below) } else { BTreeSet::new() });
        let unknown: Vec<Unknown> = unknown.into_iter().collect();
        let stands_on = if stands { below.clone() } else { Chain::default() };
        let outcome = if unknown.is_empty() {
            match self.exact(build, id, &derived, &key, &stands_on)? {
                Ok(outcome) => outcome,
                // It took its result.
                Err(hit) => return Ok(hit),
            }
        } else {
            self.blurred(build, id, &derived, &stands_on, unknown)?
        };
        let layer = match &outcome {
            Outcome::Depends(on) => build.set_foreseen(id, key, on.clone(), None),
            _ => {
                let layer = if derived.unknown.is_empty() { build.foreseen_layer(id, &derived)? } else { None };
                build.set_foreseen(id, key, vec![Unknown::Step(step)], layer)
            }
        };
        let inputs = derived.slot.inputs;
        self.made.insert(key, Made { step, outcome: outcome.clone(), layer, inputs, below: stands_on });
        Ok(outcome)
    }

    /// A step whose key is known. `Err`: it hits, and has its result.
    #[allow(clippy::type_complexity)] // two kinds of outcome, told apart where it is called
    fn exact(
        &self,
        build: &Build<'_>,
        id: NodeId,
        derived: &Derived,
        key: &CacheKey,
        below: &Chain,
    ) -> Result<Result<Outcome, Outcome>, BuildError> {
        let Derived { slot, .. } = derived;
        let slot_id = build.slot_id(id);
        if let Some(record) = build.find(id, key)? {
            build.hit(id, &record, slot, &slot_id, Origin::Cache)?;
            return Ok(Err(Outcome::Hit));
        }
        if let Some(record) = build.found_elsewhere(id, key)? {
            let place = build.to_be_fetched(&record.layer)?.map(|(_, place)| place);
            build.hit(id, &record, slot, &slot_id, Origin::Elsewhere)?;
            return Ok(Err(place.map_or(Outcome::Hit, Outcome::Remote)));
        }
        let twins = self.twins(&slot.inputs, below);
        if !twins.is_empty() {
            return Ok(Ok(Outcome::Depends(twins)));
        }
        if !build.uncached(id) && !self.unasked.is_empty() {
            return Ok(Ok(Outcome::Depends(self.unasked.iter().cloned().map(Unknown::Cache).collect())));
        }
        let reason = build.reason_elsewhere(id, slot, build.why(id, derived)?)?;
        Ok(Ok(Outcome::Runs { reason, exact: true }))
    }

    /// A step whose key can't be known: of what it stands on, or takes, something is not.
    fn blurred(
        &mut self,
        build: &Build<'_>,
        id: NodeId,
        derived: &Derived,
        below: &Chain,
        unknown: Vec<Unknown>,
    ) -> Result<Outcome, BuildError> {
        let ours = &derived.slot.inputs;
        if !self.twins(ours, below).is_empty() {
            return Ok(Outcome::Depends(unknown));
        }
        if build.uncached(id) {
            return Ok(Outcome::Runs { reason: Reason::NoCache, exact: true });
        }
        if build.sharing.has_sources() || !self.unasked.is_empty() {
            // What others have can only be asked for by key.
            return Ok(Outcome::Depends(unknown));
        }
        let known = match &mut self.known {
            Some(known) => known,
            none => none.insert(Known::gather(self.builds)?),
        };
        if known.may_hit(build, ours, below)? {
            return Ok(Outcome::Depends(unknown));
        }
        let (reason, exact) = Self::reason(build, id, derived, below, known)?;
        Ok(Outcome::Runs { reason, exact })
    }

    /// Returns what it depends on whether an earlier step of this build turns out to be the same one.
    fn twins(&self, ours: &KeyInputs, below: &Chain) -> Vec<Unknown> {
        let twin = |m: &&Made| known::alike(&m.inputs, ours) && known::may_be_equal(&m.below, below);
        let mut on: Vec<Unknown> = self.made.values().filter(twin).map(|m| Unknown::Step(m.step)).collect();
        on.sort();
        on
    }

    /// Why a step runs whose key can't be known: the differences from the last build that are certain.
    fn reason(build: &Build<'_>, id: NodeId, derived: &Derived, below: &Chain, known: &Known) -> Result<(Reason, bool), BuildError> {
        let Some(old) = build.past(id)? else { return Ok((Reason::FirstBuild, true)) };
        let ours = &derived.slot.inputs;
        let mut likened = Slot { inputs: known::likened(&old.inputs, ours), ..old.clone() };
        if known::is_unknown(below) && known.may_be(old.inputs.parent, below) {
            likened.inputs.parent = ours.parent;
        }
        let exact = likened.inputs == old.inputs;
        Ok(match build.explain(id, derived, Some(&likened))? {
            Reason::ResultGone => (Reason::Changed(vec![below_of(build.parent_name(id)).into()]), false),
            // Which step below is named depends on what those that run give.
            reason => {
                let of_below = |c: &Cause| c.difference.is_of_below();
                let certain = exact && !reason.causes().iter().any(of_below);
                (reason, certain)
            }
        })
    }
}

fn below_of(parent: Parent) -> Difference {
    match parent {
        Parent::Base(name, new) => Difference::Base { name, old: None, new },
        Parent::Step(name) => Difference::Below(name),
    }
}

impl Build<'_> {
    /// The file system of a base, or what stands for it.
    fn foreseen_base(&self, id: NodeId) -> Chain {
        let Some(name) = self.inputs.unresolved(self.graph, id) else {
            return self.base_chain(id, matches!(self.graph.nodes[id.0].op, Op::Base(Some(_))));
        };
        let layer = LayerId::Content(placeholder(&("base", name, self.graph.nodes[id.0].platform.to_string())));
        self.note_foreseen(layer, vec![Unknown::Base(name.to_string())]);
        Chain::default().push(ChainLayer { id: layer, empty: false, base: None })
    }

    fn note_foreseen(&self, layer: LayerId, by: Vec<Unknown>) {
        self.foreseen.lock().expect("nobody panics with it").insert(layer, Foreseen { by });
    }

    /// Gives a node the layer that it will have, or what stands for it, and returns that.
    fn set_foreseen(&self, id: NodeId, key: CacheKey, by: Vec<Unknown>, layer: Option<ChainLayer>) -> ChainLayer {
        let stand_in = || ChainLayer { id: LayerId::Content(placeholder(&("layer", key))), empty: false, base: None };
        let layer = layer.unwrap_or_else(stand_in);
        self.note_foreseen(layer.id, by);
        self.set_layer(id, key, layer, Origin::Made);
        layer
    }

    fn set_layer(&self, id: NodeId, key: CacheKey, layer: ChainLayer, origin: Origin) {
        let chain = self.parent_chain(id).push(layer);
        self.set(id, NodeResult { layer: Some(layer), key: Some(key), origin, ..NodeResult::base(chain) });
    }

    /// Returns what would have to be known to know what is in a file system, each once; nothing: it is known.
    fn unknown_in(&self, chain: &Chain) -> BTreeSet<Unknown> {
        let foreseen = self.foreseen.lock().expect("nobody panics with it");
        let unknown = chain.layers().into_iter().filter(|l| matches!(&l.id, LayerId::Content(c) if is_placeholder(c)));
        unknown.filter_map(|l| foreseen.get(&l.id)).flat_map(|f| f.by.iter().cloned()).collect()
    }

    /// Returns why the files of a file system can't be looked at without making or fetching something; nothing: they can.
    pub(in crate::engine) fn unmade(&self, chain: &Chain) -> Result<Vec<Unknown>, BuildError> {
        let unknown = self.unknown_in(chain);
        if !unknown.is_empty() {
            return Ok(unknown.into_iter().collect());
        }
        for layer in chain.layers().iter().filter(|l| !l.empty) {
            if self.engine.store.layer_dir(&layer.id)?.is_none() {
                let foreseen = self.foreseen.lock().expect("nobody panics with it");
                let by = foreseen.get(&layer.id).and_then(|f| f.by.first().cloned());
                let image = layer.base.and_then(|base| self.inputs.image(self.graph, base)).map(|image| image.origin.clone());
                return Ok(vec![by.unwrap_or_else(|| Unknown::Files(image.unwrap_or_else(|| layer.id.to_string())))]);
            }
        }
        Ok(Vec::new())
    }

    /// Whether some other node of the build stands on this one or reads it.
    pub(super) fn is_used(&self, id: NodeId) -> bool {
        let nodes = self.graph.nodes.iter().zip(&self.needed).filter(|(_, needed)| **needed);
        nodes.flat_map(|(node, _)| order::dependencies(node)).any(|d| d == id)
    }
}
