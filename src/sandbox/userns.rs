//! Becoming root of a user namespace, once, at the very start of the process.
//!
//! Afterwards an ordinary user's process does what root's does, by the same code: mounts, other owners, namespaces
//! for steps. It cannot be done later, for a process with threads may not enter a user namespace. A newcomer would
//! call newuidmap from here; it must come from *outside* the new namespace, hence the forked helper.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::process::{WaitId, WaitIdOptions};

use crate::sys;

use super::facts::{IdRange, id_range, is_initial_map};

/// Which ids are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdPolicy {
    /// Ranges where they exist, else the one id.
    BestAvailable,
    /// Ranges, or an error.
    RangesOnly,
    /// The one id, even where there are ranges.
    SingleOnly,
}

/// Who this process is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The host's root.
    Root,
    /// Root of a user namespace with ids from 0 up to `count`.
    Ranges {
        /// How many.
        count: u32,
    },
    /// Root of a user namespace in which no other id exists: owners cannot be kept.
    Single {
        /// Why there are no more, and what to do about it.
        reason: String,
    },
}

/// Why no user namespace could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cause {
    /// `user.max_user_namespaces` is 0.
    Disabled,
    /// Debian's `kernel.unprivileged_userns_clone` is 0.
    DisabledByDebian,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns` is 1, and no profile names this program.
    AppArmor,
    /// A filter of the container that this process runs in.
    OuterFilter,
    Unknown,
}

impl Cause {
    /// Says what is in the way and what to do, in one or two sentences.
    pub fn cure(self) -> &'static str {
        match self {
            Self::Disabled => "user namespaces are switched off on this host: `sysctl user.max_user_namespaces=10000` as root allows them",
            Self::DisabledByDebian => {
                "this host allows user namespaces to root only: `sysctl kernel.unprivileged_userns_clone=1` as root allows them to all"
            }
            Self::AppArmor => {
                "AppArmor allows user namespaces only to programs that have a profile: as root, write \
                 `abi <abi/4.0>, include <tunables/global> /usr/bin/ply flags=(unconfined) { userns, }` \
                 (with the path of this program) to /etc/apparmor.d/ply and run `apparmor_parser -r /etc/apparmor.d/ply`"
            }
            Self::OuterFilter => {
                "this process runs in a container whose system call filter refuses new namespaces: start that container with \
                 `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined`, \
                 or with `--privileged`"
            }
            Self::Unknown => "run as root, or ask whoever runs this host whether user namespaces are allowed",
        }
    }
}

/// A process that could not be given what a sandbox needs.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum UsernsError {
    #[error("entering a user namespace; {}", cause.cure())]
    Refused { cause: Cause, source: io::Error },
    #[error("entering a mount namespace; {}", cause.cure())]
    Mounts { cause: Cause, source: io::Error },
    #[error("entering a user namespace from a process with several threads")]
    Threads { source: io::Error },
    #[error("no id ranges for the user namespace: {reason}")]
    NoRanges { reason: String },
    #[error("{what}")]
    System { what: &'static str, source: io::Error },
}

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Makes this process able to start sandboxes: with a mount namespace of its own, and root of a user namespace
/// unless it has the power already. To be called first of all, while there is one thread.
///
/// Afterwards all mounts are private: none that this process makes is seen outside, and all end with it.
pub fn enter(policy: IdPolicy) -> Result<Identity, UsernsError> {
    let capabilities =
        sys::process::effective_capabilities().map_err(|errno| system("reading this process's capabilities", errno.into()))?;
    if rustix::process::geteuid().is_root() && capabilities & CAP_SYS_ADMIN != 0 {
        enter_mount_namespace()?;
        return present_identity();
    }
    let ranges = match policy {
        IdPolicy::SingleOnly => Err("only one id was asked for".to_string()),
        _ => Ranges::load(),
    };
    let identity = match (ranges, policy) {
        (Err(reason), IdPolicy::RangesOnly) => return Err(UsernsError::NoRanges { reason }),
        (Err(reason), _) => {
            enter_with_single_id()?;
            Identity::Single { reason }
        }
        (Ok(ranges), _) => match (enter_with_ranges(&ranges)?, policy) {
            (None, _) => Identity::Ranges { count: ranges.count() },
            (Some(reason), IdPolicy::RangesOnly) => return Err(UsernsError::NoRanges { reason }),
            (Some(reason), _) => {
                map_single_id(ranges.uid, ranges.gid)?;
                Identity::Single { reason }
            }
        },
    };
    make_mounts_private()?;
    Ok(identity)
}

fn system(what: &'static str, source: io::Error) -> UsernsError {
    UsernsError::System { what, source }
}

const NEW_MOUNTS: u64 = libc::CLONE_NEWNS as u64;
const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;

fn enter_mount_namespace() -> Result<(), UsernsError> {
    sys::process::unshare(NEW_MOUNTS).map_err(|errno| UsernsError::Mounts { cause: Refusal::gather().cause(), source: errno.into() })?;
    make_mounts_private()
}

fn make_mounts_private() -> Result<(), UsernsError> {
    sys::mount::make_all_private().map_err(|errno| match errno.0 {
        libc::EPERM | libc::EACCES | libc::ENOSYS => UsernsError::Mounts { cause: Refusal::gather().cause(), source: errno.into() },
        _ => system("making all mounts private", errno.into()),
    })
}

/// Root already: of the host, or of a namespace that someone else made.
fn present_identity() -> Result<Identity, UsernsError> {
    let read = |path| fs::read_to_string(path).map_err(|source| system("reading this process's id maps", source));
    let (uids, gids) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
    if is_initial_map(&uids) {
        return Ok(Identity::Root);
    }
    Ok(match id_range(&uids, &gids) {
        IdRange::Many(count) => Identity::Ranges { count },
        IdRange::Single => Identity::Single { reason: "the user namespace that this process was started in has one id".into() },
    })
}

fn unshare_user() -> Result<(), UsernsError> {
    sys::process::unshare(NEW_USER | NEW_MOUNTS).map_err(|errno| match errno.0 {
        libc::EINVAL => UsernsError::Threads { source: errno.into() },
        _ => UsernsError::Refused { cause: Refusal::gather().cause(), source: errno.into() },
    })
}

fn enter_with_single_id() -> Result<(), UsernsError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare_user()?;
    map_single_id(uid, gid)
}

fn map_single_id(uid: u32, gid: u32) -> Result<(), UsernsError> {
    // In this order, user_namespaces(7): without privilege outside, setgroups must be given up before gid_map.
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_string()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        // One write(2) for the whole map. AppArmor's refusal shows here, not at unshare.
        fs::write(path, text).map_err(|source| UsernsError::Refused { cause: Refusal::gather().cause(), source })?;
    }
    Ok(())
}

/// Enters, and has newuidmap and newgidmap map ranges, from a process that stays outside. Returns why they failed.
fn enter_with_ranges(ranges: &Ranges) -> Result<Option<String>, UsernsError> {
    let failed = |source| system("starting the helper that maps ids", source);
    let (mut wait_for_us, mut go) = io::pipe().map_err(failed)?;
    let (mut answer, mut answering) = io::pipe().map_err(failed)?;
    let pid = std::process::id();
    let (_, helper) = sys::process::fork_single_threaded(|| {
        // Or the read below would wait for ever when the parent dies, for this process holds both sides.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        // It may have died before that was asked for: then another process is the parent.
        if rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs()) != Some(pid) {
            return 1;
        }
        let asked = wait_for_us.read_exact(&mut [0]);
        if asked.is_ok()
            && let Err(reason) = ranges.map(pid)
        {
            let _ = answering.write_all(reason.as_bytes());
            return 1;
        }
        0
    })
    .map_err(failed)?;
    drop(answering);
    // The namespace is entered while the helper waits outside. When that fails, it ends with our side of the pipe.
    let mapped = unshare_user().and_then(|()| {
        go.write_all(&[0]).map_err(failed)?;
        let mut reason = String::new();
        answer.read_to_string(&mut reason).map_err(failed)?;
        Ok(reason)
    });
    if mapped.is_err() {
        let _ = rustix::process::pidfd_send_signal(&helper, rustix::process::Signal::KILL);
    }
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED));
    let reason = mapped?;
    Ok(Some(reason).filter(|reason| !reason.is_empty()))
}

/// The ids that the host grants to this user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ranges {
    uid: u32,
    gid: u32,
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
}

const NEWUIDMAP: &str = "/usr/bin/newuidmap";
const NEWGIDMAP: &str = "/usr/bin/newgidmap";

impl Ranges {
    /// Loads them, or says what is missing.
    fn load() -> Result<Self, String> {
        for program in [NEWUIDMAP, NEWGIDMAP] {
            if !std::path::Path::new(program).exists() {
                return Err(format!("{program} is not installed (Debian, Ubuntu: package uidmap)"));
            }
        }
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = user_name(&passwd, uid);
        let load = |path: &str| {
            let granted = granted(&fs::read_to_string(path).unwrap_or_default(), name, uid);
            if granted.is_empty() {
                let user = name.map_or_else(|| uid.to_string(), String::from);
                return Err(format!(
                    "{path} grants no ids to {user}: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` as root does"
                ));
            }
            Ok(granted)
        };
        Ok(Self { uid, gid, uids: load("/etc/subuid")?, gids: load("/etc/subgid")? })
    }

    /// How many ids from 0 on will exist, users and groups alike.
    fn count(&self) -> u32 {
        let sum = |ranges: &[(u32, u32)]| ranges.iter().fold(1_u32, |sum, (_, count)| sum.saturating_add(*count));
        sum(&self.uids).min(sum(&self.gids))
    }

    /// Maps them into the user namespace of process `pid`.
    fn map(&self, pid: u32) -> Result<(), String> {
        for (program, own, ranges) in [(NEWUIDMAP, self.uid, &self.uids), (NEWGIDMAP, self.gid, &self.gids)] {
            let output = Command::new(program)
                .arg(pid.to_string())
                .args(map_arguments(own, ranges))
                .env_clear()
                .stdin(Stdio::null())
                .output()
                .map_err(|error| format!("{program}: {error}"))?;
            if !output.status.success() {
                let mut text = format!("{program} failed");
                let _ = write!(text, ": {}", String::from_utf8_lossy(&output.stderr).trim());
                return Err(text);
            }
        }
        Ok(())
    }
}

/// `0 OWN 1`, then the ranges one after the other from 1 on.
fn map_arguments(own: u32, ranges: &[(u32, u32)]) -> Vec<String> {
    let mut arguments = vec!["0".into(), own.to_string(), "1".into()];
    let mut next = 1_u32;
    for (start, count) in ranges {
        arguments.extend([next.to_string(), start.to_string(), count.to_string()]);
        next = next.saturating_add(*count);
    }
    arguments
}

fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// Returns the ranges `(start, count)` of a user in the text of `/etc/subuid`, subuid(5).
fn granted(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let [who, start, count] = line.trim().split(':').collect::<Vec<_>>().try_into().ok()?;
            let range: (u32, u32) = (start.parse().ok()?, count.parse().ok()?);
            ((Some(who) == name || who == number) && range.1 > 0).then_some(range)
        })
        .collect()
}

/// What a host says that may be behind a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Refusal {
    max_is_zero: bool,
    debian_switch_is_off: bool,
    apparmor_restricts: bool,
    is_filtered: bool,
}

impl Refusal {
    pub(super) fn gather() -> Self {
        let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            max_is_zero: is("/proc/sys/user/max_user_namespaces", "0"),
            debian_switch_is_off: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            apparmor_restricts: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            is_filtered: status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])),
        }
    }

    /// Names the cause that is most likely: what forbids all comes before what forbids some.
    pub(super) fn cause(self) -> Cause {
        match self {
            Self { max_is_zero: true, .. } => Cause::Disabled,
            Self { debian_switch_is_off: true, .. } => Cause::DisabledByDebian,
            Self { is_filtered: true, .. } => Cause::OuterFilter,
            Self { apparmor_restricts: true, .. } => Cause::AppArmor,
            _ => Cause::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "root:1:2\nrl:200000:65536\n# x\nrl:x:1\n1000:300000:10\nother:5:5\nrl:400000:0\n";
        assert_eq!(granted(text, Some("rl"), 1000), [(200_000, 65536), (300_000, 10)]);
        assert_eq!(granted(text, None, 1000), [(300_000, 10)]);
        assert_eq!(granted(text, Some("nobody"), 7), []);
    }

    #[test]
    fn the_own_id_is_root_and_ranges_follow_from_one_on() {
        assert_eq!(map_arguments(1000, &[(200_000, 65536), (300_000, 10)]).join(" "), "0 1000 1 1 200000 65536 65537 300000 10");
        let ranges = Ranges { uid: 7, gid: 7, uids: vec![(1, 65535)], gids: vec![(1, 10), (20, 5)] };
        assert_eq!(ranges.count(), 16);
    }

    #[test]
    fn names_come_from_the_third_field() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbad\n7:x:8:0::/:/x\nrl:x:1000:1000::/home/rl:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("rl"));
        assert_eq!(user_name(passwd, 8), Some("7"));
        assert_eq!(user_name(passwd, 7), None);
    }

    #[test]
    fn a_refusal_is_explained_by_what_forbids_most() {
        let none = Refusal::default();
        for (refusal, want) in [
            (none, Cause::Unknown),
            (Refusal { apparmor_restricts: true, ..none }, Cause::AppArmor),
            (Refusal { apparmor_restricts: true, is_filtered: true, ..none }, Cause::OuterFilter),
            (Refusal { max_is_zero: true, is_filtered: true, ..none }, Cause::Disabled),
            (Refusal { debian_switch_is_off: true, apparmor_restricts: true, ..none }, Cause::DisabledByDebian),
        ] {
            assert_eq!(refusal.cause(), want);
        }
    }
}
