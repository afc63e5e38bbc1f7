//! Turns an [`ImageRequest`] into a [`ResolvedImage`]: its configuration, and where its layers are.
//!
//! | file | image from |
//! |---|---|
//! | `reference` | the store, a registry else |
//! | `several` | a registry's index, images of several platforms under one name |
//! | `layout` | an OCI layout directory or archive |
//! | `base`, `host` | programs of this host |
//! | `load`, `import` | archives that are taken into the store: `ply load`, `ply import` |
//! | `keep` | (what all of them share: an image's blobs into the store) |
//! | `unpack` | a layer's blob, made a directory when a step needs its files |
//! | `pulled` | what a registry described and whose layers come when they are needed |
//! | `named` | what `--build-context NAME=VALUE` means |
//!
//! Resolving reads an index, a manifest and a configuration, each small; layers are neither read nor copied, so
//! that a build in which nothing changed costs nothing here. What is pulled is in the store at the end of the build,
//! so that the next one needs no network.

mod base;
mod descend;
mod error;
pub mod host;
mod import;
mod keep;
mod layout;
mod load;
mod named;
mod pulled;
mod reference;
mod several;
mod unpack;

use std::path::PathBuf;

use crate::digest::{DiffId, Digest, LayerId};
use crate::graph::{ImageRequest, ImageSource};
use crate::image::config::ImageConfig;
use crate::image::manifest::Descriptor;
use crate::image::platform::Platform;
use crate::registry::{Client, Repository};
use crate::store::Store;

pub use error::SourceError;
pub use import::ImportRequest;
pub(in crate::engine) use keep::ORIGINAL;
pub(in crate::engine) use keep::side_by_side;
pub use load::Loaded;
pub use named::{BuildContext, FilesSource, NamedError, parse_build_context};
pub use pulled::{Missing, Pulls};
pub use several::{Several, Which, note_several, several_of};
pub use unpack::{open_blob, open_unverified, unpack_again};

/// When registries are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Ask even when the store has the image (`--pull`).
    pub pull: bool,
    /// Never ask.
    pub offline: bool,
    /// Only describe: nothing is taken into the store.
    pub look_only: bool,
    /// The time now, in unix seconds: when an image came into the store.
    pub now_secs: i64,
}

/// Is told of work that takes time.
pub trait Progress: Sync {
    /// A piece of work begins; the number names it in the other calls.
    fn begin(&self, title: String) -> usize;
    /// So far it is, in bytes.
    fn advance(&self, task: usize, done: u64, total: Option<u64>);
    /// It is done, or has failed.
    fn end(&self, task: usize);
    /// Returns whether work shall end where it is: whoever reads for long asks.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Fails once the work shall end.
pub(in crate::engine) struct Until<'a, R> {
    pub inner: R,
    pub progress: &'a dyn Progress,
}

impl<R: std::io::Read> std::io::Read for Until<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // Not `Interrupted`: that kind is tried again.
        if self.progress.is_cancelled() { Err(std::io::Error::other("interrupted")) } else { self.inner.read(buffer) }
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: String) -> usize {
        0
    }
    fn advance(&self, _: usize, _: u64, _: Option<u64>) {}
    fn end(&self, _: usize) {}
}

/// Where images come from; shared by threads.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Where images are kept.
    pub store: &'a Store,
    /// The way to registries.
    pub client: &'a Client,
    /// When they are asked.
    pub policy: Policy,
    /// PATH's directories, where the programs of a host base are looked for.
    pub host_path: &'a [PathBuf],
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// Takes in images whose layers may come later; none: a pulled image is in the store, whole, once it is resolved.
    pub pulls: Option<&'a Pulls>,
}

/// An image that a build can start from.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Its configuration.
    pub config: ImageConfig,
    /// The same, byte for byte.
    pub config_bytes: Vec<u8>,
    /// The digest that pins it: its manifest's; its configuration's where there is no manifest.
    pub digest: Digest,
    /// Its manifest, byte for byte, if it came with one.
    pub manifest: Option<Vec<u8>>,
    /// What it is for, by its configuration; it may differ from what was asked for.
    pub platform: Platform,
    /// Bottom first; as many as `config.rootfs.diff_ids`.
    pub layers: Vec<ResolvedLayer>,
    /// Where it came from, for people: `docker.io/library/alpine:latest@sha256:…`.
    pub origin: String,
}

/// One layer of a [`ResolvedImage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedLayer {
    /// Which layer: its directory's name in the store.
    pub id: LayerId,
    /// What the configuration calls it.
    pub diff_id: DiffId,
    /// Its blob; none: the store has its directory only.
    pub blob: Option<BlobRef>,
}

/// A blob and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRef {
    /// Which bytes.
    pub descriptor: Descriptor,
    /// Where they are.
    pub place: BlobPlace,
    /// It came with an image and stays as it is; false: we made it, and an export may pack it in another way.
    pub original: bool,
}

/// Where a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobPlace {
    /// In the store.
    Store,
    /// In a file, from this offset on: a layout's, or an archive. Not trusted: verified at each reading.
    File {
        /// The file.
        path: PathBuf,
        /// Where the blob begins.
        offset: u64,
    },
    /// In a registry's repository, and not here: of a layer that a shared cache has. An export may name it; to read it, it
    /// is fetched first.
    Repository(Repository),
}

impl Sources<'_> {
    /// Finds an image.
    ///
    /// The result's layers can be read with [`open_blob`] and made directories with [`Sources::ensure_layers`].
    pub fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, SourceError> {
        match &request.source {
            ImageSource::Reference(text) => reference::resolve(self, text, &request.platform),
            ImageSource::OciLayout { path, tag } => layout::resolve(path.as_ref(), tag, &request.platform),
            ImageSource::Host(programs) => base::resolve(self, programs),
        }
    }
}

impl Sources<'_> {
    /// Describes an image of the store, whose layers are held from then on; none: parts of it are gone.
    pub fn stored(&self, image: &crate::store::Image, origin: &str) -> Result<Option<ResolvedImage>, SourceError> {
        reference::from_store(self, image, origin)
    }
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
