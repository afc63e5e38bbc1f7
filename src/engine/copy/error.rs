//! What can go wrong while a COPY, an ADD or a WORKDIR writes into a root.

use crate::context::ContextError;
use crate::image::users::UserError;
use crate::layer::LayerError;
use crate::path::PathError;

use super::chmod::ChmodError;

/// Why a step failed, and at which of its sources.
#[derive(Debug, thiserror::Error)]
#[error("copying{}", .index.map(|i| format!(" source number {}", i + 1)).unwrap_or_default())]
pub struct CopyError {
    /// The index among `CopyOp::sources`; none: the step as a whole.
    pub index: Option<usize>,
    /// What is wrong.
    #[source]
    pub cause: CopyCause,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyCause {
    /// A file would take a directory's place.
    #[error("cannot replace directory `/{path}` with a file")]
    FileOverDirectory {
        /// In the image.
        path: String,
    },
    /// A directory would take the place of a file or link.
    #[error("cannot copy a directory to `/{path}`, which is not a directory")]
    DirectoryOverFile {
        /// In the image.
        path: String,
    },
    /// A file's name is one by which layers delete files.
    #[error("cannot copy `/{path}`: names that begin with `.wh.` mark deleted files in image layers")]
    ReservedName {
        /// In the image.
        path: String,
    },
    /// A device by which overlay file systems delete files.
    #[error("cannot copy `/{path}`: a device 0:0 marks a deleted file")]
    Whiteout {
        /// In the image.
        path: String,
    },
    /// A source isn't any more what its digest, and so the step's key, was made of.
    #[error("`{path}` was changed during the build")]
    Changed {
        /// In the source tree.
        path: String,
    },
    /// A remote source wasn't given.
    #[error("the remote source was not fetched")]
    NotFetched,
    /// `--chown` or USER names somebody who isn't there.
    #[error("resolving the owner `{owner}`")]
    Owner {
        /// As written.
        owner: String,
        /// Why.
        source: UserError,
    },
    /// `--chmod` is no mode.
    #[error("in --chmod")]
    Chmod(#[from] ChmodError),
    /// An archive can't be unpacked.
    #[error("unpacking `{archive}`")]
    Unpack {
        /// In the source tree.
        archive: String,
        /// Why.
        source: LayerError,
    },
    /// The source tree can't be read.
    #[error(transparent)]
    Source(#[from] ContextError),
    /// A path in the image can't be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path in the image leads nowhere.
    #[error("resolving the destination")]
    Destination(#[from] crate::context::resolve::ResolveError),
    /// Reading or writing failed.
    #[error("{action} `{path}`")]
    Io {
        /// `reading`, `writing`, ...
        action: &'static str,
        /// In the source tree or the image.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}
