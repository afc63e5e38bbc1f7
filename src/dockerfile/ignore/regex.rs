//! A regular expression matcher for what ignore patterns translate to, in linear time.
//!
//! Not a general one: characters, escapes, classes, `.`, `(...)?`, `*`, and the assertions that Go's RE2 syntax gives
//! meaning to. A newcomer would wonder why a glob goes through regular expressions at all: moby's patternmatcher
//! does, and files in the wild depend on what shows through (`a\b`, `[a*]`, `[^x]` matching `/`).

use super::glob::BadPattern;

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c)) != self.negated
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Instruction {
    /// Takes one character.
    Take(Class),
    /// Goes on at both places.
    Split(usize, usize),
    /// Goes on at one place.
    Jump(usize),
    Start,
    End,
    WordBoundary(bool),
}

/// A compiled expression, matched against a whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program(Vec<Instruction>);

impl Program {
    /// Compiles an expression as `translate` writes them.
    pub(super) fn parse(expression: &str) -> Result<Self, BadPattern> {
        let mut parser = Parser { rest: expression.chars().collect(), at: 0, code: Vec::new(), group: None };
        parser.run()?;
        Ok(Self(parser.code))
    }

    /// Tells whether the whole of `text` matches.
    pub(super) fn is_match(&self, text: &[char]) -> bool {
        let mut now = vec![false; self.0.len() + 1];
        let mut stack = vec![0];
        for at in 0..=text.len() {
            self.close(&mut now, &mut stack, text, at);
            let Some(c) = text.get(at) else { break };
            for (place, reached) in now.iter().enumerate() {
                if *reached && matches!(self.0.get(place), Some(Instruction::Take(class)) if class.has(*c)) {
                    stack.push(place + 1);
                }
            }
            if stack.is_empty() {
                return false;
            }
            now.fill(false);
        }
        now[self.0.len()]
    }

    /// Marks all places that `stack`'s places lead to without taking a character.
    fn close(&self, now: &mut [bool], stack: &mut Vec<usize>, text: &[char], at: usize) {
        let word = |i: Option<usize>| i.and_then(|i| text.get(i)).is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_');
        while let Some(place) = stack.pop() {
            if std::mem::replace(&mut now[place], true) {
                continue;
            }
            match self.0.get(place) {
                Some(Instruction::Split(a, b)) => stack.extend([*a, *b]),
                Some(Instruction::Jump(a)) => stack.push(*a),
                Some(Instruction::Start) if at == 0 => stack.push(place + 1),
                Some(Instruction::End) if at == text.len() => stack.push(place + 1),
                Some(Instruction::WordBoundary(want)) if (word(at.checked_sub(1)) != word(Some(at))) == *want => stack.push(place + 1),
                _ => {}
            }
        }
    }
}

struct Parser {
    rest: Vec<char>,
    at: usize,
    code: Vec<Instruction>,
    /// Where the open group's `Split` stands.
    group: Option<usize>,
}

impl Parser {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.get(self.at).copied();
        self.at += 1;
        c
    }

    fn eat(&mut self, want: char) -> bool {
        let is = self.rest.get(self.at) == Some(&want);
        self.at += usize::from(is);
        is
    }

    fn run(&mut self) -> Result<(), BadPattern> {
        while let Some(c) = self.next() {
            match c {
                '(' if self.group.is_none() => {
                    self.group = Some(self.code.len());
                    self.code.push(Instruction::Jump(0));
                }
                ')' => {
                    let open = self.group.take().ok_or(BadPattern)?;
                    if !self.eat('?') {
                        return Err(BadPattern);
                    }
                    self.code[open] = Instruction::Split(open + 1, self.code.len());
                }
                '^' => self.code.push(Instruction::Start),
                '$' => self.code.push(Instruction::End),
                '.' => self.take(Class { negated: true, ranges: vec![('\n', '\n')] }),
                '[' => {
                    let class = self.class()?;
                    self.take(class);
                }
                '\\' => self.escape()?,
                '*' | '?' | '+' | '(' => return Err(BadPattern),
                c => self.take(one(c)),
            }
        }
        if self.group.is_some() { Err(BadPattern) } else { Ok(()) }
    }

    /// Emits a character set, repeated when a `*` follows.
    fn take(&mut self, class: Class) {
        let at = self.code.len();
        if self.eat('*') {
            self.code.extend([Instruction::Split(at + 1, at + 3), Instruction::Take(class), Instruction::Jump(at)]);
        } else {
            self.code.push(Instruction::Take(class));
        }
    }

    fn escape(&mut self) -> Result<(), BadPattern> {
        match self.next().ok_or(BadPattern)? {
            'b' => self.code.push(Instruction::WordBoundary(true)),
            'B' => self.code.push(Instruction::WordBoundary(false)),
            'A' => self.code.push(Instruction::Start),
            'z' => self.code.push(Instruction::End),
            c => {
                let class = escaped(c).ok_or(BadPattern)?;
                self.take(class);
            }
        }
        Ok(())
    }

    /// Parses a class after its `[`.
    fn class(&mut self) -> Result<Class, BadPattern> {
        let negated = self.eat('^');
        let mut ranges = Vec::new();
        let mut first = true;
        loop {
            let c = self.next().ok_or(BadPattern)?;
            if c == ']' && !first {
                return Ok(Class { negated, ranges });
            }
            first = false;
            if c == '[' && self.rest.get(self.at) == Some(&':') {
                ranges.extend(self.posix()?);
                continue;
            }
            let set = if c == '\\' { escaped(self.next().ok_or(BadPattern)?).ok_or(BadPattern)? } else { one(c) };
            let dash = self.rest.get(self.at) == Some(&'-') && self.rest.get(self.at + 1).is_some_and(|c| *c != ']');
            match set.ranges.as_slice() {
                [(lo, hi)] if dash && lo == hi && !set.negated => {
                    self.at += 1;
                    let mut end = self.next().ok_or(BadPattern)?;
                    if end == '\\' {
                        match escaped(self.next().ok_or(BadPattern)?).as_ref().map(|c| c.ranges.as_slice()) {
                            Some([(c, same)]) if c == same => end = *c,
                            _ => return Err(BadPattern),
                        }
                    }
                    if end < *lo {
                        return Err(BadPattern);
                    }
                    ranges.push((*lo, end));
                }
                _ if set.negated => ranges.extend(complement(&set.ranges)),
                _ => ranges.extend(set.ranges),
            }
        }
    }

    fn posix(&mut self) -> Result<Vec<(char, char)>, BadPattern> {
        let name: String = self.rest[self.at..].iter().take_while(|c| **c != ']').collect();
        let ranges = match name.as_str() {
            ":alnum:" => vec![('0', '9'), ('A', 'Z'), ('a', 'z')],
            ":alpha:" => vec![('A', 'Z'), ('a', 'z')],
            ":digit:" => vec![('0', '9')],
            ":lower:" => vec![('a', 'z')],
            ":upper:" => vec![('A', 'Z')],
            ":space:" => vec![('\t', '\r'), (' ', ' ')],
            ":word:" => vec![('0', '9'), ('A', 'Z'), ('a', 'z'), ('_', '_')],
            ":xdigit:" => vec![('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return Err(BadPattern),
        };
        self.at += name.chars().count() + 1;
        Ok(ranges)
    }
}

fn one(c: char) -> Class {
    Class { negated: false, ranges: vec![(c, c)] }
}

/// What `\c` stands for; none: RE2 refuses it (or it is one of `\p \x \Q \C` and octal, which are not supported).
fn escaped(c: char) -> Option<Class> {
    let (negated, ranges) = match c {
        'd' | 'D' => (c == 'D', vec![('0', '9')]),
        's' | 'S' => (c == 'S', vec![('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
        'w' | 'W' => (c == 'W', vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        'a' => (false, vec![('\x07', '\x07')]),
        'f' => (false, vec![('\x0c', '\x0c')]),
        'n' => (false, vec![('\n', '\n')]),
        'r' => (false, vec![('\r', '\r')]),
        't' => (false, vec![('\t', '\t')]),
        'v' => (false, vec![('\x0b', '\x0b')]),
        c if c.is_ascii_punctuation() => (false, vec![(c, c)]),
        _ => return None,
    };
    Some(Class { negated, ranges })
}

/// Returns the rest of all characters; `ranges` are sorted.
fn complement(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let mut out = Vec::new();
    let mut from = 0u32;
    for (lo, hi) in ranges {
        let before = (*lo as u32).checked_sub(1).and_then(char::from_u32);
        if let Some((a, b)) = char::from_u32(from).zip(before) {
            out.push((a, b));
        }
        from = *hi as u32 + 1;
    }
    if let Some(a) = char::from_u32(from) {
        out.push((a, char::MAX));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_whole_texts() {
        for (expression, text, want) in [
            ("^a$", "a", true),
            ("^a$", "ab", false),
            ("^(.*/)?foo$", "foo", true),
            ("^(.*/)?foo$", "a/b/foo", true),
            ("^(.*/)?foo$", "xfoo", false),
            ("^[^/]*\\.go$", "x.go", true),
            ("^[^/]*\\.go$", "a/x.go", false),
            ("^a\\b$", "a", true),
            ("^[[^/]*]$", "^^]", true),
            ("^\\d\\D$", "1a", true),
            ("^[a-c\\]]$", "]", true),
            ("^[\\D]$", "5", false),
            ("^[[:digit:]x]$", "7", true),
        ] {
            let text: Vec<char> = text.chars().collect();
            assert_eq!(Program::parse(expression).unwrap().is_match(&text), want, "{expression}");
        }
        for expression in ["[", "[b-a]", "\\e", "\\", "(a", "a)"] {
            assert_eq!(Program::parse(expression), Err(BadPattern), "{expression}");
        }
    }
}
