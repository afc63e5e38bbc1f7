//! Changes of what is no input: every step must hit.

use super::*;

fn touch(path: &Path) {
    let now = rustix::fs::Timespec { tv_sec: 1_400_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// The instructions as a whole Dockerfile, for what comes before FROM.
fn whole(text: &str) -> String {
    format!("FROM base\n{text}")
}

pub(super) fn cases() -> Vec<Case> {
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
        files("times of a directory", all, |c| touch(&c.join("d/sub"))),
        files("time of a link", "COPY d /d", |c| relink(&c.join("d/l"), "a")),
        files("read meanwhile", all, |c| drop(std::fs::read(c.join("d/a")).unwrap())),
        files("mode there and back", all, |c| {
            mode(&c.join("f"), 0o600);
            mode(&c.join("f"), 0o644);
        }),
        files("content there and back", all, |c| {
            write(&c.join("f"), "two");
            write(&c.join("f"), "one");
        }),
        files("an xattr there and back", all, |c| {
            xattr(&c.join("f"));
            rustix::fs::removexattr(c.join("f"), "user.color").unwrap();
        }),
        files("a file there and back", all, |c| {
            write(&c.join("d/new"), "");
            std::fs::remove_file(c.join("d/new")).unwrap();
        }),
        files("a name outside of what is copied", all, |c| std::fs::hard_link(c.join("d/a"), c.join("outside")).unwrap()),
        files("made again, in another order", "COPY d /d", |c| {
            for (name, text) in [("b", "b"), ("a", "a")] {
                std::fs::remove_file(c.join("d").join(name)).unwrap();
                write(&c.join("d").join(name), text);
                mode(&c.join("d").join(name), 0o644);
            }
        }),
        files("a file that nobody copies, removed", all, |c| std::fs::remove_file(c.join("unused")).unwrap()),
        files("a directory that nobody copies", all, |c| std::fs::create_dir(c.join("new")).unwrap()),
        files("a hidden file, with a rule more", "COPY d /d", |c| write(&c.join(".dockerignore"), "hidden\nf\nx.c\n")),
        files(".dockerignore's comments and empty lines", "COPY d /d", |c| write(&c.join(".dockerignore"), "# a\n\nhidden\n\n")),
        files(".dockerignore with equal rules", "COPY d /d", |c| write(&c.join(".dockerignore"), "./hidden/\n")),
        files("a Dockerfile's own ignore file with equal rules", "COPY d /d", |c| write(&c.join("Dockerfile.dockerignore"), "hidden\n")),
        files("an excluded file, removed", "COPY --exclude=b d /d", |c| std::fs::remove_file(c.join("d/b")).unwrap()),
        files("what an exclude pattern takes, added", "COPY --exclude=*.o d /d", |c| write(&c.join("d/new.o"), "")),
        files("mode of the context itself", "COPY . /all", |c| mode(c, 0o700)),
        files("mode of a directory above a file", "COPY d/sub/c /c", |c| mode(&c.join("d/sub"), 0o700)),
        files("another file beside one with --parents", "COPY --parents d/sub/c /p/", |c| write(&c.join("d/a"), "2")),
        files("a neighbour of a mounted file", "RUN --mount=target=/m,source=f true", |c| write(&c.join("g"), "2")),
        files("a mounted directory's times", "RUN --mount=target=/m,source=d true", |c| touch(&c.join("d"))),
        files("what the link that is copied leads to lies elsewhere", "COPY link /k", |c| relink(&c.join("link"), "g")),
        files("a fifo that nobody copies", all, |c| {
            nix::unistd::mkfifo(&c.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        }),
        text("a directive", all, &format!("# check=skip=all\n{}", whole(all))),
        text("a syntax line", all, &format!("# syntax=docker/dockerfile:1\n{}", whole(all))),
        text("another escape character", all, &format!("# escape=`\n{}", whole(all))),
        text("empty lines", all, &all.replace('\n', "\n\n\n")),
        text("tabs before an instruction", all, &all.replace('\n', "\n\t")),
        text("line ends of another system", all, &all.replace('\n', "\r\n")),
        text("MAINTAINER", all, &format!("MAINTAINER me\n{all}")),
        text("a label's value", &format!("LABEL a=1\n{all}"), &format!("LABEL a=2\n{all}")),
        text("CMD's form", &format!("{all}\nCMD a b"), &format!("{all}\nCMD [\"a\", \"b\"]")),
        text("WORKDIR that is there already, below", &format!("{all}\nWORKDIR /"), all),
        text("a relative WORKDIR", "WORKDIR /x\nWORKDIR /x/a\nRUN true", "WORKDIR /x\nWORKDIR a\nRUN true"),
        text("a WORKDIR's variable", "WORKDIR /x\nRUN true", "WORKDIR ${NOBODY:-/x}\nRUN true"),
        text("a relative destination", "WORKDIR /w\nCOPY f /w/f", "WORKDIR /w\nCOPY f f"),
        text("COPY's form", "COPY f d /e/", "COPY [\"f\", \"d\", \"/e/\"]"),
        text("a source's slashes", "COPY d /d", "COPY /d/ /d"),
        text("a destination by a variable", "COPY f /e/", "COPY f ${NOBODY:-/e/}"),
        text("several variables in one ENV", "ENV A=1\nENV B=2\nRUN true", "ENV A=1 B=2\nRUN true"),
        text("a variable in single quotes", "ENV A=1\nRUN true", "ENV A='1'\nRUN true"),
        text("ENV by another variable", "ENV A=1 B=1\nRUN true", "ENV A=1\nENV B=$A\nRUN true"),
        text("the usual SHELL, said", "RUN true", "SHELL [\"/bin/sh\", \"-c\"]\nRUN true"),
        text("RUN's exec form of what the shell form is", "RUN true", "RUN [\"/bin/sh\", \"-c\", \"true\"]"),
        text(
            "ARG of another stage",
            "FROM base AS a\nARG A=1\nRUN true\nFROM base\nRUN true",
            "FROM base AS a\nARG A=2\nFROM base\nRUN true",
        ),
        text("SHELL below", all, &format!("{all}\nSHELL [\"sh\", \"-ec\"]")),
        text("a step more, below", &format!("{all}\nRUN echo 1"), all),
        text("a heredoc that needs no expanding", "COPY <<E /o\nx\nE", "COPY <<\"E\" /o\nx\nE"),
        text("a heredoc without leading tabs", "COPY <<E /o\nx\nE", "COPY <<-E /o\nx\nE"),
        text("a heredoc's variable with an equal value", "COPY <<E /o\n1\nE", "ARG A=1\nCOPY <<E /o\n$A\nE"),
        text("a bind mount's type, said", "RUN --mount=target=/m,source=d true", "RUN --mount=type=bind,target=/m,source=d true"),
        text("a mount's other words", "RUN --mount=target=/m,source=d true", "RUN --mount=dst=/m,src=d,ro true"),
        text("order of a mount's fields", "RUN --mount=target=/m,source=d true", "RUN --mount=source=d,target=/m true"),
        text("where what is mounted came from", "RUN --mount=target=/m,source=d2/a true", "RUN --mount=target=/m,source=d/a true"),
        text("a cache mount's id alone", "RUN --mount=type=cache,target=/m true", "RUN --mount=type=cache,id=other,target=/m true"),
        text(
            "a cache mount's usual mode",
            "RUN --mount=type=cache,target=/m true",
            "RUN --mount=type=cache,target=/m,mode=0755,uid=0,gid=0 true",
        ),
        text("a secret's usual target", "RUN --mount=type=secret,id=a true", "RUN --mount=type=secret,id=a,target=/run/secrets/a true"),
        text(
            "a stage by its number",
            "FROM base AS s\nCOPY d /d\nFROM base\nCOPY --from=s /d/a /e/",
            "FROM base\nCOPY d /d\nFROM base\nCOPY --from=0 /d/a /e/",
        ),
        text(
            "order of stages",
            "FROM base AS s\nRUN true\nFROM base AS t\nCOPY d /d\nFROM base\nCOPY --from=s /bin /e\nCOPY --from=t /d /d",
            "FROM base AS t\nCOPY d /d\nFROM base AS s\nRUN true\nFROM base\nCOPY --from=s /bin /e\nCOPY --from=t /d /d",
        ),
        text("a stage that only names another", "FROM base\nCOPY f /f", "FROM base AS s\nFROM s\nCOPY f /f"),
        text(
            "RUN that does nothing in another stage",
            "FROM base AS s\nCOPY d /d\nFROM base\nCOPY --from=s /d /d",
            "FROM base AS s\nLABEL a=b\nCOPY d /d\nFROM base\nCOPY --from=s /d /d",
        ),
        text("what a linked COPY stands on", "COPY --link f /f", "USER 7\nENV A=1\nCOPY --link f /f"),
        text("USER below a COPY's", "COPY f /f", "USER 7\nCOPY f /f"),
        text("ENV that a COPY does not read", "COPY f /f", "ENV A=1\nARG B=2\nCOPY f /f"),
        text("RUN's usual network and security, said", "RUN true", "RUN --network=default --security=sandbox true"),
        flags("--build-arg that says the default", "ARG A=1\nRUN true", &[], &["--build-arg", "A=1"]),
        flags("--build-arg for a COPY that does not read it", "ARG A\nCOPY f /f", &[], &["--build-arg", "A=1"]),
        flags("a proxy in small letters", "RUN true", &[], &["--build-arg", "https_proxy=http://p"]),
        flags(
            "all proxies",
            "RUN true",
            &["--build-arg", "NO_PROXY=a"],
            &["--build-arg", "NO_PROXY=b", "--build-arg", "ALL_PROXY=http://p"],
        ),
        flags("jobs", all, &[], &["--jobs", "1"]),
        flags("--iidfile and --metadata-file", all, &[], &["--iidfile", "CTX/../iid", "--metadata-file", "CTX/../meta"]),
        flags("another archive", all, &["-o", "type=oci,dest=CTX/../o.tar"], &["-o", "type=docker,dest=CTX/../d.tar,compression=zstd"]),
        flags("no output", all, &[], &["-o", "type=none"]),
        flags("a shared cache written", all, &[], &["--cache-to", "type=local,dest=CTX/../cache"]),
        flags("--target of the last stage", "FROM base AS s\nCOPY f /f", &[], &["--target", "s"]),
        flags("--build-context that nobody names", all, &[], &["--build-context", "n=CTX/d"]),
        flags("--build-context with equal files", "COPY --from=n a /e/", &["--build-context", "n=CTX/d"], &["--build-context", "n=CTX/d2"]),
        flags("--allow that nobody asks for", all, &[], &["--allow", "network.host"]),
        flags("--no-cache-filter of another stage", "FROM base AS s\nRUN true\nFROM base\nRUN true", &[], &["--no-cache-filter", "nobody"]),
        flags("--ulimit for a COPY", "COPY f /f", &[], &["--ulimit", "nofile=100", "--shm-size", "1m", "--add-host", "a:1.2.3.4"]),
        flags("--network for a COPY", "COPY f /f\nWORKDIR /w", &[], &["--network", "none"]),
        flags(
            "a secret from the environment",
            "RUN --mount=type=secret,id=s true",
            &["--secret", "id=s,env=PATH"],
            &["--secret", "id=s,env=HOME"],
        ),
        flags("the epoch's value", all, &["--build-arg", "SOURCE_DATE_EPOCH=1"], &["--build-arg", "SOURCE_DATE_EPOCH=2"]),
        flags(
            "cache mounts of another name space",
            "RUN --mount=type=cache,target=/m true",
            &[],
            &["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=n"],
        ),
    ];
    if is_root() {
        // A mount shows everything as root's, as a copy makes it.
        let mounted = "RUN --mount=target=/m,source=d stat -c %u:%g /m/a > /o";
        cases.push(files("owner under a mount", mounted, |c| std::os::unix::fs::chown(c.join("d/a"), Some(7), Some(8)).unwrap()));
        cases.push(files("owner in a context", all, |c| std::os::unix::fs::chown(c.join("f"), Some(7), Some(7)).unwrap()));
    }
    cases
}
