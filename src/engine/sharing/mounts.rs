//! What `RUN --mount=type=cache` keeps, carried between machines: `--cache-mounts`.
//!
//! A mount is sent as one tar after a build that ended well, if a step of it used the mount, and taken where this machine
//! has none yet. Unlike all else in a shared cache it is not proven by anything and changes as it likes: the last writer's
//! is what others start from. It holds what commands left there. So it is only ever carried when asked for.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::export::open_at;
use super::place::SharingError;
use super::{Sharing, Sink, locked};
use crate::cache::remote::object::{Kind, Object, ObjectError};
use crate::cache::remote::tag;
use crate::engine::error::chain;
use crate::engine::event::Event;
use crate::engine::sources::{BlobPlace, BlobRef, Until, open_blob};
use crate::image::manifest::{Descriptor, media};
use crate::layer::{self, ExtractOptions, LayerError, Limits, Placed, compress};
use crate::path::Root;
use crate::store::{CacheMountId, MountSharing};

/// zstd's own default: speed counts more than size.
const LEVEL: i32 = 3;

#[derive(Serialize, Deserialize)]
struct MountBody {
    mount: CacheMountId,
}

impl Sharing<'_> {
    fn carries(&self, mount: &CacheMountId) -> bool {
        self.mounts.as_ref().is_some_and(|ids| ids.is_empty() || ids.contains(&mount.id))
    }

    /// Notes that a step uses a mount: what is in it may change.
    pub fn note_mount(&self, mount: &CacheMountId) {
        if self.has_sinks() && self.carries(mount) {
            locked(&self.used_mounts).insert(mount.clone());
        }
    }

    /// Fills the directory of a new mount with what a shared cache has; returns whether one had it. A failure is a notice:
    /// the mount then begins as any new one.
    pub fn fill_mount(&self, mount: &CacheMountId, dir: &Path) -> bool {
        if !self.carries(mount) {
            return false;
        }
        for (_, source) in self.asked() {
            match self.fill_from(source, mount, dir) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(e) => {
                    let text = format!("cache mount `{}` is not taken from {}: {}", mount.id, source.place.shown(), chain(&e));
                    self.engine.observer.event(Event::Notice(text));
                }
            }
        }
        false
    }

    fn fill_from(&self, source: &super::Source<'_>, mount: &CacheMountId, dir: &Path) -> Result<bool, SharingError> {
        let Some((parts, body)) = source.place.object(Kind::Mount, &tag::of_mount(&source.name, &identity(mount)))? else {
            return Ok(false);
        };
        let MountBody { mount: found } = serde_json::from_slice(&body).map_err(ObjectError::Body)?;
        let [blob] = parts.blobs.as_slice() else { return Err(ObjectError::Blobs { kind: Kind::Mount, found: parts.blobs.len() }.into()) };
        if found != *mount {
            return Ok(false);
        }
        let progress = self.engine.progress;
        let task = progress.begin(format!("cache {}: mount {}", source.place.shown(), mount.id));
        let mut watch = |done| {
            progress.advance(task, done, Some(blob.size));
            if progress.is_cancelled() { Err(io::Error::other("interrupted")) } else { Ok(()) }
        };
        let outcome = source.place.fetch(self.engine.store, blob, &mut watch).and_then(|()| self.extract(blob, dir));
        progress.end(task);
        outcome.map(|()| true)
    }

    /// Unpacks a mount's tar beside its directory, and moves what came out into it once it is whole.
    fn extract(&self, blob: &Descriptor, dir: &Path) -> Result<(), SharingError> {
        let store = self.engine.store;
        let failed = |source| SharingError::Mount { source };
        let staging = store.stage()?;
        let root = Root::open(staging.path()).map_err(|e| failed(e.into()))?;
        let limits = Limits::default();
        let here = BlobRef { descriptor: blob.clone(), place: BlobPlace::Store, original: true };
        let reader = Until { inner: open_blob(store, &here)?, progress: self.engine.progress };
        let (_, mut tar) = layer::decompress(reader, limits.max_bytes).map_err(|source| failed(LayerError::Read { source }))?;
        let options = ExtractOptions { owner: None, ownership: self.engine.ownership, limits };
        layer::extract(&mut tar, &root, b"", &options).map_err(failed)?;
        // To the end: only there the blob has proven to be the right one.
        io::copy(&mut tar, &mut io::sink()).map_err(|source| failed(LayerError::Read { source }))?;
        for entry in std::fs::read_dir(staging.path()).map_err(SharingError::file("listing", staging.path()))? {
            let entry = entry.map_err(SharingError::file("listing", staging.path()))?;
            std::fs::rename(entry.path(), dir.join(entry.file_name())).map_err(SharingError::file("moving", &entry.path()))?;
        }
        Ok(())
    }

    /// Sends the mounts that this build's steps used.
    pub fn send_mounts(&self) {
        let used: BTreeSet<CacheMountId> = std::mem::take(&mut *locked(&self.used_mounts));
        for mount in used {
            let packed = self.pack_mount(&mount);
            for sink in self.sinks.iter().filter(|s| !s.broken.load(Ordering::Relaxed)) {
                let sent = match &packed {
                    Ok(Some(blob)) => self.send_mount(sink, &mount, blob),
                    Ok(None) => Ok(()),
                    Err(e) => Err(SharingError::Build(format!("packing cache mount `{}`: {}", mount.id, chain(e)))),
                };
                if let Err(e) = sent {
                    sink.fail(&e);
                }
            }
        }
    }

    /// Packs a mount while no step writes to it; none: it is gone.
    fn pack_mount(&self, mount: &CacheMountId) -> Result<Option<BlobRef>, SharingError> {
        let store = self.engine.store;
        let cancelled = || self.engine.cancel.is_cancelled();
        let opened = match store.open_cache_mount_unless(mount, MountSharing::Locked, &cancelled, |_| Err(Gone::Removed)) {
            Ok(Some(opened)) => opened,
            Ok(None) | Err(Gone::Removed) => return Ok(None),
            Err(Gone::Store(e)) => return Err(e.into()),
        };
        let failed = |source| SharingError::Mount { source };
        let write = |source| failed(LayerError::Write { source });
        let dir = Root::open(opened.path()).map_err(|e| failed(e.into()))?.into_fd();
        let mut blob = store.new_blob()?;
        let mut zstd = compress::zstd(&mut blob, LEVEL).map_err(write)?;
        layer::flatten(&[Placed { below: String::new(), dir: dir.as_fd() }], None, &mut zstd).map_err(failed)?;
        let (_, made) = zstd.finish().map_err(write)?;
        blob.keep(&made.digest, made.size_bytes)?;
        let descriptor = Descriptor::new(media::OCI_LAYER_ZSTD, made.digest, made.size_bytes);
        Ok(Some(BlobRef { descriptor, place: BlobPlace::Store, original: true }))
    }

    fn send_mount(&self, sink: &Sink<'_>, mount: &CacheMountId, blob: &BlobRef) -> Result<(), SharingError> {
        let (store, client) = (self.engine.store, self.engine.client);
        let task = self.engine.progress.begin(format!("cache {}: mount {}", sink.place.shown(), mount.id));
        let body = serde_json::to_vec(&MountBody { mount: mount.clone() }).expect("texts and numbers are JSON");
        let object = Object { kind: Kind::Mount, body, blobs: vec![blob.descriptor.clone()] };
        let sent = sink.place.put_blob(&blob.descriptor, &[], &|from| open_at(store, client, blob, from));
        let sent = sent.and_then(|_| sink.place.put(&tag::of_mount(&sink.name, &identity(mount)), &object));
        self.engine.progress.end(task);
        sent
    }
}

/// Why a mount was not opened.
enum Gone {
    Removed,
    Store(crate::store::StoreError),
}

impl From<crate::store::StoreError> for Gone {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Store(error)
    }
}

/// All that tells a mount from others, the same on every machine.
fn identity(mount: &CacheMountId) -> String {
    serde_json::to_string(mount).expect("texts and numbers are JSON")
}
