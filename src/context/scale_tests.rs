//! Cases that need many files or many edits: what is read side by side, and what the stat cache must never miss.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::tests::{later, make, tree};
use super::*;
use crate::digest::ContentDigest;

fn everything(tree: &SourceTree, exclude: &[String], hashing: Hashing<'_>) -> Selection {
    select(tree, &Wanted { paths: vec![(0, ".")], parents: false, exclude }, hashing).unwrap()
}

/// Returns all paths below `dir` that pass, a directory before what it holds, names sorted.
fn walked(dir: &Path, below: &str, pass: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir.join(below)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let mut out = Vec::new();
    for name in names {
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if pass(&path) {
            out.push(path.clone());
            if dir.join(&path).is_dir() {
                out.extend(walked(dir, &path, pass));
            }
        }
    }
    out
}

#[test]
fn a_large_tree_is_listed_in_order_and_filters_hold_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    for d in 0..40 {
        for f in 0..7 {
            make(dir.path(), &[(&format!("src/d{d}/e{}/f{f}", d % 3), "x"), (&format!("src/d{d}/skip/f{f}"), "x")]);
        }
    }
    // More names than one thread looks at, and directories among them.
    for n in 0..1500 {
        fs::write(dir.path().join(format!("n{n}.o")), "").unwrap();
        fs::write(dir.path().join(format!("n{n}.c")), "").unwrap();
    }
    for n in 0..20 {
        make(dir.path(), &[(&format!("n{n}0.c.d/x.c"), "")]);
    }
    make(dir.path(), &[(".dockerignore", "**/skip\n*.o\n")]);
    let paths = |selection: &Selection| -> Vec<String> {
        selection.sources[0].entries.iter().map(|e| String::from_utf8(e.path.clone()).unwrap()).collect()
    };
    let kept = |p: &str| !p.ends_with("/skip") && !p.ends_with(".o");
    let tree = tree(dir.path());
    let all = everything(&tree, &[], later());
    assert_eq!(paths(&all), walked(dir.path(), "", &kept));
    let again = everything(&tree, &[], later());
    assert_eq!((all.digest(), all.sources[0].as_is), (again.digest(), false));
    let excluded = everything(&tree, &["src/d1*".into(), "n1*.c".into()], later());
    let kept = |p: &str| kept(p) && !p.starts_with("src/d1") && !(p.starts_with("n1") && p.ends_with(".c") && !p.contains('/'));
    assert_eq!(paths(&excluded), walked(dir.path(), "", &kept));
}

#[test]
fn a_large_file_has_the_digest_of_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..9_700_000u32).map(|n| (n ^ (n >> 9)).to_le_bytes()[0]).collect();
    for size in [(8 << 20) - 1, 8 << 20, (8 << 20) + 1, 9_700_000] {
        fs::write(dir.path().join("f"), &bytes[..size]).unwrap();
        let found = everything(&tree(dir.path()), &[], later());
        let expected = ContentDigest::from_bytes(*blake3::hash(&bytes[..size]).as_bytes());
        assert_eq!(found.sources[0].entries[0].node, Node::File(expected), "{size}");
    }
}

/// Files whose bytes we know, all of one size and one mtime.
struct Model {
    dir: PathBuf,
    files: BTreeMap<String, [u8; 16]>,
}

impl Model {
    const FILES: u32 = 100;

    fn new(dir: &Path) -> Self {
        let mut model = Self { dir: dir.to_owned(), files: BTreeMap::new() };
        for n in 0..Self::FILES {
            let name = format!("d{}/f{n}", n % 4);
            fs::create_dir_all(dir.join(format!("d{}", n % 4))).unwrap();
            model.write(&name, &name, n);
        }
        model
    }

    /// Writes into `path` what is to be the content of `name`, and sets the time back.
    fn write(&mut self, path: &str, name: &str, n: u32) {
        let content = *format!("{n:016x}").as_bytes().first_chunk().unwrap();
        // Not truncated: written over in place where it exists.
        let mut file = fs::File::options().write(true).create(true).truncate(false).open(self.dir.join(path)).unwrap();
        std::io::Write::write_all(&mut file, &content).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        self.files.insert(name.to_owned(), content);
    }

    /// Makes an edit that neither size nor mtime shows.
    fn edit(&mut self, round: u32) {
        let name = |n: u32| format!("d{}/f{}", n % Self::FILES % 4, n % Self::FILES);
        let (one, other) = (name(round * 7), name(round * 7 + 13));
        match round % 3 {
            0 => self.write(&one, &one, 1_000_000 + round),
            1 => {
                self.write("new", &one, 2_000_000 + round);
                fs::rename(self.dir.join("new"), self.dir.join(&one)).unwrap();
            }
            _ => {
                let swap = rustix::fs::RenameFlags::EXCHANGE;
                let at = |name: &str| self.dir.join(name);
                rustix::fs::renameat_with(rustix::fs::CWD, at(&one), rustix::fs::CWD, at(&other), swap).unwrap();
                let (a, b) = (self.files[&one], self.files[&other]);
                self.files.extend([(one, b), (other, a)]);
            }
        }
    }
}

#[test]
fn a_thousand_edits_that_keep_size_and_time_are_all_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::new(dir.path());
    let (mut saved, mut known) = (None, 0);
    for round in 0..1000 {
        model.edit(round);
        // What a build does: the clock first, then the cache of the build before.
        let now = SystemTime::now();
        let cache = StatCache::open(saved.clone(), now);
        let selection = everything(&tree(dir.path()), &[], Hashing { cache: Some(&cache), now });
        let before = StatCache::open(saved.clone(), now);
        let files = selection.sources[0].entries.iter().filter(|e| e.node != Node::Directory);
        let mut seen = BTreeMap::new();
        for e in files {
            known += usize::from(before.find(&e.stamp).is_some());
            seen.insert(std::ffi::OsStr::from_bytes(&e.path).to_str().unwrap().to_owned(), e.node.clone());
        }
        let digest = |content: &[u8; 16]| Node::File(ContentDigest::from_bytes(*blake3::hash(content).as_bytes()));
        let expected: BTreeMap<_, _> = model.files.iter().map(|(name, content)| (name.clone(), digest(content))).collect();
        assert_eq!(seen, expected, "round {round}");
        saved = cache.to_bytes().or(saved);
    }
    assert!(known > 1000, "only {known} files were known: the cache was hardly asked");
}
