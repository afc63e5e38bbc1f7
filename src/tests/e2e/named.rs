//! One input at a time: the build and `ply explain` must name exactly this one, with its place.
//!
//! Each case is a context of its own, two builds, what the second one says, and what is told of it afterwards. That nothing
//! hits falsely is `metamorphic`'s.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cache::outcomes;
use super::{Done, World};

struct Case {
    name: &'static str,
    /// Dockerfile and arguments, before and after.
    before: (String, Vec<&'static str>),
    after: (String, Vec<&'static str>),
    edit: fn(&Path),
    /// What the first step that runs says.
    words: &'static [&'static str],
    /// How many differences there are in all: a renamed file is two.
    causes: usize,
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
    Case { name, before: (text.clone(), vec![]), after: (text, vec![]), edit, words, causes: 1 }
}

/// A change of the Dockerfile, below FROM.
fn text(name: &'static str, before: &str, after: &str, words: &'static [&'static str]) -> Case {
    let full = |t: &str| if t.contains("FROM ") { format!("{t}\n") } else { format!("FROM base\n{t}\n") };
    Case { name, before: (full(before), vec![]), after: (full(after), vec![]), edit: nothing, words, causes: 1 }
}

/// A change of the command line.
fn flags(name: &'static str, dockerfile: &str, before: &[&'static str], after: &[&'static str], words: &'static [&'static str]) -> Case {
    let case = text(name, dockerfile, dockerfile, words);
    Case { before: (case.before.0, before.to_vec()), after: (case.after.0, after.to_vec()), ..case }
}

impl Case {
    fn with(self, causes: usize) -> Self {
        Self { causes, ..self }
    }

    /// Compares what the build said with what `ply explain` says, and returns what is wrong.
    fn explained(&self, w: &World, ctx: &Path, said: &str) -> Option<String> {
        let own = format!("{} (", ctx.canonicalize().unwrap().display());
        let done = w.ply(&["explain", "--format", "json", "--dockerfile", &own]).ok();
        let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        let step = json["steps"].as_array().unwrap().iter().find(|s| s["outcome"] == "built").unwrap();
        let words = step["cause"]["words"].as_str().unwrap_or_default();
        let count = step["causes"].as_array().unwrap().len();
        let wanted = if said == "--no-cache" { 0 } else { self.causes };
        let place = step["cause"]["place"].as_str().unwrap_or_default();
        if !said.starts_with(words) || words.is_empty() || place.is_empty() {
            return Some(format!("{}: the build said `{said}`, explain says `{words}`, at `{place}`", self.name));
        }
        (count != wanted).then(|| format!("{}: {count} causes instead of {wanted}: {:#}", self.name, step["causes"]))
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
        let Some(reason) = missed.first() else { return Some(format!("{}: FALSE HIT\n{}", self.name, second.stderr)) };
        let unnamed: Vec<_> = self.words.iter().filter(|w| !reason.contains(**w)).collect();
        if !unnamed.is_empty() {
            return Some(format!("{}: the reason `{reason}` lacks {unnamed:?}", self.name));
        }
        self.explained(w, ctx, reason)
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
        files("target of a link below", d, |c| relink(&c.join("d/l"), "b"), &["file d/l changed (link target a -> b)"]),
        files("what a link leads to", "COPY link /k", |c| relink(&c.join("link"), "x.c"), &["file link changed (content)"]),
        files("content behind a link", "COPY link /k", |c| write(&c.join("f"), "two"), &["file link changed (content)"]),
        files("xattr of a file", f, |c| xattr(&c.join("f")), &["file f changed (attribute user.color added)"]),
        files("xattr of a file below", d, |c| xattr(&c.join("d/a")), &["file d/a changed (attribute user.color added)"]),
        files("xattr of a directory below", d, |c| xattr(&c.join("d/sub")), &["file d/sub changed (attribute user.color added)"]),
        files("file added", d, |c| write(&c.join("d/new"), ""), &["file d/new added"]),
        files("empty directory added", d, |c| std::fs::create_dir(c.join("d/new")).unwrap(), &["file d/new added"]),
        files("file removed", d, |c| std::fs::remove_file(c.join("d/b")).unwrap(), &["file d/b removed"]),
        files("file renamed", d, |c| std::fs::rename(c.join("d/b"), c.join("d/z")).unwrap(), &["file d/b removed"]).with(2),
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
            &["file h/b changed (hard link)"],
        ),
        files("wildcard: added", "COPY *.c /c/", |c| write(&c.join("z.c"), "z"), &["file z.c added"]),
        files("wildcard: removed", "COPY *.c /c/", |c| std::fs::remove_file(c.join("y.c")).unwrap(), &["file y.c removed"]),
        files("wildcard: renamed", "COPY *.c /c/", |c| std::fs::rename(c.join("y.c"), c.join("z.c")).unwrap(), &["file y.c removed"])
            .with(2),
        files(
            ".dockerignore hides",
            d,
            |c| write(&c.join(".dockerignore"), "# no\nd/b\n"),
            &["file d/b removed: now ignored by `d/b`", ".dockerignore:2"],
        ),
        files(
            ".dockerignore hides no more",
            "COPY --exclude=.dockerignore . /e",
            |c| write(&c.join(".dockerignore"), ""),
            &["file hidden added: no longer ignored by `hidden`", "was .dockerignore:1"],
        )
        .with(2),
        files(
            ".dockerignore shows",
            "COPY . /all",
            |c| write(&c.join(".dockerignore"), "Dockerfile\n"),
            &["file .dockerignore changed", "more"],
        )
        .with(4),
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
        text("ENV's value", &run("ENV A=1"), &run("ENV A=2"), &["env A", "\"1\" -> \"2\"", "Dockerfile:5"]),
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
        text("mount's kind", &mount("type=tmpfs,target=/m"), &mount("type=cache,target=/m"), &["mount /m", "tmpfs", "cache"]),
        text(
            "tmpfs size",
            &mount("type=tmpfs,target=/m,size=1m"),
            &mount("type=tmpfs,target=/m,size=2m"),
            &["mount /m", "1048576", "2097152"],
        ),
        text("cache mount's mode", &mount("type=cache,target=/m"), &mount("type=cache,target=/m,mode=0700"), &["mount /m", "mode"]),
        text("cache mount, read-only", &mount("type=cache,target=/m"), &mount("type=cache,target=/m,ro"), &["mount /m readonly"]),
        text("secret's id", &mount("type=secret,id=a,target=/s"), &mount("type=secret,id=b,target=/s"), &["mount /s id", "\"a\"", "\"b\""]),
        text("secret's variable", &mount("type=secret,id=a,env=A"), &mount("type=secret,id=a,env=B"), &["mount"]),
        text("secret's mode", &mount("type=secret,id=a,target=/s"), &mount("type=secret,id=a,target=/s,mode=0444"), &["mount /s"]),
        text(
            "cache mount's owner",
            &mount("type=cache,target=/m"),
            &mount("type=cache,target=/m,uid=7"),
            &["mount /m uid", "\"0\" -> \"7\""],
        ),
        text("cache mount's group", &mount("type=cache,target=/m"), &mount("type=cache,target=/m,gid=7"), &["mount /m gid"]),
        text("secret's owner", &mount("type=secret,id=a,target=/s"), &mount("type=secret,id=a,target=/s,uid=7"), &["mount /s uid"]),
        text("ssh's id", &mount("type=ssh,target=/s"), &mount("type=ssh,target=/s,id=x"), &["mount /s id", "\"default\" -> \"x\""]),
        text("ssh's mode", &mount("type=ssh,target=/s"), &mount("type=ssh,target=/s,mode=0666"), &["mount /s mode"]),
        text("mount added", "RUN true", &mount("type=tmpfs,target=/m"), &["mount /m", "unset -> \"tmpfs\""]),
        text(
            "mounts' order",
            "RUN --mount=type=tmpfs,target=/m --mount=type=tmpfs,target=/n true",
            "RUN --mount=type=tmpfs,target=/n --mount=type=tmpfs,target=/m true",
            &["mount order"],
        ),
        text("a step put in below", "RUN echo 1 > /a\nRUN true", "RUN echo 1 > /a\nWORKDIR /w\nRUN true", &["first build"]).with(0),
        text(
            "a step taken out below",
            "RUN echo 1 > /a\nRUN echo 2 > /b\nRUN true",
            "RUN echo 1 > /a\nRUN true",
            &["a step before it is gone (RUN echo 2 > /b)"],
        ),
        text("mount removed", &mount("type=tmpfs,target=/m"), "RUN true", &["mount /m", "tmpfs", "unset"]),
        text("RUN --network", "RUN true", "RUN --network=none true", &["network", "none"]),
        text("destination", "COPY f /f", "COPY f /g", &["destination", "/f", "/g"]),
        text("destination's slash", "COPY f /f", "COPY f /f/", &["destination"]),
        text("--chown", &copy(""), &copy("--chown=7"), &["--chown", "7"]),
        text("--chmod", &copy(""), &copy("--chmod=0700"), &["--chmod", "0700"]),
        text("--exclude", &copy(""), &copy("--exclude=b"), &["--exclude", "unset -> \"b\""]),
        text("--exclude that takes nothing", &copy(""), &copy("--exclude=nothing"), &["--exclude", "nothing"]),
        text("--parents", "COPY d /d/", "COPY --parents d /d/", &["--parents"]),
        text("--link", &copy(""), &copy("--link"), &["--link"]),
        text("order of sources", "COPY f g /e/", "COPY g f /e/", &["sources", "f g", "g f"]),
        text("another source", "COPY f /f", "COPY x.c /f", &["sources", "f", "x.c"]),
        text("ADD instead of COPY", "COPY f /f", "ADD f /f", &["instruction changed (COPY -> ADD)"]),
        text(
            "COPY --from another stage",
            "FROM base AS a\nRUN echo 1 > /o\nFROM base AS b\nRUN echo 2 > /o\nFROM base\nCOPY --from=a /o /o",
            "FROM base AS a\nRUN echo 1 > /o\nFROM base AS b\nRUN echo 2 > /o\nFROM base\nCOPY --from=b /o /o",
            &["first build"],
        )
        .with(0),
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
        flags(
            "seed of a cache mount",
            "RUN --mount=type=cache,target=/m,from=n true",
            &["--build-context", "n=CTX/d2"],
            &["--build-context", "n=CTX/other"],
            &["file /m/a changed (content)"],
        ),
        flags("--no-cache-filter", "FROM base AS s\nRUN true", &[], &["--no-cache-filter", "s"], &["--no-cache"]),
    ]
}

#[test]
fn exactly_the_input_that_changed_is_named() {
    let mut cases = context_cases();
    cases.extend(text_cases());
    cases.extend(flag_cases());
    let words = &["platform changed", "linux/s390x"];
    let scratch = Case { before: ("FROM scratch\nCOPY f /f\n".into(), vec![]), ..flags("--platform", "", &[], &[], words) };
    cases.push(Case { after: (scratch.before.0.clone(), vec!["--platform", "linux/s390x"]), ..scratch });
    run_all(&cases);
    assert!(cases.len() >= 90, "{}", cases.len());
}
