//! Everything that outlives a build, under one directory that many processes share.
//!
//! ```text
//! STORE/                        0700, owned by who uses it
//! ├── format                    "plywood store 1": other versions are refused, never converted in place
//! ├── index.db                  SQLite: what the files below are, and which of them may be trusted
//! ├── blobs/sha256/<hex>        configurations, manifests, layer tars: bytes, named by their hash
//! ├── layers/<LayerId>/         unpacked layers in overlay form, ready to be a lowerdir
//! ├── tmp/<n>.lock              held by one open store while its process lives; lists the layers in use
//! ├── tmp/<n>/<m>/              that process's unfinished work
//! ├── locks/                    single-flight and garbage collection locks (flock: they die with their process)
//! ├── cache-mounts/<hash>[.n]/  what RUN --mount=type=cache keeps, <hash>.lock beside it
//! ├── git/<hash>/               fetched git repositories, bare, <hash>.lock beside it; made at the first need
//! ├── reserve/                  bytes and inodes set aside for what makes room on a full disk
//! ├── known_hosts               ssh hosts that git met; made by ssh
//! └── containers/               the runner's
//! ```
//!
//! Not here: what the rows mean. `cache` gives records and slots their content, `layer` and `snapshot` make
//! and read the layer directories.
//!
//! What a newcomer gets wrong: **a file's presence proves nothing, its row does.** After a power cut a file may
//! have its final name and no bytes. So everything is renamed into place first, then one `syncfs` covers all
//! that was renamed, and only then the rows are written ([`commit`]). `layer_dir` and `has_blob` ask for the row.
//! Files without a row are garbage, not damage: whatever moment a process is killed at, `fsck` finds no fault. Two things are
//! known by their names alone, cache mounts and git repositories: what they begin with is synced before they get them.

mod blob;
mod collect;
mod commit;
mod db;
mod error;
mod fsck;
mod image;
mod layers;
mod lock;
mod log;
mod mounts;
mod prune;
mod repository;
mod reserve;
mod rows;
mod session;
mod survey;
mod usage;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

pub use blob::{NewBlob, VerifyingReader};
pub use collect::CollectPolicy;
pub use commit::Durability;
pub use error::{IndexTrouble, StoreError};
pub use fsck::{Depth, FsckReport, LayerProof, Problem};
pub use image::{Image, ImageLayer, NewImage, Source};
pub use layers::{LayerBlob, LayerFacts};
pub use lock::{GiveUp, StepGuard};
pub use log::{BuildFilter, BuildRow, LogPart};
pub use mounts::{CacheMount, CacheMountId, CacheMountRow, MountSharing};
pub use prune::{
    Appraisal, Appraise, CacheUnit, Disk, FILTER_KEYS, FILTER_TYPES, Filter, FilterError, Limits, PruneOptions, PruneReport, Space,
    UnitKind,
};
pub use repository::Repository;
pub use rows::{DOWNLOADS, MADE_AGAIN, NAMED_BY_SLOTS, RecordRow, SEVERAL};
pub use session::Staging;
pub use survey::{Snapshot, Survey};
pub use usage::{Usage, UsageKind, UsageRow};

/// What this module's functions return.
pub type Result<T> = std::result::Result<T, StoreError>;

const FORMAT: &str = "plywood store 1\n";
const DIRS: [&str; 9] = ["blobs", "blobs/sha256", "layers", "tmp", "locks", "cache-mounts", "git", "containers", reserve::DIR];

/// An open store. Shared by threads; a build holds one for as long as it lives.
///
/// Dropping it writes what is still queued and gives up everything that it held.
pub struct Store {
    root: PathBuf,
    db: Mutex<Connection>,
    committer: commit::Committer,
    session: Mutex<Option<session::Session>>,
    collection: lock::CollectionLock,
    ending: session::Ending,
    /// Whether the index has a write-ahead log, so that reading for long keeps nobody waiting.
    has_log: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at `root`, making it when nothing is there.
    ///
    /// Refuses a directory that holds something else, a store of another format, and one that another user
    /// owns. When the user has subordinate ids, call it after entering the user namespace: only there may
    /// files of these ids be removed.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Durability::Synced)
    }

    /// As [`Store::open`], with the choice of what a finished build withstands.
    pub fn open_with(root: &Path, durability: Durability) -> Result<Self> {
        make_dir_all(root)?;
        let dir = File::open(root).map_err(StoreError::io("opening the store", root))?;
        check_owner(root, &dir)?;
        let existed = check_format(root)?;
        let db_path = root.join("index.db");
        let mut db = if existed { db::open(&db_path)? } else { create(root, &db_path)? };
        db::bring_up(&mut db, root)?;
        // Who finds no room for that has come to make some.
        let folded = db::fold_log(&db, &db_path, db::LOG_MAX_BYTES);
        let has_log = folded.or_else(|e| if e.may_be_full() { Ok(true) } else { Err(e) })?;
        let committer = commit::Committer::new(OwnedFd::from(dir), db_path, durability);
        let collection = lock::CollectionLock::open(root)?;
        let ending = session::Ending::default();
        let store =
            Self { root: root.to_path_buf(), db: Mutex::new(db), committer, session: Mutex::new(None), collection, ending, has_log };
        if !existed {
            store.keep_reserve();
        }
        session::reclaim_stale(&store.root)?;
        lock::reclaim_stale(&store.root)?;
        Ok(store)
    }

    /// Does what makes the next opening fast, when this process has written much: it costs syncs, which are little beside
    /// what was written.
    pub fn tidy(&self) -> Result<()> {
        if !self.committer.has_written() {
            return Ok(());
        }
        self.flush()?;
        db::fold_log(&self.db_to_write(), &self.root.join("index.db"), db::LOG_BYTES).map(drop)
    }

    /// Returns the directory that it lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory where the runner keeps its containers.
    pub fn containers_dir(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Waits until everything that was put so far would survive a power cut.
    ///
    /// Errors: that of any write behind the caller's back since the last call. Costs nothing when nothing was written.
    pub fn flush(&self) -> Result<()> {
        self.end_snapshot();
        self.committer.flush()
    }

    /// Lets every file that was written so far survive a power cut: before what vouches for files and is no row of ours, such as a
    /// name in a directory, or a ref of git's.
    pub fn sync_files(&self) -> Result<()> {
        self.committer.sync()
    }

    /// Tells that `bytes` more of a layer's files are being written: the disk may begin to take them.
    pub fn note_writing(&self, bytes: u64) -> Result<()> {
        self.committer.note_writing(bytes)
    }

    /// The connection, to write with.
    fn db_to_write(&self) -> MutexGuard<'_, Connection> {
        let db = self.db();
        self.end_snapshot_of(&db);
        db
    }

    /// The connection, to read with.
    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes `root` and its parents; `root` itself is closed to others whatever the umask.
fn make_dir_all(root: &Path) -> Result<()> {
    match std::fs::symlink_metadata(root) {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(StoreError::io("looking at the store", root)(e)),
    }
    DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(StoreError::io("making the store", root))
}

fn check_owner(root: &Path, dir: &File) -> Result<()> {
    let meta = dir.metadata().map_err(StoreError::io("looking at the store", root))?;
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return Err(StoreError::OtherOwner { path: root.into(), owner: meta.uid(), me });
    }
    Ok(())
}

/// Returns whether a store of our format is there; false: nothing is there yet.
fn check_format(root: &Path) -> Result<bool> {
    let path = root.join("format");
    match std::fs::read(&path) {
        Ok(text) if text == FORMAT.as_bytes() => Ok(true),
        Ok(text) => {
            let found = String::from_utf8_lossy(&text).trim().chars().take(60).collect();
            Err(StoreError::OtherFormat { path: root.into(), found })
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let entries = std::fs::read_dir(root).map_err(StoreError::io("listing the store", root))?;
            // `locks` and `index.db` are what a first start that was killed half way, or one that runs now, leaves.
            for entry in entries {
                let name = entry.map_err(StoreError::io("listing the store", root))?.file_name();
                let known = name
                    .to_str()
                    .is_some_and(|n| DIRS.contains(&n) || n.starts_with("index.db") || n.starts_with(".format") || n == "format");
                if !known {
                    return Err(StoreError::NotAStore { path: root.into(), found: name });
                }
            }
            Ok(false)
        }
        Err(e) => Err(StoreError::io("reading the store's format", &path)(e)),
    }
}

/// Lays out a new store. Several processes may do so at once; `format` is written last.
fn create(root: &Path, db_path: &Path) -> Result<Connection> {
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(root, closed).map_err(StoreError::io("closing the store to others", root))?;
    for name in DIRS {
        let path = root.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(StoreError::io("making", &path)(e)),
            _ => {}
        }
    }
    let _making = lock::blocking(&root.join("locks/create"))?;
    let db = db::create(root, db_path)?;
    // One name, ours while we hold the lock: what a kill leaves is written over.
    let (path, temp) = (root.join("format"), root.join(".format"));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        file.write_all(FORMAT.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temp, &path)
    };
    write().map_err(StoreError::io("writing the store's format", &path))?;
    Ok(db)
}

#[cfg(test)]
mod tests;
