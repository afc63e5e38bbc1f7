//! Takes an image into the store: blobs side by side, then the image that needs them.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::digest::{DiffId, Digest, LayerId};
use crate::image::manifest::Descriptor;
use crate::image::platform::Platform;
use crate::registry::RegistryError;
use crate::store::{ImageLayer, LayerBlob, NewImage, StoreError};

use super::{Progress, SourceError, Sources, Until};

/// How a blob is labelled in the store that came with an image.
pub(in crate::engine) const ORIGINAL: &str = "original";

/// An image to be kept.
pub(super) struct Incoming<'a> {
    pub config: &'a [u8],
    pub manifest: Option<&'a [u8]>,
    pub platform: Platform,
    /// Bottom first.
    pub layers: Vec<(DiffId, Descriptor)>,
    /// For messages.
    pub name: &'a str,
}

/// Opens a blob that is to be kept.
pub(super) type Open<'a> = dyn Fn(&Descriptor) -> Result<Box<dyn Read + Send + 'a>, SourceError> + Sync + 'a;

/// Stores the image and returns its id. What is there already is not opened.
pub(super) fn keep(sources: &Sources<'_>, image: &Incoming<'_>, parallel: usize, open: &Open<'_>) -> Result<Digest, SourceError> {
    let mut seen = BTreeSet::new();
    let blobs: Vec<&(DiffId, Descriptor)> = image.layers.iter().filter(|(_, d)| seen.insert(d.digest)).collect();
    side_by_side(&blobs, parallel, &|(_, descriptor)| keep_blob(sources, image.name, descriptor, open))?;
    for (diff_id, descriptor) in &image.layers {
        note_blob(sources, diff_id, descriptor, ORIGINAL)?;
    }
    let layers = image.layers.iter().map(|(diff_id, _)| ImageLayer { id: LayerId::Diff(*diff_id), diff_id: *diff_id }).collect();
    let added_secs = sources.policy.now_secs;
    let new = NewImage { config: image.config, layers, platform: image.platform.clone(), manifest: image.manifest, added_secs };
    Ok(sources.store.put_image(&new)?)
}

/// Notes in the store that a blob holds a layer, unless it is known.
pub(super) fn note_blob(sources: &Sources<'_>, diff_id: &DiffId, blob: &Descriptor, compression: &str) -> Result<(), SourceError> {
    let (digest, size_bytes) = (blob.digest, blob.size);
    let known = sources.store.layer_blobs(diff_id)?.iter().any(|b| b.digest == digest);
    if !known {
        let (media_type, compression) = (blob.media_type.clone(), compression.to_string());
        sources.store.put_layer_blob(diff_id, LayerBlob { digest, size_bytes, media_type, compression })?;
    }
    Ok(())
}

pub(super) fn keep_blob(sources: &Sources<'_>, name: &str, descriptor: &Descriptor, open: &Open<'_>) -> Result<(), SourceError> {
    if !sources.store.has_blob(&descriptor.digest)? {
        return fetch_blob(sources, name, descriptor, open);
    }
    // What is not fetched is not measured: the image's word must be right all the same.
    let Descriptor { digest, size: expected, .. } = *descriptor;
    match sources.store.open_blob(&digest)?.map(|file| file.metadata()).transpose().map_err(SourceError::io(sources.store.root()))? {
        Some(meta) if meta.len() != expected => {
            Err(SourceError::Size { origin: name.into(), what: "the layer", digest, expected, found: meta.len() })
        }
        _ => Ok(()),
    }
}

/// Reads all of a blob into the store.
pub(super) fn fetch_blob(sources: &Sources<'_>, name: &str, descriptor: &Descriptor, open: &Open<'_>) -> Result<(), SourceError> {
    let task = sources.progress.begin(format!("{name}: layer {}", &descriptor.digest.hex()[..12]));
    let once = || {
        let inner = Until { inner: open(descriptor)?, progress: sources.progress };
        let mut reader = Watched { inner, done: 0, total: descriptor.size, task, progress: sources.progress };
        let expected = (&descriptor.digest, descriptor.size);
        sources.store.put_blob(&mut reader, Some(expected)).map_err(|e| take_out(name, e))
    };
    let wrong = |e: &SourceError| matches!(e, SourceError::Store(StoreError::DigestMismatch { .. } | StoreError::SizeMismatch { .. }));
    let outcome = loop {
        match once() {
            // A mirror's bytes; there is another place to ask.
            Err(e) if wrong(&e) && sources.client.was_wrong(&descriptor.digest) => {}
            outcome => break outcome,
        }
    };
    sources.progress.end(task);
    outcome.map(|_| ())
}

/// Takes a registry's error out of the store's, which met it while reading.
fn take_out(name: &str, error: StoreError) -> SourceError {
    match error {
        StoreError::Io { source, .. } if source.get_ref().is_some_and(|e| e.is::<RegistryError>()) => {
            let source = Box::new(RegistryError::from_io(source, || name.to_string()));
            SourceError::Registry { reference: name.into(), source }
        }
        other => other.into(),
    }
}

struct Watched<'a> {
    inner: Until<'a, Box<dyn Read + Send + 'a>>,
    done: u64,
    total: u64,
    task: usize,
    progress: &'a dyn Progress,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        self.progress.advance(self.task, self.done, Some(self.total));
        Ok(n)
    }
}

/// Does `work` for all items with at most `parallel` threads; after the first failure nothing new is begun.
pub(in crate::engine) fn side_by_side<T: Sync, E: Send>(
    items: &[T],
    parallel: usize,
    work: &(dyn Fn(&T) -> Result<(), E> + Sync),
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<E>> = Mutex::new(None);
    let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
    let run = || {
        while failed().is_none() {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(e) = work(item) {
                failed().get_or_insert(e);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..parallel.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_items_are_done_once_and_a_failure_stops_the_rest() {
        let items: Vec<usize> = (0..100).collect();
        for parallel in [1, 4] {
            let sum = AtomicUsize::new(0);
            let outcome: Result<(), ()> = side_by_side(&items, parallel, &|n| {
                sum.fetch_add(*n, Ordering::SeqCst);
                Ok(())
            });
            assert_eq!((outcome, sum.into_inner()), (Ok(()), 4950));
            let begun = AtomicUsize::new(0);
            let outcome = side_by_side(&items, parallel, &|n| {
                begun.fetch_add(1, Ordering::SeqCst);
                if *n == 3 { Err(*n) } else { Ok(()) }
            });
            assert_eq!(outcome, Err(3));
            assert!(parallel > 1 || begun.into_inner() == 4);
        }
    }
}
