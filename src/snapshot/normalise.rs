//! Reduces what a step left behind to its change: the same change set whatever the driver and the way there.
//!
//! Overlay's upper directory tells a history (copied up, removed and made again), the copy driver's tree tells
//! a state. Both become the difference of states, in overlay form:
//!
//! | found | becomes |
//! |---|---|
//! | of a command, a file equal to the lower one: type, mode, owner, attributes, size, mtime, bytes (one name only) | nothing |
//! | of a copy, a file that it put there, also one equal to the lower one | itself (BuildKit too) |
//! | a directory equal to the lower one but for its times, with no change below | nothing (BuildKit too) |
//! | an opaque directory | the whiteouts that say the same |
//! | a whiteout of a name that no lower layer has | nothing |
//! | a socket | nothing, or the whiteout of what it replaced |
//! | a name that begins with `.wh.` | an error: the next reader of the layer would delete files |
//!
//! Why copies differ: no key knows the times of what lies below, so whether they agree must not decide what a copy gives.
//!
//! Directories keep the mtime that the step gave them, though entries in them are removed here.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::SnapshotError;
use super::merged::{Found, Merged};
use super::overlay;
use crate::path::{self, FileKind, Meta, PathError, Time, Xattrs, printable};

/// Deeper trees are refused: each level holds descriptors.
const MAX_DEPTH: usize = 400;

/// What identifies a file that nobody touched since: path, inode, ctime.
pub(super) type Untouched = HashMap<Vec<u8>, (u64, Time)>;

/// The directory to reduce, and what is known of it.
pub(super) struct Normalise<'a> {
    /// Files that are known to be as they were copied from the lower layers.
    pub untouched: Option<&'a Untouched>,
    pub filled: Filled,
}

/// Who filled a step's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// A command, which may have touched files and left them as they were.
    ByCommand,
    /// A copy, which puts what it is told to.
    ByCopy,
}

/// A directory that is being reduced; a stack of them is the way down.
struct Frame {
    marks: Marks,
    lower: Merged,
    /// What is not there was removed.
    whole: bool,
    opaque: bool,
    mtime: Time,
    names: BTreeSet<Vec<u8>>,
    pending: Vec<Vec<u8>>,
    /// Whether the lower layers have a directory here with the same attributes.
    same: bool,
    path_len: usize,
}

/// A directory and what was done in it.
struct Marks {
    dir: OwnedFd,
    touched: bool,
    kept: bool,
}

impl Normalise<'_> {
    /// Reduces `dir`, whose state below the change is `lower`; `whole`: `dir` is all that there is, so a name
    /// that is missing was removed.
    pub fn reduce(&self, dir: OwnedFd, lower: Merged, whole: bool) -> Result<(), SnapshotError> {
        let mut at = Vec::new();
        let mut stack = vec![Frame::open(dir, lower, whole, true, &at)?];
        while let Some(frame) = stack.last_mut() {
            at.truncate(frame.path_len);
            if let Some(name) = frame.pending.pop() {
                if !at.is_empty() {
                    at.push(b'/');
                }
                at.extend_from_slice(&name);
                let child = self.entry(frame, &name, &at)?;
                stack.extend(child);
                if stack.len() > MAX_DEPTH {
                    return Err(SnapshotError::TooDeep { path: printable(&at) });
                }
                continue;
            }
            let done = stack.pop().expect("the loop's condition saw it");
            let left = done.close(&at)?;
            if let Some(above) = stack.last_mut() {
                let (_, name) = path::split(&at).unwrap_or_default();
                if left {
                    above.marks.kept = true;
                } else {
                    above.marks.unlink(name, AtFlags::REMOVEDIR).map_err(|e| io(e, &at))?;
                }
            }
        }
        Ok(())
    }

    /// Reduces one entry, but for a directory, which is returned.
    fn entry(&self, frame: &mut Frame, name: &[u8], at: &[u8]) -> Result<Option<Frame>, SnapshotError> {
        if name.starts_with(b".wh.") {
            return Err(SnapshotError::ReservedName { path: printable(at) });
        }
        let Frame { marks, lower, whole, .. } = frame;
        let (mut meta, mut xattrs) = path::inspect(&marks.dir, name).map_err(|e| io(e, at))?;
        if overlay::is_whiteout(&meta) && path::forget_whiteout_at(&marks.dir, name).map_err(|e| io(e, at))? {
            // The step's own work: our marks come later.
            (meta, xattrs) = path::inspect(&marks.dir, name).map_err(|e| io(e, at))?;
        }
        let below = lower.find(name).map_err(|e| io(e, at))?;
        if meta.kind == FileKind::Directory {
            let same = below.is_some_and(|b| b.meta.kind == FileKind::Directory && same_attributes(&meta, &xattrs, &b));
            let child = open_dir(marks.dir.as_fd(), name).map_err(|e| io(e, at))?;
            let child_lower = lower.child(name).map_err(|e| io(e, at))?;
            return Frame::open(child, child_lower, *whole, same, at).map(Some);
        }
        let keep = match (&below, meta.kind) {
            (_, FileKind::Socket) => false,
            _ if overlay::is_whiteout(&meta) => below.is_some(),
            (Some(below), _) => !self.same_file(&marks.dir, name, at, &meta, &xattrs, below)?,
            (None, _) => true,
        };
        if keep {
            marks.kept = true;
            return Ok(None);
        }
        marks.unlink(name, AtFlags::empty()).map_err(|e| io(e, at))?;
        if meta.kind == FileKind::Socket && below.is_some() {
            marks.whiteout(name).map_err(|e| io(e, at))?;
        }
        Ok(None)
    }

    fn same_file(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        at: &[u8],
        meta: &Meta,
        xattrs: &Xattrs,
        below: &Found<'_>,
    ) -> Result<bool, SnapshotError> {
        if meta.nlink > 1 || meta.kind != below.meta.kind {
            return Ok(false);
        }
        if let Some(untouched) = self.untouched
            && untouched.get(at) == Some(&(meta.ino, meta.ctime))
        {
            return Ok(true);
        }
        if self.filled == Filled::ByCopy || meta.mtime != below.meta.mtime {
            return Ok(false);
        }
        same_but_times(dir, name, at, meta, xattrs, below).map_err(Into::into)
    }
}

impl Frame {
    fn open(dir: OwnedFd, lower: Merged, whole: bool, same: bool, at: &[u8]) -> Result<Self, SnapshotError> {
        let mtime = Meta::from(&rustix::fs::fstat(&dir).map_err(|e| io(e, at))?).mtime;
        let opaque = overlay::is_opaque(&dir).map_err(|e| io(e, at))?;
        let names: BTreeSet<Vec<u8>> = path::read_dir(&dir)?.into_iter().map(|e| e.name.into_bytes()).collect();
        let pending = names.iter().rev().cloned().collect();
        let marks = Marks { dir, touched: false, kept: false };
        Ok(Self { marks, lower, whole: whole || opaque, opaque, mtime, names, pending, same, path_len: at.len() })
    }

    /// Ends a directory whose entries are reduced; returns whether it belongs to the change.
    fn close(mut self, at: &[u8]) -> Result<bool, SnapshotError> {
        if self.whole && !self.lower.is_nothing() {
            for gone in self.lower.names()?.difference(&self.names) {
                self.marks.whiteout(gone).map_err(|e| io(e, at))?;
            }
        }
        if self.opaque {
            overlay::clear_opaque(&self.marks.dir).map_err(|e| io(e, at))?;
        }
        if self.marks.touched {
            path::set_times(&self.marks.dir, self.mtime).map_err(|e| io(e, at))?;
        }
        Ok(self.marks.kept || !self.same)
    }
}

impl Marks {
    fn unlink(&mut self, name: &[u8], flags: AtFlags) -> rustix::io::Result<()> {
        self.touched = true;
        rustix::fs::unlinkat(&self.dir, name, flags)
    }

    fn whiteout(&mut self, name: &[u8]) -> rustix::io::Result<()> {
        (self.touched, self.kept) = (true, true);
        overlay::make_whiteout(&self.dir, name)
    }
}

fn io(e: Errno, at: &[u8]) -> PathError {
    PathError::io("reducing", at, e)
}

fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Whether mode, owner and attributes are the same; a link's mode means nothing.
pub(super) fn same_attributes(meta: &Meta, xattrs: &Xattrs, below: &Found<'_>) -> bool {
    let mode = |m: &Meta| if m.kind == FileKind::Symlink { 0 } else { m.mode };
    (mode(meta), meta.uid, meta.gid, xattrs) == (mode(&below.meta), below.meta.uid, below.meta.gid, &below.xattrs)
}

/// Whether a name stands for the same in a layer as below it: all that is content, so no times.
pub(super) fn same_but_times(dir: &OwnedFd, name: &[u8], at: &[u8], meta: &Meta, xattrs: &Xattrs, below: &Found<'_>) -> path::Result<bool> {
    let io = |e: io::Error| PathError::io("comparing", at, e);
    if meta.kind != below.meta.kind || !same_attributes(meta, xattrs, below) {
        return Ok(false);
    }
    // A directory's size is how it is stored.
    if meta.kind != FileKind::Directory && (meta.size != below.meta.size || meta.rdev != below.meta.rdev) {
        return Ok(false);
    }
    Ok(match meta.kind {
        FileKind::Symlink => {
            let target = |dir: &OwnedFd| path::link_target_at(dir, name).map_err(|e| io(e.into()));
            target(dir)? == target(below.dir)?
        }
        FileKind::File if meta.size > 0 => same_bytes(dir, below.dir, name).map_err(io)?,
        _ => true,
    })
}

fn same_bytes(a: &OwnedFd, b: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    let open = |dir| -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?))
    };
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut x, mut y) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let n = a.read(&mut x)?;
        if n == 0 {
            return Ok(b.read(&mut y[..1])? == 0);
        }
        match b.read_exact(&mut y[..n]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if x[..n] != y[..n] {
            return Ok(false);
        }
    }
}
