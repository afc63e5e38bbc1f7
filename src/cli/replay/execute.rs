//! `ply replay --execute`: the commits are built for real, one after the other, into a store of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cli::build;
use crate::cli::failure::Failure;
use crate::cli::interrupt;
use crate::cli::replay::checkout::Checkout;
use crate::cli::session::Session;
use crate::engine::event::{Event, Observer};
use crate::engine::request::{BuildRequest, ContextSource, DockerfileSource, Intent, Output, Purpose};
use crate::graph::{Entitlement, NetworkMode};
use crate::history::Repository;
use crate::replay::{Executed, RealBuild, RealStep, Replayed, Request};
use crate::sandbox::userns::Identity;
use crate::ui::out;

/// Where and how the builds are made.
pub(super) struct Execution<'a> {
    pub session: &'a Session,
    pub identity: &'a Identity,
    /// The store; none: one that is thrown away.
    pub store: Option<PathBuf>,
    /// `--build-context`, as given.
    pub build_contexts: Vec<(String, String)>,
}

/// Builds every commit that the replay did not skip.
pub(super) fn execute(
    execution: &Execution<'_>,
    repository: &Repository,
    request: &Request,
    replayed: &Replayed,
) -> Result<Executed, Failure> {
    let io = |e: std::io::Error| Failure::message(format!("making a place for the builds: {e}"));
    let staging = tempfile::Builder::new().prefix("ply-replay-").tempdir().map_err(io)?;
    let store = execution.store.clone().unwrap_or_else(|| staging.path().join("store"));
    let mut checkout = Checkout::new(staging.path().join("context")).map_err(io)?;
    let mut objects = repository.objects().map_err(|e| Failure::of(&e))?;
    let cancel = interrupt::install()?;
    let wanted: Vec<usize> = (0..replayed.commits.len()).filter(|at| replayed.outcomes[*at].is_ok()).collect();
    let mut builds = Vec::with_capacity(wanted.len());
    for (n, at) in wanted.iter().enumerate() {
        let commit = &replayed.commits[*at];
        let tree =
            checkout.set(&mut objects, commit.tree).map_err(|e| Failure::message(format!("writing out {}: {e}", commit.id.short())))?;
        let watch = Arc::new(Watch::default());
        let request = build_request(&tree, execution, request);
        let built = build::execute_in(&store, &request, execution.session, execution.identity, watch.clone(), &cancel);
        if let Some(status) = interrupt::status(&cancel) {
            return Err(Failure::message("interrupted").status(status));
        }
        let failure = built.err().map(|failure| failure.diagnostics.first().map_or_else(String::new, ToString::to_string));
        let (hits, steps) = watch.steps();
        let told = failure.as_deref().map_or_else(|| format!("{hits} of {} steps hit", steps.len()), |why| format!("failed: {why}"));
        out::say(&format!("{}/{} {} {told}\n", n + 1, wanted.len(), commit.id.short()));
        builds.push(RealBuild { commit: *at, steps, failure });
    }
    Ok(Executed::compare(&replayed.account, &replayed.commits, &builds))
}

fn build_request(tree: &Path, execution: &Execution<'_>, request: &Request) -> BuildRequest {
    let context = tree.join(&request.place.context);
    BuildRequest {
        dockerfile: request.place.dockerfile.as_ref().map_or(DockerfileSource::Default, |file| DockerfileSource::Path(context.join(file))),
        context: ContextSource::Directory(context),
        tags: Vec::new(),
        build_args: request.settings.build_args.clone(),
        build_contexts: execution.build_contexts.clone(),
        target: request.settings.target.clone(),
        more_targets: Vec::new(),
        platforms: vec![request.settings.platform.clone()],
        labels: Vec::new(),
        no_cache: false,
        no_cache_filter: Vec::new(),
        pull: false,
        cache_from: Vec::new(),
        cache_to: Vec::new(),
        cache_mounts: None,
        outputs: vec![Output::None],
        iidfile: None,
        metadata_file: None,
        network: NetworkMode::Default,
        allow: Vec::<Entitlement>::new(),
        secrets: Vec::new(),
        ssh: Vec::new(),
        known_hosts: None,
        add_hosts: Vec::new(),
        shm_size_bytes: None,
        ulimits: Vec::new(),
        require_full_isolation: false,
        purpose: Purpose::Build,
        jobs: None,
        collection: None,
        verify: None,
        intent: Intent::Build,
    }
}

/// Notes what becomes of each step.
#[derive(Default)]
struct Watch {
    steps: Mutex<BTreeMap<usize, Option<RealStep>>>,
}

impl Watch {
    /// How many hit, and all steps in order.
    fn steps(&self) -> (usize, Vec<Option<RealStep>>) {
        let steps: Vec<_> = self.steps.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect();
        (steps.iter().flatten().filter(|step| step.hit).count(), steps)
    }
}

impl Observer for Watch {
    fn event(&self, event: Event) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Plan(infos) => steps.extend((0..infos.len()).map(|n| (n, None))),
            Event::Cached(n) => drop(steps.insert(n, Some(RealStep { hit: true, secs: 0.0 }))),
            Event::Done(n, took) => {
                let step = steps.entry(n).or_default();
                if step.is_none() {
                    *step = Some(RealStep { hit: false, secs: took.as_secs_f64() });
                }
            }
            Event::Failed(n) => drop(steps.insert(n, None)),
            _ => {}
        }
    }
}
