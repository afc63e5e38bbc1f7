//! Layers between their forms: layer directory, tar, compressed blob.
//!
//! | file | does |
//! |---|---|
//! | `write` | change set → tar; a whole tree → tar |
//! | `digest` | change set → content digest and diff ID in one pass |
//! | `canonical` | what the content digest is made of |
//! | `apply`, `read` | hostile tar → layer directory (`unpack`), or → a tree (`extract`) |
//! | `whiteout`, `header` | `.wh.` names; tar headers |
//! | `compress`, `decompress` | gzip and zstd |
//!
//! A newcomer would unpack with `tar`'s own `unpack`: it trusts names, links and sizes. Here every path is
//! resolved inside a [`Root`](crate::path::Root), and nothing in an archive makes us allocate what it says.

mod apply;
mod canonical;
pub mod compress;
mod decompress;
mod digest;
mod flatten;
mod header;
mod pipeline;
mod read;
pub mod whiteout;
mod write;

use std::io;

use crate::path::PathError;

pub use apply::{Below, ExtractOptions, Extracted, Limits, UnpackOptions, Unpacked, extract, unpack};
pub use decompress::{Codec, decompress, sniff};
pub use digest::{LayerDigests, content_digest, digest, write_and_digest, write_files_and_digest};
pub use flatten::{Placed, flatten};
pub use read::{EntryKind, TarEntry, TarReader};
pub use write::{DirectoryFiles, FileBytes, write_tar};

/// Why a layer could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Something below the root.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The archive's bytes could not be read: also a broken compression.
    #[error("reading the archive")]
    Read {
        /// The cause.
        source: io::Error,
    },
    /// The archive's bytes could not be written.
    #[error("writing the archive")]
    Write {
        /// The cause.
        source: io::Error,
    },
    /// A file's bytes.
    #[error("reading `{path}`")]
    File {
        /// The path in the layer.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A file that is shorter than it was.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// The path in the layer.
        path: String,
    },
    /// No tar, or a damaged one.
    #[error("malformed archive at byte {offset}: {what}")]
    Malformed {
        /// Where the header begins.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An archive that ends in the middle.
    #[error("the archive ends within `{path}`")]
    Truncated {
        /// The entry.
        path: String,
    },
    /// An entry that can't be made.
    #[error("archive entry `{path}`: {what}")]
    Entry {
        /// The entry.
        path: String,
        /// Why.
        what: &'static str,
    },
    /// Two trees of one archive that have different files under one name.
    #[error("`{path}` is a file of several of the trees that go to one directory")]
    Overlap {
        /// The path in the archive.
        path: String,
    },
    /// A whiteout of nothing, of `.` or of `..`.
    #[error("archive entry `{path}` is a whiteout of no name")]
    Whiteout {
        /// The entry.
        path: String,
    },
    /// More than the caller allows.
    #[error("the archive holds more than {limit} {unit}")]
    TooLarge {
        /// The most that was allowed.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The layer speaks of files of the layers below, which were not given: unpack it again with [`Below::Tree`].
    #[error("`{path}` refers to a file of a lower layer")]
    NeedsBelow {
        /// The entry.
        path: String,
    },
}

/// What this module's functions return.
pub type Result<T> = std::result::Result<T, LayerError>;

/// The size of an empty layer's tar: two empty blocks.
pub const EMPTY_TAR_BYTES: u64 = 1024;

#[cfg(test)]
mod tests;
