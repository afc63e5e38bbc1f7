//! Puts the configuration of the result together. Pure.
//!
//! Times are not read here: each step brings the time at which its layer was made, so that a build in which
//! everything hit gives the image that it gave before, byte for byte.

use crate::digest::DiffId;
use crate::graph::PlannedHistory;
use crate::image::config::{History, ImageConfig};

/// What a node of the result contributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltLayer {
    /// Its tar's digest.
    pub diff_id: DiffId,
    /// When its step ran, in seconds since the epoch.
    pub created_secs: i64,
}

/// Returns the configuration of a stage's result.
///
/// `config` is what the stage's plan says, `planned` its history; `base_layers` are the base image's diff IDs; `layers` holds a
/// value for each entry of `planned` that has a node, in order. `epoch` replaces every time that the build itself would write.
pub fn assemble(
    config: &ImageConfig,
    planned: &[PlannedHistory],
    base_layers: &[DiffId],
    layers: &[BuiltLayer],
    epoch: Option<i64>,
    now_secs: i64,
) -> ImageConfig {
    let mut config = config.clone();
    let mut diff_ids = base_layers.to_vec();
    let mut history = base_history(&config.history, base_layers.len());
    let mut time = epoch.unwrap_or_else(|| layers.first().map_or(now_secs, |l| l.created_secs));
    let mut rest = layers.iter();
    for entry in planned {
        if entry.node.is_some() {
            let layer = rest.next().expect("one built layer for each entry with a node");
            diff_ids.push(layer.diff_id);
            time = epoch.unwrap_or(layer.created_secs);
        }
        history.push(History {
            created: Some(rfc3339(time)),
            created_by: entry.created_by.clone(),
            author: entry.author.clone(),
            comment: Some("buildkit.dockerfile.v0".into()),
            empty_layer: entry.node.is_none(),
        });
    }
    config.created = Some(rfc3339(time));
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids = diff_ids;
    config.history = history;
    config
}

/// Returns a base's history, completed where the base tells of fewer layers than it has.
///
/// An image without a history would otherwise end with one that speaks of our layers alone, which readers
/// (umoci, docker) take for a broken image.
fn base_history(history: &[History], layers: usize) -> Vec<History> {
    let told = history.iter().filter(|h| !h.empty_layer).count();
    let mut out = history.to_vec();
    out.extend((told..layers).map(|_| History { comment: Some("from the base image, which has no history".into()), ..History::default() }));
    out
}

/// Returns a time as RFC 3339, in UTC; times beyond what that can say are clamped.
pub fn rfc3339(secs: i64) -> String {
    let clamped = secs.clamp(jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
    jiff::Timestamp::from_second(clamped).map_or_else(|_| "1970-01-01T00:00:00Z".into(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_and_clamped() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_500_000_001), "2017-07-14T02:40:01Z");
        assert!(rfc3339(i64::MAX).starts_with("9999-"));
    }

    #[test]
    fn a_base_without_history_gets_one_entry_a_layer() {
        let own = History { created_by: "x".into(), ..History::default() };
        let empty = History { empty_layer: true, ..own.clone() };
        let got = base_history(&[own.clone(), empty.clone()], 3);
        assert_eq!((got.len(), got.iter().filter(|h| !h.empty_layer).count()), (4, 3));
        assert_eq!(base_history(std::slice::from_ref(&own), 1), vec![own]);
    }
}
