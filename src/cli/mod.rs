//! The command line: one file a command, flags → a request of plain values.
//!
//! The only reader of the environment and the clock ([`environment`]). Commands return a [`failure::Failure`], which is
//! shown in one place, [`main`]. Exit codes: 0, 1 a build or command failed, 2 the command line can't be
//! understood; `run` has docker's (125 to 127, or the program's own); 128 + n after a signal, of which 141 stands for results or
//! progress that nobody reads any more.

pub mod build;
pub mod builds;
pub mod cache;
pub mod collection;
pub mod completions;
pub mod doctor;
pub mod du;
pub mod environment;
pub mod explain;
pub mod failure;
pub mod fmt;
pub mod format;
pub mod fsck;
pub mod history;
pub mod images;
pub mod import;
pub mod inspect;
pub mod interrupt;
pub mod load;
pub mod login;
pub mod logout;
pub mod packing;
pub mod plan;
pub mod prebuild;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod registries;
pub mod replay;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod session;
pub mod stats;
pub mod stored;
pub mod switch;
pub mod tag;
pub mod transfer;
pub mod values;
pub mod version;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::environment::Environment;
use crate::cli::failure::{Failure, RUN_FAILED, USAGE};
use crate::cli::session::Session;
use crate::ui::style::Paint;
use crate::ui::{diagnostic, out};

/// Build images from Dockerfiles and run them, without a daemon and without root
#[derive(Debug, Parser)]
#[command(name = "ply", version, disable_help_subcommand = true, propagate_version = false)]
struct Cli<C: Subcommand> {
    /// Where images, layers and the cache are kept [default: PLY_STORE, /var/lib/plywood for root, ~/.local/share/plywood]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    store: Option<PathBuf>,
    #[command(subcommand)]
    command: C,
}

#[derive(Debug, Subcommand)]
enum Commands {
    Build(Box<build::BuildArgs>),
    Plan(Box<plan::PlanArgs>),
    Prebuild(Box<prebuild::PrebuildArgs>),
    Run(Box<run::RunArgs>),
    Ps(ps::PsArgs),
    Rm(rm::RmArgs),
    Images(images::ImagesArgs),
    Replay(Box<replay::ReplayArgs>),
    Inspect(inspect::InspectArgs),
    History(history::HistoryArgs),
    Explain(explain::ExplainArgs),
    Stats(stats::StatsArgs),
    Tag(tag::TagArgs),
    Rmi(rmi::RmiArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Save(save::SaveArgs),
    Load(load::LoadArgs),
    Import(import::ImportArgs),
    Login(login::LoginArgs),
    Logout(logout::LogoutArgs),
    Prune(prune::PruneArgs),
    Du(du::DuArgs),
    Cache(cache::CacheArgs),
    Fsck(fsck::FsckArgs),
    Doctor(doctor::DoctorArgs),
    Fmt(fmt::FmtArgs),
    Version(version::VersionArgs),
    #[command(hide = true)]
    Completions(completions::CompletionsArgs),
}

/// The command that is called most, alone: describing all the others would cost each build a fraction of a millisecond.
#[derive(Debug, Subcommand)]
enum Building {
    Build(Box<build::BuildArgs>),
}

impl From<Building> for Commands {
    fn from(Building::Build(args): Building) -> Self {
        Self::Build(args)
    }
}

/// A plan, as fast as the build that it speaks of.
#[derive(Debug, Subcommand)]
enum Planning {
    Plan(Box<plan::PlanArgs>),
}

impl From<Planning> for Commands {
    fn from(Planning::Plan(args): Planning) -> Self {
        Self::Plan(args)
    }
}

/// Docker's longer spellings. Apart, since describing `build`'s flags three times costs every start a millisecond.
#[derive(Debug, Subcommand)]
enum Longer {
    /// Docker's longer spelling: buildx build
    #[command(subcommand)]
    Buildx(Buildx),
    /// Docker's longer spelling: image ls
    #[command(subcommand)]
    Image(ImageCommands),
}

impl From<Longer> for Commands {
    fn from(longer: Longer) -> Self {
        match longer {
            Longer::Buildx(Buildx::Build(args)) | Longer::Image(ImageCommands::Build(args)) => Self::Build(args),
            Longer::Buildx(Buildx::Du(args)) => Self::Du(args),
            Longer::Buildx(Buildx::Prune(args)) | Longer::Image(ImageCommands::Prune(args)) => Self::Prune(args),
            Longer::Buildx(Buildx::Version(args)) => Self::Version(args),
            Longer::Image(ImageCommands::Ls(args)) => Self::Images(args),
            Longer::Image(ImageCommands::Inspect(args)) => Self::Inspect(args),
            Longer::Image(ImageCommands::History(args)) => Self::History(args),
            Longer::Image(ImageCommands::Tag(args)) => Self::Tag(args),
            Longer::Image(ImageCommands::Rm(args)) => Self::Rmi(args),
            Longer::Image(ImageCommands::Pull(args)) => Self::Pull(args),
            Longer::Image(ImageCommands::Push(args)) => Self::Push(args),
            Longer::Image(ImageCommands::Save(args)) => Self::Save(args),
            Longer::Image(ImageCommands::Load(args)) => Self::Load(args),
            Longer::Image(ImageCommands::Import(args)) => Self::Import(args),
        }
    }
}

/// The commands of `docker buildx` that scripts call.
#[derive(Debug, Subcommand)]
enum Buildx {
    Build(Box<build::BuildArgs>),
    Du(du::DuArgs),
    Prune(prune::PruneArgs),
    Version(version::VersionArgs),
}

/// The commands of `docker image`.
#[derive(Debug, Subcommand)]
enum ImageCommands {
    Build(Box<build::BuildArgs>),
    #[command(alias = "list")]
    Ls(images::ImagesArgs),
    Inspect(inspect::InspectArgs),
    History(history::HistoryArgs),
    Tag(tag::TagArgs),
    #[command(alias = "remove")]
    Rm(rmi::RmiArgs),
    Prune(prune::PruneArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Save(save::SaveArgs),
    Load(load::LoadArgs),
    Import(import::ImportArgs),
}

/// Returns the whole command line's description.
pub fn command() -> clap::Command {
    Cli::<Commands>::command()
}

/// Runs the command that `args` (the program's name first) name, and returns the process's exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let env = Environment::gather();
    let args: Vec<OsString> = args.into_iter().collect();
    let session = Session::new(env, None);
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(explain(&error, &args, &session)),
    };
    let session = Session::new(session.env, cli.store.clone());
    match dispatch(cli.command, &session) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            for diagnostic in &failure.diagnostics {
                out::say(&diagnostic::render(diagnostic, session.stderr));
            }
            ExitCode::from(failure.status)
        }
    }
}

/// Parses the command line; switches take `=true` and `=false`, as docker's do.
fn parse(args: &[OsString]) -> Result<Cli<Commands>, clap::Error> {
    match command_word(args) {
        Some("build") => parse_as::<Building>(args),
        Some("plan") => parse_as::<Planning>(args),
        Some("buildx" | "image") => parse_as::<Longer>(args),
        _ => parse_as::<Commands>(args),
    }
}

fn parse_as<C: Subcommand + Into<Commands>>(args: &[OsString]) -> Result<Cli<Commands>, clap::Error> {
    let command = switch::accept_values(Cli::<C>::command(), command_word(args));
    let Cli { store, command } = match command.try_get_matches_from(args).and_then(|m| Cli::<C>::from_arg_matches(&m)) {
        // The help is better off without a `[=<BOOL>]` at each switch.
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Cli::<C>::try_parse_from(args)?,
        other => other?,
    };
    Ok(Cli { store, command: command.into() })
}

/// Returns the word that names the command.
fn command_word(args: &[OsString]) -> Option<&str> {
    let mut args = args.iter().skip(1).map(|a| a.to_str().unwrap_or_default());
    while let Some(arg) = args.next() {
        match arg {
            "--store" => drop(args.next()),
            _ if arg.starts_with('-') => {}
            word => return Some(word),
        }
    }
    None
}

fn dispatch(command: Commands, session: &Session) -> Result<u8, Failure> {
    match command {
        Commands::Build(args) => build::run(&args, session)?,
        Commands::Plan(args) => plan::run(&args, session)?,
        Commands::Prebuild(args) => prebuild::run(&args, session)?,
        Commands::Run(args) => return run::run(&args, session),
        Commands::Ps(args) => ps::run(&args, session)?,
        Commands::Rm(args) => rm::run(&args, session)?,
        Commands::Images(args) => images::run(&args, session)?,
        Commands::Replay(args) => replay::run(&args, session)?,
        Commands::Inspect(args) => inspect::run(&args, session)?,
        Commands::History(args) => history::run(&args, session)?,
        Commands::Explain(args) => explain::run(&args, session)?,
        Commands::Stats(args) => stats::run(&args, session)?,
        Commands::Tag(args) => tag::run(&args, session)?,
        Commands::Rmi(args) => rmi::run(&args, session)?,
        Commands::Pull(args) => pull::run(&args, session)?,
        Commands::Push(args) => push::run(&args, session)?,
        Commands::Save(args) => save::run(&args, session)?,
        Commands::Login(args) => login::run(&args, session)?,
        Commands::Logout(args) => logout::run(&args, session)?,
        Commands::Load(args) => load::run(&args, session)?,
        Commands::Import(args) => import::run(&args, session)?,
        Commands::Doctor(args) => doctor::run(&args, session)?,
        Commands::Fmt(args) => fmt::run(&args, session)?,
        Commands::Prune(args) => prune::run(&args, session)?,
        Commands::Du(args) => du::run(&args, session)?,
        Commands::Cache(args) => cache::run(&args, session)?,
        Commands::Fsck(args) => fsck::run(&args, session)?,
        Commands::Version(args) => version::run(&args)?,
        Commands::Completions(args) => completions::run(&args, &self::command())?,
    }
    Ok(0)
}

/// Shows help, the version, or what is wrong with the command line; returns the exit code.
fn explain(error: &clap::Error, args: &[OsString], session: &Session) -> u8 {
    let text = |paint| match paint {
        Paint::Coloured => error.render().ansi().to_string(),
        Paint::Plain => error.render().to_string(),
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return if out::result(&text(session.stdout)).is_ok() { 0 } else { failure::FAILED };
    }
    out::say(&text(session.stderr));
    // Scripts that start containers tell the runner's errors from the program's by docker's code.
    if args.get(1).is_some_and(|a| a == "run") { RUN_FAILED } else { USAGE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
        Cli::<Longer>::command().debug_assert();
        for command in command().get_subcommands().map(|c| c.get_name().to_string()) {
            switch::accept_values(self::command(), Some(&command)).debug_assert();
        }
    }

    #[test]
    fn docker_s_longer_spelling_is_taken() {
        let cli = parse(&["ply", "buildx", "build", "--load", "-t", "a", "."].map(OsString::from)).unwrap();
        assert!(matches!(cli.command, Commands::Build(args) if args.load && args.tag == ["a"]));
    }
}
