//! The state of a file system between two steps: a chain of layers, each known by its identity.
//!
//! A state is compared by the content of its layers, never by how they came about: that is what lets a step
//! below a rebuilt but equal one hit again. An empty layer counts as a link of the chain (two `RUN true` in a
//! row are two different steps) but is never mounted.

use std::sync::Arc;

use crate::cache::state::StateId;
use crate::digest::LayerId;
use crate::graph::NodeId;

/// A file system as layers on top of each other. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Chain(Option<Arc<Link>>);

/// One layer and what lies below it.
#[derive(Debug)]
struct Link {
    below: Chain,
    layer: ChainLayer,
    state: StateId,
}

/// A layer in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainLayer {
    /// Which layer.
    pub id: LayerId,
    /// It changes nothing: part of the chain, never mounted.
    pub empty: bool,
    /// For a base image's layer: the base's node, to unpack the image on demand.
    pub base: Option<NodeId>,
}

impl Chain {
    /// Returns this chain with one more layer on top.
    pub fn push(&self, layer: ChainLayer) -> Self {
        let state = self.state().with(&layer.id);
        Self(Some(Arc::new(Link { below: self.clone(), layer, state })))
    }

    /// Returns the identity of the whole state.
    pub fn state(&self) -> StateId {
        self.0.as_ref().map_or_else(StateId::scratch, |link| link.state)
    }

    /// Returns the layers, top first.
    pub fn layers(&self) -> Vec<ChainLayer> {
        let mut out = Vec::new();
        let mut at = &self.0;
        while let Some(link) = at {
            out.push(link.layer);
            at = &link.below.0;
        }
        out
    }
}

impl Drop for Chain {
    // A chain may be long (one link an instruction); the derived drop would recurse once a link.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(link) = next {
            match Arc::try_unwrap(link) {
                Ok(mut link) => next = link.below.0.take(),
                Err(_) => break,
            }
        }
    }
}
