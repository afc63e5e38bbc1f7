//! The way to the directory that an entry goes to.
//!
//! Links on it are followed inside the root, whether this layer or one below has them. What lower layers have is made here as
//! they have it; what nobody has is made, too, unless there is only something to be removed in it.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType};

use super::below::{like, lower};
use super::file::Parent;
use super::{Apply, Below, is_whiteout, make_directory, refuse};
use crate::layer::{LayerError, Result};
use crate::path::{self, Attributes, FileKind, Missing, PathError, Time, printable};

/// What is done about a directory on the way that nobody has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    IsMade,
    Stops,
}

/// Why a walk ended early.
enum Stop {
    Absent,
    Failed(LayerError),
}

impl<E: Into<LayerError>> From<E> for Stop {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

impl Apply<'_> {
    /// Returns the directory at `path`, made when missing, for something that the layer has in it.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<Rc<Parent>> {
        let parent = self.open_parent(path, Absent::IsMade)?.ok_or_else(|| refuse(path, "its directory is missing"))?;
        self.keep(&parent.at);
        Ok(parent)
    }

    /// Returns the directory at `path`, made when only lower layers have it, for something that they have in it; none:
    /// nobody has it.
    pub(super) fn existing_parent(&mut self, path: &[u8]) -> Result<Option<Rc<Parent>>> {
        self.open_parent(path, Absent::Stops)
    }

    /// Notes that the layer itself has the directory at `at`, and so those above it.
    pub(super) fn keep(&mut self, at: &[u8]) {
        if !self.passed.is_empty() {
            let above = |p: &[u8]| at.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
            self.passed.retain(|p| !above(p));
        }
    }

    fn open_parent(&mut self, path: &[u8], absent: Absent) -> Result<Option<Rc<Parent>>> {
        if let Some(parent) = self.parent.as_ref().filter(|p| p.at == path) {
            return Ok(Some(parent.clone()));
        }
        let (fd, at) = match self.root.open_dir_nolinks(path) {
            Ok(fd) => (fd, path.to_vec()),
            Err(PathError::NoOpenat2) => return Err(PathError::NoOpenat2.into()),
            Err(_) => match self.walk(path, absent) {
                Ok(found) => found,
                Err(Stop::Absent) => return Ok(None),
                Err(Stop::Failed(e)) => return Err(e),
            },
        };
        Ok(Some(self.parent.insert(Rc::new(Parent::new(at, fd))).clone()))
    }

    fn walk(&mut self, path: &[u8], absent: Absent) -> std::result::Result<(OwnedFd, Vec<u8>), Stop> {
        let root = self.root;
        let mut made = Vec::new();
        let result = root.descend::<Stop>(path, &mut |dir, name, at, there| {
            let mut made_anyway = absent == Absent::IsMade;
            let not_directory = || if made_anyway { PathError::NotDirectory { path: printable(at) }.into() } else { Stop::Absent };
            let removed = match there {
                None => false,
                Some(FileType::CharacterDevice | FileType::RegularFile) if self.below.is_some() => {
                    if !made_anyway || !is_whiteout(dir, name, at)? {
                        return Err(not_directory());
                    }
                    rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(|e| PathError::io("removing", at, e))?;
                    true
                }
                Some(_) => return Err(not_directory()),
            };
            let (uid, gid) = self.owner.unwrap_or((0, 0));
            // Nothing says when a directory was made that nobody named: a fixed time keeps layers alike.
            let mtime = self.below.is_some().then_some(Time::default());
            let mut attributes = Attributes { uid, gid, mode: Some(0o755), mtime, xattrs: Vec::new() };
            match self.below {
                None | Some(Below::Nothing) => {}
                Some(Below::Unknown) => return Err(LayerError::NeedsBelow { path: printable(at) }.into()),
                Some(Below::Tree(_)) if removed || self.hidden(at)? => {}
                Some(Below::Tree(below)) => match lower(below, at)? {
                    Some((meta, xattrs, _)) if meta.kind == FileKind::Directory => {
                        (attributes, made_anyway) = (like(&meta, xattrs), true);
                    }
                    Some((meta, _, fd)) if meta.kind == FileKind::Symlink => {
                        return Ok(Missing::Link(path::link_target_at(&fd, b"").map_err(|e| PathError::io("reading link", at, e))?));
                    }
                    Some(_) => return Err(not_directory()),
                    None => {}
                },
            }
            if !made_anyway {
                return Err(Stop::Absent);
            }
            make_directory(dir, name, at, removed && self.has_lowers())?;
            made.push((at.to_vec(), attributes));
            Ok(Missing::Made)
        });
        if absent == Absent::Stops {
            self.passed.extend(made.iter().map(|(at, _)| at.clone()));
        }
        self.directories.extend(made);
        result
    }
}
