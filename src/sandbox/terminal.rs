//! A pseudo-terminal of the sandbox's own: its devpts is mounted before the sandbox exists, and attached inside.
//!
//! Opened on the host's `/dev/ptmx` the terminal would have no name inside (`tty` prints "not a tty"). Here parent
//! and child share the file system instead of passing a descriptor back, as runc's console socket does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::compile::pts_options;
use super::facts::HostFacts;

/// The process's side of a terminal, for [`super::SandboxSpec::terminal`].
#[derive(Debug)]
pub struct TerminalSide {
    /// The terminal.
    pub(super) tty: OwnedFd,
    /// The detached devpts that it lies in.
    pub(super) file_system: OwnedFd,
    /// Its name there.
    pub(super) number: u32,
}

impl TerminalSide {
    /// Returns the terminal's descriptor, to be given as the process's standard streams.
    pub fn tty(&self) -> BorrowedFd<'_> {
        self.tty.as_fd()
    }
}

/// Opens a new terminal, and returns our side (read: output, write: input) and the process's.
///
/// `size` is rows and columns. Our side is close-on-exec; it reads `EIO` once the last process has let go.
pub fn open(size: (u16, u16), host: &HostFacts) -> std::io::Result<(OwnedFd, TerminalSide)> {
    let file_system = mount_devpts(host)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let ours = rustix::fs::openat(&file_system, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&ours)?;
    let tty = rustix::pty::ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let (ws_row, ws_col) = size;
    rustix::termios::tcsetwinsize(&ours, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?;
    // The first terminal of a new instance is always 0; asked for all the same, by its own name.
    let number = pts_number(&ours)?;
    Ok((ours, TerminalSide { tty, file_system, number }))
}

fn pts_number(ours: &OwnedFd) -> std::io::Result<u32> {
    let name = rustix::pty::ptsname(ours, Vec::new())?;
    let number = name.to_str().ok().and_then(|name| name.rsplit('/').next()).and_then(|number| number.parse().ok());
    number.ok_or_else(|| std::io::Error::other(format!("unexpected terminal name {name:?}")))
}

fn mount_devpts(host: &HostFacts) -> std::io::Result<OwnedFd> {
    let context = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in pts_options(host.ids) {
        match value {
            "" => fsconfig_set_flag(context.as_fd(), key)?,
            value => fsconfig_set_string(context.as_fd(), key, value)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
