//! Collects on the way what [`Outline`] tells: who declares which argument, who uses it, who asks for which secret.
//!
//! As BuildKit's `outlineCapture`. What a newcomer would get wrong: an ARG without a default that a global ARG gives a value
//! stays the global one, with its place and description, while one that declares a value takes its place in that stage.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::expand::Expansion;
use crate::dockerfile::instruction::Instruction;
use crate::dockerfile::source::Span;
use crate::graph::outline::{Argument, Offer, Outline, description, place};
use crate::graph::{Mount, MountKind};

use super::stages::{Dependencies, Origin, StageInfo};

/// What is known of all stages.
#[derive(Debug, Default)]
pub(super) struct Capture {
    globals: BTreeMap<String, Global>,
    stages: Vec<Stage>,
}

#[derive(Debug)]
struct Global {
    argument: Argument,
    /// The globals that its default names.
    needs: BTreeSet<String>,
}

#[derive(Debug, Default, Clone)]
struct Stage {
    /// What the FROM names, and those of the stages that it starts from.
    from: BTreeSet<String>,
    /// ARGs; none: the global one of this name, if there is one.
    arguments: BTreeMap<String, Option<Argument>>,
    secrets: BTreeMap<String, Offer>,
    ssh: BTreeMap<String, Offer>,
}

impl Capture {
    /// Notes a global ARG; `expansion` is its default's.
    pub(super) fn global(&mut self, instruction: &Instruction, name: &str, value: Option<&str>, expansion: Option<&Expansion>) {
        let mut needs = expansion.map(|expansion| expansion.matched.clone()).unwrap_or_default();
        // `ARG a=$a…` needs what the earlier one needed.
        if needs.remove(name)
            && let Some(old) = self.globals.get(name)
        {
            needs.extend(old.needs.iter().cloned());
        }
        self.globals.insert(name.to_owned(), Global { argument: argument(instruction, name, value), needs });
    }

    /// Notes what a FROM names; `base` is the stage that it starts from.
    pub(super) fn from(&mut self, index: usize, base: &Origin, named: &BTreeSet<String>) {
        let inherited = match base {
            Origin::Stage(base) => self.stage(*base).from.clone(),
            _ => BTreeSet::new(),
        };
        let stage = self.stage(index);
        stage.from.extend(inherited);
        stage.from.extend(named.iter().cloned());
    }

    /// Notes an ARG of a stage; `inherited`: its value is the global one's.
    pub(super) fn arg(
        &mut self,
        index: usize,
        (instruction, span): (&Instruction, Span),
        name: &str,
        value: Option<&str>,
        inherited: bool,
    ) {
        let own = (!inherited).then(|| Argument { span, ..argument(instruction, name, value) });
        let known = self.stage(index).arguments.entry(name.to_owned()).or_default();
        *known = own.or(known.take());
    }

    /// Notes the secrets and sockets of a RUN; the first that asks for one counts.
    pub(super) fn mounts(&mut self, index: usize, instruction: &Instruction, at: impl Fn(Span) -> Span, mounts: &[Mount]) {
        for mount in mounts {
            let (id, required, is_secret) = match &mount.kind {
                MountKind::Secret { id, required, .. } => (id, *required, true),
                MountKind::Ssh { id, required, .. } => (id, *required, false),
                _ => continue,
            };
            let offer = Offer { name: id.clone(), required, span: at(place(instruction)) };
            let stage = self.stage(index);
            let offers = if is_secret { &mut stage.secrets } else { &mut stage.ssh };
            offers.entry(id.clone()).or_insert(offer);
        }
    }

    /// Returns the outline of a target.
    pub(super) fn finish(&mut self, stages: &[StageInfo<'_>], dependencies: &Dependencies, target: usize) -> Outline {
        let mut args: BTreeMap<String, Argument> = BTreeMap::new();
        let (mut secrets, mut ssh) = (BTreeMap::new(), BTreeMap::new());
        for index in visited(stages, dependencies, target) {
            for (name, argument) in self.arguments(index) {
                args.entry(name).or_insert(argument);
            }
            let stage = self.stage(index);
            for (from, to) in [(&stage.secrets, &mut secrets), (&stage.ssh, &mut ssh)] {
                for (id, offer) in from {
                    to.entry(id.clone()).or_insert_with(|| offer.clone());
                }
            }
        }
        let stage = stages[target].stage;
        let in_order = |offers: BTreeMap<String, Offer>| sorted(offers, |offer| offer.span);
        Outline {
            name: stage.name.clone(),
            description: stage.name.as_deref().and_then(|name| description(&stage.instruction, name)),
            args: sorted(args, |argument| argument.span),
            secrets: in_order(secrets),
            ssh: in_order(ssh),
        }
    }

    /// Returns the arguments that a stage uses, with the globals that those need.
    fn arguments(&mut self, index: usize) -> Vec<(String, Argument)> {
        let stage = self.stage(index).clone();
        let mut used: BTreeSet<String> = BTreeSet::new();
        let mut todo: Vec<String> = stage.from.iter().chain(stage.arguments.keys()).cloned().collect();
        let mut found = Vec::new();
        while let Some(name) = todo.pop() {
            if !used.insert(name.clone()) {
                continue;
            }
            if let Some(Some(own)) = stage.arguments.get(&name) {
                found.push((name, own.clone()));
            } else if let Some(global) = self.globals.get(&name) {
                todo.extend(global.needs.iter().cloned());
                found.push((name, global.argument.clone()));
            }
        }
        found
    }

    fn stage(&mut self, index: usize) -> &mut Stage {
        if self.stages.len() <= index {
            self.stages.resize_with(index + 1, Stage::default);
        }
        &mut self.stages[index]
    }
}

fn argument(instruction: &Instruction, name: &str, value: Option<&str>) -> Argument {
    let description = description(instruction, name);
    Argument { name: name.to_owned(), description, value: value.map(str::to_owned), span: instruction.span }
}

/// Returns the target, then its base and all that is below, then the stages that it reads, each once.
fn visited(stages: &[StageInfo<'_>], dependencies: &Dependencies, target: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = vec![false; stages.len()];
    let mut todo = vec![target];
    while let Some(index) = todo.pop() {
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        order.push(index);
        todo.extend(dependencies[index].keys().rev());
        if let Origin::Stage(base) = stages[index].base {
            todo.push(base);
        }
    }
    order
}

fn sorted<T>(items: BTreeMap<String, T>, span: impl Fn(&T) -> Span) -> Vec<T> {
    let mut items: Vec<T> = items.into_values().collect();
    items.sort_by_key(|item| span(item).start);
    items
}
