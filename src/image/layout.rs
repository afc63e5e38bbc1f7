//! The documents of an OCI image layout: `oci-layout`, `index.json`, and how a name is found in it. Pure.
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            an index; each entry's `org.opencontainers.image.ref.name` annotation is its name
//! blobs/sha256/<hex>    manifests, configurations, layers
//! ```
//!
//! Names are written in two ways: a bare tag (`latest`, by skopeo and umoci) or a whole reference
//! (`docker.io/library/app:latest` in `io.containerd.image.name` beside the bare tag, by BuildKit). A name is
//! only ever compared, and never used as a path.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::image::json;
use crate::image::manifest::{Descriptor, Document, Index, ManifestError, media};

/// `oci-layout`, as BuildKit and skopeo write it.
pub const LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The annotation with the name in the layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's annotation with the whole reference.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A layout that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// `oci-layout` is malformed or of another version.
    #[error("`oci-layout` does not say version 1.0.0")]
    Version,
    /// `index.json` is malformed.
    #[error("`index.json` can't be used")]
    Index(#[source] ManifestError),
    /// `index.json` is a manifest.
    #[error("`index.json` is an image manifest and no index")]
    NoIndex,
    /// No such name in the layout.
    #[error("no image `{name}` in the layout; there is {}", if available.is_empty() { "none with a name".to_string() } else { available.join(", ") })]
    NoSuchName {
        /// What was asked for.
        name: String,
        /// The names that there are.
        available: Vec<String>,
    },
}

/// Checks `oci-layout`.
pub fn check_version(text: &[u8]) -> Result<(), LayoutError> {
    let value = json::parse_strict(text).map_err(|_| LayoutError::Version)?;
    match value.get("imageLayoutVersion").and_then(|v| v.as_str()) {
        Some("1.0.0") => Ok(()),
        _ => Err(LayoutError::Version),
    }
}

/// Parses `index.json`.
pub fn parse_index(bytes: &[u8]) -> Result<Index, LayoutError> {
    // Some writers leave out `schemaVersion`'s companions; the file name announces the type.
    match Document::parse(bytes, None).map_err(LayoutError::Index)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(LayoutError::NoIndex),
    }
}

/// Finds a name: a digest of an entry, a tag, or a whole reference.
///
/// An empty name, or `latest` in a layout with a single entry that has no name, means that entry. A digest
/// that no entry has is returned as a bare manifest descriptor of unknown size (0): the blob may still be there.
pub fn find(index: &Index, name: &str) -> Result<Descriptor, LayoutError> {
    if let Ok(digest) = name.parse::<Digest>() {
        let found = index.manifests.iter().find(|d| d.digest == digest).cloned();
        return Ok(found.unwrap_or_else(|| Descriptor::new("", digest, 0)));
    }
    let named = |d: &&Descriptor| names(d).any(|n| n == name);
    // `name` may be a tag while the annotation is a whole reference.
    let tagged = |d: &&Descriptor| names(d).any(|n| tag_of(n) == Some(name));
    if let Some(found) = index.manifests.iter().find(named).or_else(|| index.manifests.iter().find(tagged)) {
        return Ok(found.clone());
    }
    match index.manifests.as_slice() {
        [only] if (name.is_empty() || name == "latest") && names(only).next().is_none() => Ok(only.clone()),
        [only] if name.is_empty() => Ok(only.clone()),
        _ => Err(LayoutError::NoSuchName {
            name: name.into(),
            available: index.manifests.iter().flat_map(|d| names(d).take(1)).map(str::to_string).collect(),
        }),
    }
}

/// Returns the names of an entry, the whole reference first.
pub fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| entry.annotations.get(key).map(String::as_str))
}

fn tag_of(reference: &str) -> Option<&str> {
    let (_, last) = reference.rsplit_once('/').unwrap_or(("", reference));
    last.split_once(':').map(|(_, tag)| tag)
}

/// Returns `index.json` for images, each under several names, each entry annotated as BuildKit does.
///
/// An image without names has one entry without annotations.
pub fn index_json<'i>(images: impl IntoIterator<Item = (&'i Descriptor, &'i [String])>) -> Vec<u8> {
    let mut manifests = Vec::new();
    for (image, names) in images {
        let entry = |annotations| Descriptor { annotations, ..image.clone() };
        if names.is_empty() {
            manifests.push(entry(BTreeMap::new()));
        }
        manifests.extend(names.iter().map(|name| {
            let tag = tag_of(name).unwrap_or("latest");
            entry(BTreeMap::from([(CONTAINERD_NAME.to_string(), name.clone()), (REF_NAME.to_string(), tag.to_string())]))
        }));
    }
    Index { media_type: media::OCI_INDEX.into(), manifests }.to_json()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &str, annotations: &[(&str, &str)]) -> Descriptor {
        let mut d = Descriptor::of(media::OCI_MANIFEST, content.as_bytes());
        d.annotations = annotations.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        d
    }

    #[test]
    fn a_name_is_a_tag_a_reference_or_a_digest() {
        let index = Index {
            media_type: media::OCI_INDEX.into(),
            manifests: vec![
                entry("a", &[(REF_NAME, "latest")]),
                entry("b", &[(REF_NAME, "v1"), (CONTAINERD_NAME, "docker.io/library/app:v1")]),
                entry("c", &[(REF_NAME, "localhost:5000/x/y:v2")]),
                entry("d", &[]),
            ],
        };
        let digest = Digest::of(b"d").to_string();
        for (name, want) in [
            ("latest", "a"),
            ("v1", "b"),
            ("docker.io/library/app:v1", "b"),
            ("v2", "c"),
            ("localhost:5000/x/y:v2", "c"),
            (digest.as_str(), "d"),
        ] {
            assert_eq!(find(&index, name).unwrap().digest, Digest::of(want.as_bytes()), "{name}");
        }
        assert_eq!(
            find(&index, "../../x").unwrap_err().to_string(),
            "no image `../../x` in the layout; there is latest, docker.io/library/app:v1, localhost:5000/x/y:v2"
        );
    }

    #[test]
    fn a_single_entry_without_a_name_is_the_latest() {
        let index = Index { media_type: media::OCI_INDEX.into(), manifests: vec![entry("a", &[])] };
        assert_eq!(find(&index, "latest").unwrap().digest, Digest::of(b"a"));
        assert_eq!(find(&index, "").unwrap().digest, Digest::of(b"a"));
        assert!(find(&index, "other").is_err());
    }

    #[test]
    fn what_is_written_is_found_again() {
        let image = entry("x", &[]);
        let names = ["docker.io/library/app:v1".to_string(), "localhost:5000/app:v2".to_string()];
        let index = parse_index(&index_json([(&image, &names[..])])).unwrap();
        assert_eq!(index.manifests.len(), 2);
        for name in ["v1", "v2", "docker.io/library/app:v1", "localhost:5000/app:v2"] {
            assert_eq!(find(&index, name).unwrap().digest, image.digest, "{name}");
        }
        assert_eq!(parse_index(&index_json([(&image, &[][..])])).unwrap().manifests, vec![image]);
        assert!(check_version(LAYOUT_TEXT.as_bytes()).is_ok());
        assert!(check_version(br#"{"imageLayoutVersion":"2.0.0"}"#).is_err());
    }
}
