//! Git repositories that builds fetch into: one directory a remote, used by one build step at a time.
//!
//! What is in them is `remote`'s affair. They are a namespace of their own: no Dockerfile can name one, as it could a
//! cache mount, and so write into what git is later run in.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};

use super::lock::{self, GiveUp};
use super::session::remove;
use super::usage::{Usage, Walk};
use super::{Result, Store, StoreError};

/// Of the values by which a repository's directory is known to people: its remote.
const NAMES: &str = "git";

/// What is known of a repository.
#[derive(Debug, Clone)]
pub(super) struct RepositoryRow {
    /// Its directory's name.
    pub name: String,
    /// Where it is fetched from.
    pub remote: Option<String>,
    /// When it was last opened, in unix seconds.
    pub last_used_secs: i64,
    /// Whether somebody has it open.
    pub in_use: bool,
}

/// A repository's directory, nobody else's while this lives.
#[derive(Debug)]
pub struct Repository {
    path: PathBuf,
    _lock: File,
}

impl Repository {
    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// Opens the repository of `remote` (shown to people: no credentials); waits while somebody else has it. A new one is
    /// made by `fill`, which gets an empty directory, and appears only when that succeeded. None: `give_up` became true.
    pub fn open_repository<E: From<StoreError>>(
        &self,
        remote: &str,
        give_up: GiveUp<'_>,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<Repository>, E> {
        let dir = self.root.join("git");
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(StoreError::io("making", &dir)(e).into()),
            _ => {}
        }
        let name = blake3::hash(remote.as_bytes()).to_hex().to_string();
        let lock_path = dir.join(format!("{name}.lock"));
        let lock = lock::open(&lock_path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if !lock::wait(&lock, File::lock, give_up).map_err(StoreError::io("locking", &lock_path))? {
                    return Ok(None);
                }
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("locking", &lock_path)(e).into()),
        }
        let path = dir.join(&name);
        if path.exists() {
            // How long ago it was of use is its modification time.
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let times = Timestamps { last_access: now, last_modification: now };
            let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
        } else {
            let staging = self.stage()?;
            fill(staging.path())?;
            // Its name is all that vouches for it.
            self.sync_files()?;
            std::fs::rename(staging.path(), &path).map_err(StoreError::io("making", &path))?;
            self.save_blob_row(NAMES, &name, remote.as_bytes())?;
        }
        Ok(Some(Repository { path, _lock: lock }))
    }

    /// Returns all repositories.
    pub(super) fn repositories(&self) -> Result<Vec<RepositoryRow>> {
        let (remotes, mut rows) = (self.repository_names()?, Vec::new());
        for path in self.repository_dirs()? {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            let used = path.metadata().and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
            let last_used_secs = used.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
            let lock = lock::open(&self.root.join("git").join(format!("{name}.lock")))?;
            let remote = remotes.get(name).cloned();
            rows.push(RepositoryRow { name: name.to_owned(), remote, last_used_secs, in_use: lock.try_lock().is_err() });
        }
        Ok(rows)
    }

    /// Removes those of the chosen repositories that nobody uses.
    pub(super) fn remove_repositories(&self, chosen: impl Fn(&str) -> bool) -> Result<Usage> {
        let mut freed = Usage::default();
        let dir = self.root.join("git");
        for path in self.repository_dirs()? {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            if !chosen(name) {
                continue;
            }
            let lock = lock::open(&dir.join(format!("{name}.lock")))?;
            if lock.try_lock().is_err() {
                continue;
            }
            let trash = self.stage()?;
            let gone = trash.path().join("repository");
            std::fs::rename(&path, &gone).map_err(StoreError::io("removing", &path))?;
            drop(lock);
            for (_, usage) in Walk::default().children(trash.path(), false)? {
                freed += usage;
            }
            remove(&gone)?;
        }
        Ok(freed)
    }

    fn repository_dirs(&self) -> Result<Vec<PathBuf>> {
        let dir = self.root.join("git");
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(StoreError::io("listing", &dir))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("listing", &dir))?;
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Returns the remotes of the repositories, by their directories' names.
    pub(super) fn repository_names(&self) -> Result<HashMap<String, String>> {
        let rows =
            self.all("SELECT key,value FROM meta WHERE kind=?1", [NAMES], |r| Ok((r.get::<_, String>(0)?, r.get::<_, Vec<u8>>(1)?)))?;
        Ok(rows.into_iter().map(|(name, remote)| (name, String::from_utf8_lossy(&remote).into_owned())).collect())
    }
}
