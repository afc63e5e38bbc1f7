//! One instruction in our style.
//!
//! A line's words keep their text; only the gaps between them are written anew. What a newcomer would get wrong: a gap may
//! hold line ends, comments and empty lines, and a word may too (a quoted value over several lines), where they are no
//! gap at all. An instruction with something in a gap that has no business there keeps its words where they are.

use std::ops::Range;

use crate::dockerfile::instruction::Word;
use crate::dockerfile::lines::{Text, strip_continuation};
use crate::dockerfile::shape::{Args, Command, Shape};
use crate::dockerfile::source::Span;

/// What is taken away at the end of comments and directives.
pub(super) const WHITE: [char; 6] = [' ', '\t', '\u{B}', '\u{C}', '\r', '\n'];
/// The indentation of continued lists of words that have none of their own.
const INDENT: &str = "    ";

/// What a file has in common.
pub(super) struct Style {
    pub line_end: &'static str,
    pub escape: char,
}

/// A piece of an instruction: where it stands, and what to write there, if that is something else.
struct Token {
    place: Range<usize>,
    instead: Option<String>,
}

impl Style {
    /// Returns a line with its end.
    pub(super) fn ended(&self, line: &str) -> String {
        format!("{line}{}", self.line_end)
    }

    /// Tidies a text that may go over several lines: blanks after continuation marks, empty lines and line ends.
    fn tidy(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for (n, raw) in text.split_inclusive('\n').enumerate() {
            let Some(line) = raw.strip_suffix('\n') else {
                out.push_str(raw);
                break;
            };
            let line = line.trim_end_matches('\r');
            let shown = line.trim_start();
            if n > 0 && shown.is_empty() {
                continue;
            }
            let comment = n > 0 && shown.starts_with('#');
            let continued = strip_continuation(line, self.escape).1;
            out.push_str(match (comment, continued) {
                (true, _) => line.trim_end_matches(WHITE),
                (false, true) => line.trim_end_matches([' ', '\t']),
                (false, false) => line,
            });
            out.push_str(self.line_end);
        }
        out
    }

    /// Writes the gap between two words: one blank, or a continuation with the comments in it.
    ///
    /// None where the gap holds something else. `indent` replaces the indentation of the gap's lines.
    fn gap(&self, text: &str, indent: Option<&str>) -> Option<String> {
        let Some((first, rest)) = text.split_once('\n') else { return text.trim().is_empty().then(|| " ".to_owned()) };
        let (before, continued) = strip_continuation(first.trim_end_matches('\r'), self.escape);
        if !continued || !before.trim().is_empty() {
            return None;
        }
        let mut out = format!(" {}{}", self.escape, self.line_end);
        let mut lines: Vec<&str> = rest.split('\n').collect();
        let last = lines.pop().unwrap_or_default();
        for line in lines {
            let shown = line.trim();
            let own = &line[..line.len() - line.trim_start().len()];
            match strip_continuation(shown, self.escape) {
                _ if shown.starts_with('#') => out.push_str(&self.ended(&format!("{}{shown}", indent.unwrap_or(own)))),
                ("", _) => {}
                _ => return None,
            }
        }
        last.trim().is_empty().then(|| out + indent.unwrap_or(last))
    }
}

/// Writes the instruction that stands at `place`; heredoc bodies are not part of it.
pub(super) fn instruction(style: &Style, text: &str, place: Range<usize>, shape: &Shape<'_>) -> String {
    spaced(style, text, place.clone(), shape).unwrap_or_else(|| {
        let whole = &text[place];
        let (body, end) = match whole.strip_suffix('\n') {
            Some(body) => (body, style.line_end),
            None => (whole, ""),
        };
        style.tidy(body).trim_end_matches('\r').to_owned() + end
    })
}

fn spaced(style: &Style, text: &str, place: Range<usize>, shape: &Shape<'_>) -> Option<String> {
    let tokens = tokens(text, shape);
    let gaps = tokens.windows(2).map(|pair| &text[pair[0].place.end..pair[1].place.start]);
    let indent = if keeps_indentation(shape) { None } else { Some(indentation(gaps)) };
    let mut out = String::new();
    let mut at = place.start;
    for (n, token) in tokens.iter().enumerate() {
        let gap = text.get(at..token.place.start)?;
        match n {
            0 if !gap.trim().is_empty() => return None,
            0 => {}
            _ => out.push_str(&style.gap(gap, indent)?),
        }
        match &token.instead {
            Some(instead) => out.push_str(instead),
            None => out.push_str(&style.tidy(&text[token.place.clone()])),
        }
        at = token.place.end;
    }
    let rest = text.get(at..place.end)?;
    let end = rest.trim().is_empty() && rest.find('\n').is_none_or(|end| end + 1 == rest.len());
    end.then(|| if rest.ends_with('\n') { style.ended(&out) } else { out })
}

/// The lines of a command are for a shell to read: where its first word stands is the author's.
fn keeps_indentation(shape: &Shape<'_>) -> bool {
    !matches!(shape.args, Args::Words(_) | Args::Pairs(_))
}

/// Returns the indentation of a list's continued lines: their own when they agree.
fn indentation<'t>(gaps: impl Iterator<Item = &'t str>) -> &'t str {
    let mut own = gaps.filter_map(|gap| gap.rsplit_once('\n').map(|(_, last)| last));
    match own.next() {
        Some(first) if !first.is_empty() && own.all(|other| other == first) => first,
        _ => INDENT,
    }
}

/// Returns the pieces of an instruction in order: its name, its flags, and its arguments.
fn tokens(text: &str, shape: &Shape<'_>) -> Vec<Token> {
    let mut tokens = vec![upper(shape.name)];
    tokens.extend(shape.flags.iter().map(|flag| as_written(flag.span)));
    arguments(text, shape.command, &shape.args, &mut tokens);
    tokens.retain(|token| !token.place.is_empty());
    tokens
}

fn arguments(text: &str, command: Option<Command>, args: &Args<'_>, tokens: &mut Vec<Token>) {
    match args {
        Args::Nothing => {}
        Args::Line(line) => tokens.push(as_written(line.span())),
        Args::Words(words) | Args::Pairs(words) => {
            let is_as = |n: usize, word: &Text<'_>| {
                command == Some(Command::From) && n == 1 && words.len() == 3 && word.text.eq_ignore_ascii_case("as")
            };
            let word = |(n, word): (usize, &Text<'_>)| if is_as(n, word) { upper(*word) } else { as_written(word.span()) };
            tokens.extend(words.iter().enumerate().map(word));
        }
        Args::Json(strings, span) => tokens.push(json(text, strings, *span)),
        Args::Legacy(key, value) => tokens.push(as_written(key.span().to(value.span()))),
        Args::Check(kind, command) => {
            let known = ["NONE", "CMD"].iter().any(|known| kind.text.eq_ignore_ascii_case(known));
            tokens.push(if known { upper(*kind) } else { as_written(kind.span()) });
            arguments(text, None, command, tokens);
        }
        Args::Trigger(trigger) => tokens.push(as_written(trigger.line.span())),
    }
}

/// A JSON array on one line gets one blank after each comma.
fn json(text: &str, strings: &[Word], span: Span) -> Token {
    let token = as_written(span);
    if text[token.place.clone()].contains('\n') {
        return token;
    }
    let strings: Vec<&str> = strings.iter().map(|word| &text[range(word.span)]).collect();
    Token { instead: Some(format!("[{}]", strings.join(", "))), ..token }
}

fn upper(word: Text<'_>) -> Token {
    Token { place: range(word.span()), instead: Some(word.text.to_ascii_uppercase()) }
}

fn as_written(span: Span) -> Token {
    Token { place: range(span), instead: None }
}

fn range(span: Span) -> Range<usize> {
    span.start as usize..span.end as usize
}
