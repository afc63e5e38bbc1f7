//! Challenges and tokens: from `WWW-Authenticate` to an `Authorization` header.
//!
//! The registry picks the realm that a token comes from, so the realm is hostile input (CVE-2026-33540): it must
//! be https (or loopback for a loopback registry), and it gets credentials only when it is of the registry's own
//! site or listed in the configuration. Without credentials any https realm may be asked: nothing can leak.

use base64::Engine as _;
use serde::Deserialize;
use ureq::http::{Method, Uri};

use super::RegistryError;
use super::credentials::Credential;
use super::hosts::{authority, is_loopback};
use super::http::{Http, Trust};
use super::rules::Place;

/// The largest answer of a token server: containers/image's limit.
const TOKEN_MAX_BYTES: u64 = 1 << 20;

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

impl Challenge {
    /// Parses the values of `WWW-Authenticate`; Bearer is preferred.
    pub(super) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for value in values {
            let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let parameters = parse_parameters(rest);
                let of = |name: &str| parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
                if let Some(realm) = of("realm") {
                    return Some(Self::Bearer { realm, service: of("service").unwrap_or_default() });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

/// Parses `name="value", name=value`; quoted values may hold commas and `\` escapes.
fn parse_parameters(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=' && *c != ',')).collect();
        match chars.next() {
            Some('=') => {}
            Some(_) => continue,
            None => return out,
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
        } else {
            value.extend(std::iter::from_fn(|| chars.next_if(|c| *c != ',')));
        }
        out.push((name.trim().to_string(), value.trim().to_string()));
    }
}

/// Gets the value of `Authorization` that answers the challenge; none: there is nothing to answer with.
pub(super) fn authorize(
    http: &Http,
    place: &Place,
    registry: &Uri,
    challenge: &Challenge,
    scope: &str,
    credential: Option<&Credential>,
) -> Result<Option<String>, RegistryError> {
    match challenge {
        Challenge::Basic => Ok(match credential {
            Some(Credential::Password { user, password }) => Some(basic(user, password)),
            _ => None,
        }),
        Challenge::Bearer { realm, service } => {
            let url = check_realm(http, registry, realm, credential.is_some())?;
            // A token server on an insecure registry's host is as insecure.
            let trust = if registry.host() == url.host() { http.trust(registry, place) } else { http.trust(&url, place) };
            fetch_token(http, &url, service, scope, credential, trust).map(|token| Some(format!("Bearer {token}")))
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn check_realm(http: &Http, registry: &Uri, realm: &str, with_credentials: bool) -> Result<Uri, RegistryError> {
    let host = authority(registry);
    let refused = || RegistryError::Realm { host: host.into(), realm: realm.chars().take(200).collect() };
    let url: Uri = realm.parse().map_err(|_| refused())?;
    let realm_host = authority(&url);
    // Where the registry itself was allowed to be without TLS.
    let plain = |h: &str| is_loopback(h) || http.is_insecure(h) || url.host() == registry.host();
    match url.scheme_str() {
        Some("https") => {}
        Some("http") if registry.scheme_str() == Some("http") && plain(realm_host) => {}
        _ => return Err(refused()),
    }
    // A registry elsewhere must not make us ask this machine's own services.
    if is_loopback(realm_host) && !is_loopback(host) {
        return Err(refused());
    }
    let (a, b) = (registry.host().unwrap_or_default(), url.host().unwrap_or_default());
    let trusted = same_site(a, b) || http.config().trusted_realms.iter().any(|(r, t)| r == host && t == realm_host);
    if with_credentials && !trusted {
        return Err(refused());
    }
    Ok(url)
}

/// Tells whether two hosts belong to one registrable domain, by a careful guess without the public suffix list.
fn same_site(a: &str, b: &str) -> bool {
    fn site(host: &str) -> Option<String> {
        let host = host.to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        if labels.iter().any(|l| l.is_empty()) || host.parse::<std::net::Ipv4Addr>().is_ok() {
            return None;
        }
        // `example.co.uk`: a short second label under a country's domain is a suffix itself.
        let [.., second, top] = labels.as_slice() else { return None };
        let take = if top.len() == 2 && second.len() <= 3 { 3 } else { 2 };
        (labels.len() >= take).then(|| labels[labels.len() - take..].join("."))
    }
    a.eq_ignore_ascii_case(b) || (site(a).is_some() && site(a) == site(b)) || (is_loopback(a) && is_loopback(b))
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

fn fetch_token(
    http: &Http,
    realm: &Uri,
    service: &str,
    scope: &str,
    credential: Option<&Credential>,
    trust: Trust,
) -> Result<String, RegistryError> {
    let get = |url: &Uri, headers: &[(&str, &str)]| http.send(&Method::GET, url, headers, None, trust);
    let mut response = match credential {
        Some(Credential::IdentityToken(token)) => http.post_form(
            realm,
            &[("grant_type", "refresh_token"), ("service", service), ("scope", scope), ("client_id", "plywood"), ("refresh_token", token)],
            trust,
        )?,
        other => {
            let separator = if realm.query().is_some() { '&' } else { '?' };
            // One parameter a scope, as Docker sends them.
            let scopes: String = scope.split(' ').filter(|s| !s.is_empty()).map(|s| format!("&scope={}", percent(s))).collect();
            let query = format!("{realm}{separator}service={}{scopes}", percent(service));
            let url: Uri = query.parse().map_err(|_| RegistryError::Token { realm: realm.to_string() })?;
            match other {
                Some(Credential::Password { user, password }) => get(&url, &[("authorization", &basic(user, password))])?,
                _ => get(&url, &[])?,
            }
        }
    };
    let status = response.status().as_u16();
    if status != 200 {
        let retry_after = super::client::retry_after(&response);
        let message = super::client::error_message(response.body_mut());
        return Err(match status {
            401 | 403 => RegistryError::Denied { what: scope.into(), host: authority(realm).into(), message },
            _ => RegistryError::Status { url: realm.to_string(), status, message, retry_after },
        });
    }
    let body = response.body_mut().with_config().limit(TOKEN_MAX_BYTES).read_to_vec();
    let body = body.map_err(|e| RegistryError::transport(&realm.to_string(), e))?;
    let answer: Option<TokenAnswer> = serde_json::from_slice(&body).ok();
    let token = answer.and_then(|a| a.token.filter(|t| !t.is_empty()).or(a.access_token)).filter(|t| !t.is_empty());
    token.ok_or_else(|| RegistryError::Token { realm: realm.to_string() })
}

/// Escapes a query value.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        let bearer = |realm: &str, service: &str| Some(Challenge::Bearer { realm: realm.into(), service: service.into() });
        for (values, want) in [
            (
                &[r#"Bearer realm="https://a.example/token",service="r.example",scope="repository:x:pull""#][..],
                bearer("https://a.example/token", "r.example"),
            ),
            (&[r#"bearer service=s, realm="https://a.example/a,b\"c""#], bearer("https://a.example/a,b\"c", "s")),
            (&[r#"Basic realm="x""#], Some(Challenge::Basic)),
            (&["Basic", r#"Bearer realm="https://a""#], bearer("https://a", "")),
            (&["Bearer", "Negotiate"], None),
            (&[r#"Bearer realm="unterminated"#], bearer("unterminated", "")),
            (&["Bearer ,,=,="], None),
            (&[], None),
        ] {
            assert_eq!(Challenge::parse(values.iter().copied()), want, "{values:?}");
        }
    }

    #[test]
    fn credentials_go_to_a_realm_of_the_same_site_only() {
        let mut config = crate::registry::RegistryConfig::default();
        config.trusted_realms.push(("r.example".into(), "login.other.example".into()));
        let http = Http::new(config);
        for (registry, realm, anonymous, with_credentials) in [
            ("https://registry.one.example", "https://auth.one.example/token", true, true),
            ("https://r.one.example", "https://r.one.example/token", true, true),
            ("https://r.example", "https://evil.test/token", true, false),
            ("https://r.example", "https://login.other.example/token", true, true),
            ("https://a.co.uk", "https://b.co.uk/token", true, false),
            ("https://x.a.co.uk", "https://y.a.co.uk/token", true, true),
            ("https://r.example", "http://r.example/token", false, false),
            ("https://r.example", "https://localhost/token", false, false),
            ("http://localhost:5000", "http://127.0.0.1:5001/token", true, true),
            ("http://localhost:5000", "http://r.example/token", false, false),
            ("https://10.0.0.1", "https://10.0.0.2/token", true, false),
            ("https://r.example", "file:///etc/passwd", false, false),
            ("https://r.example", "nonsense", false, false),
        ] {
            let registry: Uri = registry.parse().unwrap();
            assert_eq!(check_realm(&http, &registry, realm, false).is_ok(), anonymous, "{registry} {realm}");
            assert_eq!(check_realm(&http, &registry, realm, true).is_ok(), with_credentials, "{registry} {realm}");
        }
    }
}
