//! Image references, normalised as Docker does: `alpine` is `docker.io/library/alpine:latest`.
//!
//! The grammar is distribution/reference's. What a newcomer would get wrong: the first component is a registry's
//! domain only if it has a `.`, a `:` or an upper-case letter, or is `localhost`; else it is part of the path.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
/// distribution/reference's limit on the repository name.
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A normalised reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The grammar does not allow it.
    #[error("`{0}` is not an image reference: expected [domain/]path[:tag][@digest]")]
    Format(String),
    /// Upper case in the path.
    #[error("image reference `{0}`: repository name ({1}) must be lowercase")]
    Uppercase(String, String),
    /// 64 hexadecimal digits, which could be an image ID.
    #[error("image reference `{0}`: a name of 64 hexadecimal digits is not allowed")]
    LooksLikeId(String),
    /// The name is longer than 255 bytes.
    #[error("image reference `{0}…`: repository name must not be more than 255 characters")]
    TooLong(String),
    /// Not `sha256:` and 64 lower-case hexadecimal digits.
    #[error("image reference `{0}`: unsupported digest `{1}`, expected sha256:<64 lower-case hex digits>")]
    Digest(String, String),
}

impl Reference {
    /// Parses and normalises a reference.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId(shown(text)));
        }
        let (domain, remainder) = split_domain(text);
        let name = remainder.split(':').next().unwrap_or_default();
        if name.to_lowercase() != name {
            return Err(ReferenceError::Uppercase(shown(text), shown(name)));
        }
        let bad = || ReferenceError::Format(shown(text));
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(text, digest)?)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_domain(&domain) || !path.split('/').all(is_path_component) || !tag.is_none_or(is_tag) {
            return Err(bad());
        }
        if domain.len() + 1 + path.len() > MAX_NAME_BYTES {
            return Err(ReferenceError::TooLong(shown(text)));
        }
        Ok(Self { domain, path: path.to_string(), tag: tag.map(str::to_string), digest })
    }

    /// Returns the registry's name, with its port if any.
    pub fn domain(&self) -> &str {
        &self.domain
    }
    /// Returns the repository's path in the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// Returns the repository's full name: `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
    /// Returns the tag, if one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// Returns the digest, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the reference with the tag `latest` where it has neither tag nor digest.
    pub fn tagged(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_string());
        }
        self
    }

    /// Returns the reference with another digest.
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Returns the short form for people: `alpine`, `user/app:1`, `ghcr.io/a/b`.
    pub fn familiar(&self) -> String {
        let name = match (self.domain.as_str(), self.path.strip_prefix(OFFICIAL)) {
            (DEFAULT_DOMAIN, Some(short)) if !short.contains('/') => short.to_string(),
            (DEFAULT_DOMAIN, _) => self.path.clone(),
            _ => self.name(),
        };
        format!("{name}{}", Suffix(self))
    }
}

/// The `:tag@digest` of a reference.
struct Suffix<'a>(&'a Reference);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, Suffix(self))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Returns the start of a text, for messages.
fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Splits `text` into the registry's domain and the rest, adding Docker's defaults.
fn split_domain(text: &str) -> (String, String) {
    let (domain, rest) = match text.split_once('/') {
        None => (DEFAULT_DOMAIN, text),
        Some(("index.docker.io", rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) || first.to_lowercase() != first => (first, rest),
        Some(_) => (DEFAULT_DOMAIN, text),
    };
    let official = domain == DEFAULT_DOMAIN && !rest.contains('/');
    (domain.to_string(), if official { format!("{OFFICIAL}{rest}") } else { rest.to_string() })
}

fn parse_digest(text: &str, digest: &str) -> Result<Digest, ReferenceError> {
    digest.parse().map_err(|_| ReferenceError::Digest(shown(text), shown(digest)))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, after)) => {
            if v6.is_empty() || !v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            match after {
                "" => return true,
                after => ("v6", after.strip_prefix(':').or(Some(""))),
            }
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label =
        |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    host.split('.').all(label) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(|b| word(*b)) || !bytes.last().is_some_and(|b| word(*b)) {
        return false;
    }
    bytes.split(|b| word(*b)).all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG_BYTES && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for (text, tagged, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("user/app", "docker.io/user/app:latest", "user/app"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine"),
            ("index.docker.io/user/app", "docker.io/user/app:latest", "user/app"),
            ("localhost/app", "localhost/app:latest", "localhost/app"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x"),
            ("a__b--c.d", "docker.io/library/a__b--c.d:latest", "a__b--c.d"),
            (&format!("x@{digest}"), &format!("docker.io/library/x@{digest}"), &format!("x@{digest}")),
            (&format!("x:1@{digest}"), &format!("docker.io/library/x:1@{digest}"), &format!("x:1@{digest}")),
        ] {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!(parsed.familiar(), familiar, "{text}");
            assert_eq!(parsed.tagged().to_string(), tagged, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference() {
        for text in
            ["", ":tag", "a:", "a b", "-a", "a..b", "a___b", "a//b", "A/b:c/d", "x@sha256:00", "x@md5:aa", "[]/x", "[::1]x/y", "a:b:c"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
        assert!(matches!(Reference::parse("App"), Err(ReferenceError::Uppercase(..))));
        assert!(matches!(Reference::parse(&"f".repeat(64)), Err(ReferenceError::LooksLikeId(_))));
        assert!(matches!(Reference::parse(&"f/".repeat(200)), Err(ReferenceError::Format(_))));
        assert!(matches!(Reference::parse(&"f".repeat(250)), Err(ReferenceError::TooLong(_))));
    }
}
