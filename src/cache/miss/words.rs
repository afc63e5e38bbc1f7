//! The words of reasons: the one place where they become text.
//!
//! Pure. A new difference gets its words here and nowhere else; progress, `ply explain` and build logs use them alike.

use std::fmt;

use super::super::files::{FileChange, XattrChange};
use super::super::key::SourceKind;
use super::{Cause, Difference, Place, Reason};
use crate::digest::Digest;

impl fmt::Display for Reason {
    /// Words the first difference; the others are for `ply explain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstBuild => f.write_str("first build of this step"),
            Self::NoCache => f.write_str("--no-cache"),
            Self::ResultGone => f.write_str("the result of the earlier build is not kept any more"),
            Self::Changed(causes) => match causes.first() {
                Some(first) => first.fmt(f),
                None => f.write_str("its inputs changed"),
            },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.difference.fmt(f)?;
        match &self.place {
            None => Ok(()),
            Some(place) if place.was => write!(f, ", was {place}"),
            Some(place) => write!(f, ", {place}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = |f: &mut fmt::Formatter<'_>, what: &str, old: Option<&str>, new: Option<&str>| {
            let (old, new) = quoted(old, new, "unset");
            write!(f, "{what} changed ({old} -> {new})")
        };
        match self {
            Self::Instruction { old, new } => write!(f, "instruction changed ({old} -> {new})"),
            Self::Command { old, new } => {
                let n = old.iter().zip(new).take_while(|(o, n)| o == n).count();
                let (old, new) = quoted(old.get(n).map(String::as_str), new.get(n).map(String::as_str), "nothing");
                write!(f, "command changed ({old} -> {new})")
            }
            Self::Variable { name, old, new } => changed(f, &format!("env {name}"), old.as_deref(), new.as_deref()),
            Self::Value { what, old, new } => changed(f, what, old.as_deref(), new.as_deref()),
            Self::EnvOrder => f.write_str("order of the environment changed"),
            Self::File { path, change, more, rule } => {
                write!(f, "file {path} {change}")?;
                match (rule, change) {
                    (Some(rule), FileChange::Added) => write!(f, ": no longer ignored by `{rule}`")?,
                    (Some(rule), _) => write!(f, ": now ignored by `{rule}`")?,
                    (None, _) => {}
                }
                match more {
                    0 => Ok(()),
                    n => write!(f, ", and {n} more"),
                }
            }
            Self::Source { source, kind: SourceKind::Path } => write!(f, "content of {source} changed"),
            Self::Source { source, kind: SourceKind::Http } => write!(f, "{source} now answers other content"),
            Self::Source { source, kind: SourceKind::Git } => write!(f, "{source} is now another commit"),
            Self::Source { source, kind } => write!(f, "{}{source} changed", source_word(*kind)),
            Self::Step { name, rebuilt: true } => write!(f, "{name} was rebuilt and its result differs"),
            Self::Step { name, rebuilt: false } => write!(f, "{name} has another result, from the cache"),
            Self::NewStep(name) => write!(f, "{name} is new"),
            Self::GoneStep(title) => write!(f, "a step before it is gone ({title})"),
            Self::Base { name, old, new } => {
                let short = |d: &Option<Digest>| d.map_or_else(|| "none".to_string(), |d| format!("sha256:{}", &d.hex()[..12]));
                match (old, new) {
                    (Some(_), _) => write!(f, "base image changed ({name}, {} -> {})", short(old), short(new)),
                    (None, _) => write!(f, "base image changed ({name})"),
                }
            }
            Self::Below(name) => write!(f, "what it stands on changed ({name} or below)"),
        }
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("added"),
            Self::Removed => f.write_str("removed"),
            Self::Type { old, new } => write!(f, "changed (type {old} -> {new})"),
            Self::Content => f.write_str("changed (content)"),
            Self::Link { old, new } => write!(f, "changed (link target {old} -> {new})"),
            Self::Xattr { name, change } => {
                let word = match change {
                    XattrChange::Added => "added",
                    XattrChange::Removed => "removed",
                    XattrChange::Value => "value",
                };
                write!(f, "changed (attribute {name} {word})")
            }
            Self::Mode { old, new } => write!(f, "changed (mode {old:04o} -> {new:04o})"),
            Self::Owner { old, new } => write!(f, "changed (owner {}:{} -> {}:{})", old.0, old.1, new.0, new.1),
            Self::HardLink => f.write_str("changed (hard link)"),
            Self::Implied => f.write_str("changed (whether the directory itself is copied)"),
        }
    }
}

/// Quotes two values; long ones are cut to where they differ.
pub(super) fn quoted(old: Option<&str>, new: Option<&str>, none: &str) -> (String, String) {
    const SHOWN: usize = 48;
    const BEFORE: usize = 12;
    let same = match (old, new) {
        (Some(old), Some(new)) => old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count(),
        _ => 0,
    };
    let long = [old, new].into_iter().flatten().any(|s| s.chars().count() > SHOWN);
    let skipped = if long { same.saturating_sub(BEFORE) } else { 0 };
    let quote = |value: Option<&str>| {
        let Some(value) = value else { return none.to_string() };
        let mut text: String = value.chars().skip(skipped).take(SHOWN).collect();
        if skipped > 0 {
            text.insert(0, '…');
        }
        if value.chars().count() > skipped + SHOWN {
            text.push('…');
        }
        format!("{text:?}")
    };
    (quote(old), quote(new))
}

pub(super) fn source_word(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Path => "",
        SourceKind::Inline => "heredoc ",
        SourceKind::Http => "remote file ",
        SourceKind::Git => "repository ",
    }
}
