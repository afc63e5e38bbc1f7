//! A copy that leaves files out, completed, is the copy that writes all: the same changes, the same tar.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::super::tests::{context, op};
use super::super::{Writing, execute, select};
use super::*;
use crate::context::tests::{later, tree};
use crate::graph::CopyOp;
use crate::layer::{self, LayerDigests};
use crate::path::{Root, Time, set_times};
use crate::snapshot::diff;

fn copy(op: &CopyOp, tree: &SourceTree, dest: &Path, writing: Writing) -> Deferred {
    let selection = select(op, tree, later()).unwrap();
    let (root, cancel) = (Root::open(dest).unwrap(), CancelToken::new());
    execute(op, Some((tree, &selection)), &mut [], &root, &context(&root, &cancel, writing)).unwrap()
}

/// Returns the times of the files in the tar.
fn times(deferred: &Deferred, dest: &Path) -> Vec<(Vec<u8>, Time)> {
    let root = Root::open(dest).unwrap().into_fd();
    let changes = deferred.complete(diff::changes(&root).unwrap()).unwrap();
    let file = |entry: diff::Entry| match entry.change {
        Change::Upsert(node) if node.kind != NodeKind::Directory => Some((entry.path, node.mtime)),
        _ => None,
    };
    changes.entries.into_iter().filter_map(file).filter(|(path, _)| !path.starts_with(b"old/")).collect()
}

/// Returns the tar and its digests, times clamped: directories on the way are made now.
fn tar(deferred: &Deferred, tree: &SourceTree, dest: &Path) -> Result<(Vec<u8>, LayerDigests), LayerError> {
    let root = Root::open(dest).unwrap().into_fd();
    let changes = deferred.complete(diff::changes(&root).unwrap())?;
    let mut out = Vec::new();
    let write = |files: &mut dyn FileBytes| layer::write_files_and_digest(&changes, files, Some(1), &mut out);
    let digests = deferred.reading(tree, root.as_fd(), &CancelToken::new(), write)?;
    Ok((out, digests))
}

/// A source tree with something of everything, and sizes around those where the way of reading changes.
fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("src").join(name);
    for d in ["a/deep/er", "b", "empty", "z"] {
        fs::create_dir_all(at(d)).unwrap();
    }
    let small = usize::try_from(SMALL_BYTES).unwrap();
    for (name, size) in [("a/0", 0), ("a/1", 1), ("a/deep/512", 512), ("b/small", small), ("b/big", small + 1), ("b/bigger", 3 * small + 7)]
    {
        fs::write(at(name), vec![u8::try_from(size % 251).unwrap(); size]).unwrap();
    }
    for n in 0..70 {
        fs::write(at(&format!("a/deep/er/f{n}")), format!("{n}").repeat(n)).unwrap();
    }
    fs::write(at("top"), "t").unwrap();
    fs::write(at("z/last-and-empty"), "").unwrap();
    symlink("../nowhere", at("a/link")).unwrap();
    fs::set_permissions(at("a/1"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(at("b"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::hard_link(at("a/1"), at("b/same")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("z/fifo"), rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
    let big = vec![7; 2 * small];
    for name in ["other/big", "linked/first"] {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), &big).unwrap();
    }
    fs::create_dir(dir.path().join("little")).unwrap();
    fs::write(dir.path().join("little/big"), "x").unwrap();
    fs::hard_link(dir.path().join("linked/first"), dir.path().join("linked/second")).unwrap();
    let sparse = fs::File::create(dir.path().join("sparse")).unwrap();
    sparse.write_all_at(b"data", 3 * SMALL_BYTES).unwrap();
    for name in ["a", "b", "a/deep", "a/deep/er", "empty", "z", ""] {
        set_times(fs::File::open(at(name)).unwrap(), Time { secs: 1_000, nanos: 5 }).unwrap();
    }
    dir
}

#[test]
fn a_completed_copy_is_the_same_layer_as_one_that_wrote_all() {
    let from = source();
    let tree = tree(from.path());
    let plain = |dest| op(&["src"], dest);
    let cases = [
        (plain("/src"), true),
        (plain("/"), true),
        (plain("/old/"), true),
        (plain("/new/way/down/"), true),
        (CopyOp { chown: Some("12:34".into()), chmod: Some("u=rwX,go=rX".into()), ..plain("/x") }, true),
        (CopyOp { exclude: vec!["**/f1*".into()], ..plain("/x") }, true),
        (CopyOp { parents: true, ..op(&["src/./a"], "/p/") }, true),
        (op(&["src/top"], "/f"), false),
        (op(&["src/b/big"], "/"), true),
        (op(&["src/b/big"], "/f"), true),
        (op(&["src/b/big"], "/new/way/down/"), true),
        (op(&["src/b/big"], "/old/"), true),
        (op(&["src/b/big"], "/old/a/1"), true),
        (op(&["src/b/big"], "/old/link/"), true),
        (op(&["src/b/big"], "/old/dangling"), true),
        (op(&["src/b/big"], "/old/a/big-and-old"), true),
        (op(&["src/b/big"], "/old/a/empty"), true),
        // The second is what lay there before the first.
        (op(&["little/big", "other/big"], "/old/a/"), true),
        (CopyOp { chown: Some("12:34".into()), chmod: Some("u=rw,go=".into()), ..op(&["src/b/big"], "/x/") }, true),
        (CopyOp { parents: true, ..op(&["src/b/./big"], "/p/") }, true),
        (op(&["src/b/big", "src/top", "src/b/bigger"], "/old/"), true),
        (op(&["src/b/b*"], "/old/"), true),
        (op(&["src/b/bigger", "src/b/big", "other/big"], "/old/"), true),
        (op(&["src/b/big", "other"], "/old/"), true),
        (op(&["src/b", "other"], "/new/"), true),
        (op(&["src/b", "src", "src/b/big"], "/old"), true),
        (op(&["linked"], "/old/"), false),
        (op(&["linked"], "/new/"), false),
        (op(&["linked/first", "linked/second"], "/new/"), true),
        (op(&["sparse"], "/f"), false),
        (op(&["sparse", "other"], "/f/"), true),
    ];
    for (op, leaves_out) in cases {
        let (all, some) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dest in [&all, &some] {
            fs::create_dir_all(dest.path().join("old/a/deep")).unwrap();
            fs::write(dest.path().join("old/a/1"), "in the way").unwrap();
            fs::write(dest.path().join("old/a/empty"), "").unwrap();
            fs::write(dest.path().join("old/a/big-and-old"), vec![9; usize::try_from(SMALL_BYTES + 1).unwrap()]).unwrap();
            fs::copy(from.path().join("other/big"), dest.path().join("old/a/big")).unwrap();
            symlink("a/deep", dest.path().join("old/link")).unwrap();
            symlink("/far/away", dest.path().join("old/dangling")).unwrap();
        }
        let written = copy(&op, &tree, all.path(), Writing::Everything);
        assert!(written.is_empty());
        let want = tar(&written, &tree, all.path()).unwrap();
        let writing = if select(&op, &tree, later()).unwrap().sources.len() == 1 { Writing::Deferring } else { Writing::DeferringBig };
        let deferred = copy(&op, &tree, some.path(), writing);
        assert_eq!(!deferred.is_empty(), leaves_out, "{op:?}");
        let got = tar(&deferred, &tree, some.path()).unwrap();
        assert_eq!(got.1, want.1, "{op:?}");
        assert_eq!(times(&deferred, some.path()), times(&written, all.path()), "{op:?}");
        assert!(got.0 == want.0, "{op:?}");
    }
}

#[test]
fn a_file_that_changed_since_the_key_was_made_is_an_error() {
    let trees = ["src/a/deep/512", "src/b/bigger", "src/a/0", "src/z/last-and-empty", "src/a/deep/er/f9"].map(|name| (name, "src"));
    for (name, copied) in trees.into_iter().chain([("src/b/bigger", "src/b/bigger")]) {
        for change in ["longer", "gone", "link"] {
            let from = source();
            let (dest, tree) = (tempfile::tempdir().unwrap(), tree(from.path()));
            let deferred = copy(&op(&[copied], "/src"), &tree, dest.path(), Writing::Deferring);
            // Hard links are written at once.
            let path = from.path().join(name);
            match change {
                "longer" => fs::write(&path, vec![1; 5 << 20]).unwrap(),
                "gone" => fs::remove_file(&path).unwrap(),
                _ => {
                    fs::rename(&path, from.path().join("elsewhere")).unwrap();
                    symlink("/etc/passwd", &path).unwrap();
                }
            }
            match tar(&deferred, &tree, dest.path()) {
                Err(LayerError::Changed { path }) => assert_eq!(path, name),
                other => panic!("{name} of {copied} {change}: {:?}", other.map(|(_, digests)| digests)),
            }
        }
    }
}

#[test]
fn a_file_whose_stand_in_is_gone_is_an_error() {
    let from = source();
    let (dest, tree) = (tempfile::tempdir().unwrap(), tree(from.path()));
    for change in ["removed", "written"] {
        let deferred = copy(&op(&["src/b/bigger"], "/f"), &tree, dest.path(), Writing::Deferring);
        match change {
            "removed" => fs::remove_file(dest.path().join("f")).unwrap(),
            _ => fs::write(dest.path().join("f"), "x").unwrap(),
        }
        assert!(matches!(tar(&deferred, &tree, dest.path()), Err(LayerError::Changed { path }) if path == "src/b/bigger"), "{change}");
    }
}
