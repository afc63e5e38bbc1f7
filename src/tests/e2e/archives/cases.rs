//! The hostile archives, a class of `safety.md` (section 1A) after the other.
//!
//! Each is a list of entries whose effect the model tells, or bytes with the entries that they mean; where they mean none, they
//! are refused. What aims at the host aims at the canary, whose path is the same in every configuration.

use super::tar::{Entry, Form, archive, device, dir, entry, file, hardlink, symlink};

/// A hostile archive.
#[derive(Clone)]
pub struct Case {
    pub class: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
    pub verdict: Verdict,
}

/// What shall become of an archive.
#[derive(Clone)]
pub enum Verdict {
    /// It says this: the model tells what it becomes, perhaps a refusal.
    Means(Vec<Entry>),
    /// It is refused, and the message holds a text.
    Refused(&'static str),
    /// It depends on the way in, the user or the file system; no harm is done.
    Either,
}

/// An archive that a reader understands: the model has the word.
pub fn case(class: &'static str, name: impl Into<String>, entries: Vec<Entry>) -> Case {
    let entries: Vec<Entry> = [vec![dir("first")], entries].concat();
    Case { class, name: name.into(), bytes: archive(&entries), verdict: Verdict::Means(entries) }
}

/// What all layers lie upon: a small root file system with links to everywhere.
pub fn base(canary: &str) -> Vec<Entry> {
    let up = format!("{}{canary}", "../".repeat(12));
    let mut base = vec![dir("etc"), file("etc/passwd", "base"), file("etc/unbroken", "base"), dir("keep"), dir("keep/sub")];
    base.extend([
        file("keep/a", "a"),
        file("keep/sub/b", "b"),
        dir("usr"),
        dir("usr/lib"),
        file("usr/lib/lib.so", "lib"),
        dir("run"),
        dir("var"),
    ]);
    base.extend([dir("d"), file("d/x", "x"), file("d/y", "y"), dir("d/sub"), file("d/sub/z", "z"), file("plain", "plain"), dir("empty")]);
    base.extend([
        symlink("lib", "usr/lib"),
        symlink("var/run", "/run"),
        symlink("localetc", "/etc"),
        symlink("dead", "/dne"),
        symlink("loop", "loop"),
    ]);
    base.extend([
        symlink("out", canary),
        symlink("up", up),
        symlink("top", "/"),
        symlink("secret", format!("{canary}/secret")),
        hardlink("hard", "plain"),
    ]);
    base
}

/// All generated ones.
pub fn all(canary: &str) -> Vec<Case> {
    let mut all = names(canary);
    all.extend(links(canary));
    all.extend(links_of_the_base());
    all.extend(hard_links(canary));
    all.extend(metadata(canary));
    all.extend(parents(canary));
    all.extend(roots());
    all.extend(whiteouts(canary));
    all.extend(overlay());
    all.extend(order());
    all.extend(helpers(canary));
    all.extend(super::bytes::all(canary));
    all
}

fn names(canary: &str) -> Vec<Case> {
    let up = format!("{}{canary}/pwn", "../".repeat(50));
    let list = [
        "../pwn",
        "/../pwn",
        "a/../../pwn",
        "../../../../../../../../../../pwn",
        "/./.././pwn",
        "//pwn",
        "///..//..///pwn",
        "./pwn",
        ".//./pwn",
        "etc/../pwn",
        "etc/./../../pwn",
        "etc/passwd/../pwn",
        "nothing/../pwn",
        "..pwn",
        "...",
        "....//pwn",
        "..\\..\\pwn",
        "C:\\pwn",
        "\\pwn",
        "pwn\n",
        " pwn",
        "~/pwn",
        "$HOME/pwn",
        "%2e%2e/pwn",
        "pwn/",
        "pwn//",
        "-rf",
        "--",
        ".wh",
        "a/..../pwn",
        "\u{202e}nwp",
        "\u{2215}pwn",
        "tmp/../../tmp/pwn",
        "proc/self/root/pwn",
        "proc/self/cwd/../pwn",
        "dev/shm/pwn",
    ];
    let mut out = Vec::new();
    for (n, name) in list.iter().map(|s| (*s).to_string()).chain([up, canary.to_string(), format!("{canary}/secret")]).enumerate() {
        let form = [Form::Ustar, Form::Pax, Form::Gnu][n % 3];
        out.push(case("A1", format!("file {name:?}"), vec![file(&name, "pwn").form(form)]));
        let kind = match n % 3 {
            0 => dir(&name).mode(0o777),
            1 => symlink(&name, canary),
            _ => hardlink(&name, "etc/passwd"),
        };
        out.push(case("A1", format!("{} {name:?}", char::from(kind.kind)), vec![kind.form([Form::Gnu, Form::Ustar, Form::Pax][n % 3])]));
    }
    for (what, name) in [
        ("255", "n".repeat(255)),
        ("256", "n".repeat(256)),
        ("deep", "d/".repeat(300) + "pwn"),
        ("up and deep", "../d/".repeat(60) + "pwn"),
    ] {
        out.push(case("A1", what, vec![file(&name, "pwn").form(Form::Pax)]));
        out.push(case("A1", format!("{what}, GNU"), vec![file(&name, "pwn").form(Form::Gnu)]));
    }
    out.push(case("A1", "not UTF-8", vec![file(b"\xff\xfe/../\x80pwn", "pwn")]));
    out
}

/// Where links lead that want out.
fn targets(canary: &str) -> Vec<String> {
    let up = "../".repeat(20);
    let name = canary.rsplit('/').next().unwrap_or_default();
    let mut list: Vec<String> =
        ["/", "..", ".", "../..", "/etc", "/proc/self/cwd", "/proc/self/root", "/proc/self/fd/3", "loop2", "/dev/fd/4/..", "//etc/..//"]
            .map(Into::into)
            .into();
    list.extend([
        canary.into(),
        format!("{up}{canary}"),
        format!("{canary}/"),
        format!("/{canary}/."),
        format!("/..{canary}/sub"),
        format!("../{name}"),
        format!("../../../{name}"),
    ]);
    list
}

fn links(canary: &str) -> Vec<Case> {
    let mut out = Vec::new();
    for target in targets(canary) {
        let link = || symlink("l", &target);
        let mut add = |what: &str, then: Vec<Entry>| out.push(case("A2", format!("{what} l -> {target}"), [vec![link()], then].concat()));
        add("file through", vec![file("l/secret", "pwn")]);
        add("directory through", vec![dir("l/pwn").mode(0o777), file("l/pwn/f", "pwn")]);
        add("file over", vec![file("l", "pwn"), file("f", "pwn")]);
        add("chain of", vec![symlink("m", "l"), symlink("n", "m"), file("n/secret", "pwn"), symlink("n/o", "../l"), file("n/o/x", "pwn")]);
        add("link through", vec![symlink("l/pwn", &target), file("l/pwn/secret", "pwn")]);
        add("device through", vec![entry(b'6', "l/pwn"), device(b'3', "l/null", 1, 3)]);
    }
    let over = vec![dir("foo"), file("foo/x", "1"), symlink("foo", "/"), file("foo/x", "2"), dir("foo"), file("foo/x", "3")];
    out.push(case("A2", "directory, link, directory again", over));
    out.push(case(
        "A2",
        "a link in a replaced directory",
        vec![dir("p"), symlink("p/l", canary), dir("p"), file("p", "1"), dir("p"), file("p/l/x", "pwn")],
    ));
    out.push(case(
        "A2",
        "forty links",
        (0..41).map(|n| symlink(format!("l{n}"), format!("l{}", n + 1))).chain([dir("l41"), file("l2/pwn", "pwn")]).collect(),
    ));
    out.push(case(
        "A2",
        "forty-one links",
        (0..42).map(|n| symlink(format!("l{n}"), format!("l{}", n + 1))).chain([dir("l42"), file("l0/pwn", "pwn")]).collect(),
    ));
    out
}

/// The link lies in the layer below, or in the image that an archive is added to.
fn links_of_the_base() -> Vec<Case> {
    let mut out = Vec::new();
    for link in ["out", "up", "top", "localetc", "dead", "loop", "lib", "var/run", "secret"] {
        let mut add = |what: &str, entries: Vec<Entry>| out.push(case("A2", format!("base: {what} {link}"), entries));
        let under = |name: &str| format!("{link}/{name}");
        add("file through", vec![file(under("secret"), "pwn"), file(under("passwd"), "pwn")]);
        add("file over", vec![file(link, "pwn")]);
        add("directory over", vec![dir(link).mode(0o777), file(under("secret"), "pwn")]);
        add("hard link to", vec![hardlink("h", link), file("h", "pwn")]);
        add("hard link through", vec![hardlink("h", under("secret"))]);
        add("new below", vec![dir(under("a/b/c")), file(under("a/../../pwn"), "pwn")]);
    }
    out
}

fn hard_links(canary: &str) -> Vec<Case> {
    let mut out = Vec::new();
    let up = format!("{}{canary}/secret", "../".repeat(20));
    let inside = ["etc/passwd", "/etc/passwd", "../../../etc/passwd", "localetc/passwd", "top/top/etc/passwd", "./etc/./passwd", "hard"];
    let outside = [
        format!("{canary}/secret"),
        up,
        format!("../../..{canary}/secret"),
        "/etc/shadow".into(),
        "/proc/self/exe".into(),
        "out/secret".into(),
        "up/secret".into(),
    ];
    let odd =
        ["h", ".", "/", "..", "etc", "nothing", "etc/passwd/x", "loop/x", "secret", "dead", "first/../first", "keep/sub/../../etc/passwd"];
    for target in inside.iter().chain(&odd).map(|s| (*s).to_string()).chain(outside) {
        let mut add = |what: &str, entries: Vec<Entry>| out.push(case("A3", format!("{what} {target}"), entries));
        add("link to", vec![hardlink("h", &target)]);
        add("write after a link to", vec![hardlink("h", &target), file("h", "pwn"), file("g", "pwn")]);
        add("mode and owner with a link to", vec![hardlink("h", &target).mode(0o7777).owner(12, 34).xattr("user.pwn", b"1")]);
    }
    out.push(case("A3", "before its target", vec![hardlink("h", "late"), file("late", "x")]));
    out.push(case("A3", "to a link before its target", vec![symlink("s", "/late"), hardlink("h", "s"), file("late", "x"), file("h", "y")]));
    out.push(case("A3", "over its target's directory", vec![dir("p"), file("p/f", "x"), hardlink("p", "p/f")]));
    out.push(case("A3", "to itself", vec![file("h", "x"), hardlink("h", "h"), hardlink("h", "./h")]));
    out.push(case("A3", "to a device", vec![device(b'3', "null", 1, 3), hardlink("h", "null")]));
    out.push(case("A3", "to a fifo", vec![entry(b'6', "p"), hardlink("h", "p")]));
    out.push(case("A3", "with data", vec![file("f", "x"), Entry { data: Vec::new(), ..hardlink("h", "f") }, file("after", "x")]));
    out.push(case("A3", "of a file that is removed", vec![hardlink("h", "etc/passwd"), file("etc/.wh.passwd", "")]));
    out.push(case("A3", "of a removed file", vec![file("etc/.wh.passwd", ""), hardlink("h", "etc/passwd")]));
    out.push(case("A3", "of a file of an emptied directory", vec![dir("d"), file("d/.wh..wh..opq", ""), hardlink("h", "d/x")]));
    out
}

fn metadata(canary: &str) -> Vec<Case> {
    let mut out = Vec::new();
    let up = format!("{}{canary}/sub", "../".repeat(20));
    for target in
        [canary.to_string(), format!("{canary}/secret"), format!("{canary}/sub"), up, "/".into(), "..".into(), "/etc/passwd".into()]
    {
        let loud = |e: Entry| {
            e.mode(0o7777)
                .owner(1234, 4321)
                .xattr("user.pwn", b"1")
                .xattr("security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        };
        let mut add = |what: &str, entries: Vec<Entry>| out.push(case("A4", format!("{what} -> {target}"), entries));
        add("a link's own", vec![Entry { xattrs: Vec::new(), ..loud(symlink("a", &target)) }]);
        add("of a directory over a link", vec![symlink("a", &target), loud(dir("a"))]);
        add("of a file over a link", vec![symlink("a", &target), loud(file("a", "x"))]);
        add("of a hard link to a link", vec![symlink("a", &target), loud(hardlink("h", "a"))]);
        add("of a directory whose name is a link by then", vec![loud(dir("a")), symlink("a", &target), file("b", "x")]);
        add("of a parent that is a link by then", vec![dir("p"), loud(dir("p/a")), symlink("p", &target)]);
    }
    out
}

fn parents(canary: &str) -> Vec<Case> {
    let mut out = Vec::new();
    for target in ["..", "/", "../../..", canary, "/proc/self/cwd/..", "/tmp", "./..//.."] {
        let mut add = |what: &str, entries: Vec<Entry>| out.push(case("A5", format!("{what} -> {target}"), entries));
        add("new parents", vec![symlink("l", target), file("l/pwn/dir/f", "x")]);
        add("new parents, then an error", vec![symlink("l", target), file("l/pwn/dir/f", "x"), file("l/pwn/dir/f/g", "y")]);
        add("through two", vec![dir("p"), symlink("p/l", target), symlink("m", "p/l/p"), file("m/pwn/x/y", "x")]);
    }
    out
}

fn roots() -> Vec<Case> {
    let mut out = Vec::new();
    for name in [".", "./", "/", "a/..", "..", "//", "./."] {
        for kind in [b'0', b'1', b'2', b'3', b'4', b'5', b'6'] {
            let e = Entry { link: if matches!(kind, b'1' | b'2') { b"/etc".to_vec() } else { Vec::new() }, ..entry(kind, name) };
            let e = if matches!(kind, b'3' | b'4') { Entry { dev: (1, 3), ..e } } else { e };
            out.push(case("A6", format!("{} {name:?}", char::from(kind)), vec![e.mode(0o711), file("x", "x")]));
        }
    }
    out
}

fn whiteouts(canary: &str) -> Vec<Case> {
    let mut out = Vec::new();
    let wh = |name: &str| file(name, "");
    for name in [
        ".wh.",
        ".wh..",
        ".wh...",
        "d/.wh.",
        "d/.wh..",
        "d/.wh...",
        "out/.wh..",
        "top/.wh...",
        "new/.wh..",
        ".wh..wh.",
        ".wh..wh..opq",
        ".wh..wh.plnk",
        ".wh..wh.aufs",
    ] {
        out.push(case("A7", format!("of {name}"), vec![wh(name), file("after", "x")]));
    }
    for name in [
        ".wh.d",
        ".wh.plain",
        ".wh.hard",
        ".wh.nothing",
        "d/.wh.x",
        "d/.wh.sub",
        "d/.wh.nothing",
        "new/.wh.x",
        "d/.wh..wh..opq",
        "keep/.wh..wh..opq",
        "new/.wh..wh..opq",
    ] {
        out.push(case("A7", format!("twice {name}"), vec![wh(name), wh(name)]));
        out.push(case("A7", format!("of another type {name}"), vec![dir(name)]));
        out.push(case("A7", format!("below {name}"), vec![wh(name), file(format!("{name}/x"), "x")]));
    }
    for link in ["out", "up", "top", "localetc", "dead", "loop", "lib", "var/run", "secret"] {
        out.push(case(
            "A7",
            format!("through {link}"),
            vec![wh(&format!("{link}/.wh.secret")), wh(&format!("{link}/.wh.passwd")), wh(&format!("{link}/.wh.lib.so"))],
        ));
        out.push(case("A7", format!("opaque through {link}"), vec![wh(&format!("{link}/.wh..wh..opq"))]));
        out.push(case(
            "A7",
            format!("of the link {link}"),
            vec![wh(&link.rsplit_once('/').map_or(format!(".wh.{link}"), |(p, n)| format!("{p}/.wh.{n}")))],
        ));
    }
    for (what, entries) in [
        ("before what replaces it", vec![wh(".wh.plain"), file("plain", "new")]),
        ("after what replaces it", vec![file("plain", "new"), wh(".wh.plain")]),
        ("a directory that comes back", vec![wh(".wh.d"), dir("d"), file("d/new", "n")]),
        ("a directory that was there", vec![dir("d"), file("d/new", "n"), wh(".wh.d")]),
        ("a directory that comes back unnamed", vec![wh(".wh.d"), file("d/sub/new", "n")]),
        ("a directory that comes back as a link", vec![wh(".wh.d"), symlink("d", canary), file("d/x", "pwn")]),
        ("a link that comes back as a directory", vec![wh(".wh.out"), file("out/secret", "x")]),
        ("opaque at the root", vec![wh(".wh..wh..opq"), file("new", "n")]),
        ("opaque at the root, after", vec![file("new", "n"), dir("d"), wh(".wh..wh..opq")]),
        ("opaque in the middle", vec![dir("d"), file("d/one", "1"), wh("d/.wh..wh..opq"), file("d/two", "2")]),
        ("opaque and removed", vec![wh("d/.wh..wh..opq"), wh(".wh.d")]),
        ("removed and opaque", vec![wh(".wh.d"), wh("d/.wh..wh..opq")]),
        ("lexically elsewhere", vec![wh("nothing/../.wh.etc")]),
        ("lexically above", vec![wh("../../.wh.etc"), wh("d/../../../../.wh.d")]),
        ("of a file that stays by its other name", vec![wh(".wh.plain")]),
        ("deep", vec![wh("d/sub/.wh.z"), wh("d/sub/none/none/.wh.z")]),
        ("below a file", vec![wh("plain/.wh.x")]),
        ("below a file that replaces a directory", vec![file("d", "now a file"), wh("d/.wh.x")]),
        ("of a name with a new link to out", vec![symlink("l", canary), wh("l/.wh.secret"), wh("l/.wh..wh..opq"), wh(".wh.l")]),
    ] {
        out.push(case("A7", what, entries));
    }
    out
}

fn overlay() -> Vec<Case> {
    let mut out = Vec::new();
    for family in
        ["trusted.overlay.", "user.overlay.", "user.overlay.overlay.", "trusted.overlay.overlay.", "user.plywood.", "user.fuseoverlayfs."]
    {
        for name in [
            "opaque",
            "redirect",
            "metacopy",
            "origin",
            "whiteout",
            "whiteouts",
            "impure",
            "nlink",
            "upper",
            "uuid",
            "protattr",
            "root",
            "stat",
        ] {
            if family == "user.fuseoverlayfs." && name != "opaque" {
                continue;
            }
            let key = format!("{family}{name}");
            let value: &[u8] = match name {
                "redirect" => b"/etc",
                "stat" => b"0:0:c:0:0",
                "metacopy" => b"",
                "whiteout" | "whiteouts" => b"y",
                "opaque" if family.len() % 2 == 0 => b"x",
                _ => b"y",
            };
            // On directories, on a file in one, on the root.
            let entries = vec![
                dir("keep").xattr(&key, value),
                file("keep/new", "").xattr(&key, value),
                file("keep/a", "").xattr(&key, value),
                dir(".").xattr(&key, value),
            ];
            out.push(case("A9", key, entries));
        }
    }
    for (what, entries) in [
        ("0:0 over a file", vec![device(b'3', "etc/passwd", 0, 0)]),
        ("0:0 over a directory", vec![device(b'3', "keep", 0, 0), device(b'3', "keep/a", 0, 0)]),
        ("0:0 at the root", vec![device(b'3', "etc", 0, 0), device(b'3', "usr", 0, 0), device(b'3', "new", 0, 0)]),
        ("0:0 as a parent", vec![device(b'3', "new", 0, 0), file("new/x", "x")]),
        ("0:0 as a hard link's target", vec![device(b'3', "null", 0, 0), hardlink("etc/passwd", "null")]),
        ("block 0:0", vec![device(b'4', "keep/block", 0, 0)]),
        ("0:0 by a hard link to a whiteout", vec![file(".wh.plain", ""), hardlink("keep/a", "plain")]),
        ("0:1 and 1:0", vec![device(b'3', "keep/c01", 0, 1), device(b'3', "keep/c10", 1, 0)]),
    ] {
        out.push(case("A9", what, entries));
    }
    out
}

/// Setuid bits and capabilities, whatever is done in between.
fn order() -> Vec<Case> {
    let cap: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    [
        ("setuid of another", vec![file("s", "x").mode(0o4755).owner(33, 44)]),
        ("setgid of another", vec![file("s", "x").mode(0o2755).owner(33, 44)]),
        ("all bits", vec![file("s", "x").mode(0o7777).owner(33, 44), dir("t").mode(0o7777).owner(33, 44), file("t/in", "x").owner(1, 1)]),
        ("capability of another", vec![file("s", "x").mode(0o755).owner(33, 44).xattr("security.capability", cap)]),
        ("setuid and capability", vec![file("s", "x").mode(0o6755).owner(33, 44).xattr("security.capability", cap)]),
        ("setuid, written again", vec![file("s", "x").mode(0o4755), file("s", "y").mode(0o755).owner(7, 7)]),
        ("setuid, linked and written again", vec![file("s", "x").mode(0o4755), hardlink("h", "s"), file("s", "y").mode(0o644)]),
        ("a closed directory", vec![dir("c").mode(0), file("c/x", "x"), dir("c/d").mode(0o500), file("c/d/y", "y")]),
        ("a setgid directory's children", vec![dir("g").mode(0o2775).owner(5, 6), file("g/f", "x"), dir("g/d"), file("g/n/f", "x")]),
        ("every id", vec![file("a", "x").owner(65534, 65534), file("b", "x").owner(65535, 1), file("c", "x").owner(0, 65533)]),
        ("no permission at all", vec![file("f", "x").mode(0), dir("e").mode(0)]),
    ]
    .map(|(what, entries)| case("A14", what, entries))
    .into()
}

/// Programs that somebody could run outside: each would touch the canary.
fn helpers(canary: &str) -> Vec<Case> {
    let script = format!("#!/bin/sh\n: > {canary}/pwn; : > {canary}/secret\n");
    let users = || {
        vec![
            file("etc/passwd", "evil:x:77:88::/:/bin/sh\n"),
            file("etc/group", "evil:x:88:\n"),
            file("etc/nsswitch.conf", "passwd: evil files\n"),
        ]
    };
    let places = ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin"];
    let programs = [
        "sh",
        "xz",
        "unpigz",
        "pigz",
        "gzip",
        "zstd",
        "tar",
        "git",
        "newuidmap",
        "newgidmap",
        "id",
        "getent",
        "mount",
        "ldconfig",
        "pasta",
        "slirp4netns",
        "true",
    ];
    let mut out: Vec<Case> = places
        .iter()
        .map(|place| {
            case(
                "A15",
                format!("programs in {place}"),
                [users(), programs.iter().map(|p| file(format!("{place}/{p}"), &script).mode(0o6755)).collect()].concat(),
            )
        })
        .collect();
    let libraries = [
        "lib64/libnss_evil.so.2",
        "usr/lib/x86_64-linux-gnu/libnss_files.so.2",
        "usr/lib/libc.so.6",
        "etc/ld.so.preload",
        "etc/ld.so.cache",
        "usr/lib/gconv/gconv-modules",
    ];
    out.push(case("A15", "libraries", [users(), libraries.iter().map(|l| file(l, &script).mode(0o755)).collect()].concat()));
    out.push(case(
        "A15",
        "programs that are links out",
        [users(), programs.iter().map(|p| symlink(format!("usr/bin/{p}"), format!("{canary}/sub/deep/y"))).collect()].concat(),
    ));
    out
}
