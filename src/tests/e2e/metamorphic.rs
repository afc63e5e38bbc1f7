//! One input at a time: what is an input must miss and be named; what is none must hit.
//!
//! Each case is a context of its own, two builds, and what the second one says.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cache::outcomes;
use super::{Done, World, is_root, program};

/// What the second build must do.
enum Want {
    /// All steps are taken from the cache.
    Hit,
    /// The first step that runs says all of these words.
    Miss(&'static [&'static str]),
}

struct Case {
    name: &'static str,
    /// Dockerfile and arguments, before and after.
    before: (String, Vec<&'static str>),
    after: (String, Vec<&'static str>),
    edit: fn(&Path),
    want: Want,
}

fn nothing(_: &Path) {}

/// The context that all cases begin with.
fn context(ctx: &Path) {
    for (name, text) in [
        ("f", "one"),
        ("g", "one"),
        ("d/a", "a"),
        ("d/b", "b"),
        ("d/sub/c", "c"),
        ("d2/a", "a"),
        ("h/a", "h"),
        ("h/b", "h"),
        ("other/a", "2"),
        ("x.c", "x"),
        ("y.c", "y"),
        ("unused", "1"),
        ("hidden/h", "h"),
        (".dockerignore", "hidden\n"),
    ] {
        std::fs::create_dir_all(ctx.join(name).parent().unwrap()).unwrap();
        write(&ctx.join(name), text);
        mode(&ctx.join(name), 0o644);
    }
    symlink("a", ctx.join("d/l")).unwrap();
    symlink("f", ctx.join("link")).unwrap();
    stamp(&ctx.join("f"));
}

fn stamp(file: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    std::fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn relink(path: &Path, target: &str) {
    std::fs::remove_file(path).unwrap();
    symlink(target, path).unwrap();
}

fn xattr(path: &Path) {
    rustix::fs::setxattr(path, "user.color", b"red", rustix::fs::XattrFlags::empty()).unwrap();
}

/// A change of the context.
fn files(name: &'static str, dockerfile: &str, edit: fn(&Path), words: &'static [&'static str]) -> Case {
    let text = format!("FROM base\n{dockerfile}\n");
    Case { name, before: (text.clone(), vec![]), after: (text, vec![]), edit, want: Want::Miss(words) }
}

/// A change of the Dockerfile, below FROM.
fn text(name: &'static str, before: &str, after: &str, words: &'static [&'static str]) -> Case {
    let full = |t: &str| if t.contains("FROM ") { format!("{t}\n") } else { format!("FROM base\n{t}\n") };
    Case { name, before: (full(before), vec![]), after: (full(after), vec![]), edit: nothing, want: Want::Miss(words) }
}

/// A change of the command line.
fn flags(name: &'static str, dockerfile: &str, before: &[&'static str], after: &[&'static str], words: &'static [&'static str]) -> Case {
    let case = text(name, dockerfile, dockerfile, words);
    Case { before: (case.before.0, before.to_vec()), after: (case.after.0, after.to_vec()), ..case }
}

impl Case {
    fn hits(self) -> Self {
        Self { want: Want::Hit, ..self }
    }

    /// Builds in a context of its own, on a base of its own: no two cases have a step in common.
    fn build(&self, w: &World, ctx: &Path, (text, args): &(String, Vec<&'static str>)) -> Done {
        let own = format!("\nCOPY <<CASE /case\n{}\nCASE\n", self.name);
        let mut lines = String::new();
        for line in text.lines() {
            let line = line.replace("from=base", "from=mine");
            lines.push_str(&line.replace("FROM base", "FROM mine"));
            lines.push_str(if line.starts_with("FROM base") { &own } else { "\n" });
        }
        write(&ctx.join("Dockerfile"), &lines);
        let ctx = ctx.to_str().unwrap();
        let args: Vec<String> = args.iter().map(|a| a.replace("CTX", ctx)).collect();
        let args = ["build", "--progress=plain"].into_iter().chain(args.iter().map(String::as_str)).chain([ctx]);
        w.command(&args.collect::<Vec<_>>()).output().unwrap().into()
    }

    /// Returns what is wrong.
    fn run(&self, w: &World, ctx: &Path) -> Option<String> {
        context(ctx);
        let first = self.build(w, ctx, &self.before);
        if first.code != Some(0) {
            return Some(format!("{}: the first build failed: {}", self.name, first.stderr));
        }
        (self.edit)(ctx);
        let second = self.build(w, ctx, &self.after);
        if second.code != Some(0) {
            return Some(format!("{}: the second build failed: {}", self.name, second.stderr));
        }
        let missed: Vec<String> = outcomes(&second).into_iter().filter(|o| o != "CACHED").collect();
        match (&self.want, missed.first()) {
            (Want::Hit, None) => None,
            (Want::Hit, Some(reason)) => Some(format!("{}: should hit, but: {reason}", self.name)),
            (Want::Miss(_), None) => Some(format!("{}: FALSE HIT\n{}", self.name, second.stderr)),
            (Want::Miss(words), Some(reason)) => {
                let unnamed: Vec<_> = words.iter().filter(|w| !reason.contains(**w)).collect();
                (!unnamed.is_empty()).then(|| format!("{}: the reason `{reason}` lacks {unnamed:?}", self.name))
            }
        }
    }
}

/// Runs the cases, several at once, and fails with all that is wrong.
fn run_all(cases: &[Case]) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let w = World::new();
                w.file("Dockerfile", "FROM base\n").build(&["-t", "mine"]).ok();
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(case) = cases.get(n) else { break };
                    let ctx = w.path(&format!("ctx/{n}"));
                    std::fs::create_dir(&ctx).unwrap();
                    wrong.lock().unwrap().extend(case.run(&w, &ctx));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn context_cases() -> Vec<Case> {
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
            &["file d/b changed (type)"],
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
    ]
}

fn text_cases() -> Vec<Case> {
    let run = |a: &str| format!("{a}\nRUN echo x > /o");
    let mount = |m: &str| format!("RUN --mount={m} true");
    let heredoc = |body: &str| format!("RUN <<EOF\n{body}\nEOF");
    let copy = |options: &str| format!("COPY {options} d /d");
    vec![
        text("command", "RUN echo a > /o", "RUN echo b > /o", &["command changed", "echo a", "echo b"]),
        text("exec form instead of shell form", "RUN touch /o", "RUN [\"touch\", \"/o\"]", &["command changed"]),
        text("ARG's default", &run("ARG A=1"), &run("ARG A=2"), &["env A", "\"1\" -> \"2\""]),
        text("ARG added before", &run(""), &run("ARG A=1"), &["env A", "unset -> \"1\""]),
        text("ARG moved above", "RUN echo x > /o\nARG A=1", "ARG A=1\nRUN echo x > /o", &["env A"]),
        text("ARG removed", &run("ARG A=1"), &run(""), &["env A", "-> unset"]),
        text("ENV's value", &run("ENV A=1"), &run("ENV A=2"), &["env A", "\"1\" -> \"2\""]),
        text("ENV added", &run(""), &run("ENV A=1"), &["env A"]),
        text("ENV's order", &run("ENV A=1\nENV B=1"), &run("ENV B=1\nENV A=1"), &["order of the environment"]),
        text("ENV of the base stage", "FROM base AS a\nENV A=1\nFROM a\nRUN true", "FROM base AS a\nENV A=2\nFROM a\nRUN true", &["env A"]),
        text("global ARG that a stage imports", "ARG A=1\nFROM base\nARG A\nRUN true", "ARG A=2\nFROM base\nARG A\nRUN true", &["env A"]),
        text("USER", "RUN true", "USER 7\nRUN true", &["user", "7"]),
        text("WORKDIR", "WORKDIR /a", "WORKDIR /b", &["directory", "/a", "/b"]),
        text("WORKDIR's owner", "WORKDIR /a", "USER 7\nWORKDIR /a", &["user", "7"]),
        text("SHELL", "RUN true", "SHELL [\"sh\", \"-ec\"]\nRUN true", &["command changed", "sh"]),
        text("RUN heredoc", &heredoc("echo a > /o"), &heredoc("echo b > /o"), &["command changed", "echo a"]),
        text("RUN heredoc that is a script", &heredoc("#!/bin/sh\necho a > /o"), &heredoc("#!/bin/sh\necho b > /o"), &["heredoc EOF"]),
        text("COPY heredoc", "COPY <<EOF /o\na\nEOF", "COPY <<EOF /o\nb\nEOF", &["heredoc EOF"]),
        text("COPY heredoc's variable", "ARG A=1\nCOPY <<EOF /o\n$A\nEOF", "ARG A=2\nCOPY <<EOF /o\n$A\nEOF", &["heredoc EOF"]),
        text("mount's target", &mount("target=/m,source=d"), &mount("target=/n,source=d"), &["/m", "/n"]),
        text("mount's rw", &mount("target=/m,source=d"), &mount("target=/m,source=d,rw"), &["/m", "readonly"]),
        text("mount's kind", &mount("type=tmpfs,target=/m"), &mount("type=cache,target=/m"), &["tmpfs:/m", "cache:/m"]),
        text(
            "tmpfs size",
            &mount("type=tmpfs,target=/m,size=1m"),
            &mount("type=tmpfs,target=/m,size=2m"),
            &["mount /m", "1048576", "2097152"],
        ),
        text("cache mount's mode", &mount("type=cache,target=/m"), &mount("type=cache,target=/m,mode=0700"), &["mount /m", "mode"]),
        text("cache mount, read-only", &mount("type=cache,target=/m"), &mount("type=cache,target=/m,ro"), &["mount /m readonly"]),
        text(
            "secret's id",
            &mount("type=secret,id=a,target=/s"),
            &mount("type=secret,id=b,target=/s"),
            &["mount /s", "\\\"a\\\"", "\\\"b\\\""],
        ),
        text("secret's variable", &mount("type=secret,id=a,env=A"), &mount("type=secret,id=a,env=B"), &["mount"]),
        text("secret's mode", &mount("type=secret,id=a,target=/s"), &mount("type=secret,id=a,target=/s,mode=0444"), &["mount /s"]),
        text("mount removed", &mount("type=tmpfs,target=/m"), "RUN true", &["mounts", "tmpfs:/m", "unset"]),
        text("RUN --network", "RUN true", "RUN --network=none true", &["network", "none"]),
        text("destination", "COPY f /f", "COPY f /g", &["destination", "/f", "/g"]),
        text("destination's slash", "COPY f /f", "COPY f /f/", &["destination"]),
        text("--chown", &copy(""), &copy("--chown=7"), &["--chown", "7"]),
        text("--chmod", &copy(""), &copy("--chmod=0700"), &["--chmod", "0700"]),
        text("--exclude", &copy(""), &copy("--exclude=b"), &["d/b removed"]),
        text("--exclude that takes nothing", &copy(""), &copy("--exclude=nothing"), &["--exclude", "nothing"]),
        text("--parents", "COPY d /d/", "COPY --parents d /d/", &["d"]),
        text("--link", &copy(""), &copy("--link"), &["--link"]),
        text("order of sources", "COPY f g /e/", "COPY g f /e/", &["sources", "f g", "g f"]),
        text("another source", "COPY f /f", "COPY x.c /f", &["sources", "f", "x.c"]),
        text("ADD instead of COPY", "COPY f /f", "ADD f /f", &[]),
        text(
            "COPY --from another stage",
            "FROM base AS a\nRUN echo 1 > /o\nFROM base AS b\nRUN echo 2 > /o\nFROM base\nCOPY --from=a /o /o",
            "FROM base AS a\nRUN echo 1 > /o\nFROM base AS b\nRUN echo 2 > /o\nFROM base\nCOPY --from=b /o /o",
            &["o"],
        ),
        text(
            "mode of a file in another stage",
            "FROM base AS a\nRUN echo 1 > /o && chmod 600 /o\nFROM base\nCOPY --from=a /o /o",
            "FROM base AS a\nRUN echo 1 > /o && chmod 640 /o\nFROM base\nCOPY --from=a /o /o",
            &["chmod 600", "chmod 640"],
        ),
        text(
            "mode of the root below",
            "FROM base AS a\nRUN chmod 711 /\nFROM a\nRUN true",
            "FROM base AS a\nRUN chmod 755 /\nFROM a\nRUN true",
            &["chmod"],
        ),
    ]
}

fn flag_cases() -> Vec<Case> {
    let args = "ARG A\nRUN true";
    vec![
        flags("--build-arg", args, &["--build-arg", "A=1"], &["--build-arg", "A=2"], &["env A", "\"1\" -> \"2\""]),
        flags("--build-arg given at all", args, &[], &["--build-arg", "A=1"], &["env A", "unset"]),
        flags("--ulimit", "RUN true", &[], &["--ulimit", "nofile=100"], &["--ulimit", "nofile"]),
        flags("--shm-size", "RUN true", &[], &["--shm-size", "1m"], &["--shm-size", "1048576"]),
        flags("--add-host's name", "RUN true", &["--add-host", "a:1.2.3.4"], &["--add-host", "b:1.2.3.4"], &["--add-host", "a", "b"]),
        flags("--network", "RUN true", &[], &["--network", "none"], &["network", "none"]),
        flags("hostname", "RUN true", &[], &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=h"], &["hostname", "h"]),
        flags("a proxy that is declared", "ARG HTTP_PROXY\nRUN true", &[], &["--build-arg", "HTTP_PROXY=http://p"], &["env HTTP_PROXY"]),
        flags(
            "the epoch, declared",
            "ARG SOURCE_DATE_EPOCH\nRUN true",
            &[],
            &["--build-arg", "SOURCE_DATE_EPOCH=1"],
            &["SOURCE_DATE_EPOCH"],
        ),
        flags(
            "--build-context of files",
            "COPY --from=n a /a",
            &["--build-context", "n=CTX/d"],
            &["--build-context", "n=CTX/other"],
            &["file a changed (content)"],
        ),
        flags("--no-cache-filter", "FROM base AS s\nRUN true", &[], &["--no-cache-filter", "s"], &["--no-cache"]),
    ]
}

#[test]
fn what_is_an_input_misses_and_is_named() {
    let mut cases = context_cases();
    cases.extend(text_cases());
    cases.extend(flag_cases());
    // Slots are kept by platform: the reason can only say that there was none yet.
    let scratch = Case { before: ("FROM scratch\nCOPY f /f\n".into(), vec![]), ..flags("--platform", "", &[], &[], &["first build"]) };
    cases.push(Case { after: (scratch.before.0.clone(), vec!["--platform", "linux/s390x"]), ..scratch });
    run_all(&cases);
    assert!(cases.len() >= 45);
}

#[test]
fn what_is_no_input_hits() {
    let text = |name, before: &str, after: &str| text(name, before, after, &[]).hits();
    let files = |name, dockerfile: &str, edit| files(name, dockerfile, edit, &[]).hits();
    let flags =
        |name, dockerfile: &str, before: &[&'static str], after: &[&'static str]| flags(name, dockerfile, before, after, &[]).hits();
    let all = "COPY f /f\nCOPY d /d\nRUN true";
    let mut cases = vec![
        files("mtime", all, |c| std::fs::File::options().write(true).open(c.join("f")).unwrap().set_modified(SystemTime::now()).unwrap()),
        files("written again with equal bytes", all, |c| write(&c.join("f"), "one")),
        files("another inode", all, |c| {
            std::fs::copy(c.join("f"), c.join("f2")).unwrap();
            std::fs::rename(c.join("f2"), c.join("f")).unwrap();
        }),
        files("a file that nobody copies", all, |c| write(&c.join("unused"), "2")),
        files("a hidden file", "COPY . /all\nRUN true", |c| write(&c.join("hidden/h"), "2")),
        files("a rule that hides nothing", "COPY d /d", |c| write(&c.join(".dockerignore"), "hidden\n# more\nnot-there\n")),
        files("an excluded file", "COPY --exclude=b d /d", |c| write(&c.join("d/b"), "2")),
        files("mode of a copied directory itself", "COPY d /d", |c| mode(&c.join("d"), 0o700)),
        files("a neighbour of a mounted directory", "RUN --mount=target=/m,source=d true", |c| write(&c.join("f"), "2")),
        files("a neighbour of a wildcard", "COPY *.c /c/", |c| write(&c.join("z.d"), "2")),
        text("comment", all, &format!("# what\n{}", all.replace("RUN", "# why\nRUN"))),
        text("white space and case of words", all, &all.replace("RUN true", "run    true  ")),
        text("a continued line with a comment in it", "RUN echo \\\na b > /o", "RUN echo \\\n# no\na b > /o"),
        text("LABEL", all, &format!("LABEL a=b\n{all}")),
        text(
            "CMD, ENTRYPOINT, EXPOSE, VOLUME, STOPSIGNAL, HEALTHCHECK",
            all,
            &format!("CMD a\nENTRYPOINT [\"b\"]\nEXPOSE 1\nVOLUME /v\nSTOPSIGNAL 9\nHEALTHCHECK NONE\n{all}"),
        ),
        text("ONBUILD", all, &format!("ONBUILD RUN false\n{all}")),
        text("a stage's name", "FROM base\nRUN true", "FROM base AS x\nRUN true"),
        text("ARG below", all, &format!("{all}\nARG A=1")),
        text("ENV below", all, &format!("{all}\nENV A=1")),
        text("USER below", all, &format!("{all}\nUSER 7")),
        text("ARG without a value", all, &format!("ARG A\n{all}")),
        text("global ARG", "FROM base\nRUN true", "ARG A=1\nFROM base\nRUN true"),
        text("the other way to write ENV", "ENV A=1\nRUN true", "ENV A 1\nRUN true"),
        text("a heredoc's place", "COPY <<EOF f /e/\nhey\nEOF", "COPY f <<EOF /e/\nhey\nEOF"),
        text("quotes", "ENV A=1\nRUN true", "ENV A=\"1\"\nRUN true"),
        text("a path's spelling", "COPY f /f\nWORKDIR /w", "COPY ./f /f\nWORKDIR /w/"),
        text("where an equal file lay", "COPY d/a /e/", "COPY d2/a /e/"),
        text(
            "cache mount's id and sharing",
            "RUN --mount=type=cache,target=/m true",
            "RUN --mount=type=cache,target=/m,id=x,sharing=locked true",
        ),
        text("cache mount's content", "RUN --mount=type=cache,target=/m echo x >> /m/x", "RUN --mount=type=cache,target=/m echo x >> /m/x"),
        text(
            "a stage that nothing needs",
            "FROM base AS u\nRUN echo 1\nFROM base\nRUN true",
            "FROM base AS u\nRUN echo 2\nFROM base\nRUN true",
        ),
        flags("--label", all, &[], &["--label", "a=b"]),
        flags("-t", all, &[], &["-t", "other:1"]),
        flags("--add-host's address", "RUN true", &["--add-host", "a:1.2.3.4"], &["--add-host", "a:1.2.3.5"]),
        flags("a proxy", "RUN true", &[], &["--build-arg", "HTTP_PROXY=http://p"]),
        flags("--build-arg that nobody declares", "RUN true", &[], &["--build-arg", "NOBODY=1"]),
        flags(
            "a secret's value",
            "RUN --mount=type=secret,id=s true",
            &["--secret", "id=s,src=CTX/f"],
            &["--secret", "id=s,src=CTX/unused"],
        ),
        flags("a secret given at all", "RUN --mount=type=secret,id=s true", &[], &["--secret", "id=s,src=CTX/f"]),
        flags("the epoch", all, &[], &["--build-arg", "SOURCE_DATE_EPOCH=1"]),
        flags("-f another file", all, &[], &["-f", "CTX/Dockerfile"]),
        flags("output", all, &[], &["-o", "type=tar,dest=CTX/o.tar"]),
        flags("--network=default", "RUN true", &[], &["--network=default"]),
    ];
    if is_root() {
        cases.push(files("owner in a context", all, |c| std::os::unix::fs::chown(c.join("f"), Some(7), Some(7)).unwrap()));
    }
    run_all(&cases);
    assert!(cases.len() >= 25);
}

#[test]
fn an_archive_s_content_counts() {
    let w = World::new();
    let pack = |text: &str| {
        w.file("a", text);
        let tar = w.path("ctx/a.tar");
        program("tar", &["-C", w.path("ctx").to_str().unwrap(), "-cf", tar.to_str().unwrap(), "a"])
    };
    let Some(done) = pack("1") else { return };
    done.ok();
    let dockerfile = "FROM base\nADD a.tar /u\n";
    w.image(dockerfile).ok();
    pack("2").unwrap().ok();
    let got = outcomes(&w.image(dockerfile).ok());
    assert!(got[0].contains("a.tar") && got[0].contains("content"), "{got:?}");
    assert_eq!(w.out(&["cat", "/u/a"]), "2");
}

#[test]
fn other_content_under_the_base_s_tag_counts_and_is_named() {
    let w = World::new();
    let base = |text: &str| {
        w.file("Base", &format!("FROM base\n{text}\n")).build(&["-f", w.path("ctx/Base").to_str().unwrap(), "-t", "mine"]).ok()
    };
    base("RUN echo 1 > /v");
    let dockerfile = "FROM mine\nRUN cat /v > /o\n";
    w.image(dockerfile).ok();
    base("RUN echo 2 > /v");
    let got = outcomes(&w.image(dockerfile).ok());
    assert!(got[0].contains("base image changed") && got[0].contains("mine"), "{got:?}");
    assert_eq!(w.out(&["cat", "/o"]), "2\n");
    // The configuration alone.
    base("RUN echo 2 > /v\nENV Q=1");
    let got = outcomes(&w.image(dockerfile).ok());
    assert!(got[0].contains("env Q"), "{got:?}");
    base("RUN echo 2 > /v\nENV Q=1\nLABEL q=1");
    assert_eq!(outcomes(&w.image(dockerfile).ok()), ["CACHED"]);
}
