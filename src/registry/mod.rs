//! Talks to registries: the OCI distribution specification, and Docker's schema 2.
//!
//! [`Client`] pulls and pushes documents and blobs. It stores nothing: a blob is a reader ([`BlobReader`]), whose bytes the
//! store verifies while it writes them. What fails in passing (429, 5xx, a reset,
//! a body that ends early) is tried again with growing pauses; a broken blob goes on where it broke.
//!
//! What a newcomer would get wrong is where `Authorization` goes: only to the scheme, host and port that the
//! challenge came from. A redirect (every large registry redirects blobs to a storage host) drops it, and
//! credentials go to a token realm of the registry's own site only ([`auth`]).
//!
//! Nothing is read from the environment here; [`RegistryConfig`] holds what `cli` found there.

mod auth;
mod client;
mod credentials;
mod error;
mod forward;
pub(crate) mod http;
mod login;
mod pause;
mod push;
#[cfg(test)]
pub(crate) mod testserver;
pub(crate) mod transfer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use client::{BlobReader, Client, Fetched, Repository};
pub use credentials::{Credential, CredentialError};
pub(crate) use error::Recovery;
pub use error::RegistryError;
pub use login::{LoginError, Logins, host_of};
pub use push::{BlobSource, Sent};

/// What reaching registries depends on besides the reference.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Files in Docker's `config.json` form (containers' `auth.json` too), by preference; missing ones are skipped.
    pub auth_files: Vec<PathBuf>,
    /// Where `docker-credential-*` programs are looked for: the absolute ones of PATH's directories.
    pub helper_dirs: Vec<PathBuf>,
    /// `HTTPS_PROXY`.
    pub https_proxy: Option<String>,
    /// `HTTP_PROXY`.
    pub http_proxy: Option<String>,
    /// `NO_PROXY`, split at commas.
    pub no_proxy: Vec<String>,
    /// `SSL_CERT_FILE`: trusted instead of the system's certificates.
    pub cert_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`.
    pub cert_dir: Option<PathBuf>,
    /// Hosts (`host:port`) that may be spoken to without TLS, besides loopback.
    pub insecure_hosts: Vec<String>,
    /// Token realms that get a registry's credentials though they are of another site: registry, realm host.
    pub trusted_realms: Vec<(String, String)>,
    /// What a signal handler sets: once it is not 0, requests, pauses and transfers end with an error.
    pub end: Option<Arc<AtomicUsize>>,
    /// How many blobs of one image are pulled at once.
    pub parallel: usize,
    /// How failures in passing are tried again.
    pub retry: Retry,
}

/// Tells whether to end.
pub(crate) type Ends = Box<dyn Fn() -> bool + Send>;

impl RegistryConfig {
    /// Returns what tells whether to end.
    pub(crate) fn ends(&self) -> Ends {
        let end = self.end.clone();
        Box::new(move || end.as_ref().is_some_and(|asked| asked.load(Ordering::Relaxed) != 0))
    }
}

/// How failures in passing are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first pause; each next one is twice as long, up to [`Retry::longest`].
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// The sum of the pauses after which it is given up; new bytes start the sum again.
    pub patience: Duration,
    /// The same for what is rarely in passing: an unknown host, a refused connection.
    pub patience_unreachable: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            longest: Duration::from_secs(8),
            patience: Duration::from_secs(60),
            patience_unreachable: Duration::from_secs(2),
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            auth_files: Vec::new(),
            helper_dirs: Vec::new(),
            https_proxy: None,
            http_proxy: None,
            no_proxy: Vec::new(),
            cert_file: None,
            cert_dir: None,
            insecure_hosts: Vec::new(),
            trusted_realms: Vec::new(),
            end: None,
            parallel: 4,
            retry: Retry::default(),
        }
    }
}
