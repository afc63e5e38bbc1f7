//! The filter, run by a small BPF machine written for this purpose.

use super::*;

fn run(code: &[FilterInstruction], audit: u32, number: u32, arguments: [u64; 3]) -> String {
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let FilterInstruction { code: operation, jt, jf, k } = code[at];
        at += 1;
        let mut branch = |taken: bool| at += usize::from(if taken { jt } else { jf });
        match operation {
            bpf::LOAD => {
                accumulator = match k {
                    bpf::NUMBER_AT => number,
                    bpf::MACHINE_AT => audit,
                    low if low % 8 == 0 => (arguments[(low as usize - 16) / 8] & 0xffff_ffff) as u32,
                    _ => panic!("load at {k}"),
                }
            }
            bpf::AND => accumulator &= k,
            bpf::JUMP => at += k as usize,
            bpf::JUMP_EQUAL => branch(accumulator == k),
            bpf::JUMP_AT_LEAST => branch(accumulator >= k),
            bpf::JUMP_ANY_BIT => branch(accumulator & k != 0),
            bpf::RETURN if k == 0x7fff_0000 => return "allow".into(),
            bpf::RETURN if k & 0xffff_0000 == 0x0005_0000 => {
                return match i32::try_from(k & 0xffff).unwrap() {
                    0 => "done".into(),
                    libc::EPERM => "refused".into(),
                    libc::ENOSYS => "absent".into(),
                    other => panic!("errno {other}"),
                };
            }
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn all_machines(ownership: Ownership) -> Vec<FilterInstruction> {
    assemble(&[(AUDIT_X86_64, Machine::X86_64), (AUDIT_I386, Machine::I386), (AUDIT_AARCH64, Machine::Aarch64)], ownership)
}

#[test]
fn on_the_hosts_network_nothing_can_be_listened_to() {
    let code = host_network(&[(AUDIT_X86_64, Machine::X86_64), (AUDIT_I386, Machine::I386), (AUDIT_AARCH64, Machine::Aarch64)]);
    let flags = 0o2_004_000; // SOCK_CLOEXEC | SOCK_NONBLOCK
    for (what, arguments, want) in [
        ("TCP", [2, 1 | flags, 6], "allow"),
        ("UDP over IPv6", [10, 2, 0], "allow"),
        ("ping", [2, 3 | flags, 1], "allow"),
        ("ping over IPv6", [10, 3, 58], "allow"),
        ("netlink", [16, 3, 0], "allow"),
        ("unix", [1, 1, 0], "allow"),
        ("raw TCP", [2, 3, 6], "refused"),
        ("raw TCP with flags", [2, 3 | flags, 6], "refused"),
        ("raw UDP over IPv6", [10, 3, 17], "refused"),
        ("any protocol", [2, 3, 255], "refused"),
        ("packets", [17, 2, 0], "refused"),
        ("packets, upper half set", [17 | 1 << 32, 3, 0], "refused"),
        ("raw TCP, upper halves set", [2 | 1 << 32, 3 | 1 << 32, 6 | 1 << 32], "refused"),
        ("XDP", [44, 3, 0], "refused"),
    ] {
        for (audit, number) in [(AUDIT_X86_64, 41), (AUDIT_I386, 359), (AUDIT_AARCH64, 198)] {
            assert_eq!(run(&code, audit, number, arguments), want, "{what} {audit:x}");
            assert_eq!(run(&code, audit, number + 1, arguments), "allow", "{what} {audit:x}");
        }
    }
}

#[test]
fn calls_are_decided_by_number_and_arguments_on_every_machine() {
    let code = all_machines(Ownership::Real);
    for (what, audit, number, arguments, want) in [
        ("read", AUDIT_X86_64, 0, [0, 0, 0], "allow"),
        ("chown", AUDIT_X86_64, 92, [0, 0, 0], "allow"),
        ("execve", AUDIT_X86_64, 59, [0, 0, 0], "allow"),
        ("chroot", AUDIT_X86_64, 161, [0, 0, 0], "allow"),
        ("ptrace", AUDIT_X86_64, 101, [0, 0, 0], "allow"),
        ("setxattrat", AUDIT_X86_64, 463, [0, 0, 0], "allow"),
        ("open_tree_attr", AUDIT_X86_64, 467, [0, 0, 0], "absent"),
        ("mount", AUDIT_X86_64, 165, [0, 0, 0], "refused"),
        ("keyctl", AUDIT_X86_64, 250, [0, 0, 0], "refused"),
        ("keyctl by int 0x80", AUDIT_I386, 288, [0, 0, 0], "refused"),
        ("i386 write", AUDIT_I386, 4, [0, 0, 0], "allow"),
        ("i386 umount", AUDIT_I386, 22, [0, 0, 0], "refused"),
        ("x32 read", AUDIT_X86_64, X32_BIT, [0, 0, 0], "absent"),
        ("x32 ptrace", AUDIT_X86_64, X32_BIT + 521, [0, 0, 0], "absent"),
        ("plain fork", AUDIT_X86_64, 56, [0x0120_0011, 0, 0], "allow"),
        ("new user namespace", AUDIT_X86_64, 56, [0x1000_0000, 0, 0], "refused"),
        ("new mount namespace, i386", AUDIT_I386, 120, [0x0002_0000, 0, 0], "refused"),
        ("clone3", AUDIT_X86_64, 435, [0, 0, 0], "absent"),
        ("inet socket", AUDIT_X86_64, 41, [2, 0, 0], "allow"),
        ("socket of family 39", AUDIT_X86_64, 41, [39, 0, 0], "allow"),
        ("AF_ALG", AUDIT_X86_64, 41, [38, 0, 0], "refused"),
        ("AF_VSOCK", AUDIT_X86_64, 41, [40, 0, 0], "refused"),
        ("AF_ALG with high bits", AUDIT_X86_64, 41, [38 | 1 << 32, 0, 0], "refused"),
        ("AF_VSOCK on aarch64", AUDIT_AARCH64, 198, [40, 0, 0], "refused"),
        ("socketcall(SYS_SOCKET)", AUDIT_I386, 102, [1, 0, 0], "refused"),
        ("socketcall(SYS_CONNECT)", AUDIT_I386, 102, [3, 0, 0], "allow"),
        ("personality to ask", AUDIT_X86_64, 135, [0xffff_ffff, 0, 0], "allow"),
        ("personality linux32", AUDIT_X86_64, 135, [8, 0, 0], "allow"),
        ("personality without randomisation", AUDIT_X86_64, 135, [0x0004_0000, 0, 0], "refused"),
        ("TIOCSTI", AUDIT_X86_64, 16, [0, 0x5412, 0], "refused"),
        ("TIOCSTI with high bits", AUDIT_X86_64, 16, [0, 0x5412 | 1 << 40, 0], "refused"),
        ("TIOCGWINSZ", AUDIT_X86_64, 16, [0, 0x5413, 0], "allow"),
        ("setns on aarch64", AUDIT_AARCH64, 268, [0, 0, 0], "refused"),
        ("openat on aarch64", AUDIT_AARCH64, 56, [0, 0, 0], "allow"),
        ("io_uring_setup", AUDIT_AARCH64, 425, [0, 0, 0], "refused"),
        ("32-bit arm", 0x4000_0028, 1, [0, 0, 0], "absent"),
    ] {
        assert_eq!(run(&code, audit, number, arguments), want, "{what}");
    }
}

#[test]
fn faking_ownership_changes_ownership_calls_only() {
    let (real, fake) = (all_machines(Ownership::Real), all_machines(Ownership::Fake));
    let mut changed = Vec::new();
    for number in 0..=LAST_KNOWN + 1 {
        if run(&real, AUDIT_X86_64, number, [0; 3]) != run(&fake, AUDIT_X86_64, number, [0; 3]) {
            assert_eq!(run(&fake, AUDIT_X86_64, number, [0; 3]), "done");
            changed.push(number);
        }
    }
    assert_eq!(changed, [92, 93, 94, 105, 106, 113, 114, 116, 117, 119, 122, 123, 260]);
    for (what, mode, want) in [("device", 0o020_666, "done"), ("block device", 0o060_600, "done"), ("fifo", 0o010_644, "allow")] {
        assert_eq!(run(&fake, AUDIT_X86_64, 259, [0, 0, mode]), want, "{what}");
        assert_eq!(run(&fake, AUDIT_I386, 14, [0, mode, 0]), want, "{what}");
        assert_eq!(run(&real, AUDIT_X86_64, 259, [0, 0, mode]), "allow", "{what}");
    }
}

#[test]
fn every_number_of_the_table_is_decided_as_the_table_says() {
    let code = all_machines(Ownership::Fake);
    for (rows, want) in [(&REFUSED[..], "refused"), (&FAKED[..], "done")] {
        for row in rows {
            for (audit, machine) in [(AUDIT_X86_64, Machine::X86_64), (AUDIT_I386, Machine::I386), (AUDIT_AARCH64, Machine::Aarch64)] {
                if number(row, machine) != NONE {
                    assert_eq!(run(&code, audit, number(row, machine), [0; 3]), want, "{} on {machine:?}", row.0);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_numbers_are_those_of_the_c_library() {
    let number = |name: &str| {
        let row = REFUSED.iter().chain(&FAKED).find(|row| row.0 == name);
        libc::c_long::from(row.unwrap_or_else(|| panic!("no row {name}")).1)
    };
    for (name, want) in [
        ("mount", libc::SYS_mount),
        ("setns", libc::SYS_setns),
        ("unshare", libc::SYS_unshare),
        ("bpf", libc::SYS_bpf),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("move_mount", libc::SYS_move_mount),
        ("setgroups", libc::SYS_setgroups),
        ("fchownat", libc::SYS_fchownat),
    ] {
        assert_eq!(number(name), want, "{name}");
    }
}
