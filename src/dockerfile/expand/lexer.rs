//! The reader of one word: character by character, recursing into substitutions.
//!
//! Not the public face (that is the module above). What a newcomer would get wrong: the text and its split into words
//! are made side by side, since only here it is known which white space was quoted.

use std::collections::BTreeSet;

use super::pattern::Pattern;
use super::{Env, ExpandErrorKind, Expander, Quotes};
use crate::dockerfile::limits::{Limit, MAX_EXPANSION_BYTES, MAX_EXPANSION_DEPTH};

/// The words so far, for splitting.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    in_word: bool,
}

pub(super) struct Lexer<'a> {
    how: &'a Expander,
    text: Vec<char>,
    at: usize,
    /// Where the last `$` stood: an error is about that one.
    dollar_at: usize,
    env: &'a dyn Env,
    raw_escapes: bool,
    /// The word being collected. One for all nesting levels: a substitution with a word of its own drops what stood
    /// before it, which is BuildKit's behaviour (its lexer shares the buffer).
    word: String,
    pub(super) matched: BTreeSet<String>,
    pub(super) unmatched: BTreeSet<String>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(how: &'a Expander, word: &str, env: &'a dyn Env) -> Self {
        // Go's text/scanner drops a byte order mark at the front.
        let text = word.strip_prefix('\u{feff}').unwrap_or(word).chars().collect();
        Self {
            how,
            text,
            at: 0,
            dollar_at: 0,
            env,
            raw_escapes: false,
            word: String::new(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    /// Returns the line, from 0, of what was read last.
    pub(super) fn line(&self) -> usize {
        self.text[..self.dollar_at].iter().filter(|c| **c == '\n').count()
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn add(&mut self, words: &mut Words, c: char) {
        if !c.is_whitespace() {
            self.add_raw(words, c);
        } else if words.in_word && !self.word.is_empty() {
            words.done.push(std::mem::take(&mut self.word));
            words.in_word = false;
        }
    }

    fn add_raw(&mut self, words: &mut Words, c: char) {
        self.word.push(c);
        words.in_word = true;
    }

    /// Reads the whole word. Returns the text, and the same as words.
    pub(super) fn whole(&mut self) -> Result<(String, Vec<String>), ExpandErrorKind> {
        self.how.budget.spend(self.text.len())?;
        self.until(None, false, 0)
    }

    /// Reads to `stop` (which is taken) or the end of the text. Returns the text, and the same as words.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool, depth: usize) -> Result<(String, Vec<String>), ExpandErrorKind> {
        if depth > MAX_EXPANSION_DEPTH {
            return Err(ExpandErrorKind::Limit(Limit::ExpansionDepth));
        }
        let before = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.read(stop, depth);
        self.raw_escapes = before;
        result
    }

    fn read(&mut self, stop: Option<char>, depth: usize) -> Result<(String, Vec<String>), ExpandErrorKind> {
        let mut out = String::new();
        let mut words = Words::default();
        self.word.clear();
        while let Some(c) = self.peek() {
            if out.len() > MAX_EXPANSION_BYTES {
                return Err(ExpandErrorKind::Limit(Limit::ExpansionBytes));
            }
            if stop == Some(c) {
                self.at += 1;
                return Ok((out, self.finish(words)));
            }
            match c {
                '$' => {
                    let value = self.dollar(depth)?;
                    self.how.budget.spend(value.len())?;
                    value.chars().for_each(|c| self.add(&mut words, c));
                    out.push_str(&value);
                }
                '\'' | '"' if self.how.quotes != Quotes::Ignore => {
                    let value = if c == '"' { self.double_quoted(depth)? } else { self.single_quoted()? };
                    self.word.push_str(&value);
                    words.in_word = true;
                    out.push_str(&value);
                }
                '<' => {
                    let value = self.angle();
                    self.word.push_str(&value);
                    words.in_word = true;
                    out.push_str(&value);
                }
                c => {
                    self.at += 1;
                    if c != self.how.escape {
                        self.add(&mut words, c);
                        out.push(c);
                        continue;
                    }
                    if self.raw_escapes {
                        self.add_raw(&mut words, c);
                        out.push(c);
                    }
                    let Some(escaped) = self.next() else { break };
                    self.add_raw(&mut words, escaped);
                    out.push(escaped);
                }
            }
        }
        if out.len() > MAX_EXPANSION_BYTES {
            return Err(ExpandErrorKind::Limit(Limit::ExpansionBytes));
        }
        match stop {
            // Both callers replace this error by one that names their syntax.
            Some('/') => Err(ExpandErrorKind::MissingSlash),
            Some(_) => Err(ExpandErrorKind::MissingBrace),
            None => Ok((out, self.finish(words))),
        }
    }

    fn finish(&mut self, mut words: Words) -> Vec<String> {
        if !self.word.is_empty() {
            words.done.push(std::mem::take(&mut self.word));
        }
        words.done
    }

    fn single_quoted(&mut self) -> Result<String, ExpandErrorKind> {
        self.at += 1;
        let keep = self.how.quotes == Quotes::Keep;
        let rest = &self.text[self.at..];
        let Some(len) = rest.iter().position(|c| *c == '\'') else {
            self.at = self.text.len();
            return Err(ExpandErrorKind::UnclosedQuote("single-quote"));
        };
        let inner: String = rest[..len].iter().collect();
        self.at += len + 1;
        Ok(if keep { format!("'{inner}'") } else { inner })
    }

    fn double_quoted(&mut self, depth: usize) -> Result<String, ExpandErrorKind> {
        self.at += 1;
        let keep = self.how.quotes == Quotes::Keep;
        let mut out = String::from(if keep { "\"" } else { "" });
        while let Some(c) = self.peek() {
            if out.len() > MAX_EXPANSION_BYTES {
                return Err(ExpandErrorKind::Limit(Limit::ExpansionBytes));
            }
            match c {
                '"' => {
                    self.at += 1;
                    if keep {
                        out.push('"');
                    }
                    return Ok(out);
                }
                '$' => {
                    let value = self.dollar(depth)?;
                    self.how.budget.spend(value.len())?;
                    out.push_str(&value);
                }
                c if c == self.how.escape => {
                    self.at += 1;
                    if self.raw_escapes {
                        out.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(e) if e == '"' || e == '$' || e == self.how.escape => {
                            self.at += 1;
                            out.push(e);
                        }
                        Some(_) => out.push(c),
                    }
                }
                c => {
                    self.at += 1;
                    out.push(c);
                }
            }
        }
        Err(ExpandErrorKind::UnclosedQuote("double-quote"))
    }

    /// Reads a `<`; white space after `<<` belongs to it, so that it does not split words.
    fn angle(&mut self) -> String {
        self.at += 1;
        if self.peek() != Some('<') {
            return "<".into();
        }
        self.at += 1;
        let mut out = String::from("<<");
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            self.at += 1;
            out.push(c);
        }
        out
    }

    fn variable(&mut self, name: &str) -> Result<Option<String>, ExpandErrorKind> {
        let value = self.env.value(name);
        self.how.budget.spend(value.map_or(0, str::len))?;
        let noted = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !noted.contains(name) {
            noted.insert(name.to_string());
        }
        Ok(value.map(str::to_string))
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if is_digit(c) => {
                while let Some(c) = self.peek().filter(|c| is_digit(*c)) {
                    self.at += 1;
                    name.push(c);
                }
                return name;
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.at += 1;
                name.push(c);
                return name;
            }
            _ => {}
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphabetic() || is_digit(*c) || *c == '_') {
            self.at += 1;
            name.push(c);
        }
        name
    }

    fn dollar(&mut self, depth: usize) -> Result<String, ExpandErrorKind> {
        self.dollar_at = self.at;
        self.at += 1;
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braces(depth);
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        Ok(match self.variable(&name)? {
            Some(value) => value,
            None if self.how.keep_unset => format!("${name}"),
            None => String::new(),
        })
    }

    /// Reads a substitution after its `${`.
    fn braces(&mut self, depth: usize) -> Result<String, ExpandErrorKind> {
        match self.peek() {
            None => return Err(ExpandErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.variable(&name)? {
                Some(value) => value,
                None if self.how.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => {
                let modifier = self.next();
                self.modified(&name, modifier, true, depth)
            }
            Some(c @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, Some(c), false, depth),
            Some('/') => self.replaced(&name, depth),
            other => Err(ExpandErrorKind::UnsupportedModifier(other.unwrap_or(char::REPLACEMENT_CHARACTER).into())),
        }
    }

    /// Reads the rest of `${v:-w}`, `${v?w}`, `${v##p}`, … after the modifier's character.
    fn modified(&mut self, name: &str, modifier: Option<char>, empty_is_unset: bool, depth: usize) -> Result<String, ExpandErrorKind> {
        let colon = if empty_is_unset { ":" } else { "" };
        let shown = format!("{colon}{}", modifier.unwrap_or(char::REPLACEMENT_CHARACTER));
        let trims = matches!(modifier, Some('#' | '%'));
        if empty_is_unset && trims {
            return Err(ExpandErrorKind::UnsupportedModifier(shown));
        }
        let word = match self.until(Some('}'), trims, depth + 1) {
            Ok((word, _)) => word,
            Err(e) => return Err(self.at_end_or(ExpandErrorKind::MissingBrace, e)),
        };
        let value = self.variable(name)?;
        if self.how.keep_unset && value.is_none() {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let filled = value.clone().filter(|v| !(empty_is_unset && v.is_empty()));
        match modifier {
            Some('-') => Ok(filled.unwrap_or(word)),
            Some('+') => Ok(if filled.is_some() { word } else { String::new() }),
            Some('?') => filled.ok_or_else(|| ExpandErrorKind::Required {
                name: name.to_string(),
                message: match (word.is_empty(), value) {
                    (false, _) => word,
                    (true, None) => "is not allowed to be unset".into(),
                    (true, Some(_)) => "is not allowed to be empty".into(),
                },
            }),
            Some(end @ ('#' | '%')) => {
                let (longest, text) = word.strip_prefix(end).map_or((false, word.as_str()), |rest| (true, rest));
                let value = value.unwrap_or_default();
                self.spend_match(text, &value)?;
                let pattern = Pattern::parse(text)?;
                Ok(if end == '#' { pattern.trim_prefix(&value, longest) } else { pattern.trim_suffix(&value, longest) })
            }
            _ => Err(ExpandErrorKind::UnsupportedModifier(shown)),
        }
    }

    /// Reads the rest of `${v/p/r}` or `${v//p/r}` after the first `/`.
    fn replaced(&mut self, name: &str, depth: usize) -> Result<String, ExpandErrorKind> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let pattern = match self.until(Some('/'), true, depth + 1) {
            Ok((pattern, _)) => pattern,
            Err(e) => return Err(self.at_end_or(ExpandErrorKind::MissingSlash, e)),
        };
        let replacement = match self.until(Some('}'), true, depth + 1) {
            Ok((replacement, _)) => replacement,
            Err(e) => return Err(self.at_end_or(ExpandErrorKind::MissingBrace, e)),
        };
        let value = self.variable(name)?;
        if self.how.keep_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        self.spend_match(&pattern, &value)?;
        Pattern::parse(&pattern)?.replace(&value, &replacement, all).ok_or(ExpandErrorKind::Limit(Limit::ExpansionBytes))
    }

    /// Pays for matching, which takes a step for each character of the pattern at each of the value.
    fn spend_match(&self, pattern: &str, value: &str) -> Result<(), ExpandErrorKind> {
        self.how.budget.spend(pattern.len().saturating_mul(value.len()) / 8 + value.len())
    }

    /// An error within a substitution that runs to the end of the text is that the substitution is not closed.
    fn at_end_or(&self, unclosed: ExpandErrorKind, inner: ExpandErrorKind) -> ExpandErrorKind {
        let limit = matches!(inner, ExpandErrorKind::Limit(_));
        if self.peek().is_none() && !limit { unclosed } else { inner }
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}
