//! Under which tag an object of a shared cache is found.
//!
//! Pure. The number after `ply-v` is the objects' form: another form has other tags, so that old and new programs share a
//! repository without reading each other's objects. A tag never holds anything but digits and fixed words: nothing of a
//! Dockerfile's text reaches a registry's address.

use super::super::wire::Encoder;
use super::object::Kind;
use crate::digest::CacheKey;

const PREFIX: &str = "ply-v1";

/// Returns the tag of a step's record.
pub fn of_record(key: &CacheKey) -> String {
    format!("{PREFIX}-{}", key.hex())
}

/// Returns the tag of what is known of a selection from a tree; `memory` is the hexadecimal hash of both.
pub fn of_selection(memory: &str) -> String {
    hashed("selection", &[memory])
}

/// Returns the tag of the last inputs of the steps of one `kind` in a stage.
///
/// `name` is what the caller tells caches in one repository apart by, `dockerfile` the file's base name: no machine's paths.
pub fn of_places(name: &str, dockerfile: &str, stage: &str, kind: &str) -> String {
    hashed("places", &[name, dockerfile, stage, kind])
}

/// Returns the tag of the last build's plan.
pub fn of_plan(name: &str, dockerfile: &str) -> String {
    hashed("plan", &[name, dockerfile])
}

/// Returns what an object of this tag is: a record or a selection. None: neither, or a text that no function here gives.
pub fn kind_of(tag: &str) -> Option<Kind> {
    let rest = tag.strip_prefix(PREFIX)?.strip_prefix('-')?;
    let (kind, hex) = match rest.strip_prefix("selection-") {
        Some(hex) => (Kind::Selection, hex),
        None => (Kind::Record, rest),
    };
    let is_hex = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then_some(kind)
}

/// Returns the tag of a cache mount's files; `identity` is all that tells the mount from others.
pub fn of_mount(name: &str, identity: &str) -> String {
    hashed("mount", &[name, identity])
}

fn hashed(kind: &str, parts: &[&str]) -> String {
    let mut e = Encoder::new("plywood shared cache");
    e.text(kind);
    for part in parts {
        e.text(part);
    }
    format!("{PREFIX}-{kind}-{}", blake3::Hash::from_bytes(e.finish()).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_apart_and_fit_a_registry() {
        let key = CacheKey::from_bytes([7; 32]);
        let tags = [
            of_record(&key),
            of_selection("a"),
            of_selection("b"),
            of_places("", "Dockerfile", "build", "RUN"),
            of_places("", "Dockerfile", "build", "COPY"),
            of_places("", "Dockerfilebuild", "", "RUN"),
            of_places("x", "Dockerfile", "build", "RUN"),
            of_mount("", "a"),
            of_plan("", "a"),
        ];
        assert_eq!(tags[0], format!("ply-v1-{}", "07".repeat(32)));
        assert_eq!(tags.iter().collect::<std::collections::BTreeSet<_>>().len(), tags.len());
        let kinds: Vec<Option<Kind>> = tags.iter().map(|t| kind_of(t)).collect();
        assert_eq!(&kinds[..4], [Some(Kind::Record), Some(Kind::Selection), Some(Kind::Selection), None]);
        for text in ["", "ply-v1-", "ply-v1-../x", "latest", "ply-v1-selection-"] {
            assert_eq!(kind_of(text), None, "{text}");
        }
        for tag in tags {
            assert!(tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{tag}");
        }
    }
}
