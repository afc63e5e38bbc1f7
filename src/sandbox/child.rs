//! The sandbox's child: carries a [`Program`] out, one system call after the other, and becomes the command.
//!
//! This code runs in the copy of a process whose other threads are gone, perhaps in the middle of an allocation:
//! it must not allocate, lock, or panic. So: no `format!`, no `Vec` growth, no slicing that could be out of
//! bounds, only [`crate::sys`] calls on what was laid out before. Descriptors it opens are close-on-exec and left
//! to exec where closing them early gains nothing.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use crate::sys::file::{self, CWD, Links};
use crate::sys::mount::{self, Depth, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use crate::sys::process::{self, Cloned, PointerList};
use crate::sys::{Errno, Fd, Result};

use super::facts::Filters;
use super::program::{Need, Op, Place, Program, Slot};

/// All that the child needs, laid out by the parent.
pub(super) struct Setup<'a> {
    pub program: &'a Program,
    pub filters: &'a Filters,
    pub arguments: &'a PointerList,
    pub environment: &'a PointerList,
    /// The command's standard streams; none of them is 0, 1 or 2.
    pub stdio: [Fd; 3],
    /// Which of them are pipes.
    pub pipes: [bool; 3],
    pub root: Fd,
    pub staging: Fd,
    pub mounts: &'a [Fd],
    pub terminal: Fd,
    pub terminal_fs: Fd,
    /// The pipe that a failure is reported through, and the parent's side of it.
    pub report: Fd,
    pub report_reader: Fd,
}

/// Length of a report: operation number and error number, 4 bytes each.
pub(super) const REPORT_BYTES: usize = 8;

/// Clones the child, which carries the program out. Returns its number and pidfd.
///
/// All signals are blocked meanwhile: a handler of ours must not run in it before its actions are reset.
pub(super) fn clone(namespaces: u64, setup: &Setup<'_>) -> io::Result<(i32, OwnedFd)> {
    let before = process::set_blocked_signals(u64::MAX)?;
    // SAFETY: the child calls `run`, which neither allocates nor locks, and never returns.
    let cloned = unsafe { process::clone3(namespaces) };
    if let Ok(Cloned::Child) = cloned {
        run(setup);
    }
    process::set_blocked_signals(before)?;
    parent(cloned)
}

/// Clones a child that ends with 0 if a procfs of its own pid namespace can be mounted, with 1 else.
pub(super) fn clone_proc_probe() -> io::Result<(i32, OwnedFd)> {
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    // SAFETY: the child calls `probe_proc`, which neither allocates nor locks, and never returns.
    let cloned = unsafe { process::clone3(u64::from(namespaces.cast_unsigned())) };
    if let Ok(Cloned::Child) = cloned {
        probe_proc();
    }
    parent(cloned)
}

fn parent(cloned: Result<Cloned>) -> io::Result<(i32, OwnedFd)> {
    match cloned? {
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => Err(io::Error::other("the child never comes here")),
    }
}

/// Carries the program out. Never returns: it ends in exec, or reports and ends the process.
fn run(setup: &Setup<'_>) -> ! {
    // Else we would keep the pipe readable ourselves when the parent is gone.
    file::close(setup.report_reader);
    let mut child = Child { setup, empty_directory: None };
    for (number, op) in setup.program.operations.iter().enumerate() {
        if let Err(Errno(errno)) = child.perform(op) {
            let mut report = [0; REPORT_BYTES];
            let (first, second) = report.split_at_mut(4);
            first.copy_from_slice(&(number as u32).to_ne_bytes());
            second.copy_from_slice(&errno.to_ne_bytes());
            let _ = file::write(setup.report, &report);
            break;
        }
    }
    process::exit(125)
}

fn probe_proc() -> ! {
    let made = mount::open_file_system(c"proc").and_then(|context| mount::create_mount(context, NO_SUID | NO_DEV | NO_EXEC));
    process::exit(i32::from(made.is_err()))
}

struct Child<'a> {
    setup: &'a Setup<'a>,
    /// A mounted, empty, read-only directory: what masked directories show.
    empty_directory: Option<Fd>,
}

impl Child<'_> {
    fn perform(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::CloseOnExec => file::close_on_exec_from(3),
            Op::DefaultSignals => {
                process::reset_signals();
                Ok(())
            }
            Op::Stdio => self.place_stdio(),
            Op::NewSession => process::new_session(),
            Op::TakeTerminal => process::take_terminal(self.setup.terminal),
            Op::NewKeyring => {
                // Refused where an outer filter says so, or where the user's key quota is full: no harm.
                let _ = process::new_session_keyring();
                Ok(())
            }
            Op::Umask(mask) => {
                process::set_umask(*mask);
                Ok(())
            }
            Op::RaiseLoopback => process::raise_loopback(),
            Op::Hostname(name) => process::set_hostname(name.to_bytes()),
            Op::Limit { resource, limit } => set_limit(*resource, *limit),
            Op::WorkingDirectory(path) => self.enter(path),
            Op::BoundCapabilities(set) => process::bound_capabilities(*set),
            Op::Scope => {
                // Kernels without it, or an outer filter: the host's daemons must mind themselves then.
                let _ = process::scope_sockets_and_signals();
                Ok(())
            }
            Op::NoNewPrivs => process::no_new_privs(),
            Op::NetworkFilter => process::load_filter(&self.setup.filters.host_network),
            Op::Filter { fake_ownership: true } => process::load_filter(&self.setup.filters.fake_ownership),
            Op::Filter { fake_ownership: false } => process::load_filter(&self.setup.filters.default),
            Op::Groups(groups) => process::set_groups(groups),
            Op::Group(gid) => process::set_group(*gid),
            Op::OwnStdio { uid, gid } => {
                self.own_stdio(*uid, *gid);
                Ok(())
            }
            Op::User(uid) => process::set_user(*uid),
            Op::Capabilities(set) => set_capabilities(*set),
            Op::DieWithParent => self.die_with_parent(),
            Op::UnblockSignals => process::set_blocked_signals(0).map(drop),
            Op::Execute { candidates, .. } => Err(self.execute(candidates)),
            _ => self.perform_mount(op),
        }
    }

    fn perform_mount(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::PrivateMounts => mount::make_all_private(),
            Op::AttachOverOldRoot(slot) => {
                let old_root = file::open_at(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
                mount::attach(self.slot(*slot), old_root)
            }
            Op::Mount { kind, options, attributes, target, need } => {
                let mounted = self.mount_new(kind, options, *attributes, target);
                if *need == Need::Optional { Ok(()) } else { mounted }
            }
            Op::Attach { slot, depth, attributes, target } => self.attach(self.slot(*slot), *depth, *attributes, target),
            Op::BindStaged { name, attributes, target } => {
                let source = file::open_at(self.setup.staging, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
                let bound = mount::clone_tree(source, c"", Depth::Single)?;
                self.attach(bound, Depth::Single, *attributes, target)
            }
            Op::BindHost { source, depth, attributes, target } => {
                let bound = mount::clone_tree(CWD, source, *depth)?;
                self.attach(bound, *depth, *attributes, target)
            }
            Op::BindInside { source, target } => {
                let source = self.open(source, libc::O_PATH)?;
                let bound = mount::clone_tree(source, c"", Depth::Single)?;
                self.attach(bound, Depth::Single, 0, target)
            }
            Op::MakeDirectories(places) => places
                .iter()
                .try_for_each(|place| self.make(place, |directory, name| ignore_existing(file::make_directory(directory, name, 0o755)))),
            Op::MakeFile(place) => self.make(place, |directory, name| {
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
                ignore_existing(file::open_at(directory, name, flags, 0o644).map(file::close))
            }),
            Op::MakeDevice { place, major, minor } => {
                self.make(place, |directory, name| file::make_node(directory, name, libc::S_IFCHR | 0o666, *major, *minor))
            }
            Op::MakeLink { place, to } => self.make(place, |directory, name| file::make_symlink(to, directory, name)),
            Op::Restrict { path, attributes } => {
                let place = self.open(path, libc::O_PATH | libc::O_DIRECTORY)?;
                mount::add_attributes(place, Depth::Single, *attributes)?;
                file::close(place);
                Ok(())
            }
            Op::CheckFileSystem { path, magic } => {
                let found = file::file_system_magic(self.open(path, libc::O_PATH)?)?;
                if found == *magic { Ok(()) } else { Err(Errno(libc::EINVAL)) }
            }
            Op::Mask(path) => ignore_absent(self.mask(path)),
            Op::Protect(path) => ignore_absent(self.protect(path)),
            Op::RootReadOnly => mount::add_attributes(self.setup.root, Depth::Single, READ_ONLY),
            Op::Pivot => self.pivot(),
            // `perform` takes all others.
            _ => Err(Errno(libc::ENOSYS)),
        }
    }

    fn slot(&self, slot: Slot) -> Fd {
        match slot {
            Slot::Root => self.setup.root,
            Slot::Staging => self.setup.staging,
            Slot::Terminal => self.setup.terminal,
            Slot::TerminalFs => self.setup.terminal_fs,
            Slot::Mount(number) => self.setup.mounts.get(number).copied().unwrap_or(-1),
        }
    }

    /// Opens a path of the new root. Links are followed only where the image may have some by right: what we
    /// mount ourselves has none on the way to a target, so one there is an attack (CVE-2025-52565).
    fn open(&self, path: &CStr, flags: i32) -> Result<Fd> {
        let bytes = path.to_bytes();
        let kernels = bytes.starts_with(b"/proc") || bytes.starts_with(b"/sys") || bytes.starts_with(b"/dev");
        file::open_in_root(self.setup.root, path, flags, if kernels { Links::Refuse } else { Links::Follow })
    }

    fn mount_new(
        &self,
        kind: &CStr,
        options: &[(std::ffi::CString, Option<std::ffi::CString>)],
        attributes: u64,
        target: &CStr,
    ) -> Result<()> {
        let context = mount::open_file_system(kind)?;
        for (key, value) in options {
            match value {
                Some(value) => mount::set_option(context, key, value)?,
                None => mount::set_flag(context, key)?,
            }
        }
        let mounted = mount::create_mount(context, attributes)?;
        file::close(context);
        self.attach(mounted, Depth::Single, 0, target)
    }

    fn attach(&self, mounted: Fd, depth: Depth, attributes: u64, target: &CStr) -> Result<()> {
        if attributes != 0 {
            mount::add_attributes(mounted, depth, attributes)?;
        }
        let place = self.open(target, libc::O_PATH)?;
        let kernels = target.to_bytes().starts_with(b"/proc");
        if !kernels && file::file_system_magic(place)? == PROC_MAGIC {
            // A link of the image led here (CVE-2019-16884).
            return Err(Errno(libc::EPERM));
        }
        mount::attach(mounted, place)?;
        file::close(place);
        Ok(())
    }

    fn make(&self, place: &Place, make: impl Fn(Fd, &CStr) -> Result<()>) -> Result<()> {
        let directory = self.open(&place.directory, libc::O_PATH | libc::O_DIRECTORY)?;
        let made = make(directory, &place.name);
        file::close(directory);
        made
    }

    fn mask(&mut self, path: &CStr) -> Result<()> {
        match self.open(path, libc::O_PATH | libc::O_DIRECTORY) {
            Ok(place) => {
                let empty = match self.empty_directory {
                    Some(first) => mount::clone_tree(first, c"", Depth::Single)?,
                    None => {
                        let context = mount::open_file_system(c"tmpfs")?;
                        mount::create_mount(context, READ_ONLY | NO_SUID | NO_DEV | NO_EXEC)?
                    }
                };
                mount::attach(empty, place)?;
                self.empty_directory = Some(empty);
                Ok(())
            }
            Err(Errno(libc::ENOTDIR)) => {
                let place = self.open(path, libc::O_PATH)?;
                let null = self.open(c"/dev/null", libc::O_PATH)?;
                mount::attach(mount::clone_tree(null, c"", Depth::Single)?, place)
            }
            Err(errno) => Err(errno),
        }
    }

    fn protect(&self, path: &CStr) -> Result<()> {
        let place = self.open(path, libc::O_PATH)?;
        // Recursive, since a tree with locked mounts below cannot be copied without them.
        let copy = mount::clone_tree(place, c"", Depth::Recursive)?;
        mount::add_attributes(copy, Depth::Recursive, READ_ONLY | NO_SUID | NO_DEV | NO_EXEC)?;
        mount::attach(copy, place)
    }

    /// Makes the root the root, and takes away all that lies on top of it.
    ///
    /// That is the old root, and what [`Op::AttachOverOldRoot`] put over that: one detaching takes only the uppermost.
    /// A mount left there is out of sight, but `/..` leads to it, and so to the whole host; hence asked, not counted.
    fn pivot(&self) -> Result<()> {
        file::change_directory(self.setup.root)?;
        mount::pivot_here()?;
        let root = mount::mount_id(self.setup.root, c"")?;
        for _ in 0..DETACHED_MAX {
            if mount::mount_id(self.setup.root, c"/..")? == root {
                return Ok(());
            }
            mount::detach_here()?;
        }
        Err(Errno(libc::EXDEV))
    }

    /// The path is resolved without magic links, then reachability is checked: CVE-2024-21626.
    fn enter(&self, path: &CStr) -> Result<()> {
        let directory = file::open_in_root(self.setup.root, path, libc::O_PATH | libc::O_DIRECTORY, Links::Follow)?;
        file::change_directory(directory)?;
        file::check_working_directory()
    }

    fn place_stdio(&self) -> Result<()> {
        for (to, from) in self.setup.stdio.iter().enumerate() {
            file::duplicate_to(*from, to as Fd)?;
        }
        Ok(())
    }

    fn own_stdio(&self, uid: u32, gid: u32) {
        for (fd, is_pipe) in self.setup.pipes.iter().enumerate() {
            if *is_pipe {
                // Only a convenience: the open descriptor works without.
                let _ = file::change_owner(fd as Fd, uid, gid);
            }
        }
    }

    fn die_with_parent(&self) -> Result<()> {
        process::die_with_parent()?;
        // The parent may have died before the request. It alone reads the report, so then the pipe is broken.
        if file::reader_is_gone(self.setup.report) { Err(Errno(libc::EPIPE)) } else { Ok(()) }
    }

    /// Tries each candidate as execvp(3) does, and returns the most telling error.
    fn execute(&self, candidates: &[std::ffi::CString]) -> Errno {
        let mut telling = Errno(libc::ENOENT);
        for path in candidates {
            // SAFETY: the parent made both lists, null-terminated, of strings that live in the program.
            match unsafe { process::execute(path, self.setup.arguments, self.setup.environment) } {
                Errno(libc::ENOENT | libc::ENOTDIR) => {}
                denied @ Errno(libc::EACCES) => telling = denied,
                other => return other,
            }
        }
        telling
    }
}

const PROC_MAGIC: u64 = 0x9fa0;
/// More than is ever attached over the old root, and that itself.
const DETACHED_MAX: usize = 8;

fn ignore_existing(result: Result<()>) -> Result<()> {
    if result == Err(Errno(libc::EEXIST)) { Ok(()) } else { result }
}

fn ignore_absent(result: Result<()>) -> Result<()> {
    if result == Err(Errno(libc::ENOENT)) { Ok(()) } else { result }
}

/// Sets a limit; where raising is not permitted, as far as it goes.
fn set_limit(resource: u32, wanted: process::Limit) -> Result<()> {
    match process::set_limit(resource, wanted) {
        Err(Errno(libc::EPERM)) => {
            let ceiling = process::limit(resource)?.hard;
            let limit = process::Limit { soft: wanted.soft.min(ceiling), hard: wanted.hard.min(ceiling) };
            process::set_limit(resource, limit)
        }
        result => result,
    }
}

/// Gives up all but `set`; what this process doesn't have itself (in a container) it cannot keep.
fn set_capabilities(set: u64) -> Result<()> {
    process::clear_ambient_capabilities()?;
    process::set_capabilities(set & process::effective_capabilities()?)
}
