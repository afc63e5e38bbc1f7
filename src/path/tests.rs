//! Paths below a hostile root: where they lead, what is made, what is removed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// A root with a canary beside it: whatever happens inside must not show there.
fn root_with_canary() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    fs::write(dir.path().join("canary"), "alive").unwrap();
    let root = Root::open(&dir.path().join("root")).unwrap();
    (dir, root)
}

#[test]
fn cleaning_an_archive_name_keeps_it_below_the_root() {
    for (name, want) in [
        ("", ""),
        ("/", ""),
        (".", ""),
        ("./a//b/", "a/b"),
        ("../x", "x"),
        ("/../x", "x"),
        ("a/../../x", "x"),
        ("..", ""),
        ("/./.././x", "x"),
        ("../../../../../../x/..", ""),
        ("a/..b/...", "a/..b/..."),
    ] {
        assert_eq!(clean(name.as_bytes()), want.as_bytes(), "{name:?}");
    }
}

#[test]
fn resolution_never_leaves_the_root() {
    let (dir, root) = root_with_canary();
    let r = dir.path().join("root");
    fs::write(r.join("canary"), "inside").unwrap();
    fs::create_dir(r.join("d")).unwrap();
    symlink("/canary", r.join("abs")).unwrap();
    symlink("../../../canary", r.join("d/up")).unwrap();
    symlink(dir.path().join("canary"), r.join("host")).unwrap();
    symlink("loop", r.join("loop")).unwrap();
    for path in ["canary", "/canary", "../canary", "../../canary", "abs", "d/up", "d/../canary"] {
        assert_eq!(root.read_small(path.as_bytes(), 100).unwrap(), b"inside", "{path}");
    }
    assert!(root.resolve(b"host").unwrap_err().is_not_found());
    assert_eq!(root.resolve(b"loop").unwrap_err().errno(), Some(40));
    assert_eq!(root.read_link(b"abs").unwrap(), b"/canary");
    let magic = dir.path().join("root/self");
    symlink("/proc/self/root", magic).unwrap();
    assert!(root.resolve(b"self").unwrap_err().is_not_found());
}

#[test]
fn only_regular_files_are_opened_and_no_more_is_read_than_allowed() {
    let (dir, root) = root_with_canary();
    fs::write(dir.path().join("root/f"), "12345").unwrap();
    root.mknod(b"fifo", FileKind::Fifo, (0, 0), Ownership::Real).unwrap();
    assert_eq!(root.read_small(b"f", 5).unwrap(), b"12345");
    assert!(matches!(root.read_small(b"f", 4), Err(PathError::TooLarge { limit_bytes: 4, .. })));
    for path in ["fifo", "/", "."] {
        assert!(matches!(root.open_file(path.as_bytes(), None), Err(PathError::NotRegular { .. })), "{path}");
    }
}

#[test]
fn directories_are_made_through_links_but_inside() {
    let (dir, root) = root_with_canary();
    let r = dir.path().join("root");
    symlink("..", r.join("up")).unwrap();
    symlink("/new/place", r.join("dangling")).unwrap();
    fs::write(r.join("file"), "").unwrap();
    let make = |path: &str| {
        root.mkdir_all(path.as_bytes(), 0o751, None, Ownership::Recorded)
            .map(|made| made.into_iter().map(|p| String::from_utf8(p).unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(make("up/a/b").unwrap(), ["a", "a/b"]);
    assert_eq!(make("up/a/b").unwrap(), Vec::<String>::new());
    assert_eq!(make("dangling/x").unwrap(), ["new", "new/place", "new/place/x"]);
    assert_eq!(make("a/../../../c").unwrap(), ["c"]);
    assert!(matches!(make("file/x"), Err(PathError::NotDirectory { path }) if path == "file"));
    assert_eq!(fs::metadata(r.join("new/place")).unwrap().permissions().mode() & 0o7777, 0o751);
    let mut outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    outside.sort();
    assert_eq!(outside, ["canary", "root"]);
}

#[test]
fn directories_below_one_with_the_setgid_bit_have_the_bit_and_its_group() {
    const OWNERSHIP: Ownership = Ownership::Recorded;
    let (_dir, root) = root_with_canary();
    root.mkdir_all(b"team", 0o755, Some((7, 60)), OWNERSHIP).unwrap();
    let team = root.resolve(b"team").unwrap();
    meta::set_mode(&team, 0o2775).unwrap();
    root.mkdir_all(b"team/a/b", 0o755, None, OWNERSHIP).unwrap();
    root.mkdir_all(b"team/owned", 0o750, Some((8, 9)), OWNERSHIP).unwrap();
    root.mkdir_all(b"plain", 0o755, None, OWNERSHIP).unwrap();
    for (path, want) in
        [("team/a", (0o2755, 0, 60)), ("team/a/b", (0o2755, 0, 60)), ("team/owned", (0o2750, 8, 9)), ("plain", (0o755, 0, 0))]
    {
        let meta = meta::meta_at(root.resolve(path.as_bytes()).unwrap(), b"").unwrap();
        assert_eq!((meta.mode, meta.uid, meta.gid), want, "{path}");
    }
}

#[test]
fn names_are_needed_where_something_is_made() {
    let (_dir, root) = root_with_canary();
    for path in ["", "/", ".", "..", "a/.", "a/..", "a/../"] {
        assert!(matches!(root.resolve_parent(path.as_bytes()), Err(PathError::NoName { .. })), "{path:?}");
    }
    assert_eq!(root.resolve_parent(b"/x//").unwrap().1, b"x");
}

#[test]
fn a_recorded_owner_is_read_back_and_is_no_content() {
    let (dir, root) = root_with_canary();
    fs::write(dir.path().join("root/f"), "").unwrap();
    let fd = root.resolve_nofollow(b"f").unwrap();
    let xattrs = vec![(b"user.plywood.evil".to_vec(), b"1".to_vec()), (b"user.x".to_vec(), b"y".to_vec())];
    let attributes = Attributes { uid: 33, gid: 44, mode: Some(0o4711), mtime: Some(Time { secs: -5, nanos: 7 }), xattrs };
    apply(&fd, b"f", &attributes, Ownership::Recorded).unwrap();
    let (meta, xattrs) = inspect(&root, b"f").unwrap();
    assert_eq!((meta.uid, meta.gid, meta.mode, meta.mtime), (33, 44, 0o4711, Time { secs: -5, nanos: 7 }));
    assert_eq!(xattrs, [(b"user.x".to_vec(), b"y".to_vec())]);
    mknod_at(&root, b"null", FileKind::CharDevice, (1, 3), Ownership::Recorded).unwrap();
    let null = root.resolve_nofollow(b"null").unwrap();
    set_owner(&null, 5, 6, Ownership::Recorded).unwrap();
    let meta = meta_at(&root, b"null").unwrap();
    assert_eq!((meta.kind, meta.rdev, meta.uid, meta.gid), (FileKind::CharDevice, (1, 3), 5, 6));
}

#[test]
fn removing_a_tree_may_be_given_up_half_way() {
    let (dir, root) = root_with_canary();
    let t = dir.path().join("root/t");
    fs::create_dir(&t).unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::write(t.join(name), "").unwrap();
    }
    let asked = std::cell::Cell::new(0);
    let give_up = || asked.replace(asked.get() + 1) >= 2;
    assert!(!remove_tree_unless(&root, b"t", &give_up).unwrap());
    assert_eq!(fs::read_dir(&t).unwrap().count(), 2);
    assert!(remove_tree_unless(&root, b"t", &|| false).unwrap());
    assert!(!t.exists());
}

#[test]
fn removing_a_tree_follows_no_link_and_minds_no_mode_or_depth() {
    let (dir, root) = root_with_canary();
    let r = dir.path().join("root");
    fs::create_dir_all(r.join("t/a/b")).unwrap();
    fs::write(r.join("t/a/b/f"), "").unwrap();
    symlink(dir.path(), r.join("t/out")).unwrap();
    fs::set_permissions(r.join("t/a"), fs::Permissions::from_mode(0o000)).unwrap();
    // Deeper than any path can be long, and than descriptors are allowed.
    let mut at = root.resolve(b"t").unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "dd", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "dd", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    let ino = fs::metadata(dir.path().join("canary")).unwrap().ino();
    remove_tree(&root, b"t").unwrap();
    remove_tree(&root, b"t").unwrap();
    assert_eq!(fs::read_dir(&r).unwrap().count(), 0);
    assert_eq!(fs::metadata(dir.path().join("canary")).unwrap().ino(), ino);
}

#[test]
fn a_link_swapped_in_for_a_directory_never_leads_out() {
    let (dir, root) = root_with_canary();
    let r = dir.path().join("root");
    fs::create_dir(r.join("real")).unwrap();
    symlink(dir.path(), r.join("evil")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(&root, "real", &root, "evil", exchange);
            }
        });
        for n in 0..2000 {
            let _ = root.mkdir_all(format!("real/n{n}").as_bytes(), 0o755, None, Ownership::Recorded);
            let _ = root.create_file(format!("real/f{n}").as_bytes(), 0o644);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let mut outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    outside.sort();
    assert!(outside.iter().all(|n| matches!(n.as_bytes(), b"canary" | b"root")), "{outside:?}");
}
