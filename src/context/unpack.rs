//! Unpacks a tar into a tree: a context that came on stdin, or ADD's archive into an image's root.
//!
//! Not for layers: names like `.wh.x` mean nothing here. The archive and the tree are both hostile: names are
//! cleaned and clamped, parents are resolved inside the root (through its links: merged `/usr` needs that),
//! the last component is never followed, what lies there is replaced, except that a directory over a
//! directory is merged.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use tar::EntryType;

use crate::path::{
    self, Attributes, FileKind, Ownership, PathError, Root, Time, Xattrs, clean, create_file_at, is_portable_xattr, lstat_at, mknod_at,
    printable, remove_tree, set_times, split,
};

/// Why an archive can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive's bytes can't be read: damaged, or cut short.
    #[error("reading the archive")]
    Read(#[source] io::Error),
    /// A member has a type that no file system has.
    #[error("member `{member}` has the unknown type `{kind}`")]
    UnknownType {
        /// Its name.
        member: String,
        /// The type's byte.
        kind: char,
    },
    /// A member has no sensible metadata.
    #[error("member `{member}` has a bad {field}")]
    BadField {
        /// Its name.
        member: String,
        /// Which.
        field: &'static str,
    },
    /// A hard link's target isn't there.
    #[error("member `{member}` is a hard link to `{target}`, which is not there")]
    LinkTarget {
        /// Its name.
        member: String,
        /// The target as written.
        target: String,
    },
    /// A device that overlay file systems take for a deletion.
    #[error("member `{member}` is a device 0:0, which would delete files")]
    Whiteout {
        /// Its name.
        member: String,
    },
    /// Writing failed.
    #[error("member `{member}`")]
    Write {
        /// Its name.
        member: String,
        /// Why.
        source: PathError,
    },
}

/// How members are unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Unpacking {
    /// The owner of everything; none: what the archive says.
    pub owner: Option<(u32, u32)>,
    /// Whether owners can be set for real.
    pub ownership: Ownership,
}

/// Unpacks a plain tar into the directory at `dest` inside `root`, which must exist.
///
/// On an error, what was unpacked so far stays.
pub fn unpack(archive: impl Read, root: &Root, dest: &[u8], how: Unpacking) -> Result<(), UnpackError> {
    let mut archive = tar::Archive::new(archive);
    archive.set_ignore_zeros(false);
    let mut unpacker = Unpacker { root, dest: dest.to_vec(), how, parent: None, directories: Vec::new() };
    for entry in archive.entries().map_err(UnpackError::Read)? {
        unpacker.member(entry.map_err(UnpackError::Read)?)?;
    }
    unpacker.finish();
    Ok(())
}

struct Unpacker<'a> {
    root: &'a Root,
    dest: Vec<u8>,
    how: Unpacking,
    /// The last member's directory: archives come a directory at a time.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories whose times are set at the end, since members below change them.
    directories: Vec<(Vec<u8>, Time)>,
}

/// A member's place: its directory, its name there, its path from the root.
struct Spot<'a> {
    dir: OwnedFd,
    name: &'a [u8],
    path: &'a [u8],
}

impl Unpacker<'_> {
    fn member<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = clean(&entry.path_bytes());
        // The archive's own root: the destination keeps what it has.
        if name.is_empty() {
            return Ok(());
        }
        let member = printable(&name);
        let attributes = self.attributes(&mut entry, &member)?;
        let path = resolve_below(&self.dest, &name);
        let write = |source| UnpackError::Write { member: member.clone(), source };
        let dir = self.parent_of(&path).map_err(write)?;
        let (_, last) = split(&path).expect("the name isn't empty");
        let spot = Spot { dir, name: last, path: &path };
        self.clear(&spot, kind.is_dir()).map_err(write)?;
        match kind {
            EntryType::Directory => {
                self.directory(&spot, &attributes).map_err(write)?;
                if let Some(mtime) = attributes.mtime {
                    self.directories.push((path.clone(), mtime));
                }
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.hard_link(&spot, &target, &member)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                symlink(&spot, &target, &attributes, self.how.ownership).map_err(write)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.special(&entry, &spot, kind, &attributes, &member)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(&mut entry, &spot, &attributes, &member)?,
            other => return Err(UnpackError::UnknownType { member, kind: char::from(other.as_byte()) }),
        }
        self.parent = split(&path).map(|(parent, _)| (parent.to_vec(), spot.dir));
        Ok(())
    }

    fn attributes<R: Read>(&self, entry: &mut tar::Entry<'_, R>, member: &str) -> Result<Attributes, UnpackError> {
        let bad = |field| UnpackError::BadField { member: member.to_owned(), field };
        let header = entry.header();
        let id = |n: io::Result<u64>, field| n.ok().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad(field));
        let mut uid = id(header.uid(), "owner");
        let mut gid = id(header.gid(), "group");
        let mode = header.mode().map_err(|_| bad("mode"))? & 0o7777;
        let mut mtime = Time { secs: header.mtime().map_err(|_| bad("time"))?.cast_signed(), nanos: 0 };
        let mut xattrs = Xattrs::new();
        for record in entry.pax_extensions().map_err(UnpackError::Read)?.into_iter().flatten() {
            let record = record.map_err(UnpackError::Read)?;
            let number = || record.value().ok().and_then(|v| v.parse().ok());
            match record.key_bytes() {
                b"uid" => uid = number().ok_or_else(|| bad("owner")),
                b"gid" => gid = number().ok_or_else(|| bad("group")),
                b"mtime" => mtime = record.value().ok().and_then(pax_time).ok_or_else(|| bad("time"))?,
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|n| is_portable_xattr(n)) {
                        xattrs.push((name.to_vec(), record.value_bytes().to_vec()));
                    }
                }
            }
        }
        let (uid, gid) = match self.how.owner {
            Some(owner) => owner,
            None => (uid?, gid?),
        };
        xattrs.sort_unstable();
        Ok(Attributes { uid, gid, mode: Some(mode), mtime: Some(mtime), xattrs })
    }

    /// Opens the directory that holds `path`, making it where it is missing.
    fn parent_of(&mut self, path: &[u8]) -> path::Result<OwnedFd> {
        let (parent, _) = split(path).expect("a member has a name");
        if let Some((known, dir)) = self.parent.take()
            && known == parent
        {
            return Ok(dir);
        }
        let (uid, gid) = self.how.owner.unwrap_or((0, 0));
        self.root.mkdir_all(parent, 0o755, uid, gid, self.how.ownership)?;
        self.root.open_dir(parent)
    }

    /// Removes what a member replaces.
    fn clear(&mut self, spot: &Spot<'_>, directory: bool) -> path::Result<()> {
        let found = match lstat_at(&spot.dir, spot.name) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(io_error("examining", spot, e)),
        };
        if directory && found == FileType::Directory {
            return Ok(());
        }
        remove_tree(&spot.dir, spot.name)
    }

    fn directory(&self, spot: &Spot<'_>, attributes: &Attributes) -> path::Result<()> {
        match rustix::fs::mkdirat(&spot.dir, spot.name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(io_error("creating directory", spot, e)),
        }
        let made = open_nofollow(spot, OFlags::DIRECTORY)?;
        path::apply(&made, spot.path, attributes, self.how.ownership)?;
        Ok(())
    }

    fn file<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        spot: &Spot<'_>,
        attributes: &Attributes,
        member: &str,
    ) -> Result<(), UnpackError> {
        let write = |source| UnpackError::Write { member: member.to_owned(), source };
        let mut file: File = create_file_at(&spot.dir, spot.name, 0o600).map_err(|e| write(io_error("creating", spot, e)))?;
        let size = entry.size();
        let copied = io::copy(entry, &mut file).map_err(|e| {
            // `copy` doesn't say which side failed; a full disk is the writing side.
            match e.raw_os_error() {
                Some(_) => write(PathError::io("writing", spot.path, e)),
                None => UnpackError::Read(e),
            }
        })?;
        if copied < size {
            return Err(UnpackError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        path::apply(&file, spot.path, attributes, self.how.ownership).map_err(write)?;
        Ok(())
    }

    fn hard_link(&self, spot: &Spot<'_>, target: &[u8], member: &str) -> Result<(), UnpackError> {
        let no_target = || UnpackError::LinkTarget { member: member.to_owned(), target: printable(target) };
        let existing = resolve_below(&self.dest, &clean(target));
        let (from, from_name) = self.root.resolve_parent(&existing).map_err(|_| no_target())?;
        match rustix::fs::linkat(&from, from_name.as_slice(), &spot.dir, spot.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(no_target()),
            Err(e) => Err(UnpackError::Write { member: member.to_owned(), source: io_error("creating hard link", spot, e) }),
        }
    }

    fn special<R: Read>(
        &self,
        entry: &tar::Entry<'_, R>,
        spot: &Spot<'_>,
        kind: EntryType,
        attributes: &Attributes,
        member: &str,
    ) -> Result<(), UnpackError> {
        let number = |n: io::Result<Option<u32>>| match n {
            Ok(n) => Ok(n.unwrap_or(0)),
            Err(_) => Err(UnpackError::BadField { member: member.to_owned(), field: "device number" }),
        };
        let (kind, rdev) = match kind {
            EntryType::Fifo => (FileKind::Fifo, (0, 0)),
            EntryType::Char => (FileKind::CharDevice, (number(entry.header().device_major())?, number(entry.header().device_minor())?)),
            _ => (FileKind::BlockDevice, (number(entry.header().device_major())?, number(entry.header().device_minor())?)),
        };
        if kind == FileKind::CharDevice && rdev == (0, 0) {
            return Err(UnpackError::Whiteout { member: member.to_owned() });
        }
        let write = |source| UnpackError::Write { member: member.to_owned(), source };
        mknod_at(&spot.dir, spot.name, kind, rdev, self.how.ownership).map_err(|e| write(io_error("creating", spot, e)))?;
        let made = open_nofollow(spot, OFlags::empty()).map_err(write)?;
        path::apply(&made, spot.path, attributes, self.how.ownership).map_err(write)?;
        Ok(())
    }

    /// Sets the directories' times, deepest last written first; one that was replaced meanwhile is passed over.
    fn finish(&self) {
        for (path, mtime) in self.directories.iter().rev() {
            if let Ok((dir, name)) = self.root.resolve_parent(path)
                && let Ok(stat) = lstat_at(&dir, &name)
                && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                && let Ok(found) = open_nofollow(&Spot { dir, name: &name, path }, OFlags::DIRECTORY)
            {
                // Only a time: no reason to give up an unpacked archive.
                let _ = set_times(&found, *mtime);
            }
        }
    }
}

fn symlink(spot: &Spot<'_>, target: &[u8], attributes: &Attributes, ownership: Ownership) -> path::Result<()> {
    rustix::fs::symlinkat(target, &spot.dir, spot.name).map_err(|e| io_error("creating link", spot, e))?;
    let made = open_nofollow(spot, OFlags::empty())?;
    path::apply(&made, spot.path, &Attributes { mode: None, xattrs: Xattrs::new(), ..attributes.clone() }, ownership)?;
    Ok(())
}

fn open_nofollow(spot: &Spot<'_>, more: OFlags) -> path::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    rustix::fs::openat(spot.dir.as_fd(), spot.name, flags, Mode::empty()).map_err(|e| io_error("opening", spot, e))
}

fn io_error(doing: &'static str, spot: &Spot<'_>, e: Errno) -> PathError {
    PathError::io(doing, spot.path, e)
}

fn resolve_below(dest: &[u8], name: &[u8]) -> Vec<u8> {
    super::resolve::join([dest, name].into_iter().filter(|p| !p.is_empty()))
}

/// Reads a PAX time: decimal seconds, perhaps with a fraction, perhaps negative (pax(1), "mtime").
fn pax_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some(Time { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos }),
        _ => Some(Time { secs, nanos }),
    }
}
