//! `manifest.json` of a `docker save` archive. Pure.
//!
//! Each entry names a configuration and layers by their paths *in the archive*. These are names to compare with
//! the archive's own entries, never paths on this machine. Since Docker 25 the paths are those of an OCI layout
//! (`blobs/sha256/<hex>`), and the same archive is both; that is what Plywood writes, and podman and docker 20.10
//! read it too.

use serde::{Deserialize, Serialize};

use crate::image::json;

/// The largest `manifest.json` that is read: containers/image's limit.
pub const MANIFEST_MAX_BYTES: u64 = 1 << 20;

/// One image of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// The configuration's path in the archive.
    pub config: String,
    /// The names, `REPOSITORY:TAG`.
    #[serde(default, deserialize_with = "null_default")]
    pub repo_tags: Vec<String>,
    /// The layers' paths in the archive, bottom first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<String>,
}

fn null_default<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// Parses `manifest.json`.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, serde_json::Error> {
    serde_json::from_value(json::parse_strict(bytes)?)
}

/// Returns `manifest.json` for images.
pub fn manifest_json(entries: &[Entry]) -> Vec<u8> {
    json::to_sorted_vec(&entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_manifest_is_read_and_written() {
        let text = br#"[{"Config":"blobs/sha256/aa","RepoTags":null,"Layers":["x/layer.tar"],"LayerSources":{}}]"#;
        let want = Entry { config: "blobs/sha256/aa".into(), repo_tags: vec![], layers: vec!["x/layer.tar".into()] };
        assert_eq!(parse(text).unwrap(), vec![want.clone()]);
        assert_eq!(parse(&manifest_json(std::slice::from_ref(&want))).unwrap(), vec![want]);
        assert!(parse(br#"{"Config":"x"}"#).is_err());
    }
}
