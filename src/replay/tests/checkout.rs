//! What is selected from git trees is what is selected from a checkout of them: random trees, rules and sources.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::context::{self, Context, Hashing, Ignoring};
use crate::dockerfile::ignore::IgnoreRules;
use crate::history::Oid;
use crate::history::tests::{Made, all};

use super::super::files::{Hashed, Sum, Sums, Taken, What};
use super::super::select::{self, SelectError, Tree, Wanted};

/// Lists what is taken, as a selection of a context does.
struct Listed;

/// Path, kind, whether it is executable, whether it is implied, and the object.
type Line = (Vec<u8>, &'static str, bool, bool, Option<Oid>);

impl Sum for Listed {
    type Value = Vec<Line>;

    fn of(taken: &[Taken<Vec<Line>>]) -> Vec<Line> {
        let mut out = Vec::new();
        for Taken { name, what } in taken {
            let name = name.to_vec();
            match what {
                What::Directory { implied, content } => {
                    out.push((name.clone(), "directory", false, *implied, None));
                    out.extend(
                        content
                            .iter()
                            .map(|(path, kind, x, implied, id)| ([name.as_slice(), b"/", path].concat(), *kind, *x, *implied, *id)),
                    );
                }
                What::File { executable, id } => out.push((name, "file", *executable, false, Some(*id))),
                What::Link(id) => out.push((name, "symlink", false, false, Some(*id))),
                What::Submodule(_) => out.push((name, "directory", false, false, None)),
            }
        }
        out
    }
}

/// xorshift64: the same cases on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
    fn some<T: Copy>(&mut self, list: &[T], most: usize) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| self.of(list)).collect()
    }
}

const NAMES: [&[u8]; 9] = [b"a", b"b", b"c.md", b"src", b"a.b", b"a-b", b"x y", b"\xff\xfe", "\u{e9}".as_bytes()];
const IGNORE: [&str; 14] =
    ["*", "a", "**/a", "src", "!src/a", "*.md", "!**/c.md", "a/*", "!a/b", "**/*.md", "src/**", "!src/**/b", "a/b/c.md", "x?y"];
const SOURCES: [&str; 16] =
    [".", "a", "src", "a/b", "*", "a*", "*/a", "src/*", "./src/", "/a/../b", "link", "link/a", "c.md", "[ab]", "*.md", "gone"];
const PARENTS: [&str; 8] = ["a", "src/a", "**/a", "./src/./a", "a/./*", "*/*", "**/*.md", "./gone"];
const EXCLUDE: [&str; 6] = ["a", "*.md", "**/b", "!a", "src", "b/a"];
const TARGETS: [&str; 7] = ["a", "src", "../a", "/src/a", "gone", "link", "src/../c.md"];

fn grow(random: &mut Random, dir: &Path, depth: usize) {
    for _ in 0..random.below(5) + 1 {
        let path = dir.join(OsStr::from_bytes(random.of(&NAMES)));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        if depth < 3 && random.below(2) == 0 {
            std::fs::create_dir(&path).unwrap();
            grow(random, &path, depth + 1);
            continue;
        }
        if random.below(6) == 0 {
            std::os::unix::fs::symlink(random.of(&TARGETS), &path).unwrap();
            continue;
        }
        std::fs::write(&path, [b'0' + random.below(3) as u8]).unwrap();
        let mode = random.of(&[0o644, 0o644, 0o755]);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
}

/// What one source led to: its place, its name, and its lines with contents as they are digested in a context.
type Led = Vec<(Vec<u8>, Vec<u8>, Vec<(Vec<u8>, &'static str, bool, bool, Vec<u8>)>)>;

fn from_checkout(context: &Context, wanted: Wanted<'_>) -> Option<(Led, Vec<crate::digest::ContentDigest>)> {
    let asked = context::Wanted { paths: vec![(0, wanted.path)], parents: wanted.parents, exclude: wanted.exclude };
    let selection = context::select(&context.tree(), &asked, Hashing { cache: None, now: SystemTime::now() }).ok()?;
    let line = |e: &context::Entry| {
        let content = match &e.node {
            context::Node::File(digest) => digest.as_bytes().to_vec(),
            context::Node::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        let executable = e.node.kind() == "file" && e.mode & 0o100 != 0;
        (e.path.clone(), e.node.kind(), executable, e.implied, content)
    };
    // With a pattern of `--parents` a file that is no directory leads to nothing.
    let sources = || selection.sources.iter().filter(|s| s.directory || !s.entries.is_empty());
    let led = sources().map(|s| (s.path.clone(), s.name.clone(), s.entries.iter().map(line).collect())).collect();
    Some((led, sources().map(|s| s.content()).collect()))
}

fn from_git(sums: &mut Sums<Listed>, tree: &Tree, wanted: Wanted<'_>) -> Option<Led> {
    let found = match select::select(sums, tree, wanted) {
        Ok(found) => found,
        Err(SelectError::History(e)) => panic!("{e}"),
        Err(_) => return None,
    };
    let mut led = Vec::new();
    for m in found {
        let lines = match m.what {
            What::Directory { content, .. } => content,
            What::Submodule(_) => Vec::new(),
            file => Listed::of(&[Taken { name: b"".as_slice().into(), what: file }]),
        };
        let mut read = Vec::new();
        for (path, kind, executable, implied, id) in lines {
            let content = id.map(|id| sums.objects.blob(id, 1 << 20).unwrap()).unwrap_or_default();
            let content = if kind == "file" { blake3::hash(&content).as_bytes().to_vec() } else { content };
            read.push((path, kind, executable, implied, content));
        }
        led.push((m.path, m.name, read));
    }
    Some(led)
}

#[test]
fn selections_from_git_trees_are_those_of_a_checkout() {
    let (mut compared, mut found, mut equal, mut hidden) = (0, 0, 0, 0);
    // By digest from the checkout what the hash of the git trees was, and the other way round: equal exactly together.
    for seed in 1..=40 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let made = Made::new();
        let mut sums: Option<(Sums<Listed>, Sums<Hashed>)> = None;
        let mut pairs = std::collections::HashMap::new();
        for _ in 0..3 {
            for entry in std::fs::read_dir(made.path()).unwrap().flatten().filter(|e| e.file_name() != ".git") {
                if entry.file_type().unwrap().is_dir() && random.below(2) == 0 {
                    std::fs::remove_dir_all(entry.path()).unwrap();
                }
            }
            grow(&mut random, made.path(), 0);
            let _ = std::os::unix::fs::symlink(random.of(&TARGETS), made.path().join("link"));
            made.commit("x");
            let commit = made.open().commits(&all()).unwrap().pop().unwrap();
            let (listed, hashed) = sums.get_or_insert_with(|| {
                let objects = || made.open().objects().unwrap();
                (Sums::new(objects()), Sums::new(objects()))
            });
            // A checkout of it: the working directory may hold directories that git doesn't know.
            let checkout = tempfile::tempdir().unwrap();
            let work_tree = format!("--work-tree={}", checkout.path().display());
            made.git(&[&work_tree, "checkout", "-q", "-f", "HEAD", "--", "."]);
            for _ in 0..8 {
                let text = random.some(&IGNORE, 4).join("\n");
                let rules = IgnoreRules::parse(&text).unwrap();
                let context = Context::open_directory(checkout.path(), "the build context").unwrap();
                let context = context.with_ignore(Ignoring { rules: rules.clone(), file: ".dockerignore".into(), ..Ignoring::default() });
                let tree = Tree { root: commit.tree, ignore: Some(Arc::new(rules)) };
                let exclude: Vec<String> = random.some(&EXCLUDE, 2).into_iter().map(str::to_owned).collect();
                let parents = random.below(3) == 0;
                let path = if parents { random.of(&PARENTS) } else { random.of(&SOURCES) };
                let wanted = Wanted { path, parents, exclude: &exclude };
                let of_checkout = from_checkout(&context, wanted);
                let of_git = from_git(listed, &tree, wanted);
                let case = format!("seed {seed}: {path} parents={parents} exclude={exclude:?} ignore={text:?}");
                assert_eq!(of_checkout.as_ref().map(|(led, _)| led), of_git.as_ref(), "{case}");
                compared += 1;
                hidden += usize::from(of_git.is_none());
                let Some((led, digests)) = of_checkout else { continue };
                let hashes: Vec<_> =
                    select::select(hashed, &tree, wanted).unwrap().iter().map(|m| (m.content(), m.is_directory())).collect();
                assert_eq!(hashes.len(), digests.len(), "{case}");
                for ((hash, digest), source) in hashes.into_iter().zip(digests).zip(&led) {
                    found += 1;
                    let known = pairs.insert(digest, hash);
                    equal += usize::from(known.is_some());
                    assert!(known.is_none_or(|known| known == hash), "{case}: {source:?}");
                    assert_eq!(pairs.values().filter(|h| **h == hash).count(), 1, "{case}: two digests with one hash");
                }
            }
        }
    }
    assert!(compared == 960 && found > 300 && equal > 80 && hidden > 50, "{compared} {found} {equal} {hidden}");
}
