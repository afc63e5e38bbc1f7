//! Text from outside made fit for a terminal: lines of a log, control bytes, width on the screen. Pure.
//!
//! A log is bytes cut anywhere. [`LineSplitter`] gives whole lines without escape sequences; a carriage return
//! starts the line anew, as a terminal would show it.

/// A line longer than this is cut there: memory is bounded whatever a program writes.
const LINE_BYTES: usize = 16 * 1024;

/// Collects a log's bytes into clean lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Takes bytes and returns the lines that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for chunk in bytes.split_inclusive(|b| *b == b'\n') {
            self.pending.extend_from_slice(chunk);
            if chunk.ends_with(b"\n") || self.pending.len() >= LINE_BYTES {
                lines.extend(self.finish());
            }
        }
        lines
    }

    /// Returns what was written since the last line end, if anything.
    pub fn finish(&mut self) -> Option<String> {
        if self.pending.is_empty() {
            return None;
        }
        let line = clean_line(&self.pending);
        self.pending.clear();
        Some(line)
    }
}

/// Returns what a terminal would show of a line, without colours: the text after the last carriage return.
fn clean_line(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let shown = bytes.rsplit(|b| *b == b'\r').next().unwrap_or(bytes);
    printable(&String::from_utf8_lossy(shown))
}

/// Removes escape sequences and control characters; a tab becomes spaces up to the next multiple of 8.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' | '\u{9b}' => skip_escape(c, &mut chars),
            '\t' => {
                let column = width(out.rsplit('\n').next().unwrap_or(""));
                out.extend(std::iter::repeat_n(' ', 8 - column % 8));
            }
            '\n' => out.push('\n'),
            // Bidirectional overrides could show a command other than the one that ran.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips what belongs to an escape sequence (ECMA-48: CSI, OSC and the other strings, two-character ones).
fn skip_escape(first: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let kind = if first == '\u{9b}' { Some('[') } else { chars.next() };
    match kind {
        Some('[') => {
            // Parameters and intermediates, then one final byte.
            while chars.next_if(|c| matches!(c, '\x20'..='\x3f')).is_some() {}
            let _ = chars.next_if(|c| matches!(c, '\x40'..='\x7e'));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        Some('(' | ')' | '*' | '+' | '#' | '%') => {
            let _ = chars.next();
        }
        _ => {}
    }
}

/// Returns one line of text: control characters gone, line ends as spaces.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', " ")
}

/// Returns how many columns text takes on the screen; an estimate for rare scripts, exact for the common ones.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200f | 0xfe00..=0xfe0f | 0x20d0..=0x20f0 => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Breaks text into pieces of at most so many columns (one character each at least), wherever they end.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let (mut rows, mut row, mut used) = (Vec::new(), String::new(), 0);
    for c in text.chars() {
        if used > 0 && used + char_width(c) > columns {
            rows.push(std::mem::take(&mut row));
            used = 0;
        }
        used += char_width(c);
        row.push(c);
    }
    rows.push(row);
    rows
}

/// Cuts text to a number of columns; the last one shows `…` where something is missing.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut out, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += char_width(c);
        if used + 1 > columns {
            break;
        }
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut splitter = LineSplitter::default();
        assert_eq!(splitter.push(b"ab"), Vec::<String>::new());
        assert_eq!(splitter.push(b"c\nd\r\n\n10%\r20%\rdone\nrest \xc3"), ["abc", "d", "", "done"]);
        assert_eq!(splitter.push(b"\xa4\n"), ["rest ä"]);
        assert_eq!(splitter.push(b"end"), Vec::<String>::new());
        assert_eq!(splitter.finish().as_deref(), Some("end"));
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut splitter = LineSplitter::default();
        let lines: Vec<String> = (0..10).flat_map(|_| splitter.push(&[b'x'; 4096])).collect();
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES, LINE_BYTES]);
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let cases = [
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("a\x1b]0;title\x07b", "ab"),
            ("a\x1b]8;;http://x\x1b\\link", "alink"),
            ("\x1b(Bx\x1b7y", "xy"),
            ("a\x08\x00\x7fb", "ab"),
            ("a\tb", "a       b"),
            ("\u{9b}2Jx", "x"),
            ("rm \u{202e}fdp.x", "rm fdp.x"),
            ("\x1b[", ""),
            ("\x1b", ""),
        ];
        for (text, want) in cases {
            assert_eq!(printable(text), want, "{text:?}");
        }
    }

    #[test]
    fn text_is_cut_by_columns() {
        let cases = [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("漢字漢", 6, "漢字漢"),
            ("漢字漢", 5, "漢字…"),
            ("漢字漢", 4, "漢…"),
            ("ab", 0, ""),
            ("e\u{301}x", 2, "e\u{301}x"),
        ];
        for (text, columns, want) in cases {
            assert_eq!(cut(text, columns), want, "{text} {columns}");
        }
    }
}
