//! `ply fmt`: a Dockerfile's text in one style, with its comments and its meaning. Pure.
//!
//! Conservative on purpose. What a shell or an image will see stays as it was, byte for byte: the text of RUN, CMD and
//! the like with its continuation lines, heredoc bodies, ONBUILD's trigger, every quoted word. Changed is what has no
//! meaning: the case of keywords, blanks between words and flags, blanks at line ends, empty lines (one at most between
//! instructions, none inside), line ends (those of the file's first line).
//!
//! What a newcomer would get wrong: no rule here is trusted. The result is parsed again and compared ([`same`]); a part
//! whose new text would mean something else (a comment that becomes a directive because the empty line above it went)
//! keeps its old one.

mod same;
mod write;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use super::lines::Lines;
use super::shape::{self, Context};
use super::source::{Diagnostic, Source};
use super::{directive, heredoc, parse};
use write::{Style, WHITE};

pub use same::is_same;

/// A part of a file: some directives, a comment, an empty line or an instruction with its heredocs.
///
/// Parts follow each other without a gap: every byte of the text belongs to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'s> {
    /// Its text, line end included.
    pub before: &'s str,
    /// Its text in our style.
    pub after: Cow<'s, str>,
}

/// How often a result that means something else is taken apart to find out why; then the file stays as it is.
const MAX_ATTEMPTS: usize = 64;

/// Formats a file. Formatting the result again changes nothing.
///
/// Errors: the file can't be parsed.
pub fn format(source: &Arc<Source>) -> Result<Vec<Part<'_>>, Diagnostic> {
    let meant = parse(source)?;
    let parts = parts(source)?;
    let mut taken = vec![false; parts.len()];
    let mut attempts = 0;
    // Halves are tried until those parts that change the meaning stand alone.
    let mut todo: Vec<_> = std::iter::once(0..parts.len()).collect();
    while let Some(range) = todo.pop() {
        if parts[range.clone()].iter().all(|part| part.before == part.after) {
            continue;
        }
        attempts += 1;
        if attempts > MAX_ATTEMPTS {
            taken.fill(false);
            break;
        }
        taken[range.clone()].fill(true);
        let again = Source::new(source.name(), joined(&parts, &taken));
        if parse(&again).is_ok_and(|file| is_same(&meant, &file)) {
            continue;
        }
        taken[range.clone()].fill(false);
        let middle = range.start + range.len() / 2;
        if range.len() > 1 {
            todo.extend([middle..range.end, range.start..middle]);
        }
    }
    let settled = parts.into_iter().zip(taken).map(|(part, taken)| if taken { part } else { Part { after: part.before.into(), ..part } });
    Ok(settled.collect())
}

/// Returns the text of formatted parts.
pub fn text(parts: &[Part<'_>]) -> String {
    parts.iter().map(|part| &*part.after).collect()
}

fn joined(parts: &[Part<'_>], taken: &[bool]) -> String {
    parts.iter().zip(taken).map(|(part, taken)| if *taken { &*part.after } else { part.before }).collect()
}

/// Takes a file apart and writes each part anew.
fn parts(source: &Arc<Source>) -> Result<Vec<Part<'_>>, Diagnostic> {
    let text = source.text();
    let (directives, start) = directive::read(source, None)?;
    let style = Style { line_end: if first_line(text).ends_with("\r\n") { "\r\n" } else { "\n" }, escape: directives.escape };
    let context = Context { source, escape: directives.escape };
    let mut parts = Vec::new();
    for line in text[..start].split_inclusive('\n') {
        let after = if line.ends_with('\n') { style.ended(line.trim_end_matches(WHITE)) } else { line.to_owned() };
        parts.push(Part { before: line, after: after.into() });
    }
    let mut lines = Lines::new(text, start, directives.escape);
    loop {
        let before = lines.position();
        let Some(line) = lines.next_line() else {
            between(&style, &text[before..], &mut parts);
            break;
        };
        let begin = text[..line.start()].rfind('\n').map_or(0, |end| end + 1).max(before);
        between(&style, &text[before..begin], &mut parts);
        let line_end = lines.position();
        let shape = shape::read(context, line.text())?;
        if shape.takes_heredocs() {
            heredoc::read(source, line.text(), &mut lines)?;
        }
        let end = lines.position();
        let after = write::instruction(&style, text, begin..line_end, &shape) + &text[line_end..end];
        parts.push(Part { before: &text[begin..end], after: after.into() });
    }
    end_file(&style, &mut parts);
    Ok(parts)
}

/// Tells whether nothing is to be seen: a byte order mark is not.
fn is_blank(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim().is_empty()
}

fn first_line(text: &str) -> &str {
    text.split_inclusive('\n').next().unwrap_or_default()
}

/// Adds the comments and empty lines between two instructions.
fn between<'s>(style: &Style, text: &'s str, parts: &mut Vec<Part<'s>>) {
    for line in text.split_inclusive('\n') {
        let after = match line.trim() {
            // One empty line stays, none at the top.
            "" if parts.last().is_none_or(|part| is_blank(&part.after)) => String::new(),
            shown => style.ended(shown),
        };
        parts.push(Part { before: line, after: after.into() });
    }
}

/// Takes empty lines at the end away, and ends the last line.
fn end_file(style: &Style, parts: &mut [Part<'_>]) {
    for part in parts.iter_mut().rev() {
        if is_blank(&part.after) {
            part.after = Cow::Borrowed("");
            continue;
        }
        if !part.after.ends_with('\n') {
            part.after.to_mut().push_str(style.line_end);
        }
        break;
    }
}
