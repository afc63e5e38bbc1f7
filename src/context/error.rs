//! What can go wrong with a build context; no text here quotes the content of a file.

use std::path::PathBuf;

use crate::layer::LayerError;
use crate::path::{PathError, printable};

use super::resolve::ResolveError;

/// Why a context, or a path in a tree, can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A source that must exist doesn't.
    #[error("`{path}` not found in {tree}")]
    NotFound {
        /// As written, or as matched.
        path: String,
        /// What the tree is called.
        tree: String,
        /// The rule that hides it: the ignore file's name and line.
        ignored_by: Option<IgnoredBy>,
        /// What is there and has nearly this name.
        near: Option<Box<str>>,
    },
    /// A source is a link to something that isn't there.
    #[error("`{path}` is a link to `/{target}`, not found in {tree}")]
    Dangling {
        /// The link, as written or matched.
        path: String,
        /// Where it leads, in the tree.
        target: String,
        /// What the tree is called.
        tree: String,
        /// The rule that hides the target.
        ignored_by: Option<IgnoredBy>,
    },
    /// A path can't be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The system refused.
    #[error("{action} `{path}`")]
    Io {
        /// `reading`, `opening`, ...
        action: &'static str,
        /// From the tree's root, or on the host.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A path can't be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file kept changing while it was read.
    #[error("`{path}` was changed while it was being read")]
    Changed {
        /// From the tree's root.
        path: String,
    },
    /// The work was asked to end; see [`SourceTree::until`](super::SourceTree::until).
    #[error("interrupted")]
    Interrupted,
    /// Directories are nested beyond reason.
    #[error("`{path}` lies more than {limit} directories deep")]
    TooDeep {
        /// From the tree's root.
        path: String,
        /// How deep is allowed.
        limit: usize,
    },
    /// The context isn't a directory.
    #[error("the build context `{}` is not a directory", .path.display())]
    NotDirectory {
        /// As given.
        path: PathBuf,
    },
    /// No Dockerfile.
    #[error("no Dockerfile at `{path}`")]
    NoDockerfile {
        /// Where it was looked for.
        path: String,
    },
    /// The Dockerfile or ignore file is of no use.
    #[error("`{path}` {problem}")]
    BadFile {
        /// As given.
        path: String,
        /// What is wrong with it, without its content.
        problem: &'static str,
    },
    /// The ignore file has a pattern that is none.
    #[error("in `{file}`")]
    Ignore {
        /// The ignore file.
        file: String,
        /// The pattern and its line.
        source: crate::dockerfile::ignore::IgnoreError,
    },
    /// An `--exclude` or `--parents` pattern is none.
    #[error("in the pattern `{pattern}`")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong.
        source: crate::dockerfile::ignore::IgnoreError,
    },
    /// An archive can't be unpacked.
    #[error("unpacking {archive}")]
    Unpack {
        /// What archive.
        archive: String,
        /// Why.
        source: LayerError,
    },
}

/// The ignore rule that hides a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredBy {
    /// The ignore file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

/// Why a step's sources can't be read, and which of them.
#[derive(Debug, thiserror::Error)]
#[error("reading source number {}", .index + 1)]
pub struct SelectError {
    /// The index of the source among the step's sources.
    pub index: usize,
    /// What is wrong.
    #[source]
    pub cause: ContextError,
}

impl ContextError {
    pub(super) fn io(action: &'static str, path: &[u8], source: impl Into<std::io::Error>) -> Self {
        Self::Io { action, path: printable(path), source: source.into() }
    }

    /// Names the path that an error of the layer below couldn't know.
    pub(super) fn path(path: &[u8], error: PathError) -> Self {
        match error {
            PathError::Io { doing, source, .. } => Self::io(doing, path, source),
            other => Self::Path(other),
        }
    }

    /// Returns advice for the user, when there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { path, ignored_by: Some(by), .. } => Some(format!("`{path}` is excluded by {} line {}", by.file, by.line)),
            Self::Dangling { target, ignored_by: Some(by), .. } => Some(format!("`{target}` is excluded by {} line {}", by.file, by.line)),
            Self::NotFound { near: Some(near), .. } => Some(format!("did you mean `{near}`?")),
            Self::NotFound { tree, .. } => Some(format!("paths are seen from the root of {tree}")),
            Self::Dangling { tree, .. } => Some(format!("links are followed inside {tree} only")),
            _ => None,
        }
    }
}
