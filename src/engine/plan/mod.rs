//! What a build would do, without doing it: which steps hit, which run and why, how long that takes, what is fetched.
//!
//! | file | does |
//! |---|---|
//! | this | what a plan is |
//! | `foresee` | each step's outcome, in the order of the graph |
//! | `known` | which earlier results a step could still take when its key can't be known |
//! | `layer` | what a COPY or WORKDIR would make, by its digest |
//! | `expected` | seconds, from what steps took before; the critical path |
//! | `pulls` | bytes that would be fetched |
//!
//! A plan is *exact*: [`Outcome::Hit`] and [`Outcome::Runs`] say what the build then does, as long as nobody changes its inputs
//! or the store in between. It holds since the build's own code decides ([`super::decide`]), with a placeholder where
//! something is not known: above all what a RUN that runs will give. A later step's key is unknown then, but often not its
//! outcome: when no kept result has the rest of its inputs, or all that have stand on other states than it can come to
//! stand on, it runs. Only what remains is [`Outcome::Depends`].
//!
//! Nothing is executed, and nothing is written that a build would notice. What a newcomer gets wrong: of two equal steps of one
//! build one is made and the other takes its result. The plan calls the first one the maker; side by side, either may be.

mod expected;
mod foresee;
mod known;
mod layer;
mod pulls;

use std::io::Read;

use serde::Serialize;

use crate::cache::miss::Reason;
use crate::digest::ContentDigest;

use super::error::BuildError;
use super::event::{StepIndex, StepInfo};
use super::inputs::Inputs;
use super::request::{BuildRequest, CacheLocation, Intent};
use super::session::{Build, Shared};
use super::sharing::Sharing;
use super::{Engine, sharing};

pub use super::request::Asking;
pub use expected::Expected;
pub(super) use foresee::Foreseen;
pub use pulls::Pull;

/// What a build would do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its steps, in the order in which a build shows them.
    pub steps: Vec<PlannedStep>,
    /// Base images that are not here, and that nobody was asked about.
    pub unresolved: Vec<String>,
    /// What would be fetched, as far as it is known.
    pub pulls: Vec<Pull>,
    /// How long it takes when every step that may hit does.
    pub fewest: Expected,
    /// How long it takes when none of them does.
    pub most: Expected,
}

/// What would become of a step.
#[derive(Debug, Clone)]
pub struct PlannedStep {
    /// As a build shows it.
    pub info: StepInfo,
    /// Its line in the Dockerfile, from 1; of a trigger that of the FROM.
    pub line: usize,
    /// What becomes of it.
    pub outcome: Outcome,
    /// How long it took when it last ran; none: it is not known, or it certainly hits.
    pub cost_secs: Option<f64>,
}

/// What becomes of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is taken from the store.
    Hit,
    /// It is taken from this shared cache.
    Remote(String),
    /// It is equal to an earlier step of this build, and takes what that one makes.
    Equal(StepIndex),
    /// It runs.
    Runs {
        /// Why.
        reason: Reason,
        /// The build names this reason. Else it is the first one that is certain; what the unknown gives may come before.
        exact: bool,
    },
    /// It hits or runs, according to what these give.
    Depends(Vec<Unknown>),
}

/// What can't be known before the build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// What this step gives when it runs.
    Step(StepIndex),
    /// This image, which is not here.
    Base(String),
    /// What this URL or repository has.
    Url(String),
    /// Whether this shared cache has it.
    Cache(String),
    /// Files of this image, which is not unpacked.
    Files(String),
}

impl Plan {
    /// Returns how many steps certainly hit, certainly run, and may do either. A step that takes what an equal one makes counts
    /// as that one does where it may hit, and as a hit where it runs.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |f: fn(&Outcome) -> bool| self.steps.iter().filter(|s| f(&s.outcome)).count();
        let runs = count(|o| matches!(o, Outcome::Runs { .. }));
        let depends = count(|o| matches!(o, Outcome::Depends(_)));
        (self.steps.len() - runs - depends, runs, depends)
    }
}

/// Foresees a build. `stdin` is read when the request says so.
///
/// # Errors
/// Where the build would fail before its first step, or when files are copied; and where the plan needs an answer that
/// `asking` does not allow to ask for.
pub fn plan(engine: &Engine<'_>, request: &BuildRequest, asking: Asking, stdin: &mut dyn Read) -> Result<Plan, BuildError> {
    let mut request = BuildRequest { intent: Intent::Plan(asking), cache_to: Vec::new(), ..request.clone() };
    let mut unasked = Vec::new();
    if asking == Asking::Nobody {
        request.cache_from.retain(|location| match location {
            CacheLocation::Registry(name) => {
                unasked.push(name.clone());
                false
            }
            CacheLocation::Directory(_) => true,
        });
    }
    let (inputs, targets) = Inputs::gather(engine, &request, stdin)?;
    let shared = Shared::default();
    let sharing = Sharing::open(engine, &request)?;
    let builds = Build::each(engine, &request, &targets, &inputs, &shared, &sharing);
    // Of moments only: nothing is collected meanwhile.
    let survey = if asking == Asking::Nobody { Some(engine.store.survey()?) } else { None };
    let forecast = foresee::forecast(&builds, asking, &unasked);
    let made = forecast.and_then(|outcomes| Plan::of(&builds, outcomes));
    survey.map(crate::store::Survey::end).transpose()?;
    // What was learnt of the context's files is worth keeping whatever came of the plan.
    inputs.save_stat_caches()?;
    made
}

impl Plan {
    fn of(builds: &[Build<'_>], outcomes: Vec<Outcome>) -> Result<Self, BuildError> {
        let infos = builds.iter().flat_map(Build::plan);
        let nodes = foresee::steps(builds);
        let costs = builds.first().map(Build::past_costs).transpose()?.unwrap_or_default();
        let mut steps = Vec::with_capacity(outcomes.len());
        for ((info, (at, id)), outcome) in infos.zip(&nodes).zip(outcomes) {
            let build = &builds[*at];
            let hits = matches!(outcome, Outcome::Hit | Outcome::Remote(_) | Outcome::Equal(_));
            let cost_secs = if hits { None } else { build.last_cost(*id, &costs, &info)? };
            let line = build.graph.source.line(build.graph.nodes[id.0].span.start);
            steps.push(PlannedStep { info, line, outcome, cost_secs });
        }
        let unresolved = foresee::unresolved(builds);
        let pulls = pulls::of(builds, &steps, sharing::bases_are_needed(builds)?)?;
        let jobs = builds.first().and_then(|b| b.request.jobs);
        let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let [fewest, most] = [false, true].map(|all| expected::simulate(builds, &steps, jobs, all));
        Ok(Self { steps, unresolved, pulls, fewest, most })
    }
}

/// How a placeholder's digest begins: no digest of files does, but for one in 2^64.
const MARK: [u8; 8] = *b"foreseen";

/// Returns what stands for a digest that is not known: the same for the same `what`.
pub(super) fn placeholder(what: &impl Serialize) -> ContentDigest {
    let mut h = blake3::Hasher::new_derive_key("plywood what a plan does not know, v1");
    h.update(&serde_json::to_vec(what).expect("names and digests are serialisable"));
    let mut bytes = *h.finalize().as_bytes();
    bytes[..MARK.len()].copy_from_slice(&MARK);
    ContentDigest::from_bytes(bytes)
}

/// Whether a digest is a placeholder's.
fn is_placeholder(digest: &ContentDigest) -> bool {
    digest.as_bytes().starts_with(&MARK)
}
