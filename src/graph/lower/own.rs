//! Checks that BuildKit does not have: things that are given and have no effect, which is seldom meant.
//!
//! They are right whenever they speak, or they are not here. What a newcomer would get wrong: they are no rules of docker's,
//! so `check=error=true` does not fail a build for them and reports by rule leave them out; `# check=skip=NAME` and
//! `skip=all` switch them off like the others.

use std::collections::BTreeSet;

use crate::dockerfile::instruction::{CheckConfig, Instruction, Kind};
use crate::dockerfile::source::{Diagnostic, Severity, Span};
use crate::dockerfile::suggest;

use super::Lowering;
use super::globals::declared;

/// Build arguments that work without ARG, or in the global scope alone.
const PREDEFINED: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "SOURCE_DATE_EPOCH"];
/// How the names of automatic and controlling arguments begin.
const AUTOMATIC: [&str; 2] = ["BUILDKIT_", "TARGET"];
/// The automatic ones that tell where the build runs.
const BUILD_NAMES: [&str; 5] = ["BUILDPLATFORM", "BUILDOS", "BUILDOSVERSION", "BUILDARCH", "BUILDVARIANT"];

/// What has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    BuildArg,
    GlobalArg,
    BuildContext,
}

impl Own {
    const fn name(self) -> &'static str {
        match self {
            Self::BuildArg => "UnusedBuildArg",
            Self::GlobalArg => "UnusedGlobalArg",
            Self::BuildContext => "UnusedBuildContext",
        }
    }

    fn is_wanted(self, config: &CheckConfig, skipped: &[String]) -> bool {
        let listed = |list: &[String]| list.iter().any(|name| name == self.name() || name == "all");
        !config.skip_all && !listed(&config.skip) && !listed(skipped)
    }
}

impl Lowering<'_> {
    pub(super) fn check_unused(&mut self) {
        self.check_undeclared_arguments();
        self.check_global_arguments();
        self.check_contexts();
    }

    /// Build arguments that no ARG declares.
    fn check_undeclared_arguments(&mut self) {
        let stages = self.file.stages.iter().flat_map(|s| &s.instructions);
        let mut names: BTreeSet<&str> = self.file.global_args.iter().chain(stages).flat_map(declared).collect();
        names.extend(self.trigger_arguments.iter().map(String::as_str));
        let unused = self.facts.build_args.keys().filter(|name| !names.contains(name.as_str()) && !is_known(name));
        let found = unused.map(|name| {
            let near = suggest::nearest(name, names.iter().copied());
            let hint = near.map_or_else(|| "no ARG declares it".into(), |near| format!("no ARG declares it (did you mean `{near}`?)"));
            (Own::BuildArg, Span::default(), format!("build argument `{name}` is not used"), hint)
        });
        let found: Vec<_> = found.collect();
        self.say(found);
    }

    /// Global ARGs that no FROM, no other global ARG and no stage takes.
    fn check_global_arguments(&mut self) {
        let file = self.file;
        let defaults = file.global_args.iter().flat_map(|i| match &i.kind {
            Kind::Arg(list) => list.as_slice(),
            _ => &[],
        });
        let defaults = defaults.filter_map(|d| d.default.as_ref()).map(|w| w.value.as_str());
        let froms = file.stages.iter().map(|stage| stage.instruction.text.as_str());
        let texts: Vec<&str> = defaults.chain(froms).collect();
        let instructions = || file.stages.iter().flat_map(|stage| &stage.instructions);
        let mut taken: BTreeSet<&str> = instructions().flat_map(declared).collect();
        taken.extend(self.trigger_arguments.iter().map(String::as_str));
        let mut found = Vec::new();
        for instruction in &file.global_args {
            let Kind::Arg(list) = &instruction.kind else { continue };
            for name in list.iter().map(|d| &d.name) {
                let used = taken.contains(name.value.as_str()) || is_known(&name.value) || texts.iter().any(|t| refers_to(t, &name.value));
                if used || !Own::GlobalArg.is_wanted(&file.directives.check, &instruction.skip_checks) {
                    continue;
                }
                let meant = instructions().find(|i| refers_to(&i.text, &name.value));
                found.push((Own::GlobalArg, name.span, format!("ARG `{}` is not used", name.value), self.advice(&name.value, meant)));
            }
        }
        self.say(found);
    }

    fn advice(&self, name: &str, meant: Option<&Instruction>) -> String {
        match meant {
            Some(i) => {
                let line = self.file.source.line(i.span.start);
                format!("before FROM it counts for FROM lines only: the stage that uses it (line {line}) needs an `ARG {name}` of its own")
            }
            None => "no FROM refers to it, and no stage has an ARG of that name".into(),
        }
    }

    /// Named contexts that stand for nothing in the file.
    fn check_contexts(&mut self) {
        let epoch = self.facts.build_args.get("SOURCE_DATE_EPOCH").map(String::as_str).or_else(|| {
            use crate::dockerfile::expand::Env as _;
            self.globals.value("SOURCE_DATE_EPOCH")
        });
        let used = self.used_contexts.borrow().clone();
        // One of another platform may be used there.
        let is_idle = |name: &&String| !used.contains(*name) && epoch != Some(name.as_str()) && !name.contains("::");
        let unused = self.facts.named_contexts.keys().filter(is_idle);
        let names: Vec<String> = self.asked_names.borrow().iter().cloned().collect();
        let found = unused.map(|name| {
            let hint = match suggest::nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("no FROM, COPY --from or mount names it (did you mean `{near}`?)"),
                None => "no FROM, COPY --from or mount names it".into(),
            };
            (Own::BuildContext, Span::default(), format!("build context `{name}` is not used"), hint)
        });
        let found: Vec<_> = found.collect();
        self.say(found);
    }

    fn say(&mut self, found: Vec<(Own, Span, String, String)>) {
        let config = &self.file.directives.check;
        for (check, span, message, hint) in found.into_iter().filter(|f| f.0.is_wanted(config, &[])) {
            let hint = format!("{hint}; `# check=skip={}` silences this", check.name());
            // A flag has no place in the file.
            let source = (span != Span::default()).then(|| self.file.source.clone());
            let error = Diagnostic::error(&self.file.source, span, message).hint(hint);
            self.warnings.push(Diagnostic { severity: Severity::Warning, source, ..error });
        }
    }
}

/// Tells whether a name means something without ARG.
fn is_known(name: &str) -> bool {
    let upper = name.to_uppercase();
    PREDEFINED.contains(&upper.as_str()) || BUILD_NAMES.contains(&upper.as_str()) || AUTOMATIC.iter().any(|start| upper.starts_with(start))
}

/// Tells whether a text holds `$name` or `${name…`.
fn refers_to(text: &str, name: &str) -> bool {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('$').any(|(at, _)| {
        let rest = &text[at + 1..];
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.strip_prefix(name).is_some_and(|after| !after.starts_with(in_name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_whole_name() {
        for (text, want) in [("a$X", true), ("${X:-1}", true), ("$XY", false), ("X", false), ("$$X", true), ("${YX}", false)] {
            assert_eq!(refers_to(text, "X"), want, "{text}");
        }
    }
}
