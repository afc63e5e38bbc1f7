//! `--filter`: which units are meant, in the words of `docker buildx prune`.
//!
//! `until` is not here: it is an age, and becomes [`PruneOptions::unused_since_secs`](super::PruneOptions).

use regex::Regex;

use super::units::{CacheUnit, UnitKind};

/// One condition; all that are given must hold.
#[derive(Debug, Clone)]
pub struct Filter {
    key: Key,
    test: Test,
}

/// Two filters are the same when they were written alike.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && format!("{:?}", self.test) == format!("{:?}", other.test)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Id,
    Parents,
    Description,
    Type,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

#[derive(Debug, Clone)]
enum Test {
    /// It is so, or (false) it is not.
    Is(bool),
    /// Of equal text; for ids and descriptions a part of it is enough, as with buildx.
    Equals(String),
    Differs(String),
    Matches(Regex),
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Of another form.
    #[error("expected KEY=VALUE, KEY!=VALUE, KEY~=EXPRESSION or one of inuse, mutable, immutable, shared and private, got `{0}`")]
    Form(String),
    /// No key.
    #[error("`{0}` is no filter: expected one of {keys}", keys = FILTER_KEYS.join(", "))]
    Key(String),
    /// No type.
    #[error("`{0}` is no type: expected one of {types}", types = FILTER_TYPES.join(", "))]
    Type(String),
    /// No regular expression.
    #[error("`{0}` is no regular expression")]
    Expression(String),
}

/// The keys, `until` among them.
pub const FILTER_KEYS: [&str; 10] = ["until", "id", "parents", "description", "inuse", "mutable", "immutable", "shared", "private", "type"];

/// The types. Of `source.local`, `internal` and `frontend` there is never anything here: contexts are not copied, frontends are
/// built in.
pub const FILTER_TYPES: [&str; 6] = ["internal", "frontend", "source.local", "source.git.checkout", "exec.cachemount", "regular"];

impl Filter {
    /// Selects one type.
    pub fn of_type(kind: UnitKind) -> Self {
        Self { key: Key::Type, test: Test::Equals(kind.name().into()) }
    }

    /// Reads `KEY`, `KEY=VALUE`, `KEY!=VALUE` or `KEY~=EXPRESSION`.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let Some((left, value)) = text.split_once('=') else {
            let key = key(text)?;
            let flag = matches!(key, Key::InUse | Key::Mutable | Key::Immutable | Key::Shared | Key::Private);
            return if flag { Ok(Self { key, test: Test::Is(true) }) } else { Err(FilterError::Form(text.into())) };
        };
        let (name, operator) = match left.strip_suffix(['!', '~']) {
            Some(name) => (name, &left[name.len()..]),
            None => (left, ""),
        };
        let key = key(name)?;
        if key == Key::Type && operator != "~" && !FILTER_TYPES.contains(&value) {
            return Err(FilterError::Type(value.into()));
        }
        let test = match (key, operator) {
            (Key::Id | Key::Parents | Key::Description | Key::Type, "") => Test::Equals(value.into()),
            (Key::Id | Key::Parents | Key::Description | Key::Type, "!") => Test::Differs(value.into()),
            (Key::Id | Key::Parents | Key::Description | Key::Type, _) => {
                Test::Matches(Regex::new(value).map_err(|_| FilterError::Expression(value.into()))?)
            }
            (_, "" | "!") if value == "true" || value == "false" => Test::Is((value == "true") == operator.is_empty()),
            _ => return Err(FilterError::Form(text.into())),
        };
        Ok(Self { key, test })
    }

    /// Returns whether it takes a unit.
    pub fn takes(&self, unit: &CacheUnit) -> bool {
        let is = |so: bool| matches!(self.test, Test::Is(want) if want == so);
        match self.key {
            Key::InUse => is(unit.in_use),
            Key::Mutable => is(unit.kind.is_mutable()),
            Key::Immutable => is(!unit.kind.is_mutable()),
            Key::Shared => is(unit.shared),
            Key::Private => is(!unit.shared),
            Key::Id => self.test.holds(&unit.id, |text, part| text.contains(part)),
            Key::Description => self.test.holds(&unit.description, |text, part| text.contains(part)),
            Key::Type => self.test.holds(unit.kind.name(), |a, b| a == b),
            // Of several that are asked for, one is enough.
            Key::Parents => {
                let wanted = |text: &str, list: &str| list.split(';').any(|one| text.split(';').any(|parent| parent == one));
                self.test.holds(&unit.parents.join(";"), wanted)
            }
        }
    }
}

impl Test {
    fn holds(&self, text: &str, same: impl Fn(&str, &str) -> bool) -> bool {
        match self {
            Self::Is(_) => false,
            Self::Equals(value) => same(text, value),
            Self::Differs(value) => !same(text, value),
            Self::Matches(expression) => expression.is_match(text),
        }
    }
}

fn key(name: &str) -> Result<Key, FilterError> {
    Ok(match name {
        "id" => Key::Id,
        "parents" | "parent" => Key::Parents,
        "description" => Key::Description,
        "type" => Key::Type,
        "inuse" => Key::InUse,
        "mutable" => Key::Mutable,
        "immutable" => Key::Immutable,
        "shared" => Key::Shared,
        "private" => Key::Private,
        _ => return Err(FilterError::Key(name.into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> CacheUnit {
        CacheUnit {
            id: "content:abc".into(),
            description: "RUN go build golang".into(),
            parents: vec!["content:p".into()],
            shared: true,
            ..CacheUnit::of(UnitKind::Regular)
        }
    }

    #[test]
    fn filters_take_what_buildx_s_take() {
        for (text, want) in [
            ("id=content:abc", true),
            ("id=ab", true),
            ("id=xy", false),
            ("id!=ab", false),
            ("id~=^content:a.c$", true),
            ("id~=^ab", false),
            ("parents=content:q;content:p", true),
            ("parents=content:q", false),
            ("parents!=content:q", true),
            ("description=golang", true),
            ("description~=go(lang)?$", true),
            ("description!=golang", false),
            ("type=regular", true),
            ("type!=exec.cachemount", true),
            ("type=source.local", false),
            ("type~=^source", false),
            ("inuse", false),
            ("inuse=false", true),
            ("mutable", false),
            ("immutable", true),
            ("shared", true),
            ("shared!=true", false),
            ("private", false),
        ] {
            assert_eq!(Filter::parse(text).unwrap().takes(&unit()), want, "{text}");
        }
        let mount = CacheUnit::of(UnitKind::CacheMount);
        assert!(Filter::parse("mutable").unwrap().takes(&mount) && Filter::of_type(UnitKind::CacheMount).takes(&mount));
    }

    #[test]
    fn what_is_no_filter_is_said() {
        for (text, want) in [
            ("", FilterError::Key(String::new())),
            ("size=3", FilterError::Key("size".into())),
            ("type=mount", FilterError::Type("mount".into())),
            ("id", FilterError::Form("id".into())),
            ("shared=maybe", FilterError::Form("shared=maybe".into())),
            ("shared~=x", FilterError::Form("shared~=x".into())),
            ("id~=(", FilterError::Expression("(".into())),
        ] {
            assert_eq!(Filter::parse(text).unwrap_err(), want, "{text}");
        }
    }
}
