//! Overlay's marks and mounts; nothing outside `snapshot` and `layer::unpack` knows them.
//!
//! | in a layer directory | means | source |
//! |---|---|---|
//! | character device 0:0 | the name is removed | kernel: Documentation/filesystems/overlayfs.rst |
//! | an empty file that is recorded as that device | the same, in a store that itself lies on overlay | ours |
//! | `user.plywood.whiteouts=y` on a directory | some of its files are such records | ours |
//! | `user.overlay.opaque=y` on a directory | nothing of the lower directory shows | the same |
//! | `user.plywood.root=y` on the top directory | its mode or owner is part of the change | ours |
//!
//! Mounts are always made with `userxattr`, as root too: marks in `trusted.overlay.*`, which a hostile layer
//! may carry, then mean nothing, and root and ordinary users leave the same marks behind. `userxattr` also
//! switches redirects and metadata-only copies off, so that each upper file is whole.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};

use crate::path::{self, FileKind, Meta};

const OPAQUE: &[u8] = b"user.overlay.opaque";
const ROOT_CHANGED: &[u8] = b"user.plywood.root";
const RECORDED: &[u8] = b"user.plywood.whiteouts";

/// Whether this is the mark of a removed name.
pub fn is_whiteout(meta: &Meta) -> bool {
    meta.kind == FileKind::CharDevice && meta.rdev == (0, 0)
}

/// Marks `name` in `dir` as removed; no privilege is needed for that device (Linux 5.8).
///
/// On an overlay mount (a container's own `/`) nobody can make it, the kernel keeps it for itself: there the copy driver is
/// at work, which reads the layers without overlay, and a record does.
pub fn make_whiteout(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let dir = dir.as_fd();
    match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), rustix::fs::makedev(0, 0)) {
        Err(Errno::PERM) => {
            path::set_xattr(dir, RECORDED, b"y")?;
            path::record_whiteout_at(dir, name)
        }
        other => other,
    }
}

/// Whether files of the directory may be marks of removed names.
pub(super) fn has_recorded_whiteouts(dir: impl AsFd) -> rustix::io::Result<bool> {
    Ok(path::get_xattr(dir, RECORDED)?.is_some())
}

/// Whether the lower directory is hidden.
pub fn is_opaque(dir: impl AsFd) -> rustix::io::Result<bool> {
    Ok(path::get_xattr(dir, OPAQUE)?.as_deref() == Some(b"y"))
}

/// Whether the lower directory of `name` in `dir` is hidden.
pub(super) fn is_opaque_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<bool> {
    Ok(path::get_xattr_at(dir, name, OPAQUE)?.as_deref() == Some(b"y"))
}

/// Hides the lower directory.
pub fn set_opaque(dir: impl AsFd) -> rustix::io::Result<()> {
    path::set_xattr(dir, OPAQUE, b"y")
}

/// Lets the lower directory show again.
pub(super) fn clear_opaque(dir: impl AsFd) -> rustix::io::Result<()> {
    path::remove_xattr(dir, OPAQUE)
}

/// Whether the layer says something of the root directory itself.
pub fn is_root_changed(dir: impl AsFd) -> rustix::io::Result<bool> {
    Ok(path::get_xattr(dir, ROOT_CHANGED)?.is_some())
}

/// Notes that the layer says something of the root directory itself.
pub fn set_root_changed(dir: impl AsFd) -> rustix::io::Result<()> {
    path::set_xattr(dir, ROOT_CHANGED, b"y")
}

/// How the kernel takes the list of lower directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LowerSyntax {
    /// One `lowerdir+` each (Linux 6.8).
    Each,
    /// One string, of 255 bytes at most (fsconfig(2)).
    Joined,
}

impl LowerSyntax {
    /// The most lower directories of one mount. The kernel takes 500; below that lies room for its own.
    pub(super) fn max_lowers(self) -> usize {
        match self {
            Self::Each => 480,
            // `/proc/self/fd/NNNN:` twelve times.
            Self::Joined => 12,
        }
    }
}

/// Makes an overlay mount that is attached nowhere: it lives as long as the descriptor (or a mount namespace
/// that it is moved to). Without `upper` (upper and work directory) it is read-only and needs two lowers.
///
/// Devices in it can't be opened: what a step may use lies in its own `/dev`.
pub(super) fn mount(lowers: &[OwnedFd], upper: Option<(&OwnedFd, &OwnedFd)>, syntax: LowerSyntax) -> rustix::io::Result<OwnedFd> {
    // Named by descriptor: no escaping of `:` and `\`, and nothing to be swapped on the way.
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "plywood")?;
    fsconfig_set_flag(&fs, "userxattr")?;
    match syntax {
        LowerSyntax::Each => {
            for lower in lowers {
                fsconfig_set_string(&fs, "lowerdir+", name(lower))?;
            }
        }
        LowerSyntax::Joined => fsconfig_set_string(&fs, "lowerdir", lowers.iter().map(name).collect::<Vec<_>>().join(":"))?,
    }
    // An index would tie the layers to this file system (and is a build option of the kernel); an unknown key is fine.
    let _ = fsconfig_set_string(&fs, "index", "off");
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    match upper {
        Some((upper, work)) => {
            fsconfig_set_string(&fs, "upperdir", name(upper))?;
            fsconfig_set_string(&fs, "workdir", name(work))?;
            // The step's own fsyncs buy nothing: the store syncs once before it vouches for the layer (Linux 5.10).
            let _ = fsconfig_set_flag(&fs, "volatile");
        }
        None => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Tells which syntax the kernel knows, by asking it.
pub(super) fn lower_syntax(any_dir: &OwnedFd) -> rustix::io::Result<LowerSyntax> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    match fsconfig_set_string(&fs, "lowerdir+", format!("/proc/self/fd/{}", any_dir.as_raw_fd())) {
        Ok(()) => Ok(LowerSyntax::Each),
        Err(Errno::INVAL) => Ok(LowerSyntax::Joined),
        Err(e) => Err(e),
    }
}
