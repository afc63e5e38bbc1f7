//! Reads the directories below a source, side by side, and has what they hold judged.
//!
//! System calls are what a walk costs, so they are made here, a level of the tree at a time, by all processors; the
//! order of the files and what hangs on it is [`super::walk`]'s. A directory is opened by its path below the source, no
//! component of which may be a link: no descriptor waits for its turn, however wide and deep the tree is. What vanishes
//! between being listed and being looked at counts as never seen.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rayon::prelude::*;
use rustix::fs::RawDir;
use rustix::io::Errno;

use crate::digest::ContentDigest;
use crate::dockerfile::ignore::IgnoreRules;
use crate::path::{FileKind, Meta, Xattrs, link_target_at, printable, xattrs_at};

use super::error::ContextError;
use super::filter::{Decision, Filters, Include, Trails};
use super::resolve;
use super::selection::Node;
use super::tree::SourceTree;

/// How deep directories may be nested: more is an accident, such as a tree that is mounted below itself.
const MAX_DEPTH: usize = 500;
/// Fewer directories than this are read one after the other: starting threads would cost more.
const FEW_DIRECTORIES: usize = 8;
/// Names of one directory that are looked at by one thread in one go.
const NAMES_A_TASK: usize = 512;
/// For getdents64(2); the C library's size.
const BUFFER_BYTES: usize = 32 * 1024;

/// What one directory holds, or why it can't be read.
pub(super) type Outcome = Result<Listing, ContextError>;

/// What one directory holds.
#[derive(Default)]
pub(super) struct Listing {
    names: Vec<u8>,
    /// Sorted by name.
    pub(super) items: VecDeque<Item>,
    /// The directory's own; none: they came with it.
    pub(super) xattrs: Option<Xattrs>,
    /// It vanished meanwhile.
    pub(super) gone: bool,
}

/// One name in a directory.
pub(super) struct Item {
    name: Range<usize>,
    pub(super) meta: Meta,
    /// None: to be read with the bytes, or with the directory.
    pub(super) xattrs: Option<Xattrs>,
    /// What it is; of a link that isn't taken, without its target.
    pub(super) node: Node,
    pub(super) decision: Decision,
    /// Which listing is of this directory; none: it is none, or nothing below it can be wanted.
    pub(super) below: Option<usize>,
}

impl Listing {
    /// Returns the name of one of the items.
    pub(super) fn name(&self, item: &Item) -> &[u8] {
        &self.names[item.name.clone()]
    }
}

/// A directory to be read.
struct Job {
    /// Below the source.
    path: Vec<u8>,
    trails: Trails,
}

/// How one source directory is read.
pub(super) struct Scan<'a> {
    pub(super) tree: &'a SourceTree,
    pub(super) include: Option<&'a Include>,
    pub(super) exclude: Option<&'a IgnoreRules>,
    /// The source directory, from the tree's root.
    pub(super) source: &'a [u8],
}

impl Scan<'_> {
    /// Reads `dir`, the source, and all below it that may matter; the first of the listings is the source's own.
    pub(super) fn run(&self, dir: BorrowedFd<'_>) -> Vec<Outcome> {
        let mut out = Vec::new();
        let mut level = vec![Job { path: Vec::new(), trails: self.filters().trails_of_source(self.source) }];
        for depth in 0.. {
            let read = |job: &Job| self.read(dir, job, depth);
            let found: Vec<_> = match level.len() {
                0 => break,
                n if n < FEW_DIRECTORIES => level.iter().map(read).collect(),
                _ => level.par_iter().map(read).collect(),
            };
            let next = out.len() + found.len();
            let mut below = Vec::new();
            out.extend(found.into_iter().map(|found| {
                let (mut listing, jobs) = found?;
                for (at, job) in jobs {
                    listing.items[at].below = Some(next + below.len());
                    below.push(job);
                }
                Ok(listing)
            }));
            level = below;
        }
        out
    }

    fn filters(&self) -> Filters<'_> {
        Filters { ignore: self.tree.ignore(), exclude: self.exclude, include: self.include }
    }

    /// Reads one directory; with it come the directories to be read next, by their place in the listing.
    fn read(&self, source: BorrowedFd<'_>, job: &Job, depth: usize) -> Result<(Listing, Vec<(usize, Job)>), ContextError> {
        let mut here = Here { tree: self.source.to_vec(), below: job.path.clone() };
        resolve::push(&mut here.tree, &job.path);
        if depth > MAX_DEPTH {
            return Err(ContextError::TooDeep { path: printable(&here.tree), limit: MAX_DEPTH });
        }
        let dir = match resolve::open_directory(source, &job.path) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok((Listing { gone: true, ..Listing::default() }, Vec::new())),
            Err(e) => return Err(ContextError::io("opening directory", &here.tree, e)),
        };
        let xattrs = if self.tree.is_local() && depth > 0 {
            Some(xattrs_at(&dir, b"").map_err(|e| ContextError::io("reading attributes of", &here.tree, e))?)
        } else {
            None
        };
        let (names, ranges) = names_in(&dir).map_err(|e| ContextError::io("reading directory", &here.tree, e))?;
        let look = |ranges: &[Range<usize>]| {
            let (mut here, mut items, mut jobs) = (here.clone(), Vec::with_capacity(ranges.len()), Vec::new());
            for name in ranges {
                if let Some((item, job)) = self.look(dir.as_fd(), &names, name, &job.trails, &mut here)? {
                    jobs.extend(job.map(|job| (items.len(), job)));
                    items.push(item);
                }
            }
            Ok::<_, ContextError>((items, jobs))
        };
        let (items, jobs) = if ranges.len() <= NAMES_A_TASK {
            look(&ranges)?
        } else {
            let (mut items, mut jobs) = (Vec::with_capacity(ranges.len()), Vec::new());
            for (found, new) in ranges.par_chunks(NAMES_A_TASK).map(look).collect::<Result<Vec<_>, _>>()? {
                jobs.extend(new.into_iter().map(|(at, job)| (items.len() + at, job)));
                items.extend(found);
            }
            (items, jobs)
        };
        Ok((Listing { names, items: items.into(), xattrs, gone: false }, jobs))
    }

    /// Looks at one name; a directory to be entered comes with its job. None: it has gone.
    fn look(
        &self,
        dir: BorrowedFd<'_>,
        names: &[u8],
        range: &Range<usize>,
        trails: &Trails,
        here: &mut Here,
    ) -> Result<Option<(Item, Option<Job>)>, ContextError> {
        self.tree.go_on()?;
        let name = &names[range.clone()];
        let lengths = here.enter(name);
        let found = self.tree.meta(dir, name).and_then(|(meta, xattrs)| {
            let (decision, below) = self.filters().decide(trails, &here.tree, &here.below, meta.kind == FileKind::Directory);
            let node = node_of(dir, name, &meta, !decision.hidden && decision.taken)?;
            let job = decision.enter.then(|| Job { path: here.below.clone(), trails: below });
            Ok((Item { name: range.clone(), meta, xattrs, node, decision, below: None }, job))
        });
        let found = match found {
            Ok(found) => Some(found),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(ContextError::io("examining", &here.tree, e)),
        };
        here.leave(lengths);
        Ok(found)
    }
}

/// The current path, from the tree's root and below the source.
#[derive(Clone)]
struct Here {
    tree: Vec<u8>,
    below: Vec<u8>,
}

impl Here {
    fn enter(&mut self, name: &[u8]) -> (usize, usize) {
        let before = (self.tree.len(), self.below.len());
        resolve::push(&mut self.tree, name);
        resolve::push(&mut self.below, name);
        before
    }

    fn leave(&mut self, (tree, below): (usize, usize)) {
        self.tree.truncate(tree);
        self.below.truncate(below);
    }
}

/// Returns the names in a directory, one after the other, and where each is, sorted by their bytes.
fn names_in(dir: &OwnedFd) -> rustix::io::Result<(Vec<u8>, Vec<Range<usize>>)> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut raw = RawDir::new(dir, buffer.spare_capacity_mut());
    let (mut names, mut ranges) = (Vec::new(), Vec::new());
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            ranges.push(names.len()..names.len() + name.len());
            names.extend_from_slice(name);
        }
    }
    ranges.sort_unstable_by(|a, b| names[a.clone()].cmp(&names[b.clone()]));
    Ok((names, ranges))
}

/// Returns what `name` in `dir` is; a regular file's digest is yet to come, and so is the target of a link that isn't `wanted`.
pub(super) fn node_of(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta, wanted: bool) -> rustix::io::Result<Node> {
    Ok(match meta.kind {
        FileKind::Directory => Node::Directory,
        FileKind::File => Node::File(ContentDigest::from_bytes([0; 32])),
        FileKind::Symlink if wanted => Node::Symlink(link_target_at(dir, name)?),
        FileKind::Symlink => Node::Symlink(Vec::new()),
        kind => Node::Special(kind, meta.rdev),
    })
}
