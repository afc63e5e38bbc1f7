//! Listing a directory, and the only recursive delete of the program.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use super::{PathError, Result};

/// An entry of a directory.
#[derive(Debug, Clone)]
pub struct DirEntry {
    /// Its name: raw bytes.
    pub name: CString,
    /// Its type, `Unknown` on file systems that don't tell.
    pub kind: FileType,
}

/// Returns a directory's entries without `.` and `..`, in no order. `O_PATH` will do.
pub fn read_dir(dir: impl AsFd) -> Result<Vec<DirEntry>> {
    list(dir.as_fd()).map_err(|e| PathError::io("reading directory", b".", e))
}

fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<DirEntry>> {
    // Opened anew: an own position, and O_PATH descriptors can't be read.
    let dir = rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buf = Vec::with_capacity(32 * 1024);
    let mut raw = RawDir::new(dir, buf.spare_capacity_mut());
    let mut out = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            out.push(DirEntry { name: entry.file_name().to_owned(), kind: entry.file_type() });
        }
    }
    Ok(out)
}

/// Removes `name` in `parent` and everything below it; a name that isn't there is fine.
///
/// Follows no link, crosses no mount point (an error then, with what was found before already gone), takes
/// directories without permissions, and trees of any depth: it holds one descriptor, not one a level.
pub fn remove_tree(parent: impl AsFd, name: &[u8]) -> Result<()> {
    remove_tree_unless(parent, name, &|| false).map(drop)
}

/// As [`remove_tree`]; returns false, with the rest still there, when `give_up` became true meanwhile.
pub fn remove_tree_unless(parent: impl AsFd, name: &[u8], give_up: &dyn Fn() -> bool) -> Result<bool> {
    let parent = parent.as_fd();
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(PathError::io("removing", name, e)),
    }
    remove_directory(parent, name, give_up).map_err(|e| PathError::io("removing", name, e))
}

/// Removes everything in `dir`, which stays.
pub fn remove_contents(dir: impl AsFd) -> Result<()> {
    for entry in read_dir(&dir)? {
        remove_tree(&dir, entry.name.as_bytes())?;
    }
    Ok(())
}

/// One directory on the way down: what is left to enter, and how to know it again on the way up.
struct Level {
    name: Vec<u8>,
    ino: u64,
    dev: u64,
    subdirs: Vec<CString>,
}

fn remove_directory(parent: BorrowedFd<'_>, name: &[u8], give_up: &dyn Fn() -> bool) -> rustix::io::Result<bool> {
    let mut current = enter(parent, name)?;
    let mut levels = vec![level(&current, name, give_up)?];
    while let Some(top) = levels.last_mut() {
        if give_up() {
            return Ok(false);
        }
        if let Some(subdir) = top.subdirs.pop() {
            let child = enter(current.as_fd(), subdir.as_bytes())?;
            levels.push(level(&child, subdir.as_bytes(), give_up)?);
            current = child;
            continue;
        }
        let done = levels.pop().expect("the loop's condition saw it");
        match levels.last() {
            None => rustix::fs::unlinkat(parent, &done.name, AtFlags::REMOVEDIR)?,
            Some(above) => {
                let up = rustix::fs::openat(&current, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                let stat = rustix::fs::fstat(&up)?;
                if (stat.st_ino, stat.st_dev) != (above.ino, above.dev) {
                    // Somebody moved the directory while we were in it: `..` leads who knows where.
                    return Err(Errno::STALE);
                }
                rustix::fs::unlinkat(&up, &done.name, AtFlags::REMOVEDIR)?;
                current = up;
            }
        }
    }
    Ok(true)
}

/// Opens a directory by its name only if it is one, is no link, and lies on the same mount.
fn enter(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..64 {
        match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Removes all that is no directory, and returns the directories left. Stops half way where `give_up` becomes true.
fn level(dir: &OwnedFd, name: &[u8], give_up: &dyn Fn() -> bool) -> rustix::io::Result<Level> {
    let stat = rustix::fs::fstat(dir)?;
    if stat.st_mode & 0o700 != 0o700 {
        // Without these bits only root could list and empty it; a failure shows itself below.
        let _ = super::set_mode(dir, 0o700);
    }
    let mut subdirs = Vec::new();
    for entry in list(dir.as_fd())? {
        if give_up() {
            break;
        }
        if entry.kind != FileType::Directory {
            match rustix::fs::unlinkat(dir, &entry.name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) if entry.kind == FileType::Unknown => {}
                Err(e) => return Err(e),
            }
        }
        match rustix::fs::unlinkat(dir, &entry.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS | Errno::PERM) => subdirs.push(entry.name),
            Err(e) => return Err(e),
        }
    }
    Ok(Level { name: name.to_vec(), ino: stat.st_ino, dev: stat.st_dev, subdirs })
}
