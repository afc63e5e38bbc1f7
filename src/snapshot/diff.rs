//! Turns a layer directory into a [`ChangeSet`].
//!
//! Overlay's marks stop here: everyone above sees [`Change`]s. The order is that of a depth-first walk with
//! sorted names, whatever the file system returns: the same directory gives the same change set.
//!
//! Directories are listed by several threads, each opened by its path from the top (never through a link), so
//! that depth costs neither stack nor descriptors; a path longer than the kernel takes (4095 bytes) is an error.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rayon::prelude::*;
use rustix::io::Errno;

use super::overlay;
use crate::path::{self, FileKind, Meta, PathError, Root, Time, Xattrs};

/// What one layer changes, sorted: a directory stands before what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// The changes.
    pub entries: Vec<Entry>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, without leading `/`; empty: the root itself.
    pub path: Vec<u8>,
    /// What happens there.
    pub change: Change,
}

/// What happens at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new or other than below.
    Upsert(Box<Node>),
    /// It is gone, with all below it.
    Remove,
    /// What the lower layers have in this directory is gone. Follows the directory's own entry.
    Opaque,
}

/// What a path is afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner (the recorded one, where there is one).
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change.
    pub mtime: Time,
    /// Extended attributes that are content, sorted.
    pub xattrs: Xattrs,
    /// The type and what belongs to it.
    pub kind: NodeKind,
}

/// A node's type and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NodeKind {
    Directory,
    File {
        size_bytes: u64,
    },
    /// A further name of the file that stands earlier in the change set under this path.
    HardLink {
        target: Vec<u8>,
    },
    Symlink {
        target: Vec<u8>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

impl ChangeSet {
    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bytes of all files, each inode once.
    pub fn file_bytes(&self) -> u64 {
        let size = |e: &Entry| match &e.change {
            Change::Upsert(node) => match node.kind {
                NodeKind::File { size_bytes } => size_bytes,
                _ => 0,
            },
            _ => 0,
        };
        self.entries.iter().map(size).fold(0, u64::saturating_add)
    }
}

/// Which marks mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// A layer directory.
    Layer,
    /// A whole tree: every entry is an upsert, the root too.
    Tree,
}

/// An entry as it was found, with what tells hard links.
struct Raw {
    path: Vec<u8>,
    meta: Meta,
    xattrs: Xattrs,
    target: Vec<u8>,
    opaque: bool,
}

/// Returns what the layer directory `dir` changes. Sockets are left out: no layer can hold them.
pub fn changes(dir: impl AsFd) -> path::Result<ChangeSet> {
    let dir = dir.as_fd();
    let mut out = walk(dir, Reading::Layer)?;
    if overlay::is_root_changed(dir).map_err(|e| PathError::io("examining", b"/", e))? {
        out.entries.insert(0, root_entry(dir)?);
    }
    Ok(out)
}

/// Returns everything of the tree `dir` (an image's root file system), the root itself first.
pub fn tree(dir: impl AsFd) -> path::Result<ChangeSet> {
    let dir = dir.as_fd();
    let mut out = walk(dir, Reading::Tree)?;
    out.entries.insert(0, root_entry(dir)?);
    Ok(out)
}

fn root_entry(dir: BorrowedFd<'_>) -> path::Result<Entry> {
    let (meta, xattrs) = path::inspect(dir, b"").map_err(|e| PathError::io("examining", b"/", e))?;
    Ok(Entry { path: Vec::new(), change: Change::Upsert(Box::new(node(&meta, xattrs, NodeKind::Directory))) })
}

fn node(meta: &Meta, xattrs: Xattrs, kind: NodeKind) -> Node {
    Node { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs, kind }
}

fn walk(dir: BorrowedFd<'_>, reading: Reading) -> path::Result<ChangeSet> {
    let root = Root::from_fd(dir.try_clone_to_owned().map_err(|e| PathError::io("duplicating", b"/", e))?);
    let mut raw: Vec<Raw> = Vec::new();
    let mut level = vec![Vec::new()];
    while !level.is_empty() {
        let found: Vec<Vec<Raw>> = if level.len() < 4 {
            level.iter().map(|p| read_level(&root, p, reading)).collect::<path::Result<_>>()?
        } else {
            level.par_iter().map(|p| read_level(&root, p, reading)).collect::<path::Result<_>>()?
        };
        let start = raw.len();
        raw.extend(found.into_iter().flatten());
        level = raw[start..].iter().filter(|r| r.meta.kind == FileKind::Directory).map(|r| r.path.clone()).collect();
    }
    raw.sort_unstable_by(|a, b| compare_paths(&a.path, &b.path));
    Ok(assemble(raw))
}

/// Orders paths as a depth-first walk does: `/` sorts before every byte of a name.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let key = |c: &u8| if *c == b'/' { 0 } else { *c };
    a.iter().map(key).cmp(b.iter().map(key))
}

fn read_level(root: &Root, at: &[u8], reading: Reading) -> path::Result<Vec<Raw>> {
    let dir: OwnedFd = root.open_dir_nolinks(at)?;
    let mut out = Vec::new();
    for entry in path::read_dir(&dir)? {
        let name = entry.name.as_bytes();
        let path = if at.is_empty() { name.to_vec() } else { [at, b"/", name].concat() };
        let io = |e: Errno| PathError::io("examining", &path, e);
        let (meta, xattrs) = path::inspect(&dir, name).map_err(io)?;
        if meta.kind == FileKind::Socket || (reading == Reading::Tree && overlay::is_whiteout(&meta)) {
            continue;
        }
        let target = if meta.kind == FileKind::Symlink { path::link_target_at(&dir, name).map_err(io)? } else { Vec::new() };
        out.push(Raw { meta, xattrs, target, opaque: false, path });
    }
    if reading == Reading::Layer {
        mark_opaque(&dir, &mut out)?;
    }
    Ok(out)
}

fn mark_opaque(dir: &OwnedFd, entries: &mut [Raw]) -> path::Result<()> {
    for raw in entries.iter_mut().filter(|r| r.meta.kind == FileKind::Directory) {
        let name = path::split(&raw.path).map_or(&b""[..], |(_, name)| name);
        raw.opaque = overlay::is_opaque_at(dir, name).map_err(|e| PathError::io("examining", &raw.path, e))?;
    }
    Ok(())
}

fn assemble(raw: Vec<Raw>) -> ChangeSet {
    let mut first_name: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut entries = Vec::with_capacity(raw.len());
    for Raw { path, meta, xattrs, target, opaque } in raw {
        if overlay::is_whiteout(&meta) {
            entries.push(Entry { path, change: Change::Remove });
            continue;
        }
        let mut kind = match meta.kind {
            FileKind::Directory => NodeKind::Directory,
            FileKind::File => NodeKind::File { size_bytes: meta.size },
            FileKind::Symlink => NodeKind::Symlink { target },
            FileKind::CharDevice => NodeKind::CharDevice { major: meta.rdev.0, minor: meta.rdev.1 },
            FileKind::BlockDevice => NodeKind::BlockDevice { major: meta.rdev.0, minor: meta.rdev.1 },
            FileKind::Fifo => NodeKind::Fifo,
            FileKind::Socket => continue,
        };
        if meta.nlink > 1 && meta.kind != FileKind::Directory {
            match first_name.entry((meta.dev, meta.ino)) {
                std::collections::hash_map::Entry::Occupied(first) => kind = NodeKind::HardLink { target: first.get().clone() },
                std::collections::hash_map::Entry::Vacant(slot) => {
                    slot.insert(path.clone());
                }
            }
        }
        let node = Box::new(node(&meta, xattrs, kind));
        if opaque {
            entries.push(Entry { path: path.clone(), change: Change::Upsert(node) });
            entries.push(Entry { path, change: Change::Opaque });
        } else {
            entries.push(Entry { path, change: Change::Upsert(node) });
        }
    }
    ChangeSet { entries }
}
