//! Layers: their directories, and what is known of them in their other forms.
//!
//! A layer is a directory (made by `snapshot` or `layer`), a tar (its [`DiffId`]) and compressed blobs. Which
//! forms exist is what the tables here say: a layer of a base image may have only a blob, a layer just built only a
//! directory, or only its tar when no step needed its files. What was once computed (diff ID, compression) is kept.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::db::{parsed, uint};
use super::rows::Row;
use super::{Result, Store, StoreError};
use crate::digest::{ContentDigest, DiffId, Digest, LayerId};

/// What is known of a layer's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerFacts {
    /// The digest of its change set; none: an unpacked base layer that nobody digested.
    pub content: Option<ContentDigest>,
    /// Bytes of its regular files.
    pub size_bytes: u64,
    /// How many names it has.
    pub entries: u64,
}

/// One compressed (or plain) form of a layer's tar, stored as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// The blob.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// Its media type in a manifest.
    pub media_type: String,
    /// How it was made, parameters included (`gzip-6`, `zstd-3`, `none`); `original`: it came so.
    pub compression: String,
}

impl Store {
    /// Puts the directory `staged` (on the store's file system) in place as the layer `id`, and holds it.
    ///
    /// When the layer is there already, that one stays and `staged` is left to its owner, to be dropped. Before the
    /// next [`Store::flush`] a power cut may take the layer away again, together with every record of it.
    pub fn commit_layer(&self, staged: &Path, id: &LayerId, facts: LayerFacts) -> Result<PathBuf> {
        let path = self.layer_path(id);
        // Held before it is named, so that no collection sees it unprotected.
        self.hold(&[*id])?;
        if self.layer_dir(id)?.is_some() {
            return Ok(path);
        }
        match renameat_with(CWD, staged, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.held(false)?.contains(&id.to_string()) => {
                // A live process put it there a moment ago and has not written its row yet: that one is as good.
            }
            Err(Errno::EXIST) => {
                // Left without a row by a kill or a power cut: its files may be empty.
                renameat_with(CWD, staged, CWD, &path, RenameFlags::EXCHANGE).map_err(StoreError::os("replacing", &path))?;
            }
            Err(e) => return Err(StoreError::os("naming", &path)(e)),
        }
        self.committer.push(Row::Layer { id: *id, facts })?;
        Ok(path)
    }

    /// Returns the layer's directory; none: it was never unpacked, or is not whole.
    pub fn layer_dir(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let path = self.layer_path(id);
        if self.is_in_place(id) {
            return Ok(Some(path));
        }
        if self.layer_facts(id)?.is_none() {
            return Ok(None);
        }
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                self.note_in_place(id);
                Ok(Some(path))
            }
            Ok(_) => Ok(None),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("looking at", &path)(e)),
        }
    }

    /// Returns what is known of a layer's directory.
    pub fn layer_facts(&self, id: &LayerId) -> Result<Option<LayerFacts>> {
        let queued = self.committer.find(|row| match row {
            Row::Layer { id: i, facts } if i == id => Some(*facts),
            _ => None,
        })?;
        if queued.is_some() {
            return Ok(queued);
        }
        let sql = "SELECT content,size_bytes,entries FROM layers WHERE id=?1";
        let row = self.one(sql, [id.to_string()], |r| Ok((r.get::<_, Option<String>>(0)?, r.get(1)?, r.get(2)?)))?;
        let Some((content, size, entries)) = row else { return Ok(None) };
        let content = content.map(|c| parsed("content digest", &c)).transpose()?;
        Ok(Some(LayerFacts { content, size_bytes: uint(size), entries: uint(entries) }))
    }

    /// Returns whether the layer can be had in any form: as a directory or as a blob.
    pub fn layer_known(&self, id: &LayerId) -> Result<bool> {
        Ok(self.layer_dir(id)?.is_some() || self.layer_tar(id)?.is_some())
    }

    /// Returns the diff ID of a tar of the layer that can be had from a blob: of several the one with the least changed
    /// times. None: the layer is here as a directory, or not at all.
    pub fn layer_tar(&self, id: &LayerId) -> Result<Option<DiffId>> {
        let candidates = match id {
            LayerId::Diff(diff_id) => vec![*diff_id],
            LayerId::Content(_) => self.diff_ids(id)?,
        };
        for diff_id in candidates {
            for blob in self.layer_blobs(&diff_id)? {
                if self.blob_is_there(&blob.digest)? {
                    return Ok(Some(diff_id));
                }
            }
        }
        Ok(None)
    }

    /// Returns the diff IDs noted for a layer, that of the unclamped tar first.
    fn diff_ids(&self, layer: &LayerId) -> Result<Vec<DiffId>> {
        let sql = "SELECT epoch,diff_id FROM layer_diffs WHERE layer=?1";
        let rows = self.all(sql, [layer.to_string()], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?)))?;
        let mut found = Vec::with_capacity(rows.len());
        for (epoch, diff_id) in rows {
            found.push((epoch, parsed("diff id", &diff_id)?));
        }
        self.committer.find(|row| {
            if let Row::Diff { layer: l, epoch, diff_id, .. } = row
                && l == layer
            {
                found.push((*epoch, *diff_id));
            }
            None::<()>
        })?;
        found.sort_unstable_by_key(|(epoch, _)| (*epoch != NO_CLAMP, std::cmp::Reverse(*epoch)));
        Ok(found.into_iter().map(|(_, diff_id)| diff_id).collect())
    }

    /// Notes the diff ID and tar size that a layer has when times are clamped to `epoch` (unix seconds; none: as they are).
    pub fn put_diff_id(&self, layer: &LayerId, epoch: Option<i64>, diff_id: DiffId, tar_bytes: u64) -> Result<()> {
        self.committer.push(Row::Diff { layer: *layer, epoch: epoch_column(epoch), diff_id, tar_bytes })
    }

    /// Returns the diff ID and tar size noted for a layer and a clamp.
    pub fn diff_id(&self, layer: &LayerId, epoch: Option<i64>) -> Result<Option<(DiffId, u64)>> {
        let column = epoch_column(epoch);
        let queued = self.committer.find(|row| match row {
            Row::Diff { layer: l, epoch: e, diff_id, tar_bytes } if l == layer && *e == column => Some((*diff_id, *tar_bytes)),
            _ => None,
        })?;
        if queued.is_some() {
            return Ok(queued);
        }
        let sql = "SELECT diff_id,tar_bytes FROM layer_diffs WHERE layer=?1 AND epoch=?2";
        let row = self.one(sql, rusqlite::params![layer.to_string(), column], |r| Ok((r.get::<_, String>(0)?, r.get(1)?)))?;
        row.map(|(d, bytes)| Ok((parsed("diff id", &d)?, uint(bytes)))).transpose()
    }

    /// Returns the clamp under which a layer has this diff ID; none: no such diff ID was noted for it.
    pub fn clamp_of(&self, layer: &LayerId, diff_id: &DiffId) -> Result<Option<Option<i64>>> {
        let queued = self.committer.find(|row| match row {
            Row::Diff { layer: l, epoch, diff_id: d, .. } if l == layer && d == diff_id => Some(*epoch),
            _ => None,
        })?;
        let sql = "SELECT epoch FROM layer_diffs WHERE layer=?1 AND diff_id=?2 ORDER BY epoch";
        let column = match queued {
            Some(column) => Some(column),
            None => self.one(sql, [layer.to_string(), diff_id.to_string()], |r| r.get::<_, i64>(0))?,
        };
        Ok(column.map(|c| (c != NO_CLAMP).then_some(c)))
    }

    /// Notes a blob that holds the tar of `diff_id`; the blob was put before.
    pub fn put_layer_blob(&self, diff_id: &DiffId, blob: LayerBlob) -> Result<()> {
        self.committer.push(Row::LayerBlob { diff_id: *diff_id, blob })
    }

    /// Returns the blobs known for a tar, those that came with an image first. Check each with [`Store::has_blob`].
    pub fn layer_blobs(&self, diff_id: &DiffId) -> Result<Vec<LayerBlob>> {
        let rows = self.all("SELECT digest,size_bytes,media_type,compression FROM layer_blobs WHERE diff_id=?1 ORDER BY compression<>'original', compression",
            [diff_id.to_string()],
            |r| Ok((r.get::<_, String>(0)?, r.get(1)?, r.get(2)?, r.get(3)?)),
        )?;
        let mut blobs = Vec::with_capacity(rows.len());
        for (digest, size, media_type, compression) in rows {
            blobs.push(LayerBlob { digest: parsed("digest", &digest)?, size_bytes: uint(size), media_type, compression });
        }
        self.committer.find(|row| {
            if let Row::LayerBlob { diff_id: d, blob } = row
                && d == diff_id
                && !blobs.contains(blob)
            {
                blobs.push(blob.clone());
            }
            None::<()>
        })?;
        Ok(blobs)
    }

    pub(super) fn layer_path(&self, id: &LayerId) -> PathBuf {
        self.root.join("layers").join(id.to_string())
    }
}

/// No clamp has a number that no file system can hold as a time.
const NO_CLAMP: i64 = i64::MIN;

fn epoch_column(epoch: Option<i64>) -> i64 {
    epoch.unwrap_or(NO_CLAMP)
}
