//! One case or more for each class of attack on an unpacker: names, links, metadata, whiteouts, lengths.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use tar::EntryType;

use super::archive::Archive;
use super::*;
use crate::path::{inspect, printable};

/// Everything beside the target directory, with all that an attack could change.
fn canary(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        let meta = fs::symlink_metadata(&at).unwrap();
        let xattrs = inspect(Root::open(at.parent().unwrap()).unwrap(), at.file_name().unwrap().as_encoded_bytes()).unwrap().1;
        let bytes = if meta.is_file() { fs::read(&at).unwrap() } else { Vec::new() };
        out.push(format!("{at:?} {:o} {}:{} {} {} {xattrs:?} {bytes:?}", meta.mode(), meta.uid(), meta.gid(), meta.nlink(), meta.mtime()));
        if meta.is_dir() {
            todo.extend(fs::read_dir(&at).unwrap().map(|e| e.unwrap().path()));
        }
    }
    out.sort();
    out
}

/// Unpacks on its own into a fresh directory with a canary beside it; the canary must live.
fn unpacked(archive: &[u8], below: Below<'_>) -> std::result::Result<Vec<String>, String> {
    let scratch = Scratch::new();
    let (outside, _) = scratch.dir("outside");
    fs::write(outside.join("x"), "alive").unwrap();
    fs::set_permissions(outside.join("x"), fs::Permissions::from_mode(0o640)).unwrap();
    let before = canary(&outside);
    let (path, root) = scratch.dir("layer");
    let result = unpack(archive, &root, &options(below));
    assert_eq!(canary(&outside), before);
    assert_eq!(fs::read_dir(scratch.0.path()).unwrap().count(), 2, "something was made outside");
    result.map(|_| listing_of(&path)).map_err(|e| e.to_string())
}

fn alone(archive: Archive) -> std::result::Result<Vec<String>, String> {
    unpacked(&archive.end(), Below::Nothing)
}

#[test]
fn names_stay_inside() {
    for name in ["../x", "/../x", "a/../../x", "../../../../../../../../../../x", "/./.././x", "./x", "//x"] {
        assert_eq!(alone(Archive::new().file(name, "1")).unwrap(), ["f x 644 0:0 1"], "{name}");
    }
    for name in ["..", "../..", "/", ".", "./"] {
        assert_eq!(alone(Archive::new().dir(name)).unwrap(), ["d  755 0:0"], "{name}");
    }
}

#[test]
fn the_root_stays_a_directory() {
    for kind in [b'0', b'1', b'2', b'3', b'6'] {
        for name in [".", "./", "/", "a/.."] {
            let refused = alone(Archive::new().entry(kind, name, "/etc")).unwrap_err();
            assert!(refused.ends_with("the root can only be a directory"), "{refused}");
        }
    }
}

#[test]
fn links_never_lead_out() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("x"), "alive").unwrap();
    let out = host.path().to_str().unwrap();
    let before = canary(host.path());
    type Case = (Archive, std::result::Result<&'static [&'static str], &'static str>);
    let cases: Vec<Case> = vec![
        (Archive::new().symlink("l", "..").file("l/new/f", "1"), Ok(&["l l ..", "d new 755 0:0", "f new/f 644 0:0 1"])),
        (Archive::new().symlink("l", "/").file("l/l/l/f", "1"), Ok(&["f f 644 0:0 1", "l l /"])),
        (Archive::new().symlink("l", "l").file("l/f", "1"), Err("walking to `l`")),
        (Archive::new().symlink("a", "b").symlink("b", "a").file("a/f", "1"), Err("walking to `a`")),
        // The last name is replaced, never written through.
        (Archive::new().symlink("f", "/victim").file("f", "1"), Ok(&["f f 644 0:0 1"])),
        (Archive::new().symlink("d", "/victim").dir("d").file("d/f", "1"), Ok(&["d d 755 0:0", "f d/f 644 0:0 1"])),
        // Merged /usr as real images have it.
        (
            Archive::new().dir("usr").dir("usr/lib").symlink("lib", "usr/lib").file("lib/f", "1"),
            Ok(&["l lib usr/lib", "d usr 755 0:0", "d usr/lib 755 0:0", "f usr/lib/f 644 0:0 1"]),
        ),
        (
            Archive::new().symlink("etc", "../../../../../../../../../../etc2").file("etc/f", "1"),
            Ok(&["l etc ../../../../../../../../../../etc2", "d etc2 755 0:0", "f etc2/f 644 0:0 1"]),
        ),
        (Archive::new().file("f", "1").file("f/x", "2"), Err("`f` is not a directory")),
        // Hard links.
        (Archive::new().hardlink("h", "/x"), Err("archive entry `h`: the hard link's target does not exist")),
        (Archive::new().hardlink("h", "../../x"), Err("archive entry `h`: the hard link's target does not exist")),
        (Archive::new().hardlink("h", "."), Err("archive entry `h`: a hard link to the root")),
        (Archive::new().dir("d").hardlink("h", "d"), Err("archive entry `h`: a hard link to a directory")),
        (Archive::new().hardlink("h", "h"), Err("archive entry `h`: the hard link's target does not exist")),
        (Archive::new().file("h", "1").hardlink("h", "h"), Ok(&["f h 644 0:0 1"])),
        (Archive::new().hardlink("h", "f").file("f", "1"), Err("archive entry `h`: the hard link's target does not exist")),
        (Archive::new().symlink("s", "/x").hardlink("h", "s"), Ok(&["l h /x", "h s h"])),
        (Archive::new().symlink("s", "..").hardlink("h", "s/s/s"), Ok(&["l h ..", "h s h"])),
    ];
    for (archive, want) in cases {
        let names = printable(&archive.0).replace("\\x00", "");
        let want = want.map(|l| l.iter().map(|s| s.to_string()).collect::<Vec<_>>()).map_err(str::to_owned);
        assert_eq!(alone(archive), want, "{names}");
    }
    let absolute = Archive::new().symlink("l", out).file("l/f", "1").symlink("m", &format!("{out}/x")).file("m", "1");
    assert!(alone(absolute).unwrap().contains(&"f m 644 0:0 1".to_owned()));
    assert_eq!(canary(host.path()), before);
}

#[test]
fn metadata_never_follows_a_link() {
    let scratch = Scratch::new();
    let (outside, _) = scratch.dir("outside");
    fs::write(outside.join("x"), "alive").unwrap();
    let before = canary(&outside);
    let (path, root) = scratch.dir("layer");
    let x = outside.join("x");
    let x = x.to_str().unwrap();
    let mut link = Archive::header(b'2', "s", x, 0);
    link.set_mode(0o7777);
    link.set_uid(5);
    let archive = Archive::new()
        .pax(&[("SCHILY.xattr.user.evil", b"1"), ("mtime", b"5.5")])
        .push(link, b"")
        .pax(&[("SCHILY.xattr.user.evil", b"1")])
        .hardlink("h", "s")
        .symlink("d", outside.to_str().unwrap())
        .dir("d");
    unpack(archive.end().as_slice(), &root, &options(Below::Nothing)).unwrap();
    assert_eq!(canary(&outside), before);
    assert_eq!(listing_of(&path), ["d d 755 0:0".to_owned(), format!("l h {x}"), "h s h".to_owned()]);
}

#[test]
fn a_whiteout_speaks_of_lower_layers_only() {
    let scratch = Scratch::new();
    let (below_path, below) = scratch.dir("below");
    fs::create_dir(below_path.join("d")).unwrap();
    for name in ["f", "d/x", "d/y"] {
        fs::write(below_path.join(name), "low").unwrap();
    }
    type Case = (Archive, &'static [&'static str]);
    let cases: Vec<Case> = vec![
        (Archive::new().file(".wh.f", ""), &["- f"]),
        (Archive::new().file(".wh.f", "").file(".wh.f", ""), &["- f"]),
        (Archive::new().file("f", "1").file(".wh.f", ""), &["f f 644 0:0 1"]),
        (Archive::new().file(".wh.f", "").file("f", "1"), &["f f 644 0:0 1"]),
        (Archive::new().file(".wh.d", "").dir("d").file("d/z", "1"), &["d d 755 0:0", "o d", "f d/z 644 0:0 1"]),
        (Archive::new().dir("d").file("d/z", "1").file(".wh.d", ""), &["d d 755 0:0", "o d", "f d/z 644 0:0 1"]),
        (Archive::new().dir("d").file("d/z", "1").file("d/.wh..wh..opq", ""), &["d d 755 0:0", "o d", "f d/z 644 0:0 1"]),
        (Archive::new().dir("d").file("d/.wh..wh..opq", "").file("d/z", "1"), &["d d 755 0:0", "o d", "f d/z 644 0:0 1"]),
        // Bookkeeping of aufs, and names that lower layers don't have.
        (Archive::new().file(".wh..wh.plnk", "").file(".wh.nothing", ""), &[]),
        (Archive::new().dir("d").file("d/.wh..wh..opq", "").file("d/.wh.x", ""), &["d d 755 0:0", "o d"]),
        // A removed directory's parent that comes back does not show the old files.
        (Archive::new().file(".wh.d", "").file("d/z", "1"), &["d d 755 0:0", "o d", "f d/z 644 0:0 1"]),
        (Archive::new().file("d", "1").dir("d"), &["d d 755 0:0", "o d"]),
    ];
    for (archive, want) in cases {
        let names = printable(&archive.0).replace("\\x00", "");
        assert_eq!(unpacked(&archive.end(), Below::Tree(&below)).unwrap(), want, "{names}");
    }
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."] {
        let refused = unpacked(&Archive::new().file(name, "").end(), Below::Tree(&below)).unwrap_err();
        assert!(refused.ends_with("is a whiteout of no name"), "{name}: {refused}");
    }
    let refused = unpacked(&Archive::new().file(".wh.d/x", "").end(), Below::Tree(&below)).unwrap_err();
    assert!(refused.ends_with("it lies in a whiteout"), "{refused}");
    let through = Archive::new().symlink("l", "../../outside").file("l/.wh.x", "");
    assert_eq!(unpacked(&through.end(), Below::Nothing).unwrap(), ["l l ../../outside"]);
}

#[test]
fn what_a_layer_says_of_lower_names_goes_through_links_and_stops_at_the_root() {
    let scratch = Scratch::new();
    let (below_path, below) = scratch.dir("below");
    fs::create_dir(below_path.join("d")).unwrap();
    for name in ["f", "d/x", "d/y"] {
        fs::write(below_path.join(name), "low").unwrap();
    }
    symlink("/d", below_path.join("l")).unwrap();
    symlink("/none", below_path.join("dead")).unwrap();
    let refused = |archive: Archive| unpacked(&archive.end(), Below::Tree(&below)).unwrap_err();
    let got = |archive: Archive| unpacked(&archive.end(), Below::Tree(&below)).unwrap();
    let (in_d, all) = (["d d 755 0:0", "- d/x"], ["- d", "- dead", "- f", "- l"]);
    assert_eq!(got(Archive::new().file("l/.wh.x", "")), in_d);
    assert_eq!(got(Archive::new().file("dead/.wh.x", "").file("none/.wh..wh..opq", "").file("f/.wh.x", "")), [""; 0]);
    assert_eq!(got(Archive::new().file(".wh..wh..opq", "")), all);
    assert_eq!(got(Archive::new().dir("d").file(".wh..wh..opq", "")), [&["d d 755 0:0", "o d"], &all[1..]].concat());
    assert_eq!(got(Archive::new().file(".wh..wh..opq", "").dir("d")), [&["d d 755 0:0", "o d"], &all[1..]].concat());
    // A directory that is there only on the way to a whiteout is nothing that the layer has.
    assert_eq!(got(Archive::new().file("d/.wh.x", "").file(".wh.d", "")), ["- d"]);
    // Of a file that was linked to, the name stays gone.
    assert_eq!(got(Archive::new().hardlink("h", "f").file(".wh.f", "")), ["- f", "f h 644 0:0 3"]);
    assert!(refused(Archive::new().file(".wh.f", "").hardlink("h", "f")).ends_with("the hard link's target was removed"));
    assert!(
        refused(Archive::new().dir("d").file("d/.wh..wh..opq", "").hardlink("h", "d/x")).ends_with("the hard link's target was removed")
    );
    assert_eq!(refused(Archive::new().file("f/x", "1")), "`f` is not a directory");
}

#[test]
fn no_id_and_no_length_is_too_large_to_be_refused() {
    let unsigned = |key: &str, value: u64| alone(Archive::new().pax(&[(key, value.to_string().as_bytes())]).file("f", "")).unwrap_err();
    assert_eq!(unsigned("uid", u64::from(u32::MAX)), "malformed archive at byte 1024: uid is no number");
    assert_eq!(unsigned("size", u64::MAX), "malformed archive at byte 1024: size is too large");
    let deep = "n/".repeat(100_000);
    let refused = alone(Archive::new().pax(&[("path", deep.as_bytes())]).file("f", "")).unwrap_err();
    assert!(refused.starts_with("walking to `n/n/") && refused.len() < 5000, "{} bytes", refused.len());
}

#[test]
fn overlays_control_data_is_dropped() {
    if !is_root() {
        return skip("files of ours are not 0:0");
    }
    let mut records: Vec<(String, &[u8])> = Vec::new();
    for family in ["trusted", "user"] {
        for name in ["opaque", "redirect", "metacopy", "origin", "whiteout", "impure", "nlink"] {
            records.push((format!("SCHILY.xattr.{family}.overlay.{name}"), b"y"));
        }
    }
    records.push(("SCHILY.xattr.user.plywood.stat".to_owned(), b"5:5"));
    records.push(("SCHILY.xattr.user.plywood.root".to_owned(), b"y"));
    records.push(("SCHILY.xattr.user.kept".to_owned(), b"v"));
    records.sort();
    let records: Vec<(&str, &[u8])> = records.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let archive = Archive::new().pax(&records).dir("d").pax(&records).file("f", "1").device(b'3', "gone", 0, 0);
    let scratch = Scratch::new();
    let (path, root) = scratch.dir("layer");
    unpack(archive.end().as_slice(), &root, &options(Below::Unknown)).unwrap();
    assert_eq!(listing_of(&path), ["d d 755 0:0 user.kept=v", "f f 644 0:0 user.kept=v 1"]);
    for name in ["d", "f"] {
        let fd = root.resolve_nofollow(name.as_bytes()).unwrap();
        for attribute in [&b"user.overlay.opaque"[..], b"user.overlay.redirect", b"trusted.overlay.redirect", b"user.plywood.stat"] {
            assert_eq!(crate::path::get_xattr(&fd, attribute).unwrap(), None, "{name}");
        }
    }
}

#[test]
fn a_layer_that_needs_lower_files_says_so_or_takes_them() {
    if !is_root() {
        return skip("files of ours are not 0:0");
    }
    let scratch = Scratch::new();
    let (below_path, below) = scratch.dir("below");
    fs::create_dir_all(below_path.join("usr/lib")).unwrap();
    fs::set_permissions(below_path.join("usr"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(below_path.join("usr/lib/f"), "low").unwrap();
    symlink("usr/lib", below_path.join("lib")).unwrap();
    let cases: [(Archive, &[&str]); 4] = [
        // The link's target comes along, so that both names share an inode.
        (
            Archive::new().dir("usr").hardlink("usr/h", "usr/lib/f"),
            &["d usr 755 0:0", "f usr/h 644 0:0 3", "d usr/lib 755 0:0", "h usr/lib/f usr/h"],
        ),
        // Parents that nobody named look as they did, and lead through the links of the lower layers.
        (Archive::new().file("usr/lib/g", "1"), &["d usr 711 0:0", "d usr/lib 755 0:0", "f usr/lib/g 644 0:0 1"]),
        (Archive::new().file("lib/g", "1"), &["d usr 711 0:0", "d usr/lib 755 0:0", "f usr/lib/g 644 0:0 1"]),
        (Archive::new().file(".wh.lib", "").file("lib/g", "1"), &["d lib 755 0:0", "o lib", "f lib/g 644 0:0 1"]),
    ];
    for (archive, want) in cases {
        let bytes = archive.end();
        assert_eq!(unpacked(&bytes, Below::Tree(&below)).unwrap(), want);
        let refused = unpacked(&bytes, Below::Unknown).unwrap_err();
        assert!(refused.ends_with("refers to a file of a lower layer"), "{refused}");
    }
}

#[test]
fn damaged_archives_are_errors_and_never_passed_over() {
    let mut flipped = Archive::new().file("f", "1").end();
    flipped[0] ^= 1;
    let mut cut = Archive::new().file("f", "data").end();
    cut.truncate(514);
    let long = "a".repeat(90);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("checksum", flipped, "malformed archive at byte 0: header checksum is wrong"),
        ("cut in the data", cut, "the archive ends within `f`"),
        ("cut in a header", Archive::new().file("f", "").0[..100].to_vec(), "the archive ends within ``"),
        ("no tar", vec![b'x'; 2048], "malformed archive at byte 0: no tar header"),
        (
            "one empty block",
            [vec![0; 512], Archive::new().file("f", "").0].concat(),
            "malformed archive at byte 0: data after an empty block",
        ),
        (
            "pax without length",
            Archive::new().extension(b'x', b"path=/x\n").file("f", "").end(),
            "malformed archive at byte 0: damaged PAX record",
        ),
        (
            "pax too long",
            Archive::new().extension(b'x', b"99 path=x\n").file("f", "").end(),
            "malformed archive at byte 0: damaged PAX record",
        ),
        (
            "pax without newline",
            Archive::new().extension(b'x', b"8 path=x").file("f", "").end(),
            "malformed archive at byte 0: damaged PAX record",
        ),
        ("pax size", Archive::new().pax(&[("size", b"-1")]).file("f", "").end(), "malformed archive at byte 0: PAX value is no number"),
        (
            "pax zero byte",
            Archive::new().pax(&[("path", b"a\0b")]).file("f", "").end(),
            "malformed archive at byte 1024: a name holds a zero byte",
        ),
        (
            "global path",
            Archive::new().extension(b'g', b"10 path=x\n").file("f", "").end(),
            "malformed archive at byte 0: global PAX header sets names or sizes",
        ),
        (
            "two long names",
            Archive::new().extension(b'L', long.as_bytes()).pax(&[("path", b"other")]).file("f", "").end(),
            "malformed archive at byte 2048: GNU and PAX names contradict each other",
        ),
        ("sparse", Archive::new().entry(b'S', "f", "").end(), "archive entry `f`: sparse files of GNU tar are not supported"),
        ("unknown", Archive::new().entry(b'Z', "f", "").end(), "archive entry `f`: unknown type"),
    ];
    for (name, bytes, want) in cases {
        assert_eq!(unpacked(&bytes, Below::Nothing).unwrap_err(), want, "{name}");
    }
}

#[test]
fn a_pax_size_wins_so_that_no_reader_sees_other_entries() {
    // CVE-2025-62518: by the ustar size (0) the file's data would be read as entries.
    let inner = Archive::new().file("smuggled", "x").0;
    let size = inner.len().to_string();
    let archive = Archive::new().pax(&[("size", size.as_bytes())]).push(Archive::header(b'0', "f", "", 0), &inner).file("g", "1");
    assert_eq!(alone(archive).unwrap(), [format!("f f 644 0:0 {size}"), "f g 644 0:0 1".to_owned()]);
}

#[test]
fn lengths_in_an_archive_allocate_nothing() {
    for (kind, size) in [(b'x', u64::MAX / 2), (b'L', 2 << 30), (b'K', 2 << 30), (b'g', 2 << 30)] {
        let mut h = Archive::header(kind, "ext", "", 0);
        h.set_size(size);
        let refused = alone(Archive::new().push(h, b"")).unwrap_err();
        assert_eq!(refused, "malformed archive at byte 0: extension header is larger than 1 MiB");
    }
    let mut h = Archive::header(b'0', "f", "", 0);
    h.set_size(8 << 60);
    assert_eq!(alone(Archive::new().push(h, b"")).unwrap_err(), "the archive holds more than 274877906944 bytes");
    let scratch = Scratch::new();
    let (_, root) = scratch.dir("layer");
    let limits = Limits { max_bytes: 3, max_entries: 2 };
    let limited = UnpackOptions { limits, ..options(Below::Nothing) };
    let four = Archive::new().file("a", "12").file("b", "34").end();
    assert!(matches!(unpack(four.as_slice(), &root, &limited), Err(LayerError::TooLarge { limit: 3, unit: "bytes" })));
    let three = Archive::new().dir("a").dir("b").dir("c").end();
    assert!(matches!(unpack(three.as_slice(), &root, &limited), Err(LayerError::TooLarge { limit: 2, unit: "entries" })));
}

#[test]
fn a_stream_that_fails_is_an_error_and_ends() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let archive = Archive::new().file("f", &"x".repeat(4000)).0;
            let n = buf.len().min(100);
            if self.0 + n > archive.len() {
                return Err(io::Error::other("broken"));
            }
            buf[..n].copy_from_slice(&archive[self.0..self.0 + n]);
            self.0 += n;
            Ok(n)
        }
    }
    let scratch = Scratch::new();
    let (_, root) = scratch.dir("layer");
    assert!(unpack(Failing(0), &root, &options(Below::Nothing)).is_err());
}

#[test]
fn privileged_setuid_and_capabilities_survive_their_owner() {
    if ownership() != Ownership::Real {
        return skip("not root");
    }
    let capability: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut suid = Archive::header(b'0', "s", "", 1);
    suid.set_mode(0o4755);
    suid.set_uid(33);
    let mut ping = Archive::header(b'0', "ping", "", 1);
    ping.set_gid(44);
    let archive = Archive::new().push(suid, b"1").pax(&[("SCHILY.xattr.security.capability", capability)]).push(ping, b"1");
    let got = alone(archive.device(b'3', "null", 1, 3).device(b'4', "disk", 8, 1).entry(b'6', "pipe", "")).unwrap();
    let cap = printable(capability);
    let want = [
        "b disk 644 0:0 8,1".to_owned(),
        "c null 644 0:0 1,3".to_owned(),
        format!("f ping 644 0:44 security.capability={cap} 1"),
        "p pipe 644 0:0".to_owned(),
        "f s 4755 33:0 1".to_owned(),
    ];
    assert_eq!(got, want);
}

#[test]
fn with_one_id_owners_and_devices_are_recorded_and_read_back() {
    let scratch = Scratch::new();
    let (path, root) = scratch.dir("layer");
    let mut suid = Archive::header(b'0', "s", "", 1);
    suid.set_mode(0o4755);
    suid.set_uid(33);
    let archive = Archive::new().push(suid, b"1").device(b'3', "null", 1, 3).dir("d");
    let recorded = UnpackOptions { ownership: Ownership::Recorded, ..options(Below::Nothing) };
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unpack(archive.end().as_slice(), &root, &recorded).unwrap();
    assert_eq!(fs::metadata(path.join("s")).unwrap().uid(), me.0);
    if me == (0, 0) {
        assert_eq!(listing_of(&path), ["d d 755 0:0", "c null 644 0:0 1,3", "f s 4755 33:0 1"]);
    }
    assert_eq!(EntryType::new(b'3'), EntryType::Char);
}
