//! What a file is born with, and what an archive says: the archive's word counts, wherever the file is made.

use std::os::unix::fs::chown;

use super::archive::Archive;
use super::*;

const MODES: [u32; 8] = [0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o444, 0];
const OWNERS: [(u32, u32); 4] = [(0, 0), (33, 0), (0, 44), (33, 44)];

#[test]
fn privileged_owner_and_mode_are_the_archives_whatever_a_directory_hands_on() {
    if ownership() != Ownership::Real {
        return skip("not root");
    }
    // Each twice: the second one is made as the first one taught.
    let wanted: Vec<(u32, (u32, u32))> = [MODES, MODES].concat().into_iter().flat_map(|mode| OWNERS.map(|owner| (mode, owner))).collect();
    let mut archive = Archive::new();
    for (n, (mode, (uid, gid))) in wanted.iter().enumerate() {
        let mut h = Archive::header(b'0', &format!("f{n:02}"), "", 1);
        h.set_mode(*mode);
        h.set_uid((*uid).into());
        h.set_gid((*gid).into());
        archive = archive.push(h, b"x");
    }
    let bytes = archive.end();
    let want: Vec<String> = wanted.iter().enumerate().map(|(n, (mode, (u, g)))| format!("f f{n:02} {mode:o} {u}:{g} 1")).collect();
    for (group, mode) in [(0, 0o755), (44, 0o2777)] {
        let scratch = Scratch::new();
        let (path, root) = scratch.dir("layer");
        chown(&path, Some(0), Some(group)).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        unpack(bytes.as_slice(), &root, &options(Below::Nothing)).unwrap();
        assert_eq!(listing_of(&path), want, "{mode:o}");
    }
}

#[test]
fn the_last_entry_of_a_name_counts_and_directories_merge() {
    if !is_root() {
        return skip("files of ours are not 0:0");
    }
    let a = Archive::new;
    let cases: [(&str, Archive, &[&str]); 7] = [
        ("file, file", a().file("f", "12").file("f", "1"), &["f f 644 0:0 1"]),
        ("link, file", a().symlink("f", "/etc/passwd").file("f", "1"), &["f f 644 0:0 1"]),
        ("directory, file", a().dir("f").file("f/a", "1").file("f", "1"), &["f f 644 0:0 1"]),
        ("file, directory", a().file("d", "1").dir("d").file("d/a", "1"), &["d d 755 0:0", "f d/a 644 0:0 1"]),
        ("link, directory", a().symlink("d", "/etc").dir("d").file("d/a", "1"), &["d d 755 0:0", "f d/a 644 0:0 1"]),
        ("directory, directory", a().dir("d").file("d/a", "1").dir("d"), &["d d 755 0:0", "f d/a 644 0:0 1"]),
        // The first name's bytes stay with the other one.
        ("linked, file", a().file("f", "12").hardlink("g", "f").file("f", "1"), &["f f 644 0:0 1", "f g 644 0:0 2"]),
    ];
    for (name, archive, want) in cases {
        let scratch = Scratch::new();
        let (path, root) = scratch.dir("layer");
        unpack(archive.end().as_slice(), &root, &options(Below::Nothing)).unwrap();
        assert_eq!(listing_of(&path), want, "{name}");
    }
}
