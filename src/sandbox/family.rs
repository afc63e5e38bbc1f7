//! The processes of a step that has no pid namespace of its own: found by their mount namespace.
//!
//! Only for hosts that refuse a new procfs. With a pid namespace the kernel does this, at once and without races.
//! Processes cannot leave their mount namespace: the filter refuses unshare(2) and setns(2).

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal};

/// Kills every process whose mount namespace `family` is, and returns when a search finds none.
pub(super) fn kill_all(family: &OwnedFd) -> io::Result<()> {
    let wanted = rustix::fs::fstat(family)?;
    loop {
        let mut found = false;
        for entry in std::fs::read_dir("/proc")? {
            let Ok(entry) = entry else { continue };
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
            // Another user's, or gone in the meantime.
            let Ok(namespace) = rustix::fs::stat(entry.path().join("ns/mnt")) else { continue };
            if (namespace.st_dev, namespace.st_ino) == (wanted.st_dev, wanted.st_ino) {
                found = true;
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if !found {
            return Ok(());
        }
        std::thread::yield_now();
    }
}
