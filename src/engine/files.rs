//! COPY, ADD and WORKDIR: the caller's side of [`super::copy`].

use crate::address::{self, CheckoutTime};
use crate::context::{Context, ContextError, Hashing, Node, Selection, SourceTree};
use crate::dockerfile::source::Diagnostic;
use crate::graph::{CopyOp, CopySource, FileTree, MkdirOp, NodeId, order};
use crate::path::{Root, Time};
use crate::remote::CheckedOut;
use crate::snapshot::Prepared;

use super::copy::{self, CopyContext, CopyError, Deferred, Fetched, RemoteFile, Writing};
use super::error::{BuildError, chain};
use super::execute::Doing;
use super::request::Output;
use super::session::Build;

/// A copy of fewer entries and bytes becomes a directory: there is nothing to win, and its files keep their times to the
/// nanosecond.
const PACKED_ENTRIES: usize = 200;
const PACKED_BYTES: u64 = 16 << 20;

/// What a copy has not written.
pub(super) struct Unwritten {
    /// Where the files are.
    pub tree: SourceTree,
    /// Which files.
    pub deferred: Deferred,
}

/// BuildKit's mode of what ADD downloads.
const DOWNLOAD_MODE: u32 = 0o600;

impl Build<'_> {
    /// Writes a COPY's files into a prepared root; returns those that the layer's tar shall take from their source.
    pub fn copy(
        &self,
        id: NodeId,
        op: &CopyOp,
        selection: Option<&Selection>,
        prepared: &Prepared,
        doing: Doing,
    ) -> Result<Option<Unwritten>, BuildError> {
        let root = self.root(id, prepared)?;
        let has_paths = op.sources.iter().any(|s| matches!(s, CopySource::Path(..)));
        let tree = if has_paths { Some(self.tree(id, &op.from)?) } else { None };
        let made = match (selection, &tree) {
            (None, Some(_)) => Some(self.select(id, op)?),
            _ => None,
        };
        let selection = selection.or(made.as_ref());
        let files = tree.as_ref().map(super::trees::Tree::files).zip(selection);
        let users_mount;
        let users = if op.link && op.chown.is_some() {
            let lowers = self.lowers(&self.parent_chain(id))?;
            users_mount = self.driver()?.mount_readonly(&lowers).map_err(|e| self.failed(id, "mounting the stage", &e))?;
            let fd = users_mount.root().try_clone_to_owned().map_err(|e| self.failed(id, "opening the stage", &e))?;
            Some(Root::from_fd(fd))
        } else {
            None
        };
        let context = CopyContext {
            users: users.as_ref().unwrap_or(&root),
            ownership: self.engine.ownership,
            now: self.time_of_new_files(),
            cancel: &self.engine.cancel,
            writing: selection.map_or(Writing::Everything, |selection| self.writing(id, op, selection, doing)),
        };
        let mut checkouts = Vec::new();
        let mut fetched = self.fetch(op, &mut checkouts)?;
        let deferred = copy::execute(op, files, &mut fetched, &root, &context).map_err(|e| self.copy_error(id, op, &e))?;
        let tree = tree.filter(|_| !deferred.is_empty());
        Ok(tree.map(|tree| Unwritten { tree: tree.files().clone(), deferred }))
    }

    /// Whether a copy's layer can stay a tar: it has enough files or bytes for that to matter, and nobody in this build looks
    /// at them.
    ///
    /// A copy under a clamp becomes a directory: its tar has the clamp's times, and the next build may have another.
    fn writing(&self, id: NodeId, op: &CopyOp, selection: &Selection, doing: Doing) -> Writing {
        let looked_at = || {
            let nodes = self.graph.nodes.iter().zip(&self.needed).filter(|(_, needed)| **needed);
            let by_step = nodes.flat_map(|(node, _)| order::dependencies(node)).any(|d| d == id);
            by_step || self.request.outputs.iter().any(|o| matches!(o, Output::Tar(..) | Output::Local(..)))
        };
        let one = selection.sources.len() == 1 && op.sources.len() == 1;
        // What ADD unpacks or fetches goes its own ways.
        let plain = one || (op.add.is_none() && op.sources.iter().all(|s| matches!(s, CopySource::Path(..) | CopySource::Inline(..))));
        match doing {
            Doing::Foresee if one && op.add.is_none() => return Writing::Deferring,
            Doing::Foresee if plain => return Writing::DeferringBig,
            Doing::Build if plain && matches!(op.from, FileTree::Context(_)) && self.epoch.is_none() => {}
            _ => return Writing::Everything,
        }
        let entries = || selection.sources.iter().flat_map(|source| &source.entries);
        let many = one && entries().count() >= PACKED_ENTRIES;
        let big =
            || entries().filter(|e| matches!(e.node, Node::File(_))).map(|e| e.stamp.size).fold(0, u64::saturating_add) >= PACKED_BYTES;
        match many || big() {
            true if looked_at() => Writing::Everything,
            true if one => Writing::Deferring,
            true => Writing::DeferringBig,
            false => Writing::Everything,
        }
    }

    /// Fetches a step's remote sources; checkouts live as long as `checkouts`.
    fn fetch(&self, op: &CopyOp, checkouts: &mut Vec<CheckedOut>) -> Result<Vec<(usize, Fetched)>, BuildError> {
        let mut out = Vec::new();
        for (index, source) in op.sources.iter().enumerate() {
            match source {
                CopySource::Path(..) | CopySource::Inline(..) => {}
                CopySource::Http(url, span) => {
                    let checksum = op.add.as_ref().and_then(|a| a.checksum.as_ref());
                    let found = self.inputs.remotes.fetch_url(url, checksum).map_err(|e| self.placed(*span, e))?;
                    // BuildKit's date for what has none.
                    let mtime = Some(Time { secs: found.modified_secs.unwrap_or(0), nanos: 0 });
                    let file = RemoteFile { name: address::file_name(url), file: found.file, mtime, mode: DOWNLOAD_MODE };
                    out.push((index, Fetched::File(file)));
                }
                CopySource::Git(address, span) => {
                    let checkout = self.inputs.remotes.checkout(address, CheckoutTime::Checkout).map_err(|e| self.placed(*span, e))?;
                    let name = format!("`{}`", address.shown());
                    let failed = |e: ContextError| self.placed(*span, BuildError::caused("opening a checkout", &e));
                    let tree = Context::open_directory(&checkout.directory, name).map_err(failed)?.tree().until(self.engine.cancel.cell());
                    let hashing = Hashing { cache: None, now: self.inputs.now };
                    let selection = copy::select_all(op, index, &tree, hashing).map_err(|e| failed(e.cause))?;
                    checkouts.push(checkout);
                    out.push((index, Fetched::Tree { tree, selection }));
                }
            }
        }
        Ok(out)
    }

    /// Makes a WORKDIR.
    pub fn make_directory(&self, id: NodeId, op: &MkdirOp, prepared: &Prepared) -> Result<(), BuildError> {
        let root = self.root(id, prepared)?;
        copy::make_workdir(op, &root, self.engine.ownership).map(|_| ()).map_err(|e| self.failed(id, "", &e.cause))
    }

    /// The time of files that have none of their own. Never before now: the layer also serves builds with a later clamp,
    /// or none, and every tar is clamped when it is written.
    fn time_of_new_files(&self) -> Time {
        let now = self.engine.now_secs();
        Time { secs: self.epoch.map_or(now, |epoch| epoch.max(now)), nanos: 0 }
    }

    fn copy_error(&self, id: NodeId, op: &CopyOp, error: &CopyError) -> BuildError {
        let span = error.index.and_then(|i| op.sources.get(i)?.span()).unwrap_or(self.graph.nodes[id.0].span);
        BuildError::from(Diagnostic::error(&self.graph.source, span, chain(&error.cause))).advised(&error.cause)
    }
}
