//! Why a build ended without a result.

use crate::dockerfile::source::Diagnostic;
use crate::engine::advice::advice;

/// The error of a build.
///
/// What a Dockerfile's author can act on carries its place; the rest says what was being done.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Something is wrong at a place of the Dockerfile, or a step failed there.
    #[error("{0}")]
    At(Box<Diagnostic>),
    /// Something is wrong elsewhere: the context, the store, an output.
    #[error("{message}")]
    Plain {
        /// What was being done and what went wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The caller's cancel flag was set.
    #[error("the build was cancelled")]
    Cancelled,
}

impl BuildError {
    /// Makes an error without a place.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::Plain { message: message.into(), hint: None }
    }

    /// Makes an error without a place from an error and all its causes.
    pub fn caused(doing: impl std::fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::plain(format!("{doing}: {}", chain(error))).advised(error)
    }

    /// Adds what to do about `error`, the cause, where that is always the same and nothing better was said.
    pub fn advised(self, error: &(dyn std::error::Error + 'static)) -> Self {
        let has_hint = match &self {
            Self::At(d) => d.hint.is_some(),
            Self::Plain { hint, .. } => hint.is_some(),
            Self::Cancelled => true,
        };
        match advice(error) {
            Some(text) if !has_hint => self.hint(text),
            _ => self,
        }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::At(d) => d.hint = Some(text.into()),
            Self::Plain { hint, .. } => *hint = Some(text.into()),
            Self::Cancelled => {}
        }
        self
    }
}

impl From<Diagnostic> for BuildError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::At(Box::new(diagnostic))
    }
}

/// Returns an error's text with those of its causes, each once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
