//! What can go wrong when an image is looked for, by what a reader could do about it.

use std::io;
use std::path::PathBuf;

use crate::digest::{DiffId, Digest};
use crate::image::layout::LayoutError;
use crate::image::manifest::ManifestError;
use crate::image::platform::Platform;
use crate::image::reference::ReferenceError;
use crate::image::select::NoPlatform;
use crate::layer::LayerError;
use crate::registry::RegistryError;
use crate::store::StoreError;

use super::host::HostError;

/// An image that can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum SourceError {
    #[error("the image's name can't be used")]
    Reference(#[from] ReferenceError),
    #[error("pulling {reference}")]
    Registry { reference: String, source: Box<RegistryError> },
    #[error("no image {reference} for {platform} in the store, and registries are not to be asked")]
    Offline { reference: String, platform: Platform },
    #[error("{path:?} is no OCI layout: it has no `index.json`")]
    NoLayout { path: PathBuf },
    #[error("the OCI layout {path:?} can't be used")]
    Layout { path: PathBuf, source: LayoutError },
    #[error("{origin}: the document {digest} can't be used")]
    Document { origin: String, digest: Digest, source: ManifestError },
    #[error("{origin}")]
    Platform { origin: String, source: Box<NoPlatform> },
    #[error("{origin}: its indexes are nested more than {limit} deep")]
    TooDeep { origin: String, limit: usize },
    #[error("{origin}: {what} {digest} is missing")]
    MissingBlob { origin: String, what: &'static str, digest: Digest },
    #[error("{origin}: {what} has the digest {found}, not {expected}")]
    Digest { origin: String, what: &'static str, expected: Digest, found: Digest },
    #[error("{origin}: {what} {digest} has {found} bytes, not {expected}")]
    Size { origin: String, what: &'static str, digest: Digest, expected: u64, found: u64 },
    #[error("{origin}: {what} is larger than {limit} bytes")]
    TooLarge { origin: String, what: &'static str, limit: u64 },
    #[error("{origin}: the configuration is malformed")]
    Config { origin: String, source: serde_json::Error },
    #[error("{origin} is no image: its configuration has the media type `{media_type}`")]
    NoImage { origin: String, media_type: String },
    #[error("{origin}: the manifest has {layers} layers, the configuration {diff_ids}")]
    LayerCount { origin: String, layers: usize, diff_ids: usize },
    #[error("the layer {diff_id} is damaged: its content has the digest {found}")]
    DiffId { diff_id: DiffId, found: DiffId },
    #[error("the layer {0} is not in the store any more")]
    LayerGone(DiffId),
    #[error("making a base of this host's programs")]
    Host(#[from] HostError),
    #[error("unpacking the layer {diff_id}")]
    Unpack { diff_id: DiffId, source: LayerError },
    #[error("the archive can't be read")]
    Archive { source: LayerError },
    #[error("the archive holds neither `index.json` nor `manifest.json`")]
    NoArchive,
    #[error("the archive's {what} is malformed")]
    ArchiveDocument { what: String, source: serde_json::Error },
    #[error("the archive has no `{0}`")]
    ArchiveEntry(String),
    #[error("the change `{0}` is not understood")]
    Change(String),
    #[error("reading {path:?}")]
    Io { path: PathBuf, source: io::Error },
    #[error("showing the lower layers to one that refers to them")]
    Snapshot(#[from] crate::snapshot::SnapshotError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SourceError {
    /// Returns a function that gives an I/O error its subject.
    pub(super) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
