//! What can go wrong with a registry, by what a reader could do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::digest::Digest;

/// A failure of a registry or on the way to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum RegistryError {
    #[error("`{0}` is not a registry host")]
    Host(String),
    #[error("{what} is not in the registry {host}")]
    NotFound { what: String, host: String },
    #[error("the registry {host} refuses access to {what}{}", detail(.message))]
    Denied { what: String, host: String, message: String },
    #[error("{url} answered with status {status}{}{}", detail(.message), later(.retry_after))]
    Status { url: String, status: u16, message: String, retry_after: Option<Duration> },
    #[error("reaching {url}")]
    Transport { url: String, source: Box<ureq::Error> },
    #[error("reading the answer of {url}")]
    Body { url: String, source: io::Error },
    #[error("{url} broke off after {received} of {expected} bytes")]
    Truncated { url: String, received: u64, expected: u64 },
    #[error("{what} has more than {limit_bytes} bytes")]
    TooLarge { what: String, limit_bytes: u64 },
    #[error("{what} has the digest {found}, not {expected}")]
    Digest { what: String, expected: Digest, found: Digest },
    #[error("{what} has {found} bytes, not {expected}")]
    Size { what: String, expected: u64, found: u64 },
    #[error("the registry {host} wants its credentials sent to `{realm}`, which is not of its site")]
    Realm { host: String, realm: String },
    #[error("the registry {host} asks for authentication in a way that is not known: `{challenge}`")]
    Challenge { host: String, challenge: String },
    #[error("the token server {realm} gave no token")]
    Token { realm: String },
    #[error("finding the credentials for {host}")]
    Credentials { host: String, source: super::CredentialError },
    #[error("`{0}` is not a proxy's address")]
    Proxy(String),
    #[error("no trusted certificates were found for TLS")]
    NoRoots,
    #[error("{url} redirects to `{to}`, which is not followed")]
    Redirect { url: String, to: String },
    #[error("{url} says no address to send to")]
    NoLocation { url: String },
    #[error("the registry {host} does not find a blob of {what} that it has{}", detail(.message))]
    BlobUnknown { what: String, host: String, message: String },
    #[error("{message}")]
    Rules { message: String },
    #[error("the registries of `{prefix}` are blocked by {file}")]
    Blocked { prefix: String, file: String },
    #[error("{} can't be used: {why}", .path.display())]
    Certificate { path: PathBuf, why: &'static str },
    #[error("given up after {tries} tries")]
    GivenUp { tries: u32, source: Box<RegistryError> },
    #[error("{what} can't be read")]
    Malformed { what: String, source: serde_json::Error },
    #[error("{what} is neither a manifest nor an index")]
    NoDocument { what: String },
    #[error("the bytes of {what} are not those of its digest")]
    WrongBytes { what: String },
    #[error("interrupted")]
    Interrupted,
    #[error("reading {what}")]
    Read { what: String, source: io::Error },
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn later(retry_after: &Option<Duration>) -> String {
    retry_after.map_or(String::new(), |wait| format!("; it asks to come back in {} s", wait.as_secs()))
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// No: the server said no, or what it says is wrong.
    Never,
    /// Rarely: the host is unknown or nobody listens.
    Unreachable,
    /// A few times: the server answers, and what it answers is broken.
    Broken,
    /// Once: nothing came for long.
    Stalled,
    /// Yes: the server is overloaded, or away for a moment.
    Outage,
}

impl RegistryError {
    pub(crate) fn transport(url: &str, source: ureq::Error) -> Self {
        Self::Transport { url: url.into(), source: Box::new(source) }
    }

    /// Makes an error of a status.
    pub(crate) fn status(url: &ureq::http::Uri, status: u16, message: impl Into<String>) -> Self {
        Self::Status { url: url.to_string(), status, message: message.into(), retry_after: None }
    }

    /// Takes the error out that a [`super::BlobReader`] put into an [`io::Error`].
    pub fn from_io(error: io::Error, what: impl FnOnce() -> String) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(source) => Self::Read { what: what(), source },
        }
    }

    /// Returns what failed, without how often it was tried.
    pub fn cause(&self) -> &Self {
        match self {
            Self::GivenUp { source, .. } => source.cause(),
            other => other,
        }
    }

    /// Returns how long the server asks to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Tells whether trying again can help.
    pub(crate) fn recovery(&self) -> Recovery {
        match self {
            Self::Status { status: 408 | 429 | 502 | 503 | 504, .. } => Recovery::Outage,
            // Some registries write a blob's link anew while somebody else pushes the same blob: for a moment it is not there.
            Self::BlobUnknown { .. } => Recovery::Broken,
            Self::Status { status: 416 | 500, .. } | Self::Truncated { .. } => Recovery::Broken,
            Self::Body { source, .. } => match source.get_ref().and_then(|e| e.downcast_ref::<ureq::Error>()) {
                Some(inside) => of_transport(inside),
                None => of_io(source),
            },
            Self::Transport { source, .. } => of_transport(source),
            _ => Recovery::Never,
        }
    }
}

fn of_transport(error: &ureq::Error) -> Recovery {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => Recovery::Unreachable,
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => Recovery::Unreachable,
        ureq::Error::Timeout(_) => Recovery::Stalled,
        ureq::Error::Io(e) => of_io(e),
        ureq::Error::Protocol(_) => Recovery::Broken,
        _ => Recovery::Never,
    }
}

fn of_io(error: &io::Error) -> Recovery {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Recovery::Unreachable,
        // rustls' errors come wrapped so: a bad certificate stays bad.
        io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => Recovery::Never,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Recovery::Stalled,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => Recovery::Outage,
        _ => Recovery::Broken,
    }
}
