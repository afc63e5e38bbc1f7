//! The cache's index: records by key, slots by place. One small trait, so that another machine's cache can stand
//! behind it, and its form on the store.
//!
//! A row that can't be read (an older program's) is a miss, not an error: the step runs and the row is replaced.

use super::files::FileList;
use super::record::{Record, Slot, SlotId};
use crate::digest::{CacheKey, ContentDigest};
use crate::store::{NAMED_BY_SLOTS, RecordRow, Store, StoreError};

/// A failure of the index.
#[derive(Debug, thiserror::Error)]
#[error("using the layer cache")]
pub struct IndexError(#[from] StoreError);

/// What a build asks of a cache.
pub trait Index: Send + Sync {
    /// Returns the newest record of a key whose layer can be had. Never a guess: what is returned is a hit.
    fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, IndexError>;

    /// Keeps a record. Its layer is committed. Visible at once to this process; to others, and after a power cut, when
    /// the layer is safe.
    fn save(&self, record: &Record) -> Result<(), IndexError>;

    /// Returns the last inputs of a place.
    fn slot(&self, id: &SlotId) -> Result<Option<Slot>, IndexError>;

    /// Replaces the last inputs of a place.
    fn set_slot(&self, id: &SlotId, slot: &Slot) -> Result<(), IndexError>;

    /// Returns the files of a tree, when they are kept.
    fn files(&self, tree: &ContentDigest) -> Result<Option<FileList>, IndexError>;

    /// Keeps the files of a tree; too many are silently not kept.
    fn save_files(&self, tree: &ContentDigest, files: &FileList) -> Result<(), IndexError>;
}

impl Index for Store {
    fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, IndexError> {
        let Some(row) = self.record(key)? else { return Ok(None) };
        let record = serde_json::from_slice::<Record>(&row.body).ok();
        // The key is derived again: a record must not be believed about what it is the record of.
        Ok(record.filter(|r| r.key == *key && r.inputs.key() == *key && r.layer == row.layer))
    }

    fn save(&self, record: &Record) -> Result<(), IndexError> {
        let Record { key, layer, content, cost_secs, created_secs, .. } = record;
        let body = serde_json::to_vec(record).expect("a record is text and numbers");
        let row = RecordRow { key: *key, layer: *layer, content: *content, cost_secs: *cost_secs, created_secs: *created_secs, body };
        Ok(self.put_record(row)?)
    }

    fn slot(&self, id: &SlotId) -> Result<Option<Slot>, IndexError> {
        Ok(self.slot_row(id.as_str())?.and_then(|body| serde_json::from_slice(&body).ok()))
    }

    fn set_slot(&self, id: &SlotId, slot: &Slot) -> Result<(), IndexError> {
        let body = serde_json::to_vec(slot).expect("a slot is text and numbers");
        Ok(self.put_slot_row(id.as_str(), body)?)
    }

    fn files(&self, tree: &ContentDigest) -> Result<Option<FileList>, IndexError> {
        Ok(self.load_blob_row(NAMED_BY_SLOTS, &tree.hex())?.and_then(|bytes| FileList::decode(&bytes)))
    }

    fn save_files(&self, tree: &ContentDigest, files: &FileList) -> Result<(), IndexError> {
        if files.len() > super::files::MAX_ENTRIES {
            return Ok(());
        }
        Ok(self.save_blob_row(NAMED_BY_SLOTS, &tree.hex(), &files.encode())?)
    }
}
