//! Caches that machines share: `--cache-from` and `--cache-to`.
//!
//! | file | does |
//! |---|---|
//! | `place` | a registry's repository or a directory: objects and blobs |
//! | `import` | a key → another machine's record; a layer's files, when somebody needs them |
//! | `ahead` | what a build will ask for, fetched before it does |
//! | `export` | the results of this build's steps, sent while others run |
//! | `steps` | what a build asks at its steps and at its end |
//! | `places` | why a step missed, when only another machine knows what was there before |
//! | `mounts` | what cache mounts hold, when it is to be carried along |
//! | `inline` | records in an image's own configuration |
//!
//! A hit elsewhere is a record only: the layer is known by its content and its blob's descriptor, and is fetched when a
//! step that runs, or an output, needs its bytes. So a build in which everything hits, and whose image is pushed, moves no
//! layer at all. What the objects are is [`crate::cache::remote`]'s.
//!
//! A cache that can't be reached is never a reason for another result: asking it ends with a notice, and steps run.
//! What a newcomer gets wrong: a record from elsewhere does not enter the store's index before its layer is here and has
//! proven to be what the record says.

mod ahead;
mod export;
mod import;
mod inline;
mod mounts;
mod place;
mod places;
mod steps;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::cache::remote::{Places, SharedRecord};
use crate::digest::{CacheKey, LayerId};
use crate::graph::NodeId;
use crate::image::reference::Reference;
use crate::registry::Repository;
use crate::store::CacheMountId;

use super::Engine;
use super::error::{BuildError, chain};
use super::event::Event;
use super::request::{BuildRequest, CacheLocation, CacheTo, Intent};

use ahead::Ahead;
use export::Queue;
pub(super) use export::open_at;
use import::Elsewhere;
use place::{Place, SharingError};
pub(super) use steps::bases_are_needed;

/// The shared caches of one build.
pub(super) struct Sharing<'a> {
    engine: &'a Engine<'a>,
    sources: Vec<Source<'a>>,
    sinks: Vec<Sink<'a>>,
    /// The layers that hits elsewhere brought.
    layers: Mutex<HashMap<LayerId, Arc<Elsewhere>>>,
    queue: Queue,
    ahead: Ahead,
    /// Which nodes' results were new to a sink.
    news: Mutex<HashSet<(usize, NodeId)>>,
    /// What other machines had in the places of a stage's steps, by tag.
    places: Mutex<HashMap<String, FoundPlaces>>,
    /// The ids of the cache mounts that are carried along; none at all: all of them. None: they stay here.
    mounts: Option<Vec<String>>,
    /// Those that steps used.
    used_mounts: Mutex<BTreeSet<CacheMountId>>,
    /// Whether the images carry their records.
    pub inline: bool,
    /// Whether what is found is entered into the store's index.
    intent: Intent,
}

/// What each source, by number, has in some places; set once it was asked.
type FoundPlaces = Arc<OnceLock<Vec<(usize, Places)>>>;

/// A cache that is asked.
struct Source<'a> {
    place: Place<'a>,
    /// The reference's tag, else `latest`: what tells caches in one repository apart, and may be an image with records.
    name: String,
    /// The records that the image of that name carries.
    inline: OnceLock<HashMap<CacheKey, SharedRecord>>,
    /// It failed: it is not asked again.
    broken: AtomicBool,
}

/// A cache that is written.
struct Sink<'a> {
    place: Place<'a>,
    name: String,
    to: CacheTo,
    broken: AtomicBool,
    /// Why, and what to do about it.
    error: Mutex<Option<(String, Option<String>)>>,
    sent: Counts,
    /// The tags of this build's results there.
    tags: Mutex<BTreeSet<String>>,
}

/// What was sent.
#[derive(Default)]
struct Counts {
    records: AtomicU64,
    layers: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> Sharing<'a> {
    /// Names the caches that a request speaks of; asks none.
    pub fn open(engine: &'a Engine<'a>, request: &BuildRequest) -> Result<Self, BuildError> {
        let mut sources = Vec::new();
        for location in &request.cache_from {
            let (place, name) = place(engine, location)?;
            if let Place::Directory(dir) = &place
                && !dir.is_dir()
            {
                engine.observer.event(Event::Notice(format!("the cache {} is not there yet", dir.display())));
            }
            sources.push(Source { place, name, inline: OnceLock::new(), broken: AtomicBool::new(false) });
        }
        let mut sinks = Vec::new();
        for to in &request.cache_to {
            let Some(location) = &to.location else { continue };
            let (place, name) = place(engine, location)?;
            let (broken, error, sent, tags) = (AtomicBool::new(false), Mutex::default(), Counts::default(), Mutex::default());
            sinks.push(Sink { place, name, to: to.clone(), broken, error, sent, tags });
        }
        let inline = request.cache_to.iter().any(|to| to.location.is_none());
        Ok(Self {
            engine,
            sources,
            sinks,
            layers: Mutex::default(),
            queue: Queue::default(),
            ahead: Ahead::default(),
            news: Mutex::default(),
            places: Mutex::default(),
            mounts: request.cache_mounts.clone(),
            used_mounts: Mutex::default(),
            inline,
            intent: request.intent,
        })
    }

    /// Says, once for each source, that it is not asked any more.
    fn give_up(&self, source: &Source<'_>, error: &SharingError) {
        if !source.broken.swap(true, Ordering::Relaxed) && !self.engine.cancel.is_cancelled() {
            let name = source.place.shown();
            self.engine.observer.event(Event::Notice(format!("the cache {name} is not used: {}", chain(error))));
        }
    }

    /// The sources that still answer.
    fn asked(&self) -> impl Iterator<Item = (usize, &Source<'a>)> {
        self.sources.iter().enumerate().filter(|(_, s)| !s.broken.load(Ordering::Relaxed))
    }
}

/// Returns where a cache is, and its name there.
fn place<'a>(engine: &'a Engine<'a>, location: &CacheLocation) -> Result<(Place<'a>, String), BuildError> {
    match location {
        CacheLocation::Registry(text) => {
            let parsed = Reference::parse(text).map_err(|e| BuildError::caused(format!("the cache `{text}`"), &e))?;
            let repository = Repository { host: parsed.domain().into(), path: parsed.path().into() };
            let name = parsed.digest().map_or_else(|| parsed.tag().unwrap_or("latest").to_string(), ToString::to_string);
            Ok((Place::Registry { client: engine.client, repository }, name))
        }
        CacheLocation::Directory(dir) => Ok((Place::Directory(dir.clone()), String::new())),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
