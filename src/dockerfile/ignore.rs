//! Which files of a context the Dockerfile may not see: `.dockerignore`, and the pattern syntax that `--exclude` shares.
//!
//! Not gitignore. What a newcomer would get wrong: patterns are anchored at the context's root, the last match wins,
//! and a later `!dir/keep` brings a file back from inside an excluded directory, so a walk may have to enter what it
//! leaves out ([`Verdict::IgnoreButDescend`]).
//!
//! A pattern that matches a directory holds for all below. BuildKit walks down and hands each pattern's result to the
//! children; a pattern that was not tried at the directory (because it could not have changed the outcome there) is
//! tried at the child itself only. [`IgnoreRules::is_ignored`] does the same walk over a path's parents.

mod glob;
mod pattern;
mod regex;

pub use glob::{BadPattern, Glob, has_wildcard, path_match};
pub use pattern::clean;

use super::limits::{Limit, MAX_PATTERN_BYTES};
use pattern::Pattern;

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A `!` with nothing after it.
    #[error("ignore pattern in line {line}: `!` alone excludes nothing")]
    LoneNegation {
        /// Its line in the ignore file, from 1.
        line: usize,
    },
    /// A pattern with an unclosed `[`, a `\` at its end, and the like.
    #[error("ignore pattern `{pattern}` in line {line}")]
    BadPattern {
        /// Its line in the ignore file, from 1.
        line: usize,
        /// The pattern as written.
        pattern: String,
        /// What is wrong.
        source: BadPattern,
    },
    /// A pattern that would take too long to match.
    #[error("ignore pattern in line {line}: {limit}")]
    TooLong {
        /// Its line in the ignore file, from 1.
        line: usize,
        /// The limit that it is over.
        limit: Limit,
    },
}

/// What a walk does with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The entry is part of the context.
    Keep,
    /// Neither the entry nor anything below it is.
    Ignore,
    /// The directory is not, but a later `!` pattern may bring something below it back.
    IgnoreButDescend,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    pattern: Pattern,
    negated: bool,
    line: usize,
}

/// Ordered patterns, compiled once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

/// What a directory's patterns gave, to be handed to its entries; see [`IgnoreRules::enter`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trail(Option<Vec<bool>>);

impl IgnoreRules {
    /// Parses the text of an ignore file. Comments (`#` in column 0) and empty lines count as lines, not as rules.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for (line, pattern) in file_patterns(text) {
            rules.extend(rule(&pattern, line)?);
        }
        Ok(Self { rules })
    }

    /// Compiles patterns that come one by one (`--exclude`); an error's line is the pattern's number, from 1.
    pub fn from_patterns<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for (i, pattern) in patterns.into_iter().enumerate() {
            rules.extend(rule(pattern.as_ref(), i + 1)?);
        }
        Ok(Self { rules })
    }

    /// Tells whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells whether any pattern begins with `!`.
    pub fn has_negations(&self) -> bool {
        self.rules.iter().any(|r| r.negated)
    }

    /// Tells whether some pattern excludes everything at the root: `*`, `**`, `**/*`.
    pub fn excludes_all(&self) -> bool {
        self.rules.iter().any(|r| !r.negated && matches!(r.pattern.text(), "*" | "**" | "**/*"))
    }

    /// Tells whether a path (relative to the root, `/` between names, bytes as on disk) is left out.
    pub fn is_ignored(&self, path: impl AsRef<[u8]>) -> bool {
        self.decide(path.as_ref()).is_some_and(|rule| !rule.negated)
    }

    /// Returns the line of the pattern that decided over a path, when that left the path out.
    pub fn matching_line(&self, path: impl AsRef<[u8]>) -> Option<usize> {
        self.decide(path.as_ref()).filter(|rule| !rule.negated).map(|rule| rule.line)
    }

    /// Tells what a walk does with an entry. For many entries of one directory [`Self::enter`] is quicker.
    pub fn verdict(&self, path: impl AsRef<[u8]>, is_dir: bool) -> Verdict {
        let path = path.as_ref();
        self.conclude(&String::from_utf8_lossy(path), is_dir, self.is_ignored(path))
    }

    /// Tells what a walk does with an entry, from the result of its directory (the root's: `Trail::default()`),
    /// and returns what to hand to the entry's own children.
    pub fn enter(&self, parent: &Trail, path: impl AsRef<[u8]>, is_dir: bool) -> (Verdict, Trail) {
        let path = String::from_utf8_lossy(path.as_ref());
        let (decider, trail) = self.step(parent, &path);
        (self.conclude(&path, is_dir, decider.is_some_and(|r| !r.negated)), trail)
    }

    /// Tells whether a path or one of its parents matches, each pattern asked of all parents: patternmatcher's
    /// `MatchesOrParentMatches`, which BuildKit uses for paths that it meets outside of a walk.
    pub fn matches_or_parent_matches(&self, path: &str) -> bool {
        let mut matched = false;
        for rule in &self.rules {
            if rule.negated == matched && (rule.pattern.is_match(path) || parents(path).any(|p| rule.pattern.is_match(p))) {
                matched = !rule.negated;
            }
        }
        matched
    }

    fn conclude(&self, path: &str, is_dir: bool, ignored: bool) -> Verdict {
        match (ignored, is_dir) {
            (false, _) => Verdict::Keep,
            (true, true) if self.rules.iter().any(|r| r.negated) && self.may_keep_below(path) => Verdict::IgnoreButDescend,
            (true, _) => Verdict::Ignore,
        }
    }

    /// Tells whether some `!` pattern could match below `dir`. Errs on the side of descending.
    fn may_keep_below(&self, dir: &str) -> bool {
        self.rules.iter().filter(|r| r.negated).any(|r| {
            let text = r.pattern.text();
            let literal = text.find(['*', '?', '[', '\\', '^']).map_or(text, |i| &text[..i]);
            let below = format!("{dir}/");
            // A pattern that names the directory itself or a parent already had its say; below it can name nothing new
            // unless its literal start leads into the directory.
            if literal.len() == text.len() { text.starts_with(&below) } else { literal.starts_with(&below) || below.starts_with(literal) }
        })
    }

    /// Walks down to a path and returns the rule that decided last.
    fn decide(&self, path: &[u8]) -> Option<&Rule> {
        let path = String::from_utf8_lossy(path);
        let mut trail = Trail::default();
        for parent in parents(&path) {
            trail = self.step(&trail, parent).1;
        }
        self.step(&trail, &path).0
    }

    /// Applies all rules to one path. Returns the rule that decided, and each rule's result for the children.
    fn step(&self, parent: &Trail, path: &str) -> (Option<&Rule>, Trail) {
        let mut decider: Option<&Rule> = None;
        let mut results = vec![false; self.rules.len()];
        for (i, rule) in self.rules.iter().enumerate() {
            let inherited = parent.0.as_ref().is_some_and(|p| p[i]);
            // A rule that could not change the outcome is not tried, and counts as no match for the children.
            let matched = decider.is_some_and(|d| !d.negated);
            results[i] = inherited || (rule.negated == matched && rule.pattern.is_match(path));
            if results[i] {
                decider = Some(rule);
            }
        }
        (decider, Trail(Some(results)))
    }
}

/// Returns `a`, `a/b` for `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(i, _)| &path[..i]).filter(|p| !p.is_empty())
}

/// Compiles one pattern; none: it is blank.
fn rule(written: &str, line: usize) -> Result<Option<Rule>, IgnoreError> {
    let trimmed = written.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    if trimmed.len() > MAX_PATTERN_BYTES {
        return Err(IgnoreError::TooLong { line, limit: Limit::PatternBytes });
    }
    let cleaned = clean(trimmed);
    let (negated, text) = match cleaned.strip_prefix('!') {
        Some("") => return Err(IgnoreError::LoneNegation { line }),
        Some(rest) => (true, rest.to_string()),
        None => (false, cleaned),
    };
    let pattern = Pattern::parse(text).map_err(|source| IgnoreError::BadPattern { line, pattern: trimmed.to_string(), source })?;
    Ok(Some(Rule { pattern, negated, line }))
}

/// Returns the patterns of an ignore file as moby's `ignorefile` reads them, each with its line from 1.
pub fn file_patterns(text: &str) -> Vec<(usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut out = Vec::new();
    for (i, line) in text.split('\n').enumerate() {
        let pattern = line.trim();
        if line.starts_with('#') || pattern.is_empty() {
            continue;
        }
        let (mark, body) = pattern.strip_prefix('!').map_or(("", pattern), |rest| ("!", rest.trim()));
        let body = if body.is_empty() { String::new() } else { clean(body) };
        let body = if body.len() > 1 { body.strip_prefix('/').unwrap_or(&body) } else { &body };
        out.push((i + 1, format!("{mark}{body}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_wins() {
        let rules = IgnoreRules::parse("# c\n*\n\n!src\nsrc/*.tmp\n!src/keep.tmp\n").unwrap();
        for (path, ignored, line) in [
            ("README", true, Some(2)),
            ("src", false, None),
            ("src/a.c", false, None),
            ("src/a.tmp", true, Some(5)),
            ("src/keep.tmp", false, None),
            ("src/deep/a.tmp", false, None),
            ("target/src", true, Some(2)),
        ] {
            assert_eq!((rules.is_ignored(path), rules.matching_line(path)), (ignored, line), "{path}");
        }
    }

    #[test]
    fn a_walk_enters_excluded_directories_only_for_a_reason() {
        let rules = IgnoreRules::parse("node_modules\n!node_modules/keep/me\nbuild\n**/tmp\n").unwrap();
        for (path, want) in [
            ("node_modules", Verdict::IgnoreButDescend),
            ("node_modules/keep", Verdict::IgnoreButDescend),
            ("node_modules/keep/me", Verdict::Keep),
            ("node_modules/other", Verdict::Ignore),
            ("build", Verdict::Ignore),
            ("x/tmp", Verdict::Ignore),
            ("x", Verdict::Keep),
        ] {
            assert_eq!(rules.verdict(path, true), want, "{path}");
        }
        let wild = IgnoreRules::parse("a\n!**/*.md\n").unwrap();
        assert_eq!(wild.verdict("a", true), Verdict::IgnoreButDescend);
        assert_eq!(wild.verdict("a/b", true), Verdict::IgnoreButDescend);
        assert_eq!(wild.verdict("a/b/x.md", false), Verdict::Keep);
    }

    #[test]
    fn entering_step_by_step_gives_the_same() {
        let rules = IgnoreRules::parse("a/b\n!a\nc").unwrap();
        let (_, trail) = rules.enter(&Trail::default(), "a", true);
        let (verdict, _) = rules.enter(&trail, "a/b", false);
        assert_eq!(verdict, rules.verdict("a/b", false));
        // `!a` was not tried at `a` (nothing was excluded yet), so it does not reach `a/b`.
        assert_eq!(verdict, Verdict::Ignore);
        assert!(!rules.matches_or_parent_matches("a/b"));
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(IgnoreRules::parse("a\n!\n"), Err(IgnoreError::LoneNegation { line: 2 }));
        let bad = IgnoreRules::parse("\n[a\n").unwrap_err();
        assert_eq!(bad.to_string(), "ignore pattern `[a` in line 2");
        let long = IgnoreRules::parse(&format!("a\n{}", "**/".repeat(MAX_PATTERN_BYTES / 3 + 1)));
        assert_eq!(long, Err(IgnoreError::TooLong { line: 2, limit: Limit::PatternBytes }));
        assert_eq!(long.unwrap_err().to_string(), "ignore pattern in line 2: the pattern is longer than 16384 bytes (limit pattern-bytes)");
    }

    #[test]
    fn bytes_that_are_no_text_are_paths_too() {
        assert!(IgnoreRules::parse("*.o").unwrap().is_ignored(b"\xff\xfe.o"));
    }
}
