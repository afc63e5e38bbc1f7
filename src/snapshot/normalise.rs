//! Reduces what a step left behind to its change: the same change set whatever the driver and the way there.
//!
//! Overlay's upper directory tells a history (copied up, removed and made again), the copy driver's tree tells
//! a state. Both become the difference of states, in overlay form:
//!
//! | found | becomes |
//! |---|---|
//! | a file equal to the lower one: type, mode, owner, attributes, size, mtime, bytes (one name only) | nothing |
//! | a directory equal to the lower one but for its times, with no change below | nothing (BuildKit too) |
//! | an opaque directory | the whiteouts that say the same |
//! | a whiteout of a name that no lower layer has | nothing |
//! | a socket | nothing, or the whiteout of what it replaced |
//! | a name that begins with `.wh.` | an error: the next reader of the layer would delete files |
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
const MAX_DEPTH: usize = 200;

/// What identifies a file that nobody touched since: path, inode, ctime.
pub(super) type Untouched = HashMap<Vec<u8>, (u64, Time)>;

/// The directory to reduce, and what is known of it.
pub(super) struct Normalise<'a> {
    /// Files that are known to be as they were copied from the lower layers.
    pub untouched: Option<&'a Untouched>,
}

impl Normalise<'_> {
    /// Reduces `dir`, whose state below the change is `lower`; `whole`: `dir` is all that there is, so a name
    /// that is missing was removed. Returns whether anything is left.
    pub fn reduce(&self, dir: &OwnedFd, lower: &Merged, whole: bool) -> Result<bool, SnapshotError> {
        self.level(dir, lower, whole, &mut Vec::new(), 0)
    }

    fn level(&self, dir: &OwnedFd, lower: &Merged, whole: bool, at: &mut Vec<u8>, depth: usize) -> Result<bool, SnapshotError> {
        if depth > MAX_DEPTH {
            return Err(SnapshotError::TooDeep { path: printable(at) });
        }
        let io = |e: Errno, at: &[u8]| PathError::io("reducing", at, e);
        let mtime = Meta::from(&rustix::fs::fstat(dir).map_err(|e| io(e, at))?).mtime;
        let opaque = overlay::is_opaque(dir).map_err(|e| io(e, at))?;
        let whole = whole || opaque;
        let mut level = Level { dir, lower, touched: false, kept: false };
        let mut names = BTreeSet::new();
        for entry in path::read_dir(dir)? {
            let name = entry.name.into_bytes();
            let len = at.len();
            if len > 0 {
                at.push(b'/');
            }
            at.extend_from_slice(&name);
            self.entry(&mut level, &name, whole, at, depth)?;
            at.truncate(len);
            names.insert(name);
        }
        if whole && !lower.is_nothing() {
            for gone in lower.names()?.difference(&names) {
                level.whiteout(gone).map_err(|e| io(e, gone))?;
            }
        }
        if opaque {
            overlay::clear_opaque(dir).map_err(|e| io(e, at))?;
        }
        if level.touched {
            path::set_times(dir, mtime).map_err(|e| io(e, at))?;
        }
        Ok(level.kept)
    }

    fn entry(&self, level: &mut Level<'_>, name: &[u8], whole: bool, at: &mut Vec<u8>, depth: usize) -> Result<(), SnapshotError> {
        if name.starts_with(b".wh.") {
            return Err(SnapshotError::ReservedName { path: printable(at) });
        }
        let io = |e: Errno, at: &[u8]| PathError::io("reducing", at, e);
        let (meta, xattrs) = path::inspect(level.dir, name).map_err(|e| io(e, at))?;
        let below = level.lower.find(name).map_err(|e| io(e, at))?;
        if overlay::is_whiteout(&meta) {
            if below.is_some() {
                level.kept = true;
            } else {
                level.unlink(name, AtFlags::empty()).map_err(|e| io(e, at))?;
            }
            return Ok(());
        }
        match meta.kind {
            FileKind::Socket => {
                level.unlink(name, AtFlags::empty()).map_err(|e| io(e, at))?;
                if below.is_some() {
                    level.whiteout(name).map_err(|e| io(e, at))?;
                }
            }
            FileKind::Directory => {
                let lower = level.lower.child(name).map_err(|e| io(e, at))?;
                let child = open_dir(level.dir.as_fd(), name).map_err(|e| io(e, at))?;
                let changed = self.level(&child, &lower, whole, at, depth + 1)?;
                let same = below.is_some_and(|b| b.meta.kind == FileKind::Directory && same_attributes(&meta, &xattrs, &b));
                if changed || !same {
                    level.kept = true;
                } else {
                    level.unlink(name, AtFlags::REMOVEDIR).map_err(|e| io(e, at))?;
                }
            }
            _ => {
                let same = match &below {
                    Some(below) => self.same_file(level.dir, name, at, &meta, &xattrs, below)?,
                    None => false,
                };
                if same {
                    level.unlink(name, AtFlags::empty()).map_err(|e| io(e, at))?;
                } else {
                    level.kept = true;
                }
            }
        }
        Ok(())
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
        if meta.mtime != below.meta.mtime || meta.size != below.meta.size || meta.rdev != below.meta.rdev {
            return Ok(false);
        }
        if !same_attributes(meta, xattrs, below) {
            return Ok(false);
        }
        let io = |e: io::Error| PathError::io("comparing", at, e);
        Ok(match meta.kind {
            FileKind::Symlink => {
                let target = |dir: &OwnedFd| path::link_target_at(dir, name).map_err(|e| io(e.into()));
                target(dir)? == target(below.dir)?
            }
            FileKind::File if meta.size > 0 => same_bytes(dir, below.dir, name).map_err(io)?,
            _ => true,
        })
    }
}

/// One directory while it is reduced.
struct Level<'a> {
    dir: &'a OwnedFd,
    lower: &'a Merged,
    touched: bool,
    kept: bool,
}

impl Level<'_> {
    fn unlink(&mut self, name: &[u8], flags: AtFlags) -> rustix::io::Result<()> {
        self.touched = true;
        rustix::fs::unlinkat(self.dir, name, flags)
    }

    fn whiteout(&mut self, name: &[u8]) -> rustix::io::Result<()> {
        (self.touched, self.kept) = (true, true);
        overlay::make_whiteout(self.dir, name)
    }
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
