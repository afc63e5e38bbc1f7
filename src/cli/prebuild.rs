//! `ply prebuild`: the steps of all stages, without an image: warms the caches, the shared ones with `--cache-to`.
//!
//! Not a build without output: a build takes the stages that its target needs, this one all, or those that are named.

use clap::Args;

use crate::cli::build::{self, BuildArgs, request};
use crate::cli::failure::Failure;
use crate::cli::plan;
use crate::cli::session::Session;
use crate::engine::request::{Output, Purpose};
use crate::ui::{human, out};

/// Build the steps of all stages, or of each --target, without making an image
#[derive(Debug, Clone, Args)]
#[command(after_help = "Takes the flags of `ply build`, but for those that speak of an image. --target may be given several times.\n\
    With --cache-to the results go to a shared cache, where builds elsewhere find them.")]
pub struct PrebuildArgs {
    /// The build's flags.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// Runs the steps, and says what came of it.
pub fn run(args: &PrebuildArgs, session: &Session) -> Result<(), Failure> {
    let args = &args.build;
    refuse(args)?;
    let (mut request, notices) = request::make(args, &session.env)?;
    if request.cache_to.iter().any(|to| to.location.is_none()) {
        return Err(
            Failure::usage("--cache-to type=inline is for an image, and prebuild makes none").hint("use type=registry or type=local")
        );
    }
    let mut targets = args.target.iter().filter(|t| !t.is_empty()).cloned();
    request.purpose = Purpose::Prebuild;
    request.target = targets.next();
    request.more_targets = targets.collect();
    request.outputs = vec![Output::None];
    if args.plan.dry_run {
        return plan::show(args, &request, session);
    }
    args.plan.judge()?;
    let done = build::perform(args, &request, notices, session)?.prebuilt.unwrap_or_default();
    let mut text = format!("{} steps: {} cached, {} built", done.steps, done.cached, done.steps - done.cached);
    if !request.cache_to.is_empty() {
        let sent = done.sent;
        text += &format!("; {} results sent, with {} layers of {}", sent.records, sent.layers, human::size(sent.bytes));
    }
    Ok(out::line(&text)?)
}

/// Refuses what would say something of an image.
fn refuse(args: &BuildArgs) -> Result<(), Failure> {
    let given = [
        ("--tag", !args.tag.is_empty()),
        ("--output", !args.output.is_empty()),
        ("--load", args.load),
        ("--push", args.push),
        ("--iidfile", args.iidfile.is_some()),
        ("--metadata-file", args.metadata_file.is_some()),
        ("--check", args.check),
        ("--call", args.call != build::call::Call::Build),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::usage(format!("{flag} has no place here: prebuild makes no image")).hint("use `ply build`")),
        None => Ok(()),
    }
}
