//! `ply plan`, which is `ply build --dry-run`: what a build would do, without doing it.

use clap::Args;

use crate::cli::build::{self, BuildArgs, call::Call, request};
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{format, interrupt};
use crate::engine::event::{Event, Observer};
use crate::engine::plan::{self, Asking, Plan};
use crate::engine::request::BuildRequest;
use crate::engine::sources::Silent;
use crate::ui::{out, plan as shown};

/// Exit code of `--exit-code` when a step runs.
pub const RUNS: u8 = 3;
/// Exit code of `--exit-code` when no step certainly runs, but not all certainly hit.
pub const DEPENDS: u8 = 4;

/// Say what a build would do, without doing it: which steps hit, which run and why, for how long, what is fetched
#[derive(Debug, Clone, Args)]
#[command(after_help = "Takes the flags of `ply build`, and is the same as `ply build --dry-run`. Nothing is executed and no server is\n\
    asked, unless with --online; what only servers know shows as what a step depends on.\n\
    Exit codes with --exit-code: 0 all steps hit; 3 a step runs; 4 no step certainly runs, but it is not certain that all\n\
    hit; without it 0. An error is 1, a command line that can't be understood 2.")]
pub struct PlanArgs {
    /// The build's flags.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// What only a plan can be told.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of a plan")]
pub struct PlanFlags {
    /// Only say what the build would do; same as `ply plan`
    #[arg(long)]
    pub dry_run: bool,
    /// In a plan: ask registries, shared caches and URLs too
    #[arg(long)]
    pub online: bool,
    /// In a plan: exit with 3 if a step runs, 4 if that is not known
    #[arg(long)]
    pub exit_code: bool,
    /// In a plan: table, json, or a template such as '{{.runs}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

impl PlanFlags {
    /// Refuses what says nothing to a build.
    pub fn judge(&self) -> Result<(), Failure> {
        let given = [("--online", self.online), ("--exit-code", self.exit_code), ("--format", self.format.is_some())];
        match given.iter().find(|(_, given)| *given && !self.dry_run) {
            Some((flag, _)) => Err(Failure::usage(format!("{flag} is for a plan")).hint("use `ply plan`, or --dry-run")),
            None => Ok(()),
        }
    }
}

/// Plans, and prints the plan.
pub fn run(args: &PlanArgs, session: &Session) -> Result<(), Failure> {
    let (request, _) = request::make(&args.build, &session.env)?;
    show(&args.build, &request, session)
}

/// Prints the plan of a request.
pub fn show(args: &BuildArgs, request: &BuildRequest, session: &Session) -> Result<(), Failure> {
    if args.call() != Call::Build {
        return Err(Failure::usage("--check and --call look at the Dockerfile and build nothing: there is nothing to plan"));
    }
    let PlanFlags { online, exit_code, format, .. } = &args.plan;
    let asking = if *online { Asking::Network } else { Asking::Nobody };
    let identity = session.enter()?;
    let cancel = interrupt::install()?;
    let planned =
        build::with_engine(&session.store()?, session, &identity, std::sync::Arc::new(Nobody), &Silent, &cancel, |engine, stdin| {
            plan::plan(engine, request, asking, stdin)
        });
    let plan = match (planned, interrupt::status(&cancel)) {
        (Err(_), Some(status)) => return Err(Failure::message("interrupted").status(status)),
        (planned, _) => planned?,
    };
    let text = match format.as_deref() {
        None | Some("table" | "") => shown::text(&plan),
        Some(format) => format::one(format, &shown::json(&plan))?,
    };
    out::result(&text)?;
    match status(&plan) {
        0 => Ok(()),
        status if *exit_code => Err(Failure::silent(status)),
        _ => Ok(()),
    }
}

fn status(plan: &Plan) -> u8 {
    match plan.counts() {
        (_, 0, 0) => 0,
        (_, 0, _) => DEPENDS,
        _ => RUNS,
    }
}

/// A plan is its own report: nothing on the way is told.
struct Nobody;

impl Observer for Nobody {
    fn event(&self, _: Event) {}
}
