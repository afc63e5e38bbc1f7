//! Automatic collection: after a build that wrote, when the cache is over its bounds.
//!
//! The policy is BuildKit's (`docs.docker.com/build/cache/garbage-collection`), rule by rule, except that what goes first is what is
//! worth least:
//!
//! 1. what is quickly had again (cache mounts, git repositories) and was of no use for two days, while the cache takes more
//!    than 512 MB;
//! 2. what was of no use for 60 days, while a limit is exceeded;
//! 3. anything, while a limit is exceeded: no more than 80% of the disk or 100 GB, a fifth of the disk and of its inodes free, and in any case
//!    the tenth of the disk or 10 GB that the cache may always have.
//!
//! Looking costs two sums over the index. What they give differs from what the disk counts, so the difference that the last
//! measurement found is kept, and only a cache that seems to be over a bound is measured: a walk over all of the store.

use serde::{Deserialize, Serialize};

use super::db::uint;
use super::prune::{Appraise, Disk, Filter, Limits, PruneOptions, PruneReport, Space, UnitKind};
use super::{Result, Store};

const DAY_SECS: i64 = 86_400;
const HOUR_SECS: i64 = 3600;

/// Where the last look is kept, among the index's small tables.
const KIND: &str = "collection";
const KEY: &str = "last";

/// What a file takes beyond its bytes, about: half a block at its end, and its inode's.
const BLOCK_BYTES: u64 = 4096;

/// When to collect, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectPolicy {
    /// Bounds of the cache.
    pub limits: Limits,
    /// Unused for longer, a thing goes before others.
    pub keep_secs: i64,
    /// What is quickly had again goes after so long.
    pub quick_keep_secs: i64,
    /// So much of a cache is left alone by the rule for what is quickly had again.
    pub quick_reserved_bytes: u64,
}

impl CollectPolicy {
    /// Returns BuildKit's defaults for this disk.
    pub fn of(disk: Disk) -> Self {
        let at_most = |percent, most: u64| Space::Bytes(Space::Percent(percent).bytes(disk).min(most));
        Self {
            limits: Limits {
                max_used: Some(at_most(80, 100_000_000_000)),
                min_free: Some(Space::Percent(20)),
                reserved: Some(at_most(10, 10_000_000_000)),
            },
            keep_secs: 60 * DAY_SECS,
            quick_keep_secs: 2 * DAY_SECS,
            quick_reserved_bytes: 512_000_000,
        }
    }

    /// Returns the rules in order.
    fn rules(&self, now_secs: i64) -> [PruneOptions; 4] {
        let quick = |kind| PruneOptions {
            filters: vec![Filter::of_type(kind)],
            unused_since_secs: Some(now_secs.saturating_sub(self.quick_keep_secs)),
            limits: Limits { reserved: Some(Space::Bytes(self.quick_reserved_bytes)), ..Limits::default() },
            now_secs,
            ..PruneOptions::default()
        };
        let all = PruneOptions { limits: self.limits, now_secs, ..PruneOptions::default() };
        let old = PruneOptions { unused_since_secs: Some(now_secs.saturating_sub(self.keep_secs)), ..all.clone() };
        [quick(UnitKind::CacheMount), quick(UnitKind::GitCheckout), old, all]
    }
}

/// The last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    /// What was collected down to; none: nothing was, and the sums were taken for what the cache takes.
    limits: Option<Limits>,
    /// When it was, in unix seconds.
    at_secs: i64,
    /// What the index's sums were then.
    summed_bytes: u64,
    /// What the cache took then.
    used_bytes: u64,
}

impl Look {
    /// Returns what the cache takes by now, about, when the sums are `summed_bytes`.
    fn used_now(&self, summed_bytes: u64) -> u64 {
        self.used_bytes.saturating_add(summed_bytes).saturating_sub(self.summed_bytes)
    }

    /// Returns whether to measure: a bound seems to be exceeded, or a day has passed. What could not be brought below these
    /// bounds (it is all in use) is left for an hour, unless it grew by a hundredth.
    fn is_due(&self, policy: &CollectPolicy, summed_bytes: u64, disk: Disk, now_secs: i64) -> bool {
        let age = now_secs.saturating_sub(self.at_secs);
        if !(0..DAY_SECS).contains(&age) {
            return true;
        }
        let used = self.used_now(summed_bytes);
        let over = policy.limits.keep_bytes(used, disk).is_some_and(|keep| used > keep) || policy.limits.lacking_inodes(disk) > 0;
        let was_tried = self.limits == Some(policy.limits) && age < HOUR_SECS;
        over && !(was_tried && used <= self.used_bytes.saturating_add(self.used_bytes / 100))
    }
}

impl Store {
    /// Collects if it is time to, by the policy that `policy` makes for the disk; none: it was not. For after a build: costs
    /// nothing when this process wrote no file.
    pub fn collect(
        &self,
        policy: impl FnOnce(Disk) -> CollectPolicy,
        now_secs: i64,
        appraise: Appraise<'_>,
    ) -> Result<Option<PruneReport>> {
        if !self.committer.has_vouched() {
            return Ok(None);
        }
        let (summed, disk) = (self.summed_bytes()?, self.disk()?);
        let policy = &policy(disk);
        // Of a store that was never measured the sums are all that is known.
        let known = self.load_blob_row(KIND, KEY)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let look = known.unwrap_or(Look { limits: None, at_secs: now_secs, summed_bytes: summed, used_bytes: summed });
        if !look.is_due(policy, summed, disk, now_secs) {
            if known.is_none() {
                self.note(look)?;
            }
            return Ok(None);
        }
        let measured = self.measure()?;
        let mut all = PruneReport::default();
        for rule in policy.rules(now_secs) {
            let report = self.prune_measured(&rule, appraise, &measured)?;
            all.images += report.images;
            all.records += report.records;
            all.layers += report.layers;
            all.blobs += report.blobs;
            all.freed += report.freed;
            all.units.extend(report.units);
            all.left_bytes = report.left_bytes;
        }
        let (limits, used_bytes) = (Some(policy.limits), all.left_bytes.unwrap_or(0));
        self.note(Look { limits, at_secs: now_secs, summed_bytes: self.summed_bytes()?, used_bytes })?;
        Ok(Some(all))
    }

    fn note(&self, look: Look) -> Result<()> {
        self.save_blob_row(KIND, KEY, &serde_json::to_vec(&look).expect("numbers are JSON"))
    }

    /// Returns what layers and blobs take, as far as the index knows.
    fn summed_bytes(&self) -> Result<u64> {
        let sum = |sql: &str| self.one(sql, [], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)));
        let layers = sum("SELECT COALESCE(SUM(size_bytes),0),COALESCE(SUM(entries+1),0) FROM layers")?;
        let blobs = sum("SELECT COALESCE(SUM(size_bytes),0),COUNT(*) FROM blobs")?;
        let total = |(bytes, files): (i64, i64)| uint(bytes).saturating_add(uint(files).saturating_mul(BLOCK_BYTES));
        Ok(layers.into_iter().chain(blobs).map(total).fold(0, u64::saturating_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk { total_bytes: 1_000_000_000_000, free_bytes: 500_000_000_000, total_inodes: 1000, free_inodes: 500 };

    #[test]
    fn the_defaults_are_buildkit_s() {
        let Limits { max_used, min_free, reserved } = CollectPolicy::of(DISK).limits;
        let want = [Some(Space::Bytes(100_000_000_000)), Some(Space::Percent(20)), Some(Space::Bytes(10_000_000_000))];
        assert_eq!([max_used, min_free, reserved], want);
        let small = Disk { total_bytes: 50_000_000_000, free_bytes: 0, ..DISK };
        let Limits { max_used, reserved, .. } = CollectPolicy::of(small).limits;
        assert_eq!([max_used, reserved], [Some(Space::Bytes(40_000_000_000)), Some(Space::Bytes(5_000_000_000))]);
    }

    #[test]
    fn everything_is_measured_only_when_it_may_matter() {
        let bounded = Limits { max_used: Some(Space::Bytes(1000)), ..Limits::default() };
        let policy = CollectPolicy { limits: bounded, ..CollectPolicy::of(DISK) };
        let look = Look { limits: Some(bounded), at_secs: 10_000, summed_bytes: 5000, used_bytes: 900 };
        for (summed, now, want) in [
            // The sums were 4,100 too high when it was measured, and still are.
            (5000, 10_001, false),
            (5100, 10_001, false),
            (5101, 10_001, true),
            (4000, 10_001, false),
            (5000, 10_000 + DAY_SECS, true),
            (5000, 9_999, true),
        ] {
            assert_eq!(look.is_due(&policy, summed, DISK, now), want, "{summed} {now}");
        }
        let few_inodes = Disk { free_inodes: 199, ..DISK };
        let with_free = CollectPolicy { limits: Limits { min_free: Some(Space::Percent(20)), ..bounded }, ..policy };
        assert!(look.is_due(&with_free, 5000, few_inodes, 10_001) && !look.is_due(&with_free, 5000, DISK, 10_001));
        // It was over the bound even after a collection: all of it was in use.
        let stuck = Look { used_bytes: 2000, ..look };
        for (summed, now, want) in [(5000, 10_001, false), (5020, 10_001, false), (5021, 10_001, true), (5000, 10_000 + HOUR_SECS, true)] {
            assert_eq!(stuck.is_due(&policy, summed, DISK, now), want, "{summed} {now}");
        }
        // Nobody tried, or not to come down to this.
        for limits in [None, Some(Limits { max_used: Some(Space::Bytes(1500)), ..Limits::default() })] {
            assert!(Look { limits, ..stuck }.is_due(&policy, 5000, DISK, 10_001));
        }
    }
}
