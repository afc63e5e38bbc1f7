//! A build: gather facts, plan, execute, commit, assemble.
//!
//! | file | step of the journey |
//! |---|---|
//! | `inputs`, `sources` | contexts, Dockerfile, base images → facts → graph |
//! | `decide` | node → key inputs → record or reason |
//! | `execute`, `schedule` | each node's turn, side by side |
//! | `run`, `mounts`, `files`, `copy`, `trees` | what the turns do |
//! | `commit`, `state` | layer directory → layer → record; chains of layers |
//! | `assemble`, `result`, `export` | configuration, store, archives |
//!
//! Nothing here prints or reads flags: a build is a [`BuildRequest`] in, [`Event`]s on the way, and a
//! [`BuildOutcome`] or [`BuildError`] at the end. A newcomer would look for the order "parse, then run": steps that
//! hit are settled first, in one pass without threads, so that a build in which nothing changed is nothing else.

pub mod assemble;
pub mod cancel;
pub mod copy;
pub mod error;
pub mod event;
pub mod export;
pub mod request;
pub mod sources;

mod commit;
mod decide;
mod execute;
mod files;
mod inputs;
mod mounts;
mod result;
mod run;
mod schedule;
mod session;
mod state;
mod trees;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::graph::{NodeId, order};
use crate::path::Ownership;
use crate::registry::Client;
use crate::sandbox::HostFacts;
use crate::snapshot::{Driver, DriverKind};
use crate::store::Store;

use cancel::CancelToken;
use error::BuildError;
use event::{Event, Observer};
use inputs::Inputs;
use request::BuildRequest;
use session::Build;
use sources::{Policy, Progress, Sources};

pub use result::BuildOutcome;

/// What builds work with; made once a process.
pub struct Engine<'a> {
    /// Where everything is kept.
    pub store: &'a Store,
    /// The way to registries.
    pub client: &'a Client,
    /// Where a `host:` base finds programs.
    pub host_path: Vec<PathBuf>,
    /// Whether files can have owners.
    pub ownership: Ownership,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// Whether to end.
    pub cancel: CancelToken,
    /// Pulls and the like, as events.
    pub tasks: Tasks,
}

impl Engine<'_> {
    /// Returns the time, in unix seconds: what new layers and images are stamped with.
    fn now_secs(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
    }

    fn sources(&self, pull: bool) -> Sources<'_> {
        let policy = Policy { pull, offline: false, now_secs: self.now_secs() };
        Sources { store: self.store, client: self.client, policy, host_path: &self.host_path, progress: &self.tasks }
    }

    /// Finds out how root file systems are put together, and says so when it is the slow way.
    fn driver(&self) -> Result<Driver, BuildError> {
        let staging = self.store.root().join("tmp");
        let driver = Driver::detect(&staging, self.ownership).map_err(|e| BuildError::caused("looking for a snapshot driver", &e))?;
        if driver.kind() == DriverKind::Copy {
            self.observer.event(Event::Notice(format!("each step copies the image (snapshot driver `copy`): {}", driver.reason())));
        }
        Ok(driver)
    }

    fn host_facts(&self) -> Result<HostFacts, BuildError> {
        HostFacts::gather().map_err(|e| BuildError::caused("asking what this host allows", &e))
    }
}

/// Builds. `stdin` is read when the request says so.
pub fn build(engine: &Engine<'_>, request: &BuildRequest, stdin: &mut dyn Read) -> Result<BuildOutcome, BuildError> {
    let start = Instant::now();
    let (inputs, graph) = Inputs::gather(engine, request, stdin)?;
    inputs.warn(&graph);
    if request.check_only {
        return result::checked(&graph);
    }
    let build = Build::new(engine, request, &graph, &inputs);
    build.tell(Event::Plan(build.plan()));
    let ran = run_nodes(&build);
    // What was learnt of the context's files is worth keeping whatever came of the build.
    inputs.save_stat_caches()?;
    let outcome = ran.and_then(|()| build.go_on()).and_then(|()| build.finish());
    build.log(start, &outcome)?;
    engine.store.flush()?;
    outcome
}

fn run_nodes(build: &Build<'_>) -> Result<(), BuildError> {
    let pending = build.settle()?;
    if pending.is_empty() {
        return Ok(());
    }
    let jobs = build.request.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let inputs = |id: NodeId| order::dependencies(&build.graph.nodes[id.0]);
    schedule::run(&pending, jobs, inputs, |id| build.turn(id))
}

/// Work that is no step, told as events.
pub struct Tasks {
    observer: Arc<dyn Observer>,
    next: std::sync::atomic::AtomicUsize,
    started: std::sync::Mutex<Vec<(usize, Instant)>>,
}

impl Tasks {
    /// Tells `observer`.
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer, next: Default::default(), started: Default::default() }
    }
}

impl Progress for Tasks {
    fn begin(&self, title: String) -> usize {
        let task = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.started.lock().expect("nobody panics with it").push((task, Instant::now()));
        self.observer.event(Event::TaskStarted(task, title));
        task
    }

    fn advance(&self, task: usize, done: u64, total: Option<u64>) {
        self.observer.event(Event::TaskProgress(task, done, total));
    }

    fn end(&self, task: usize) {
        let mut started = self.started.lock().expect("nobody panics with it");
        if let Some(at) = started.iter().position(|(t, _)| *t == task) {
            let (_, start) = started.swap_remove(at);
            self.observer.event(Event::TaskDone(task, start.elapsed()));
        }
    }
}
