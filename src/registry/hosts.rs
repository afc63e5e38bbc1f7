//! Hosts and addresses: which are this machine, which go past the proxy, where a redirect leads, what is one origin.

use ureq::http::Uri;

/// Returns an address's `host[:port]`.
pub(super) fn authority(url: &Uri) -> &str {
    url.authority().map_or("", |a| a.as_str())
}

/// Splits `host[:port]`, brackets of IPv6 taken off.
pub(super) fn host_of(authority: &str) -> &str {
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
pub(super) fn bypasses_proxy(authority: &str, no_proxy: &[String]) -> bool {
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
