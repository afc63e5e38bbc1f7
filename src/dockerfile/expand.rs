//! Word expansion: `$v`, `${v:-w}`, `${v#p}`, `${v/p/r}`, quotes and escapes, as BuildKit's shell lexer does it.
//!
//! Not a shell: RUN's text never comes here. What a newcomer would get wrong: removing quotes and expanding is one
//! pass, so that `'$B'` stays `$B`; and everything that one instruction says is expanded in the environment *before* it,
//! which is the caller's to hold.
//!
//! One known difference: in `${v//p/r}` BuildKit takes `$1` in `r` for a regular expression's template; here it is text.

mod pattern;

use std::collections::{BTreeMap, BTreeSet};

use pattern::Pattern;

/// The most that one word may become.
pub const MAX_EXPANSION_BYTES: usize = 1 << 20;
/// How deep `${a:-${b:-…}}` may nest.
pub const MAX_DEPTH: usize = 64;

/// Where variables come from.
pub trait Env {
    /// Returns a variable's value; none: it is not set.
    fn value(&self, name: &str) -> Option<&str>;
}

impl Env for BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// A word that can't be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process `{word}`: {kind}")]
pub struct ExpandError {
    /// The word as written (its start, when it is long).
    pub word: String,
    /// What is wrong with it.
    pub kind: ExpandErrorKind,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// A `'` or `"` without its partner.
    #[error("unexpected end of statement while looking for matching {0}")]
    UnclosedQuote(&'static str),
    /// `${` without `}`.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${v/p` without the second `/`.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`, `${:…}`, `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${v^}` and the like.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${v:?message}` of a variable that has no value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message given, or a standard one.
        message: String,
    },
    /// A `\` before something that needs none, in the pattern of `#`, `%` or `/`.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What follows the `\`.
        escaped: String,
    },
    /// More than [`MAX_EXPANSION_BYTES`].
    #[error("the expansion is longer than {MAX_EXPANSION_BYTES} bytes")]
    TooLong,
    /// More than [`MAX_DEPTH`].
    #[error("substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// What a word became.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The text, quotes removed.
    pub text: String,
    /// The variables that had a value.
    pub matched: BTreeSet<String>,
    /// The variables that had none.
    pub unmatched: BTreeSet<String>,
}

/// What to do with quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// They protect, and are removed.
    Remove,
    /// They protect, and stay.
    Keep,
    /// They are ordinary characters.
    Ignore,
}

/// How words are read.
#[derive(Debug, Clone, Copy)]
pub struct Expander {
    escape: char,
    quotes: Quotes,
    keep_unset: bool,
}

impl Expander {
    /// Reads words of instructions; `escape` is the file's `# escape=`.
    pub fn new(escape: char) -> Self {
        Self { escape, quotes: Quotes::Remove, keep_unset: false }
    }
    /// Reads a heredoc's body: quotes are text, and the escape is always `\`.
    pub fn heredoc_body() -> Self {
        Self { escape: '\\', quotes: Quotes::Ignore, keep_unset: false }
    }
    /// Reads a RUN for showing it to people: quotes and variables without a value stay.
    pub fn display(escape: char) -> Self {
        Self { escape, quotes: Quotes::Keep, keep_unset: true }
    }

    /// Expands a word.
    pub fn word(&self, word: &str, env: &dyn Env) -> Result<Expansion, ExpandError> {
        let mut lexer = Lexer::new(*self, word, env);
        let text = lexer.until(None, false, 0).map_err(|kind| failed(word, kind))?.0;
        Ok(Expansion { text, matched: lexer.matched, unmatched: lexer.unmatched })
    }

    /// Expands a word and splits the result at white space that was not quoted: EXPOSE.
    pub fn words(&self, word: &str, env: &dyn Env) -> Result<Vec<String>, ExpandError> {
        let mut lexer = Lexer::new(*self, word, env);
        Ok(lexer.until(None, false, 0).map_err(|kind| failed(word, kind))?.1)
    }
}

fn failed(word: &str, kind: ExpandErrorKind) -> ExpandError {
    ExpandError { word: word.chars().take(200).collect(), kind }
}

/// The words so far, for splitting.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    in_word: bool,
}

struct Lexer<'a> {
    how: Expander,
    text: Vec<char>,
    at: usize,
    env: &'a dyn Env,
    raw_escapes: bool,
    /// The word being collected. One for all nesting levels: a substitution with a word of its own drops what stood
    /// before it, which is BuildKit's behaviour (its lexer shares the buffer).
    word: String,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

impl<'a> Lexer<'a> {
    fn new(how: Expander, word: &str, env: &'a dyn Env) -> Self {
        // Go's text/scanner drops a byte order mark at the front.
        let text = word.strip_prefix('\u{feff}').unwrap_or(word).chars().collect();
        Self { how, text, at: 0, env, raw_escapes: false, word: String::new(), matched: BTreeSet::new(), unmatched: BTreeSet::new() }
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

    /// Reads to `stop` (which is taken) or the end of the text. Returns the text, and the same as words.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool, depth: usize) -> Result<(String, Vec<String>), ExpandErrorKind> {
        if depth > MAX_DEPTH {
            return Err(ExpandErrorKind::TooDeep);
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
                return Err(ExpandErrorKind::TooLong);
            }
            if stop == Some(c) {
                self.at += 1;
                return Ok((out, self.finish(words)));
            }
            match c {
                '$' => {
                    let value = self.dollar(depth)?;
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
            return Err(ExpandErrorKind::TooLong);
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
                return Err(ExpandErrorKind::TooLong);
            }
            match c {
                '"' => {
                    self.at += 1;
                    if keep {
                        out.push('"');
                    }
                    return Ok(out);
                }
                '$' => out.push_str(&self.dollar(depth)?),
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

    fn variable(&mut self, name: &str) -> Option<String> {
        let value = self.env.value(name);
        let noted = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !noted.contains(name) {
            noted.insert(name.to_string());
        }
        value.map(str::to_string)
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
        self.at += 1;
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braces(depth);
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        Ok(match self.variable(&name) {
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
            Some('}') => Ok(match self.variable(&name) {
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
        let value = self.variable(name);
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
                let pattern = Pattern::parse(text)?;
                let value = value.unwrap_or_default();
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
        let value = self.variable(name);
        if self.how.keep_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        Pattern::parse(&pattern)?.replace(&value.unwrap_or_default(), &replacement, all).ok_or(ExpandErrorKind::TooLong)
    }

    /// An error within a substitution that runs to the end of the text is that the substitution is not closed.
    fn at_end_or(&self, unclosed: ExpandErrorKind, inner: ExpandErrorKind) -> ExpandErrorKind {
        let limit = matches!(inner, ExpandErrorKind::TooDeep | ExpandErrorKind::TooLong);
        if self.peek().is_none() && !limit { unclosed } else { inner }
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> BTreeMap<String, String> {
        [("V", "value"), ("E", ""), ("P", "/a/b/c.tar.gz"), ("S", "x  y")].map(|(k, v)| (k.to_string(), v.to_string())).into()
    }

    #[test]
    fn every_form() {
        for (word, want) in [
            ("a$V.b", "avalue.b"),
            ("${V}${U}", "value"),
            ("$", "$"),
            ("$ x", "$ x"),
            ("\\$V", "$V"),
            ("'$V'", "$V"),
            ("\"$V\\x\\\"\"", "value\\x\""),
            ("${U:-d}${E:-d}${E-d}${V:-d}", "ddvalue"),
            ("${U:-${E:-${V}}}", "value"),
            ("${U:+s}${E:+s}${E+s}${V:+s}", "ss"),
            ("${P#*/}", "a/b/c.tar.gz"),
            ("${P##*/}", "c.tar.gz"),
            ("${P%.*}", "/a/b/c.tar"),
            ("${P%%.*}", "/a/b/c"),
            ("${P/a/X}", "/X/b/c.tXr.gz".replacen("tX", "ta", 1).as_str()),
            ("${P//a/X}", "/X/b/c.tXr.gz"),
            ("${P//\\//_}", "_a_b_c.tar.gz"),
            ("$1x", "x"),
        ] {
            assert_eq!(Expander::new('\\').word(word, &env()).unwrap().text, want, "{word}");
        }
    }

    #[test]
    fn every_error() {
        use ExpandErrorKind::*;
        for (word, want) in [
            ("'x", UnclosedQuote("single-quote")),
            ("\"x", UnclosedQuote("double-quote")),
            ("${", MissingBrace),
            ("${V:-", MissingBrace),
            ("${V/a}", MissingSlash),
            ("${}", BadSubstitution),
            ("${V^}", UnsupportedModifier("^".into())),
            ("${V:#x}", UnsupportedModifier(":#".into())),
            ("${V#\\x}", BadPattern { pattern: "\\x".into(), escaped: "x".into() }),
            ("${U:?need it}", Required { name: "U".into(), message: "need it".into() }),
            ("${E:?}", Required { name: "E".into(), message: "is not allowed to be empty".into() }),
            ("${U?}", Required { name: "U".into(), message: "is not allowed to be unset".into() }),
        ] {
            assert_eq!(Expander::new('\\').word(word, &env()).unwrap_err(), ExpandError { word: word.into(), kind: want }, "{word}");
        }
    }

    #[test]
    fn variables_are_noted() {
        let got = Expander::new('\\').word("$V ${U:-$W} $U", &env()).unwrap();
        assert_eq!(got.matched, BTreeSet::from(["V".to_string()]));
        assert_eq!(got.unmatched, BTreeSet::from(["U".to_string(), "W".to_string()]));
    }

    #[test]
    fn splitting_minds_quotes() {
        for (word, want) in [("a $S b", vec!["a", "x", "y", "b"]), ("\"$S\"c d", vec!["x  yc", "d"]), ("$U", vec![])] {
            assert_eq!(Expander::new('\\').words(word, &env()).unwrap(), want, "{word}");
        }
    }

    #[test]
    fn bodies_keep_quotes_and_titles_keep_what_is_unset() {
        assert_eq!(Expander::heredoc_body().word("\"$V\" '$V' \\$V", &env()).unwrap().text, "\"value\" 'value' $V");
        assert_eq!(Expander::display('\\').word("\"$V\" $U ${U:-x}", &env()).unwrap().text, "\"value\" $U ${U:-x}");
    }

    #[test]
    fn growth_and_depth_are_bounded() {
        let mut env = env();
        env.insert("B".into(), "x".repeat(600_000));
        let kind = |word: &str| Expander::new('\\').word(word, &env).unwrap_err().kind;
        assert_eq!(kind("$B$B$B"), ExpandErrorKind::TooLong);
        assert_eq!(kind("\"$B$B$B\""), ExpandErrorKind::TooLong);
        assert_eq!(kind("${B//x/xxxxx}"), ExpandErrorKind::TooLong);
        assert_eq!(kind(&format!("{}{}", "${U:-".repeat(100), "}".repeat(100))), ExpandErrorKind::TooDeep);
    }
}
