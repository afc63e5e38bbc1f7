//! What a container has of the host: volumes, and the files that make names work.
//!
//! Volumes are opened here, once, by the host's path; the sandbox gets descriptors.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, major, minor, openat};

use crate::sandbox::defaults::DEVICES;
use crate::sandbox::{MountSource, MountSpec, Network};

use super::RunError;
use super::request::{RunRequest, Volume, VolumeSource};

/// Opens a volume.
pub(super) fn open(volume: &Volume) -> Result<MountSpec, RunError> {
    let (source, is_memory, is_device) = match &volume.source {
        VolumeSource::Tmpfs { size_bytes, mode } => (MountSource::Tmpfs { size_bytes: *size_bytes, mode: *mode }, true, false),
        VolumeSource::Bind { path, create } => {
            let failed = |source| RunError::Volume { path: path.clone(), source };
            if *create && fs::symlink_metadata(path).is_err() {
                fs::create_dir_all(path).map_err(failed)?;
            }
            let source = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| failed(errno.into()))?;
            let is_device = is_harmless_device(&source).map_err(|errno| failed(errno.into()))?;
            (MountSource::Bind { source, recursive: true }, false, is_device)
        }
    };
    let mount = MountSpec::new(volume.target.clone(), source);
    // As docker: a tmpfs holds no set-user-id programs, and nothing to execute. No volume holds devices: in a directory of the
    // host root's processes could make its disks, and open them.
    Ok(MountSpec { readonly: volume.readonly, nosuid: is_memory, nodev: !is_device, noexec: is_memory, ..mount })
}

/// Whether a volume is one of the devices that every container has (`-v /dev/null:/etc/motd`).
fn is_harmless_device(source: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = fstat(source)?;
    let number = (major(stat.st_rdev), minor(stat.st_rdev));
    let known = DEVICES.iter().any(|(_, major, minor)| (*major, *minor) == number);
    Ok(known && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice)
}

/// Returns `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname`, which can be written and are forgotten at the end.
pub(super) fn network_files(request: &RunRequest, hostname: &str) -> Vec<MountSpec> {
    let file = |target: &str, content: String| {
        MountSpec::new(target, MountSource::File { content: content.into_bytes(), mode: 0o644, uid: 0, gid: 0 })
    };
    // A host without them has no names either.
    let of_host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (resolv_conf, hosts) = match request.network {
        Network::Host => (of_host("/etc/resolv.conf"), of_host("/etc/hosts")),
        // Without a network there is nobody to ask.
        Network::None => (String::new(), String::new()),
    };
    vec![
        file("/etc/resolv.conf", resolv_conf),
        file("/etc/hosts", hosts_text(hosts, hostname, &request.add_hosts)),
        file("/etc/hostname", format!("{hostname}\n")),
    ]
}

/// The host's lines, else localhost's; then this container's own name and those that were asked for.
fn hosts_text(host: String, hostname: &str, add: &[(String, String)]) -> String {
    let mut text = if host.is_empty() { "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".into() } else { host };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("127.0.0.1\t{hostname}\n"));
    for (name, address) in add {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_the_container_and_what_was_added() {
        let add = [("db".to_string(), "10.0.0.2".to_string())];
        assert_eq!(hosts_text("1.2.3.4\tx".into(), "box", &add), "1.2.3.4\tx\n127.0.0.1\tbox\n10.0.0.2\tdb\n");
        let alone = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\tbox\n";
        assert_eq!(hosts_text(String::new(), "box", &[]), alone);
    }
}
