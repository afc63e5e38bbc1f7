//! Starts a sandbox and waits for it.
//!
//! The parent's half: descriptors are prepared (a bind becomes a detached mount *here*, since the child's copy of
//! the mount namespace may not clone from ours), the child is cloned, its report is read, its end is awaited.
//! A newcomer would drop [`Running`] and expect the process to go on: dropping kills it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, open_tree,
};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use crate::sys;
use crate::sys::mount::Depth;
use crate::sys::process::PointerList;

use super::child::{self, REPORT_BYTES, Setup};
use super::compile::{SpecError, compile};
use super::facts::{Filters, ProcSource};
use super::program::{Op, Program};
use super::spec::{MountSource, MountSpec, RootMount, SandboxSpec, Shape};

/// A sandbox that could not be started or awaited.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SandboxError {
    #[error("the sandbox's specification is wrong")]
    Spec(#[from] SpecError),
    #[error("preparing {what} for the sandbox")]
    Prepare { what: String, source: io::Error },
    #[error("cloning a process into new namespaces")]
    Clone { source: io::Error },
    /// The operation is a line of [`Program`]'s text.
    #[error("setting up the sandbox: {operation}")]
    SetUp { operation: String, source: io::Error },
    /// The command, or the interpreter that its first line names, does not exist.
    #[error("`{command}` not found")]
    NotFound { command: String, source: io::Error },
    /// The command exists but the kernel doesn't run it: permission, a directory, a format that it doesn't know.
    #[error("`{command}` cannot be executed")]
    NotExecutable { command: String, source: io::Error },
    #[error("waiting for the sandbox's process")]
    Wait { source: io::Error },
}

impl SandboxError {
    /// The exit code that docker gives: 127 not found, 126 not executable, 125 our own failure.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

/// The descriptors that become the command's standard streams. They stay the caller's.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct Stdio<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The code as a shell gives it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A command that was started. Dropping it kills it, and all that it started.
#[derive(Debug)]
pub struct Running {
    pidfd: OwnedFd,
    pid: i32,
    /// Where there is no pid namespace: the mount namespace that tells the step's processes from others.
    family: Option<OwnedFd>,
    awaited: bool,
}

/// Kills a sandbox, or sends it signals, from another thread.
#[derive(Debug)]
pub struct Killer(OwnedFd);

/// Starts a sandbox, and returns once the command itself runs.
///
/// Uses the specification's descriptors up. May be called from several threads at once. The command dies when
/// the calling *thread* ends (PR_SET_PDEATHSIG): call it from one that waits for it. Mount points must exist, see
/// [`super::stubs`].
pub fn spawn(spec: SandboxSpec, stdio: Stdio<'_>) -> Result<Running, SandboxError> {
    let shapes = shapes(&spec.mounts)?;
    let program = compile(&spec, &shapes)?;
    let prepared = Prepared::new(spec, stdio)?;
    let running = prepared.start(&program)?;
    Ok(running)
}

fn shapes(mounts: &[MountSpec]) -> Result<Vec<Shape>, SandboxError> {
    mounts.iter().map(|mount| mount.shape().map_err(|source| prepare(&format!("the mount on {}", mount.target), source))).collect()
}

fn prepare(what: &str, source: impl Into<io::Error>) -> SandboxError {
    SandboxError::Prepare { what: what.into(), source: source.into() }
}

/// All descriptors that the child uses.
struct Prepared {
    root: OwnedFd,
    staging: Option<OwnedFd>,
    /// By the number of the mount; none where there is nothing to attach.
    mounts: Vec<Option<OwnedFd>>,
    terminal: Option<(OwnedFd, OwnedFd)>,
    stdio: [OwnedFd; 3],
    pipes: [bool; 3],
    filters: std::sync::Arc<Filters>,
    own_pid_namespace: bool,
}

impl Prepared {
    fn new(spec: SandboxSpec, stdio: Stdio<'_>) -> Result<Self, SandboxError> {
        let root = match spec.root {
            RootMount::Detached(mount) => mount,
            RootMount::Directory(path) => open_tree(CWD, &path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
                .map_err(|source| prepare(&format!("the root {}", path.display()), source))?,
        };
        make_private(&root, Depth::Single).map_err(|source| prepare("the root", source))?;
        let staging = staging(&spec.mounts).map_err(|source| prepare("files in memory", source))?;
        let mounts = spec
            .mounts
            .into_iter()
            .map(|mount| detached(mount.source).map_err(|source| prepare(&format!("the mount on {}", mount.target), source)))
            .collect::<Result<_, _>>()?;
        let streams = [stdio.stdin, stdio.stdout, stdio.stderr];
        let kind = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if streams.iter().any(|fd| kind(*fd) == Ok(FileType::Directory)) {
            // From a directory of the host one gets to all of it.
            return Err(prepare("the standard streams: one is a directory", io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let pipes = streams.map(|fd| kind(fd) == Ok(FileType::Fifo));
        // Away from 0, 1 and 2, so that placing one does not overwrite another.
        let [stdin, stdout, stderr] =
            streams.map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|source| prepare("the standard streams", source)));
        Ok(Self {
            root,
            staging,
            mounts,
            terminal: spec.terminal.map(|terminal| (terminal.tty, terminal.file_system)),
            stdio: [stdin?, stdout?, stderr?],
            pipes,
            filters: spec.host.filters,
            own_pid_namespace: spec.host.proc == ProcSource::New,
        })
    }

    fn start(&self, program: &Program) -> Result<Running, SandboxError> {
        let (arguments, environment) = pointer_lists(program);
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|source| prepare("the report pipe", source))?;
        let raw = |fd: &Option<OwnedFd>| fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let mounts: Vec<sys::Fd> = self.mounts.iter().map(raw).collect();
        let setup = Setup {
            program,
            filters: &self.filters,
            arguments: &arguments,
            environment: &environment,
            stdio: [self.stdio[0].as_raw_fd(), self.stdio[1].as_raw_fd(), self.stdio[2].as_raw_fd()],
            pipes: self.pipes,
            root: self.root.as_raw_fd(),
            staging: raw(&self.staging),
            mounts: &mounts,
            terminal: self.terminal.as_ref().map_or(-1, |(tty, _)| tty.as_raw_fd()),
            terminal_fs: self.terminal.as_ref().map_or(-1, |(_, file_system)| file_system.as_raw_fd()),
            report: writer.as_raw_fd(),
            report_reader: reader.as_raw_fd(),
        };
        let (pid, pidfd) = child::clone(program.namespaces, &setup).map_err(|source| SandboxError::Clone { source })?;
        drop(writer);
        let family = if self.own_pid_namespace { None } else { Some(mount_namespace(pid)?) };
        let running = Running { pidfd, pid, family, awaited: false };
        match read_report(reader).map_err(|source| SandboxError::Wait { source })? {
            None => Ok(running),
            // `running` is dropped, which reaps the child.
            Some((number, errno)) => Err(failure(program, number, errno)),
        }
    }
}

/// Whether a process in new pid and mount namespaces may mount a procfs: tried in one.
pub(super) fn probe_new_proc() -> bool {
    let Ok((pid, pidfd)) = child::clone_proc_probe() else { return false };
    let mut running = Running { pidfd, pid, family: None, awaited: false };
    matches!(running.reap(), Ok(Exit::Code(0)))
}

fn pointer_lists(program: &Program) -> (PointerList, PointerList) {
    let Some(Op::Execute { arguments, environment, .. }) = program.operations.last() else {
        return (vec![std::ptr::null()], vec![std::ptr::null()]);
    };
    let list = |strings: &[std::ffi::CString]| strings.iter().map(|c| c.as_ptr()).chain([std::ptr::null()]).collect();
    (list(arguments), list(environment))
}

/// Waits until the child has become the command (end of file: none) or has reported.
fn read_report(reader: OwnedFd) -> io::Result<Option<(usize, i32)>> {
    let mut bytes = Vec::with_capacity(REPORT_BYTES);
    std::fs::File::from(reader).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let (Some(number), Some(errno)) = (bytes.first_chunk(), bytes.last_chunk()) else {
        return Err(io::Error::other("the sandbox's child sent half a report"));
    };
    Ok(Some((u32::from_ne_bytes(*number) as usize, i32::from_ne_bytes(*errno))))
}

fn failure(program: &Program, number: usize, errno: i32) -> SandboxError {
    let source = io::Error::from_raw_os_error(errno);
    match program.operations.get(number) {
        Some(Op::Execute { arguments, .. }) => {
            let command = arguments.first().map(|c| c.to_string_lossy().into_owned()).unwrap_or_default();
            match errno {
                libc::ENOENT | libc::ENOTDIR => SandboxError::NotFound { command, source },
                _ => SandboxError::NotExecutable { command, source },
            }
        }
        Some(op) => SandboxError::SetUp { operation: op.to_string(), source },
        None => SandboxError::SetUp { operation: format!("operation {number}"), source },
    }
}

fn make_private(mount: &OwnedFd, depth: Depth) -> io::Result<()> {
    Ok(sys::mount::make_private(mount.as_raw_fd(), depth)?)
}

/// Returns what is attached for a source: a bind as a detached copy, private.
fn detached(source: MountSource) -> io::Result<Option<OwnedFd>> {
    let (mount, depth) = match source {
        MountSource::Detached(mount) => (mount, Depth::Single),
        MountSource::Bind { source, recursive } => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            let (flags, depth) = if recursive { (flags | OpenTreeFlags::AT_RECURSIVE, Depth::Recursive) } else { (flags, Depth::Single) };
            (open_tree(&source, "", flags)?, depth)
        }
        MountSource::Tmpfs { .. } | MountSource::File { .. } => return Ok(None),
    };
    make_private(&mount, depth)?;
    Ok(Some(mount))
}

/// Writes the contents of file mounts to a file system in memory, each under the number of its mount.
fn staging(mounts: &[MountSpec]) -> io::Result<Option<OwnedFd>> {
    let mut staging = None;
    for (number, mount) in mounts.iter().enumerate() {
        let MountSource::File { content, mode, uid, gid } = &mount.source else { continue };
        let root = match &staging {
            Some(root) => root,
            None => &*staging.insert(new_tmpfs()?),
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(root, number.to_string(), flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(file);
        file.write_all(content)?;
        // chmod after chown: chown clears set-user-id, chown(2).
        if (*uid, *gid) != (0, 0) {
            rustix::fs::fchown(&file, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
    }
    Ok(staging)
}

fn new_tmpfs() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "mode", "0700")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn mount_namespace(pid: i32) -> Result<OwnedFd, SandboxError> {
    let path = format!("/proc/{pid}/ns/mnt");
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|source| prepare("the step's mount namespace", source))
}

impl Running {
    /// Returns the command's pidfd: readable once it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns the command's process number, as this process sees it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns a handle that kills it from another thread.
    pub fn killer(&self) -> Result<Killer, SandboxError> {
        self.pidfd.try_clone().map(Killer).map_err(|source| SandboxError::Wait { source })
    }

    /// Waits for the command's end. All that it started has ended then, too.
    pub fn wait(mut self) -> Result<Exit, SandboxError> {
        self.reap()
    }

    /// Kills the command and all that it started; [`Running::wait`] then returns soon. Ended already: nothing.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends the command a signal. Ended already: nothing.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    fn reap(&mut self) -> Result<Exit, SandboxError> {
        let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED))
            .map_err(|source| SandboxError::Wait { source: source.into() })?;
        self.awaited = true;
        if let Some(family) = &self.family {
            super::family::kill_all(family).map_err(|source| SandboxError::Wait { source })?;
        }
        let status = status.ok_or_else(|| SandboxError::Wait { source: io::Error::other("waitid returned nothing") })?;
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Code(125),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.awaited {
            self.kill();
            let _ = self.reap();
        }
    }
}

impl Killer {
    /// Sends the command a signal. Ended already: nothing.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.0, signal);
    }

    /// Kills the command and all that it started. Ended already: nothing.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
    }
}
