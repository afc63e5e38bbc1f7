//! How much the cache may take, as people say it: `--gc` and `PLY_GC`, and the sizes of `ply prune`.
//!
//! ```text
//! PLY_GC=off
//! PLY_GC=max-used-space=20GB,min-free-space=10%,reserved-space=5GB,keep-duration=720h
//! ```
//!
//! What is not said stays at its default; docker's names, docker's units (steps of 1024), and shares of the disk as in
//! BuildKit's configuration.

use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::values::{self, ValueError};
use crate::engine::request::Collection;
use crate::store::Space;

/// The fields of a policy.
const FIELDS: [&str; 4] = ["max-used-space", "min-free-space", "reserved-space", "keep-duration"];

/// Reads a size: `10GB`, `512mb`, or `10%` of the disk.
pub fn space(text: &str) -> Result<Space, ValueError> {
    let bad = || ValueError::form("a size such as 10GB, or a share of the disk such as 10%", text);
    match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse().ok().filter(|p| *p <= 100).map(Space::Percent).ok_or_else(bad),
        None => values::size_bytes(text).map(Space::Bytes).map_err(|_| bad()),
    }
}

/// Reads a policy; none: no collection.
pub fn policy(text: &str) -> Result<Option<Collection>, ValueError> {
    match text.trim() {
        "off" | "false" | "0" => return Ok(None),
        "" | "on" | "true" | "1" | "default" => return Ok(Some(Collection::default())),
        _ => {}
    }
    let mut policy = Collection::default();
    for (key, value) in values::fields(text)? {
        let value = value.ok_or_else(|| ValueError::form("off, or fields such as max-used-space=20GB", text))?;
        match key.as_str() {
            "max-used-space" => policy.limits.max_used = Some(space(&value)?),
            "min-free-space" => policy.limits.min_free = Some(space(&value)?),
            "reserved-space" => policy.limits.reserved = Some(space(&value)?),
            "keep-duration" => policy.keep_secs = Some(i64::try_from(values::duration(&value)?.as_secs()).unwrap_or(i64::MAX)),
            _ => return Err(ValueError::Field { nearest: values::nearest(&key, &FIELDS), key }),
        }
    }
    Ok(Some(policy))
}

/// Returns the policy: the flag's, else the variable's, else the default.
pub fn chosen(flag: Option<&Option<Collection>>, env: &Environment) -> Result<Option<Collection>, Failure> {
    match flag {
        Some(policy) => Ok(*policy),
        None => policy(env.text("PLY_GC").unwrap_or_default()).map_err(|e| Failure::usage(format!("PLY_GC: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::with;
    use crate::store::Limits;

    #[test]
    fn sizes_are_bytes_or_shares() {
        for (text, want) in [
            ("10GB", Space::Bytes(10 << 30)),
            ("512mb", Space::Bytes(512 << 20)),
            ("1.5g", Space::Bytes(3 << 29)),
            ("0", Space::Bytes(0)),
            ("10%", Space::Percent(10)),
            ("100 %", Space::Percent(100)),
        ] {
            assert_eq!(space(text), Ok(want), "{text}");
        }
        for bad in ["", "%", "101%", "-1%", "1.5%", "ten", "-5GB"] {
            assert!(space(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_is_read_field_by_field() {
        let default = Collection::default();
        for (text, want) in [
            ("off", None),
            ("", Some(default)),
            ("default", Some(default)),
            (
                "max-used-space=20GB,Keep-Duration=2h",
                Some(Collection { limits: Limits { max_used: Some(Space::Bytes(20 << 30)), ..Limits::default() }, keep_secs: Some(7200) }),
            ),
            (
                "min-free-space=5%,reserved-space=1g",
                Some(Collection {
                    limits: Limits { max_used: None, min_free: Some(Space::Percent(5)), reserved: Some(Space::Bytes(1 << 30)) },
                    keep_secs: None,
                }),
            ),
        ] {
            assert_eq!(policy(text), Ok(want), "{text}");
        }
        assert_eq!(policy("max-used=1").unwrap_err().to_string(), "`max-used` is not a field of this flag");
        assert_eq!(
            policy("max-used-spac=1").unwrap_err().to_string(),
            "`max-used-spac` is not a field of this flag: did you mean `max-used-space`?"
        );
        assert!(policy("never").is_err());
    }

    #[test]
    fn the_flag_comes_before_the_variable() {
        let env = with(&[("PLY_GC", "off")]);
        assert_eq!(chosen(None, &env).unwrap(), None);
        assert_eq!(chosen(Some(&Some(Collection::default())), &env).unwrap(), Some(Collection::default()));
        assert_eq!(chosen(None, &with(&[])).unwrap(), Some(Collection::default()));
        let failure = chosen(None, &with(&[("PLY_GC", "x")])).unwrap_err();
        assert_eq!(failure.status, crate::cli::failure::USAGE);
    }
}
