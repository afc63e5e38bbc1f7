//! The numbers of the system calls that the filter speaks of, by machine.
//!
//! Source: the kernel's `arch/x86/entry/syscalls/syscall_64.tbl`, `syscall_32.tbl` and
//! `include/uapi/asm-generic/unistd.h`. What is refused is what Docker's default profile does not allow to a
//! process with Docker's default capabilities (moby `profiles/seccomp`, 2026-08), less calls of i386 that are old
//! but harmless (`sigaction`, `nice`, …), which i386 programs use.

/// A system call's name and its numbers on x86_64, i386 and aarch64.
pub(super) type Row = (&'static str, u32, u32, u32);

/// The machine doesn't have it.
pub(super) const NONE: u32 = u32::MAX;

/// The last number that this table was made for, on every machine (they have been the same since 403):
/// `removexattrat` of Linux 6.13. What is above doesn't exist in the sandbox (`ENOSYS`), so that new calls are
/// refused until someone has looked at them, and programs take their older ways.
pub(super) const LAST_KNOWN: u32 = 466;

/// Refused with `EPERM`.
#[rustfmt::skip]
pub(super) const REFUSED: [Row; 76] = [
    // Mounts and namespaces.
    ("fsconfig", 431, 431, 431),
    ("fsmount", 432, 432, 432),
    ("fsopen", 430, 430, 430),
    ("fspick", 433, 433, 433),
    ("mount", 165, 21, 40),
    ("mount_setattr", 442, 442, 442),
    ("move_mount", 429, 429, 429),
    ("open_tree", 428, 428, 428),
    ("pivot_root", 155, 217, 41),
    ("quotactl", 179, 131, 60),
    ("quotactl_fd", 443, 443, 443),
    ("setdomainname", 171, 121, 162),
    ("sethostname", 170, 74, 161),
    ("setns", 308, 346, 268),
    ("swapoff", 168, 115, 225),
    ("swapon", 167, 87, 224),
    ("sysfs", 139, 135, NONE),
    ("umount", NONE, 22, NONE),
    ("umount2", 166, 52, 39),
    ("unshare", 272, 310, 97),
    ("ustat", 136, 62, NONE),
    // The kernel itself.
    ("_sysctl", 156, 149, NONE),
    ("acct", 163, 51, 89),
    ("afs_syscall", 183, 137, NONE),
    ("bdflush", NONE, 134, NONE),
    ("bpf", 321, 357, 280),
    ("create_module", 174, 127, NONE),
    ("delete_module", 176, 129, 106),
    ("finit_module", 313, 350, 273),
    ("get_kernel_syms", 177, 130, NONE),
    ("getpmsg", 181, 188, NONE),
    ("idle", NONE, 112, NONE),
    ("init_module", 175, 128, 105),
    ("ioperm", 173, 101, NONE),
    ("iopl", 172, 110, NONE),
    ("kexec_file_load", 320, NONE, 294),
    ("kexec_load", 246, 283, 104),
    ("lookup_dcookie", 212, 253, 18),
    ("lsm_get_self_attr", 459, 459, 459),
    ("lsm_list_modules", 461, 461, 461),
    ("lsm_set_self_attr", 460, 460, 460),
    ("nfsservctl", 180, 169, 42),
    ("perf_event_open", 298, 336, 241),
    ("putpmsg", 182, 189, NONE),
    ("query_module", 178, 167, NONE),
    ("reboot", 169, 88, 142),
    ("security", 185, NONE, NONE),
    ("syslog", 103, 103, 116),
    ("tuxcall", 184, NONE, NONE),
    ("uselib", 134, 86, NONE),
    ("vhangup", 153, 111, 58),
    ("vm86", NONE, 166, NONE),
    ("vm86old", NONE, 113, NONE),
    ("vserver", 236, 273, NONE),
    // Time, which is the host's.
    ("clock_settime", 227, 264, 112),
    ("clock_settime64", NONE, 404, 404),
    ("settimeofday", 164, 79, 170),
    ("stime", NONE, 25, NONE),
    // Keys, which no namespace holds.
    ("add_key", 248, 286, 217),
    ("keyctl", 250, 288, 219),
    ("request_key", 249, 287, 218),
    // Other processes and their memory.
    ("get_mempolicy", 239, 275, 236),
    ("kcmp", 312, 349, 272),
    ("mbind", 237, 274, 235),
    ("migrate_pages", 256, 294, 238),
    ("move_pages", 279, 317, 239),
    ("pidfd_getfd", 438, 438, 438),
    ("process_madvise", 440, 440, 440),
    ("set_mempolicy", 238, 276, 237),
    ("set_mempolicy_home_node", 450, 450, 450),
    ("userfaultfd", 323, 374, 282),
    // Files by handle, whole file systems.
    ("fanotify_init", 300, 338, 262),
    ("open_by_handle_at", 304, 342, 265),
    // Rings that pass the filter by.
    ("io_uring_enter", 426, 426, 426),
    ("io_uring_register", 427, 427, 427),
    ("io_uring_setup", 425, 425, 425),
];

/// Reported as done, when ownership is faked.
#[rustfmt::skip]
pub(super) const FAKED: [Row; 25] = [
    ("chown", 92, 182, NONE),
    ("chown32", NONE, 212, NONE),
    ("fchown", 93, 95, 55),
    ("fchown32", NONE, 207, NONE),
    ("fchownat", 260, 298, 54),
    ("lchown", 94, 16, NONE),
    ("lchown32", NONE, 198, NONE),
    ("setfsgid", 123, 139, 152),
    ("setfsgid32", NONE, 216, NONE),
    ("setfsuid", 122, 138, 151),
    ("setfsuid32", NONE, 215, NONE),
    ("setgid", 106, 46, 144),
    ("setgid32", NONE, 214, NONE),
    ("setgroups", 116, 81, 159),
    ("setgroups32", NONE, 206, NONE),
    ("setregid", 114, 71, 143),
    ("setregid32", NONE, 204, NONE),
    ("setresgid", 119, 170, 149),
    ("setresgid32", NONE, 210, NONE),
    ("setresuid", 117, 164, 147),
    ("setresuid32", NONE, 208, NONE),
    ("setreuid", 113, 70, 145),
    ("setreuid32", NONE, 203, NONE),
    ("setuid", 105, 23, 146),
    ("setuid32", NONE, 213, NONE),
];
