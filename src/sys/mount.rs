//! The mount calls of Linux 5.2 and later: file systems and trees as descriptors, attached by descriptor.
//!
//! No call here takes a path inside the new root: a target is a descriptor that was opened confined.
//! The numbers are the kernel's (include/uapi/linux/mount.h); libc crates differ in which of them they name.

use std::ffi::CStr;

use super::{Errno, Fd, Result, descriptor, syscall};

/// `MOUNT_ATTR_RDONLY`.
pub const READ_ONLY: u64 = 0x01;
/// `MOUNT_ATTR_NOSUID`.
pub const NO_SUID: u64 = 0x02;
/// `MOUNT_ATTR_NODEV`.
pub const NO_DEV: u64 = 0x04;
/// `MOUNT_ATTR_NOEXEC`.
pub const NO_EXEC: u64 = 0x08;

const AT_EMPTY_PATH: u32 = 0x1000;
const AT_RECURSIVE: u32 = 0x8000;
const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC.cast_unsigned();

/// How much of a mount tree a call concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The one mount.
    Single,
    /// It and all mounts below it.
    Recursive,
}

impl Depth {
    fn flag(self) -> u32 {
        if self == Self::Recursive { AT_RECURSIVE } else { 0 }
    }
}

/// fsopen(2): a context in which a file system of this type gets its options.
pub fn open_file_system(kind: &CStr) -> Result<Fd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    // SAFETY: `kind` is NUL-terminated and outlives the call.
    descriptor(unsafe { syscall!(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

/// fsconfig(2) with `FSCONFIG_SET_STRING`.
pub fn set_option(context: Fd, key: &CStr, value: &CStr) -> Result<()> {
    const FSCONFIG_SET_STRING: u32 = 1;
    // SAFETY: both are NUL-terminated and outlive the call.
    unsafe { syscall!(libc::SYS_fsconfig, context, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0) }.map(drop)
}

/// fsconfig(2) with `FSCONFIG_SET_FLAG`.
pub fn set_flag(context: Fd, key: &CStr) -> Result<()> {
    const FSCONFIG_SET_FLAG: u32 = 0;
    // SAFETY: `key` is NUL-terminated and outlives the call.
    unsafe { syscall!(libc::SYS_fsconfig, context, FSCONFIG_SET_FLAG, key.as_ptr(), 0, 0) }.map(drop)
}

/// fsconfig(2) with `FSCONFIG_CMD_CREATE`, then fsmount(2): returns a detached mount with these attributes.
pub fn create_mount(context: Fd, attributes: u64) -> Result<Fd> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: numbers only.
    unsafe { syscall!(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0) }?;
    // SAFETY: numbers only.
    descriptor(unsafe { syscall!(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes) })
}

/// open_tree(2) with `OPEN_TREE_CLONE`: returns a detached copy of the mount at `path` (empty: at `directory`).
pub fn clone_tree(directory: Fd, path: &CStr, depth: Depth) -> Result<Fd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | depth.flag();
    // SAFETY: `path` is NUL-terminated and outlives the call.
    descriptor(unsafe { syscall!(libc::SYS_open_tree, directory, path.as_ptr(), flags) })
}

/// move_mount(2): attaches the detached `mount` on what `target` is open on.
pub fn attach(mount: Fd, target: Fd) -> Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: the paths are static C strings.
    unsafe { syscall!(libc::SYS_move_mount, mount, c"".as_ptr(), target, c"".as_ptr(), flags) }.map(drop)
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn change(mount: Fd, path: &CStr, depth: Depth, attr: &MountAttr) -> Result<()> {
    let flags = AT_EMPTY_PATH | depth.flag();
    // SAFETY: `path` is NUL-terminated, `attr` has the size that is passed; both outlive the call.
    unsafe { syscall!(libc::SYS_mount_setattr, mount, path.as_ptr(), flags, std::ptr::from_ref(attr), size_of::<MountAttr>()) }.map(drop)
}

/// mount_setattr(2): adds attributes to a mount (kernel 5.12).
pub fn add_attributes(mount: Fd, depth: Depth, attributes: u64) -> Result<()> {
    change(mount, c"", depth, &MountAttr { set: attributes, clear: 0, propagation: 0, user_namespace: 0 })
}

/// Makes a mount private: no mount event goes in or out.
pub fn make_private(mount: Fd, depth: Depth) -> Result<()> {
    change(mount, c"", depth, &MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 })
}

/// Makes all mounts of this mount namespace private.
pub fn make_all_private() -> Result<()> {
    let attr = MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 };
    change(super::file::CWD, c"/", Depth::Recursive, &attr)
}

/// pivot_root(".", "."): the working directory becomes the root, the old root lies on top of it.
pub fn pivot_here() -> Result<()> {
    // SAFETY: the paths are static C strings.
    unsafe { syscall!(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }.map(drop)
}

/// The number of the mount that `path` leads to, from `directory` if it is relative; an empty one means `directory`
/// itself, without what is mounted on it (statx(2), Linux 5.8).
pub fn mount_id(directory: Fd, path: &CStr) -> Result<u64> {
    const MNT_ID: u32 = 0x1000; // STATX_MNT_ID, include/uapi/linux/stat.h
    let mut buffer = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    // SAFETY: a live C string, and a buffer of the type that statx fills.
    unsafe { syscall!(libc::SYS_statx, directory, path.as_ptr(), flags, MNT_ID, buffer.as_mut_ptr()) }?;
    // SAFETY: zeroed, then filled; every bit pattern is a valid `statx`.
    let buffer = unsafe { buffer.assume_init() };
    if buffer.stx_mask & MNT_ID == 0 { Err(Errno(libc::ENOSYS)) } else { Ok(buffer.stx_mnt_id) }
}

/// umount2(".", `MNT_DETACH`): the uppermost mount there.
pub fn detach_here() -> Result<()> {
    // SAFETY: the path is a static C string.
    unsafe { syscall!(libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH) }.map(drop)
}
