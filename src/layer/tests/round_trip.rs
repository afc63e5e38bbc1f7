//! Written and read back: by ourselves, by GNU tar, by Python.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;
use crate::digest::Digest;
use crate::path::{FileKind, Time, set_owner, set_times, set_xattr};
use crate::snapshot::overlay;

/// A layer directory with everything that a layer can hold.
fn everything(dir: &Path) {
    let root = Root::open(dir).unwrap();
    fs::create_dir_all(dir.join("etc/deep")).unwrap();
    fs::set_permissions(dir.join("etc"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(dir.join("etc/f"), "text").unwrap();
    fs::write(dir.join("etc/empty"), "").unwrap();
    fs::write(dir.join("etc/deep/big"), vec![7; 700_000]).unwrap();
    fs::write(dir.join("etc/suid"), "x").unwrap();
    fs::hard_link(dir.join("etc/f"), dir.join("zz-hard")).unwrap();
    symlink("../etc/f", dir.join("etc/link")).unwrap();
    symlink("t".repeat(150), dir.join("long-target")).unwrap();
    let long = dir.join("n".repeat(120)).join("m".repeat(160));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("leaf"), "1").unwrap();
    fs::create_dir_all(dir.join("p".repeat(90))).unwrap();
    fs::write(dir.join("p".repeat(90)).join("q".repeat(60)), "1").unwrap();
    fs::write(dir.join("grün"), "1").unwrap();
    fs::write(dir.join(std::ffi::OsStr::from_bytes(b"raw\xff")), "1").unwrap();
    root.mknod(b"fifo", FileKind::Fifo, (0, 0), Ownership::Real).unwrap();
    set_xattr(root.resolve(b"etc/f").unwrap(), b"user.note", b"a\0b\n=").unwrap();
    let suid = root.resolve(b"etc/suid").unwrap();
    set_owner(&suid, 4_000_000, 33, ownership()).unwrap();
    fs::set_permissions(dir.join("etc/suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    set_times(root.resolve(b"etc/empty").unwrap(), Time { secs: -100, nanos: 0 }).unwrap();
    overlay::make_whiteout(root.resolve(b"etc").unwrap(), b"gone").unwrap();
    fs::create_dir(dir.join("opaque")).unwrap();
    overlay::set_opaque(root.resolve(b"opaque").unwrap()).unwrap();
}

#[test]
fn a_layer_comes_back_from_its_tar() {
    let scratch = Scratch::new();
    let (a, _) = scratch.dir("a");
    everything(&a);
    let tar = tar_of(&a, None);
    assert_eq!(tar, tar_of(&a, None));
    let (b, root) = scratch.dir("b");
    let done = unpack(tar.as_slice(), &root, &options(Below::Unknown)).unwrap();
    assert_eq!(done.diff_id.as_bytes(), Digest::of(&tar).as_bytes());
    assert_eq!(done.tar_size_bytes, tar.len() as u64);
    assert_eq!(listing_of(&b), listing_of(&a));
    assert_eq!(tar_of(&b, None), tar, "a second writing differs");
    let ours = changes(&root).unwrap();
    let digests = digest(&ours, &root, None).unwrap();
    assert_eq!((digests.diff_id, digests.tar_size_bytes), (done.diff_id, tar.len() as u64));
}

#[test]
fn the_digest_is_of_the_content_and_not_of_times_or_place() {
    let scratch = Scratch::new();
    let make = |name: &str| {
        let (path, root) = scratch.dir(name);
        fs::create_dir(path.join("d")).unwrap();
        fs::write(path.join("d/f"), "text").unwrap();
        (path, root)
    };
    let of = |root: &Root| digest(&changes(root).unwrap(), root, Some(5)).unwrap();
    let (_, first) = make("first");
    let want = of(&first);
    let (other, root) = make("other");
    set_times(root.resolve(b"d/f").unwrap(), Time { secs: 9999, nanos: 9 }).unwrap();
    // Times above the clamp are equal; below it they part the diff ID but not the content.
    assert_eq!(of(&root), want);
    set_times(root.resolve(b"d/f").unwrap(), Time { secs: 1, nanos: 0 }).unwrap();
    assert_eq!(of(&root).content, want.content);
    assert_ne!(of(&root).diff_id, want.diff_id);
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let each: [Change<'_>; 9] = [
        ("bytes", &|p| fs::write(p.join("d/f"), "texT").unwrap()),
        ("size", &|p| fs::write(p.join("d/f"), "text!").unwrap()),
        ("mode", &|p| fs::set_permissions(p.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap()),
        ("directory mode", &|p| fs::set_permissions(p.join("d"), fs::Permissions::from_mode(0o700)).unwrap()),
        ("name", &|p| fs::rename(p.join("d/f"), p.join("d/g")).unwrap()),
        ("owner", &|p| set_owner(Root::open(p).unwrap().resolve(b"d/f").unwrap(), 7, 0, Ownership::Recorded).unwrap()),
        ("attribute", &|p| set_xattr(Root::open(p).unwrap().resolve(b"d/f").unwrap(), b"user.a", b"").unwrap()),
        ("whiteout", &|p| overlay::make_whiteout(Root::open(p).unwrap().resolve(b"d").unwrap(), b"w").unwrap()),
        ("opaque", &|p| overlay::set_opaque(Root::open(p).unwrap().resolve(b"d").unwrap()).unwrap()),
    ];
    let mut seen = std::collections::BTreeSet::from([want.content]);
    for (name, change) in each {
        let (path, root) = make(name);
        change(&path);
        assert!(seen.insert(of(&root).content), "{name} does not count");
    }
    drop(other);
}

#[test]
fn an_empty_layer_has_the_digests_of_an_empty_tar() {
    let scratch = Scratch::new();
    let (_, root) = scratch.dir("empty");
    let empty = changes(&root).unwrap();
    let digests = digest(&empty, &root, None).unwrap();
    assert_eq!(digests, write_and_digest(&empty, &root, None, &mut std::io::sink()).unwrap());
    assert_eq!(digests.diff_id.to_string(), "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
}

#[test]
fn big_and_small_layers_have_one_digest_whatever_the_threads() {
    let scratch = Scratch::new();
    let (path, root) = scratch.dir("big");
    for (name, len) in [("a", 0), ("b", 1), ("c", 511), ("d", 512), ("e", 3_000_000)] {
        fs::write(path.join(name), vec![b'x'; len]).unwrap();
    }
    let set = changes(&root).unwrap();
    let mut tar = Vec::new();
    let digests = write_and_digest(&set, &root, None, &mut tar).unwrap();
    assert_eq!(digests.diff_id.as_bytes(), Digest::of(&tar).as_bytes());
    assert_eq!(digests.tar_size_bytes, tar.len() as u64);
    assert_eq!(digests, digest(&set, &root, None).unwrap());
    assert_eq!(tar, tar_of(&path, None));
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let scratch = Scratch::new();
    let (path, root) = scratch.dir("layer");
    fs::write(path.join("f"), "text").unwrap();
    let set = changes(&root).unwrap();
    fs::write(path.join("f"), "te").unwrap();
    assert!(matches!(digest(&set, &root, None), Err(LayerError::Changed { path }) if path == "f"));
}

#[test]
fn gnu_tar_and_python_read_ours() {
    if is_root() && !is_real_root() {
        return skip("GNU tar fails on owners that are not mapped");
    }
    let scratch = Scratch::new();
    let (a, _) = scratch.dir("a");
    everything(&a);
    let file = scratch.0.path().join("layer.tar");
    fs::write(&file, tar_of(&a, None)).unwrap();
    let (b, _) = scratch.dir("b");
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]).arg(&file).arg("-C").arg(&b);
    match tar.output() {
        Err(e) => return skip(&format!("tar: {e}")),
        Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)),
    }
    // To GNU tar a whiteout is a file of that name.
    let plain = |l: Vec<String>| l.into_iter().filter(|s| !s.contains("gone") && !s.contains("opaque")).collect::<Vec<_>>();
    let real = if is_real_root() { plain(listing_of(&a)) } else { Vec::new() };
    if is_real_root() {
        assert_eq!(plain(listing_of(&b)), real);
    }
    assert!(b.join("etc/.wh.gone").exists() && b.join("opaque/.wh..wh..opq").exists());
    let script = "import sys,tarfile\nt=tarfile.open(sys.argv[1])\nprint(len(t.getmembers()), int(t.getmember('etc/empty').mtime), t.getmember('etc/suid').uid)";
    match Command::new("python3").arg("-c").arg(script).arg(&file).output() {
        Err(e) => skip(&format!("python3: {e}")),
        Ok(out) => {
            let count = listing_of(&a).len();
            assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{count} -100 4000000\n"), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}

#[test]
fn we_read_what_gnu_tar_writes_in_each_of_its_formats() {
    let scratch = Scratch::new();
    let (a, root) = scratch.dir("a");
    everything(&a);
    // GNU tar knows nothing of overlay's marks; v7 and ustar have no long names, xattrs or big ids.
    fs::remove_file(a.join("etc/gone")).unwrap();
    fs::remove_dir(a.join("opaque")).unwrap();
    let want_full = listing_of(&a);
    for format in ["gnu", "posix"] {
        let file = scratch.0.path().join(format);
        let mut tar = Command::new("tar");
        tar.args(["--xattrs", "--numeric-owner", &format!("--format={format}"), "--sort=name", "-cf"])
            .arg(&file)
            .arg("-C")
            .arg(&a)
            .arg(".");
        if format == "gnu" {
            tar.args(["--no-xattrs"]);
        }
        match tar.output() {
            Err(e) => return skip(&format!("tar: {e}")),
            Ok(out) => assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr)),
        }
        let (b, to) = scratch.dir(&format!("out-{format}"));
        unpack(fs::File::open(&file).unwrap(), &to, &options(Below::Nothing)).unwrap();
        let mut want = want_full.clone();
        want.insert(0, "d  755 0:0".to_owned());
        if format == "gnu" {
            want.iter_mut().for_each(|l| *l = l.replace(" user.note=a\\x00b\\n=", ""));
        }
        if is_real_root() {
            assert_eq!(listing_of(&b), want, "{format}");
        }
    }
    drop(root);
}

#[test]
fn a_tree_flattens_to_one_tar() {
    let scratch = Scratch::new();
    let (a, root) = scratch.dir("a");
    fs::create_dir(a.join("d")).unwrap();
    fs::write(a.join("d/f"), "1").unwrap();
    let mut tar = Vec::new();
    let bytes = flatten(&[Placed { below: String::new(), dir: root.as_fd() }], Some(0), &mut tar).unwrap();
    assert_eq!(bytes, tar.len() as u64);
    let mut reader = TarReader::new(tar.as_slice());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(format!("{} {}", printable_name(&entry.path), entry.mtime.secs));
    }
    assert_eq!(names, ["./ 0", "d/ 0", "d/f 0"]);
}

fn printable_name(name: &[u8]) -> String {
    crate::path::printable(name)
}

#[test]
fn an_archive_extracts_into_a_tree_file_by_file() {
    if !is_root() {
        return skip("files of ours are not 0:0");
    }
    use super::archive::Archive;
    let scratch = Scratch::new();
    let (a, root) = scratch.dir("root");
    fs::create_dir_all(a.join("srv/old")).unwrap();
    fs::write(a.join("srv/f"), "old").unwrap();
    fs::write(a.join("srv/keep"), "kept").unwrap();
    fs::hard_link(a.join("srv/f"), a.join("other-name")).unwrap();
    symlink("srv", a.join("dest")).unwrap();
    let archive = Archive::new()
        .file("f", "new")
        .file("sub/deep/g", "1")
        .file("old", "a file now")
        .file("../up", "clamped")
        .symlink("abs", "/etc/x")
        .hardlink("hard", "/f")
        .file(".wh.keep", "means nothing");
    let options = ExtractOptions { owner: Some((0, 0)), ownership: ownership(), limits: Limits::default() };
    let done = extract(archive.end().as_slice(), &root, b"dest/", &options).unwrap();
    assert_eq!((done.entries, done.bytes), (7, 3 + 1 + 10 + 7 + 13));
    let got: Vec<String> = listing_of(&a).into_iter().map(|l| l.replace(" 0:0", "")).collect();
    let want = [
        "l dest srv",
        "f other-name 644 3",
        "d srv 755",
        "f srv/.wh.keep 644 13",
        "l srv/abs /etc/x",
        "f srv/f 644 3",
        "h srv/hard srv/f",
        "f srv/keep 644 4",
        "f srv/old 644 10",
        "d srv/sub 755",
        "d srv/sub/deep 755",
        "f srv/sub/deep/g 644 1",
        "f srv/up 644 7",
    ];
    assert_eq!(got, want);
    assert_eq!(fs::read(a.join("other-name")).unwrap(), b"old", "written through a hard link");
}
