//! A finished build's results: store, tags, archives, and the files that tell of them.
//!
//! A build makes an image for each platform. Where one has to stand for all (a tag of the store, the printed ID), it
//! is the one that this host runs, else the first.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::digest::{Digest, LayerId};
use crate::dockerfile::source::{Diagnostic, Source};
use crate::fsio;
use crate::graph::outline::{Outline, Targets};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::layer::Placed;
use crate::sandbox::probe::Isolation;
use crate::snapshot::ReadOnlyTree;
use crate::store::{ImageLayer, NewImage};

use super::Engine;
use super::Verification;
use super::error::BuildError;
use super::event::Event;
use super::export::{ExportError, Exported, Exporter, FinishedImage};
use super::request::{BuildRequest, Output, PlatformSplit, PushOutput};
use super::session::Build;
use super::sources::{Several, note_several};

/// The metadata's entry for [`Verification`].
const VERIFICATION: &str = "plywood.verification";

/// What a build gave.
#[derive(Debug, Clone, Default)]
pub struct BuildOutcome {
    /// The image's id, its configuration's digest; none when nothing was to be made. Of several platforms this host's,
    /// else the first's.
    pub image: Option<Digest>,
    /// What the build checks found, when only they were asked for; of a build they are events.
    pub findings: Vec<Diagnostic>,
    /// What was asked of the Dockerfile instead of a build.
    pub answer: Option<Answer>,
    /// What was done, when no image was to be made.
    pub prebuilt: Option<Prebuilt>,
    /// What came of running hits again, when that was asked for.
    pub verified: Option<Verification>,
}

/// What steps without an image came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prebuilt {
    /// How many steps.
    pub steps: usize,
    /// How many of these were cached.
    pub cached: usize,
    /// What was new to the shared caches.
    pub sent: Sent,
}

/// What was sent to shared caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Results.
    pub records: u64,
    /// Layers, where their bytes were not there.
    pub layers: u64,
    /// The size of these.
    pub bytes: u64,
}

impl Prebuilt {
    /// Counts what was done.
    pub(super) fn of(builds: &[Build<'_>], sent: Sent) -> Self {
        let results = builds.iter().flat_map(|b| b.steps.iter().zip(&b.results)).filter(|(step, _)| step.is_some());
        let done: Vec<bool> = results.filter_map(|(_, r)| r.get()).map(|r| r.reason.is_none()).collect();
        Self { steps: done.len(), cached: done.iter().filter(|cached| **cached).count(), sent }
    }
}

/// What a Dockerfile says of itself.
#[derive(Debug, Clone)]
pub enum Answer {
    /// What the target takes, and the text that its spans point into.
    Outline(Outline, Arc<Source>),
    /// What can be built.
    Targets(Targets),
}

/// The images of a finished build, one a platform.
pub(super) struct Results<'a> {
    engine: &'a Engine<'a>,
    request: &'a BuildRequest,
    builds: &'a [Build<'a>],
    images: Vec<FinishedImage>,
}

impl<'a> Results<'a> {
    /// Puts the images together.
    pub fn of(engine: &'a Engine<'a>, request: &'a BuildRequest, builds: &'a [Build<'a>]) -> Result<Self, BuildError> {
        let names = names(&request.tags)?;
        let image = |build: &Build<'_>| build.finished_image().map(|image| FinishedImage { names: names.clone(), ..image });
        let images = builds.iter().map(image).collect::<Result<_, _>>()?;
        Ok(Self { engine, request, builds, images })
    }

    /// Makes what was asked for.
    pub fn write(&self, stdout: &mut dyn Write, verified: Option<&Verification>) -> Result<BuildOutcome, BuildError> {
        let id = Digest::of(&self.main().config);
        if self.request.outputs.is_empty() {
            self.keep(&[])?;
        }
        let mut exported = None;
        for output in &self.request.outputs {
            self.engine.go_on()?;
            if let Some(written) = self.export(output, stdout)? {
                exported = Some(written);
            }
        }
        if let Some(path) = &self.request.iidfile {
            write_file(path, id.to_string().as_bytes())?;
        }
        if let Some(path) = &self.request.metadata_file {
            let mut metadata = self.metadata(&id, exported.as_ref())?;
            if let Some(verified) = verified {
                metadata[VERIFICATION] = verified.to_json();
            }
            write_file(path, &serde_json::to_vec_pretty(&metadata).expect("a Value is serialisable"))?;
        }
        Ok(BuildOutcome { image: Some(id), ..BuildOutcome::default() })
    }

    /// The image that stands for all.
    fn main(&self) -> &FinishedImage {
        let host = Platform::host();
        self.images.iter().find(|i| i.platform == host).unwrap_or(&self.images[0])
    }

    /// Writes one output; returns what an archive's manifest is.
    fn export(&self, output: &Output, stdout: &mut dyn Write) -> Result<Option<Exported>, BuildError> {
        let exporter = Exporter { store: self.engine.store, progress: self.engine.progress };
        let failed = |e: ExportError| BuildError::caused("exporting the image", &e);
        match output {
            Output::None => Ok(None),
            Output::Image(image) => self.keep(&image.names).map(|()| None),
            Output::Registry(push) => self.push(push),
            Output::Oci(archive) => exporter.oci(&self.images, archive, stdout).map(Some).map_err(failed),
            Output::Docker(archive) => match self.images.as_slice() {
                [_] => exporter.docker(&self.images, archive, stdout).map(|mut done| done.pop()).map_err(failed),
                _ => {
                    Err(BuildError::plain("type=docker holds an image for one platform only").hint("write type=oci, or name one platform"))
                }
            },
            Output::Tar(destination, split) => {
                self.with_trees(*split, |trees| exporter.tar(trees, self.epoch(), destination, stdout).map(|()| None).map_err(failed))
            }
            // As BuildKit's: the files are the caller's.
            Output::Local(path, split) => {
                self.with_trees(*split, |trees| exporter.local(trees, self.epoch(), path, Some((0, 0))).map(|()| None).map_err(failed))
            }
        }
    }

    /// Puts the images into the store, and into registries under all names.
    fn push(&self, output: &PushOutput) -> Result<Option<Exported>, BuildError> {
        self.keep_or_say(&output.names)?;
        let names = names(self.request.tags.iter().chain(&output.names))?;
        if names.is_empty() {
            return Err(BuildError::plain("there is no name to push the image under").hint("give one with `-t NAME`"));
        }
        let exporter = Exporter { store: self.engine.store, progress: self.engine.progress };
        let mut exported = None;
        for name in &names {
            let to = Reference::parse(name).map_err(|e| BuildError::caused(format!("the name `{name}`"), &e))?;
            let pushed = exporter.push(&self.images, &to, output.named, output.packing, self.engine.client);
            let mut pushed = pushed.map_err(|e| BuildError::caused("pushing the image", &e))?.exported;
            pushed.names = names.clone();
            exported = Some(pushed);
        }
        Ok(exported)
    }

    /// The latest time of what is written; the Dockerfile gives one for all platforms, or for none.
    fn epoch(&self) -> Option<i64> {
        self.builds.iter().find_map(|b| b.epoch)
    }

    /// Shows the images' file systems, each at its place.
    fn with_trees<T>(&self, split: PlatformSplit, work: impl FnOnce(&[Placed<'_>]) -> Result<T, BuildError>) -> Result<T, BuildError> {
        let trees: Vec<ReadOnlyTree> = self.builds.iter().map(Build::result_tree).collect::<Result<_, _>>()?;
        let split = match split {
            PlatformSplit::WhenSeveral => trees.len() > 1,
            PlatformSplit::Always => true,
            PlatformSplit::Never => false,
        };
        let below = |image: &FinishedImage| if split { image.platform.to_string().replace('/', "_") } else { String::new() };
        let placed = self.images.iter().zip(&trees).map(|(image, tree)| Placed { below: below(image), dir: tree.root() });
        work(&placed.collect::<Vec<_>>())
    }

    /// As [`Results::keep`], unless layers are elsewhere: then it says so.
    fn keep_or_say(&self, more: &[String]) -> Result<(), BuildError> {
        let mut elsewhere = false;
        for layer in self.images.iter().flat_map(|i| &i.layers).filter(|l| matches!(l.id, LayerId::Content(_))) {
            elsewhere = elsewhere || !self.engine.store.layer_known(&layer.id)?;
        }
        if elsewhere {
            let text = "the image is pushed without being kept here: its layers stay in the shared cache (--load fetches them)";
            self.engine.observer.event(Event::Notice(text.into()));
            return Ok(());
        }
        self.keep(more)
    }

    /// Puts the images into the store, and names the main one.
    fn keep(&self, more: &[String]) -> Result<(), BuildError> {
        for (build, image) in self.builds.iter().zip(&self.images) {
            if let Some(base) = build.result_base() {
                // A layout's directory may go away; the image in the store must not depend on it.
                build.inputs.sources().keep_resolved(base).map_err(|e| BuildError::caused("keeping the base image", &e))?;
            }
            self.keep_image(image)?;
        }
        let id = Digest::of(&self.main().config);
        let images = self.images.iter().map(|i| Digest::of(&i.config)).collect();
        let several = (self.images.len() > 1).then_some(Several { images, ..Several::default() });
        for name in names(self.request.tags.iter().chain(more))? {
            self.engine.store.tag(&name, &id)?;
            note_several(self.engine.store, &name, several.as_ref())?;
        }
        Ok(())
    }

    fn keep_image(&self, image: &FinishedImage) -> Result<(), BuildError> {
        let store = self.engine.store;
        let new = NewImage {
            config: &image.config,
            layers: image.layers.iter().map(|l| ImageLayer { id: l.id, diff_id: l.diff_id }).collect(),
            platform: image.platform.clone(),
            manifest: None,
            added_secs: self.engine.now_secs(),
        };
        store.flush()?;
        store.put_image(&new)?;
        Ok(())
    }

    fn metadata(&self, id: &Digest, exported: Option<&Exported>) -> Result<Value, BuildError> {
        let mut out = exported.map(Exported::metadata).unwrap_or_default();
        out.insert("containerimage.config.digest".into(), json!(id));
        out.insert("plywood.platform".into(), json!(self.main().platform.to_string()));
        if self.images.len() > 1 {
            let images: Map<String, Value> = self.images.iter().map(|i| (i.platform.to_string(), json!(Digest::of(&i.config)))).collect();
            out.insert("plywood.images".into(), images.into());
        }
        out.insert("plywood.isolation".into(), isolation_json(&self.engine.isolation()?));
        Ok(Value::Object(out))
    }
}

/// Writes what came of running hits again, when that is all that there is.
pub(super) fn write_verification(request: &BuildRequest, verified: Option<&Verification>) -> Result<(), BuildError> {
    let (Some(path), Some(verified)) = (&request.metadata_file, verified) else { return Ok(()) };
    let metadata = json!({ VERIFICATION: verified.to_json() });
    write_file(path, &serde_json::to_vec_pretty(&metadata).expect("a Value is serialisable"))
}

/// Normalises names, each once.
fn names<'n>(given: impl IntoIterator<Item = &'n String>) -> Result<Vec<String>, BuildError> {
    let mut names: Vec<String> = Vec::new();
    for text in given {
        let parsed = Reference::parse(text).map_err(|e| BuildError::caused(format!("the name `{text}`"), &e))?;
        let name = parsed.tagged().to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
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
