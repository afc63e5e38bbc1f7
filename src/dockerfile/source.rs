//! A Dockerfile's text with its name, places in it, and what is wrong at a place.
//!
//! Places are byte offsets; lines and columns are computed only for showing, from an index of line starts.

use std::fmt;
use std::sync::Arc;

/// A half-open byte range of a [`Source`]'s text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// Returns the span of `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
    /// Returns the smallest span that covers both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place in the source.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Puts a value at its place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// A Dockerfile's name and text.
///
/// The text is UTF-8; bytes that are not were replaced by U+FFFD when it was read.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
    lines: Vec<u32>,
}

impl Source {
    /// Indexes `text`; `name` is what people see in messages (`Dockerfile`, `-`, a path).
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i as u32 + 1)).collect();
        Arc::new(Self { name: name.into(), text, lines })
    }
    /// Returns the name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// Returns the 1-based line of a byte offset.
    pub fn line(&self, offset: u32) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }
    /// Returns the 1-based line and column (in characters) of a byte offset.
    pub fn line_column(&self, offset: u32) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.lines[line - 1] as usize;
        let end = (offset as usize).min(self.text.len());
        (line, self.text.get(start..end).map_or(1, |t| t.chars().count() + 1))
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The build can't go on.
    Error,
    /// The build goes on.
    Warning,
}

/// Something to say about a place of a Dockerfile: an error, or a build check's finding.
///
/// Rendered by `ui::diagnostic` only. Messages are lower case and name the thing that is wrong.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The build check's rule name, for warnings (`StageNameCasing`).
    pub rule: Option<&'static str>,
    /// What is wrong.
    pub message: String,
    /// The text that the spans point into; none where no Dockerfile is at hand.
    pub source: Option<Arc<Source>>,
    /// Where.
    pub span: Span,
    /// The lines that docker's reports name where `span` is narrower: the whole instruction.
    pub lines: Option<Span>,
    /// What to write under the caret, if more than the message.
    pub label: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// Makes an error at a place.
    pub fn error(source: &Arc<Source>, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            rule: None,
            message: message.into(),
            source: Some(source.clone()),
            span,
            lines: None,
            label: None,
            hint: None,
        }
    }
    /// Makes a build check's warning at a place.
    pub fn warning(source: &Arc<Source>, span: Span, rule: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, rule: Some(rule), ..Self::error(source, span, message) }
    }
    /// Adds the whole instruction, for reports by line.
    pub fn lines(mut self, lines: Span) -> Self {
        self.lines = Some(lines);
        self
    }
    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds a text under the caret.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            let (line, column) = source.line_column(self.span.start);
            write!(f, "{}:{line}:{column}: ", source.name())?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}
