//! Changes of a context's files that must miss, and be named.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use super::*;

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
}

fn relink_fifo(path: &Path) {
    std::fs::remove_file(path).unwrap();
    fifo(path);
}

pub(super) fn cases() -> Vec<Case> {
    let f = "COPY f /f";
    let d = "COPY d /d";
    let bind = "RUN --mount=target=/m,source=d cat /m/a > /o";
    let staged = "FROM base AS s\nCOPY d /d\nFROM base\nCOPY --from=s /d/a /a";
    let whole = |name, text: &str, edit, words| Case {
        before: (text.into(), vec![]),
        after: (text.into(), vec![]),
        ..files(name, "", edit, words)
    };
    vec![
        files(
            "content, same size and time",
            f,
            |c| {
                write(&c.join("f"), "two");
                stamp(&c.join("f"));
            },
            &["file f changed (content)"],
        ),
        files("mode of a file", f, |c| mode(&c.join("f"), 0o600), &["file f", "0644 -> 0600"]),
        files("mode of a file below", d, |c| mode(&c.join("d/sub/c"), 0o755), &["file d/sub/c", "mode"]),
        files("mode of a directory below", d, |c| mode(&c.join("d/sub"), 0o700), &["file d/sub", "mode"]),
        files("setuid bit", f, |c| mode(&c.join("f"), 0o4755), &["file f", "4755"]),
        files("target of a link below", d, |c| relink(&c.join("d/l"), "b"), &["d/l"]),
        files("what a link leads to", "COPY link /k", |c| relink(&c.join("link"), "x.c"), &["file link changed (content)"]),
        files("content behind a link", "COPY link /k", |c| write(&c.join("f"), "two"), &["file link changed (content)"]),
        files("xattr of a file", f, |c| xattr(&c.join("f")), &["file f"]),
        files("xattr of a file below", d, |c| xattr(&c.join("d/a")), &["file d/a"]),
        files("xattr of a directory below", d, |c| xattr(&c.join("d/sub")), &["file d/sub"]),
        files("file added", d, |c| write(&c.join("d/new"), ""), &["file d/new added"]),
        files("empty directory added", d, |c| std::fs::create_dir(c.join("d/new")).unwrap(), &["file d/new added"]),
        files("file removed", d, |c| std::fs::remove_file(c.join("d/b")).unwrap(), &["file d/b removed"]),
        files("file renamed", d, |c| std::fs::rename(c.join("d/b"), c.join("d/z")).unwrap(), &["file d/b removed"]),
        files(
            "file became a directory",
            d,
            |c| {
                std::fs::remove_file(c.join("d/b")).unwrap();
                std::fs::create_dir(c.join("d/b")).unwrap();
            },
            &["file d/b changed (type file -> directory)"],
        ),
        files(
            "two files became one with two names",
            "COPY h /h",
            |c| {
                std::fs::remove_file(c.join("h/b")).unwrap();
                std::fs::hard_link(c.join("h/a"), c.join("h/b")).unwrap();
            },
            &["h"],
        ),
        files("wildcard: added", "COPY *.c /c/", |c| write(&c.join("z.c"), "z"), &["file z.c added"]),
        files("wildcard: removed", "COPY *.c /c/", |c| std::fs::remove_file(c.join("y.c")).unwrap(), &["file y.c removed"]),
        files("wildcard: renamed", "COPY *.c /c/", |c| std::fs::rename(c.join("y.c"), c.join("z.c")).unwrap(), &["file y.c removed"]),
        files(".dockerignore hides", d, |c| write(&c.join(".dockerignore"), "d/b\n"), &["file d/b removed"]),
        files(
            ".dockerignore shows",
            "COPY . /all",
            |c| write(&c.join(".dockerignore"), "Dockerfile\n"),
            &["file .dockerignore changed", "more"],
        ),
        files("bind mount: content", bind, |c| write(&c.join("d/b"), "2"), &["file d/b changed (content)"]),
        files("bind mount: mode of the directory itself", bind, |c| mode(&c.join("d"), 0o700), &["file d changed", "mode"]),
        files("bind mount: added", bind, |c| write(&c.join("d/new"), ""), &["file d/new added"]),
        files("bind mount of a file", "RUN --mount=target=/m,source=f cat /m", |c| write(&c.join("f"), "2"), &["file f changed (content)"]),
        files("bind mount, writable", "RUN --mount=target=/m,source=d,rw true", |c| write(&c.join("d/b"), "2"), &["file d/b"]),
        files(
            "cache mount's seed",
            "RUN --mount=type=cache,target=/m,from=base,source=/bin true\nCOPY f g /e/",
            |c| write(&c.join("g"), "2"),
            &["file g"],
        ),
        whole("stage: content", staged, |c| write(&c.join("d/a"), "2"), &["d/a"]),
        whole(
            "stage: content in the copy",
            "FROM base AS s\nCOPY d /d\nRUN cat /d/a > /o\nFROM base\nCOPY --from=s /o /o",
            |c| write(&c.join("d/a"), "2"),
            &["d/a"],
        ),
        files("--parents: directory on the way", "COPY --parents d/sub/c /p/", |c| mode(&c.join("d/sub"), 0o700), &["d/sub"]),
        files("ADD", "ADD f /f", |c| write(&c.join("f"), "2"), &["file f"]),
        files("the step below", "COPY f /f\nRUN cat /f > /o", |c| write(&c.join("f"), "2"), &["file f"]),
        files("second of two sources", "COPY f g /e/", |c| write(&c.join("g"), "two"), &["file g changed (content)"]),
        files("file emptied", f, |c| write(&c.join("f"), ""), &["file f changed (content)"]),
        files("a zero byte more", f, |c| write(&c.join("f"), "one\0"), &["file f changed (content)"]),
        files("a line end more", f, |c| write(&c.join("f"), "one\n"), &["file f changed (content)"]),
        files(
            "two files changed places",
            "COPY other d2 /e/",
            |c| {
                write(&c.join("other/a"), "a");
                write(&c.join("d2/a"), "2");
            },
            &["other/a"],
        ),
        files("file moved into another directory", d, |c| std::fs::rename(c.join("d/b"), c.join("d/sub/b")).unwrap(), &["d/"]),
        files("case of a name", d, |c| std::fs::rename(c.join("d/b"), c.join("d/B")).unwrap(), &["d/B added"]),
        files("directory renamed", d, |c| std::fs::rename(c.join("d/sub"), c.join("d/bus")).unwrap(), &["d/bus"]),
        files("directory removed", d, |c| std::fs::remove_dir_all(c.join("d/sub")).unwrap(), &["d/sub", "removed"]),
        files("link added", d, |c| symlink("b", c.join("d/new")).unwrap(), &["file d/new added"]),
        files("link removed", d, |c| std::fs::remove_file(c.join("d/l")).unwrap(), &["file d/l removed"]),
        files("link instead of an equal file", d, |c| relink(&c.join("d/b"), "a"), &["d/b", "type"]),
        files(
            "file instead of a link to an equal one",
            d,
            |c| {
                std::fs::remove_file(c.join("d/l")).unwrap();
                write(&c.join("d/l"), "a");
            },
            &["d/l", "type"],
        ),
        files("link that leads nowhere", d, |c| relink(&c.join("d/l"), "nowhere"), &["d/l"]),
        files("link's spelling", d, |c| relink(&c.join("d/l"), "./a"), &["d/l"]),
        files("link to a directory", d, |c| relink(&c.join("d/l"), "sub"), &["d/l"]),
        files("setgid bit of a directory", d, |c| mode(&c.join("d/sub"), 0o2755), &["file d/sub", "2755"]),
        files("sticky bit of a directory", d, |c| mode(&c.join("d/sub"), 0o1777), &["file d/sub", "1777"]),
        files("executable bit", f, |c| mode(&c.join("f"), 0o744), &["file f", "0744"]),
        files("a fifo added", d, |c| fifo(&c.join("d/new")), &["file d/new added"]),
        files("a fifo instead of a file", d, |c| relink_fifo(&c.join("d/b")), &["file d/b", "type"]),
        files("a name with a line end", d, |c| std::fs::rename(c.join("d/b"), c.join("d/b\n")).unwrap(), &["removed"]),
        files(
            "a name that is no text",
            d,
            |c| std::fs::rename(c.join("d/b"), c.join("d").join(OsStr::from_bytes(b"\xff"))).unwrap(),
            &["removed"],
        ),
        files(
            ".dockerignore has an exception",
            "COPY . /all",
            |c| write(&c.join(".dockerignore"), "hidden\n!hidden/h\n"),
            &["file .dockerignore changed"],
        ),
        files(".dockerignore removed", "COPY . /all", |c| std::fs::remove_file(c.join(".dockerignore")).unwrap(), &["removed"]),
        files(
            "a Dockerfile's own ignore file comes first",
            d,
            |c| write(&c.join("Dockerfile.dockerignore"), "d/a\n"),
            &["file d/a removed"],
        ),
        files("whole context: a file more", "COPY . /all", |c| write(&c.join("z"), ""), &["file z added"]),
        files("whole context, mounted: a file changed", "RUN --mount=target=/m true", |c| write(&c.join("unused"), "2"), &["unused"]),
        files("wildcard in a directory", "COPY d/* /e/", |c| write(&c.join("d/b"), "2"), &["d/b"]),
        files("wildcard in a directory: added", "COPY d/* /e/", |c| write(&c.join("d/new"), ""), &["d/new added"]),
        files("wildcard for one letter", "COPY ?.c /e/", |c| write(&c.join("z.c"), ""), &["z.c added"]),
        files("wildcard for some letters", "COPY [xz].c /e/", |c| write(&c.join("z.c"), ""), &["z.c added"]),
        files("wildcard matches a directory", "COPY d* /e/", |c| write(&c.join("d2/a"), "2"), &["file d*/a"]),
        files("--exclude leaves a change", "COPY --exclude=b d /d", |c| write(&c.join("d/a"), "2"), &["d/a"]),
        files("--exclude, a file in a directory", "COPY --exclude=**/c d /d", |c| write(&c.join("d/sub/e"), ""), &["d/sub/e"]),
        files("--parents: content", "COPY --parents d/sub/c /p/", |c| write(&c.join("d/sub/c"), "2"), &["d/sub/c"]),
        files("--parents with a wildcard", "COPY --parents d/*/c /p/", |c| write(&c.join("d/sub/c"), "2"), &["d/sub/c"]),
        files("--link", "COPY --link d /d", |c| write(&c.join("d/b"), "2"), &["d/b"]),
        files("--link: mode", "COPY --link f /f", |c| mode(&c.join("f"), 0o600), &["file f", "0600"]),
        files("ADD of a directory", "ADD d /d", |c| write(&c.join("d/sub/c"), "2"), &["d/sub/c"]),
        files("ADD of a directory: mode", "ADD d /d", |c| mode(&c.join("d/a"), 0o600), &["d/a", "0600"]),
        files("bind mount: mode of a file", bind, |c| mode(&c.join("d/a"), 0o600), &["d/a", "0600"]),
        files("bind mount: link", bind, |c| relink(&c.join("d/l"), "b"), &["d/l"]),
        files("bind mount: removed", bind, |c| std::fs::remove_file(c.join("d/b")).unwrap(), &["d/b removed"]),
        files("bind mount: xattr", bind, |c| xattr(&c.join("d/a")), &["d/a"]),
        files("bind mount: empty directory", bind, |c| std::fs::create_dir(c.join("d/new")).unwrap(), &["d/new added"]),
        files("bind mount of a file: mode", "RUN --mount=target=/m,source=f cat /m", |c| mode(&c.join("f"), 0o600), &["file f", "0600"]),
        files("bind mount of a file behind a link", "RUN --mount=target=/m,source=link cat /m", |c| write(&c.join("f"), "2"), &[]),
        files(
            "second of two mounts",
            "RUN --mount=target=/m,source=f --mount=target=/n,source=d true",
            |c| write(&c.join("d/b"), "2"),
            &["d/b"],
        ),
        whole(
            "stage: a cache mount's seed",
            "FROM base AS s\nCOPY d /d\nFROM base\nRUN --mount=type=cache,target=/m,from=s,source=/d true",
            |c| write(&c.join("d/b"), "2"),
            &["d/b"],
        ),
        whole(
            "stage: what a mount shows",
            "FROM base AS s\nCOPY d /d\nFROM base\nRUN --mount=from=s,source=/d,target=/m true",
            |c| write(&c.join("d/b"), "2"),
            &["d/b"],
        )
        .through(),
        whole(
            "stage: the whole of it mounted",
            "FROM base AS s\nCOPY d /d\nFROM base\nRUN --mount=from=s,target=/m true",
            |c| mode(&c.join("d/b"), 0o600),
            &["d/b"],
        )
        .through(),
        whole(
            "stage: through two",
            "FROM base AS s\nCOPY d /d\nFROM base AS t\nCOPY --from=s /d /got\nFROM base\nCOPY --from=t /got/b /b",
            |c| write(&c.join("d/b"), "2"),
            &["d/b"],
        )
        .through(),
        whole(
            "stage: mode, through two",
            "FROM base AS s\nCOPY d /d\nFROM base AS t\nCOPY --from=s /d /got\nFROM base\nCOPY --from=t /got /then",
            |c| mode(&c.join("d/sub/c"), 0o4755),
            &["d/sub/c"],
        )
        .through(),
        whole("stage: link", "FROM base AS s\nCOPY d /d\nFROM base\nCOPY --from=s /d /got", |c| relink(&c.join("d/l"), "b"), &["d/l"])
            .through(),
        whole("stage: xattr", "FROM base AS s\nCOPY d /d\nFROM base\nCOPY --from=s /d /got", |c| xattr(&c.join("d/a")), &["d/a"]).through(),
        whole(
            "stage: empty directory",
            "FROM base AS s\nCOPY d /d\nFROM base\nCOPY --from=s /d /got",
            |c| std::fs::create_dir(c.join("d/new")).unwrap(),
            &["d/new added"],
        )
        .through(),
        whole(
            "stage: hard link broken",
            "FROM base AS s\nCOPY h /h\nRUN ln -f /h/a /h/c\nFROM base\nCOPY --from=s /h /got",
            |c| write(&c.join("h/a"), "2"),
            &["h/a"],
        )
        .through(),
    ]
}
