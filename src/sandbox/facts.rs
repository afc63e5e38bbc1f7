//! What this host and this process's user namespace allow a sandbox: gathered once, then plain values.
//!
//! Not the place for advice to people: that is `probe`'s, which asks the same questions and more, and words the
//! answers. Everything here changes what `compile` writes.

use std::sync::Arc;

use crate::sys;
use crate::sys::process::FilterInstruction;

use super::seccomp;

/// What the host allows.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// Where `/proc` comes from.
    pub proc: ProcSource,
    /// Where device nodes come from.
    pub devices: DeviceSource,
    /// Which ids exist in this user namespace.
    pub ids: IdRange,
    /// Whether this process lives in a user namespace: sysfs belongs to the host's network then.
    pub in_user_namespace: bool,
    /// Whether cgroups are the unified hierarchy.
    pub unified_cgroups: bool,
    /// Existing paths to be masked whose names depend on the machine (a processor each).
    pub machine_masked_paths: Vec<String>,
    /// The system call filters.
    pub filters: Arc<Filters>,
}

/// Where a sandbox's `/proc` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcSource {
    /// A new procfs of its own pid namespace.
    New,
    /// The host's, since the kernel refuses a new one (a container whose own `/proc` is masked): no pid namespace
    /// either, for `/proc/self` would be wrong in one. The processes of a step are then found by their mount
    /// namespace and killed one by one.
    Host,
}

/// Where a sandbox's device nodes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSource {
    /// mknod(2).
    Make,
    /// Bound from the host's `/dev`, as a user namespace must.
    Bind,
}

/// Which ids exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdRange {
    /// Ids from 0 up to this many, at least.
    Many(u32),
    /// 0 only.
    Single,
}

/// The system call filters, ready to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters {
    /// Docker's default profile.
    pub default: Vec<FilterInstruction>,
    /// The same, with changes of ownership and identity faked.
    pub fake_ownership: Vec<FilterInstruction>,
    /// What is refused besides where the network is the host's, and capabilities count there.
    pub host_network: Vec<FilterInstruction>,
}

impl Filters {
    /// Builds all filters for the architecture that this program is compiled for.
    pub fn build() -> Self {
        Self {
            default: seccomp::filter(seccomp::Ownership::Real),
            fake_ownership: seccomp::filter(seccomp::Ownership::Fake),
            host_network: seccomp::host_network_filter(),
        }
    }
}

impl HostFacts {
    /// What root finds on an ordinary host.
    #[cfg(test)]
    pub(crate) fn of_a_roots_host() -> Self {
        Self {
            proc: ProcSource::New,
            devices: DeviceSource::Make,
            ids: IdRange::Many(u32::MAX),
            in_user_namespace: false,
            unified_cgroups: true,
            machine_masked_paths: Vec::new(),
            filters: Arc::new(Filters::build()),
        }
    }

    /// Asks the kernel. Call it after `userns::enter`: the answers are the user namespace's.
    pub fn gather() -> std::io::Result<Self> {
        let uid_map = std::fs::read_to_string("/proc/self/uid_map")?;
        let gid_map = std::fs::read_to_string("/proc/self/gid_map")?;
        let in_user_namespace = !is_initial_map(&uid_map);
        Ok(Self {
            proc: if new_proc_is_possible() { ProcSource::New } else { ProcSource::Host },
            devices: if in_user_namespace { DeviceSource::Bind } else { DeviceSource::Make },
            ids: id_range(&uid_map, &gid_map),
            in_user_namespace,
            unified_cgroups: std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            machine_masked_paths: thermal_throttle_paths(),
            filters: Arc::new(Filters::build()),
        })
    }
}

/// Whether a map is the initial user namespace's: all ids, unchanged.
pub(super) fn is_initial_map(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Returns how many ids from 0 on both maps have.
pub(super) fn id_range(uid_map: &str, gid_map: &str) -> IdRange {
    let count = |map: &str| {
        let mut extents: Vec<(u64, u64)> = map
            .lines()
            .filter_map(|line| {
                let mut numbers = line.split_whitespace().map(str::parse);
                match (numbers.next(), numbers.nth(1)) {
                    (Some(Ok(inside)), Some(Ok(length))) => Some((inside, length)),
                    _ => None,
                }
            })
            .collect();
        extents.sort_unstable();
        extents.iter().fold(0, |reached, (inside, length)| if *inside <= reached { reached.max(inside + length) } else { reached })
    };
    match count(uid_map).min(count(gid_map)) {
        0 | 1 => IdRange::Single,
        many => IdRange::Many(u32::try_from(many).unwrap_or(u32::MAX)),
    }
}

/// Whether a new procfs may be mounted: asked with this process's own pid namespace, to which the same rule
/// applies (fs/proc/root.c, `mount_too_revealing`): the existing `/proc` must be wholly visible.
///
/// A fsmount(2) is enough to know, and attaches nothing.
fn new_proc_is_possible() -> bool {
    let Ok(context) = sys::mount::open_file_system(c"proc") else { return false };
    let attributes = sys::mount::NO_SUID | sys::mount::NO_DEV | sys::mount::NO_EXEC;
    let mount = sys::mount::create_mount(context, attributes);
    sys::file::close(context);
    match mount {
        Ok(fd) => {
            sys::file::close(fd);
            true
        }
        // In a user namespace that does not own this pid namespace the answer is EPERM whatever `/proc` is like:
        // ask a child in a pid namespace of its own.
        Err(_) => super::spawn::probe_new_proc(),
    }
}

fn thermal_throttle_paths() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let mut paths: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("cpu")))
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .filter_map(|path| path.into_os_string().into_string().ok())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_ranges_count_what_both_maps_have_from_zero_on() {
        for (uids, gids, want) in [
            ("0 0 4294967295", "0 0 4294967295", IdRange::Many(u32::MAX)),
            ("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 65536", IdRange::Many(65537)),
            ("1 100000 65536\n0 1000 1", "0 1000 1\n1 100000 1000", IdRange::Many(1001)),
            ("0 1000 1\n5 100000 10", "0 1000 1", IdRange::Single),
            ("0 1000 1", "0 1000 1", IdRange::Single),
            ("", "", IdRange::Single),
        ] {
            assert_eq!(id_range(uids, gids), want, "{uids:?} {gids:?}");
        }
    }
}
