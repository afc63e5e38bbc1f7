//! A finished build's result: configuration, store, tags, archives, and the files that tell of it.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::digest::{DiffId, Digest};
use crate::dockerfile::source::Severity;
use crate::fsio;
use crate::graph::{BuildGraph, NodeId, PlannedHistory, StagePlan};
use crate::image::reference::Reference;
use crate::sandbox::probe::Isolation;
use crate::snapshot::ReadOnlyTree;
use crate::store::{BuildRow, BuildStepRow, ImageLayer, NewImage};

use super::assemble::{BuiltLayer, assemble};
use super::error::BuildError;
use super::export::{Exported, Exporter, FinishedImage, FinishedLayer, LayerSource};
use super::request::Output;
use super::session::Build;
use super::sources::ResolvedImage;

/// What a build gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildOutcome {
    /// The image's id, its configuration's digest; none when nothing was to be made.
    pub image: Option<Digest>,
    /// Whether the checks found nothing; true for a build.
    pub clean: bool,
}

/// The outcome of `--check`.
pub(super) fn checked(graph: &BuildGraph) -> Result<BuildOutcome, BuildError> {
    let clean = graph.warnings.iter().all(|w| w.severity != Severity::Warning);
    Ok(BuildOutcome { image: None, clean })
}

impl Build<'_> {
    /// Makes what was asked for of the finished nodes.
    pub fn finish(&self, stdout: &mut dyn Write) -> Result<BuildOutcome, BuildError> {
        let plan = &self.graph.stages[self.graph.target];
        let image = self.finished_image(plan)?;
        let id = Digest::of(&image.config);
        if self.request.outputs.is_empty() {
            self.keep_image(&image, &[])?;
        }
        let mut exported = None;
        for output in &self.request.outputs {
            self.go_on()?;
            if let Some(written) = self.export(output, &image, plan, stdout)? {
                exported = Some(written);
            }
        }
        if let Some(path) = &self.request.iidfile {
            write_file(path, id.to_string().as_bytes())?;
        }
        if let Some(path) = &self.request.metadata_file {
            let text = serde_json::to_vec_pretty(&self.metadata(&id, &image, exported.as_ref())?).expect("a Value is serialisable");
            write_file(path, &text)?;
        }
        Ok(BuildOutcome { image: Some(id), clean: true })
    }

    /// Writes one output; returns what an archive's manifest is.
    fn export(
        &self,
        output: &Output,
        image: &FinishedImage,
        plan: &StagePlan,
        stdout: &mut dyn Write,
    ) -> Result<Option<Exported>, BuildError> {
        let exporter = Exporter { store: self.engine.store, progress: self.engine.progress };
        let failed = |e| BuildError::caused("exporting the image", &e);
        match output {
            Output::None => Ok(None),
            Output::Image(names) => self.keep_image(image, names).map(|()| None),
            Output::Oci(archive) => exporter.oci(image, archive, stdout).map(Some).map_err(failed),
            Output::Docker(archive) => exporter.docker(image, archive, stdout).map(Some).map_err(failed),
            Output::Tar(destination) => {
                let tree = self.result_tree(plan)?;
                exporter.tar(tree.root(), self.epoch, destination, stdout).map(|()| None).map_err(failed)
            }
            Output::Local(path) => {
                let tree = self.result_tree(plan)?;
                // As BuildKit's: the files are the caller's.
                exporter.local(tree.root(), self.epoch, path, Some((0, 0))).map(|()| None).map_err(failed)
            }
        }
    }

    fn result_tree(&self, plan: &StagePlan) -> Result<ReadOnlyTree, BuildError> {
        let lowers = self.lowers(&self.result(plan.last).chain)?;
        self.driver()?.mount_readonly(&lowers).map_err(|e| BuildError::caused("mounting the result", &e))
    }

    fn finished_image(&self, plan: &StagePlan) -> Result<FinishedImage, BuildError> {
        let base = self.inputs.image(self.graph, plan.base);
        let base_ids: Vec<DiffId> = base.map(|b| b.layers.iter().map(|l| l.diff_id).collect()).unwrap_or_default();
        let mut layers: Vec<FinishedLayer> = base.map(|b| self.base_layers(b)).transpose()?.unwrap_or_default();
        let plan = &self.with_unnamed_layers(plan);
        let mut built = Vec::new();
        for node in plan.history.iter().filter_map(|h| h.node) {
            let (layer, finished) = self.built_layer(node)?;
            built.push(layer);
            layers.push(finished);
        }
        let config = assemble(plan, &base_ids, &built, self.epoch, self.engine.now_secs());
        Ok(FinishedImage { config: config.to_json(), platform: plan.platform.clone(), names: self.names(&[])?, layers })
    }

    /// Returns the plan with a history entry for each layer: a stage that starts from a directory begins with one that
    /// no instruction made.
    fn with_unnamed_layers(&self, plan: &StagePlan) -> StagePlan {
        let mut plan = plan.clone();
        let mut at = Some(plan.last);
        while let Some(node) = at {
            if self.result(node).layer.is_some() && !plan.history.iter().any(|h| h.node == Some(node)) {
                let created_by = self.graph.nodes[node.0].title.clone();
                plan.history.insert(0, PlannedHistory { created_by, node: Some(node), author: None });
            }
            at = self.graph.nodes[node.0].parent;
        }
        plan
    }

    fn base_layers(&self, base: &ResolvedImage) -> Result<Vec<FinishedLayer>, BuildError> {
        let mut layers = Vec::with_capacity(base.layers.len());
        for layer in &base.layers {
            let dir = if layer.blob.is_none() { self.engine.store.layer_dir(&layer.id)? } else { None };
            let clamp = if dir.is_some() { self.engine.store.clamp_of(&layer.id, &layer.diff_id)?.flatten() } else { None };
            let finished = FinishedLayer::of_base(layer, dir.map(|d| (d, clamp)));
            layers.push(
                finished.ok_or_else(|| BuildError::plain(format!("layer {} of {} has gone from the store", layer.diff_id, base.origin)))?,
            );
        }
        Ok(layers)
    }

    fn built_layer(&self, node: NodeId) -> Result<(BuiltLayer, FinishedLayer), BuildError> {
        let result = self.result(node);
        let layer = result.layer.expect("a node in the history made a layer");
        let (diff_id, _) = self.diff_id(&layer.id)?;
        let path = self.engine.store.layer_dir(&layer.id)?;
        let path = path.ok_or_else(|| BuildError::plain(format!("layer {} has gone from the store", layer.id)))?;
        let source = LayerSource::Directory { path, clamp_epoch: self.epoch };
        let built = BuiltLayer { diff_id, created_secs: result.created_secs };
        Ok((built, FinishedLayer { id: layer.id, diff_id, source }))
    }

    /// The names that an output gives: `-t`, and its own; normalised.
    fn names(&self, more: &[String]) -> Result<Vec<String>, BuildError> {
        let mut names: Vec<String> = Vec::new();
        for text in self.request.tags.iter().chain(more) {
            let parsed = Reference::parse(text).map_err(|e| BuildError::caused(format!("the name `{text}`"), &e))?;
            let name = parsed.tagged().to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn keep_image(&self, image: &FinishedImage, names: &[String]) -> Result<(), BuildError> {
        let store = self.engine.store;
        let layers = image.layers.iter().map(|l| ImageLayer { id: l.id, diff_id: l.diff_id }).collect();
        let new = NewImage {
            config: &image.config,
            layers,
            platform: image.platform.clone(),
            manifest: None,
            added_secs: self.engine.now_secs(),
        };
        if let Some(base) = self.inputs.image(self.graph, self.graph.stages[self.graph.target].base) {
            // A layout's directory may go away; the image in the store must not depend on it.
            self.inputs.sources().keep_resolved(base).map_err(|e| BuildError::caused("keeping the base image", &e))?;
        }
        store.flush()?;
        let id = store.put_image(&new)?;
        for name in self.names(names)? {
            store.tag(&name, &id)?;
        }
        Ok(())
    }

    fn metadata(&self, id: &Digest, image: &FinishedImage, exported: Option<&Exported>) -> Result<Value, BuildError> {
        let mut out = exported.map(Exported::metadata).unwrap_or_default();
        out.insert("containerimage.config.digest".into(), json!(id));
        out.insert("plywood.platform".into(), json!(image.platform.to_string()));
        out.insert("plywood.isolation".into(), isolation_json(&self.engine.isolation()?));
        Ok(Value::Object(out))
    }

    /// Writes the build to the log that statistics are made of.
    pub fn log(&self, start: Instant, outcome: &Result<BuildOutcome, BuildError>) -> Result<(), BuildError> {
        let mut steps = Vec::new();
        for (node, step) in self.graph.nodes.iter().zip(&self.steps).enumerate().filter_map(|(i, (n, s))| s.map(|_| (n, NodeId(i)))) {
            let row = match self.results[step.0].get() {
                None => {
                    BuildStepRow { title: node.title.clone(), outcome: "none".into(), reason: None, key: None, secs: 0.0, saved_secs: 0.0 }
                }
                Some(r) => BuildStepRow {
                    title: node.title.clone(),
                    outcome: if r.reason.is_some() { "built" } else { "cached" }.into(),
                    reason: r.reason.as_ref().map(ToString::to_string),
                    key: r.key,
                    secs: r.took.as_secs_f64(),
                    saved_secs: if r.reason.is_some() { 0.0 } else { r.cost_secs },
                },
            };
            steps.push(row);
        }
        let secs = start.elapsed().as_secs_f64();
        let build = BuildRow {
            dockerfile: self.inputs.dockerfile_id.clone(),
            target: self.request.target.clone().unwrap_or_default(),
            started_secs: self.engine.now_secs() - secs as i64,
            secs,
            outcome: match outcome {
                Ok(_) => "done",
                Err(BuildError::Cancelled) => "cancelled",
                Err(_) => "failed",
            }
            .into(),
            image: outcome.as_ref().ok().and_then(|o| o.image),
            steps,
        };
        self.engine.store.put_build(&build)?;
        Ok(())
    }
}

/// `full`, or `reduced` with its gaps.
fn isolation_json(isolation: &Isolation) -> Value {
    match isolation {
        Isolation::Full => json!({"level": "full"}),
        Isolation::Reduced(gaps) => json!({"level": "reduced", "gaps": gaps}),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    fsio::write_atomic(path, bytes, 0o644, fsio::Durability::Lazy)
        .map_err(|e| BuildError::caused(format!("writing `{}`", path.display()), &e))
}
