//! RUN: a process in the sandbox, its mounts, its output, its end.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::graph::{NetworkMode, NodeId, RunOp};
use crate::image::platform::Platform;
use crate::image::users::{ResolvedUser, resolve_user};
use crate::path::{Ownership, Root};
use crate::sandbox::emulation::Emulator;
use crate::sandbox::stubs::Stubs;
use crate::sandbox::{self, Exit, MountSource, MountSpec, Network, Rlimit, RootMount, Running, SandboxError, SandboxSpec, Stdio, UserIds};
use crate::snapshot::Prepared;

use super::error::BuildError;
use super::event::{Event, Stream};
use super::execute::Doing;
use super::mounts::Kept;
use super::session::Build;

/// passwd and group files beyond this are an attack, not a list of users (BuildKit's limit).
const MAX_USER_FILE_BYTES: u64 = 10 << 20;
const APT_SETTINGS: &str = "/etc/apt/apt.conf.d";
const APT_AS_ROOT: &str = "APT::Sandbox::User \"root\";\n";
/// How often a waiting step looks whether the build was cancelled.
const CANCEL_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Build<'_> {
    /// Runs a command in a prepared root.
    pub fn run(&self, id: NodeId, op: &RunOp, prepared: &Prepared, doing: Doing) -> Result<(), BuildError> {
        let root = self.root(id, prepared)?;
        let user = self.user(id, op, &root)?;
        let mut kept = Kept::default();
        let (mut mounts, secret_env) = self.mounts(id, op, &mut kept)?;
        mounts.extend(self.apt_without_its_user(&root));
        let mut env: Vec<(String, String)> = op.env.iter().chain(&op.proxy_env).cloned().chain(secret_env).collect();
        if !env.iter().any(|(k, _)| k == "HOME") {
            env.push(("HOME".into(), user.home.clone()));
        }
        let mount = prepared.mount_for_sandbox().map_err(|e| self.failed(id, "", &e))?;
        let spec = SandboxSpec {
            root: RootMount::Detached(mount),
            readonly_root: false,
            mounts,
            argv: op.argv.iter().map(OsString::from).collect(),
            env,
            cwd: op.cwd.clone(),
            user: UserIds { uid: user.uid, gid: user.gid, groups: user.process_groups() },
            hostname: op.hostname.clone(),
            network: if op.network == NetworkMode::None { Network::None } else { Network::Host },
            terminal: None,
            insecure: op.insecure,
            no_new_privs: false,
            fake_ownership: self.engine.ownership == Ownership::Recorded,
            shm_size_bytes: self.request.shm_size_bytes.unwrap_or(sandbox::defaults::SHM_SIZE_BYTES),
            rlimits: self.rlimits(),
            host: self.engine.host_facts()?.clone(),
        };
        let targets = spec.stub_targets().map_err(|e| self.failed(id, "preparing mount points", &e))?;
        let stubs = Stubs::create(&root, &targets).map_err(|e| self.failed(id, "preparing mount points", &e))?;
        let end = self.spawn_and_watch(id, op, spec, doing);
        let removed = stubs.remove();
        let exit = end?;
        removed.map_err(|e| self.failed(id, "removing mount points", &e))?;
        self.judge(id, op, exit)
    }

    /// Returns a file that keeps apt from becoming another user for its downloads: where all changes of identity only
    /// seem to work it looks again, and gives up. Mounted while the step runs, so it is in no layer.
    fn apt_without_its_user(&self, root: &Root) -> Option<MountSpec> {
        let is_asked = self.engine.ownership == Ownership::Recorded && root.resolve(APT_SETTINGS.as_bytes()).is_ok();
        is_asked.then(|| {
            let source = MountSource::File { content: APT_AS_ROOT.into(), mode: 0o644, uid: 0, gid: 0 };
            MountSpec::new(format!("{APT_SETTINGS}/99plywood-one-id"), source).readonly().plain_files()
        })
    }

    fn user(&self, id: NodeId, op: &RunOp, root: &Root) -> Result<ResolvedUser, BuildError> {
        let read = |path: &[u8]| match root.read_small(path, MAX_USER_FILE_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(self.failed(id, "looking up the user", &e)),
        };
        let (passwd, group) = (read(b"/etc/passwd")?, read(b"/etc/group")?);
        resolve_user(&op.user, passwd.as_deref(), group.as_deref()).map_err(|e| self.failed(id, "looking up the user", &e))
    }

    fn rlimits(&self) -> Vec<Rlimit> {
        let one = |(name, soft, hard): &(String, u64, u64)| {
            Rlimit::resource_of(name).map(|resource| Rlimit { resource, soft: *soft, hard: *hard })
        };
        self.request.ulimits.iter().filter_map(one).collect()
    }

    fn spawn_and_watch(&self, id: NodeId, op: &RunOp, spec: SandboxSpec, doing: Doing) -> Result<Exit, BuildError> {
        let io = |e: rustix::io::Errno| self.failed(id, "preparing the output", &e);
        let (out, out_end) = pipe_with(PipeFlags::CLOEXEC).map_err(io)?;
        let (err, err_end) = pipe_with(PipeFlags::CLOEXEC).map_err(io)?;
        let null = std::fs::File::open("/dev/null").map_err(|e| self.failed(id, "opening /dev/null", &e))?;
        let stdio = Stdio { stdin: null.as_fd(), stdout: out_end.as_fd(), stderr: err_end.as_fd() };
        let running = sandbox::spawn(spec, stdio).map_err(|e| self.spawn_error(id, op, &e))?;
        drop((out_end, err_end));
        let cancelled = self.watch(id, &running, [out, err], doing);
        let exit = running.wait().map_err(|e| self.failed(id, "waiting for the command", &e))?;
        if cancelled? { Err(BuildError::Cancelled) } else { Ok(exit) }
    }

    /// Passes output on until the command has ended; returns whether the build was cancelled meanwhile.
    ///
    /// The end is the process's, not its pipes': somebody who left the sandbox's process may hold these for long.
    fn watch(&self, id: NodeId, running: &Running, pipes: [OwnedFd; 2], doing: Doing) -> Result<bool, BuildError> {
        let failed = |e: rustix::io::Errno| self.failed(id, "reading the output", &e);
        let mut open = [true; 2];
        let mut cancelled = false;
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(running.pidfd(), PollFlags::IN)];
            let watched: Vec<usize> = (0..2).filter(|i| open[*i]).collect();
            fds.extend(watched.iter().map(|i| PollFd::new(&pipes[*i], PollFlags::IN)));
            match poll(&mut fds, Some(&CANCEL_POLL)) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(failed)?,
            };
            let ready: Vec<usize> = watched.iter().zip(&fds[1..]).filter(|(_, f)| !f.revents().is_empty()).map(|(i, _)| *i).collect();
            let ended = !fds[0].revents().is_empty();
            if !cancelled && self.engine.cancel.is_cancelled() {
                cancelled = true;
                running.kill();
            }
            for i in &ready {
                open[*i] = self.pass_on(id, *i, &pipes[*i], doing).map_err(failed)?;
            }
            if ended && ready.is_empty() {
                return Ok(cancelled);
            }
        }
    }

    /// Passes one read's worth of output on; returns whether there may be more.
    fn pass_on(&self, id: NodeId, which: usize, pipe: &OwnedFd, doing: Doing) -> Result<bool, rustix::io::Errno> {
        let mut buffer = vec![0; 32 * 1024];
        let n = match rustix::io::read(pipe, &mut buffer) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(true),
            other => other?,
        };
        buffer.truncate(n);
        if n == 0 {
            return Ok(false);
        }
        let stream = if which == 0 { Stream::Stdout } else { Stream::Stderr };
        if doing == Doing::Build {
            self.tell(Event::Log(self.steps[id.0].expect("RUN is a step"), stream, buffer));
        }
        Ok(true)
    }

    fn spawn_error(&self, id: NodeId, op: &RunOp, error: &SandboxError) -> BuildError {
        let platform = &self.graph.nodes[id.0].platform;
        if let Some((what, hint)) = foreign_program(platform, error) {
            return self.at(id, format!("process \"{}\" did not start: {what}", op.argv.join(" "))).hint(hint);
        }
        let failed = self.failed(id, &format!("process \"{}\" did not start", op.argv.join(" ")), error);
        match error {
            SandboxError::NotFound { command, .. } if op.shell.first() == Some(command) => {
                failed.hint(format!("this image has no shell `{command}`: use the exec form, RUN [\"program\", \"argument\"]"))
            }
            _ => failed,
        }
    }

    fn judge(&self, id: NodeId, op: &RunOp, exit: Exit) -> Result<(), BuildError> {
        let process = format!("process \"{}\"", op.argv.join(" "));
        match exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(code) => Err(self.at(id, format!("{process} did not complete successfully: exit code: {code}"))),
            Exit::Signal(n) => {
                let error = self.at(id, format!("{process} did not complete successfully: exit code: {} (killed by signal {n})", 128 + n));
                Err(if n == 9 { error.hint("signal 9 often means that memory ran out") } else { error })
            }
        }
    }

    /// Reads the host's resolver configuration, for the sandbox.
    pub fn resolv_conf(&self, id: NodeId) -> Result<Vec<u8>, BuildError> {
        let mut text = Vec::new();
        match std::fs::File::open("/etc/resolv.conf") {
            Ok(file) => {
                file.take(1 << 20).read_to_end(&mut text).map(|_| text).map_err(|e| self.failed(id, "reading /etc/resolv.conf", &e))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(text),
            Err(e) => Err(self.failed(id, "reading /etc/resolv.conf", &e)),
        }
    }

    /// Returns the two files of names that every sandbox gets, read-only.
    pub fn name_files(&self, id: NodeId, op: &RunOp) -> Result<Vec<MountSpec>, BuildError> {
        let mut hosts = format!("127.0.0.1\tlocalhost {0}\n::1\tlocalhost ip6-localhost ip6-loopback\n", op.hostname);
        for (name, address) in &self.request.add_hosts {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        let resolv = if op.network == NetworkMode::None { Vec::new() } else { self.resolv_conf(id)? };
        let file = |content| MountSource::File { content, mode: 0o644, uid: 0, gid: 0 };
        let mount = |target: &str, content| MountSpec::new(target, file(content)).readonly().plain_files();
        Ok(vec![mount("/etc/resolv.conf", resolv), mount("/etc/hosts", hosts.into_bytes())])
    }
}

/// Says why a program for another machine did not start, and what to do; none: that is not the reason.
///
/// Asked only after the kernel has refused: what an image says that it is for is no proof of what its programs are, and
/// those of this machine run whatever it says (BuildKit's behaviour).
fn foreign_program(platform: &Platform, error: &SandboxError) -> Option<(String, String)> {
    let host = Platform::host();
    if platform.architecture == host.architecture {
        return None;
    }
    let refused = matches!(error, SandboxError::NotExecutable { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()));
    let absent = matches!(error, SandboxError::NotFound { .. });
    let is_for = format!("its program is for {platform}, this host is {host}");
    match Emulator::look(&platform.architecture) {
        Emulator::Missing if refused => {
            let hint = format!("install qemu-user-static, or register another emulator for {} with binfmt_misc", platform.architecture);
            Some((format!("{is_for} and has no emulator for it"), hint))
        }
        Emulator::Disabled(name) if refused => {
            let hint = format!("`echo 1 > /proc/sys/fs/binfmt_misc/{name}` switches it on");
            Some((format!("{is_for} and its emulator is switched off"), hint))
        }
        Emulator::InsideOnly(interpreter) if absent => {
            let hint = "register it with the flag F, as qemu-user-static does, or copy it into the image";
            Some((format!("{is_for} and the emulator `{interpreter}` is not in the image"), hint.into()))
        }
        _ => None,
    }
}
