//! One pattern of an ignore file, as moby's patternmatcher reads it.
//!
//! Not Go's `filepath.Match` (that only checks the syntax) and not gitignore: patterns are anchored at the root. What a
//! newcomer would get wrong: `**foo` matches every path that *ends* in `foo` (`xfoo` too), while `a/**foo` needs a `/`
//! before `foo`; both are patternmatcher's.

use super::glob::{BadPattern, Glob};
use super::regex::Program;

/// A compiled pattern without its `!`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Exact,
    /// The path starts with the pattern without its `**`.
    Prefix,
    /// The path ends with the pattern without its `**`.
    Suffix,
    Regex(Program),
}

impl Pattern {
    /// Compiles a cleaned pattern (see `clean`).
    pub(super) fn parse(text: String) -> Result<Self, BadPattern> {
        Glob::parse(&text)?;
        let kind = match translate(&text) {
            (Shape::Exact, _) => Kind::Exact,
            (Shape::Prefix, _) => Kind::Prefix,
            (Shape::Suffix, _) => Kind::Suffix,
            (Shape::Regex, expression) => Kind::Regex(Program::parse(&expression)?),
        };
        Ok(Self { text, kind })
    }

    /// Returns the pattern as it was compiled.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Tells whether this very path matches; its parents are not looked at.
    pub(super) fn is_match(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Exact => path == self.text,
            Kind::Prefix => path.starts_with(&self.text[..self.text.len() - 2]),
            Kind::Suffix => {
                let suffix = &self.text[2..];
                path.ends_with(suffix) || suffix.strip_prefix('/').is_some_and(|name| path == name)
            }
            Kind::Regex(program) => program.is_match(&path.chars().collect::<Vec<_>>()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

/// Returns how the pattern can be matched, and its regular expression.
fn translate(pattern: &str) -> (Shape, String) {
    let mut out = String::from("^");
    let mut shape = Shape::Exact;
    let mut rest = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                // `**/` is `**`: it may stand for no directory at all.
                rest.next_if_eq(&'/');
                let last = rest.peek().is_none();
                if last && shape == Shape::Exact {
                    shape = Shape::Prefix;
                } else {
                    out.push_str(if last { ".*" } else { "(.*/)?" });
                    shape = Shape::Regex;
                }
                if first {
                    shape = Shape::Suffix;
                }
            }
            '*' => {
                out.push_str("[^/]*");
                shape = Shape::Regex;
            }
            '?' => {
                out.push_str("[^/]");
                shape = Shape::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => out.extend(['\\', c]),
            '\\' => {
                out.push('\\');
                if let Some(next) = rest.next() {
                    out.push(next);
                    shape = Shape::Regex;
                }
            }
            '[' | ']' => {
                out.push(c);
                shape = Shape::Regex;
            }
            c => out.push(c),
        }
        first = false;
    }
    out.push('$');
    (shape, out)
}

/// Returns the shortest equal path, lexically, as Go's `path.Clean` does: no `.`, no `//`, `..` resolved where it can be.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_string(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, want) in [
            ("", "."),
            ("a//b/", "a/b"),
            ("./a/../b", "b"),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("/", "/"),
            ("a/..", "."),
            ("a/../..", ".."),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
    }

    #[test]
    fn double_stars() {
        for (pattern, path, want) in [
            ("**", "any/thing", true),
            ("a/**", "a/b", true),
            ("a/**", "a", false),
            ("**/foo", "foo", true),
            ("**/foo", "x/foo", true),
            ("**/foo", "xfoo", false),
            ("**foo", "xfoo", true),
            ("a/**foo", "a/xfoo", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("**/*.go", "x/y.go", true),
            ("**/foo/**", "x/foo/y", true),
        ] {
            assert_eq!(Pattern::parse(pattern.into()).unwrap().is_match(path), want, "{pattern} {path}");
        }
    }
}
