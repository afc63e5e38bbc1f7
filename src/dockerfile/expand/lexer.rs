//! The reader of one word: from one special character to the next, recursing into substitutions.
//!
//! Not the public face (that is the module above). What a newcomer would get wrong: the text and its split into words
//! are made side by side, since only here it is known which white space was quoted; most callers want the text alone, and
//! then nothing is split.

use std::borrow::Cow;
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
    text: &'a str,
    at: usize,
    /// Where the last `$` stood: an error is about that one.
    dollar_at: usize,
    env: &'a dyn Env,
    raw_escapes: bool,
    /// Whether the words are wanted too.
    splits: bool,
    /// The word being collected. One for all nesting levels: a substitution with a word of its own drops what stood
    /// before it, which is BuildKit's behaviour (its lexer shares the buffer).
    word: String,
    pub(super) matched: BTreeSet<String>,
    pub(super) unmatched: BTreeSet<String>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(how: &'a Expander, word: &'a str, env: &'a dyn Env, splits: bool) -> Self {
        Self {
            how,
            // Go's text/scanner drops a byte order mark at the front.
            text: word.strip_prefix('\u{feff}').unwrap_or(word),
            at: 0,
            dollar_at: 0,
            env,
            raw_escapes: false,
            splits,
            word: String::new(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    /// Returns the line, from 0, of what was read last.
    pub(super) fn line(&self) -> usize {
        self.text[..self.dollar_at].bytes().filter(|b| *b == b'\n').count()
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += c.map_or(0, char::len_utf8);
        c
    }

    /// Takes the text up to the first byte that is `special`, which only ASCII characters may be.
    fn take_to(&mut self, special: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let taken = &rest[..rest.bytes().position(special).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Takes the characters that are `wanted`.
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let taken = &rest[..rest.find(|c| !wanted(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Adds text whose white space parts words.
    fn add(&mut self, words: &mut Words, text: &str) {
        if !self.splits {
            return;
        }
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
                words.in_word = true;
            } else if words.in_word && !self.word.is_empty() {
                words.done.push(std::mem::take(&mut self.word));
                words.in_word = false;
            }
        }
    }

    /// Adds text that belongs to the word at hand as a whole.
    fn add_whole(&mut self, words: &mut Words, text: &str) {
        if self.splits {
            self.word.push_str(text);
            words.in_word = true;
        }
    }

    /// Reads the whole word. Returns the text, and the same as words.
    pub(super) fn whole(&mut self) -> Result<(String, Vec<String>), ExpandErrorKind> {
        self.how.budget.spend(self.text.chars().count())?;
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
        let how = self.how;
        let (quotes, splits) = (how.quotes != Quotes::Ignore, self.splits);
        // A `<` only tells how words part, never what the text is.
        let special = move |b: u8| {
            let c = char::from(b);
            c == '$' || c == how.escape || stop == Some(c) || (quotes && matches!(c, '\'' | '"')) || (splits && c == '<')
        };
        while self.at < self.text.len() {
            if out.len() > MAX_EXPANSION_BYTES {
                return Err(ExpandErrorKind::Limit(Limit::ExpansionBytes));
            }
            let plain = self.take_to(special);
            if !plain.is_empty() {
                self.add(&mut words, plain);
                out.push_str(plain);
                continue;
            }
            let Some(c) = self.peek() else { break };
            if stop == Some(c) {
                self.at += 1;
                return Ok((out, self.finish(words)));
            }
            match c {
                '$' => {
                    let value = self.dollar(depth)?;
                    self.how.budget.spend(value.len())?;
                    self.add(&mut words, &value);
                    out.push_str(&value);
                }
                '\'' | '"' if quotes => {
                    let value = if c == '"' { self.double_quoted(depth)? } else { self.single_quoted()? };
                    self.add_whole(&mut words, &value);
                    out.push_str(&value);
                }
                '<' => {
                    let value = self.angle();
                    self.add_whole(&mut words, value);
                    out.push_str(value);
                }
                _ => {
                    // The escape character, and what it protects.
                    let start = self.at + usize::from(!self.raw_escapes);
                    self.at += 1;
                    let _ = self.next();
                    let text = &self.text[start..self.at];
                    self.add_whole(&mut words, text);
                    out.push_str(text);
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

    fn single_quoted(&mut self) -> Result<Cow<'a, str>, ExpandErrorKind> {
        self.at += 1;
        let inner = self.take_to(|b| b == b'\'');
        if self.next().is_none() {
            return Err(ExpandErrorKind::UnclosedQuote("single-quote"));
        }
        Ok(if self.how.quotes == Quotes::Keep { format!("'{inner}'").into() } else { inner.into() })
    }

    fn double_quoted(&mut self, depth: usize) -> Result<Cow<'a, str>, ExpandErrorKind> {
        self.at += 1;
        let keep = self.how.quotes == Quotes::Keep;
        let escape = self.how.escape;
        let mut out = String::from(if keep { "\"" } else { "" });
        while self.at < self.text.len() {
            if out.len() > MAX_EXPANSION_BYTES {
                return Err(ExpandErrorKind::Limit(Limit::ExpansionBytes));
            }
            let plain = self.take_to(|b| matches!(b, b'"' | b'$') || char::from(b) == escape);
            if !plain.is_empty() {
                out.push_str(plain);
                continue;
            }
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    if keep {
                        out.push('"');
                    }
                    return Ok(out.into());
                }
                Some('$') => {
                    let value = self.dollar(depth)?;
                    self.how.budget.spend(value.len())?;
                    out.push_str(&value);
                }
                Some(c) => {
                    self.at += 1;
                    if self.raw_escapes {
                        out.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(e) if e == '"' || e == '$' || e == escape => {
                            self.at += 1;
                            out.push(e);
                        }
                        Some(_) => out.push(c),
                    }
                }
                None => {}
            }
        }
        Err(ExpandErrorKind::UnclosedQuote("double-quote"))
    }

    /// Reads a `<`; white space after `<<` belongs to it, so that it does not split words.
    fn angle(&mut self) -> &'a str {
        let start = self.at;
        self.at += 1;
        if self.peek() == Some('<') {
            self.at += 1;
            self.take_while(|c| matches!(c, '\t' | '\r' | ' '));
        }
        &self.text[start..self.at]
    }

    fn variable(&mut self, name: &str) -> Result<Option<&'a str>, ExpandErrorKind> {
        let value = self.env.value(name);
        self.how.budget.spend(value.map_or(0, str::len))?;
        let noted = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !noted.contains(name) {
            noted.insert(name.to_string());
        }
        Ok(value)
    }

    fn name(&mut self) -> &'a str {
        match self.peek() {
            Some(c) if is_digit(c) => self.take_while(is_digit),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.at += 1;
                &self.text[self.at - 1..self.at]
            }
            _ => self.take_while(|c| c.is_alphabetic() || is_digit(c) || c == '_'),
        }
    }

    fn dollar(&mut self, depth: usize) -> Result<Cow<'a, str>, ExpandErrorKind> {
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
        Ok(match self.variable(name)? {
            Some(value) => value.into(),
            None if self.how.keep_unset => format!("${name}").into(),
            None => "".into(),
        })
    }

    /// Reads a substitution after its `${`.
    fn braces(&mut self, depth: usize) -> Result<Cow<'a, str>, ExpandErrorKind> {
        match self.peek() {
            None => return Err(ExpandErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.variable(name)? {
                Some(value) => value.into(),
                None if self.how.keep_unset => format!("${{{name}}}").into(),
                None => "".into(),
            }),
            Some(':') => {
                let modifier = self.next();
                self.modified(name, modifier, true, depth)
            }
            Some(c @ ('+' | '-' | '?' | '#' | '%')) => self.modified(name, Some(c), false, depth),
            Some('/') => self.replaced(name, depth),
            other => Err(ExpandErrorKind::UnsupportedModifier(other.unwrap_or(char::REPLACEMENT_CHARACTER).into())),
        }
    }

    /// Reads the rest of `${v:-w}`, `${v?w}`, `${v##p}`, … after the modifier's character.
    fn modified(
        &mut self,
        name: &str,
        modifier: Option<char>,
        empty_is_unset: bool,
        depth: usize,
    ) -> Result<Cow<'a, str>, ExpandErrorKind> {
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
            return Ok(format!("${{{name}{shown}{word}}}").into());
        }
        let filled = value.filter(|v| !(empty_is_unset && v.is_empty()));
        match modifier {
            Some('-') => Ok(filled.map_or_else(|| word.into(), Cow::from)),
            Some('+') => Ok(if filled.is_some() { word.into() } else { "".into() }),
            Some('?') => filled.map(Cow::from).ok_or_else(|| ExpandErrorKind::Required {
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
                self.spend_match(text, value)?;
                let pattern = Pattern::parse(text)?;
                Ok(if end == '#' { pattern.trim_prefix(value, longest) } else { pattern.trim_suffix(value, longest) }.into())
            }
            _ => Err(ExpandErrorKind::UnsupportedModifier(shown)),
        }
    }

    /// Reads the rest of `${v/p/r}` or `${v//p/r}` after the first `/`.
    fn replaced(&mut self, name: &str, depth: usize) -> Result<Cow<'a, str>, ExpandErrorKind> {
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
            return Ok(format!("${{{name}/{pattern}/{replacement}}}").into());
        }
        let value = value.unwrap_or_default();
        self.spend_match(&pattern, value)?;
        let replaced = Pattern::parse(&pattern)?.replace(value, &replacement, all);
        replaced.map(Cow::from).ok_or(ExpandErrorKind::Limit(Limit::ExpansionBytes))
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
