//! COPY, ADD and WORKDIR: the caller's side of [`super::copy`].

use crate::dockerfile::source::Diagnostic;
use crate::graph::{CopyOp, CopySource, MkdirOp, NodeId};
use crate::path::{Root, Time};
use crate::snapshot::Prepared;

use super::copy::{self, CopyContext, CopyError};
use super::decide::Decision;
use super::error::{BuildError, chain};
use super::session::Build;

impl Build<'_> {
    /// Writes a COPY's files into a prepared root.
    pub fn copy(&self, id: NodeId, op: &CopyOp, decision: &Decision, prepared: &Prepared) -> Result<(), BuildError> {
        let root = self.root(id, prepared)?;
        let has_paths = op.sources.iter().any(|s| matches!(s, CopySource::Path(..)));
        let tree = if has_paths { Some(self.tree(id, &op.from)?) } else { None };
        let made = match (&decision.selection, &tree) {
            (None, Some(_)) => Some(self.select(id, op)?),
            _ => None,
        };
        let selection = decision.selection.as_ref().or(made.as_ref());
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
        };
        copy::execute(op, files, &mut [], &root, &context).map_err(|e| self.copy_error(id, op, &e))
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
        let span = match error.index.and_then(|i| op.sources.get(i)) {
            Some(CopySource::Path(_, span) | CopySource::Http(_, span) | CopySource::Git(_, span)) => *span,
            _ => self.graph.nodes[id.0].span,
        };
        BuildError::from(Diagnostic::error(&self.graph.source, span, chain(&error.cause))).advised(&error.cause)
    }
}
