//! Locks between processes: a step runs once at a time, a collection never while a layer is being taken.
//!
//! All are flock on files of their own, waited for by the kernel: no polling, and nothing to clean up after a kill.
//! Two `File`s of one process exclude each other too, so the same locks work between threads.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::session::remove;
use super::{Result, Store, StoreError};
use crate::digest::CacheKey;

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
fn uninterrupted(mut wait: impl FnMut() -> io::Result<()>) -> io::Result<()> {
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
        let path = root.join("locks/collect");
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

/// How RUN steps share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountSharing {
    /// All use one directory at once.
    Shared,
    /// One after the other.
    Locked,
    /// Each has one of its own; a free one is used again.
    Private,
}

/// A cache mount's directory, protected from collection while this lives.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    _lock: File,
}

impl CacheMount {
    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// Opens the cache mount `id` for one step. A new one is filled by `fill`, which gets an empty directory of
    /// mode 0700, and appears only when that succeeded. With [`MountSharing::Locked`] it may wait for other steps.
    pub fn open_cache_mount<E: From<StoreError>>(
        &self,
        id: &str,
        sharing: MountSharing,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<CacheMount, E> {
        let opened = self.open_cache_mount_unless(id, sharing, &|| false, fill)?;
        Ok(opened.expect("what is never given up is had in the end"))
    }

    /// As [`Store::open_cache_mount`]; none: `give_up` became true while other steps had it.
    pub fn open_cache_mount_unless<E: From<StoreError>>(
        &self,
        id: &str,
        sharing: MountSharing,
        give_up: GiveUp<'_>,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<CacheMount>, E> {
        let name = blake3::hash(id.as_bytes()).to_hex().to_string();
        let dir = self.root.join("cache-mounts");
        let (path, lock) = match sharing {
            MountSharing::Private => first_free(&dir, &name)?,
            MountSharing::Shared | MountSharing::Locked => {
                let lock_path = dir.join(format!("{name}.lock"));
                let lock = open(&lock_path)?;
                let path = dir.join(&name);
                // A directory to be made, too, is made by one alone.
                let alone = sharing == MountSharing::Locked || !path.exists();
                let (at_once, how): (_, fn(&File) -> _) = match alone {
                    true => (lock.try_lock(), File::lock),
                    false => (lock.try_lock_shared(), File::lock_shared),
                };
                match at_once {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        if !wait(&lock, how, give_up).map_err(StoreError::io("locking", &lock_path))? {
                            return Ok(None);
                        }
                    }
                    Err(TryLockError::Error(e)) => return Err(StoreError::io("locking", &lock_path)(e).into()),
                }
                (path, lock)
            }
        };
        if !path.exists() {
            let staging = self.stage()?;
            fill(staging.path())?;
            std::fs::rename(staging.path(), &path).map_err(StoreError::io("making", &path))?;
            self.save_blob_row("cache-mount", &name, id.as_bytes())?;
        }
        if sharing == MountSharing::Shared {
            uninterrupted(|| lock.lock_shared()).map_err(StoreError::io("locking", &path))?;
        }
        Ok(Some(CacheMount { path, _lock: lock }))
    }

    /// Removes a cache mount's directories that no step uses. Returns whether all are gone.
    pub fn remove_cache_mount(&self, id: &str) -> Result<bool> {
        let name = blake3::hash(id.as_bytes()).to_hex().to_string();
        self.remove_unused_mounts(|n| n == name)
    }

    pub(super) fn remove_unused_mounts(&self, chosen: impl Fn(&str) -> bool) -> Result<bool> {
        let dir = self.root.join("cache-mounts");
        let mut all = true;
        for entry in std::fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
            let path = entry.map_err(StoreError::io("listing", &dir))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            if name.ends_with(".lock") || !chosen(name.split('.').next().unwrap_or(name)) {
                continue;
            }
            let lock = open(&dir.join(format!("{name}.lock")))?;
            if lock.try_lock().is_err() {
                all = false;
                continue;
            }
            // Out of the way at once, then removed at leisure: a step that waits makes a new one.
            let trash = self.stage()?;
            let gone = trash.path().join("mount");
            std::fs::rename(&path, &gone).map_err(StoreError::io("removing", &path))?;
            drop(lock);
            remove(&gone)?;
        }
        Ok(all)
    }
}

/// Takes the first directory of `name`, `name.1`, `name.2`, … that nobody uses.
fn first_free(dir: &Path, name: &str) -> Result<(PathBuf, File)> {
    for n in 0.. {
        let name = if n == 0 { name.to_string() } else { format!("{name}.{n}") };
        let lock_path = dir.join(format!("{name}.lock"));
        let lock = open(&lock_path)?;
        match lock.try_lock() {
            Ok(()) => return Ok((dir.join(name), lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(StoreError::io("locking", &lock_path)(e)),
        }
    }
    unreachable!("the range has no end")
}
