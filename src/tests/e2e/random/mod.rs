//! Random Dockerfiles and contexts, edited at random: what a store full of earlier results gives must be what an empty store
//! gives, and what was built before must hit.
//!
//! `PLY_TEST_ROUNDS` sets how many Dockerfiles (a few dozen by default), `PLY_TEST_SEED` where to begin; a failure tells the
//! round's own seed. Each Dockerfile sees some edits of itself, of its context and of its arguments, and returns to earlier
//! states. In every other round times are clamped, and then even the images' digests are compared.

pub(super) mod context;
pub(super) mod dockerfile;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use super::cache::outcomes;
use super::{Done, World, is_root};
use context::Context;
use dockerfile::Text;

const EDITS: usize = 4;

/// xorshift64*: small, seeded, good enough to choose by.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % n
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

const TEXTS: [&str; 3] = ["one", "two", ""];

/// All that a build is made of.
#[derive(Clone)]
struct State {
    text: Text,
    context: Context,
    /// `--build-arg V=…`.
    argument: Option<&'static str>,
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

/// The builds of one round: where they keep things, and what is the same for all.
struct Builder<'w> {
    w: &'w World,
    own: std::path::PathBuf,
    /// Whether times are clamped.
    clamped: bool,
}

impl Builder<'_> {
    fn ctx(&self) -> std::path::PathBuf {
        self.own.join("ctx")
    }

    fn build(&self, store: &str, argument: Option<&str>, more: &[&str]) -> Done {
        let base = format!("base=oci-layout://{}", self.w.path("base").display());
        let dest = format!("type=tar,dest={}", self.own.join(store).with_extension("tar").display());
        let ctx = self.ctx();
        let value = format!("V={}", argument.unwrap_or_default());
        let mut args = vec!["build", "--progress=plain", "--gc=off", "--build-context", &base, "-o", &dest];
        if self.clamped {
            args.extend(["--build-arg", "SOURCE_DATE_EPOCH=1"]);
        }
        if argument.is_some() {
            args.extend(["--build-arg", &value]);
        }
        args.extend(more);
        args.push(ctx.to_str().unwrap());
        self.w.command(&args).env("PLY_STORE", self.own.join(store)).output().unwrap().into()
    }
}

fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    keys.into_iter().filter(|k| a.get(*k) != b.get(*k)).map(|k| format!("{k}: {:?} but clean {:?}", a.get(k), b.get(k))).collect()
}

/// What a Dockerfile may do wrong; all else would be ours.
const KNOWN: [&str; 15] = [
    "cannot copy",
    "cannot replace",
    "matches nothing",
    "not found",
    "is not in",
    "is excluded",
    "is no directory",
    "is not a directory",
    "too many levels of symbolic links in `",
    "must be a directory",
    "no such file or directory",
    "Too many levels of symbolic links",
    "did not complete successfully",
    // A step closed the root to all but its owner.
    "cannot be executed: Permission denied",
    "is a file in the image",
];

fn round(w: &World, seed: u64) {
    let mut r = Random::new(seed);
    let b = Builder { w, own: w.path(&format!("round-{seed}")), clamped: seed.is_multiple_of(2) };
    std::fs::create_dir_all(b.ctx()).unwrap();
    context::start(&b.ctx());
    let mut now = State { text: Text::new(&mut r, is_root()), context: Context::read(&b.ctx()), argument: None };
    let mut built: Vec<State> = Vec::new();
    let mut told = Vec::new();
    for edit in 0..=EDITS {
        let mut returned = false;
        if edit > 0 {
            told.push(match r.below(10) {
                0..=3 => now.text.edit(&mut r),
                4 => {
                    now.argument = [None, Some("one"), Some("two")][r.below(3)];
                    format!("argument {:?}", now.argument)
                }
                5 | 6 if !built.is_empty() => {
                    let n = r.below(built.len());
                    now = built[n].clone();
                    now.context.write(&b.ctx());
                    returned = true;
                    format!("back to what was built {n}.")
                }
                _ => context::edit(&mut r, &b.ctx()),
            });
        }
        now.context = Context::read(&b.ctx());
        let dockerfile = now.text.dockerfile();
        std::fs::write(b.ctx().join("Dockerfile"), &dockerfile).unwrap();
        let about = format!("seed {seed}, edits {told:?}, argument {:?}\n{dockerfile}", now.argument);
        let warm = b.build("warm", now.argument, &[]);
        let clean = b.build("clean", now.argument, &[]);
        assert_eq!(warm.code, clean.code, "{about}\nwarm: {}\nclean: {}", warm.stderr, clean.stderr);
        if warm.code == Some(0) {
            let found = differences(&listing(&b.own.join("warm.tar")), &listing(&b.own.join("clean.tar")));
            assert!(found.is_empty(), "{about}\n{}\nwarm: {}", found.join("\n"), warm.stderr);
            if b.clamped {
                assert_eq!(warm.stdout, clean.stdout, "the image's digest: {about}\nwarm: {}", warm.stderr);
            }
            let missed = |done: &Done| outcomes(done).into_iter().filter(|o| o != "CACHED").collect::<Vec<_>>();
            if returned {
                assert_eq!(missed(&warm), Vec::<String>::new(), "it was built before: {about}");
            }
            let again = b.build("warm", now.argument, if r.chance(25) { &["--verify-cache"] } else { &[] }).ok();
            assert_eq!(missed(&again), Vec::<String>::new(), "{about}");
            assert!(!again.stderr.contains("differs:"), "{about}\n{}", again.stderr);
            built.push(now.clone());
        } else {
            assert!(KNOWN.iter().any(|k| warm.stderr.contains(k)), "{about}\n{}", warm.stderr);
        }
        remove_tree(&b.own.join("clean"));
    }
    remove_tree(&b.own);
}

/// Layers hold unwritable directories and whiteouts.
pub(super) fn remove_tree(path: &Path) {
    let dir = std::fs::File::open(path.parent().unwrap()).unwrap();
    plywood::path::remove_tree(&dir, path.file_name().unwrap().as_encoded_bytes()).unwrap();
}

pub(super) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn a_full_store_gives_what_an_empty_one_gives() {
    let w = World::new();
    let dest = format!("type=oci,tar=false,dest={}", w.path("base").display());
    w.file("Dockerfile", "FROM base\n").build(&["-o", &dest]).ok();
    let first = number("PLY_TEST_SEED", 1);
    let next = std::sync::atomic::AtomicU64::new(first);
    let end = first + number("PLY_TEST_ROUNDS", 24);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    round(&w, seed);
                }
            });
        }
    });
}
