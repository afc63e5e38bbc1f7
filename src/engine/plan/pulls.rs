//! What a build would fetch, in bytes as they come over the wire.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::digest::LayerId;
use crate::engine::error::BuildError;
use crate::engine::session::Build;
use crate::engine::state::Chain;
use crate::graph::{NodeId, Op, order};

use super::{Outcome, PlannedStep};

/// Layers that come from one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pull {
    /// An image's name, or a shared cache's.
    pub from: String,
    /// How many.
    pub layers: usize,
    /// Compressed, as they come.
    pub bytes: u64,
    /// Only if a step runs of which that is not certain.
    pub perhaps: bool,
}

/// Adds up what the steps that run, and the result, need of what is not here. `bases`: the images themselves come too, in
/// the end.
pub(super) fn of(builds: &[Build<'_>], steps: &[PlannedStep], bases: bool) -> Result<Vec<Pull>, BuildError> {
    let mut gathered = Gathered { pulls: Vec::new(), seen: BTreeSet::new() };
    // First what certainly comes, so that the rest is what comes perhaps.
    for perhaps in [false, true] {
        for build in builds {
            for id in (0..build.graph.nodes.len()).map(NodeId).filter(|id| build.needed[id.0]) {
                let runs = build.steps[id.0].is_some_and(|step| match steps[step].outcome {
                    Outcome::Runs { .. } => !perhaps,
                    Outcome::Depends(_) => perhaps,
                    _ => false,
                });
                if runs {
                    let own = matches!(&build.graph.nodes[id.0].op, Op::Copy(op) if op.link && op.chown.is_none());
                    let parent = build.graph.nodes[id.0].parent;
                    for read in order::dependencies(&build.graph.nodes[id.0]).into_iter().filter(|d| !own || Some(*d) != parent) {
                        gathered.chain(build, &build.result(read).chain, perhaps)?;
                    }
                }
                if bases && !perhaps && build.steps[id.0].is_none() {
                    gathered.chain(build, &build.result(id).chain, false)?;
                }
            }
            if !perhaps {
                for layer in build.wanted_results()? {
                    gathered.layer(build, &layer, false)?;
                }
            }
        }
    }
    Ok(gathered.pulls)
}

struct Gathered {
    pulls: Vec<Pull>,
    seen: BTreeSet<LayerId>,
}

impl Gathered {
    fn chain(&mut self, build: &Build<'_>, chain: &Chain, perhaps: bool) -> Result<(), BuildError> {
        for layer in chain.layers().iter().filter(|l| !l.empty) {
            match layer.base {
                Some(base) => self.of_base(build, base, &layer.id, perhaps)?,
                None => self.layer(build, &layer.id, perhaps)?,
            }
        }
        Ok(())
    }

    fn of_base(&mut self, build: &Build<'_>, base: NodeId, id: &LayerId, perhaps: bool) -> Result<(), BuildError> {
        let Some(image) = build.inputs.image(build.graph, base) else { return Ok(()) };
        let Some(blob) = image.layers.iter().find(|l| l.id == *id).and_then(|l| l.blob.as_ref()) else { return Ok(()) };
        let far = build.inputs.sources().place_elsewhere(blob).map_err(|e| BuildError::caused("looking for a base image's layers", &e))?;
        if far.is_some() && self.seen.insert(*id) {
            self.add(&image.origin, blob.descriptor.size, perhaps);
        }
        Ok(())
    }

    fn layer(&mut self, build: &Build<'_>, id: &LayerId, perhaps: bool) -> Result<(), BuildError> {
        if let Some((blob, place)) = build.to_be_fetched(id)?
            && self.seen.insert(*id)
        {
            self.add(&place, blob.descriptor.size, perhaps);
        }
        Ok(())
    }

    fn add(&mut self, from: &str, bytes: u64, perhaps: bool) {
        match self.pulls.iter_mut().find(|p| p.from == from && p.perhaps == perhaps) {
            Some(pull) => (pull.layers, pull.bytes) = (pull.layers + 1, pull.bytes + bytes),
            None => self.pulls.push(Pull { from: from.into(), layers: 1, bytes, perhaps }),
        }
    }
}
