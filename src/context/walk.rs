//! Walks one directory of a tree and lists what a step takes from it.
//!
//! Three filters meet here. *Ignore* rules say what the context has at all: a hidden directory is there all the
//! same when something visible lies in it. `--exclude` and `--parents` patterns say what is taken: a directory
//! that isn't taken, but holds something that is, is *implied*. A newcomer would drop such directories with
//! their metadata, or walk into `node_modules` for a pattern that can't match there.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::digest::ContentDigest;
use crate::path::{FileKind, Meta, Xattrs, link_target_at, printable, xattrs_at};

use super::error::ContextError;
use super::resolve;
use super::selection::{Entry, Node};
use super::tree::{SourceTree, Stamp, list};
use crate::dockerfile::ignore::{IgnoreRules, Trail, Verdict, path_match};

/// How deep directories may be nested. One descriptor a level is held, and 1024 are allowed by default.
const MAX_DEPTH: usize = 500;

/// A `--parents` pattern, below the source's pivot.
#[derive(Debug)]
pub(super) struct Include {
    rules: IgnoreRules,
    components: Vec<String>,
}

impl Include {
    /// Compiles a cleaned pattern.
    pub(super) fn parse(pattern: &str) -> Result<Self, ContextError> {
        let rules =
            IgnoreRules::from_patterns([pattern]).map_err(|source| ContextError::Pattern { pattern: pattern.to_owned(), source })?;
        Ok(Self { rules, components: pattern.split('/').map(str::to_owned).collect() })
    }

    /// Whether something below the directory `path` can match; errs on the side of yes.
    fn may_match_below(&self, path: &[u8]) -> bool {
        for (i, name) in resolve::components(path).enumerate() {
            match self.components.get(i) {
                None => return false,
                Some(p) if p.contains("**") => return true,
                Some(p) => {
                    if !path_match(p, name).unwrap_or(true) {
                        return false;
                    }
                }
            }
        }
        true
    }
}

/// Lists one source directory.
pub(super) struct Walk<'a> {
    tree: &'a SourceTree,
    include: Option<&'a Include>,
    exclude: Option<&'a IgnoreRules>,
    /// The files taken, digests of regular files still to be filled in.
    pub(super) entries: Vec<Entry>,
    /// Whether the directory holds anything that isn't hidden.
    pub(super) anything_visible: bool,
    /// Whether the include pattern matched anything that isn't hidden, taken or not.
    pub(super) include_matched: bool,
    /// Whether the directory itself shows exactly what is listed: nothing hidden or left out, owners as they count.
    pub(super) as_is: bool,
    inodes: HashMap<(u64, u64), usize>,
    /// The directories that are being walked, topmost first; the source itself isn't among them.
    above: Vec<Above>,
    /// Path from the tree's root, and from the source's directory.
    tree_path: Vec<u8>,
    path: Vec<u8>,
}

struct Above {
    /// Until it is listed.
    entry: Option<Entry>,
    /// By ignore rules, as far as seen.
    hidden: bool,
    taken: bool,
}

/// A directory that is being listed.
struct Level {
    dir: OwnedFd,
    /// What is still to come.
    names: std::vec::IntoIter<Vec<u8>>,
    trails: Trails,
    /// How long the two paths are here.
    tree_length: usize,
    length: usize,
}

#[derive(Default)]
struct Trails {
    ignore: Trail,
    exclude: Trail,
    include: Trail,
}

struct Decision {
    hidden: bool,
    /// By the include pattern alone.
    included: bool,
    taken: bool,
    /// Whether a directory must be entered.
    enter: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a SourceTree, include: Option<&'a Include>, exclude: Option<&'a IgnoreRules>) -> Self {
        Self {
            tree,
            include,
            exclude,
            entries: Vec::new(),
            anything_visible: false,
            include_matched: false,
            as_is: true,
            inodes: HashMap::new(),
            above: Vec::new(),
            tree_path: Vec::new(),
            path: Vec::new(),
        }
    }

    /// Lists the directory `dir`, which lies at `tree_path`.
    pub(super) fn run(&mut self, dir: BorrowedFd<'_>, tree_path: &[u8]) -> Result<(), ContextError> {
        self.tree_path = tree_path.to_vec();
        let mut trails = Trails::default();
        if let Some(ignore) = self.tree.ignore() {
            let mut so_far = Vec::new();
            for name in resolve::components(tree_path) {
                push(&mut so_far, name);
                trails.ignore = ignore.enter(&trails.ignore, &so_far, true).1;
            }
        }
        let mut levels = vec![self.level(dir.try_clone_to_owned().map_err(|e| self.io("opening directory", e))?, trails)?];
        while let Some(level) = levels.last_mut() {
            self.tree_path.truncate(level.tree_length);
            self.path.truncate(level.length);
            self.tree.go_on()?;
            let Some(name) = level.names.next() else {
                levels.pop();
                self.above.truncate(levels.len().saturating_sub(1));
                continue;
            };
            push(&mut self.tree_path, &name);
            push(&mut self.path, &name);
            if let Some((opened, below)) = self.child(level.dir.as_fd(), &name, &level.trails)? {
                if levels.len() > MAX_DEPTH {
                    return Err(ContextError::TooDeep { path: printable(&self.tree_path), limit: MAX_DEPTH });
                }
                levels.push(self.level(opened, below)?);
            }
        }
        Ok(())
    }

    fn level(&self, dir: OwnedFd, trails: Trails) -> Result<Level, ContextError> {
        let names = list(dir.as_fd()).map_err(|e| ContextError::path(&self.tree_path, e))?.into_iter();
        Ok(Level { dir, names, trails, tree_length: self.tree_path.len(), length: self.path.len() })
    }

    /// Lists one name in `dir`; a directory to be entered is returned, and stands in `above` until it is left.
    fn child(&mut self, dir: BorrowedFd<'_>, name: &[u8], trails: &Trails) -> Result<Option<(OwnedFd, Trails)>, ContextError> {
        let (meta, xattrs) = match self.tree.meta(dir, name) {
            Ok(found) => found,
            // Gone since the directory was listed: as if it had gone before.
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.io("examining", e)),
        };
        let is_directory = meta.kind == FileKind::Directory;
        let (decision, below) = self.decide(trails, is_directory);
        self.include_matched |= decision.included && !decision.hidden;
        self.as_is &= !decision.hidden && decision.taken && self.tree.owner(&meta) == (meta.uid, meta.gid);
        if !decision.hidden {
            self.reveal();
        }
        if !is_directory {
            if !decision.hidden && decision.taken {
                self.list_above();
                let entry = self.entry(dir, name, &meta, xattrs)?;
                self.add(entry, &meta);
            }
            return Ok(None);
        }
        if !decision.enter {
            return Ok(None);
        }
        let opened = resolve::open_directory_at(dir, name).map_err(|e| self.io("opening directory", e))?;
        let xattrs = match xattrs {
            Some(xattrs) => xattrs,
            None => xattrs_at(&opened, b"").map_err(|e| self.io("reading attributes of", e))?,
        };
        let entry = self.entry(dir, name, &meta, Some(xattrs))?;
        self.above.push(Above { entry: Some(entry), hidden: decision.hidden, taken: decision.taken });
        if !decision.hidden && decision.taken {
            self.list_above();
        }
        Ok(Some((opened, below)))
    }

    /// Asks all filters about the current path.
    fn decide(&self, trails: &Trails, is_directory: bool) -> (Decision, Trails) {
        let mut below = Trails::default();
        let mut d = Decision { hidden: false, included: false, taken: true, enter: is_directory };
        if let Some(rules) = self.tree.ignore() {
            let (verdict, trail) = rules.enter(&trails.ignore, &self.tree_path, is_directory);
            below.ignore = trail;
            d.hidden = verdict != Verdict::Keep;
            d.enter &= verdict != Verdict::Ignore;
        }
        if let Some(rules) = self.exclude {
            let (verdict, trail) = rules.enter(&trails.exclude, &self.path, is_directory);
            below.exclude = trail;
            d.taken &= verdict == Verdict::Keep;
            d.enter &= verdict != Verdict::Ignore;
        }
        if let Some(include) = self.include {
            let (verdict, trail) = include.rules.enter(&trails.include, &self.path, is_directory);
            below.include = trail;
            let matched = verdict != Verdict::Keep;
            d.included = matched;
            d.taken &= matched;
            d.enter &= matched || include.may_match_below(&self.path);
        }
        (d, below)
    }

    /// Notes that something visible was found here: then the directories around it are in the context too.
    fn reveal(&mut self) {
        self.anything_visible = true;
        for i in 0..self.above.len() {
            if std::mem::take(&mut self.above[i].hidden) && self.above[i].taken {
                self.list_up_to(i);
            }
        }
    }

    /// Lists all directories around the current path.
    fn list_above(&mut self) {
        if let Some(last) = self.above.len().checked_sub(1) {
            self.list_up_to(last);
        }
    }

    fn list_up_to(&mut self, last: usize) {
        for above in &mut self.above[..=last] {
            if let Some(mut entry) = above.entry.take() {
                // With `--parents`, existing directories keep what they have, whether they match or not.
                entry.implied = !above.taken || self.include.is_some();
                self.entries.push(entry);
            }
        }
    }

    fn add(&mut self, mut entry: Entry, meta: &Meta) {
        if meta.kind == FileKind::File && meta.nlink > 1 {
            let index = self.entries.len();
            let first = *self.inodes.entry((meta.dev, meta.ino)).or_insert(index);
            entry.hard_link = (first != index).then_some(first);
        }
        self.entries.push(entry);
    }

    fn entry(&self, dir: BorrowedFd<'_>, name: &[u8], meta: &Meta, xattrs: Option<Xattrs>) -> Result<Entry, ContextError> {
        entry(self.tree, dir, name, &self.path, meta, xattrs).map_err(|e| self.io("reading link", e))
    }

    fn io(&self, action: &'static str, e: impl Into<std::io::Error>) -> ContextError {
        ContextError::io(action, &self.tree_path, e)
    }
}

/// Makes the entry of `name` in `dir`; a regular file's digest is yet to come.
pub(super) fn entry(
    tree: &SourceTree,
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    meta: &Meta,
    xattrs: Option<Xattrs>,
) -> rustix::io::Result<Entry> {
    let node = match meta.kind {
        FileKind::Directory => Node::Directory,
        FileKind::File => Node::File(ContentDigest::from_bytes([0; 32])),
        FileKind::Symlink => Node::Symlink(link_target_at(dir, name)?),
        kind => Node::Special(kind, meta.rdev),
    };
    let (uid, gid) = tree.owner(meta);
    Ok(Entry {
        path: path.to_vec(),
        node,
        mode: meta.mode,
        uid,
        gid,
        mtime: meta.mtime,
        xattrs: xattrs.unwrap_or_default(),
        hard_link: None,
        implied: false,
        stamp: Stamp::from(meta),
        settled: false,
    })
}

fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
