//! The global scope: what FROM lines see, and what `ARG NAME` imports into a stage.
//!
//! What a newcomer would get wrong: a build argument
//! takes the place of a default without looking at it, so an error in the default does not show.

use std::collections::BTreeMap;

use crate::dockerfile::instruction::{Instruction, Kind};
use crate::dockerfile::source::Diagnostic;

use super::Lowering;
use super::outline::Capture;
use super::scope::Scope;

impl Lowering<'_> {
    /// Sets the automatic arguments and those declared before the first FROM.
    pub(super) fn read_globals(&mut self) -> Result<(), Diagnostic> {
        self.globals = self.automatic();
        let file = self.file;
        let mut outline = std::mem::take(&mut self.outline);
        let globals = self.apply_globals(&file.global_args, &self.facts.build_args, &mut outline);
        self.outline = outline;
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
    pub(super) fn apply_globals(
        &self,
        instructions: &[Instruction],
        build_args: &BTreeMap<String, String>,
        outline: &mut Capture,
    ) -> Result<Scope, Diagnostic> {
        let mut scope = self.automatic();
        for instruction in instructions {
            let Kind::Arg(declarations) = &instruction.kind else { continue };
            for declaration in declarations {
                let name = &declaration.name.value;
                let mut expansion = None;
                if let Some(value) = build_args.get(name) {
                    scope.set(name, value);
                } else if let Some(default) = &declaration.default {
                    let value = self.expander.word(&default.value, &scope).map_err(|e| self.expand_error(default.span, &e))?;
                    scope.set(name, &value.text);
                    expansion = Some(value);
                }
                let value = build_args.get(name).or(expansion.as_ref().map(|e| &e.text));
                outline.global(instruction, name, value.map(String::as_str), expansion.as_ref());
            }
        }
        Ok(scope)
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
