//! Lists what a step takes from one directory of a tree, in order: a directory before what it holds, names sorted.
//!
//! Three filters meet here. *Ignore* rules say what the context has at all: a hidden directory is there all the
//! same when something visible lies in it. `--exclude` and `--parents` patterns say what is taken: a directory
//! that isn't taken, but holds something that is, is *implied*. A newcomer would drop such directories with
//! their metadata, or walk into `node_modules` for a pattern that can't match there.
//!
//! No system call is made here: [`super::scan`] has looked at everything before, in whatever order.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use crate::dockerfile::ignore::IgnoreRules;
use crate::path::{FileKind, Meta};

use super::error::ContextError;
use super::filter::Include;
use super::resolve;
use super::scan::{Item, Listing, Outcome, Scan};
use super::selection::{Entry, Node};
use super::tree::{SourceTree, Stamp};

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
    /// Below the source.
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
    /// Its items are taken out one by one.
    listing: Listing,
    /// How long the path is here.
    length: usize,
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
            path: Vec::new(),
        }
    }

    /// Lists the directory `dir`, which lies at `source` in the tree.
    pub(super) fn run(&mut self, dir: BorrowedFd<'_>, source: &[u8]) -> Result<(), ContextError> {
        let scan = Scan { tree: self.tree, include: self.include, exclude: self.exclude, source };
        let mut listings: Vec<Option<Outcome>> = scan.run(dir).into_iter().map(Some).collect();
        self.entries.reserve(listings.iter().flatten().flatten().map(|listing| listing.items.len()).sum());
        let mut take = |index: usize| listings[index].take().expect("each directory has one listing, and is entered once");
        let mut levels = vec![Level { listing: take(0)?, length: 0 }];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.length);
            let Some(item) = level.listing.items.pop_front() else {
                levels.pop();
                self.above.truncate(levels.len().saturating_sub(1));
                continue;
            };
            resolve::push(&mut self.path, level.listing.name(&item));
            let below = item.below.map(&mut take).transpose()?;
            if let Some(listing) = self.child(item, below) {
                levels.push(Level { listing, length: self.path.len() });
            }
        }
        Ok(())
    }

    /// Lists one item; a directory that was entered stands in `above` until it is left, and gives what it holds.
    fn child(&mut self, item: Item, mut below: Option<Listing>) -> Option<Listing> {
        if below.as_ref().is_some_and(|listing| listing.gone) {
            return None;
        }
        let Item { meta, decision, node, .. } = item;
        self.include_matched |= decision.included && !decision.hidden;
        self.as_is &= !decision.hidden && decision.taken && self.tree.owner(&meta) == (meta.uid, meta.gid);
        if !decision.hidden {
            self.reveal();
        }
        if meta.kind != FileKind::Directory {
            if !decision.hidden && decision.taken {
                self.list_above();
                let xattrs = item.xattrs.unwrap_or_default();
                let entry = Entry { xattrs, ..entry(self.tree, &self.path, &meta, node) };
                self.add(entry, &meta);
            }
            return None;
        }
        let own = below.as_mut()?.xattrs.take();
        let xattrs = item.xattrs.or(own).unwrap_or_default();
        let entry = Entry { xattrs, ..entry(self.tree, &self.path, &meta, node) };
        self.above.push(Above { entry: Some(entry), hidden: decision.hidden, taken: decision.taken });
        if !decision.hidden && decision.taken {
            self.list_above();
        }
        below
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
}

/// Makes an entry without attributes; a regular file's digest is yet to come.
pub(super) fn entry(tree: &SourceTree, path: &[u8], meta: &Meta, node: Node) -> Entry {
    let (uid, gid) = tree.owner(meta);
    Entry {
        path: path.to_vec(),
        node,
        mode: meta.mode,
        uid,
        gid,
        mtime: meta.mtime,
        xattrs: Vec::new(),
        hard_link: None,
        implied: false,
        stamp: tree.lasting(Stamp::from(meta)),
        settled: false,
    }
}
