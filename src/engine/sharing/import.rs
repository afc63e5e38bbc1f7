//! Another machine's results: records by key, and the files of their layers when somebody needs them.
//!
//! A record is taken when it is of the key by its own inputs. Its layer is brought here whole and proven before anything
//! of it can be seen: the blob has its digest, the tar in it its diff ID, and the files, unpacked, have the content that
//! the record names. One that fails is an error that names the cache, never a result.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::place::{Place, SharingError};
use super::{Sharing, locked};
use crate::cache::index::Index as _;
use crate::cache::record::Record;
use crate::cache::remote::object::Kind;
use crate::cache::remote::{LayerForm, SharedRecord, tag};
use crate::digest::{CacheKey, LayerId};
use crate::engine::request::Intent;
use crate::engine::sources::{BlobPlace, BlobRef, Until, open_blob};
use crate::image::manifest::Descriptor;
use crate::layer::{self, Below, LayerError, Limits, UnpackOptions};
use crate::path::Root;
use crate::snapshot::diff;
use crate::store::{LayerBlob, LayerFacts};

/// A layer that a shared cache has.
pub(super) struct Elsewhere {
    pub form: LayerForm,
    pub blob: Descriptor,
    /// Which of the sources.
    pub source: usize,
    /// What is to be written to the index once the layer is here.
    records: Mutex<Vec<Record>>,
    /// Held by whoever fetches it.
    turn: Mutex<()>,
}

impl Sharing<'_> {
    /// Returns the record of a key that a shared cache has. Its layer is known from then on, and may be fetched.
    pub fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, SharingError> {
        for (number, source) in self.asked() {
            let found = match self.inline_records(source).get(key) {
                Some(found) => Some(found.clone()),
                None => {
                    let object = self.answer(number, Kind::Record, &tag::of_record(key));
                    // What is not this key's record is none.
                    object.and_then(|(parts, body)| SharedRecord::parse(key, &parts, &body).ok())
                }
            };
            if let Some(found) = found {
                return self.take(number, found).map(Some);
            }
        }
        Ok(None)
    }

    fn take(&self, source: usize, found: SharedRecord) -> Result<Record, SharingError> {
        let SharedRecord { record, form, blob } = found;
        let store = self.engine.store;
        store.hold(&[record.layer])?;
        if store.layer_known(&record.layer)? {
            if self.intent == Intent::Build {
                self.index(&record)?;
            }
            return Ok(record);
        }
        let fresh = || Arc::new(Elsewhere { form, blob, source, records: Mutex::default(), turn: Mutex::default() });
        let known = locked(&self.layers).entry(record.layer).or_insert_with(fresh).clone();
        locked(&known.records).push(record.clone());
        Ok(record)
    }

    /// Writes a record to the store's index. Its layer is here: what it says of it was proven.
    fn index(&self, record: &Record) -> Result<(), SharingError> {
        self.engine.store.save(record).map_err(|e| SharingError::Build(crate::engine::error::chain(&e)))
    }

    /// Returns what the shared caches know of a selection, as the builds that made it wrote it.
    pub fn selection(&self, memory: &str) -> Option<Vec<u8>> {
        let tag = tag::of_selection(memory);
        self.asked().find_map(|(number, _)| self.answer(number, Kind::Selection, &tag)).map(|(_, body)| body)
    }

    /// Returns a layer that is known by its record only.
    pub(super) fn elsewhere(&self, layer: &LayerId) -> Result<Option<Arc<Elsewhere>>, SharingError> {
        let Some(known) = locked(&self.layers).get(layer).cloned() else { return Ok(None) };
        Ok(if self.engine.store.layer_known(layer)? { None } else { Some(known) })
    }

    /// Names a layer's blob where it is.
    pub(super) fn blob(&self, layer: &Elsewhere) -> BlobRef {
        let original = layer.form.compression == ORIGINAL;
        BlobRef { original, ..self.sources[layer.source].place.blob(&layer.blob) }
    }

    /// Brings a layer into the store, if a shared cache has it and the store has not.
    pub fn fetch(&self, layer: &LayerId) -> Result<(), SharingError> {
        let Some(known) = self.elsewhere(layer)? else { return Ok(()) };
        let _mine = locked(&known.turn);
        if !self.engine.store.layer_known(layer)? {
            let place = &self.sources[known.source].place;
            let progress = self.engine.progress;
            let task = progress.begin(format!("cache {}: layer {}", place.shown(), &known.blob.digest.hex()[..12]));
            let mut watch = |done| {
                progress.advance(task, done, Some(known.blob.size));
                if progress.is_cancelled() { Err(io::Error::other("interrupted")) } else { Ok(()) }
            };
            let outcome = place.fetch(self.engine.store, &known.blob, &mut watch).and_then(|()| self.unpack(layer, &known));
            progress.end(task);
            outcome?;
        }
        for record in locked(&known.records).drain(..) {
            self.index(&record)?;
        }
        Ok(())
    }

    /// Makes the blob, which is in the store, a directory: put in place once it has proven to be the layer.
    fn unpack(&self, layer: &LayerId, known: &Elsewhere) -> Result<(), SharingError> {
        let store = self.engine.store;
        let failed = |source| SharingError::Layer { layer: *layer, source };
        let lie = |found| SharingError::Lie { layer: *layer, found };
        let staging = store.stage()?;
        let dir = staging.path().join("layer");
        std::fs::create_dir(&dir).map_err(SharingError::file("making", &dir))?;
        let root = Root::open(&dir).map_err(|e| failed(e.into()))?;
        let limits = Limits::default();
        let blob = BlobRef { descriptor: known.blob.clone(), place: BlobPlace::Store, original: false };
        let reader = Until { inner: open_blob(store, &blob)?, progress: self.engine.progress };
        let (_, tar) =
            layer::decompress(reader, limits.max_bytes.saturating_mul(2)).map_err(|source| failed(LayerError::Read { source }))?;
        let options = UnpackOptions { below: Below::Unknown, ownership: self.engine.ownership, limits };
        let unpacked = layer::unpack(tar, &root, &options).map_err(failed)?;
        if unpacked.diff_id != known.form.diff_id {
            return Err(lie(format!("its tar has the digest {}", unpacked.diff_id)));
        }
        let fd = root.into_fd();
        let changes = diff::changes(&fd).map_err(|e| failed(e.into()))?;
        let digests = layer::digest(&changes, &fd, known.form.clamp_epoch).map_err(failed)?;
        if LayerId::Content(digests.content) != *layer {
            let refused = unpacked.refused_xattrs;
            let why = if refused > 0 { format!("; this user can't set {refused} of its attributes") } else { String::new() };
            return Err(lie(format!("its files have the content {}{why}", digests.content)));
        }
        let content = Some(digests.content);
        let facts = LayerFacts { content, size_bytes: changes.file_bytes(), entries: changes.entries.len() as u64 };
        let inode = |path: &std::path::Path| {
            use std::os::unix::fs::MetadataExt as _;
            std::fs::symlink_metadata(path).map(|m| m.ino()).map_err(SharingError::file("looking at", path))
        };
        let ours = inode(&dir)?;
        let kept = store.commit_layer(&dir, layer, facts)?;
        self.note_blob(known)?;
        // An equal layer of another build may lie there: with other times, and so another tar.
        if inode(&kept)? == ours && digests.diff_id == unpacked.diff_id {
            store.put_diff_id(layer, known.form.clamp_epoch, unpacked.diff_id, unpacked.tar_size_bytes)?;
            if known.form.clamp_epoch.is_some() {
                // Nothing in it is younger than the clamp: without one it is the same tar.
                store.put_diff_id(layer, None, unpacked.diff_id, unpacked.tar_size_bytes)?;
            }
        }
        Ok(())
    }

    /// Remembers the blob as a form of its tar: an export in the same form only copies.
    fn note_blob(&self, known: &Elsewhere) -> Result<(), SharingError> {
        let ours = |text: &str| text.len() < 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let compression = if ours(&known.form.compression) { known.form.compression.clone() } else { ORIGINAL.into() };
        let Descriptor { digest, size, media_type, .. } = known.blob.clone();
        let blob = LayerBlob { digest, size_bytes: size, media_type, compression };
        Ok(self.engine.store.put_layer_blob(&known.form.diff_id, blob)?)
    }

    /// Whether any source may have something.
    pub fn has_sources(&self) -> bool {
        self.sources.iter().any(|s| !s.broken.load(Ordering::Relaxed))
    }

    /// Returns where a source is.
    pub(super) fn place_of(&self, layer: &Elsewhere) -> &Place<'_> {
        &self.sources[layer.source].place
    }
}

/// The store's word for a blob that stays as it came.
pub(super) const ORIGINAL: &str = "original";
