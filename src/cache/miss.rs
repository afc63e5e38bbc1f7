//! Why a step was not in the cache: a value, found by comparing inputs, worded in one place ([`words`]).
//!
//! Pure. The comparison ([`compare`]) tells *all* differences, in the order in which a reader wants them: what stands in
//! the Dockerfile before what came from elsewhere, and the state below last, since it changes with everything above. What
//! of the state below changed first is found by [`below`].
//!
//! What a newcomer gets wrong: that a step stands on another state does not say that the step below it was rebuilt. The
//! base may be another one, or a step may have been put in or taken out.

pub mod below;

mod compare;
mod words;

use serde::{Deserialize, Serialize};

use super::files::{FileChange, FileList};
use super::key::SourceKind;
use super::record::Slot;
use crate::digest::{ContentDigest, Digest};

pub use compare::differences;

/// Why a step has to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing is known of this place.
    FirstBuild,
    /// `--no-cache`, or `--no-cache-filter` for this stage.
    NoCache,
    /// The inputs are those of the last build, but its result is not kept any more.
    ResultGone,
    /// These inputs differ from the last build's; at least one. The first is what to look at first.
    Changed(Vec<Cause>),
}

/// One input that differs, and where that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What differs.
    pub difference: Difference,
    /// Where it was written, when that is not the step's own instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

impl From<Difference> for Cause {
    fn from(difference: Difference) -> Self {
        Self { difference, place: None }
    }
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, as people call it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// It stood there before, and does no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was: bool,
}

/// One input that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Another instruction stands here.
    Instruction {
        /// Its name before.
        old: String,
        /// Its name now.
        new: String,
    },
    /// The process's arguments.
    Command {
        /// Before.
        old: Vec<String>,
        /// Now.
        new: Vec<String>,
    },
    /// A variable of the process's environment, ARG or ENV; none: not set.
    Variable {
        /// Its name.
        name: String,
        /// Before.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
    /// Something else with a name (`user`, `--chown`, `mount /src mode`); none: not set.
    Value {
        /// Its name.
        what: String,
        /// Before.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
    /// The same variables in another order.
    EnvOrder,
    /// A file, by its path as far as it is known.
    File {
        /// Which.
        path: String,
        /// How.
        change: FileChange,
        /// How many of the same source differ besides this one.
        #[serde(default)]
        more: usize,
        /// The ignore rule by which it came or went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
    },
    /// A source as a whole: its files are not listed.
    Source {
        /// Its name as written.
        source: String,
        /// What it is.
        kind: SourceKind,
    },
    /// A step below has another result.
    Step {
        /// Which: `step 4`.
        name: String,
        /// It ran; else its result was in the cache.
        rebuilt: bool,
    },
    /// A step below was not there before.
    NewStep(String),
    /// A step that was below is no more there: its title.
    GoneStep(String),
    /// The base image's layers.
    Base {
        /// Its name now.
        name: String,
        /// The digest before, where it is known.
        old: Option<Digest>,
        /// The digest now; none: it has none.
        new: Option<Digest>,
    },
    /// The state below is another one, and no more is known: what the step stands on.
    Below(String),
}

impl Difference {
    /// Returns whether it is in what the step stands on.
    pub fn is_of_below(&self) -> bool {
        matches!(self, Self::Step { .. } | Self::NewStep(_) | Self::GoneStep(_) | Self::Base { .. } | Self::Below(_))
    }

    /// Returns what kind of thing differs, in one word: for statistics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Instruction { .. } => "instruction",
            Self::Command { .. } => "command",
            Self::Variable { .. } | Self::EnvOrder => "variable",
            Self::Value { what, .. } if what == PLATFORM => "platform",
            Self::Value { what, .. } if what == KEY_FORMAT => "key format",
            Self::Value { what, .. } if what.starts_with("mount ") => "mount",
            Self::Value { .. } => "setting",
            Self::File { rule: Some(_), .. } => "ignore rule",
            Self::File { .. } => "file",
            Self::Source { kind: SourceKind::Path, .. } => "file",
            Self::Source { kind: SourceKind::Inline, .. } => "heredoc",
            Self::Source { .. } => "remote source",
            Self::Step { .. } | Self::NewStep(_) | Self::GoneStep(_) | Self::Below(_) => "earlier step",
            Self::Base { .. } => "base image",
        }
    }
}

impl Reason {
    /// Returns its kind in one word: that of the first cause.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FirstBuild => "first build",
            Self::NoCache => "--no-cache",
            Self::ResultGone => "result gone",
            Self::Changed(causes) => causes.first().map_or("unknown", |c| c.difference.kind()),
        }
    }

    /// Returns what differs, the first cause first.
    pub fn causes(&self) -> &[Cause] {
        match self {
            Self::Changed(causes) => causes,
            _ => &[],
        }
    }
}

/// What a difference of platforms is called.
const PLATFORM: &str = "platform";
/// What a difference of the keys' formats is called.
const KEY_FORMAT: &str = "key format";

/// What a step stands on, as people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// A base image (`alpine:3.20`) and its digest, or `scratch`.
    Base(String, Option<Digest>),
    /// A step before it (`step 4`).
    Step(String),
}

/// Finds a tree's list of files; none: not kept.
pub type Lists<'a> = &'a dyn Fn(&ContentDigest) -> Option<FileList>;

/// Tells why `new` is not in the cache, by what was last built in its place.
pub fn explain(new: &Slot, old: Option<&Slot>, parent: &Parent, lists: Lists<'_>) -> Reason {
    let Some(old) = old else { return Reason::FirstBuild };
    let differences = differences(new, old, parent, lists);
    if differences.is_empty() { Reason::ResultGone } else { Reason::Changed(differences.into_iter().map(Cause::from).collect()) }
}

#[cfg(test)]
mod tests;
