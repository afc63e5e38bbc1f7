//! Files of a copy that are not written into the layer's directory: its tar takes them straight from the source tree.
//!
//! A COPY that no later step looks at (the usual last one: `COPY . .`) then costs no inode a file, and each byte is
//! written once. The layer is the same, byte for byte, as nothing that is left out is ever replaced, merged or compared:
//!
//! - what lands where nothing can be, in directories that the same copy made, of a step with one source, is left out;
//! - elsewhere a big file is an empty one in the layer's directory that has everything but its bytes. It stands in for the
//!   file in whatever comes in between (other sources, the reduction to a change); its size and bytes come at the end.
//!
//! What a newcomer would get wrong: these files are read when the tar is written, after the step's key was made. Each
//! is checked then as [`super::file`] checks it: by its stamp before and after, or by its digest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, sync_channel};

use rayon::prelude::*;
use rustix::io::Errno;

use crate::context::{self, Entry, SourceTree, Stamp, open_file, resolve};
use crate::digest::ContentDigest;
use crate::engine::cancel::CancelToken;
use crate::layer::{DirectoryFiles, FileBytes, LayerError};
use crate::path::{Attributes, Meta, printable, split};
use crate::snapshot::diff::{self, Change, ChangeSet, NodeKind};

use super::file::has_holes;

/// Files up to this size are read ahead, several at once.
const SMALL_BYTES: u64 = 1 << 20;
/// How many bytes are read ahead at once; twice as many wait. Bounds the memory.
const WINDOW_BYTES: u64 = 4 << 20;
/// How many files are read ahead at once.
const WINDOW_FILES: usize = 1024;
/// Files a task: consecutive ones mostly share their directory.
const BATCH: usize = 32;
const CHUNK: usize = 256 * 1024;

/// What a copy left out, in the order of its change set.
#[derive(Debug, Default)]
pub struct Deferred {
    nodes: Vec<diff::Entry>,
    files: Vec<DeferredFile>,
    /// Files that an empty one stands in for, by their path in the image, until all is copied.
    stand_ins: BTreeMap<Vec<u8>, DeferredFile>,
}

/// A file that was left out.
#[derive(Debug)]
struct DeferredFile {
    in_image: Vec<u8>,
    in_tree: Vec<u8>,
    stamp: Stamp,
    settled: bool,
    digest: ContentDigest,
    /// The layer's directory has an empty file for it.
    stands_in: bool,
}

impl Deferred {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.files.is_empty()
    }

    /// Takes a file or link in, if it is one of the plain kind.
    pub(super) fn take(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        attributes: &Attributes,
        in_tree: &[u8],
        in_image: &[u8],
    ) -> bool {
        let (kind, mode) = match &entry.node {
            // Attributes may not be what they were once they are written: the file system has a say.
            _ if !entry.xattrs.is_empty() || entry.hard_link.is_some() => return false,
            context::Node::File(digest) => {
                let file = DeferredFile::new(entry, *digest, in_tree, in_image);
                // Who can't be opened says so when it is put down.
                if !file.is_small() && open_file(dir, name).is_ok_and(|(open, _)| has_holes(&open, file.stamp.size)) {
                    return false;
                }
                self.files.push(file);
                (NodeKind::File { size_bytes: entry.stamp.size }, attributes.mode.unwrap_or(entry.mode))
            }
            context::Node::Symlink(target) => (NodeKind::Symlink { target: target.clone() }, 0o777),
            _ => return false,
        };
        let (uid, gid, mtime) = (attributes.uid, attributes.gid, entry.mtime);
        let node = diff::Node { mode, uid, gid, mtime, xattrs: Vec::new(), kind };
        self.nodes.push(diff::Entry { path: in_image.to_vec(), change: Change::Upsert(Box::new(node)) });
        true
    }

    /// Takes in a file whose place an empty one has, if it is big: `open`, with stamp `found`.
    ///
    /// A file with holes stays one in the layer's directory; a tar has none.
    pub(super) fn stand_in(&mut self, open: &File, found: &Stamp, entry: &Entry, in_tree: &[u8], in_image: &[u8]) -> bool {
        let context::Node::File(digest) = entry.node else { return false };
        let file = DeferredFile { stands_in: true, ..DeferredFile::new(entry, digest, in_tree, in_image) };
        let takes = !file.is_small() && found.same_content(&entry.stamp) && !has_holes(open, found.size);
        if takes {
            self.stand_ins.insert(in_image.to_vec(), file);
        }
        takes
    }

    /// What stood in for a file made room for the next.
    pub(super) fn replace(&mut self, in_image: &[u8]) {
        self.stand_ins.remove(in_image);
    }

    /// All is copied: puts the files into the order of the change set.
    pub(super) fn finish(mut self) -> Self {
        self.files.extend(std::mem::take(&mut self.stand_ins).into_values());
        self.files.sort_by(|a, b| diff::compare_paths(&a.in_image, &b.in_image));
        self
    }

    /// Returns the whole change set: `written` is what the layer's directory has.
    ///
    /// # Errors
    /// [`LayerError::Changed`] when the empty file that stands in for one is not there.
    pub fn complete(&self, written: ChangeSet) -> Result<ChangeSet, LayerError> {
        let mut entries = written.entries;
        entries.extend(self.nodes.iter().cloned());
        // Stable: a directory's entry stays before its opaque mark.
        entries.sort_by(|a, b| diff::compare_paths(&a.path, &b.path));
        let mut stand_ins = self.files.iter().filter(|file| file.stands_in).peekable();
        for entry in &mut entries {
            if let Change::Upsert(node) = &mut entry.change
                && let NodeKind::File { size_bytes: size_bytes @ 0 } = &mut node.kind
                && let Some(file) = stand_ins.next_if(|file| file.in_image == entry.path)
            {
                *size_bytes = file.stamp.size;
            }
        }
        stand_ins.next().map_or(Ok(ChangeSet { entries }), |lost| Err(lost.changed()))
    }

    /// Returns the digests of the files that were left out, by path.
    pub fn digests(&self) -> HashMap<&[u8], blake3::Hash> {
        self.files.iter().map(|f| (f.in_image.as_slice(), blake3::Hash::from_bytes(*f.digest.as_bytes()))).collect()
    }

    /// Lets `work` read all files of the complete change set, once and in its order: those left out come from `tree`,
    /// the others from the layer's directory `written`.
    ///
    /// # Errors
    /// [`LayerError::Changed`] for a file that is not any more what the step's key was made of.
    pub fn reading<T>(
        &self,
        tree: &SourceTree,
        written: BorrowedFd<'_>,
        cancel: &CancelToken,
        work: impl FnOnce(&mut dyn FileBytes) -> Result<T, LayerError>,
    ) -> Result<T, LayerError> {
        std::thread::scope(|scope| {
            let (send, windows) = sync_channel(1);
            scope.spawn(move || {
                for window in windows_of(&self.files) {
                    let read = if cancel.is_cancelled() { Err(interrupted()) } else { read_window(tree, window) };
                    let over = read.is_err();
                    // Nobody listens any more when the work has failed already.
                    if send.send(read).is_err() || over {
                        return;
                    }
                }
            });
            let written = DirectoryFiles::new(written, b"")?;
            let mut files =
                Ahead { next: self.files.iter(), tree, written, cancel, windows, read: VecDeque::new(), buffer: vec![0; CHUNK] };
            let done = work(&mut files)?;
            // Empty files at the end: nobody asked for their bytes, but they are looked at like all others.
            while let Some(file) = files.next.next() {
                files.pass_deferred(file, &mut |_| Ok(()))?;
            }
            Ok(done)
        })
    }
}

/// Cuts the files into runs that are read at once.
fn windows_of(files: &[DeferredFile]) -> impl Iterator<Item = &[DeferredFile]> {
    let mut rest = files;
    std::iter::from_fn(move || {
        let (mut n, mut bytes) = (0, 0);
        while n < rest.len().min(WINDOW_FILES) && bytes < WINDOW_BYTES {
            bytes += if rest[n].is_small() { rest[n].stamp.size } else { 0 };
            n += 1;
        }
        let (window, after) = rest.split_at(n);
        rest = after;
        (n > 0).then_some(window)
    })
}

/// Reads a window's small files; a big one is none, and read when its turn comes.
fn read_window(tree: &SourceTree, window: &[DeferredFile]) -> Result<Vec<Option<Vec<u8>>>, LayerError> {
    let read = |batch: &[DeferredFile]| {
        let mut place = Place { tree, dir: None };
        batch.iter().map(|file| if file.is_small() { place.read(file).map(Some) } else { Ok(None) }).collect::<Result<Vec<_>, _>>()
    };
    let read: Vec<_> = window.par_chunks(BATCH).map(read).collect::<Result<_, _>>()?;
    Ok(read.into_iter().flatten().collect())
}

/// A source tree, and the directory in it that was opened last.
struct Place<'a> {
    tree: &'a SourceTree,
    dir: Option<(Vec<u8>, OwnedFd)>,
}

impl Place<'_> {
    fn open(&mut self, file: &DeferredFile) -> Result<File, LayerError> {
        let (parent, name) = split(&file.in_tree).ok_or_else(|| file.changed())?;
        if self.dir.as_ref().is_none_or(|(at, _)| at != parent) {
            let dir = resolve::open_directory(self.tree.root(), parent).map_err(|e| file.failed(e.into()))?;
            self.dir = Some((parent.to_vec(), dir));
        }
        let (_, dir) = self.dir.as_ref().expect("just set");
        let (open, stamp) = open_file(dir.as_fd(), name).map_err(|e| file.failed(e.into()))?;
        if stamp.same_content(&file.stamp) { Ok(open) } else { Err(file.changed()) }
    }

    fn read(&mut self, file: &DeferredFile) -> Result<Vec<u8>, LayerError> {
        let mut open = self.open(file)?;
        let size = usize::try_from(file.stamp.size).expect("a small file");
        let mut bytes = vec![0; size];
        open.read_exact(&mut bytes).map_err(|e| file.failed(e))?;
        file.check(&open, (!file.settled).then(|| blake3::hash(&bytes)))?;
        Ok(bytes)
    }
}

impl DeferredFile {
    fn new(entry: &Entry, digest: ContentDigest, in_tree: &[u8], in_image: &[u8]) -> Self {
        let (in_image, in_tree) = (in_image.to_vec(), in_tree.to_vec());
        Self { in_image, in_tree, stamp: entry.stamp, settled: entry.settled, digest, stands_in: false }
    }

    fn is_small(&self) -> bool {
        self.stamp.size <= SMALL_BYTES
    }

    /// Fails unless the file is the one of the step's key after it was read; `found` is needed where the stamp is no proof.
    fn check(&self, open: &File, found: Option<blake3::Hash>) -> Result<(), LayerError> {
        let after = rustix::fs::fstat(open).map_err(|e| self.failed(e.into()))?;
        let same = Stamp::from(&Meta::from(&after)).same_content(&self.stamp);
        let proven = found.is_none_or(|hash| hash.as_bytes() == self.digest.as_bytes());
        if same && proven { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> LayerError {
        LayerError::Changed { path: printable(&self.in_tree) }
    }

    /// A file that was there when it was digested: gone, replaced or cut short it has changed.
    fn failed(&self, source: std::io::Error) -> LayerError {
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => self.changed(),
            None if source.kind() == std::io::ErrorKind::UnexpectedEof => self.changed(),
            _ => LayerError::File { path: printable(&self.in_tree), source },
        }
    }
}

fn interrupted() -> LayerError {
    LayerError::Read { source: std::io::Error::other("interrupted") }
}

/// A window as it was read.
type Window = Result<Vec<Option<Vec<u8>>>, LayerError>;

/// The bytes of a change set's files, some of them read ahead.
struct Ahead<'a> {
    next: std::slice::Iter<'a, DeferredFile>,
    tree: &'a SourceTree,
    written: DirectoryFiles,
    cancel: &'a CancelToken,
    windows: Receiver<Window>,
    read: VecDeque<Option<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl Ahead<'_> {
    fn pass_deferred(&mut self, file: &DeferredFile, take: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>) -> Result<(), LayerError> {
        if self.read.is_empty() {
            self.read = self.windows.recv().map_err(|_| interrupted())??.into();
        }
        match self.read.pop_front().expect("a window is never empty") {
            Some(bytes) if bytes.is_empty() => Ok(()),
            Some(bytes) => take(&bytes),
            None => self.pass_big(file, take),
        }
    }

    fn pass_big(&mut self, file: &DeferredFile, take: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>) -> Result<(), LayerError> {
        let mut open = Place { tree: self.tree, dir: None }.open(file)?;
        let mut hasher = (!file.settled).then(blake3::Hasher::new);
        let mut left = file.stamp.size;
        while left > 0 {
            if self.cancel.is_cancelled() {
                return Err(interrupted());
            }
            let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            open.read_exact(&mut self.buffer[..want]).map_err(|e| file.failed(e))?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&self.buffer[..want]);
            }
            take(&self.buffer[..want])?;
            left -= want as u64;
        }
        file.check(&open, hasher.map(|h| h.finalize()))
    }
}

impl FileBytes for Ahead<'_> {
    fn known(&self, path: &[u8]) -> Option<blake3::Hash> {
        let file = self.next.as_slice().iter().find(|f| f.stamp.size > 0)?;
        (file.in_image == path).then(|| blake3::Hash::from_bytes(*file.digest.as_bytes()))
    }

    fn pass(&mut self, path: &[u8], size: u64, take: &mut dyn FnMut(&[u8]) -> Result<(), LayerError>) -> Result<(), LayerError> {
        if self.known(path).is_none() {
            return self.written.pass(path, size, take);
        }
        // Empty ones come before it: they are looked at, and give nothing.
        while let Some(file) = self.next.next() {
            self.pass_deferred(file, take)?;
            if file.in_image == path {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "deferred_tests.rs"]
mod tests;
