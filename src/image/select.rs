//! Selects the image for a platform from an index.
//!
//! The order of preference is containerd's: the platform itself, then lower variants of its architecture, then
//! the older architecture that it also runs (amd64 runs 386, arm64 runs arm). Attestation manifests stand in
//! real indexes as `unknown/unknown`: they are no images and never chosen.

use crate::image::manifest::{Descriptor, Index};
use crate::image::platform::Platform;

/// How deep an index may lie in indexes.
pub const INDEX_DEPTH_MAX: usize = 4;

/// An index that has no image for the platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no image for {wanted}; there is {}", if available.is_empty() { "none for any platform".to_string() } else { available.join(", ") })]
pub struct NoPlatform {
    /// What was asked for.
    pub wanted: Platform,
    /// What there is, as text, in the index's order.
    pub available: Vec<String>,
}

/// Returns the index's entry that fits best: of equals the first.
///
/// The entry can be an index again (an entry without a platform that is one, when nothing else fits).
pub fn select<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, NoPlatform> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|d| !is_attestation(d)).collect();
    for candidate in preferences(wanted) {
        let fits = |d: &&&Descriptor| d.platform.as_ref().is_some_and(|p| same(p, &candidate));
        if let Some(found) = images.iter().find(fits) {
            return Ok(found);
        }
    }
    // An entry that says nothing of its platform: the only image, or a nested index to look into.
    if let Some(found) = images.iter().find(|d| d.platform.is_none()) {
        return Ok(found);
    }
    Err(NoPlatform {
        wanted: wanted.clone(),
        available: images.iter().filter_map(|d| d.platform.as_ref().map(ToString::to_string)).collect(),
    })
}

/// Tells whether an image for `there` is fit where `wanted` is asked for.
pub fn runs(wanted: &Platform, there: &Platform) -> bool {
    preferences(wanted).iter().any(|p| same(p, there))
}

/// Tells whether the entry is provenance or another companion of an image.
pub fn is_attestation(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
        || entry.annotations.contains_key("vnd.docker.reference.type")
}

fn same(a: &Platform, b: &Platform) -> bool {
    a.os == b.os && a.architecture == b.architecture && a.variant == b.variant
}

/// Returns what `wanted` can run, best first.
fn preferences(wanted: &Platform) -> Vec<Platform> {
    let of = |architecture: &str, variant: &str| Platform::new(&wanted.os, architecture, variant);
    let number = |default: u8| wanted.variant.strip_prefix('v').and_then(|v| v.parse::<u8>().ok()).unwrap_or(default);
    let mut out = vec![wanted.clone()];
    let mut lower = |architecture: &str, from: u8, to: u8| {
        for n in (to..=from).rev() {
            out.push(of(architecture, &format!("v{n}")));
        }
    };
    match wanted.architecture.as_str() {
        "amd64" => {
            lower("amd64", number(1).min(9).saturating_sub(1), 1);
            out.push(of("386", ""));
        }
        "arm" => lower("arm", number(7).min(9).saturating_sub(1), 5),
        "arm64" => {
            if !wanted.variant.is_empty() {
                lower("arm64", 8, 8);
            }
            lower("arm", 8, 5);
        }
        _ => {
            if !wanted.variant.is_empty() {
                out.push(of(&wanted.architecture, ""));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::media;

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms
            .iter()
            .map(|p| {
                let mut d = Descriptor::of(media::OCI_MANIFEST, p.as_bytes());
                if !p.is_empty() {
                    let parts: Vec<&str> = p.split('/').collect();
                    d.platform = Some(Platform::new(parts[0], parts[1], parts.get(2).unwrap_or(&"")));
                }
                d
            })
            .collect();
        Index { media_type: media::OCI_INDEX.into(), manifests }
    }

    #[test]
    fn the_best_fit_wins_and_attestations_never_do() {
        for (there, wanted, want) in [
            (&["linux/amd64", "linux/arm64"][..], "linux/arm64", "linux/arm64"),
            (&["linux/amd64", "linux/amd64/v2"], "linux/amd64", "linux/amd64"),
            (&["linux/amd64", "linux/amd64/v3"], "linux/amd64/v4", "linux/amd64/v3"),
            (&["linux/386"], "linux/amd64", "linux/386"),
            (&["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", "linux/arm/v6"),
            (&["linux/arm/v5"], "linux/arm/v7", "linux/arm/v5"),
            (&["linux/arm/v7"], "linux/arm64", "linux/arm/v7"),
            (&["unknown/unknown", "linux/s390x"], "linux/s390x", "linux/s390x"),
            (&["unknown/unknown", ""], "linux/s390x", ""),
        ] {
            let index = index(there);
            let wanted: Platform = wanted.parse().unwrap();
            assert_eq!(select(&index, &wanted).unwrap().digest, crate::digest::Digest::of(want.as_bytes()), "{there:?} {wanted}");
        }
    }

    #[test]
    fn the_error_lists_what_there_is() {
        let platform = Platform::new("linux", "amd64", "v2");
        for (there, want) in [
            (
                &["linux/amd64/v3", "unknown/unknown", "linux/arm/v7"][..],
                "no image for linux/amd64/v2; there is linux/amd64/v3, linux/arm/v7",
            ),
            (&["unknown/unknown"], "no image for linux/amd64/v2; there is none for any platform"),
        ] {
            assert_eq!(select(&index(there), &platform).unwrap_err().to_string(), want);
        }
    }
}
