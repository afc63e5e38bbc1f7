//! The trees that steps read files from: a build context, or the root file system of a stage or image.
//!
//! The two differ in what their metadata means, and that difference is kept here: a context's files belong to
//! whoever checked them out, so their owners count as 0:0 and its ignore rules hide files; a root file system's
//! owners are real and nothing is hidden. A tree is a directory descriptor; no path of the host is used after
//! it was opened.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FileType, Mode, OFlags};

use crate::path::{self, Meta, Time, Xattrs};

use super::error::{ContextError, IgnoredBy};
use super::resolve::{self, Place, ResolveError};
use crate::dockerfile::ignore::IgnoreRules;

/// A tree of files that COPY, ADD and bind mounts read.
#[derive(Debug, Clone)]
pub struct SourceTree {
    root: Arc<OwnedFd>,
    kind: TreeKind,
    name: String,
    end: Option<Arc<AtomicUsize>>,
}

/// Ignore rules and where they stand.
#[derive(Debug, Default)]
pub struct Ignoring {
    /// The rules; empty: nothing is hidden.
    pub rules: IgnoreRules,
    /// The ignore file's name, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// What a tree's metadata means.
#[derive(Debug, Clone)]
pub enum TreeKind {
    /// A build context.
    Local {
        /// What is hidden.
        ignore: Arc<Ignoring>,
    },
    /// A mounted root file system.
    RootFs,
}

impl SourceTree {
    /// Makes a tree of a build context's directory; `name` is what messages call it.
    pub fn local(root: Arc<OwnedFd>, ignore: Arc<Ignoring>, name: impl Into<String>) -> Self {
        Self { root, kind: TreeKind::Local { ignore }, name: name.into(), end: None }
    }
    /// Makes a tree of a mounted root file system; the descriptor is duplicated. `name`: "stage `build`".
    pub fn root_fs(root: impl AsFd, name: impl Into<String>) -> std::io::Result<Self> {
        Ok(Self { root: Arc::new(root.as_fd().try_clone_to_owned()?), kind: TreeKind::RootFs, name: name.into(), end: None })
    }
    /// Lets walking and reading it fail once `asked` is not 0 (what a signal handler sets).
    pub fn until(self, asked: Arc<AtomicUsize>) -> Self {
        Self { end: Some(asked), ..self }
    }
    /// Returns an error if whoever reads the tree shall end.
    pub(super) fn go_on(&self) -> Result<(), ContextError> {
        let ends = self.end.as_ref().is_some_and(|asked| asked.load(Ordering::Relaxed) != 0);
        if ends { Err(ContextError::Interrupted) } else { Ok(()) }
    }
    /// Returns what messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Returns the root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
    /// Returns the ignore rules, when there are any.
    pub fn ignore(&self) -> Option<&IgnoreRules> {
        match &self.kind {
            TreeKind::Local { ignore } if !ignore.rules.is_empty() => Some(&ignore.rules),
            _ => None,
        }
    }
    /// Returns the ignore rule that hides a path.
    pub fn ignored_by(&self, path: &[u8]) -> Option<IgnoredBy> {
        match &self.kind {
            TreeKind::Local { ignore } => ignore.rules.matching_line(path).map(|line| IgnoredBy { file: ignore.file.clone(), line }),
            TreeKind::RootFs => None,
        }
    }
    /// Whether this is a build context.
    pub fn is_local(&self) -> bool {
        matches!(self.kind, TreeKind::Local { .. })
    }
    /// Resolves a path as written (cleaned by its text first), following links inside the tree.
    pub fn resolve(&self, path: &str) -> Result<Place, ResolveError> {
        resolve::resolve(self.root(), &path::clean(path.as_bytes()))
    }
    /// Returns a file's owner as it counts in this tree.
    pub(super) fn owner(&self, meta: &Meta) -> (u32, u32) {
        if self.is_local() { (0, 0) } else { (meta.uid, meta.gid) }
    }
    /// Returns what of a stamp stays as long as the file's bytes do.
    ///
    /// The store's files are changed by nobody, but other steps link to them (the copy driver), and each link moves their ctime.
    pub(super) fn lasting(&self, stamp: Stamp) -> Stamp {
        if self.is_local() { stamp } else { Stamp { ctime: Stamp::NO_CTIME, ..stamp } }
    }
    /// Returns what `name` in `dir` is; an empty name is `dir` itself.
    ///
    /// A root file system's owners and devices may be recorded in attributes (see [`crate::path::Ownership`]),
    /// which then come with them; a context's files are what they are, and their attributes are read with
    /// their bytes.
    pub(super) fn meta(&self, dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<(Meta, Option<Xattrs>)> {
        if self.is_local() {
            let stat = if name.is_empty() { rustix::fs::fstat(dir)? } else { path::lstat_at(dir, name)? };
            Ok((Meta::from(&stat), None))
        } else {
            path::inspect(dir, name).map(|(meta, xattrs)| (meta, Some(xattrs)))
        }
    }
}

/// What the kernel changes whenever a file's bytes change: the proof that a file is still the one we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of content or metadata; can't be set by a program.
    pub ctime: Time,
}

impl From<&Meta> for Stamp {
    fn from(m: &Meta) -> Self {
        Self { dev: m.dev, ino: m.ino, size: m.size, mtime: m.mtime, ctime: m.ctime }
    }
}

impl Stamp {
    /// In place of a ctime that says nothing of the bytes.
    const NO_CTIME: Time = Time { secs: i64::MIN, nanos: 0 };

    /// Whether the two are states of one content.
    ///
    /// Device and inode are not compared: an overlay mounted anew may number its files anew.
    pub fn same_content(&self, other: &Self) -> bool {
        let says_nothing = self.ctime == Self::NO_CTIME || other.ctime == Self::NO_CTIME;
        (self.size, self.mtime) == (other.size, other.mtime) && (says_nothing || self.ctime == other.ctime)
    }
}

/// Returns the names in a directory, sorted by their bytes.
pub(super) fn list(dir: BorrowedFd<'_>) -> path::Result<Vec<Vec<u8>>> {
    let mut names: Vec<_> = path::read_dir(dir)?.into_iter().map(|e| e.name.into_bytes()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Opens a regular file for reading and returns its stamp; a link or anything else in its place is refused.
pub fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<(File, Stamp)> {
    // NONBLOCK: a fifo put in the file's place must not hang us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(rustix::io::Errno::INVAL);
    }
    Ok((File::from(fd), Stamp::from(&Meta::from(&stat))))
}
