//! From a parsed file and the facts to the build graph.
//!
//! ```text
//! globals ─ stages (FROMs, target, who needs whom) ─ triggers (may add needs) ─ each stage in file order ─ graph
//! ```
//!
//! All that the words of a Dockerfile can say is decided here, so that what runs the graph reads no text any more. A
//! newcomer would look for the order of execution here; nodes are made in file order, and [`super::order`] finds what can
//! run side by side.
//!
//! Behaviour is BuildKit's (`dockerfile2llb`); the conformance cases and the recorded plans of the corpus hold it.

mod arguments;
mod checks;
mod copy;
mod epoch;
mod globals;
mod metadata;
mod outline;
mod own;
mod paths;
mod run;
mod scope;
mod stage;
mod stages;
mod text;
mod values;
mod weight;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::dockerfile::expand::Expander;
use crate::dockerfile::instruction::{File, Instruction, Kind};
use crate::dockerfile::parse_trigger;
use crate::dockerfile::source::{Diagnostic, Span};
use crate::graph::outline::Outline;
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;

use super::{BuildGraph, EpochSource, Facts, FileTree, ImageRequest, Lowered, Node, NodeId, Op, StageChoice, StagePlan, mounts};
use scope::Scope;
use stage::Finished;
use stages::{Dependencies, Origin, Reachable, StageInfo};

/// Lowers a file to its build graph.
///
/// Returns [`Lowered::Needs`] with all images whose configurations are missing from `facts.images` and can be known
/// so far; triggers of an image may ask for more in the next round. Errors: the first thing that is wrong, at its place.
pub fn lower(file: &File, facts: &Facts) -> Result<Lowered, Diagnostic> {
    Lowering::new(file, facts).run()
}

/// Lowers a file to the end where every answer is at hand: for those who know all images, as checks and measurements do.
///
/// `image` gives the configuration of an image that is asked for, `epoch` the time of what `SOURCE_DATE_EPOCH` names (none: it
/// has none); what they say is added to `facts`. Each is asked once, and an answer brings at most its triggers' questions, so
/// the rounds end. Where an answer can fail or takes time, call [`lower`]. Errors: as [`lower`].
pub fn lower_with(
    file: &File,
    facts: &mut Facts,
    mut image: impl FnMut(&ImageRequest) -> ImageConfig,
    mut epoch: impl FnMut(&EpochSource) -> Option<i64>,
) -> Result<BuildGraph, Diagnostic> {
    loop {
        match lower(file, facts)? {
            Lowered::Graph(graph) => return Ok(graph),
            Lowered::NeedsEpoch(source) => facts.epoch = Some(epoch(&source)),
            Lowered::Needs(needs) => {
                for (request, _) in needs {
                    let config = image(&request);
                    facts.images.insert(request, config);
                }
            }
        }
    }
}

/// The state of lowering one file.
struct Lowering<'a> {
    file: &'a File,
    facts: &'a Facts,
    expander: Expander,
    /// The global scope: automatic arguments and ARGs before the first FROM.
    globals: Scope,
    /// Names that a global ARG declares, with or without a value.
    global_names: Vec<String>,
    epoch: Option<i64>,
    /// The same as text, where a build argument gave something else than a number.
    epoch_text: Option<String>,
    by_name: BTreeMap<String, usize>,
    /// There is one stage, and nothing else that would need a name in titles.
    alone: bool,
    nodes: Vec<Node>,
    bases: BTreeMap<ImageRequest, NodeId>,
    /// The node of `FROM scratch`.
    scratch: Option<NodeId>,
    finished: Vec<Option<Finished>>,
    warnings: Vec<Diagnostic>,
    /// What `warnings` hold already: rule, place and message.
    found: HashSet<(&'static str, Span, String)>,
    /// Names that ARG triggers declare.
    trigger_arguments: Vec<String>,
    /// The named contexts that something in the file means, and the names that were looked up.
    used_contexts: RefCell<BTreeSet<String>>,
    asked_names: RefCell<BTreeSet<String>>,
    /// Where to report what a trigger says: its FROM.
    place: Option<Span>,
    /// What is to be told of arguments and secrets.
    outline: outline::Capture,
    /// How many bytes the graph holds so far, roughly.
    weight: usize,
}

/// A stage's ONBUILD triggers, parsed.
type Triggers = Vec<Vec<(String, Instruction)>>;

/// What the target needs, triggers considered.
struct Reached {
    /// Which stages to lower.
    stages: Vec<bool>,
    triggers: Triggers,
    /// The images that are missing.
    needs: Vec<(ImageRequest, Span)>,
}

/// Images that are needed, and where they are named first.
#[derive(Default)]
struct Needs {
    list: Vec<(ImageRequest, Span)>,
    known: BTreeSet<ImageRequest>,
}

impl<'a> Lowering<'a> {
    fn new(file: &'a File, facts: &'a Facts) -> Self {
        Self {
            file,
            facts,
            expander: Expander::new(file.directives.escape),
            globals: Scope::default(),
            global_names: Vec::new(),
            epoch: None,
            epoch_text: None,
            by_name: BTreeMap::new(),
            alone: false,
            nodes: Vec::new(),
            bases: BTreeMap::new(),
            scratch: None,
            finished: file.stages.iter().map(|_| None).collect(),
            warnings: Vec::new(),
            found: HashSet::new(),
            trigger_arguments: Vec::new(),
            used_contexts: RefCell::default(),
            asked_names: RefCell::default(),
            place: None,
            outline: outline::Capture::default(),
            weight: 0,
        }
    }

    fn run(mut self) -> Result<Lowered, Diagnostic> {
        self.check_default_bases();
        self.read_globals()?;
        if let Some(source) = self.read_epoch()? {
            return Ok(Lowered::NeedsEpoch(source));
        }
        let stages = self.read_stages()?;
        let target = self.find_target()?;
        let mut dependencies = self.dependencies(&stages)?;
        if let Some((stage, span)) = stages::cycle(&dependencies) {
            let error = self.error(span, format!("circular dependency detected on stage: {}", stages[stage].label));
            return Err(error.hint("a stage can take files only from stages that stand above it, and not from itself"));
        }
        let Reached { stages: reached, triggers, needs } = self.triggers(&stages, &mut dependencies, target)?;
        if !needs.is_empty() {
            return Ok(Lowered::Needs(needs));
        }
        self.trigger_arguments = triggers.iter().flatten().flat_map(|(_, i)| globals::declared(i)).map(str::to_string).collect();
        for (index, reached) in reached.into_iter().enumerate() {
            if !reached {
                continue;
            }
            let finished = self.lower_stage(index, &stages[index], &triggers[index])?;
            self.finished[index] = Some(finished);
        }
        let outline = self.outline.finish(&stages, &dependencies, target);
        self.finish(&stages, target, outline)
    }

    /// Returns which stages each stage reads, and checks every `from` of the file on the way.
    fn dependencies(&mut self, stages: &[StageInfo<'a>]) -> Result<Dependencies, Diagnostic> {
        let mut all: Dependencies = vec![BTreeMap::new(); stages.len()];
        let mut others = 0;
        for (index, info) in stages.iter().enumerate() {
            for instruction in &info.stage.instructions {
                let origins = self.origins(instruction, None)?;
                if let Kind::Run(run) = &instruction.kind {
                    others += run.mounts.iter().filter(|m| mounts::from_of(&m.fields).is_none()).count();
                }
                for (origin, span) in origins {
                    match origin {
                        Origin::Stage(read) if !info.replaced => {
                            all[index].entry(read).or_insert(span);
                        }
                        Origin::Stage(_) => {}
                        _ => others += 1,
                    }
                }
            }
        }
        self.alone = stages.len() == 1 && others == 0;
        Ok(all)
    }

    /// Parses the triggers of all reachable stages, adds what they depend on, and collects the images that are missing.
    fn triggers(&mut self, stages: &[StageInfo<'a>], dependencies: &mut Dependencies, target: usize) -> Result<Reached, Diagnostic> {
        let mut triggers: Triggers = stages.iter().map(|_| Vec::new()).collect();
        let mut reachable = Reachable::new(stages);
        let mut needs = Needs::default();
        let mut todo = match &self.facts.stages {
            StageChoice::Needed => reachable.add(target, dependencies),
            StageChoice::NeededBy(names) => {
                let mut all = reachable.add(target, dependencies);
                for name in names {
                    all.extend(reachable.add(self.find_stage(name)?, dependencies));
                }
                all
            }
            StageChoice::All => (0..stages.len()).flat_map(|stage| reachable.add(stage, dependencies)).collect(),
        };
        // In rounds, each in the order of the file: what triggers add is looked at after all that was known before.
        while !todo.is_empty() {
            todo.sort_unstable();
            let mut added = Vec::new();
            for index in std::mem::take(&mut todo) {
                let (info, from) = (&stages[index], stages[index].stage.instruction.span);
                self.need(&info.base, info.stage.from.image.span, &mut needs);
                for text in self.trigger_texts(info, stages) {
                    self.weigh(weight::of_trigger(text), from)?;
                    let parsed = parse_trigger(text, '\\')
                        .map_err(|e| Diagnostic { hint: e.hint, ..self.error(from, format!("ONBUILD trigger `{text}`: {}", e.message)) })?;
                    for (origin, span) in self.origins(&parsed, Some(from))? {
                        if let Origin::Stage(read) = origin {
                            dependencies[index].entry(read).or_insert(span);
                            added.push(read);
                        }
                        self.need(&origin, span, &mut needs);
                    }
                    triggers[index].push((text.to_owned(), parsed));
                }
                for instruction in info.stage.instructions.iter().filter(|_| !info.replaced) {
                    for (origin, span) in self.origins(instruction, None)? {
                        self.need(&origin, span, &mut needs);
                    }
                }
            }
            todo = added.into_iter().flat_map(|stage| reachable.add(stage, dependencies)).collect();
        }
        Ok(Reached { stages: reachable.into_marks(), triggers, needs: needs.list })
    }

    fn need(&self, origin: &Origin, span: Span, needs: &mut Needs) {
        if let Origin::Image(request) = origin
            && !self.facts.images.contains_key(request)
            && needs.known.insert(request.clone())
        {
            needs.list.push((request.clone(), span));
        }
    }

    /// Returns the triggers that fire in a stage: those of its base image, or of the stage that it starts from.
    fn trigger_texts<'t>(&self, info: &StageInfo<'_>, stages: &[StageInfo<'t>]) -> Vec<&'t str>
    where
        'a: 't,
    {
        match &info.base {
            _ if info.replaced => Vec::new(),
            Origin::Image(request) => {
                let config = self.facts.images.get(request);
                config.map(|c| c.config.on_build.iter().map(String::as_str).collect()).unwrap_or_default()
            }
            Origin::Stage(base) if !stages[*base].replaced => stages[*base].stage.instructions.iter().filter_map(trigger_text).collect(),
            _ => Vec::new(),
        }
    }

    fn finish(mut self, stages: &[StageInfo<'a>], target: usize, outline: Outline) -> Result<Lowered, Diagnostic> {
        // A tree of files as the result needs a root file system of its own.
        if let Some(mut finished) = self.finished[target].take() {
            let last = self.root_of(target, stages[target].stage.instruction.span, &mut finished);
            finished.tree = FileTree::Node(last);
            self.finished[target] = Some(finished);
        }
        let mut plans: Vec<StagePlan> = Vec::new();
        let mut places: Vec<Option<usize>> = vec![None; stages.len()];
        for (index, finished) in std::mem::take(&mut self.finished).into_iter().enumerate() {
            let Some(finished) = finished else { continue };
            let FileTree::Node(last) = finished.tree else { continue };
            places[index] = Some(plans.len());
            plans.push(StagePlan {
                index,
                name: stages[index].stage.name.clone(),
                base: finished.base.unwrap_or(last),
                last,
                // What a stage starts from stands above it. A tree of files has no plan, and no history.
                continues: finished.continues.and_then(|below| places[below]),
                config: if index == target { self.result_config(finished.config, &finished.platform) } else { finished.config },
                platform: finished.platform,
                history: finished.history,
            });
        }
        self.check_unused();
        let mut warnings = self.file.warnings.clone();
        warnings.append(&mut self.warnings);
        warnings.sort_by_key(|w| w.span.start);
        self.fail_on_findings(&warnings)?;
        let graph = BuildGraph {
            source: self.file.source.clone(),
            nodes: self.nodes,
            stages: plans,
            target: places[target].unwrap_or_default(),
            warnings,
            outline,
            epoch: self.epoch,
        };
        Ok(Lowered::Graph(graph))
    }

    /// Returns the configuration of the image that is built: the target platform's, with the labels of the command line.
    fn result_config(&self, mut config: ImageConfig, platform: &Platform) -> ImageConfig {
        config.config.labels.extend(self.facts.labels.iter().cloned());
        // The platform of the stage: `FROM --platform` of the last stage decides over `--platform` (recorded cases
        // from/platform_other, from/target_platform), and its normalised spelling over the base image's.
        let known = |text: &str| Some(text.to_string()).filter(|t| !t.is_empty());
        let same = config.os == platform.os && config.architecture == platform.architecture;
        config.os = platform.os.clone();
        config.architecture = platform.architecture.clone();
        config.variant = known(&platform.variant);
        if !same || !platform.os_version.is_empty() {
            config.os_version = known(&platform.os_version);
        }
        config
    }

    /// `# check=error=true`: any finding of a rule fails the build.
    fn fail_on_findings(&self, warnings: &[Diagnostic]) -> Result<(), Diagnostic> {
        if !self.file.directives.check.error {
            return Ok(());
        }
        let mut rules: Vec<&str> = Vec::new();
        for rule in warnings.iter().filter_map(|w| w.rule) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        match warnings.iter().find(|w| w.rule.is_some()) {
            None => Ok(()),
            Some(first) => Err(self
                .error(first.span, format!("lint violation found for rules: {}", rules.join(", ")))
                .label(first.message.clone())
                .hint("`check=error=true` makes every finding of a build check an error")),
        }
    }

    /// Makes an error at a place of the file, or at the FROM whose trigger is being lowered.
    fn error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.file.source, self.at(span), message)
    }

    /// Returns where to report something.
    fn at(&self, span: Span) -> Span {
        self.place.unwrap_or(span)
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    /// Returns the node of a base; equal ones are shared.
    fn base_node(&mut self, request: Option<&ImageRequest>, stage: usize, span: Span, title: String) -> NodeId {
        let known = request.map_or(self.scratch, |request| self.bases.get(request).copied());
        if let Some(id) = known {
            return id;
        }
        let platform = request.map_or_else(|| self.facts.target_platform.clone(), |r| r.platform.clone());
        let id = self.push(Node { op: Op::Base(request.cloned()), parent: None, stage, span, title, onbuild: None, platform });
        match request {
            Some(request) => drop(self.bases.insert(request.clone(), id)),
            None => self.scratch = Some(id),
        }
        id
    }
}

/// Returns the trigger that an instruction leaves.
fn trigger_text(instruction: &Instruction) -> Option<&str> {
    match &instruction.kind {
        Kind::Onbuild(onbuild) => Some(&onbuild.text),
        _ => None,
    }
}
