//! The canonical form of a change set, whose BLAKE3 is its [`ContentDigest`].
//!
//! The hash is keyed by the form's name, so a new form never meets an old digest. For each entry, in the change
//! set's order, numbers little-endian, `bytes` preceded by their length as u64:
//!
//! | field | type | for |
//! |---|---|---|
//! | tag | u8: `d` `f` `h` `l` `c` `b` `p` `-` (removed) `o` (opaque) | all |
//! | path | bytes, relative, no leading `/` | all |
//! | mode | u32, `0o7777`; links: 0 | upserts but `h` |
//! | uid, gid | u32, u32 | upserts but `h` |
//! | attributes | u64 count, then name and value as bytes, sorted; capabilities in their v2 form | upserts but `h` |
//! | size, BLAKE3 of the data | u64, 32 bytes | `f` |
//! | target | bytes: the link's text (`l`), the first name's path (`h`) | `l`, `h` |
//! | major, minor | u32, u32 | `c`, `b` |
//!
//! Not in it: times, the archive's framing, the order of the file system, which driver made it. Whether a path is
//! new or changed can't be told from a layer and isn't in it either.

use crate::digest::ContentDigest;
use crate::snapshot::diff::{Change, Entry, Node, NodeKind};

const FORM: &str = "plywood 2026-11 layer content v1";

/// Takes a change set's entries one by one.
pub(super) struct ContentHasher {
    hasher: blake3::Hasher,
}

impl ContentHasher {
    pub fn new() -> Self {
        Self { hasher: blake3::Hasher::new_derive_key(FORM) }
    }

    /// Adds an entry; `data` is the hash of its bytes, for a file.
    pub fn add(&mut self, entry: &Entry, data: Option<&blake3::Hash>) {
        let node = match &entry.change {
            Change::Upsert(node) => node,
            Change::Remove => return self.tagged(b'-', &entry.path),
            Change::Opaque => return self.tagged(b'o', &entry.path),
        };
        match &node.kind {
            NodeKind::Directory => self.node(b'd', entry, node),
            NodeKind::File { size_bytes } => {
                self.node(b'f', entry, node);
                self.number(*size_bytes);
                self.hasher.update(data.unwrap_or(&blake3::hash(b"")).as_bytes());
            }
            NodeKind::HardLink { target } => {
                self.tagged(b'h', &entry.path);
                self.bytes(target);
            }
            NodeKind::Symlink { target } => {
                self.node(b'l', entry, node);
                self.bytes(target);
            }
            NodeKind::CharDevice { major, minor } => self.device(b'c', entry, node, *major, *minor),
            NodeKind::BlockDevice { major, minor } => self.device(b'b', entry, node, *major, *minor),
            NodeKind::Fifo => self.node(b'p', entry, node),
        }
    }

    pub fn finish(&self) -> ContentDigest {
        ContentDigest::from_bytes(*self.hasher.finalize().as_bytes())
    }

    fn tagged(&mut self, tag: u8, path: &[u8]) {
        self.hasher.update(&[tag]);
        self.bytes(path);
    }

    fn node(&mut self, tag: u8, entry: &Entry, node: &Node) {
        self.tagged(tag, &entry.path);
        let mode = if tag == b'l' { 0 } else { node.mode };
        for n in [mode, node.uid, node.gid] {
            self.hasher.update(&n.to_le_bytes());
        }
        self.number(node.xattrs.len() as u64);
        for (name, value) in &node.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn device(&mut self, tag: u8, entry: &Entry, node: &Node, major: u32, minor: u32) {
        self.node(tag, entry, node);
        self.hasher.update(&major.to_le_bytes());
        self.hasher.update(&minor.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hasher.update(bytes);
    }

    fn number(&mut self, n: u64) {
        self.hasher.update(&n.to_le_bytes());
    }
}
