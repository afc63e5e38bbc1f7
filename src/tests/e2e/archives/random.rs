//! Archives mixed at random: names, types, targets, order and dialects from the same ingredients as the written ones.

use super::super::random::Random;
use super::cases::Case;
use super::tar::{Entry, Form, entry};

/// The archive of a seed.
pub fn case(seed: u64, canary: &str) -> Case {
    let mut r = Random::new(seed);
    let count = 1 + r.below(12);
    let mut names: Vec<String> = Vec::new();
    let entries: Vec<Entry> = (0..count).map(|_| one(&mut r, canary, &mut names)).collect();
    super::cases::case("random", format!("seed {seed}"), entries)
}

fn name(r: &mut Random, canary: &str, names: &mut Vec<String>) -> String {
    const PARTS: [&str; 26] = [
        "a",
        "b",
        "l",
        "d",
        "sub",
        "x",
        "..",
        ".",
        "",
        "etc",
        "passwd",
        "out",
        "up",
        "top",
        "localetc",
        "dead",
        "lib",
        "keep",
        ".wh.d",
        ".wh.x",
        ".wh..wh..opq",
        "new",
        "plain",
        "secret",
        "var/run",
        "loop",
    ];
    if !names.is_empty() && r.chance(45) {
        let known = names[r.below(names.len())].clone();
        return if r.chance(50) { format!("{known}/{}", PARTS[r.below(12)]) } else { known };
    }
    let mut name: Vec<&str> = (0..=r.below(3)).map(|_| PARTS[r.below(PARTS.len())]).collect();
    if r.chance(10) {
        name.insert(0, canary);
    }
    let name = name.join("/");
    names.push(name.clone());
    name
}

fn one(r: &mut Random, canary: &str, names: &mut Vec<String>) -> Entry {
    let kind = [b'0', b'0', b'0', b'5', b'5', b'2', b'2', b'2', b'1', b'1', b'6', b'3'][r.below(12)];
    let mut e = entry(kind, name(r, canary, names));
    match kind {
        b'0' if !e.name.windows(4).any(|w| w == b".wh.") => e.data = format!("pwn {}", r.below(100)).into(),
        b'1' => e.link = name(r, canary, names).into(),
        b'2' => {
            let target = name(r, canary, names);
            e.link = match r.below(6) {
                0 => canary.into(),
                1 => format!("{}{canary}", "../".repeat(r.below(20))).into(),
                2 => format!("/{target}").into(),
                3 => format!("../{target}").into(),
                _ => target.into(),
            };
        }
        b'3' => e.dev = [(0, 0), (1, 3)][r.below(2)],
        _ => {}
    }
    e.mode = [0o644, 0o755, 0o4755, 0o2777, 0o700, 0o1777][r.below(6)];
    (e.uid, e.gid) = [(0, 0), (33, 44), (1000, 1)][r.below(3)];
    e.form = [Form::Ustar, Form::Pax, Form::Gnu][r.below(3)];
    if r.chance(15) {
        e = e.xattr(["trusted.overlay.opaque", "user.overlay.opaque", "user.overlay.redirect", "user.a"][r.below(4)], b"y");
    }
    e
}
