//! A stack of layers made into one plain directory: for hosts without overlay, and for stacks that are too high.
//!
//! [`How::Copy`] gives files of their own that may be written; names that shared an inode below don't share it
//! here, as under overlay, where the first write to one name parts it from the other. [`How::Link`] shares the
//! files with the layers, for reading only.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::merged::{Found, Merged};
use super::normalise::Untouched;
use crate::fsio;
use crate::path::{self, Attributes, FileKind, Meta, Ownership, PathError, Time, Xattrs};

/// Whether files are copied or shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Copied (blocks shared where the file system can).
    Copy,
    /// Hard links to the layers' own files; copied where that fails.
    Link,
}

/// A directory that is being filled; a stack of them is the way down.
struct Frame {
    merged: Merged,
    dest: OwnedFd,
    pending: Vec<Vec<u8>>,
    /// Set when it is full: entries would move its time.
    attributes: Attributes,
    path_len: usize,
}

/// Fills the empty directory `dest` with what `merged` shows; returns what identifies the copied files.
pub(super) fn materialise(merged: Merged, dest: &OwnedFd, how: How, ownership: Ownership) -> path::Result<Untouched> {
    let mut untouched = Untouched::new();
    let Some(top) = merged.top() else { return Ok(untouched) };
    let (meta, xattrs) = path::inspect(top, b"").map_err(|e| PathError::io("examining", b"/", e))?;
    let dest = dest.try_clone().map_err(|e| PathError::io("duplicating", b"/", e))?;
    let mut at = Vec::new();
    let mut stack = vec![Frame::open(merged, dest, attributes(&meta, xattrs), 0)?];
    while let Some(frame) = stack.last_mut() {
        at.truncate(frame.path_len);
        let Some(name) = frame.pending.pop() else {
            let done = stack.pop().expect("the loop's condition saw it");
            path::apply(&done.dest, &at, &done.attributes, ownership)?;
            continue;
        };
        if !at.is_empty() {
            at.push(b'/');
        }
        at.extend_from_slice(&name);
        let io = |e: Errno| PathError::io("copying", &at, e);
        let Some(found) = frame.merged.find(&name).map_err(io)? else { continue };
        if found.meta.kind == FileKind::Directory {
            rustix::fs::mkdirat(&frame.dest, name.as_slice(), Mode::RWXU).map_err(io)?;
            let child = open_nofollow(&frame.dest, &name).map_err(io)?;
            let below = frame.merged.child(&name).map_err(io)?;
            let child = Frame::open(below, child, attributes(&found.meta, found.xattrs), at.len())?;
            stack.push(child);
        } else if let Some(made) = one(found, &frame.dest, &name, &at, how, ownership)? {
            untouched.insert(at.clone(), made);
        }
    }
    Ok(untouched)
}

impl Frame {
    fn open(merged: Merged, dest: OwnedFd, attributes: Attributes, path_len: usize) -> path::Result<Self> {
        let pending = merged.names()?.into_iter().rev().collect();
        Ok(Self { merged, dest, pending, attributes, path_len })
    }
}

/// Returns everything that makes a copy of a file like the original.
pub(super) fn attributes(meta: &Meta, xattrs: Xattrs) -> Attributes {
    let mode = (meta.kind != FileKind::Symlink).then_some(meta.mode);
    Attributes { uid: meta.uid, gid: meta.gid, mode, mtime: Some(meta.mtime), xattrs }
}

fn open_nofollow(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Makes one file; returns what identifies it when it is a copy.
fn one(found: Found<'_>, dest: &OwnedFd, name: &[u8], at: &[u8], how: How, ownership: Ownership) -> path::Result<Option<(u64, Time)>> {
    // A link shares its attributes with the layer's own file.
    if how == How::Link && rustix::fs::linkat(found.dir, name, dest, name, AtFlags::empty()).is_ok() {
        return Ok(None);
    }
    let io = |e: Errno| PathError::io("copying", at, e);
    match found.meta.kind {
        FileKind::File => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = File::from(rustix::fs::openat(found.dir, name, flags, Mode::empty()).map_err(io)?);
            let to = path::create_file_at(dest, name, 0o600).map_err(io)?;
            fsio::copy_data(&from, &to).map_err(|e| PathError::io("copying", at, e))?;
        }
        FileKind::Symlink => {
            let target = path::link_target_at(found.dir, name).map_err(io)?;
            rustix::fs::symlinkat(target.as_slice(), dest, name).map_err(io)?;
        }
        FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo => {
            path::mknod_at(dest.as_fd(), name, found.meta.kind, found.meta.rdev, ownership).map_err(io)?;
        }
        FileKind::Directory | FileKind::Socket => return Ok(None),
    }
    let made = open_nofollow(dest, name).map_err(io)?;
    path::apply(&made, at, &attributes(&found.meta, found.xattrs), ownership)?;
    let stat = rustix::fs::fstat(&made).map_err(io)?;
    Ok(Some((stat.st_ino, Meta::from(&stat).ctime)))
}
