//! What `RUN --mount=type=cache` keeps between builds: directories that steps share, list and empty.
//!
//! A directory is named by the hash of its [`CacheMountId`], which the index keeps for people. What a newcomer would get
//! wrong: owner, mode and seed are part of the identity (BuildKit's rule), so one id may have several directories; and
//! `private` sharing makes further ones, `HASH.1`, `HASH.2`, each with a lock of its own.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use serde::{Deserialize, Serialize};

use super::lock::{GiveUp, open, uninterrupted, wait};
use super::session::remove;
use super::usage::{Usage, Walk};
use super::{Result, Store, StoreError};

const DIR: &str = "cache-mounts";
/// The kind of the index's values that say what a directory is.
const ROW: &str = "cache-mount";

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

/// What tells cache mounts apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheMountId {
    /// `BUILDKIT_CACHE_MOUNT_NS`; empty: the common one.
    pub namespace: String,
    /// `id=`, else the cleaned target.
    pub id: String,
    /// `mode=`, `uid=`, `gid=` where one of them is not the default.
    pub owner: Option<(u32, u32, u32)>,
    /// The content that a new one starts with.
    pub seed: Option<String>,
}

impl CacheMountId {
    /// Returns the identity of an empty directory of root's.
    pub fn plain(id: impl Into<String>) -> Self {
        Self { namespace: String::new(), id: id.into(), owner: None, seed: None }
    }

    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    fn hash(&self) -> String {
        blake3::hash(&self.to_bytes()).to_hex().to_string()
    }
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

/// The directories of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountRow {
    /// What it is.
    pub id: CacheMountId,
    /// How many directories: more than one where steps had private ones at once.
    pub directories: u64,
    /// What they take.
    pub usage: Usage,
    /// When a step last opened one, in unix seconds.
    pub last_used_secs: i64,
    /// Whether a step uses one now.
    pub in_use: bool,
}

impl Store {
    /// Opens the cache mount `id` for one step. A new one is filled by `fill`, which gets an empty directory of
    /// mode 0700, and appears only when that succeeded. With [`MountSharing::Locked`] it may wait for other steps.
    pub fn open_cache_mount<E: From<StoreError>>(
        &self,
        id: &CacheMountId,
        sharing: MountSharing,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<CacheMount, E> {
        let opened = self.open_cache_mount_unless(id, sharing, &|| false, fill)?;
        Ok(opened.expect("what is never given up is had in the end"))
    }

    /// As [`Store::open_cache_mount`]; none: `give_up` became true while other steps had it.
    pub fn open_cache_mount_unless<E: From<StoreError>>(
        &self,
        id: &CacheMountId,
        sharing: MountSharing,
        give_up: GiveUp<'_>,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<CacheMount>, E> {
        let name = id.hash();
        let dir = self.root.join(DIR);
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
            let filled = std::fs::read_dir(staging.path()).map_err(StoreError::io("listing", staging.path()))?.next().is_some();
            if filled {
                // Its name is all that vouches for what it begins with.
                self.sync_files()?;
            }
            std::fs::rename(staging.path(), &path).map_err(StoreError::io("making", &path))?;
            self.save_blob_row(ROW, &name, &id.to_bytes())?;
        }
        if sharing == MountSharing::Shared {
            uninterrupted(|| lock.lock_shared()).map_err(StoreError::io("locking", &path))?;
        }
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        futimens(&lock, &Timestamps { last_access: now, last_modification: now })
            .map_err(|e| StoreError::io("noting the use of", &path)(e.into()))?;
        Ok(Some(CacheMount { path, _lock: lock }))
    }

    /// Returns all cache mounts, by namespace and id. Those that an older version made under a hash alone are left out.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountRow>> {
        let mut walk = Walk::default();
        let mut rows: BTreeMap<CacheMountId, CacheMountRow> = BTreeMap::new();
        for (name, found) in self.mount_directories()? {
            if self.cache_mount_id(&name)?.is_none() {
                continue;
            }
            let usage = walk.tree(&self.root.join(DIR).join(&name))?;
            let row = rows.entry(found.id.clone()).or_insert(CacheMountRow { directories: 0, usage: Usage::default(), ..found.clone() });
            row.directories += 1;
            row.usage += usage;
            row.last_used_secs = row.last_used_secs.max(found.last_used_secs);
            row.in_use |= found.in_use;
        }
        Ok(rows.into_values().collect())
    }

    /// Returns each directory by its name, unmeasured. One that an older version made has its name as its id.
    pub(super) fn mount_directories(&self) -> Result<Vec<(String, CacheMountRow)>> {
        let dir = self.root.join(DIR);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
            let name = entry.map_err(StoreError::io("listing", &dir))?.file_name();
            let Some(name) = name.to_str().filter(|n| !n.ends_with(".lock")) else { continue };
            let lock_path = dir.join(format!("{name}.lock"));
            let lock = open(&lock_path)?;
            let row = CacheMountRow {
                id: self.cache_mount_id(name)?.unwrap_or_else(|| CacheMountId::plain(name)),
                directories: 1,
                usage: Usage::default(),
                last_used_secs: lock.metadata().map_err(StoreError::io("looking at", &lock_path))?.mtime(),
                in_use: lock.try_lock().is_err(),
            };
            found.push((name.to_owned(), row));
        }
        Ok(found)
    }

    /// Returns what a directory among the cache mounts is; none: a lock, or of an older version.
    pub(super) fn cache_mount_id(&self, name: &str) -> Result<Option<CacheMountId>> {
        if name.ends_with(".lock") {
            return Ok(None);
        }
        let hash = name.split('.').next().unwrap_or(name);
        Ok(self.load_blob_row(ROW, hash)?.and_then(|row| serde_json::from_slice(&row).ok()))
    }

    /// Removes a cache mount's directories that no step uses. Returns whether all are gone.
    pub fn remove_cache_mount(&self, id: &CacheMountId) -> Result<bool> {
        let hash = id.hash();
        self.remove_unused_mounts(|name| name.split('.').next() == Some(hash.as_str()), |_| {})
    }

    /// Removes the chosen directories that no step uses, and tells each. Returns whether all are gone.
    pub(super) fn remove_unused_mounts(&self, chosen: impl Fn(&str) -> bool, mut gone: impl FnMut(&str)) -> Result<bool> {
        let dir = self.root.join(DIR);
        let mut all = true;
        for entry in std::fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
            let path = entry.map_err(StoreError::io("listing", &dir))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            if name.ends_with(".lock") || !chosen(name) {
                continue;
            }
            let lock_path = dir.join(format!("{name}.lock"));
            let lock = open(&lock_path)?;
            if lock.try_lock().is_err() {
                all = false;
                continue;
            }
            // Out of the way at once, then removed at leisure: a step that waits makes a new one.
            let trash = self.stage()?;
            let away = trash.path().join("mount");
            std::fs::rename(&path, &away).map_err(StoreError::io("removing", &path))?;
            drop(lock);
            gone(name);
            remove(&away)?;
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
