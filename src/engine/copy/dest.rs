//! Where a source lands: BuildKit's rules for COPY's destination.
//!
//! A trailing `/` (or `/.`) says "a directory", and makes one. Links in the destination's path are followed
//! inside the root, the last one too, even where they dangle: their target is made. Only what an existing
//! directory *holds* is not followed; that is `place`'s matter.

use std::os::fd::{AsFd, OwnedFd};

use crate::context::resolve::{Place, resolve};
use crate::path::{Ownership, Root, clean, printable, split};

use super::error::CopyCause;

/// A step's destination.
pub(super) struct Destination<'a> {
    root: &'a Root,
    /// Cleaned by its text.
    path: Vec<u8>,
    names_directory: bool,
    /// Mode and owner of directories that are made on the way.
    mode: u32,
    owner: Option<(u32, u32)>,
    ownership: Ownership,
}

/// A name in a directory.
pub(super) struct Spot {
    /// The directory (`O_PATH`).
    pub(super) dir: OwnedFd,
    /// The name in it.
    pub(super) name: Vec<u8>,
    /// The whole path in the image, for messages.
    pub(super) path: Vec<u8>,
}

/// A directory that is filled.
pub(super) struct Filled {
    /// The directory (`O_PATH`).
    pub(super) dir: OwnedFd,
    /// Its path in the image.
    pub(super) path: Vec<u8>,
    /// Whether it was made for this: nothing is in it.
    pub(super) made: bool,
}

impl<'a> Destination<'a> {
    /// `written` is absolute, not cleaned at its end.
    pub(super) fn new(root: &'a Root, written: &str, mode: u32, owner: Option<(u32, u32)>, ownership: Ownership) -> Self {
        let path = clean(written.as_bytes());
        let names_directory = path.is_empty() || written.ends_with('/') || written.ends_with("/.") || written.ends_with("/..");
        Self { root, path, names_directory, mode, owner, ownership }
    }

    /// Returns where a file called `name` goes, the directory for it made.
    pub(super) fn for_file(&self, name: &[u8]) -> Result<Spot, CopyCause> {
        self.prepare()?;
        let place = self.resolve()?;
        let mut path = place.full_path();
        if place.missing.is_empty() && place.is_directory() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        let (parent, name) = split(&path).ok_or_else(|| CopyCause::FileOverDirectory { path: String::new() })?;
        // Behind a dangling link the target's directory may be missing as well.
        self.make(parent)?;
        Ok(Spot { dir: self.root.open_dir_nolinks(parent)?, name: name.to_vec(), path: path.clone() })
    }

    /// Returns the directory that a directory's content goes to, made if it is missing.
    pub(super) fn for_directory(&self) -> Result<Filled, CopyCause> {
        let promised = self.prepare()?;
        let place = self.resolve()?;
        let path = place.full_path();
        if place.missing.is_empty() && !place.is_directory() {
            return Err(CopyCause::DirectoryOverFile { path: printable(&path) });
        }
        let made = self.make(&path)?;
        let made = promised.contains(&path) || made.contains(&path);
        Ok(Filled { dir: self.root.open_dir_nolinks(&path)?, path, made })
    }

    /// Makes what the destination's text promises: its parent, or itself when it ends in a slash. Returns what was made.
    fn prepare(&self) -> Result<Vec<Vec<u8>>, CopyCause> {
        let directory = match split(&self.path) {
            _ if self.names_directory => self.path.as_slice(),
            Some((parent, _)) => parent,
            None => return Ok(Vec::new()),
        };
        self.make(directory)
    }

    fn resolve(&self) -> Result<Place, CopyCause> {
        Ok(resolve(self.root.as_fd(), &self.path)?)
    }

    fn make(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, CopyCause> {
        Ok(self.root.mkdir_all(path, self.mode, self.owner, self.ownership)?)
    }
}
