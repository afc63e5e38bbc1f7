//! Addresses of things that lie elsewhere: http(s) URLs and git repositories, as text. Pure.
//!
//! | file | holds |
//! |---|---|
//! | this | which kind a source is, names of downloads, credentials taken out of text |
//! | `git` | [`GitAddress`]: a repository, with what its fragment and query ask for |
//!
//! The order counts (A-1 of BuildKit's rules): a URL whose path ends in `.git` is a repository. A newcomer would expect
//! `github.com/x/y` to be one; without a scheme it is a local path, but for contexts.

mod git;

pub use git::{CheckoutTime, GitAddress, is_commit};

/// Stands for what must not be shown.
const MASK: &str = "xxxxx";
/// What BuildKit calls the download of a URL without a path.
const UNNAMED: &str = "__unnamed__";
/// What BuildKit calls a download whose own name can't be used.
const UNUSABLE: &str = "download";

/// What a source of ADD is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SourceKind {
    Git(Box<GitAddress>),
    Http,
    Local,
}

/// Tells what a source is. Errors: a repository whose query makes no sense; the message names the part.
pub fn kind(source: &str) -> Result<SourceKind, String> {
    match GitAddress::parse(source)? {
        Some(address) => Ok(SourceKind::Git(Box::new(address))),
        None if is_http(source) => Ok(SourceKind::Http),
        None => Ok(SourceKind::Local),
    }
}

/// Tells whether a text is an http or https URL.
pub fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Returns what a download is called in a directory: the last part of the URL's path, one name without a slash.
pub fn file_name(url: &str) -> String {
    let path = decode(Parts::of(url).map_or("", |p| p.path), false);
    let trimmed = path.trim_end_matches('/');
    let name = trimmed.rsplit('/').next().unwrap_or_default();
    match name.trim() {
        "" if trimmed.is_empty() => UNNAMED.into(),
        "" | "." | ".." => UNUSABLE.into(),
        name if name.chars().any(char::is_control) => UNUSABLE.into(),
        name => name.into(),
    }
}

/// A URL taken apart; everything as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Before `://`.
    pub scheme: &'a str,
    /// `user` or `user:password`.
    pub userinfo: Option<&'a str>,
    /// `host` or `host:port`.
    pub authority: &'a str,
    /// From its first slash on; may be empty.
    pub path: &'a str,
    /// After `?`.
    pub query: Option<&'a str>,
    /// After `#`.
    pub fragment: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// Takes a URL with a scheme and `//` apart; none: it is no such URL.
    pub fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://").filter(|(s, _)| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric()))?;
        let (rest, fragment) = cut(rest, '#');
        let (rest, query) = cut(rest, '?');
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        Some(Self { scheme, userinfo, authority, path, query, fragment })
    }

    /// Returns the host without its port.
    pub fn host(&self) -> &'a str {
        match self.authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => self.authority.split(':').next().unwrap_or_default(),
        }
    }

    /// Returns user and password, decoded.
    pub fn credentials(&self) -> Option<(String, String)> {
        let (user, password) = cut(self.userinfo?, ':');
        Some((decode(user, false), decode(password.unwrap_or_default(), false)))
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// Decodes `%xx`, and `+` in a query; what is no such sequence stays.
fn decode(text: &str, query: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |n: usize| bytes.get(i + n).and_then(|b| char::from(*b).to_digit(16));
        match bytes[i] {
            b'%' if hex(1).is_some() && hex(2).is_some() => {
                out.push(u8::try_from(hex(1).unwrap_or(0) * 16 + hex(2).unwrap_or(0)).unwrap_or(b'?'));
                i += 2;
            }
            b'+' if query => out.push(b' '),
            b => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns a text with the credentials of all URLs in it masked, as BuildKit masks them.
///
/// A user without a password stays where it is no secret: in `ssh://git@host`.
pub fn redact(text: &str) -> String {
    masked(text, |user, password| match (user, password) {
        (_, None) => MASK.into(),
        ("", Some(_)) => format!(":{MASK}"),
        _ => format!("{MASK}:{MASK}"),
    })
}

/// As [`redact`], each byte replaced by one: for excerpts that marks are put under.
pub fn redact_in_place(text: &str) -> String {
    masked(text, |user, password| "x".repeat(user.len() + password.map_or(0, |p| p.len() + 1)))
}

fn masked(text: &str, mask: impl Fn(&str, Option<&str>) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '`' | '<' | '>')).unwrap_or(after.len());
        let secret_user = before.ends_with("http://") || before.ends_with("https://");
        let skip = after[..end].rfind('@').filter(|at| *at > 0 && (secret_user || after[..*at].contains(':'))).unwrap_or(0);
        if skip > 0 {
            let (user, password) = cut(&after[..skip], ':');
            out.push_str(&mask(user, password));
        }
        rest = &after[skip..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (source, want) in [
            ("https://x.org/a/b.git", "git"),
            ("https://x.org/a/b.git#main:sub", "git"),
            ("https://x.org/a/b.git?ref=v1&submodules=0", "git"),
            ("git@github.com:a/b", "git"),
            ("ssh://git@x.org/a", "git"),
            ("git://x.org/a", "git"),
            ("https://x.org/a.tar.gz", "http"),
            ("http://x.git", "http"),
            ("github.com/a/b.git", "local"),
            ("./a@b:c", "local"),
            ("ftp://x/y", "local"),
            ("a b", "local"),
        ] {
            let found = match kind(source).unwrap() {
                SourceKind::Git(_) => "git",
                SourceKind::Http => "http",
                SourceKind::Local => "local",
            };
            assert_eq!(found, want, "{source}");
        }
        for bad in ["https://x.org/b.git?foo=1", "https://x.org/b.git?ref=", "git://x/a?tag=1&branch=2", "git://x/a?ref=1&ref=2"] {
            assert!(kind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_download_is_named_by_the_urls_path() {
        for (url, want) in [
            ("https://x.org/a/b.tar.gz", "b.tar.gz"),
            ("https://x.org/a/b?c=/d#/e", "b"),
            ("https://x.org/a/", "a"),
            ("https://x.org", "__unnamed__"),
            ("https://x.org/", "__unnamed__"),
            ("https://x.org?x=/y", "__unnamed__"),
            ("https://x.org/a%20b", "a b"),
            ("https://x.org/%2e%2e%2fetc%2fpasswd", "passwd"),
            ("https://x.org/a/..", "download"),
            ("https://x.org/%2e%2e", "download"),
            ("https://x.org/a%00b", "download"),
            ("https://x.org/a%0ab", "download"),
            ("https://x.org/a/%20", "download"),
            ("https://u:p@x.org/f%zz", "f%zz"),
        ] {
            assert_eq!(file_name(url), want, "{url}");
        }
    }

    #[test]
    fn credentials_are_masked_wherever_they_stand() {
        for (text, want, in_place) in [
            ("ADD https://u:p@h/f /", "ADD https://xxxxx:xxxxx@h/f /", "ADD https://xxx@h/f /"),
            ("https://token@h/f", "https://xxxxx@h/f", "https://xxxxx@h/f"),
            ("https://:p@h", "https://:xxxxx@h", "https://xx@h"),
            ("\"http://a:b@h\" \"https://c@i/@\"", "\"http://xxxxx:xxxxx@h\" \"https://xxxxx@i/@\"", "\"http://xxx@h\" \"https://x@i/@\""),
            ("ssh://git@h/x", "ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:pw@h/x", "ssh://xxxxx:xxxxx@h/x", "ssh://xxxxxx@h/x"),
            ("https://h/a@b", "https://h/a@b", "https://h/a@b"),
            ("no url: a@b", "no url: a@b", "no url: a@b"),
        ] {
            assert_eq!((redact(text), redact_in_place(text)), (want.into(), in_place.into()), "{text}");
        }
    }
}
