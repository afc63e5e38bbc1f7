//! The build checks that need variables, base images, other stages or the ignore file.
//!
//! How the rules are worded and switched off is the parser's business (`dockerfile::check`); here they are found. A
//! finding never changes the graph.

use std::collections::BTreeSet;

use crate::dockerfile::check::{self, Rule};
use crate::dockerfile::expand::{Env, Expansion};
use crate::dockerfile::instruction::{CommandLine, Instruction, Pair, Stage, Word};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::dockerfile::suggest;
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;
use crate::image::reference::Reference;

use super::Lowering;
use super::arguments::Arguments;
use super::scope::Scope;

impl Lowering<'_> {
    /// Notes a finding, unless its rule is switched off. The same finding twice counts once.
    pub(super) fn find(&mut self, rule: Rule, instruction: &Instruction, span: Span, message: String) {
        self.find_in(rule, instruction, span, instruction.span, message);
    }

    /// Like [`Self::find`]; `lines` is the instruction that reports name.
    fn find_in(&mut self, rule: Rule, instruction: &Instruction, span: Span, lines: Span, message: String) {
        if !check::enabled(rule, &self.file.directives.check, &instruction.skip_checks) {
            return;
        }
        let (span, lines) = (self.at(span), self.at(lines));
        if self.found.insert((rule.name(), span, message.clone())) {
            self.warnings.push(Diagnostic::warning(&self.file.source, span, rule.name(), message).lines(lines));
        }
    }

    /// MultipleInstructionsDisallowed: the earlier of two has no effect, so the finding stands there.
    pub(super) fn check_once(&mut self, instruction: &Instruction, earlier: &mut Option<Span>) {
        let here = self.at(instruction.span);
        if let Some(earlier) = earlier.replace(here) {
            let name = instruction.name.value.to_uppercase();
            let message =
                format!("multiple {name} instructions should not be used in the same stage because only the last one will be used");
            // Both places are in the file already, also for triggers.
            let place = self.place.take();
            self.find_in(Rule::MultipleInstructionsDisallowed, instruction, earlier, earlier, message);
            self.place = place;
        }
    }

    /// JSONArgsRecommended: not where a SHELL was chosen, here or below.
    pub(super) fn check_exec_form(&mut self, instruction: &Instruction, command: &CommandLine, shell: Option<&[String]>) {
        if matches!(command, CommandLine::Shell(_)) && shell.is_none_or(<[String]>::is_empty) {
            let name = instruction.name.value.to_uppercase();
            let message = format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
            self.find(Rule::JSONArgsRecommended, instruction, instruction.span, message);
        }
    }

    /// LegacyKeyValueFormat.
    pub(super) fn check_legacy(&mut self, instruction: &Instruction, pairs: &[Pair], name: &str) {
        if pairs.iter().any(|pair| pair.legacy) {
            let message = format!("`{name} key=value` should be used instead of legacy `{name} key value` format");
            self.find(Rule::LegacyKeyValueFormat, instruction, instruction.span, message);
        }
    }

    /// SecretsUsedInArgOrEnv; `key` is the name after expansion.
    pub(super) fn check_secret(&mut self, instruction: &Instruction, key: &str, span: Span, name: &str) {
        if check::is_secret(key) {
            let message = format!("do not use ARG or ENV instructions for sensitive data ({name} `{key}`)");
            self.find(Rule::SecretsUsedInArgOrEnv, instruction, span, message);
        }
    }

    /// UndefinedArgInFrom.
    pub(super) fn check_from_arguments(&mut self, stage: &Stage, expanded: &Expansion) {
        if expanded.unmatched.is_empty() {
            return;
        }
        let names: BTreeSet<String> = self.globals.names().map(str::to_string).chain(self.global_names.iter().cloned()).collect();
        for name in expanded.unmatched.iter().filter(|name| !names.contains(*name)) {
            let near = suggest::nearest(name, names.iter().map(String::as_str));
            let message = format!("FROM argument `{name}` is not declared{}", did_you_mean(near));
            self.find(Rule::UndefinedArgInFrom, &stage.instruction, stage.instruction.span, message);
        }
    }

    /// RedundantTargetPlatform and FromPlatformFlagConstDisallowed.
    pub(super) fn check_from_platform(&mut self, stage: &Stage, word: &Word, expanded: &Expansion) {
        let only_target = expanded.matched.len() == 1 && expanded.matched.contains("TARGETPLATFORM") && expanded.unmatched.is_empty();
        if only_target && self.globals.value("TARGETPLATFORM") == Some(expanded.text.as_str()) {
            let message = format!("setting platform to predefined {} in FROM is redundant as this is the default behavior", word.value);
            self.find(Rule::RedundantTargetPlatform, &stage.instruction, word.span, message);
        }
        let constant = expanded.matched.is_empty() && expanded.unmatched.is_empty();
        let Some(platform) = expanded.text.parse::<Platform>().ok().filter(|_| constant) else { return };
        let name = stage.name.as_deref().unwrap_or_default();
        if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let message = format!("FROM --platform flag should not use constant value `{}`", expanded.text);
            self.find(Rule::FromPlatformFlagConstDisallowed, &stage.instruction, word.span, message);
        }
    }

    /// InvalidDefaultArgInFrom: the bases must be names also when no build argument is given.
    pub(super) fn check_default_bases(&mut self) {
        let Ok(defaults) = self.apply_globals(&self.file.global_args, &Default::default(), &mut Default::default()) else { return };
        for stage in &self.file.stages {
            let word = &stage.from.image;
            let Ok(expanded) = self.expander.word(&word.value, &defaults) else { return };
            if Reference::parse(&expanded.text).is_err() {
                let message = format!("default value for ARG {} results in empty or invalid base image name", word.value);
                self.find(Rule::InvalidDefaultArgInFrom, &stage.instruction, word.span, message);
            }
        }
    }

    /// InvalidBaseImagePlatform.
    pub(super) fn check_base_platform(&mut self, stage: &Stage, wanted: &Platform, config: &ImageConfig) {
        if config.os == wanted.os && config.architecture == wanted.architecture {
            return;
        }
        let actual = Platform::new(&config.os, &config.architecture, config.variant.as_deref().unwrap_or_default());
        let image = &stage.from.image;
        let message = format!("base image {} was pulled with platform `{actual}`, expected `{wanted}` for current build", image.value);
        self.find(Rule::InvalidBaseImagePlatform, &stage.instruction, image.span, message);
    }

    /// UndefinedVar: what no ARG of the stage declares, with or without a value.
    pub(super) fn check_variables(&mut self, instruction: &Instruction, unmatched: &BTreeSet<String>, declared: &Arguments, scope: &Scope) {
        for name in unmatched {
            if declared.contains(name) || name.starts_with("BUILDKIT_SBOM_SCAN_") {
                continue;
            }
            let near = suggest::nearest(name, scope.names());
            let message = match near {
                Some(near) => format!("usage of undefined variable `${name}` (did you mean `${near}`?)"),
                None => format!("usage of undefined variable `${name}`"),
            };
            self.find(Rule::UndefinedVar, instruction, instruction.span, message);
        }
    }

    /// CopyIgnoredFile: only without negations, which decide file by file.
    pub(super) fn check_ignored(&mut self, instruction: &Instruction, source: &str, span: Span, is_add: bool) {
        let Some(rules) = self.facts.ignore.clone().filter(|r| !r.is_empty() && !r.has_negations()) else { return };
        let source = crate::dockerfile::ignore::clean(source);
        let root = source == "." || source == "/";
        if (root && !rules.excludes_all()) || !rules.matches_or_parent_matches(source.trim_start_matches('/')) && !root {
            return;
        }
        let verb = if is_add { "Add" } else { "Copy" };
        self.find(
            Rule::CopyIgnoredFile,
            instruction,
            span,
            format!("attempting to {verb} file `{source}` that is excluded by .dockerignore"),
        );
    }
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}
