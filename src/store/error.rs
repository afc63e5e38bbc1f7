//! What can go wrong in the store, by what a reader could do about it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::digest::{Digest, LayerId};
use crate::path::PathError;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum StoreError {
    #[error("{doing} {path:?}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("removing {path:?}")]
    Remove { path: PathBuf, source: PathError },
    #[error("walking through {path:?}")]
    Walk { path: PathBuf, source: PathError },
    #[error("{path:?} is no store of Plywood: it is not empty and holds {found:?}")]
    NotAStore { path: PathBuf, found: OsString },
    #[error("the store {path:?} has another format: it says `{found}`, this program knows `plywood store 1`")]
    OtherFormat { path: PathBuf, found: String },
    #[error("the store {path:?} belongs to user {owner}, not to user {me}: each user has a store of their own")]
    OtherOwner { path: PathBuf, owner: u32, me: u32 },
    #[error("{doing} in the store's index")]
    Index { doing: &'static str, source: rusqlite::Error },
    #[error("the store's index holds a {what} that can't be read: `{value}`")]
    BadRow { what: &'static str, value: String },
    #[error("the content of {expected} has another digest: {found}")]
    DigestMismatch { expected: Digest, found: Digest },
    #[error("the content of {digest} has {found} bytes, not {expected}")]
    SizeMismatch { digest: Digest, expected: u64, found: u64 },
    #[error("{digest} has {size_bytes} bytes, more than the {limit_bytes} allowed here")]
    TooBig { digest: Digest, size_bytes: u64, limit_bytes: u64 },
    #[error("the blob {0} is not in the store")]
    NoBlob(Digest),
    #[error("the layer {0} is not in the store")]
    NoLayer(LayerId),
    #[error("no image `{0}` in the store")]
    NoImage(String),
    #[error("`{prefix}` is the beginning of {count} image ids")]
    Ambiguous { prefix: String, count: usize },
    #[error("an earlier write to the store failed: {0}")]
    Earlier(String),
}

/// What SQLite says of the file system beneath the index. It keeps the kernel's answer to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexTrouble {
    /// There is no space left.
    Full,
    /// A call failed: it could have been any error, also a full disk.
    Unknown,
}

impl IndexTrouble {
    /// Returns what is wrong with the file system, if this very error is the index's and comes from there.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        match error.downcast_ref::<rusqlite::Error>()?.sqlite_error_code()? {
            ErrorCode::DiskFull => Some(Self::Full),
            // It takes a log that can't be made for a sign that the file is to be read only.
            ErrorCode::ReadOnly | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Some(Self::Unknown),
            _ => None,
        }
    }
}

impl StoreError {
    /// Returns the same error for somebody else.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Io { doing, path, source } => {
                let source = source.raw_os_error().map_or_else(|| io::Error::other(source.to_string()), io::Error::from_raw_os_error);
                Self::Io { doing, path: path.clone(), source }
            }
            Self::Index { doing, source: rusqlite::Error::SqliteFailure(code, text) } => {
                Self::Index { doing, source: rusqlite::Error::SqliteFailure(*code, text.clone()) }
            }
            other => Self::Earlier(other.to_string()),
        }
    }

    /// Returns a function that gives an I/O error its subject.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    /// As [`StoreError::io`], for `rustix`'s error type.
    pub(crate) fn os(doing: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source: source.into() }
    }

    pub(crate) fn index(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Index { doing, source }
    }
}
