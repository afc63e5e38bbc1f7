//! What a build asks of the shared caches at its steps and at its end, and what it gives them.

use std::time::Duration;

use crate::cache::miss::Reason;
use crate::cache::record::{Record, Slot};
use crate::digest::{CacheKey, LayerId};
use crate::engine::commit::Made;
use crate::engine::error::BuildError;
use crate::engine::export::fits;
use crate::engine::request::{Output, Purpose};
use crate::engine::session::Build;
use crate::engine::sources::{BlobRef, side_by_side};
use crate::engine::state::ChainLayer;
use crate::graph::{FileTree, NodeId};

use super::export::Found;
use super::import::Elsewhere;
use super::place::SharingError;

impl Build<'_> {
    /// Returns another machine's result of a step whose key is not in the store's index.
    pub fn found_elsewhere(&self, id: NodeId, key: &CacheKey) -> Result<Option<Record>, BuildError> {
        if !self.sharing.has_sources() || self.uncached(id) {
            return Ok(None);
        }
        self.sharing.lookup(key).map_err(|e| self.failed(id, "asking the shared caches", &e))
    }

    /// Returns what shared caches know of a selection from a tree that is not a directory here.
    pub fn selection_elsewhere(&self, from: &FileTree, memory: &str) -> Result<Option<Vec<u8>>, BuildError> {
        let FileTree::Node(node) = from else { return Ok(None) };
        if !self.sharing.has_sources() {
            return Ok(None);
        }
        for layer in self.result(*node).chain.layers().iter().filter(|l| !l.empty) {
            if self.engine.store.layer_dir(&layer.id)?.is_none() {
                return Ok(self.sharing.selection(memory));
            }
        }
        Ok(None)
    }

    /// Makes the reason of a miss more telling by what other machines had in the step's place.
    pub fn reason_elsewhere(&self, id: NodeId, slot: &Slot, reason: Reason) -> Result<Reason, BuildError> {
        if reason != Reason::FirstBuild || !self.sharing.has_sources() {
            return Ok(reason);
        }
        Ok(self.explained_elsewhere(id, slot)?.unwrap_or(reason))
    }

    /// Returns whether a layer that is not here changes nothing; none: it is not known elsewhere either.
    pub fn is_empty_elsewhere(&self, layer: &LayerId) -> Result<Option<bool>, BuildError> {
        Ok(self.elsewhere(layer)?.map(|known| known.form.empty))
    }

    /// Gives a step's result to the caches that are written.
    pub fn share(&self, id: NodeId, record: &Record, layer: ChainLayer) {
        if self.sharing.has_sinks() {
            self.sharing.send_step(self, id, record.clone(), layer, Found::Stays);
        }
    }

    /// As [`Build::share`], for a step that ran.
    pub fn share_made(&self, id: NodeId, slot: &Slot, made: &Made, took: Duration, reason: &Reason) {
        let LayerId::Content(content) = made.layer.id else { return };
        if self.sharing.has_sinks() {
            let title = &self.graph.nodes[id.0].title;
            let record = Record::new(slot.inputs.clone(), made.layer.id, content, title, took.as_secs_f64(), made.created_secs);
            let found = if *reason == Reason::NoCache { Found::Goes } else { Found::Stays };
            self.sharing.send_step(self, id, record, made.layer, found);
        }
    }

    /// Brings the layers here that only a shared cache has.
    pub fn bring(&self, layers: &[LayerId]) -> Result<(), BuildError> {
        let mut missing = Vec::new();
        for layer in layers {
            if self.elsewhere(layer)?.is_some() && !missing.contains(layer) {
                missing.push(*layer);
            }
        }
        side_by_side(&missing, self.engine.client.config().parallel, &|layer| {
            self.sharing.fetch(layer).map_err(|e| self.unfetched(layer, &e))
        })
    }

    fn unfetched(&self, layer: &LayerId, error: &SharingError) -> BuildError {
        let place = self.sharing.elsewhere(layer).ok().flatten().map(|known| self.sharing.place_of(&known).shown());
        let place = place.unwrap_or_else(|| "a shared cache".into());
        BuildError::caused(format!("fetching a layer from the cache {place}"), error)
            .hint("build without that --cache-from, or with --no-cache")
    }

    fn elsewhere(&self, layer: &LayerId) -> Result<Option<std::sync::Arc<Elsewhere>>, BuildError> {
        self.sharing.elsewhere(layer).map_err(|e| BuildError::caused("looking for a layer", &e))
    }

    /// Returns the diff ID and tar size of a layer that only a shared cache has, under this build's clamp.
    pub fn diff_id_elsewhere(&self, layer: &LayerId) -> Result<Option<(crate::digest::DiffId, u64)>, BuildError> {
        let Some(known) = self.elsewhere(layer)? else { return Ok(None) };
        Ok(known.form.serves(self.epoch).then_some((known.form.diff_id, known.form.tar_bytes)))
    }

    /// Names the blob of a layer that only a shared cache has.
    pub fn blob_elsewhere(&self, layer: &LayerId) -> Result<Option<BlobRef>, BuildError> {
        Ok(self.elsewhere(layer)?.map(|known| self.sharing.blob(&known)))
    }

    /// Brings the result's layers here, as far as the outputs need their bytes: an image that is only pushed is put together
    /// in the registry, of blobs that are there.
    pub fn bring_results(&self) -> Result<(), BuildError> {
        self.bring(&self.wanted_results()?)
    }

    /// Returns the result's layers that only a shared cache has and whose bytes the outputs need.
    pub fn wanted_results(&self) -> Result<Vec<LayerId>, BuildError> {
        let outputs = &self.request.outputs;
        if self.request.purpose == Purpose::Prebuild {
            return Ok(Vec::new());
        }
        let here = are_written_here(outputs);
        let mut wanted = Vec::new();
        for layer in self.result_layers() {
            let Some(known) = self.elsewhere(&layer.id)? else { continue };
            let pushed_so = |o: &Output| match o {
                Output::Registry(push) => fits(&self.sharing.blob(&known), Some(&known.form.compression), push.packing),
                _ => true,
            };
            if here || !known.form.serves(self.epoch) || !outputs.iter().all(pushed_so) {
                wanted.push(layer.id);
            }
        }
        Ok(wanted)
    }

    /// Returns the blob, and the cache that has it, of a layer that is not here.
    pub fn to_be_fetched(&self, layer: &LayerId) -> Result<Option<(BlobRef, String)>, BuildError> {
        Ok(self.elsewhere(layer)?.map(|known| (self.sharing.blob(&known), self.sharing.place_of(&known).shown())))
    }

    /// The layers of the result that steps made.
    fn result_layers(&self) -> Vec<ChainLayer> {
        let last = self.graph.stages[self.graph.target].last;
        self.result(last).chain.layers().into_iter().filter(|l| l.base.is_none()).collect()
    }
}

/// Whether an output has to be written from bytes that are here.
fn are_written_here(outputs: &[Output]) -> bool {
    outputs.is_empty() || outputs.iter().any(|o| !matches!(o, Output::None | Output::Registry(_)))
}

/// Whether the base images have to be here in whole when the steps are done: not for an image that is put together in the
/// registry, of layers that a shared cache has, nor for none.
pub(in crate::engine) fn bases_are_needed(builds: &[Build<'_>]) -> Result<bool, BuildError> {
    let Some(request) = builds.first().map(|b| b.request) else { return Ok(true) };
    if are_written_here(&request.outputs) || request.cache_from.is_empty() {
        return Ok(true);
    }
    if !request.outputs.iter().any(|o| matches!(o, Output::Registry(_))) {
        return Ok(false);
    }
    for build in builds {
        for layer in build.result_layers() {
            if build.elsewhere(&layer.id)?.is_some() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
