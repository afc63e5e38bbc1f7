//! Lists of files: only to name, after a miss, the file that changed.
//!
//! Pure. A step's key holds one digest a source; the list that belongs to this digest is kept beside it, once. It
//! proves nothing: contents are cut to eight bytes of their digest, and a list may be missing (too long, or pruned).
//!
//! A list is its bytes: two are compared as they are read, one beside the other, since a miss in a tree of ten thousand
//! files would else make twenty thousand entries to find the one that differs.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::wire::{Reader, Writer};
use crate::digest::ContentDigest;

/// More entries than this are not kept: the reason then names the source only.
pub const MAX_ENTRIES: usize = 20_000;

/// A file name or path as bytes; in JSON a string, or `{"hex": …}` when it is not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Name(pub Vec<u8>);

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NameText {
    Text(String),
    Hex { hex: String },
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => s.serialize_str(text),
            Err(_) => NameText::Hex { hex: self.0.iter().map(|b| format!("{b:02x}")).collect() }.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let hex = match NameText::deserialize(d)? {
            NameText::Text(text) => return Ok(Self(text.into_bytes())),
            NameText::Hex { hex } => hex,
        };
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let byte = |pair: &[u8]| match pair {
            [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not hex digits"))
    }
}

/// What is known of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileEntry<'a> {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a file's bytes, or a device's numbers.
    pub content: Option<ContentDigest>,
    /// A symbolic link's target.
    pub link: &'a [u8],
    /// Its extended attributes, sorted by name.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// It is one file with an earlier one of the tree.
    pub hard_linked: bool,
    /// It is here only since something below it is.
    pub implied: bool,
}

/// An entry as it lies in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept<'a> {
    path: &'a [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    flags: u64,
    content: [u8; CUT_BYTES],
    link: &'a [u8],
    /// Each with the beginning of its value's digest.
    xattrs: Vec<(&'a [u8], [u8; CUT_BYTES])>,
}

/// How much of a digest is kept.
const CUT_BYTES: usize = 8;
const HARD_LINKED: u64 = 1;
const IMPLIED: u64 = 2;

/// What the compact form begins with: no number that [`Reader`] reads, so that an earlier program's is told apart.
const FORM: [u8; 11] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];

/// The files of one tree, by path relative to its root (the root itself, or a lone file: the empty path).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileList {
    len: usize,
    /// The entries, sorted by path, each path once: as they are written, and checked when they are read.
    entries: Vec<u8>,
}

/// How a file differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum FileChange {
    Added,
    Removed,
    Type {
        old: String,
        new: String,
    },
    Content,
    Link {
        old: String,
        new: String,
    },
    Xattr {
        name: String,
        change: XattrChange,
    },
    Mode {
        old: u32,
        new: u32,
    },
    Owner {
        old: (u32, u32),
        new: (u32, u32),
    },
    /// It became, or no longer is, one file with another of the tree.
    HardLink,
    /// A directory is now taken for itself, or for what lies in it only.
    Implied,
}

/// How an extended attribute differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum XattrChange {
    Added,
    Removed,
    Value,
}

impl FileList {
    /// Makes the list of these files, in whatever order they come; of several with one path the last counts.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a [u8], FileEntry<'a>)>) -> Self {
        let kept = |(path, file): (&'a [u8], FileEntry<'a>)| {
            let FileEntry { mode, uid, gid, content, link, xattrs, hard_linked, implied } = file;
            let content = content.map_or([0; CUT_BYTES], |c| cut(c.as_bytes()));
            let xattrs = xattrs.iter().map(|(name, value)| (name.as_slice(), cut(blake3::hash(value).as_bytes()))).collect();
            let flags = if hard_linked { HARD_LINKED } else { 0 } | if implied { IMPLIED } else { 0 };
            Kept { path, mode, uid, gid, flags, content, link, xattrs }
        };
        let mut all: Vec<Kept<'_>> = files.into_iter().map(kept).collect();
        // Stable, and nearly sorted already: a walk gives its paths with `/` before all other bytes.
        all.sort_by_key(|k| k.path);
        let (mut len, mut w) = (0, Writer::default());
        for (n, k) in all.iter().enumerate() {
            if all.get(n + 1).is_none_or(|next| next.path != k.path) {
                k.write(&mut w);
                len += 1;
            }
        }
        Self { len, entries: w.0 }
    }

    /// Returns how many files it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn iter(&self) -> impl Iterator<Item = Kept<'_>> {
        let mut r = Reader(&self.entries);
        std::iter::from_fn(move || Kept::read(&mut r))
    }

    /// Returns what differs from `old`, in the order of the paths; of each file what matters most.
    pub fn changes_since(&self, old: &Self) -> Vec<(Name, FileChange)> {
        let (mut new, mut old) = (self.iter().peekable(), old.iter().peekable());
        let mut changes = Vec::new();
        let mut tell = |k: &Kept<'_>, change| changes.push((Name(k.path.to_vec()), change));
        loop {
            let order = match (new.peek(), old.peek()) {
                (None, None) => return changes,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(n), Some(o)) => n.path.cmp(o.path),
            };
            let n = if order.is_le() { new.next() } else { None };
            let o = if order.is_ge() { old.next() } else { None };
            match (n, o) {
                (Some(n), Some(o)) => n.change_since(&o).into_iter().for_each(|change| tell(&n, change)),
                (Some(n), None) => tell(&n, FileChange::Added),
                (None, Some(o)) => tell(&o, FileChange::Removed),
                (None, None) => {}
            }
        }
    }

    /// Returns its compact form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&FORM);
        w.number(self.len as u64);
        w.raw(&self.entries);
        // Memory is the only thing that can fail here, and then all does.
        zstd::bulk::compress(&w.0, 1).unwrap_or_default()
    }

    /// Returns the list whose compact form this is; none: it is not one, or an earlier program's.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        const LIMIT_BYTES: u64 = 64 << 20;
        let mut plain = Vec::new();
        zstd::stream::read::Decoder::new(bytes).ok()?.take(LIMIT_BYTES).read_to_end(&mut plain).ok()?;
        let mut r = Reader(plain.strip_prefix(&FORM)?);
        let len = usize::try_from(r.number()?).ok()?;
        let entries = r.0;
        let mut last = None;
        for _ in 0..len {
            let Kept { path, .. } = Kept::read(&mut r)?;
            if last.is_some_and(|last| last >= path) {
                return None;
            }
            last = Some(path);
        }
        r.0.is_empty().then(|| Self { len, entries: entries.to_vec() })
    }
}

impl<'a> Kept<'a> {
    fn write(&self, w: &mut Writer) {
        w.bytes(self.path);
        w.number(self.mode.into());
        w.number(self.uid.into());
        w.number(self.gid.into());
        w.number(self.flags);
        w.raw(&self.content);
        w.bytes(self.link);
        w.number(self.xattrs.len() as u64);
        for (name, value) in &self.xattrs {
            w.bytes(name);
            w.raw(value);
        }
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let path = r.bytes()?;
        let (mode, uid, gid, flags) = (r.small()?, r.small()?, r.small()?, r.number()?);
        let (content, link) = (r.array()?, r.bytes()?);
        let mut xattrs = Vec::new();
        for _ in 0..r.number()? {
            xattrs.push((r.bytes()?, r.array()?));
        }
        Some(Self { path, mode, uid, gid, flags, content, link, xattrs })
    }

    fn change_since(&self, old: &Self) -> Option<FileChange> {
        const TYPE: u32 = 0o170_000;
        const PERMISSIONS: u32 = 0o7777;
        let text = |bytes: &[u8]| Name::from(bytes).to_string();
        let flag = |bit| self.flags & bit != old.flags & bit;
        if self.mode & TYPE != old.mode & TYPE {
            Some(FileChange::Type { old: kind(old.mode).into(), new: kind(self.mode).into() })
        } else if self.content != old.content {
            Some(FileChange::Content)
        } else if self.link != old.link {
            Some(FileChange::Link { old: text(old.link), new: text(self.link) })
        } else if self.xattrs != old.xattrs {
            Some(self.xattr_change_since(old))
        } else if self.mode != old.mode {
            Some(FileChange::Mode { old: old.mode & PERMISSIONS, new: self.mode & PERMISSIONS })
        } else if (self.uid, self.gid) != (old.uid, old.gid) {
            Some(FileChange::Owner { old: (old.uid, old.gid), new: (self.uid, self.gid) })
        } else if flag(HARD_LINKED) {
            Some(FileChange::HardLink)
        } else {
            flag(IMPLIED).then_some(FileChange::Implied)
        }
    }

    /// The first attribute that differs; there is one.
    fn xattr_change_since(&self, old: &Self) -> FileChange {
        let value = |file: &Self, name: &[u8]| file.xattrs.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let change = |name: &[u8]| match (value(old, name), value(self, name)) {
            (None, Some(_)) => Some(XattrChange::Added),
            (Some(_), None) => Some(XattrChange::Removed),
            (old, new) => (old != new).then_some(XattrChange::Value),
        };
        let names: BTreeSet<&[u8]> = self.xattrs.iter().chain(&old.xattrs).map(|(name, _)| *name).collect();
        let first = names.into_iter().find_map(|name| Some((name, change(name)?)));
        let (name, change) = first.unwrap_or((b"", XattrChange::Value));
        FileChange::Xattr { name: Name::from(name).to_string(), change }
    }
}

fn cut(digest: &[u8; 32]) -> [u8; CUT_BYTES] {
    *digest.first_chunk().expect("a digest has 32 bytes")
}

/// What a file is, by its mode.
fn kind(mode: u32) -> &'static str {
    match mode & 0o170_000 {
        0o040_000 => "directory",
        0o120_000 => "link",
        0o010_000 => "fifo",
        0o020_000 | 0o060_000 => "device",
        0o140_000 => "socket",
        _ => "file",
    }
}

#[cfg(test)]
mod tests;
