//! What can go wrong on the way to what lies elsewhere. All addresses here are without credentials.

use crate::digest::Digest;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// A thing that can't be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum RemoteError {
    #[error("`{0}` is not a URL")]
    NotUrl(String),
    #[error("{url} answered with status {status}")]
    Status { url: String, status: u16 },
    #[error("fetching {url}")]
    Transfer { url: String, source: Box<RegistryError> },
    #[error("{url} broke off after {received} of {expected} bytes")]
    Truncated { url: String, received: u64, expected: u64 },
    #[error("digest mismatch for {url}: {found} (expected: {expected})")]
    Checksum { url: String, expected: String, found: String },
    #[error("{url} answers with other content than a moment ago: {found} instead of {expected}")]
    Changed { url: String, expected: Digest, found: Digest },
    #[error("{url} was replaced by other content while it was fetched")]
    Replaced { url: String },
    #[error("{url} redirects to `{to}`, which is not followed: {why}")]
    Redirect { url: String, to: String, why: &'static str },
    #[error("git is not installed: it fetches `{remote}`")]
    NoGit { remote: String },
    #[error("starting git")]
    StartGit { source: std::io::Error },
    #[error("{doing} `{remote}` failed: {said}")]
    Git { doing: &'static str, remote: String, said: String },
    #[error("repository `{remote}` does not contain ref `{reference}`")]
    NoRef { remote: String, reference: String },
    #[error("repository `{remote}` has no default branch")]
    NoDefaultBranch { remote: String },
    #[error("`{remote}`: expected checksum to match {expected}, got {found}")]
    Commit { remote: String, expected: String, found: String },
    #[error("`{remote}`: fetch-by-commit needs a full commit as checksum or ref")]
    FetchByCommit { remote: String },
    #[error("repository `{remote}` does not contain the commit {commit}")]
    NoCommit { remote: String, commit: String },
    #[error("`{remote}`: the submodule `{path}` {why}")]
    Submodule { remote: String, path: String, why: String },
    #[error("`{remote}` has no directory `{path}` (links are not followed)")]
    Subdir { remote: String, path: String },
    #[error("no ssh agent or key is given for `{remote}`")]
    NoSsh { remote: String },
    #[error("{doing} a checkout of `{remote}`")]
    Checkout { doing: &'static str, remote: String, source: std::io::Error },
    #[error("interrupted")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RemoteError {
    /// Returns advice for the user, when there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoGit { .. } => Some("install it (Debian: apt-get install git)".into()),
            Self::NoSsh { .. } => Some("give the agent with --ssh default, or a key with --ssh default=FILE".into()),
            Self::Status { status: 401 | 403, .. } => {
                Some("credentials can be given with --secret id=HTTP_AUTH_TOKEN_<host> or id=HTTP_AUTH_HEADER_<host>".into())
            }
            Self::Git { said, .. } if said.contains("could not read Username") || said.contains("Authentication failed") => {
                Some("credentials can be given with --secret id=GIT_AUTH_TOKEN or id=GIT_AUTH_HEADER".into())
            }
            _ => None,
        }
    }
}
