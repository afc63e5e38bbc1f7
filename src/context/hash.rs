//! Reads the files of a selection and fills in their digests; side by side, the stat cache first.
//!
//! A file may change while it is read. Its stamp is compared before and after, and it is read again; one that
//! never holds still is an error, since no digest would be true.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

use rayon::prelude::*;

use crate::digest::ContentDigest;
use crate::path::{Meta, Xattrs, printable, split, xattrs_at};

use super::error::{ContextError, SelectError};
use super::resolve;
use super::selection::{Node, SelectedSource};
use super::stat_cache::{StatCache, is_settled_at};
use super::tree::{SourceTree, Stamp, open_file};

/// How often a changing file is read before we give up.
const ATTEMPTS: usize = 3;
/// Files per task: enough that the tasks' own cost doesn't show, few enough to share among processors.
const BATCH: usize = 32;
const BUFFER: usize = 128 * 1024;
/// A file of at least this many bytes is read and hashed by all processors, a window at a time.
const LARGE_BYTES: u64 = 8 << 20;
const WINDOW_BYTES: usize = 4 << 20;
/// What one thread reads of a window.
const PIECE_BYTES: usize = 512 << 10;

/// How files are digested.
#[derive(Debug, Clone, Copy)]
pub struct Hashing<'a> {
    /// What is known from earlier; only asked for contexts.
    pub cache: Option<&'a StatCache>,
    /// The time, read before anything else happened: see [`super::stat_cache`].
    pub now: SystemTime,
}

struct Job {
    source: usize,
    entry: usize,
    path: Vec<u8>,
}

struct Hashed {
    digest: ContentDigest,
    stamp: Stamp,
    mode: u32,
    /// None: as they were.
    xattrs: Option<Xattrs>,
    settled: bool,
}

/// Fills in the digests of all regular files.
pub(super) fn fill(tree: &SourceTree, sources: &mut [SelectedSource], hashing: Hashing<'_>) -> Result<(), SelectError> {
    let cache = hashing.cache.filter(|_| tree.is_local());
    let mut jobs = Vec::new();
    for (source, s) in sources.iter_mut().enumerate() {
        for (entry, e) in s.entries.iter_mut().enumerate() {
            let Node::File(digest) = &mut e.node else { continue };
            if e.hard_link.is_some() {
                continue;
            }
            if let Some(known) = cache.and_then(|c| c.find(&e.stamp)) {
                *digest = known;
                e.settled = true;
                continue;
            }
            let path = resolve::join([s.path.as_slice(), &e.path].into_iter().filter(|p| !p.is_empty()));
            jobs.push(Job { source, entry, path });
        }
    }
    let hash = |batch: &[Job]| hash_batch(tree, sources, batch, hashing, cache);
    // One batch is not worth starting the threads for: usually there is none at all.
    let done: Result<Vec<Vec<Hashed>>, SelectError> =
        if jobs.len() <= BATCH { hash(&jobs).map(|done| vec![done]) } else { jobs.par_chunks(BATCH).map(hash).collect() };
    for (job, hashed) in jobs.iter().zip(done?.into_iter().flatten()) {
        let e = &mut sources[job.source].entries[job.entry];
        e.node = Node::File(hashed.digest);
        (e.stamp, e.mtime, e.mode, e.settled) = (hashed.stamp, hashed.stamp.mtime, hashed.mode, hashed.settled);
        if let Some(xattrs) = hashed.xattrs {
            e.xattrs = xattrs;
        }
    }
    for s in sources {
        for i in 0..s.entries.len() {
            if let Some(first) = s.entries[i].hard_link {
                let f = &s.entries[first];
                let (node, stamp, xattrs, settled) = (f.node.clone(), f.stamp, f.xattrs.clone(), f.settled);
                let e = &mut s.entries[i];
                (e.node, e.stamp, e.mtime, e.xattrs, e.settled) = (node, stamp, stamp.mtime, xattrs, settled);
            }
        }
    }
    Ok(())
}

fn hash_batch(
    tree: &SourceTree,
    sources: &[SelectedSource],
    batch: &[Job],
    hashing: Hashing<'_>,
    cache: Option<&StatCache>,
) -> Result<Vec<Hashed>, SelectError> {
    let mut buffer = vec![0; BUFFER];
    let mut directory: Option<(Vec<u8>, OwnedFd)> = None;
    let mut out = Vec::with_capacity(batch.len());
    for job in batch {
        let fail = |cause| SelectError { index: sources[job.source].source, cause };
        let (parent, name) = split(&job.path).ok_or_else(|| fail(ContextError::Changed { path: printable(&job.path) }))?;
        let dir = match directory.take() {
            Some((path, fd)) if path == parent => fd,
            _ => resolve::open_directory(tree.root(), parent).map_err(|e| fail(ContextError::io("opening directory", parent, e)))?,
        };
        let wanted = &sources[job.source].entries[job.entry];
        let hashed = hash_one(tree, dir.as_fd(), name, &job.path, wanted.mode, hashing, &mut buffer).map_err(fail)?;
        if let Some(cache) = cache
            && hashed.xattrs.as_ref().is_some_and(Vec::is_empty)
        {
            cache.remember(hashed.stamp, hashed.digest);
        }
        out.push(hashed);
        directory = Some((parent.to_vec(), dir));
    }
    Ok(out)
}

fn hash_one(
    tree: &SourceTree,
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    mode: u32,
    hashing: Hashing<'_>,
    buffer: &mut [u8],
) -> Result<Hashed, ContextError> {
    for _ in 0..ATTEMPTS {
        let io = |action| move |e: rustix::io::Errno| ContextError::io(action, path, e);
        let (mut file, before) = open_file(dir, name).map_err(io("reading"))?;
        let xattrs = if tree.is_local() { Some(xattrs_at(&file, b"").map_err(io("reading attributes of"))?) } else { None };
        let digest = digest_file(tree, &mut file, before.size, path, buffer)?;
        let after = Meta::from(&rustix::fs::fstat(&file).map_err(io("examining"))?);
        let before = tree.lasting(before);
        if tree.lasting(Stamp::from(&after)) == before {
            let settled = is_settled_at(&before, hashing.now);
            let mode = if tree.is_local() { after.mode } else { mode };
            return Ok(Hashed { digest, stamp: before, mode, xattrs, settled });
        }
    }
    Err(ContextError::Changed { path: printable(path) })
}

/// Digests all that `file` gives.
fn digest_file(tree: &SourceTree, file: &mut File, size: u64, path: &[u8], buffer: &mut [u8]) -> Result<ContentDigest, ContextError> {
    let failed = |e| ContextError::Io { action: "reading", path: printable(path), source: e };
    let mut h = blake3::Hasher::new();
    if size >= LARGE_BYTES {
        let mut window = vec![0; WINDOW_BYTES];
        let mut at = 0;
        loop {
            tree.go_on()?;
            let n = read_window(file, at, &mut window).map_err(failed)?;
            h.update_rayon(&window[..n]);
            at += n as u64;
            if n < window.len() {
                return Ok(ContentDigest::from_bytes(*h.finalize().as_bytes()));
            }
        }
    }
    loop {
        tree.go_on()?;
        match file.read(buffer) {
            Ok(0) => return Ok(ContentDigest::from_bytes(*h.finalize().as_bytes())),
            Ok(n) => {
                h.update(&buffer[..n]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

/// Fills `window` with what `file` has at a position, and returns how much that is: less than all of it at the file's end.
fn read_window(file: &File, at: u64, window: &mut [u8]) -> io::Result<usize> {
    let pieces = window.par_chunks_mut(PIECE_BYTES).enumerate();
    let read = pieces.map(|(n, piece)| read_piece(file, at + (n * PIECE_BYTES) as u64, piece)).collect::<io::Result<Vec<usize>>>()?;
    // A piece that came short is the last: whatever follows was written meanwhile.
    let whole = read.iter().take_while(|n| **n == PIECE_BYTES).count();
    Ok(whole * PIECE_BYTES + read.get(whole).copied().unwrap_or(0))
}

fn read_piece(file: &File, at: u64, piece: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < piece.len() {
        match file.read_at(&mut piece[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
