//! Lists of files: what differs between two, and their compact form.

use super::*;

fn list(entries: &[(&str, u32, u32, u8, &str)]) -> FileList {
    FileList::of(entries.iter().map(|(path, mode, uid, content, link)| {
        let content = Some(ContentDigest::from_bytes([*content; 32]));
        (path.as_bytes(), FileEntry { mode: *mode, uid: *uid, content, link: link.as_bytes(), ..FileEntry::default() })
    }))
}

#[test]
fn each_kind_of_change_is_told_apart() {
    let old = list(&[
        ("content", 0o100_644, 0, 1, ""),
        ("gone", 0o100_644, 0, 1, ""),
        ("link", 0o120_777, 0, 0, "a"),
        ("mode", 0o100_644, 0, 1, ""),
        ("owner", 0o100_644, 0, 1, ""),
        ("same", 0o100_644, 0, 1, ""),
        ("type", 0o100_644, 0, 1, ""),
    ]);
    let new = list(&[
        ("content", 0o100_600, 1, 2, ""),
        ("link", 0o120_777, 0, 0, "b"),
        ("mode", 0o100_755, 0, 1, ""),
        ("new", 0o100_644, 0, 1, ""),
        ("owner", 0o100_644, 7, 1, ""),
        ("same", 0o100_644, 0, 1, ""),
        ("type", 0o040_755, 0, 0, ""),
    ]);
    let want = [
        ("content", FileChange::Content),
        ("gone", FileChange::Removed),
        ("link", FileChange::Link { old: "a".into(), new: "b".into() }),
        ("mode", FileChange::Mode { old: 0o644, new: 0o755 }),
        ("new", FileChange::Added),
        ("owner", FileChange::Owner { old: (0, 0), new: (7, 0) }),
        ("type", FileChange::Type { old: "file".into(), new: "directory".into() }),
    ];
    assert_eq!(new.changes_since(&old), want.map(|(p, c)| (Name::from(p), c)));
    assert_eq!(new.changes_since(&new), []);
    let none = FileList::default();
    assert!(new.changes_since(&none).iter().all(|(_, c)| *c == FileChange::Added));
    assert_eq!(none.changes_since(&new).len(), new.len());
}

#[test]
fn attributes_and_links_are_told_by_name() {
    let file = |path: &'static str, xattrs, flags: (bool, bool)| {
        let (hard_linked, implied) = flags;
        (path.as_bytes(), FileEntry { mode: 0o100_644, xattrs, hard_linked, implied, ..FileEntry::default() })
    };
    let attribute = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let (a1, a2, ab) = ([attribute("user.a", "1")], [attribute("user.a", "2")], [attribute("user.a", "1"), attribute("user.b", "1")]);
    let none = (false, false);
    let old = FileList::of([
        file("added", &[], none),
        file("hard", &[], none),
        file("implied", &[], none),
        file("removed", &ab, none),
        file("same", &ab, (true, true)),
        file("value", &a1, none),
    ]);
    let new = FileList::of([
        file("added", &a1, none),
        file("hard", &[], (true, false)),
        file("implied", &[], (false, true)),
        file("removed", &a1, none),
        file("same", &ab, (true, true)),
        file("value", &a2, none),
    ]);
    let xattr = |name: &str, change| FileChange::Xattr { name: name.into(), change };
    let want = [
        ("added", xattr("user.a", XattrChange::Added)),
        ("hard", FileChange::HardLink),
        ("implied", FileChange::Implied),
        ("removed", xattr("user.b", XattrChange::Removed)),
        ("value", xattr("user.a", XattrChange::Value)),
    ];
    assert_eq!(new.changes_since(&old), want.map(|(p, c)| (Name::from(p), c)));
    assert_eq!(FileList::decode(&new.encode()), Some(new));
}

#[test]
fn files_may_come_in_any_order_and_the_last_of_a_name_counts() {
    // A walk's order: what is in `a` comes before `a.c`, whose name is the smaller string.
    let walked =
        list(&[("a", 0o040_755, 0, 0, ""), ("a/b", 0o100_644, 0, 1, ""), ("a.c", 0o100_644, 0, 9, ""), ("a.c", 0o100_644, 0, 2, "")]);
    let sorted = list(&[("a", 0o040_755, 0, 0, ""), ("a.c", 0o100_644, 0, 2, ""), ("a/b", 0o100_644, 0, 1, "")]);
    assert_eq!(walked, sorted);
    assert_eq!((walked.len(), FileList::decode(&walked.encode())), (3, Some(sorted)));
}

#[test]
fn the_compact_form_gives_the_list_back_and_rubbish_gives_none() {
    let some = list(&[("", 0o040_755, 0, 0, ""), ("a", 0o100_644, 4_294_967_294, 9, ""), ("l", 0o120_777, 0, 0, "t")]);
    for l in [&FileList::default(), &some] {
        assert_eq!(FileList::decode(&l.encode()).as_ref(), Some(l));
    }
    assert_eq!(FileList::decode(b""), None);
    assert_eq!(FileList::decode(&zstd::bulk::compress(b"\x05abc", 1).unwrap()), None);
    // Two entries, the second one before the first.
    let mut w = Writer::default();
    w.raw(&FORM);
    w.number(2);
    for path in [b"b", b"a"] {
        Kept { path, mode: 0, uid: 0, gid: 0, flags: 0, content: [0; CUT_BYTES], link: b"", xattrs: Vec::new() }.write(&mut w);
    }
    assert_eq!(FileList::decode(&zstd::bulk::compress(&w.0, 1).unwrap()), None);
}

#[test]
fn a_name_survives_json_whatever_its_bytes() {
    for bytes in [&b"a/b"[..], b"", b"\xff\n", "\u{e9}".as_bytes()] {
        let name = Name::from(bytes);
        let text = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<Name>(&text).unwrap(), name, "{text}");
    }
}
