//! Images by name: from the store, else from a registry, which fills the store.
//!
//! What a registry said is remembered with the platform it was asked for ([`Source`]), not as a name: two
//! platforms of one tag are two images, and `ply images` lists what people named.

use std::sync::Arc;

use crate::digest::LayerId;
use crate::image::config::ImageConfig;
use crate::image::manifest::{DOCUMENT_MAX_BYTES, Descriptor, Document, Manifest};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::select;
use crate::registry::{Fetched, RegistryError, Repository};
use crate::store::Image;

use super::descend::{self, Fetch};
use super::pulled::PulledImage;
use super::{BlobPlace, BlobRef, ResolvedImage, ResolvedLayer, SourceError, Sources, unpack};

/// Resolves a reference.
pub(super) fn resolve(sources: &Sources<'_>, text: &str, platform: &Platform) -> Result<ResolvedImage, SourceError> {
    let reference = Reference::parse(text)?.tagged();
    let stored = find_stored(sources, &reference, platform)?;
    if let Some(image) = stored.filter(|_| !sources.policy.pull || sources.policy.offline)
        && let Some(resolved) = from_store(sources, &image, &reference.to_string())?
    {
        return Ok(resolved);
    }
    if sources.policy.offline {
        return Err(SourceError::Offline { reference: reference.familiar(), platform: platform.clone() });
    }
    pull(sources, &reference, platform)
}

fn find_stored(sources: &Sources<'_>, reference: &Reference, platform: &Platform) -> Result<Option<Image>, SourceError> {
    let store = sources.store;
    // With a digest the tag says nothing more.
    let name = match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.to_string(),
    };
    if let Some(image) = store.resolve(&name)?
        && select::runs(platform, &image.platform)
    {
        return Ok(Some(image));
    }
    match store.source(&name, platform)? {
        Some(source) => Ok(store.image(&source.image)?),
        None => Ok(None),
    }
}

/// Describes an image of the store; none: parts of it are gone.
pub(super) fn from_store(sources: &Sources<'_>, image: &Image, origin: &str) -> Result<Option<ResolvedImage>, SourceError> {
    let store = sources.store;
    let config_bytes = store.read_blob(&image.id, DOCUMENT_MAX_BYTES)?;
    let config: ImageConfig =
        descend::parse_config(&config_bytes).map_err(|source| SourceError::Config { origin: origin.into(), source })?;
    let manifest_bytes = image.manifest.map(|m| store.read_blob(&m, DOCUMENT_MAX_BYTES)).transpose()?;
    let manifest = match manifest_bytes.as_deref().map(|b| Document::parse(b, None)) {
        Some(Ok(Document::Manifest(manifest))) if manifest.layers.len() == image.layers.len() => Some(manifest),
        _ => None,
    };
    let mut layers = Vec::with_capacity(image.layers.len());
    for (n, layer) in image.layers.iter().enumerate() {
        let blob = match own_blob(sources, manifest.as_ref(), n)? {
            Some(descriptor) => Some(BlobRef { descriptor, place: BlobPlace::Store, original: true }),
            None => unpack::blob_of(store, &layer.diff_id)?,
        };
        if blob.is_none() && store.layer_dir(&layer.id)?.is_none() {
            return Ok(None);
        }
        layers.push(ResolvedLayer { id: layer.id, diff_id: layer.diff_id, blob });
    }
    store.hold(&layers.iter().map(|l| l.id).collect::<Vec<LayerId>>())?;
    Ok(Some(ResolvedImage {
        config,
        config_bytes,
        digest: image.manifest.unwrap_or(image.id),
        manifest: manifest_bytes,
        platform: image.platform.clone(),
        layers,
        origin: origin.into(),
    }))
}

/// Returns the blob that the image's own manifest names. It is preferred to others that claim the same diff ID:
/// a claim is proven only when a layer is unpacked.
fn own_blob(sources: &Sources<'_>, manifest: Option<&Manifest>, n: usize) -> Result<Option<Descriptor>, SourceError> {
    let Some(descriptor) = manifest.and_then(|m| m.layers.get(n)) else { return Ok(None) };
    Ok(sources.store.has_blob(&descriptor.digest)?.then(|| descriptor.clone()))
}

fn pull(sources: &Sources<'_>, reference: &Reference, platform: &Platform) -> Result<ResolvedImage, SourceError> {
    if let Some(image) = sources.pulls.and_then(|pulls| pulls.find(reference, platform)) {
        return Ok(image.describe());
    }
    let repository = Repository { host: reference.domain().into(), path: reference.path().into() };
    let name = reference.familiar();
    let from = Remote { sources, repository: &repository, name: &name };
    let task = sources.progress.begin(format!("resolve {name}"));
    let found = (|| {
        let top = top(&from, reference)?;
        let descriptor = Descriptor::new(&top.media_type, top.digest, top.bytes.len() as u64);
        descend::descend(&from, descriptor, Some(top.bytes), platform).map(|found| (found, top.digest))
    })();
    sources.progress.end(task);
    let (found, top) = found?;
    let image = Arc::new(PulledImage { reference: reference.clone(), platform: platform.clone(), repository, found, top });
    match sources.pulls {
        Some(pulls) => pulls.add(&image),
        None => {
            image.keep(sources)?;
            // Names are looked up among rows that are written.
            sources.store.flush()?;
        }
    }
    Ok(image.describe())
}

/// Fetches what a name leads to.
pub(super) fn top(from: &Remote<'_>, reference: &Reference) -> Result<Fetched, SourceError> {
    let wanted = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_string(),
    };
    from.sources.client.document(from.repository, &wanted).map_err(|e| from.error(e))
}

/// A repository of a registry.
pub(super) struct Remote<'a> {
    pub sources: &'a Sources<'a>,
    pub repository: &'a Repository,
    /// For messages.
    pub name: &'a str,
}

impl Remote<'_> {
    /// Opens a blob.
    pub(super) fn open(&self, blob: &Descriptor) -> Result<Box<dyn std::io::Read + Send + '_>, SourceError> {
        Ok(Box::new(self.sources.client.open_blob(self.repository, blob)))
    }
    fn error(&self, source: RegistryError) -> SourceError {
        SourceError::Registry { reference: self.name.into(), source: Box::new(source) }
    }
}

impl Fetch for Remote<'_> {
    fn origin(&self) -> String {
        self.name.into()
    }
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        let fetched = self.sources.client.document(self.repository, &descriptor.digest.to_string());
        fetched.map(|f| f.bytes).map_err(|e| self.error(e))
    }
    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        self.sources.client.small_blob(self.repository, descriptor).map_err(|e| self.error(e))
    }
}
