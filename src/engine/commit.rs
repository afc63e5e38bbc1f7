//! From what a finished step left to a layer in the store and a record of it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::cache::index::Index as _;
use crate::cache::record::Record;
use crate::digest::{ContentDigest, DiffId, Digest, LayerId};
use crate::graph::NodeId;
use crate::image::manifest::media;
use crate::layer::{self, FileBytes, LayerDigests, LayerError};
use crate::snapshot::diff::{self, ChangeSet};
use crate::store::{LayerBlob, LayerFacts};

use super::decide::Decision;
use super::error::BuildError;
use super::files::Unwritten;
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

/// What a step's layer holds; the layer is in the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    digest: ContentDigest,
    empty: bool,
    /// Of its files; of a layer that stayed a tar, of that.
    bytes: u64,
}

/// What was being done when a step's result could not be kept.
const KEEPING: &str = "keeping the step's result";

/// A layer that a step made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// Which.
    pub layer: ChainLayer,
    /// When, in unix seconds.
    pub created_secs: i64,
    /// Whether there is a record of it.
    pub recorded: bool,
    /// Its size.
    pub bytes: u64,
}

impl Build<'_> {
    /// Puts a step's layer directory into the store.
    ///
    /// Where the store has a layer of equal content already, that one is used and ours is dropped: its times, and so
    /// its tar and the image's digest, stay as they were.
    pub fn commit(&self, id: NodeId, dir: &Path) -> Result<Content, BuildError> {
        let store = self.engine.store;
        let failed = |e: &(dyn std::error::Error + 'static)| self.failed(id, KEEPING, e);
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
        Ok(Content { digest: digests.content, empty: changes.is_empty(), bytes: changes.file_bytes() })
    }

    /// Puts a step's layer into the store as its tar: `dir` has what was written of it, `files` all else.
    pub fn commit_packed(&self, id: NodeId, dir: &Path, files: &Unwritten) -> Result<Content, BuildError> {
        let store = self.engine.store;
        let failed = |e: &(dyn std::error::Error + 'static)| self.failed(id, KEEPING, e);
        let written = open(dir).map_err(|e| failed(&e))?;
        let changes = files.deferred.complete(diff::changes(&written).map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
        let mut tar = store.new_blob().map_err(|e| failed(&e))?;
        let write = |bytes: &mut dyn FileBytes| layer::write_files_and_digest(&changes, bytes, None, &mut tar);
        let digests = files.deferred.reading(&files.tree, written.as_fd(), &self.engine.cancel, write).map_err(|e| failed(&e))?;
        let LayerDigests { content, diff_id, tar_size_bytes } = digests;
        let layer = LayerId::Content(content);
        store.hold(&[layer]).map_err(|e| failed(&e))?;
        if !store.layer_known(&layer).map_err(|e| failed(&e))? {
            let digest = Digest::from_bytes(*diff_id.as_bytes());
            tar.keep(&digest, tar_size_bytes).map_err(|e| failed(&e))?;
            let (media_type, compression) = (media::OCI_LAYER.into(), "none".into());
            let blob = LayerBlob { digest, size_bytes: tar_size_bytes, media_type, compression };
            store.put_layer_blob(&diff_id, blob).map_err(|e| failed(&e))?;
            store.put_diff_id(&layer, None, diff_id, tar_size_bytes).map_err(|e| failed(&e))?;
        }
        Ok(Content { digest: content, empty: false, bytes: tar_size_bytes })
    }

    /// Keeps a record of a step whose layer is in the store.
    pub fn record(&self, id: NodeId, made: Content, decision: &Decision, took: Duration, keep: Keep) -> Result<Made, BuildError> {
        let layer = LayerId::Content(made.digest);
        let created_secs = self.engine.now_secs();
        let recorded = keep == Keep::Record;
        if recorded {
            let title = &self.graph.nodes[id.0].title;
            let record = Record::new(decision.slot.inputs.clone(), layer, made.digest, title, took.as_secs_f64(), created_secs);
            self.engine.store.save(&record).map_err(|e| self.failed(id, KEEPING, &e))?;
        }
        Ok(Made { layer: ChainLayer { id: layer, empty: made.empty, base: None }, created_secs, recorded, bytes: made.bytes })
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
        // What follows takes its time, and others may do it meanwhile.
        store.end_snapshot();
        self.bring(&[*layer])?;
        // Ours refers to nothing below.
        let dir = self.built_dir(layer, &[])?;
        let (_, digests) = self.digest(&dir).map_err(|e| failed(&e))?;
        store.put_diff_id(layer, self.epoch, digests.diff_id, digests.tar_size_bytes).map_err(|e| failed(&e))?;
        Ok((digests.diff_id, digests.tar_size_bytes))
    }

    /// Returns the digest of what is in a layer directory.
    pub fn content(&self, id: NodeId, dir: &Path) -> Result<ContentDigest, BuildError> {
        self.digest(dir).map(|(_, digests)| digests.content).map_err(|e| self.failed(id, "digesting its result", &e))
    }

    /// Digests a layer directory under this build's clamp.
    fn digest(&self, dir: &Path) -> Result<(ChangeSet, LayerDigests), LayerError> {
        let fd = open(dir)?;
        let changes = diff::changes(&fd)?;
        let digests = layer::write_and_digest(&changes, &fd, self.epoch, &mut self.engine.cancel.sink())?;
        Ok((changes, digests))
    }
}

fn open(dir: &Path) -> Result<OwnedFd, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| LayerError::Read { source: e.into() })
}
