//! `ply run`: a container of an image, in docker's words.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;

use crate::cli::failure::{Failure, RUN_FAILED};
use crate::cli::session::Session;
use crate::cli::{interrupt, stored, transfer, values};
use crate::engine::sources::{ResolvedImage, Sources};
use crate::graph::{ImageRequest, ImageSource, NetworkMode};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::path::Ownership;
use crate::runner::{self, ImageToRun, MountedRoot, RunRequest, Streams, request};
use crate::sandbox::{HostFacts, Network, Rlimit, defaults};
use crate::snapshot::{Driver, DriverKind};
use crate::store::Store;
use crate::ui::out;

/// Run a command in a new container of an image
#[derive(Debug, Clone, Args)]
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// The image: a name, an id, or the beginning of one; pulled when the store lacks it
    pub image: String,
    /// The command and its arguments, instead of the image's CMD
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// Connect standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Set a variable; without a value, the caller's is taken
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Set the variables of a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Bind a path of the host
    #[arg(short, long, value_name = "HOST-PATH:PATH[:ro]")]
    pub volume: Vec<String>,
    /// Bind a path of the host, or memory
    #[arg(long, value_name = "type=bind|tmpfs,source=PATH,target=PATH[,readonly]")]
    pub mount: Vec<String>,
    /// Mount memory
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// The working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Who it runs as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Replace the image's ENTRYPOINT; empty: none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// The network [default: the host's]
    #[arg(long, alias = "net", value_name = "none|host", default_value = "host", hide_default_value = true, value_parser = values::network)]
    pub network: NetworkMode,
    /// Its name
    #[arg(long)]
    pub name: Option<String>,
    /// Its host name
    #[arg(short, long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Add a line to its /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = values::add_host)]
    pub add_host: Vec<(String, String)>,
    /// Mount its root read-only
    #[arg(long)]
    pub read_only: bool,
    /// All capabilities, no system call filter, nothing masked
    #[arg(long)]
    pub privileged: bool,
    /// no-new-privileges
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = values::size_bytes)]
    pub shm_size: Option<u64>,
    /// Set a limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = values::ulimit)]
    pub ulimit: Vec<(String, u64, u64)>,
    /// Which image of an index [default: the host's]
    #[arg(long, value_name = "OS/ARCH", value_parser = values::platform)]
    pub platform: Option<Platform>,
    /// Ask the registry: missing, always, never
    #[arg(long, value_name = "POLICY", value_parser = ["missing", "always", "never"], default_value = "missing")]
    pub pull: String,
}

/// Runs the container and returns its exit code; 125 for a failure of our own.
pub fn run(args: &RunArgs, session: &Session) -> Result<u8, Failure> {
    let result = run_container(args, session);
    result.map_err(|failure| if failure.status == crate::cli::failure::FAILED { failure.status(RUN_FAILED) } else { failure })
}

fn run_container(args: &RunArgs, session: &Session) -> Result<u8, Failure> {
    let request = make(args, session)?;
    let identity = session.enter()?;
    let ownership = Session::ownership(&identity);
    let always = args.pull == "always";
    // Signals are the container's: the runner passes them on. Until there is one they end the command, in order.
    let cancel = interrupt::mark()?;
    let result = transfer::with_sources(session, true, always, &cancel, |sources, store| {
        let image = resolve(args, sources, store)?;
        let driver = driver(store, ownership)?;
        let mut lowers = sources.ensure_layers(&image.layers, &driver, ownership).map_err(|e| Failure::of(&e))?;
        lowers.reverse();
        let to_run = ImageToRun { name: args.image.clone(), config: image.config, lowers };
        let containers = stored::containers(store)?;
        containers.reclaim().map_err(|e| Failure::of(&e))?;
        let host = HostFacts::gather().map_err(|e| Failure::message(format!("asking what this host allows: {e}")))?;
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let streams = Streams { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd(), asked: &|| cancel.signal() };
        let mount = |lowers: &[PathBuf], files: &std::path::Path| {
            let prepared = driver.prepare(lowers, files)?;
            let mount = prepared.mount_for_sandbox()?;
            Ok(MountedRoot { mount, guard: Box::new(prepared) })
        };
        let now = session.env.now_secs.max(0).unsigned_abs();
        match runner::run(&request, &to_run, &containers, &host, streams, now, mount) {
            Ok(code) => Ok(u8::try_from(code).unwrap_or(RUN_FAILED)),
            Err(error) => Err(Failure::of(&error).status(u8::try_from(error.exit_code()).unwrap_or(RUN_FAILED))),
        }
    });
    match (result, interrupt::status(&cancel)) {
        (Err(_), Some(status)) => Err(Failure::message("interrupted").status(status)),
        (result, _) => result,
    }
}

fn driver(store: &Store, ownership: Ownership) -> Result<Driver, Failure> {
    let staging = store.staging_dir().map_err(|e| Failure::of(&e))?;
    let driver = Driver::detect(&staging, ownership).map_err(|e| Failure::of(&e))?;
    if driver.kind() == DriverKind::Copy {
        out::say(&format!("note: the image is copied for this container (snapshot driver `copy`): {}\n", driver.reason()));
    }
    Ok(driver)
}

/// Finds the image in the store by whatever means it, else at a registry.
fn resolve(args: &RunArgs, sources: &Sources<'_>, store: &Store) -> Result<ResolvedImage, Failure> {
    let failed = |e| Failure::of(&e);
    let missing = match stored::find(store, &args.image) {
        Ok(found) if !sources.policy.pull => {
            let gone =
                || Failure::message(format!("parts of the image `{}` are gone from the store", args.image)).hint("`ply fsck` tells which");
            return sources.stored(&found, &args.image).map_err(failed)?.ok_or_else(gone);
        }
        Ok(_) => None,
        Err(missing) => Some(missing),
    };
    let reference = Reference::parse(&args.image);
    // A word without a host means docker.io: whether it was meant so is not for us to guess without being told.
    match (reference, missing) {
        (Ok(reference), None) => pull(args, sources, &reference),
        (Ok(reference), Some(_)) if args.pull != "never" && (args.image.contains('/') || sources.policy.pull) => {
            pull(args, sources, &reference)
        }
        (_, Some(missing)) => Err(missing),
        (Err(error), None) => Err(Failure::of(&error)),
    }
}

fn pull(args: &RunArgs, sources: &Sources<'_>, reference: &Reference) -> Result<ResolvedImage, Failure> {
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let request = ImageRequest { source: ImageSource::Reference(reference.clone().tagged().to_string()), platform };
    sources.resolve(&request).map_err(|e| Failure::of(&e))
}

fn make(args: &RunArgs, session: &Session) -> Result<RunRequest, Failure> {
    let mut no_new_privileges = false;
    for option in &args.security_opt {
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => no_new_privileges = true,
            "no-new-privileges=false" | "no-new-privileges:false" => no_new_privileges = false,
            other => return Err(Failure::message(format!("--security-opt {other}: only no-new-privileges is supported"))),
        }
    }
    let rlimit = |(name, soft, hard): &(String, u64, u64)| {
        let resource = Rlimit::resource_of(name).ok_or_else(|| Failure::message(format!("--ulimit: there is no limit `{name}`")))?;
        Ok(Rlimit { resource, soft: *soft, hard: *hard })
    };
    Ok(RunRequest {
        args: args.command.clone(),
        entrypoint: args.entrypoint.clone(),
        env: environment(args, session)?,
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        hostname: args.hostname.clone(),
        network: if args.network == NetworkMode::None { Network::None } else { Network::Host },
        interactive: args.interactive,
        tty: args.tty,
        read_only: args.read_only,
        privileged: args.privileged,
        no_new_privileges,
        volumes: volumes(args)?,
        add_hosts: args.add_host.clone(),
        name: args.name.clone(),
        remove: args.rm,
        shm_size_bytes: args.shm_size.unwrap_or(defaults::SHM_SIZE_BYTES),
        rlimits: args.ulimit.iter().map(rlimit).collect::<Result<_, Failure>>()?,
    })
}

fn volumes(args: &RunArgs) -> Result<Vec<request::Volume>, Failure> {
    let volumes = args.volume.iter().map(|t| request::parse_volume(t));
    let mounts = args.mount.iter().map(|t| request::parse_mount(t));
    let memory = args.tmpfs.iter().map(|t| request::parse_tmpfs(t));
    volumes.chain(mounts).chain(memory).map(|v| v.map_err(|e| Failure::of(&e))).collect()
}

/// `--env-file`s first, then `-e`: the later one of a name counts.
fn environment(args: &RunArgs, session: &Session) -> Result<Vec<(String, String)>, Failure> {
    let outside = |name: &str| session.env.text(name).map(str::to_owned);
    let mut env = Vec::new();
    for path in &args.env_file {
        let text = std::fs::read_to_string(path).map_err(|e| Failure::message(format!("reading `{}`: {e}", path.display())))?;
        env.extend(request::parse_env_file(&text, outside).map_err(|e| Failure::of(&e))?);
    }
    for text in &args.env {
        let (name, value) = values::assignment(text).map_err(|e| Failure::message(format!("--env: {e}")))?;
        env.extend(value.or_else(|| outside(&name)).map(|v| (name, v)));
    }
    Ok(env)
}
