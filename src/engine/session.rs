//! What the parts of one platform's build share: the graph, its inputs, and what each node gave so far.
//!
//! Filled by many threads: a node's result is set once, by the thread that had the node, and read by those whose
//! nodes stand on it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::cache::miss::Reason;
use crate::cache::record::{Slot, SlotId};
use crate::digest::{CacheKey, LayerId};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::graph::{BuildGraph, ImageRequest, Node, NodeId, Op, StagePlan, order};
use crate::image::platform::Platform;
use crate::snapshot::Driver;
use crate::store::CacheMountId;

use super::Engine;
use super::causes::Known;
use super::decide::Decision;
use super::error::{BuildError, chain};
use super::event::{Event, StepIndex, StepInfo};
use super::inputs::{Inputs, Target};
use super::places::Pasts;
use super::plan::Foreseen;
use super::request::{BuildRequest, Purpose};
use super::sharing::Sharing;
use super::sources::ResolvedLayer;
use super::ssh::KeyAgents;
use super::state::{Chain, ChainLayer};

/// What the builds of several platforms share.
#[derive(Default)]
pub(super) struct Shared {
    driver: OnceLock<Driver>,
    made: Mutex<HashSet<CacheKey>>,
    /// The directories of base images' layers, bottom first; empty until they are unpacked.
    unpacked: Mutex<HashMap<ImageRequest, Arc<Mutex<Vec<PathBuf>>>>>,
    /// Whose turn it is to unpack a layer that a step made.
    built: Mutex<HashMap<LayerId, Arc<Mutex<()>>>>,
    /// The agents that hold keys of `--ssh ID=KEY`.
    pub key_agents: KeyAgents,
    /// Cache mounts that `--no-cache` emptied already.
    pub emptied: Mutex<Vec<CacheMountId>>,
}

impl Shared {
    /// Tells whether this build made a result itself, for whichever platform: `--no-cache` takes it too.
    pub fn has_made(&self, key: &CacheKey) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// Remembers that this build made a result; its record is written already.
    pub fn add_made(&self, key: CacheKey) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }
}

/// A build for one platform, that runs.
pub(super) struct Build<'a> {
    pub engine: &'a Engine<'a>,
    pub request: &'a BuildRequest,
    pub shared: &'a Shared,
    pub sharing: &'a Sharing<'a>,
    /// Its place among the builds of all platforms.
    pub at: usize,
    /// The platform that was asked for.
    pub platform: &'a Platform,
    /// Whether other platforms are built beside it, and things must be told apart.
    pub several: bool,
    pub graph: &'a BuildGraph,
    pub inputs: &'a Inputs<'a>,
    /// Replaces the times that the build writes, and clamps those of files.
    pub epoch: Option<i64>,
    /// Which nodes the target stands on; no others have a turn.
    pub needed: Vec<bool>,
    /// Which nodes' layers the target has.
    pub in_result: Vec<bool>,
    /// What the nodes gave.
    pub results: Vec<OnceLock<NodeResult>>,
    /// Decisions that were made before the node's turn.
    pub decided: Vec<Mutex<Option<Decision>>>,
    /// The number under which a node is shown; none for bases.
    pub steps: Vec<Option<StepIndex>>,
    /// What the last build had where this one has its steps, by stage and instruction; read at the first miss.
    pub pasts: Mutex<HashMap<(usize, &'static str), Pasts>>,
    /// In a plan: layers that are in some chains and not made.
    pub foreseen: Mutex<HashMap<LayerId, Foreseen>>,
    /// What the next build shall compare with.
    pub noted: Mutex<Vec<(NodeId, SlotId, Slot)>>,
    /// What had to be done, for the log.
    pub works: Mutex<HashMap<NodeId, Work>>,
    /// What misses are told by besides.
    pub known: OnceLock<Known>,
}

/// A node that had to be made, or could not even be decided.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// What it is made of, its place, and why it is not taken from the cache; none: that was not known yet.
    pub wanted: Option<(Slot, SlotId, Reason)>,
    /// When it began; none: something came in between.
    pub began: Option<Instant>,
    /// How long it took until it failed; none: it did not.
    pub failed: Option<Duration>,
}

/// Where a result is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A base image: nobody's result.
    Base,
    /// This store.
    Cache,
    /// A shared cache.
    Elsewhere,
    /// This build.
    Made,
}

/// What a node gave.
#[derive(Debug, Clone)]
pub(super) struct NodeResult {
    /// The file system after it.
    pub chain: Chain,
    /// Its own layer; none for bases.
    pub layer: Option<ChainLayer>,
    /// When the layer was made, in unix seconds.
    pub created_secs: i64,
    /// Its key; none for bases.
    pub key: Option<CacheKey>,
    /// Where it is from.
    pub origin: Origin,
    /// Why it ran; none: it was cached, or is a base.
    pub reason: Option<Reason>,
    /// How long it took now.
    pub took: Duration,
    /// How long it took when its layer was made.
    pub cost_secs: f64,
    /// The layer's size, where it is known without effort.
    pub bytes: Option<u64>,
}

impl<'a> Build<'a> {
    /// Makes a build for each platform; their steps are numbered through.
    pub fn each(
        engine: &'a Engine<'a>,
        request: &'a BuildRequest,
        targets: &'a [Target],
        inputs: &'a Inputs<'a>,
        shared: &'a Shared,
        sharing: &'a Sharing<'a>,
    ) -> Vec<Self> {
        let mut next = 0;
        let one = |(at, Target { platform, graph }): (usize, &'a Target)| {
            let wished = wanted(graph, request);
            let needed = order::needed_by(graph, wished.iter().copied());
            let in_result = wished.iter().fold(vec![false; graph.nodes.len()], |marks, stage| below(graph, stage.last, marks));
            Self {
                engine,
                request,
                shared,
                sharing,
                at,
                platform,
                several: targets.len() > 1,
                graph,
                inputs,
                epoch: graph.epoch,
                results: graph.nodes.iter().map(|_| OnceLock::new()).collect(),
                decided: graph.nodes.iter().map(|_| Mutex::new(None)).collect(),
                steps: number(graph, &needed, &mut next),
                needed,
                in_result,
                pasts: Mutex::default(),
                foreseen: Mutex::default(),
                noted: Mutex::default(),
                works: Mutex::default(),
                known: OnceLock::new(),
            }
        };
        targets.iter().enumerate().map(one).collect()
    }

    /// Returns what a node gave; its turn has come and gone when somebody asks.
    pub fn result(&self, node: NodeId) -> &NodeResult {
        self.results[node.0].get().expect("a node runs after its inputs")
    }

    /// Tells something to whoever watches.
    pub fn tell(&self, event: Event) {
        self.engine.observer.event(event);
    }

    /// Returns an error if the build shall end.
    pub fn go_on(&self) -> Result<(), BuildError> {
        self.engine.go_on()
    }

    /// Places an error at a node's instruction.
    pub fn at(&self, node: NodeId, message: impl Into<String>) -> BuildError {
        let Node { span, onbuild, .. } = &self.graph.nodes[node.0];
        let mut error = Diagnostic::error(&self.graph.source, *span, message);
        error.label = onbuild.as_deref().map(trigger_label);
        BuildError::from(error)
    }

    /// Gives an error without a place one; cancelling has none.
    pub fn placed(&self, span: Span, error: BuildError) -> BuildError {
        match error {
            BuildError::Plain { message, hint } => {
                let mut diagnostic = Diagnostic::error(&self.graph.source, span, message);
                diagnostic.hint = hint;
                diagnostic.into()
            }
            other => other,
        }
    }

    /// Places an error and its causes at a node's instruction.
    pub fn failed(&self, node: NodeId, doing: &str, error: &(dyn std::error::Error + 'static)) -> BuildError {
        let text = chain(error);
        self.at(node, if doing.is_empty() { text } else { format!("{doing}: {text}") }).advised(error)
    }

    /// Returns how root file systems are put together here; tried out at the first need.
    pub fn driver(&self) -> Result<&Driver, BuildError> {
        if let Some(driver) = self.shared.driver.get() {
            return Ok(driver);
        }
        let driver = self.engine.driver()?;
        Ok(self.shared.driver.get_or_init(|| driver))
    }

    /// Returns the directories of a chain's layers, top first, unpacking what is not there yet.
    pub fn lowers(&self, chain: &Chain) -> Result<Vec<PathBuf>, BuildError> {
        let layers: Vec<ChainLayer> = chain.layers().into_iter().rev().filter(|l| !l.empty).collect();
        self.bring(&layers.iter().filter(|l| l.base.is_none()).map(|l| l.id).collect::<Vec<_>>())?;
        let mut dirs = Vec::with_capacity(layers.len());
        if let Some(base) = layers.iter().find_map(|l| l.base) {
            dirs.extend(self.base_dirs(base)?);
        }
        for layer in layers.iter().filter(|l| l.base.is_none()) {
            let dir = self.built_dir(&layer.id, &dirs)?;
            dirs.push(dir);
        }
        dirs.reverse();
        Ok(dirs)
    }

    /// Returns the directory of a layer that a step made, unpacked if only its tar is here. `below`: the directories of the
    /// layers under it, bottom first. One thread unpacks, others wait for it.
    pub fn built_dir(&self, layer: &LayerId, below: &[PathBuf]) -> Result<PathBuf, BuildError> {
        let store = self.engine.store;
        let failed = |e: &(dyn std::error::Error + 'static)| BuildError::caused(format!("unpacking layer {layer}"), e);
        if let Some(dir) = store.layer_dir(layer)? {
            return Ok(dir);
        }
        let turn = self.shared.built.lock().unwrap_or_else(PoisonError::into_inner).entry(*layer).or_default().clone();
        let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || BuildError::plain(format!("layer {layer} has gone from the store")).hint("build again with --no-cache");
        let resolved = self.built_tar(layer)?;
        let dir = match (store.layer_dir(layer)?, resolved) {
            (Some(dir), _) => dir,
            (None, None) => return Err(gone()),
            (None, Some(tar)) => {
                self.inputs.sources().ensure_layer(&tar, below, self.driver()?, self.engine.ownership).map_err(|e| failed(&e))?
            }
        };
        Ok(dir)
    }

    /// Returns where the tar of a layer that a step made can be had; none: the layer is a directory only.
    pub fn built_tar(&self, layer: &LayerId) -> Result<Option<ResolvedLayer>, BuildError> {
        let Some(diff_id) = self.engine.store.layer_tar(layer)? else { return Ok(None) };
        let blob = self.inputs.sources().blob_of(&diff_id).map_err(|e| BuildError::caused(format!("looking for layer {layer}"), &e))?;
        Ok(blob.map(|blob| ResolvedLayer { id: *layer, diff_id, blob: Some(blob) }))
    }

    /// Returns the directories of a base image's layers, bottom first. One thread unpacks, others wait for it.
    fn base_dirs(&self, base: NodeId) -> Result<Vec<PathBuf>, BuildError> {
        let Op::Base(Some(request)) = &self.graph.nodes[base.0].op else { unreachable!("a base layer comes from an image") };
        let image = self.inputs.image(self.graph, base).expect("the image was resolved before");
        let turn = self.shared.unpacked.lock().unwrap_or_else(PoisonError::into_inner).entry(request.clone()).or_default().clone();
        let mut dirs = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if dirs.is_empty() {
            let sources = self.inputs.sources();
            let unpacked = sources.ensure_layers(&image.layers, self.driver()?, self.engine.ownership);
            *dirs = unpacked.map_err(|e| self.failed(base, "unpacking the base image", &e))?;
        }
        Ok(dirs.clone())
    }

    /// The steps as they are shown.
    pub fn plan(&self) -> Vec<StepInfo> {
        let mut infos = Vec::new();
        for (id, (node, step)) in self.graph.nodes.iter().zip(&self.steps).enumerate().map(|(n, pair)| (NodeId(n), pair)) {
            if step.is_none() {
                continue;
            }
            let siblings = || self.graph.nodes.iter().zip(&self.steps).filter(|(n, s)| n.stage == node.stage && s.is_some());
            // Counted with FROM, as BuildKit does.
            let of = siblings().count() + 1;
            let number = siblings().position(|(n, _)| std::ptr::eq(n, node)).map_or(1, |p| p + 2);
            let (title, stage) = (self.title_shown(id), self.stage_shown(id));
            let after = order::dependencies(node).into_iter().filter_map(|d| self.steps[d.0]).collect();
            infos.push(StepInfo { title, stage, platform: self.platform_shown(node), number, of, after });
        }
        infos
    }

    /// Says what a node is built for, where that needs to be said.
    pub fn platform_shown(&self, node: &Node) -> Option<String> {
        let own = node.platform == *self.platform;
        self.several.then(|| if own { self.platform.to_string() } else { format!("{}->{}", node.platform, self.platform) })
    }
}

/// Says, under a FROM, which of its triggers an error is about.
pub(super) fn trigger_label(trigger: &str) -> String {
    format!("its trigger `{}`", trigger.lines().next().unwrap_or_default())
}

/// Returns the stages whose results are wanted.
fn wanted<'g>(graph: &'g BuildGraph, request: &BuildRequest) -> Vec<&'g StagePlan> {
    if request.purpose != Purpose::Prebuild {
        return graph.stages.get(graph.target).into_iter().collect();
    }
    let more = |s: &StagePlan| request.more_targets.iter().any(|t| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(t)));
    let all = graph.stages.iter().enumerate();
    all.filter(|(place, s)| request.target.is_none() || *place == graph.target || more(s)).map(|(_, s)| s).collect()
}

/// Marks a node and those that it stands on, one on top of the other.
fn below(graph: &BuildGraph, last: NodeId, mut marks: Vec<bool>) -> Vec<bool> {
    let mut at = Some(last);
    while let Some(node) = at {
        marks[node.0] = true;
        at = graph.nodes[node.0].parent;
    }
    marks
}

/// Numbers the needed nodes that are steps, from `next` on.
fn number(graph: &BuildGraph, needed: &[bool], next: &mut StepIndex) -> Vec<Option<StepIndex>> {
    let number = |(node, needed): (&Node, &bool)| {
        (*needed && !matches!(node.op, Op::Base(_))).then(|| {
            *next += 1;
            *next - 1
        })
    };
    graph.nodes.iter().zip(needed).map(number).collect()
}
