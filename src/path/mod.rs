//! Paths below a directory that somebody else controls: an image's root, a context, a layer.
//!
//! Every name in there is hostile: a parent may be a link to `/`, the last component may be swapped for a
//! link between two calls. So a path is never joined and given to the kernel as a string: it is resolved
//! inside a [`Root`] to a file descriptor, and what follows works on that descriptor. `..` above the root
//! stays at the root, absolute links start at the root, as they would after `chroot`.
//!
//! | file | holds |
//! |---|---|
//! | this | [`Root`]: resolving, opening, reading |
//! | `write` | [`Root`]: directories, files, links, devices made below it |
//! | `meta` | what `stat` and extended attributes say, and setting it in the one right order |
//! | `tree` | listing a directory, and the only recursive delete |
//!
//! A newcomer would clean `a/../b` to `b` first: wrong where `a` is a link. [`clean`] is for archive names
//! only, whose meaning is lexical; everything else goes to the kernel as written.

mod meta;
mod tree;
mod write;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use meta::{
    Attributes, FileKind, Meta, Ownership, Time, Xattrs, apply, apply_to_new, inspect, meta_at, set_mode, set_owner, set_times, xattrs_at,
};
pub use meta::{forget_whiteout_at, get_xattr, get_xattr_at, is_portable_xattr, record_whiteout_at, remove_xattr, set_xattr, set_xattr_at};
pub use tree::{DirEntry, read_dir, remove_contents, remove_tree, remove_tree_unless};
pub use write::{Birth, Missing, OnMissing, create_file_at, create_new_at, mknod_at};

/// The longest path that the kernel takes in one call, without its end (PATH_MAX, include/uapi/linux/limits.h).
const MAX_PATH_BYTES: usize = 4095;

/// Why something below a root could not be done.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A system call failed.
    #[error("{doing} `{path}`")]
    Io {
        /// `opening`, `creating`, ...
        doing: &'static str,
        /// The path inside the root, made printable.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else than a regular file lies there.
    #[error("`{path}` is not a regular file")]
    NotRegular {
        /// The path inside the root.
        path: String,
    },
    /// Something else than a directory lies there.
    #[error("`{path}` is not a directory")]
    NotDirectory {
        /// The path inside the root.
        path: String,
    },
    /// The file is larger than the caller can take.
    #[error("`{path}` is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The path inside the root.
        path: String,
        /// The most that was allowed.
        limit_bytes: u64,
    },
    /// The path names the root or ends in `..`, where a name is needed.
    #[error("`{path}` does not end in a name")]
    NoName {
        /// The path as given.
        path: String,
    },
    /// The kernel is older than 5.6, or a seccomp filter hides the call.
    #[error("openat2 is not available: Linux 5.6 or newer is needed, and a container's seccomp profile must allow it")]
    NoOpenat2,
}

impl PathError {
    pub(crate) fn io(doing: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: printable(path.get(..MAX_PATH_BYTES).unwrap_or(path)), source: source.into() }
    }

    /// Returns the kernel's error number, where a system call failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether there is nothing at that path.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::NOENT.raw_os_error())
    }
}

/// What the functions of this module return.
pub type Result<T> = std::result::Result<T, PathError>;

/// Returns `path` for messages: bytes that are no UTF-8 or control characters are escaped.
pub fn printable(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(s) if !s.chars().any(char::is_control) => s.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}

/// Returns an archive name's meaning: relative to the root, without `.`, `..` and doubled `/`; empty for the root.
///
/// `..` at the top stays at the top. Lexical: right for names in archives, wrong for paths in a tree with links.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    for part in path.split(|&c| c == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                out.pop();
            }
            name => out.push(name),
        }
    }
    out.join(&b'/')
}

/// Splits a cleaned path into its parent and its last name; none for the root.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|&c| c == b'/') {
        Some(i) => (&path[..i], &path[i + 1..]),
        None => (&[], path),
    })
}

/// A directory below which all paths are hostile.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Opens a directory of the host by its path, which is trusted and may lead through links.
    pub fn open(dir: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| PathError::io("opening", dir.as_os_str().as_encoded_bytes(), e))?;
        Ok(Self { fd })
    }

    /// Takes a directory's descriptor (`O_PATH` will do) as the root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Gives the descriptor back.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Returns a second handle of the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { fd: self.fd.try_clone().map_err(|e| PathError::io("duplicating", b"/", e))? })
    }

    /// Resolves `path`, its last component too, to an `O_PATH` descriptor. An empty path is the root.
    pub fn resolve(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open_with("resolving", path, OFlags::PATH, ResolveFlags::empty())
    }

    /// Resolves `path` to an `O_PATH` descriptor; a link as the last component is itself what is returned.
    pub fn resolve_nofollow(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open_with("resolving", path, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::empty())
    }

    /// Resolves the directory that holds `path`'s last component, which need not exist and is not followed.
    ///
    /// # Errors
    /// [`PathError::NoName`] when the last component is `.`, `..` or missing.
    pub fn resolve_parent(&self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
        let (parent, name) = parent_and_name(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok((self.open_with("resolving", parent, flags, ResolveFlags::empty())?, name.to_vec()))
    }

    /// Opens a directory for reading its entries.
    pub fn open_dir(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open_with("opening", path, OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::empty())
    }

    /// Opens a directory (`O_PATH`) along a path that holds no link at all.
    pub fn open_dir_nolinks(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        self.open_with("opening", path, flags, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens a regular file for reading. A FIFO or device there neither blocks nor is opened for good.
    pub fn open_file(&self, path: &[u8], limit_bytes: Option<u64>) -> Result<File> {
        // Checked by an O_PATH handle first: opening a device or a FIFO has effects of its own.
        let found = self.resolve(path)?;
        regular(&found, path, limit_bytes)?;
        let fd = self.open_with("opening", path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, ResolveFlags::empty())?;
        regular(&fd, path, limit_bytes)?;
        Ok(File::from(fd))
    }

    /// Reads a regular file that is small by nature (`/etc/passwd`); more than `max_bytes` is an error.
    pub fn read_small(&self, path: &[u8], max_bytes: u64) -> Result<Vec<u8>> {
        let file = self.open_file(path, Some(max_bytes))?;
        let mut out = Vec::new();
        file.take(max_bytes + 1).read_to_end(&mut out).map_err(|e| PathError::io("reading", path, e))?;
        if out.len() as u64 > max_bytes {
            return Err(PathError::TooLarge { path: printable(path), limit_bytes: max_bytes });
        }
        Ok(out)
    }

    /// Returns what lies at `path`, links followed inside the root.
    pub fn stat(&self, path: &[u8]) -> Result<Stat> {
        stat_fd(&self.resolve(path)?, path)
    }

    /// Returns what lies at `path`; a link as the last component is not followed.
    pub fn lstat(&self, path: &[u8]) -> Result<Stat> {
        stat_fd(&self.resolve_nofollow(path)?, path)
    }

    /// Returns a link's target, verbatim.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let fd = self.resolve_nofollow(path)?;
        link_target_at(&fd, b"").map_err(|e| PathError::io("reading link", path, e))
    }

    fn open_with(&self, doing: &'static str, path: &[u8], flags: OFlags, more: ResolveFlags) -> Result<OwnedFd> {
        open_in(self.fd.as_fd(), path, flags, more).map_err(|e| match e {
            Errno::NOSYS => PathError::NoOpenat2,
            e => PathError::io(doing, path, e),
        })
    }
}

fn open_in(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    for _ in 0..64 {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename anywhere on the host while `..` was walked: openat2(2) asks for another try.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Splits a raw path at its last component; trailing slashes are passed over.
pub(crate) fn parent_and_name(path: &[u8]) -> Result<(&[u8], &[u8])> {
    let end = path.iter().rposition(|&c| c != b'/').map_or(0, |i| i + 1);
    let trimmed = &path[..end];
    let start = trimmed.iter().rposition(|&c| c == b'/').map_or(0, |i| i + 1);
    match &trimmed[start..] {
        b"" | b"." | b".." => Err(PathError::NoName { path: printable(path) }),
        name => Ok((&trimmed[..start], name)),
    }
}

fn stat_fd(fd: &OwnedFd, path: &[u8]) -> Result<Stat> {
    rustix::fs::fstat(fd).map_err(|e| PathError::io("examining", path, e))
}

fn regular(fd: &OwnedFd, path: &[u8], limit_bytes: Option<u64>) -> Result<()> {
    let stat = stat_fd(fd, path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(PathError::NotRegular { path: printable(path) });
    }
    match limit_bytes {
        Some(limit_bytes) if stat.st_size.unsigned_abs() > limit_bytes => Err(PathError::TooLarge { path: printable(path), limit_bytes }),
        _ => Ok(()),
    }
}

/// Returns the target of the link `name` in `dir`; with an empty name, of the `O_PATH` link itself.
pub fn link_target_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::with_capacity(256))?.into_bytes())
}

/// Returns what `name` in `dir` is, not following a link.
pub fn lstat_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests;
