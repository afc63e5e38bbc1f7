//! One HTTP request: TLS, proxies, time limits. No retries, no authentication, no redirects.
//!
//! Redirects are answers here, since only [`super::client`] knows which headers may go along. Certificates are
//! loaded at the first https request (5 ms), so that a build that needs no network doesn't pay for them.

use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{Method, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body, Proxy, SendBody};

use super::{RegistryConfig, RegistryError, forward, transfer};
use crate::address::redact;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request's end to the answer's head.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For each read of a body: a stalled transfer is broken off and goes on by Range.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
const USER_AGENT: &str = concat!("plywood/", env!("CARGO_PKG_VERSION"));

/// The agents: one per way to the outside, each with its pool of connections.
pub(crate) struct Http {
    config: RegistryConfig,
    plain: OnceLock<Agent>,
    plain_proxied: OnceLock<Agent>,
    tls: OnceLock<Agent>,
    tls_proxied: OnceLock<Agent>,
}

impl Http {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        let (plain, plain_proxied, tls, tls_proxied) = Default::default();
        Self { config, plain, plain_proxied, tls, tls_proxied }
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
    ) -> Result<Response<Body>, RegistryError> {
        let failed = |e: ureq::Error| RegistryError::transport(&url.to_string(), e);
        let agent = self.agent(url)?;
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bad = |e: ureq::http::Error| failed(ureq::Error::Http(e));
        match body {
            Some((reader, length)) => {
                let request = request.header("content-length", length).body(SendBody::from_reader(reader)).map_err(bad)?;
                agent.run(request).map_err(failed)
            }
            // A POST or PUT without a body says so: some servers insist.
            None if matches!(*method, Method::POST | Method::PUT) => {
                let request = request.header("content-length", 0).body(()).map_err(bad)?;
                let agent = agent.clone();
                self.unless_ended(url, move || agent.run(request))
            }
            None => {
                let (agent, request) = (agent.clone(), request.body(()).map_err(bad)?);
                self.unless_ended(url, move || agent.run(request))
            }
        }
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

    /// Sends a GET; every status is an answer.
    pub(super) fn get(&self, url: &Uri, headers: &[(&str, &str)]) -> Result<Response<Body>, RegistryError> {
        self.send(&Method::GET, url, headers, None)
    }

    /// Sends a form by POST; every status is an answer.
    pub(super) fn post_form(&self, url: &Uri, form: &[(&str, &str)]) -> Result<Response<Body>, RegistryError> {
        let request = self.agent(url)?.post(url.clone());
        request.send_form(form.iter().copied()).map_err(|e| RegistryError::transport(&url.to_string(), e))
    }

    /// Fails unless the host may be spoken to in this way: https always, http with loopback and listed hosts only.
    pub(super) fn require_secure(&self, url: &Uri) -> Result<(), RegistryError> {
        match url.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.may_be_plain(url.authority().map_or("", |a| a.as_str())) => Ok(()),
            _ => Err(RegistryError::Redirect { url: url.to_string(), to: "an address without TLS".into() }),
        }
    }

    /// Tells whether `host[:port]` is spoken to by http.
    pub(super) fn may_be_plain(&self, authority: &str) -> bool {
        is_loopback(authority) || self.config.insecure_hosts.iter().any(|h| h == authority)
    }

    /// Returns the agent for the way to an address; it can be cloned for another thread.
    pub(crate) fn agent(&self, url: &Uri) -> Result<&Agent, RegistryError> {
        let tls = url.scheme_str() == Some("https");
        let host = url.authority().map_or("", |a| a.as_str());
        let proxy = if tls { &self.config.https_proxy } else { &self.config.http_proxy };
        let proxy = proxy.as_deref().filter(|p| !p.is_empty() && !bypasses_proxy(host, &self.config.no_proxy));
        let cell = match (tls, proxy.is_some()) {
            (false, false) => &self.plain,
            (false, true) => &self.plain_proxied,
            (true, false) => &self.tls,
            (true, true) => &self.tls_proxied,
        };
        if let Some(agent) = cell.get() {
            return Ok(agent);
        }
        let agent = self.make_agent(tls, proxy)?;
        Ok(cell.get_or_init(|| agent))
    }

    fn make_agent(&self, tls: bool, proxy: Option<&str>) -> Result<Agent, RegistryError> {
        if let Some(address) = proxy.filter(|_| !tls).and_then(forward::Proxy::parse) {
            return Ok(address.agent(self.agent_config(tls, None)?));
        }
        let proxy = match proxy {
            Some(p) => Some(Proxy::new(p).map_err(|_| RegistryError::Proxy(redact(p)))?),
            None => None,
        };
        Ok(self.agent_config(tls, proxy)?.new_agent())
    }

    fn agent_config(&self, tls: bool, proxy: Option<Proxy>) -> Result<Config, RegistryError> {
        let mut builder = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT));
        if tls {
            builder = builder.tls_config(self.tls_config()?);
        }
        Ok(builder.build())
    }

    fn tls_config(&self) -> Result<TlsConfig, RegistryError> {
        let (file, dir) = (self.config.cert_file.as_deref(), self.config.cert_dir.as_deref());
        let found = if file.is_some() || dir.is_some() {
            rustls_native_certs::load_certs_from_paths(file, dir)
        } else {
            rustls_native_certs::load_native_certs()
        };
        if found.certs.is_empty() {
            return Err(RegistryError::NoRoots);
        }
        let roots: Vec<Certificate<'static>> = found.certs.iter().map(|c| Certificate::from_der(c).to_owned()).collect();
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .build())
    }
}

/// Splits `host[:port]`, brackets of IPv6 taken off.
fn host_of(authority: &str) -> &str {
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

/// Tells whether `host[:port]` is this machine.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Go's rules for NO_PROXY, networks (`10.0.0.0/8`) excepted; loopback never goes through a proxy.
fn bypasses_proxy(authority: &str, no_proxy: &[String]) -> bool {
    let host = host_of(authority);
    is_loopback(authority)
        || no_proxy.iter().map(|e| e.trim()).filter(|e| !e.is_empty()).any(|entry| {
            let entry_host = host_of(entry).trim_start_matches("*.");
            let port_agrees = !entry.contains(':') || entry == authority || entry.starts_with('[');
            let name = entry_host.strip_prefix('.').unwrap_or(entry_host);
            entry == "*" || (port_agrees && (host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))))
        })
}

/// Resolves `Location` against the address that answered with it.
pub(crate) fn join(base: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return location.parse().ok();
    }
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let path = if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    } else if location.starts_with('/') {
        location.to_string()
    } else {
        let (directory, _) = base.path().rsplit_once('/')?;
        format!("{directory}/{location}")
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

/// Tells whether two addresses share scheme, host and port.
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |u: &Uri| {
        u.port_u16().or(match u.scheme_str() {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        })
    };
    let host = |u: &Uri| u.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (authority, want) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example:5000", false),
            ("127.0.0.1.example", false),
            ("10.0.0.1", false),
            ("localhost@evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(authority), want, "{authority}");
        }
    }

    #[test]
    fn no_proxy_matches_names_and_their_subdomains() {
        let list: Vec<String> = ["corp.example", ".dot.example", "*.star.example", "port.example:5000"].map(String::from).into();
        for (authority, want) in [
            ("corp.example", true),
            ("a.corp.example:443", true),
            ("xcorp.example", false),
            ("a.dot.example", true),
            ("a.star.example", true),
            ("port.example:5000", true),
            ("port.example:5001", false),
            ("localhost:5000", true),
        ] {
            assert_eq!(bypasses_proxy(authority, &list), want, "{authority}");
        }
        assert!(bypasses_proxy("any.example", &["*".to_string()]));
    }

    #[test]
    fn a_location_is_absolute_or_of_the_same_host() {
        let base: Uri = "https://r.example:8443/v2/a/blobs/x".parse().unwrap();
        for (location, want) in [
            ("https://s.example/b?c=d", "https://s.example/b?c=d"),
            ("/y?z=1", "https://r.example:8443/y?z=1"),
            ("z", "https://r.example:8443/v2/a/blobs/z"),
            ("//s.example/b", "https://s.example/b"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), want, "{location}");
        }
        let same = |a: &str, b: &str| same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://a.example/x", "https://A.example:443/y"));
        assert!(!same("https://a.example/x", "http://a.example/x"));
        assert!(!same("https://a.example/x", "https://a.example:444/x"));
        assert!(!same("https://a.example/x", "https://b.example/x"));
    }
}
