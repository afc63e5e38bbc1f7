//! Changes of a Dockerfile that must miss, and be named.

use super::*;

pub(super) fn cases() -> Vec<Case> {
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
        text("mount removed", &mount("type=tmpfs,target=/m"), "RUN true", &["mount /m", "tmpfs", "unset"]),
        text("RUN --network", "RUN true", "RUN --network=none true", &["network", "none"]),
        text("destination", "COPY f /f", "COPY f /g", &["destination", "/f", "/g"]),
        text("destination's slash", "COPY f /f", "COPY f /f/", &["destination"]),
        text("--chown", &copy(""), &copy("--chown=7"), &["--chown", "7"]),
        text("--chmod", &copy(""), &copy("--chmod=0700"), &["--chmod", "0700"]),
        text("--exclude", &copy(""), &copy("--exclude=b"), &["--exclude", "b"]),
        text("--exclude that takes nothing", &copy(""), &copy("--exclude=nothing"), &["--exclude", "nothing"]),
        text("--parents", "COPY d /d/", "COPY --parents d /d/", &["d"]),
        text("--link given", "COPY d /own", "COPY --link d /own", &["--link"]),
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
        text("an argument's end", "RUN [\"echo\", \"a b\"]", "RUN [\"echo\", \"a\", \"b\"]", &["command changed"]),
        text("an empty argument", "RUN [\"echo\"]", "RUN [\"echo\", \"\"]", &["command changed"]),
        text("order of arguments", "RUN [\"echo\", \"a\", \"b\"]", "RUN [\"echo\", \"b\", \"a\"]", &["command changed"]),
        text("white space in a command", "RUN echo a  b > /o", "RUN echo a b > /o", &["command changed"]),
        text("case of a command's words", "RUN echo A > /o", "RUN echo a > /o", &["command changed"]),
        text("a comment in a RUN heredoc", &heredoc("# a\ntrue"), &heredoc("# b\ntrue"), &["command changed"]),
        text("a line end in a RUN heredoc", &heredoc("true"), &heredoc("true\n"), &["command changed"]),
        text("a second heredoc of a RUN", "RUN cat <<A <<B > /o\n1\nA\n2\nB", "RUN cat <<A <<B > /o\n1\nA\n3\nB", &[]),
        text("order of a RUN's heredocs", "RUN cat <<A <<B > /o\n1\nA\n2\nB", "RUN cat <<B <<A > /o\n2\nB\n1\nA", &["command changed"]),
        text("a script's interpreter", &heredoc("#!/bin/sh\ntrue"), &heredoc("#!/bin/sh -e\ntrue"), &["heredoc EOF"]),
        text("ENV's name", &run("ENV A=1"), &run("ENV B=1"), &["env"]),
        text("ENV emptied", &run("ENV A=1"), &run("ENV A="), &["env A"]),
        text("ENV removed", &run("ENV A=1"), &run(""), &["env A", "-> unset"]),
        text("ENV emptied, not removed", &run("ENV A="), &run(""), &["env A", "-> unset"]),
        text("white space in ENV", &run("ENV A=\"1 2\""), &run("ENV A=\"1  2\""), &["env A"]),
        text("ENV set twice", &run("ENV A=1\nENV A=2"), &run("ENV A=1\nENV A=3"), &["env A", "\"2\" -> \"3\""]),
        text("ENV's default", &run("ENV A=${B:-x}"), &run("ENV A=${B:-y}"), &["env A", "\"x\" -> \"y\""]),
        text("PATH's order", &run("ENV PATH=/bin:/sbin"), &run("ENV PATH=/sbin:/bin"), &["env PATH"]),
        text("ENV over ARG", &run("ARG A=1\nENV A=2"), &run("ARG A=1\nENV A=3"), &["env A"]),
        text("a platform's ARG", &run(""), &run("ARG TARGETARCH"), &["env TARGETARCH", "unset"]),
        text("ARG with an empty default", &run("ARG A"), &run("ARG A="), &["env A", "unset -> \"\""]),
        text("an ARG that an ARG takes", &run("ARG A=1\nARG B=$A"), &run("ARG A=2\nARG B=$A"), &["env"]),
        text(
            "ENV that triggers set",
            "FROM base AS a\nONBUILD ENV A=1\nFROM a\nRUN true",
            "FROM base AS a\nONBUILD ENV A=2\nFROM a\nRUN true",
            &["env A"],
        ),
        text(
            "ARG of the stage below",
            "FROM base AS a\nARG A=1\nFROM a\nRUN true",
            "FROM base AS a\nARG A=2\nFROM a\nRUN true",
            &["env A"],
        ),
        text("a trigger", "FROM base AS a\nONBUILD RUN echo 1\nFROM a", "FROM base AS a\nONBUILD RUN echo 2\nFROM a", &["command changed"]),
        text("USER's group", "USER 7\nRUN true", "USER 7:8\nRUN true", &["user", "7:8"]),
        text(
            "USER of the stage below",
            "FROM base AS a\nUSER 7\nFROM a\nRUN true",
            "FROM base AS a\nUSER 8\nFROM a\nRUN true",
            &["user", "8"],
        ),
        text("WORKDIR deeper", "WORKDIR /a", "WORKDIR /a/b", &["directory", "/a/b"]),
        text("WORKDIR on the way", "WORKDIR /a\nWORKDIR c", "WORKDIR /b\nWORKDIR c", &["directory", "/b"]),
        text("WORKDIR by ENV", "ENV D=/a\nWORKDIR $D", "ENV D=/b\nWORKDIR $D", &["directory", "/b"]),
        text(
            "working directory of the stage below",
            "FROM base AS a\nWORKDIR /a\nFROM a\nRUN true",
            "FROM base AS a\nWORKDIR /b\nFROM a\nRUN true",
            &["/b"],
        )
        .through(),
        text("SHELL's program", "SHELL [\"/bin/sh\", \"-c\"]\nRUN true", "SHELL [\"sh\", \"-c\"]\nRUN true", &["command changed"]),
        text("mount added", "RUN true", &mount("type=tmpfs,target=/m"), &["mount /m"]),
        text(
            "order of mounts",
            "RUN --mount=type=tmpfs,target=/m --mount=type=cache,target=/n true",
            "RUN --mount=type=cache,target=/n --mount=type=tmpfs,target=/m true",
            &["mount"],
        ),
        text("what a bind mount shows", &mount("target=/m,source=d"), &mount("target=/m,source=h"), &[]),
        text("a part of what a bind mount shows", &mount("target=/m,source=d"), &mount("target=/m,source=d/sub"), &[]),
        text("cache mount's uid", &mount("type=cache,target=/m"), &mount("type=cache,target=/m,uid=7"), &["mount /m"]),
        text("cache mount's gid", &mount("type=cache,target=/m"), &mount("type=cache,target=/m,gid=7"), &["mount /m"]),
        text("cache mount's target", &mount("type=cache,target=/m,id=x"), &mount("type=cache,target=/n,id=x"), &["/m", "/n"]),
        text(
            "cache mount's seed given",
            &mount("type=cache,target=/m"),
            &mount("type=cache,target=/m,from=base,source=/bin"),
            &["mount /m"],
        ),
        text("tmpfs size given", &mount("type=tmpfs,target=/m"), &mount("type=tmpfs,target=/m,size=1m"), &["mount /m"]),
        text("tmpfs target", &mount("type=tmpfs,target=/m"), &mount("type=tmpfs,target=/n"), &["/m", "/n"]),
        text("secret's target", &mount("type=secret,id=a,target=/s"), &mount("type=secret,id=a,target=/t"), &["/s", "/t"]),
        text("secret's owner", &mount("type=secret,id=a,target=/s"), &mount("type=secret,id=a,target=/s,uid=7"), &["mount /s"]),
        text("secret's group", &mount("type=secret,id=a,target=/s"), &mount("type=secret,id=a,target=/s,gid=7"), &["mount /s"]),
        text("secret as a variable too", &mount("type=secret,id=a,target=/s"), &mount("type=secret,id=a,target=/s,env=A"), &["mount"]),
        text("ssh mount added", "RUN true", &mount("type=ssh"), &["SSH_AUTH_SOCK"]),
        text("ssh mount's id", &mount("type=ssh,id=a,target=/s"), &mount("type=ssh,id=b,target=/s"), &["mount /s"]),
        text("ssh mount's mode", &mount("type=ssh,id=a,target=/s"), &mount("type=ssh,id=a,target=/s,mode=0666"), &["mount /s"]),
        text("ssh mount's owner", &mount("type=ssh,id=a,target=/s"), &mount("type=ssh,id=a,target=/s,uid=7"), &["mount /s"]),
        text("ssh mount's group", &mount("type=ssh,id=a,target=/s"), &mount("type=ssh,id=a,target=/s,gid=7"), &["mount /s"]),
        text("ssh mount's target", &mount("type=ssh,id=a,target=/s"), &mount("type=ssh,id=a,target=/t"), &["/s", "/t"]),
        text("--chown's group", &copy("--chown=7"), &copy("--chown=7:8"), &["--chown", "7:8"]),
        text("--chmod's digits", &copy("--chmod=0700"), &copy("--chmod=0750"), &["--chmod", "0750"]),
        text("--chmod in letters", &copy("--chmod=u+x"), &copy("--chmod=g+x"), &["--chmod", "g+x"]),
        text("--chown given up", &copy("--chown=7"), &copy(""), &["--chown"]),
        text("order of --exclude", &copy("--exclude=a --exclude=!a"), &copy("--exclude=!a --exclude=a"), &[]),
        text("a pattern of --exclude", &copy("--exclude=a"), &copy("--exclude=b"), &[]),
        text("--parents' pivot", "COPY --parents d/sub/c /p/", "COPY --parents d/./sub/c /p/", &[]),
        text("a base name, with equal content", "COPY f /e/", "COPY g /e/", &["sources", "f", "g"]),
        text("a source twice", "COPY f /e/", "COPY f f /e/", &["sources"]),
        text("a source less", "COPY f g /e/", "COPY f /e/", &["sources"]),
        text("a file instead of its directory", "COPY d /e/", "COPY d/a /e/", &["sources"]),
        text("COPY heredoc's name", "COPY <<A /e/\nx\nA", "COPY <<B /e/\nx\nB", &["sources"]),
        text("COPY heredoc, expanded or not", "ARG A=1\nCOPY <<E /o\n$A\nE", "ARG A=1\nCOPY <<\"E\" /o\n$A\nE", &["heredoc E"]),
        text("COPY heredoc's tabs", "COPY <<E /o\n\tx\nE", "COPY <<-E /o\n\tx\nE", &["heredoc E"]),
        text("second of two heredocs", "COPY <<A <<B /e/\n1\nA\n2\nB", "COPY <<A <<B /e/\n1\nA\n3\nB", &["heredoc B"]),
        text("ADD --unpack", "ADD f /f", "ADD --unpack=false f /f", &["unpack"]),
        text("ADD --chown", "ADD f /f", "ADD --chown=7 f /f", &["--chown"]),
        text("ADD --chmod", "ADD f /f", "ADD --chmod=0600 f /f", &["--chmod"]),
        text("--link, another destination", "COPY --link f /f", "COPY --link f /g", &["destination"]),
        text("what a COPY stands on", "RUN echo 1 > /o\nCOPY f /f", "RUN echo 2 > /o\nCOPY f /f", &["command changed"]).through(),
        text("what a WORKDIR stands on", "RUN echo 1 > /o\nWORKDIR /w", "RUN echo 2 > /o\nWORKDIR /w", &["command changed"]).through(),
        text(
            "what a linked COPY with a name for its owner stands on",
            "RUN echo 1 > /o\nCOPY --link --chown=root f /f",
            "RUN echo 2 > /o\nCOPY --link --chown=root f /f",
            &["command changed"],
        ),
        text(
            "another path of a stage",
            "FROM base AS s\nCOPY d /d\nFROM base\nCOPY --from=s /d/a /e/",
            "FROM base AS s\nCOPY d /d\nFROM base\nCOPY --from=s /d/b /e/",
            &["sources"],
        ),
    ]
}

/// What a step leaves, in pairs: the step on top of it must see the difference, whatever it is.
pub(super) fn below() -> Vec<Case> {
    let on_top = |name, a: &str, b: &str| {
        let full = |t: &str| format!("FROM base AS a\nCOPY d /d\nCOPY h /h\nRUN {t}\nFROM a\nRUN true");
        text(name, &full(a), &full(b), &["command changed"]).through()
    };
    let copied = |name, a: &str, b: &str| {
        let full = |t: &str| format!("FROM base AS a\nCOPY d /d\nCOPY h /h\nRUN {t}\nFROM base\nCOPY --from=a /d /got");
        text(name, &full(a), &full(b), &["command changed"]).through()
    };
    let pairs = [
        ("content", "echo 1 > /d/o", "echo 2 > /d/o"),
        ("size", "echo 1 > /d/o", "echo 11 > /d/o"),
        ("an empty file or none", "true", "touch /d/o"),
        ("an empty file or directory", "touch /d/o", "mkdir /d/o"),
        ("name", "touch /d/o", "touch /d/p"),
        ("mode", "touch /d/o && chmod 600 /d/o", "touch /d/o && chmod 640 /d/o"),
        ("setuid", "touch /d/o && chmod 755 /d/o", "touch /d/o && chmod 4755 /d/o"),
        ("mode of a directory", "chmod 700 /d/sub", "chmod 711 /d/sub"),
        ("target of a link", "ln -s a /d/o", "ln -s b /d/o"),
        ("a link or a file", "ln -s a /d/o", "cat /d/a > /d/o"),
        ("a hard link or a copy", "ln /d/a /d/o", "cat /d/a > /d/o"),
        ("of which file a hard link is", "ln /d/a /d/o; echo x > /d/b", "ln /d/b /d/o; echo x > /d/a"),
        ("removed or not", "true", "rm /d/b"),
        ("which is removed", "rm /d/a", "rm /d/b"),
        ("removed or emptied", "rm /d/b", "echo -n > /d/b"),
        ("a directory emptied or replaced", "rm -rf /d/sub", "rm -rf /d/sub && mkdir /d/sub"),
        (
            "a directory made again with a file",
            "rm -rf /d/sub && mkdir /d/sub && touch /d/sub/c",
            "rm -rf /d/sub && mkdir /d/sub && touch /d/sub/e",
        ),
        ("moved", "mv /d/a /d/o", "mv /d/b /d/o"),
    ];
    let mut cases = Vec::new();
    for (name, a, b) in pairs {
        // A name may not end two cases' own stages alike.
        let own = |way: &str| -> &'static str { format!("{way}: {name}").leak() };
        cases.push(on_top(own("below"), a, b));
        cases.push(copied(own("copied from a stage"), a, b));
    }
    cases
}
