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
//! Where a name is asked for is not always where it says: mirrors and other locations are for the client to choose
//! ([`conf`] tells the rules). A [`Repository`] is always the name's own.
//!
//! Nothing is read from the environment here; [`RegistryConfig`] holds what `cli` found there.

mod auth;
mod certs;
mod client;
pub mod conf;
mod credentials;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod forward;
pub(crate) mod hosts;
pub(crate) mod http;
mod login;
pub(crate) mod pause;
mod pull;
mod push;
mod rules;
mod tags;
#[cfg(test)]
pub(crate) mod testserver;
pub(crate) mod transfer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use client::{Client, Repository};
pub use credentials::{Credential, CredentialError};
pub(crate) use error::Recovery;
pub use error::RegistryError;
pub use login::{LoginError, Logins, host_of};
pub use pull::{BlobReader, Fetched};
pub use push::{BlobSource, Sent};
pub use rules::{AskedFor, Mirror, Rule, Rules};

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
    /// Directories with certificates of single registries (`certs.d`), by preference.
    pub certs_dirs: Vec<PathBuf>,
    /// Mirrors, other locations, blocked and insecure registries: [`conf`].
    pub rules: Rules,
    /// Hosts (`host:port`) that are insecure besides those of the rules: any certificate will do, or http.
    pub insecure_hosts: Vec<String>,
    /// Who is told of mirrors that fail.
    pub notices: Option<Notices>,
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

/// How failures in passing are tried again, and when it is given up. All but `stall` and `first` are sums of pauses; new
/// bytes start a sum again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first pause; each next one is twice as long, up to [`Retry::longest`].
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// Of an outage: a server that says so (429, 502, 503, 504), a reset, a server that has answered before and is away.
    pub patience: Duration,
    /// Of answers that are broken: 500, what ends early, what is no HTTP.
    pub patience_broken: Duration,
    /// Of a host that is unknown or refuses connections, and never answered.
    pub patience_unreachable: Duration,
    /// How long nothing may come before a request or a transfer is broken off; it is taken up again once.
    pub stall: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            longest: Duration::from_secs(8),
            // The last try is 64 s after the first: an outage of a minute is outlived.
            patience: Duration::from_secs(70),
            patience_broken: Duration::from_secs(10),
            patience_unreachable: Duration::from_secs(2),
            stall: Duration::from_secs(14),
        }
    }
}

impl Retry {
    /// Where there is another place to ask: a moment, and none for who does not answer at all.
    pub(crate) fn hurried(self) -> Self {
        let short = self.patience_unreachable;
        Self { patience: short, patience_broken: short, patience_unreachable: Duration::ZERO, ..self }
    }
}

/// Is told, in one line, what should be known of transfers that go on nevertheless.
#[derive(Clone)]
pub struct Notices(pub Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notices")
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
            certs_dirs: Vec::new(),
            rules: Rules::default(),
            notices: None,
            insecure_hosts: Vec::new(),
            trusted_realms: Vec::new(),
            end: None,
            parallel: 4,
            retry: Retry::default(),
        }
    }
}
