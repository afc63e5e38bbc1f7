//! ADD of repositories and contexts from them: refs, queries, submodules, `.git`, what is asked when.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use super::super::World;
use super::{Daemon, Repo, build_out, file_server, out};

/// A repository with branches, tags and a submodule, as BuildKit's own test of the query forms has it.
fn query_repo(w: &World) -> (Repo, [String; 2], super::TestServer) {
    let server = file_server(w.dir.path().to_path_buf());
    let sub = Repo::new(w, "sub", &[]);
    sub.write("file", "123\n").commit("sub");
    let repo = Repo::new(w, "repo", &[]);
    let dockerfile =
        "FROM scratch AS withgit\nCOPY .git/HEAD out\nFROM scratch AS withsubmod\nCOPY submod/file out\nFROM scratch\nCOPY foo out\n";
    repo.write("foo", "base\n").write("Dockerfile", dockerfile);
    repo.git(&["submodule", "add", "-q", &format!("http://{}/sub/.git", server.host), "submod"]);
    repo.commit("initial");
    repo.git(&["branch", "base"]);
    repo.write("foo", "feature\n").write("sub/foo", "subfeature\n").write("sub/Dockerfile", dockerfile).commit("feature");
    repo.git(&["branch", "feature"]);
    repo.git(&["checkout", "-q", "-B", "master", "base"]);
    let tagged = repo.write("foo", "v0.0.2\n").commit("v0.0.2");
    repo.git(&["tag", "v0.0.2"]);
    let latest = repo.write("foo", "latest\n").commit("latest");
    repo.git(&["tag", "latest"]);
    repo.git(&["tag", "-a", "-m", "annotated", "noted", "v0.0.2"]);
    repo.published();
    (repo, [tagged, latest], server)
}

#[test]
fn refs_and_queries_are_buildkits_for_contexts_and_for_add() {
    let w = World::new();
    let (_repo, [tagged, latest], server) = query_repo(&w);
    let url = format!("http://{}/repo/.git", server.host);
    let head = |commit: &str| format!("{commit}\n");
    let cases: Vec<(String, &str, Result<String, &str>)> = vec![
        (format!("?tag=v0.0.2&commit={latest}"), "", Err("expected checksum to match")),
        ("#v0.0.2".into(), "", Ok("v0.0.2\n".into())),
        ("#noted".into(), "", Ok("v0.0.2\n".into())),
        (format!("?tag=noted&checksum={tagged}"), "", Ok("v0.0.2\n".into())),
        ("?ref=base".into(), "", Ok("base\n".into())),
        ("?branch=base".into(), "", Ok("base\n".into())),
        ("?branch=invalid".into(), "", Err("does not contain ref")),
        ("?branch=v0.0.2".into(), "", Err("does not contain ref")),
        ("?tag=v0.0.2#refs/tags/v0.0.2".into(), "", Ok("v0.0.2\n".into())),
        (format!("?commit={latest}"), "", Ok("latest\n".into())),
        (format!("?commit={}", &tagged[..8]), "", Err("expected checksum to match")),
        (format!("?commit={}", &latest[..8]), "", Ok("latest\n".into())),
        (format!("?ref={tagged}"), "", Ok("v0.0.2\n".into())),
        (format!("?ref={}", &tagged[..8]), "", Err("does not contain ref")),
        (format!("?tag=v0.0.2&commit={tagged}"), "", Ok("v0.0.2\n".into())),
        (format!("?ref={tagged}&commit={tagged}"), "", Ok("v0.0.2\n".into())),
        (format!("?commit={tagged}&fetch-by-commit"), "", Ok("v0.0.2\n".into())),
        ("?tag=v0.0.2#refs/heads/master".into(), "", Err("ref conflicts")),
        ("#feature:sub".into(), "", Ok("subfeature\n".into())),
        ("?subdir=sub&ref=feature".into(), "", Ok("subfeature\n".into())),
        ("#feature:../../sub/".into(), "", Ok("subfeature\n".into())),
        ("#feature:none".into(), "", Err("has no directory `none`")),
        ("?keep-git-dir=true".into(), "withgit", Ok(head(&latest))),
        ("?tag=v0.0.2&keep-git-dir=true".into(), "withgit", Ok(head(&tagged))),
        ("?tag=noted&keep-git-dir=true".into(), "withgit", Ok(head(&tagged))),
        ("".into(), "withgit", Err("`.git/HEAD` not found")),
        ("?keep-git-dir&submodules".into(), "withgit", Ok(head(&latest))),
        ("?keep-git-dir=false".into(), "withgit", Err("`.git/HEAD` not found")),
        ("".into(), "withsubmod", Ok("123\n".into())),
        ("?submodules=true".into(), "withsubmod", Ok("123\n".into())),
        ("?submodules=false".into(), "withsubmod", Err("`submod/file` not found")),
    ];
    for (query, target, want) in cases {
        let address = format!("{url}{query}");
        let targets = if target.is_empty() { vec![] } else { vec!["--target", target] };
        let check = |done: super::super::Done, file: &str| match &want {
            Ok(text) => {
                done.ok();
                assert_eq!(&out(&w, file), text, "{query} {target}");
            }
            Err(says) => drop(done.fails(1).says(says)),
        };
        check(build_out(&w, &[&targets[..], &[&address]].concat()), "out");
        w.file(
            "Dockerfile",
            &format!(
                "FROM scratch AS main\nADD {address} /repo/\nFROM scratch AS withsubmod\nCOPY --from=main /repo/submod/file /repo/foo\n\
                 FROM scratch AS withgit\nCOPY --from=main /repo/.git/HEAD /repo/foo\nFROM main\n"
            ),
        );
        let done = build_out(&w, &[&targets[..], &[w.path("ctx").to_str().unwrap()]].concat());
        match &want {
            // In the image the missing file has a slash before it.
            Err(says) if says.contains("not found") => drop(done.fails(1).says("not found in stage `main`")),
            _ => check(done, "repo/foo"),
        }
    }
    w.ply(&["fsck"]).ok();
}

#[test]
fn a_pinned_commit_needs_no_server_and_a_moved_branch_is_another_commit() {
    let w = World::new();
    let repo = Repo::new(&w, "repo", &[]);
    let first = repo.write("a", "one").write("dir/b", "b").commit("1");
    let Some(daemon) = Daemon::start(w.dir.path()) else { return };
    let url = format!("git://127.0.0.1:{}/repo", daemon.port);
    let branch = format!("FROM base\nADD {url}#master /r\nRUN cat /r/a > /copy\n");
    w.image(&branch).ok();
    assert!(!w.image(&branch).ok().stderr.contains("miss"));
    let second = repo.write("a", "two").commit("2");
    w.image(&branch).ok().says(&format!("miss: {url}#master is now another commit"));
    assert_eq!(w.out(&["cat", "/copy"]), "two");
    // An earlier commit, by its name alone; then, without a server, both contexts and files that were fetched.
    let pinned = format!("FROM base\nADD {url}#{first}:dir /d\nADD {url}#{first} /r\n");
    w.image(&pinned).ok();
    drop(daemon);
    assert!(!w.image(&pinned).ok().stderr.contains("miss"));
    w.image(&format!("FROM base\nADD {url}#{second} /again\n")).ok();
    assert_eq!(w.out(&["cat", "/again/a"]), "two");
    w.image(&branch).fails(1).says("listing the refs of").says("Dockerfile:2:5");
    let context = format!("{url}#{first}");
    w.file("Own", "FROM scratch\nCOPY a /\n");
    build_out(&w, &["-f", w.path("ctx/Own").to_str().unwrap(), &context]).ok();
    assert_eq!(out(&w, "a"), "one");
    assert!(w.ply(&["du"]).ok().stdout.contains("git repositories"));
    w.ply(&["prune", "--all", "--force"]).ok();
    w.image(&format!("FROM base\nADD {url}#{second} /again\n")).fails(1).says("fetching");
}

#[test]
fn modes_and_times_do_not_depend_on_the_caller() {
    let w = World::new();
    let repo = Repo::new(&w, "repo", &[]);
    repo.write("plain", "p").write("dir/run", "r");
    std::fs::set_permissions(repo.0.join("dir/run"), std::fs::Permissions::from_mode(0o775)).unwrap();
    std::os::unix::fs::symlink("plain", repo.0.join("link")).unwrap();
    repo.commit("1");
    repo.git(&["tag", "v1"]);
    repo.published();
    let server = file_server(w.dir.path().to_path_buf());
    let url = format!("http://{}/repo/.git", server.host);
    w.file("Dockerfile", &format!("FROM scratch\nADD {url}?tag=v1&mtime=commit&keep-git-dir=1 /r/\nADD --chown=7:8 {url}#v1 /o/\n"));
    let mut trees = Vec::new();
    for (n, umask) in ["022", "077", "000"].iter().enumerate() {
        let out = w.path("out");
        let _ = std::fs::remove_dir_all(&out);
        let store = w.path(&format!("store{n}"));
        let mut command = Command::new("sh");
        let line = format!("umask {umask}; exec \"$0\" build -o type=tar,dest=out{n}.tar ctx");
        command.args(["-c", &line]).arg(&w.ply).current_dir(w.dir.path()).env("PLY_STORE", store);
        command.env("HOME", w.path("home")).env("SOURCE_DATE_EPOCH", "1700000200");
        super::super::Done::from(command.output().unwrap()).ok();
        trees.push(std::fs::read(w.path(&format!("out{n}.tar"))).unwrap());
    }
    assert!(trees.iter().all(|t| *t == trees[0]), "the umask is in the files");
    let mut found = Vec::new();
    for entry in tar::Archive::new(trees[0].as_slice()).entries().unwrap() {
        let header = entry.unwrap();
        let path = header.path().unwrap().display().to_string();
        if !path.contains(".git") {
            let h = header.header();
            found.push(format!("{path} {:o} {}:{} {}", h.mode().unwrap(), h.uid().unwrap(), h.gid().unwrap(), h.mtime().unwrap()));
        }
    }
    let (commit, now) = (1_700_000_101, 1_700_000_200);
    let want = [
        format!("./ 755 0:0 {now}"),
        format!("o/ 755 7:8 {now}"),
        format!("o/dir/ 755 7:8 {now}"),
        format!("o/dir/run 755 7:8 {now}"),
        format!("o/link 777 7:8 {now}"),
        format!("o/plain 644 7:8 {now}"),
        format!("r/ 755 0:0 {commit}"),
        format!("r/dir/ 755 0:0 {commit}"),
        format!("r/dir/run 755 0:0 {commit}"),
        format!("r/link 777 0:0 {commit}"),
        format!("r/plain 644 0:0 {commit}"),
    ];
    assert_eq!(found, want);
    // What is kept is a repository that git finds in order.
    build_out(&w, &[w.path("ctx").to_str().unwrap()]).ok();
    let kept = Repo(w.path("out/r"));
    assert_eq!(kept.git(&["-c", "safe.directory=*", "status", "--porcelain"]), "");
    assert_eq!(kept.git(&["-c", "safe.directory=*", "describe", "--tags"]), "v1");
    assert_eq!(kept.git(&["-c", "safe.directory=*", "remote", "get-url", "origin"]), url);
    assert_eq!(std::fs::metadata(w.path("out/r/plain")).unwrap().mtime(), commit);
}

#[test]
fn repositories_of_sha256_and_nested_relative_submodules() {
    let w = World::new();
    let server = file_server(w.dir.path().to_path_buf());
    let inner = Repo::new(&w, "inner", &[]);
    inner.write("i", "inner").commit("1");
    let middle = Repo::new(&w, "middle", &[]);
    middle.write("m", "middle").write(".gitmodules", "[submodule \"in\"]\n path = deep/in\n url = ../inner/.git/../.git\n");
    let link = |repo: &Repo, path: &str, commit: &str| {
        repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    };
    let commit_of = |r: &Repo| r.git(&["rev-parse", "HEAD"]);
    middle.write(".gitmodules", "[submodule \"in\"]\n path = deep/in\n url = ../../inner/.git\n[submodule \"off\"]\n path = off\n url = ../../none\n update = none\n");
    middle.git(&["add", "."]);
    link(&middle, "deep/in", &commit_of(&inner));
    link(&middle, "off", &commit_of(&inner));
    middle.git(&["commit", "-q", "-m", "1"]);
    middle.published();
    let outer = Repo::new(&w, "outer", &[]);
    outer.write(".gitmodules", "[submodule \"x\"]\n path = sub\n url = ../../middle/.git\n").write("o", "outer");
    outer.git(&["add", "."]);
    link(&outer, "sub", &commit_of(&middle));
    outer.git(&["commit", "-q", "-m", "1"]);
    outer.published();
    let new = Repo::new(&w, "new", &["--object-format=sha256"]);
    let commit = new.write("f", "sha256").commit("1");
    assert_eq!(commit.len(), 64);
    let url = |name: &str| format!("http://{}/{name}/.git", server.host);
    w.file("Dockerfile", &format!("FROM scratch\nADD {} /o\nADD {}#{commit} /n\nADD {}#master /b\n", url("outer"), url("new"), url("new")));
    build_out(&w, &[w.path("ctx").to_str().unwrap()]).ok();
    let read = ["o/o", "o/sub/m", "o/sub/deep/in/i", "n/f", "b/f"].map(|name| out(&w, name));
    assert_eq!(read, ["outer", "middle", "inner", "sha256", "sha256"]);
    assert!(w.path("out/o/sub/off").is_dir());
}

#[test]
fn ssh_is_asked_by_the_forwarded_agent_and_nothing_of_the_users_configuration() {
    let w = World::new();
    let repo = Repo::new(&w, "repo", &[]);
    repo.write("f", "by ssh").commit("1");
    // In place of ssh: notes what it was told, and is the other side at once.
    let bin = w.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$SSH_AUTH_SOCK $*\" >> {0}/ssh.log\nfor last; do :; done\ncd {0} && GIT_CONFIG_COUNT=0 exec sh -c \"$last\"\n",
        w.dir.path().display()
    );
    std::fs::write(bin.join("ssh"), script).unwrap();
    std::fs::set_permissions(bin.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let agent = std::os::unix::net::UnixListener::bind(w.path("agent")).unwrap();
    let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap()))).unwrap();
    let address = format!("git@host.invalid:{}", repo.0.display());
    w.file("Dockerfile", &format!("FROM base\nADD {address} /r\n"));
    let build = |args: &[&str]| {
        let mut c = w.build_command(args);
        c.env("PATH", &path).env("SSH_AUTH_SOCK", w.path("agent"));
        super::super::Done::from(c.output().unwrap())
    };
    build(&["-t", "t"]).fails(1).says("no ssh agent or key is given").says("--ssh default").says("Dockerfile:2:5");
    build(&["-t", "t", "--ssh", "default"]).ok();
    assert_eq!(w.out(&["cat", "/r/f"]), "by ssh");
    let log = std::fs::read_to_string(w.path("ssh.log")).unwrap();
    let line = log.lines().next().unwrap();
    assert!(line.starts_with(&format!("{} -F /dev/null", w.path("agent").display())), "{line}");
    assert!(line.contains("StrictHostKeyChecking=accept-new") && line.contains("git@host.invalid git-upload-pack"), "{line}");
    // A context needs no flag, as with buildx.
    w.file("Own", "FROM scratch\nCOPY f /\n");
    let mut c = w.command(&["build", "-o", "out", "-f", w.path("ctx/Own").to_str().unwrap(), &address]);
    c.env("PATH", &path).env("SSH_AUTH_SOCK", w.path("agent"));
    super::super::Done::from(c.output().unwrap()).ok();
    assert_eq!(out(&w, "f"), "by ssh");
    drop(agent);
}

#[test]
fn without_git_the_error_says_so() {
    let w = World::new();
    w.file("Dockerfile", "FROM scratch\nADD https://h.invalid/x.git /r\n");
    let mut c = w.command(&["build", w.path("ctx").to_str().unwrap()]);
    c.env("PATH", "/nowhere");
    super::super::Done::from(c.output().unwrap()).fails(1).says("git is not installed").says("apt-get install git").says("Dockerfile:2:5");
}
