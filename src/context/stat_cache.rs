//! Remembers digests of a context's files, so that unchanged files are not read again.
//!
//! An entry is believed only when device, inode, size, mtime *and* ctime are equal to the nanosecond: a program
//! can set an mtime back, but not a ctime. Size and mtime alone are never proof (that is how other builders ship
//! old bytes). A file that changed less than [`RACY_NS`] before the selection began is not remembered: a second
//! change within one tick of the clock would leave the same times. Only files without xattrs are remembered, so
//! a hit also says that there are none.
//!
//! ```text
//! "PLYSTAT1" · count u64 · count records of 88 bytes, sorted by device and inode · BLAKE3 of all before
//! record: device u64 · inode u64 · size u64 · mtime (i64, u32) · ctime (i64, u32) · digest 32 bytes · 8 zero
//! ```
//!
//! All numbers are little-endian. The records are searched where they lie, so that loading costs one checksum; files
//! that were made one after the other mostly have inodes that follow each other, so a search begins where the last ended.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::digest::ContentDigest;
use crate::path::Time;

use super::tree::Stamp;

/// How old a file's times must be to prove anything. The kernel's clock ticks every 1 to 10 ms (CONFIG_HZ 1000
/// to 100), and some file systems keep coarser times; twice the worst tick.
pub const RACY_NS: u64 = 20_000_000;

/// More entries than this (about 18 MB) are only kept of files that the last build looked at.
const MAX_ENTRIES: usize = 200_000;

const MAGIC: &[u8; 8] = b"PLYSTAT1";
const HEADER: usize = 16;
const RECORD: usize = 88;
const CHECKSUM: usize = 32;

/// Where stat caches are kept.
pub trait StatCacheStore {
    /// Returns what was saved for a context, if anything.
    fn load(&self, context: &str) -> std::io::Result<Option<Vec<u8>>>;
    /// Keeps `bytes`; the last writer wins.
    fn save(&self, context: &str, bytes: &[u8]) -> std::io::Result<()>;
}

/// The remembered digests of one context.
#[derive(Debug)]
pub struct StatCache {
    /// Whole and checked, or empty.
    old: Vec<u8>,
    /// Which records were found, and so are of files that are still there.
    found: Vec<AtomicBool>,
    /// Where the last search ended.
    last: AtomicUsize,
    fresh: Mutex<BTreeMap<(u64, u64), (Stamp, ContentDigest)>>,
    trusted_before: Time,
}

impl StatCache {
    /// Makes a cache from what was saved; damaged or foreign bytes count as nothing.
    ///
    /// `now` must be read before the first file is looked at.
    pub fn open(saved: Option<Vec<u8>>, now: SystemTime) -> Self {
        let old = saved.filter(|b| is_whole(b)).unwrap_or_default();
        let found = std::iter::repeat_with(AtomicBool::default).take(records(&old).len()).collect();
        Self { old, found, last: AtomicUsize::default(), fresh: Mutex::default(), trusted_before: trusted_before(now) }
    }

    /// Whether a file that was read now can be known by its stamp later.
    pub fn is_settled(&self, stamp: &Stamp) -> bool {
        is_settled(stamp, self.trusted_before)
    }

    /// Returns the digest of the file with exactly this stamp.
    pub fn find(&self, stamp: &Stamp) -> Option<ContentDigest> {
        if let Some((known, digest)) = self.fresh.lock().ok()?.get(&(stamp.dev, stamp.ino)) {
            return (known == stamp).then_some(*digest);
        }
        let (records, wanted) = (records(&self.old), (stamp.dev, stamp.ino));
        let next = self.last.load(Ordering::Relaxed) + 1;
        let at = match records.get(next) {
            Some(record) if key(record) == wanted => next,
            _ => records.partition_point(|r| key(r) < wanted),
        };
        self.last.store(at, Ordering::Relaxed);
        let (known, digest) = decode(records.get(at)?);
        if known != *stamp {
            return None;
        }
        self.found[at].store(true, Ordering::Relaxed);
        Some(digest)
    }

    /// Remembers a digest; does nothing for a file that isn't settled.
    pub fn remember(&self, stamp: Stamp, digest: ContentDigest) {
        if self.is_settled(&stamp)
            && let Ok(mut fresh) = self.fresh.lock()
        {
            fresh.insert((stamp.dev, stamp.ino), (stamp, digest));
        }
    }

    /// Returns the bytes to save, or none when nothing was learnt.
    ///
    /// Entries of files that this build didn't look at are kept, until there are too many.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        self.to_bytes_within(MAX_ENTRIES)
    }

    fn to_bytes_within(&self, max_entries: usize) -> Option<Vec<u8>> {
        let fresh = self.fresh.lock().ok()?;
        if fresh.is_empty() {
            return None;
        }
        let records = records(&self.old);
        let room = records.len() + fresh.len() <= max_entries;
        let kept = records.iter().zip(&self.found).filter(|(_, found)| room || found.load(Ordering::Relaxed));
        let mut all: BTreeMap<(u64, u64), (Stamp, ContentDigest)> = kept.map(|(r, _)| (key(r), decode(r))).collect();
        all.extend(fresh.iter().map(|(k, v)| (*k, *v)));
        let mut out = Vec::with_capacity(HEADER + all.len() * RECORD + CHECKSUM);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&(all.len() as u64).to_le_bytes());
        for (stamp, digest) in all.values() {
            encode(stamp, digest, &mut out);
        }
        let sum = blake3::hash(&out);
        out.extend_from_slice(sum.as_bytes());
        Some(out)
    }
}

fn records(whole: &[u8]) -> &[[u8; RECORD]] {
    match whole.len() {
        0 => &[],
        n => whole[HEADER..n - CHECKSUM].as_chunks().0,
    }
}

/// Whether `stamp` proves its content to someone who began to look at `now`.
pub(super) fn is_settled_at(stamp: &Stamp, now: SystemTime) -> bool {
    is_settled(stamp, trusted_before(now))
}

fn is_settled(stamp: &Stamp, limit: Time) -> bool {
    stamp.ctime < limit && stamp.mtime < limit
}

fn trusted_before(now: SystemTime) -> Time {
    let limit = now.checked_sub(Duration::from_nanos(RACY_NS)).and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Time { secs: i64::try_from(limit.as_secs()).unwrap_or(0), nanos: limit.subsec_nanos() }
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(body) = bytes.len().checked_sub(CHECKSUM).filter(|n| *n >= HEADER && (*n - HEADER).is_multiple_of(RECORD)) else {
        return false;
    };
    let count = ((body - HEADER) / RECORD) as u64;
    bytes[..8] == *MAGIC && bytes[8..HEADER] == count.to_le_bytes() && blake3::hash(&bytes[..body]).as_bytes() == &bytes[body..]
}

fn encode(stamp: &Stamp, digest: &ContentDigest, out: &mut Vec<u8>) {
    for n in [stamp.dev, stamp.ino, stamp.size] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    for t in [stamp.mtime, stamp.ctime] {
        out.extend_from_slice(&t.secs.to_le_bytes());
        out.extend_from_slice(&t.nanos.to_le_bytes());
    }
    out.extend_from_slice(digest.as_bytes());
    out.extend_from_slice(&[0; 8]);
}

fn key(record: &[u8; RECORD]) -> (u64, u64) {
    (u64_at(record, 0), u64_at(record, 8))
}

fn decode(record: &[u8; RECORD]) -> (Stamp, ContentDigest) {
    let time = |at| Time { secs: u64_at(record, at).cast_signed(), nanos: u32_at(record, at + 8) };
    let stamp = Stamp { dev: u64_at(record, 0), ino: u64_at(record, 8), size: u64_at(record, 16), mtime: time(24), ctime: time(36) };
    let mut digest = [0; 32];
    digest.copy_from_slice(&record[48..80]);
    (stamp, ContentDigest::from_bytes(digest))
}

fn u64_at(record: &[u8; RECORD], at: usize) -> u64 {
    let mut n = [0; 8];
    n.copy_from_slice(&record[at..at + 8]);
    u64::from_le_bytes(n)
}

fn u32_at(record: &[u8; RECORD], at: usize) -> u32 {
    let mut n = [0; 4];
    n.copy_from_slice(&record[at..at + 4]);
    u32::from_le_bytes(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ino: u64) -> Stamp {
        let time = |nanos| Time { secs: 1_700_000_000, nanos };
        Stamp { dev: 7, ino, size: 10, mtime: time(5), ctime: time(6) }
    }
    fn digest(n: u8) -> ContentDigest {
        ContentDigest::from_bytes([n; 32])
    }
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn what_was_saved_is_found_only_by_the_whole_stamp() {
        let cache = StatCache::open(None, now());
        for n in (1..=200u8).rev() {
            cache.remember(stamp(u64::from(n)), digest(n));
        }
        let bytes = cache.to_bytes().unwrap();
        let again = StatCache::open(Some(bytes.clone()), now());
        for n in 1..=200u8 {
            assert_eq!(again.find(&stamp(u64::from(n))), Some(digest(n)));
        }
        assert_eq!(again.to_bytes(), None, "nothing new was learnt");
        let s = stamp(5);
        let later = Time { nanos: 7, ..s.ctime };
        for other in [
            Stamp { dev: 8, ..s },
            Stamp { ino: 999, ..s },
            Stamp { size: 11, ..s },
            Stamp { mtime: later, ..s },
            Stamp { ctime: later, ..s },
            Stamp { ctime: Time { secs: 1, ..s.ctime }, ..s },
        ] {
            assert_eq!(again.find(&other), None, "{other:?}");
        }
        again.remember(Stamp { size: 11, ..s }, digest(77));
        assert_eq!(again.find(&s), None, "the file was replaced");
        let third = StatCache::open(again.to_bytes(), now());
        assert_eq!((third.find(&Stamp { size: 11, ..s }), third.find(&stamp(6))), (Some(digest(77)), Some(digest(6))));
    }

    #[test]
    fn when_there_are_too_many_those_that_were_looked_at_stay() {
        let cache = StatCache::open(None, now());
        for n in 1..=10u8 {
            cache.remember(stamp(u64::from(n)), digest(n));
        }
        let bytes = cache.to_bytes();
        for (max_entries, kept) in [(11, vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), (10, vec![2, 3, 7, 11])] {
            let cache = StatCache::open(bytes.clone(), now());
            for n in [7, 2, 3] {
                assert_eq!(cache.find(&stamp(n)), Some(digest(n.try_into().unwrap())));
            }
            assert_eq!(cache.find(&Stamp { size: 99, ..stamp(5) }), None);
            cache.remember(stamp(11), digest(11));
            let again = StatCache::open(cache.to_bytes_within(max_entries), now());
            let found: Vec<u64> = (0..20).filter(|n| again.find(&stamp(*n)).is_some()).collect();
            assert_eq!(found, kept, "{max_entries}");
        }
    }

    #[test]
    fn damaged_bytes_count_as_nothing() {
        let cache = StatCache::open(None, now());
        cache.remember(stamp(1), digest(1));
        let good = cache.to_bytes().unwrap();
        assert!(is_whole(&good));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(StatCache::open(Some(bad), now()).find(&stamp(1)), None, "byte {at}");
            assert_eq!(StatCache::open(Some(good[..at].to_vec()), now()).find(&stamp(1)), None, "length {at}");
        }
    }

    #[test]
    fn a_file_that_changed_a_moment_ago_is_not_remembered() {
        let changed = UNIX_EPOCH + Duration::new(1_700_000_000, 6);
        for (age_ns, kept) in [(0, false), (RACY_NS, false), (RACY_NS + 1, true)] {
            let cache = StatCache::open(None, changed + Duration::from_nanos(age_ns));
            cache.remember(stamp(1), digest(1));
            assert_eq!(cache.find(&stamp(1)).is_some(), kept, "{age_ns}");
        }
    }
}
