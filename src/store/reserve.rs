//! Room for what makes room: on a full disk a collection could not write which rows go, nor make the directory that files go to.
//!
//! A new store sets aside some bytes and inodes, each collection does so again where they are gone. What frees room and finds none
//! gives them up and tries once more. Who only builds never touches them. Stores that are made on a full disk have none.

use std::error::Error;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::error::IndexTrouble;
use super::{Result, Store, StoreError};

/// The directory, beside everything else in the store.
pub(super) const DIR: &str = "reserve";

/// The first file has the bytes, the others are inodes: of the session's directory, the staging's, the log and its index.
const FILES: [&str; 5] = ["bytes", "1", "2", "3", "4"];

/// What the directories and a short log take.
const LEAST_BYTES: u64 = 1 << 20;
/// A transaction may write each page of the index once; not more than this, so that little disks have room for builds.
const MOST_BYTES: u64 = 64 << 20;

impl Store {
    /// Does what frees room; where there is none for that, the reserve is given up and it is done once more.
    pub(super) fn with_reserve<T>(&self, act: impl Fn() -> Result<T>) -> Result<T> {
        let done = match act() {
            Err(error) if error.may_be_full() && self.release_reserve() => act(),
            other => other,
        };
        self.keep_reserve();
        done
    }

    /// Sets the reserve aside, as far as there is room: nothing depends on it yet.
    pub(super) fn keep_reserve(&self) {
        let index = std::fs::metadata(self.root.join("index.db")).map_or(0, |m| m.len());
        let wanted = index.saturating_mul(2).clamp(LEAST_BYTES, MOST_BYTES);
        let _ = DirBuilder::new().mode(0o700).create(self.root.join(DIR));
        for (path, bytes) in self.reserve().zip([wanted].into_iter().chain(std::iter::repeat(0))) {
            // Grown to twice its size: it is made anew.
            let has = std::fs::metadata(&path).ok().map(|m| m.len());
            if has.is_some_and(|has| has >= bytes / 2) {
                continue;
            }
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
            if file.and_then(|file| occupy(&file, bytes)).is_err() {
                // Not a part of it, which would be taken for all.
                let _ = std::fs::remove_file(&path);
                return;
            }
        }
    }

    /// Gives the reserve up; returns whether there was any.
    fn release_reserve(&self) -> bool {
        // Each of them: `any` would end with the first.
        self.reserve().filter(|path| std::fs::remove_file(path).is_ok()).count() > 0
    }

    fn reserve(&self) -> impl Iterator<Item = PathBuf> {
        let dir = self.root.join(DIR);
        FILES.iter().map(move |name| dir.join(name))
    }
}

/// Lets a file take blocks.
fn occupy(mut file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; usize::try_from(bytes).map_err(|_| ErrorKind::FileTooLarge)?];
            file.write_all(&zeros)
        }
        other => Ok(other?),
    }
}

impl StoreError {
    /// Returns whether more room may help. Of the index's errors nobody knows: a quota's end and a full disk are but I/O errors
    /// there, at some calls.
    pub(super) fn may_be_full(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
            if matches!(errno, Some(libc::ENOSPC | libc::EDQUOT)) || IndexTrouble::of(error).is_some() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_frees_room_gets_the_reserve_and_puts_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let sizes = || store.reserve().map(|p| std::fs::metadata(p).map_or(u64::MAX, |m| m.len())).collect::<Vec<_>>();
        assert_eq!(sizes(), [LEAST_BYTES, 0, 0, 0, 0]);
        let full = |errno| StoreError::io("writing", dir.path())(io::Error::from_raw_os_error(errno));
        let tries = Cell::new(0);
        let act = || {
            tries.set(tries.get() + 1);
            if store.reserve().any(|p| p.exists()) { Err(full(libc::ENOSPC)) } else { Ok(tries.get()) }
        };
        assert_eq!(store.with_reserve(act).unwrap(), 2);
        assert_eq!(sizes(), [LEAST_BYTES, 0, 0, 0, 0]);
        tries.set(0);
        let broken = || -> Result<()> {
            tries.set(tries.get() + 1);
            Err(full(libc::EIO))
        };
        assert!(store.with_reserve(broken).is_err() && tries.get() == 1, "more room is no help");
    }
}
