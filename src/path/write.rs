//! [`Root`]: making things below it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::meta::{FileKind, Ownership, meta_at, record_device, set_mode, set_owner};
use super::{MAX_PATH_BYTES, PathError, Result, Root, link_target_at, open_in, printable};

/// The most links that are followed on one way (the kernel's MAXSYMLINKS, include/linux/namei.h).
const MAX_LINKS: usize = 40;

/// What a caller of [`Root::descend`] says of a component that is no directory and no link.
#[derive(Debug)]
pub enum Missing {
    /// The caller made a directory there: go on.
    Made,
    /// Go on as if a link with this target lay there.
    Link(Vec<u8>),
}

/// Asked by [`Root::descend`] about a component: the directory, the name in it, its path without links, what lies there.
pub type OnMissing<'a, E> = dyn FnMut(&OwnedFd, &[u8], &[u8], Option<FileType>) -> std::result::Result<Missing, E> + 'a;

impl Root {
    /// Walks to the directory at `path`, links followed inside the root, and returns it (`O_PATH`) with its path
    /// without links.
    ///
    /// For each component that is missing, or neither directory nor link, `missing` is asked.
    pub fn descend<E: From<PathError>>(&self, path: &[u8], missing: &mut OnMissing<'_, E>) -> std::result::Result<(OwnedFd, Vec<u8>), E> {
        let io = |e| PathError::io("walking to", path, e);
        if path.len() > MAX_PATH_BYTES {
            return Err(io(Errno::NAMETOOLONG).into());
        }
        let mut at_bytes = 0;
        let mut todo: Vec<Vec<u8>> = components(path);
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut dir = self.open_dir_nolinks(b"")?;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                at_bytes -= at.pop().map_or(0, |gone| gone.len() + 1);
                dir = self.open_dir_nolinks(&at.join(&b'/'))?;
                continue;
            }
            if at_bytes + name.len() > MAX_PATH_BYTES {
                // Links can make a short path long, and each directory on it is remembered by its path.
                return Err(io(Errno::NAMETOOLONG).into());
            }
            let found = match super::lstat_at(&dir, &name) {
                Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
                Err(Errno::NOENT) => None,
                Err(e) => return Err(io(e).into()),
            };
            let target = match found {
                Some(FileType::Directory) => None,
                Some(FileType::Symlink) => Some(link_target_at(&dir, &name).map_err(io)?),
                other => {
                    at.push(name.clone());
                    let said = missing(&dir, &name, &at.join(&b'/'), other)?;
                    at.pop();
                    match said {
                        Missing::Made => None,
                        Missing::Link(target) => Some(target),
                    }
                }
            };
            if let Some(target) = target {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io(Errno::LOOP).into());
                }
                if target.first() == Some(&b'/') {
                    at.clear();
                    at_bytes = 0;
                    dir = self.open_dir_nolinks(b"")?;
                }
                todo.extend(components(&target));
                continue;
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let more = ResolveFlags::NO_SYMLINKS;
            dir = open_in(dir.as_fd(), &name, flags, more).map_err(io)?;
            at_bytes += name.len() + 1;
            at.push(name);
        }
        Ok((dir, at.join(&b'/')))
    }

    /// Makes the directory at `path` and its missing parents, links followed inside the root; returns the paths
    /// (without links) of what was made, topmost first. What exists keeps its mode and owner.
    ///
    /// Below a directory with the setgid bit new ones have it too and, unless an owner is given, its group: as
    /// mkdir(2) does it. Without an owner and there, they are root's.
    pub fn mkdir_all(&self, path: &[u8], mode: u32, owner: Option<(u32, u32)>, ownership: Ownership) -> Result<Vec<Vec<u8>>> {
        let mut made = Vec::new();
        match open_in(self.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty()) {
            Ok(_) => return Ok(made),
            Err(Errno::NOSYS) => return Err(PathError::NoOpenat2),
            // Also ENOENT for a link that leads nowhere: the walk below makes what it points to.
            Err(_) => {}
        }
        self.descend::<PathError>(path, &mut |dir, name, at, found| {
            if found.is_some() {
                return Err(PathError::NotDirectory { path: printable(at) });
            }
            let io = |e| PathError::io("creating directory", at, e);
            let group = inherited_group(dir).map_err(io)?;
            rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(io)?;
            let new =
                open_in(dir.as_fd(), name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS).map_err(io)?;
            let (uid, gid) = owner.unwrap_or((0, group.unwrap_or(0)));
            set_owner(&new, uid, gid, ownership).map_err(io)?;
            set_mode(&new, if group.is_some() { mode | Mode::SGID.as_raw_mode() } else { mode }).map_err(io)?;
            made.push(at.to_vec());
            Ok(Missing::Made)
        })?;
        Ok(made)
    }

    /// Creates a file that must not exist yet (a link in its place is an error too) in an existing directory.
    pub fn create_file(&self, path: &[u8], mode: u32) -> Result<File> {
        let (dir, name) = self.resolve_parent(path)?;
        create_file_at(&dir, &name, mode).map_err(|e| PathError::io("creating", path, e))
    }

    /// Creates a link whose target is stored verbatim.
    pub fn symlink(&self, target: &[u8], path: &[u8]) -> Result<()> {
        let (dir, name) = self.resolve_parent(path)?;
        rustix::fs::symlinkat(target, &dir, name.as_slice()).map_err(|e| PathError::io("creating link", path, e))
    }

    /// Creates a device or FIFO; see [`mknod_at`].
    pub fn mknod(&self, path: &[u8], kind: FileKind, rdev: (u32, u32), ownership: Ownership) -> Result<()> {
        let (dir, name) = self.resolve_parent(path)?;
        mknod_at(&dir, &name, kind, rdev, ownership).map_err(|e| PathError::io("creating device", path, e))
    }

    /// Gives the file at `existing` (a link there is itself linked) a second name.
    pub fn hardlink(&self, existing: &[u8], path: &[u8]) -> Result<()> {
        let (from, from_name) = self.resolve_parent(existing)?;
        let (to, to_name) = self.resolve_parent(path)?;
        rustix::fs::linkat(&from, from_name.as_slice(), &to, to_name.as_slice(), AtFlags::empty())
            .map_err(|e| PathError::io("creating hard link", path, e))
    }

    /// Removes what lies at `path` (a link itself, a directory with all below it).
    pub fn remove(&self, path: &[u8]) -> Result<()> {
        let (dir, name) = self.resolve_parent(path)?;
        super::remove_tree(&dir, &name)
    }
}

/// Returns the group that a directory hands on to what is made in it; none: it has no setgid bit.
fn inherited_group(dir: &OwnedFd) -> rustix::io::Result<Option<u32>> {
    if !Mode::from_raw_mode(rustix::fs::fstat(dir)?.st_mode).contains(Mode::SGID) {
        return Ok(None);
    }
    Ok(Some(meta_at(dir, b"")?.gid))
}

/// Creates a file that must not exist yet in `dir`; `mode` whatever the umask.
pub fn create_file_at(dir: impl AsFd, name: &[u8], mode: u32) -> rustix::io::Result<File> {
    let file = create_new_at(dir, name, 0o600)?;
    set_mode(&file, mode)?;
    Ok(file)
}

/// What a new file has before anybody changes it: of the process, or of the directory (setgid, a default ACL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions.
    pub mode: u32,
}

/// Creates a file that must not exist yet (a link in its place is an error too) in `dir`; the umask takes from `mode`.
pub fn create_new_at(dir: impl AsFd, name: &[u8], mode: u32) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode)).map(File::from)
}

/// Creates a device or FIFO in `dir` with mode 0600.
///
/// Where a device can't be made (one id only, or a user namespace), an empty file with a record stands for it:
/// see the module [`super::meta`].
pub fn mknod_at(dir: impl AsFd, name: &[u8], kind: FileKind, rdev: (u32, u32), ownership: Ownership) -> rustix::io::Result<()> {
    let dir = dir.as_fd();
    let file_type = match kind {
        FileKind::CharDevice => FileType::CharacterDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::Fifo,
        _ => return Err(Errno::INVAL),
    };
    if kind == FileKind::Fifo || ownership == Ownership::Real {
        let dev = if kind == FileKind::Fifo { 0 } else { rustix::fs::makedev(rdev.0, rdev.1) };
        match rustix::fs::mknodat(dir, name, file_type, Mode::from_raw_mode(0o600), dev) {
            Err(Errno::PERM) if kind != FileKind::Fifo => {}
            other => return other,
        }
    }
    let file = create_file_at(dir, name, 0o600)?;
    record_device(file.as_fd(), kind, rdev)
}

/// A path's components, last first, empty ones and `.` left out.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&c| c == b'/').filter(|p| !matches!(*p, b"" | b".")).rev().map(<[u8]>::to_vec).collect()
}
