//! Heredocs: which words of a line announce one, and its body.
//!
//! Two ways of splitting a line meet here, as in BuildKit: the *bodies* that follow a line are those that a
//! shell would see (quotes hide a `<<`), while COPY and ADD look for `<<NAME` among words split at blanks.
//! Both take a word apart with [`announced`].

use std::sync::Arc;

use pest::iterators::Pair;

use super::grammar::{Rule, matching};
use super::instruction::Heredoc;
use super::lines::{Lines, Text};
use super::source::{Diagnostic, Source, Span};

/// What `3<<-'NAME'` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub name: String,
    pub expand: bool,
    pub chomp: bool,
    pub fd: u32,
}

/// Reads the bodies of the heredocs that `line` announces from `lines`, in order.
///
/// Errors: a body without its terminator; the error stands at the word that announced it.
pub(super) fn read(source: &Arc<Source>, line: Text<'_>, lines: &mut Lines<'_>) -> Result<Vec<Heredoc>, Diagnostic> {
    let mut heredocs = Vec::new();
    if !line.text.contains("<<") {
        return Ok(heredocs);
    }
    for word in shell_words(line) {
        let Some(Announced { name, expand, chomp, fd }) = announced(word.text) else { continue };
        let Some(body) = lines.heredoc_body(&name, chomp) else {
            let message = format!("unterminated heredoc: no line `{name}` follows");
            let hint = if chomp {
                "the line may start with tabs, not with spaces"
            } else {
                "the line must hold the name alone, without white space around it"
            };
            return Err(Diagnostic::error(source, word.span(), message).hint(hint));
        };
        let (body, body_span) = (body.text.to_owned(), body.span);
        heredocs.push(Heredoc { name, expand, chomp, fd, body, span: word.span(), body_span });
    }
    Ok(heredocs)
}

/// Returns the heredoc that a word announces, if it does.
pub(super) fn announced(word: &str) -> Option<Announced> {
    if !word.contains("<<") {
        return None;
    }
    let mut delimiter = "";
    let (mut chomp, mut fd) = (false, 0);
    for part in matching(Rule::heredoc_word, word)?.into_inner() {
        match part.as_rule() {
            Rule::heredoc_fd => fd = part.as_str().parse().unwrap_or(if part.as_str().is_empty() { 0 } else { u32::MAX }),
            Rule::heredoc_chomp => chomp = true,
            Rule::heredoc_delimiter => delimiter = part.as_str(),
            _ => {}
        }
    }
    let (name, expand) = unquote(delimiter)?;
    Some(Announced { name, expand, chomp, fd })
}

/// Returns a delimiter without quotes and escapes, and whether it had no quotes; none when it is not one word.
fn unquote(delimiter: &str) -> Option<(String, bool)> {
    let mut name = String::new();
    let mut expand = true;
    let mut ended = false;
    for piece in matching(Rule::shell_line, delimiter)?.into_inner() {
        match piece.as_rule() {
            Rule::shell_gap => {
                ended = !name.is_empty();
                continue;
            }
            Rule::EOI => break,
            _ if ended => return None,
            Rule::shell_escaped => name.push_str(&piece.as_str()[1..]),
            Rule::shell_quoted => {
                expand = false;
                quoted(piece, &mut name);
            }
            _ => name.push_str(piece.as_str()),
        }
    }
    (!name.is_empty()).then_some((name, expand))
}

/// Appends what a quoted piece stands for.
fn quoted(piece: Pair<'_, Rule>, name: &mut String) {
    let whole = piece.as_str();
    let Some(inner) = piece.into_inner().next() else { return };
    if inner.as_rule() == Rule::single {
        name.push_str(&whole[1..whole.len() - 1]);
        return;
    }
    for part in inner.into_inner() {
        let text = part.as_str();
        // Only these can be escaped inside double quotes; before anything else the backslash stays.
        let escaped = part.as_rule() == Rule::double_escaped && matches!(&text[1..], "\"" | "$" | "\\");
        name.push_str(if escaped { &text[1..] } else { text });
    }
}

/// Splits a line as a shell would, quotes and escapes left in place; nothing when a quote stays open.
fn shell_words(line: Text<'_>) -> Vec<Text<'_>> {
    let Some(pairs) = matching(Rule::shell_line, line.text) else { return Vec::new() };
    let mut words = Vec::new();
    let mut start: Option<usize> = None;
    let mut end = 0;
    for piece in pairs.into_inner() {
        let span = piece.as_span();
        match piece.as_rule() {
            Rule::shell_gap | Rule::EOI => words.extend(start.take().map(|start| line.slice(start..end))),
            // BuildKit forgets the word that a `${name:-…}` stands in, and splits its text at white space.
            Rule::shell_nested => {
                let last = piece.as_str().rsplit(char::is_whitespace).next().unwrap_or_default();
                start = Some(span.end() - last.len());
            }
            _ => {
                start.get_or_insert(span.start());
            }
        }
        end = span.end();
    }
    words
}

/// Appends the bodies to a line's text as ONBUILD stores them.
pub(super) fn append(text: &mut String, heredocs: &[Heredoc]) {
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.body);
        text.push_str(&heredoc.name);
    }
}

/// Makes a heredoc for a word whose line announced none: its body is empty.
pub(super) fn empty(announced: Announced, span: Span) -> Heredoc {
    let Announced { name, expand, chomp, fd } = announced;
    Heredoc { name, expand, chomp, fd, body: String::new(), span, body_span: Span { start: span.end, end: span.end } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_heredoc_word_apart() {
        let say = |name: &str, expand, chomp, fd| Some(Announced { name: name.to_owned(), expand, chomp, fd });
        let cases = [
            ("<<EOF", say("EOF", true, false, 0)),
            ("3<<-EOF", say("EOF", true, true, 3)),
            ("<<'EOF'", say("EOF", false, false, 0)),
            ("<<C\"x\"", say("Cx", false, false, 0)),
            ("<<\"a b\"", say("a b", false, false, 0)),
            ("<< EOF", say("EOF", true, false, 0)),
            ("<<\\EOF", say("EOF", true, false, 0)),
            ("<<$x", say("$x", true, false, 0)),
            ("<<<EOF", None),
            ("<<", None),
            ("<<-", None),
            ("<<a b", None),
            ("a<<EOF", None),
            ("<<'EOF", None),
        ];
        for (word, expected) in cases {
            assert_eq!(announced(word), expected, "{word}");
        }
    }
}
