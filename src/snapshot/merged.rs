//! One directory as it shows through a stack of layers, read without any mount.
//!
//! The same rules as overlay's: the topmost layer that has a name decides; a whiteout hides the name below; an
//! opaque directory, or something else than a directory, ends the merge. So a change can be told from its
//! lower layers on hosts (and in tests) where nothing can be mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::overlay;
use crate::path::{self, FileKind, Meta, Xattrs};

/// A directory seen through layers, top first; with no part at all: nothing.
#[derive(Debug, Default)]
pub struct Merged {
    parts: Vec<OwnedFd>,
}

/// What a name stands for.
#[derive(Debug)]
pub struct Found<'a> {
    /// The directory of the layer that decides.
    pub dir: &'a OwnedFd,
    /// What it is.
    pub meta: Meta,
    /// Its attributes.
    pub xattrs: Xattrs,
}

impl Merged {
    /// Opens the root as the layer directories (top first) show it.
    pub fn open(layers: &[PathBuf]) -> path::Result<Self> {
        let open = |p: &PathBuf| path::Root::open(Path::new(p)).map(path::Root::into_fd);
        Ok(Self { parts: layers.iter().map(open).collect::<path::Result<_>>()? })
    }

    /// Whether there is no such directory.
    pub fn is_nothing(&self) -> bool {
        self.parts.is_empty()
    }

    /// Returns the directory that decides mode and owner.
    pub fn top(&self) -> Option<&OwnedFd> {
        self.parts.first()
    }

    /// Looks one name up.
    pub fn find(&self, name: &[u8]) -> rustix::io::Result<Option<Found<'_>>> {
        for dir in &self.parts {
            match path::inspect(dir, name) {
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
                Ok((meta, _)) if overlay::is_whiteout(&meta) => return Ok(None),
                Ok((meta, xattrs)) => return Ok(Some(Found { dir, meta, xattrs })),
            }
        }
        Ok(None)
    }

    /// Returns the directory `name`; nothing where there is none.
    pub fn child(&self, name: &[u8]) -> rustix::io::Result<Self> {
        let mut parts = Vec::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for dir in &self.parts {
            match rustix::fs::openat(dir, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                // Whiteout, file, link: ends the merge, or there is no directory at all.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(e) => return Err(e),
                Ok(fd) => parts.push(fd),
            }
            if overlay::is_opaque(parts.last().expect("just pushed"))? {
                break;
            }
        }
        Ok(Self { parts })
    }

    /// Returns all names that show, sorted.
    pub fn names(&self) -> Result<BTreeSet<Vec<u8>>, path::PathError> {
        let mut seen: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for dir in &self.parts {
            let recorded = overlay::has_recorded_whiteouts(dir).map_err(|e| path::PathError::io("examining", b".", e))?;
            for entry in path::read_dir(dir)? {
                let name = entry.name.into_bytes();
                if seen.contains_key(&name) {
                    continue;
                }
                let shows = match entry.kind {
                    FileType::CharacterDevice | FileType::Unknown | FileType::RegularFile
                        if recorded || entry.kind != FileType::RegularFile =>
                    {
                        let meta = path::meta_at(dir.as_fd(), &name).map_err(|e| path::PathError::io("examining", &name, e))?;
                        !overlay::is_whiteout(&meta)
                    }
                    _ => true,
                };
                seen.insert(name, shows);
            }
        }
        Ok(seen.into_iter().filter_map(|(name, shows)| shows.then_some(name)).collect())
    }

    /// Whether `name` shows and is a directory.
    pub fn has_directory(&self, name: &[u8]) -> rustix::io::Result<bool> {
        Ok(self.find(name)?.is_some_and(|f| f.meta.kind == FileKind::Directory))
    }
}
