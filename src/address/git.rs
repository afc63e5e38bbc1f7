//! A git repository's address, as BuildKit reads it: `https://HOST/REPO.git#REF:SUBDIR`, `?tag=…&subdir=…`, `git@HOST:REPO`.
//!
//! What a newcomer would get wrong: `?ref=` may be given beside `#REF` when both say the same; `tag=` and `branch=` make
//! full names of refs, so that a branch is never found by `tag=`.

use super::{Parts, cut, decode};

const SCHEMES: [&str; 4] = ["http", "https", "ssh", "git"];

/// A repository and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitAddress {
    /// As written, all of it.
    pub text: String,
    /// What git is asked for: without fragment and query, credentials included.
    pub remote: String,
    /// A commit, a branch, a tag, or a full ref; none: the default branch.
    pub reference: Option<String>,
    /// Below the repository's root, cleaned; empty: the root.
    pub subdir: String,
    /// What the commit's name must begin with.
    pub checksum: Option<String>,
    /// Whether `.git` is part of the result, where the address says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched, where the address says so: they are by default.
    pub submodules: Option<bool>,
    /// The time of the files, where the address says so.
    pub mtime: Option<CheckoutTime>,
    /// The checksum is the commit: the remote is not asked where the ref points.
    pub fetch_by_commit: bool,
}

/// What time a checkout's files get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckoutTime {
    /// Now.
    Checkout,
    /// The commit's.
    Commit,
}

/// Tells whether a text is a full commit name: SHA-1 or SHA-256 in lower case.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl GitAddress {
    /// Reads an address; none: it is something else. Errors: what is wrong with it, credentials masked.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        Self::read(text).transpose().map_err(|why| format!("git source `{}`: {why}", super::redact(text)))
    }

    /// As [`GitAddress::parse`], for a context: there `github.com/USER/REPO` is an address, too.
    pub fn parse_context(text: &str) -> Result<Option<Self>, String> {
        if text.starts_with("github.com/") {
            let full = format!("https://{text}");
            let read = Self::of_parts(text, &full).expect("the text is a URL");
            return read.map(Some).map_err(|why| format!("git source `{}`: {why}", super::redact(text)));
        }
        Self::parse(text)
    }

    /// Makes an address of a repository's bare URL, such as a submodule's: no fragment, no query. Errors: why it is refused.
    pub fn repository(url: &str) -> Result<Self, String> {
        let allowed = match url.split_once("://") {
            Some((scheme, _)) => SCHEMES.contains(&scheme.to_lowercase().as_str()),
            None => url.split_once('@').is_some_and(|(_, rest)| rest.contains(':')) && !url.contains("::"),
        };
        if !allowed {
            return Err("only http, https, ssh and git are spoken".into());
        }
        Self::with(url, url.into(), "", None)
    }

    /// Returns the address without credentials and all that is not the repository, to be shown.
    pub fn shown(&self) -> String {
        super::redact(&self.remote)
    }

    fn read(text: &str) -> Option<Result<Self, String>> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let Some(parts) = Parts::of(text) else { return Self::of_scp(text) };
        let scheme = parts.scheme.to_lowercase();
        if !SCHEMES.contains(&scheme.as_str()) {
            return None;
        }
        let http = scheme.starts_with("http");
        if http && !decode(parts.path, false).ends_with(".git") {
            return None;
        }
        Self::of_parts(text, text)
    }

    fn of_parts(text: &str, url: &str) -> Option<Result<Self, String>> {
        let parts = Parts::of(url)?;
        let userinfo = parts.userinfo.map(|u| format!("{u}@")).unwrap_or_default();
        let remote = format!("{}://{userinfo}{}{}", parts.scheme.to_lowercase(), parts.authority, parts.path);
        Some(Self::with(text, remote, &decode(parts.fragment.unwrap_or_default(), false), parts.query))
    }

    /// `user@host:path`.
    fn of_scp(text: &str) -> Option<Result<Self, String>> {
        let (before, fragment) = cut(text, '#');
        let (address, query) = cut(before, '?');
        let (user, rest) = address.split_once('@')?;
        let (host, _) = rest.split_once(':')?;
        let word = |t: &str, more: &[u8]| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || more.contains(&b));
        if !word(user, b"_") || !word(host, b".") {
            return None;
        }
        Some(Self::with(text, address.into(), fragment.unwrap_or_default(), query))
    }

    fn with(text: &str, remote: String, fragment: &str, query: Option<&str>) -> Result<Self, String> {
        let (reference, subdir) = cut(fragment, ':');
        let mut address = Self {
            text: text.into(),
            remote,
            reference: Some(reference.to_string()).filter(|r| !r.is_empty()),
            subdir: clean(subdir.unwrap_or_default()),
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            mtime: None,
            fetch_by_commit: false,
        };
        address.load_query(query.unwrap_or_default())?;
        address.check()?;
        Ok(address)
    }

    fn load_query(&mut self, query: &str) -> Result<(), String> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = cut(pair, '=');
            let (key, value) = (decode(key, true), decode(value.unwrap_or_default(), true));
            if seen.contains(&key) {
                return Err(format!("query `{key}` has multiple values"));
            }
            match key.as_str() {
                "submodules" => self.submodules = Some(flag(&key, &value)?),
                "keep-git-dir" => self.keep_git_dir = Some(flag(&key, &value)?),
                "fetch-by-commit" => self.fetch_by_commit = flag(&key, &value)?,
                "ref" | "tag" | "branch" | "subdir" | "checksum" | "commit" | "mtime" if value.is_empty() => {
                    return Err(format!("query `{key}` has no value"));
                }
                "ref" => self.set_reference(&value)?,
                "tag" => tag = Some(prefixed("refs/tags/", &value)),
                "branch" => branch = Some(prefixed("refs/heads/", &value)),
                "subdir" => self.set_subdir(&value)?,
                "checksum" | "commit" => self.checksum = Some(value),
                "mtime" if value == "checkout" => self.mtime = Some(CheckoutTime::Checkout),
                "mtime" if value == "commit" => self.mtime = Some(CheckoutTime::Commit),
                "mtime" => return Err(format!("invalid mtime value: `{value}` (must be `checkout` or `commit`)")),
                _ => return Err(format!("unexpected query `{key}`")),
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err("branch conflicts with tag".into());
        }
        tag.or(branch).map_or(Ok(()), |reference| self.set_reference(&reference))
    }

    fn set_reference(&mut self, value: &str) -> Result<(), String> {
        match &self.reference {
            Some(other) if other != value => Err(format!("ref conflicts: `{other}` vs `{value}`")),
            _ => {
                self.reference = Some(value.into());
                Ok(())
            }
        }
    }

    fn set_subdir(&mut self, value: &str) -> Result<(), String> {
        let value = clean(value);
        if !self.subdir.is_empty() && self.subdir != value {
            return Err(format!("subdir conflicts: `{}` vs `{value}`", self.subdir));
        }
        self.subdir = value;
        Ok(())
    }

    /// Refuses what git or ssh would take for an option, and what can't be part of a line.
    fn check(&self) -> Result<(), String> {
        let odd = |text: &str| text.chars().any(char::is_control);
        if let Some(reference) = self.reference.as_deref().filter(|r| r.starts_with('-') || odd(r) || r.contains(':') || r.contains('*')) {
            return Err(format!("invalid git ref `{reference}`"));
        }
        let after_scheme = self.remote.split_once("://").map_or(self.remote.as_str(), |(_, rest)| rest);
        let host = after_scheme.rsplit_once('@').map_or(after_scheme, |(_, host)| host);
        if after_scheme.starts_with('-') || host.starts_with('-') || host.is_empty() || odd(&self.remote) {
            return Err("not an address of a repository".into());
        }
        if let Some(checksum) = self.checksum.as_deref() {
            check_commit_prefix(checksum)?;
        }
        Ok(())
    }
}

/// Refuses a checksum that is no beginning of a commit's name.
fn check_commit_prefix(checksum: &str) -> Result<(), String> {
    match !checksum.is_empty() && checksum.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(()),
        false => Err(format!("invalid checksum `{checksum}` for Git URL, expected hex commit hash")),
    }
}

impl GitAddress {
    /// Adds what the flags of ADD say. Errors: they and the address contradict each other, or the checksum is none.
    pub fn with_flags(mut self, keep_git_dir: Option<bool>, checksum: Option<&str>) -> Result<Self, String> {
        match (keep_git_dir, self.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => return Err("inconsistent keep-git-dir configuration".into()),
            (flag, query) => self.keep_git_dir = query.or(flag),
        }
        if let Some(checksum) = checksum {
            check_commit_prefix(checksum)?;
            if let Some(other) = self.checksum.as_deref().filter(|other| *other != checksum) {
                return Err(format!("checksum mismatch `{checksum}` != `{other}`"));
            }
            self.checksum = Some(checksum.into());
        }
        Ok(self)
    }
}

fn prefixed(prefix: &str, value: &str) -> String {
    if value.starts_with(prefix) { value.into() } else { format!("{prefix}{value}") }
}

/// Go's `strconv.ParseBool`; nothing is true.
fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("invalid {key} value: `{value}`")),
    }
}

/// Returns a path below the root, by its text: `..` stays inside.
fn clean(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(out.pop()),
            part => out.push(part),
        }
    }
    out.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> GitAddress {
        GitAddress::parse(text).unwrap().unwrap()
    }

    #[test]
    fn fragment_and_query_say_the_same() {
        let plain = |text: &str, remote: &str| GitAddress {
            text: text.into(),
            remote: remote.into(),
            reference: None,
            subdir: String::new(),
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            mtime: None,
            fetch_by_commit: false,
        };
        let full = |text: &str| GitAddress { reference: Some("v1".into()), subdir: "a/b".into(), ..plain(text, "https://h/x.git") };
        for text in [
            "https://h/x.git#v1:a/b",
            "https://h/x.git?ref=v1&subdir=a/b",
            "HTTPS://h/x.git?ref=v1#v1:/a//b/",
            "https://h/x.git#v1:../a/./b",
        ] {
            assert_eq!(git(text), full(text), "{text}");
        }
        let text = "ssh://git@h:22/x?tag=v1&keep-git-dir&submodules=false&mtime=commit&checksum=abc&fetch-by-commit=1";
        let want = GitAddress {
            reference: Some("refs/tags/v1".into()),
            keep_git_dir: Some(true),
            submodules: Some(false),
            mtime: Some(CheckoutTime::Commit),
            checksum: Some("abc".into()),
            fetch_by_commit: true,
            ..plain(text, "ssh://git@h:22/x")
        };
        assert_eq!(git(text), want);
        assert_eq!(git("git@h:x/y?branch=a%2Fb#refs/heads/a/b").reference.as_deref(), Some("refs/heads/a/b"));
        assert_eq!(git("git@h:x/y").remote, "git@h:x/y");
        assert_eq!(git("https://h/x.git#:sub"), GitAddress { subdir: "sub".into(), ..plain("https://h/x.git#:sub", "https://h/x.git") });
        let short = GitAddress::parse_context("github.com/u/r#main").unwrap().unwrap();
        assert_eq!((short.remote.as_str(), short.reference.as_deref()), ("https://github.com/u/r", Some("main")));
    }

    #[test]
    fn contradictions_and_traps_are_refused() {
        for (text, want) in [
            ("https://h/x.git?tag=v1#refs/heads/main", "ref conflicts: `refs/heads/main` vs `refs/tags/v1`"),
            ("https://h/x.git?tag=a&branch=b", "branch conflicts with tag"),
            ("https://h/x.git?ref=a&ref=a", "query `ref` has multiple values"),
            ("https://h/x.git?subdir=a#:b", "subdir conflicts: `b` vs `a`"),
            ("https://h/x.git?submodules=maybe", "invalid submodules value: `maybe`"),
            ("https://h/x.git?checksum=foobar", "invalid checksum `foobar` for Git URL, expected hex commit hash"),
            ("https://h/x.git#--upload-pack=touch", "invalid git ref `--upload-pack=touch`"),
            ("https://h/x.git#a%0ab", "invalid git ref `a\nb`"),
            ("https://h/x.git?ref=a:b", "invalid git ref `a:b`"),
            ("ssh://-oProxyCommand=x/y", "not an address of a repository"),
            ("ssh://u@-oProxyCommand=x/y", "not an address of a repository"),
            ("-u@h:y", "not an address of a repository"),
            ("https://u:p@h/x.git?foo=1", "unexpected query `foo`"),
        ] {
            let error = GitAddress::parse(text).unwrap_err();
            assert!(error.ends_with(want), "{text}: {error}");
            assert!(!error.contains("u:p@"), "{error}");
        }
        for (text, flags, want) in [
            ("https://h/x.git?keep-git-dir=false", (Some(true), None), "inconsistent keep-git-dir configuration"),
            ("https://h/x.git?checksum=ab", (None, Some("cd")), "checksum mismatch `cd` != `ab`"),
            ("https://h/x.git", (None, Some("sha256:00")), "invalid checksum `sha256:00` for Git URL, expected hex commit hash"),
        ] {
            assert_eq!(git(text).with_flags(flags.0, flags.1), Err(want.into()), "{text}");
        }
    }

    #[test]
    fn commits_are_full_names_in_lower_case() {
        for (text, want) in
            [("a".repeat(40), true), ("0".repeat(64), true), ("A".repeat(40), false), ("a".repeat(39), false), (String::new(), false)]
        {
            assert_eq!(is_commit(&text), want, "{text}");
        }
    }
}
