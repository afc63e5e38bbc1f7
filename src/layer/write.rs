//! Change set → tar: the same bytes for the same changes, entry by entry in the change set's order.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use tar::EntryType;

use super::header::{self, Facts};
use super::{LayerError, Result, whiteout};
use crate::path::{self, PathError, Root, Xattrs, printable};
use crate::snapshot::diff::{Change, ChangeSet, Entry, Node, NodeKind};

const CHUNK: usize = 128 * 1024;

/// Writes `changes` of the layer directory `dir` as an OCI layer and returns the bytes written.
///
/// Times are whole seconds, none later than `clamp_epoch`. Sparse files are written in full.
pub fn write_tar(changes: &ChangeSet, dir: impl AsFd, clamp_epoch: Option<i64>, sink: &mut dyn Write) -> Result<u64> {
    let mut counted = Counted { sink, bytes: 0 };
    write_observed(changes, &mut DirectoryFiles::new(dir.as_fd(), b"")?, clamp_epoch, &mut counted, &mut Ignore)?;
    Ok(counted.bytes)
}

/// Has the bytes of a change set's files.
pub trait FileBytes {
    /// Passes all bytes of the file at `path` to `take`, in pieces: `size` of them (never 0), or fails.
    ///
    /// Files are asked for once each, in the order of the change set.
    fn pass(&mut self, path: &[u8], size: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>;

    /// Returns the BLAKE3 of the bytes that the next call of [`FileBytes::pass`] passes for `path`, where it is known.
    fn known(&self, _path: &[u8]) -> Option<blake3::Hash> {
        None
    }
}

/// Sees the data of files go by.
pub(super) trait Observer {
    /// Bytes of the current file.
    fn data(&mut self, bytes: &[u8]);
    /// The hash of the current file, whose bytes are not shown.
    fn known(&mut self, hash: blake3::Hash);
    /// An entry is complete.
    fn entry(&mut self, entry: &Entry);
}

pub(super) struct Ignore;

impl Observer for Ignore {
    fn data(&mut self, _: &[u8]) {}
    fn known(&mut self, _: blake3::Hash) {}
    fn entry(&mut self, _: &Entry) {}
}

pub(super) struct Counted<'a> {
    pub sink: &'a mut dyn Write,
    pub bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.sink.write(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}

/// Writes the tar, and shows everything to `observer`.
pub(super) fn write_observed(
    changes: &ChangeSet,
    files: &mut dyn FileBytes,
    clamp_epoch: Option<i64>,
    sink: &mut dyn Write,
    observer: &mut dyn Observer,
) -> Result<()> {
    write_entries(changes, files, clamp_epoch, sink, observer)?;
    header::write_end(sink).map_err(|source| LayerError::Write { source })
}

/// Writes the entries without the archive's end; `files` has their bytes.
pub(super) fn write_entries(
    changes: &ChangeSet,
    files: &mut dyn FileBytes,
    clamp_epoch: Option<i64>,
    sink: &mut dyn Write,
    observer: &mut dyn Observer,
) -> Result<()> {
    let failed = |source| LayerError::Write { source };
    for entry in &changes.entries {
        match &entry.change {
            Change::Remove => header::write(&marker(&whiteout::removal_of(&entry.path)), sink).map_err(failed)?,
            Change::Opaque => header::write(&marker(&whiteout::opaque_of(&entry.path)), sink).map_err(failed)?,
            Change::Upsert(node) => write_node(&entry.path, node, clamp_epoch, files, sink, observer)?,
        }
        observer.entry(entry);
    }
    Ok(())
}

/// A whiteout's header: no facts but its name.
fn marker(path: &[u8]) -> Facts<'_> {
    const NONE: &Xattrs = &Xattrs::new();
    Facts { path, link: b"", kind: EntryType::Regular, mode: 0, uid: 0, gid: 0, size: 0, mtime_secs: 0, rdev: (0, 0), xattrs: NONE }
}

fn write_node(
    path: &[u8],
    node: &Node,
    clamp_epoch: Option<i64>,
    files: &mut dyn FileBytes,
    sink: &mut dyn Write,
    observer: &mut dyn Observer,
) -> Result<()> {
    let mtime_secs = clamp_epoch.map_or(node.mtime.secs, |epoch| node.mtime.secs.min(epoch));
    let mut facts = Facts { mode: node.mode, uid: node.uid, gid: node.gid, mtime_secs, xattrs: &node.xattrs, ..marker(path) };
    let as_directory = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
    match &node.kind {
        NodeKind::Directory => (facts.kind, facts.path) = (EntryType::Directory, &as_directory),
        NodeKind::File { size_bytes } => facts.size = *size_bytes,
        NodeKind::HardLink { target } => (facts.kind, facts.link) = (EntryType::Link, target),
        NodeKind::Symlink { target } => (facts.kind, facts.link, facts.mode) = (EntryType::Symlink, target, 0o777),
        NodeKind::CharDevice { major, minor } => (facts.kind, facts.rdev) = (EntryType::Char, (*major, *minor)),
        NodeKind::BlockDevice { major, minor } => (facts.kind, facts.rdev) = (EntryType::Block, (*major, *minor)),
        NodeKind::Fifo => facts.kind = EntryType::Fifo,
    }
    header::write(&facts, sink).map_err(|source| LayerError::Write { source })?;
    if facts.size == 0 {
        return Ok(());
    }
    let known = files.known(path);
    let failed = |source| LayerError::Write { source };
    files.pass(path, facts.size, &mut |bytes| {
        if known.is_none() {
            observer.data(bytes);
        }
        sink.write_all(bytes).map_err(failed)
    })?;
    if let Some(hash) = known {
        observer.known(hash);
    }
    header::write_padding(facts.size, sink).map_err(failed)
}

/// The files of a directory, opened one after the other.
pub struct DirectoryFiles {
    root: Root,
    below: Vec<u8>,
    parent: Option<(Vec<u8>, OwnedFd)>,
    buf: Vec<u8>,
}

impl DirectoryFiles {
    /// Reads files of `dir`, whose names in the archive stand below `below` (with a `/` at its end, or empty).
    pub fn new(dir: BorrowedFd<'_>, below: &[u8]) -> Result<Self> {
        let fd = dir.try_clone_to_owned().map_err(|e| PathError::io("duplicating", b"/", e))?;
        Ok(Self { root: Root::from_fd(fd), below: below.to_vec(), parent: None, buf: vec![0; CHUNK] })
    }

    fn open(&mut self, path: &[u8]) -> Result<File> {
        let (parent, name) = path::split(path.strip_prefix(self.below.as_slice()).unwrap_or(path)).unwrap_or_default();
        if self.parent.as_ref().is_none_or(|(at, _)| at != parent) {
            self.parent = Some((parent.to_vec(), self.root.open_dir_nolinks(parent)?));
        }
        let (_, dir) = self.parent.as_ref().expect("just set");
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|e| PathError::io("opening", path, e))?;
        Ok(File::from(fd))
    }
}

impl FileBytes for DirectoryFiles {
    fn pass(&mut self, path: &[u8], size: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut file = self.open(path)?;
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let n = match file.read(&mut self.buf[..want]) {
                Ok(0) => return Err(LayerError::Changed { path: printable(path) }),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(LayerError::File { path: printable(path), source }),
            };
            take(&self.buf[..n])?;
            left -= n as u64;
        }
        Ok(())
    }
}
