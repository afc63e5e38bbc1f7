//! What keeping a thing is worth.
//!
//! Worth is **seconds saved a byte, made less by disuse**: `secs / (bytes + 4096) / (1 + days)`.
//!
//! | | |
//! |---|---|
//! | secs | what making it again would cost: the step itself, and the costliest line of steps that stands on it, since these miss too where its new result differs ([`Appraise`] tells); for what is fetched: a second each 10 MB |
//! | bytes | what its going would free: a layer's directory and its tars. What an image, a container or another record needs as well is not counted, so what frees nothing is worth most and goes last |
//! | 4096 | what the index keeps of it, about; nothing is free |
//! | days | since it was last of use: what lay idle for a week is worth an eighth of what was of use today. The longer something was not wanted, the longer it will not be |
//!
//! Least worth goes first. A newcomer would order by last use alone, as BuildKit does: then ten gigabytes that a COPY makes
//! again in a second outlive a compiler that takes an hour.

use crate::store::RecordRow;

/// What a step's record is worth to whoever knows what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Appraisal {
    /// What making its layer again would cost.
    pub secs: f64,
    /// What people call it.
    pub title: String,
    /// Which of the records its step stands on, by place.
    pub parent: Option<usize>,
    /// How many builds that are on record took it from the cache.
    pub uses: u64,
}

/// Judges records, in order; `cache::worth::appraise` is the one that knows.
pub type Appraise<'a> = &'a dyn Fn(&[RecordRow]) -> Vec<Appraisal>;

/// How fast things come back from elsewhere, taken for all networks: what a cache mount or a base holds has no cost of its own.
const FETCH_BYTES_PER_SEC: f64 = 10e6;

/// About what the index keeps of a thing.
const ROW_BYTES: u64 = 4096;

const DAY_SECS: f64 = 86_400.0;

/// Returns what fetching `bytes` again costs.
pub(super) fn fetch_secs(bytes: u64) -> f64 {
    bytes as f64 / FETCH_BYTES_PER_SEC
}

/// Returns the worth: seconds a byte.
pub(super) fn worth(secs: f64, freed_bytes: u64, idle_secs: i64) -> f64 {
    let days = idle_secs.max(0) as f64 / DAY_SECS;
    secs.max(0.0) / freed_bytes.saturating_add(ROW_BYTES) as f64 / (1.0 + days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_more_is_smaller_or_was_of_use_later_is_worth_more() {
        let (day, mega) = (86_400, 1 << 20);
        let table = [
            // A slow and small step of last week beats a quick and big one of today.
            (worth(300.0, 10 * mega, 7 * day), worth(1.0, 1000 * mega, 0)),
            (worth(2.0, mega, 0), worth(1.0, mega, 0)),
            (worth(1.0, mega, 0), worth(1.0, 2 * mega, 0)),
            (worth(1.0, mega, 0), worth(1.0, mega, 60)),
            (worth(1.0, 0, 0), worth(1.0, 1, 0)),
        ];
        for (n, (more, less)) in table.into_iter().enumerate() {
            assert!(more > less, "{n}: {more} {less}");
        }
        assert_eq!(worth(8.0, 4096, 7 * day), 8.0 / 8192.0 / 8.0);
        assert_eq!(worth(1.0, 4096, -5), 1.0 / 8192.0, "a clock that went back");
        assert_eq!(fetch_secs(20_000_000), 2.0);
    }
}
