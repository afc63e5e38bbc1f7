//! Root file systems for steps, made from layers, and what a step changed in one.
//!
//! ```text
//! LAYER/                     a layer directory: one change set, in overlay form, whatever the driver
//! ├── etc/passwd             a new or changed file; its parents stand above it
//! ├── etc/motd               c 0:0: removed
//! └── srv/                   user.overlay.opaque=y: nothing of the lower layers' srv/ shows
//!
//! UPPER/                     what [`Driver::prepare`] is given: empty before, the caller's to remove after
//! ├── upper/                 becomes the layer directory ([`Prepared::finish`] returns its path)
//! └── work/                  overlay's own; gone after `finish`
//! ```
//!
//! | driver | the step works on | a change is found by |
//! |---|---|---|
//! | overlay | a detached overlay mount of the layers | what overlay left in `upper/` |
//! | copy | a copy of the merged layers in `upper/` | comparing with the layers (inode and ctime first) |
//!
//! Mounts are never attached anywhere: no kill leaves one behind. A newcomer would take `upper/` as the layer
//! as it is: [`normalise`] reduces it first, so that the same change gives the same digest on every host.

pub mod compare;
pub mod diff;
mod materialise;
mod merged;
mod normalise;
pub mod overlay;
mod stack;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use crate::fsio;
use crate::path::{self, Attributes, Ownership, PathError};
use materialise::{How, materialise};
pub use merged::{Found, Merged};
pub use normalise::Filled;
use normalise::{Normalise, Untouched};
use overlay::LowerSyntax;
use stack::{distinct, root_attributes, root_of};

/// Why a snapshot could not be made or closed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Something below a layer.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A directory that the snapshot needs.
    #[error("preparing `{path}`")]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The kernel refused the overlay mount.
    #[error("mounting an overlay of {lowers} layers")]
    Mount {
        /// How many layers.
        lowers: usize,
        /// The cause.
        source: io::Error,
    },
    /// The tree could not be cloned for a sandbox.
    #[error("cloning the root file system's mount")]
    Clone {
        /// The cause.
        source: io::Error,
    },
    /// A step made a name that means a deletion in an image layer.
    #[error("`{path}`: names that begin with `.wh.` can't be stored in an image, where they mean that a file was deleted")]
    ReservedName {
        /// The path in the image.
        path: String,
    },
    /// Directories below directories without end.
    #[error("`{path}` lies too deep")]
    TooDeep {
        /// The path in the image.
        path: String,
    },
}

/// What this module's functions return.
pub type Result<T> = std::result::Result<T, SnapshotError>;

/// How root file systems are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverKind {
    /// Overlay mounts.
    Overlay,
    /// Plain copies: works everywhere, costs a copy of the image for each step.
    Copy,
}

/// A way to put root file systems together that works on this host and this store.
#[derive(Debug, Clone)]
pub struct Driver {
    kind: DriverKind,
    reason: String,
    staging: PathBuf,
    ownership: Ownership,
    syntax: LowerSyntax,
}

impl Driver {
    /// Tries overlay in `staging` (a directory of the store, on its file system, for temporary directories): makes
    /// a mount, removes a file and replaces a directory in it. Else the copy driver, with the reason.
    ///
    /// # Errors
    /// When `staging` can't be written.
    pub fn detect(staging: &Path, ownership: Ownership) -> Result<Self> {
        let probe = TempTree::new(staging)?;
        Ok(match try_overlay(&probe) {
            Ok(syntax) => {
                Self { kind: DriverKind::Overlay, reason: "overlay mounts work".to_owned(), staging: staging.to_owned(), ownership, syntax }
            }
            Err(reason) => Self::copying(staging, ownership, &format!("overlay does not work here: {reason}")),
        })
    }

    /// The copy driver, without trying anything.
    pub fn copying(staging: &Path, ownership: Ownership, reason: &str) -> Self {
        let (kind, syntax) = (DriverKind::Copy, LowerSyntax::Joined);
        Self { kind, reason: reason.to_owned(), staging: staging.to_owned(), ownership, syntax }
    }

    /// Which one.
    pub fn kind(&self) -> DriverKind {
        self.kind
    }

    /// Why this one: a sentence for `doctor` and the log.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Makes a root file system of `lowers` (layer directories, top first; none: empty) that can be written.
    ///
    /// `upper` is an existing empty directory on the store's file system; see the module's header.
    pub fn prepare(&self, lowers: &[PathBuf], upper: &Path) -> Result<Prepared> {
        let lowers = &distinct(lowers);
        let layer = make_dir(&upper.join("upper"))?;
        let root_before = root_of(lowers)?;
        path::apply(&layer, b"/", &root_before, self.ownership)?;
        let mut prepared = Prepared {
            path: upper.to_owned(),
            root: layer.try_clone().map_err(|source| SnapshotError::Prepare { path: upper.to_owned(), source })?,
            layer,
            lowers: lowers.to_vec(),
            root_before,
            untouched: None,
            mounted: false,
            _lower_files: None,
        };
        match self.kind {
            _ if lowers.is_empty() => {}
            DriverKind::Copy => {
                prepared.untouched = Some(self.copy_lowers(lowers, &prepared.layer)?);
                path::apply(&prepared.layer, b"/", &prepared.root_before, self.ownership)?;
            }
            DriverKind::Overlay => {
                let work = make_dir(&upper.join("work"))?;
                let (parts, files) = self.lower_parts(lowers)?;
                prepared.root = overlay::mount(&parts, Some((&prepared.layer, &work)), self.syntax)
                    .map_err(|e| SnapshotError::Mount { lowers: lowers.len(), source: e.into() })?;
                prepared.mounted = true;
                prepared._lower_files = files;
            }
        }
        Ok(prepared)
    }

    /// Shows `lowers` (layer directories, top first; none: an empty directory) for reading.
    pub fn mount_readonly(&self, lowers: &[PathBuf]) -> Result<ReadOnlyTree> {
        let lowers = &distinct(lowers);
        let files = TempTree::new(&self.staging)?;
        let empty = make_dir(&files.path().join("tree"))?;
        if lowers.is_empty() {
            return Ok(ReadOnlyTree { fd: empty, mounted: false, _files: vec![files] });
        }
        let root = root_of(lowers)?;
        if self.kind == DriverKind::Copy {
            materialise(Merged::open(lowers)?, &empty, How::Link, self.ownership)?;
            path::apply(&empty, b"/", &root, self.ownership)?;
            return Ok(ReadOnlyTree { fd: empty, mounted: false, _files: vec![files] });
        }
        let (mut parts, more) = self.lower_parts(lowers)?;
        if root != root_attributes(&lowers[0])? {
            // The topmost directory's root is what overlay shows.
            path::apply(&empty, b"/", &root, self.ownership)?;
            parts.insert(0, empty);
        } else if parts.len() == 1 {
            // Overlay wants two. The empty one lies below: the root's mode is the layer's.
            parts.push(empty);
        }
        let fd = overlay::mount(&parts, None, self.syntax).map_err(|e| SnapshotError::Mount { lowers: lowers.len(), source: e.into() })?;
        Ok(ReadOnlyTree { fd, mounted: true, _files: std::iter::once(files).chain(more).collect() })
    }

    fn copy_lowers(&self, lowers: &[PathBuf], layer: &OwnedFd) -> Result<Untouched> {
        let untouched = materialise(Merged::open(lowers)?, layer, How::Copy, self.ownership)?;
        wait_for_the_clock(&self.staging)?;
        Ok(untouched)
    }

    /// Opens the layer directories; those that are more than one mount takes are put together into one.
    fn lower_parts(&self, lowers: &[PathBuf]) -> Result<(Vec<OwnedFd>, Option<TempTree>)> {
        let open = |p: &PathBuf| path::Root::open(p).map(path::Root::into_fd);
        let max = self.syntax.max_lowers();
        if lowers.len() <= max {
            return Ok((lowers.iter().map(open).collect::<path::Result<_>>()?, None));
        }
        let (top, bottom) = lowers.split_at(max - 1);
        let files = TempTree::new(&self.staging)?;
        let dir = make_dir(&files.path().join("bottom"))?;
        materialise(Merged::open(bottom)?, &dir, How::Link, self.ownership)?;
        let mut parts = top.iter().map(open).collect::<path::Result<Vec<_>>>()?;
        parts.push(dir);
        Ok((parts, Some(files)))
    }
}

/// A root file system that a step works on.
#[derive(Debug)]
pub struct Prepared {
    path: PathBuf,
    layer: OwnedFd,
    root: OwnedFd,
    /// Opened again only when there is a change to compare: hundreds of descriptors for the length of a step else.
    lowers: Vec<PathBuf>,
    root_before: Attributes,
    untouched: Option<Untouched>,
    mounted: bool,
    _lower_files: Option<TempTree>,
}

impl Prepared {
    /// Returns the root directory, for COPY and WORKDIR.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns a detached mount of the root that a sandbox can move into its mount namespace, once.
    ///
    /// # Errors
    /// Without the privilege to mount (no user namespace, no root): use [`Prepared::root`] then.
    pub fn mount_for_sandbox(&self) -> Result<OwnedFd> {
        mount_of(&self.root, self.mounted)
    }

    /// Ends the step: unmounts, reduces what it left to its change, and returns the layer directory.
    pub fn finish(self, filled: Filled) -> Result<PathBuf> {
        let Self { path, layer, root, lowers, root_before, untouched, mounted, _lower_files } = self;
        drop(root);
        if mounted {
            let dir = path::Root::open(&path)?;
            path::remove_tree(&dir, b"work")?;
        }
        let whole = untouched.is_some();
        if whole || !path::read_dir(&layer)?.is_empty() {
            let dir = layer.try_clone().map_err(|source| SnapshotError::Prepare { path: path.clone(), source })?;
            Normalise { untouched: untouched.as_ref(), filled }.reduce(dir, Merged::open(&lowers)?, whole)?;
        }
        let (meta, xattrs) = path::inspect(&layer, b"").map_err(|e| PathError::io("examining", b"/", e))?;
        let after = Attributes { mtime: root_before.mtime, ..materialise::attributes(&meta, xattrs) };
        if after != root_before {
            overlay::set_root_changed(&layer).map_err(|e| PathError::io("marking", b"/", e))?;
        }
        Ok(path.join("upper"))
    }
}

/// Layers shown for reading; unmounted when dropped.
#[derive(Debug)]
pub struct ReadOnlyTree {
    fd: OwnedFd,
    mounted: bool,
    _files: Vec<TempTree>,
}

impl ReadOnlyTree {
    /// Returns the root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns a detached mount that a sandbox can move into its mount namespace, once. Only an overlay's is
    /// read-only by itself: whoever attaches it sets the attribute.
    ///
    /// # Errors
    /// Without the privilege to mount.
    pub fn mount_for_sandbox(&self) -> Result<OwnedFd> {
        mount_of(&self.fd, self.mounted)
    }
}

fn mount_of(fd: &OwnedFd, mounted: bool) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    match rustix::mount::open_tree(fd, "", flags) {
        Ok(clone) => Ok(clone),
        // A detached mount can be cloned since Linux 6.15; before, the mount itself is handed out.
        Err(_) if mounted => fd.try_clone().map_err(|source| SnapshotError::Clone { source }),
        Err(e) => Err(SnapshotError::Clone { source: e.into() }),
    }
}

/// A directory of our own in the store's staging area, removed when dropped.
#[derive(Debug)]
struct TempTree {
    parent: path::Root,
    path: PathBuf,
}

impl TempTree {
    fn new(staging: &Path) -> Result<Self> {
        let parent = path::Root::open(staging)?;
        let dir = fsio::temp_dir_in(staging, "tree-");
        let path = dir.map_err(|source| SnapshotError::Prepare { path: staging.to_owned(), source })?;
        Ok(Self { parent, path })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempTree {
    fn drop(&mut self) {
        // Ours knows unwritable directories and whiteouts; a failure leaves it to the store's clean-up.
        if let Some(name) = self.path.file_name() {
            let _ = path::remove_tree(&self.parent, name.as_encoded_bytes());
        }
    }
}

fn make_dir(path: &Path) -> Result<OwnedFd> {
    let make = || -> io::Result<OwnedFd> {
        fs::create_dir(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?)
    };
    make().map_err(|source| SnapshotError::Prepare { path: path.to_owned(), source })
}

/// Waits until the file system's clock has moved on, so that any later change shows in a ctime.
///
/// The kernel stamps inodes with a clock that ticks every few milliseconds.
fn wait_for_the_clock(staging: &Path) -> Result<()> {
    let wait = || -> io::Result<()> {
        let probe = tempfile::tempfile_in(staging)?;
        let stamp = || rustix::fs::fstat(&probe).map(|s| (s.st_ctime, s.st_ctime_nsec));
        let start = stamp()?;
        for _ in 0..1000 {
            rustix::fs::fchmod(&probe, Mode::RUSR)?;
            if stamp()? != start {
                break;
            }
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        Ok(())
    };
    wait().map_err(|source| SnapshotError::Prepare { path: staging.to_owned(), source })
}

/// Does with overlay in `probe` what steps do; the reason when something does not work.
fn try_overlay(probe: &TempTree) -> std::result::Result<LowerSyntax, String> {
    let steps = || -> std::result::Result<LowerSyntax, (&'static str, io::Error)> {
        let at = |name: &str| probe.path().join(name);
        let dir = |name: &str| make_dir(&at(name)).map_err(|e| ("making a directory", io::Error::other(e)));
        let (lower, upper, work) = (dir("lower")?, dir("upper")?, dir("work")?);
        let io = |doing| move |e: io::Error| (doing, e);
        fs::write(at("lower/f"), b"x").and_then(|()| fs::create_dir(at("lower/d"))).map_err(io("writing"))?;
        let syntax = overlay::lower_syntax(&lower).map_err(|e| ("fsopen", e.into()))?;
        let root = overlay::mount(&[lower], Some((&upper, &work)), syntax).map_err(|e| ("mount", e.into()))?;
        let errno = |doing| move |e: rustix::io::Errno| (doing, e.into());
        rustix::fs::unlinkat(&root, "f", rustix::fs::AtFlags::empty()).map_err(errno("removing a file"))?;
        rustix::fs::unlinkat(&root, "d", rustix::fs::AtFlags::REMOVEDIR).map_err(errno("removing a directory"))?;
        rustix::fs::mkdirat(&root, "d", Mode::RWXU).map_err(errno("replacing a directory"))?;
        drop(root);
        let gone = path::meta_at(&upper, b"f").map_err(errno("reading a whiteout"))?;
        let opaque = overlay::is_opaque_at(&upper, b"d").map_err(errno("reading the opaque mark"))?;
        if !overlay::is_whiteout(&gone) || !opaque {
            return Err(("finding overlay's marks", io::ErrorKind::Unsupported.into()));
        }
        Ok(syntax)
    };
    steps().map_err(|(doing, e)| format!("{doing}: {e}"))
}

#[cfg(test)]
mod tests;
