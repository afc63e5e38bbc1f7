//! Random Dockerfiles, edited at random: what a store full of earlier results gives must be what an empty store gives.
//!
//! `PLY_TEST_ROUNDS` sets how many Dockerfiles (a few by default), `PLY_TEST_SEED` where to begin; a failure tells the
//! round's own seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use super::{Done, World};

const EDITS: usize = 3;

/// xorshift64*: small, seeded, good enough to choose by.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % n
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Few enough that steps of different Dockerfiles often make the same layer, and one undoes what another did.
const PATHS: [&str; 6] = ["/w/a", "/w/b", "/w/a/x", "/w/b/x", "/top", "/w/a/x/deep"];
const MODES: [&str; 6] = ["700", "755", "711", "1777", "644", "4755"];
const SOURCES: [&str; 8] = ["f", "d", "d/a", "d/sub", "*.c", "d/*", ".", "link"];
const DESTS: [&str; 7] = ["/w/", "/w/a/", "/w/b", "/e/", "/w/c", "/top", "/e/deep/er/"];
const TEXTS: [&str; 3] = ["one", "two", ""];

/// A stage's lines below FROM.
type Stage = Vec<String>;

fn command(r: &mut Random) -> String {
    let (p, q) = (r.pick(&PATHS), r.pick(&PATHS));
    match r.below(13) {
        0 => format!("mkdir -p {p}"),
        1 => format!("rm -rf {p}"),
        2 | 3 => format!("echo {} > {p}", r.pick(&TEXTS)),
        4 => format!("ln -sf {q} {p}"),
        5 => format!("ln -f {p} {q}"),
        6 => format!("chmod {} {p}", r.pick(&MODES)),
        7 => format!("mv {p} {q}"),
        8 => format!("rm -rf {p} && mkdir -p {p} && echo {} > {p}/n", r.pick(&TEXTS)),
        9..=11 => format!("chmod {} {}", r.pick(&["700", "755", "711"]), r.pick(&["/", "/", "/w"])),
        _ => format!("echo $V >> {p}"),
    }
}

fn instruction(r: &mut Random, stage: usize) -> String {
    match r.below(if stage == 0 { 9 } else { 11 }) {
        0..=3 => {
            let commands: Vec<String> = (0..=r.below(5) / 3).map(|_| format!("({}) 2>/dev/null", command(r))).collect();
            format!("RUN {}; true", commands.join("; "))
        }
        4..=6 => {
            let options = r.pick(&["", "", "", "--link ", "--chmod=700 ", "--exclude=b ", "--parents "]);
            format!("COPY {options}{} {}", r.pick(&SOURCES), r.pick(&DESTS))
        }
        7 => format!("{} V={}", r.pick(&["ENV", "ARG"]), r.pick(&TEXTS)),
        8 => match r.below(3) {
            0 => format!("WORKDIR {}", r.pick(&["/w/wd", "/w/a", "/fresh/dir"])),
            1 => format!("COPY <<E {}\n{}\nE", r.pick(&DESTS), r.pick(&TEXTS)),
            _ => format!("RUN --mount=target=/m,source=d (cat /m/a > {}) 2>/dev/null; true", r.pick(&PATHS)),
        },
        9 => format!("RUN --mount=target=/m,from=s{},source=/w (ls /m > {}) 2>/dev/null; true", r.below(stage), r.pick(&PATHS)),
        _ => format!(
            "COPY {}--from=s{} {} {}",
            r.pick(&["", "", "--link ", "--chmod=755 "]),
            r.below(stage),
            r.pick(&["/w", "/w/*", "/w/a*", "/to[p]"]),
            r.pick(&["/got", "/got/", "/w/", "/w/b/"])
        ),
    }
}

fn stages(r: &mut Random) -> Vec<Stage> {
    (0..=r.below(3)).map(|s| (0..2 + r.below(5)).map(|_| instruction(r, s)).collect()).collect()
}

/// A later stage stands on the base, or on an earlier one: by its number, so that edits don't change it.
fn dockerfile(stages: &[Stage], bases: &[usize]) -> String {
    let mut out = String::new();
    for (n, stage) in stages.iter().enumerate() {
        let base = match bases[n] % (n + 2) {
            0 | 1 => "base".to_string(),
            earlier => format!("s{}", earlier - 2),
        };
        let _ = write!(out, "FROM {base} AS s{n}\nRUN mkdir -p /w/a\n{}\n", stage.join("\n"));
    }
    out
}

fn edit_text(r: &mut Random, stages: &mut [Stage]) {
    let at = r.below(stages.len());
    let stage = &mut stages[at];
    let line = r.below(stage.len());
    match r.below(4) {
        0 => stage[line] = instruction(r, at),
        1 => stage.insert(line, instruction(r, at)),
        2 if stage.len() > 1 => drop(stage.remove(line)),
        _ => stage.rotate_left(line),
    }
}

fn edit_files(r: &mut Random, w: &World) {
    use std::os::unix::fs::PermissionsExt;
    let name = r.pick(&["f", "d/a", "d/b", "d/sub/c", "x.c", "y.c", "d/new"]);
    let path = w.path("ctx").join(name);
    match r.below(4) {
        0 if !["f", "d/a"].contains(&name) => drop(std::fs::remove_file(&path)),
        1 if path.exists() => std::fs::set_permissions(&path, PermissionsExt::from_mode([0o600, 0o644, 0o755][r.below(3)])).unwrap(),
        2 => drop(w.file(".dockerignore", r.pick(&["", "d/b\n", "*.c\n", "d\n!d/a\n!d/sub\n"]))),
        _ => drop(w.file(name, r.pick(&TEXTS))),
    }
}

/// What is in a tar, but for the times.
fn listing(tar: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
    for entry in archive.entries().unwrap() {
        let mut e = entry.unwrap();
        let path = e.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        e.read_to_end(&mut bytes).unwrap();
        let h = e.header();
        let link = e.link_name().unwrap().map(|l| l.display().to_string()).unwrap_or_default();
        let text = if bytes.len() < 100 { String::from_utf8_lossy(&bytes).into_owned() } else { format!("{} bytes", bytes.len()) };
        let facts = format!("{:?} {:o} {}:{} {link} {text:?}", h.entry_type(), h.mode().unwrap(), h.uid().unwrap(), h.gid().unwrap());
        out.insert(path, facts);
    }
    out
}

fn build(w: &World, store: &str, tar: &str) -> Done {
    let base = format!("base=oci-layout://{}", w.path("base").display());
    let (store, ctx, dest) = (w.path(store), w.path("ctx"), format!("type=tar,dest={}", w.path(tar).display()));
    let args = ["build", "--progress=plain", "--build-context", &base, "-o", &dest, ctx.to_str().unwrap()];
    w.command(&args).env("PLY_STORE", store).output().unwrap().into()
}

fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    keys.into_iter().filter(|k| a.get(*k) != b.get(*k)).map(|k| format!("{k}: {:?} but clean {:?}", a.get(k), b.get(k))).collect()
}

fn round(w: &World, seed: u64) {
    let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut text = stages(&mut r);
    let bases: Vec<usize> = (0..3).map(|_| r.below(100)).collect();
    for edit in 0..=EDITS {
        if edit > 0 && r.chance(60) {
            edit_text(&mut r, &mut text);
        } else if edit > 0 {
            edit_files(&mut r, w);
        }
        let dockerfile = dockerfile(&text, &bases);
        w.file("Dockerfile", &dockerfile);
        let warm = build(w, "warm", "warm.tar");
        let clean = build(w, "clean", "clean.tar");
        let context = format!("seed {seed}, edit {edit}\n{dockerfile}");
        assert_eq!(warm.code, clean.code, "{context}\nwarm: {}\nclean: {}", warm.stderr, clean.stderr);
        if warm.code != Some(0) {
            // What a Dockerfile may do wrong; all else would be ours.
            let known = [
                "cannot copy",
                "cannot replace",
                "matches nothing",
                "not found",
                "is not in",
                "is excluded",
                "is no directory",
                "is not a directory",
                "too many levels of symbolic links in `",
            ];
            assert!(known.iter().any(|k| warm.stderr.contains(k)), "{context}\n{}", warm.stderr);
        } else {
            let found = differences(&listing(&w.path("warm.tar")), &listing(&w.path("clean.tar")));
            assert!(found.is_empty(), "{context}\n{}\nwarm: {}", found.join("\n"), warm.stderr);
            let again = build(w, "warm", "warm.tar").ok();
            let missed: Vec<String> = super::cache::outcomes(&again).into_iter().filter(|o| o != "CACHED").collect();
            assert_eq!(missed, Vec::<String>::new(), "{context}");
        }
        remove_tree(&w.path("clean"));
    }
}

/// Layers hold unwritable directories and whiteouts.
fn remove_tree(path: &Path) {
    let dir = std::fs::File::open(path.parent().unwrap()).unwrap();
    plywood::path::remove_tree(&dir, path.file_name().unwrap().as_encoded_bytes()).unwrap();
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn a_full_store_gives_what_an_empty_one_gives() {
    let w = World::new();
    for (name, text) in [("f", "one"), ("d/a", "a"), ("d/b", "b"), ("d/sub/c", "c"), ("x.c", "x"), ("y.c", "y")] {
        w.file(name, text);
    }
    std::os::unix::fs::symlink("f", w.path("ctx/link")).unwrap();
    let dest = format!("type=oci,tar=false,dest={}", w.path("base").display());
    w.file("Dockerfile", "FROM base\n").build(&["-o", &dest]).ok();
    let first = number("PLY_TEST_SEED", 1);
    for seed in first..first + number("PLY_TEST_ROUNDS", 3) {
        round(&w, seed);
    }
}
