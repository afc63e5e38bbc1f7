//! A build: gather facts, plan, execute, commit, assemble.
//!
//! | file | step of the journey |
//! |---|---|
//! | `inputs`, `sources`, `remotes` | contexts, Dockerfile, base images, URLs → facts → graph |
//! | `decide`, `look`, `places`, `causes` | node → key inputs → record or reason |
//! | `execute`, `schedule` | each node's turn, side by side |
//! | `run`, `mounts`, `files`, `copy`, `trees` | what the turns do |
//! | `commit`, `state` | layer directory → layer → record; chains of layers |
//! | `sharing` | caches of other machines: records in, layers when needed, results out |
//! | `assemble`, `finished`, `result`, `export` | configuration, image, store, archives |
//! | `plan` | what a build would do, without doing it |
//! | `log` | the row of a build that statistics are made of |
//! | `verify` | hits run again and compared, on demand |
//! | `collect` | room on the disk, when the cache has grown too big |
//!
//! A build for several platforms gathers its inputs once; then each platform has a graph and a [`session::Build`], whose
//! nodes run side by side with the others'. A step that is the same for several platforms is made by whoever comes
//! first; the others wait for it and take it from the cache.
//!
//! Nothing here prints or reads flags: a build is a [`BuildRequest`] in, [`Event`]s on the way, and a
//! [`BuildOutcome`] or [`BuildError`] at the end. A newcomer would look for the order "parse, then run": steps that
//! hit are settled first, in one pass without threads, so that a build in which nothing changed is nothing else.

pub mod advice;
pub mod assemble;
pub mod cancel;
pub mod copy;
pub mod error;
pub mod event;
pub mod export;
pub mod plan;
#[cfg(test)]
mod registry_tests;
pub mod request;
pub mod sources;

mod causes;
mod collect;
mod commit;
mod decide;
mod execute;
mod files;
mod finished;
mod inputs;
mod log;
mod look;
mod mounts;
mod places;
mod remotes;
mod result;
mod run;
mod schedule;
mod session;
mod sharing;
mod ssh;
mod state;
mod trees;
mod verify;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::graph::{NodeId, order};
use crate::path::Ownership;
use crate::registry::Client;
use crate::sandbox::HostFacts;
use crate::sandbox::probe::Isolation;
use crate::snapshot::{Driver, DriverKind};
use crate::store::Store;
use crate::sys::process::has_seccomp_filters;

use cancel::CancelToken;
use error::BuildError;
use event::{Event, Observer, Phase};
use inputs::Inputs;
use request::{BuildRequest, Purpose};
use result::Results;
use session::{Build, Shared};
use sharing::Sharing;
use sources::{Missing, Policy, Progress, Pulls, Sources};

pub use result::{Answer, BuildOutcome, Prebuilt, Sent};
pub use verify::{Verdict, Verification, VerifiedStep};

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
    /// Who is told of pulls and the like.
    pub progress: &'a dyn Progress,
    /// Tells the time.
    pub clock: fn() -> SystemTime,
    /// What the host allows, once it was asked.
    pub host: OnceLock<HostFacts>,
    /// Base images that registries described, and that are not in the store yet.
    pub pulls: Pulls,
}

impl Engine<'_> {
    /// Returns the time, in unix seconds: what new layers and images are stamped with.
    fn now_secs(&self) -> i64 {
        (self.clock)().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
    }

    /// Returns an error if the build shall end.
    fn go_on(&self) -> Result<(), BuildError> {
        if self.cancel.is_cancelled() { Err(BuildError::Cancelled) } else { Ok(()) }
    }

    fn sources(&self, pull: bool) -> Sources<'_> {
        let policy = Policy { pull, now_secs: self.now_secs(), ..Policy::default() };
        let pulls = Some(&self.pulls);
        Sources { store: self.store, client: self.client, policy, host_path: &self.host_path, progress: self.progress, pulls }
    }

    /// Finds out how root file systems are put together, and says so when it is the slow way.
    fn driver(&self) -> Result<Driver, BuildError> {
        let staging = self.store.staging_dir().map_err(|e| BuildError::caused("preparing the build", &e))?;
        let driver = Driver::detect(&staging, self.ownership).map_err(|e| BuildError::caused("looking for a snapshot driver", &e))?;
        if driver.kind() == DriverKind::Copy {
            self.observer.event(Event::Notice(format!("each step copies the image (snapshot driver `copy`): {}", driver.reason())));
        }
        Ok(driver)
    }

    /// Returns what this host allows a sandbox; asked at the first need.
    fn host_facts(&self) -> Result<&HostFacts, BuildError> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        let host = HostFacts::gather().map_err(|e| BuildError::caused("asking what this host allows", &e))?;
        if let Isolation::Reduced(gaps) = self.judge(&host) {
            for gap in gaps {
                self.observer.event(Event::Notice(format!("reduced isolation: {gap}")));
            }
        }
        Ok(self.host.get_or_init(|| host))
    }

    /// Returns what steps are kept from here.
    fn isolation(&self) -> Result<Isolation, BuildError> {
        Ok(self.judge(self.host_facts()?))
    }

    fn judge(&self, host: &HostFacts) -> Isolation {
        let gap = "owners are not kept while steps run, chown reports success and does nothing: this user has one id only \
                   (`ply doctor` tells how to get more)";
        match Isolation::derive(host, has_seccomp_filters()) {
            level if self.ownership == Ownership::Real => level,
            Isolation::Full => Isolation::Reduced(vec![gap.into()]),
            Isolation::Reduced(gaps) => Isolation::Reduced(gaps.into_iter().chain([gap.into()]).collect()),
        }
    }
}

/// Builds. `stdin` is read, and `stdout` written, when the request says so.
pub fn build(
    engine: &Engine<'_>,
    request: &BuildRequest,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
) -> Result<BuildOutcome, BuildError> {
    let start = Instant::now();
    // Who is cancelled fails in the middle of something; that is no news.
    engine.observer.event(Event::Phase(Phase::Inputs));
    let unless_cancelled = |e| if engine.cancel.is_cancelled() { BuildError::Cancelled } else { e };
    let (inputs, targets) = Inputs::gather(engine, request, stdin).map_err(unless_cancelled)?;
    let findings = inputs::findings(&targets);
    match request.purpose {
        Purpose::Build | Purpose::Prebuild => {}
        Purpose::Check => return Ok(BuildOutcome { findings, ..BuildOutcome::default() }),
        Purpose::Outline | Purpose::Targets => {
            let outline = targets.into_iter().next().map(|target| Answer::Outline(target.graph.outline, target.graph.source));
            return Ok(BuildOutcome { answer: outline.or(inputs.stages.map(Answer::Targets)), ..BuildOutcome::default() });
        }
    }
    findings.into_iter().for_each(|f| engine.observer.event(Event::Warning(f)));
    if request.require_full_isolation
        && let Isolation::Reduced(gaps) = engine.isolation()?
    {
        return Err(BuildError::plain(format!("--require-isolation=full: the isolation here is reduced: {}", gaps.join("; ")))
            .hint("`ply doctor` tells what to change"));
    }
    let shared = Shared::default();
    let sharing = Sharing::open(engine, request)?;
    let builds = Build::each(engine, request, &targets, &inputs, &shared, &sharing);
    engine.observer.event(Event::Phase(Phase::Lookup));
    engine.observer.event(Event::Plan(builds.iter().flat_map(Build::plan).collect()));
    let outcome = sharing.alongside(&builds, || {
        let ran = run_nodes(&builds, request.jobs);
        engine.observer.event(Event::Phase(Phase::Outputs));
        // What was learnt of the context's files is worth keeping whatever came of the build.
        inputs.save_stat_caches()?;
        builds.iter().try_for_each(Build::save_uses)?;
        let ran = ran.and_then(|()| engine.go_on()).and_then(|()| builds.iter().try_for_each(Build::bring_results));
        let missing = if ran.is_ok() && sharing::bases_are_needed(&builds)? { Missing::Fetch } else { Missing::LeaveOut };
        let pulled = engine.sources(false).finish_pulls(missing).map_err(|e| BuildError::caused("pulling a base image", &e));
        ran.and(pulled)?;
        // Before anything is written: what is found wrong shall not go out.
        let verified = request.verify.map(|wanted| verify::run(&builds, wanted, request.jobs)).transpose()?;
        if verified.as_ref().is_some_and(Verification::has_failed) {
            result::write_verification(request, verified.as_ref())?;
            return Err(BuildError::plain("--verify-cache: a cached step does not give what the cache gave")
                .hint("`--no-cache-filter STAGE` runs a stage's steps anew and replaces their results"));
        }
        let built = match request.purpose {
            Purpose::Prebuild => BuildOutcome::default(),
            _ => Results::of(engine, request, &builds)?.write(stdout, verified.as_ref())?,
        };
        Ok(BuildOutcome { verified, ..built })
    });
    engine.observer.event(Event::Phase(Phase::Closing));
    let shared = sharing.finish(&builds, outcome.is_ok());
    let outcome = outcome.and_then(|built| shared.map(|()| built)).map_err(unless_cancelled);
    let prebuilt = (request.purpose == Purpose::Prebuild).then(|| Prebuilt::of(&builds, sharing.sent()));
    let outcome = outcome.map(|built| BuildOutcome { prebuilt, ..built });
    // Before the log of builds: the first write after it costs a sync.
    engine.store.tidy()?;
    log::write(&builds, start, &outcome)?;
    collect::after(engine, request.collection.as_ref());
    outcome
}

/// Gives each platform's nodes their results; a node is named by its build's place and its own.
fn run_nodes(builds: &[Build<'_>], jobs: Option<usize>) -> Result<(), BuildError> {
    let mut pending = Vec::new();
    if let Some(first) = builds.first() {
        let survey = first.engine.store.survey()?;
        for (at, build) in builds.iter().enumerate() {
            pending.extend(build.settle()?.into_iter().map(|id| (at, id)));
        }
        survey.end()?;
    }
    let Some(first) = builds.first().filter(|_| !pending.is_empty()) else { return Ok(()) };
    first.tell(Event::Phase(Phase::Steps));
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let inputs = |(at, id): (usize, NodeId)| order::dependencies(&builds[at].graph.nodes[id.0]).into_iter().map(|d| (at, d)).collect();
    schedule::run(&pending, jobs, inputs, |(at, id)| builds[at].turn(id))
}
