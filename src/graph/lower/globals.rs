//! The global scope: what FROM lines see, and what `ARG NAME` imports into a stage.
//!
//! `SOURCE_DATE_EPOCH` is read here too, as it may be a global ARG. What a newcomer would get wrong: a build argument
//! takes the place of a default without looking at it, so an error in the default does not show.

use std::collections::BTreeMap;

use crate::dockerfile::expand::Env;
use crate::dockerfile::instruction::{CopyArg, Instruction, Kind, Stage};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::graph::NamedContext;

use super::Lowering;
use super::remote::{self, SourceKind};
use super::scope::Scope;

const EPOCH: &str = "SOURCE_DATE_EPOCH";

impl Lowering<'_> {
    /// Sets the automatic arguments and those declared before the first FROM.
    pub(super) fn read_globals(&mut self) -> Result<(), Diagnostic> {
        self.globals = self.automatic();
        let file = self.file;
        let globals = self.apply_globals(&file.global_args, &self.facts.build_args);
        self.globals = globals?;
        self.global_names = file.global_args.iter().flat_map(declared).map(str::to_string).collect();
        Ok(())
    }

    /// Returns the automatic arguments; build arguments override them.
    pub(super) fn automatic(&self) -> Scope {
        let (build, target) = (&self.facts.build_platform, &self.facts.target_platform);
        let last = self.file.stages.last().and_then(|s| s.name.as_deref());
        let stage = self.facts.target.as_deref().filter(|t| !t.is_empty()).or(last).unwrap_or("default");
        let mut plain_build = build.clone();
        plain_build.os_version.clear();
        let mut scope = Scope::default();
        for (name, value) in [
            ("BUILDPLATFORM", plain_build.to_string().as_str()),
            ("BUILDOS", &build.os),
            ("BUILDOSVERSION", &build.os_version),
            ("BUILDARCH", &build.architecture),
            ("BUILDVARIANT", &build.variant),
            ("TARGETPLATFORM", &target.to_string()),
            ("TARGETOS", &target.os),
            ("TARGETOSVERSION", &target.os_version),
            ("TARGETARCH", &target.architecture),
            ("TARGETVARIANT", &target.variant),
            ("TARGETSTAGE", stage),
        ] {
            scope.set(name, self.facts.build_args.get(name).map_or(value, String::as_str));
        }
        scope
    }

    /// Returns the automatic arguments and the global ARGs, with these build arguments.
    pub(super) fn apply_globals(&self, instructions: &[Instruction], build_args: &BTreeMap<String, String>) -> Result<Scope, Diagnostic> {
        let mut scope = self.automatic();
        for instruction in instructions {
            let Kind::Arg(declarations) = &instruction.kind else { continue };
            for declaration in declarations {
                let name = &declaration.name.value;
                if let Some(value) = build_args.get(name) {
                    scope.set(name, value);
                } else if let Some(default) = &declaration.default {
                    let value = self.expander.word(&default.value, &scope).map_err(|e| self.expand_error(default.span, &e))?;
                    scope.set(name, &value.text);
                }
            }
        }
        Ok(scope)
    }

    /// Reads `SOURCE_DATE_EPOCH`: seconds, `context`, a named context, or a stage that only downloads one thing.
    ///
    /// What is not a number is for the caller to find out; within the build it then counts as not given.
    pub(super) fn read_epoch(&mut self) -> Result<(), Diagnostic> {
        let value = self.facts.build_args.get(EPOCH).map(String::as_str).or_else(|| self.globals.value(EPOCH));
        let Some(value) = value.filter(|v| !v.is_empty()).map(str::to_string) else { return Ok(()) };
        if let Ok(seconds) = value.parse::<i64>() {
            self.epoch = Some(seconds);
            return Ok(());
        }
        let named = self.facts.named_contexts.get(&value).is_some_and(|c| *c == NamedContext::Files);
        let stage = self.file.stages.iter().find(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(&value)));
        match stage {
            Some(stage) if !named => self.check_epoch_stage(stage)?,
            None if !named && value != "context" => {
                let place = self.file.global_args.iter().find(|i| declared(i).any(|n| n == EPOCH)).map_or(Span::default(), |i| i.span);
                return Err(self.error(place, format!("invalid SOURCE_DATE_EPOCH: `{value}` is no number of seconds, context or stage")));
            }
            _ => {}
        }
        self.globals.unset(EPOCH);
        Ok(())
    }

    /// Returns a build argument; an epoch that is not a number counts as not given.
    pub(super) fn build_arg(&self, name: &str) -> Option<&str> {
        let value = self.facts.build_args.get(name)?;
        (name != EPOCH || value.parse::<i64>().is_ok()).then_some(value.as_str())
    }

    fn check_epoch_stage(&self, stage: &Stage) -> Result<(), Diagnostic> {
        let bad = |span: Span, why: String| Err(self.error(span, format!("SOURCE_DATE_EPOCH stage {why}")));
        let base =
            self.expander.word(&stage.from.image.value, &self.globals).map_err(|e| self.error(stage.from.image.span, e.to_string()))?;
        if base.text != "scratch" {
            return bad(stage.from.image.span, "must use FROM scratch".into());
        }
        let mut adds = 0;
        for instruction in &stage.instructions {
            match &instruction.kind {
                Kind::Arg(_) => {}
                Kind::Add(add) => {
                    adds += 1;
                    let remote = |text: &str| matches!(remote::kind(text), Ok(SourceKind::Git | SourceKind::Http)) || text.contains('$');
                    if !matches!(add.sources.as_slice(), [CopyArg::Path(source)] if remote(&source.value)) {
                        return bad(instruction.span, "must contain exactly one remote ADD source".into());
                    }
                }
                _ => {
                    let name = instruction.name.value.to_uppercase();
                    return bad(instruction.span, format!("does not meet source-only requirements: unsupported {name} instruction"));
                }
            }
        }
        if adds == 1 { Ok(()) } else { bad(stage.instruction.span, "must contain exactly one remote ADD".into()) }
    }
}

/// Returns the names that an instruction declares, if it is ARG.
pub(super) fn declared(instruction: &Instruction) -> impl Iterator<Item = &str> {
    let declarations = match &instruction.kind {
        Kind::Arg(declarations) => declarations.as_slice(),
        _ => &[],
    };
    declarations.iter().map(|d| d.name.value.as_str())
}
