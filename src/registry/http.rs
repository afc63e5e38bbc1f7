//! One HTTP request: TLS, proxies, time limits. No retries, no authentication, no redirects.
//!
//! Redirects are answers here, since only [`super::client`] knows which headers may go along. Certificates are
//! loaded at the first https request (5 ms), so that a build that needs no network doesn't pay for them.
//!
//! What a newcomer would get wrong: one agent for all. What is trusted differs by host (`certs.d`) and by rule
//! (`insecure`), and a connection of one kind must never serve a request of another: an agent each.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{Method, Request, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body, Proxy, SendBody};

use super::certs::{self, HostCerts};
use super::hosts::{authority, bypasses_proxy, is_loopback};
use super::rules::Place;
use super::{RegistryConfig, RegistryError, forward, transfer};
use crate::address::redact;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How fast a registry is to put a blob away, at the least, before its answer is waited for no longer.
const COMMIT_BYTES_A_SEC: u64 = 32 << 20;
const USER_AGENT: &str = concat!("plywood/", env!("CARGO_PKG_VERSION"));

/// Whom to trust at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Whom the machine trusts.
    Machine,
    /// A registry: also whom `certs.d` names for its host.
    Registry,
    /// Anybody: the host is marked as insecure.
    Anybody,
}

/// What tells agents from one another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Way {
    tls: bool,
    proxied: bool,
    anybody: bool,
    /// A host with certificates of its own.
    host: Option<String>,
}

/// The agents, each with its pool of connections; and what was learnt of hosts on the way.
pub(crate) struct Http {
    config: RegistryConfig,
    agents: Mutex<HashMap<Way, Agent>>,
    roots: OnceLock<Vec<Certificate<'static>>>,
    certs: Mutex<HashMap<String, Option<Arc<HostCerts>>>>,
    /// Whether hosts are spoken to by TLS, where that had to be found out.
    tls: Mutex<HashMap<String, bool>>,
    /// Hosts that have answered.
    reached: Mutex<HashSet<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Http {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        let (agents, roots, certs, tls, reached) = Default::default();
        Self { config, agents, roots, certs, tls, reached }
    }

    pub(super) fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// Sends a request with a body of `length` bytes, or none; every status is an answer.
    pub(super) fn send(
        &self,
        method: &Method,
        url: &Uri,
        headers: &[(&str, &str)],
        body: Option<(&mut dyn Read, u64)>,
        trust: Trust,
    ) -> Result<Response<Body>, RegistryError> {
        let failed = |e: ureq::Error| RegistryError::transport(&url.to_string(), e);
        let agent = self.agent(url, trust)?;
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bad = |e: ureq::http::Error| failed(ureq::Error::Http(e));
        let answer = match body {
            Some((reader, length)) => {
                let request = request.header("content-length", length).body(SendBody::from_reader(reader)).map_err(bad)?;
                let wait = self.config.retry.stall + Duration::from_secs(length / COMMIT_BYTES_A_SEC);
                let request = agent.configure_request(request).timeout_per_read(Some(wait)).timeout_recv_response(Some(wait)).build();
                agent.run(request).map_err(failed)
            }
            // A POST or PUT without a body says so: some servers insist.
            None if matches!(*method, Method::POST | Method::PUT) => {
                let request = request.header("content-length", 0).body(()).map_err(bad)?;
                self.unless_ended(url, move || agent.run(request))
            }
            None => {
                let request = request.body(()).map_err(bad)?;
                self.unless_ended(url, move || agent.run(request))
            }
        }?;
        if answer.status().as_u16() < 500 {
            lock(&self.reached).insert(authority(url).to_string());
        }
        Ok(answer)
    }

    /// Tells whether the host of an address has ever answered, and not with a failure of its own.
    pub(super) fn has_answered(&self, url: &str) -> bool {
        url.parse::<Uri>().is_ok_and(|url| lock(&self.reached).contains(authority(&url)))
    }

    /// Waits for a request, unless the process is asked to end meanwhile.
    fn unless_ended(
        &self,
        url: &Uri,
        request: impl FnOnce() -> Result<Response<Body>, ureq::Error> + Send + 'static,
    ) -> Result<Response<Body>, RegistryError> {
        let failed = |e: ureq::Error| RegistryError::transport(&url.to_string(), e);
        if self.config.end.is_none() {
            return request().map_err(failed);
        }
        let answered = transfer::patiently(&self.config.ends(), request).map_err(|e| failed(ureq::Error::Io(e)))?;
        answered.ok_or(RegistryError::Interrupted)?.map_err(failed)
    }

    /// Sends a form by POST; every status is an answer.
    pub(super) fn post_form(&self, url: &Uri, form: &[(&str, &str)], trust: Trust) -> Result<Response<Body>, RegistryError> {
        let request = self.agent(url, trust)?.post(url.clone());
        request.send_form(form.iter().copied()).map_err(|e| RegistryError::transport(&url.to_string(), e))
    }

    /// Fails unless the address may be spoken to in this way: https always, http where hosts are this machine or insecure.
    pub(super) fn require_secure(&self, url: &Uri, place: &Place) -> Result<(), RegistryError> {
        let host = authority(url);
        let plain = is_loopback(host) || self.is_insecure(host) || (place.lax && host == place.authority());
        match url.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if plain => Ok(()),
            _ => Err(RegistryError::Redirect { url: url.to_string(), to: "an address without TLS".into() }),
        }
    }

    /// Tells whether a whole host is marked as insecure.
    pub(super) fn is_insecure(&self, authority: &str) -> bool {
        self.config.insecure_hosts.iter().any(|h| h == authority) || self.config.rules.is_insecure(authority)
    }

    /// Returns whom to trust at an address that a place led to.
    pub(super) fn trust(&self, url: &Uri, place: &Place) -> Trust {
        let host = authority(url);
        if (place.lax && host == place.authority()) || self.is_insecure(host) { Trust::Anybody } else { Trust::Registry }
    }

    /// Tells whether a place is spoken to by https: always, but for insecure ones that can't and for this machine.
    ///
    /// An insecure host is asked once, without credentials. This machine is spoken to by http until
    /// [`Http::wants_tls`] finds out otherwise, or where it has certificates of its own.
    pub(super) fn speaks_tls(&self, place: &Place) -> Result<bool, RegistryError> {
        let host = place.authority();
        let this_machine = is_loopback(host);
        // What was found out for an insecure name counts for insecure names only.
        if !this_machine && !place.lax && !self.is_insecure(host) {
            return Ok(true);
        }
        if let Some(known) = lock(&self.tls).get(host) {
            return Ok(*known);
        }
        if this_machine {
            return Ok(self.certs(host)?.is_some());
        }
        let tls = match self.probe_tls(host, Trust::Anybody) {
            Err(e @ (RegistryError::Interrupted | RegistryError::Certificate { .. })) => return Err(e),
            probed => probed.is_ok(),
        };
        lock(&self.tls).insert(host.into(), tls);
        Ok(tls)
    }

    /// Finds out whether a host of this machine, whose answer to http makes no sense, speaks TLS instead.
    pub(super) fn wants_tls(&self, place: &Place) -> bool {
        let host = place.authority();
        let trust = if place.lax || self.is_insecure(host) { Trust::Anybody } else { Trust::Registry };
        if !is_loopback(host) || lock(&self.tls).contains_key(host) {
            return false;
        }
        // A certificate that is not trusted is TLS, too: the request itself then says so.
        let tls = match self.probe_tls(host, trust) {
            Ok(()) => true,
            Err(RegistryError::Transport { source, .. }) => source.to_string().contains("certificate"),
            Err(_) => false,
        };
        if tls {
            lock(&self.tls).insert(host.into(), true);
        }
        tls
    }

    fn probe_tls(&self, host: &str, trust: Trust) -> Result<(), RegistryError> {
        let url = format!("https://{host}/v2/").parse().map_err(|_| RegistryError::Host(host.into()))?;
        self.send(&Method::GET, &url, &[], None, trust).map(drop)
    }

    fn certs(&self, authority: &str) -> Result<Option<Arc<HostCerts>>, RegistryError> {
        if let Some(known) = lock(&self.certs).get(authority) {
            return Ok(known.clone());
        }
        let name = if authority == super::client::HUB_HOST { super::client::HUB_NAME } else { authority };
        let found = certs::load(&self.config.certs_dirs, name)?.map(Arc::new);
        lock(&self.certs).insert(authority.into(), found.clone());
        Ok(found)
    }

    /// Returns the agent for the way to an address.
    pub(crate) fn agent(&self, url: &Uri, trust: Trust) -> Result<Agent, RegistryError> {
        let tls = url.scheme_str() == Some("https");
        let host = authority(url);
        let proxy = if tls { &self.config.https_proxy } else { &self.config.http_proxy };
        let proxy = proxy.as_deref().filter(|p| !p.is_empty() && !bypasses_proxy(host, &self.config.no_proxy));
        let certs = if tls && trust != Trust::Machine { self.certs(host)? } else { None };
        let way =
            Way { tls, proxied: proxy.is_some(), anybody: tls && trust == Trust::Anybody, host: certs.is_some().then(|| host.to_string()) };
        if let Some(agent) = lock(&self.agents).get(&way) {
            return Ok(agent.clone());
        }
        let agent = self.make_agent(&way, proxy, certs.as_deref())?;
        Ok(lock(&self.agents).entry(way).or_insert(agent).clone())
    }

    fn make_agent(&self, way: &Way, proxy: Option<&str>, certs: Option<&HostCerts>) -> Result<Agent, RegistryError> {
        if let Some(address) = proxy.filter(|_| !way.tls).and_then(forward::Proxy::parse) {
            return Ok(address.agent(self.agent_config(way, None, certs)?));
        }
        let proxy = match proxy {
            Some(p) => Some(Proxy::new(p).map_err(|_| RegistryError::Proxy(redact(p)))?),
            None => None,
        };
        Ok(self.agent_config(way, proxy, certs)?.new_agent())
    }

    fn agent_config(&self, way: &Way, proxy: Option<Proxy>, certs: Option<&HostCerts>) -> Result<Config, RegistryError> {
        let stall = self.config.retry.stall;
        let mut builder = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(stall))
            .timeout_per_read(Some(stall))
            // A socket that takes nothing any more lets the writes of what is buffered time out one by one.
            .timeout_per_write(Some(stall / 3));
        if way.tls {
            builder = builder.tls_config(self.tls_config(way, certs)?);
        }
        Ok(builder.build())
    }

    fn tls_config(&self, way: &Way, certs: Option<&HostCerts>) -> Result<TlsConfig, RegistryError> {
        let mut roots = if way.anybody { Vec::new() } else { self.roots().to_vec() };
        roots.extend(certs.iter().flat_map(|c| c.roots.iter().cloned()));
        if roots.is_empty() && !way.anybody {
            return Err(RegistryError::NoRoots);
        }
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .disable_verification(way.anybody)
            .client_cert(certs.and_then(|c| c.client.clone()))
            .build())
    }

    /// Returns the certificates that the machine trusts.
    fn roots(&self) -> &[Certificate<'static>] {
        self.roots.get_or_init(|| {
            let (file, dir) = (self.config.cert_file.as_deref(), self.config.cert_dir.as_deref());
            let found = if file.is_some() || dir.is_some() {
                rustls_native_certs::load_certs_from_paths(file, dir)
            } else {
                rustls_native_certs::load_native_certs()
            };
            found.certs.iter().map(|c| Certificate::from_der(c).to_owned()).collect()
        })
    }
}
