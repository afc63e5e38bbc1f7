//! The build checks that need the text alone.
//!
//! Findings stand at the word that is wrong, not at the whole instruction; an empty continuation line stands
//! where it is. They look at every stage, built or not. What depends on a stage's state (its variables, its SHELL, what
//! its base's triggers said) is found by the graph.

use std::collections::HashSet;

use super::{Rule, enabled};
use crate::dockerfile::directive;
use crate::dockerfile::instruction::{CheckConfig, File, Instruction, Kind, Stage};
use crate::dockerfile::lines::EmptyLine;
use crate::dockerfile::source::{Diagnostic, Span};

/// Runs the checks that need the text alone, in the order of the file.
pub(in crate::dockerfile) fn of_text(file: &File, empty_continuations: &[EmptyLine]) -> Vec<Diagnostic> {
    let mut findings = Findings { file, found: Vec::new() };
    for empty in empty_continuations {
        findings.add(Rule::NoEmptyContinuation, empty.span, empty.last, &[], "empty continuation line".to_owned());
    }
    for argument in &file.global_args {
        findings.description(argument);
    }
    let mut names = HashSet::new();
    let lower = is_mostly_lower(file);
    for stage in &file.stages {
        findings.from(stage, &mut names);
        findings.casing(&stage.instruction, lower);
        findings.stage(stage, lower);
    }
    findings.found.sort_by_key(|warning| warning.span.start);
    findings.found
}

struct Findings<'f> {
    file: &'f File,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn add(&mut self, rule: Rule, span: Span, lines: Span, skipped: &[String], message: String) {
        if enabled(rule, &self.file.directives.check, skipped) {
            self.found.push(Diagnostic::warning(&self.file.source, span, rule.name(), message).lines(lines));
        }
    }

    fn at(&mut self, rule: Rule, instruction: &Instruction, span: Span, message: String) {
        self.add(rule, span, instruction.span, &instruction.skip_checks, message);
    }

    fn from(&mut self, stage: &Stage, names: &mut HashSet<String>) {
        let instruction = &stage.instruction;
        if let (Some(keyword), Some(alias)) = (&stage.from.as_keyword, &stage.from.alias) {
            let (from, keyword_text) = (&instruction.name.value, &keyword.value);
            if alias.value != alias.value.to_lowercase() {
                self.at(Rule::StageNameCasing, instruction, alias.span, format!("stage name `{}` should be lowercase", alias.value));
            }
            let expected = if is_lower(from) { keyword_text.to_lowercase() } else { keyword_text.to_uppercase() };
            if (is_lower(from) || is_upper(from)) && *keyword_text != expected {
                let message = format!("`{keyword_text}` and `{from}` keywords' casing do not match");
                self.at(Rule::FromAsCasing, instruction, keyword.span, message);
            }
        }
        let (Some(name), Some(alias)) = (&stage.name, &stage.from.alias) else { return };
        if name == "scratch" || name == "context" {
            let message = format!("stage name should not use the same name as reserved stage `{name}`");
            self.at(Rule::ReservedStageName, instruction, alias.span, message);
        }
        if !names.insert(name.clone()) {
            let message = format!("duplicate stage name `{name}`, stage names should be unique");
            self.at(Rule::DuplicateStageName, instruction, alias.span, message);
        }
        self.description(instruction);
    }

    /// Checks the comment above FROM … AS and ARG. Asked for by experimental rules only.
    fn description(&mut self, instruction: &Instruction) {
        let names: Vec<String> = match &instruction.kind {
            Kind::Arg(arguments) => arguments.iter().map(|argument| argument.name.value.clone()).collect(),
            Kind::From(from) => from.alias.iter().map(|alias| alias.value.to_lowercase()).collect(),
            _ => return,
        };
        let (Some(comment), Some(first)) = (instruction.comments.last(), names.first()) else { return };
        if names.iter().any(|name| comment.split(' ').next() == Some(name)) {
            return;
        }
        let example = if names.len() > 1 { "<arg_key>" } else { first };
        let kind = if matches!(instruction.kind, Kind::From(_)) { "FROM" } else { "ARG" };
        let message = format!("comment for {kind} should follow the format: `# {example} <description>`");
        if enabled(Rule::InvalidDefinitionDescription, &own_config(instruction), &[]) {
            let warning = Diagnostic::warning(&self.file.source, instruction.span, Rule::InvalidDefinitionDescription.name(), message);
            self.found.push(warning);
        } else {
            self.at(Rule::InvalidDefinitionDescription, instruction, instruction.span, message);
        }
    }

    fn casing(&mut self, instruction: &Instruction, lower: bool) {
        let name = &instruction.name.value;
        if if lower { is_lower(name) } else { is_upper(name) } {
            return;
        }
        let majority = if lower { "lowercase" } else { "uppercase" };
        let message = format!("instruction `{name}` should match the case of the majority ({majority})");
        self.at(Rule::ConsistentInstructionCasing, instruction, instruction.name.span, message);
    }

    fn stage(&mut self, stage: &Stage, lower: bool) {
        for instruction in &stage.instructions {
            self.casing(instruction, lower);
            match &instruction.kind {
                Kind::Maintainer(_) => {
                    let message = "MAINTAINER is deprecated in favor of a label".to_owned();
                    self.at(Rule::MaintainerDeprecated, instruction, instruction.span, message);
                }
                Kind::Arg(_) => self.description(instruction),
                _ => {}
            }
        }
    }
}

/// Returns the configuration of the `# check=…` comment above an instruction.
fn own_config(instruction: &Instruction) -> CheckConfig {
    let check = instruction.comments.iter().filter_map(|comment| directive::split(comment)).find(|(name, _)| name == "check");
    check.and_then(|(_, value)| directive::parse_check(value.split(' ').next().unwrap_or_default()).ok()).unwrap_or_default()
}

/// Tells whether more instructions are written in lower case than in upper case.
fn is_mostly_lower(file: &File) -> bool {
    let (mut lower, mut upper) = (0, 0);
    for stage in &file.stages {
        for instruction in std::iter::once(&stage.instruction).chain(&stage.instructions) {
            let name = &instruction.name.value;
            lower += usize::from(is_lower(name));
            upper += usize::from(is_upper(name));
        }
    }
    lower > upper
}

fn is_lower(name: &str) -> bool {
    !name.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_upper(name: &str) -> bool {
    !name.bytes().any(|b| b.is_ascii_lowercase())
}
