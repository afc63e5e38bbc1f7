//! Why a step has to run, as exactly as what is known of earlier builds allows.
//!
//! `cache::miss` compares the step's inputs with the last ones of its place. Here is added what it can't know: which step
//! below changed first and what the base image was (by the log of the build that had the earlier inputs), where in the
//! Dockerfile a variable is set, and which ignore rule a file came or went by.

use std::sync::Arc;

use crate::cache::files::FileChange;
use crate::cache::log::{self, Body, Step};
use crate::cache::miss::below::{Culprit, Rung, culprit};
use crate::cache::miss::{self, Cause, Difference, Lists, Parent, Place, Reason};
use crate::cache::record::Slot;
use crate::cache::state::StateId;
use crate::dockerfile::ignore::IgnoreRules;
use crate::dockerfile::instruction::File;
use crate::dockerfile::origin::{Setting, line_of};
use crate::dockerfile::source::Source;
use crate::graph::{FileTree, Mount, MountKind, NodeId, Op};
use crate::store::BuildFilter;

use super::error::BuildError;
use super::session::{Build, Origin};

/// How many builds are looked through for the one that had the earlier inputs.
const LOOKED_AT: usize = 50;

/// What is known of earlier builds and of the Dockerfile's text; read at the first need.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The last builds of this Dockerfile, newest first, equal ones once.
    bodies: Vec<Arc<Body>>,
    /// The Dockerfile.
    file: Option<File>,
}

impl Build<'_> {
    /// Tells why a step has to run, by what was last built in its place.
    pub fn reason(&self, id: NodeId, slot: &Slot, old: Option<&Slot>, lists: Lists<'_>) -> Result<Reason, BuildError> {
        let Some(old) = old else { return self.reason_by_likeness(id, slot, lists) };
        let reason = miss::explain(slot, Some(old), &self.parent_name(id), lists);
        let Reason::Changed(causes) = reason else { return Ok(reason) };
        let body = self.body_with(old)?;
        let causes = causes.into_iter().filter(|c| !is_of_platform(slot, old, c));
        let refined = causes.map(|cause| match (&cause.difference, &body) {
            (Difference::Base { .. } | Difference::Below(_), Some((body, at))) => {
                self.below(id, old, body, *at).map(|b| b.unwrap_or(cause))
            }
            _ => Ok(cause),
        });
        let causes = refined.collect::<Result<Vec<_>, _>>()?;
        self.located(id, Reason::Changed(causes), body.as_ref().map(|(body, _)| &**body))
    }

    /// Adds to the causes where they were written, and by which ignore rules files came or went. `old`: the build that had
    /// the earlier inputs.
    pub fn located(&self, id: NodeId, reason: Reason, old: Option<&Body>) -> Result<Reason, BuildError> {
        let Reason::Changed(mut causes) = reason else { return Ok(reason) };
        for cause in &mut causes {
            if cause.place.is_none() {
                cause.place = self.place_of(id, &cause.difference, old)?;
            }
            self.find_rule(id, cause, old)?;
        }
        Ok(Reason::Changed(causes))
    }

    /// A step that was never built for this platform is told by what it was for another; one that was COPY by that.
    fn reason_by_likeness(&self, id: NodeId, slot: &Slot, lists: Lists<'_>) -> Result<Reason, BuildError> {
        let (stage, title) = (self.stage_shown(id), self.title_shown(id));
        let known = self.known()?;
        let platform = slot.inputs.platform.to_string();
        let words = |title: &str| title.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.to_owned()));
        let other_name = |s: &Step| match (words(&s.title), words(&title)) {
            (Some((was, rest)), Some((is, same))) => was != is && rest == same,
            _ => false,
        };
        let same = |s: &&Step| s.stage == stage && if s.platform == platform { other_name(s) } else { s.title == title };
        let Some(step) = known.bodies.iter().flat_map(|b| &b.steps).find(same) else { return Ok(Reason::FirstBuild) };
        let Some(inputs) = &step.inputs else { return Ok(Reason::FirstBuild) };
        let Some(old) = log::inputs(self.engine.store, inputs)? else { return Ok(Reason::FirstBuild) };
        let reason = miss::explain(slot, Some(&old), &self.parent_name(id), lists);
        let Reason::Changed(mut causes) = reason else { return Ok(Reason::FirstBuild) };
        causes.retain(|c| !is_of_platform(slot, &old, c));
        self.located(id, Reason::Changed(causes), None)
    }

    /// Tells what of the state below differs from that of a step of an earlier build.
    fn below(&self, id: NodeId, old: &Slot, body: &Body, at: usize) -> Result<Option<Cause>, BuildError> {
        let mut nodes = vec![id];
        while let Some(parent) = self.graph.nodes[nodes[nodes.len() - 1].0].parent {
            nodes.push(parent);
        }
        let base = nodes.pop_if(|n| self.steps[n.0].is_none());
        nodes.reverse();
        let mut steps = vec![at];
        while let Some(parent) = body.steps.get(steps[steps.len() - 1]).and_then(|s| s.parent) {
            steps.push(parent);
        }
        steps.reverse();
        let Some(olds) = steps.iter().map(|s| body.steps.get(*s)).collect::<Option<Vec<_>>>() else { return Ok(None) };
        if let Some(cause) = self.base_cause(base, old, body, &olds)? {
            return Ok(Some(cause));
        }
        let new = nodes.iter().map(|n| Rung { title: self.title_shown(*n), layer: self.layer_of(*n) }).collect::<Vec<_>>();
        let was = olds.iter().map(|s| Rung { title: s.title.clone(), layer: s.layer }).collect::<Vec<_>>();
        let name = |n: usize| format!("step {}", self.steps[nodes[n].0].map_or(0, |s| s + 1));
        Ok(culprit(&new, &was).map(|culprit| {
            let difference = match culprit {
                Culprit::Result(n) => {
                    let rebuilt = self.results[nodes[n].0].get().is_some_and(|r| r.origin == Origin::Made);
                    Difference::Step { name: name(n), rebuilt }
                }
                Culprit::New(n) => Difference::NewStep(name(n)),
                Culprit::Gone(title) => Difference::GoneStep(title),
            };
            difference.into()
        }))
    }

    /// Returns that the base is another one, if it is.
    fn base_cause(&self, base: Option<NodeId>, old: &Slot, body: &Body, olds: &[&Step]) -> Result<Option<Cause>, BuildError> {
        let Some(base) = base else { return Ok(None) };
        let Some(lowest) = olds.first() else { return Ok(None) };
        let was = lowest.base.and_then(|b| body.bases.get(b));
        let (name, new) = self.base_shown(base);
        if was.map(|b| b.digest) == new {
            return Ok(None);
        }
        // Another image may have the same files.
        let state = match (&olds, &lowest.inputs) {
            ([_], _) => Some(old.inputs.parent),
            (_, Some(inputs)) => log::inputs(self.engine.store, inputs)?.map(|slot| slot.inputs.parent),
            (_, None) => None,
        };
        let now = self.results[base.0].get().map(|r| r.chain.state());
        if state.is_some_and(|s| s != StateId::scratch()) && state == now {
            return Ok(None);
        }
        let name = match was {
            Some(was) if was.name != name => format!("{} -> {name}", was.name),
            _ => name,
        };
        Ok(Some(Difference::Base { name, old: was.map(|b| b.digest), new }.into()))
    }

    fn layer_of(&self, id: NodeId) -> Option<crate::digest::LayerId> {
        self.results[id.0].get().and_then(|r| r.layer).map(|l| l.id)
    }

    /// Finds the build that had these inputs, and which of its steps had.
    fn body_with(&self, old: &Slot) -> Result<Option<(Arc<Body>, usize)>, BuildError> {
        let key = Some(old.inputs.key());
        let find = |body: &Arc<Body>| Some((body.clone(), body.steps.iter().position(|s| s.key == key)?));
        Ok(self.known()?.bodies.iter().find_map(find))
    }

    fn known(&self) -> Result<&Known, BuildError> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let store = self.engine.store;
        let filter = BuildFilter { dockerfile: Some(&self.inputs.dockerfile_id), limit: Some(LOOKED_AT), ..BuildFilter::default() };
        let (mut seen, mut bodies) = (std::collections::HashSet::new(), Vec::new());
        for build in log::builds(store, &filter)? {
            if seen.insert(build.body_id().to_owned()) {
                bodies.extend(build.body(store)?.map(Arc::new));
            }
        }
        let file = crate::dockerfile::parse(&self.graph.source).ok();
        Ok(self.known.get_or_init(|| Known { bodies, file }))
    }

    /// Returns where something that differs was written, if that is not the step's own instruction.
    fn place_of(&self, id: NodeId, difference: &Difference, old: Option<&Body>) -> Result<Option<Place>, BuildError> {
        let node = &self.graph.nodes[id.0];
        let setting = match difference {
            Difference::Variable { name, .. } => Setting::Variable(name),
            Difference::Value { what, .. } if what == "user" => Setting::User,
            Difference::Value { what, .. } if what == "working directory" => Setting::Directory,
            Difference::Command { old, new } => {
                let same = old.iter().zip(new).take_while(|(o, n)| o == n).count();
                if same + 1 >= new.len() {
                    return Ok(None);
                }
                Setting::Shell
            }
            Difference::Base { .. } => {
                let base = std::iter::successors(Some(id), |n| self.graph.nodes[n.0].parent).last().expect("the step itself");
                return Ok(Some(self.place(self.graph.source.line(self.graph.nodes[base.0].span.start), false)));
            }
            _ => return Ok(None),
        };
        let before = if node.onbuild.is_some() { 0 } else { node.span.start };
        let known = self.known()?;
        if let Some(line) = known.file.as_ref().and_then(|f| line_of(f, node.stage, Some(before), setting)) {
            return Ok(Some(self.place(line, false)));
        }
        // What is no more there stood in the text of that time.
        let Some(text) = old.and_then(|b| b.dockerfile.as_ref()) else { return Ok(None) };
        let Some(text) = log::text(self.engine.store, text)? else { return Ok(None) };
        let line = crate::dockerfile::parse(&Source::new(self.graph.source.name(), text)).ok();
        let line = line.and_then(|f| line_of(&f, node.stage, None, setting));
        Ok(line.map(|line| self.place(line, true)))
    }

    fn place(&self, line: usize, was: bool) -> Place {
        Place { file: self.graph.source.name().to_string(), line, was }
    }

    /// Finds the ignore rule by which a file of the main context came or went.
    fn find_rule(&self, id: NodeId, cause: &mut Cause, old: Option<&Body>) -> Result<(), BuildError> {
        let Difference::File { path, change, rule, .. } = &mut cause.difference else { return Ok(()) };
        if !reads_context(&self.graph.nodes[id.0].op) {
            return Ok(());
        }
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let found = match change {
            FileChange::Removed => self.inputs.ignoring().and_then(|now| {
                let line = now.rules.matching_line(path)?;
                Some((pattern(&now.text, line)?, Place { file: now.file.clone(), line, was: false }))
            }),
            FileChange::Added => match old.and_then(|b| b.ignore.as_ref()) {
                None => None,
                Some(ignore) => log::text(self.engine.store, &ignore.text)?.and_then(|text| {
                    let line = IgnoreRules::parse(&text).ok()?.matching_line(path)?;
                    Some((pattern(&text, line)?, Place { file: ignore.file.clone(), line, was: true }))
                }),
            },
            _ => None,
        };
        if let Some((pattern, place)) = found {
            *rule = Some(pattern);
            cause.place = Some(place);
        }
        Ok(())
    }

    /// Returns what a step stands on, as people call it.
    pub fn parent_name(&self, id: NodeId) -> Parent {
        let Some(parent) = self.graph.nodes[id.0].parent else { return Parent::Base("scratch".into(), None) };
        match self.steps[parent.0] {
            Some(step) => Parent::Step(format!("step {}", step + 1)),
            None => {
                let (name, digest) = self.base_shown(parent);
                Parent::Base(name, digest)
            }
        }
    }

    /// Returns a base's name and digest.
    pub fn base_shown(&self, base: NodeId) -> (String, Option<crate::digest::Digest>) {
        let image = self.inputs.image(self.graph, base);
        (image.map_or_else(|| "scratch".into(), |i| i.origin.clone()), image.map(|i| i.digest))
    }

    /// Returns a step's title without its number.
    pub fn title_shown(&self, id: NodeId) -> String {
        let title = &self.graph.nodes[id.0].title;
        title.split_once("] ").map_or(title.as_str(), |(_, t)| t).to_string()
    }

    /// Returns the name of a step's stage.
    pub fn stage_shown(&self, id: NodeId) -> String {
        let stage = self.graph.nodes[id.0].stage;
        let name = self.graph.stages.iter().find(|s| s.index == stage).and_then(|s| s.name.clone());
        name.unwrap_or_else(|| format!("stage-{stage}"))
    }
}

/// Another platform has another base: that is no cause of its own.
fn is_of_platform(new: &Slot, old: &Slot, cause: &Cause) -> bool {
    new.inputs.platform != old.inputs.platform && matches!(cause.difference, Difference::Base { .. } | Difference::Below(_))
}

/// The text of a line.
fn pattern(text: &str, line: usize) -> Option<String> {
    text.lines().nth(line.checked_sub(1)?).map(|l| l.trim().to_string())
}

/// Whether a step reads files of the main context.
fn reads_context(op: &Op) -> bool {
    let main = |tree: &FileTree| matches!(tree, FileTree::Context(None));
    match op {
        Op::Copy(copy) => main(&copy.from),
        Op::Run(run) => run.mounts.iter().any(|Mount { kind, .. }| matches!(kind, MountKind::Bind { from, .. } if main(from))),
        Op::Base(_) | Op::Mkdir(_) => false,
    }
}
