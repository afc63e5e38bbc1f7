//! What a COPY, an ADD or a mount takes from a tree: the exact list of files, with their digests.
//!
//! Plain data. It is made before the step runs, since its digest enters the step's key, and the copy then works
//! from this list: there is one place that decides what is copied. Times are kept (the copy preserves them) but
//! are in no digest.

use crate::digest::ContentDigest;
use crate::path::{FileKind, Time, Xattrs, printable};

use super::tree::Stamp;

/// The files that one step takes from one tree.
#[derive(Debug, Clone)]
pub struct Selection {
    /// What each source path led to, in order: a pattern may give many, or none.
    pub sources: Vec<SelectedSource>,
}

/// One thing that a source path led to.
#[derive(Debug, Clone)]
pub struct SelectedSource {
    /// The index of the source among the step's sources.
    pub source: usize,
    /// Its path in the tree, free of links; empty: the root.
    pub path: Vec<u8>,
    /// Its name as written or matched: a followed link keeps its own name in the destination.
    pub name: Vec<u8>,
    /// Whether it is a directory: then `entries` are what it holds, and it isn't copied itself.
    pub directory: bool,
    /// When the directory's content last changed; for files see the entry.
    pub mtime: Time,
    /// Whether the place itself shows exactly `entries`: nothing is hidden or left out, owners are as they count.
    pub as_is: bool,
    /// The files, a directory before what it holds, names sorted. For a file: one entry with an empty path.
    pub entries: Vec<Entry>,
}

/// One file of a selection.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Below [`SelectedSource::path`].
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// Permission bits, with setuid, setgid, sticky.
    pub mode: u32,
    /// Owner, as it counts: 0 in a context.
    pub uid: u32,
    /// Group, as it counts: 0 in a context.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Time,
    /// `security.capability` and `user.*`, sorted by name.
    pub xattrs: Xattrs,
    /// The earlier entry of this source that is the same inode.
    pub hard_link: Option<usize>,
    /// A directory that is here only since something below it is: it gets its source's metadata only where it
    /// doesn't exist yet.
    pub implied: bool,
    /// What a later read is compared with.
    pub stamp: Stamp,
    /// Whether the stamp proves the content. Not so for a file that changed a moment before it was read: the
    /// clock is too coarse to show a further change, so the copy compares the bytes.
    pub settled: bool,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file and the digest of its bytes.
    File(ContentDigest),
    /// A symbolic link and its target, as it stands.
    Symlink(Vec<u8>),
    /// A named pipe, a socket's name, or a device with its numbers.
    Special(FileKind, (u32, u32)),
}

/// A file of a selection as the miss explanation shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFact {
    /// From the tree's root.
    pub path: String,
    /// `directory`, `file`, `symlink`, `fifo`, `socket`, `char device`, `block device`.
    pub kind: &'static str,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of the content alone: a file's bytes, a link's target, a device's numbers, and the xattrs; not of the fields above.
    pub content: ContentDigest,
}

impl Selection {
    /// Returns the digest of all of it: paths, types, modes, owners, bytes, links, devices, xattrs; no times.
    pub fn digest(&self) -> ContentDigest {
        digest(&self.sources)
    }

    /// Returns every file with what decides it, in order: what a miss is explained from.
    pub fn facts(&self) -> impl Iterator<Item = FileFact> + '_ {
        self.sources.iter().flat_map(|s| s.entries.iter().map(move |e| e.fact(&s.path)))
    }
}

impl SelectedSource {
    /// Returns the digest of what this source alone led to, as [`Selection::digest`] is of all sources.
    pub fn content(&self) -> ContentDigest {
        digest(std::slice::from_ref(self))
    }
}

impl Entry {
    /// Returns what decides this entry; `base` is the source's path.
    pub fn fact(&self, base: &[u8]) -> FileFact {
        let path = super::resolve::join([base, &self.path].into_iter().filter(|p| !p.is_empty()));
        let content = self.content();
        FileFact { path: printable(&path), kind: self.node.kind(), mode: self.mode, uid: self.uid, gid: self.gid, content }
    }

    /// Returns the digest of the content alone: a file's bytes, a link's target, a device's numbers, and the xattrs.
    pub fn content(&self) -> ContentDigest {
        let mut h = Fields::new(blake3::Hasher::new());
        self.hash_content(&mut h);
        h.finish()
    }

    fn hash_content(&self, h: &mut Fields) {
        h.bytes(self.node.kind().as_bytes());
        match &self.node {
            Node::Directory => {}
            Node::File(digest) => h.bytes(digest.as_bytes()),
            Node::Symlink(target) => h.bytes(target),
            Node::Special(_, (major, minor)) => {
                h.number(u64::from(*major));
                h.number(u64::from(*minor));
            }
        }
        h.number(self.xattrs.len() as u64);
        for (name, value) in &self.xattrs {
            h.bytes(name);
            h.bytes(value);
        }
    }
}

impl Node {
    /// Returns the kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File(_) => "file",
            Self::Symlink(_) => "symlink",
            Self::Special(FileKind::Fifo, _) => "fifo",
            Self::Special(FileKind::CharDevice, _) => "char device",
            Self::Special(FileKind::BlockDevice, _) => "block device",
            Self::Special(..) => "socket",
        }
    }
}

/// Digests a selection; the size of a file is in its content digest.
fn digest(sources: &[SelectedSource]) -> ContentDigest {
    let mut h = Fields::new(blake3::Hasher::new_derive_key("plywood selection of files, v1"));
    h.number(sources.len() as u64);
    for source in sources {
        h.number(source.source as u64);
        h.number(u64::from(source.directory));
        // A directory's own name reaches no destination: only what it holds is copied.
        h.bytes(if source.directory { b"" } else { &source.name });
        h.number(source.entries.len() as u64);
        for e in &source.entries {
            h.bytes(&e.path);
            for n in [e.mode, e.uid, e.gid, u32::from(e.implied)] {
                h.number(u64::from(n));
            }
            h.number(e.hard_link.map_or(0, |i| i as u64 + 1));
            e.hash_content(&mut h);
        }
    }
    h.finish()
}

/// Hashes fields, each with its length. They are gathered first: BLAKE3 takes many small pieces one by one, but a large
/// one in parallel lanes.
struct Fields {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
}

impl Fields {
    /// Where gathering stops.
    const GATHERED_BYTES: usize = 32 * 1024;

    fn new(hasher: blake3::Hasher) -> Self {
        Self { hasher, gathered: Vec::new() }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.gathered.extend_from_slice(bytes);
    }

    fn number(&mut self, n: u64) {
        if self.gathered.len() >= Self::GATHERED_BYTES {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
        self.gathered.extend_from_slice(&n.to_le_bytes());
    }

    fn finish(mut self) -> ContentDigest {
        self.hasher.update(&self.gathered);
        ContentDigest::from_bytes(*self.hasher.finalize().as_bytes())
    }
}
