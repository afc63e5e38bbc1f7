//! Locks between processes: a step runs once at a time, a collection never while a layer is being taken.
//!
//! All are flock on files of their own, waited for by the kernel: no polling, and after a kill nothing but an empty file to be
//! removed by the next process.
//! Two `File`s of one process exclude each other too, so the same locks work between threads.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Result, Store, StoreError};
use crate::digest::CacheKey;

/// The one lock file that stays.
const COLLECT: &str = "collect";

/// A lock held on a file that exists only for it; dropping it removes the file.
pub(super) struct Held {
    path: PathBuf,
    _file: File,
    waited: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Removed while it is held: who waits on the old file sees that it has no name any more, and opens anew.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes the lock named by `path`; waits as long as it takes.
pub(super) fn blocking(path: &Path) -> Result<Held> {
    loop {
        if let Some(held) = blocking_unless(path, || {}, &|| false)? {
            return Ok(held);
        }
    }
}

/// As [`blocking`]; calls `before_waiting` when somebody else has it. None: `give_up` became true meanwhile.
fn blocking_unless(path: &Path, before_waiting: impl Fn(), give_up: GiveUp<'_>) -> Result<Option<Held>> {
    let mut waited = false;
    loop {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waited = true;
                before_waiting();
                if !wait(&file, File::lock, give_up).map_err(StoreError::io("locking", path))? {
                    return Ok(None);
                }
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("locking", path)(e)),
        }
        if file.metadata().map_err(StoreError::io("looking at", path))?.nlink() > 0 {
            return Ok(Some(Held { path: path.into(), _file: file, waited }));
        }
    }
}

/// Removes the files of locks that killed processes had.
///
/// Whoever opened one before that and waits for it sees that it has no name any more.
pub(super) fn reclaim_stale(root: &Path) -> Result<()> {
    let dir = root.join("locks");
    for entry in std::fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
        let entry = entry.map_err(StoreError::io("listing", &dir))?;
        if entry.file_name() == COLLECT {
            continue;
        }
        if let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

pub(super) fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(StoreError::io("opening", path))
}

/// Asked while somebody else's lock is waited for: whether to wait no longer.
pub type GiveUp<'a> = &'a dyn Fn() -> bool;

/// How often a wait asks whether to give up.
const GIVE_UP_POLL: std::time::Duration = std::time::Duration::from_millis(100);

/// Waits for a lock; returns false when `give_up` became true first.
///
/// A thread waits in the kernel. One that nobody waits for any more drops the lock as soon as it gets it: the lock is
/// the open file's, and that thread is then the last who has it.
pub(super) fn wait(file: &File, how: fn(&File) -> io::Result<()>, give_up: GiveUp<'_>) -> io::Result<bool> {
    let waiting = file.try_clone()?;
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("lock".into()).spawn(move || {
        // Nobody listens any more: that is what giving up means.
        let _ = tell.send(uninterrupted(|| how(&waiting)));
    })?;
    loop {
        match told.recv_timeout(GIVE_UP_POLL) {
            Ok(outcome) => return outcome.map(|()| true),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if !give_up() => {}
            Err(_) => return Ok(false),
        }
    }
}

/// Signals interrupt a wait for flock; it goes on afterwards.
pub(super) fn uninterrupted(mut wait: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match wait() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// The right to run the step of one key; see [`Store::lock_step`].
pub struct StepGuard(Held);

impl StepGuard {
    /// Returns whether somebody else had the lock first: then look up the record again.
    pub fn waited(&self) -> bool {
        self.0.waited
    }
}

/// `locks/collect`: held shared for the moment in which a layer is taken, exclusive while garbage is chosen.
pub(super) struct CollectionLock {
    path: PathBuf,
    // The mutex matters: threads share the open file, and one's unlocking would unlock the other's.
    file: Mutex<File>,
}

pub(super) struct CollectionGuard<'a>(MutexGuard<'a, File>);

impl CollectionLock {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let path = root.join("locks").join(COLLECT);
        Ok(Self { file: Mutex::new(open(&path)?), path })
    }

    pub(super) fn shared(&self) -> Result<CollectionGuard<'_>> {
        self.take(File::lock_shared)
    }

    pub(super) fn exclusive(&self) -> Result<CollectionGuard<'_>> {
        self.take(File::lock)
    }

    fn take(&self, how: fn(&File) -> io::Result<()>) -> Result<CollectionGuard<'_>> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        uninterrupted(|| how(&file)).map_err(StoreError::io("locking", &self.path))?;
        Ok(CollectionGuard(file))
    }
}

impl Drop for CollectionGuard<'_> {
    fn drop(&mut self) {
        // Unlocking a lock that is held can't fail.
        let _ = self.0.unlock();
    }
}

impl Store {
    /// Gives the right to run the step of `key`; waits while another process or thread has it.
    ///
    /// Dies with its process.
    pub fn lock_step(&self, key: &CacheKey) -> Result<StepGuard> {
        loop {
            if let Some(guard) = self.lock_step_unless(key, &|| false)? {
                return Ok(guard);
            }
        }
    }

    /// As [`Store::lock_step`]; none: `give_up` became true while somebody else had it.
    pub fn lock_step_unless(&self, key: &CacheKey, give_up: GiveUp<'_>) -> Result<Option<StepGuard>> {
        // The one that is waited for may be this process's own, and only wait for being written.
        let held = blocking_unless(&self.root.join("locks").join(key.hex()), || self.committer.hurry(), give_up)?;
        Ok(held.map(StepGuard))
    }
}
