//! How a command fails: what to show, and the exit code.
//!
//! The layers below return errors with their causes; here they become the one text that people see. A
//! newcomer would print: nothing here does, `cli::main` hands a failure to `ui`.

use std::error::Error;

use crate::dockerfile::source::{Diagnostic, Severity, Span};
use crate::engine::advice::advice;

/// Exit code of a build or command that failed.
pub const FAILED: u8 = 1;
/// Exit code of a command line that can't be understood.
pub const USAGE: u8 = 2;
/// Exit code of `run` when the container could not be made.
pub const RUN_FAILED: u8 = 125;

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub status: u8,
    /// What to show, in order; empty where everything was shown before.
    pub diagnostics: Vec<Diagnostic>,
}

impl Failure {
    /// Makes a failure of a message.
    pub fn message(message: impl Into<String>) -> Self {
        Self::from(diagnostic(message.into()))
    }

    /// Makes a failure of a command line that can't be understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { status: USAGE, ..Self::message(message) }
    }

    /// Makes a failure of an error and its causes, joined by colons.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let failure = Self::message(chain(error));
        match advice(error) {
            Some(text) => failure.hint(text),
            None => failure,
        }
    }

    /// Makes a failure that shows nothing.
    pub fn silent(status: u8) -> Self {
        Self { status, diagnostics: Vec::new() }
    }

    /// Sets the exit code.
    pub fn status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// Adds what to do about it to the last message.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(last) = self.diagnostics.last_mut() {
            last.hint = Some(hint.into());
        }
        self
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { status: FAILED, diagnostics: vec![diagnostic] }
    }
}

/// Closed pipes end a command quietly (`ply images | head -1`); other faults of the output are told.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // The shell's 128 + SIGPIPE: what a program would get that does not ignore the signal.
            return Self::silent(141);
        }
        Self::message(format!("writing to standard output: {error}"))
    }
}

fn diagnostic(message: String) -> Diagnostic {
    Diagnostic { severity: Severity::Error, rule: None, message, source: None, span: Span::default(), lines: None, label: None, hint: None }
}

/// Joins an error's text and its causes'; a cause that the text already ends with is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn causes_follow_and_are_not_repeated() {
        let inner = || Some(Box::new(Layer { text: "no such file", source: None }));
        assert_eq!(chain(&Layer { text: "opening `a`", source: inner() }), "opening `a`: no such file");
        assert_eq!(chain(&Layer { text: "opening `a`: no such file", source: inner() }), "opening `a`: no such file");
    }
}
