//! Writes a finished image out: OCI and Docker archives, layouts, and its file system as a tar or a directory.
//!
//! | file | writes |
//! |---|---|
//! | `pack` | a layer's blob as an export wants it: found, or compressed once and kept in the store |
//! | `bundle` | an image's documents, and the blobs that they name |
//! | `layout` | `type=oci` and `type=docker`: archive or directory |
//! | `push` | a registry's repository |
//! | `several` | the same, of an index that was pulled |
//! | `tree` | `type=tar` and `type=local` |
//! | `verified` | a blob's bytes, hashed beside |
//! | `destination` | a file that appears whole or not at all; standard output |
//!
//! Blobs that came with a base image go out byte for byte unless they are to be compressed anew. Everything else (compression, archive order, times) is
//! decided by the image alone, so two exports of one image are the same bytes. Every blob is verified while it is
//! copied: what the disk spoiled never leaves.

mod bundle;
mod destination;
mod layout;
mod pack;
mod push;
mod several;
mod tree;
mod verified;

use std::io;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::digest::{DiffId, Digest, LayerId};
use crate::image::layout as documents;
use crate::image::manifest::Descriptor;
use crate::image::platform::Platform;
use crate::layer::LayerError;
use crate::store::{Store, StoreError};

pub(in crate::engine) use pack::{fits, pack};
pub use push::Pushed;

use super::sources::{BlobRef, Progress, ResolvedImage, ResolvedLayer, SourceError};
use crate::registry::RegistryError;

/// An image that is ready to go out.
#[derive(Debug, Clone)]
pub struct FinishedImage {
    /// The configuration, byte for byte.
    pub config: Vec<u8>,
    /// What it is for.
    pub platform: Platform,
    /// Its names, normalised references.
    pub names: Vec<String>,
    /// Its layers, bottom first, as many as the configuration has diff IDs.
    pub layers: Vec<FinishedLayer>,
    /// The manifest that it came with, byte for byte: it goes out again where all its blobs are here. None: built here.
    pub manifest: Option<Vec<u8>>,
}

/// A layer that is ready to go out.
#[derive(Debug, Clone)]
pub struct FinishedLayer {
    /// Which layer.
    pub id: LayerId,
    /// Its tar's digest.
    pub diff_id: DiffId,
    /// Where its bytes come from.
    pub source: LayerSource,
}

/// Where a layer's bytes come from.
#[derive(Debug, Clone)]
pub enum LayerSource {
    /// A blob of it.
    Blob(BlobRef),
    /// Its directory in the store.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The latest time that its tar has, as for the diff ID.
        clamp_epoch: Option<i64>,
    },
}

impl FinishedLayer {
    /// Takes over the layers of an image of the store, or of one that a build stands on.
    pub fn all_of(store: &Store, image: &ResolvedImage) -> Result<Vec<Self>, ExportError> {
        let mut layers = Vec::with_capacity(image.layers.len());
        for layer in &image.layers {
            let dir = if layer.blob.is_none() { store.layer_dir(&layer.id)? } else { None };
            let clamp = if dir.is_some() { store.clamp_of(&layer.id, &layer.diff_id)?.flatten() } else { None };
            let gone = || ExportError::NoLayer { diff_id: layer.diff_id, origin: image.origin.clone() };
            layers.push(Self::of_base(layer, dir.map(|d| (d, clamp))).ok_or_else(gone)?);
        }
        Ok(layers)
    }

    /// Takes over a base image's layer; `dir` is needed when it has no blob, with the clamp under which its tar has the
    /// layer's diff ID: that of the build that made the base, not of this one.
    ///
    /// None: it has neither.
    fn of_base(layer: &ResolvedLayer, dir: Option<(PathBuf, Option<i64>)>) -> Option<Self> {
        let source = match (&layer.blob, dir) {
            (Some(blob), _) => LayerSource::Blob(blob.clone()),
            (None, Some((path, clamp_epoch))) => LayerSource::Directory { path, clamp_epoch },
            (None, None) => return None,
        };
        Some(Self { id: layer.id, diff_id: layer.diff_id, source })
    }
}

impl FinishedImage {
    /// Takes an image of the store to be exported again.
    pub fn of_stored(store: &Store, image: &ResolvedImage, names: Vec<String>) -> Result<Self, ExportError> {
        let layers = FinishedLayer::all_of(store, image)?;
        let (config, platform) = (image.config_bytes.clone(), image.platform.clone());
        Ok(Self { config, platform, names, layers, manifest: image.manifest.clone() })
    }
}

/// What an export made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The manifest, with its platform; of images for several platforms their index.
    pub manifest: Descriptor,
    /// The names that it was exported under.
    pub names: Vec<String>,
}

impl Exported {
    /// Returns BuildKit's keys for `--metadata-file`.
    pub fn metadata(&self) -> Map<String, Value> {
        let mut descriptor = serde_json::to_value(&self.manifest).expect("a descriptor is JSON");
        if let Some(name) = self.names.first() {
            let annotation = json!({ documents::CONTAINERD_NAME: name });
            descriptor.as_object_mut().expect("a descriptor is an object").insert("annotations".into(), annotation);
        }
        let mut out = Map::new();
        out.insert("containerimage.descriptor".into(), descriptor);
        out.insert("containerimage.digest".into(), json!(self.manifest.digest));
        if !self.names.is_empty() {
            out.insert("image.name".into(), json!(self.names.join(",")));
        }
        out
    }
}

/// An export that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum ExportError {
    #[error("writing {dest}")]
    Write { dest: String, source: io::Error },
    #[error("{path:?} is a directory: the archive needs a file, or use tar=false")]
    IsDirectory { path: PathBuf },
    #[error("{path:?} is no directory")]
    NotDirectory { path: PathBuf },
    #[error("{path:?} holds an `index.json` that can't be added to")]
    Index { path: PathBuf, source: documents::LayoutError },
    #[error("reading the layer {diff_id}")]
    Layer { diff_id: DiffId, source: LayerError },
    #[error("reading the layer {diff_id}")]
    LayerSource { diff_id: DiffId, source: Box<SourceError> },
    #[error("reading the blob {digest}")]
    Blob { digest: Digest, source: Box<SourceError> },
    #[error("reading the blob {digest}")]
    BlobRead { digest: Digest, source: io::Error },
    #[error("compressing the layer {diff_id}")]
    Compress { diff_id: DiffId, source: io::Error },
    #[error("the layer {diff_id} is not what was recorded: its tar now has the digest {found}")]
    DiffId { diff_id: DiffId, found: DiffId },
    #[error("reading the file system")]
    Tree(#[from] LayerError),
    #[error("the directory {path:?} can't be used")]
    Directory { path: PathBuf, source: crate::path::PathError },
    #[error("the store can't be used")]
    Store(#[from] StoreError),
    #[error("layer {diff_id} of {origin} has gone from the store")]
    NoLayer { diff_id: DiffId, origin: String },
    #[error("pushing {name}")]
    Push { name: String, source: Box<RegistryError> },
    #[error("the index {digest} in the store can't be used")]
    NoIndex { digest: Digest },
    #[error("`{name}` names a digest; what is pushed goes by a tag")]
    PushDigest { name: String },
}

/// Exports images of a store.
#[derive(Clone, Copy)]
pub struct Exporter<'a> {
    /// Where blobs are, and where compressed layers are kept.
    pub store: &'a Store,
    /// Who is told.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for Exporter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}
