//! Makes a layer's blob a directory, when somebody needs its files.
//!
//! A directory is named by the diff ID, so it may only exist once the bytes have proven to have it: the blob's
//! digest, the decompressed tar's digest and the files come out of one pass, and the directory is put in place at
//! its end. A diff ID that a configuration claims for a blob is a claim until then.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use crate::digest::{DiffId, LayerId};
use crate::image::manifest::Descriptor;
use crate::layer::{self, Below, LayerError, Limits, UnpackOptions, Unpacked};
use crate::path::{Ownership, Root};
use crate::snapshot::Driver;
use crate::store::{LayerBlob, LayerFacts, Store, VerifyingReader};

use super::keep::{self, ORIGINAL};
use super::{BlobPlace, BlobRef, ResolvedLayer, SourceError, Sources, Until};

/// How many layers are unpacked at once; each also has threads of its own for reading and hashing. More than there are
/// processors, so that none is left to the last layer alone.
const PARALLEL: usize = 6;

impl Sources<'_> {
    /// Makes sure that the layers are directories of the store, and returns these, bottom first.
    ///
    /// They are held for as long as the store is open. `layers` is a whole image from its lowest layer on:
    /// `driver` shows the lower ones to the few layers that refer to them.
    pub fn ensure_layers(&self, layers: &[ResolvedLayer], driver: &Driver, ownership: Ownership) -> Result<Vec<PathBuf>, SourceError> {
        self.store.hold(&layers.iter().map(|l| l.id).collect::<Vec<_>>())?;
        let mut seen = BTreeSet::new();
        let mut todo = Vec::new();
        for layer in layers.iter().filter(|l| seen.insert(l.id)) {
            if self.store.layer_dir(&layer.id)?.is_none() {
                todo.push(layer);
            }
        }
        // The largest first: one that begins last ends last.
        todo.sort_by_key(|layer| std::cmp::Reverse(layer.blob.as_ref().map_or(0, |b| b.descriptor.size)));
        keep::side_by_side(&todo, PARALLEL, &|layer| self.unpack_alone(layer, ownership))?;
        let mut dirs = Vec::with_capacity(layers.len());
        for layer in layers {
            let dir = match self.store.layer_dir(&layer.id)? {
                Some(dir) => dir,
                None => self.unpack_upon(layer, &dirs, driver, ownership)?,
            };
            dirs.push(dir);
        }
        Ok(dirs)
    }

    /// Makes sure that one layer is a directory of the store; `below` are those of the layers under it, bottom first.
    pub fn ensure_layer(
        &self,
        layer: &ResolvedLayer,
        below: &[PathBuf],
        driver: &Driver,
        ownership: Ownership,
    ) -> Result<PathBuf, SourceError> {
        self.store.hold(&[layer.id])?;
        if let Some(dir) = self.store.layer_dir(&layer.id)? {
            return Ok(dir);
        }
        match self.unpack(layer, Below::Unknown, ownership) {
            Err(SourceError::Unpack { source: LayerError::NeedsBelow { .. }, .. }) => self.unpack_upon(layer, below, driver, ownership),
            other => other,
        }
    }

    /// Returns the store's blob for a tar; none: it has none.
    pub fn blob_of(&self, diff_id: &DiffId) -> Result<Option<BlobRef>, SourceError> {
        blob_of(self.store, diff_id)
    }

    /// Unpacks a layer that refers to nothing below; one that does is left for later.
    fn unpack_alone(&self, layer: &ResolvedLayer, ownership: Ownership) -> Result<(), SourceError> {
        match self.unpack(layer, Below::Unknown, ownership) {
            Err(SourceError::Unpack { source: LayerError::NeedsBelow { .. }, .. }) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn unpack_upon(&self, layer: &ResolvedLayer, lower: &[PathBuf], driver: &Driver, ownership: Ownership) -> Result<PathBuf, SourceError> {
        if lower.is_empty() {
            return self.unpack(layer, Below::Nothing, ownership);
        }
        let top_first: Vec<PathBuf> = lower.iter().rev().cloned().collect();
        let tree = driver.mount_readonly(&top_first)?;
        let root = tree.root().try_clone_to_owned().map_err(SourceError::io(self.store.root()))?;
        self.unpack(layer, Below::Tree(&Root::from_fd(root)), ownership)
    }

    fn unpack(&self, layer: &ResolvedLayer, below: Below<'_>, ownership: Ownership) -> Result<PathBuf, SourceError> {
        let blob = layer.blob.as_ref().ok_or(SourceError::LayerGone(layer.diff_id))?;
        let title = format!("unpack layer {}", &layer.diff_id.hex()[..12]);
        let task = self.progress.begin(title);
        let outcome = self.unpack_blob(layer, blob, below, ownership);
        self.progress.end(task);
        outcome
    }

    fn unpack_blob(&self, layer: &ResolvedLayer, blob: &BlobRef, below: Below<'_>, ownership: Ownership) -> Result<PathBuf, SourceError> {
        let staging = self.store.stage()?;
        // The layer's own root directory: what the directory in the store will be.
        let dir = staging.path().join("layer");
        std::fs::create_dir(&dir).map_err(SourceError::io(&dir))?;
        let beside = match self.elsewhere(blob)? {
            None => None,
            Some(image) => self.fetch_beside(&image, &blob.descriptor, |bytes| self.unpack_stream(layer, bytes, &dir, below, ownership))?,
        };
        let (dir, unpacked) = match beside {
            Some(unpacked) => (dir, unpacked?),
            None => {
                // Of a mirror's wrong bytes something may lie in the other one.
                let dir = staging.path().join("whole");
                std::fs::create_dir(&dir).map_err(SourceError::io(&dir))?;
                let unpacked = self.unpack_stream(layer, open_blob(self.store, blob)?, &dir, below, ownership)?;
                (dir, unpacked)
            }
        };
        // A layer of ours is named by its content: the store vouches for its diff ID, and the bytes have just proven that.
        let content = if let LayerId::Content(content) = layer.id { Some(content) } else { None };
        let facts = LayerFacts { content, size_bytes: unpacked.bytes, entries: unpacked.entries };
        let path = self.store.commit_layer(&dir, &layer.id, facts)?;
        if layer.id == LayerId::Diff(layer.diff_id) {
            self.store.put_diff_id(&layer.id, None, layer.diff_id, unpacked.tar_size_bytes)?;
        }
        Ok(path)
    }

    /// Unpacks a blob's bytes into the directory `dir`, and makes sure that they have the layer's diff ID.
    fn unpack_stream(
        &self,
        layer: &ResolvedLayer,
        bytes: impl Read + Send,
        dir: &Path,
        below: Below<'_>,
        ownership: Ownership,
    ) -> Result<Unpacked, SourceError> {
        let diff_id = layer.diff_id;
        let failed = |source| SourceError::Unpack { diff_id, source };
        let root = Root::open(dir).map_err(|e| failed(e.into()))?;
        let limits = Limits::default();
        let (_, tar) = layer::decompress(Until { inner: bytes, progress: self.progress }, limits.max_bytes.saturating_mul(2))
            .map_err(|source| failed(LayerError::Read { source }))?;
        let tar = Unpacking { inner: tar, store: self.store };
        let unpacked = layer::unpack(tar, &root, &UnpackOptions { below, ownership, limits }).map_err(failed)?;
        if unpacked.diff_id == diff_id { Ok(unpacked) } else { Err(SourceError::DiffId { diff_id, found: unpacked.diff_id }) }
    }
}

/// Unpacks the blob of a layer that the store has into `dir` once more; no: the store has no blob of it.
///
/// # Errors
/// A layer with links to files of the layers below can't be unpacked without these.
pub fn unpack_again(store: &Store, diff_id: &DiffId, dir: &Path, ownership: Ownership) -> Result<bool, SourceError> {
    let Some(blob) = blob_of(store, diff_id)? else { return Ok(false) };
    let failed = |source| SourceError::Unpack { diff_id: *diff_id, source };
    let limits = Limits::default();
    let (_, tar) = layer::decompress(open_blob(store, &blob)?, limits.max_bytes.saturating_mul(2))
        .map_err(|source| failed(LayerError::Read { source }))?;
    let root = Root::open(dir).map_err(|e| failed(e.into()))?;
    let unpacked = layer::unpack(tar, &root, &UnpackOptions { below: Below::Unknown, ownership, limits }).map_err(failed)?;
    if unpacked.diff_id == *diff_id { Ok(true) } else { Err(SourceError::DiffId { diff_id: *diff_id, found: unpacked.diff_id }) }
}

/// A tar whose files are written as it is read.
struct Unpacking<'a, R> {
    inner: R,
    store: &'a Store,
}

impl<R: Read> Read for Unpacking<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.store.note_writing(n as u64).map_err(io::Error::other)?;
        Ok(n)
    }
}

/// Opens a blob; reading it to its end verifies it.
pub fn open_blob(store: &Store, blob: &BlobRef) -> Result<Box<dyn Read + Send>, SourceError> {
    let Descriptor { digest, size, .. } = blob.descriptor;
    Ok(Box::new(VerifyingReader::new(open_unverified(store, blob)?, digest, size)))
}

/// Opens a blob for who hashes it while reading.
pub fn open_unverified(store: &Store, blob: &BlobRef) -> Result<Box<dyn Read + Send>, SourceError> {
    let Descriptor { digest, size, .. } = blob.descriptor;
    match &blob.place {
        BlobPlace::Store | BlobPlace::Repository(_) => {
            let missing = || SourceError::MissingBlob { origin: "the store".into(), what: "the blob", digest };
            Ok(Box::new(store.open_blob(&digest)?.ok_or_else(missing)?))
        }
        BlobPlace::File { path, offset } => {
            let mut file = File::open(path).map_err(SourceError::io(path))?;
            file.seek(SeekFrom::Start(*offset)).map_err(SourceError::io(path))?;
            Ok(Box::new(file.take(size)))
        }
    }
}

/// Returns the store's blob for a tar; none: it has none.
///
/// Of several that claim the diff ID one that needs no proof is taken. Where all came from elsewhere each is read to
/// see whether it has it: an image may lie.
pub(super) fn blob_of(store: &Store, diff_id: &DiffId) -> Result<Option<BlobRef>, SourceError> {
    let mut candidates = Vec::new();
    for blob in store.layer_blobs(diff_id)? {
        if store.has_blob(&blob.digest)? {
            candidates.push(to_ref(blob));
        }
    }
    if candidates.len() <= 1 {
        return Ok(candidates.pop());
    }
    let certain = candidates.iter().position(|blob| is_certain(blob, diff_id));
    let chosen = certain.or_else(|| candidates.iter().position(|blob| proves(store, blob, diff_id)));
    Ok(chosen.map(|n| candidates.swap_remove(n)))
}

/// Tells whether a blob is the tar without a look at it: a plain tar is named by its diff ID, and what this store
/// compressed was hashed meanwhile.
fn is_certain(blob: &BlobRef, diff_id: &DiffId) -> bool {
    !blob.original || blob.descriptor.digest.as_bytes() == diff_id.as_bytes()
}

fn to_ref(blob: LayerBlob) -> BlobRef {
    let descriptor = Descriptor::new(&blob.media_type, blob.digest, blob.size_bytes);
    BlobRef { descriptor, place: BlobPlace::Store, original: blob.compression == ORIGINAL }
}

/// Tells whether the blob, decompressed, is the tar; one that can't be read is not.
fn proves(store: &Store, blob: &BlobRef, diff_id: &DiffId) -> bool {
    diff_id_of(store, blob).is_ok_and(|found| found == *diff_id)
}

/// Reads a blob to its end and returns its diff ID.
pub(super) fn diff_id_of(store: &Store, blob: &BlobRef) -> Result<DiffId, SourceError> {
    let failed = |source| SourceError::Archive { source: LayerError::Read { source } };
    let (_, mut tar) = layer::decompress(open_blob(store, blob)?, Limits::default().max_bytes).map_err(failed)?;
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; 128 << 10];
    loop {
        match tar.read(&mut chunk) {
            Ok(0) => return Ok(DiffId::from_bytes(hash.finalize().into())),
            Ok(n) => hash.update(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
}
