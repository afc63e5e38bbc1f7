//! Processes: clone3, credentials, limits, signals, exec.
//!
//! The one dangerous call is [`clone3`]; its contract stands there. All others change only the calling process
//! (the calling *thread*, for credentials: which is right in a cloned child, since it has one).

use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd};

use super::{Fd, Result, descriptor, syscall};

/// Which side of [`clone3`] one is on.
#[derive(Debug)]
pub enum Cloned {
    /// In the new process.
    Child,
    /// In the caller.
    Parent {
        /// The new process's number.
        pid: i32,
        /// A descriptor of it, close-on-exec.
        pidfd: OwnedFd,
    },
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// clone3(2): a new process as fork(2) makes it, in the new `namespaces` (`CLONE_NEW*`), signal handlers cleared.
///
/// # Safety
///
/// The child has the memory of a process whose other threads vanished at an arbitrary point: it must call nothing
/// that allocates or takes a lock, and must end in exec or [`exit`], never by returning to the caller's frames.
pub unsafe fn clone3(namespaces: u64) -> Result<Cloned> {
    let mut pidfd: Fd = -1;
    let args = CloneArgs {
        flags: namespaces | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD.unsigned_abs().into(),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child has its own copy of this stack; `args` and `pidfd` outlive the call.
    let pid = unsafe { syscall!(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) }?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Forks, when this process has a single thread: then the child may do whatever its parent could.
///
/// The child runs `work` and ends with its result. Returns the child's number and pidfd.
///
/// # Errors
///
/// `EBUSY` when there are other threads.
pub fn fork_single_threaded(work: impl FnOnce() -> i32) -> std::io::Result<(i32, OwnedFd)> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(super::Errno(libc::EBUSY).into());
    }
    // SAFETY: no other thread exists that could hold a lock, and the child ends in `exit`.
    match unsafe { clone3(0) }? {
        Cloned::Child => exit(work()),
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

/// Ends the process at once.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: a number; the call does not return.
        let _ = unsafe { syscall!(libc::SYS_exit_group, status) };
    }
}

/// A list of C strings that ends with a null pointer, as execve takes it; it points into strings owned elsewhere.
pub type PointerList = Vec<*const libc::c_char>;

/// execve(2). Returns only on failure.
///
/// # Safety
///
/// Both lists must end with a null pointer, and point to live NUL-terminated strings.
pub unsafe fn execute(path: &CStr, arguments: &PointerList, environment: &PointerList) -> super::Errno {
    // SAFETY: the caller's promise.
    match unsafe { syscall!(libc::SYS_execve, path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) } {
        Ok(_) => super::Errno(libc::EINVAL), // not reached: success does not return
        Err(errno) => errno,
    }
}

/// setsid(2).
pub fn new_session() -> Result<()> {
    // SAFETY: no arguments.
    unsafe { syscall!(libc::SYS_setsid) }.map(drop)
}

/// Makes the terminal `fd` the controlling terminal of this session leader.
pub fn take_terminal(fd: Fd) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_ioctl, fd, libc::TIOCSCTTY, 0) }.map(drop)
}

/// Asks for SIGKILL when the *thread* that cloned us ends.
pub fn die_with_parent() -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.map(drop)
}

/// prctl(`PR_SET_NO_NEW_PRIVS`).
pub fn no_new_privs() -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.map(drop)
}

/// Puts this thread in a Landlock domain that abstract sockets and signals do not leave (Linux 6.12).
///
/// Needs `CAP_SYS_ADMIN` or no_new_privs. Nothing else changes: no access to files is handled.
pub fn scope_sockets_and_signals() -> Result<()> {
    // struct landlock_ruleset_attr, include/uapi/linux/landlock.h: handled_access_fs, handled_access_net, scoped.
    const ABSTRACT_UNIX_SOCKET: u64 = 1;
    const SIGNAL: u64 = 2;
    let attributes = [0, 0, ABSTRACT_UNIX_SOCKET | SIGNAL];
    let size = std::mem::size_of_val(&attributes);
    // SAFETY: a live array and its size.
    let rules = unsafe { syscall!(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0) }?;
    // SAFETY: numbers only. The descriptor is close-on-exec.
    unsafe { syscall!(libc::SYS_landlock_restrict_self, rules, 0) }.map(drop)
}

/// umask(2).
pub fn set_umask(mask: u32) {
    // SAFETY: a number; never fails.
    let _ = unsafe { syscall!(libc::SYS_umask, mask) };
}

/// sethostname(2).
pub fn set_hostname(name: &[u8]) -> Result<()> {
    // SAFETY: pointer and length are those of one live slice.
    unsafe { syscall!(libc::SYS_sethostname, name.as_ptr(), name.len()) }.map(drop)
}

/// A resource's limits as prlimit64(2) has them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// The limit that counts.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// Returns this process's limits of a resource (`RLIMIT_*`).
pub fn limit(resource: u32) -> Result<Limit> {
    let mut old = Limit::default();
    // SAFETY: `old` has the layout of `struct rlimit64` and outlives the call.
    unsafe { syscall!(libc::SYS_prlimit64, 0, resource, 0, &raw mut old) }.map(|_| old)
}

/// Sets this process's limits of a resource.
pub fn set_limit(resource: u32, limit: Limit) -> Result<()> {
    // SAFETY: `limit` has the layout of `struct rlimit64` and outlives the call.
    unsafe { syscall!(libc::SYS_prlimit64, 0, resource, &raw const limit, 0) }.map(drop)
}

/// Sets every signal's action to the default, also the ignored ones that exec would keep.
pub fn reset_signals() {
    // struct sigaction as the kernel has it: handler, flags, restorer, mask (order differs, zeros don't).
    let action = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: all zeros is SIG_DFL; 8 is the kernel's sigset size. KILL and STOP are refused, rightly.
        let _ = unsafe { syscall!(libc::SYS_rt_sigaction, signal, action.as_ptr(), 0, 8) };
    }
}

/// Replaces the set of blocked signals (bit n-1 is signal n), returning the old set.
pub fn set_blocked_signals(set: u64) -> Result<u64> {
    let mut old = 0_u64;
    // SAFETY: both sets are live 8-byte integers, the kernel's sigset size on 64-bit Linux.
    unsafe { syscall!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set, &raw mut old, 8) }.map(|_| old)
}

/// setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: pointer and length are those of one live slice.
    unsafe { syscall!(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }.map(drop)
}

/// setresgid(2), all three ids.
pub fn set_group(gid: u32) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_setresgid, gid, gid, gid) }.map(drop)
}

/// setresuid(2), all three ids.
pub fn set_user(uid: u32) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_setresuid, uid, uid, uid) }.map(drop)
}

/// Keeps the permitted capabilities over the next [`set_user`].
pub fn keep_capabilities() -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }.map(drop)
}

/// Takes from the bounding set all capabilities that are not in `keep`.
pub fn bound_capabilities(keep: u64) -> Result<()> {
    for capability in 0..64_u32 {
        if keep >> capability & 1 == 1 {
            continue;
        }
        // SAFETY: numbers only.
        match unsafe { syscall!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } {
            Ok(_) => {}
            // The kernel's last capability is reached.
            Err(super::Errno(libc::EINVAL)) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Clears the ambient set.
pub fn clear_ambient_capabilities() -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// capset(2): permitted and effective become `set`, inheritable becomes empty.
pub fn set_capabilities(set: u64) -> Result<()> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |bits: u64| CapData { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let data = [half(set & 0xffff_ffff), half(set >> 32)];
    // SAFETY: version 3 reads one header and two data blocks, which outlive the call.
    unsafe { syscall!(libc::SYS_capset, &raw const header, data.as_ptr()) }.map(drop)
}

/// capget(2): the effective set.
pub fn effective_capabilities() -> Result<u64> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(), CapData::default()];
    // SAFETY: version 3 fills two data blocks, which outlive the call.
    unsafe { syscall!(libc::SYS_capget, &raw const header, data.as_mut_ptr()) }?;
    Ok(u64::from(data[0].effective) | u64::from(data[1].effective) << 32)
}

/// One instruction of a seccomp filter: `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterInstruction {
    /// What to do.
    pub code: u16,
    /// How far to jump when true.
    pub jt: u8,
    /// How far to jump when false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

#[repr(C)]
struct FilterProgram {
    length: u16,
    instructions: *const FilterInstruction,
}

/// seccomp(2): loads a filter for this process and all that it starts.
///
/// Needs CAP_SYS_ADMIN in the user namespace, or no_new_privs.
pub fn load_filter(instructions: &[FilterInstruction]) -> Result<()> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    let Ok(length) = u16::try_from(instructions.len()) else { return Err(super::Errno(libc::EINVAL)) };
    let program = FilterProgram { length, instructions: instructions.as_ptr() };
    // SAFETY: `program` tells pointer and length of one live slice; the kernel copies it.
    unsafe { syscall!(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) }.map(drop)
}

/// Whether the kernel has seccomp filters.
pub fn has_seccomp_filters() -> bool {
    const SECCOMP_GET_ACTION_AVAIL: u32 = 2;
    const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;
    let action = SECCOMP_RET_ERRNO;
    // SAFETY: `action` is a live 4-byte integer.
    unsafe { syscall!(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) }.is_ok()
}

/// Joins a new, empty session keyring, so that the caller's keys are out of reach.
pub fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: u32 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    unsafe { syscall!(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) }.map(drop)
}

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Sets the loopback interface of this network namespace up.
pub fn raise_loopback() -> Result<()> {
    // SAFETY: numbers only.
    let socket = descriptor(unsafe { syscall!(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    let mut request = InterfaceRequest { name: [0; 16], flags: libc::IFF_UP as libc::c_short, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: `request` has the layout and size (40 bytes) of `struct ifreq` and outlives the call.
    let result = unsafe { syscall!(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw const request) };
    super::file::close(socket);
    result.map(drop)
}

/// unshare(2).
pub fn unshare(namespaces: u64) -> Result<()> {
    // SAFETY: a number.
    unsafe { syscall!(libc::SYS_unshare, namespaces) }.map(drop)
}
