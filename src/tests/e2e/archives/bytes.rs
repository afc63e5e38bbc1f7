//! Hostile archives below the level of entries: headers on which readers disagree (A10), lengths without measure (A11),
//! compressions that bomb, stop or lie (A12).

use std::io::Write as _;

use super::cases::{Case, Verdict};
use super::tar::{Entry, Form, Header, archive, block, device, dir, end, entry, extended, file, gzip, hardlink, pax, symlink};

/// A plain directory first: what begins like no archive is a file for ADD.
fn open() -> Vec<u8> {
    dir("first").bytes()
}

fn means(class: &'static str, name: &str, rest: Vec<u8>, entries: Vec<Entry>) -> Case {
    let entries = [vec![dir("first")], entries].concat();
    Case { class, name: name.into(), bytes: end([open(), rest].concat()), verdict: Verdict::Means(entries) }
}

fn refused(class: &'static str, name: &str, rest: Vec<u8>, says: &'static str) -> Case {
    Case { class, name: name.into(), bytes: end([open(), rest].concat()), verdict: Verdict::Refused(says) }
}

fn either(class: &'static str, name: &str, bytes: Vec<u8>) -> Case {
    Case { class, name: name.into(), bytes, verdict: Verdict::Either }
}

/// An entry whose header is spoiled before it is summed.
fn spoiled(e: &Entry, spoil: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut h = e.header();
    spoil(&mut h);
    let mut out = [h.finish(), e.data.clone()].concat();
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub fn all(canary: &str) -> Vec<Case> {
    [sizes(), extensions(canary), fields(), ends(), lengths(), compressions(canary)].concat()
}

fn sizes() -> Vec<Case> {
    let smuggled = file("smuggled", "pwn").bytes();
    let inner = String::from_utf8_lossy(&smuggled).into_owned();
    let size = smuggled.len().to_string();
    let (f, after) = (entry(b'0', "f"), file("after", "x"));
    let body = |h: Vec<u8>| [h, smuggled.clone(), after.bytes()].concat();
    let carried = [file("f", &inner), after.clone()].to_vec();
    let read = [entry(b'0', "f"), file("smuggled", "pwn"), after.clone()].to_vec();
    let sized = |n: u64| spoiled(&f, |h| _ = h.octal(124, 12, n));
    let mut out = vec![
        means("A10", "PAX size, header 0", body([extended(&[("size", size.as_bytes())]), f.bytes()].concat()), carried.clone()),
        means("A10", "PAX size 0, header's not", body([extended(&[("size", b"0")]), sized(1024)].concat()), read.clone()),
        means(
            "A10",
            "PAX size with zeros",
            body([extended(&[("size", format!("000{size}").as_bytes())]), f.bytes()].concat()),
            carried.clone(),
        ),
        means("A10", "empty PAX size", body([extended(&[("size", b"")]), sized(1024)].concat()), carried.clone()),
        means("A10", "two PAX sizes", body([extended(&[("size", b"0"), ("size", size.as_bytes())]), f.bytes()].concat()), carried.clone()),
        means("A10", "base-256 size", body(spoiled(&f, |h| _ = h.binary(124, 12, 1024))), carried.clone()),
        means("A10", "size without terminator", body(spoiled(&f, |h| _ = h.text(124, 12, b"000000002000"))), carried.clone()),
        means("A10", "size with blanks", body(spoiled(&f, |h| _ = h.text(124, 12, b"  2000 \0"))), carried),
        means(
            "A10",
            "size of a directory",
            body(spoiled(&dir("f"), |h| _ = h.octal(124, 12, 1024))),
            [vec![dir("f")], read[1..].to_vec()].concat(),
        ),
        means(
            "A10",
            "size of a link",
            body(spoiled(&symlink("f", "x"), |h| _ = h.octal(124, 12, 1024))),
            [vec![symlink("f", "x")], read[1..].to_vec()].concat(),
        ),
        means(
            "A10",
            "PAX size of a fifo",
            body([extended(&[("size", size.as_bytes())]), entry(b'6', "f").bytes()].concat()),
            [vec![entry(b'6', "f")], read[1..].to_vec()].concat(),
        ),
        means(
            "A10",
            "PAX size of a hard link",
            body([extended(&[("size", size.as_bytes())]), hardlink("f", "first/../plain2").bytes()].concat()),
            [vec![hardlink("f", "plain2")], read[1..].to_vec()].concat(),
        ),
    ];
    for value in ["-1", "5x", " 5", "5 ", "0x10", "1e3", "18446744073709551616", "١"] {
        out.push(refused(
            "A10",
            &format!("PAX size {value:?}"),
            body([extended(&[("size", value.as_bytes())]), f.bytes()].concat()),
            "PAX value is no number",
        ));
    }
    for value in [&b"0000000200z"[..], b"-0000000001", b"0000 000200", b"9999999999", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
        out.push(refused(
            "A10",
            &format!("size {}", value.escape_ascii()),
            body(spoiled(&f, |h| _ = h.text(124, 12, value))),
            "size is no number",
        ));
    }
    out
}

fn extensions(canary: &str) -> Vec<Case> {
    let f = file("f", "x");
    let with = |kind: u8, body: &[u8]| [block(kind, b"ext", body), f.bytes()].concat();
    let named = |n: &str| vec![file(n, "x")];
    let up = format!("../../..{canary}/pwn");
    let long = "n/".repeat(90) + "f";
    let both = |gnu: &[u8], posix: &[u8]| [block(b'L', b"ext", gnu), extended(&[("path", posix)]), f.bytes()].concat();
    let mut out = vec![
        means("A10", "PAX path", [extended(&[("path", up.as_bytes())]), f.bytes()].concat(), named(&up)),
        means("A10", "GNU name", with(b'L', [up.as_bytes(), b"\0"].concat().as_slice()), named(&up)),
        means("A10", "GNU name without end", with(b'L', up.as_bytes()), named(&up)),
        means("A10", "GNU name, zero byte, more", with(b'L', b"one\0/../../two"), named("one")),
        means("A10", "two GNU names", [block(b'L', b"ext", b"one"), with(b'L', b"two")].concat(), named("two")),
        means("A10", "two PAX headers", [extended(&[("path", b"one")]), extended(&[("path", b"two")]), f.bytes()].concat(), named("two")),
        means("A10", "two paths in one", [extended(&[("path", b"one"), ("path", b"two")]), f.bytes()].concat(), named("two")),
        means("A10", "GNU and PAX that agree", both(long.as_bytes(), long.as_bytes()), named(&long)),
        means("A10", "Solaris extension", [block(b'X', b"ext", &pax(&[(b"path", b"one")])), f.bytes()].concat(), named("one")),
        means("A10", "empty path", [extended(&[("path", b"")]), f.bytes()].concat(), named("f")),
        means("A10", "global comment", [block(b'g', b"ext", &pax(&[(b"comment", b"c0ffee")])), f.bytes()].concat(), named("f")),
        means(
            "A10",
            "global attribute",
            [block(b'g', b"ext", &pax(&[(b"SCHILY.xattr.user.overlay.opaque", b"y")])), f.bytes()].concat(),
            named("f"),
        ),
        means(
            "A10",
            "unknown records",
            [extended(&[("hdrcharset", b"BINARY"), ("VENDOR.x", b"\0\n=\xff"), ("LIBARCHIVE.xattr.user.a", b"eA==")]), f.bytes()].concat(),
            named("f"),
        ),
        means("A10", "an extension at the end", extended(&[("path", b"one")]), vec![]),
        means(
            "A10",
            "link with PAX target and GNU target",
            [block(b'K', b"ext", b"t"), extended(&[("linkpath", b"t")]), symlink("l", "u").bytes()].concat(),
            vec![symlink("l", "t")],
        ),
        refused("A10", "GNU and PAX that differ", both(b"one", b"two"), "contradict"),
        refused(
            "A10",
            "targets that differ",
            [block(b'K', b"ext", b"t"), extended(&[("linkpath", b"u")]), symlink("l", "t").bytes()].concat(),
            "contradict",
        ),
        refused("A10", "empty GNU name", with(b'L', b"\0\0"), "empty long name"),
        refused("A10", "zero byte in a path", [extended(&[("path", b"a\0b")]), f.bytes()].concat(), "zero byte"),
        refused("A10", "zero byte in a target", [extended(&[("linkpath", b"a\0b")]), symlink("l", "t").bytes()].concat(), "zero byte"),
        refused(
            "A10",
            "GNU sparse records",
            [extended(&[("GNU.sparse.major", b"1"), ("GNU.sparse.name", b"/etc/x")]), f.bytes()].concat(),
            "sparse",
        ),
        refused("A10", "GNU sparse entry", entry(b'S', "f").bytes(), "sparse"),
        refused("A10", "attribute without a name", [extended(&[("SCHILY.xattr.", b"1")]), f.bytes()].concat(), "unusable"),
        refused("A10", "attribute with a zero byte", [extended(&[("SCHILY.xattr.user.a\0b", b"1")]), f.bytes()].concat(), "unusable"),
        refused(
            "A10",
            "attribute of 64 KiB and one",
            [extended(&[("SCHILY.xattr.user.a", &[b'x'; 65537])]), f.bytes()].concat(),
            "unusable",
        ),
    ];
    for key in ["path", "size", "linkpath"] {
        out.push(refused(
            "A10",
            &format!("global {key}"),
            [block(b'g', b"ext", &pax(&[(key.as_bytes(), b"1")])), f.bytes()].concat(),
            "global PAX header",
        ));
    }
    for body in [
        &b"path=/x\n"[..],
        b"99 path=x\n",
        b"8 path=x",
        b"0 path=x\n",
        b"-9 path=x\n",
        b"+9 path=x\n",
        b" 9 path=x\n",
        b"9 path=x\n\0",
        b"9path=x\n",
        b"5 =x\n",
        b"3 \n",
        b"10 path x \n",
        b"99999999999999999999999 a=b\n",
        b"7 a=b\n7 a=c\n8",
        b"\xff\xff",
        b"x",
    ] {
        out.push(refused("A10", &format!("PAX record {}", body.escape_ascii()), with(b'x', body), "damaged PAX record"));
    }
    for (key, value) in [("mtime", "x"), ("mtime", "1.x"), ("mtime", "--1"), ("uid", "-1"), ("gid", "4294967296"), ("uid", "root")] {
        out.push(refused("A10", &format!("PAX {key}={value}"), [extended(&[(key, value.as_bytes())]), f.bytes()].concat(), "no number"));
    }
    out
}

fn fields() -> Vec<Case> {
    let f = file("f", "x");
    let prefixed = |magic: &[u8], prefix: &[u8]| spoiled(&f, |h| _ = h.text(257, 8, magic).text(345, 155, prefix));
    let mut out = vec![
        means("A10", "ustar prefix", prefixed(b"ustar\x0000", b"../../p"), vec![file("../../p/f", "x")]),
        means("A10", "prefix under GNU's magic", prefixed(b"ustar  \0", b"../../p"), vec![f.clone()]),
        means("A10", "prefix without magic", prefixed(b"", b"../../p"), vec![f.clone()]),
        means("A10", "a name that fills its field", file("n".repeat(100), "x").bytes(), vec![file("n".repeat(100), "x")]),
        means("A10", "a directory by its name", spoiled(&dir("d2/"), |h| h.0[156] = 0), vec![dir("d2")]),
        means("A10", "a file with a slash", file("pwn/", "x").bytes(), vec![file("pwn", "x")]),
        means("A10", "a contiguous file", Entry { kind: b'7', ..f.clone() }.bytes(), vec![f.clone()]),
        means("A10", "an old file", spoiled(&f, |h| h.0[156] = 0), vec![f.clone()]),
        means("A10", "base-256 owner", spoiled(&f, |h| _ = h.binary(108, 8, 1000).binary(116, 8, 2000)), vec![f.clone().owner(1000, 2000)]),
        means("A10", "blank owner", spoiled(&f, |h| _ = h.text(108, 8, b"").text(116, 8, b"   ")), vec![f.clone()]),
        means("A10", "a mode with a type", spoiled(&f, |h| _ = h.octal(100, 8, 0o100_644)), vec![f.clone()]),
        means("A10", "a time before 1970", spoiled(&f, |h| h.0[136..148].fill(0xff)), vec![f.clone()]),
        means("A10", "a PAX time before 1970", [extended(&[("mtime", b"-1.5")]), f.bytes()].concat(), vec![f.clone()]),
        refused(
            "A10",
            "a wrong sum",
            {
                let mut b = f.bytes();
                b[0] ^= 1;
                b
            },
            "checksum",
        ),
        refused(
            "A10",
            "a sum of letters",
            {
                let mut b = f.bytes();
                b[148..156].copy_from_slice(b"zzzzzzzz");
                b
            },
            "no tar header",
        ),
        refused("A10", "a negative owner", spoiled(&f, |h| h.0[108..116].fill(0xff)), "uid is no number"),
        refused("A10", "an owner of letters", spoiled(&f, |h| _ = h.text(108, 8, b"root")), "uid is no number"),
        refused("A10", "a mode of letters", spoiled(&f, |h| _ = h.text(100, 8, b"rwxr-x")), "mode is no number"),
        refused(
            "A10",
            "a device of letters",
            spoiled(&device(b'3', "c", 1, 3), |h| _ = h.text(329, 8, b"x")),
            "device number is no number",
        ),
    ];
    for kind in [b'8', b'9', b'A', b'D', b'M', b'N', b'V', b'Z', b'!', 0xff] {
        out.push(refused("A10", &format!("type {}", kind.escape_ascii()), Entry { kind, ..f.clone() }.bytes(), "unknown type"));
    }
    // Ids that mean "leave it" to chown(2), devices beyond what the kernel numbers, times beyond what it counts.
    for (name, bytes) in [
        ("owner -1", [extended(&[("uid", b"4294967295"), ("gid", b"4294967295")]), f.bytes()].concat()),
        ("group -1", [extended(&[("gid", b"4294967295")]), f.bytes()].concat()),
        ("owner -2", [extended(&[("uid", b"4294967294")]), f.bytes()].concat()),
        ("device -1", device(b'3', "c", 0o7_777_777, 0o7_777_777).bytes()),
        ("time 2^62", [extended(&[("mtime", b"4611686018427387904")]), f.bytes()].concat()),
        ("time -2^63", [extended(&[("mtime", b"-9223372036854775808.999999999")]), f.bytes()].concat()),
        ("time 2^63", [extended(&[("mtime", b"9223372036854775807.1")]), f.bytes()].concat()),
    ] {
        out.push(either("A10", name, end([open(), bytes].concat())));
    }
    out
}

fn ends() -> Vec<Case> {
    let f = file("f", "data").bytes();
    let whole = [open(), f.clone()].concat();
    let exact = |name: &str, bytes: Vec<u8>, entries: Vec<Entry>| Case {
        class: "A10",
        name: name.into(),
        bytes,
        verdict: Verdict::Means([vec![dir("first")], entries].concat()),
    };
    let cut = |name: &str, bytes: Vec<u8>, says| Case { class: "A10", name: name.into(), bytes, verdict: Verdict::Refused(says) };
    vec![
        exact("no end", whole.clone(), vec![file("f", "data")]),
        exact("one empty block", [whole.clone(), vec![0; 512]].concat(), vec![file("f", "data")]),
        exact("junk after the end", [end(whole.clone()), b"junk".repeat(1000)].concat(), vec![file("f", "data")]),
        exact("an archive after the end", [end(whole.clone()), archive(&[file("g", "x")])].concat(), vec![file("f", "data")]),
        exact("a hundred empty blocks", [whole.clone(), vec![0; 51200]].concat(), vec![file("f", "data")]),
        cut("an entry after one empty block", [open(), vec![0; 512], f.clone()].concat(), "data after an empty block"),
        cut("cut in a header", whole[..700].to_vec(), "ends within"),
        cut("cut in the data", whole[..1026].to_vec(), "ends within"),
        cut("cut in the padding", whole[..1200].to_vec(), "ends within"),
        cut("cut in an extension", [open(), block(b'x', b"ext", &pax(&[(b"path", b"one")]))[..600].to_vec()].concat(), "ends within"),
        cut("blanks", [open(), vec![b' '; 1024]].concat(), "malformed archive"),
    ]
}

fn lengths() -> Vec<Case> {
    let mut out = Vec::new();
    for (kind, n) in [(b'x', u64::MAX / 4), (b'x', 2 << 30), (b'L', 2 << 30), (b'K', 8 << 30), (b'g', (1 << 20) + 1), (b'L', (1 << 20) + 1)]
    {
        let bytes = spoiled(&entry(kind, "ext"), |h| _ = h.large(124, 12, n));
        out.push(refused("A11", &format!("{} of {n} bytes", char::from(kind)), bytes, "larger than 1 MiB"));
    }
    for n in [1_u64 << 63, 8 << 60, 300 << 30, u64::MAX] {
        let pax_size = [extended(&[("size", n.to_string().as_bytes())]), entry(b'0', "f").bytes()].concat();
        out.push(refused("A11", &format!("a file of {n} bytes"), pax_size, ""));
    }
    let many: Vec<(String, Vec<u8>)> = (0..20_000).map(|n| (format!("VENDOR.{n}"), b"x".to_vec())).collect();
    let many: Vec<(&[u8], &[u8])> = many.iter().map(|(k, v)| (k.as_bytes(), v.as_slice())).collect();
    out.push(means("A11", "20,000 records", [block(b'x', b"ext", &pax(&many)), file("f", "x").bytes()].concat(), vec![file("f", "x")]));
    let attributes: Vec<(String, Vec<u8>)> = (0..2000).map(|n| (format!("SCHILY.xattr.user.{n}"), vec![b'x'; 100])).collect();
    let attributes: Vec<(&[u8], &[u8])> = attributes.iter().map(|(k, v)| (k.as_bytes(), v.as_slice())).collect();
    out.push(either("A11", "2,000 attributes", end([open(), block(b'x', b"ext", &pax(&attributes)), file("f", "x").bytes()].concat())));
    out.push(refused("A11", "a name of 1 MiB", file("n".repeat(1 << 20), "x").form(Form::Pax).bytes(), ""));
    out.push(refused("A11", "a path of 100,000 parts", file("n/".repeat(100_000), "x").form(Form::Pax).bytes(), ""));
    out.push(refused("A11", "a target of 5,000 bytes", symlink("l", "t".repeat(5000)).form(Form::Pax).bytes(), ""));
    out.push(means(
        "A11",
        "3,000 empty extensions",
        [b"".to_vec(), block(b'x', b"ext", b"").repeat(3000), file("f", "x").bytes()].concat(),
        vec![file("f", "x")],
    ));
    out
}

fn compressions(canary: &str) -> Vec<Case> {
    let entries = vec![dir("first"), file("f", "x"), symlink("l", canary), file("l/secret", "pwn")];
    let tar = archive(&entries);
    let gz = gzip(&tar);
    let zst = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let xz = written(liblzma::write::XzEncoder::new(Vec::new(), 0), &tar, |w| w.finish().unwrap());
    let bz = written(bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast()), &tar, |w| w.finish().unwrap());
    let good = |name: &str, bytes: Vec<u8>| Case { class: "A12", name: name.into(), bytes, verdict: Verdict::Means(entries.clone()) };
    let bad = |name: &str, bytes: Vec<u8>| either("A12", name, bytes);
    let flipped = |bytes: &[u8], at: usize| {
        let mut b = bytes.to_vec();
        let at = if at > b.len() { b.len() - 4 } else { at };
        b[at] ^= 0x55;
        b
    };
    let (first, second) = tar.split_at(700);
    let window = {
        let mut e = zstd::Encoder::new(Vec::new(), 1).unwrap();
        e.window_log(31).unwrap();
        e.write_all(&tar).unwrap();
        e.finish().unwrap()
    };
    let wide = [b"\x28\xb5\x2f\xfd\x00\xa8".to_vec(), vec![0; 64]].concat();
    let zeros = gzip(&vec![0; 16 << 20]);
    let large = [gzip(&[dir("first").bytes(), spoiled(&entry(b'0', "big"), |h| _ = h.octal(124, 12, 1 << 30))].concat()), zeros.repeat(64)]
        .concat();
    let long_name = [gzip(&open()), gzip(&spoiled(&entry(b'L', "ext"), |h| _ = h.octal(124, 12, 1 << 30))), zeros.repeat(64)].concat();
    let mut out = vec![
        good("gzip", gz.clone()),
        good("gzip in members", [gzip(first), gzip(second)].concat()),
        good("a member a byte", tar.iter().map(|b| gzip(&[*b])).collect::<Vec<_>>().concat()),
        good("ten thousand empty members", [gzip(b"").repeat(10_000), gz.clone()].concat()),
        good("gzip with zeros after it", [gz.clone(), vec![0; 5000]].concat()),
        good("zstd", zst.clone()),
        good("zstd in frames", [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 1).unwrap()].concat()),
        good("bzip2", bz.clone()),
        good("xz", xz.clone()),
        bad("gzip with junk after it", [gz.clone(), b"junk".repeat(200)].concat()),
        bad("gzip with another compression after it", [gz.clone(), zst.clone()].concat()),
        bad("gzip of gzip", gzip(&gz)),
        bad("zstd with a window of 2 GiB", window),
        bad("zstd that only says so", wide),
        bad("gzip's magic only", b"\x1f\x8b".to_vec()),
        bad("gzip with a name without end", [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03".to_vec(), vec![b'n'; 1 << 20]].concat()),
        Case {
            class: "A12",
            name: "a gigabyte of zeros on a small store".into(),
            bytes: large,
            verdict: Verdict::Refused("No space left"),
        },
        Case { class: "A12", name: "a gigabyte for a name".into(), bytes: long_name, verdict: Verdict::Refused("") },
    ];
    for (name, bytes) in [("gzip", &gz), ("zstd", &zst), ("bzip2", &bz), ("xz", &xz)] {
        let n = bytes.len();
        for (what, bytes) in [
            ("cut early", bytes[..12].to_vec()),
            ("cut in the middle", bytes[..n / 2].to_vec()),
            ("cut late", bytes[..n - 3].to_vec()),
            ("damaged early", flipped(bytes, 11)),
            ("damaged in the middle", flipped(bytes, n / 2)),
            ("damaged late", flipped(bytes, usize::MAX)),
        ] {
            out.push(bad(&format!("{name} {what}"), bytes));
        }
    }
    out
}

fn written<W: std::io::Write, T>(mut writer: W, bytes: &[u8], finish: impl FnOnce(W) -> T) -> T {
    writer.write_all(bytes).unwrap();
    finish(writer)
}
