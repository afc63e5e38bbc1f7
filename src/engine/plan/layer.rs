//! What a COPY or WORKDIR would make, by its digest: what it does is plain, and its files are digested already.
//!
//! The step's own code works on an overlay of the layers below, in a directory that goes away again; bytes that are known by
//! their digest are left out as far as the copy can do without them. So what stands on an edited COPY has a key before
//! anything is built. Only where all layers below are directories here: nothing is unpacked for a plan.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use crate::digest::LayerId;
use crate::engine::decide::Derived;
use crate::engine::error::BuildError;
use crate::engine::execute::Doing;
use crate::engine::session::Build;
use crate::engine::state::{Chain, ChainLayer};
use crate::graph::{CopySource, NodeId, Op};
use crate::layer;
use crate::snapshot::{DriverKind, Filled, diff};

impl Build<'_> {
    /// Returns the layer that a node would make; none: only making it tells, or nobody asks for it.
    pub(super) fn foreseen_layer(&self, id: NodeId, derived: &Derived) -> Result<Option<ChainLayer>, BuildError> {
        let node = &self.graph.nodes[id.0];
        let linked = match &node.op {
            Op::Mkdir(_) => false,
            Op::Copy(op) => {
                let local = op.sources.iter().all(|s| matches!(s, CopySource::Path(..) | CopySource::Inline(..)));
                let paths = op.sources.iter().any(|s| matches!(s, CopySource::Path(..)));
                if !local || (paths && !self.unseen(&op.from)?.is_empty()) {
                    return Ok(None);
                }
                op.link
            }
            Op::Base(_) | Op::Run(_) => return Ok(None),
        };
        if !self.is_used(id) {
            return Ok(None);
        }
        // A linked copy stands on nothing, but may look names of users up below.
        let named = matches!(&node.op, Op::Copy(op) if op.chown.is_some());
        let lowers = if linked && !named { Some(Vec::new()) } else { self.directories(&self.parent_chain(id))? };
        let Some(parent) = lowers else { return Ok(None) };
        let driver = self.driver()?;
        if driver.kind() == DriverKind::Copy {
            return Ok(None);
        }
        let failed = |e: &(dyn std::error::Error + 'static)| self.failed(id, "foreseeing its result", e);
        let staging = self.engine.store.stage()?;
        let lowers = if linked { Vec::new() } else { parent };
        let prepared = driver.prepare(&lowers, staging.path()).map_err(|e| failed(&e))?;
        let unwritten = match &node.op {
            Op::Copy(op) => self.copy(id, op, derived.selection.as_ref(), &prepared, Doing::Foresee)?,
            Op::Mkdir(op) => {
                self.make_directory(id, op, &prepared)?;
                None
            }
            Op::Base(_) | Op::Run(_) => return Ok(None),
        };
        let dir = prepared.finish(Filled::ByCopy).map_err(|e| failed(&e))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&dir, flags, Mode::empty()).map_err(|e| failed(&e))?;
        let mut changes = diff::changes(&dir).map_err(|e| failed(&e))?;
        if let Some(unwritten) = &unwritten {
            changes = unwritten.deferred.complete(changes).map_err(|e| failed(&e))?;
        }
        let digests = unwritten.as_ref().map(|u| u.deferred.digests()).unwrap_or_default();
        let content = layer::content_digest(&changes, dir.as_fd(), &|path| digests.get(path).copied()).map_err(|e| failed(&e))?;
        Ok(Some(ChainLayer { id: LayerId::Content(content), empty: changes.is_empty(), base: None }))
    }

    /// Returns the directories of a file system's layers, top first; none: one of them is not here as a directory.
    fn directories(&self, chain: &Chain) -> Result<Option<Vec<PathBuf>>, BuildError> {
        let mut dirs = Vec::new();
        for layer in chain.layers().iter().filter(|l| !l.empty) {
            let Some(dir) = self.engine.store.layer_dir(&layer.id)? else { return Ok(None) };
            dirs.push(dir);
        }
        Ok(Some(dirs))
    }
}
