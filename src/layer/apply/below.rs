//! What a layer says of the layers below it: names that are gone, and files that get a further name.
//!
//! A whiteout hides what lies *below*, never what the same layer has (OCI image spec, layer.md); a hard link to a
//! lower layer's file needs that file in this layer, so it is copied up first.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Apply, Below, found, is_directory, is_whiteout, join, open_nofollow, refuse};
use crate::fsio;
use crate::layer::{LayerError, Result};
use crate::path::{self, Attributes, FileKind, Meta, Ownership, PathError, Root, printable};
use crate::snapshot::overlay;

impl Apply<'_> {
    /// Returns the directory that holds a hard link's target; a target of a lower layer is copied up first.
    pub(super) fn link_source(&mut self, parent: &[u8], name: &[u8], at: &[u8]) -> Result<OwnedFd> {
        let located = self.located(parent);
        let here = match self.root.resolve(&located) {
            Ok(fd) => Some(fd),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e.into()),
        };
        let removed = || refuse(at, "the hard link's target was removed");
        if let Some(dir) = here
            && found(&dir, name, at)?.is_some()
        {
            return if self.below.is_some() && is_whiteout(&dir, name, at)? { Err(removed()) } else { Ok(dir) };
        }
        let below = match self.below {
            None | Some(Below::Nothing) => return Err(refuse(at, "the hard link's target does not exist")),
            Some(Below::Unknown) => return Err(LayerError::NeedsBelow { path: printable(at) }),
            Some(Below::Tree(below)) => below,
        };
        // Links on the way may be of this layer or of those below: `dir` is where they lead.
        let dir = self.existing_parent(&located)?.ok_or_else(|| refuse(at, "the hard link's target does not exist"))?;
        let path = join(&dir.at, name);
        if self.hidden(&path)? {
            return Err(removed());
        }
        let lower = match below.open_dir_nolinks(&dir.at) {
            Ok(lower) => lower,
            Err(e) if e.is_not_found() => return Err(refuse(at, "the hard link's target does not exist")),
            Err(e) => return Err(e.into()),
        };
        copy_up(&lower, &dir.fd, name, &path, self.ownership)?;
        self.copied_up.insert(path);
        dir.fd.try_clone().map_err(|e| PathError::io("duplicating", &located, e).into())
    }

    pub(super) fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        if !self.has_lowers() {
            return Ok(());
        }
        let Some(dir) = self.existing_parent(parent)? else { return Ok(()) };
        // The parent may have been a link, here or below.
        let path = join(&dir.at, name);
        self.drop_copied_up(&path)?;
        if self.passed.contains(&path) {
            self.clear(&dir.fd, name, &path)?;
        }
        match found(&dir.fd, name, &path)? {
            // The same layer has it: what is gone is only what lies below.
            Some(stat) if is_directory(&stat) => {
                let dir = open_nofollow(&dir.fd, name).map_err(|e| PathError::io("opening", &path, e))?;
                overlay::set_opaque(&dir).map_err(|e| PathError::io("marking", &path, e))?;
            }
            Some(_) => {}
            None if self.shows_below(&path)? => {
                overlay::make_whiteout(&dir.fd, name).map_err(|e| PathError::io("removing", &path, e))?;
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn opaque(&mut self, parent: &[u8]) -> Result<()> {
        if !self.has_lowers() {
            return Ok(());
        }
        let Some(dir) = self.existing_parent(parent)? else { return Ok(()) };
        self.drop_copied_up(&dir.at)?;
        if dir.at.is_empty() {
            self.opaque_root()?;
        }
        // After the names of the root are gone: it says of what comes later that nothing of it shows below.
        overlay::set_opaque(&dir.fd).map_err(|e| PathError::io("marking", parent, e))?;
        Ok(())
    }

    /// Removes all names that lower layers have in the root: overlay doesn't look at a root's mark.
    fn opaque_root(&mut self) -> Result<()> {
        let Some(Below::Tree(below)) = self.below else { return Err(LayerError::NeedsBelow { path: "/".to_owned() }) };
        for entry in path::read_dir(below)? {
            self.whiteout(b"", entry.name.as_bytes())?;
        }
        Ok(())
    }

    /// Removes what was copied up at or below `path`, where lower layers shall not show any more.
    fn drop_copied_up(&mut self, path: &[u8]) -> Result<()> {
        let below = [path, b"/"].concat();
        let gone = |p: &[u8]| p == path || path.is_empty() || p.starts_with(&below);
        for at in self.copied_up.iter().filter(|p| gone(p)).cloned().collect::<Vec<_>>() {
            self.copied_up.remove(&at);
            let (parent, name) = path::split(&at).unwrap_or_default();
            let dir = self.root.open_dir_nolinks(parent)?;
            rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(|e| PathError::io("removing", &at, e))?;
        }
        Ok(())
    }

    /// Whether a whiteout of `path` hides anything, as far as is known: a dangling one would show in listings.
    pub(super) fn shows_below(&self, path: &[u8]) -> Result<bool> {
        let Some(Below::Tree(below)) = self.below else { return Ok(true) };
        Ok(!self.hidden(path)? && lower(below, path)?.is_some())
    }

    /// Whether an opaque directory of this layer hides what lower layers have at `path`.
    pub(super) fn hidden(&self, path: &[u8]) -> Result<bool> {
        let ends = path.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(i, _)| i);
        for end in std::iter::once(0).chain(ends) {
            let at = &path[..end];
            let Ok(dir) = self.root.open_dir_nolinks(at) else { return Ok(false) };
            if overlay::is_opaque(&dir).map_err(|e| PathError::io("examining", at, e))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What lower layers have at `path`, none of whose parents may be a link.
pub(super) fn lower(below: &Root, path: &[u8]) -> Result<Option<(Meta, path::Xattrs, OwnedFd)>> {
    let (parent, name) = path::split(path).unwrap_or_default();
    let dir = match below.open_dir_nolinks(parent) {
        Ok(dir) => dir,
        // Missing, a link, or no directory: nothing that this path could mean.
        Err(PathError::Io { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let io = |e: Errno| PathError::io("examining", path, e);
    match path::inspect(&dir, name) {
        Ok((meta, xattrs)) => Ok(Some((meta, xattrs, open_nofollow(&dir, name).map_err(io)?))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(io(e).into()),
    }
}

pub(super) fn like(meta: &Meta, xattrs: path::Xattrs) -> Attributes {
    let mode = (meta.kind != FileKind::Symlink).then_some(meta.mode);
    Attributes { uid: meta.uid, gid: meta.gid, mode, mtime: Some(meta.mtime), xattrs }
}

/// Copies a lower layer's file into this one, so that it can get another name.
fn copy_up(from: &OwnedFd, to: &OwnedFd, name: &[u8], at: &[u8], ownership: Ownership) -> Result<()> {
    let io = |e: Errno| PathError::io("copying", at, e);
    let (meta, xattrs) = path::inspect(from, name).map_err(io)?;
    match meta.kind {
        FileKind::File => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = File::from(rustix::fs::openat(from, name, flags, Mode::empty()).map_err(io)?);
            let file = path::create_file_at(to, name, 0o600).map_err(io)?;
            fsio::copy_data(&source, &file).map_err(|source| LayerError::File { path: printable(at), source })?;
        }
        FileKind::Symlink => {
            let target = path::link_target_at(from, name).map_err(io)?;
            rustix::fs::symlinkat(target.as_slice(), to, name).map_err(io)?;
        }
        FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo => {
            path::mknod_at(to.as_fd(), name, meta.kind, meta.rdev, ownership).map_err(io)?;
        }
        FileKind::Directory => return Err(refuse(at, "a hard link to a directory")),
        FileKind::Socket => return Err(refuse(at, "a hard link to a socket")),
    }
    let made = open_nofollow(to, name).map_err(io)?;
    path::apply(&made, at, &like(&meta, xattrs), ownership)?;
    Ok(())
}
