//! Plain http through an http proxy: the request names the whole address, `GET http://HOST/PATH` (RFC 9112, 3.2.2).
//!
//! `ureq` asks every proxy for a tunnel (CONNECT), which proxies commonly allow to port 443 only. Here the proxy is
//! connected to as if it were the host, and the head of each request is completed on its way out. Requests have no body,
//! so that each begins a transmission.

use base64::Engine as _;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};
use ureq::{Agent, Error};

use crate::address::Parts;

/// A proxy that is spoken to by http.
pub(super) struct Proxy {
    address: Uri,
    /// A header's line, or nothing.
    authorization: String,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`, the scheme may lack; none: it is a proxy of another kind.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let full = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
        let parts = Parts::of(&full).filter(|p| p.scheme == "http" && !p.authority.is_empty())?;
        let port = if parts.authority.ends_with(parts.host()) { ":80" } else { "" };
        let authorization = parts.credentials().map(|(user, password)| {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            format!("Proxy-Authorization: Basic {pair}\r\n")
        });
        let address = format!("http://{}{port}/", parts.authority).parse().ok()?;
        Some(Self { address, authorization: authorization.unwrap_or_default() })
    }

    /// Returns an agent whose requests go through the proxy.
    pub(super) fn agent(self, config: Config) -> Agent {
        let connector = TcpConnector::default().chain(Forward { authorization: self.authorization });
        Agent::with_parts(config, connector, ToProxy { address: self.address, inner: DefaultResolver::default() })
    }
}

/// Resolves every host to the proxy.
#[derive(Debug)]
struct ToProxy {
    address: Uri,
    inner: DefaultResolver,
}

impl Resolver for ToProxy {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        self.inner.resolve(&self.address, config, timeout)
    }
}

/// Wraps a connection to the proxy.
struct Forward {
    authorization: String,
}

impl std::fmt::Debug for Forward {
    // The header is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forward")
    }
}

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarded<In>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let host = details.uri.authority().map_or(String::new(), ToString::to_string);
        let (origin, authorization) = (format!("http://{host}"), self.authorization.clone());
        Ok(chained.map(|inner| Forwarded { inner, origin, authorization }))
    }
}

struct Forwarded<T> {
    inner: T,
    origin: String,
    authorization: String,
}

impl<T> std::fmt::Debug for Forwarded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forwarded")
    }
}

impl<T: Transport> Transport for Forwarded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = self.inner.buffers().output();
        let Some(head) = completed(&output[..amount], &self.origin, &self.authorization) else {
            return self.inner.transmit_output(amount, timeout);
        };
        let room = output.get_mut(..head.len()).ok_or_else(|| Error::Other("the request's head is too long".into()))?;
        room.copy_from_slice(&head);
        self.inner.transmit_output(head.len(), timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// Returns a request's head as a proxy takes it; none: the bytes begin no request.
fn completed(bytes: &[u8], origin: &str, authorization: &str) -> Option<Vec<u8>> {
    let path = bytes.strip_prefix(b"GET ").filter(|rest| rest.starts_with(b"/"))?;
    let line = path.windows(2).position(|w| w == b"\r\n")? + 2;
    Some([b"GET ", origin.as_bytes(), &path[..line], authorization.as_bytes(), &path[line..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_name_the_whole_address() {
        for (bytes, want) in [
            ("GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n", Some("GET http://h:1/a?b HTTP/1.1\r\nP: x\r\nhost: h\r\n\r\n")),
            ("POST /a HTTP/1.1\r\n\r\n", None),
            ("body", None),
            ("", None),
        ] {
            let got = completed(bytes.as_bytes(), "http://h:1", "P: x\r\n");
            assert_eq!(got.map(|b| String::from_utf8(b).unwrap()).as_deref(), want, "{bytes}");
        }
    }
}
