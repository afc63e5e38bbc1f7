//! Images that a registry described and whose layers are not here yet.
//!
//! A build needs a base's manifest and configuration to begin; its layers only when a step looks at files. Then a layer is
//! fetched and unpacked in one go: each byte is hashed, kept as the blob, decompressed and written as it comes in. What
//! nobody looked at is fetched at the end of the build, without being unpacked, so that an image in the store is whole
//! and the next build needs no network.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::{Digest, LayerId};
use crate::image::manifest::Descriptor;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::registry::Repository;
use crate::store::Source;

use super::descend::{self, Found};
use super::keep::{self, Incoming};
use super::{BlobPlace, BlobRef, ResolvedImage, ResolvedLayer, SourceError, Sources};

/// Pieces on their way from the network to the unpacking side: bounds the memory to a megabyte a layer.
const IN_FLIGHT: usize = 8;

/// The images of a build that are not in the store yet.
#[derive(Debug, Default)]
pub struct Pulls {
    images: Mutex<Vec<Arc<PulledImage>>>,
}

/// How far to go for the layers that are missing when a build is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// They are fetched.
    Fetch,
    /// Their images are left out.
    LeaveOut,
}

/// An image as a registry described it.
#[derive(Debug)]
pub(super) struct PulledImage {
    pub reference: Reference,
    /// What was asked for.
    pub platform: Platform,
    pub repository: Repository,
    pub found: Found,
    /// Of the document that the reference leads to: an index, or the manifest.
    pub top: Digest,
}

impl Pulls {
    fn all(&self) -> Vec<Arc<PulledImage>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the image, if it was described in this build.
    pub(super) fn find(&self, reference: &Reference, platform: &Platform) -> Option<Arc<PulledImage>> {
        self.all().into_iter().find(|i| i.reference == *reference && i.platform == *platform)
    }

    pub(super) fn add(&self, image: &Arc<PulledImage>) {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).push(image.clone());
    }

    /// Returns the image that a blob is a layer of.
    fn having(&self, digest: &Digest) -> Option<Arc<PulledImage>> {
        self.all().into_iter().find(|i| i.found.manifest.layers.iter().any(|l| l.digest == *digest))
    }
}

impl PulledImage {
    /// Describes the image; its blobs are called the store's, for that is where they are once somebody reads them.
    pub fn describe(&self) -> ResolvedImage {
        let Self { reference, found, top, .. } = self;
        let layers = found.config.rootfs.diff_ids.iter().zip(&found.manifest.layers).map(|(diff_id, descriptor)| ResolvedLayer {
            id: LayerId::Diff(*diff_id),
            diff_id: *diff_id,
            blob: Some(BlobRef { descriptor: descriptor.clone(), place: BlobPlace::Store, original: true }),
        });
        ResolvedImage {
            layers: layers.collect(),
            platform: descend::platform_of(&found.config),
            origin: format!("{}@{top}", reference.name()),
            digest: found.digest,
            manifest: Some(found.manifest_bytes.clone()),
            config: found.config.clone(),
            config_bytes: found.config_bytes.clone(),
        }
    }

    /// Puts the image into the store; layers that are not there are fetched.
    pub fn keep(&self, sources: &Sources<'_>) -> Result<(), SourceError> {
        let Self { reference, platform, repository, found, top } = self;
        let name = reference.familiar();
        let incoming = Incoming {
            config: &found.config_bytes,
            manifest: Some(&found.manifest_bytes),
            platform: descend::platform_of(&found.config),
            layers: found.config.rootfs.diff_ids.iter().copied().zip(found.manifest.layers.iter().cloned()).collect(),
            name: &name,
        };
        sources.store.hold(&incoming.layers.iter().map(|(d, _)| LayerId::Diff(*d)).collect::<Vec<_>>())?;
        let open = |d: &Descriptor| Ok(Box::new(sources.client.open_blob(repository, d)) as Box<dyn Read + Send>);
        let image = keep::keep(sources, &incoming, sources.client.config().parallel, &open)?;
        let called = match reference.digest() {
            Some(digest) => format!("{}@{digest}", reference.name()),
            None => reference.to_string(),
        };
        let checked_secs = sources.policy.now_secs;
        sources.store.put_source(Source { reference: called, platform: platform.clone(), manifest: *top, image, checked_secs })?;
        sources.store.put_repo_digest(&image, &format!("{}@{top}", reference.name()))?;
        Ok(())
    }

    fn is_complete(&self, sources: &Sources<'_>) -> Result<bool, SourceError> {
        for layer in &self.found.manifest.layers {
            if !sources.store.has_blob(&layer.digest)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Sources<'_> {
    /// Puts the images that this build pulled into the store.
    pub fn finish_pulls(&self, missing: Missing) -> Result<(), SourceError> {
        let images = self.pulls.map(Pulls::all).unwrap_or_default();
        for image in &images {
            if missing == Missing::Fetch || image.is_complete(self)? {
                image.keep(self)?;
            }
        }
        if !images.is_empty() {
            // Names are looked up among rows that are written.
            self.store.flush()?;
        }
        Ok(())
    }

    /// Returns where to fetch a blob that is not here; none: it is here, or nobody has it.
    pub(super) fn elsewhere(&self, blob: &BlobRef) -> Result<Option<Arc<PulledImage>>, SourceError> {
        let digest = &blob.descriptor.digest;
        match (&blob.place, self.pulls) {
            (BlobPlace::Store, Some(pulls)) if !self.store.has_blob(digest)? => Ok(pulls.having(digest)),
            _ => Ok(None),
        }
    }

    /// Returns the repository of a blob that was described and is not here; none: it is here, or nobody has it.
    pub fn place_elsewhere(&self, blob: &BlobRef) -> Result<Option<BlobPlace>, SourceError> {
        Ok(self.elsewhere(blob)?.map(|image| BlobPlace::Repository(image.repository.clone())))
    }

    /// Fetches a blob into the store, and lets `work` read it meanwhile. When this returns well, the blob is there and
    /// was verified; `work`'s result, good or bad, says nothing of that: it may not have read to the end.
    ///
    /// None: the blob is there, but what was read beside is worth nothing, since a mirror's bytes turned out to be wrong.
    pub(super) fn fetch_beside<T: Send>(
        &self,
        image: &PulledImage,
        descriptor: &Descriptor,
        work: impl FnOnce(Fork) -> T + Send,
    ) -> Result<Option<T>, SourceError> {
        let name = image.reference.familiar();
        let (send, pieces) = sync_channel(IN_FLIGHT);
        // Only the first try is read beside: the bytes of another one are not its continuation.
        let (first, tries) = (Mutex::new(Some(send.clone())), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let working = scope.spawn(move || work(Fork { pieces, piece: Vec::new(), at: 0, over: false }));
            let open = |d: &Descriptor| {
                let inner = self.client.open_blob(&image.repository, d);
                tries.fetch_add(1, Ordering::Relaxed);
                let send = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(Box::new(Forking { inner, send }) as Box<dyn Read + Send>)
            };
            let kept = keep::fetch_blob(self, &name, descriptor, &open);
            let once = tries.load(Ordering::Relaxed) == 1;
            // The end of the stream, or that it broke off: whoever reads must not take a part for the whole.
            if kept.is_ok() && once {
                let _ = send.send(Piece::End);
            }
            drop(send);
            let worked = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            kept.map(|()| once.then_some(worked))
        })
    }
}

/// What goes from the network's side to the reading side.
enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// Passes bytes on, and a copy of them to whoever reads beside.
struct Forking<R> {
    inner: R,
    /// None: nobody reads any more.
    send: Option<SyncSender<Piece>>,
}

impl<R: Read> Read for Forking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n > 0
            && let Some(send) = &self.send
            && send.send(Piece::Bytes(buffer[..n].to_vec())).is_err()
        {
            self.send = None;
        }
        Ok(n)
    }
}

/// The bytes of a blob that is being fetched; fails where the fetching did.
pub(super) struct Fork {
    pieces: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    over: bool,
}

impl Read for Fork {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.over {
            return Ok(0);
        }
        if self.at == self.piece.len() {
            match self.pieces.recv() {
                Ok(Piece::Bytes(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Piece::End) => {
                    self.over = true;
                    return Ok(0);
                }
                Err(_) => return Err(io::Error::other("the download broke off")),
            }
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
#[path = "pulled_tests.rs"]
mod tests;
