//! Executes COPY, ADD and WORKDIR: writes selected files into a root, through confined descriptors only.
//!
//! | file | holds |
//! |---|---|
//! | this | [`select`], [`execute`]: a step's sources in order |
//! | `dest` | where a source lands |
//! | `place` | files put down: replaced, merged, with their metadata |
//! | `file` | one file's bytes |
//! | `deferred` | files that go into the layer's tar without being put down |
//! | `chmod` | `--chmod` |
//! | `archive` | ADD's archives |
//! | `workdir` | WORKDIR's directories, `--chown`'s names |
//! | `mount` | a context's files for RUN's bind mounts |
//!
//! What is copied was decided by [`crate::context::select`] before the step's key was made; here is only how it
//! is put down. A newcomer would look for patterns, links and excludes here: there are none.

mod archive;
mod chmod;
mod deferred;
mod dest;
mod error;
mod file;
mod mount;
mod place;
#[cfg(test)]
mod tests;
mod workdir;

use std::fs::File;
use std::os::fd::AsFd;

use super::cancel::CancelToken;
use crate::context::{self, Hashing, Node, SelectError, SelectedSource, Selection, SourceTree, Stamp, Wanted, open_file, resolve};
use crate::graph::{AddOptions, CopyOp, CopySource};
use crate::path::{Meta, Ownership, Root, Time, printable, split};

pub use chmod::{Chmod, ChmodError};
pub use deferred::Deferred;
pub use error::{CopyCause, CopyError};
pub use mount::{fill, open_bind, stage_bind};
pub use workdir::make_workdir;

use dest::Destination;
use place::Placer;

/// Mode of a heredoc's file.
const INLINE_MODE: u32 = 0o644;
/// Mode of ADD's archives' destination, whatever `--chmod` says.
const UNPACK_MODE: u32 = 0o755;

/// What a step needs to know beyond its operation.
#[derive(Debug, Clone, Copy)]
pub struct CopyContext<'a> {
    /// Where names of `--chown` are looked up: the destination's root; for `--link`, the base below it.
    pub users: &'a Root,
    /// Whether owners can be set for real.
    pub ownership: Ownership,
    /// The time of what has none of its own: heredocs.
    pub now: Time,
    /// Whether to end, asked before each file.
    pub cancel: &'a CancelToken,
    /// Whether all files are written.
    pub writing: Writing,
}

/// Whether all files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// All.
    Everything,
    /// The bytes of big ones are left to whoever writes the layer's tar.
    DeferringBig,
    /// So is all else that lands where nothing can be. Only for a step that has one source.
    Deferring,
}

/// What ADD got from elsewhere.
#[derive(Debug)]
pub enum Fetched {
    /// A URL's content.
    File(RemoteFile),
    /// A git repository's checkout, or another tree: its content is copied.
    Tree {
        /// The tree.
        tree: SourceTree,
        /// Its files: [`select_all`].
        selection: Selection,
    },
}

/// A fetched file.
#[derive(Debug)]
pub struct RemoteFile {
    /// One name, no slash: what it is called in a directory.
    pub name: String,
    /// At its start.
    pub file: File,
    /// `Last-Modified`.
    pub mtime: Option<Time>,
    /// 0600 for downloads.
    pub mode: u32,
}

/// Resolves and digests the paths among a step's sources. Heredocs and remote sources are in no selection: their
/// content is in the operation, or is the caller's to digest.
pub fn select(op: &CopyOp, tree: &SourceTree, hashing: Hashing<'_>) -> Result<Selection, SelectError> {
    let paths = op.sources.iter().enumerate().filter_map(|(i, s)| match s {
        CopySource::Path(path, _) => Some((i, path.as_str())),
        _ => None,
    });
    context::select(tree, &Wanted { paths: paths.collect(), parents: op.parents, exclude: &op.exclude }, hashing)
}

/// Selects everything in a tree, as source number `index`: a git checkout for ADD.
pub fn select_all(op: &CopyOp, index: usize, tree: &SourceTree, hashing: Hashing<'_>) -> Result<Selection, SelectError> {
    context::select(tree, &Wanted { paths: vec![(index, "/")], parents: false, exclude: &op.exclude }, hashing)
}

/// Copies a step's sources into `dest`, in order.
///
/// `files` is the tree and what [`select`] found in it; none when no source is a path. `fetched` holds the remote
/// sources by their index. For `--link`, `dest` is an empty root. On an error, what was written stays: the caller
/// throws the root's changes away.
///
/// Files that need not be written are returned unless [`Writing::Everything`] is wanted: `dest`'s changes alone are not
/// the step's result then. Only for a step whose paths are all of one tree, and that unpacks nothing beside others.
pub fn execute(
    op: &CopyOp,
    files: Option<(&SourceTree, &Selection)>,
    fetched: &mut [(usize, Fetched)],
    dest: &Root,
    context: &CopyContext<'_>,
) -> Result<Deferred, CopyError> {
    let whole = |cause| CopyError { index: None, cause };
    let chmod = op.chmod.as_deref().map(Chmod::parse).transpose().map_err(|e| whole(e.into()))?;
    let owner = op.chown.as_deref().map(|spec| workdir::owner(spec, context.users)).transpose().map_err(whole)?;
    let mut step = Step {
        op,
        dest,
        context,
        owner,
        to: Destination::new(dest, &op.dest, Chmod::made_directory(chmod.as_ref()), owner, context.ownership),
        placer: Placer {
            chmod: chmod.as_ref(),
            owner,
            ownership: context.ownership,
            for_image: true,
            cancel: Some(context.cancel),
            copier: file::Copier::new(),
            deferred: (context.writing != Writing::Everything).then(Deferred::default),
            whole_trees: context.writing == Writing::Deferring,
        },
    };
    for (index, source) in op.sources.iter().enumerate() {
        let fail = |cause| CopyError { index: Some(index), cause };
        match source {
            CopySource::Path(..) => {
                let Some((tree, selection)) = files else { continue };
                for selected in selection.sources.iter().filter(|s| s.source == index) {
                    step.selected(tree, selected).map_err(fail)?;
                }
            }
            CopySource::Inline(name, bytes) => step.inline(name, bytes).map_err(fail)?,
            CopySource::Http(..) | CopySource::Git(..) => {
                let found = fetched.iter_mut().find(|(i, _)| *i == index).map(|(_, f)| f);
                step.fetched(found.ok_or_else(|| fail(CopyCause::NotFetched))?).map_err(fail)?;
            }
        }
    }
    Ok(step.placer.deferred.unwrap_or_default().finish())
}

struct Step<'a> {
    op: &'a CopyOp,
    dest: &'a Root,
    context: &'a CopyContext<'a>,
    owner: Option<(u32, u32)>,
    to: Destination<'a>,
    placer: Placer<'a>,
}

impl Step<'_> {
    fn selected(&mut self, tree: &SourceTree, source: &SelectedSource) -> Result<(), CopyCause> {
        if source.directory {
            return self.placer.directory(tree, source, self.to.for_directory()?);
        }
        if let Some(AddOptions { unpack, .. }) = &self.op.add
            && unpack.unwrap_or(true)
            && self.selected_archive(tree, source)?
        {
            return Ok(());
        }
        let spot = self.to.for_file(&source.name)?;
        self.placer.single(tree, source, &spot)
    }

    /// Unpacks a selected file if it is an archive, and says whether it was.
    fn selected_archive(&mut self, tree: &SourceTree, source: &SelectedSource) -> Result<bool, CopyCause> {
        let Some(entry) = source.entries.first().filter(|e| matches!(e.node, Node::File(_))) else { return Ok(false) };
        let shown = printable(&source.path);
        let changed = || CopyCause::Changed { path: shown.clone() };
        let (parent, name) = split(&source.path).ok_or_else(changed)?;
        let io = |e: rustix::io::Errno| CopyCause::Io { action: "reading", path: shown.clone(), source: e.into() };
        let dir = resolve::open_directory(tree.root(), parent).map_err(io)?;
        let (mut file, before) = open_file(dir.as_fd(), name).map_err(io)?;
        if !before.same_content(&entry.stamp) {
            return Err(changed());
        }
        let unpacked = self.unpack(&mut file, &shown)?;
        let after = rustix::fs::fstat(&file).map_err(io)?;
        match Stamp::from(&Meta::from(&after)).same_content(&entry.stamp) {
            true => Ok(unpacked),
            false => Err(changed()),
        }
    }

    fn unpack(&mut self, file: &mut File, shown: &str) -> Result<bool, CopyCause> {
        let io = |source| CopyCause::Io { action: "reading", path: shown.to_owned(), source };
        if !archive::recognise(file).map_err(io)? {
            return Ok(false);
        }
        let CopyContext { ownership, cancel, .. } = *self.context;
        // An archive's destination is a directory, however it is written.
        let written = format!("{}/", self.op.dest);
        let path = Destination::new(self.dest, &written, UNPACK_MODE, self.owner, ownership).for_directory()?.path;
        archive::unpack(file, cancel, shown, self.dest, &path, self.owner, ownership)?;
        Ok(true)
    }

    fn inline(&mut self, name: &str, bytes: &[u8]) -> Result<(), CopyCause> {
        let spot = self.to.for_file(name.as_bytes())?;
        self.placer.file(&mut &*bytes, INLINE_MODE, self.context.now, &spot)
    }

    fn fetched(&mut self, fetched: &mut Fetched) -> Result<(), CopyCause> {
        match fetched {
            Fetched::Tree { tree, selection } => selection.sources.iter().try_for_each(|s| self.selected(tree, s)),
            Fetched::File(remote) => {
                let unpack = self.op.add.as_ref().is_some_and(|a| a.unpack == Some(true));
                if unpack && self.unpack(&mut remote.file, &remote.name)? {
                    return Ok(());
                }
                let spot = self.to.for_file(remote.name.as_bytes())?;
                let mut content = self.context.cancel.reading(&mut remote.file);
                self.placer.file(&mut content, remote.mode, remote.mtime.unwrap_or(self.context.now), &spot)
            }
        }
    }
}
