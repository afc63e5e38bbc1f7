//! Names that stand for images of several platforms: pulled with their index, or built together.
//!
//! A name of the store names one image. What else belongs to it is a value beside it ([`SEVERAL`]): the images, and of a pulled
//! index its bytes with everything below it (attestations too), so that a push sends the same index, byte for byte.
//!
//! What a newcomer would get wrong: the value may be out of date. It counts only while the name still names one of its images;
//! [`several_of`] checks that, and garbage collection does the same.

use serde::{Deserialize, Serialize};

use super::descend::{self, Fetch};
use super::pulled::PulledImage;
use super::reference::{self, Remote};
use super::{SourceError, Sources};
use crate::digest::Digest;
use crate::image::manifest::{Descriptor, Document, Index, Manifest, media};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::select::{self, INDEX_DEPTH_MAX, NoPlatform};
use crate::registry::Repository;
use crate::store::{SEVERAL, Store, StoreError};

/// The annotation of an attestation: the manifest that it is about.
const ABOUT: &str = "vnd.docker.reference.digest";

/// The images of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Several {
    /// The index that they were pulled with, a blob; none: they were built here.
    pub index: Option<Digest>,
    /// The images, in the index's order.
    pub images: Vec<Digest>,
    /// What else has to be kept: the index, and what of it is no image.
    pub blobs: Vec<Digest>,
}

/// Which images of an index are pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All, and everything else that it names.
    All,
    /// Those that fit these platforms best, and their attestations.
    For(Vec<Platform>),
}

/// Returns what belongs to a name, which names `image`.
pub fn several_of(store: &Store, name: &str, image: &Digest) -> Result<Option<Several>, StoreError> {
    let row = store.load_blob_row(SEVERAL, name)?;
    let several: Option<Several> = row.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(several.filter(|s| s.images.contains(image)))
}

/// Notes what belongs to a name; none: the one image that it names, alone.
pub fn note_several(store: &Store, name: &str, several: Option<&Several>) -> Result<(), StoreError> {
    match several {
        Some(several) => store.save_blob_row(SEVERAL, name, &serde_json::to_vec(several).expect("digests are serialisable")),
        None if store.load_blob_row(SEVERAL, name)?.is_some() => store.remove_blob_row(SEVERAL, name),
        None => Ok(()),
    }
}

impl Sources<'_> {
    /// Pulls the images of a name for several platforms, and names the one that fits this host, else the first. Returns it.
    pub fn pull_several(&self, reference: &Reference, which: &Which) -> Result<Digest, SourceError> {
        let repository = Repository { host: reference.domain().into(), path: reference.path().into() };
        let name = reference.familiar();
        let from = Remote { sources: self, repository: &repository, name: &name };
        let top = reference::top(&from, reference)?;
        let descriptor = Descriptor::new(&top.media_type, top.digest, top.bytes.len() as u64);
        let document = Document::parse(&top.bytes, Some(&top.media_type));
        let document = document.map_err(|source| SourceError::Document { origin: from.origin(), digest: top.digest, source })?;
        let mut pull = Pull { from: &from, reference, top: top.digest, kept: Several::default(), platforms: Vec::new() };
        match document {
            Document::Index(index) => {
                pull.entries(&index, which, 0)?;
                pull.kept.blobs.push(self.store.put_bytes(&top.bytes)?);
                pull.kept.index = Some(top.digest);
            }
            Document::Manifest(_) => {
                pull.image(&descriptor, Some(top.bytes))?;
                pull.require(which)?;
            }
        }
        let Pull { kept, platforms, .. } = pull;
        let host = Platform::host();
        let main = platforms.iter().position(|p| select::runs(&host, p)).unwrap_or(0);
        let none =
            || SourceError::Platform { origin: name.clone(), source: Box::new(NoPlatform { wanted: host.clone(), available: vec![] }) };
        let main = *kept.images.get(main).ok_or_else(none)?;
        self.store.flush()?;
        let full = reference.to_string();
        if reference.digest().is_none() {
            self.store.tag(&full, &main)?;
        }
        note_several(self.store, &full, kept.index.is_some().then_some(&kept))?;
        Ok(main)
    }
}

/// A pull under way.
struct Pull<'p> {
    from: &'p Remote<'p>,
    reference: &'p Reference,
    /// What the name leads to.
    top: Digest,
    kept: Several,
    /// What the images are for.
    platforms: Vec<Platform>,
}

impl Pull<'_> {
    /// Takes what an index names.
    fn entries(&mut self, index: &Index, which: &Which, depth: usize) -> Result<(), SourceError> {
        if depth > INDEX_DEPTH_MAX {
            return Err(SourceError::TooDeep { origin: self.from.origin(), limit: INDEX_DEPTH_MAX });
        }
        for entry in
            chosen(index, which).map_err(|source| SourceError::Platform { origin: self.from.origin(), source: Box::new(source) })?
        {
            let bytes = self.from.document(entry)?;
            descend::verify(self.from, "the document", entry, &bytes)?;
            let announced = (!entry.media_type.is_empty()).then_some(entry.media_type.as_str());
            let malformed = |source| SourceError::Document { origin: self.from.origin(), digest: entry.digest, source };
            match Document::parse(&bytes, announced).map_err(malformed)? {
                Document::Index(nested) => {
                    self.entries(&nested, which, depth + 1)?;
                    self.kept.blobs.push(self.from.sources.store.put_bytes(&bytes)?);
                }
                Document::Manifest(manifest) if is_image(entry, &manifest) => self.image(entry, Some(bytes))?,
                Document::Manifest(manifest) => self.companion(&manifest, &bytes)?,
            }
        }
        Ok(())
    }

    fn image(&mut self, entry: &Descriptor, bytes: Option<Vec<u8>>) -> Result<(), SourceError> {
        let found = descend::descend(self.from, entry.clone(), bytes, &Platform::host())?;
        let platform = entry.platform.clone().unwrap_or_else(|| descend::platform_of(&found.config));
        let id = Digest::of(&found.config_bytes);
        let (reference, repository) = (self.reference.clone(), self.from.repository.clone());
        PulledImage { reference, platform: platform.clone(), repository, found, top: self.top }.keep(self.from.sources)?;
        self.kept.blobs.push(entry.digest);
        if !self.kept.images.contains(&id) {
            self.kept.images.push(id);
            self.platforms.push(platform);
        }
        Ok(())
    }

    /// Keeps a manifest that is no image's (provenance, a signature), and its blobs, as they are.
    fn companion(&mut self, manifest: &Manifest, bytes: &[u8]) -> Result<(), SourceError> {
        let store = self.from.sources.store;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            super::keep::keep_blob(self.from.sources, self.from.name, blob, &|d| self.from.open(d))?;
            self.kept.blobs.push(blob.digest);
        }
        self.kept.blobs.push(store.put_bytes(bytes)?);
        Ok(())
    }

    /// Fails when the one image that there is is not for all platforms that were asked for.
    fn require(&self, which: &Which) -> Result<(), SourceError> {
        let Which::For(wanted) = which else { return Ok(()) };
        let missing = wanted.iter().find(|w| !self.platforms.iter().any(|p| select::runs(w, p)));
        match missing {
            None => Ok(()),
            Some(wanted) => {
                let available = self.platforms.iter().map(ToString::to_string).collect();
                let source = Box::new(NoPlatform { wanted: wanted.clone(), available });
                Err(SourceError::Platform { origin: self.from.origin(), source })
            }
        }
    }
}

fn is_image(entry: &Descriptor, manifest: &Manifest) -> bool {
    let config = matches!(manifest.config.media_type.as_str(), media::OCI_CONFIG | media::DOCKER_CONFIG);
    config && !select::is_attestation(entry) && manifest.require_layers().is_ok()
}

/// Returns the entries that are to be pulled, in the index's order.
fn chosen<'i>(index: &'i Index, which: &Which) -> Result<Vec<&'i Descriptor>, NoPlatform> {
    let Which::For(platforms) = which else { return Ok(index.manifests.iter().collect()) };
    let fitting = platforms.iter().map(|p| select::select(index, p).map(|d| d.digest)).collect::<Result<Vec<_>, _>>()?;
    let about = |d: &Descriptor| d.annotations.get(ABOUT).and_then(|text| text.parse::<Digest>().ok());
    let wanted = |d: &&Descriptor| fitting.contains(&d.digest) || about(d).is_some_and(|digest| fitting.contains(&digest));
    Ok(index.manifests.iter().filter(wanted).collect())
}
