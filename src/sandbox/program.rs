//! The operations that set a sandbox up, in order, as data.
//!
//! A program is complete before the child exists: all strings are C strings, all buffers are filled, since the
//! child may not allocate. Its text (`Display`) is what the golden tests hold, and what an error quotes.

use std::ffi::{CStr, CString};
use std::fmt;

use crate::sys::mount::{Depth, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use crate::sys::process::Limit;

/// The ordered operations of one sandbox, and the namespaces that they run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// `CLONE_NEW*` of the child.
    pub namespaces: u64,
    /// What the child does, ending in [`Op::Execute`].
    pub operations: Vec<Op>,
}

/// A name to be made in a directory of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Place {
    pub directory: CString,
    pub name: CString,
}

/// A descriptor that the parent prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The root's mount.
    Root,
    /// The file system in memory that holds the contents of file mounts.
    Staging,
    /// The descriptor of `mounts[n]`.
    Mount(usize),
    /// The process's side of the terminal.
    Terminal,
    /// The terminal's devpts.
    TerminalFs,
}

/// Whether a failure ends the set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It does.
    Required,
    /// The kernel may lack it or refuse it; the sandbox is sound without.
    Optional,
}

/// One operation. Paths are inside the new root, resolved there, except `BindHost`'s source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    CloseOnExec,
    DefaultSignals,
    Stdio,
    NewSession,
    TakeTerminal,
    NewKeyring,
    Umask(u32),
    PrivateMounts,
    /// Attaches a mount of the parent over the old root, where it vanishes with it.
    AttachOverOldRoot(Slot),
    /// A new file system.
    Mount {
        kind: CString,
        /// A key without value is a flag.
        options: Vec<(CString, Option<CString>)>,
        attributes: u64,
        target: CString,
        need: Need,
    },
    /// Attaches the detached mount in `slot`.
    Attach {
        slot: Slot,
        depth: Depth,
        attributes: u64,
        target: CString,
    },
    /// Binds a file of the staging file system, which must be attached.
    BindStaged {
        name: CString,
        attributes: u64,
        target: CString,
    },
    BindHost {
        source: CString,
        depth: Depth,
        attributes: u64,
        target: CString,
    },
    /// Binds one path of the new root on another.
    BindInside {
        source: CString,
        target: CString,
    },
    MakeDirectories(Vec<Place>),
    MakeFile(Place),
    MakeDevice {
        place: Place,
        major: u32,
        minor: u32,
    },
    MakeLink {
        place: Place,
        to: CString,
    },
    /// Adds attributes to the mount whose root `path` is; those on top of it keep theirs.
    Restrict {
        path: CString,
        attributes: u64,
    },
    /// Fails unless `path` lies on a file system with this magic number.
    CheckFileSystem {
        path: CString,
        magic: u64,
    },
    Mask(CString),
    Protect(CString),
    RootReadOnly,
    /// Afterwards nothing lies on the new root, whatever was attached over the old one.
    Pivot,
    RaiseLoopback,
    Hostname(CString),
    Limit {
        resource: u32,
        limit: Limit,
    },
    WorkingDirectory(CString),
    BoundCapabilities(u64),
    NoNewPrivs,
    /// Abstract sockets and processes outside the sandbox can no longer be reached; Linux 6.12, nothing before.
    Scope,
    /// Loads the filter that keeps the host's network from being listened to.
    NetworkFilter,
    /// Loads the system call filter; with the rules of `fake_ownership` or not.
    Filter {
        fake_ownership: bool,
    },
    Groups(Vec<u32>),
    Group(u32),
    OwnStdio {
        uid: u32,
        gid: u32,
    },
    User(u32),
    Capabilities(u64),
    DieWithParent,
    UnblockSignals,
    /// Tries each path in turn.
    Execute {
        candidates: Vec<CString>,
        arguments: Vec<CString>,
        environment: Vec<CString>,
    },
}

fn text(c: &CStr) -> std::borrow::Cow<'_, str> {
    c.to_string_lossy()
}

struct Attributes(u64);

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, name) in [(READ_ONLY, "ro"), (NO_SUID, "nosuid"), (NO_DEV, "nodev"), (NO_EXEC, "noexec")] {
            if self.0 & bit != 0 {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", text(&self.directory).trim_end_matches('/'), text(&self.name))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Staging => f.write_str("staging"),
            Self::Mount(number) => write!(f, "mounts[{number}]"),
            Self::Terminal => f.write_str("terminal"),
            Self::TerminalFs => f.write_str("terminal's devpts"),
        }
    }
}

fn depth_text(depth: Depth) -> &'static str {
    if depth == Depth::Recursive { " recursively" } else { "" }
}

impl Op {
    fn write_mount(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AttachOverOldRoot(slot) => write!(f, "attach {slot} over the old root"),
            Self::Mount { kind, options, attributes, target, need } => {
                write!(f, "mount {} on {}{}", text(kind), text(target), Attributes(*attributes))?;
                for (key, value) in options {
                    write!(f, " {}", text(key))?;
                    if let Some(value) = value {
                        write!(f, "={}", text(value))?;
                    }
                }
                if *need == Need::Optional { f.write_str(" (where possible)") } else { Ok(()) }
            }
            Self::Attach { slot, depth, attributes, target } => {
                write!(f, "attach {slot}{} on {}{}", depth_text(*depth), text(target), Attributes(*attributes))
            }
            Self::BindStaged { name, attributes, target } => {
                write!(f, "bind staging/{} on {}{}", text(name), text(target), Attributes(*attributes))
            }
            Self::BindHost { source, depth, attributes, target } => {
                write!(f, "bind the host's {}{} on {}{}", text(source), depth_text(*depth), text(target), Attributes(*attributes))
            }
            Self::BindInside { source, target } => write!(f, "bind {} on {}", text(source), text(target)),
            Self::Mask(path) => write!(f, "mask {}", text(path)),
            Self::Protect(path) => write!(f, "make {} read-only", text(path)),
            _ => Ok(()),
        }
    }

    fn write_identity(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BoundCapabilities(set) => write!(f, "bound capabilities to {set:016x}"),
            Self::NetworkFilter => f.write_str("load the filter for the host's network"),
            Self::Filter { fake_ownership: false } => f.write_str("load the system call filter"),
            Self::Filter { fake_ownership: true } => f.write_str("load the system call filter that fakes ownership"),
            Self::Groups(groups) => write!(f, "set groups {groups:?}"),
            Self::Group(gid) => write!(f, "set group {gid}"),
            Self::OwnStdio { uid, gid } => write!(f, "give piped standard streams to {uid}:{gid}"),
            Self::User(uid) => write!(f, "set user {uid}"),
            Self::Capabilities(set) => write!(f, "set capabilities to {set:016x}"),
            _ => Ok(()),
        }
    }
}

/// One line, as errors quote it: `mount proc on /proc nosuid nodev noexec`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CloseOnExec => f.write_str("close descriptors from 3 on at exec"),
            Self::DefaultSignals => f.write_str("reset signal actions"),
            Self::Stdio => f.write_str("place the standard streams"),
            Self::NewSession => f.write_str("start a session"),
            Self::TakeTerminal => f.write_str("take the controlling terminal"),
            Self::NewKeyring => f.write_str("join a new session keyring (where possible)"),
            Self::Umask(mask) => write!(f, "set umask {mask:04o}"),
            Self::PrivateMounts => f.write_str("make all mounts private"),
            Self::MakeDirectories(places) => match places.last() {
                Some(place) => write!(f, "make directories up to {place}"),
                None => f.write_str("make no directories"),
            },
            Self::MakeFile(place) => write!(f, "make file {place}"),
            Self::MakeDevice { place, major, minor } => write!(f, "make device {place} {major}:{minor}"),
            Self::MakeLink { place, to } => write!(f, "make link {place} -> {}", text(to)),
            Self::Restrict { path, attributes } => write!(f, "restrict {}{}", text(path), Attributes(*attributes)),
            Self::CheckFileSystem { path, magic } => write!(f, "check that {} has file system {magic:#x}", text(path)),
            Self::RootReadOnly => f.write_str("make the root read-only"),
            Self::Pivot => f.write_str("pivot to the new root and detach all that lies on it"),
            Self::RaiseLoopback => f.write_str("set the loopback interface up"),
            Self::Hostname(name) => write!(f, "set host name {}", text(name)),
            Self::Limit { resource, limit } => write!(f, "set limit {resource} to {}:{}", limit.soft, limit.hard),
            Self::WorkingDirectory(path) => write!(f, "enter {}", text(path)),
            Self::Scope => f.write_str("keep abstract sockets and signals inside (where possible)"),
            Self::NoNewPrivs => f.write_str("set no_new_privs"),
            Self::DieWithParent => f.write_str("die with the parent"),
            Self::UnblockSignals => f.write_str("unblock all signals"),
            Self::Execute { candidates, .. } => {
                f.write_str("execute")?;
                candidates.iter().try_for_each(|path| write!(f, " {}", text(path)))
            }
            Self::AttachOverOldRoot(_)
            | Self::Mount { .. }
            | Self::Attach { .. }
            | Self::BindStaged { .. }
            | Self::BindHost { .. }
            | Self::BindInside { .. }
            | Self::Mask(_)
            | Self::Protect(_) => self.write_mount(f),
            Self::BoundCapabilities(_)
            | Self::Filter { .. }
            | Self::Groups(_)
            | Self::Group(_)
            | Self::OwnStdio { .. }
            | Self::User(_)
            | Self::Capabilities(_)
            | Self::NetworkFilter => self.write_identity(f),
        }
    }
}

/// The whole program, an operation a line, arguments and environment last.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (libc::CLONE_NEWNS, "mount"),
            (libc::CLONE_NEWPID, "pid"),
            (libc::CLONE_NEWIPC, "ipc"),
            (libc::CLONE_NEWUTS, "uts"),
            (libc::CLONE_NEWCGROUP, "cgroup"),
            (libc::CLONE_NEWNET, "net"),
        ];
        f.write_str("clone into new namespaces:")?;
        for (bit, name) in names {
            if self.namespaces & u64::from(bit.cast_unsigned()) != 0 {
                write!(f, " {name}")?;
            }
        }
        writeln!(f)?;
        for op in &self.operations {
            writeln!(f, "{op}")?;
            if let Op::Execute { arguments, environment, .. } = op {
                arguments.iter().try_for_each(|argument| writeln!(f, "  argument {}", text(argument)))?;
                environment.iter().try_for_each(|variable| writeln!(f, "  variable {}", text(variable)))?;
            }
        }
        Ok(())
    }
}
