//! What ADD takes for a remote source: a git repository, a URL, or neither.
//!
//! The order counts: a URL that ends in `.git` is a repository. A newcomer would expect `github.com/x/y` to be one;
//! without a scheme it is a local path here.

/// What a source's text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SourceKind {
    Git,
    Http,
    Local,
}

/// Tells what a source is. Errors: a repository whose query makes no sense; the message names the part.
pub(super) fn kind(source: &str) -> Result<SourceKind, String> {
    if let Some(query) = git_query(source) {
        check_query(query).map_err(|why| format!("git source `{source}`: {why}"))?;
        return Ok(SourceKind::Git);
    }
    let http = source.starts_with("http://") || source.starts_with("https://");
    Ok(if http { SourceKind::Http } else { SourceKind::Local })
}

/// Returns the query of a git source; none: it is no git source.
fn git_query(source: &str) -> Option<&str> {
    if source.starts_with("./") || source.starts_with("../") {
        return None;
    }
    let (before_fragment, _) = source.split_once('#').unwrap_or((source, ""));
    let (address, query) = before_fragment.split_once('?').unwrap_or((before_fragment, ""));
    let scheme = source.split_once("://").map(|(s, _)| s).filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric()));
    match scheme.map(str::to_lowercase).as_deref() {
        Some("http" | "https") => {
            let path = address.split_once("://")?.1.split_once('/')?.1;
            path.ends_with(".git").then_some(query)
        }
        Some("ssh" | "git") => Some(query),
        Some(_) => None,
        None => {
            // user@host:path
            let (user, rest) = address.split_once('@')?;
            let (host, _) = rest.split_once(':')?;
            let word =
                |t: &str, more: &[u8]| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || more.contains(&b));
            (word(user, b"_") && word(host, b".")).then_some(query)
        }
    }
}

fn check_query(query: &str) -> Result<(), String> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let flag = matches!(key, "submodules" | "keep-git-dir" | "fetch-by-commit");
        if seen.iter().any(|(k, _)| *k == key) {
            return Err(format!("query `{key}` has multiple values"));
        }
        match (key, value) {
            ("ref" | "tag" | "branch" | "subdir" | "checksum" | "commit" | "mtime", "") => {
                return Err(format!("query `{key}` has no value"));
            }
            ("mtime", "checkout" | "commit") | ("ref" | "tag" | "branch" | "subdir" | "checksum" | "commit", _) => {}
            (_, "" | "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False") if flag => {}
            ("mtime", _) => return Err(format!("invalid {key} value: `{value}`")),
            _ if flag => return Err(format!("invalid {key} value: `{value}`")),
            _ => return Err(format!("unexpected query `{key}`")),
        }
        seen.push((key, value));
    }
    let has = |key: &str| seen.iter().any(|(k, _)| *k == key);
    if has("branch") && has("tag") {
        return Err("branch conflicts with tag".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (source, want) in [
            ("https://x.org/a/b.git", SourceKind::Git),
            ("https://x.org/a/b.git#main:sub", SourceKind::Git),
            ("https://x.org/a/b.git?ref=v1&submodules=0", SourceKind::Git),
            ("git@github.com:a/b", SourceKind::Git),
            ("ssh://git@x.org/a", SourceKind::Git),
            ("git://x.org/a", SourceKind::Git),
            ("https://x.org/a.tar.gz", SourceKind::Http),
            ("http://x.git", SourceKind::Http),
            ("github.com/a/b.git", SourceKind::Local),
            ("./a@b:c", SourceKind::Local),
            ("ftp://x/y", SourceKind::Local),
            ("a b", SourceKind::Local),
        ] {
            assert_eq!(kind(source), Ok(want), "{source}");
        }
        for bad in ["https://x.org/b.git?foo=1", "https://x.org/b.git?ref=", "git://x/a?tag=1&branch=2", "git://x/a?ref=1&ref=2"] {
            assert!(kind(bad).is_err(), "{bad}");
        }
    }
}
