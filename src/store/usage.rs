//! What the store takes of the disk, as the disk counts it: blocks, not lengths, and inodes.
//!
//! A file with several names counts where it is met first. Paths longer than `PATH_MAX` are not walked into.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::FileType;

use super::{Result, Store, StoreError, reserve};
use crate::path;

/// What a thing in the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum UsageKind {
    Blob,
    Layer,
    CacheMount,
    Repository,
    Container,
    /// Unfinished work of live processes, and leftovers of others.
    Staging,
    /// The index itself, and locks.
    Index,
}

/// Room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Blocks, in bytes.
    pub bytes: u64,
    /// Files, directories and all else.
    pub inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// One thing in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// What it is.
    pub kind: UsageKind,
    /// Its name: a digest, a layer id, a cache mount's id, a file name.
    pub name: String,
    /// What it takes.
    pub usage: Usage,
    /// When a record of it was last of use, in unix seconds.
    pub last_used_secs: Option<i64>,
    /// Whether a live build uses it.
    pub held: bool,
}

/// The directories that hold the cache, and images.
const OF_THE_CACHE: &[(&str, UsageKind)] = &[
    ("blobs/sha256", UsageKind::Blob),
    ("layers", UsageKind::Layer),
    ("cache-mounts", UsageKind::CacheMount),
    ("git", UsageKind::Repository),
];

/// The other ones.
const OF_OTHERS: &[(&str, UsageKind)] = &[
    ("containers", UsageKind::Container),
    ("tmp", UsageKind::Staging),
    ("locks", UsageKind::Index),
    (reserve::DIR, UsageKind::Index),
    ("blobs", UsageKind::Index),
    ("", UsageKind::Index),
];

/// One entry of the store's directories.
struct Found {
    kind: UsageKind,
    /// What it is called as a file that a unit of the cache needs.
    file: String,
    name: String,
    usage: Usage,
}

/// What the files of the cache take, by name: `content-…` and `diff-…`, `sha256:…`, `cache-mounts/…`, `git/…`.
#[derive(Debug, Default)]
pub(super) struct Measured(HashMap<String, Usage>);

impl Measured {
    /// Returns what a file takes; one that came since takes nothing.
    pub(super) fn of(&self, file: &str) -> Usage {
        self.0.get(file).copied().unwrap_or_default()
    }
}

impl Store {
    /// Returns what everything takes, by kind and name: all of it, as `du` counts it.
    pub fn du(&self) -> Result<Vec<UsageRow>> {
        let held = self.held(true)?;
        let mut last_used = HashMap::new();
        for (layer, at) in
            self.all("SELECT layer,MAX(last_used) FROM records GROUP BY layer", [], |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?)))?
        {
            last_used.insert(layer, at);
        }
        let remotes = self.repository_names()?;
        let mut rows = Vec::new();
        for Found { kind, name, usage, .. } in self.walk(&[OF_THE_CACHE, OF_OTHERS].concat())? {
            let name = match kind {
                UsageKind::Blob => format!("sha256:{name}"),
                UsageKind::CacheMount => self.cache_mount_id(&name)?.map_or(name, |known| known.id),
                UsageKind::Repository => remotes.get(&name).cloned().unwrap_or(name),
                _ => name,
            };
            let (last_used_secs, held) = (last_used.get(&name).copied(), held.contains(&name));
            rows.push(UsageRow { kind, name, usage, last_used_secs, held });
        }
        rows.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Ok(rows)
    }

    /// Measures the files of the cache.
    pub(super) fn measure(&self) -> Result<Measured> {
        Ok(Measured(self.walk(OF_THE_CACHE)?.into_iter().map(|found| (found.file, found.usage)).collect()))
    }

    fn walk(&self, dirs: &[(&'static str, UsageKind)]) -> Result<Vec<Found>> {
        let mut walk = Walk::default();
        let mut all = Vec::new();
        for &(dir, kind) in dirs {
            let path = self.root.join(dir);
            // Older stores lack these.
            if matches!(dir, "git" | reserve::DIR) && !path.exists() {
                continue;
            }
            // The directory itself takes room too.
            let own = walk.file(&path)?;
            let name = if dir.is_empty() { "the store's directory".to_owned() } else { format!("{dir}/") };
            all.push(Found { kind: UsageKind::Index, file: name.clone(), name, usage: own });
            for (name, usage) in walk.children(&path, matches!(dir, "" | "blobs"))? {
                let kind = if name.ends_with(".lock") { UsageKind::Index } else { kind };
                let file = match kind {
                    UsageKind::Blob => format!("sha256:{name}"),
                    UsageKind::Layer => name.clone(),
                    _ => format!("{dir}/{name}"),
                };
                all.push(Found { kind, file, name, usage });
            }
        }
        Ok(all)
    }
}

/// Adds up trees, each inode once.
#[derive(Default)]
pub(super) struct Walk {
    seen: HashSet<(u64, u64)>,
}

impl Walk {
    /// Returns what each entry of a directory takes; `files_only` leaves the directories out.
    pub(super) fn children(&mut self, dir: &Path, files_only: bool) -> Result<Vec<(String, Usage)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(StoreError::io("listing", dir))? {
            let entry = entry.map_err(StoreError::io("listing", dir))?;
            let Ok(kind) = entry.file_type() else { continue }; // gone since
            if !(files_only && kind.is_dir()) {
                found.push((entry.file_name().to_string_lossy().into_owned(), self.tree(&entry.path())?));
            }
        }
        Ok(found)
    }

    /// Returns what a file or a directory alone takes.
    fn file(&mut self, path: &Path) -> Result<Usage> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) => Ok(self.count(meta.nlink(), (meta.dev(), meta.ino()), meta.blocks())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Usage::default()),
            Err(e) => Err(StoreError::io("looking at", path)(e)),
        }
    }

    /// Counts an inode, once.
    fn count(&mut self, links: u64, inode: (u64, u64), blocks: u64) -> Usage {
        if links == 1 || self.seen.insert(inode) { Usage { bytes: blocks * 512, inodes: 1 } } else { Usage::default() }
    }

    /// Returns what a file or a tree takes; what vanishes meanwhile takes nothing.
    pub(super) fn tree(&mut self, top: &Path) -> Result<Usage> {
        let (Some(parent), Some(name)) = (top.parent(), top.file_name()) else { return Ok(Usage::default()) };
        let outcome = path::Root::open(parent).and_then(|root| self.below(&root, name.as_bytes()));
        outcome.map_err(|source| StoreError::Walk { path: top.into(), source })
    }

    fn below(&mut self, root: &path::Root, top: &[u8]) -> path::Result<Usage> {
        let mut total = Usage::default();
        let mut pending = vec![top.to_vec()];
        while let Some(at) = pending.pop() {
            let stat = match root.lstat(&at) {
                Ok(stat) => stat,
                Err(e) if vanished(&e) => continue,
                Err(e) => return Err(e),
            };
            total += self.count(stat.st_nlink, (stat.st_dev, stat.st_ino), u64::try_from(stat.st_blocks).unwrap_or(0));
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            let dir = match root.open_dir_nolinks(&at) {
                Ok(dir) => dir,
                Err(e) if vanished(&e) => continue,
                Err(e) => return Err(e),
            };
            let entries = match path::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if vanished(&e) => continue,
                Err(e) => return Err(e),
            };
            for entry in entries {
                pending.push([at.as_slice(), b"/", entry.name.as_bytes()].concat());
            }
        }
        Ok(total)
    }
}

fn vanished(e: &path::PathError) -> bool {
    e.is_not_found() || e.errno() == Some(rustix::io::Errno::NAMETOOLONG.raw_os_error())
}
