//! The same operations on each driver, compared as change sets.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::diff::{Change, ChangeSet, NodeKind, changes};
use super::*;
use crate::path::{FileKind, Root, Time, read_dir, remove_contents, remove_tree, set_times};

/// A store's worth of directories, removed by our own means: whiteouts and unwritable directories are in it.
struct Store {
    dir: tempfile::TempDir,
    count: std::cell::Cell<usize>,
}

impl Store {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), count: std::cell::Cell::new(0) }
    }

    fn fresh(&self) -> PathBuf {
        self.count.set(self.count.get() + 1);
        let path = self.dir.path().join(format!("d{}", self.count.get()));
        fs::create_dir(&path).unwrap();
        path
    }

    /// Runs one step on top of `lowers` and returns its layer directory.
    fn step(&self, driver: &Driver, lowers: &[PathBuf], work: &dyn Fn(&Path)) -> PathBuf {
        let prepared = driver.prepare(lowers, &self.fresh()).unwrap();
        work(&proc_path(&prepared.root()));
        prepared.finish(Filled::ByCommand).unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = remove_contents(Root::open(self.dir.path()).unwrap());
    }
}

fn proc_path(fd: &impl std::os::fd::AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}/.", fd.as_raw_fd()).into()
}

/// How many ids are mapped: all of them for real root, one for `unshare -Ur`.
fn ids() -> u64 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    map.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

fn is_real_root() -> bool {
    rustix::process::geteuid().is_root() && ids() > u64::from(u32::MAX - 1)
}

fn ownership() -> Ownership {
    if rustix::process::geteuid().is_root() && ids() > 1 { Ownership::Real } else { Ownership::Recorded }
}

/// The drivers that work here.
fn drivers(store: &Store) -> Vec<Driver> {
    let staging = store.fresh();
    let copy = Driver::copying(&staging, ownership(), "test");
    let found = Driver::detect(&staging, ownership()).unwrap();
    if found.kind() == DriverKind::Copy {
        eprintln_skip(found.reason());
        return vec![copy];
    }
    vec![found, copy]
}

#[allow(clippy::print_stderr)]
fn eprintln_skip(why: &str) {
    eprintln!("overlay part skipped: {why}");
}

fn listing(set: &ChangeSet) -> Vec<String> {
    set.entries
        .iter()
        .map(|e| {
            let path = String::from_utf8(e.path.clone()).unwrap();
            match &e.change {
                Change::Remove => format!("- {path}"),
                Change::Opaque => format!("o {path}"),
                Change::Upsert(n) => match &n.kind {
                    NodeKind::Directory => format!("d {path} {:o}", n.mode),
                    NodeKind::File { size_bytes } => format!("f {path} {:o} {size_bytes}", n.mode),
                    NodeKind::HardLink { target } => format!("h {path} {}", String::from_utf8_lossy(target)),
                    NodeKind::Symlink { target } => format!("l {path} {}", String::from_utf8_lossy(target)),
                    NodeKind::CharDevice { major, minor } => format!("c {path} {major}:{minor}"),
                    NodeKind::BlockDevice { major, minor } => format!("b {path} {major}:{minor}"),
                    NodeKind::Fifo => format!("p {path}"),
                },
            }
        })
        .collect()
}

fn changes_of(layer: &Path) -> Vec<String> {
    listing(&changes(Root::open(layer).unwrap()).unwrap())
}

fn mode(path: PathBuf, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn base(r: &Path) {
    for dir in ["etc/conf", "usr/bin", "var/lists/sub", "empty", "tmp"] {
        fs::create_dir_all(r.join(dir)).unwrap();
    }
    for (file, text) in [
        ("etc/passwd", "root"),
        ("etc/motd", "hello"),
        ("etc/conf/a", "a"),
        ("usr/bin/x", "xx"),
        ("var/lists/one", "1"),
        ("var/lists/two", "2"),
        ("var/lists/sub/deep", "3"),
    ] {
        fs::write(r.join(file), text).unwrap();
    }
    fs::hard_link(r.join("etc/passwd"), r.join("etc/passwd-")).unwrap();
    symlink("usr/bin", r.join("bin")).unwrap();
    mode(r.join("tmp"), 0o1777);
}

type Case = (&'static str, fn(&Path), &'static [&'static str]);

/// What a step does on top of `base`, and the change that it is.
const CASES: &[Case] = &[
    ("nothing", |_| {}, &[]),
    (
        "a new file shows its parents",
        |r| fs::write(r.join("etc/conf/b"), "bb").unwrap(),
        &["d etc 755", "d etc/conf 755", "f etc/conf/b 644 2"],
    ),
    (
        "a file made and removed leaves nothing",
        |r| {
            fs::write(r.join("etc/conf/b"), "bb").unwrap();
            fs::remove_file(r.join("etc/conf/b")).unwrap();
        },
        &[],
    ),
    ("a removal", |r| fs::remove_file(r.join("etc/motd")).unwrap(), &["d etc 755", "- etc/motd"]),
    ("a tree's removal is one whiteout", |r| fs::remove_dir_all(r.join("var/lists")).unwrap(), &["d var 755", "- var/lists"]),
    (
        "a directory made anew lacks what is not put back",
        |r| {
            fs::remove_dir_all(r.join("var/lists")).unwrap();
            fs::create_dir_all(r.join("var/lists/sub")).unwrap();
            fs::write(r.join("var/lists/one"), "new").unwrap();
        },
        &["d var 755", "d var/lists 755", "f var/lists/one 644 3", "d var/lists/sub 755", "- var/lists/sub/deep", "- var/lists/two"],
    ),
    (
        "a directory emptied and filled as before is no change",
        |r| {
            let keep = fs::metadata(r.join("etc/conf/a")).unwrap().modified().unwrap();
            fs::remove_dir_all(r.join("etc/conf")).unwrap();
            fs::create_dir(r.join("etc/conf")).unwrap();
            fs::write(r.join("etc/conf/a"), "a").unwrap();
            fs::File::open(r.join("etc/conf/a")).unwrap().set_modified(keep).unwrap();
        },
        &[],
    ),
    ("a mode", |r| mode(r.join("usr/bin/x"), 0o4755), &["d usr 755", "d usr/bin 755", "f usr/bin/x 4755 2"]),
    ("the same mode again", |r| mode(r.join("usr/bin/x"), 0o644), &[]),
    ("a directory's mode", |r| mode(r.join("empty"), 0o700), &["d empty 700"]),
    ("a directory's time", |r| set_times(Root::open(&r.join("empty")).unwrap(), Time { secs: 1, nanos: 0 }).unwrap(), &[]),
    (
        "a file's time",
        |r| fs::File::open(r.join("etc/motd")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap(),
        &["d etc 755", "f etc/motd 644 5"],
    ),
    ("opened for writing only", |r| drop(fs::OpenOptions::new().append(true).open(r.join("etc/motd")).unwrap()), &[]),
    ("writing to one of two names parts them", |r| fs::write(r.join("etc/passwd-"), "new").unwrap(), &["d etc 755", "f etc/passwd- 644 3"]),
    (
        "a hard link brings the file's other name",
        |r| fs::hard_link(r.join("etc/motd"), r.join("etc/new")).unwrap(),
        &["d etc 755", "f etc/motd 644 5", "h etc/new etc/motd"],
    ),
    (
        "a rename is a removal and a new name",
        |r| fs::rename(r.join("etc/motd"), r.join("etc/issue")).unwrap(),
        &["d etc 755", "f etc/issue 644 5", "- etc/motd"],
    ),
    (
        "a file for a directory and the other way round",
        |r| {
            fs::remove_dir_all(r.join("var")).unwrap();
            fs::write(r.join("var"), "").unwrap();
            fs::remove_file(r.join("bin")).unwrap();
            fs::create_dir(r.join("bin")).unwrap();
        },
        &["d bin 755", "f var 644 0"],
    ),
    (
        "a link's new target",
        |r| {
            fs::remove_file(r.join("bin")).unwrap();
            symlink("/usr/bin", r.join("bin")).unwrap();
        },
        &["l bin /usr/bin"],
    ),
    (
        "sockets are never in a layer",
        |r| {
            drop(std::os::unix::net::UnixListener::bind(r.join("tmp/s")).unwrap());
            fs::remove_file(r.join("etc/motd")).unwrap();
            drop(std::os::unix::net::UnixListener::bind(r.join("etc/motd")).unwrap());
        },
        &["d etc 755", "- etc/motd"],
    ),
    ("the root's mode", |r| mode(r.to_owned(), 0o711), &["d  711"]),
    (
        "a fifo",
        |r| {
            let root = Root::open(r).unwrap();
            root.mknod(b"tmp/p", FileKind::Fifo, (0, 0), Ownership::Real).unwrap();
        },
        &["d tmp 1777", "p tmp/p"],
    ),
];

#[test]
fn a_change_is_the_same_whatever_the_driver() {
    let store = Store::new();
    for driver in drivers(&store) {
        let bottom = store.step(&driver, &[], &base);
        let middle = store.step(&driver, std::slice::from_ref(&bottom), &|r| fs::write(r.join("etc/conf/a"), "a").unwrap());
        let lowers = [middle, bottom];
        for (name, work, want) in CASES {
            let layer = store.step(&driver, &lowers, work);
            assert_eq!(changes_of(&layer), *want, "{:?}: {name}", driver.kind());
        }
    }
}

#[test]
fn what_a_copy_puts_is_its_result_whatever_lies_below() {
    let store = Store::new();
    for driver in drivers(&store) {
        let bottom = store.step(&driver, &[], &base);
        let time = Time { secs: 1_000, nanos: 7 };
        // The same file as below with the same time, and with another one.
        for secs in [1_000, 2_000] {
            let put = |r: &Path, secs| {
                fs::remove_file(r.join("etc/motd")).unwrap();
                fs::write(r.join("etc/motd"), "hello").unwrap();
                mode(r.join("etc/motd"), 0o644);
                path::set_times(fs::File::open(r.join("etc/motd")).unwrap(), Time { secs, ..time }).unwrap();
            };
            let middle = store.step(&driver, std::slice::from_ref(&bottom), &|r| put(r, 1_000));
            let lowers = [middle, bottom.clone()];
            let prepared = driver.prepare(&lowers, &store.fresh()).unwrap();
            put(&proc_path(&prepared.root()), secs);
            let layer = prepared.finish(Filled::ByCopy).unwrap();
            assert_eq!(changes_of(&layer), ["d etc 755", "f etc/motd 644 5"], "{:?} {secs}", driver.kind());
        }
    }
}

#[test]
fn a_layer_shows_what_the_step_saw() {
    let store = Store::new();
    for driver in drivers(&store) {
        let bottom = store.step(&driver, &[], &base);
        for (name, work, _) in CASES {
            let seen = std::cell::RefCell::new(Vec::new());
            let layer = store.step(&driver, std::slice::from_ref(&bottom), &|r| {
                work(r);
                *seen.borrow_mut() = listing(&diff::tree(Root::open(r).unwrap()).unwrap());
            });
            let tree = driver.mount_readonly(&[layer, bottom.clone()]).unwrap();
            let after = listing(&diff::tree(tree.root()).unwrap());
            // Which names share an inode is not compared: overlay parts them when one is written, and its inode
            // numbers don't tell while the upper directory is mounted.
            let shared = |s: &&String| s.contains("passwd") || s.contains("etc/new");
            let plain = |l: &[String]| l.iter().filter(|s| !shared(s)).cloned().collect::<Vec<_>>();
            assert_eq!(plain(&after), plain(&seen.borrow()), "{:?}: {name}", driver.kind());
        }
    }
}

#[test]
fn parents_keep_the_time_that_the_step_gave_them() {
    let store = Store::new();
    for driver in drivers(&store) {
        let bottom = store.step(&driver, &[], &base);
        let layer = store.step(&driver, std::slice::from_ref(&bottom), &|r| {
            fs::write(r.join("etc/new"), "").unwrap();
            // Copied up and dropped again by the reduction, which touches the parent.
            mode(r.join("etc/motd"), 0o644);
            set_times(Root::open(&r.join("etc")).unwrap(), Time { secs: 77, nanos: 5 }).unwrap();
        });
        let set = changes(Root::open(&layer).unwrap()).unwrap();
        let Change::Upsert(etc) = &set.entries[0].change else { panic!("{set:?}") };
        assert_eq!(etc.mtime, Time { secs: 77, nanos: 5 }, "{:?}", driver.kind());
    }
}

#[test]
fn names_that_would_delete_files_elsewhere_are_refused() {
    let store = Store::new();
    for driver in drivers(&store) {
        for name in [".wh.etc", "etc/.wh..wh..opq"] {
            let prepared = driver.prepare(&[], &store.fresh()).unwrap();
            let path = proc_path(&prepared.root()).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            let refused = prepared.finish(Filled::ByCommand).unwrap_err();
            assert!(matches!(&refused, SnapshotError::ReservedName { path } if path == name), "{refused}");
        }
    }
}

#[test]
fn a_root_takes_mode_and_owner_from_the_layer_below() {
    let store = Store::new();
    for driver in drivers(&store) {
        let bottom = store.step(&driver, &[], &|r| mode(r.to_owned(), 0o750));
        let top = store.step(&driver, std::slice::from_ref(&bottom), &|r| fs::write(r.join("f"), "").unwrap());
        assert_eq!(changes_of(&bottom), ["d  750"]);
        assert_eq!(changes_of(&top), ["f f 644 0"]);
        let tree = driver.mount_readonly(&[top, bottom]).unwrap();
        assert_eq!(rustix::fs::fstat(tree.root()).unwrap().st_mode & 0o7777, 0o750);
    }
}

#[test]
fn a_layer_that_says_nothing_of_the_root_leaves_it_as_it_is() {
    let store = Store::new();
    for driver in drivers(&store) {
        let bottom = store.step(&driver, &[], &|r| mode(r.to_owned(), 0o750));
        let elsewhere = store.step(&driver, &[], &|r| mode(r.to_owned(), 0o711));
        // As a linked copy, and as a layer that equal content shares: its own directory's root has another mode.
        for below in [vec![], vec![elsewhere]] {
            let top = store.step(&driver, &below, &|r| fs::write(r.join("f"), "").unwrap());
            let lowers = [top, bottom.clone()];
            let tree = driver.mount_readonly(&lowers).unwrap();
            assert_eq!(rustix::fs::fstat(tree.root()).unwrap().st_mode & 0o7777, 0o750);
            assert_eq!(read_dir(tree.root()).unwrap().len(), 1);
            let next = store.step(&driver, &lowers, &|r| {
                assert_eq!(fs::metadata(r).unwrap().permissions().mode() & 0o7777, 0o750);
                fs::write(r.join("g"), "").unwrap();
            });
            assert_eq!(changes_of(&next), ["f g 644 0"]);
        }
    }
}

#[test]
fn a_layer_may_occur_more_than_once() {
    let store = Store::new();
    for driver in drivers(&store) {
        let bottom = store.step(&driver, &[], &base);
        let add = store.step(&driver, std::slice::from_ref(&bottom), &|r| fs::write(r.join("new"), "1").unwrap());
        let remove = store.step(&driver, &[add.clone(), bottom.clone()], &|r| fs::remove_file(r.join("new")).unwrap());
        let twice = [remove.clone(), add.clone(), remove.clone(), add.clone(), bottom.clone()];
        let tree = driver.mount_readonly(&twice).unwrap();
        assert!(!proc_path(&tree.root()).join("new").exists());
        let tree = driver.mount_readonly(&[&[add], &twice[..]].concat()).unwrap();
        assert_eq!(fs::read(proc_path(&tree.root()).join("new")).unwrap(), b"1");
        let layer = store.step(&driver, &twice, &|r| fs::write(r.join("new"), "2").unwrap());
        assert_eq!(changes_of(&layer), ["f new 644 1"]);
    }
}

#[test]
fn more_layers_than_a_mount_takes_are_put_together() {
    // One descriptor a layer while the mount is made: the usual soft limit of 1024 is shared with other tests.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
    let store = Store::new();
    for driver in drivers(&store).into_iter().filter(|d| d.kind() == DriverKind::Overlay) {
        let mut lowers = vec![store.step(&driver, &[], &base)];
        for n in 0..520 {
            let dir = store.fresh();
            fs::write(dir.join(format!("f{n}")), "").unwrap();
            lowers.insert(0, dir);
        }
        let gone = store.fresh();
        overlay::make_whiteout(Root::open(&gone).unwrap(), b"f7").unwrap();
        lowers.insert(0, gone);
        let layer = store.step(&driver, &lowers, &|r| {
            assert_eq!(fs::read_dir(r).unwrap().count(), 6 + 520 - 1);
            fs::write(r.join("etc/conf/a"), "changed").unwrap();
        });
        assert_eq!(changes_of(&layer), ["d etc 755", "d etc/conf 755", "f etc/conf/a 644 7"]);
        let tree = driver.mount_readonly(&lowers).unwrap();
        assert_eq!(read_dir(tree.root()).unwrap().len(), 6 + 520 - 1);
    }
}

#[test]
fn nothing_is_left_in_the_staging_directory_and_nothing_is_mounted() {
    let store = Store::new();
    let staging = store.fresh();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let driver = Driver::detect(&staging, ownership()).unwrap();
    let bottom = store.step(&driver, &[], &base);
    let tree = driver.mount_readonly(std::slice::from_ref(&bottom)).unwrap();
    let prepared = driver.prepare(&[bottom], &store.fresh()).unwrap();
    assert_eq!(mounts(), before);
    drop((tree, prepared));
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
}

#[test]
fn privileged_a_sandbox_gets_a_mount_of_the_root() {
    if !is_real_root() {
        return eprintln_skip("not root");
    }
    let store = Store::new();
    for driver in drivers(&store) {
        let bottom = store.step(&driver, &[], &base);
        for lowers in [vec![], vec![bottom]] {
            let prepared = driver.prepare(&lowers, &store.fresh()).unwrap();
            let mount = prepared.mount_for_sandbox().unwrap();
            fs::write(proc_path(&mount).join("made-in-sandbox"), "").unwrap();
            drop(mount);
            assert_eq!(changes_of(&prepared.finish(Filled::ByCommand).unwrap()), ["f made-in-sandbox 644 0"], "{:?}", driver.kind());
        }
    }
}

#[test]
fn hostile_marks_of_overlay_mean_nothing_as_root() {
    if !is_real_root() {
        return eprintln_skip("not root: trusted.* can't be set");
    }
    let store = Store::new();
    let driver = drivers(&store).remove(0);
    let bottom = store.step(&driver, &[], &base);
    let top = store.fresh();
    fs::create_dir(top.join("etc")).unwrap();
    let etc = Root::open(&top.join("etc")).unwrap();
    for (name, value) in [(&b"trusted.overlay.opaque"[..], &b"y"[..]), (b"trusted.overlay.redirect", b"/usr")] {
        crate::path::set_xattr(&etc, name, value).unwrap();
    }
    let tree = driver.mount_readonly(&[top, bottom]).unwrap();
    assert_eq!(Root::open(&proc_path(&tree.root())).unwrap().read_small(b"etc/motd", 10).unwrap(), b"hello");
}

#[test]
fn the_order_of_a_change_set_is_that_of_a_walk() {
    let mut paths = vec![&b"a-b"[..], b"a", b"a/z", b"a/b/c", b"a/b", b"a0", b"a.b/x", b"a.b"];
    paths.sort_by(|a, b| diff::compare_paths(a, b));
    assert_eq!(paths, [&b"a"[..], b"a/b", b"a/b/c", b"a/z", b"a-b", b"a.b", b"a.b/x", b"a0"]);
}

#[test]
fn trees_deeper_than_descriptors_are_refused_and_not_followed_into_the_ground() {
    let store = Store::new();
    let driver = Driver::copying(&store.fresh(), ownership(), "test");
    let prepared = driver.prepare(&[], &store.fresh()).unwrap();
    let mut at = prepared.root().try_clone_to_owned().unwrap();
    for _ in 0..600 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    rustix::fs::statat(&at, ".", AtFlags::empty()).unwrap();
    assert!(matches!(prepared.finish(Filled::ByCommand), Err(SnapshotError::TooDeep { .. })));
    remove_tree(Root::open(store.dir.path()).unwrap(), b"d2").unwrap();
}
