//! What a tree object says: names, and what each is.
//!
//! Objects come from a repository that nobody vouches for: names that could leave their directory, or of which there are
//! two, make the tree a broken one.

use std::fmt;

use super::HistoryError;

/// An object's id: SHA-1 or SHA-256, whatever the repository has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid {
    bytes: [u8; 32],
    width: u8,
}

impl Oid {
    /// Reads an id's hex digits.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        let width = u8::try_from(hex.len() / 2).ok()?;
        matches!(hex.len(), 40 | 64).then_some(Self { bytes, width })
    }

    /// Takes an id's raw bytes.
    fn from_raw(raw: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes[..raw.len()].copy_from_slice(raw);
        Self { bytes, width: raw.len() as u8 }
    }

    /// Returns the id as 32 bytes, a SHA-1 with zeros behind it.
    pub const fn padded(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Returns the first digits, as people name commits.
    pub fn short(&self) -> String {
        self.to_string().chars().take(9).collect()
    }

    pub(super) const fn width(&self) -> usize {
        self.width as usize
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes[..self.width()].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oid({})", self.short())
    }
}

/// What a name in a tree is. Git keeps no more of a mode than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file of mode 0644, or 0755 where it is executable.
    File {
        /// Whether it is executable.
        executable: bool,
    },
    /// A symbolic link; the object is its target.
    Link,
    /// Another repository's commit, which isn't here.
    Submodule,
}

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name: not empty, without `/`, neither `.` nor `..`.
    pub name: Box<[u8]>,
    /// What it is.
    pub kind: Kind,
    /// Its object.
    pub id: Oid,
}

/// A directory of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// What it holds, sorted by name as bytes (git sorts directories as if they ended in `/`).
    pub items: Vec<Item>,
}

impl Tree {
    /// Parses a tree object.
    pub(super) fn parse(id: Oid, object: &[u8]) -> Result<Self, HistoryError> {
        let broken = |problem| HistoryError::Broken { id, problem };
        let mut items = Vec::new();
        let mut rest = object;
        while !rest.is_empty() {
            let (item, next) = item(rest, id.width()).ok_or_else(|| broken("is no tree"))?;
            if matches!(&*item.name, b"" | b"." | b"..") || item.name.contains(&b'/') {
                return Err(broken("has a name that no file can have"));
            }
            items.push(item);
            rest = next;
        }
        items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if items.windows(2).any(|two| two[0].name == two[1].name) {
            return Err(broken("has a name twice"));
        }
        Ok(Self { items })
    }

    /// Returns what has this name.
    pub fn find(&self, name: &[u8]) -> Option<&Item> {
        self.items.binary_search_by(|item| (*item.name).cmp(name)).ok().map(|at| &self.items[at])
    }
}

/// Reads `MODE NAME\0ID`.
fn item(bytes: &[u8], width: usize) -> Option<(Item, &[u8])> {
    let space = bytes.iter().position(|b| *b == b' ')?;
    let (mode, rest) = (&bytes[..space], &bytes[space + 1..]);
    let end = rest.iter().position(|b| *b == 0)?;
    let (name, rest) = (&rest[..end], &rest[end + 1..]);
    let (id, rest) = (rest.get(..width)?, &rest[width..]);
    let mode = u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()?;
    let kind = match mode & 0o170_000 {
        0o040_000 => Kind::Directory,
        // Old repositories have 0664 and the like; a checkout asks for the owner's x alone.
        0o100_000 => Kind::File { executable: mode & 0o100 != 0 },
        0o120_000 => Kind::Link,
        0o160_000 => Kind::Submodule,
        _ => return None,
    };
    Some((Item { name: name.into(), kind, id: Oid::from_raw(id) }, rest))
}
