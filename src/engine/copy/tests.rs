//! Cases: a destination before, a source tree, an operation; the destination afterwards.
//!
//! As root, owners are set for real; as anybody else they are recorded, and read back from the record.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::context::tests::{later, make, tree};
use crate::dockerfile::source::Span;
use crate::graph::{FileTree, MkdirOp};
use crate::path::{FileKind, inspect, link_target_at, read_dir};

fn ownership() -> Ownership {
    if rustix::process::geteuid().is_root() { Ownership::Real } else { Ownership::Recorded }
}

/// Returns each file below `dir`: path, then `/`, `-> target` or `=content`, mode where it isn't the usual one, owner where it isn't 0:0.
fn dump(dir: &Path) -> Vec<String> {
    fn below(dir: impl AsFd, at: &Path, path: &str, out: &mut Vec<String>) {
        let mut names: Vec<_> = read_dir(&dir).unwrap().into_iter().map(|e| e.name.into_bytes()).collect();
        names.sort();
        for name in names {
            let (meta, _) = inspect(&dir, &name).unwrap();
            let name = String::from_utf8(name).unwrap();
            let (path, at) = (format!("{path}{name}"), at.join(&name));
            // Links and FIFOs can't carry a recorded owner.
            let unowned = ownership() == Ownership::Recorded && matches!(meta.kind, FileKind::Symlink | FileKind::Fifo);
            let (what, usual) = match meta.kind {
                FileKind::Directory => ("/".to_owned(), 0o755),
                FileKind::Symlink => (format!(" -> {}", printable(&link_target_at(&dir, name.as_bytes()).unwrap())), 0o777),
                FileKind::File => (format!("={}", fs::read_to_string(&at).unwrap_or_else(|e| e.to_string())), 0o644),
                kind => (format!(" {kind:?}"), 0o644),
            };
            let mode = if meta.mode == usual { String::new() } else { format!(" {:o}", meta.mode) };
            let owner = if (meta.uid, meta.gid) == (0, 0) || unowned { String::new() } else { format!(" {}:{}", meta.uid, meta.gid) };
            out.push(format!("{path}{what}{mode}{owner}"));
            if meta.kind == FileKind::Directory {
                let inner = rustix::fs::openat(&dir, name.as_str(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
                below(inner, &at, &format!("{path}/"), out);
            }
        }
    }
    let mut out = Vec::new();
    below(Root::open(dir).unwrap(), dir, "", &mut out);
    out
}

pub(super) fn op(sources: &[&str], dest: &str) -> CopyOp {
    CopyOp {
        sources: sources.iter().map(|s| CopySource::Path((*s).to_owned(), Span::default())).collect(),
        from: FileTree::Context(None),
        dest: dest.to_owned(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        add: None,
    }
}

fn add(sources: &[&str], dest: &str) -> CopyOp {
    CopyOp { add: Some(AddOptions::default()), ..op(sources, dest) }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

pub(super) fn context<'a>(root: &'a Root, cancel: &'a CancelToken, writing: Writing) -> CopyContext<'a> {
    CopyContext { users: root, ownership: ownership(), now: Time { secs: 1_700_000_000, nanos: 0 }, cancel, writing }
}

fn run(op: &CopyOp, from: &Path, dest: &Path) -> Result<(), String> {
    let tree = tree(from);
    let selection = select(op, &tree, later()).map_err(|e| chain(&e))?;
    put(op, &tree, &selection, dest)
}

fn put(op: &CopyOp, tree: &SourceTree, selection: &Selection, dest: &Path) -> Result<(), String> {
    let root = Root::open(dest).unwrap();
    let cancel = CancelToken::new();
    let context = context(&root, &cancel, Writing::Everything);
    execute(op, Some((tree, selection)), &mut [], &root, &context).map(drop).map_err(|e| chain(&e))
}

/// Two directories: a context and a destination.
fn places(source: &[(&str, &str)], before: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    make(&from, source);
    make(&to, before);
    if ownership() == Ownership::Recorded {
        // What a test makes is the tester's; it stands for what an image's root has.
        own(Root::open(&to).unwrap());
    }
    (dir, from, to)
}

fn own(dir: impl AsFd) {
    for entry in read_dir(&dir).unwrap() {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&dir, entry.name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
        crate::path::set_owner(&fd, 0, 0, Ownership::Recorded).unwrap();
        if entry.kind == rustix::fs::FileType::Directory {
            own(fd);
        }
    }
}

const SOURCE: &[(&str, &str)] = &[("f", "new"), ("d/a", "1"), ("d/s/b", "2"), ("d/l -> a", ""), ("e/", ""), ("flink -> d/a", "")];

#[test]
fn sources_land_where_buildkit_puts_them() {
    type Case<'a> = (&'a str, CopyOp, &'a [(&'a str, &'a str)], Result<Vec<&'a str>, &'a str>);
    let cases: &[Case<'_>] = &[
        ("file to a new name", op(&["f"], "/x"), &[], Ok(vec!["x=new"])),
        ("a slash makes a directory", op(&["f"], "/x/"), &[], Ok(vec!["x/", "x/f=new"])),
        ("so does a dot", op(&["f"], "/x/."), &[], Ok(vec!["x/", "x/f=new"])),
        ("into an existing directory", op(&["f"], "/x"), &[("x/", "")], Ok(vec!["x/", "x/f=new"])),
        ("at the root", op(&["f", "d"], "/"), &[], Ok(vec!["a=1", "f=new", "l -> a", "s/", "s/b=2"])),
        ("directory's content", op(&["d"], "/x/y"), &[], Ok(vec!["x/", "x/y/", "x/y/a=1", "x/y/l -> a", "x/y/s/", "x/y/s/b=2"])),
        ("empty directory", op(&["e"], "/x"), &[], Ok(vec!["x/"])),
        ("no match makes nothing", op(&["no*"], "/x/"), &[], Ok(vec![])),
        ("a followed link keeps its name", op(&["flink"], "/x/"), &[], Ok(vec!["x/", "x/flink=1"])),
        ("the last source wins", op(&["f", "d/a"], "/x"), &[], Ok(vec!["x=1"])),
        ("destination link to a directory", op(&["f"], "/l"), &[("r/", ""), ("l -> /r", "")], Ok(vec!["l -> /r", "r/", "r/f=new"])),
        ("destination link to a file", op(&["f"], "/l"), &[("t", "old"), ("l -> t", "")], Ok(vec!["l -> t", "t=new"])),
        ("dangling destination", op(&["f"], "/l"), &[("l -> /m/n", "")], Ok(vec!["l -> /m/n", "m/", "m/n=new"])),
        ("dangling parent", op(&["f"], "/l/x"), &[("l -> /m/n", "")], Ok(vec!["l -> /m/n", "m/", "m/n/", "m/n/x=new"])),
        ("a climbing link stays inside", op(&["f"], "/l/x"), &[("l -> ../../../..", "")], Ok(vec!["l -> ../../../..", "x=new"])),
        (
            "entries that are links are replaced",
            op(&["d"], "/x"),
            &[("x/a -> ../k", ""), ("k", "keep")],
            Ok(vec!["k=keep", "x/", "x/a=1", "x/l -> a", "x/s/", "x/s/b=2"]),
        ),
        ("a joined name that is a link too", op(&["f"], "/x/"), &[("x/f -> ../k", ""), ("k", "keep")], Ok(vec!["k=keep", "x/", "x/f=new"])),
        (
            "file over directory",
            op(&["f"], "/x/"),
            &[("x/f/", "")],
            Err("copying source number 1: cannot replace directory `/x/f` with a file"),
        ),
        (
            "directory over file",
            op(&["f", "d"], "/x"),
            &[("x", "")],
            Err("copying source number 2: cannot copy a directory to `/x`, which is not a directory"),
        ),
        (
            "directory over entry link",
            op(&["d"], "/x"),
            &[("x/s -> ../r", ""), ("r/", "")],
            Err("copying source number 1: cannot copy a directory to `/x/s`, which is not a directory"),
        ),
        ("below a file", op(&["f"], "/x/y"), &[("x", "")], Err("copying source number 1: `x` is not a directory")),
        (
            "octal mode reaches made directories",
            CopyOp { chmod: Some("1750".into()), ..op(&["d"], "/x/y") },
            &[],
            Ok(vec!["x/ 750", "x/y/ 750", "x/y/a=1 1750", "x/y/l -> a", "x/y/s/ 1750", "x/y/s/b=2 1750"]),
        ),
        (
            "a symbolic one doesn't",
            CopyOp { chmod: Some("go=".into()), ..op(&["d"], "/x") },
            &[],
            Ok(vec!["x/", "x/a=1 600", "x/l -> a", "x/s/ 700", "x/s/b=2 600"]),
        ),
        ("owner", CopyOp { chown: Some("7:8".into()), ..op(&["d/s"], "/x/y") }, &[("x/", "")], Ok(vec!["x/", "x/y/ 7:8", "x/y/b=2 7:8"])),
        (
            "owner by name",
            CopyOp { chown: Some("u".into()), ..op(&["f"], "/x") },
            &[("etc/passwd", "u:x:5:6:::\n")],
            Ok(vec!["etc/", "etc/passwd=u:x:5:6:::\n", "x=new 5:6"]),
        ),
        (
            "owner unknown",
            CopyOp { chown: Some("u".into()), ..op(&["f"], "/x") },
            &[],
            Err("copying: resolving the owner `u`: unable to find user `u`: the image has no /etc/passwd"),
        ),
        ("parents", CopyOp { parents: true, ..op(&["d/s/b"], "/x/") }, &[], Ok(vec!["x/", "x/d/", "x/d/s/", "x/d/s/b=2"])),
        ("no archive", add(&["f"], "/x"), &[], Ok(vec!["x=new"])),
    ];
    for (what, op, before, expected) in cases {
        let (_dir, from, to) = places(SOURCE, before);
        let got = run(op, &from, &to).map(|()| dump(&to));
        let expected = expected.clone().map(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>()).map_err(str::to_owned);
        assert_eq!(got, expected, "{what}");
    }
}

#[test]
fn an_existing_file_is_replaced_not_written_through() {
    let (_dir, from, to) = places(SOURCE, &[("one", "old")]);
    fs::hard_link(to.join("one"), to.join("two")).unwrap();
    fs::set_permissions(to.join("one"), fs::Permissions::from_mode(0o4755)).unwrap();
    run(&op(&["f"], "/one"), &from, &to).unwrap();
    assert_eq!(dump(&to), ["one=new", "two=old 4755"]);
}

#[test]
fn existing_directories_keep_or_take_metadata_by_their_place() {
    let (_dir, from, to) = places(SOURCE, &[("x/s/", "")]);
    for path in ["x/s", "x"] {
        fs::set_permissions(to.join(path), fs::Permissions::from_mode(0o700)).unwrap();
    }
    run(&op(&["d"], "/x"), &from, &to).unwrap();
    assert_eq!(dump(&to)[..2], ["x/ 700", "x/a=1"], "the destination keeps its own");
    assert!(dump(&to).contains(&"x/s/".to_owned()), "what lies in it takes the source's");
    fs::set_permissions(to.join("x/s"), fs::Permissions::from_mode(0o700)).unwrap();
    run(&CopyOp { parents: true, ..op(&["d/./s/b"], "/x") }, &from, &to).unwrap();
    assert!(dump(&to).contains(&"x/s/ 700".to_owned()), "a parent that is only on the way keeps its own");
}

#[test]
fn times_modes_and_hard_links_come_along() {
    let (_dir, from, to) = places(&[("d/a", "x"), ("d/s/c", ""), ("d/q", "")], &[]);
    fs::hard_link(from.join("d/a"), from.join("d/s/b")).unwrap();
    fs::set_permissions(from.join("d/q"), fs::Permissions::from_mode(0o6711)).unwrap();
    fs::set_permissions(from.join("d/s"), fs::Permissions::from_mode(0o1500)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, from.join("d/p"), rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 123);
    for path in ["d/a", "d/s", "d"] {
        fs::File::open(from.join(path)).unwrap().set_modified(then).unwrap();
    }
    run(&op(&["d"], "/x"), &from, &to).unwrap();
    let times: Vec<_> = ["x/a", "x/s", "x"].iter().map(|p| to.join(p).metadata().unwrap().modified().unwrap()).collect();
    assert_eq!(times, [then; 3]);
    assert_eq!(dump(&to), ["x/", "x/a=x", "x/p Fifo 600", "x/q= 6711", "x/s/ 1500", "x/s/b=x", "x/s/c="]);
    let inode = |p: &str| to.join(p).metadata().unwrap().ino();
    assert_eq!(inode("x/a"), inode("x/s/b"));
    run(&op(&["d/a", "d/s/b"], "/two/"), &from, &to).unwrap();
    assert_ne!(inode("two/a"), inode("two/b"), "each source is copied by itself");
    for dir in [&from, &to] {
        for path in ["d/s", "x/s"] {
            let _ = fs::set_permissions(dir.join(path), fs::Permissions::from_mode(0o700));
        }
    }
}

#[test]
fn large_files_come_whole_with_their_holes() {
    let (_dir, from, to) = places(&[], &[]);
    let mut file = fs::File::create(from.join("big")).unwrap();
    file.write_all(&vec![7; 300_000]).unwrap();
    file.seek(SeekFrom::Start(9_000_000)).unwrap();
    file.write_all(b"end").unwrap();
    file.set_len(12_000_000).unwrap();
    drop(file);
    run(&op(&["big"], "/x"), &from, &to).unwrap();
    assert!(fs::read(from.join("big")).unwrap() == fs::read(to.join("x")).unwrap());
    let blocks = |p: &Path| p.metadata().unwrap().blocks();
    assert!(blocks(&to.join("x")) <= blocks(&from.join("big")) + 16, "{} {}", blocks(&to.join("x")), blocks(&from.join("big")));
}

#[test]
fn a_source_that_changed_since_its_digest_is_refused() {
    type Trick = (&'static str, fn(&Path));
    let tricks: &[Trick] = &[
        ("other bytes", |d| fs::write(d.join("d/s/b"), "other").unwrap()),
        ("gone", |d| fs::remove_file(d.join("d/s/b")).unwrap()),
        ("a link to outside", |d| {
            fs::remove_file(d.join("d/s/b")).unwrap();
            symlink("/etc/passwd", d.join("d/s/b")).unwrap();
        }),
        ("a directory swapped for a link", |d| {
            fs::rename(d.join("d/s"), d.join("moved")).unwrap();
            symlink("/etc", d.join("d/s")).unwrap();
        }),
        ("the source swapped for a link", |d| {
            fs::rename(d.join("d"), d.join("moved")).unwrap();
            symlink("moved", d.join("d")).unwrap();
        }),
    ];
    for (what, trick) in tricks {
        let (_dir, from, to) = places(SOURCE, &[]);
        let (op, tree) = (op(&["d"], "/x"), tree(&from));
        let selection = select(&op, &tree, later()).unwrap();
        trick(&from);
        let error = put(&op, &tree, &selection, &to).unwrap_err();
        assert!(error.contains("was changed during the build"), "{what}: {error}");
    }
}

#[test]
fn an_unsettled_file_is_compared_by_its_bytes() {
    let (_dir, from, to) = places(&[("f", "old")], &[]);
    let (op, tree) = (op(&["f"], "/x"), tree(&from));
    let mut selection = select(&op, &tree, Hashing { cache: None, now: SystemTime::UNIX_EPOCH }).unwrap();
    assert!(!selection.sources[0].entries[0].settled);
    put(&op, &tree, &selection, &to).unwrap();
    fs::write(from.join("f"), "new").unwrap();
    // As if the clock hadn't ticked between the two writes.
    let (_, stamp) = open_file(Root::open(&from).unwrap().as_fd(), b"f").unwrap();
    selection.sources[0].entries[0].stamp = stamp;
    assert!(put(&op, &tree, &selection, &to).unwrap_err().contains("changed"));
}

#[test]
fn names_that_delete_files_are_refused() {
    let (_dir, from, to) = places(&[("d/.wh.etc", ""), ("d2/.wh-not", "")], &[]);
    let error = run(&op(&["d"], "/"), &from, &to).unwrap_err();
    assert_eq!(error, "copying source number 1: cannot copy `/.wh.etc`: names that begin with `.wh.` mark deleted files in image layers");
    run(&op(&["d2"], "/"), &from, &to).unwrap();
    assert_eq!(dump(&to), [".wh-not="]);
}

fn archive(members: &[(&str, tar::EntryType, u32, &str)]) -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    for (name, kind, mode, data) in members {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(*kind);
        h.set_mode(*mode);
        h.set_uid(12);
        h.set_gid(34);
        h.set_mtime(1_234_567_890);
        let data = if kind.is_symlink() {
            h.set_link_name(data).unwrap();
            ""
        } else {
            data
        };
        h.set_size(data.len() as u64);
        b.append_data(&mut h, name, data.as_bytes()).unwrap();
    }
    b.into_inner().unwrap()
}

#[test]
fn add_unpacks_archives_and_copy_does_not() {
    use tar::EntryType::{Directory, Regular};
    let bytes =
        archive(&[("./", Directory, 0o700, ""), ("f", Regular, 0o600, "new"), ("s/", Directory, 0o750, ""), ("s/g", Regular, 0o644, "g")]);
    let packed = zstd::encode_all(bytes.as_slice(), 1).unwrap();
    let unpacked = ["x/", "x/f=new 600 12:34", "x/k=keep", "x/s/ 750 12:34", "x/s/g=g 12:34"];
    for (what, op, expected) in [
        ("unpacked over what is there", add(&["a.any"], "/x"), unpacked.to_vec()),
        (
            "owner",
            CopyOp { chown: Some("7".into()), ..add(&["a.any"], "/x") },
            vec!["x/", "x/f=new 600 7:7", "x/k=keep", "x/s/ 750 7:7", "x/s/g=g 7:7"],
        ),
        ("a link on the way", add(&["a.any"], "/l/"), unpacked.to_vec()),
    ] {
        let (_dir, from, to) = places(&[], &[("x/k", "keep"), ("x/f", "old"), ("l -> /x", "")]);
        fs::write(from.join("a.any"), &packed).unwrap();
        run(&op, &from, &to).unwrap();
        assert_eq!(dump(&to)[1..], *expected, "{what}");
    }
    let (_dir, from, to) = places(&[], &[]);
    fs::write(from.join("a"), &bytes).unwrap();
    for op in [op(&["a"], "/c"), CopyOp { add: Some(AddOptions { unpack: Some(false), ..AddOptions::default() }), ..op(&["a"], "/n") }] {
        run(&op, &from, &to).unwrap();
    }
    assert!(fs::read(to.join("c")).unwrap() == bytes && fs::read(to.join("n")).unwrap() == bytes);
}

#[test]
fn heredocs_and_downloads_are_files_too() {
    let (_dir, from, to) = places(&[("f", "f")], &[]);
    let root = Root::open(&to).unwrap();
    let cancel = CancelToken::new();
    let context = context(&root, &cancel, Writing::Everything);
    let mut op = CopyOp { chmod: Some("u+x".into()), ..add(&["f"], "/x/") };
    op.sources.push(CopySource::Inline("EOF".into(), b"hi\n".to_vec()));
    op.sources.push(CopySource::Http("http://h/p".into(), Span::default()));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"body").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let remote = RemoteFile { name: "p".into(), file, mtime: Some(Time { secs: 5, nanos: 0 }), mode: 0o600 };
    let tree = tree(&from);
    let selection = select(&op, &tree, later()).unwrap();
    execute(&op, Some((&tree, &selection)), &mut [(2, Fetched::File(remote))], &root, &context).unwrap();
    assert_eq!(dump(&to), ["x/", "x/EOF=hi\n 744", "x/f=f 744", "x/p=body 700"]);
    assert_eq!(to.join("x/p").metadata().unwrap().mtime(), 5);
    assert_eq!(to.join("x/EOF").metadata().unwrap().mtime(), 1_700_000_000);
    let error = execute(&op, Some((&tree, &selection)), &mut [], &root, &context).unwrap_err();
    assert!(matches!(error, CopyError { index: Some(2), cause: CopyCause::NotFetched }));
}

#[test]
fn workdir_belongs_to_the_user_of_that_point() {
    for (user, path, expected) in [
        ("", "/a/b", vec!["a/", "a/b/", "etc/"]),
        ("app", "/a/b", vec!["a/ 5:6", "a/b/ 5:6", "etc/"]),
        ("77:88", "/l/b", vec!["etc/", "etc/b/ 77:88"]),
        ("nobody-knows", "/a", vec!["a/", "etc/"]),
    ] {
        let (_dir, _, to) = places(&[], &[("etc/passwd", "app:x:5:6:::\n"), ("l -> etc", "")]);
        make_workdir(&MkdirOp { path: path.into(), user: user.into() }, &Root::open(&to).unwrap(), ownership()).unwrap();
        let directories: Vec<_> = dump(&to).into_iter().filter(|l| l.contains('/') && !l.contains('=') && !l.contains("->")).collect();
        assert_eq!(directories, expected, "{user} {path}");
    }
    let (_dir, _, to) = places(&[], &[("f", "")]);
    let error = make_workdir(&MkdirOp { path: "/f/x".into(), user: String::new() }, &Root::open(&to).unwrap(), ownership()).unwrap_err();
    assert_eq!(chain(&error), "copying: `f` is not a directory");
}

#[test]
fn a_mount_shows_the_place_itself_only_where_that_is_exact() {
    let (_dir, from, to) = places(&[("d/a", "a"), ("d/hidden", "h"), ("d/.wh.x", "w"), ("l -> d", "")], &[]);
    let selection = |tree: &SourceTree, source: &str| crate::context::select_mount(tree, source, later()).unwrap();
    let plain = tree(&from);
    let direct = open_bind(&plain, &selection(&plain, "l")).unwrap();
    // Somebody else's files count as 0:0, and a mount can't say so.
    assert_eq!(direct.is_some(), rustix::process::geteuid().is_root());
    fs::write(from.join(".dockerignore"), "d/hidden").unwrap();
    let filtered = tree(&from);
    let chosen = selection(&filtered, "/l/.");
    assert!(open_bind(&filtered, &chosen).unwrap().is_none());
    assert_ne!(chosen.digest(), selection(&plain, "d").digest());
    stage_bind(&filtered, &chosen, &Root::open(&to).unwrap(), ownership()).unwrap();
    assert_eq!(dump(&to), ["mount/", "mount/.wh.x=w", "mount/a=a"]);
    let error = crate::context::select_mount(&filtered, "d/hidden", later()).unwrap_err();
    assert_eq!(error.hint().unwrap(), "`d/hidden` is excluded by .dockerignore line 1");
    let (_dir, _, to) = places(&[], &[]);
    stage_bind(&filtered, &selection(&filtered, "d/a"), &Root::open(&to).unwrap(), ownership()).unwrap();
    assert_eq!(dump(&to), ["mount=a"]);
}

#[test]
fn privileged_a_root_file_systems_owners_and_devices_are_kept() {
    if ownership() != Ownership::Real {
        return; // Skipped: only root can set owners and make devices.
    }
    let (_dir, from, to) = places(&[("s/f", "x")], &[]);
    std::os::unix::fs::chown(from.join("s/f"), Some(7), Some(8)).unwrap();
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        from.join("s/null"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o644),
        rustix::fs::makedev(1, 3),
    );
    let stage = SourceTree::root_fs(Root::open(&from).unwrap(), "stage `s`").unwrap();
    let op = op(&["/s"], "/x");
    let selection = select(&op, &stage, later()).unwrap();
    put(&op, &stage, &selection, &to).unwrap();
    let mut expected = vec!["x/", "x/f=x 7:8"];
    if made.is_ok() {
        expected.push("x/null CharDevice");
        assert_eq!(inspect(Root::open(&to).unwrap(), b"x/null").unwrap().0.rdev, (1, 3));
    }
    assert_eq!(dump(&to), expected);
}

#[test]
fn a_cancelled_copy_puts_no_further_file() {
    let (_dir, from, to) = places(&[("d/a", "1"), ("d/b", "2")], &[]);
    let (op, tree) = (op(&["d/"], "/"), tree(&from));
    let selection = select(&op, &tree, later()).unwrap();
    let (root, cancel) = (Root::open(&to).unwrap(), CancelToken::new());
    cancel.cancel(2);
    let context = context(&root, &cancel, Writing::Everything);
    execute(&op, Some((&tree, &selection)), &mut [], &root, &context).unwrap_err();
    assert_eq!(dump(&to), Vec::<String>::new());
}
