//! Sorts instructions into global arguments and stages.

use std::sync::Arc;

use super::instruction::{Directives, File, Instruction, Kind, Stage};
use super::lines::EmptyLine;
use super::source::{Diagnostic, Source, Span};

/// How a file begins.
pub(super) const BEGIN: &str = "begin with the base to build on: FROM image, or FROM scratch";

/// A file on its way.
pub(super) struct Stages<'s> {
    source: &'s Arc<Source>,
    global_args: Vec<Instruction>,
    stages: Vec<Stage>,
    empty_continuations: Vec<EmptyLine>,
}

impl<'s> Stages<'s> {
    /// Starts with nothing.
    pub fn new(source: &'s Arc<Source>) -> Self {
        Self { source, global_args: Vec::new(), stages: Vec::new(), empty_continuations: Vec::new() }
    }

    /// Adds the next instruction; `empty` is an empty line inside it.
    ///
    /// Errors: an instruction other than ARG before the first FROM.
    pub fn push(&mut self, instruction: Instruction, empty: Option<EmptyLine>) -> Result<(), Diagnostic> {
        self.empty_continuations.extend(empty);
        match (&instruction.kind, self.stages.last_mut()) {
            (Kind::From(from), _) => {
                let from = from.clone();
                let name = from.alias.as_ref().map(|alias| alias.value.to_lowercase());
                self.stages.push(Stage { instruction, from, name, instructions: Vec::new() });
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            (Kind::Arg(_), None) => self.global_args.push(instruction),
            (_, None) => {
                let message = format!("no build stage in current context: `{}` stands before the first FROM", instruction.name.value);
                return Err(Diagnostic::error(self.source, instruction.span, message).hint("only ARG may stand before FROM"));
            }
        }
        Ok(())
    }

    /// Returns the file, its warnings not yet found, and the empty lines inside instructions.
    ///
    /// Errors: no instruction, or no FROM.
    pub fn finish(self, directives: Directives) -> Result<(File, Vec<EmptyLine>), Diagnostic> {
        let Self { source, global_args, stages, empty_continuations } = self;
        if stages.is_empty() {
            return Err(match global_args.last() {
                None => Diagnostic::error(source, Span::default(), "the file has no instructions").hint(BEGIN),
                Some(last) => {
                    Diagnostic::error(source, last.span, "the Dockerfile contains no stages to build: FROM is missing").hint(BEGIN)
                }
            });
        }
        Ok((File { source: source.clone(), directives, global_args, stages, warnings: Vec::new() }, empty_continuations))
    }
}
