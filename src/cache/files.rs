//! Lists of files: only to name, after a miss, the file that changed.
//!
//! Pure. A step's key holds one digest a source; the list that belongs to this digest is kept beside it, once. It
//! proves nothing: contents are cut to eight bytes of their digest, and a list may be missing (too long, or pruned).
//!
//! A list is its bytes: two are compared as they are read, one beside the other, since a miss in a tree of ten thousand
//! files would else make twenty thousand entries to find the one that differs.

use std::cmp::Ordering;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whatever is its content: a file's digest, a device's number, and digests of xattrs; all told apart by it.
    pub content: Option<ContentDigest>,
    /// A symbolic link's target.
    pub link: &'a [u8],
}

/// An entry as it lies in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept<'a> {
    path: &'a [u8],
    mode: u32,
    uid: u32,
    gid: u32,
    content: [u8; 8],
    link: &'a [u8],
}

/// The files of one tree, by path relative to its root (the root itself, or a lone file: the empty path).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileList {
    len: usize,
    /// The entries, sorted by path, each path once: as they are written, and checked when they are read.
    entries: Vec<u8>,
}

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum FileChange {
    Added,
    Removed,
    Type,
    Content,
    Link,
    Mode { old: u32, new: u32 },
    Owner { old: (u32, u32), new: (u32, u32) },
}

impl FileList {
    /// Makes the list of these files, in whatever order they come; of several with one path the last counts.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a [u8], FileEntry<'a>)>) -> Self {
        let kept = |(path, FileEntry { mode, uid, gid, content, link }): (&'a [u8], FileEntry<'a>)| {
            let content = content.map_or([0; 8], |c| *c.as_bytes().first_chunk().expect("a digest has 32 bytes"));
            Kept { path, mode, uid, gid, content, link }
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
        w.number(self.len as u64);
        w.raw(&self.entries);
        // Memory is the only thing that can fail here, and then all does.
        zstd::bulk::compress(&w.0, 1).unwrap_or_default()
    }

    /// Returns the list whose compact form this is; none: it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        const LIMIT_BYTES: u64 = 64 << 20;
        let mut plain = Vec::new();
        zstd::stream::read::Decoder::new(bytes).ok()?.take(LIMIT_BYTES).read_to_end(&mut plain).ok()?;
        let mut r = Reader(&plain);
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
        w.raw(&self.content);
        w.bytes(self.link);
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let path = r.bytes()?;
        Some(Self { path, mode: r.small()?, uid: r.small()?, gid: r.small()?, content: r.array()?, link: r.bytes()? })
    }

    fn change_since(&self, old: &Self) -> Option<FileChange> {
        const TYPE: u32 = 0o170_000;
        const PERMISSIONS: u32 = 0o7777;
        if self.mode & TYPE != old.mode & TYPE {
            Some(FileChange::Type)
        } else if self.content != old.content {
            Some(FileChange::Content)
        } else if self.link != old.link {
            Some(FileChange::Link)
        } else if self.mode != old.mode {
            Some(FileChange::Mode { old: old.mode & PERMISSIONS, new: self.mode & PERMISSIONS })
        } else if (self.uid, self.gid) != (old.uid, old.gid) {
            Some(FileChange::Owner { old: (old.uid, old.gid), new: (self.uid, self.gid) })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(&str, u32, u32, u8, &str)]) -> FileList {
        FileList::of(entries.iter().map(|(path, mode, uid, content, link)| {
            let content = Some(ContentDigest::from_bytes([*content; 32]));
            (path.as_bytes(), FileEntry { mode: *mode, uid: *uid, gid: 0, content, link: link.as_bytes() })
        }))
    }

    #[test]
    fn each_kind_of_change_is_told_apart() {
        let old = list(&[
            ("content", 0o100_644, 0, 1, ""),
            ("gone", 0o100_644, 0, 1, ""),
            ("link", 0o120_777, 0, 0, "a"),
            ("mode", 0o100_644, 0, 1, ""),
            ("owner", 0o100_644, 0, 1, ""),
            ("same", 0o100_644, 0, 1, ""),
            ("type", 0o100_644, 0, 1, ""),
        ]);
        let new = list(&[
            ("content", 0o100_600, 1, 2, ""),
            ("link", 0o120_777, 0, 0, "b"),
            ("mode", 0o100_755, 0, 1, ""),
            ("new", 0o100_644, 0, 1, ""),
            ("owner", 0o100_644, 7, 1, ""),
            ("same", 0o100_644, 0, 1, ""),
            ("type", 0o040_755, 0, 0, ""),
        ]);
        let want = [
            ("content", FileChange::Content),
            ("gone", FileChange::Removed),
            ("link", FileChange::Link),
            ("mode", FileChange::Mode { old: 0o644, new: 0o755 }),
            ("new", FileChange::Added),
            ("owner", FileChange::Owner { old: (0, 0), new: (7, 0) }),
            ("type", FileChange::Type),
        ];
        assert_eq!(new.changes_since(&old), want.map(|(p, c)| (Name::from(p), c)));
        assert_eq!(new.changes_since(&new), []);
        let none = FileList::default();
        assert!(new.changes_since(&none).iter().all(|(_, c)| *c == FileChange::Added));
        assert_eq!(none.changes_since(&new).len(), new.len());
    }

    #[test]
    fn files_may_come_in_any_order_and_the_last_of_a_name_counts() {
        // A walk's order: what is in `a` comes before `a.c`, whose name is the smaller string.
        let walked =
            list(&[("a", 0o040_755, 0, 0, ""), ("a/b", 0o100_644, 0, 1, ""), ("a.c", 0o100_644, 0, 9, ""), ("a.c", 0o100_644, 0, 2, "")]);
        let sorted = list(&[("a", 0o040_755, 0, 0, ""), ("a.c", 0o100_644, 0, 2, ""), ("a/b", 0o100_644, 0, 1, "")]);
        assert_eq!(walked, sorted);
        assert_eq!((walked.len(), FileList::decode(&walked.encode())), (3, Some(sorted)));
    }

    #[test]
    fn the_compact_form_gives_the_list_back_and_rubbish_gives_none() {
        let some = list(&[("", 0o040_755, 0, 0, ""), ("a", 0o100_644, 4_294_967_294, 9, ""), ("l", 0o120_777, 0, 0, "t")]);
        for l in [&FileList::default(), &some] {
            assert_eq!(FileList::decode(&l.encode()).as_ref(), Some(l));
        }
        assert_eq!(FileList::decode(b""), None);
        assert_eq!(FileList::decode(&zstd::bulk::compress(b"\x05abc", 1).unwrap()), None);
        // Two entries, the second one before the first.
        let mut w = Writer::default();
        w.number(2);
        for path in [b"b", b"a"] {
            Kept { path, mode: 0, uid: 0, gid: 0, content: [0; 8], link: b"" }.write(&mut w);
        }
        assert_eq!(FileList::decode(&zstd::bulk::compress(&w.0, 1).unwrap()), None);
    }

    #[test]
    fn a_name_survives_json_whatever_its_bytes() {
        for bytes in [&b"a/b"[..], b"", b"\xff\n", "\u{e9}".as_bytes()] {
            let name = Name::from(bytes);
            let text = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap(), name, "{text}");
        }
    }
}
