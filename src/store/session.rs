//! One process's share of the store: its unfinished work, and the layers that it uses.
//!
//! Both hang on one lock file, `tmp/<n>.lock`, held with flock while the process lives. The kernel drops the
//! lock however the process ends: a lock that is free marks the rest as stale, with no clock and no heartbeat.
//! The file's lines name the layers and blobs in use; garbage collection reads those of every live session.
//!
//! An empty lock file that nobody holds is no leftover: it waits for the next session. On a file system that has just
//! deleted much, making a file costs more than all else that a build without changes does.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::{Result, Store, StoreError};
use crate::digest::{Digest, LayerId};
use crate::path;

/// How long an interrupted process goes on removing its unfinished work; what is left then is the next process's.
const TIDYING: Duration = Duration::from_secs(1);

/// Whether the process was asked to end, and since when it tidies up. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    asked: Arc<OnceLock<Arc<AtomicUsize>>>,
    since: Arc<OnceLock<Instant>>,
}

impl Ending {
    /// Returns whether to leave what is not removed yet.
    fn is_over(&self) -> bool {
        let asked = self.asked.get().is_some_and(|a| a.load(Ordering::Relaxed) != 0);
        asked && self.since.get_or_init(Instant::now).elapsed() > TIDYING
    }
}

/// How many lock files stay for later sessions.
const KEPT: usize = 16;

/// What the lock file of a session that has ended stands for.
enum State {
    /// Nothing: the session ended well.
    Idle,
    /// Names of what the session used.
    Named,
    /// Work that it left unfinished.
    Unfinished,
}

/// Looks at a lock file that nobody else holds; `dir`: the session's directory.
fn state(dir: &Path, lock: &File) -> std::io::Result<State> {
    match std::fs::symlink_metadata(dir) {
        Ok(_) => Ok(State::Unfinished),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        Err(_) if lock.metadata()?.len() == 0 => Ok(State::Idle),
        Err(_) => Ok(State::Named),
    }
}

/// The session of one open store; made by the first need.
pub(super) struct Session {
    /// Made by the first need.
    dir: PathBuf,
    has_dir: bool,
    /// Whether the lock file stays for the next session.
    is_kept: bool,
    lock_path: PathBuf,
    lock: File,
    next: u64,
    held: HashSet<String>,
    /// During a survey: what is held already, and still to be written to the lock file.
    gathered: Option<String>,
    /// Layers that were held first and found in place then: they stay.
    in_place: HashSet<LayerId>,
    ending: Ending,
}

impl Session {
    fn begin(root: &Path, ending: Ending) -> Result<Self> {
        let mut n = 0_usize;
        loop {
            let dir = root.join("tmp").join(n.to_string());
            let lock_path = dir.with_extension("lock");
            let lock = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&lock_path)
                .map_err(StoreError::io("making", &lock_path))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    n += 1;
                    continue;
                }
                Err(TryLockError::Error(e)) => return Err(StoreError::io("locking", &lock_path)(e)),
            }
            // A process that reclaims may have removed the file before it was locked.
            if lock.metadata().map_err(StoreError::io("looking at", &lock_path))?.nlink() == 0 {
                continue;
            }
            match state(&dir, &lock).map_err(StoreError::io("looking at", &dir))? {
                State::Idle => {}
                // The leftovers are removed by the next process that opens the store.
                State::Unfinished => {
                    n += 1;
                    continue;
                }
                State::Named => lock.set_len(0).map_err(StoreError::io("emptying", &lock_path))?,
            }
            return Ok(Self {
                dir,
                has_dir: false,
                is_kept: n < KEPT,
                lock_path,
                lock,
                next: 0,
                held: HashSet::new(),
                gathered: None,
                in_place: HashSet::new(),
                ending,
            });
        }
    }

    /// Names layers and blobs in the lock file. The caller has the collection lock.
    fn write(&mut self, lines: &str) -> Result<()> {
        self.lock.write_all(lines.as_bytes()).map_err(StoreError::io("writing", &self.lock_path))
    }

    /// The directory of the unfinished work.
    fn made_dir(&mut self) -> Result<&Path> {
        if !self.has_dir {
            DirBuilder::new().mode(0o700).create(&self.dir).map_err(StoreError::io("making", &self.dir))?;
            self.has_dir = true;
        }
        Ok(&self.dir)
    }

    fn next_path(&mut self) -> Result<PathBuf> {
        self.next += 1;
        let name = self.next.to_string();
        Ok(self.made_dir()?.join(name))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What can't be removed now is reclaimed by the next process: the lock is free then.
        if self.has_dir && !remove_unless(&self.dir, &|| self.ending.is_over()).is_ok_and(|all| all) {
            return;
        }
        let _ = if self.is_kept { self.lock.set_len(0) } else { std::fs::remove_file(&self.lock_path) };
    }
}

/// A fresh directory of unfinished work; dropping it removes what is left in it.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    ending: Ending,
}

impl Staging {
    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Staging {
    /// Removes it now. Where the process was asked to end, what takes long is left to the next process.
    pub(super) fn discard(&self) -> Result<()> {
        remove_unless(&self.path, &|| self.ending.is_over()).map(drop)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // As above: the session's end or the next process tries again.
        let _ = remove_unless(&self.path, &|| self.ending.is_over());
    }
}

impl Store {
    /// Makes a fresh empty directory, mode 0700, on the file system of everything else in the store.
    pub fn stage(&self) -> Result<Staging> {
        let path = self.temp_path()?;
        DirBuilder::new().mode(0o700).create(&path).map_err(StoreError::io("making", &path))?;
        Ok(Staging { path, ending: self.ending.clone() })
    }

    /// Returns a directory for unfinished work of whoever makes names of their own, which are no numbers. It lives as long as
    /// this store is open; what is in it when the process is killed is removed by the next one.
    pub fn staging_dir(&self) -> Result<PathBuf> {
        self.with_session(|s| s.made_dir().map(Path::to_path_buf))
    }

    /// Lets the tidying up of unfinished work take a second at the most once `asked` is not 0 (what a signal handler
    /// sets). The rest is removed by the next process that opens the store. The first call counts.
    pub fn end_when(&self, asked: Arc<AtomicUsize>) {
        let _ = self.ending.asked.set(asked);
    }

    /// Returns a fresh path for unfinished work.
    pub(super) fn temp_path(&self) -> Result<PathBuf> {
        self.with_session(Session::next_path)
    }

    /// Keeps these layers from garbage collection until this store is closed or the process ends.
    ///
    /// Doesn't say that they exist: ask afterwards. In this order a layer that was there stays.
    pub fn hold(&self, layers: &[LayerId]) -> Result<()> {
        self.hold_names(layers.iter().map(ToString::to_string))
    }

    /// As [`Store::hold`], for a blob.
    pub(super) fn hold_blob(&self, digest: &Digest) -> Result<()> {
        self.hold_names([digest.to_string()])
    }

    fn hold_names(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        let mut fresh: Vec<String> = names.into_iter().collect();
        let done = self.with_session(|s| {
            fresh.retain(|n| !s.held.contains(n));
            if let Some(gathered) = &mut s.gathered {
                fresh.iter().for_each(|n| push_line(gathered, n));
                s.held.extend(fresh.drain(..));
            }
            Ok(fresh.is_empty())
        })?;
        if done {
            return Ok(());
        }
        let mut lines = String::new();
        fresh.iter().for_each(|n| push_line(&mut lines, n));
        // The collection lock always before the session's: `prune` needs both, in this order.
        let _no_collection = self.collection.shared()?;
        self.with_session(|s| {
            s.write(&lines)?;
            s.held.extend(fresh);
            Ok(())
        })
    }

    /// Returns whether a layer was found in place while it was held.
    pub(super) fn is_in_place(&self, id: &LayerId) -> bool {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|s| s.in_place.contains(id))
    }

    /// Remembers that a layer is in place, if it is held: no collection will take it away.
    pub(super) fn note_in_place(&self, id: &LayerId) {
        if let Some(s) = &mut *self.session.lock().unwrap_or_else(PoisonError::into_inner)
            && s.held.contains(&id.to_string())
        {
            s.in_place.insert(*id);
        }
    }

    /// Forgets which layers are in place, when held ones may be taken away all the same.
    pub(super) fn forget_in_place(&self) {
        if let Some(s) = &mut *self.session.lock().unwrap_or_else(PoisonError::into_inner) {
            s.in_place.clear();
        }
    }

    /// From here on what is held is written down by [`Store::write_gathered`]. The caller has the collection lock.
    pub(super) fn begin_gathering(&self) -> Result<()> {
        self.with_session(|s| {
            s.gathered.get_or_insert_default();
            Ok(())
        })
    }

    /// Writes down what was held since [`Store::begin_gathering`]. The caller still has the collection lock.
    pub(super) fn write_gathered(&self) -> Result<()> {
        self.with_session(|s| match s.gathered.take() {
            Some(lines) if !lines.is_empty() => s.write(&lines),
            _ => Ok(()),
        })
    }

    fn with_session<T>(&self, act: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = match &mut *session {
            Some(s) => s,
            none => none.insert(Session::begin(&self.root, self.ending.clone())?),
        };
        act(session)
    }

    /// Returns the names of layers and blobs that live sessions use, our own among them when `own` says so.
    pub(super) fn held(&self, own: bool) -> Result<HashSet<String>> {
        let (mine, mut held) = self.with_session(|s| Ok((s.lock_path.clone(), s.held.clone())))?;
        if !own {
            held.clear();
        }
        for path in lock_files(&self.root)? {
            if path == mine {
                continue;
            }
            let Some(mut file) = open_lock(&path)? else { continue };
            if file.try_lock_shared().is_ok() {
                continue; // its process is gone
            }
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(StoreError::io("reading", &path))?;
            held.extend(text.lines().map(Into::into));
        }
        Ok(held)
    }
}

/// Removes what ended processes left in `tmp`; what resists stays for the next time. Returns how many sessions went.
pub(super) fn reclaim_stale(root: &Path) -> Result<usize> {
    let mut reclaimed = 0;
    for path in lock_files(root)? {
        let Some(file) = open_lock(&path)? else { continue };
        if file.try_lock().is_ok() && is_left(&path, &file)? && remove(&path.with_extension("")).is_ok() {
            let _ = std::fs::remove_file(&path);
            reclaimed += 1;
        }
    }
    Ok(reclaimed)
}

/// Returns the lock files of ended processes that are still there.
pub(super) fn stale(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in lock_files(root)? {
        if let Some(file) = open_lock(&path)?
            && file.try_lock_shared().is_ok()
            && is_left(&path, &file)?
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Returns whether a lock file that no process holds is of a session that did not end well.
fn is_left(path: &Path, lock: &File) -> Result<bool> {
    let state = state(&path.with_extension(""), lock).map_err(StoreError::io("looking at", path))?;
    Ok(!matches!(state, State::Idle))
}

fn lock_files(root: &Path) -> Result<Vec<PathBuf>> {
    let dir = root.join("tmp");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
        let path = entry.map_err(StoreError::io("listing", &dir))?.path();
        if path.extension().is_some_and(|e| e == "lock") {
            found.push(path);
        }
    }
    Ok(found)
}

fn open_lock(path: &Path) -> Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("opening", path)(e)),
    }
}

/// Removes a tree that we made, whatever a step put into it; nothing there is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    remove_unless(path, &|| false).map(drop)
}

/// As [`remove`]; returns false when `give_up` became true before all was gone.
fn remove_unless(path: &Path, give_up: &dyn Fn() -> bool) -> Result<bool> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(true) };
    let dir = File::open(dir).map_err(StoreError::io("opening", dir))?;
    path::remove_tree_unless(&dir, name.as_bytes(), give_up).map_err(|source| StoreError::Remove { path: path.into(), source })
}

fn push_line(lines: &mut String, name: &str) {
    lines.push_str(name);
    lines.push('\n');
}
