//! One stage: its base, then its instructions one by one, each changing the configuration, the scope or the files.
//!
//! What a newcomer would get wrong: a stage that starts from another one goes on with that stage's scope (its ARGs too),
//! but the image's ENV is set again on top; and CMD is reset by ENTRYPOINT only when this stage did not set it itself.

use crate::dockerfile::expand::ExpandError;
use crate::dockerfile::instruction::{CommandLine, Instruction, Kind, Word};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::graph::{CopyOp, CopySource, FileTree, ImageRequest, Node, NodeId, Op, PlannedHistory};
use crate::image::config::{Healthcheck, ImageConfig};
use crate::image::platform::Platform;

use super::arguments::Arguments;
use super::scope::{Scope, key_value};
use super::stages::{Origin, StageInfo};
use super::{Lowering, paths, text, values, weight};

/// Docker's search path, for images that have none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage that was lowered, or is being lowered.
#[derive(Debug)]
pub(super) struct Finished {
    pub config: ImageConfig,
    pub scope: Scope,
    /// The ARGs of the stage and of those that it starts from.
    pub arguments: Arguments,
    pub platform: Platform,
    /// None for a stage that stands for a tree of files.
    pub base: Option<NodeId>,
    pub tree: FileTree,
    /// The stage that it starts from.
    pub continues: Option<usize>,
    /// What the stage itself adds.
    pub history: Vec<PlannedHistory>,
    pub workdir_set: bool,
}

/// A stage at work: what it has so far, and what its titles need.
pub(super) struct Work<'w> {
    pub index: usize,
    pub info: &'w StageInfo<'w>,
    pub done: Finished,
    /// The last CMD, ENTRYPOINT and HEALTHCHECK of the stage, triggers included.
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
    step: usize,
    steps: usize,
    /// The trigger at hand.
    pub onbuild: Option<String>,
}

impl Work<'_> {
    /// Returns the state that the next step works on.
    pub(super) fn last(&self) -> Option<NodeId> {
        match self.done.tree {
            FileTree::Node(id) => Some(id),
            FileTree::Context(_) => None,
        }
    }

    pub(super) fn workdir(&self) -> &str {
        &self.done.config.config.working_dir
    }

    pub(super) fn history(&mut self, created_by: String, node: Option<NodeId>) {
        self.done.history.push(PlannedHistory { created_by, node, author: None });
    }
}

impl Lowering<'_> {
    /// Lowers one stage; those that it needs were lowered before.
    pub(super) fn lower_stage(
        &mut self,
        index: usize,
        info: &StageInfo<'_>,
        triggers: &[(String, Instruction)],
    ) -> Result<Finished, Diagnostic> {
        let steps = steps(info, triggers.len());
        let first_title = self.title(info, 1, steps, &format!("FROM {}", image_name(&info.base)), false);
        let mut done = self.start(index, info, first_title)?;
        self.weigh(weight::of_stage(&done), info.stage.instruction.span)?;
        if info.replaced {
            return Ok(done);
        }
        self.prepare(&mut done);
        if let FileTree::Context(_) = done.tree {
            let root = self.root_of(index, info.stage.instruction.span, &mut done);
            done.tree = FileTree::Node(root);
        }
        let step = usize::from(matches!(info.base, Origin::Image(_)));
        let mut work = Work { index, info, done, cmd: None, entrypoint: None, healthcheck: None, step, steps, onbuild: None };
        for (text, instruction) in triggers {
            work.onbuild = Some(text.clone());
            self.place = Some(info.stage.instruction.span);
            let result = self.weighed(&mut work, instruction);
            self.place = None;
            result.map_err(|error| error.label(format!("its trigger `{}`", first_line(instruction))))?;
        }
        work.onbuild = None;
        for instruction in &info.stage.instructions {
            self.weighed(&mut work, instruction)?;
        }
        Ok(work.done)
    }

    /// Lowers an instruction and adds up what it made.
    fn weighed(&mut self, work: &mut Work<'_>, instruction: &Instruction) -> Result<(), Diagnostic> {
        let (nodes, entries) = (self.nodes.len(), work.done.history.len());
        self.instruction(work, instruction)?;
        let made = self.nodes[nodes..].iter().map(weight::of_node).chain(work.done.history[entries..].iter().map(weight::of_history));
        self.weigh(made.sum(), instruction.span)
    }

    /// Returns the state at a stage's start.
    fn start(&mut self, index: usize, info: &StageInfo<'_>, title: String) -> Result<Finished, Diagnostic> {
        let span = info.stage.instruction.span;
        let wanted = info.platform.clone().unwrap_or_else(|| self.facts.target_platform.clone());
        let (config, platform, request) = match &info.base {
            Origin::Stage(base) => return self.continue_stage(index, *base, info),
            Origin::Scratch | Origin::Files(_) if info.replaced => (self.empty_config(), wanted, None),
            Origin::Scratch => (self.empty_config(), self.facts.target_platform.clone(), None),
            Origin::Files(_) => (self.empty_config(), wanted, None),
            Origin::Image(request) => {
                let config = self.image_config(request, info.stage.from.image.span)?;
                if !info.replaced {
                    self.check_base_platform(info.stage, &wanted, &config);
                }
                (config, wanted, Some(request))
            }
        };
        let (base, tree) = match &info.base {
            Origin::Files(name) => (None, FileTree::Context(Some(name.clone()))),
            _ => {
                let node = self.base_node(request, index, span, title);
                (Some(node), FileTree::Node(node))
            }
        };
        let (scope, arguments, history) = Default::default();
        Ok(Finished { config, scope, arguments, platform, base, tree, continues: None, history, workdir_set: false })
    }

    fn continue_stage(&self, index: usize, base: usize, info: &StageInfo<'_>) -> Result<Finished, Diagnostic> {
        let Some(below) = &self.finished[base] else {
            let span = info.stage.from.image.span;
            let error = self.error(span, format!("stage {index} cannot start from stage {base}, which comes later"));
            return Err(error.hint("move that stage above this one"));
        };
        let mut config = below.config.clone();
        config.config.on_build.clear();
        Ok(Finished {
            config,
            scope: below.scope.clone(),
            arguments: below.arguments.clone(),
            platform: below.platform.clone(),
            base: below.base,
            tree: below.tree.clone(),
            continues: Some(base),
            history: Vec::new(),
            workdir_set: below.workdir_set,
        })
    }

    fn image_config(&self, request: &ImageRequest, span: Span) -> Result<ImageConfig, Diagnostic> {
        let Some(mut config) = self.facts.images.get(request).cloned() else {
            return Err(self.error(span, format!("the configuration of {:?} is not known", request.source)));
        };
        config.created = None;
        config.config.on_build.clear();
        Ok(config)
    }

    fn empty_config(&self) -> ImageConfig {
        let platform = &self.facts.target_platform;
        let mut config = ImageConfig { architecture: platform.architecture.clone(), os: platform.os.clone(), ..Default::default() };
        config.variant = Some(platform.variant.clone()).filter(|v| !v.is_empty());
        config.os_version = Some(platform.os_version.clone()).filter(|v| !v.is_empty());
        config.config.working_dir = "/".into();
        config
    }

    /// Sets what every stage has: a search path, the image's ENV in scope, a normalised working directory.
    fn prepare(&self, done: &mut Finished) {
        let config = &mut done.config.config;
        if !config.env.iter().any(|e| key_value(e).0 == "PATH") && done.platform.os != "windows" {
            config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for entry in &config.env {
            let (name, value) = key_value(entry);
            done.scope.set(name, value);
        }
        if !config.working_dir.is_empty() {
            config.working_dir = paths::workdir("", &config.working_dir);
        }
    }

    /// Returns a root file system node for a stage; one that is a tree of files is copied onto an empty root.
    pub(super) fn root_of(&mut self, stage: usize, span: Span, done: &mut Finished) -> NodeId {
        let from = match &done.tree {
            FileTree::Node(id) => return *id,
            FileTree::Context(_) => done.tree.clone(),
        };
        let base = self.base_node(None, stage, span, "FROM scratch".into());
        let copy = CopyOp {
            sources: vec![CopySource::Path("/".into(), span)],
            from,
            dest: "/".into(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            add: None,
        };
        let title = "[context] copy files".to_string();
        let platform = done.platform.clone();
        let node = Node { op: Op::Copy(Box::new(copy)), parent: Some(base), stage, span, title, onbuild: None, platform };
        done.base = Some(base);
        self.push(node)
    }

    fn instruction(&mut self, work: &mut Work<'_>, instruction: &Instruction) -> Result<(), Diagnostic> {
        match &instruction.kind {
            Kind::From(_) => {}
            Kind::Run(run) => self.run_step(work, instruction, run)?,
            Kind::Copy(copy) => self.copy_step(work, instruction, copy, false)?,
            Kind::Add(add) => self.copy_step(work, instruction, add, true)?,
            Kind::Workdir(path) => self.workdir(work, instruction, path)?,
            Kind::Env(pairs) => self.env(work, instruction, pairs)?,
            Kind::Label(pairs) => self.label(work, instruction, pairs)?,
            Kind::Arg(_) => self.arg(work, instruction)?,
            Kind::Expose(ports) => self.expose(work, instruction, ports)?,
            Kind::User(user) => {
                let user = self.expand(work, instruction, user)?;
                work.history(format!("USER {user}"), None);
                work.done.config.config.user = user;
            }
            Kind::Volume(volumes) => self.volume(work, instruction, volumes)?,
            Kind::StopSignal(signal) => {
                let value = self.expand(work, instruction, signal)?;
                values::signal(&value).map_err(|e| self.value_error(signal.span, &e))?;
                work.history(format!("STOPSIGNAL {value}"), None);
                work.done.config.config.stop_signal = Some(value);
            }
            Kind::Cmd(command) => {
                self.check_once(instruction, &mut work.cmd);
                self.check_exec_form(instruction, command, work.done.config.config.shell.as_deref());
                let args = command_args(work, command);
                work.history(format!("CMD {}", text::quoted_list(&args)), None);
                work.done.config.config.cmd = Some(args).filter(|a| !a.is_empty());
                work.done.config.config.args_escaped = true;
            }
            Kind::Entrypoint(command) => {
                self.check_once(instruction, &mut work.entrypoint);
                self.check_exec_form(instruction, command, work.done.config.config.shell.as_deref());
                let args = command_args(work, command);
                work.history(format!("ENTRYPOINT {}", text::quoted_list(&args)), None);
                work.done.config.config.entrypoint = Some(args).filter(|a| !a.is_empty());
                if work.cmd.is_none() {
                    work.done.config.config.cmd = None;
                }
            }
            Kind::Shell(shell) => {
                work.history(format!("SHELL {}", text::list(shell)), None);
                work.done.config.config.shell = Some(shell.clone());
            }
            Kind::Healthcheck(check) => {
                self.check_once(instruction, &mut work.healthcheck);
                work.history(format!("HEALTHCHECK {}", text::healthcheck(check)), None);
                work.done.config.config.healthcheck = Some(Healthcheck {
                    test: check.test.clone(),
                    interval: check.interval_ns,
                    timeout: check.timeout_ns,
                    start_period: check.start_period_ns,
                    start_interval: check.start_interval_ns,
                    retries: check.retries,
                });
            }
            Kind::Onbuild(onbuild) => work.done.config.config.on_build.push(onbuild.text.clone()),
            Kind::Maintainer(name) => {
                work.history(format!("MAINTAINER {}", name.value), None);
                work.done.config.author = Some(name.value.clone());
            }
        }
        Ok(())
    }

    /// Expands a word in the stage's scope.
    pub(super) fn expand(&mut self, work: &Work<'_>, instruction: &Instruction, word: &Word) -> Result<String, Diagnostic> {
        let expanded = self.expander.word(&word.value, &work.done.scope).map_err(|e| self.expand_error(word.span, &e))?;
        self.note_unmatched(work, instruction, &expanded.unmatched);
        Ok(expanded.text)
    }

    pub(super) fn expand_error(&self, span: Span, error: &ExpandError) -> Diagnostic {
        self.error(span, error.to_string()).hint(error.kind.hint())
    }

    pub(super) fn value_error(&self, span: Span, error: &values::ValueError) -> Diagnostic {
        self.error(span, error.to_string()).hint(error.hint())
    }

    pub(super) fn note_unmatched(&mut self, work: &Work<'_>, instruction: &Instruction, unmatched: &std::collections::BTreeSet<String>) {
        if !unmatched.is_empty() {
            self.check_variables(instruction, unmatched, &work.done.arguments, &work.done.scope);
        }
    }

    /// Returns an instruction's first line for titles, expanded where that works.
    pub(super) fn expanded_text(&self, work: &Work<'_>, instruction: &Instruction) -> String {
        let line = first_line(instruction);
        self.expander.word(line, &work.done.scope).map_or_else(|_| line.to_string(), |e| e.text)
    }

    /// Adds a step to the stage.
    pub(super) fn step(&mut self, work: &mut Work<'_>, instruction: &Instruction, op: Op, shown: &str) -> NodeId {
        work.step += 1;
        let node = Node {
            op,
            parent: work.last(),
            stage: work.index,
            span: self.at(instruction.span),
            title: self.title(work.info, work.step, work.steps, shown, work.onbuild.is_some()),
            onbuild: work.onbuild.clone(),
            platform: work.done.platform.clone(),
        };
        let id = self.push(node);
        work.done.tree = FileTree::Node(id);
        id
    }

    /// Returns `[name 2/5] RUN make`.
    fn title(&self, info: &StageInfo<'_>, step: usize, steps: usize, shown: &str, onbuild: bool) -> String {
        if steps == 0 {
            return shown.to_string();
        }
        let (label, space) = if self.alone { ("", "") } else { (info.label.as_str(), " ") };
        let width = steps.ilog10() as usize + 1;
        let (name, rest) = shown.split_at(shown.find(' ').unwrap_or(shown.len()));
        format!("[{label}{space}{step:>width$}/{steps}] {}{}{rest}", if onbuild { "ONBUILD " } else { "" }, name.to_uppercase())
    }
}

/// Returns how many steps a stage has, its base image included.
fn steps(info: &StageInfo<'_>, triggers: usize) -> usize {
    let base = usize::from(matches!(info.base, Origin::Image(_) | Origin::Files(_)));
    let step = |i: &&Instruction| matches!(i.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_));
    base + triggers + info.stage.instructions.iter().filter(step).count()
}

pub(super) fn image_name(origin: &Origin) -> String {
    use crate::graph::ImageSource;
    match origin {
        Origin::Scratch => "scratch".into(),
        Origin::Stage(index) => format!("stage {index}"),
        Origin::Files(name) => name.clone(),
        Origin::Image(request) => match &request.source {
            ImageSource::Reference(reference) => reference.clone(),
            ImageSource::OciLayout { path, tag } => format!("{path}:{tag}"),
            ImageSource::Host(programs) => format!("host:{}", programs.join(",")),
        },
    }
}

/// Returns the instruction without its heredocs' bodies.
pub(super) fn first_line(instruction: &Instruction) -> &str {
    instruction.text.split('\n').next().unwrap_or_default().trim()
}

/// Returns the arguments of a command; the shell form gets the stage's shell in front.
pub(super) fn command_args(work: &Work<'_>, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(args) => args.value.clone(),
        CommandLine::Shell(line) => with_shell(work, line.value.clone()),
    }
}

/// Returns the stage's shell with a script as its last argument.
pub(super) fn with_shell(work: &Work<'_>, script: String) -> Vec<String> {
    let mut args = shell(work);
    args.push(script);
    args
}

/// Returns the stage's shell.
pub(super) fn shell(work: &Work<'_>) -> Vec<String> {
    match &work.done.config.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ if work.done.config.os == "windows" => ["cmd", "/S", "/C"].map(str::to_string).to_vec(),
        _ => ["/bin/sh", "-c"].map(str::to_string).to_vec(),
    }
}
