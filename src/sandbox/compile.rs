//! From a [`SandboxSpec`] to the [`Program`] that sets it up. Pure: no file, clock, environment or process.
//!
//! The order is the security of it; where one operation must come before another, the line says why. A newcomer
//! would put the identity before the mounts, or the filter last; see [`identity`].

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use crate::sys::mount::{Depth, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use crate::sys::process::Limit;

use super::defaults;
use super::facts::{DeviceSource, IdRange, ProcSource};
use super::program::{Need, Op, Place, Program, Slot};
use super::spec::{MountSource, MountSpec, Network, SandboxSpec, Shape, is_within};

/// A specification that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SpecError {
    #[error("the command is empty")]
    NoCommand,
    #[error("`{0}` holds a NUL byte")]
    Nul(String),
    #[error("environment variable name `{0}` is empty or holds `=`")]
    VariableName(String),
    #[error("path `{0}` is not absolute and clean")]
    Path(String),
    #[error("mounting on `{0}` is not allowed: it would hide or replace kernel state")]
    Target(String),
}

type Result<T> = std::result::Result<T, SpecError>;

/// Compiles a specification. `shapes` are those of `spec.mounts`, in order ([`MountSpec::shape`]).
pub fn compile(spec: &SandboxSpec, shapes: &[Shape]) -> Result<Program> {
    let mut ops = vec![
        // First of all: whatever else fails, no descriptor of ours reaches the command.
        Op::CloseOnExec,
        Op::DefaultSignals,
        Op::Stdio,
        Op::NewSession,
    ];
    if spec.terminal.is_some() {
        ops.push(Op::TakeTerminal);
    }
    // Modes of what is made below are meant as written.
    ops.extend([Op::NewKeyring, Op::Umask(0), Op::PrivateMounts]);
    if spec.mounts.iter().any(|mount| matches!(mount.source, MountSource::File { .. })) {
        ops.push(Op::AttachOverOldRoot(Slot::Staging));
    }
    ops.push(Op::AttachOverOldRoot(Slot::Root));
    proc_and_sys(spec, &mut ops)?;
    devices(spec, &mut ops)?;
    mounts(spec, shapes, &mut ops)?;
    if !is_clean(&spec.cwd) {
        return Err(SpecError::Path(spec.cwd.clone()));
    }
    if spec.cwd != "/" {
        ops.push(Op::MakeDirectories(chain(&spec.cwd)?));
    }
    if spec.readonly_root {
        ops.push(Op::RootReadOnly);
    }
    ops.push(Op::Pivot);
    if spec.network == Network::None {
        ops.push(Op::RaiseLoopback);
    }
    ops.push(Op::Hostname(c(&spec.hostname)?));
    for limit in &spec.rlimits {
        ops.push(Op::Limit { resource: limit.resource, limit: Limit { soft: limit.soft, hard: limit.hard } });
    }
    // As the namespace's root, so that a directory of another user can be entered, as runc does.
    ops.extend([Op::WorkingDirectory(c(&spec.cwd)?), Op::Umask(0o022)]);
    identity(spec, &mut ops);
    ops.push(execute(spec)?);
    Ok(Program { namespaces: namespaces(spec), operations: ops })
}

fn namespaces(spec: &SandboxSpec) -> u64 {
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    if spec.host.proc == ProcSource::New {
        flags |= libc::CLONE_NEWPID;
    }
    if spec.network == Network::None {
        flags |= libc::CLONE_NEWNET;
    }
    u64::from(flags.cast_unsigned())
}

const PROC_MAGIC: u64 = 0x9fa0;
const KERNEL_FS: u64 = NO_SUID | NO_DEV | NO_EXEC;

fn proc_and_sys(spec: &SandboxSpec, ops: &mut Vec<Op>) -> Result<()> {
    match spec.host.proc {
        ProcSource::New => ops.push(new_mount("proc", &[], KERNEL_FS, "/proc", Need::Required)?),
        ProcSource::Host => {
            ops.push(Op::BindHost { source: c("/proc")?, depth: Depth::Recursive, attributes: KERNEL_FS, target: c("/proc")? })
        }
    }
    // The masks below are worth nothing on something that only looks like procfs.
    ops.push(Op::CheckFileSystem { path: c("/proc")?, magic: PROC_MAGIC });
    let writable = if spec.insecure { 0 } else { READ_ONLY };
    // sysfs shows a network namespace, and only its owner may mount it.
    if spec.host.in_user_namespace && spec.network == Network::Host {
        let (source, target) = (c("/sys")?, c("/sys")?);
        ops.push(Op::BindHost { source, depth: Depth::Recursive, attributes: KERNEL_FS | writable, target });
    } else {
        ops.push(new_mount("sysfs", &[], KERNEL_FS | writable, "/sys", Need::Required)?);
    }
    let cgroup = if spec.host.unified_cgroups { "cgroup2" } else { "tmpfs" };
    ops.push(new_mount(cgroup, &[], KERNEL_FS | writable, "/sys/fs/cgroup", Need::Optional)?);
    Ok(())
}

fn devices(spec: &SandboxSpec, ops: &mut Vec<Op>) -> Result<()> {
    ops.push(new_mount("tmpfs", &[("mode", "0755"), ("size", "65536k")], NO_SUID, "/dev", Need::Required)?);
    for (name, major, minor) in defaults::DEVICES {
        let place = place("/dev", name)?;
        match spec.host.devices {
            DeviceSource::Make => {
                let path = c(&format!("/dev/{name}"))?;
                ops.push(Op::MakeDevice { place, major, minor });
                // A mount of its own, that outlives what is taken from /dev below.
                ops.push(Op::BindInside { source: path.clone(), target: path });
            }
            DeviceSource::Bind => {
                let path = c(&format!("/dev/{name}"))?;
                ops.push(Op::MakeFile(place));
                ops.push(Op::BindHost { source: path.clone(), depth: Depth::Single, attributes: 0, target: path });
            }
        }
    }
    if !spec.insecure {
        // CAP_MKNOD is among Docker's capabilities; its devices cgroup refuses to open what a step made, which not every host
        // lets us have. Without this, root's steps could make the host's disks in /dev, and open them.
        ops.push(Op::Restrict { path: c("/dev")?, attributes: NO_DEV });
    }
    for (name, target) in defaults::DEVICE_LINKS {
        ops.push(Op::MakeLink { place: place("/dev", name)?, to: c(target)? });
    }
    ops.push(Op::MakeDirectories(["pts", "shm", "mqueue"].iter().map(|name| place("/dev", name)).collect::<Result<_>>()?));
    if let Some(terminal) = &spec.terminal {
        ops.push(Op::Attach { slot: Slot::TerminalFs, depth: Depth::Single, attributes: 0, target: c("/dev/pts")? });
        ops.push(Op::MakeFile(place("/dev", "console")?));
        ops.push(Op::BindInside { source: c(&format!("/dev/pts/{}", terminal.number))?, target: c("/dev/console")? });
    } else {
        ops.push(new_mount("devpts", &pts_options(spec.host.ids), NO_SUID | NO_EXEC, "/dev/pts", Need::Required)?);
    }
    let size = spec.shm_size_bytes.to_string();
    ops.push(new_mount("tmpfs", &[("mode", "1777"), ("size", &size)], KERNEL_FS, "/dev/shm", Need::Required)?);
    ops.push(new_mount("mqueue", &[], KERNEL_FS, "/dev/mqueue", Need::Optional)?);
    if !spec.insecure {
        let masked = defaults::MASKED_PATHS.into_iter().chain(spec.host.machine_masked_paths.iter().map(String::as_str));
        // After /dev, since a masked file becomes our own null device.
        for path in masked {
            ops.push(Op::Mask(c(path)?));
        }
        for path in defaults::READ_ONLY_PATHS {
            ops.push(Op::Protect(c(path)?));
        }
    }
    Ok(())
}

/// Options of a devpts; the group exists only where it is mapped.
pub(super) fn pts_options(ids: IdRange) -> Vec<(&'static str, &'static str)> {
    let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    if matches!(ids, IdRange::Many(count) if count > defaults::TTY_GROUP) {
        options.push(("gid", "5"));
    }
    options
}

fn mounts(spec: &SandboxSpec, shapes: &[Shape], ops: &mut Vec<Op>) -> Result<()> {
    for (number, (mount, shape)) in spec.mounts.iter().zip(shapes).enumerate() {
        check_target(&mount.target)?;
        let earlier = spec.mounts[..number].iter().map(|mount| mount.target.as_str());
        // What lies below an earlier mount has no stub in the root.
        if earlier.chain(["/dev"]).any(|target| is_within(&mount.target, target)) {
            make_target(&mount.target, *shape, ops)?;
        }
        let attributes = attributes(mount);
        let target = c(&mount.target)?;
        ops.push(match &mount.source {
            MountSource::Bind { recursive, .. } => {
                let depth = if *recursive { Depth::Recursive } else { Depth::Single };
                Op::Attach { slot: Slot::Mount(number), depth, attributes, target }
            }
            MountSource::Detached(_) => Op::Attach { slot: Slot::Mount(number), depth: Depth::Single, attributes, target },
            MountSource::Tmpfs { size_bytes, mode } => {
                let (mode, size) = (format!("{mode:04o}"), size_bytes.map(|bytes| bytes.to_string()));
                let mut options = vec![("mode", mode.as_str())];
                options.extend(size.as_deref().map(|size| ("size", size)));
                new_mount("tmpfs", &options, attributes, &mount.target, Need::Required)?
            }
            MountSource::File { .. } => Op::BindStaged { name: c(&number.to_string())?, attributes, target },
        });
    }
    Ok(())
}

fn attributes(mount: &MountSpec) -> u64 {
    [(mount.readonly, READ_ONLY), (mount.nosuid, NO_SUID), (mount.nodev, NO_DEV), (mount.noexec, NO_EXEC)]
        .into_iter()
        .filter_map(|(wanted, bit)| wanted.then_some(bit))
        .sum()
}

/// Refuses what would hide kernel state that the masks protect (CVE-2019-16884). A link that leads into `/proc`
/// is caught by the child, which looks at the file system of what it opened.
fn check_target(target: &str) -> Result<()> {
    if !is_clean(target) {
        return Err(SpecError::Path(target.into()));
    }
    if target == "/" || is_within(target, "/proc") {
        return Err(SpecError::Target(target.into()));
    }
    Ok(())
}

fn make_target(target: &str, shape: Shape, ops: &mut Vec<Op>) -> Result<()> {
    let mut places = chain(target)?;
    if shape == Shape::File {
        let Some(file) = places.pop() else { return Ok(()) };
        if !places.is_empty() {
            ops.push(Op::MakeDirectories(places));
        }
        ops.push(Op::MakeFile(file));
    } else {
        ops.push(Op::MakeDirectories(places));
    }
    Ok(())
}

/// Who the process is. Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before that is given up; the
/// filter allows the calls that follow. The parent-death signal is cleared by a change of credentials, prctl(2).
fn identity(spec: &SandboxSpec, ops: &mut Vec<Op>) {
    let capabilities = if spec.insecure { defaults::ALL_CAPABILITIES } else { defaults::CAPABILITIES };
    if spec.no_new_privs {
        ops.push(Op::NoNewPrivs);
    }
    if !spec.insecure {
        // Needs CAP_SYS_ADMIN as the filter does. The host's network has the host's abstract sockets in it
        // (CVE-2020-15257: a daemon that trusts whoever reaches one).
        if spec.network == Network::Host || spec.host.proc == ProcSource::Host {
            ops.push(Op::Scope);
        }
        ops.push(Op::BoundCapabilities(capabilities));
        if spec.network == Network::Host && !spec.host.in_user_namespace {
            ops.push(Op::NetworkFilter);
        }
        ops.push(Op::Filter { fake_ownership: spec.fake_ownership });
    }
    // With faked ownership every identity is the one that exists.
    if !spec.fake_ownership {
        // A single-id namespace denies setgroups for good, user_namespaces(7).
        if spec.host.ids != IdRange::Single {
            ops.push(Op::Groups(spec.user.groups.clone()));
        }
        ops.push(Op::Group(spec.user.gid));
        if spec.user.uid != 0 {
            // As runc: /dev/stdout can be opened again by a user who isn't root.
            ops.push(Op::OwnStdio { uid: spec.user.uid, gid: spec.user.gid });
        }
        ops.push(Op::User(spec.user.uid));
    }
    // Another user lost everything with its uid, and exec would take it from it anyhow.
    if (spec.user.uid == 0 || spec.fake_ownership) && !spec.insecure {
        ops.push(Op::Capabilities(capabilities));
    }
    ops.extend([Op::DieWithParent, Op::UnblockSignals]);
}

fn execute(spec: &SandboxSpec) -> Result<Op> {
    let arguments = spec.argv.iter().map(|argument| c_os(argument)).collect::<Result<Vec<_>>>()?;
    let command = spec.argv.first().filter(|command| !command.is_empty()).ok_or(SpecError::NoCommand)?;
    let candidates = if command.as_bytes().contains(&b'/') {
        vec![c_os(command)?]
    } else {
        // The last value counts, as in an environment with doubles.
        let path = spec.env.iter().rev().find(|(name, _)| name == "PATH").map_or(defaults::PATH, |(_, value)| value);
        path.split(':')
            .map(|directory| {
                let mut candidate = std::path::PathBuf::from(if directory.is_empty() { "." } else { directory });
                candidate.push(command);
                c_os(candidate.as_os_str())
            })
            .collect::<Result<_>>()?
    };
    let environment = spec.env.iter().map(|(name, value)| variable(name, value)).collect::<Result<_>>()?;
    Ok(Op::Execute { candidates, arguments, environment })
}

fn variable(name: &str, value: &str) -> Result<CString> {
    if name.is_empty() || name.contains('=') {
        return Err(SpecError::VariableName(name.into()));
    }
    c(&format!("{name}={value}"))
}

fn new_mount(kind: &str, options: &[(&str, &str)], attributes: u64, target: &str, need: Need) -> Result<Op> {
    let options =
        options.iter().map(|(key, value)| Ok((c(key)?, if value.is_empty() { None } else { Some(c(value)?) }))).collect::<Result<_>>()?;
    Ok(Op::Mount { kind: c(kind)?, options, attributes, target: c(target)?, need })
}

fn place(directory: &str, name: &str) -> Result<Place> {
    Ok(Place { directory: c(directory)?, name: c(name)? })
}

/// Returns `/a/b/c` as the places `/a`, `/a/b`, `/a/b/c`.
fn chain(path: &str) -> Result<Vec<Place>> {
    let cuts = path.match_indices('/').map(|(at, _)| at);
    let ends = path.match_indices('/').skip(1).map(|(at, _)| at).chain([path.len()]);
    cuts.zip(ends).map(|(at, end)| place(if at == 0 { "/" } else { &path[..at] }, &path[at + 1..end])).collect()
}

/// Whether a path is absolute, without empty, `.` or `..` components.
pub(super) fn is_clean(path: &str) -> bool {
    path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

fn c(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| SpecError::Nul(text.into()))
}

fn c_os(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| SpecError::Nul(text.to_string_lossy().into_owned()))
}
