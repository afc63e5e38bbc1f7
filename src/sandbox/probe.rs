//! What this host allows, for people: `ply doctor`, and the level of isolation that a build tells once.
//!
//! Everything is tried, nothing is derived from version numbers. `facts` asks the same kernel for what changes a
//! sandbox's program; this page words it, and adds what concerns the store.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};

use crate::sys;

use super::facts::{HostFacts, IdRange, ProcSource};
use super::userns::Identity;

/// What this host allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// Who this process is.
    pub identity: Identity,
    /// Whether a sandbox gets a procfs, and so a pid namespace, of its own.
    pub own_proc: bool,
    /// Whether the kernel filters system calls.
    pub seccomp: bool,
    /// Which cgroups there are.
    pub cgroups: Cgroups,
    /// Whether the store can hold overlay's upper directories; else the kernel's answer.
    pub overlay: Result<(), String>,
    /// The type of the file system that the store lies on.
    pub store_file_system: String,
    /// A program that connects a network namespace without privilege, where there is one.
    pub network_helper: Option<PathBuf>,
    /// What a step is kept from.
    pub isolation: Isolation,
}

/// Which cgroups a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// The unified hierarchy.
    V2,
    /// One hierarchy a controller.
    V1,
    /// None mounted.
    None,
}

/// How well a step is kept from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// As DESIGN says: all namespaces, capabilities, filter.
    Full,
    /// With these gaps, a sentence each.
    Reduced(Vec<String>),
}

impl Isolation {
    /// Derives the level from what the host allows.
    pub fn derive(host: &HostFacts, has_seccomp: bool) -> Self {
        let mut gaps = Vec::new();
        if host.proc == ProcSource::Host {
            gaps.push(
                "steps see the host's processes, for the kernel refuses a new /proc: \
                 start the surrounding container with `--security-opt systempaths=unconfined`"
                    .to_string(),
            );
        }
        if !has_seccomp {
            gaps.push("steps may make any system call, for the kernel has no seccomp filters".to_string());
        }
        if gaps.is_empty() { Self::Full } else { Self::Reduced(gaps) }
    }
}

/// Asks the kernel; call it after [`super::userns::enter`]. `store` must exist: overlay is tried in it.
pub fn gather(identity: Identity, host: &HostFacts, store: &Path) -> io::Result<Report> {
    let seccomp = sys::process::has_seccomp_filters();
    Ok(Report {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        identity,
        own_proc: host.proc == ProcSource::New,
        seccomp,
        cgroups: cgroups(host),
        overlay: try_overlay(store, host).map_err(|error| error.to_string()),
        store_file_system: file_system_name(store)?,
        network_helper: network_helper(),
        isolation: Isolation::derive(host, seccomp),
    })
}

fn cgroups(host: &HostFacts) -> Cgroups {
    if host.unified_cgroups {
        return Cgroups::V2;
    }
    let some = fs::read_dir("/sys/fs/cgroup").is_ok_and(|mut entries| entries.next().is_some());
    if some { Cgroups::V1 } else { Cgroups::None }
}

/// Mounts an overlay whose directories lie in `store`, attached nowhere, and throws it away.
pub fn try_overlay(store: &Path, host: &HostFacts) -> io::Result<()> {
    let directory = tempfile::Builder::new().prefix("probe-").tempdir_in(store)?;
    for name in ["lower", "upper", "work"] {
        fs::create_dir(directory.path().join(name))?;
    }
    let mount = overlay(directory.path(), host.in_user_namespace);
    drop(mount?);
    directory.close()
}

fn overlay(directory: &Path, in_user_namespace: bool) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        fsconfig_set_string(context.as_fd(), key, directory.join(name))?;
    }
    if in_user_namespace {
        // Without it the mount succeeds, and replacing a lower directory fails with EIO later.
        fsconfig_set_flag(context.as_fd(), "userxattr")?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Returns the name of the file system that `path` lies on, by statfs(2)'s number.
fn file_system_name(path: &Path) -> io::Result<String> {
    #[allow(clippy::unnecessary_cast)] // the field's type differs between C libraries
    let magic = rustix::fs::statfs(path)?.f_type as u64;
    // include/uapi/linux/magic.h
    let known = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlay"),
        (0x2fc1_2fc1, "zfs"),
        (0xf2f5_2010, "f2fs"),
        (0x6969, "nfs"),
        (0x6573_5546, "fuse"),
        (0x0102_1997, "9p"),
        (0x4d44, "vfat"),
    ];
    let name = known.iter().find(|(number, _)| *number == magic & 0xffff_ffff).map(|(_, name)| (*name).to_string());
    Ok(name.unwrap_or_else(|| format!("{magic:#x}")))
}

fn network_helper() -> Option<PathBuf> {
    // Absolute, not from PATH: CVE-2025-15558.
    ["/usr/bin/pasta", "/usr/bin/slirp4netns"].into_iter().map(PathBuf::from).find(|path| path.exists())
}

/// One fact a line, aligned: what `ply doctor` shows.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "kernel            {}", self.kernel)?;
        match &self.identity {
            Identity::Root => writeln!(f, "identity          root of this host")?,
            Identity::Ranges { count } => writeln!(f, "identity          user namespace with {count} ids")?,
            Identity::Single { reason } => {
                writeln!(f, "identity          user namespace with one id: file owners are not kept, changes of owner are faked")?;
                writeln!(f, "                  {reason}")?;
            }
        }
        writeln!(f, "processes         {}", if self.own_proc { "own pid namespace and /proc" } else { "the host's" })?;
        writeln!(f, "system calls      {}", if self.seccomp { "filtered (seccomp)" } else { "not filtered: the kernel cannot" })?;
        let cgroups = match self.cgroups {
            Cgroups::V2 => "version 2",
            Cgroups::V1 => "version 1",
            Cgroups::None => "none",
        };
        writeln!(f, "cgroups           {cgroups}")?;
        match &self.overlay {
            Ok(()) => writeln!(f, "snapshots         overlay, on {}", self.store_file_system)?,
            Err(reason) => writeln!(f, "snapshots         copies: the kernel refuses overlay on {} ({reason})", self.store_file_system)?,
        }
        match &self.network_helper {
            Some(path) => writeln!(f, "network helper    {}", path.display())?,
            None => writeln!(f, "network helper    none")?,
        }
        match &self.isolation {
            Isolation::Full => writeln!(f, "isolation         full"),
            Isolation::Reduced(gaps) => {
                writeln!(f, "isolation         reduced")?;
                gaps.iter().try_for_each(|gap| writeln!(f, "                  {gap}"))
            }
        }
    }
}

/// Whether ownership has to be faked in a namespace with these ids.
pub fn needs_fake_ownership(host: &HostFacts) -> bool {
    host.ids == IdRange::Single
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(proc: ProcSource) -> HostFacts {
        HostFacts { proc, ..HostFacts::of_a_roots_host() }
    }

    #[test]
    fn every_gap_is_told() {
        assert_eq!(Isolation::derive(&host(ProcSource::New), true), Isolation::Full);
        let Isolation::Reduced(gaps) = Isolation::derive(&host(ProcSource::Host), false) else { panic!("not reduced") };
        let subjects: Vec<_> = gaps.iter().map(|gap| gap.split(", for").next().unwrap()).collect();
        assert_eq!(subjects, ["steps see the host's processes", "steps may make any system call"]);
    }

    #[test]
    fn a_report_is_one_fact_a_line() {
        let report = Report {
            kernel: "6.1".into(),
            identity: Identity::Single { reason: "because".into() },
            own_proc: true,
            seccomp: true,
            cgroups: Cgroups::V2,
            overlay: Err("no".into()),
            store_file_system: "overlay".into(),
            network_helper: None,
            isolation: Isolation::Full,
        };
        let want = "\
kernel            6.1
identity          user namespace with one id: file owners are not kept, changes of owner are faked
                  because
processes         own pid namespace and /proc
system calls      filtered (seccomp)
cgroups           version 2
snapshots         copies: the kernel refuses overlay on overlay (no)
network helper    none
isolation         full
";
        assert_eq!(report.to_string(), want);
    }

    #[test]
    fn privileged_overlay_is_tried_and_leaves_nothing() {
        let store = tempfile::tempdir().unwrap();
        let possible = try_overlay(store.path(), &host(ProcSource::New)).is_ok();
        assert!(possible || !rustix::process::geteuid().is_root() || file_system_name(store.path()).unwrap() == "overlay");
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
    }
}
