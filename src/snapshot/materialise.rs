//! A stack of layers made into one plain directory: for hosts without overlay, and for stacks that are too high.
//!
//! [`How::Copy`] gives files of their own that may be written; names that shared an inode below don't share it
//! here, as under overlay, where the first write to one name parts it from the other. [`How::Link`] shares the
//! files with the layers, for reading only.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::merged::{Found, Merged};
use super::normalise::Untouched;
use crate::fsio;
use crate::path::{self, Attributes, FileKind, Meta, Ownership, PathError, Xattrs};

/// Whether files are copied or shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Copied (blocks shared where the file system can).
    Copy,
    /// Hard links to the layers' own files; copied where that fails.
    Link,
}

/// Fills the empty directory `dest` with what `merged` shows; returns what identifies the copied files.
pub(super) fn materialise(merged: &Merged, dest: &OwnedFd, how: How, ownership: Ownership) -> path::Result<Untouched> {
    let mut untouched = Untouched::new();
    fill(merged, dest, how, ownership, &mut Vec::new(), &mut untouched)?;
    if let Some(top) = merged.top() {
        let (meta, xattrs) = path::inspect(top, b"").map_err(|e| PathError::io("examining", b"/", e))?;
        path::apply(dest, b"/", &attributes(&meta, xattrs), ownership)?;
    }
    Ok(untouched)
}

/// Returns everything that makes a copy of a file like the original.
pub(super) fn attributes(meta: &Meta, xattrs: Xattrs) -> Attributes {
    let mode = (meta.kind != FileKind::Symlink).then_some(meta.mode);
    Attributes { uid: meta.uid, gid: meta.gid, mode, mtime: Some(meta.mtime), xattrs }
}

fn fill(merged: &Merged, dest: &OwnedFd, how: How, ownership: Ownership, at: &mut Vec<u8>, untouched: &mut Untouched) -> path::Result<()> {
    for name in merged.names()? {
        let len = at.len();
        if len > 0 {
            at.push(b'/');
        }
        at.extend_from_slice(&name);
        let io = |e: rustix::io::Errno| PathError::io("copying", at, e);
        let Some(found) = merged.find(&name).map_err(io)? else { continue };
        let made = if found.meta.kind == FileKind::Directory {
            rustix::fs::mkdirat(dest, name.as_slice(), Mode::RWXU).map_err(io)?;
            let child = open_nofollow(dest, &name).map_err(io)?;
            let below = merged.child(&name).map_err(io)?;
            fill(&below, &child, how, ownership, at, untouched)?;
            Some(child)
        } else {
            one(&found, dest, &name, how, ownership).map_err(|e| PathError::io("copying", at, e))?;
            // A link shares its attributes with the layer's own file.
            if how == How::Copy { Some(open_nofollow(dest, &name).map_err(|e| PathError::io("copying", at, e))?) } else { None }
        };
        if let Some(made) = made {
            path::apply(&made, at, &attributes(&found.meta, found.xattrs), ownership)?;
            if found.meta.kind != FileKind::Directory {
                let stat = rustix::fs::fstat(&made).map_err(|e| PathError::io("examining", at, e))?;
                untouched.insert(at.clone(), (stat.st_ino, Meta::from(&stat).ctime));
            }
        }
        at.truncate(len);
    }
    Ok(())
}

fn open_nofollow(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn one(found: &Found<'_>, dest: &OwnedFd, name: &[u8], how: How, ownership: Ownership) -> std::io::Result<()> {
    if how == How::Link && rustix::fs::linkat(found.dir, name, dest, name, AtFlags::empty()).is_ok() {
        return Ok(());
    }
    match found.meta.kind {
        FileKind::File => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = File::from(rustix::fs::openat(found.dir, name, flags, Mode::empty())?);
            fsio::copy_data(&from, &path::create_file_at(dest, name, 0o600)?)?;
        }
        FileKind::Symlink => {
            let target = path::link_target_at(found.dir, name)?;
            rustix::fs::symlinkat(target.as_slice(), dest, name)?;
        }
        FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo => {
            path::mknod_at(dest.as_fd(), name, found.meta.kind, found.meta.rdev, ownership)?;
        }
        FileKind::Directory | FileKind::Socket => return Ok(()),
    }
    if how == How::Link {
        let made = open_nofollow(dest, name)?;
        let path = |e: PathError| std::io::Error::other(e);
        path::apply(&made, name, &attributes(&found.meta, found.xattrs.clone()), ownership).map_err(path)?;
    }
    Ok(())
}
