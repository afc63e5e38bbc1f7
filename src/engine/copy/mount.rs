//! What a bind mount of a build context shows: the place itself where that is exact, else a filtered copy.
//!
//! A mount can't filter, so what ignore rules hide must be gone from the directory that is mounted. Nor can it
//! change owners: a context's files count as 0:0 for COPY, and a RUN that copies them out of a mount must give
//! the same result. Where both hold already, nothing is copied.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::context::{ContextError, Node, Selection, SourceTree, resolve};
use crate::path::{self, Attributes, Ownership, PathError, Root, printable};

use super::dest::{Filled, Spot};
use super::error::CopyCause;
use super::place::Placer;

/// Returns what to mount (`O_PATH`) when the place itself shows exactly `selection`; none: it must be staged.
///
/// `selection` is [`crate::context::select_mount`]'s. A root file system is always mounted as it is.
pub fn open_bind(tree: &SourceTree, selection: &Selection) -> Result<Option<OwnedFd>, CopyCause> {
    let Some(source) = selection.sources.first().filter(|s| s.as_is || !tree.is_local()) else { return Ok(None) };
    let place = resolve::resolve(tree.root(), &source.path)?;
    // The path was free of links; a link now would be somebody's trick.
    if !place.missing.is_empty() || !place.links.is_empty() {
        return Err(CopyCause::Changed { path: printable(&source.path) });
    }
    let fd = place.fd(tree.root()).try_clone_to_owned();
    fd.map(Some).map_err(|e| ContextError::Io { action: "opening", path: printable(&source.path), source: e }.into())
}

/// Copies `selection` into `staging`, an empty directory, and returns what to mount (`O_PATH`).
pub fn stage_bind(tree: &SourceTree, selection: &Selection, staging: &Root, ownership: Ownership) -> Result<OwnedFd, CopyCause> {
    let name = b"mount".as_slice();
    let dir = staging.try_clone()?.into_fd();
    let spot = Spot { dir, name: name.to_vec(), path: name.to_vec() };
    let mut placer = Placer::plain(ownership);
    let open = |flags| {
        rustix::fs::openat(staging.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags, Mode::empty())
            .map_err(|e| CopyCause::Path(PathError::Io { doing: "opening", path: printable(name), source: e.into() }))
    };
    let Some(source) = selection.sources.first() else { return Err(CopyCause::NotFetched) };
    if !source.directory {
        placer.single(tree, source, &spot)?;
        return open(OFlags::empty());
    }
    staging.mkdir_all(name, 0o700, None, ownership)?;
    placer.directory(tree, source, Filled { dir: open(OFlags::DIRECTORY)?, path: name.to_vec(), made: true })?;
    let made = open(OFlags::DIRECTORY)?;
    // The first entry is the directory itself, see `select_mount`.
    if let Some(root) = source.entries.first().filter(|e| e.path.is_empty() && e.node == Node::Directory) {
        let attributes =
            Attributes { uid: root.uid, gid: root.gid, mode: Some(root.mode), mtime: Some(root.mtime), xattrs: root.xattrs.clone() };
        path::apply(&made, name, &attributes, ownership)?;
    }
    Ok(made)
}

/// Copies what `selection` shows, a directory, into the existing directory `root`: the seed of a cache mount.
pub fn fill(tree: &SourceTree, selection: &Selection, root: &Root, ownership: Ownership) -> Result<(), CopyCause> {
    let Some(source) = selection.sources.first() else { return Err(CopyCause::NotFetched) };
    let mut placer = Placer::plain(ownership);
    let to = root.try_clone()?.into_fd();
    if source.directory {
        return placer.directory(tree, source, Filled { dir: to, path: Vec::new(), made: false });
    }
    let spot = Spot { dir: to, name: source.name.clone(), path: source.name.clone() };
    placer.single(tree, source, &spot)
}
