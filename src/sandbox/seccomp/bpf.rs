//! Assembles a decision per system call number into a classic BPF program: a binary search with checks at its leaves.
//!
//! Only what a filter needs; it knows nothing of what the numbers mean. A linear list of comparisons would do as
//! well for calls that are always allowed (the kernel caches those, since 5.11), but not for the others.

use crate::sys::process::FilterInstruction;

// include/uapi/linux/bpf_common.h, include/uapi/linux/seccomp.h
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;

/// Where `struct seccomp_data` holds the call's number, machine, and the lower half of its n-th argument.
pub(super) const NUMBER_AT: u32 = 0;
pub(super) const MACHINE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It takes place.
    Allow,
    /// It doesn't, and returns this error; 0: reports success.
    Errno(i32),
}

/// What is looked at, for one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing.
    Always(Verdict),
    /// The lower half of an argument: whether, masked with `mask`, it is one of `values`.
    Argument { number: u32, mask: u32, values: &'static [u32], when_among: Verdict, otherwise: Verdict },
    /// The lower half of an argument: whether it has any of the bits of `mask`.
    AnyBit { number: u32, mask: u32, when_set: Verdict, otherwise: Verdict },
    /// Several arguments: the verdict of the first case all of whose tests hold.
    Cases { cases: &'static [(&'static [Test], Verdict)], otherwise: Verdict },
}

/// Whether the lower half of an argument, masked with `mask`, is one of `values`, or (`among` is false) none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub number: u32,
    pub mask: u32,
    pub values: &'static [u32],
    pub among: bool,
}

/// A decision for all numbers from `first` up to the next span's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub first: u32,
    pub decision: Decision,
}

fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> FilterInstruction {
    FilterInstruction { code, jt, jf, k }
}

pub(super) fn load(offset: u32) -> FilterInstruction {
    instruction(LOAD, offset, 0, 0)
}

/// Goes on with the next instruction when the loaded value is `value`; else skips `skip` instructions.
pub(super) fn unless_equal_skip(value: u32, skip: u8) -> FilterInstruction {
    instruction(JUMP_EQUAL, value, 0, skip)
}

/// Skips this many instructions, however many.
pub(super) fn skip(instructions: usize) -> FilterInstruction {
    instruction(JUMP, u32::try_from(instructions).expect("a filter is short"), 0, 0)
}

pub(super) fn verdict(verdict: Verdict) -> FilterInstruction {
    match verdict {
        Verdict::Allow => instruction(RETURN, RETURN_ALLOW, 0, 0),
        Verdict::Errno(errno) => instruction(RETURN, RETURN_ERRNO | errno.unsigned_abs(), 0, 0),
    }
}

/// Turns single decisions, over a decision for all others, into spans without gaps.
pub(super) fn spans(mut single: Vec<(u32, Decision)>, others: Decision, last: u32, beyond: Decision) -> Vec<Span> {
    single.sort_by_key(|(number, _)| *number);
    single.dedup_by_key(|(number, _)| *number);
    let mut spans: Vec<Span> = Vec::new();
    let mut add = |first: u32, decision: Decision| {
        if spans.last().is_none_or(|span| span.decision != decision) {
            spans.push(Span { first, decision });
        }
    };
    let mut next = 0;
    for (number, decision) in single {
        if number > next {
            add(next, others);
        }
        add(number, decision);
        next = number + 1;
    }
    if next <= last {
        add(next, others);
    }
    add(last + 1, beyond);
    spans
}

/// Assembles the search for the loaded number among `spans` (in order, not empty).
pub(super) fn search(spans: &[Span]) -> Vec<FilterInstruction> {
    let (left, right) = spans.split_at(spans.len() / 2);
    let (Some(_), Some(middle)) = (left.first(), right.first()) else {
        return spans.iter().flat_map(|span| leaf(span.decision)).collect();
    };
    let left = search(left);
    // Both halves end in returns, so a jump over the left half is all that is needed. 255 is BPF's reach.
    let reach = u8::try_from(left.len()).expect("half of a machine's spans assemble to less than 256 instructions");
    let mut code = vec![instruction(JUMP_AT_LEAST, middle.first, reach, 0)];
    code.extend(left);
    code.extend(search(right));
    code
}

fn leaf(decision: Decision) -> Vec<FilterInstruction> {
    match decision {
        Decision::Always(answer) => vec![verdict(answer)],
        Decision::AnyBit { number, mask, when_set, otherwise } => {
            vec![load(ARGUMENTS_AT + 8 * number), instruction(JUMP_ANY_BIT, mask, 0, 1), verdict(when_set), verdict(otherwise)]
        }
        Decision::Cases { cases, otherwise } => {
            let mut code: Vec<_> = cases.iter().flat_map(|(tests, then)| case(tests, *then)).collect();
            code.push(verdict(otherwise));
            code
        }
        Decision::Argument { number, mask, values, when_among, otherwise } => {
            let mut code = vec![load(ARGUMENTS_AT + 8 * number)];
            if mask != u32::MAX {
                code.push(instruction(AND, mask, 0, 0));
            }
            for (at, value) in values.iter().enumerate() {
                // Over the comparisons that remain and the verdict for none of them.
                let reach = u8::try_from(values.len() - at).expect("a list of values is short");
                code.push(instruction(JUMP_EQUAL, *value, reach, 0));
            }
            code.extend([verdict(otherwise), verdict(when_among)]);
            code
        }
    }
}

/// Returns with `then` when all tests hold, else goes on after its end.
fn case(tests: &[Test], then: Verdict) -> Vec<FilterInstruction> {
    let Some((Test { number, mask, values, among }, rest)) = tests.split_first() else { return vec![verdict(then)] };
    let rest = case(rest, then);
    let mut code = vec![load(ARGUMENTS_AT + 8 * number), instruction(AND, *mask, 0, 0)];
    for (at, value) in values.iter().enumerate() {
        // Over the comparisons that remain and the jump after them, to what follows when the value is among them.
        let reach = u8::try_from(values.len() - at).expect("a list of values is short");
        code.push(instruction(JUMP_EQUAL, *value, reach, 0));
    }
    if *among {
        code.push(skip(rest.len()));
    } else {
        code.extend([skip(1), skip(rest.len())]);
    }
    code.extend(rest);
    code
}
