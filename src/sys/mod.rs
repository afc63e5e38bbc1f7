//! Raw system calls that rustix and nix lack, or that must run where they may not: in a child between clone and exec.
//!
//! Every function here is one system call, allocates nothing, takes no lock, and returns the bare [`Errno`];
//! that is what makes them fit for the sandbox's child. glibc's own wrappers would not do: `setuid(3)` and its
//! like signal all threads of the *parent's* bookkeeping. Descriptors are bare numbers, since a child that was
//! cloned owns copies of all of them and drops none. Code outside the child uses rustix.

pub mod file;
pub mod mount;
pub mod process;

/// An error number of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

/// What a system call gave.
pub type Result<T> = std::result::Result<T, Errno>;

/// An open descriptor's number.
pub type Fd = libc::c_int;

/// Reads a system call's result, taking the error number from where libc keeps it.
fn check(result: libc::c_long) -> Result<usize> {
    if result < 0 {
        // SAFETY: errno is a thread-local integer that always exists; a cloned child has its own copy.
        return Err(Errno(unsafe { *libc::__errno_location() }));
    }
    Ok(result.unsigned_abs() as usize)
}

/// Calls `libc::syscall` with each argument widened to a register, and reads the result.
///
/// Expands to an `unsafe` call: the invoking line states why the arguments are right.
macro_rules! syscall {
    ($number:expr $(, $argument:expr)*) => {
        $crate::sys::check(libc::syscall($number $(, $argument as libc::c_long)*))
    };
}
pub(crate) use syscall;

/// As [`check`], for calls that return a descriptor.
fn descriptor(result: Result<usize>) -> Result<Fd> {
    // A descriptor always fits: the kernel's limit is far below 2^31 (fs.nr_open).
    result.map(|fd| fd as Fd)
}
