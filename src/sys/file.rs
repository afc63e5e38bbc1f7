//! Files by descriptor: confined opening, creation, descriptor bookkeeping.
//!
//! `open_in_root` is the only way from a path to a descriptor; the calls that change something take a directory
//! descriptor and one last name.

use std::ffi::CStr;

use super::{Errno, Fd, Result, check, descriptor, syscall};

/// The working directory, in place of a directory descriptor.
pub const CWD: Fd = libc::AT_FDCWD;

/// How [`open_in_root`] treats symbolic links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Followed inside the root.
    Follow,
    /// None allowed, in no component.
    Refuse,
}

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_IN_ROOT: u64 = 0x10;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens `path` below `root`, which stands for `/` while it is resolved (`..` and absolute links included).
///
/// Magic links (`/proc/self/fd/…`) are never followed. Kernel 5.6. `flags` are `O_*`; `O_CLOEXEC` is added.
pub fn open_in_root(root: Fd, path: &CStr, flags: i32, links: Links) -> Result<Fd> {
    let refuse = if links == Links::Refuse { RESOLVE_NO_SYMLINKS } else { 0 };
    let how = OpenHow {
        flags: u64::from((flags | libc::O_CLOEXEC).cast_unsigned()),
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | refuse,
    };
    // SAFETY: `path` is NUL-terminated, `how` has the size that is passed; both outlive the call.
    descriptor(unsafe { syscall!(libc::SYS_openat2, root, path.as_ptr(), &raw const how, size_of::<OpenHow>()) })
}

/// Opens `name` in `directory` as openat(2) does, creating with `mode` when `flags` say so. `O_CLOEXEC` is added.
pub fn open_at(directory: Fd, name: &CStr, flags: i32, mode: u32) -> Result<Fd> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    descriptor(unsafe { syscall!(libc::SYS_openat, directory, name.as_ptr(), flags | libc::O_CLOEXEC, mode) })
}

/// mkdirat(2).
pub fn make_directory(directory: Fd, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    unsafe { syscall!(libc::SYS_mkdirat, directory, name.as_ptr(), mode) }.map(drop)
}

/// mknodat(2); `mode` holds the type.
pub fn make_node(directory: Fd, name: &CStr, mode: u32, major: u32, minor: u32) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    unsafe { syscall!(libc::SYS_mknodat, directory, name.as_ptr(), mode, libc::makedev(major, minor)) }.map(drop)
}

/// symlinkat(2): `name` in `directory` will point to `target`.
pub fn make_symlink(target: &CStr, directory: Fd, name: &CStr) -> Result<()> {
    // SAFETY: both are NUL-terminated and outlive the call.
    unsafe { syscall!(libc::SYS_symlinkat, target.as_ptr(), directory, name.as_ptr()) }.map(drop)
}

/// close(2), whose errors say nothing that one could act on.
pub fn close(fd: Fd) {
    // SAFETY: a number; the callers close only what they opened in the cloned child.
    let _ = unsafe { syscall!(libc::SYS_close, fd) };
}

/// Marks all descriptors from `first` on close-on-exec (kernel 5.11).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }.map(drop)
}

/// Makes `to` a copy of `from` that survives exec; the two must differ.
pub fn duplicate_to(from: Fd, to: Fd) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_dup3, from, to, 0) }.map(drop)
}

/// fchown(2).
pub fn change_owner(fd: Fd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_fchown, fd, uid, gid) }.map(drop)
}

/// write(2).
pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize> {
    // SAFETY: pointer and length are those of one live slice.
    unsafe { syscall!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) }
}

/// fchdir(2).
pub fn change_directory(fd: Fd) -> Result<()> {
    // SAFETY: a number.
    unsafe { syscall!(libc::SYS_fchdir, fd) }.map(drop)
}

/// Fails unless the working directory can be reached from the root directory: `ENOENT` else.
///
/// getcwd(2) answers `(unreachable)/…` for a directory outside the root (CVE-2024-21626).
pub fn check_working_directory() -> Result<()> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: pointer and length are those of one live array.
    unsafe { syscall!(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }?;
    if buffer[0] == b'/' { Ok(()) } else { Err(Errno(libc::ENOENT)) }
}

/// The magic number of the file system that `fd` lies on (statfs(2) `f_type`).
pub fn file_system_magic(fd: Fd) -> Result<u64> {
    let mut buffer = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the buffer has the type that fstatfs fills.
    unsafe { syscall!(libc::SYS_fstatfs, fd, buffer.as_mut_ptr()) }?;
    // SAFETY: zeroed, then filled; every bit pattern is a valid `statfs`.
    let buffer = unsafe { buffer.assume_init() };
    #[allow(clippy::unnecessary_cast)] // the field's type differs between C libraries
    Ok((buffer.f_type as i64).cast_unsigned())
}

/// Whether the read side of the pipe whose write side `fd` is has gone.
pub fn reader_is_gone(fd: Fd) -> bool {
    let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one live pollfd, a live timespec, no signal mask.
    let ready = unsafe { syscall!(libc::SYS_ppoll, &raw mut poll, 1, &raw const now, 0, 0) };
    ready == Ok(1) && poll.revents & libc::POLLERR != 0
}

/// Begins to write `bytes` bytes from `offset` on to the disk, and does not wait: sync_file_range(2).
pub fn begin_writeback(fd: Fd, offset: i64, bytes: i64) -> Result<()> {
    // SAFETY: numbers only; nothing of this process's memory is touched.
    check(libc::c_long::from(unsafe { libc::sync_file_range(fd, offset, bytes, libc::SYNC_FILE_RANGE_WRITE) })).map(drop)
}
