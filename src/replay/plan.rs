//! A Dockerfile of the history, lowered to its graph once for each distinct text.
//!
//! The front end is the build's. Base images aren't asked for: nobody knows what `node:20` was two years ago, so a base counts
//! as the same for as long as its name is, and it has an empty configuration (no `ONBUILD` triggers, nobody's `ENV`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::dockerfile;
use crate::dockerfile::source::{Diagnostic, Source};
use crate::graph::lower::lower_with;
use crate::graph::{BuildGraph, Facts, NamedContext, NetworkMode, NodeId, Op, StageChoice, order};
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;

const SYNTAX_ARGUMENT: &str = "BUILDKIT_SYNTAX";
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What decides a graph besides the text.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--target`.
    pub target: Option<String>,
    /// `--platform`.
    pub platform: Platform,
    /// `--build-context`.
    pub named_contexts: BTreeMap<String, NamedContext>,
}

/// A Dockerfile, ready to be replayed.
#[derive(Debug)]
pub struct Plan {
    /// Its text.
    pub text: Arc<str>,
    /// Its graph.
    pub graph: BuildGraph,
    /// The steps that the target needs, in the order in which a build numbers them.
    pub steps: Vec<Step>,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its node.
    pub node: NodeId,
    /// The stage's name, or `stage-0`.
    pub stage: String,
    /// `RUN make`.
    pub title: String,
    /// Where it stands, from 1.
    pub line: usize,
}

/// A plan, or what is wrong with the text.
pub(super) type Made = Result<Arc<Plan>, Arc<Diagnostic>>;

/// All plans, each made once; shared by threads.
#[derive(Debug)]
pub(super) struct Plans {
    settings: Settings,
    known: Mutex<HashMap<Arc<str>, Made>>,
}

impl Plans {
    pub fn new(settings: Settings) -> Self {
        Self { settings, known: Mutex::default() }
    }

    /// Returns a text's plan. `name` is what messages call the file.
    pub fn of(&self, name: &str, text: &str) -> Made {
        // Made under the lock: a plan is known by its address, so there may be no two of one text.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = known.get(text) {
            return plan.clone();
        }
        let plan = plan(name, text, &self.settings).map(Arc::new).map_err(Arc::new);
        known.insert(text.into(), plan.clone());
        plan
    }

    /// Returns how many texts there were.
    pub fn count(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn plan(name: &str, text: &str, settings: &Settings) -> Result<Plan, Diagnostic> {
    let source = Source::new(name, text);
    let given = settings.build_args.get(SYNTAX_ARGUMENT).map(|v| v.trim()).filter(|v| !v.is_empty());
    match dockerfile::detect_syntax(&source) {
        Some(syntax) if given.is_none() && dockerfile::is_foreign_frontend(&syntax.value) => {
            return Err(Diagnostic::error(&source, syntax.span, format!("the frontend `{}` is not built in", syntax.value)));
        }
        _ => {}
    }
    let file = dockerfile::parse_with_check_override(&source, settings.build_args.get(CHECK_ARGUMENT).map(String::as_str))?;
    let mut facts = Facts {
        build_args: settings.build_args.clone(),
        build_platform: Platform::host(),
        target_platform: settings.platform.clone(),
        target: settings.target.clone(),
        stages: StageChoice::Needed,
        named_contexts: settings.named_contexts.clone(),
        images: BTreeMap::new(),
        labels: Vec::new(),
        network: NetworkMode::Default,
        // Whether its caller would be allowed to is not the question.
        allow: vec![crate::graph::Entitlement::NetworkHost, crate::graph::Entitlement::SecurityInsecure],
        add_hosts: Vec::new(),
        no_context: false,
        epoch: None,
        ignore: None,
    };
    let graph = lower_with(&file, &mut facts, |_| ImageConfig::default(), |_| None)?;
    let needed = order::needed(&graph);
    let steps = graph.nodes.iter().enumerate().filter(|(id, node)| needed[*id] && !matches!(node.op, Op::Base(_)));
    let steps = steps.map(|(id, node)| {
        let stage = graph.stages.iter().find(|s| s.index == node.stage);
        let stage = stage.and_then(|s| s.name.clone()).unwrap_or_else(|| format!("stage-{}", node.stage));
        let title = node.title.split_once("] ").map_or(node.title.as_str(), |(_, title)| title).to_owned();
        Step { node: NodeId(id), stage, title, line: source.line(node.span.start) }
    });
    let steps = steps.collect();
    Ok(Plan { text: text.into(), graph, steps })
}
