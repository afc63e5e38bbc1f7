//! What a sandbox is like unless told otherwise: Docker's choices, as data.
//!
//! Sources: moby `daemon/pkg/oci` (capabilities, masked and read-only paths, mounts), OCI runtime specification
//! `config-linux.md` (default devices and links). A newcomer would look for the system call filter here; it is in
//! `seccomp`.

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
/// AUDIT_WRITE, SETFCAP: Docker's 14, by their bits in capability(7).
pub const CAPABILITIES: u64 = 0xa804_25fb;

/// Every capability that the kernel may have.
pub const ALL_CAPABILITIES: u64 = u64::MAX;

/// Size of `/dev/shm`.
pub const SHM_SIZE_BYTES: u64 = 64 << 20;

/// `PATH` of a process whose environment has none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths that look empty. Those that the kernel doesn't have are passed over.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that cannot be written. Those that the kernel doesn't have are passed over.
pub const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Device nodes: name, major, minor (Documentation/admin-guide/devices.txt). All have mode 0666.
pub const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Symbolic links in `/dev`: name, target.
pub const DEVICE_LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// The group that owns terminals in most distributions.
pub const TTY_GROUP: u32 = 5;
