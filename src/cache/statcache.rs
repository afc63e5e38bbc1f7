//! Remembered digests of files: a file whose inode tells that nothing happened to it is not read again.
//!
//! Storage only; when a digest may be believed is `context`'s rule (the racy window). One context root is one value:
//! loaded in one piece, saved in one piece, so that 20,000 files cost milliseconds.

use std::collections::HashMap;

use super::index::IndexError;
use super::wire::{Reader, Writer};
use crate::digest::ContentDigest;
use crate::store::Store;

const KIND: &str = "statcache";
const VERSION: u64 = 1;
/// A limit against a damaged length, far above any context (50 million files).
const LIMIT_BYTES: usize = 4 << 30;

/// What an inode tells of its content; nothing of it may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // stat(2)'s names
pub struct Stamp {
    pub dev: u64,
    pub ino: u64,
    pub size_bytes: u64,
    /// Since the epoch, as all times here.
    pub mtime_ns: i128,
    pub ctime_ns: i128,
    pub mode: u32,
}

/// The remembered digests of one context root, by path relative to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatCache(HashMap<Vec<u8>, (Stamp, ContentDigest)>);

impl StatCache {
    /// Returns the digest remembered for a path, when its stamp is exactly this.
    pub fn lookup(&self, path: &[u8], stamp: &Stamp) -> Option<ContentDigest> {
        self.0.get(path).filter(|(s, _)| s == stamp).map(|(_, digest)| *digest)
    }

    /// Remembers a digest.
    pub fn insert(&mut self, path: Vec<u8>, stamp: Stamp, digest: ContentDigest) {
        self.0.insert(path, (stamp, digest));
    }

    /// Returns how many files it knows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Loads what is remembered of a context root; nothing, or nothing readable: empty.
    pub fn load(store: &Store, root: &str) -> Result<Self, IndexError> {
        let bytes = store.load_blob_row(KIND, root)?;
        Ok(bytes.and_then(|b| Self::decode(&b)).unwrap_or_default())
    }

    /// Replaces what is remembered of a context root.
    pub fn save(&self, store: &Store, root: &str) -> Result<(), IndexError> {
        Ok(store.save_blob_row(KIND, root, &self.encode())?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(self.0.len() * 128));
        w.number(VERSION);
        w.number(self.0.len() as u64);
        for (path, (s, digest)) in &self.0 {
            w.bytes(path);
            for n in [s.dev, s.ino, s.size_bytes, u64::from(s.mode)] {
                w.number(n);
            }
            w.raw(&s.mtime_ns.to_le_bytes());
            w.raw(&s.ctime_ns.to_le_bytes());
            w.raw(digest.as_bytes());
        }
        // Digests don't compress and paths are short: stored plain, which is what makes it fast.
        w.0
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        if bytes.len() > LIMIT_BYTES || r.number()? != VERSION {
            return None;
        }
        let count = usize::try_from(r.number()?).ok()?;
        // A damaged count must not reserve memory: no entry is shorter than this.
        let mut cache = HashMap::with_capacity(count.min(bytes.len() / 64));
        for _ in 0..count {
            let path = r.bytes()?.to_vec();
            let (dev, ino, size_bytes, mode) = (r.number()?, r.number()?, r.number()?, r.small()?);
            let (mtime_ns, ctime_ns) = (i128::from_le_bytes(r.array()?), i128::from_le_bytes(r.array()?));
            let digest = ContentDigest::from_bytes(r.array()?);
            cache.insert(path, (Stamp { dev, ino, size_bytes, mtime_ns, ctime_ns, mode }, digest));
        }
        r.0.is_empty().then_some(Self(cache))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(n: u64) -> Stamp {
        Stamp { dev: 1, ino: n, size_bytes: n * 10, mtime_ns: -5, ctime_ns: 1 << 62, mode: 0o100_644 }
    }

    #[test]
    fn any_difference_of_the_stamp_forgets_the_digest() {
        let digest = ContentDigest::from_bytes([3; 32]);
        let mut cache = StatCache::default();
        cache.insert(b"a".to_vec(), stamp(1), digest);
        assert_eq!(cache.lookup(b"a", &stamp(1)), Some(digest));
        let s = stamp(1);
        for other in [
            Stamp { dev: 2, ..s },
            Stamp { ino: 2, ..s },
            Stamp { size_bytes: 2, ..s },
            Stamp { mtime_ns: 2, ..s },
            Stamp { ctime_ns: 2, ..s },
            Stamp { mode: 2, ..s },
        ] {
            assert_eq!(cache.lookup(b"a", &other), None, "{other:?}");
        }
        assert_eq!(cache.lookup(b"b", &s), None);
    }

    #[test]
    fn its_bytes_give_it_back_and_cut_ones_give_nothing() {
        let mut cache = StatCache::default();
        for n in 0..50 {
            cache.insert(format!("dir/{n}").into_bytes(), stamp(n), ContentDigest::from_bytes([9; 32]));
        }
        let bytes = cache.encode();
        assert_eq!(StatCache::decode(&bytes), Some(cache));
        assert_eq!(StatCache::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(StatCache::decode(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), None);
    }
}
