//! Trees of files that steps read: contexts, and what other nodes made, mounted for as long as somebody reads.

use crate::context::{ContextError, SourceTree};
use crate::dockerfile::source::Diagnostic;
use crate::graph::{CopyOp, NodeId};
use crate::snapshot::ReadOnlyTree;

use super::advice::advice;
use super::error::{BuildError, chain};
use super::session::{Build, trigger_label};

/// A tree and what keeps it mounted.
pub(super) struct Tree {
    files: SourceTree,
    _mount: Option<ReadOnlyTree>,
}

impl Tree {
    /// A context's tree: nothing to be mounted.
    pub fn context(files: SourceTree) -> Self {
        Self { files, _mount: None }
    }

    /// The files.
    pub fn files(&self) -> &SourceTree {
        &self.files
    }
}

impl Build<'_> {
    /// Mounts what a node made, for reading.
    pub fn mounted(&self, node: NodeId) -> Result<Tree, BuildError> {
        let lowers = self.lowers(&self.result(node).chain)?;
        let mount = self.driver()?.mount_readonly(&lowers).map_err(|e| self.failed(node, "mounting it for reading", &e))?;
        let stage = self.graph.stages.iter().find(|s| s.last == node);
        let name = match (stage, self.inputs.image(self.graph, node)) {
            (Some(s), _) if s.name.is_some() => format!("stage `{}`", s.name.as_deref().unwrap_or_default()),
            (_, Some(image)) => format!("image `{}`", image.origin),
            (Some(s), None) => format!("stage {}", s.index),
            (None, None) => "the tree".into(),
        };
        let files = SourceTree::root_fs(mount.root(), name).map_err(|e| self.failed(node, "opening its root", &e))?;
        Ok(Tree { files: files.until(self.engine.cancel.cell()), _mount: Some(mount) })
    }

    /// Places a context's error at the source that it speaks of.
    pub fn context_error(&self, id: NodeId, source: Option<(&CopyOp, usize)>, error: &ContextError) -> BuildError {
        let span = source.and_then(|(op, index)| op.sources.get(index)?.span()).unwrap_or(self.graph.nodes[id.0].span);
        let mut diagnostic = Diagnostic::error(&self.graph.source, span, chain(error));
        diagnostic.hint = error.hint().or_else(|| advice(error));
        diagnostic.label = self.graph.nodes[id.0].onbuild.as_deref().map(trigger_label);
        diagnostic.into()
    }
}
