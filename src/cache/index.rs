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

    /// Returns whether the files of a tree are kept.
    fn has_files(&self, tree: &ContentDigest) -> Result<bool, IndexError>;

    /// Keeps the files of a tree; too many are silently not kept.
    fn save_files(&self, tree: &ContentDigest, files: &FileList) -> Result<(), IndexError>;
}

/// Reads a record's row; none: an older program's, or not what it says that it is.
pub fn record_of(body: &[u8]) -> Option<Record> {
    let record = serde_json::from_slice::<Record>(body).ok()?;
    // The key is derived again: a record must not be believed about what it is the record of.
    (record.inputs.key() == record.key).then_some(record)
}

impl Index for Store {
    fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, IndexError> {
        let Some(row) = self.record(key)? else { return Ok(None) };
        Ok(record_of(&row.body).filter(|r| r.key == *key && r.layer == row.layer))
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

    fn has_files(&self, tree: &ContentDigest) -> Result<bool, IndexError> {
        Ok(self.has_blob_row(NAMED_BY_SLOTS, &tree.hex())?)
    }

    fn save_files(&self, tree: &ContentDigest, files: &FileList) -> Result<(), IndexError> {
        if files.len() > super::files::MAX_ENTRIES {
            return Ok(());
        }
        Ok(self.save_blob_row(NAMED_BY_SLOTS, &tree.hex(), &files.encode())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::FileEntry;
    use super::super::key::{KeyInputs, StepInputs, WorkdirInputs};
    use super::super::state::StateId;
    use super::*;
    use crate::digest::LayerId;
    use crate::image::platform::Platform;
    use crate::store::{Durability, LayerFacts};

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open_with(&dir.path().join("store"), Durability::Unsynced).unwrap()
    }

    fn inputs(path: &str) -> KeyInputs {
        let step = StepInputs::Workdir(WorkdirInputs { path: path.into(), user: String::new() });
        KeyInputs { platform: Platform::new("linux", "amd64", ""), parent: StateId::scratch(), step }
    }

    fn committed(store: &Store, content: ContentDigest) -> LayerId {
        let (staging, id) = (store.stage().unwrap(), LayerId::Content(content));
        store.commit_layer(staging.path(), &id, LayerFacts { content: Some(content), size_bytes: 0, entries: 0 }).unwrap();
        id
    }

    #[test]
    fn a_saved_record_is_a_hit_as_long_as_its_layer_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let content = ContentDigest::from_bytes([1; 32]);
        let record = Record::new(inputs("/a"), committed(&store, content), content, "WORKDIR /a", 0.25, 9);
        let key = inputs("/a").key();
        assert_eq!(store.lookup(&key).unwrap(), None);
        store.save(&record).unwrap();
        assert_eq!(store.lookup(&key).unwrap(), Some(record.clone()));
        store.flush().unwrap();
        assert_eq!(open(&dir).lookup(&key).unwrap(), Some(record.clone()));
        assert_eq!(store.lookup(&inputs("/b").key()).unwrap(), None);
        store.discard_layer(&record.layer).unwrap();
        assert_eq!(store.lookup(&key).unwrap(), None);
    }

    #[test]
    fn a_record_of_other_inputs_or_none_at_all_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let content = ContentDigest::from_bytes([1; 32]);
        let layer = committed(&store, content);
        let honest = Record::new(inputs("/a"), layer, content, "", 0.0, 0);
        let (a, b) = (inputs("/a").key(), inputs("/b").key());
        let bodies =
            [serde_json::to_vec(&Record { key: b, ..honest.clone() }).unwrap(), serde_json::to_vec(&honest).unwrap(), b"{}".to_vec()];
        for (n, body) in (0..).zip(bodies) {
            let row = RecordRow { key: b, layer, content, cost_secs: 0.0, created_secs: n, body };
            store.put_record(row).unwrap();
            assert_eq!(store.lookup(&b).unwrap(), None);
        }
        assert_eq!(store.lookup(&a).unwrap(), None);
    }

    #[test]
    fn slots_and_lists_of_files_live_and_are_collected_together() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let tree = ContentDigest::from_bytes([5; 32]);
        let files = FileList::of([(&b"a"[..], FileEntry { mode: 0o100_644, content: Some(tree), ..FileEntry::default() })]);
        store.save_files(&tree, &files).unwrap();
        let id = SlotId::derive("/ctx/Dockerfile", "build", "COPY", 0);
        assert_ne!(id, SlotId::derive("/ctx/Dockerfile", "build", "COPY", 1));
        assert_eq!(store.slot(&id).unwrap(), None);
        let copy = super::super::key::CopyInputs {
            sources: vec![super::super::key::SourceInputs {
                kind: super::super::key::SourceKind::Path,
                pattern: "a".into(),
                matches: vec![super::super::key::MatchInputs { name: "a".into(), content: tree }],
            }],
            ..Default::default()
        };
        let slot = Slot {
            inputs: KeyInputs { step: StepInputs::Copy(Box::new(copy)), ..inputs("/") },
            ..Slot::new(inputs("/"), vec!["a".into()])
        };
        store.set_slot(&id, &slot).unwrap();
        assert_eq!(store.slot(&id).unwrap(), Some(slot.clone()));
        store.prune(&Default::default(), &|rows| super::super::worth::appraise(rows, &Default::default())).unwrap();
        assert_eq!(store.files(&tree).unwrap(), Some(files));
        store.set_slot(&id, &Slot { inputs: inputs("/"), ..slot }).unwrap();
        store.prune(&Default::default(), &|rows| super::super::worth::appraise(rows, &Default::default())).unwrap();
        assert_eq!(store.files(&tree).unwrap(), None);
    }
}
