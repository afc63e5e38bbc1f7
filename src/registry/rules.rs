//! Which registries are asked for a name: mirrors, another location, none at all. The terms are those of
//! containers-registries.conf(5); reading the file is [`super::conf`]'s.
//!
//! One rule counts for a name: the one with the longest prefix. The name itself never changes: an image that a mirror
//! gave is known, tagged and pushed as if its own registry had given it.
//!
//! What a newcomer would get wrong: `prefix` ends at a separator. `r.example` is not the beginning of `r.example.org/a`,
//! nor of `r.example:5000/a`: another port is another registry.

use super::client::{HUB_HOST, HUB_NAME, Repository};

/// The rules of all files, each prefix once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(pub Vec<Rule>);

/// What counts for the names that begin in one way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// `host[:port][/namespace…]`, a whole reference, or `*.host` for all hosts below it.
    pub prefix: String,
    /// What stands in place of the prefix; none: the name itself says where.
    pub location: Option<String>,
    /// The location may be spoken to without TLS, or with a certificate that nobody vouches for.
    pub insecure: bool,
    /// Nothing is pulled from or pushed to it.
    pub blocked: bool,
    /// Asked first, in order.
    pub mirrors: Vec<Mirror>,
    /// The file that the rule is from, for messages.
    pub file: String,
}

/// A copy of a rule's names elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// What stands in place of the prefix.
    pub location: String,
    /// As [`Rule::insecure`].
    pub insecure: bool,
    /// What it is asked for.
    pub asked_for: AskedFor,
}

/// What a mirror is asked for (`pull-from-mirror`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AskedFor {
    /// Everything.
    #[default]
    All,
    /// Images by digest only: a mirror may be behind with tags.
    DigestOnly,
    /// Images by tag only.
    TagOnly,
}

/// How an image is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedBy {
    Tag,
    Digest,
}

/// A repository where it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The registry and the repository there; credentials are this one's.
    pub at: Repository,
    /// Certificates are not verified, and http serves where https does not.
    pub lax: bool,
    /// It is a mirror: when it fails, there is another place.
    pub mirror: bool,
}

impl Place {
    /// Returns the host that is asked, with its port if any.
    pub(super) fn authority(&self) -> &str {
        if self.at.host == HUB_NAME { HUB_HOST } else { &self.at.host }
    }
}

impl Rules {
    /// Returns the places of a repository for reading, in the order in which they are asked: the last one is its own.
    ///
    /// The error is the rule that blocks it.
    pub(super) fn places(&self, of: &Repository, by: NamedBy) -> Result<Vec<Place>, &Rule> {
        let Some((rule, matched)) = self.find(of) else { return Ok(vec![own(of, false)]) };
        if rule.blocked {
            return Err(rule);
        }
        let wanted = |m: &&Mirror| match m.asked_for {
            AskedFor::All => true,
            AskedFor::DigestOnly => by == NamedBy::Digest,
            AskedFor::TagOnly => by == NamedBy::Tag,
        };
        let mirrors = rule.mirrors.iter().filter(wanted).map(|m| Place { mirror: true, ..moved(of, matched, &m.location, m.insecure) });
        let last = match &rule.location {
            Some(location) => moved(of, matched, location, rule.insecure),
            None => own(of, rule.insecure),
        };
        Ok(mirrors.chain([last]).collect())
    }

    /// Returns the place of a repository for writing: always its own, since mirrors and locations are for reading.
    ///
    /// The error is the rule that blocks it.
    pub(super) fn place_to_push(&self, of: &Repository) -> Result<Place, &Rule> {
        match self.find(of) {
            Some((rule, _)) if rule.blocked => Err(rule),
            found => Ok(own(of, found.is_some_and(|(rule, _)| rule.insecure))),
        }
    }

    /// Tells whether a rule of a whole host says that it is insecure: one of a namespace says nothing of its host.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        let mirrors = self.0.iter().flat_map(|r| &r.mirrors).any(|m| m.insecure && m.location == host);
        mirrors || self.0.iter().any(|r| r.insecure && r.location.as_deref().unwrap_or(&r.prefix) == host)
    }

    /// Returns the rule with the longest prefix of the name, and how long that is; a prefix in full wins over a wildcard.
    fn find(&self, of: &Repository) -> Option<(&Rule, usize)> {
        let name = format!("{}/{}", of.host, of.path);
        let matches = self.0.iter().filter_map(|rule| Some((rule, matched(&name, &rule.prefix)?)));
        matches.max_by_key(|(rule, length)| (*length, !rule.prefix.starts_with("*.")))
    }
}

/// Returns how many bytes of a name a prefix covers; none: it is no prefix of it.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    if let Some(parent) = prefix.strip_prefix('*') {
        let authority = name.split('/').next().unwrap_or_default();
        let (host, port) = authority.rsplit_once(':').map_or((authority, ""), |(host, port)| (host, port));
        let whole = if parent.contains(':') || port.is_empty() { authority } else { host };
        return (whole.len() > parent.len() && whole.ends_with(parent)).then_some(authority.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

fn own(of: &Repository, lax: bool) -> Place {
    Place { at: of.clone(), lax, mirror: false }
}

/// Puts `location` in place of the first `matched` bytes of the name.
fn moved(of: &Repository, matched: usize, location: &str, lax: bool) -> Place {
    let name = format!("{}/{}", of.host, of.path);
    let name = format!("{location}{}", name.get(matched..).unwrap_or_default());
    let (host, path) = name.split_once('/').unwrap_or((&name, ""));
    Place { at: Repository { host: host.into(), path: path.into() }, lax, mirror: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prefix: &str) -> Rule {
        Rule { prefix: prefix.into(), ..Rule::default() }
    }

    fn mirror(location: &str, asked_for: AskedFor) -> Mirror {
        Mirror { location: location.into(), insecure: false, asked_for }
    }

    fn repository(name: &str) -> Repository {
        let (host, path) = name.split_once('/').unwrap();
        Repository { host: host.into(), path: path.into() }
    }

    fn texts(rules: &Rules, name: &str, by: NamedBy) -> Vec<String> {
        let text =
            |p: Place| format!("{}/{}{}{}", p.at.host, p.at.path, if p.lax { " lax" } else { "" }, if p.mirror { " mirror" } else { "" });
        rules.places(&repository(name), by).unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn prefixes_end_at_separators_and_the_longest_wins() {
        for (name, prefix, want) in [
            ("r.example/a/b", "r.example", Some(9)),
            ("r.example/a/b", "r.example/a", Some(11)),
            ("r.example/a/b", "r.example/a/b", Some(13)),
            ("r.example/ab", "r.example/a", None),
            ("r.example.org/a", "r.example", None),
            ("r.example:5000/a", "r.example", None),
            ("r.example:5000/a", "r.example:5000", Some(14)),
            ("a.r.example/a", "*.r.example", Some(11)),
            ("b.a.r.example/a", "*.r.example", Some(13)),
            ("a.r.example:5000/a", "*.r.example", Some(16)),
            ("a.r.example:5000/a", "*.r.example:5000", Some(16)),
            ("a.r.example:5001/a", "*.r.example:5000", None),
            ("r.example/a", "*.r.example", None),
            ("xr.example/a", "*.r.example", None),
            ("other/a.r.example", "*.r.example", None),
        ] {
            assert_eq!(matched(name, prefix), want, "{name} {prefix}");
        }
        let location = |prefix: &str, to: &str| Rule { location: Some(to.into()), ..rule(prefix) };
        let rules = Rules(vec![
            location("*.example", "wild.test"),
            location("r.example", "whole.test"),
            location("r.example/team", "team.test/x"),
            rule("*.as-it-is.test"),
        ]);
        for (name, want) in [
            ("r.example/a/b", "whole.test/a/b"),
            ("r.example/team/b", "team.test/x/b"),
            ("r.example/team", "team.test/x"),
            ("s.example/a", "wild.test/a"),
            ("s.as-it-is.test/a", "s.as-it-is.test/a"),
            ("docker.io/library/alpine", "docker.io/library/alpine"),
        ] {
            assert_eq!(texts(&rules, name, NamedBy::Tag), [want], "{name}");
        }
    }

    #[test]
    fn mirrors_come_first_and_are_asked_for_what_they_are_for() {
        let mirrors = vec![
            mirror("all.test/hub", AskedFor::All),
            mirror("digests.test", AskedFor::DigestOnly),
            Mirror { insecure: true, ..mirror("tags.test", AskedFor::TagOnly) },
        ];
        let rules = Rules(vec![Rule { mirrors, insecure: true, location: Some("docker.io".into()), ..rule("docker.io") }]);
        let name = "docker.io/library/alpine";
        let own = "docker.io/library/alpine lax";
        assert_eq!(texts(&rules, name, NamedBy::Tag), ["all.test/hub/library/alpine mirror", "tags.test/library/alpine lax mirror", own]);
        assert_eq!(texts(&rules, name, NamedBy::Digest), ["all.test/hub/library/alpine mirror", "digests.test/library/alpine mirror", own]);
        assert_eq!(rules.place_to_push(&repository(name)).unwrap(), Place { at: repository(name), lax: true, mirror: false });
        let insecure = ["docker.io", "tags.test", "all.test/hub", "digests.test"].map(|host| rules.is_insecure(host));
        assert_eq!(insecure, [true, true, false, false]);
    }

    #[test]
    fn a_push_goes_to_the_name_itself_and_what_is_blocked_goes_nowhere() {
        let blocked = Rule { blocked: true, ..rule("r.example/evil") };
        let rules = Rules(vec![blocked.clone(), Rule { location: Some("other.test".into()), ..rule("r.example") }]);
        assert_eq!(rules.place_to_push(&repository("r.example/good")).unwrap(), own(&repository("r.example/good"), false));
        assert_eq!(rules.place_to_push(&repository("r.example/evil/x")), Err(&blocked));
        assert_eq!(rules.places(&repository("r.example/evil"), NamedBy::Digest), Err(&blocked));
    }
}
