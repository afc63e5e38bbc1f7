//! Which units go. Pure.
//!
//! Units may share files (two records of one tar), and files may be needed by what is no unit (an image's layers). Only when the
//! last who needs a file goes is its room free, so it is counted then, once.

use serde::{Deserialize, Serialize};

use crate::store::usage::Usage;

/// How much of the disk: bytes, or a share of all that the disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Space {
    /// So many.
    Bytes(u64),
    /// A share of the disk, in percent.
    Percent(u8),
}

/// The disk that the store lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// All that it has.
    pub total_bytes: u64,
    /// What ordinary users may still write.
    pub free_bytes: u64,
    /// How many inodes it has; 0: as many as it wants.
    pub total_inodes: u64,
    /// How many of them ordinary users may still take.
    pub free_inodes: u64,
}

impl Space {
    /// Returns the bytes.
    pub fn bytes(self, disk: Disk) -> u64 {
        self.of(disk.total_bytes)
    }

    fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (u128::from(total) * u128::from(percent) / 100).try_into().unwrap_or(u64::MAX),
        }
    }
}

/// How much the cache may take; none of them: no bound, all that is chosen goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// The cache takes no more than this.
    pub max_used: Option<Space>,
    /// At least so much of the disk is free.
    pub min_free: Option<Space>,
    /// So much the cache may always have, whatever the other two say.
    pub reserved: Option<Space>,
}

impl Limits {
    /// Whether there is none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns how many inodes less there are free than shall be: a share that is to be free is one of the inodes, too. BuildKit
    /// looks at bytes alone (moby/buildkit#3039).
    pub fn lacking_inodes(&self, disk: Disk) -> u64 {
        let share = |percent| Space::Percent(percent).of(disk.total_inodes);
        match self.min_free {
            Some(Space::Percent(percent)) => share(percent).saturating_sub(disk.free_inodes),
            Some(Space::Bytes(_)) | None => 0,
        }
    }

    /// Returns how much of a cache that takes `used` may stay; none: there is no bound.
    pub fn keep(&self, used: Usage, disk: Disk) -> Option<Usage> {
        let bytes = self.keep_bytes(used.bytes, disk)?;
        // The tenth that the cache may always have is usually given in bytes; it is one of the inodes, too.
        let inodes = match self.lacking_inodes(disk) {
            0 => u64::MAX,
            lacking => used.inodes.saturating_sub(lacking).max(Space::Percent(10).of(disk.total_inodes)),
        };
        Some(Usage { bytes, inodes })
    }

    /// Returns how many bytes of a cache of `used_bytes` may stay, as BuildKit reckons; none: there is no bound.
    pub fn keep_bytes(&self, used_bytes: u64, disk: Disk) -> Option<u64> {
        if self.are_none() {
            return None;
        }
        let [max_used, min_free, reserved] = [self.max_used, self.min_free, self.reserved].map(|space| space.map(|s| s.bytes(disk)));
        let lacking = min_free.map_or(0, |free| free.saturating_sub(disk.free_bytes));
        let keep = match (max_used, min_free) {
            (Some(max), _) if lacking > 0 => max.min(used_bytes.saturating_sub(lacking)),
            (Some(max), _) => max,
            (None, Some(_)) => used_bytes.saturating_sub(lacking),
            (None, None) => 0,
        };
        Some(keep.max(reserved.unwrap_or(0)))
    }
}

/// A unit that may go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    /// Whether it may: nobody uses it, and what was asked for takes it.
    pub eligible: bool,
    /// What it is worth.
    pub worth: f64,
    /// When it was last of use.
    pub last_used_secs: i64,
    /// Its files, by place.
    pub files: Vec<usize>,
}

/// A file that units need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChoiceFile {
    /// What it takes.
    pub usage: Usage,
    /// Whether something that is no unit needs it too.
    pub rooted: bool,
}

/// Returns what the units take that nothing else needs: a file that several share once.
pub(super) fn used(units: &[Choice], files: &[ChoiceFile]) -> Usage {
    let mut counted = vec![false; files.len()];
    let mut total = Usage::default();
    for &file in units.iter().flat_map(|u| &u.files) {
        if !files[file].rooted && !std::mem::replace(&mut counted[file], true) {
            total += files[file].usage;
        }
    }
    total
}

/// Returns the units that go, least worth first; with `keep` no more than are needed to come down to it, and none
/// whose going frees nothing.
pub(super) fn choose(units: &[Choice], files: &[ChoiceFile], keep: Option<Usage>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..units.len()).filter(|n| units[*n].eligible).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&units[*a], &units[*b]);
        a.worth.total_cmp(&b.worth).then(a.last_used_secs.cmp(&b.last_used_secs))
    });
    let Some(keep) = keep else { return order };
    let mut needs: Vec<usize> = files.iter().map(|f| usize::from(f.rooted)).collect();
    units.iter().flat_map(|u| &u.files).for_each(|f| needs[*f] += 1);
    let mut used = used(units, files);
    let mut chosen = Vec::new();
    for n in order {
        if used.bytes <= keep.bytes && used.inodes <= keep.inodes {
            break;
        }
        if units[n].files.iter().all(|f| files[*f].rooted) {
            continue;
        }
        for &file in &units[n].files {
            needs[file] -= 1;
            if needs[file] == 0 {
                used.bytes = used.bytes.saturating_sub(files[file].usage.bytes);
                used.inodes = used.inodes.saturating_sub(files[file].usage.inodes);
            }
        }
        chosen.push(n);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk { total_bytes: 1000, free_bytes: 100, total_inodes: 1000, free_inodes: 1000 };

    #[test]
    fn limits_are_reckoned_as_buildkit_does() {
        use Space::{Bytes, Percent};
        let limits = |max, free, reserved| Limits { max_used: max, min_free: free, reserved };
        for (case, want) in [
            (limits(None, None, None), None),
            (limits(Some(Bytes(300)), None, None), Some(300)),
            (limits(Some(Percent(20)), None, None), Some(200)),
            (limits(None, Some(Bytes(50)), None), Some(500)),
            (limits(None, Some(Bytes(150)), None), Some(450)),
            (limits(None, Some(Percent(90)), None), Some(0)),
            (limits(Some(Bytes(460)), Some(Bytes(150)), None), Some(450)),
            (limits(Some(Bytes(440)), Some(Bytes(150)), None), Some(440)),
            (limits(Some(Bytes(300)), None, Some(Bytes(400))), Some(400)),
            (limits(None, Some(Percent(90)), Some(Percent(10))), Some(100)),
            (limits(None, None, Some(Bytes(70))), Some(70)),
            (limits(None, None, Some(Bytes(0))), Some(0)),
        ] {
            assert_eq!(case.keep_bytes(500, DISK), want, "{case:?}");
        }
    }

    fn unit(worth: f64, files: &[usize]) -> Choice {
        Choice { eligible: true, worth, last_used_secs: 0, files: files.to_vec() }
    }

    fn file(bytes: u64) -> ChoiceFile {
        ChoiceFile { usage: Usage { bytes, inodes: 1 }, rooted: false }
    }

    fn bytes(bytes: u64) -> Usage {
        Usage { bytes, inodes: u64::MAX }
    }

    #[test]
    fn inodes_count_as_space() {
        let limits = Limits { max_used: Some(Space::Bytes(u64::MAX)), min_free: Some(Space::Percent(20)), reserved: None };
        let disk = |total_inodes, free_inodes| Disk { total_bytes: 1000, free_bytes: 900, total_inodes, free_inodes };
        let used = Usage { bytes: 50, inodes: 500 };
        for (disk, want) in [
            (disk(1000, 200), u64::MAX),
            (disk(1000, 50), 350),
            // A tenth of them the cache may always have.
            (disk(1000, 0), 300),
            (disk(10_000, 0), 1000),
            // Some file systems count none.
            (disk(0, 0), u64::MAX),
        ] {
            assert_eq!(limits.keep(used, disk).unwrap().inodes, want, "{disk:?}");
        }
        let by_bytes = Limits { min_free: Some(Space::Bytes(10)), ..limits };
        assert_eq!(by_bytes.keep(used, disk(1000, 0)).unwrap().inodes, u64::MAX);
        let files = [ChoiceFile { usage: Usage { bytes: 1, inodes: 300 }, rooted: false }, file(100), file(100)];
        let units = [unit(3.0, &[0]), unit(1.0, &[1]), unit(2.0, &[2])];
        let keep = |inodes| Some(Usage { bytes: u64::MAX, inodes });
        assert_eq!(choose(&units, &files, keep(302)), [0; 0]);
        assert_eq!(choose(&units, &files, keep(301)), [1]);
        assert_eq!(choose(&units, &files, keep(10)), [1, 2, 0]);
    }

    #[test]
    fn least_worth_goes_first_and_no_more_than_needed() {
        let files = [file(100), file(200), file(300), ChoiceFile { rooted: true, ..file(900) }];
        let units = [
            unit(3.0, &[0]),
            unit(1.0, &[1]),
            unit(2.0, &[2]),
            // An image has it: nothing would be won.
            unit(0.0, &[3]),
            Choice { eligible: false, ..unit(0.5, &[]) },
        ];
        assert_eq!(used(&units, &files).bytes, 600);
        for (keep, want) in [
            (None, vec![3, 1, 2, 0]),
            (Some(600), vec![]),
            (Some(599), vec![1]),
            (Some(400), vec![1]),
            (Some(399), vec![1, 2]),
            (Some(0), vec![1, 2, 0]),
        ] {
            assert_eq!(choose(&units, &files, keep.map(bytes)), want, "{keep:?}");
        }
    }

    #[test]
    fn what_is_shared_is_free_when_the_last_goes() {
        let files = [file(100), file(10), file(20)];
        let units = [unit(1.0, &[0, 1]), unit(2.0, &[0, 2])];
        assert_eq!(used(&units, &files).bytes, 130);
        assert_eq!(choose(&units, &files, Some(bytes(120))), [0]);
        assert_eq!(choose(&units, &files, Some(bytes(119))), [0, 1]);
        let held = [unit(1.0, &[0, 1]), Choice { eligible: false, ..unit(2.0, &[0, 2]) }];
        assert_eq!(choose(&held, &files, Some(bytes(0))), [0], "the other one stays, so does what they share");
    }

    #[test]
    fn of_equal_worth_the_one_of_use_longest_ago_goes_first() {
        let at = |last_used_secs| Choice { last_used_secs, ..unit(1.0, &[]) };
        assert_eq!(choose(&[at(30), at(10), at(20)], &[], None), [1, 2, 0]);
    }
}
