//! From a text to stages of typed instructions. Pure.
//!
//! ```text
//! text ─ directive ─ lines ─ shape ─ typed ─ stage ─ File
//!                      │       │                │
//!                   heredoc  grammar          check
//! ```
//!
//! `lines` joins continuations, `shape` takes a logical line apart by the grammar (`plain` where there is nothing to decide),
//! `typed` checks it and makes an [`Instruction`], `stage` sorts instructions into a [`File`]. All errors are
//! [`Diagnostic`]s at the place that is wrong; nothing is expanded here ([`expand`] is called by the graph).
//!
//! Verdicts are BuildKit's (syntax and instruction level), with two differences: a physical line may be of
//! any length, and of two errors the one further up is reported, whatever its kind.

pub mod check;
pub mod csv;
pub mod duration;
pub mod expand;
pub mod format;
pub mod ignore;
pub mod instruction;
pub mod limits;
pub mod source;
pub mod suggest;

mod directive;
mod grammar;
mod heredoc;
mod lines;
pub mod origin;
mod plain;
mod shape;
mod stage;
mod typed;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use directive::{detect_syntax, is_foreign as is_foreign_frontend};

use instruction::{File, Instruction, Kind};
use lines::{Line, Lines};
use shape::Context;
use source::{Diagnostic, Source, Span};

/// Parses a Dockerfile: syntax, each instruction's form, the order of stages, and the build checks that need
/// the text alone.
///
/// Errors: the first thing that is wrong, at its place.
pub fn parse(source: &Arc<Source>) -> Result<File, Diagnostic> {
    parse_with_check_override(source, None)
}

/// Like [`parse`], but `check`, where given, replaces the `# check=` directive (build argument
/// `BUILDKIT_DOCKERFILE_CHECK`).
pub fn parse_with_check_override(source: &Arc<Source>, check: Option<&str>) -> Result<File, Diagnostic> {
    if source.text().is_empty() {
        return Err(Diagnostic::error(source, Span::default(), "the Dockerfile cannot be empty").hint(stage::BEGIN));
    }
    let (directives, start) = directive::read(source, check)?;
    let context = Context { source, escape: directives.escape };
    let mut lines = Lines::new(source.text(), start, directives.escape);
    let mut stages = stage::Stages::new(source);
    let mut left = limits::MAX_INSTRUCTIONS;
    while let Some(line) = lines.next_line() {
        let Some(fewer) = left.checked_sub(1) else {
            let hint = "generate files that COPY or RUN use instead";
            return Err(Diagnostic::error(source, line.text().span(), limits::Limit::Instructions.to_string()).hint(hint));
        };
        left = fewer;
        let instruction = instruction(context, &line, &mut lines)?;
        stages.push(instruction, line.empty_continuation)?;
    }
    let (mut file, empty_continuations) = stages.finish(directives)?;
    file.warnings = check::of_text(&file, &empty_continuations);
    Ok(file)
}

/// What to do about a base image's trigger that is none.
const TRIGGER: &str = "the base image stores it: build that image anew without the trigger, or take another base";

/// Parses an ONBUILD trigger as an image stores it; `text` may hold heredoc bodies after its first line.
///
/// Spans point into a source of its own, named `ONBUILD`. Errors: those of an instruction, none or more than
/// one instruction, and FROM.
pub fn parse_trigger(text: &str, escape: char) -> Result<Instruction, Diagnostic> {
    let source = &Source::new("ONBUILD", text);
    let context = Context { source, escape };
    let mut lines = Lines::new(source.text(), 0, escape);
    let Some(line) = lines.next_line() else {
        return Err(Diagnostic::error(source, Span::default(), "the ONBUILD trigger is empty").hint(TRIGGER));
    };
    let instruction = instruction(context, &line, &mut lines)?;
    if let Some(more) = lines.next_line() {
        return Err(Diagnostic::error(source, more.text().span(), "an ONBUILD trigger must be a single instruction").hint(TRIGGER));
    }
    match instruction.kind {
        Kind::From(_) => Err(Diagnostic::error(source, instruction.span, "FROM isn't allowed as an ONBUILD trigger").hint(TRIGGER)),
        _ => Ok(instruction),
    }
}

/// Reads the instruction of a line, and its heredoc bodies from the lines after it.
fn instruction(context: Context<'_>, line: &Line<'_>, lines: &mut Lines<'_>) -> Result<Instruction, Diagnostic> {
    let shape = shape::read(context, line.text())?;
    let heredocs = if shape.takes_heredocs() { heredoc::read(context.source, line.text(), lines)? } else { Vec::new() };
    typed::read(context.source, &shape, heredocs, &line.comments)
}
