//! The words of reasons: the one place where they become text.
//!
//! Pure. A new difference gets its words here and nowhere else; progress, `ply explain` and build logs use them alike.

use std::fmt;

use super::super::files::FileChange;
use super::super::key::SourceKind;
use super::{Difference, Reason};

impl fmt::Display for Reason {
    /// Words the first difference; the others are for `ply explain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstBuild => f.write_str("first build of this step"),
            Self::NoCache => f.write_str("--no-cache"),
            Self::ResultGone => f.write_str("the result of the earlier build is not kept any more"),
            Self::Changed(differences) => match differences.first() {
                Some(first) => first.fmt(f),
                None => f.write_str("its inputs changed"),
            },
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instruction(old, new) => write!(f, "instruction changed ({old} -> {new})"),
            Self::Command(old, new) => {
                let n = old.iter().zip(new).take_while(|(o, n)| o == n).count();
                let (old, new) = quoted(old.get(n).map(String::as_str), new.get(n).map(String::as_str), "nothing");
                write!(f, "command changed ({old} -> {new})")
            }
            Self::Value { what, old, new } => {
                let (old, new) = quoted(old.as_deref(), new.as_deref(), "unset");
                write!(f, "{what} changed ({old} -> {new})")
            }
            Self::EnvOrder => f.write_str("order of the environment changed"),
            Self::File { path, change, more } => {
                match change {
                    FileChange::Added => write!(f, "file {path} added")?,
                    FileChange::Removed => write!(f, "file {path} removed")?,
                    FileChange::Type => write!(f, "file {path} changed (type)")?,
                    FileChange::Content => write!(f, "file {path} changed (content)")?,
                    FileChange::Link => write!(f, "file {path} changed (link target)")?,
                    FileChange::Mode { old, new } => write!(f, "file {path} changed (mode {old:04o} -> {new:04o})")?,
                    FileChange::Owner { old, new } => {
                        write!(f, "file {path} changed (owner {}:{} -> {}:{})", old.0, old.1, new.0, new.1)?;
                    }
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
            Self::Step(name) => write!(f, "{name} was rebuilt and its result differs"),
            Self::Base(name) => write!(f, "base image changed ({name})"),
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
