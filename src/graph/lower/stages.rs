//! The stages of a file: their names, bases and platforms, and which of them the target reaches.
//!
//! What a newcomer would get wrong: FROM looks for the text exactly as written among the *earlier* stages, while
//! `COPY --from`, mounts and `--target` ignore case and find the *last* stage of a name, also a later one (which then is
//! an error of its own). The bases of all stages must be valid names, also of those that are never built.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::instruction::{Instruction, Kind, Stage, Word};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::dockerfile::suggest;
use crate::graph::{ImageRequest, ImageSource, NamedContext, mounts};
use crate::image::platform::Platform;
use crate::image::reference::Reference;

use super::Lowering;
use super::scope::Nothing;

/// Where files come from: a base, the source of COPY, of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Scratch,
    /// A stage of this file, by its index.
    Stage(usize),
    Image(ImageRequest),
    /// A named context that is a tree of files.
    Files(String),
}

/// A stage with its FROM read.
pub(super) struct StageInfo<'a> {
    pub stage: &'a Stage,
    /// `build`, or `stage-2` for one without a name.
    pub label: String,
    pub base: Origin,
    /// `--platform`; none: the target's.
    pub platform: Option<Platform>,
    /// A named context stands for the stage: its instructions are not looked at.
    pub replaced: bool,
}

impl<'a> Lowering<'a> {
    /// Reads all FROMs.
    pub(super) fn read_stages(&mut self) -> Result<Vec<StageInfo<'a>>, Diagnostic> {
        let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
        let mut stages = Vec::new();
        for (index, stage) in self.file.stages.iter().enumerate() {
            let info = self.read_from(index, stage, &by_name)?;
            stages.push(info);
            by_name.extend(stage.name.clone().map(|name| (name, index)));
        }
        self.by_name = by_name;
        Ok(stages)
    }

    fn read_from(&mut self, index: usize, stage: &'a Stage, by_name: &BTreeMap<String, usize>) -> Result<StageInfo<'a>, Diagnostic> {
        let word = &stage.from.image;
        let expanded = self.expander.word(&word.value, &self.globals).map_err(|e| self.expand_error(word.span, &e))?;
        self.check_from_arguments(stage, &expanded);
        if expanded.text.is_empty() {
            let error = self.error(word.span, format!("base name ({}) should not be blank", word.value));
            return Err(error.hint("only ARGs above the first FROM are seen here: declare one there, with a default"));
        }
        let mut named_arguments = expanded.matched;
        let platform = stage.from.platform.as_ref().map(|word| self.parse_platform(stage, word, &mut named_arguments)).transpose()?;
        let label = stage.name.clone().unwrap_or_else(|| format!("stage-{index}"));
        let wanted = platform.clone().unwrap_or_else(|| self.facts.target_platform.clone());
        let named = stage.name.as_deref().and_then(|name| self.named_context(name, &wanted));
        if let Some(named) = named {
            return Ok(StageInfo { stage, label, base: named, platform, replaced: true });
        }
        let base = match by_name.get(&expanded.text) {
            Some(earlier) => Origin::Stage(*earlier),
            None => self.image(&expanded.text, &wanted, word.span)?,
        };
        self.outline.from(index, &base, &named_arguments);
        Ok(StageInfo { stage, label, base, platform, replaced: false })
    }

    fn parse_platform(&mut self, stage: &Stage, word: &Word, named: &mut BTreeSet<String>) -> Result<Platform, Diagnostic> {
        let expanded = self.expander.word(&word.value, &self.globals).map_err(|e| self.expand_error(word.span, &e))?;
        named.extend(expanded.matched.iter().cloned());
        self.check_from_arguments(stage, &expanded);
        self.check_from_platform(stage, word, &expanded);
        let error = if expanded.text.is_empty() {
            format!("empty platform value from expression `{}`", word.value)
        } else {
            match expanded.text.parse() {
                Ok(platform) => return Ok(platform),
                Err(e) => format!("failed to parse platform `{}`: {e}", word.value),
            }
        };
        let error = self.error(word.span, error);
        let names: Vec<&str> = self.globals.names().collect();
        match expanded.unmatched.iter().find_map(|name| suggest::nearest(name, names.iter().copied())) {
            Some(near) => Err(error.hint(format!("did you mean `{near}`?"))),
            None if expanded.text.is_empty() => {
                Err(error.hint("only ARGs above the first FROM are seen here, and the automatic ones, such as $BUILDPLATFORM"))
            }
            None => Err(error.hint("write os/architecture, such as linux/amd64 or linux/arm/v7")),
        }
    }

    /// Returns what an image's name stands for.
    fn image(&self, name: &str, platform: &Platform, span: Span) -> Result<Origin, Diagnostic> {
        if name == "scratch" {
            return Ok(Origin::Scratch);
        }
        let reference = Reference::parse(name).map_err(|e| {
            let near = suggest::nearest(name, self.file.stages.iter().filter_map(|s| s.name.as_deref()));
            let error = self.error(span, format!("failed to parse stage name `{name}`: {e}"));
            match near {
                Some(near) => error.hint(format!("did you mean the stage `{near}`?")),
                None if name.chars().any(char::is_uppercase) => error.hint("names of images are in lower case"),
                None => error.hint("write NAME, NAME:TAG or NAME@sha256:DIGEST"),
            }
        })?;
        if let Some(named) = self.named_context(name, platform) {
            return Ok(named);
        }
        let source = ImageSource::Reference(reference.tagged().to_string());
        Ok(Origin::Image(ImageRequest { source, platform: platform.clone() }))
    }

    /// Returns what `--build-context` says that a name stands for. Both are compared as image names without `:latest`.
    fn named_context(&self, name: &str, platform: &Platform) -> Option<Origin> {
        let reserved = name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context");
        if reserved || self.facts.named_contexts.is_empty() {
            return None;
        }
        let plain =
            |text: &str| Reference::parse(text).map_or_else(|_| text.to_string(), |r| r.familiar().trim_end_matches(":latest").to_string());
        let name = plain(name);
        let for_platform = format!("{name}::{platform}");
        let found = |wanted: &str| self.facts.named_contexts.iter().find(|(key, _)| *key == wanted || plain(key) == wanted);
        self.asked_names.borrow_mut().insert(name.clone());
        let (key, context) = found(&for_platform).or_else(|| found(&name))?;
        self.used_contexts.borrow_mut().insert(key.clone());
        Some(match context {
            NamedContext::Files => Origin::Files(key.clone()),
            // Wherever the stage stands: one that comes too late is an error where it is used.
            NamedContext::Stage(stage) => {
                Origin::Stage(self.file.stages.iter().rposition(|s| s.name.as_deref() == Some(&stage.to_lowercase()))?)
            }
            NamedContext::Image(ImageSource::Reference(reference)) if reference.ends_with("library/scratch:latest") => Origin::Scratch,
            NamedContext::Image(source) => Origin::Image(ImageRequest { source: source.clone(), platform: platform.clone() }),
        })
    }

    /// Returns where `COPY --from=NAME` reads. `name` may be a stage's index.
    pub(super) fn copy_origin(&self, name: &str, span: Span) -> Result<Origin, Diagnostic> {
        let expanded = self.expander.word(name, &Nothing).map_err(|e| self.expand_error(span, &e))?;
        if expanded.text != name {
            return Err(self
                .error(span, format!("variable expansion is not supported for --from (`{name}`)"))
                .hint("define a new stage with FROM, using an ARG from the global scope, and copy from that"));
        }
        match name.parse::<i64>() {
            Ok(index) => match usize::try_from(index).ok().filter(|i| *i < self.file.stages.len()) {
                Some(index) => Ok(Origin::Stage(index)),
                None => {
                    let count = self.file.stages.len();
                    let error = self.error(span, format!("invalid stage index {index}: the file has {count} stages"));
                    Err(error.hint(format!("indexes go from 0 to {}; a name is safer: FROM ... AS name", count.saturating_sub(1))))
                }
            },
            Err(_) => self.named_origin(name, span),
        }
    }

    /// Returns where `from=NAME` of a mount reads.
    pub(super) fn named_origin(&self, name: &str, span: Span) -> Result<Origin, Diagnostic> {
        match self.by_name.get(&name.to_lowercase()) {
            Some(index) => Ok(Origin::Stage(*index)),
            None => self.image(name, &self.facts.target_platform, span),
        }
    }

    /// Returns the sources that an instruction reads besides its own stage's context, each with its place.
    pub(super) fn origins(&self, instruction: &Instruction, at: Option<Span>) -> Result<Vec<(Origin, Span)>, Diagnostic> {
        let place = |span: Span| at.unwrap_or(span);
        match &instruction.kind {
            Kind::Copy(copy) => copy
                .from
                .iter()
                .filter(|from| !from.value.is_empty())
                .map(|from| Ok((self.copy_origin(&from.value, place(from.span))?, place(from.span))))
                .collect(),
            Kind::Run(run) => run
                .mounts
                .iter()
                .filter_map(|flag| Some((mounts::from_of(&flag.fields)?, place(flag.span))))
                .map(|(from, span)| Ok((self.named_origin(from, span)?, span)))
                .collect(),
            _ => Ok(Vec::new()),
        }
    }

    /// Finds the stage to build.
    pub(super) fn find_target(&self) -> Result<usize, Diagnostic> {
        match self.facts.target.as_deref().filter(|t| !t.is_empty()) {
            Some(target) => self.find_stage(target),
            None => Ok(self.file.stages.len() - 1),
        }
    }

    /// Finds a stage by the name that the caller gives it.
    pub(super) fn find_stage(&self, target: &str) -> Result<usize, Diagnostic> {
        if let Some(index) = self.by_name.get(&target.to_lowercase()) {
            return Ok(*index);
        }
        let error = self.error(Span::default(), format!("target stage `{target}` could not be found"));
        let near = suggest::nearest(target, self.by_name.keys().map(String::as_str));
        Err(match near {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("the file has {}", named_stages(self.by_name.keys()))),
        })
    }
}

fn named_stages<'n>(names: impl Iterator<Item = &'n String>) -> String {
    let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    if names.is_empty() { "no stage with a name".into() } else { format!("the stages {}", names.join(", ")) }
}

/// Which stages each stage copies or mounts from, with the place that says so.
pub(super) type Dependencies = Vec<BTreeMap<usize, Span>>;

/// Returns a stage that copies from itself, directly or through others, and where.
pub(super) fn cycle(dependencies: &Dependencies) -> Option<(usize, Span)> {
    // Each stage is done once; `path` holds those that lead to the one at hand. The stack is explicit, since a file may
    // have any number of stages.
    let mut done = vec![false; dependencies.len()];
    for start in 0..dependencies.len() {
        let mut path: BTreeSet<usize> = BTreeSet::new();
        let mut stack = vec![(start, dependencies[start].iter())];
        if std::mem::replace(&mut done[start], true) {
            continue;
        }
        path.insert(start);
        while let Some((stage, rest)) = stack.last_mut() {
            match rest.next() {
                Some((next, span)) if path.contains(next) => return Some((*next, *span)),
                Some((next, _)) if !done[*next] => {
                    done[*next] = true;
                    path.insert(*next);
                    stack.push((*next, dependencies[*next].iter()));
                }
                Some(_) => {}
                None => {
                    path.remove(stage);
                    stack.pop();
                }
            }
        }
    }
    None
}

/// The stages that something needs, found step by step.
pub(super) struct Reachable<'s> {
    stages: &'s [StageInfo<'s>],
    marks: Vec<bool>,
}

impl<'s> Reachable<'s> {
    pub(super) fn new(stages: &'s [StageInfo<'s>]) -> Self {
        Self { stages, marks: vec![false; stages.len()] }
    }

    /// Marks a stage and all that it needs. Returns those that were not marked yet.
    pub(super) fn add(&mut self, stage: usize, dependencies: &Dependencies) -> Vec<usize> {
        let mut added = Vec::new();
        let mut stack = vec![stage];
        while let Some(index) = stack.pop() {
            if std::mem::replace(&mut self.marks[index], true) {
                continue;
            }
            added.push(index);
            stack.extend(dependencies[index].keys().copied());
            if let Origin::Stage(base) = self.stages[index].base {
                stack.push(base);
            }
        }
        added
    }

    /// Returns which stages were marked.
    pub(super) fn into_marks(self) -> Vec<bool> {
        self.marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_found_and_diamonds_are_none() {
        let graph = |edges: &[(usize, usize)]| {
            let mut all: Dependencies = vec![BTreeMap::new(); 4];
            for (from, to) in edges {
                all[*from].insert(*to, Span::new(*from, *to));
            }
            all
        };
        assert_eq!(cycle(&graph(&[(3, 1), (3, 2), (1, 0), (2, 0)])), None);
        assert_eq!(cycle(&graph(&[(1, 1)])), Some((1, Span::new(1, 1))));
        assert_eq!(cycle(&graph(&[(0, 1), (1, 2), (2, 1)])), Some((1, Span::new(2, 1))));
    }
}
