//! The first thing in which two layers differ, for people.
//!
//! Both are layer directories with their change sets. Compared is what a layer's content digest covers (no times), in the order of
//! the change sets. An entry that only one of them has, and that is just as what lies below both, is no difference: a step that puts
//! a file over an equal one makes an entry of it when their times differ, and times are in no key.

use std::cmp::Ordering;
use std::fmt;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::diff::{Change, ChangeSet, Entry, Node, NodeKind};
use super::merged::Merged;
use super::normalise;
use crate::path::{self, PathError, Root, Xattrs, printable};

const CHUNK_BYTES: usize = 64 << 10;

/// Where two layers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path in the image, absolute.
    pub path: String,
    /// In what.
    pub what: What,
}

/// In what two entries differ: the first layer's first, the second's then.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum What {
    /// Only the first layer has it.
    Gone,
    /// Only the second one has it.
    New,
    Type(&'static str, &'static str),
    Mode(u32, u32),
    Owner((u32, u32), (u32, u32)),
    /// The attribute's name.
    Xattr(String),
    Target(String, String),
    Device((u32, u32), (u32, u32)),
    Size(u64, u64),
    /// The first byte that is another, counted from 0.
    Content(u64),
}

impl What {
    /// Returns its name, for machines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gone | Self::New => "absent",
            Self::Type(..) => "type",
            Self::Mode(..) => "mode",
            Self::Owner(..) => "owner",
            Self::Xattr(_) => "xattr",
            Self::Target(..) => "target",
            Self::Device(..) => "device",
            Self::Size(..) | Self::Content(_) => "content",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what } = self;
        write!(f, "{path} ")?;
        match what {
            What::Gone => write!(f, "is not made now"),
            What::New => write!(f, "is made now only"),
            What::Type(a, b) => write!(f, "(type: {a} -> {b})"),
            What::Mode(a, b) => write!(f, "(mode: {a:04o} -> {b:04o})"),
            What::Owner(a, b) => write!(f, "(owner: {}:{} -> {}:{})", a.0, a.1, b.0, b.1),
            What::Xattr(name) => write!(f, "(xattr {name})"),
            What::Target(a, b) => write!(f, "(link target: `{a}` -> `{b}`)"),
            What::Device(a, b) => write!(f, "(device: {}:{} -> {}:{})", a.0, a.1, b.0, b.1),
            What::Size(a, b) => write!(f, "(content: {a} -> {b} bytes)"),
            What::Content(at) => write!(f, "(content, from byte {at} on)"),
        }
    }
}

/// Returns the first difference between the layer directories `a` and `b` on top of the directories `below`, topmost first; none:
/// they show the same files.
pub fn first_difference(a: (&ChangeSet, &Root), b: (&ChangeSet, &Root), below: &[PathBuf]) -> path::Result<Option<Difference>> {
    let (mut left, mut right) = (a.0.entries.iter().peekable(), b.0.entries.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => place(x).cmp(&place(y)),
        };
        let x = if order.is_le() { left.next() } else { None };
        let y = if order.is_ge() { right.next() } else { None };
        let (entry, what) = match (x, y) {
            (Some(x), Some(y)) => (x, between(x, y, a.1, b.1)?),
            (Some(x), None) => (x, (!is_as_below(x, a.1, below)?).then_some(What::Gone)),
            (None, Some(y)) => (y, (!is_as_below(y, b.1, below)?).then_some(What::New)),
            (None, None) => return Ok(None),
        };
        if let Some(what) = what {
            return Ok(Some(Difference { path: format!("/{}", printable(&entry.path)), what }));
        }
    }
}

/// Whether an entry changes nothing of what lies below but times.
fn is_as_below(entry: &Entry, dir: &Root, below: &[PathBuf]) -> path::Result<bool> {
    let (Change::Upsert(node), Some((parent, name))) = (&entry.change, path::split(&entry.path)) else { return Ok(false) };
    if matches!(node.kind, NodeKind::HardLink { .. }) {
        return Ok(false);
    }
    let failed = |e: rustix::io::Errno| PathError::io("comparing", &entry.path, e);
    let mut merged = Merged::open(below)?;
    for part in parent.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        merged = merged.child(part).map_err(failed)?;
    }
    let Some(found) = merged.find(name).map_err(failed)? else { return Ok(false) };
    let dir = dir.open_dir_nolinks(parent)?;
    let (meta, xattrs) = path::inspect(&dir, name).map_err(failed)?;
    normalise::same_but_times(&dir, name, &entry.path, &meta, &xattrs, &found)
}

/// Returns what change sets are ordered by: paths name by name, a directory's being made opaque after the directory itself.
fn place(entry: &Entry) -> (Vec<&[u8]>, bool) {
    (entry.path.split(|b| *b == b'/').collect(), entry.change == Change::Opaque)
}

fn between(a: &Entry, b: &Entry, a_dir: &Root, b_dir: &Root) -> path::Result<Option<What>> {
    let (x, y) = match (&a.change, &b.change) {
        (Change::Upsert(x), Change::Upsert(y)) => (x, y),
        (x, y) if x == y => return Ok(None),
        (x, y) => return Ok(Some(What::Type(kind_of(x), kind_of(y)))),
    };
    let (kind_a, kind_b) = (kind_of(&a.change), kind_of(&b.change));
    if kind_a != kind_b {
        return Ok(Some(What::Type(kind_a, kind_b)));
    }
    if let Some(what) = of_nodes(x, y) {
        return Ok(Some(what));
    }
    match (&x.kind, &y.kind) {
        (NodeKind::File { .. }, NodeKind::File { .. }) => Ok(first_byte(&a.path, a_dir, b_dir)?.map(What::Content)),
        _ => Ok(None),
    }
}

/// Compares all but the bytes of files.
fn of_nodes(a: &Node, b: &Node) -> Option<What> {
    // A further name of a file has nothing of its own.
    if let (NodeKind::HardLink { target: x }, NodeKind::HardLink { target: y }) = (&a.kind, &b.kind) {
        return (x != y).then(|| What::Target(printable(x), printable(y)));
    }
    let mode = |node: &Node| if matches!(node.kind, NodeKind::Symlink { .. }) { 0 } else { node.mode };
    if mode(a) != mode(b) {
        return Some(What::Mode(a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        return Some(What::Owner((a.uid, a.gid), (b.uid, b.gid)));
    }
    if a.xattrs != b.xattrs {
        return Some(What::Xattr(printable(&first_xattr(&a.xattrs, &b.xattrs))));
    }
    match (&a.kind, &b.kind) {
        (NodeKind::Symlink { target: x }, NodeKind::Symlink { target: y }) if x != y => Some(What::Target(printable(x), printable(y))),
        (NodeKind::File { size_bytes: x }, NodeKind::File { size_bytes: y }) if x != y => Some(What::Size(*x, *y)),
        (NodeKind::CharDevice { major: m, minor: n }, NodeKind::CharDevice { major: o, minor: p })
        | (NodeKind::BlockDevice { major: m, minor: n }, NodeKind::BlockDevice { major: o, minor: p })
            if (m, n) != (o, p) =>
        {
            Some(What::Device((*m, *n), (*o, *p)))
        }
        _ => None,
    }
}

fn first_xattr(a: &Xattrs, b: &Xattrs) -> Vec<u8> {
    let one = a.iter().find(|x| !b.contains(x)).or_else(|| b.iter().find(|y| !a.contains(y)));
    one.map(|(name, _)| name.clone()).unwrap_or_default()
}

fn kind_of(change: &Change) -> &'static str {
    match change {
        Change::Remove => "removed",
        Change::Opaque => "replaced directory",
        Change::Upsert(node) => match node.kind {
            NodeKind::Directory => "directory",
            NodeKind::File { .. } => "file",
            NodeKind::HardLink { .. } => "hard link",
            NodeKind::Symlink { .. } => "link",
            NodeKind::CharDevice { .. } => "character device",
            NodeKind::BlockDevice { .. } => "block device",
            NodeKind::Fifo => "fifo",
        },
    }
}

/// Returns where two files of equal size differ.
fn first_byte(path: &[u8], a: &Root, b: &Root) -> path::Result<Option<u64>> {
    let failed = |e| PathError::io("reading", path, e);
    let (mut a, mut b) = (a.open_file(path, None)?, b.open_file(path, None)?);
    let (mut x, mut y) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut at = 0;
    loop {
        let n = fill(&mut a, &mut x).map_err(failed)?;
        let m = fill(&mut b, &mut y).map_err(failed)?;
        if let Some(place) = x[..n].iter().zip(&y[..m]).position(|(x, y)| x != y) {
            return Ok(Some(at + place as u64));
        }
        if n != m {
            return Ok(Some(at + n.min(m) as u64));
        }
        if n < CHUNK_BYTES {
            return Ok(None);
        }
        at += n as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO)),
        }
    }
    Ok(filled)
}

/// Returns a layer directory's changes and itself, for [`first_difference`].
pub fn open(dir: &std::path::Path) -> path::Result<(ChangeSet, Root)> {
    let root = Root::open(dir)?;
    let fd = root.open_dir(b"/")?;
    Ok((super::diff::changes(fd.as_fd())?, root))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    fn found(a: &dyn Fn(&Path), b: &dyn Fn(&Path)) -> Option<String> {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for (dir, make) in dirs.iter().zip([a, b]) {
            fs::create_dir(dir.path().join("d")).unwrap();
            fs::write(dir.path().join("d/f"), "one").unwrap();
            fs::write(dir.path().join("d.f"), "between in bytes, not in names").unwrap();
            make(dir.path());
        }
        let [a, b] = dirs.map(|d| {
            let opened = open(d.path()).unwrap();
            (d, opened)
        });
        first_difference((&a.1.0, &a.1.1), (&b.1.0, &b.1.1), &[]).unwrap().map(|d| d.to_string())
    }

    #[test]
    fn the_first_difference_is_named() {
        let write = |name: &'static str, text: String| move |d: &Path| fs::write(d.join(name), &text).unwrap();
        let mode = |name: &'static str, mode| move |d: &Path| fs::set_permissions(d.join(name), fs::Permissions::from_mode(mode)).unwrap();
        let nothing = |_: &Path| {};
        let link = |to: &'static str| move |d: &Path| symlink(to, d.join("d/l")).unwrap();
        let long = |n: usize| {
            let mut text = "x".repeat(200_000);
            text.replace_range(n..=n, "y");
            text
        };
        assert_eq!(found(&nothing, &nothing), None);
        let old = |d: &Path| {
            let file = fs::File::options().write(true).open(d.join("d/f")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        };
        assert_eq!(found(&nothing, &old), None, "times are not content");
        type Make<'a> = &'a dyn Fn(&Path);
        let cases: [(Make<'_>, Make<'_>, &str); 11] = [
            (&nothing, &write("d/g", "".into()), "/d/g is made now only"),
            (&write("d/g", "".into()), &nothing, "/d/g is not made now"),
            (&nothing, &write("d/f", "two".into()), "/d/f (content, from byte 0 on)"),
            (&nothing, &write("d/f", "on".into()), "/d/f (content: 3 -> 2 bytes)"),
            (&write("d/g", long(150_000)), &write("d/g", long(150_001)), "/d/g (content, from byte 150000 on)"),
            (&mode("d/f", 0o600), &mode("d/f", 0o4755), "/d/f (mode: 0600 -> 4755)"),
            (&link("a"), &link("b"), "/d/l (link target: `a` -> `b`)"),
            (&link("a"), &write("d/l", "".into()), "/d/l (type: link -> file)"),
            (
                &|d: &Path| fs::hard_link(d.join("d/f"), d.join("d/g")).unwrap(),
                &write("d/g", "one".into()),
                "/d/g (type: hard link -> file)",
            ),
            (&|d: &Path| fs::remove_dir_all(d.join("d")).unwrap(), &nothing, "/d is made now only"),
            (
                &nothing,
                &|d: &Path| rustix::fs::setxattr(d.join("d/f"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap(),
                "/d/f (xattr user.a)",
            ),
        ];
        for (a, b, want) in cases {
            assert_eq!(found(a, b).as_deref(), Some(want));
        }
    }

    #[test]
    fn an_entry_that_is_as_below_is_no_difference() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for dir in &dirs {
            fs::create_dir_all(dir.path().join("d/e")).unwrap();
        }
        let [low, a, b] = dirs.each_ref().map(|d| d.path());
        let found = || {
            let [a, b] = [a, b].map(|d| open(d).unwrap());
            first_difference((&a.0, &a.1), (&b.0, &b.1), &[low.to_path_buf()]).unwrap().map(|d| d.to_string())
        };
        fs::write(low.join("d/f"), "same").unwrap();
        fs::write(a.join("d/f"), "same").unwrap();
        assert_eq!(found(), None);
        fs::rename(a.join("d/f"), b.join("d/f")).unwrap();
        assert_eq!(found(), None);
        fs::remove_dir(b.join("d/e")).unwrap();
        assert_eq!(found(), None);
        fs::write(b.join("d/f"), "sane").unwrap();
        assert_eq!(found().as_deref(), Some("/d/f is made now only"));
        fs::remove_file(b.join("d/f")).unwrap();
        fs::set_permissions(a.join("d/e"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(found().as_deref(), Some("/d/e is not made now"));
    }
}
