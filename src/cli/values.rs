//! Readers of flag values whose form docker gave: sizes, limits, hosts, comma-separated fields.
//!
//! Pure: each takes the text of one value and returns it typed, or says what was expected. What needs the
//! environment or a file (`--build-arg NAME`, `--secret`) is read in the command that has the flag.

use std::net::IpAddr;

use crate::graph::{Entitlement, NetworkMode};
use crate::image::platform::Platform;

/// A flag's value that can't be read; the flag's name is added by whoever knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Of another form.
    #[error("expected {expected}, got `{text}`")]
    Form {
        /// What it should look like.
        expected: &'static str,
        /// What was given.
        text: String,
    },
    /// A quote that is not closed.
    #[error("a quote is not closed in `{0}`")]
    Quote(String),
    /// A key that the flag doesn't have.
    #[error("`{key}` is not a field of this flag{}", nearest.map(|n| format!(": did you mean `{n}`?")).unwrap_or_default())]
    Field {
        /// The unknown key.
        key: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// A thing that docker has and Plywood has not.
    #[error("{0} is not supported{1}")]
    Unsupported(String, &'static str),
}

impl ValueError {
    /// Returns the error for a text of another form.
    pub fn form(expected: &'static str, text: &str) -> Self {
        Self::Form { expected, text: text.into() }
    }
}

/// Splits one line of CSV as Go's encoding/csv does: `a,"b,c","d""e"` has the fields `a`, `b,c` and `d"e`.
pub fn csv(text: &str) -> Result<Vec<String>, ValueError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let Some(end) = quoted.find('"') else { return Err(ValueError::Quote(text.into())) };
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                let Some(more) = quoted.strip_prefix('"') else { break };
                field.push('"');
                quoted = more;
            }
            rest = quoted;
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(ValueError::form("a comma after a quoted field", text));
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(fields),
        }
    }
}

/// Splits `KEY=VALUE` fields; the keys are lower-cased as docker does. A field without `=` has no value.
pub fn fields(text: &str) -> Result<Vec<(String, Option<String>)>, ValueError> {
    Ok(csv(text)?
        .into_iter()
        .map(|f| match f.split_once('=') {
            Some((k, v)) => (k.trim().to_lowercase(), Some(v.to_owned())),
            None => (f.trim().to_lowercase(), None),
        })
        .collect())
}

/// Reads a boolean as Go's strconv does.
pub fn boolean(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::form("true or false", text)),
    }
}

/// Reads a size in bytes: `64m`, `1.5g`, `512KiB`; steps of 1024, as docker's memory sizes are.
pub fn size_bytes(text: &str) -> Result<u64, ValueError> {
    let bad = || ValueError::form("a size such as 64m or 1.5g", text);
    let trimmed = text.trim().to_lowercase();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let unit = unit.trim();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(bad);
    }
    let fraction: f64 = number.parse().map_err(|_| bad())?;
    let bytes = fraction * (1u64 << shift) as f64;
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(bad()) }
}

/// Reads a duration: `90s`, `12h`, `1h30m`, `7d`.
pub fn duration(text: &str) -> Result<std::time::Duration, ValueError> {
    let bad = || ValueError::form("a duration such as 90s, 12h or 7d", text);
    let (mut rest, mut secs) = (text.trim(), 0u64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..end].parse().map_err(|_| bad())?;
        let unit = match rest[end..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86400,
            _ => return Err(bad()),
        };
        secs = number.checked_mul(unit).and_then(|n| secs.checked_add(n)).ok_or_else(bad)?;
        rest = &rest[end + 1..];
    }
    if text.trim().is_empty() { Err(bad()) } else { Ok(std::time::Duration::from_secs(secs)) }
}

/// Reads a platform; `local` is this machine's.
pub fn platform(text: &str) -> Result<Platform, String> {
    if text == "local" {
        return Ok(Platform::host());
    }
    text.parse::<Platform>().map_err(|e| e.to_string())
}

/// Reads `--network`.
pub fn network(text: &str) -> Result<NetworkMode, ValueError> {
    match text {
        "" | "default" => Ok(NetworkMode::Default),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => Err(ValueError::form("default, none or host", text)),
    }
}

/// Reads `--allow`.
pub fn entitlement(text: &str) -> Result<Entitlement, ValueError> {
    match text {
        "network.host" => Ok(Entitlement::NetworkHost),
        "security.insecure" => Ok(Entitlement::SecurityInsecure),
        _ => Err(ValueError::form("network.host or security.insecure", text)),
    }
}

/// Reads `HOST=ADDRESS` or `HOST:ADDRESS`; an IPv6 address may stand in brackets.
pub fn add_host(text: &str) -> Result<(String, String), ValueError> {
    const EXPECTED: &str = "HOST=ADDRESS with an IPv4 or IPv6 address";
    let bad = || ValueError::form(EXPECTED, text);
    let (host, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    if address == "host-gateway" {
        return Err(ValueError::Unsupported("`host-gateway`".into(), ": name the host's address"));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if host.is_empty() || host.contains(char::is_whitespace) || bare.parse::<IpAddr>().is_err() {
        return Err(bad());
    }
    Ok((host.into(), bare.into()))
}

/// The resources that `--ulimit` knows, as docker spells them.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads `NAME=SOFT[:HARD]`; `-1` is unlimited (`u64::MAX`), a missing hard limit equals the soft one.
pub fn ulimit(text: &str) -> Result<(String, u64, u64), ValueError> {
    let bad = || ValueError::form("NAME=SOFT[:HARD]", text);
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    if !ULIMITS.contains(&name) {
        return Err(ValueError::Field { key: name.into(), nearest: nearest(name, &ULIMITS) });
    }
    let limit = |t: &str| if t == "-1" { Ok(u64::MAX) } else { t.parse::<u64>().map_err(|_| bad()) };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (limit(soft)?, limit(hard)?),
        None => (limit(limits)?, limit(limits)?),
    };
    if soft > hard {
        return Err(ValueError::form("a soft limit that is not above the hard one", text));
    }
    Ok((name.into(), soft, hard))
}

/// Reads `NAME=VALUE`; `None` for `NAME` alone.
pub fn assignment(text: &str) -> Result<(String, Option<String>), ValueError> {
    let (name, value) = match text.split_once('=') {
        Some((n, v)) => (n, Some(v.to_owned())),
        None => (text, None),
    };
    if name.is_empty() { Err(ValueError::form("NAME=VALUE or NAME", text)) } else { Ok((name.into(), value)) }
}

/// Returns the word that `text` was most likely meant to be: at most a third of it differs.
pub fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let best = words.iter().map(|w| (edit_distance(text, w), *w)).min()?;
    (best.0 <= 1.max(text.chars().count() / 3)).then_some(best.1)
}

/// Counts the single-character edits that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(ca != *cb)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_split_as_go_splits_it() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[""]),
            ("a", &["a"]),
            ("a,b,", &["a", "b", ""]),
            (r#"a,"b,c",d"#, &["a", "b,c", "d"]),
            (r#""a""b""#, &[r#"a"b"#]),
            (r#"type=oci,"name=x,y",dest=f"#, &["type=oci", "name=x,y", "dest=f"]),
        ];
        for (text, want) in cases {
            assert_eq!(csv(text).unwrap(), *want, "{text}");
        }
        assert_eq!(csv("\"a"), Err(ValueError::Quote("\"a".into())));
        assert!(csv("\"a\"b").is_err());
    }

    #[test]
    fn sizes_step_by_1024() {
        let cases = [("0", 0), ("32m", 32 << 20), ("1g", 1 << 30), ("1.5k", 1536), ("64KB", 65536), ("2MiB", 2 << 20), ("7b", 7)];
        for (text, want) in cases {
            assert_eq!(size_bytes(text), Ok(want), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "99999999999999999999g", "1..5m", "0x10"] {
            assert!(size_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_add_up() {
        let cases = [("90s", 90), ("1h30m", 5400), ("7d", 604_800)];
        for (text, want) in cases {
            assert_eq!(duration(text).map(|d| d.as_secs()), Ok(want), "{text}");
        }
        for bad in ["", "5", "h", "1w", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_take_either_separator() {
        let cases = [
            ("one.example=10.1.2.3", ("one.example", "10.1.2.3")),
            ("two.example:10.4.5.6", ("two.example", "10.4.5.6")),
            ("six.example=fd00::7", ("six.example", "fd00::7")),
            ("six.example:[fd00::7]", ("six.example", "fd00::7")),
        ];
        for (text, (host, address)) in cases {
            assert_eq!(add_host(text), Ok((host.into(), address.into())), "{text}");
        }
        for bad in ["x", "=1.2.3.4", "h=", "h=1.2.3", "a b=1.2.3.4", "h=host-gateway"] {
            assert!(add_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_side() {
        assert_eq!(ulimit("nofile=500:600"), Ok(("nofile".into(), 500, 600)));
        assert_eq!(ulimit("core=0"), Ok(("core".into(), 0, 0)));
        assert_eq!(ulimit("stack=1:-1"), Ok(("stack".into(), 1, u64::MAX)));
        assert_eq!(ulimit("nofiles=1"), Err(ValueError::Field { key: "nofiles".into(), nearest: Some("nofile") }));
        for bad in ["nofile", "nofile=", "nofile=a", "nofile=2:1", "nofile=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_word_is_near() {
        let words = ["type", "dest", "name", "compression"];
        assert_eq!(nearest("tpye", &words), None); // two edits in four letters
        assert_eq!(nearest("typ", &words), Some("type"));
        assert_eq!(nearest("compresion", &words), Some("compression"));
        assert_eq!(nearest("zzz", &words), None);
    }
}
