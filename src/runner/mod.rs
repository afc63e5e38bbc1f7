//! Containers from images: docker's `run` on the sandbox.
//!
//! | file | duty |
//! |---|---|
//! | `request` | what `ply run` was told, and the parsers of docker's flag values (pure) |
//! | `process` | ENTRYPOINT, CMD, USER, WORKDIR and environment become a process (pure) |
//! | `container` | identity, names and records on disk |
//! | `attach` | streams, terminal, window size, signals |
//!
//! The root file system comes from the caller ([`MountedRoot`]): nothing here knows layers or the store. Not as
//! docker: `VOLUME` makes no anonymous volume, the directory is the container's own; the default network is the
//! host's. A newcomer would look for a daemon; a container lives as long as the [`run`] call.

mod attach;
pub mod container;
mod mounts;
pub mod process;
pub mod request;

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::termios::isatty;

use crate::image::config::ImageConfig;
use crate::image::users::{ResolvedUser, UserError, resolve_user};
use crate::path;
use crate::sandbox::stubs::{StubError, Stubs};
use crate::sandbox::terminal::{self, TerminalSide};
use crate::sandbox::{HostFacts, RootMount, Running, SandboxError, SandboxSpec, Stdio, UserIds, probe, spawn};

use attach::{Forwarding, Pump, RawMode};
use container::{ContainerError, Containers, Record};
use process::{Process, ProcessError};
pub use request::RunRequest;

/// The image that a container is made of.
#[derive(Debug, Clone)]
pub struct ImageToRun {
    /// As the user named it.
    pub name: String,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers' directories, top first.
    pub lowers: Vec<PathBuf>,
}

/// A root file system that can be written.
pub struct MountedRoot {
    /// A mount that is attached nowhere.
    pub mount: OwnedFd,
    /// What has to live as long as the container does.
    pub guard: Box<dyn Any>,
}

/// What a container has of ours: the standard streams, and a signal that came before it was there to take it.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Streams<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    /// Which signal asked us to end so far.
    pub asked: &'a dyn Fn() -> Option<i32>,
}

/// A container that could not be run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RunError {
    /// A signal came before the container ran.
    #[error("interrupted")]
    Interrupted(i32),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("the input device is not a terminal: leave out `-t`, or connect one")]
    NoTerminal,
    #[error("mounting the container's root file system")]
    Root { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("resolving user `{user}`")]
    User { user: String, source: UserError },
    #[error("reading {path} of the image")]
    UserFile { path: &'static str, source: path::PathError },
    #[error("opening volume {path}")]
    Volume { path: PathBuf, source: io::Error },
    #[error("preparing the container's root")]
    Stubs { source: StubError },
    #[error("{what}")]
    System { what: &'static str, source: io::Error },
}

impl RunError {
    /// Docker's exit code: 127 for a command that is not found, 126 for one that can't be executed, else 125.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Sandbox(error) => error.exit_code(),
            Self::Interrupted(signal) => 128 + signal,
            _ => 125,
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// Runs a container to its end, and returns its exit code: the command's, or 128 + n for signal n.
///
/// `now_secs` is the time, for the record. `mount_root` gets the image's layers and an empty directory for the
/// container's changes. Signals of this process (HUP, INT, QUIT, TERM, USR1, USR2, WINCH) go to the container
/// meanwhile. The container is kept when it ends, unless the request says otherwise.
pub fn run(
    request: &RunRequest,
    image: &ImageToRun,
    containers: &Containers,
    host: &HostFacts,
    streams: Streams<'_>,
    now_secs: u64,
    mount_root: impl FnOnce(&[PathBuf], &Path) -> Result<MountedRoot, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<i32, RunError> {
    if request.tty && request.interactive && !isatty(streams.stdin) {
        return Err(RunError::NoTerminal);
    }
    let id = container::new_id().map_err(system("making a container id"))?;
    let process = process::derive(request, &image.config.config, &id)?;
    let container = containers.create(Record {
        id,
        name: request.name.clone().unwrap_or_default(),
        image: image.name.clone(),
        command: process.argv.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        created_secs: now_secs,
        remove: request.remove,
        exit_code: None,
    })?;
    let result = mount_root(&image.lowers, &container.files())
        .map_err(|source| RunError::Root { source })
        .and_then(|root| run_in(request, process, root, host, streams));
    let code = result.as_ref().copied().unwrap_or_else(RunError::exit_code);
    let finished = container.finish(code);
    // An error of the container itself is the one to tell.
    let code = result?;
    finished?;
    Ok(code)
}

fn run_in(request: &RunRequest, process: Process, root: MountedRoot, host: &HostFacts, streams: Streams<'_>) -> Result<i32, RunError> {
    let MountedRoot { mount, guard } = root;
    let files = path::Root::from_fd(mount.try_clone().map_err(system("duplicating a descriptor"))?);
    let user = resolve(&process.user, &files)?;
    let (ours, side) = if request.tty {
        let size = attach::window_size(&[streams.stdin, streams.stdout]).unwrap_or((24, 80));
        let (ours, side) = terminal::open(size, host).map_err(system("opening a terminal for the container"))?;
        (Some(ours), Some(side))
    } else {
        (None, None)
    };
    let tty = match &side {
        Some(side) => Some(side.tty().try_clone_to_owned().map_err(system("duplicating the terminal"))?),
        None => None,
    };
    let spec = sandbox_spec(request, process, mount, user, side, host)?;
    let targets = spec.stub_targets().map_err(|source| RunError::Stubs { source })?;
    // As with docker, mount points stay in a container's own files.
    Stubs::create(&files, &targets).map_err(|source| RunError::Stubs { source })?.keep();
    if let Some(signal) = (streams.asked)() {
        return Err(RunError::Interrupted(signal));
    }
    let code = match (ours, tty) {
        (Some(ours), Some(tty)) => attend_terminal(spec, request, ours, tty, streams),
        _ => attend_pipes(spec, request, streams),
    };
    drop(guard);
    code
}

/// Largest passwd or group file that is read, as BuildKit's.
const USER_FILE_MAX_BYTES: u64 = 10 << 20;

fn resolve(user: &str, root: &path::Root) -> Result<ResolvedUser, RunError> {
    let read = |path: &'static str| match root.read_small(path.as_bytes(), USER_FILE_MAX_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(source) => Err(RunError::UserFile { path, source }),
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    resolve_user(user, passwd.as_deref(), group.as_deref()).map_err(|source| RunError::User { user: user.into(), source })
}

fn sandbox_spec(
    request: &RunRequest,
    process: Process,
    mount: OwnedFd,
    user: ResolvedUser,
    terminal: Option<TerminalSide>,
    host: &HostFacts,
) -> Result<SandboxSpec, RunError> {
    let Process { argv, mut env, cwd, hostname, .. } = process;
    // As runc: only where nobody gave one.
    if !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".into(), user.home.clone()));
    }
    let mut mounts = mounts::network_files(request, &hostname);
    for volume in &request.volumes {
        mounts.push(mounts::open(volume)?);
    }
    Ok(SandboxSpec {
        root: RootMount::Detached(mount),
        readonly_root: request.read_only,
        mounts,
        argv,
        env,
        cwd,
        user: UserIds { uid: user.uid, gid: user.gid, groups: user.process_groups() },
        hostname,
        network: request.network,
        terminal,
        insecure: request.privileged,
        no_new_privs: request.no_new_privileges,
        fake_ownership: probe::needs_fake_ownership(host),
        shm_size_bytes: request.shm_size_bytes,
        rlimits: request.rlimits.clone(),
        host: host.clone(),
    })
}

/// Runs it on a terminal of its own, with ours in raw mode while it runs.
fn attend_terminal(spec: SandboxSpec, request: &RunRequest, ours: OwnedFd, tty: OwnedFd, streams: Streams<'_>) -> Result<i32, RunError> {
    let duplicate = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(system("duplicating a stream"));
    let running = spawn(spec, Stdio { stdin: tty.as_fd(), stdout: tty.as_fd(), stderr: tty.as_fd() })?;
    // Or the container's terminal would never end.
    drop(tty);
    let raw =
        if request.interactive { Some(RawMode::enter(streams.stdin).map_err(system("setting the terminal to raw mode"))?) } else { None };
    let window = if isatty(streams.stdin) { streams.stdin } else { streams.stdout };
    let forwarding = Forwarding::start(running.killer()?, Some((duplicate(ours.as_fd())?, duplicate(window)?)), streams.asked)
        .map_err(system("handling signals"))?;
    let output = Pump::start(duplicate(ours.as_fd())?, duplicate(streams.stdout)?);
    let input = if request.interactive {
        Some(Pump::start_stoppable(duplicate(streams.stdin)?, ours).map_err(system("connecting standard input"))?)
    } else {
        None
    };
    let exit = running.wait()?;
    output.drain();
    input.into_iter().for_each(Pump::stop);
    drop(forwarding);
    drop(raw);
    Ok(exit.code())
}

/// Runs it without a terminal.
fn attend_pipes(spec: SandboxSpec, request: &RunRequest, streams: Streams<'_>) -> Result<i32, RunError> {
    let null = || -> Result<OwnedFd, RunError> {
        let file = std::fs::File::open("/dev/null").map_err(system("opening /dev/null"))?;
        Ok(file.into())
    };
    let mut output = Vec::new();
    let mut connect_output = |ours: BorrowedFd<'_>| -> io::Result<OwnedFd> {
        if !isatty(ours) {
            return ours.try_clone_to_owned();
        }
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        output.push(Pump::start(reader, ours.try_clone_to_owned()?));
        Ok(writer)
    };
    let stdout = connect_output(streams.stdout).map_err(system("connecting standard output"))?;
    let stderr = connect_output(streams.stderr).map_err(system("connecting standard error"))?;
    let (stdin, input) = match request.interactive {
        false => (null()?, None),
        true if isatty(streams.stdin) => {
            let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
            let (reader, writer) = pipe.map_err(system("connecting standard input"))?;
            let ours = streams.stdin.try_clone_to_owned().map_err(system("connecting standard input"))?;
            (reader, Some(Pump::start_stoppable(ours, writer).map_err(system("connecting standard input"))?))
        }
        true => (streams.stdin.try_clone_to_owned().map_err(system("connecting standard input"))?, None),
    };
    let running = spawn(spec, Stdio { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() });
    // Ours would keep the pipes open after the container's end.
    drop((stdin, stdout, stderr));
    let code = running.map_err(RunError::from).and_then(|running| attend(running, streams.asked));
    output.into_iter().for_each(Pump::drain);
    input.into_iter().for_each(Pump::stop);
    code
}

fn attend(running: Running, asked: &dyn Fn() -> Option<i32>) -> Result<i32, RunError> {
    let forwarding = Forwarding::start(running.killer()?, None, asked).map_err(system("handling signals"))?;
    let exit = running.wait()?;
    drop(forwarding);
    Ok(exit.code())
}

#[cfg(test)]
mod privileged_tests;
