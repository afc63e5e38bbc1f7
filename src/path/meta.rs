//! What a file is besides its bytes: type, mode, owner, times, extended attributes; read and set by descriptor.
//!
//! Setting has one right order: owner, mode, attributes, times. `chown` clears setuid and capabilities,
//! writing attributes and data moves times. [`apply`] is that order.
//!
//! With a single user id at hand no file can belong to anybody else. The wanted owner is then *recorded* in
//! the attribute `user.plywood.stat` (text: `UID:GID` or `UID:GID:c|b:MAJOR:MINOR` for a device, which is an
//! empty file then). Reading always honours the record; it never leaves the store. The kernel allows such
//! attributes on files and directories only, so links and FIFOs lose their owner in that mode. The device 0:0 is
//! recorded where a file system has no room for overlay's mark of a removed name: see [`crate::snapshot::overlay`].

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Birth, PathError, Result};

const RECORD: &str = "user.plywood.stat";
/// No id: chown(2) takes it for "leave it as it is".
const NOBODY: u32 = u32::MAX;
/// The kernel's bound for the list of names and for one value (XATTR_LIST_MAX, XATTR_SIZE_MAX in linux/limits.h).
const XATTR_MAX_BYTES: usize = 64 * 1024;

/// Whether files can really belong to the owners that images name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// All ids are mapped: `chown` and (as root) `mknod` do it.
    Real,
    /// One id only: the owner is recorded beside the file.
    Recorded,
}

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum FileKind {
    Directory,
    File,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

/// A point in time: seconds since 1970 (may be negative) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[allow(missing_docs)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

/// What `stat` says, a recorded owner or device already put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The type.
    pub kind: FileKind,
    /// Permissions with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file; length of a link's target.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode; can't be forged.
    pub ctime: Time,
    /// Major and minor number of a device; zero else.
    pub rdev: (u32, u32),
    /// The file system.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// How many names it has.
    pub nlink: u64,
}

/// Extended attributes, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What [`apply`] sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions; none: left alone (a link has none).
    pub mode: Option<u32>,
    /// Last change; none: left alone.
    pub mtime: Option<Time>,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// Whether an attribute belongs to the file's content: file capabilities and `user.*`.
///
/// Overlay's own marks and ours are never content; `trusted.*`, `system.*` and other `security.*` speak of
/// the host that set them.
pub fn is_portable_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.starts_with(b"user.plywood."))
}

impl From<&Stat> for Meta {
    fn from(s: &Stat) -> Self {
        use rustix::fs::FileType;
        let kind = match FileType::from_raw_mode(s.st_mode) {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::CharacterDevice => FileKind::CharDevice,
            FileType::BlockDevice => FileKind::BlockDevice,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::RegularFile | FileType::Unknown => FileKind::File,
        };
        let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        Self {
            kind,
            mode: s.st_mode & 0o7777,
            uid: s.st_uid,
            gid: s.st_gid,
            size: s.st_size.unsigned_abs(),
            mtime: Time { secs: s.st_mtime, nanos: u32::try_from(s.st_mtime_nsec).unwrap_or(0) },
            ctime: Time { secs: s.st_ctime, nanos: u32::try_from(s.st_ctime_nsec).unwrap_or(0) },
            rdev: if device { (rustix::fs::major(s.st_rdev), rustix::fs::minor(s.st_rdev)) } else { (0, 0) },
            dev: s.st_dev,
            ino: s.st_ino,
            nlink: s.st_nlink,
        }
    }
}

/// A path by which attribute calls reach what a descriptor (also `O_PATH`) or a name in it stands for.
fn proc_path(fd: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    CString::new(path).map_err(|_| Errno::INVAL)
}

/// Returns what `name` in `dir` is, and all its attributes by name, the host's own ones included; not following
/// a link. An empty name is `dir` itself.
fn raw_xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<Vec<u8>>> {
    let list = |buf: &mut Vec<u8>| {
        if name.is_empty() {
            // `O_PATH` descriptors need the way through /proc, which others are spared.
            match rustix::fs::flistxattr(dir, rustix::buffer::spare_capacity(buf)) {
                Err(Errno::BADF) => {}
                other => return other,
            }
        }
        let path = proc_path(dir, name)?;
        let spare = rustix::buffer::spare_capacity(buf);
        if name.is_empty() { rustix::fs::listxattr(&path, spare) } else { rustix::fs::llistxattr(&path, spare) }
    };
    let mut buf = Vec::with_capacity(512);
    let listed = match list(&mut buf) {
        Err(Errno::RANGE) => {
            buf = Vec::with_capacity(XATTR_MAX_BYTES);
            list(&mut buf)
        }
        other => other,
    };
    match listed {
        // A file system without attributes has none.
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
        Ok(_) => {}
    }
    Ok(buf.split(|&c| c == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
}

fn value_at(dir: BorrowedFd<'_>, name: &[u8], attribute: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let path = proc_path(dir, name)?;
    let read = |buf: &mut Vec<u8>| {
        let spare = rustix::buffer::spare_capacity(buf);
        if name.is_empty() { rustix::fs::getxattr(&path, attribute, spare) } else { rustix::fs::lgetxattr(&path, attribute, spare) }
    };
    let mut buf = Vec::with_capacity(256);
    let got = match read(&mut buf) {
        Err(Errno::RANGE) => {
            buf = Vec::with_capacity(XATTR_MAX_BYTES);
            read(&mut buf)
        }
        other => other,
    };
    match got {
        Ok(_) => Ok(Some(buf)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Returns an attribute of what `fd` (also `O_PATH`) stands for; none when it has no such attribute.
pub fn get_xattr(fd: impl AsFd, attribute: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    value_at(fd.as_fd(), b"", attribute)
}

/// Returns an attribute of `name` in `dir`, not following a link; none when it has no such attribute.
pub fn get_xattr_at(dir: impl AsFd, name: &[u8], attribute: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    value_at(dir.as_fd(), name, attribute)
}

/// Sets an attribute of what `fd` (also `O_PATH`) stands for.
pub fn set_xattr(fd: impl AsFd, attribute: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::setxattr(&proc_path(fd.as_fd(), b"")?, attribute, value, XattrFlags::empty())
}

/// Sets an attribute of `name` in `dir`, not following a link.
pub fn set_xattr_at(dir: impl AsFd, name: &[u8], attribute: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::lsetxattr(&proc_path(dir.as_fd(), name)?, attribute, value, XattrFlags::empty())
}

/// Removes an attribute of what `fd` stands for; one that isn't there is fine.
pub fn remove_xattr(fd: impl AsFd, attribute: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::removexattr(&proc_path(fd.as_fd(), b"")?, attribute) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Returns what `name` in `dir` is, a recorded owner put in place; a link is not followed. Empty name: `dir` itself.
pub fn meta_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Meta> {
    Ok(inspect(dir, name)?.0)
}

/// Returns the attributes of `name` in `dir` that are content, sorted by name; a link is not followed.
pub fn xattrs_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Xattrs> {
    Ok(inspect(dir, name)?.1)
}

/// Returns all that is to know of `name` in `dir`: what it is, with a recorded owner put in place, and the
/// attributes that are content, sorted. A link is not followed; an empty name is `dir` itself.
pub fn inspect(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<(Meta, Xattrs)> {
    let dir = dir.as_fd();
    let stat = if name.is_empty() { rustix::fs::fstat(dir)? } else { super::lstat_at(dir, name)? };
    let mut meta = Meta::from(&stat);
    let mut xattrs = Xattrs::new();
    // The kernel keeps user.* and capabilities to these two types (xattr(7)).
    if !matches!(meta.kind, FileKind::File | FileKind::Directory) {
        return Ok((meta, xattrs));
    }
    for attribute in raw_xattrs(dir, name)? {
        if attribute == RECORD.as_bytes() {
            if let Some(record) = value_at(dir, name, &attribute)?.as_deref().and_then(Record::parse) {
                record.put(&mut meta);
            }
        } else if is_portable_xattr(&attribute)
            && let Some(value) = value_at(dir, name, &attribute)?
        {
            let value = if attribute == b"security.capability" { capability_v2(value) } else { value };
            xattrs.push((attribute, value));
        }
    }
    xattrs.sort_unstable();
    Ok((meta, xattrs))
}

/// Returns file capabilities without the user namespace's root id (revision 3 to 2, linux/capability.h): the id
/// is the building host's, and other hosts would ignore the capabilities.
fn capability_v2(mut value: Vec<u8>) -> Vec<u8> {
    const REVISION_3: u8 = 3;
    if value.len() == 24 && value[3] == REVISION_3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}

/// The owner that a file should have, kept beside it.
struct Record {
    uid: u32,
    gid: u32,
    device: Option<(FileKind, u32, u32)>,
}

impl Record {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.split(':');
        let number = |parts: &mut std::str::Split<'_, char>| parts.next()?.parse::<u32>().ok();
        let (uid, gid) = (number(&mut parts)?, number(&mut parts)?);
        if [uid, gid].contains(&NOBODY) {
            return None;
        }
        let device = match parts.next() {
            None => None,
            Some("c") => Some((FileKind::CharDevice, number(&mut parts)?, number(&mut parts)?)),
            Some("b") => Some((FileKind::BlockDevice, number(&mut parts)?, number(&mut parts)?)),
            Some(_) => return None,
        };
        Some(Self { uid, gid, device })
    }

    fn text(&self) -> String {
        match self.device {
            None => format!("{}:{}", self.uid, self.gid),
            Some((kind, major, minor)) => {
                let letter = if kind == FileKind::CharDevice { 'c' } else { 'b' };
                format!("{}:{}:{letter}:{major}:{minor}", self.uid, self.gid)
            }
        }
    }

    fn put(self, meta: &mut Meta) {
        (meta.uid, meta.gid) = (self.uid, self.gid);
        if let Some((kind, major, minor)) = self.device
            && meta.kind == FileKind::File
            && meta.size == 0
        {
            (meta.kind, meta.rdev) = (kind, (major, minor));
        }
    }
}

/// Records that an empty file stands for a device that could not be made.
pub(super) fn record_device(fd: BorrowedFd<'_>, kind: FileKind, rdev: (u32, u32)) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(fd)?;
    let record = Record { uid: stat.st_uid, gid: stat.st_gid, device: Some((kind, rdev.0, rdev.1)) };
    set_xattr(fd, RECORD.as_bytes(), record.text().as_bytes())
}

/// Makes an empty file that reads as the character device 0:0, where the kernel allows none.
pub fn record_whiteout_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let file = super::create_new_at(dir, name, 0)?;
    record_device(file.as_fd(), FileKind::CharDevice, (0, 0))
}

/// Makes an empty file that reads as the character device 0:0 a plain file again; returns whether `name` was one.
pub fn forget_whiteout_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<bool> {
    let dir = dir.as_fd();
    let record = super::lstat_at(dir, name).map(|stat| Meta::from(&stat).kind)? == FileKind::File;
    if record {
        rustix::fs::lremovexattr(&proc_path(dir, name)?, RECORD)?;
    }
    Ok(record)
}

/// Sets the owner of what `fd` (also `O_PATH`) stands for, really or as a record.
///
/// Clears setuid and capabilities (chown(2)): set the mode afterwards.
pub fn set_owner(fd: impl AsFd, uid: u32, gid: u32, ownership: Ownership) -> rustix::io::Result<()> {
    let fd = fd.as_fd();
    let old = get_xattr(fd, RECORD.as_bytes()).unwrap_or(None).as_deref().and_then(Record::parse);
    own(fd, uid, gid, ownership, old)
}

/// Sets the owner of what has the record `old`.
fn own(fd: BorrowedFd<'_>, uid: u32, gid: u32, ownership: Ownership, old: Option<Record>) -> rustix::io::Result<()> {
    if [uid, gid].contains(&NOBODY) {
        return Err(Errno::INVAL);
    }
    let chown = |uid, gid| rustix::fs::chownat(fd, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH);
    let device = old.as_ref().and_then(|r| r.device);
    if ownership == Ownership::Real {
        match chown(uid, gid) {
            Ok(()) if old.is_none() => return Ok(()),
            Ok(()) if device.is_none() => return remove_xattr(fd, RECORD.as_bytes()),
            // An id that isn't mapped into our user namespace can only be recorded.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(e) => return Err(e),
        }
    }
    let stat = rustix::fs::fstat(fd)?;
    if device.is_none() && (stat.st_uid, stat.st_gid) == (uid, gid) {
        return if old.is_some() { remove_xattr(fd, RECORD.as_bytes()) } else { Ok(()) };
    }
    match set_xattr(fd, RECORD.as_bytes(), Record { uid, gid, device }.text().as_bytes()) {
        // A link, FIFO or socket can't carry the record: see the module's header.
        Err(Errno::PERM | Errno::OPNOTSUPP) if !matches!(Meta::from(&stat).kind, FileKind::File | FileKind::Directory) => Ok(()),
        other => other,
    }
}

/// Sets the permissions of what `fd` (also `O_PATH`, but no link) stands for; the umask has no say.
pub fn set_mode(fd: impl AsFd, mode: u32) -> rustix::io::Result<()> {
    let fd = fd.as_fd();
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match rustix::fs::fchmod(fd, mode) {
        // O_PATH.
        Err(Errno::BADF) => rustix::fs::chmodat(CWD, &proc_path(fd, b"")?, mode, AtFlags::empty()),
        other => other,
    }
}

/// Sets access and change time of what `fd` (also `O_PATH`) stands for.
pub fn set_times(fd: impl AsFd, mtime: Time) -> rustix::io::Result<()> {
    let t = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    rustix::fs::utimensat(fd, "", &Timestamps { last_access: t, last_modification: t }, AtFlags::EMPTY_PATH)
}

/// Sets owner, mode, attributes and times of what `fd` (also `O_PATH`) stands for, in the order in which none
/// undoes another. `path` is for messages.
///
/// Attributes that aren't content (see [`is_portable_xattr`]) are passed over, and so are those that the file
/// system or the lack of privilege refuses: returns how many were refused.
pub fn apply(fd: impl AsFd, path: &[u8], attributes: &Attributes, ownership: Ownership) -> Result<usize> {
    let fd = fd.as_fd();
    set_owner(fd, attributes.uid, attributes.gid, ownership).map_err(|e| PathError::io("changing the owner of", path, e))?;
    if let Some(mode) = attributes.mode {
        set_mode(fd, mode).map_err(|e| PathError::io("changing the mode of", path, e))?;
    }
    apply_rest(fd, path, attributes)
}

/// As [`apply`], for a regular file that nobody but its maker has touched: what it was born with is not set again.
pub fn apply_to_new(fd: impl AsFd, path: &[u8], attributes: &Attributes, ownership: Ownership, birth: Birth) -> Result<usize> {
    const SPECIAL: u32 = 0o7000;
    let fd = fd.as_fd();
    let Attributes { uid, gid, mode, .. } = *attributes;
    if (uid, gid) != (birth.uid, birth.gid) {
        own(fd, uid, gid, ownership, None).map_err(|e| PathError::io("changing the owner of", path, e))?;
    }
    // Changing the owner clears the special bits and no others.
    if let Some(mode) = mode.filter(|mode| *mode != birth.mode || mode & SPECIAL != 0) {
        set_mode(fd, mode).map_err(|e| PathError::io("changing the mode of", path, e))?;
    }
    apply_rest(fd, path, attributes)
}

/// Sets what comes after owner and mode.
fn apply_rest(fd: BorrowedFd<'_>, path: &[u8], attributes: &Attributes) -> Result<usize> {
    let mut refused = 0;
    for (name, value) in attributes.xattrs.iter().filter(|(n, _)| is_portable_xattr(n)) {
        match set_xattr(fd, name, value) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) => refused += 1,
            Err(e) => return Err(PathError::io("setting an extended attribute of", path, e)),
        }
    }
    if let Some(mtime) = attributes.mtime {
        set_times(fd, mtime).map_err(|e| PathError::io("setting the times of", path, e))?;
    }
    Ok(refused)
}
