//! The image that a platform's finished nodes make: configuration, base layers, built layers.

use std::collections::HashSet;

use crate::digest::{DiffId, LayerId};
use crate::graph::{NodeId, PlannedHistory};
use crate::snapshot::ReadOnlyTree;

use super::assemble::{BuiltLayer, assemble};
use super::error::BuildError;
use super::export::{FinishedImage, FinishedLayer, LayerSource};
use super::session::Build;
use super::sources::{BlobRef, ResolvedImage};

impl Build<'_> {
    /// Returns the image that the finished nodes make, without names.
    pub fn finished_image(&self) -> Result<FinishedImage, BuildError> {
        let plan = &self.graph.stages[self.graph.target];
        let _one_state = self.engine.store.snapshot()?;
        let base = self.inputs.image(self.graph, plan.base);
        let base_ids: Vec<DiffId> = base.map(|b| b.layers.iter().map(|l| l.diff_id).collect()).unwrap_or_default();
        let mut layers: Vec<FinishedLayer> = base
            .map(|b| FinishedLayer::all_of(self.engine.store, b))
            .transpose()
            .map_err(|e| BuildError::caused("reading the base image", &e))?
            .unwrap_or_default();
        for layer in &mut layers {
            // Of a base that was not fetched: an image that is only pushed takes it from where it is.
            if let LayerSource::Blob(blob) = &mut layer.source
                && let Some(place) =
                    self.inputs.sources().place_elsewhere(blob).map_err(|e| BuildError::caused("reading the base image", &e))?
            {
                blob.place = place;
            }
        }
        let history = self.history();
        let mut built = Vec::new();
        for node in history.iter().filter_map(|h| h.node) {
            let (layer, finished) = self.built_layer(node)?;
            built.push(layer);
            layers.push(finished);
        }
        let mut config = assemble(&plan.config, &history, &base_ids, &built, self.epoch, self.engine.now_secs());
        let nodes: Vec<NodeId> = history.iter().filter_map(|h| h.node).collect();
        self.embed_records(&mut config, base_ids.len(), &nodes)?;
        // Among several an image stands for the platform that was asked for, whatever its last FROM says.
        let platform = if self.several { self.platform.clone() } else { plan.platform.clone() };
        Ok(FinishedImage { config: config.to_json(), platform, names: Vec::new(), layers, manifest: None })
    }

    /// Returns the target's history with an entry for each layer: a stage that starts from a directory begins with one that
    /// no instruction made.
    fn history(&self) -> Vec<PlannedHistory> {
        let target = self.graph.target;
        let mut history: Vec<PlannedHistory> = self.graph.history(target).into_iter().cloned().collect();
        let named: HashSet<NodeId> = history.iter().filter_map(|h| h.node).collect();
        let mut at = Some(self.graph.stages[target].last);
        while let Some(node) = at {
            if self.result(node).layer.is_some() && !named.contains(&node) {
                let created_by = self.graph.nodes[node.0].title.clone();
                history.insert(0, PlannedHistory { created_by, node: Some(node), author: None });
            }
            at = self.graph.nodes[node.0].parent;
        }
        history
    }

    fn built_layer(&self, node: NodeId) -> Result<(BuiltLayer, FinishedLayer), BuildError> {
        let result = self.result(node);
        let layer = result.layer.expect("a node in the history made a layer");
        let (finished, _) = self.finished_layer(&layer.id)?;
        Ok((BuiltLayer { diff_id: finished.diff_id, created_secs: result.created_secs }, finished))
    }

    /// Returns a layer that a step made, ready to go out, and its tar's size.
    pub fn finished_layer(&self, layer: &LayerId) -> Result<(FinishedLayer, u64), BuildError> {
        let (diff_id, tar_bytes) = self.diff_id(layer)?;
        let source = match self.blob_elsewhere(layer)? {
            Some(blob) => LayerSource::Blob(blob),
            None => match self.engine.store.layer_dir(layer)? {
                Some(path) => LayerSource::Directory { path, clamp_epoch: self.epoch },
                None => LayerSource::Blob(self.built_blob(layer, &diff_id)?),
            },
        };
        Ok((FinishedLayer { id: *layer, diff_id, source }, tar_bytes))
    }

    fn built_blob(&self, layer: &LayerId, diff_id: &DiffId) -> Result<BlobRef, BuildError> {
        let found = self.inputs.sources().blob_of(diff_id).map_err(|e| BuildError::caused(format!("looking for layer {layer}"), &e))?;
        found.ok_or_else(|| BuildError::plain(format!("layer {layer} has gone from the store")).hint("build again with --no-cache"))
    }

    /// Returns the image's file system, merged.
    pub fn result_tree(&self) -> Result<ReadOnlyTree, BuildError> {
        let last = self.graph.stages[self.graph.target].last;
        let lowers = self.lowers(&self.result(last).chain)?;
        self.driver()?.mount_readonly(&lowers).map_err(|e| BuildError::caused("mounting the result", &e))
    }

    /// Returns the image that the result stands on.
    pub fn result_base(&self) -> Option<&ResolvedImage> {
        self.inputs.image(self.graph, self.graph.stages[self.graph.target].base)
    }
}
