//! Turns a text in registries.conf's form into [`Rules`]; which files there are is `cli`'s to find. It reads nothing itself.
//!
//! What a newcomer would get wrong: unknown keys of a `[[registry]]` are an error, not ignored: a misspelt `blocked`
//! would let through what was to be kept out. Unknown keys elsewhere belong to other programs.
//!
//! What follows is the page for users.
#![doc = include_str!("registries.md")]

use serde::Deserialize;
use toml::Spanned;

use super::rules::{AskedFor, Mirror, Rule, Rules};

/// A file that can't be used, with the place in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct ConfError {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Spanned<RegistryTable>>,
    /// Of version 1.
    registries: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RegistryTable {
    prefix: Option<Spanned<String>>,
    location: Option<Spanned<String>>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MirrorTable {
    location: Spanned<String>,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Spanned<String>>,
}

/// What is wrong, and where in the text.
type Fault = (std::ops::Range<usize>, String);

impl Rules {
    /// Adds what a file says; of a prefix that is known already, the file's word replaces the old one as a whole.
    pub fn add_file(&mut self, file: &str, text: &str) -> Result<(), ConfError> {
        let added = parse(file, text).map_err(|(at, message)| {
            let before = text.get(..at.start.min(text.len())).unwrap_or_default();
            let line_start = before.rfind('\n').map_or(0, |n| n + 1);
            let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
            ConfError { file: file.into(), line, column, message }
        })?;
        self.0.retain(|old| added.iter().all(|new| new.prefix != old.prefix));
        self.0.extend(added);
        Ok(())
    }
}

fn parse(file: &str, text: &str) -> Result<Vec<Rule>, Fault> {
    let parsed: File = toml::from_str(text).map_err(|e| (e.span().unwrap_or_default(), e.message().replace('\n', ", ")))?;
    if let Some(old) = parsed.registries {
        let message =
            "the file is of version 1, which is not read any more: `[[registry]]` tables say the same (containers-registries.conf(5))";
        return Err((old.span(), message.into()));
    }
    let mut rules: Vec<Rule> = Vec::new();
    for table in parsed.registry {
        let span = table.span();
        let (rule, at) = table.into_inner().into_rule(file, span)?;
        if let Some(known) = rules.iter_mut().find(|r| r.prefix == rule.prefix) {
            if (known.insecure, known.blocked) != (rule.insecure, rule.blocked) {
                return Err((at, format!("`{}` has another rule above, of another mind about `insecure` or `blocked`", rule.prefix)));
            }
            *known = rule;
        } else {
            rules.push(rule);
        }
    }
    Ok(rules)
}

impl RegistryTable {
    fn into_rule(self, file: &str, table: std::ops::Range<usize>) -> Result<(Rule, std::ops::Range<usize>), Fault> {
        let location = self.location.filter(|l| !l.get_ref().is_empty()).map(place).transpose()?;
        let (prefix, at) = match (self.prefix.filter(|p| !p.get_ref().is_empty()), &location) {
            (Some(prefix), _) => prefix_of(prefix)?,
            (None, Some((location, at))) => (location.clone(), at.clone()),
            (None, None) => return Err((table, "a `[[registry]]` has neither `prefix` nor `location`".into())),
        };
        if location.is_none() && !prefix.starts_with("*.") {
            return Err((at, format!("the rule of `{prefix}` has no `location`; only that of a wildcard (`*.host`) can do without")));
        }
        let digests = self.mirror_by_digest_only;
        let mirrors = self.mirror.into_iter().map(|m| m.into_mirror(digests)).collect::<Result<_, Fault>>()?;
        let location = location.map(|(location, _)| location);
        Ok((Rule { prefix, location, insecure: self.insecure, blocked: self.blocked, mirrors, file: file.into() }, at))
    }
}

impl MirrorTable {
    fn into_mirror(self, digests_only: bool) -> Result<Mirror, Fault> {
        let (location, at) = place(self.location)?;
        let given = self.pull_from_mirror.filter(|p| !p.get_ref().is_empty());
        let asked_for = match given.as_ref().map(|p| (p.get_ref().as_str(), p.span())) {
            Some((_, at)) if digests_only => {
                return Err((at, "`pull-from-mirror` and the registry's `mirror-by-digest-only` exclude each other".into()));
            }
            None if digests_only => AskedFor::DigestOnly,
            None | Some(("all", _)) => AskedFor::All,
            Some(("digest-only", _)) => AskedFor::DigestOnly,
            Some(("tag-only", _)) => AskedFor::TagOnly,
            Some((other, at)) => {
                return Err((at, format!("`{}` is not known: `pull-from-mirror` is `all`, `digest-only` or `tag-only`", shown(other))));
            }
        };
        if location.is_empty() {
            return Err((at, "a mirror has an empty `location`".into()));
        }
        Ok(Mirror { location, insecure: self.insecure, asked_for })
    }
}

/// Reads `host[:port][/namespace…]`; a `/` at the end is nothing.
fn place(text: Spanned<String>) -> Result<(String, std::ops::Range<usize>), Fault> {
    let at = text.span();
    let text = text.into_inner();
    if text.contains("://") {
        return Err((at, format!("`{}` is a URL: host[:port][/path] is expected (`insecure = true` allows http)", shown(&text))));
    }
    let trimmed = text.trim_end_matches('/');
    let host = trimmed.split('/').next().unwrap_or_default();
    if trimmed.contains('@') || trimmed.rsplit_once('/').is_some_and(|(_, last)| last.contains(':')) {
        return Err((at, format!("`{}` has a tag or digest: rules are for whole repositories", shown(&text))));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'/');
    let ok = !host.is_empty() && trimmed.bytes().all(plain) && !trimmed.contains("//");
    ok.then(|| (trimmed.to_string(), at.clone())).ok_or_else(|| (at, format!("`{}` is not host[:port][/path]", shown(&text))))
}

fn prefix_of(text: Spanned<String>) -> Result<(String, std::ops::Range<usize>), Fault> {
    if !text.get_ref().contains('*') {
        return place(text);
    }
    let at = text.span();
    let text = text.into_inner();
    match text.strip_prefix("*.") {
        Some(host) if !host.is_empty() && !host.contains(['*', '/']) => Ok((text, at)),
        _ => Err((at, format!("`{}`: a wildcard stands for the first names of a host alone, as in `*.example.com`", shown(&text)))),
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_pages_example_and_more_are_read() {
        let text = r#"
unqualified-search-registries = ["example.com"]
short-name-mode = "enforcing"
credential-helpers = ["x"]

[[registry]]
prefix = "example.com/foo"
insecure = false
blocked = false
location = "internal-registry-for-example.com/bar/"

[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"

[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo"
insecure = true
pull-from-mirror = "tag-only"

[[registry]]
location = "registry.com"
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.registry.com"

[[registry]]
prefix = "*.blocked.com"
blocked = true

[aliases]
"fedora" = "registry.fedoraproject.org/fedora"
"#;
        let mirror = |location: &str, insecure, asked_for| Mirror { location: location.into(), insecure, asked_for };
        let rule = |prefix: &str, location: Option<&str>, mirrors| Rule {
            prefix: prefix.into(),
            location: location.map(Into::into),
            mirrors,
            file: "f".into(),
            ..Rule::default()
        };
        let mut rules = Rules::default();
        rules.add_file("f", text).unwrap();
        let first = vec![
            mirror("example-mirror-0.local/mirror-for-foo", false, AskedFor::All),
            mirror("example-mirror-1.local/mirrors/foo", true, AskedFor::TagOnly),
        ];
        let want = vec![
            rule("example.com/foo", Some("internal-registry-for-example.com/bar"), first),
            rule("registry.com", Some("registry.com"), vec![mirror("mirror.registry.com", false, AskedFor::DigestOnly)]),
            Rule { blocked: true, ..rule("*.blocked.com", None, Vec::new()) },
        ];
        assert_eq!(rules, Rules(want));
    }

    #[test]
    fn later_files_replace_whole_rules_of_their_prefixes() {
        let mut rules = Rules::default();
        rules
            .add_file("1", "[[registry]]\nlocation='a'\nblocked=true\n[[registry.mirror]]\nlocation='m'\n[[registry]]\nlocation='b'")
            .unwrap();
        rules.add_file("2", "[[registry]]\nprefix='a'\nlocation='c'").unwrap();
        rules.add_file("3", "").unwrap();
        let rule = |prefix: &str, location: &str, file: &str| Rule {
            prefix: prefix.into(),
            location: Some(location.into()),
            file: file.into(),
            ..Rule::default()
        };
        assert_eq!(rules, Rules(vec![rule("b", "b", "1"), rule("a", "c", "2")]));
    }

    #[test]
    fn faults_have_their_place() {
        for (text, place, message) in [
            ("[[registry]\n", "1:12", "unclosed array table, expected `]`"),
            ("\n[[registry]]\nlocation = 5\n", "3:12", "invalid type: integer `5`, expected a string"),
            (
                "[[registry]]\nlocation='a'\nblockd=true\n",
                "3:1",
                "unknown field `blockd`, expected one of `prefix`, `location`, `insecure`, `blocked`, `mirror-by-digest-only`, `mirror`",
            ),
            (
                "[[registry]]\nlocation='https://a'\n",
                "2:10",
                "`https://a` is a URL: host[:port][/path] is expected (`insecure = true` allows http)",
            ),
            ("[[registry]]\nlocation='a b'\n", "2:10", "`a b` is not host[:port][/path]"),
            ("[[registry]]\nlocation='a:5/b:1'\n", "2:10", "`a:5/b:1` has a tag or digest: rules are for whole repositories"),
            ("[[registry]]\nprefix='a'\n", "2:8", "the rule of `a` has no `location`; only that of a wildcard (`*.host`) can do without"),
            (
                "[[registry]]\nprefix='a.*.b'\n",
                "2:8",
                "`a.*.b`: a wildcard stands for the first names of a host alone, as in `*.example.com`",
            ),
            (
                "[[registry]]\nprefix='*.b/c'\n",
                "2:8",
                "`*.b/c`: a wildcard stands for the first names of a host alone, as in `*.example.com`",
            ),
            ("\n[[registry]]\ninsecure=true\n", "2:1", "a `[[registry]]` has neither `prefix` nor `location`"),
            (
                "[[registry]]\nlocation='a'\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='some'\n",
                "5:18",
                "`some` is not known: `pull-from-mirror` is `all`, `digest-only` or `tag-only`",
            ),
            (
                "[[registry]]\nlocation='a'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='all'\n",
                "6:18",
                "`pull-from-mirror` and the registry's `mirror-by-digest-only` exclude each other",
            ),
            (
                "# é\n[[registry]]\nlocation='a'\n[[registry]]\nlocation='a'\nblocked=true\n",
                "5:10",
                "`a` has another rule above, of another mind about `insecure` or `blocked`",
            ),
            (
                "[registries.search]\nregistries=['a']\n",
                "1:2",
                "the file is of version 1, which is not read any more: `[[registry]]` tables say the same (containers-registries.conf(5))",
            ),
        ] {
            let error = Rules::default().add_file("/x/r.conf", text).unwrap_err();
            assert_eq!(error.to_string(), format!("/x/r.conf:{place}: {message}"), "{text}");
        }
    }
}
