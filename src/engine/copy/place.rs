//! Puts selected files into directories that are at hand, replacing or merging as BuildKit does.
//!
//! A file replaces a file or link (which is removed first, so that nothing is written through another name); a
//! directory merges with a directory; the two never replace each other. Works along a stack of open
//! directories, so that no path is resolved twice. A directory's metadata is set when all that it holds is
//! there: its mode might forbid writing, and its times would move.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::context::{ContextError, Entry, Node, SelectedSource, SourceTree, Stamp, open_file, resolve};
use crate::path::{self, Attributes, FileKind, Ownership, PathError, Time, create_file_at, lstat_at, mknod_at, printable, split};

use super::chmod::Chmod;
use super::deferred::Deferred;
use super::dest::{Filled, Spot};
use super::error::CopyCause;
use super::file::{Copier, Fault};
use crate::engine::cancel::CancelToken;

/// How files are put down.
pub(super) struct Placer<'a> {
    pub(super) chmod: Option<&'a Chmod>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) ownership: Ownership,
    /// Whether the files become part of a layer, where some names have a meaning.
    pub(super) for_image: bool,
    /// Whether to end, asked before each file.
    pub(super) cancel: Option<&'a CancelToken>,
    pub(super) copier: Copier,
    /// Takes files in that need not be written; none: all are.
    pub(super) deferred: Option<Deferred>,
    /// Whether it may take in all that lands where nothing can be, not just big files.
    pub(super) whole_trees: bool,
}

/// Where a file comes from.
#[derive(Clone, Copy)]
struct From<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    /// The whole path in the tree, for messages.
    path: &'a [u8],
    entry: &'a Entry,
    /// It has one name in the selection: no other will be linked to it.
    single: bool,
}

/// Where it goes.
#[derive(Clone, Copy)]
struct To<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    /// The whole path in the image.
    path: &'a [u8],
}

/// A directory that is being filled.
struct Level<'a> {
    /// Below the source's directory.
    path: &'a [u8],
    from: OwnedFd,
    to: OwnedFd,
    /// What is set when it is full; none: it stays as it is.
    metadata: Option<&'a Entry>,
    /// This copy made it: nothing is in the way of what goes there.
    made: bool,
}

impl Placer<'_> {
    /// Puts files as they are: for what becomes part of no layer.
    pub(super) fn plain(ownership: Ownership) -> Self {
        let copier = Copier::new();
        Self { chmod: None, owner: None, ownership, for_image: false, cancel: None, copier, deferred: None, whole_trees: false }
    }

    /// Puts a selected file at `spot`.
    pub(super) fn single(&mut self, tree: &SourceTree, source: &SelectedSource, spot: &Spot) -> Result<(), CopyCause> {
        let Some(entry) = source.entries.first() else { return Ok(()) };
        let (parent, name) = split(&source.path).ok_or_else(|| CopyCause::Changed { path: "/".to_owned() })?;
        let from = resolve::open_directory(tree.root(), parent).map_err(|e| reading(parent, e))?;
        let from = From { dir: from.as_fd(), name, path: &source.path, entry, single: true };
        self.leaf(from, To { dir: spot.dir.as_fd(), name: &spot.name, path: &spot.path })
    }

    /// Puts what a selected directory holds into the directory `to`.
    pub(super) fn directory(&mut self, tree: &SourceTree, source: &SelectedSource, to: Filled) -> Result<(), CopyCause> {
        let Filled { dir: to, path: to_path, made } = to;
        let from = resolve::open_directory(tree.root(), &source.path).map_err(|e| reading(&source.path, e))?;
        let mut levels = vec![Level { path: b"", from, to, metadata: None, made }];
        // A file with further names is put down: these are linked to it.
        let linked: HashSet<usize> = source.entries.iter().filter_map(|e| e.hard_link).collect();
        for (n, entry) in source.entries.iter().enumerate() {
            let Some((parent, name)) = split(&entry.path) else { continue };
            while levels.len() > 1 && levels.last().is_some_and(|l| l.path != parent) {
                self.leave(&mut levels)?;
            }
            let level = levels.last().expect("the first level is never left");
            let in_tree = below(&source.path, &entry.path);
            let in_image = below(&to_path, &entry.path);
            let from = From { dir: level.from.as_fd(), name, path: &in_tree, entry, single: !linked.contains(&n) };
            let to = To { dir: level.to.as_fd(), name, path: &in_image };
            let free = level.made && entry.node != Node::Directory && from.single;
            if free && self.defer(from, to)? {
                continue;
            }
            if entry.node == Node::Directory {
                let next = self.enter(level, name, entry, &in_tree, &in_image)?;
                levels.push(next);
            } else if let Some(first) = entry.hard_link.map(|i| &source.entries[i]) {
                let top = levels[0].to.as_fd();
                if !self.link(top, &first.path, to)? {
                    self.leaf(from, to)?;
                }
            } else {
                self.leaf(from, to)?;
            }
        }
        while levels.len() > 1 {
            self.leave(&mut levels)?;
        }
        let top = levels.pop().expect("the first level is never left");
        path::set_times(&top.to, source.mtime).map_err(|e| writing("setting the times of", &to_path, e))
    }

    /// Leaves a file to whoever writes the layer's tar; no: it has to be put down.
    fn defer(&mut self, from: From<'_>, to: To<'_>) -> Result<bool, CopyCause> {
        if !self.whole_trees {
            return Ok(false);
        }
        let Some(mut deferred) = self.deferred.take() else { return Ok(false) };
        let attributes = self.attributes(from.entry);
        let taken =
            self.check_name(to.name, to.path).map(|()| deferred.take(from.dir, from.name, from.entry, &attributes, from.path, to.path));
        self.deferred = Some(deferred);
        taken
    }

    fn enter<'e>(&self, level: &Level<'_>, name: &[u8], entry: &'e Entry, in_tree: &[u8], in_image: &[u8]) -> Result<Level<'e>, CopyCause> {
        self.check_name(name, in_image)?;
        let made = match rustix::fs::mkdirat(&level.to, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(writing("creating directory", in_image, e)),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = rustix::fs::openat(&level.to, name, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOTDIR | Errno::LOOP => CopyCause::DirectoryOverFile { path: printable(in_image) },
            e => writing("opening directory", in_image, e),
        })?;
        let from = resolve::open_directory_at(level.from.as_fd(), name).map_err(|e| reading(in_tree, e))?;
        Ok(Level { path: &entry.path, from, to, metadata: (made || !entry.implied).then_some(entry), made })
    }

    fn leave(&self, levels: &mut Vec<Level<'_>>) -> Result<(), CopyCause> {
        if let Some(level) = levels.pop()
            && let Some(entry) = level.metadata
        {
            path::apply(&level.to, level.path, &self.attributes(entry), self.ownership)?;
        }
        Ok(())
    }

    /// Puts anything that is no directory.
    fn leaf(&mut self, from: From<'_>, to: To<'_>) -> Result<(), CopyCause> {
        let (name, in_image, entry) = (to.name, to.path, from.entry);
        self.check_name(name, in_image)?;
        if self.cancel.is_some_and(CancelToken::is_cancelled) {
            return Err(writing("creating", in_image, Errno::CANCELED));
        }
        self.clear(to)?;
        let to = to.dir;
        let made = match &entry.node {
            Node::Directory => return Ok(()),
            Node::File(_) => {
                let (mut source, stamp) = open_file(from.dir, from.name).map_err(|e| reading(from.path, e))?;
                let mut file = create_file_at(to, name, 0o600).map_err(|e| writing("creating", in_image, e))?;
                if !self.stands_in(from, &source, &stamp, in_image) {
                    self.copier.bytes(&mut source, &stamp, &mut file, entry).map_err(|fault| match fault {
                        Fault::Changed => CopyCause::Changed { path: printable(from.path) },
                        Fault::Read(e) => CopyCause::Io { action: "reading", path: printable(from.path), source: e },
                        Fault::Write(e) => CopyCause::Io { action: "writing", path: printable(in_image), source: e },
                    })?;
                }
                OwnedFd::from(file)
            }
            Node::Symlink(target) => {
                rustix::fs::symlinkat(target.as_slice(), to, name).map_err(|e| writing("creating link", in_image, e))?;
                open_path(to, name, in_image)?
            }
            // A tar has no word for sockets, and a name without its process is of no use to anybody.
            Node::Special(FileKind::Socket, _) => return Ok(()),
            Node::Special(FileKind::CharDevice, (0, 0)) => return Err(CopyCause::Whiteout { path: printable(in_image) }),
            Node::Special(kind, rdev) => {
                mknod_at(to, name, *kind, *rdev, self.ownership).map_err(|e| writing("creating device", in_image, e))?;
                open_path(to, name, in_image)?
            }
        };
        path::apply(&made, in_image, &self.attributes(entry), self.ownership)?;
        Ok(())
    }

    /// Leaves a big file's bytes to whoever writes the layer's tar: the empty file, with all else that it shall have,
    /// stands for it. No: the bytes have to be copied.
    fn stands_in(&mut self, from: From<'_>, open: &File, found: &Stamp, in_image: &[u8]) -> bool {
        match &mut self.deferred {
            Some(deferred) if from.single => deferred.stand_in(open, found, from.entry, from.path, in_image),
            _ => false,
        }
    }

    /// Puts a file that the caller holds: a heredoc, a download.
    pub(super) fn file(&mut self, content: &mut dyn std::io::Read, mode: u32, mtime: Time, spot: &Spot) -> Result<(), CopyCause> {
        self.check_name(&spot.name, &spot.path)?;
        self.clear(To { dir: spot.dir.as_fd(), name: &spot.name, path: &spot.path })?;
        let mut file: File = create_file_at(&spot.dir, &spot.name, 0o600).map_err(|e| writing("creating", &spot.path, e))?;
        std::io::copy(content, &mut file).map_err(|source| CopyCause::Io { action: "writing", path: printable(&spot.path), source })?;
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let mode = self.chmod.map_or(mode, |c| c.apply(mode, false));
        let attributes = Attributes { uid, gid, mode: Some(mode), mtime: Some(mtime), ..Attributes::default() };
        path::apply(&file, &spot.path, &attributes, self.ownership)?;
        Ok(())
    }

    /// Links a file to one that was put before; no: it has as many names as the file system allows.
    fn link(&mut self, top: BorrowedFd<'_>, first: &[u8], to: To<'_>) -> Result<bool, CopyCause> {
        let (name, in_image) = (to.name, to.path);
        self.check_name(name, in_image)?;
        self.clear(to)?;
        let (parent, first_name) = split(first).ok_or_else(|| CopyCause::Changed { path: printable(first) })?;
        let from = resolve::open_directory(top, parent).map_err(|e| writing("opening directory", in_image, e))?;
        match rustix::fs::linkat(&from, first_name, to.dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::MLINK) => Ok(false),
            Err(e) => Err(writing("creating hard link", in_image, e)),
        }
    }

    /// Removes the file or link that is to be replaced.
    fn clear(&mut self, to: To<'_>) -> Result<(), CopyCause> {
        match lstat_at(to.dir, to.name) {
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(writing("examining", to.path, e)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(CopyCause::FileOverDirectory { path: printable(to.path) });
            }
            Ok(_) => {}
        }
        rustix::fs::unlinkat(to.dir, to.name, AtFlags::empty()).map_err(|e| writing("removing", to.path, e))?;
        if let Some(deferred) = &mut self.deferred {
            deferred.replace(to.path);
        }
        Ok(())
    }

    fn check_name(&self, name: &[u8], in_image: &[u8]) -> Result<(), CopyCause> {
        match self.for_image && name.starts_with(b".wh.") {
            true => Err(CopyCause::ReservedName { path: printable(in_image) }),
            false => Ok(()),
        }
    }

    fn attributes(&self, entry: &Entry) -> Attributes {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let mode = match entry.node {
            Node::Symlink(_) => None,
            _ => Some(self.chmod.map_or(entry.mode, |c| c.apply(entry.mode, entry.node == Node::Directory))),
        };
        Attributes { uid, gid, mode, mtime: Some(entry.mtime), xattrs: entry.xattrs.clone() }
    }
}

fn open_path(dir: BorrowedFd<'_>, name: &[u8], in_image: &[u8]) -> Result<OwnedFd, CopyCause> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|e| writing("opening", in_image, e))
}

fn below(base: &[u8], path: &[u8]) -> Vec<u8> {
    resolve::join([base, path].into_iter().filter(|p| !p.is_empty()))
}

/// A source that was there when it was digested and can't be opened now.
fn reading(path: &[u8], e: Errno) -> CopyCause {
    match e {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL => CopyCause::Changed { path: printable(path) },
        e => CopyCause::Source(ContextError::Io { action: "reading", path: printable(path), source: e.into() }),
    }
}

fn writing(doing: &'static str, path: &[u8], e: Errno) -> CopyCause {
    CopyCause::Path(PathError::Io { doing, path: printable(path), source: e.into() })
}
