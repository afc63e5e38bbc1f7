//! The rows that are written behind the caller's back, and the plain tables that other modules give a meaning.
//!
//! A [`Row`] is both the entry of the commit queue and, until it is written, this process's view of it: readers
//! ask the queue first, the database second. In this order nothing falls between.

use rusqlite::{Transaction, params};

use super::db::{int, parsed, uint};
use super::image::Source;
use super::layers::{LayerBlob, LayerFacts};
use super::lock::StepGuard;
use super::{Result, Store, StoreError};
use crate::digest::{CacheKey, ContentDigest, DiffId, Digest, LayerId};

/// The kind of those values that are named by a digest which slots and the log of builds mention: collected when neither
/// does any more.
pub const NAMED_BY_SLOTS: &str = "files";

/// The kind of those values that are made again at little cost: dropped whenever records are collected, since what they
/// were made of may be gone.
pub const MADE_AGAIN: &str = "selection";

/// The kind of those values that tell of a download: JSON with the blob's `digest` and `used_secs`, when it was last of
/// use. Such a blob is kept while its value is.
pub const DOWNLOADS: &str = "download";

/// The kind of those values that tell which images a name stands for besides the one that it names: JSON with `images`, and
/// `blobs` to be kept with them. It counts while the name names one of these images.
pub const SEVERAL: &str = "several";

/// One queued write.
pub(super) enum Row {
    Blob {
        digest: Digest,
        size_bytes: u64,
    },
    Layer {
        id: LayerId,
        facts: LayerFacts,
    },
    Diff {
        layer: LayerId,
        epoch: i64,
        diff_id: DiffId,
        tar_bytes: u64,
    },
    LayerBlob {
        diff_id: DiffId,
        blob: LayerBlob,
    },
    Image {
        id: Digest,
        platform: String,
        layers: String,
        manifest: Option<Digest>,
        added: i64,
    },
    Name {
        name: String,
        image: Digest,
    },
    Unname {
        name: String,
    },
    RepoDigest {
        image: Digest,
        name: String,
    },
    Source(Source, String),
    Record(RecordRow),
    Used {
        keys: Vec<CacheKey>,
        now: i64,
    },
    Slot {
        id: String,
        body: Vec<u8>,
    },
    Pin {
        owner: String,
        layers: Vec<LayerId>,
    },
    /// Nothing to be written: dropped, and so released, when everything before it was.
    Release(#[allow(dead_code)] StepGuard), // held, never read
}

impl Row {
    /// Returns whether the row may be written only once the files that it speaks of are safe.
    pub(super) fn vouches(&self) -> bool {
        !matches!(self, Self::Used { .. } | Self::Slot { .. } | Self::Release(_))
    }

    pub(super) fn write(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let run = |sql, params: &[&dyn rusqlite::ToSql]| tx.prepare_cached(sql)?.execute(params).map(drop);
        match self {
            Self::Blob { digest, size_bytes } => {
                run("INSERT OR REPLACE INTO blobs VALUES(?1,?2)", params![digest.to_string(), int(*size_bytes)])
            }
            Self::Layer { id, facts } => run(
                "INSERT OR REPLACE INTO layers VALUES(?1,?2,?3,?4)",
                params![id.to_string(), facts.content.map(|c| c.to_string()), int(facts.size_bytes), int(facts.entries)],
            ),
            Self::Diff { layer, epoch, diff_id, tar_bytes } => run(
                "INSERT OR REPLACE INTO layer_diffs VALUES(?1,?2,?3,?4)",
                params![layer.to_string(), epoch, diff_id.to_string(), int(*tar_bytes)],
            ),
            Self::LayerBlob { diff_id, blob } => run(
                "INSERT OR REPLACE INTO layer_blobs VALUES(?1,?2,?3,?4,?5)",
                params![diff_id.to_string(), blob.compression, blob.digest.to_string(), blob.media_type, int(blob.size_bytes)],
            ),
            Self::Image { id, platform, layers, manifest, added } => run(
                "INSERT OR REPLACE INTO images VALUES(?1,?2,?3,?4,?5)",
                params![id.to_string(), platform, layers, manifest.map(|m| m.to_string()), added],
            ),
            Self::Name { name, image } => run(
                "INSERT OR REPLACE INTO names SELECT ?1,?2 WHERE EXISTS(SELECT 1 FROM images WHERE id=?2)",
                params![name, image.to_string()],
            ),
            Self::Unname { name } => run("DELETE FROM names WHERE name=?1", params![name]),
            Self::RepoDigest { image, name } => run("INSERT OR REPLACE INTO repo_digests VALUES(?1,?2)", params![image.to_string(), name]),
            Self::Source(s, platform) => run(
                "INSERT OR REPLACE INTO sources VALUES(?1,?2,?3,?4,?5)",
                params![s.reference, platform, s.manifest.to_string(), s.image.to_string(), s.checked_secs],
            ),
            Self::Record(r) => run(
                "INSERT OR REPLACE INTO records VALUES(?1,?2,?3,?4,?5,?5,?6)",
                params![r.key.to_string(), r.layer.to_string(), r.content.to_string(), r.cost_secs, r.created_secs, r.body],
            ),
            Self::Used { keys, now } => keys
                .iter()
                .try_for_each(|k| run("UPDATE records SET last_used=?2 WHERE key=?1 AND last_used<?2", params![k.to_string(), now])),
            Self::Release(_) => Ok(()),
            Self::Slot { id, body } => run("INSERT OR REPLACE INTO slots VALUES(?1,?2)", params![id, body]),
            Self::Pin { owner, layers } => {
                run("DELETE FROM pins WHERE owner=?1", params![owner])?;
                layers.iter().try_for_each(|l| run("INSERT OR REPLACE INTO pins VALUES(?1,?2)", params![owner, l.to_string()]))
            }
        }
    }
}

/// What a step's key gave; `body` is `cache`'s.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordRow {
    /// The step's key.
    pub key: CacheKey,
    /// The layer that the step made.
    pub layer: LayerId,
    /// What is in the layer.
    pub content: ContentDigest,
    /// How long the step took.
    pub cost_secs: f64,
    /// When, in unix seconds.
    pub created_secs: i64,
    /// The whole record, serialised.
    pub body: Vec<u8>,
}

impl Store {
    /// Returns the newest record of `key` whose layer is still there. The layer then is held (see [`Store::hold`]).
    pub fn record(&self, key: &CacheKey) -> Result<Option<RecordRow>> {
        for row in self.records_of(key)? {
            self.hold(&[row.layer])?;
            if self.layer_known(&row.layer)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn records_of(&self, key: &CacheKey) -> Result<Vec<RecordRow>> {
        let queued = self.committer.find(|row| match row {
            Row::Record(r) if r.key == *key => Some(r.clone()),
            _ => None,
        })?;
        let columns = self.all(
            "SELECT layer,content,cost_secs,created,body FROM records WHERE key=?1 ORDER BY created DESC, rowid DESC",
            [key.to_string()],
            |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get(2)?, r.get(3)?, r.get(4)?)),
        )?;
        let mut found: Vec<_> = queued.into_iter().collect();
        for (layer, content, cost_secs, created_secs, body) in columns {
            let (layer, content) = (parsed("layer id", &layer)?, parsed("content digest", &content)?);
            found.push(RecordRow { key: *key, layer, content, cost_secs, created_secs, body });
        }
        Ok(found)
    }

    /// Returns the bodies of all records that are written, in no order.
    pub fn record_bodies(&self) -> Result<Vec<Vec<u8>>> {
        self.all("SELECT body FROM records", [], |r| r.get(0))
    }

    /// Queues a record. Its layer was committed before.
    pub fn put_record(&self, row: RecordRow) -> Result<()> {
        self.committer.push(Row::Record(row))
    }

    /// Gives a step up once everything that was queued before can be seen by other processes: whoever waits for the step
    /// then finds its record.
    pub fn release_when_written(&self, guard: StepGuard) -> Result<()> {
        self.committer.push(Row::Release(guard))
    }

    /// Notes that these records were of use at `now_secs` (unix seconds), so that collection keeps them longer.
    ///
    /// To a quarter of an hour: a build that is repeated writes nothing.
    pub fn touch_records(&self, keys: &[CacheKey], now_secs: i64) -> Result<()> {
        const GRAIN_SECS: i64 = 15 * 60;
        let sql = "SELECT value FROM json_each(?1) WHERE EXISTS(SELECT 1 FROM records WHERE key=value AND last_used<?2)";
        let wanted = serde_json::to_string(keys).expect("keys are strings");
        let old = self.all(sql, params![wanted, now_secs - GRAIN_SECS], |r| r.get::<_, String>(0))?;
        let old = old.iter().map(|k| parsed("cache key", k)).collect::<Result<Vec<CacheKey>>>()?;
        if old.is_empty() { Ok(()) } else { self.committer.push(Row::Used { keys: old, now: now_secs }) }
    }

    /// Returns what was last stored for a slot.
    pub fn slot_row(&self, id: &str) -> Result<Option<Vec<u8>>> {
        let queued = self.committer.find(|row| match row {
            Row::Slot { id: i, body } if i == id => Some(body.clone()),
            _ => None,
        })?;
        match queued {
            Some(body) => Ok(Some(body)),
            None => self.one("SELECT body FROM slots WHERE id=?1", [id], |r| r.get(0)),
        }
    }

    /// Queues a slot's new content; an equal one costs nothing.
    pub fn put_slot_row(&self, id: &str, body: Vec<u8>) -> Result<()> {
        if self.slot_row(id)?.as_ref() == Some(&body) {
            return Ok(());
        }
        self.committer.push(Row::Slot { id: id.to_string(), body })
    }

    /// Returns the value of a key in one of the small tables that other modules keep (`kind` names the table).
    pub fn load_blob_row(&self, kind: &str, key: &str) -> Result<Option<Vec<u8>>> {
        self.one("SELECT value FROM meta WHERE kind=?1 AND key=?2", [kind, key], |r| r.get(0))
    }

    /// Returns whether there is a value.
    pub fn has_blob_row(&self, kind: &str, key: &str) -> Result<bool> {
        Ok(self.one("SELECT 1 FROM meta WHERE kind=?1 AND key=?2", [kind, key], |_| Ok(()))?.is_some())
    }

    /// Stores a value at once, without syncing: for what can be made again.
    pub fn save_blob_row(&self, kind: &str, key: &str, value: &[u8]) -> Result<()> {
        let sql = "INSERT INTO meta VALUES(?1,?2,?3) ON CONFLICT DO UPDATE SET value=?3 WHERE value<>?3";
        let db = self.db_to_write();
        let mut statement = db.prepare_cached(sql).map_err(StoreError::index("writing a value"))?;
        statement.execute(params![kind, key, value]).map(drop).map_err(StoreError::index("writing a value"))
    }

    /// Removes a value.
    pub fn remove_blob_row(&self, kind: &str, key: &str) -> Result<()> {
        self.write("DELETE FROM meta WHERE kind=?1 AND key=?2", params![kind, key])
    }

    /// Protects layers beyond this process's life, under a name that is the caller's (`container:<id>`). Replaces
    /// what the name protected; no layers: gives up. On the disk when this returns.
    pub fn pin(&self, owner: &str, layers: &[LayerId]) -> Result<()> {
        self.hold(layers)?;
        self.committer.push(Row::Pin { owner: owner.to_string(), layers: layers.to_vec() })?;
        self.flush()
    }

    /// Runs one statement that writes, outside the queue.
    fn write(&self, sql: &str, params: impl rusqlite::Params) -> Result<()> {
        let db = self.db_to_write();
        let mut statement = db.prepare_cached(sql).map_err(StoreError::index("writing a row"))?;
        statement.execute(params).map(drop).map_err(StoreError::index("writing a row"))
    }

    /// Runs a transaction that is on the disk when this returns: for rows that go before their files do.
    pub(super) fn durably<T>(&self, doing: &'static str, act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        self.durably_or(doing, |tx| act(tx).map_err(StoreError::index(doing)))
    }

    /// As [`Store::durably`], for what fails in its own words.
    pub(super) fn durably_or<T>(&self, doing: &'static str, act: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut db = self.db_to_write();
        let run = || {
            let failed = || StoreError::index(doing);
            db.pragma_update(None, "synchronous", "FULL").map_err(failed())?;
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed())?;
            let done = act(&tx)?;
            tx.commit().map_err(failed())?;
            Ok(done)
        };
        let outcome = run();
        db.pragma_update(None, "synchronous", "NORMAL").map_err(StoreError::index("setting synchronous"))?;
        outcome
    }

    /// Returns the size that the index knows of a blob.
    pub(super) fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let queued = self.committer.find(|row| match row {
            Row::Blob { digest: d, size_bytes } if d == digest => Some(*size_bytes),
            _ => None,
        })?;
        match queued {
            Some(size) => Ok(Some(size)),
            None => self.one("SELECT size_bytes FROM blobs WHERE digest=?1", [digest.to_string()], |r| r.get(0).map(uint)),
        }
    }
}
