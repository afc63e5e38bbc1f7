//! From a finished step's layer directory to a layer in the store and a record of it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::cache::index::Index as _;
use crate::cache::record::Record;
use crate::digest::{DiffId, LayerId};
use crate::graph::NodeId;
use crate::layer::{self, LayerDigests};
use crate::snapshot::diff::{self, ChangeSet};
use crate::store::LayerFacts;

use super::decide::Decision;
use super::error::BuildError;
use super::session::Build;
use super::state::ChainLayer;

/// What becomes of a step's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Later builds may take it.
    Record,
    /// This build only: what the step read may not be what its key says.
    LayerOnly,
}

/// A layer that a step made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// Which.
    pub layer: ChainLayer,
    /// When, in unix seconds.
    pub created_secs: i64,
    /// Whether there is a record of it.
    pub recorded: bool,
}

impl Build<'_> {
    /// Puts a step's layer directory into the store.
    ///
    /// Where the store has a layer of equal content already, that one is used and ours is dropped: its times, and so
    /// its tar and the image's digest, stay as they were.
    pub fn commit(&self, id: NodeId, dir: &Path, decision: &Decision, took: Duration, keep: Keep) -> Result<Made, BuildError> {
        let store = self.engine.store;
        let failed = |e: &(dyn std::error::Error + 'static)| self.failed(id, "keeping the step's result", e);
        let (changes, digests) = self.digest(dir).map_err(|e| failed(&e))?;
        let layer = LayerId::Content(digests.content);
        store.hold(&[layer]).map_err(|e| failed(&e))?;
        if !store.layer_known(&layer).map_err(|e| failed(&e))? {
            let facts =
                LayerFacts { content: Some(digests.content), size_bytes: changes.file_bytes(), entries: changes.entries.len() as u64 };
            let inode = |path: &Path| std::fs::symlink_metadata(path).map(|m| m.ino()).map_err(|e| failed(&e));
            let ours = inode(dir)?;
            let kept = store.commit_layer(dir, &layer, facts).map_err(|e| failed(&e))?;
            // Somebody may have put an equal layer in place since we asked: with other times, and so another tar.
            if inode(&kept)? == ours {
                store.put_diff_id(&layer, self.epoch, digests.diff_id, digests.tar_size_bytes).map_err(|e| failed(&e))?;
            }
        }
        let created_secs = self.engine.now_secs();
        if keep == Keep::LayerOnly {
            return Ok(Made { layer: ChainLayer { id: layer, empty: changes.is_empty(), base: None }, created_secs, recorded: false });
        }
        let title = &self.graph.nodes[id.0].title;
        let record = Record::new(decision.slot.inputs.clone(), layer, digests.content, title, took.as_secs_f64(), created_secs);
        store.save(&record).map_err(|e| failed(&e))?;
        Ok(Made { layer: ChainLayer { id: layer, empty: changes.is_empty(), base: None }, created_secs, recorded: true })
    }

    /// Returns a built layer's diff ID and tar size under this build's clamp.
    pub fn diff_id(&self, layer: &LayerId) -> Result<(DiffId, u64), BuildError> {
        let store = self.engine.store;
        let failed = |e: &(dyn std::error::Error + 'static)| BuildError::caused(format!("digesting layer {layer}"), e);
        if let Some(known) = store.diff_id(layer, self.epoch).map_err(|e| failed(&e))? {
            return Ok(known);
        }
        if let Some(known) = self.diff_id_elsewhere(layer)? {
            return Ok(known);
        }
        self.bring(&[*layer])?;
        // Ours refers to nothing below.
        let dir = self.built_dir(layer, &[])?;
        let (_, digests) = self.digest(&dir).map_err(|e| failed(&e))?;
        store.put_diff_id(layer, self.epoch, digests.diff_id, digests.tar_size_bytes).map_err(|e| failed(&e))?;
        Ok((digests.diff_id, digests.tar_size_bytes))
    }

    /// Digests a layer directory under this build's clamp.
    fn digest(&self, dir: &Path) -> Result<(ChangeSet, LayerDigests), layer::LayerError> {
        let open = || rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let fd = open().map_err(|e| layer::LayerError::Read { source: e.into() })?;
        let changes = diff::changes(&fd)?;
        let digests = layer::write_and_digest(&changes, &fd, self.epoch, &mut self.engine.cancel.sink())?;
        Ok((changes, digests))
    }
}
