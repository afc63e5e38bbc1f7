//! Pushes an image into a registry's repository.
//!
//! A layer is compressed and sent as soon as its turn comes, several at once, so that the compression of one and the
//! upload of another overlap. Documents follow when all that they name is there: whoever pulls meanwhile sees the old
//! image or the new one, never half of one.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use super::bundle::as_it_came;
use super::{ExportError, Exported, Exporter, FinishedImage, FinishedLayer, pack};
use crate::digest::{DiffId, Digest};
use crate::engine::request::{Packing, PushAs};
use crate::engine::sharing::open_at;
use crate::engine::sources::{BlobPlace, BlobRef, side_by_side};
use crate::image::manifest::{Descriptor, media};
use crate::image::reference::Reference;
use crate::registry::{Client, Repository, Sent};

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest, or the index of several platforms.
    pub exported: Exported,
    /// How many blobs were sent.
    pub uploaded: usize,
    /// How many were there, or were mounted from another repository.
    pub spared: usize,
}

/// Documents of the store and the blobs that they name, each document after what it names.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub documents: Vec<(Descriptor, Vec<u8>)>,
    pub blobs: Vec<BlobRef>,
}

impl Part {
    pub(super) fn append(&mut self, mut other: Self) {
        self.documents.append(&mut other.documents);
        self.blobs.append(&mut other.blobs);
    }
}

impl Exporter<'_> {
    /// Pushes `images`, one image for several platforms, to `to`.
    pub fn push(
        &self,
        images: &[FinishedImage],
        to: &Reference,
        named: PushAs,
        packing: Packing,
        client: &Client,
    ) -> Result<Pushed, ExportError> {
        if to.digest().is_some() {
            return Err(ExportError::PushDigest { name: to.to_string() });
        }
        let failed = |source| ExportError::Push { name: to.familiar(), source: Box::new(source) };
        let repository = Repository { host: to.domain().into(), path: to.path().into() };
        let others = self.other_repositories(&repository)?;
        let outcomes = Mutex::new(Vec::new());
        side_by_side(&layers(images, packing), client.config().parallel, &|layer| {
            let blob = match layer {
                Layer::AsItCame(blob) => (**blob).clone(),
                Layer::Ours(layer) => pack::pack(self, layer, packing)?,
            };
            let mut mount = others.get(&blob.descriptor.digest).cloned().unwrap_or_default();
            if let BlobPlace::Repository(from) = &blob.place
                && from.host == repository.host
            {
                mount.insert(0, from.path.clone());
            }
            let sent = self.push_blob(client, &repository, &blob, &mount).map_err(failed)?;
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            Ok::<(), ExportError>(())
        })?;
        // All layers are packed by now: this only looks them up.
        let bundle = self.bundle(images, packing, &[])?;
        let documents = bundle.documents.into_iter().map(|(descriptor, bytes)| (descriptor, bytes.into_owned())).collect();
        let part = Part { documents, blobs: Vec::new() };
        let ids: Vec<Digest> = images.iter().map(|i| Digest::of(&i.config)).collect();
        let pushed = self.push_part(&part, bundle.exported, &ids, to, named, client)?;
        let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let uploaded = outcomes.iter().filter(|s| **s == Sent::Uploaded).count();
        let spared = pushed.spared + outcomes.len() - uploaded;
        Ok(Pushed { uploaded: pushed.uploaded + uploaded, spared, ..pushed })
    }

    /// Pushes blobs, then documents in order; the one that is `exported` goes by the tag.
    pub(super) fn push_part(
        &self,
        part: &Part,
        exported: Exported,
        images: &[Digest],
        to: &Reference,
        named: PushAs,
        client: &Client,
    ) -> Result<Pushed, ExportError> {
        let failed = |source| ExportError::Push { name: to.familiar(), source: Box::new(source) };
        let repository = Repository { host: to.domain().into(), path: to.path().into() };
        let others = if part.blobs.is_empty() { HashMap::new() } else { self.other_repositories(&repository)? };
        let outcomes = Mutex::new(Vec::new());
        let mut seen = HashSet::new();
        let blobs: Vec<&BlobRef> = part.blobs.iter().filter(|b| seen.insert(b.descriptor.digest)).collect();
        side_by_side(&blobs, client.config().parallel, &|blob| {
            let mount = others.get(&blob.descriptor.digest).map_or(&[][..], Vec::as_slice);
            let sent = self.push_blob(client, &repository, blob, mount).map_err(failed)?;
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            Ok::<(), ExportError>(())
        })?;
        let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (descriptor, bytes) in &part.documents {
            if descriptor.media_type == media::OCI_CONFIG || descriptor.media_type == media::DOCKER_CONFIG {
                let open = |from: u64| -> io::Result<Box<dyn Read>> { Ok(Box::new(io::Cursor::new(tail(bytes, from).to_vec()))) };
                outcomes.push(client.push_blob(&repository, descriptor, &[], &open, &|_| {}).map_err(failed)?);
            } else {
                let last = descriptor.digest == exported.manifest.digest;
                let name = match to.tag().filter(|_| last && named == PushAs::Tag) {
                    Some(tag) => tag.to_string(),
                    None => descriptor.digest.to_string(),
                };
                client.push_document(&repository, &name, &descriptor.media_type, bytes).map_err(failed)?;
            }
        }
        for image in images {
            // So that another push to this registry can take the layers from here.
            // One that is not kept here needs no such note.
            if self.store.image(image)?.is_some() {
                self.store.put_repo_digest(image, &format!("{}@{}", to.name(), exported.manifest.digest))?;
            }
        }
        let uploaded = outcomes.iter().filter(|s| **s == Sent::Uploaded).count();
        Ok(Pushed { exported, uploaded, spared: outcomes.len() - uploaded })
    }

    fn push_blob(
        &self,
        client: &Client,
        repository: &Repository,
        blob: &BlobRef,
        mount: &[String],
    ) -> Result<Sent, crate::registry::RegistryError> {
        let Descriptor { digest, size, .. } = &blob.descriptor;
        let task = self.progress.begin(format!("push layer {}", &digest.hex()[..12]));
        let open = |from: u64| -> io::Result<Box<dyn Read>> { open_at(self.store, client, blob, from) };
        let sent = client.push_blob(repository, &blob.descriptor, mount, &open, &|done| self.progress.advance(task, done, Some(*size)));
        self.progress.end(task);
        sent
    }

    /// Returns, for blobs of the store's images, in which other repositories of the registry they were seen.
    fn other_repositories(&self, to: &Repository) -> Result<HashMap<Digest, Vec<String>>, ExportError> {
        let mut seen: HashMap<Digest, Vec<String>> = HashMap::new();
        let mut known: HashMap<DiffId, Vec<Digest>> = HashMap::new();
        for image in self.store.list()? {
            let paths = image.repo_digests.iter().filter_map(|d| Reference::parse(d).ok());
            let paths: Vec<String> = paths.filter(|r| r.domain() == to.host && r.path() != to.path).map(|r| r.path().to_string()).collect();
            for layer in image.layers.iter().filter(|_| !paths.is_empty()) {
                let blobs = match known.get(&layer.diff_id) {
                    Some(blobs) => blobs,
                    None => {
                        let blobs = self.store.layer_blobs(&layer.diff_id)?.into_iter().map(|b| b.digest).collect();
                        known.entry(layer.diff_id).or_insert(blobs)
                    }
                };
                for blob in blobs {
                    let found = seen.entry(*blob).or_default();
                    for path in &paths {
                        // Two are enough: each is a request.
                        if found.len() < 2 && !found.contains(path) {
                            found.push(path.clone());
                        }
                    }
                }
            }
        }
        Ok(seen)
    }
}

/// A layer that is to be pushed.
enum Layer<'a> {
    AsItCame(Box<BlobRef>),
    Ours(&'a FinishedLayer),
}

/// Returns the layers of all images, each once.
fn layers(images: &[FinishedImage], packing: Packing) -> Vec<Layer<'_>> {
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for image in images {
        let came = as_it_came(image, packing).map(|(_, _, blobs)| blobs);
        for (n, layer) in image.layers.iter().enumerate() {
            let blob = came.as_ref().and_then(|blobs| blobs.get(n));
            if seen.insert(blob.map_or(*layer.diff_id.as_bytes(), |b| *b.descriptor.digest.as_bytes())) {
                out.push(blob.map_or(Layer::Ours(layer), |b| Layer::AsItCame(Box::new(b.clone()))));
            }
        }
    }
    out
}

fn tail(bytes: &[u8], from: u64) -> &[u8] {
    usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default()
}
