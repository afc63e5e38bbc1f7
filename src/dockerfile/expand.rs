//! Word expansion: `$v`, `${v:-w}`, `${v#p}`, `${v/p/r}`, quotes and escapes, as BuildKit's shell lexer does it.
//!
//! Not a shell: RUN's text never comes here. What a newcomer would get wrong: removing quotes and expanding is one
//! pass, so that `'$B'` stays `$B`; and everything that one instruction says is expanded in the environment *before* it,
//! which is the caller's to hold.
//!
//! One known difference: in `${v//p/r}` BuildKit takes `$1` in `r` for a regular expression's template; here it is text.
//!
//! How much words may become is limited ([`super::limits`]): each by itself, and all that share a [`Budget`] together.

mod lexer;
mod pattern;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::limits::{Limit, MAX_EXPANSION_TOTAL_BYTES};
use lexer::Lexer;

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
    /// The word as written (its start, when it is long; of several lines the one that is wrong).
    pub word: String,
    /// The line of the word that is wrong, from 0: heredoc bodies have several.
    pub line: usize,
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
    /// It asks for too much.
    #[error("{0}")]
    Limit(Limit),
}

impl ExpandErrorKind {
    /// Returns what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::UnclosedQuote(_) => "close the quote; one that is meant as a character is written `\\\"` or `\\'`".into(),
            Self::MissingBrace => "close it: `${NAME}`; a `$` that is meant as a character is written `\\$`".into(),
            Self::MissingSlash => "write `${NAME/pattern/replacement}`".into(),
            Self::BadSubstitution => "write `${NAME}`; a `$` that is meant as a character is written `\\$`".into(),
            Self::UnsupportedModifier(_) => {
                "known are `:-` `-` `:+` `+` `:?` `?` (defaults), `#` `##` `%` `%%` (cut off) and `/` `//` (replace)".into()
            }
            Self::Required { name, .. } => format!("give it with --build-arg {name}=VALUE, if an ARG declares it"),
            Self::BadPattern { .. } => "only `*`, `?`, `\\` and what closes the pattern may follow a `\\`".into(),
            Self::Limit(Limit::ExpansionDepth) => "set an ARG or ENV to the inner one, and use that".into(),
            Self::Limit(_) => "such a text belongs into a file: COPY it".into(),
        }
    }
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

/// What is left of [`MAX_EXPANSION_TOTAL_BYTES`]; clones spend from the same.
#[derive(Debug, Clone)]
struct Budget(Rc<Cell<usize>>);

impl Budget {
    fn full() -> Self {
        Self(Rc::new(Cell::new(MAX_EXPANSION_TOTAL_BYTES)))
    }

    fn spend(&self, bytes: usize) -> Result<(), ExpandErrorKind> {
        let left = self.0.get().checked_sub(bytes);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(ExpandErrorKind::Limit(Limit::ExpansionTotal))
    }
}

/// How words are read.
#[derive(Debug, Clone)]
pub struct Expander {
    escape: char,
    quotes: Quotes,
    keep_unset: bool,
    budget: Budget,
}

impl Expander {
    /// Reads words of instructions; `escape` is the file's `# escape=`. What it may expand in all is limited.
    pub fn new(escape: char) -> Self {
        Self { escape, quotes: Quotes::Remove, keep_unset: false, budget: Budget::full() }
    }
    /// Reads heredocs' bodies instead: quotes are text, and the escape is always `\`. The budget stays shared.
    pub fn for_bodies(&self) -> Self {
        Self { escape: '\\', quotes: Quotes::Ignore, keep_unset: false, budget: self.budget.clone() }
    }
    /// Reads a RUN for showing it to people instead: quotes and variables without a value stay. The budget stays shared.
    pub fn for_display(&self) -> Self {
        Self { quotes: Quotes::Keep, keep_unset: true, ..self.clone() }
    }

    /// Expands a word.
    pub fn word(&self, word: &str, env: &dyn Env) -> Result<Expansion, ExpandError> {
        let mut lexer = Lexer::new(self, word, env, false);
        let text = lexer.whole().map_err(|kind| failed(word, lexer.line(), kind))?.0;
        Ok(Expansion { text, matched: lexer.matched, unmatched: lexer.unmatched })
    }

    /// Expands a word and splits the result at white space that was not quoted: EXPOSE.
    pub fn words(&self, word: &str, env: &dyn Env) -> Result<Vec<String>, ExpandError> {
        let mut lexer = Lexer::new(self, word, env, true);
        Ok(lexer.whole().map_err(|kind| failed(word, lexer.line(), kind))?.1)
    }
}

fn failed(word: &str, line: usize, kind: ExpandErrorKind) -> ExpandError {
    let shown = word.split('\n').nth(line).unwrap_or(word);
    ExpandError { word: shown.chars().take(200).collect(), line, kind }
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
            assert_eq!(
                Expander::new('\\').word(word, &env()).unwrap_err(),
                ExpandError { word: word.into(), line: 0, kind: want },
                "{word}"
            );
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
        assert_eq!(Expander::new('`').for_bodies().word("\"$V\" '$V' \\$V", &env()).unwrap().text, "\"value\" 'value' $V");
        assert_eq!(Expander::new('\\').for_display().word("\"$V\" $U ${U:-x}", &env()).unwrap().text, "\"value\" $U ${U:-x}");
    }

    #[test]
    fn growth_and_depth_are_bounded() {
        let mut env = env();
        env.insert("B".into(), "x".repeat(600_000));
        let kind = |word: &str| Expander::new('\\').word(word, &env).unwrap_err().kind;
        for word in ["$B$B$B", "\"$B$B$B\"", "${B//x/xxxxx}", "${B:+$B$B$B}", "${U:-$B$B}"] {
            assert_eq!(kind(word), ExpandErrorKind::Limit(Limit::ExpansionBytes), "{word}");
        }
        assert_eq!(kind(&format!("{}{}", "${U:-".repeat(100), "}".repeat(100))), ExpandErrorKind::Limit(Limit::ExpansionDepth));
    }

    #[test]
    fn what_all_words_of_a_file_cost_together_is_bounded() {
        let mut env = env();
        env.insert("B".into(), "x".repeat(1 << 20));
        env.insert("P".into(), "?".repeat(1 << 19));
        // Each of these reads or makes much, whatever is left of it at the end.
        for word in ["$B", "${B:+}", "${B#x}", "${B%%*y}", "${B//x/y}", "${U:-${U:-$B}}", "\"$B\""] {
            let expander = Expander::new('\\');
            let mut outcomes = (0..1000).map(|_| expander.word(word, &env).map(|_| ()));
            let error = outcomes.find_map(Result::err).unwrap_or_else(|| panic!("{word} is free"));
            assert_eq!(error.kind, ExpandErrorKind::Limit(Limit::ExpansionTotal), "{word}");
            assert_eq!(expander.for_display().word("$V$V", &env).map_err(|e| e.kind), Err(error.kind.clone()), "{word}: shared");
        }
        // A pattern as long as the value: a million times a million steps.
        for word in ["${B#$P}", "${B%%$P}", "${B/$P/}", "${B//$P/}"] {
            assert_eq!(Expander::new('\\').word(word, &env).unwrap_err().kind, ExpandErrorKind::Limit(Limit::ExpansionTotal), "{word}");
        }
    }
}
