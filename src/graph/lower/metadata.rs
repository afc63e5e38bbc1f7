//! The instructions that change the configuration or the scope by a list of words: ENV, LABEL, ARG, EXPOSE, VOLUME, WORKDIR.
//!
//! Each ends with its history text. What a newcomer would get wrong: all words of an ENV are expanded before any of them
//! counts, those of an ARG one by one.

use crate::dockerfile::check::{self, Rule};
use crate::dockerfile::expand::Env;
use crate::dockerfile::instruction::{Instruction, Kind, Pair, Word};
use crate::dockerfile::source::Diagnostic;
use crate::graph::{MkdirOp, Op};
use crate::image::config::Empty;

use super::scope::key_value;
use super::stage::Work;
use super::{Lowering, paths, text, values, weight};

impl Lowering<'_> {
    fn pairs(&mut self, work: &Work<'_>, instruction: &Instruction, pairs: &[Pair]) -> Result<Vec<(String, String)>, Diagnostic> {
        let mut out = Vec::with_capacity(pairs.len());
        for pair in pairs {
            out.push((self.expand(work, instruction, &pair.key)?, self.expand(work, instruction, &pair.value)?));
        }
        Ok(out)
    }

    pub(super) fn env(&mut self, work: &mut Work<'_>, instruction: &Instruction, pairs: &[Pair]) -> Result<(), Diagnostic> {
        self.check_legacy(instruction, pairs, "ENV");
        let keys: Vec<_> = pairs.iter().map(|pair| pair.key.span).collect();
        let pairs = self.pairs(work, instruction, pairs)?;
        for ((name, value), span) in pairs.iter().zip(keys) {
            self.check_secret(instruction, name, span, "ENV");
            // What is in the configuration is in scope: a new name needs no search.
            let is_new = work.done.scope.value(name).is_none();
            work.done.scope.set(name, value);
            let entry = format!("{name}={value}");
            let env = &mut work.done.config.config.env;
            let old = if is_new { None } else { env.iter_mut().find(|e| key_value(e).0 == name) };
            match old {
                Some(old) => *old = entry,
                None => env.push(entry),
            }
        }
        work.history(format!("ENV{}", joined(&pairs)), None);
        Ok(())
    }

    pub(super) fn label(&mut self, work: &mut Work<'_>, instruction: &Instruction, pairs: &[Pair]) -> Result<(), Diagnostic> {
        self.check_legacy(instruction, pairs, "LABEL");
        let pairs = self.pairs(work, instruction, pairs)?;
        work.history(format!("LABEL{}", joined(&pairs)), None);
        work.done.config.config.labels.extend(pairs);
        Ok(())
    }

    /// ARG: its names one by one, so that a later one sees the earlier ones.
    pub(super) fn arg(&mut self, work: &mut Work<'_>, instruction: &Instruction) -> Result<(), Diagnostic> {
        let Kind::Arg(declarations) = &instruction.kind else { return Ok(()) };
        let mut texts = Vec::new();
        for declaration in declarations {
            let name = &declaration.name.value;
            self.check_secret(instruction, name, declaration.name.span, "ARG");
            let value = match (self.build_arg(name), &declaration.default) {
                (Some(value), _) => Some(value.to_string()),
                (None, Some(default)) => Some(self.expand(work, instruction, default)?),
                (None, None) => self.globals.value(name).map(str::to_string),
            };
            if let Some(value) =
                value.as_deref().filter(|_| !matches!(name.as_str(), "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE"))
            {
                work.done.scope.set(name, value);
            }
            let inherited = self.build_arg(name).is_none() && declaration.default.is_none() && self.globals.value(name).is_some();
            let place = (instruction, self.at(instruction.span));
            self.outline.arg(work.index, place, name, value.as_deref(), inherited);
            texts.push(value.as_deref().map_or_else(|| name.clone(), |v| format!("{name}={v}")));
            work.done.arguments.declare(name, value);
        }
        work.history(format!("ARG {}", texts.join(" ")), None);
        Ok(())
    }

    pub(super) fn expose(&mut self, work: &mut Work<'_>, instruction: &Instruction, words: &[Word]) -> Result<(), Diagnostic> {
        let mut entries = Vec::new();
        // BuildKit sorts the words as they are written, which shows in the history.
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|a, b| a.value.cmp(&b.value));
        for word in words {
            let expanded = self.expander.words(&word.value, &work.done.scope).map_err(|e| self.expand_error(word.span, &e))?;
            for port in expanded {
                let ports = values::ports(&port);
                for (rule, message) in check::expose(&port) {
                    self.find(rule, instruction, word.span, message);
                }
                let ports = ports.map_err(|e| self.value_error(word.span, &e))?;
                self.weigh(weight::of_strings(&ports), word.span)?;
                entries.extend(ports);
            }
        }
        work.history(format!("EXPOSE {}", text::list(&entries)), None);
        work.done.config.config.exposed_ports.extend(entries.into_iter().map(|e| (e, Empty {})));
        Ok(())
    }

    pub(super) fn volume(&mut self, work: &mut Work<'_>, instruction: &Instruction, words: &[Word]) -> Result<(), Diagnostic> {
        let mut volumes = Vec::new();
        for word in words {
            let volume = self.expand(work, instruction, word)?;
            if volume.is_empty() {
                let error = self.error(word.span, "VOLUME specified can not be an empty string");
                return Err(error.hint("the variable is empty: give it a default, as in ${DIR:-/data}"));
            }
            volumes.push(volume);
        }
        work.history(format!("VOLUME {}", text::list(&volumes)), None);
        work.done.config.config.volumes.extend(volumes.into_iter().map(|v| (v, Empty {})));
        Ok(())
    }

    pub(super) fn workdir(&mut self, work: &mut Work<'_>, instruction: &Instruction, word: &Word) -> Result<(), Diagnostic> {
        let path = self.expand(work, instruction, word)?;
        if !work.done.workdir_set && !path.starts_with('/') {
            let message = format!("relative workdir `{path}` can have unexpected results if the base image changes");
            self.find(Rule::WorkdirRelativePath, instruction, word.span, message);
        }
        work.done.workdir_set = true;
        let dir = paths::workdir(work.workdir(), &path);
        work.done.config.config.working_dir = dir.clone();
        let mut node = None;
        if dir != "/" {
            let made = MkdirOp { path: paths::join("/", &dir), user: work.done.config.config.user.clone() };
            let shown = self.expanded_text(work, instruction);
            node = Some(self.step(work, instruction, Op::Mkdir(made), &shown));
        }
        work.history(format!("WORKDIR {dir}"), node);
        Ok(())
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!(" {name}={value}")).collect()
}
