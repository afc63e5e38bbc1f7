//! Which system calls a step may make: Docker's default profile, as a BPF filter. Pure.
//!
//! Docker's profile is a list of what is allowed; ours says what is refused below [`table::LAST_KNOWN`], and refuses
//! all above: the same set, since the numbers in between are all known. Every machine that the kernel lets a
//! process speak is covered, or a program could take the other door: on x86_64 that is i386 (`int 0x80`) and x32;
//! the 32-bit entry of aarch64 is closed. Stricter than Docker on purpose: `socketcall` may not make sockets (it
//! would pass the family check by), and keystrokes cannot be pushed into a terminal (CVE-2017-5226).
//!
//! A newcomer would expect that arguments are compared in full: the kernel reads an `int` from the lower half,
//! so comparing 64 bits would let `family | 1 << 32` pass.

mod bpf;
mod table;

use crate::sys::process::FilterInstruction;

use bpf::{Decision, Span, Test, Verdict};
use table::{FAKED, LAST_KNOWN, NONE, REFUSED, Row};

/// Whether calls that change ownership or identity take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// They do.
    Real,
    /// They report success and do nothing: for a user namespace with a single id, in which they cannot work.
    Fake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    X86_64,
    I386,
    Aarch64,
}

// include/uapi/linux/audit.h: ELF machine, 64 bits, little endian.
const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
/// Marks an x32 call's number, arch/x86/include/uapi/asm/unistd.h. Above [`LAST_KNOWN`], so refused with the rest.
#[cfg(test)]
const X32_BIT: u32 = 0x4000_0000;

const REFUSE: Verdict = Verdict::Errno(libc::EPERM);
/// "No such call": libraries then take their older way (clone3 → clone).
const ABSENT: Verdict = Verdict::Errno(libc::ENOSYS);
const DONE: Verdict = Verdict::Errno(0);

/// Flags of clone(2) that make namespaces.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// AF_ALG, whose page cache writes reach files that layers share (CVE-2026-31431), and AF_VSOCK, which reaches the
/// hypervisor.
const FAMILIES: &[u32] = &[38, 40];
/// PER_LINUX, PER_LINUX32, each also with UNAME26, and "only ask".
const PERSONALITIES: &[u32] = &[0, 8, 0x2_0000, 0x2_0008, u32::MAX];
/// TIOCSTI and TIOCLINUX.
const KEYSTROKES: &[u32] = &[0x5412, 0x541c];
const SOCKET: Row = ("socket", 41, 359, 198);
/// SYS_SOCKET, the only call of socketcall(2) that makes a socket of a family.
const SOCKETCALL_SOCKET: &[u32] = &[1];
/// S_IFCHR, S_IFBLK.
const DEVICE_TYPES: &[u32] = &[0o020_000, 0o060_000];
const TYPE_MASK: u32 = 0o170_000;

/// AF_PACKET, AF_CAN, AF_BLUETOOTH, AF_XDP: what is below the protocols of a network.
const BELOW_PROTOCOLS: &[u32] = &[17, 29, 31, 44];
/// Raw sockets of AF_INET and AF_INET6, which see what others receive; but for ICMP and ICMPv6, which `ping` needs.
const RAW: &[Test] = &[
    Test { number: 0, mask: u32::MAX, values: &[2, 10], among: true },
    // The upper bits are flags, include/linux/net.h.
    Test { number: 1, mask: 0xf, values: &[3], among: true },
    Test { number: 2, mask: u32::MAX, values: &[1, 58], among: false },
];
const LISTENING: Decision = Decision::Cases {
    cases: &[(&[Test { number: 0, mask: u32::MAX, values: BELOW_PROTOCOLS, among: true }], REFUSE), (RAW, REFUSE)],
    otherwise: Verdict::Allow,
};

/// Returns a filter to be loaded beside the other: CAP_NET_RAW counts on the host's network, where root's processes could read
/// and forge what others say. Docker's steps have that capability too, in a network of their own.
pub fn host_network_filter() -> Vec<FilterInstruction> {
    host_network(&machines())
}

fn host_network(machines: &[(u32, Machine)]) -> Vec<FilterInstruction> {
    let allow = Decision::Always(Verdict::Allow);
    assemble_each(machines, |machine| bpf::spans(vec![(number(&SOCKET, machine), LISTENING)], allow, LAST_KNOWN, allow))
}

/// Returns the filter for the machine that this program is compiled for, and those that it can also run.
pub fn filter(ownership: Ownership) -> Vec<FilterInstruction> {
    assemble(&machines(), ownership)
}

fn machines() -> Vec<(u32, Machine)> {
    if cfg!(target_arch = "aarch64") {
        vec![(AUDIT_AARCH64, Machine::Aarch64)]
    } else {
        vec![(AUDIT_X86_64, Machine::X86_64), (AUDIT_I386, Machine::I386)]
    }
}

fn assemble(machines: &[(u32, Machine)], ownership: Ownership) -> Vec<FilterInstruction> {
    let (allow, absent) = (Decision::Always(Verdict::Allow), Decision::Always(ABSENT));
    assemble_each(machines, |machine| bpf::spans(decisions(machine, ownership), allow, LAST_KNOWN, absent))
}

fn assemble_each(machines: &[(u32, Machine)], spans: impl Fn(Machine) -> Vec<Span>) -> Vec<FilterInstruction> {
    let mut code = Vec::new();
    for (audit, machine) in machines {
        let search = bpf::search(&spans(*machine));
        // A machine's code is too long to be jumped over with a condition: enter it, or go on after one jump.
        code.extend([bpf::load(bpf::MACHINE_AT), bpf::unless_equal_skip(*audit, 1)]);
        code.push(bpf::skip(1));
        code.push(bpf::skip(search.len() + 1));
        code.push(bpf::load(bpf::NUMBER_AT));
        code.extend(search);
    }
    code.push(bpf::verdict(ABSENT));
    code
}

fn decisions(machine: Machine, ownership: Ownership) -> Vec<(u32, Decision)> {
    let mut decisions = checked(machine, ownership);
    let rows = |rows: &[Row], verdict: Verdict| {
        let numbers = rows.iter().map(|row| number(row, machine)).filter(|number| *number != NONE);
        numbers.map(|number| (number, Decision::Always(verdict))).collect::<Vec<_>>()
    };
    decisions.extend(rows(&REFUSED, REFUSE));
    if ownership == Ownership::Fake {
        decisions.extend(rows(&FAKED, DONE));
    }
    decisions
}

fn number(row: &Row, machine: Machine) -> u32 {
    match machine {
        Machine::X86_64 => row.1,
        Machine::I386 => row.2,
        Machine::Aarch64 => row.3,
    }
}

/// The calls whose arguments count.
fn checked(machine: Machine, ownership: Ownership) -> Vec<(u32, Decision)> {
    let forbid = |number, values| Decision::Argument { number, mask: u32::MAX, values, when_among: REFUSE, otherwise: Verdict::Allow };
    let personality =
        Decision::Argument { number: 0, mask: u32::MAX, values: PERSONALITIES, when_among: Verdict::Allow, otherwise: REFUSE };
    let device = |number| Decision::Argument { number, mask: TYPE_MASK, values: DEVICE_TYPES, when_among: DONE, otherwise: Verdict::Allow };
    let clone = Decision::AnyBit { number: 0, mask: CLONE_NAMESPACES, when_set: REFUSE, otherwise: Verdict::Allow };
    let mut rows: Vec<(Row, Decision)> = vec![
        (("clone", 56, 120, 220), clone),
        (("clone3", 435, 435, 435), Decision::Always(ABSENT)),
        (("ioctl", 16, 54, 29), forbid(1, KEYSTROKES)),
        (("personality", 135, 136, 92), personality),
        (SOCKET, forbid(0, FAMILIES)),
        (("socketcall", NONE, 102, NONE), forbid(0, SOCKETCALL_SOCKET)),
    ];
    if ownership == Ownership::Fake {
        rows.extend([(("mknod", 133, 14, NONE), device(1)), (("mknodat", 259, 297, 33), device(2))]);
    }
    rows.iter().map(|(row, decision)| (number(row, machine), *decision)).filter(|(number, _)| *number != NONE).collect()
}

#[cfg(test)]
mod tests;
