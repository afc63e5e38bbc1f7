//! Archives that are only odd, as real ones are: they unpack as umoci unpacks them (images) and as GNU tar does (`ply import`).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use super::image::Layout;
use super::tar::{Entry, Form, archive, block, device, dir, end, entry, extended, file, gzip, hardlink, pax, symlink};
use crate::{World, is_root, note, program, skipped};

/// What umoci can't unpack: the types `g` and `7`, and a compression.
const NOT_FOR_UMOCI: [&str; 3] = ["a global PAX header", "a contiguous file", "zstd"];

/// What a name stands for.
type Names = BTreeMap<Vec<u8>, String>;

/// A case: its name, and its layers.
struct Odd {
    what: &'static str,
    layers: Vec<Vec<u8>>,
    /// Whether GNU tar is asked, too: of one layer, in its terms.
    tar: bool,
}

fn image(what: &'static str, layers: &[&[Entry]]) -> Odd {
    Odd { what, layers: layers.iter().map(|l| archive(l)).collect(), tar: false }
}

fn both(what: &'static str, entries: &[Entry]) -> Odd {
    raw(what, archive(entries))
}

fn raw(what: &'static str, bytes: Vec<u8>) -> Odd {
    Odd { what, layers: vec![bytes], tar: true }
}

fn long(n: usize) -> String {
    format!("d/{}", "n".repeat(n))
}

fn members(bytes: &[u8], at: usize) -> Vec<u8> {
    [gzip(&bytes[..at]), gzip(&bytes[at..])].concat()
}

fn links() -> Vec<Odd> {
    let up = "../".repeat(10);
    let base = [dir("etc"), dir("usr"), dir("usr/lib"), file("usr/lib/x", "x"), file("etc/f", "f"), dir("var"), dir("run")];
    vec![
        both(
            "corretto: a link with more `..` than there are directories",
            &[dir("usr"), symlink("usr/cacerts", format!("{up}etc/pki/cacerts"))],
        ),
        both("an absolute link", &[dir("etc"), symlink("etc/l", "/usr/share/x")]),
        both("a link to nothing", &[symlink("l", "nowhere")]),
        both("a link to itself", &[symlink("l", "l")]),
        both(
            "merged /usr: links first",
            &[symlink("bin", "usr/bin"), symlink("lib", "usr/lib"), dir("usr"), dir("usr/bin"), file("usr/bin/sh", "s")],
        ),
        image(
            "merged /usr: a later layer writes through a link",
            &[&[dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib")], &[file("lib/y", "y")]],
        ),
        image("/var/run is a link to /run", &[&[dir("run"), dir("var"), symlink("var/run", "/run")], &[file("var/run/pid", "1")]]),
        image(
            "/var/run is a relative link",
            &[&[dir("run"), dir("var"), symlink("var/run", "../run")], &[dir("var/run/d"), file("var/run/d/p", "1")]],
        ),
        image(
            "a directory over a link to one keeps the link",
            &[&[dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib")], &[file("lib/z", "z"), file("usr/lib/q", "q")]],
        ),
        image("a file over a link", &[&[symlink("l", "etc"), dir("etc")], &[file("l", "now a file")]]),
        image("a link over a directory", &[&base, &[symlink("var", "run")]]),
        image("a link over a file", &[&base, &[symlink("etc/f", "g")]]),
        both("a hard link", &[file("a", "a"), hardlink("b", "a")]),
        both("three names of a file", &[dir("d"), file("d/a", "a"), hardlink("d/b", "d/a"), hardlink("c", "d/a")]),
        both("a hard link to a link", &[symlink("a", "x"), hardlink("b", "a")]),
        both("a hard link with `./`", &[file("./a", "a"), hardlink("./b", "./a")]),
        image("a hard link into the layer below", &[&[file("a", "a")], &[hardlink("b", "a")]]),
        image("a hard link into the second layer below", &[&[dir("d"), file("d/a", "a")], &[file("x", "x")], &[hardlink("d/b", "d/a")]]),
        image("a name of two is removed", &[&[file("a", "a"), hardlink("b", "a")], &[file(".wh.a", "")]]),
    ]
}

fn names() -> Vec<Odd> {
    vec![
        both("names with `./`", &[dir("./"), dir("./d"), file("./d/f", "f")]),
        both("directories with and without a slash", &[dir("a/"), dir("b"), file("a/f", "f"), file("b/f", "f")]),
        both("parents that nobody makes", &[file("deep/er/and/deeper/f", "f")]),
        both("parents that come later", &[file("p/f", "f"), dir("p").mode(0o711).owner(5, 6)]),
        both("names that are not UTF-8", &[dir(b"\xff\xfe"), file(b"\xff\xfe/\x80f", "f"), file(b"caf\xe9", "latin")]),
        both("names with line ends and control characters", &[file("a\nb", "1"), file("c\td\x1b[0m", "2"), file("sp ace \\ \"q\"", "3")]),
        both("a name of exactly 100 bytes", &[dir("d"), file(long(98), "x")]),
        both("a name of 101 bytes, GNU", &[dir("d"), file(long(99), "x").form(Form::Gnu)]),
        both("a name of 255 bytes, PAX", &[dir("d"), file(long(255), "x").form(Form::Pax)]),
        both("a link's target of 300 bytes, GNU", &[symlink("l", "t".repeat(300)).form(Form::Gnu)]),
        both("a link's target of 300 bytes, PAX", &[symlink("l", "t".repeat(300)).form(Form::Pax)]),
        raw("a name in two parts, ustar", {
            let mut h = file("x", "split").header();
            h.text(0, 100, b"in-two-parts").text(345, 155, b"a/prefix/of/it");
            let mut bytes = h.finish();
            bytes.extend(b"split");
            bytes.resize(1024, 0);
            end(bytes)
        }),
        raw("GNU and PAX entries in turn", {
            let of = |e: Entry| e.bytes();
            end([of(dir("d")), of(file(long(150), "g").form(Form::Gnu)), of(file(long(151), "p").form(Form::Pax)), of(file("d/u", "u"))]
                .concat())
        }),
        raw(
            "a global PAX header",
            end([block(b'g', b"pax_global_header", &pax(&[(b"comment", b"0123456789")])), file("f", "f").bytes()].concat()),
        ),
        raw(
            "PAX records that nobody knows",
            end([extended(&[("LIBARCHIVE.creationtime", b"1"), ("X.y", b"z")]), file("f", "f").bytes()].concat()),
        ),
        raw("a time with a fraction", end([extended(&[("mtime", b"1500000000.123456789")]), file("f", "f").bytes()].concat())),
        raw("a time before 1970", end([extended(&[("mtime", b"-86400")]), file("f", "f").bytes()].concat())),
        both("whiteouts' beginning in the middle of a name", &[file("a.wh.b", "x")]),
    ]
}

fn kinds() -> Vec<Odd> {
    vec![
        both("a fifo", &[entry(b'6', "p")]),
        both("devices", &[dir("dev"), device(b'3', "dev/null", 1, 3), device(b'4', "dev/sda", 8, 0)]),
        both("the old type of a file", &[Entry { kind: 0, ..file("f", "old") }]),
        both("a contiguous file", &[Entry { kind: b'7', ..file("f", "seven") }]),
        both(
            "an old file whose name ends with a slash is a directory",
            &[Entry { kind: 0, mode: 0o755, ..file("d/", "") }, file("d/f", "f")],
        ),
        both("set-user-ID, set-group-ID, sticky", &[file("s", "s").mode(0o4755), file("g", "g").mode(0o2755), dir("t").mode(0o1777)]),
        both("a file that nobody may read", &[file("f", "f").mode(0o000), dir("d").mode(0o000)]),
        both("owners of all kinds", &[file("a", "a").owner(1000, 1000), file("b", "b").owner(65534, 0), dir("d").owner(33, 33)]),
        raw("an owner of seven digits, PAX", end([extended(&[("uid", b"3000000"), ("gid", b"3000001")]), file("f", "f").bytes()].concat())),
        raw("an owner of seven digits, base-256", {
            let mut h = file("f", "").header();
            h.binary(108, 8, 3_000_000).binary(116, 8, 3_000_001);
            end(h.finish())
        }),
        both("an empty file", &[file("f", "")]),
        both("attributes", &[file("f", "f").xattr("user.a", b"\0\xff"), dir("d").xattr("user.b", b"b")]),
        image("an empty archive", &[&[]]),
        both("one entry twice: the last one counts", &[file("f", "one"), file("f", "two").mode(0o600)]),
        both("a directory twice", &[dir("d").mode(0o700), file("d/f", "f"), dir("d").mode(0o755)]),
        both("a file, then a directory", &[file("x", "x"), dir("y"), file("y/f", "f")]),
    ]
}

fn whiteouts() -> Vec<Odd> {
    let base = [dir("a"), file("a/1", "1"), file("a/2", "2"), dir("a/b"), file("a/b/3", "3"), file("top", "t")];
    let w = |name: &str| file(name, "");
    vec![
        image("a whiteout of a file", &[&base, &[w("a/.wh.1")]]),
        image("a whiteout of a directory", &[&base, &[w(".wh.a")]]),
        image("a whiteout of what is not there", &[&base, &[w("a/.wh.nothing")]]),
        image("an opaque directory", &[&base, &[dir("a"), w("a/.wh..wh..opq"), file("a/new", "n")]]),
        image("an opaque mark after its entries", &[&base, &[dir("a"), file("a/new", "n"), w("a/.wh..wh..opq")]]),
        image("an opaque root", &[&base, &[w(".wh..wh..opq"), file("only", "o")]]),
        image("whiteout and re-creation in one layer: a file", &[&base, &[w(".wh.top"), file("top", "again")]]),
        image("whiteout and re-creation in one layer, the other way round", &[&base, &[file("top", "again"), w(".wh.top")]]),
        image("a removed directory that comes back in a later layer", &[&base, &[w(".wh.a")], &[dir("a"), file("a/4", "4")]]),
        image(
            "a whiteout in a later layer of what an earlier one brought back",
            &[&base, &[w("a/.wh.1")], &[file("a/1", "x")], &[w("a/.wh.1")]],
        ),
        image("a directory that becomes a file", &[&base, &[file("a", "file")]]),
        image("a file that becomes a directory", &[&base, &[dir("top"), file("top/f", "f")]]),
        image(
            "an opaque directory below an opaque one",
            &[&base, &[w("a/.wh..wh..opq"), dir("a/b"), w("a/b/.wh..wh..opq"), file("a/b/n", "n")]],
        ),
        image("a layer of nothing", &[&base, &[]]),
    ]
}

fn streams() -> Vec<Odd> {
    let plain = archive(&[dir("d"), file("d/f", &"0123456789".repeat(300)), file("e", "e")]);
    let packed = |what, bytes: Vec<u8>| Odd { what, layers: vec![bytes], tar: false };
    let mut named = flate2::GzBuilder::new().filename("a.tar").comment("c").mtime(5).write(Vec::new(), flate2::Compression::best());
    named.write_all(&plain).unwrap();
    vec![
        packed("gzip", gzip(&plain)),
        packed("gzip with a name and a comment", named.finish().unwrap()),
        packed("two gzip members, cut between entries", members(&plain, 512)),
        packed("two gzip members, cut in the middle of a file", members(&plain, 1500)),
        packed("an empty gzip member at the end", [gzip(&plain), gzip(b"")].concat()),
        packed("zstd", zstd::encode_all(plain.as_slice(), 3).unwrap()),
        raw("much padding at the end", [plain.as_slice(), &[0; 20 * 512]].concat()),
        raw("no end mark", plain[..plain.len() - 1024].to_vec()),
        raw("one block as end mark", plain[..plain.len() - 512].to_vec()),
        raw("a record of 20 blocks", {
            let mut bytes = plain.clone();
            bytes.resize(bytes.len().next_multiple_of(20 * 512), 0);
            bytes
        }),
    ]
}

fn text(kind: &str, mode: u32, ids: (u64, u64), time: Option<i64>, rest: &str) -> String {
    let time = time.map(|t| format!(" @{t}")).unwrap_or_default();
    format!("{kind} {:o} {}:{}{time} {rest}", mode & 0o7777, ids.0, ids.1)
}

/// What a directory holds. Directories' times are whoever made them last's, links' modes are nobody's.
fn of_directory(top: &Path) -> Names {
    let mut out = Names::new();
    let mut todo = vec![top.to_path_buf()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let m = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            let (ids, time) = ((m.uid().into(), m.gid().into()), Some(m.mtime()));
            let kind = m.file_type();
            let said = if kind.is_dir() {
                todo.push(path.clone());
                text("directory", m.mode(), ids, None, &attributes(&path))
            } else if kind.is_symlink() {
                text("link", 0, ids, time, &format!("{:?}", std::fs::read_link(&path).unwrap()))
            } else if kind.is_file() {
                let rest = format!("{} {:?} {}", m.nlink(), std::fs::read(&path).unwrap(), attributes(&path));
                text("file", m.mode(), ids, time, &rest)
            } else if kind.is_fifo() {
                text("fifo", m.mode(), ids, time, "")
            } else {
                let kind = if kind.is_char_device() { "character" } else { "block" };
                text(kind, m.mode(), ids, time, &format!("{}:{}", rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev())))
            };
            out.insert(name, said);
        }
    }
    out
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let n = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let own = names[..n].split(|b| *b == 0).filter(|name| name.starts_with(b"user."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let n = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        format!("{}={:?}", String::from_utf8_lossy(name), &value[..n])
    };
    own.map(value).collect::<Vec<_>>().join(",")
}

/// A file of a tar whose other names come later: bytes, mode, owner, time, attributes.
type Content = (Vec<u8>, u32, (u64, u64), i64, String);

/// The same of a tar that we wrote.
fn of_tar(path: &Path) -> Names {
    let mut out = Names::new();
    let mut contents: BTreeMap<Vec<u8>, Content> = BTreeMap::new();
    let mut groups: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    for entry in archive.entries().unwrap() {
        let mut e = entry.unwrap();
        let strip = |name: &[u8]| {
            let name = name.strip_prefix(b"./").unwrap_or(name);
            name.strip_suffix(b"/").unwrap_or(name).to_vec()
        };
        let name = strip(&e.path_bytes());
        let mut own = Vec::new();
        let mut when = None;
        let (mut uid, mut gid) = (e.header().uid().unwrap(), e.header().gid().unwrap());
        if let Some(extensions) = e.pax_extensions().unwrap() {
            for x in extensions {
                let x = x.unwrap();
                let value = String::from_utf8_lossy(x.value_bytes()).into_owned();
                match x.key().unwrap_or_default() {
                    "mtime" => when = Some(value.parse::<f64>().unwrap().floor() as i64),
                    "uid" => uid = value.parse().unwrap(),
                    "gid" => gid = value.parse().unwrap(),
                    key if key.starts_with("SCHILY.xattr.user.") => {
                        own.push(format!("{}={:?}", &key["SCHILY.xattr.".len()..], x.value_bytes()));
                    }
                    _ => {}
                }
            }
        }
        own.sort();
        let own = own.join(",");
        let h = e.header().clone();
        let (mode, ids) = (h.mode().unwrap(), (uid, gid));
        let time = when.unwrap_or_else(|| h.mtime().unwrap().cast_signed());
        let target = e.link_name_bytes().map(|t| t.to_vec()).unwrap_or_default();
        if name.is_empty() || name == b"." {
            continue;
        }
        match h.entry_type() {
            tar::EntryType::Directory => drop(out.insert(name, text("directory", mode, ids, None, &own))),
            tar::EntryType::Symlink => {
                let target = std::ffi::OsStr::from_bytes(&target);
                out.insert(name, text("link", 0, ids, Some(time), &format!("{:?}", Path::new(target))));
            }
            tar::EntryType::Link => groups.entry(strip(&target)).or_default().push(name),
            tar::EntryType::Fifo => drop(out.insert(name, text("fifo", mode, ids, Some(time), ""))),
            kind if kind.is_character_special() || kind.is_block_special() => {
                let what = if kind.is_character_special() { "character" } else { "block" };
                let numbers = format!("{}:{}", h.device_major().unwrap().unwrap(), h.device_minor().unwrap().unwrap());
                out.insert(name, text(what, mode, ids, Some(time), &numbers));
            }
            _ => {
                let mut bytes = Vec::new();
                e.read_to_end(&mut bytes).unwrap();
                contents.insert(name, (bytes, mode, ids, time, own));
            }
        }
    }
    for (name, (bytes, mode, ids, time, own)) in contents {
        let others = groups.remove(&name).unwrap_or_default();
        let said = text("file", mode, ids, Some(time), &format!("{} {bytes:?} {own}", others.len() + 1));
        others.into_iter().chain([name]).for_each(|name| drop(out.insert(name, said.clone())));
    }
    for (target, others) in groups {
        // Names of one link.
        let said = out[&target].clone();
        others.into_iter().for_each(|name| drop(out.insert(name, said.clone())));
    }
    out
}

fn unlike(ours: &Names, theirs: &Names) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let shown = |n: &Names, k: &Vec<u8>| n.get(k).map_or("nothing".to_owned(), |t| t.chars().take(300).collect());
    let differ = names.into_iter().filter(|k| ours.get(*k) != theirs.get(*k));
    differ.map(|k| format!("{:?}: ours {}, theirs {}", String::from_utf8_lossy(k), shown(ours, k), shown(theirs, k))).collect()
}

#[test]
fn privileged_odd_archives_unpack_as_the_judges_unpack_them() {
    if !is_root() {
        return skipped("needs root: owners and devices");
    }
    if program("umoci", &["--version"]).is_none() {
        return;
    }
    let cases: Vec<Odd> = [links(), names(), kinds(), whiteouts(), streams()].into_iter().flatten().collect();
    let w = World::new();
    let mut layout = Layout::default();
    for (n, case) in cases.iter().enumerate() {
        let layers: Vec<&[u8]> = case.layers.iter().map(Vec::as_slice).collect();
        layout.image(&format!("t{n}"), &layers);
    }
    let at = w.path("layout");
    layout.write(&at);
    let (mut by_umoci, mut by_tar, mut wrong) = (0, 0, Vec::new());
    for (n, case) in cases.iter().enumerate() {
        let out = w.path("out.tar");
        let export = |from: &str, more: &[&str]| {
            w.file("Dockerfile", &format!("FROM {from}\n"));
            let dest = format!("type=tar,dest={}", out.display());
            w.build(&[more, &["-o", &dest]].concat()).ok();
            of_tar(&out)
        };
        let context = format!("odd=oci-layout://{}:t{n}", at.display());
        let ours = export("odd", &["--build-context", &context]);
        let bundle = w.path(&format!("bundle{n}"));
        let judged = Command::new("umoci").args(["unpack", "--image", &format!("{}:t{n}", at.display())]).arg(&bundle).output().unwrap();
        if judged.status.success() {
            by_umoci += 1;
            let found = unlike(&ours, &of_directory(&bundle.join("rootfs")));
            wrong.extend((!found.is_empty()).then(|| format!("{} (umoci): {found:#?}", case.what)));
        } else if !NOT_FOR_UMOCI.contains(&case.what) {
            wrong.push(format!("{}: umoci refuses it: {}", case.what, String::from_utf8_lossy(&judged.stderr)));
        }
        if case.tar {
            let (tar, dir) = (w.path("odd.tar"), w.path(&format!("tar{n}")));
            std::fs::write(&tar, &case.layers[0]).unwrap();
            std::fs::create_dir(&dir).unwrap();
            let mut judge = Command::new("tar");
            judge
                .args(["-x", "-p", "--same-owner", "--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-f"])
                .arg(&tar)
                .arg("-C")
                .arg(&dir);
            let judged = judge.env("LC_ALL", "C").output().unwrap();
            // It complains of a missing end mark and of times of long ago, and goes on.
            let imported = w.ply(&["import", tar.to_str().unwrap(), &format!("odd{n}")]);
            if imported.code != Some(0) {
                wrong.push(format!("{}: import: {}", case.what, imported.stderr));
                continue;
            }
            let found = unlike(&export(&format!("odd{n}"), &[]), &of_directory(&dir));
            let said = String::from_utf8_lossy(&judged.stderr).into_owned();
            wrong.extend((!found.is_empty()).then(|| format!("{} (tar, {said}): {found:#?}", case.what)));
            by_tar += 1;
        }
    }
    note(&format!("odd archives: cases={} as_umoci={by_umoci} as_gnu_tar={by_tar} wrong={}", cases.len(), wrong.len()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 60 && by_umoci >= 60 && by_tar >= 30, "{} {by_umoci} {by_tar}", cases.len());
}
