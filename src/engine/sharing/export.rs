//! Sends what steps gave to the shared caches, while other steps run.
//!
//! Steps put their results into a queue; a few threads of the build take them out, look whether the cache has them, pack
//! the layer and send it. What is in the queue when the build ends, also with an error, is still sent: whoever tries
//! again starts from there. Only a signal leaves it.
//!
//! The order of one result: blobs first, then the object that names them. An object that is there stays: two results of
//! one key are both right, and others may have built upon the first. But one that was made anew on purpose, by `--no-cache`,
//! takes its place: that is how a cache is refreshed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

use super::import::ORIGINAL;
use super::place::SharingError;
use super::{Counts, Sharing, Sink, locked};
use crate::cache::record::Record;
use crate::cache::remote::object::{Kind, Object};
use crate::cache::remote::{LayerForm, SharedRecord, tag};
use crate::engine::advice::advice;
use crate::engine::error::{BuildError, chain};
use crate::engine::event::Event;
use crate::engine::export::{Exporter, fits, pack};
use crate::engine::request::CacheMode;
use crate::engine::session::Build;
use crate::engine::sources::{BlobPlace, BlobRef, open_blob};
use crate::engine::state::ChainLayer;
use crate::graph::NodeId;
use crate::registry::{Client, Sent};
use crate::store::Store;

/// How many results are sent at once: each is a few requests that wait for each other.
const WORKERS: usize = 4;

/// Something to be sent.
pub(super) enum Job {
    /// What a step gave; `at` is its build's place among those of all platforms.
    Step { at: usize, node: NodeId, record: Box<Record>, layer: ChainLayer, found: Found },
    /// What is known of a selection that a step makes.
    Selection { at: usize, node: NodeId, memory: String, body: Vec<u8> },
}

impl Job {
    fn step(&self) -> (usize, NodeId) {
        match self {
            Self::Step { at, node, .. } | Self::Selection { at, node, .. } => (*at, *node),
        }
    }
}

/// What becomes of another result of the same key that a cache has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Found {
    /// It stays.
    Stays,
    /// It goes, if its layer is another.
    Goes,
}

/// What waits to be sent.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub fn push(&self, job: Job) {
        locked(&self.state).waiting.push_back(job);
        self.changed.notify_one();
    }

    /// Returns the next job; none: there will be no more.
    fn next(&self) -> Option<Job> {
        let mut state = locked(&self.state);
        loop {
            if let Some(job) = state.waiting.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn close(&self) {
        locked(&self.state).closed = true;
        self.changed.notify_all();
    }
}

/// Lets the threads beside the work end, however it ends.
struct Closing<'s>(&'s Sharing<'s>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.queue.close();
        self.0.ahead.end();
    }
}

impl Sharing<'_> {
    /// Whether anything is sent.
    pub fn has_sinks(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// Does `work` while results are sent and asked for, and returns when all are sent.
    pub fn alongside<T>(&self, builds: &[Build<'_>], work: impl FnOnce() -> T) -> T {
        if self.sinks.is_empty() && self.sources.is_empty() {
            return work();
        }
        std::thread::scope(|scope| {
            let workers = if self.sinks.is_empty() { 0 } else { WORKERS };
            for _ in 0..workers {
                scope.spawn(|| self.send_all(builds));
            }
            if !self.sources.is_empty() {
                scope.spawn(|| self.ask_ahead(builds));
            }
            let _closing = Closing(self);
            work()
        })
    }

    /// Queues what is known of a selection that a step makes.
    pub fn send_selection(&self, build: &Build<'_>, node: NodeId, memory: &str, body: &[u8]) {
        if self.has_sinks() {
            self.queue.push(Job::Selection { at: build.at, node, memory: memory.into(), body: body.to_vec() });
        }
    }

    /// Queues a step's result.
    pub fn send_step(&self, build: &Build<'_>, node: NodeId, record: Record, layer: ChainLayer, found: Found) {
        if self.has_sinks() {
            self.queue.push(Job::Step { at: build.at, node, record: Box::new(record), layer, found });
        }
    }

    fn send_all(&self, builds: &[Build<'_>]) {
        while let Some(job) = self.queue.next() {
            let (at, node) = job.step();
            for sink in &self.sinks {
                let wanted = sink.to.mode == CacheMode::Max || builds[at].in_result[node.0];
                if !wanted || sink.broken.load(Ordering::Relaxed) || self.engine.cancel.is_cancelled() {
                    continue;
                }
                if let Err(e) = self.send(&builds[at], sink, &job) {
                    sink.fail(&e);
                }
            }
        }
    }

    fn send(&self, build: &Build<'_>, sink: &Sink<'_>, job: &Job) -> Result<(), SharingError> {
        match job {
            Job::Selection { memory, body, .. } => {
                let tag = tag::of_selection(memory);
                locked(&sink.tags).insert(tag.clone());
                if sink.place.object(Kind::Selection, &tag).is_ok_and(|found| found.is_some()) {
                    return Ok(());
                }
                sink.place.put(&tag, &Object { kind: Kind::Selection, body: body.clone(), blobs: Vec::new() })
            }
            Job::Step { at, node, record, layer, found } => {
                let from_there = self.elsewhere(&layer.id)?.is_some_and(|e| self.place_of(&e).is(&sink.place));
                let tag = tag::of_record(&record.key);
                locked(&sink.tags).insert(tag.clone());
                if from_there || self.has_record(sink, &tag, record, *found)? {
                    return Ok(());
                }
                let (form, blob) = self.pack(build, sink, layer)?;
                let task = self.engine.progress.begin(format!("cache {}: {}", sink.place.shown(), record.title));
                let sent = self.send_blob(sink, &blob).and_then(|sent| {
                    let shared = SharedRecord { record: Record::clone(record), form, blob: blob.descriptor.clone() };
                    sink.place.put(&tag, &shared.to_object()).map(|()| sent)
                });
                self.engine.progress.end(task);
                sink.sent.count(sent?, blob.descriptor.size);
                locked(&self.news).insert((*at, *node));
                Ok(())
            }
        }
    }

    /// Whether the cache has a record of this key that stays; nonsense under its tag is none, and is replaced.
    fn has_record(&self, sink: &Sink<'_>, tag: &str, record: &Record, found: Found) -> Result<bool, SharingError> {
        match sink.place.object(Kind::Record, tag) {
            Ok(Some((parts, body))) => {
                let there = SharedRecord::parse(&record.key, &parts, &body);
                Ok(there.is_ok_and(|there| found == Found::Stays || there.record.layer == record.layer))
            }
            Ok(None) | Err(SharingError::Object(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Returns a layer's form and blob for a cache: packed, or as another cache has it.
    fn pack(&self, build: &Build<'_>, sink: &Sink<'_>, layer: &ChainLayer) -> Result<(LayerForm, BlobRef), SharingError> {
        if let Some(known) = self.elsewhere(&layer.id)? {
            let blob = self.blob(&known);
            if fits(&blob, Some(&known.form.compression), sink.to.packing) {
                return Ok((known.form.clone(), blob));
            }
            self.fetch(&layer.id)?;
        }
        let failed = |e: BuildError| SharingError::Build(e.to_string());
        let (finished, tar_bytes) = build.finished_layer(&layer.id).map_err(failed)?;
        let exporter = Exporter { store: self.engine.store, progress: self.engine.progress };
        let blob = pack(&exporter, &finished, sink.to.packing)?;
        let (diff_id, clamp_epoch) = (finished.diff_id, build.epoch);
        let forms = self.engine.store.layer_blobs(&diff_id)?;
        let compression = forms.into_iter().find(|b| b.digest == blob.descriptor.digest).map(|b| b.compression);
        let compression = compression.unwrap_or_else(|| ORIGINAL.into());
        Ok((LayerForm { clamp_epoch, diff_id, tar_bytes, empty: layer.empty, compression }, blob))
    }

    fn send_blob(&self, sink: &Sink<'_>, blob: &BlobRef) -> Result<Sent, SharingError> {
        let (store, client) = (self.engine.store, self.engine.client);
        let mount = sink.place.mounts(blob);
        sink.place.put_blob(&blob.descriptor, &mount, &|from| open_at(store, client, blob, from))
    }

    /// Sends what could only be known at the end; an error if a cache that was to be written could not be.
    pub fn finish(&self, builds: &[Build<'_>], built: bool) -> Result<(), BuildError> {
        if !self.engine.cancel.is_cancelled() {
            builds.iter().for_each(Build::send_places);
            self.send_plans(builds);
            if built {
                self.send_mounts();
            }
        }
        let mut failure = None;
        for sink in &self.sinks {
            let Some((error, hint)) = locked(&sink.error).take() else { continue };
            let message = format!("writing the cache {}: {error}", sink.place.shown());
            if sink.to.ignore_error {
                self.engine.observer.event(Event::Notice(message));
            } else {
                let hint = hint.unwrap_or_else(|| "`ignore-error=true` in --cache-to makes this a notice".into());
                failure.get_or_insert(BuildError::plain(message).hint(hint));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Returns what was sent.
    pub fn sent(&self) -> crate::engine::Sent {
        let sum = |of: fn(&Counts) -> &AtomicU64| self.sinks.iter().map(|s| of(&s.sent).load(Ordering::Relaxed)).sum();
        crate::engine::Sent { records: sum(|c| &c.records), layers: sum(|c| &c.layers), bytes: sum(|c| &c.bytes) }
    }

    /// Whether a step's result was new to a cache.
    pub(super) fn is_news(&self, at: usize, node: NodeId) -> bool {
        locked(&self.news).contains(&(at, node))
    }
}

impl Counts {
    fn count(&self, sent: Sent, bytes: u64) {
        self.records.fetch_add(1, Ordering::Relaxed);
        if sent == Sent::Uploaded {
            self.layers.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Sink<'_> {
    /// Remembers the first error; nothing more is sent.
    pub(super) fn fail(&self, error: &SharingError) {
        self.broken.store(true, Ordering::Relaxed);
        locked(&self.error).get_or_insert_with(|| (chain(error), advice(error)));
    }
}

/// Opens a blob at a position, wherever it is; one that only a registry has is fetched first.
pub(in crate::engine) fn open_at(store: &Store, client: &Client, blob: &BlobRef, from: u64) -> io::Result<Box<dyn Read>> {
    let digest = &blob.descriptor.digest;
    if let BlobPlace::Repository(repository) = &blob.place
        && !store.has_blob(digest).map_err(io::Error::other)?
    {
        let mut reader = client.open_blob(repository, &blob.descriptor);
        store.put_blob(&mut reader, Some((digest, blob.descriptor.size))).map_err(io::Error::other)?;
    }
    // From the start on it is verified; what goes on after a break is verified by the registry.
    if from == 0 {
        return Ok(open_blob(store, blob).map_err(io::Error::other)?);
    }
    let (mut file, offset) = match &blob.place {
        BlobPlace::Store | BlobPlace::Repository(_) => {
            let file = store.open_blob(digest).map_err(io::Error::other)?;
            (file.ok_or_else(|| io::Error::other("it has gone from the store"))?, 0)
        }
        BlobPlace::File { path, offset } => (File::open(path)?, *offset),
    };
    file.seek(SeekFrom::Start(offset + from))?;
    Ok(Box::new(file.take(blob.descriptor.size - from)))
}
