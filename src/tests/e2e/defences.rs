//! Classes of attacks that no other test takes whole: see `src/defences.md`, which names a test for each class.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::{Done, World};

/// What the store and a result hold of a secret; the index is looked at, too.
fn files_with(dir: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).is_ok_and(|b| b.windows(text.len()).any(|w| w == text.as_bytes())) {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_is_ignored_reaches_no_step_however_it_is_written() {
    const SECRET: &str = "ignored-3141592";
    let steps = "FROM base\nCOPY . /all/\nADD . /added/\nCOPY --parents ./**/*.key /p/\nRUN --mount=target=/m cp -r /m /seen; cat /m/d/a.key /m/a.key; true\n\
         RUN --mount=target=/m,source=d ls /m; cat /m/a.key; true\n";
    for ignore in [
        "**/*.key",
        "*.key\n*/*.key",
        "./a.key\n./d/a.key",
        "/a.key\n/d/a.key",
        "a.key  \nd/a.key\t",
        "\u{feff}a.key\r\nd/a.key\r\n",
        "d/../a.key\nd/./a.key",
        "# a\na.key\n\n#b\nd/a.key",
        "!a.key\n**\n!Dockerfile",
        "*\n!d\nd/*.key",
        "?.key\nd/[a-b].key",
        "a.key/\nd//a.key",
    ] {
        let w = World::new();
        w.file("a.key", SECRET).file("d/a.key", SECRET).file("d/b", "b").file(".dockerignore", ignore);
        symlink("a.key", w.path("ctx/d/link")).unwrap();
        let base = format!("{},cp", super::BASE);
        w.file("Dockerfile", steps);
        let (store, ctx) = (w.path("store"), w.path("ctx"));
        let done = w.ply(&["build", "--progress=plain", "--build-context", &base, "-t", "t", ctx.to_str().unwrap()]).fails_or_not();
        assert!(!done.stderr.contains(SECRET), "{ignore:?}: {done:#?}");
        assert_eq!(files_with(&store, SECRET), Vec::<std::path::PathBuf>::new(), "{ignore:?}");
    }
}

impl Done {
    /// Whether the build fails is not the question: a step may want what is ignored.
    fn fails_or_not(self) -> Self {
        assert!(matches!(self.code, Some(0 | 1)), "{self:#?}");
        self
    }
}

#[test]
fn a_dockerfile_that_would_grow_without_end_is_refused_soon() {
    let mut doubling = "FROM scratch\nARG A0=xxxxxxxxxxxxxxxx\n".to_owned();
    for n in 0..40 {
        doubling.push_str(&format!("ARG A{}=${{A{n}}}${{A{n}}}\n", n + 1));
    }
    let nested = format!("FROM scratch\nENV A={}x{}\n", "${b:-".repeat(5000), "}".repeat(5000));
    let stages: String = (0..100_000).map(|n| format!("FROM scratch AS s{n}\n")).collect();
    let cycle = "FROM b AS a\nCOPY --from=b / /\nFROM a AS b\nCOPY --from=a / /\n".to_owned();
    let own = "FROM scratch AS a\nCOPY --from=a / /\n".to_owned();
    let far = "FROM scratch\nCOPY --from=99 / /\n".to_owned();
    let lines = format!("FROM scratch\n{}", "ENV A=b\n".repeat(1_000_000));
    let glob = format!("FROM scratch\nCOPY {}b /\n", "*a".repeat(4000));
    for (what, text, code) in [
        ("arguments that double", doubling, Some(1)),
        ("nested substitutions", nested, Some(1)),
        ("very many stages", stages, None),
        ("a cycle", cycle, Some(1)),
        ("a stage of itself", own, Some(1)),
        ("a stage that is not there", far, Some(1)),
        ("a million lines", lines, Some(1)),
        ("a pattern that goes back and forth", glob, None),
    ] {
        let w = World::new();
        w.file("Dockerfile", &text).file(&"a".repeat(200), "");
        let begun = Instant::now();
        // What the program itself takes, threads' stacks among that, leaves some 256 MiB.
        let ctx = w.path("ctx");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -d 524288; exec \"$@\"", "sh", w.ply.to_str().unwrap(), "build", "--check", ctx.to_str().unwrap()]);
        command.env_clear().env("HOME", w.path("home")).env("PLY_STORE", w.path("store")).env("PATH", std::env::var_os("PATH").unwrap());
        let checked: Done = command.output().unwrap().into();
        let built = w.build(&[]);
        // Generous: this program is not optimised, and others run beside it.
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:?}", begun.elapsed());
        for done in [checked, built] {
            assert!(matches!(done.code, Some(0 | 1)), "{what}: {:?} {}", done.code, done.stderr.chars().take(500).collect::<String>());
            assert!(!done.stderr.contains("panicked"), "{what}");
            if done.code == Some(1) {
                assert!(done.stderr.contains("Dockerfile:"), "{what}: {}", done.stderr.chars().take(500).collect::<String>());
            }
            assert!(code.is_none() || done.code == code, "{what}: {:?}", done.code);
        }
    }
}

#[test]
fn a_working_directory_is_a_place_in_the_image() {
    let w = World::new();
    for n in 3..=30 {
        let text = format!("FROM base\nWORKDIR /proc/self/fd/{n}\nRUN true\n");
        w.file("Dockerfile", &text).build(&[]).fails(1).says(&format!("/proc/self/fd/{n}"));
    }
    w.image("FROM base\nRUN true\n").ok();
    for n in 3..=30 {
        let done = w.ply(&["run", "--rm", "-w", &format!("/proc/self/fd/{n}"), "t", "true"]);
        assert!(matches!(done.code, Some(125..=127)), "{n}: {done:#?}");
    }
}

#[test]
fn mount_points_that_a_step_swaps_for_links_are_not_removed_elsewhere() {
    let w = World::new();
    let canary = w.path("canary");
    std::fs::create_dir_all(canary.join("y/c")).unwrap();
    std::fs::write(canary.join("y/f"), "").unwrap();
    let abs = canary.display();
    for (mount, swap) in [
        ("type=cache,target=/x/y/c", format!("mv /x /z; ln -s {abs} /x")),
        ("type=tmpfs,target=/x/y/c", format!("mv /x/y /z; ln -s {abs}/y /x/y")),
        ("type=secret,id=s,target=/x/y/f", format!("mv /x /z; ln -s {abs} /x")),
        ("type=bind,target=/x/y/c", format!("mv /x /z; ln -s ../../../../../../../..{abs} /x")),
    ] {
        w.file("Dockerfile", &format!("FROM base\nRUN --mount={mount} {swap}; test -L /x -o -L /x/y && echo swapped\n"));
        let secret = format!("id=s,src={}", w.path("ctx/Dockerfile").display());
        w.build(&["--no-cache", "--secret", &secret]).fails_or_not().says(" swapped");
        assert!(canary.join("y/c").is_dir() && canary.join("y/f").is_file(), "{mount}");
    }
    w.ply(&["fsck"]).ok();
}

#[test]
fn users_that_are_no_users_are_errors_and_never_root() {
    let w = World::new();
    for user in ["4294967296", "4294967295", "-1", "1000:bad", "nobody-here", "0:4294967296"] {
        let done = w.image(&format!("FROM base\nUSER {user}\nRUN id -u > /tmp-id\n"));
        assert_eq!(done.code, Some(1), "{user}: {done:#?}");
    }
    // It counts as a name, and there is none of it.
    w.image("FROM base\nUSER 0x0\nRUN id -u\n").fails(1);
    // A file that would be read for minutes.
    let done =
        w.image("FROM base\nRUN dd if=/dev/zero of=/etc/passwd bs=1 count=0 seek=3000000000 2>/dev/null\nUSER app\nRUN true\n").fails(1);
    assert!(done.stderr.contains("passwd"), "{done:#?}");
}

#[test]
fn mounts_have_no_options_that_loosen_them() {
    let w = World::new();
    for options in [
        "type=bind,target=/m,bind-propagation=rshared",
        "type=bind,target=/m,suid",
        "type=bind,target=/m,dev=true",
        "type=bind,target=/m,relabel=shared",
        "type=cache,target=/m,exec",
        "type=tmpfs,target=/m,size=1t,size=-1",
        "type=secret,id=s,target=/m,mode=99999",
        "type=proc,target=/m",
        "type=cache,target=/proc/x",
        "type=bind,target=/",
    ] {
        w.file("Dockerfile", &format!("FROM base\nRUN --mount={options} true\n")).build(&[]).fails(1);
    }
}

#[test]
fn a_frontend_is_never_asked_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let host = listener.local_addr().unwrap();
    let w = World::new();
    for line in
        [format!("# syntax={host}/front:1"), format!("// syntax={host}/front"), format!("#!/x\n#syntax = {host}/a@sha256:{:064}", 1)]
    {
        let text = format!("{line}\nFROM base\nRUN true\n");
        w.file("Dockerfile", &text).build(&["--build-arg", &format!("BUILDKIT_SYNTAX={host}/other")]).fails_or_not();
        assert!(listener.accept().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "{line}");
    }
}
