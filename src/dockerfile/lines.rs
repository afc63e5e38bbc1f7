//! From a text to logical lines: continuations joined, comments dropped, heredoc bodies handed out.
//!
//! Not here: what a line means. A logical line remembers where each of its bytes stood ([`Line::text`]), so
//! that an error in the middle of a joined instruction points at the right physical line.
//!
//! Easily got wrong: white space is taken away before an instruction but kept before a continuation line; a
//! comment line inside an instruction is dropped and its own trailing `\` means nothing; an empty line does
//! not end a continuation; two escape characters at the end of a line do not continue it, whatever precedes.

use std::borrow::Cow;
use std::ops::Range;

use super::instruction::Word;
use super::source::Span;

/// Walks a source's physical lines and puts logical ones together.
pub(super) struct Lines<'s> {
    text: &'s str,
    at: usize,
    escape: char,
    comments: Vec<Comment>,
}

/// A comment line: its text without `#`, trimmed, and the place of the whole comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comment {
    pub text: String,
    pub span: Span,
}

/// One instruction's text.
#[derive(Debug)]
pub(super) struct Line<'s> {
    text: Cow<'s, str>,
    map: Vec<Piece>,
    /// The comments since the last instruction or the last empty `#` line.
    pub comments: Vec<Comment>,
    /// The first empty line inside the continuation.
    pub empty_continuation: Option<EmptyLine>,
}

/// An empty line inside an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EmptyLine {
    pub span: Span,
    /// The last physical line of its instruction, which is where BuildKit reports it.
    pub last: Span,
}

/// From byte `line` of a logical line on, its bytes stand at `source` and after.
#[derive(Debug, Clone, Copy)]
struct Piece {
    line: usize,
    source: usize,
}

/// A part of a logical line which knows its place in the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'l> {
    map: &'l [Piece],
    at: usize,
    pub text: &'l str,
}

/// A heredoc's body as it stands in the source, line ends included, the terminator not.
pub(super) struct Body<'s> {
    pub text: &'s str,
    pub span: Span,
}

impl<'s> Lines<'s> {
    /// Starts at byte `at` of `text`, which must be the start of a physical line.
    pub fn new(text: &'s str, at: usize, escape: char) -> Self {
        Self { text, at, escape, comments: Vec::new() }
    }

    /// Returns where the next physical line starts.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns the next logical line; none at the end.
    pub fn next_line(&mut self) -> Option<Line<'s>> {
        loop {
            let (line, start) = trim_start(self.physical()?);
            if line.starts_with('#') {
                self.comment(line, start);
                continue;
            }
            let (line, continued) = strip_continuation(line, self.escape);
            if line.is_empty() && !continued {
                continue;
            }
            let mut joined = Line {
                text: Cow::Borrowed(line),
                map: vec![Piece { line: 0, source: start }],
                comments: std::mem::take(&mut self.comments),
                empty_continuation: None,
            };
            if continued {
                self.join(&mut joined);
            }
            return Some(joined);
        }
    }

    /// Takes the lines up to `name` alone on a line; none when the text ends before.
    ///
    /// With `chomp`, tabs before the terminator are ignored; the body keeps its own.
    pub fn heredoc_body(&mut self, name: &str, chomp: bool) -> Option<Body<'s>> {
        let start = self.at;
        loop {
            let (line, end) = self.physical()?;
            let line = if chomp { line.trim_start_matches('\t') } else { line };
            if line == name {
                return Some(Body { text: &self.text[start..end], span: Span::new(start, end) });
            }
        }
    }

    /// Returns the next physical line without its end, and where it starts.
    fn physical(&mut self) -> Option<(&'s str, usize)> {
        let start = self.at;
        let rest = self.text.get(start..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
        self.at = start + length;
        Some((rest[..length].trim_end_matches(['\r', '\n']), start))
    }

    fn comment(&mut self, line: &str, start: usize) {
        let text = line[1..].trim();
        if text.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(Comment { text: text.to_owned(), span: Span::new(start, start + line.len()) });
        }
    }

    /// Appends continuation lines; the end of the text ends the instruction as well.
    fn join(&mut self, joined: &mut Line<'s>) {
        while let Some((line, start)) = self.physical() {
            let shown = line.trim_start();
            let here = Span::new(start, start + line.len());
            if let Some(empty) = &mut joined.empty_continuation {
                empty.last = here;
            }
            if shown.starts_with('#') {
                continue;
            }
            if shown.is_empty() {
                joined.empty_continuation.get_or_insert(EmptyLine { span: here, last: here });
                continue;
            }
            let (line, continued) = strip_continuation(line, self.escape);
            joined.map.push(Piece { line: joined.text.len(), source: start });
            joined.text.to_mut().push_str(line);
            if !continued {
                return;
            }
        }
    }
}

fn trim_start((line, start): (&str, usize)) -> (&str, usize) {
    let trimmed = line.trim_start();
    (trimmed, start + line.len() - trimmed.len())
}

/// Takes a continuation mark away: one escape character, not two, with blanks after it at most.
pub(super) fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

impl Line<'_> {
    /// Returns where the first physical line starts, white space aside.
    pub fn start(&self) -> usize {
        self.map[0].source
    }
    /// Returns the whole line.
    pub fn text(&self) -> Text<'_> {
        Text { map: &self.map, at: 0, text: &self.text }
    }
}

impl<'l> Text<'l> {
    /// Returns a part; the range counts bytes of this text and lies on character boundaries.
    pub fn slice(self, range: Range<usize>) -> Self {
        Self { at: self.at + range.start, text: &self.text[range], ..self }
    }
    /// Returns the text from byte `at` on.
    pub fn from(self, at: usize) -> Self {
        self.slice(at..self.text.len())
    }
    /// Returns the text without white space around it.
    pub fn trim(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        self.slice(start..start + self.text.trim().len())
    }
    /// Returns the place in the source. A text over several pieces covers all that is between.
    pub fn span(self) -> Span {
        let end = self.at + self.text.len();
        match self.text.len() {
            0 if self.at == 0 => Span::new(self.place(0), self.place(0)),
            0 => Span::new(self.place(end - 1) + 1, self.place(end - 1) + 1),
            _ => Span::new(self.place(self.at), self.place(end - 1) + 1),
        }
    }
    /// Returns the text for a message: a long one is cut.
    pub fn brief(self) -> String {
        const LONGEST: usize = 60;
        match self.text.char_indices().nth(LONGEST) {
            None => self.text.to_owned(),
            Some((cut, _)) => format!("{}…", &self.text[..cut]),
        }
    }
    /// Returns the text with its place.
    pub fn word(self) -> Word {
        Word::new(self.text.to_owned(), self.span())
    }

    fn place(self, at: usize) -> usize {
        let after = self.map.partition_point(|piece| piece.line <= at);
        let piece = self.map[after.saturating_sub(1)];
        piece.source + (at - piece.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns each logical line with the place of each of its words.
    fn lines(text: &str, escape: char) -> Vec<(String, Vec<&str>)> {
        let mut lines = Lines::new(text, 0, escape);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line() {
            let whole = line.text();
            let places = whole.text.split_inclusive(' ').scan(0, |at, word| {
                let start = std::mem::replace(at, *at + word.len());
                let Span { start, end } = whole.slice(start..start + word.len()).trim().span();
                Some(&text[start as usize..end as usize])
            });
            found.push((whole.text.to_owned(), places.filter(|place| !place.is_empty()).collect()));
        }
        found
    }

    #[test]
    fn joins_lines_and_keeps_their_places() {
        type Expected<'a> = &'a [(&'a str, &'a [&'a str])];
        let cases: [(&str, char, Expected<'_>); 14] = [
            ("", '\\', &[]),
            ("\n  \n# a\n", '\\', &[]),
            ("  a b  ", '\\', &[("a b  ", &["a", "b"])]),
            ("a\r\nb\r\r\n", '\\', &[("a", &["a"]), ("b", &["b"])]),
            ("a \\\n b", '\\', &[("a  b", &["a", "b"])]),
            ("a\\ \t\nb", '\\', &[("ab", &["a\\ \t\nb"])]),
            ("a\\\\\nb", '\\', &[("a\\\\", &["a\\\\"]), ("b", &["b"])]),
            ("a\\\\\\\nb", '\\', &[("a\\\\\\", &["a\\\\\\"]), ("b", &["b"])]),
            ("\\\na", '\\', &[("a", &["a"])]),
            ("a \\\n# b \\\n\n c", '\\', &[("a  c", &["a", "c"])]),
            ("a \\\n", '\\', &[("a ", &["a"])]),
            ("a `\nb \\\nc", '`', &[("a b \\", &["a", "b", "\\"]), ("c", &["c"])]),
            ("a # b", '\\', &[("a # b", &["a", "#", "b"])]),
            ("é \\\n日", '\\', &[("é 日", &["é", "日"])]),
        ];
        for (text, escape, expected) in cases {
            let expected: Vec<(String, Vec<&str>)> = expected.iter().map(|(line, places)| (line.to_string(), places.to_vec())).collect();
            assert_eq!(lines(text, escape), expected, "{text:?}");
        }
    }

    #[test]
    fn a_body_ends_at_its_name_alone() {
        let cases = [
            ("a\nE\nrest", false, Some("a\n")),
            ("E", false, Some("")),
            ("E\r\n", false, Some("")),
            ("\tE\n E\nE \nE\n", false, Some("\tE\n E\nE \n")),
            ("\ta\n\t\tE\n", true, Some("\ta\n")),
            ("a\r\nE", false, Some("a\r\n")),
            ("a\n E", true, None),
            ("", false, None),
        ];
        for (text, chomp, expected) in cases {
            assert_eq!(Lines::new(text, 0, '\\').heredoc_body("E", chomp).map(|body| body.text), expected, "{text:?}");
        }
    }
}
