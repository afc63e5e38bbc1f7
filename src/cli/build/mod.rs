//! `ply build`: docker's flags, turned into a [`BuildRequest`], and the build's end told.

pub mod cache;
pub mod call;
pub mod foreign;
pub mod output;
pub mod request;
pub mod timings;
pub mod verify;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use clap::{Args, ValueEnum};

use crate::address;
use crate::cli::build::call::{Call, CheckCall};
use crate::cli::build::foreign::ForeignFlags;
use crate::cli::build::timings::Recorder;
use crate::cli::build::verify::VerifyCache;
use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::plan::{self, PlanFlags};
use crate::cli::session::Session;
use crate::cli::values::{self, ValueError};
use crate::cli::{collection, interrupt, registries, transfer};
use crate::engine::cancel::CancelToken;
use crate::engine::error::BuildError;
use crate::engine::event::{Event, Observer};
use crate::engine::request::{BuildRequest, Collection, Output};
use crate::engine::sources::{Progress as Tell, Pulls};
use crate::engine::{self, BuildOutcome, Engine};
use crate::graph::{Entitlement, NetworkMode};
use crate::image::platform::Platform;
use crate::registry::Client;
use crate::sandbox::userns::Identity;
use crate::store::Store;
use crate::ui::out;
use crate::ui::progress::{Mode, Progress};

/// Build an image from a Dockerfile
#[derive(Debug, Clone, Args)]
#[command(after_help = "Prints the image's ID on standard output; progress goes to standard error.\n\
    Without -o the image goes to the store, where `ply run` and `FROM` find it. Of several platforms the store keeps\n\
    an image each; the tag and the printed ID are those of this host's platform, or of the first one if this host's\n\
    is not among them.")]
pub struct BuildArgs {
    /// The context: a directory, a git repository (URL[#REF[:DIR]]), the URL of a tar or Dockerfile, or `-` for one on standard input
    #[arg(value_name = "PATH|URL|-")]
    pub context: String,
    /// The Dockerfile [default: Dockerfile in the context]; `-` for standard input, or an http(s) URL
    #[arg(short, long, value_name = "PATH|URL|-")]
    pub file: Option<String>,
    /// Name the image; may be given several times
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// Set a build argument; without a value, the variable of that name is taken
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Add a named context: a directory, docker-image://REF, oci-layout://PATH[:TAG], URL, or host:PROGRAM,...
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Stop at this stage
    #[arg(long, value_name = "STAGE")]
    pub target: Vec<String>,
    /// Build for these platforms
    #[arg(long, value_name = "OS/ARCH,...", value_delimiter = ',', value_parser = values::platform)]
    pub platform: Vec<Platform>,
    /// Add a label to the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Run every step again
    #[arg(long)]
    pub no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Ask the registry for newer base images
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL", value_parser = pull, hide_default_value = true)]
    pub pull: bool,
    /// What to write: DIR, `-` (a tar), or type=oci|docker|tar|local|image|registry|none[,dest=PATH][,name=NAME][,compression=gzip|zstd|uncompressed]
    /// [,compression-level=N][,force-compression=true][,oci-mediatypes=false]
    #[arg(short, long, value_name = "SPEC", value_parser = output::parse)]
    pub output: Vec<Output>,
    /// Put the image into the store, besides what -o writes
    #[arg(long)]
    pub load: bool,
    /// Push the image under its names, besides what -o writes
    #[arg(long)]
    pub push: bool,
    /// Take results from a shared cache: NAME, type=registry,ref=NAME (also an image with type=inline) or type=local,src=DIR
    #[arg(long, value_name = "SPEC")]
    pub cache_from: Vec<String>,
    /// Give results to a shared cache: type=registry,ref=NAME, type=local,dest=DIR or type=inline[,mode=min|max][,compression=gzip|zstd|uncompressed][,ignore-error=true]
    #[arg(long, value_name = "SPEC")]
    pub cache_to: Vec<String>,
    /// Carry cache mounts through --cache-to and --cache-from, all or those with these ids: shared, changing data, and whatever commands left there
    #[arg(long, value_name = "ID,...", num_args = 0..=1, require_equals = true, default_missing_value = "", value_delimiter = ',')]
    pub cache_mounts: Option<Vec<String>>,
    /// Write the image's ID to this file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write how the build's time went by, as a page with a waterfall (or JSON, by the file's name) [default file: ply-timing.html]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub timings: Option<String>,
    /// Write what was built to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// The network of RUN steps
    #[arg(long, value_name = "default|none|host", default_value = "default", value_parser = values::network, hide_default_value = true)]
    pub network: NetworkMode,
    /// Allow a privilege that the Dockerfile asks for: network.host, security.insecure
    #[arg(long, value_name = "PRIVILEGE", value_delimiter = ',', value_parser = values::entitlement)]
    pub allow: Vec<Entitlement>,
    /// Offer a secret to RUN --mount=type=secret, or to a host (id=GIT_AUTH_TOKEN, HTTP_AUTH_TOKEN_<host>): id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SPEC")]
    pub secret: Vec<String>,
    /// Offer an ssh agent or keys to RUN --mount=type=ssh and to git: default, or ID=SOCKET|KEY[,KEY]
    #[arg(long, value_name = "SPEC")]
    pub ssh: Vec<String>,
    /// Add a line to the /etc/hosts of RUN steps
    #[arg(long, value_name = "HOST=ADDRESS", value_parser = values::add_host)]
    pub add_host: Vec<(String, String)>,
    /// Size of /dev/shm in RUN steps
    #[arg(long, value_name = "BYTES", value_parser = values::size_bytes)]
    pub shm_size: Option<u64>,
    /// Set a limit of RUN steps
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = values::ulimit)]
    pub ulimit: Vec<(String, u64, u64)>,
    /// How progress is shown [default: auto, or BUILDKIT_PROGRESS]
    #[arg(long, value_name = "auto|plain|tty|quiet|rawjson", value_parser = progress)]
    pub progress: Option<Mode>,
    /// Show only the image's ID, or the error
    #[arg(short, long)]
    pub quiet: bool,
    /// Only check the Dockerfile; same as --call=check
    #[arg(long)]
    pub check: bool,
    /// What to do with the Dockerfile: build, check, outline or targets; reports with [,format=json][,ignorestatus=true]
    #[arg(long, alias = "print", value_name = "METHOD", default_value = "build", hide_default_value = true, value_parser = call::parse)]
    pub call: Call,
    /// Refuse to build where steps can't be isolated fully
    #[arg(long, value_enum, value_name = "full", num_args = 0..=1, require_equals = true, default_missing_value = "full")]
    pub require_isolation: Option<Isolation>,
    /// How many steps may run side by side [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Run cached steps again in a scratch place and compare: all, a count, or a share such as 0.1 or 10%, each with ,seed=N. Exit code 1
    /// and no output if one gives something else than the cache did; a step that gives something else each time is only told
    #[arg(long, value_name = "SAMPLE", num_args = 0..=1, require_equals = true, default_missing_value = "all", value_parser = verify::parse)]
    pub verify_cache: Option<VerifyCache>,
    /// How much the cache may take afterwards: off, or max-used-space=SIZE,min-free-space=SIZE,reserved-space=SIZE,keep-duration=DURATION
    /// [default: PLY_GC, else 80% of the disk or 100 GB, a fifth of it free, 10% or 10 GB reserved]
    #[arg(long, value_name = "POLICY", value_parser = gc)]
    pub gc: Option<Gc>,
    /// What only a plan can be told
    #[command(flatten)]
    pub plan: PlanFlags,
    /// Docker's other flags
    #[command(flatten)]
    pub foreign: ForeignFlags,
}

/// `--gc`; none: off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gc(pub Option<Collection>);

/// Reads `--gc`.
fn gc(text: &str) -> Result<Gc, ValueError> {
    collection::policy(text).map(Gc)
}

/// `--require-isolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Isolation {
    Full,
}

/// Reads `--pull`, a boolean with docker, a policy with podman.
fn pull(text: &str) -> Result<bool, ValueError> {
    match text {
        "always" | "newer" => Ok(true),
        "missing" => Ok(false),
        _ => values::boolean(text).map_err(|_| ValueError::form("true, false, always or missing", text)),
    }
}

/// Reads `--progress`.
pub fn progress(text: &str) -> Result<Mode, ValueError> {
    match text {
        "" | "auto" => Ok(Mode::Auto),
        "plain" => Ok(Mode::Plain),
        "tty" => Ok(Mode::Tty),
        "quiet" | "none" => Ok(Mode::Quiet),
        "rawjson" => Ok(Mode::RawJson),
        _ => Err(ValueError::form("auto, plain, tty, quiet or rawjson", text)),
    }
}

impl BuildArgs {
    /// Returns what to do with the Dockerfile.
    pub fn call(&self) -> Call {
        match self.call {
            Call::Build if self.check => Call::Check(CheckCall::PLAIN),
            call => call,
        }
    }
}

/// Builds, and prints the image's ID; or looks at the Dockerfile, and prints the report.
pub fn run(args: &BuildArgs, session: &Session) -> Result<(), Failure> {
    if let Call::Describe(format) = args.call() {
        return call::describe(format);
    }
    let (request, notices) = request::make(args, &session.env)?;
    if args.plan.dry_run {
        return plan::show(args, &request, session);
    }
    args.plan.judge()?;
    let stdout_is_free = !request.outputs.iter().any(request::to_stdout);
    let built = perform(args, &request, notices, session)?;
    match (args.call(), &built.answer) {
        (Call::Check(check), _) => return call::report(check, &built.findings, session),
        (Call::Outline(format) | Call::Targets(format), Some(answer)) => return call::answer(format, answer),
        _ => {}
    }
    match built.image {
        Some(image) if stdout_is_free => Ok(out::line(&image.to_string())?),
        _ => Ok(()),
    }
}

/// Does what is requested, and shows how far it is.
pub fn perform(args: &BuildArgs, request: &BuildRequest, notices: Vec<String>, session: &Session) -> Result<BuildOutcome, Failure> {
    let identity = session.enter()?;
    let cancel = interrupt::install()?;
    let progress = Progress::start(mode(args, &session.env)?, session.stderr);
    progress.ends(&cancel);
    for notice in notices {
        progress.event(Event::Notice(notice));
    }
    let recorder = args.timings.as_ref().map(|file| (timings::file(file, &session.env.directory), Recorder::start(progress.clone())));
    let observer: Arc<dyn Observer> = match &recorder {
        Some((_, recorder)) => recorder.clone(),
        None => progress.clone(),
    };
    let result = session.store().and_then(|dir| execute_in(&dir, request, session, &identity, observer, &cancel));
    let written = recorder.map(|(file, recorder)| recorder.write(&file, &title(request, result.is_ok()), &about(args, session)));
    progress.finish();
    // A build that failed is the greater news.
    let result = result.and_then(|built| written.unwrap_or(Ok(())).map(|()| built));
    match (result, interrupt::status(&cancel)) {
        // What went wrong is what was asked for.
        (Err(_), Some(status)) => Err(Failure::message("interrupted").status(status)),
        (Err(failure), None) => Err(match args.call() {
            Call::Check(check) => call::report_error(check, failure),
            _ => failure,
        }),
        (Ok(built), _) => Ok(built),
    }
}

/// Says of which build a page is.
fn title(request: &BuildRequest, ended_well: bool) -> String {
    let name = request.tags.first().map_or_else(|| "an image".to_string(), Clone::clone);
    if ended_well { format!("Build of {name}") } else { format!("Build of {name}, which failed") }
}

/// Says when and where it was.
fn about(args: &BuildArgs, session: &Session) -> String {
    let when = jiff::Timestamp::from_second(session.env.now_secs).map(|t| t.to_string()).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{when}, context {}, {}, {processors} processors", address::redact(&args.context), Platform::host())
}

/// Hands the request to the engine, with the store in `dir`.
pub fn execute_in(
    dir: &Path,
    request: &BuildRequest,
    session: &Session,
    identity: &Identity,
    observer: Arc<dyn Observer>,
    cancel: &CancelToken,
) -> Result<BuildOutcome, Failure> {
    let tasks = transfer::Tasks::new(observer.clone(), cancel.clone());
    with_engine(dir, session, identity, observer, &tasks, cancel, |engine, stdin| {
        engine::build(engine, request, stdin, &mut std::io::stdout())
    })
}

/// Opens the store in `dir` and lets `work` use an engine on it, with standard input.
pub fn with_engine<T>(
    dir: &Path,
    session: &Session,
    identity: &Identity,
    observer: Arc<dyn Observer>,
    progress: &dyn Tell,
    cancel: &CancelToken,
    work: impl FnOnce(&Engine<'_>, &mut dyn Read) -> Result<T, BuildError>,
) -> Result<T, Failure> {
    let store = Store::open(dir).map_err(|e| Failure::of(&e))?;
    store.end_when(cancel.cell());
    let client = Client::new(registries::watched(registries::config(&session.env), cancel, observer.clone()));
    let engine = Engine {
        store: &store,
        client: &client,
        host_path: transfer::search_path(&session.env),
        ownership: Session::ownership(identity),
        observer,
        cancel: cancel.clone(),
        progress,
        clock: SystemTime::now,
        host: OnceLock::new(),
        pulls: Pulls::default(),
    };
    let mut stdin = interrupt::stdin(|| cancel.is_cancelled());
    work(&engine, &mut stdin).map_err(failure_of)
}

fn failure_of(error: BuildError) -> Failure {
    match error {
        BuildError::At(diagnostic) => Failure::from(*diagnostic),
        BuildError::Plain { message, hint: Some(hint) } => Failure::message(message).hint(hint),
        BuildError::Plain { message, hint: None } => Failure::message(message),
        BuildError::Cancelled => Failure::message("interrupted"),
    }
}

/// Returns how to show progress: `-q`, then `--progress`, then `BUILDKIT_PROGRESS`.
fn mode(args: &BuildArgs, env: &Environment) -> Result<Mode, Failure> {
    let said = match args.progress {
        Some(mode) => mode,
        None => {
            progress(env.text("BUILDKIT_PROGRESS").unwrap_or_default()).map_err(|e| Failure::usage(format!("BUILDKIT_PROGRESS: {e}")))?
        }
    };
    Ok(if args.quiet { Mode::Quiet } else { said.resolve(env.can_redraw()) })
}
