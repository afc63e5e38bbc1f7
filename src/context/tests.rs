//! Cases: what a step takes from a context, and what moves its digest.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::digest::ContentDigest;

/// Makes files: `a/b` with content, `d/` a directory, `l -> target` a link.
pub(crate) fn make(dir: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        if let Some((link, target)) = name.split_once(" -> ") {
            let link = dir.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, link).unwrap();
        } else if name.ends_with('/') {
            fs::create_dir_all(dir.join(name)).unwrap();
        } else {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

pub(crate) fn tree(dir: &Path) -> SourceTree {
    let context = Context::open_directory(dir, "the build context").unwrap();
    let rules = context.ignore_rules(None).unwrap();
    context.with_ignore(rules).tree()
}

/// Long after all files of a test were made, so that all are settled.
pub(crate) fn later() -> Hashing<'static> {
    Hashing { cache: None, now: SystemTime::now() + Duration::from_secs(3600) }
}

const FILES: &[(&str, &str)] = &[
    ("top.txt", "top"),
    ("src/a.txt", "a"),
    ("src/b.md", "b"),
    ("src/sub/c.txt", "c"),
    ("src/sub/deep/d.txt", "d"),
    ("src/in -> sub/c.txt", ""),
    ("dlink -> src/sub", ""),
    ("flink -> /src/a.txt", ""),
    ("gone -> nowhere/x", ""),
    ("leak -> ../../../../../../../etc/passwd", ""),
    ("e/", ""),
];

/// Returns each source as `name=path` (a directory: `path/`) and its entries; implied ones in parentheses.
fn shown(selection: &Selection) -> Vec<String> {
    let show = |s: &SelectedSource| {
        let entries: Vec<_> = s
            .entries
            .iter()
            .map(|e| match (&e.node, e.implied) {
                (Node::Directory, true) => format!("({}/)", printable(&e.path)),
                (Node::Directory, false) => format!("{}/", printable(&e.path)),
                (Node::Symlink(target), _) => format!("{}->{}", printable(&e.path), printable(target)),
                _ => printable(&e.path),
            })
            .collect();
        match s.directory {
            true => format!("{}/: {}", printable(&s.path), entries.join(" ")),
            false => format!("{}={}", printable(&s.name), printable(&s.path)),
        }
    };
    selection.sources.iter().map(show).collect()
}

fn selected(tree: &SourceTree, sources: &[&str], parents: bool, exclude: &[&str]) -> Result<Vec<String>, String> {
    let exclude: Vec<String> = exclude.iter().map(ToString::to_string).collect();
    let wanted = Wanted { paths: sources.iter().copied().enumerate().collect(), parents, exclude: &exclude };
    select(tree, &wanted, later()).map(|s| shown(&s)).map_err(|e| {
        let hint = e.cause.hint().map(|h| format!(" ({h})")).unwrap_or_default();
        format!("{}: {}{hint}", e.index, e.cause)
    })
}

#[test]
fn sources_lead_where_they_lead_in_buildkit() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), FILES);
    let tree = tree(dir.path());
    let src = "a.txt b.md in->sub/c.txt sub/ sub/c.txt sub/deep/ sub/deep/d.txt";
    for (sources, expected) in [
        (vec!["top.txt"], Ok(vec!["top.txt=top.txt".to_owned()])),
        (vec!["../../top.txt", "/src/../top.txt"], Ok(vec!["top.txt=top.txt".into(), "top.txt=top.txt".into()])),
        (vec!["src"], Ok(vec![format!("src/: {src}")])),
        (vec!["src/sub/."], Ok(vec!["src/sub/: c.txt deep/ deep/d.txt".into()])),
        (vec!["e"], Ok(vec!["e/: ".into()])),
        (vec!["dlink/"], Ok(vec!["src/sub/: c.txt deep/ deep/d.txt".into()])),
        (vec!["dlink/c.txt"], Ok(vec!["c.txt=src/sub/c.txt".into()])),
        (vec!["flink"], Ok(vec!["flink=src/a.txt".into()])),
        (vec!["src/*.txt"], Ok(vec!["a.txt=src/a.txt".into()])),
        (
            vec!["src/*"],
            Ok(vec![
                "a.txt=src/a.txt".into(),
                "b.md=src/b.md".into(),
                "in=src/sub/c.txt".into(),
                "src/sub/: c.txt deep/ deep/d.txt".into(),
            ]),
        ),
        (vec!["s*/s*/*.txt"], Ok(vec!["c.txt=src/sub/c.txt".into()])),
        (vec!["**/c.txt"], Ok(vec![])),
        (vec!["d*/c.txt"], Ok(vec![])),
        (vec!["none*", "nope/*", "top.txt/*"], Ok(vec![])),
        (vec!["[", "a[b"], Ok(vec![])),
        (
            vec!["top.txt", "nope"],
            Err("1: `nope` not found in the build context (paths are seen from the root of the build context)".to_owned()),
        ),
        (
            vec!["top.txt/x"],
            Err("0: `top.txt/x` not found in the build context (paths are seen from the root of the build context)".into()),
        ),
        (vec!["src/a.tx"], Err("0: `src/a.tx` not found in the build context (did you mean `src/a.txt`?)".into())),
        (
            vec!["gone"],
            Err("0: `gone` is a link to `/nowhere/x`, not found in the build context (links are followed inside the build context only)"
                .into()),
        ),
        (
            vec!["go*"],
            Err("0: `gone` is a link to `/nowhere/x`, not found in the build context (links are followed inside the build context only)"
                .into()),
        ),
        (
            vec!["leak"],
            Err("0: `leak` is a link to `/etc/passwd`, not found in the build context (links are followed inside the build context only)"
                .into()),
        ),
    ] {
        assert_eq!(selected(&tree, &sources, false, &[]), expected, "{sources:?}");
    }
}

#[test]
fn parents_and_excludes_take_what_they_name() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), FILES);
    let tree = tree(dir.path());
    for (sources, parents, exclude, expected) in [
        (vec!["src/sub/c.txt"], true, vec![], Ok("/: (src/) (src/sub/) src/sub/c.txt")),
        (vec!["src/./sub/c.txt"], true, vec![], Ok("src/: (sub/) sub/c.txt")),
        (vec!["./src/sub/./deep"], true, vec![], Ok("src/sub/: (deep/) deep/d.txt")),
        (vec!["src/*/c.txt"], true, vec![], Ok("/: (src/) (src/sub/) src/sub/c.txt")),
        (vec!["**/d.txt"], true, vec![], Ok("/: (src/) (src/sub/) (src/sub/deep/) src/sub/deep/d.txt")),
        (vec!["none/**/x"], true, vec![], Ok("/: ")),
        (
            vec!["src/nope"],
            true,
            vec![],
            Err("0: `src/nope` not found in the build context (paths are seen from the root of the build context)"),
        ),
        (
            vec!["dlink/c.txt"],
            true,
            vec![],
            Err("0: `dlink/c.txt` not found in the build context (paths are seen from the root of the build context)"),
        ),
        (vec!["src/./sub"], true, vec!["sub/c.txt"], Ok("src/: (sub/) (sub/deep/) sub/deep/d.txt")),
        (vec!["src"], false, vec!["*.txt", "in"], Ok("src/: b.md sub/ sub/c.txt sub/deep/ sub/deep/d.txt")),
        (vec!["src"], false, vec!["**/*.txt", "in"], Ok("src/: b.md sub/ sub/deep/")),
        (vec!["src"], false, vec!["sub"], Ok("src/: a.txt b.md in->sub/c.txt")),
        (vec!["src"], false, vec!["*", "!sub/deep"], Ok("src/: (sub/) sub/deep/ sub/deep/d.txt")),
        (vec!["src"], false, vec!["src/a.txt", "sub", "in"], Ok("src/: a.txt b.md")),
        (vec!["top.txt"], false, vec!["top.txt"], Ok("top.txt=top.txt")),
    ] {
        let got = selected(&tree, &sources, parents, &exclude);
        assert_eq!(got, expected.map(|s| vec![s.to_owned()]).map_err(str::to_owned), "{sources:?} {exclude:?}");
    }
}

#[test]
fn what_is_ignored_does_not_exist() {
    for (rules, sources, expected) in [
        ("src\n", vec!["."], Ok("/: .dockerignore e/ top.txt")),
        ("*\n!src/sub/c.txt\n", vec!["."], Ok("/: src/ src/sub/ src/sub/c.txt")),
        ("**\n", vec!["."], Ok("/: ")),
        ("src\n!src/sub\n", vec!["src"], Ok("src/: sub/ sub/c.txt sub/deep/ sub/deep/d.txt")),
        (
            "src/*.txt\n",
            vec!["src/a.txt"],
            Err("0: `src/a.txt` not found in the build context (`src/a.txt` is excluded by .dockerignore line 1)"),
        ),
        ("# no\nsrc\n", vec!["src"], Err("0: `src` not found in the build context (`src` is excluded by .dockerignore line 2)")),
        (
            "src/a.txt\n",
            vec!["flink"],
            Err("0: `flink` is a link to `/src/a.txt`, not found in the build context (`src/a.txt` is excluded by .dockerignore line 1)"),
        ),
        (
            "dlink\n",
            vec!["dlink/c.txt"],
            Err("0: `dlink/c.txt` not found in the build context (`dlink/c.txt` is excluded by .dockerignore line 1)"),
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &FILES.iter().copied().filter(|(n, _)| !n.starts_with("gone") && !n.starts_with("leak")).collect::<Vec<_>>());
        if sources == ["."] {
            fs::remove_file(dir.path().join("flink")).unwrap();
            fs::remove_file(dir.path().join("dlink")).unwrap();
        }
        make(dir.path(), &[(".dockerignore", rules)]);
        let got = selected(&tree(dir.path()), &sources, false, &[]);
        assert_eq!(got, expected.map(|s| vec![s.to_owned()]).map_err(str::to_owned), "{rules:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), FILES);
    make(dir.path(), &[(".dockerignore", "src/a.txt")]);
    assert_eq!(selected(&tree(dir.path()), &["src/a*", "to[p].txt"], false, &[]), Ok(vec!["top.txt=top.txt".to_owned()]));
}

fn digest(dir: &Path, sources: &[&str]) -> ContentDigest {
    let wanted = Wanted { paths: sources.iter().copied().enumerate().collect(), parents: false, exclude: &[] };
    select(&tree(dir), &wanted, later()).unwrap().digest()
}

#[test]
fn a_digest_moves_with_what_is_copied_and_with_nothing_else() {
    type Change = (&'static str, fn(&Path), bool);
    let cases: &[Change] = &[
        ("bytes", |d| fs::write(d.join("src/a.txt"), "A").unwrap(), true),
        ("mode", |d| fs::set_permissions(d.join("src/a.txt"), fs::Permissions::from_mode(0o755)).unwrap(), true),
        ("mode of a directory", |d| fs::set_permissions(d.join("src/sub"), fs::Permissions::from_mode(0o700)).unwrap(), true),
        ("name", |d| fs::rename(d.join("src/a.txt"), d.join("src/z.txt")).unwrap(), true),
        ("new file", |d| make(d, &[("src/new", "")]), true),
        ("new directory", |d| make(d, &[("src/sub/new/", "")]), true),
        ("gone", |d| fs::remove_file(d.join("src/b.md")).unwrap(), true),
        (
            "target",
            |d| {
                fs::remove_file(d.join("src/in")).unwrap();
                make(d, &[("src/in -> sub", "")]);
            },
            true,
        ),
        (
            "type",
            |d| {
                fs::remove_file(d.join("src/b.md")).unwrap();
                make(d, &[("src/b.md/", "")]);
            },
            true,
        ),
        (
            "hard link in a copy's place",
            |d| {
                make(d, &[("src/b.md", "a")]);
                let with_copy = digest(d, &["src"]);
                fs::remove_file(d.join("src/b.md")).unwrap();
                fs::hard_link(d.join("src/a.txt"), d.join("src/b.md")).unwrap();
                assert_ne!(digest(d, &["src"]), with_copy);
            },
            true,
        ),
        ("time", |d| fs::File::open(d.join("src/a.txt")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap(), false),
        ("other file", |d| make(d, &[("top.txt", "else")]), false),
        ("mode of the source directory", |d| fs::set_permissions(d.join("src"), fs::Permissions::from_mode(0o700)).unwrap(), false),
        (
            "same bytes again",
            |d| {
                fs::remove_file(d.join("src/a.txt")).unwrap();
                make(d, &[("src/a.txt", "a")]);
            },
            false,
        ),
    ];
    for (what, change, moves) in cases {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), FILES);
        let before = digest(dir.path(), &["src"]);
        change(dir.path());
        assert_eq!(digest(dir.path(), &["src"]) != before, *moves, "{what}");
    }
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), &[("x", "same"), ("y", "same")]);
    assert_ne!(digest(dir.path(), &["x"]), digest(dir.path(), &["y"]), "a file's name reaches the destination");
    make(dir.path(), &[("p/f", "same"), ("q/f", "same")]);
    assert_eq!(digest(dir.path(), &["p"]), digest(dir.path(), &["q"]), "a directory's own name doesn't");
    assert_ne!(digest(dir.path(), &["p", "x"]), digest(dir.path(), &["x", "p"]), "order decides who wins");
}

#[test]
fn privileged_a_digest_of_a_context_knows_no_owners() {
    if !rustix::process::geteuid().is_root() {
        return; // Skipped: only root can change owners.
    }
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), FILES);
    let root_fs = |d: &Path| {
        let tree = SourceTree::root_fs(Root::open(d).unwrap(), "stage `x`").unwrap();
        select(&tree, &Wanted { paths: vec![(0, "src")], parents: false, exclude: &[] }, later()).unwrap().digest()
    };
    let (local, real) = (digest(dir.path(), &["src"]), root_fs(dir.path()));
    std::os::unix::fs::chown(dir.path().join("src/a.txt"), Some(7), Some(8)).unwrap();
    assert_eq!(digest(dir.path(), &["src"]), local);
    assert_ne!(root_fs(dir.path()), real);
}

fn file_digest(selection: &Selection) -> ContentDigest {
    match selection.sources[0].entries[0].node {
        Node::File(digest) => digest,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_behind_equal_size_and_time_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), &[("f", "old")]);
    let file = || fs::File::options().write(true).open(dir.path().join("f")).unwrap();
    file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    let tree = tree(dir.path());
    let wanted = Wanted { paths: vec![(0, "f")], parents: false, exclude: &[] };
    let now = later().now;
    let cache = StatCache::open(None, now);
    let old = select(&tree, &wanted, Hashing { cache: Some(&cache), now }).unwrap();
    let cache = StatCache::open(cache.to_bytes(), now);
    let stamp = old.sources[0].entries[0].stamp;
    assert_eq!(cache.find(&stamp), Some(file_digest(&old)), "it was remembered");
    // The kernel's clock may not have ticked since the file was made.
    for _ in 0..1000 {
        file().write_all(b"new").unwrap();
        file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        let (_, now) = open_file(rustix::fs::CWD, dir.path().join("f").as_os_str().as_bytes()).unwrap();
        assert_eq!((now.size, now.mtime, now.ino), (stamp.size, stamp.mtime, stamp.ino));
        if now.ctime != stamp.ctime {
            break;
        }
    }
    let new = select(&tree, &wanted, Hashing { cache: Some(&cache), now }).unwrap();
    assert_eq!(file_digest(&new), ContentDigest::from_bytes(*blake3::hash(b"new").as_bytes()));
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), &[("f", "old")]);
    let (tree, now) = (tree(dir.path()), later().now);
    let wanted = Wanted { paths: vec![(0, "f")], parents: false, exclude: &[] };
    let cache = StatCache::open(None, now);
    let first = select(&tree, &wanted, Hashing { cache: Some(&cache), now }).unwrap();
    let cache = StatCache::open(None, now);
    let planted = ContentDigest::from_bytes([9; 32]);
    cache.remember(first.sources[0].entries[0].stamp, planted);
    assert_eq!(file_digest(&select(&tree, &wanted, Hashing { cache: Some(&cache), now }).unwrap()), planted);
}

#[test]
fn only_what_is_asked_for_is_walked() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), &[("package.json", "{}"), ("node_modules/m/x", ""), ("src/x", "")]);
    let closed = dir.path().join("node_modules/m");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    // Root may read everything: a directory nested beyond the limit stands for the forbidden one.
    let mut deep = dir.path().join("node_modules/deep");
    for _ in 0..510 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let tree = tree(dir.path());
    let take = |sources: &[&str], parents, exclude: &[&str]| selected(&tree, sources, parents, exclude).map(|s| s.len());
    assert_eq!(take(&["package.json"], false, &[]), Ok(1));
    assert_eq!(take(&["package*.json", "src/*"], false, &[]), Ok(2));
    assert_eq!(take(&["src/*"], true, &[]), Ok(1));
    assert_eq!(take(&["."], false, &["node_modules"]), Ok(1));
    let error = take(&["."], false, &[]).unwrap_err();
    assert!(error.contains("directories deep") || error.contains("opening directory"), "{error}");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_dockerfile_is_read_inside_its_context_only() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("ctx"), dir.path().join("out"));
    make(
        &inside,
        &[
            ("real/one.df", "FROM x"),
            ("Link -> /real/one.df", ""),
            ("leak -> ../out/secret", ""),
            ("d/", ""),
            ("dockerfile", "low"),
            ("sub/X -> ../real/one.df", ""),
        ],
    );
    make(
        &outside,
        &[
            ("secret", "s3cr3t"),
            ("far.df", "FROM far"),
            ("far.df.dockerignore", "x"),
            ("ln -> far.df", ""),
            ("climb -> ../ctx/dockerfile", ""),
        ],
    );
    let context = Context::open_directory(&inside, "ctx").unwrap();
    let text = |d: Result<DockerfileText, ContextError>| d.map(|d| String::from_utf8(d.bytes).unwrap()).map_err(|e| e.to_string());
    assert_eq!(text(context.dockerfile("Link")), Ok("FROM x".into()));
    assert_eq!(text(context.default_dockerfile()), Ok("low".into()));
    assert_eq!(text(context.dockerfile("leak")), Err("no Dockerfile at `leak`".into()));
    assert_eq!(text(context.dockerfile("d")), Err("`d` is a directory".into()));
    assert_eq!(text(context.dockerfile_on_host(&inside.join("sub/X"))), Ok("FROM x".into()));
    assert_eq!(text(context.dockerfile_on_host(&outside.join("ln"))), Ok("FROM far".into()));
    assert!(text(context.dockerfile_on_host(&outside.join("climb"))).is_err());
    let far = context.dockerfile_on_host(&outside.join("far.df")).unwrap();
    assert_eq!(far.ignore_file.map(|(_, bytes)| bytes), Some(b"x".to_vec()));
    rustix::fs::mknodat(rustix::fs::CWD, inside.join("pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert_eq!(text(context.dockerfile("pipe")), Err("`pipe` is not a regular file".into()));
}

#[test]
fn a_dockerfiles_own_ignore_file_replaces_the_contexts() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), &[(".dockerignore", "a"), ("D", ""), ("E", ""), ("E.dockerignore", "b"), ("F", ""), ("F.dockerignore", "!")]);
    let context = Context::open_directory(dir.path(), "ctx").unwrap();
    for (name, file, hides_a, hides_b) in [("D", ".dockerignore", true, false), ("E", "E.dockerignore", false, true)] {
        let found = context.ignore_rules(Some(&context.dockerfile(name).unwrap())).unwrap();
        assert_eq!((found.file.as_str(), found.rules.is_ignored("a"), found.rules.is_ignored("b")), (file, hides_a, hides_b));
    }
    let error = context.ignore_rules(Some(&context.dockerfile("F").unwrap())).unwrap_err();
    assert_eq!(error.to_string(), "in `F.dockerignore`");
}

#[test]
fn a_hostile_tar_stays_in_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let staging = dir.path().join("staging");
    fs::create_dir(&staging).unwrap();
    let mut b = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, link: &str, data: &[u8]| {
        let mut h = tar::Header::new_gnu();
        h.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        h.set_entry_type(kind);
        h.set_mode(0o644);
        h.set_uid(12);
        h.set_gid(34);
        h.set_mtime(1);
        h.set_size(data.len() as u64);
        if !link.is_empty() {
            h.set_link_name_literal(link).unwrap();
        }
        h.set_cksum();
        b.append(&h, data).unwrap();
    };
    add("../up", tar::EntryType::Regular, "", b"1");
    add("/abs", tar::EntryType::Regular, "", b"2");
    add("out", tar::EntryType::Symlink, "../..", b"");
    add("out/through", tar::EntryType::Regular, "", b"3");
    add("Dockerfile", tar::EntryType::Regular, "", b"FROM scratch");
    let tar = zstd::encode_all(b.into_inner().unwrap().as_slice(), 1).unwrap();
    let context = Context::from_tar(tar.as_slice(), &staging, "the build context").unwrap();
    assert_eq!(context.default_dockerfile().unwrap().bytes, b"FROM scratch");
    assert_eq!(selected(&context.tree(), &["."], false, &[]), Ok(vec!["/: Dockerfile abs out->../.. through up".to_owned()]));
    let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside, [OsStr::new("staging")]);
    assert!(matches!(Context::from_tar(&tar[..40], &staging, "x"), Err(ContextError::Unpack { .. })));
}
