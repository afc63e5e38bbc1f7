//! What a caller asks of the sandbox: plain values and the descriptors of what is mounted.
//!
//! Not here: how it is done (`compile`), or what the host allows (`facts`). Paths are strings as the process will
//! see them, resolved by the kernel inside the root; no path here is ever opened on the host, except
//! [`RootMount::Directory`].

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::facts::HostFacts;
use super::terminal::TerminalSide;

/// A process to be run in namespaces of its own.
#[derive(Debug)]
pub struct SandboxSpec {
    /// Its root file system.
    pub root: RootMount,
    /// Whether the root is mounted read-only (`/dev`, `/dev/shm` and `mounts` are not concerned).
    pub readonly_root: bool,
    /// What is mounted into the root, in this order, after `/proc`, `/sys` and `/dev`.
    pub mounts: Vec<MountSpec>,
    /// The command and its arguments; a command without `/` is looked up in `env`'s `PATH`.
    pub argv: Vec<OsString>,
    /// Its whole environment, in order.
    pub env: Vec<(String, String)>,
    /// Its working directory, absolute; made (mode 0755) where it is missing.
    pub cwd: String,
    /// Who it runs as.
    pub user: UserIds,
    /// Its host name.
    pub hostname: String,
    /// Its network.
    pub network: Network,
    /// Its terminal: becomes controlling terminal and `/dev/console`.
    pub terminal: Option<TerminalSide>,
    /// `--security=insecure`: all capabilities, no system call filter, nothing masked or read-only.
    pub insecure: bool,
    /// Whether set-user-id programs gain nothing. Docker's default is off.
    pub no_new_privs: bool,
    /// Changing owners, making devices and changing identity report success and do nothing.
    /// For user namespaces with a single id: package managers insist on calls that cannot work there.
    pub fake_ownership: bool,
    /// Size of `/dev/shm`; see [`super::defaults::SHM_SIZE_BYTES`].
    pub shm_size_bytes: u64,
    /// Limits to be set; all others are inherited.
    pub rlimits: Vec<Rlimit>,
    /// What the host allows; gathered once for all sandboxes.
    pub host: HostFacts,
}

/// A root file system.
#[derive(Debug)]
pub enum RootMount {
    /// A mount that is attached nowhere (fsmount(2), open_tree(2)). Used up: it can serve one sandbox only.
    Detached(OwnedFd),
    /// A directory of the host. Mounts below it are not seen.
    Directory(PathBuf),
}

/// Something mounted into the root.
#[derive(Debug)]
pub struct MountSpec {
    /// Where, absolute. Must exist (see [`super::stubs`]) or lie in an earlier mount, where it is made.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// Cannot be written through.
    pub readonly: bool,
    /// Set-user-id bits don't count.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

impl MountSpec {
    /// A mount without restrictions.
    pub fn new(target: impl Into<String>, source: MountSource) -> Self {
        Self { target: target.into(), source, readonly: false, nosuid: false, nodev: false, noexec: false }
    }

    /// The same, read-only.
    #[must_use]
    pub fn readonly(self) -> Self {
        Self { readonly: true, ..self }
    }

    /// The same, without set-user-id and devices.
    #[must_use]
    pub fn plain_files(self) -> Self {
        Self { nosuid: true, nodev: true, ..self }
    }
}

/// What is mounted.
#[derive(Debug)]
pub enum MountSource {
    /// The file or directory that this descriptor is open on (`O_PATH` is enough), with the mounts below it
    /// when `recursive`.
    Bind {
        /// The file or directory.
        source: OwnedFd,
        /// Whether the mounts below it come with it.
        recursive: bool,
    },
    /// A mount that is attached nowhere. Used up.
    Detached(OwnedFd),
    /// A new, empty file system in memory.
    Tmpfs {
        /// Its size; none: the kernel's default, half of the memory.
        size_bytes: Option<u64>,
        /// Mode of its root.
        mode: u32,
    },
    /// A file with this content, kept in memory only.
    File {
        /// What it holds.
        content: Vec<u8>,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// A process's identity, in the numbers of the image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct UserIds {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, exactly.
    pub groups: Vec<u32>,
}

/// A process's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's.
    Host,
    /// A loopback interface of its own and nothing else.
    None,
}

/// A limit to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`; see [`Rlimit::resource_of`].
    pub resource: u32,
    /// The limit that counts; `u64::MAX`: none.
    pub soft: u64,
    /// How far the process may raise it. Lowered to the inherited one where raising is not permitted.
    pub hard: u64,
}

impl Rlimit {
    /// Returns the `RLIMIT_*` number of docker's `--ulimit` name.
    pub fn resource_of(name: &str) -> Option<u32> {
        // asm-generic/resource.h; the same on x86_64 and aarch64.
        let names = [
            "cpu",
            "fsize",
            "data",
            "stack",
            "core",
            "rss",
            "nproc",
            "nofile",
            "memlock",
            "as",
            "locks",
            "sigpending",
            "msgqueue",
            "nice",
            "rtprio",
            "rttime",
        ];
        names.iter().position(|known| *known == name).and_then(|number| u32::try_from(number).ok())
    }
}

/// What a mount point has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shape {
    Directory,
    File,
}

impl MountSpec {
    /// Returns what the mount point has to be, by looking at the source.
    pub fn shape(&self) -> std::io::Result<Shape> {
        let fd = match &self.source {
            MountSource::Tmpfs { .. } => return Ok(Shape::Directory),
            MountSource::File { .. } => return Ok(Shape::File),
            MountSource::Bind { source, .. } | MountSource::Detached(source) => source,
        };
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
        Ok(if kind.is_dir() { Shape::Directory } else { Shape::File })
    }
}

/// Whether `path` is `prefix` or lies below it; both absolute, without `.`, `..` or doubled slashes.
pub(super) fn is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
