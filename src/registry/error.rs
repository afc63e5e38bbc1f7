//! What can go wrong with a registry, by what a reader could do about it.

use std::io;

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
    #[error("{url} answered with status {status}{}", detail(.message))]
    Status { url: String, status: u16, message: String },
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
    #[error("interrupted")]
    Interrupted,
    #[error("reading {what}")]
    Read { what: String, source: io::Error },
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// No.
    Never,
    /// Rarely: the host is unknown or nobody listens.
    Unreachable,
    /// Yes.
    InPassing,
}

impl RegistryError {
    pub(crate) fn transport(url: &str, source: ureq::Error) -> Self {
        Self::Transport { url: url.into(), source: Box::new(source) }
    }

    /// Takes the error out that a [`super::BlobReader`] put into an [`io::Error`].
    pub fn from_io(error: io::Error, what: impl FnOnce() -> String) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(source) => Self::Read { what: what(), source },
        }
    }

    /// Tells whether trying again can help.
    pub(crate) fn recovery(&self) -> Recovery {
        match self {
            Self::Status { status: 408 | 429 | 500 | 502 | 503 | 504, .. } => Recovery::InPassing,
            Self::Truncated { .. } | Self::Body { .. } => Recovery::InPassing,
            Self::Transport { source, .. } => match &**source {
                ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => Recovery::Unreachable,
                ureq::Error::Io(e) => match e.kind() {
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                        Recovery::Unreachable
                    }
                    // rustls' errors come wrapped so: a bad certificate stays bad.
                    io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => Recovery::Never,
                    _ => Recovery::InPassing,
                },
                ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => Recovery::Unreachable,
                ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => Recovery::InPassing,
                _ => Recovery::Never,
            },
            _ => Recovery::Never,
        }
    }
}
