//! The small value syntaxes: EXPOSE's ports, STOPSIGNAL's signals, `--chmod`'s modes.

/// A value that is none; the message names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("invalid port `{0}` in EXPOSE: {1}")]
    Port(String, &'static str),
    #[error("invalid signal: `{0}` in STOPSIGNAL")]
    Signal(String),
    #[error("invalid chmod parameter: `{0}`. it should be octal string and between 0 and 07777")]
    Octal(String),
    #[error("invalid chmod parameter: `{0}` is neither octal nor symbolic (such as u=rwX,go=rX)")]
    Symbolic(String),
}

impl ValueError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Port(..) => "write PORT or FROM-TO, and /tcp, /udp or /sctp after it: EXPOSE 8080 53/udp 9000-9010",
            Self::Signal(_) => "write a name such as SIGTERM, or a number",
            Self::Octal(_) | Self::Symbolic(_) => "write --chmod=755, or --chmod=u=rwX,go=rX",
        }
    }
}

/// Returns the entries that one word of EXPOSE stands for: `8080-8081/udp` gives two.
///
/// `ip:host:container` is accepted; only the container's part counts.
pub(super) fn ports(word: &str) -> Result<Vec<String>, ValueError> {
    let bad = |why| ValueError::Port(word.to_string(), why);
    let parts: Vec<&str> = word.split(':').collect();
    let (ip, host, container) = match parts.as_slice() {
        [container] => (String::new(), "", *container),
        [host, container] => (String::new(), *host, *container),
        [ip @ .., host, container] => (ip.join(":"), *host, *container),
        [] => return Err(bad("it is empty")),
    };
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(bad("no port specified"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp".to_string(),
        known @ ("tcp" | "udp" | "sctp") => known.to_string(),
        _ => return Err(bad("the protocol must be tcp, udp or sctp")),
    };
    if !ip.is_empty() && ip.trim_start_matches('[').trim_end_matches(']').parse::<core::net::IpAddr>().is_err() {
        return Err(bad("invalid IP address"));
    }
    let (from, to) = port_range(range).ok_or_else(|| bad("expected a port or range of ports from 0 to 65535"))?;
    if !host.is_empty() {
        let (host_from, host_to) = port_range(host).ok_or_else(|| bad("invalid host port"))?;
        if to - from != host_to - host_from && from != to {
            return Err(bad("the ranges of host and container differ in length"));
        }
    }
    Ok((from..=to).map(|port| format!("{port}/{protocol}")).collect())
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let port = |t: &str| t.parse::<u16>().ok();
    match text.split_once('-') {
        None => port(text).map(|p| (p, p)),
        Some((from, to)) => {
            let (from, to) = (port(from)?, port(to)?);
            (from <= to).then_some((from, to))
        }
    }
}

/// Checks STOPSIGNAL: a non-zero number, or a name with or without `SIG`.
pub(super) fn signal(text: &str) -> Result<(), ValueError> {
    const NAMES: [&str; 35] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL", "PROF", "PWR",
        "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
        "XFSZ", "RTMIN",
    ];
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, most: u32| !rest.starts_with(['0', '+', '-']) && rest.parse::<u32>().is_ok_and(|n| n <= most);
    let known = match text.parse::<i64>() {
        Ok(number) => number != 0,
        Err(_) => {
            NAMES.contains(&name)
                || name == "RTMAX"
                || name.strip_prefix("RTMIN+").is_some_and(|n| offset(n, 15))
                || name.strip_prefix("RTMAX-").is_some_and(|n| offset(n, 14))
        }
    };
    if known { Ok(()) } else { Err(ValueError::Signal(text.to_string())) }
}

/// Checks `--chmod`: octal up to 7777, or symbolic as chmod(1) reads it.
pub(super) fn mode(text: &str) -> Result<(), ValueError> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let octal = u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o7777);
        return if octal { Ok(()) } else { Err(ValueError::Octal(text.to_string())) };
    }
    let clause = |clause: &str| {
        let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        actions.starts_with(['+', '-', '='])
            && actions.split(['+', '-', '=']).all(|perms| {
                let bits = perms.chars().all(|c| "rwxXst".contains(c));
                bits || matches!(perms, "u" | "g" | "o")
            })
    };
    if text.split(',').all(clause) { Ok(()) } else { Err(ValueError::Symbolic(text.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        for (word, want) in [
            ("80", vec!["80/tcp"]),
            ("80/UDP", vec!["80/udp"]),
            ("80/", vec!["80/tcp"]),
            ("8000-8002/sctp", vec!["8000/sctp", "8001/sctp", "8002/sctp"]),
            ("127.0.0.1:8080:80", vec!["80/tcp"]),
            ("[::1]:8080:80", vec!["80/tcp"]),
            ("1-2:80", vec!["80/tcp"]),
        ] {
            assert_eq!(ports(word).unwrap(), want, "{word}");
        }
        for word in ["", "a", "80/x", "65536", "3-1", "-1", "1-2:3-5", "x:1:2", "/tcp", "8000-"] {
            assert!(ports(word).is_err(), "{word}");
        }
    }

    #[test]
    fn signals_and_modes() {
        for good in ["9", "SIGTERM", "term", "RTMIN+3", "SIGRTMAX-14", "99"] {
            assert_eq!(signal(good), Ok(()), "{good}");
        }
        for bad in ["0", "", "SIGNOPE", "9 15", "RTMIN+16"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
        for good in ["755", "07777", "u=rwX,go=rX", "+x", "a-w", "u+s,g=u", "u=rw+x", "o="] {
            assert_eq!(mode(good), Ok(()), "{good}");
        }
        for bad in ["789", "10000", "u=q", "rwx", "u=rwx,", "=rwxu"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }
}
