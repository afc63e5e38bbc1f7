//! Servers and repositories that mean harm, and what must not leak.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::testserver::{Reply, TestServer};
use super::super::{World, processes};
use super::{Repo, Site, build_out, file_server};

/// Returns the files below a directory that hold a text.
fn holding(dir: &std::path::Path, text: &str) -> Vec<String> {
    let found = Command::new("grep").args(["-rlaF", text]).arg(dir).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_string).collect()
}

#[test]
fn credentials_reach_their_host_and_nothing_else() {
    let (w, other) = (World::new(), Site::new());
    other.page("/f", Reply::new(200, "f"));
    let elsewhere = other.url("/f");
    let server = TestServer::start(move |request, _| match request.path.as_str() {
        "/away" => Reply::new(302, "").header("Location", elsewhere.clone()),
        _ => Reply::new(200, "f"),
    });
    let port = server.host.split(':').nth(1).unwrap();
    // Two words that nothing else has; a user and a password.
    let address = format!("http://Usr4711:Pwd4712@127.0.0.1:{port}");
    w.file("Dockerfile", &format!("FROM base\nADD {address}/f {address}/away /d/\nADD {address}/r.git /r\n"));
    let metadata = w.path("metadata");
    let done = w.build(&["-t", "t", "--metadata-file", metadata.to_str().unwrap()]).fails(1);
    assert!(done.stderr.contains("xxx"), "{done:?}");
    w.file("Dockerfile", &format!("FROM base\nADD {address}/f {address}/away /d/\n"));
    let built = w.build(&["-t", "t", "--metadata-file", metadata.to_str().unwrap()]).ok();
    let again = w
        .ply(&[
            "build",
            "-t",
            "t",
            "--no-cache",
            "--progress=rawjson",
            "--build-context",
            super::super::BASE,
            w.path("ctx").to_str().unwrap(),
        ])
        .ok();
    let history = w.ply(&["history", "--no-trunc", "t"]).ok();
    let inspect = w.ply(&["inspect", "t"]).ok();
    for shown in [&done.stderr, &built.stderr, &again.stderr, &again.stdout, &history.stdout, &inspect.stdout] {
        assert!(!shown.contains("4711") && !shown.contains("4712"), "{shown}");
    }
    assert!(history.stdout.contains("ADD http://xxxxx:xxxxx@127.0.0.1"), "{history:?}");
    for secret in ["Usr4711", "Pwd4712", "VXNyNDcxMTpQd2Q0NzEy"] {
        assert_eq!(holding(&w.path("store"), secret), Vec::<String>::new());
        assert_eq!(holding(&metadata, secret), Vec::<String>::new());
    }
    let basic = Some("Basic VXNyNDcxMTpQd2Q0NzEy");
    assert!(server.requests().iter().filter(|r| r.path == "/f").all(|r| r.header("authorization") == basic), "{:?}", server.requests());
    assert!(other.server.requests().iter().all(|r| r.header("authorization").is_none()), "{:?}", other.server.requests());
}

#[test]
fn secrets_are_buildkits_and_end_in_a_header() {
    let w = World::new();
    let server = TestServer::start(|_, _| Reply::new(200, "f"));
    let (host, port) = server.host.split_once(':').unwrap();
    std::fs::write(w.path("token"), "tok4713\n").unwrap();
    let token = w.path("token").display().to_string();
    w.file("Dockerfile", &format!("FROM base\nADD http://{host}:{port}/f /f\nADD http://{host}:{port}/r.git /r\n"));
    let done = w.build(&[
        "--secret",
        &format!("id=HTTP_AUTH_TOKEN_{host},src={token}"),
        "--secret",
        &format!("id=GIT_AUTH_TOKEN.{host}:{port},src={token}"),
    ]);
    // The server is none of git's; it has seen who asks.
    let done = done.fails(1);
    assert!(!done.stderr.contains("tok4713"), "{done:?}");
    let seen = |path: &str| {
        server.requests().iter().find(|r| r.path.starts_with(path)).and_then(|r| r.header("authorization").map(str::to_string))
    };
    assert_eq!(seen("/f").as_deref(), Some("Bearer tok4713"));
    assert_eq!(seen("/r.git").as_deref(), Some("basic eC1hY2Nlc3MtdG9rZW46dG9rNDcxMw=="));
    assert_eq!(holding(&w.path("store"), "tok4713"), Vec::<String>::new());
    std::fs::write(w.path("token"), "a\nInjected: b").unwrap();
    w.build(&["--no-cache", "--secret", &format!("id=HTTP_AUTH_TOKEN_{host},src={token}")]).fails(1).says("no single line of text");
}

#[test]
fn archives_and_names_from_servers_stay_where_they_belong() {
    let (w, site) = (World::new(), Site::new());
    std::fs::write(w.path("canary"), "canary").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, link) in [("../../canary", ""), ("/abs", ""), ("out", "/"), ("out/canary2", "")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        // As a hostile writer would: the library refuses such names.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if !link.is_empty() {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name_literal(link).unwrap();
        }
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
    }
    site.page("/evil.tar", Reply::new(200, builder.into_inner().unwrap()));
    site.page("/%2e%2e%2fcanary", Reply::new(200, "evil"));
    w.file("Dockerfile", &format!("FROM scratch\nADD --unpack {} /d/\nADD {} /n/\n", site.url("/evil.tar"), site.url("/%2e%2e%2fcanary")));
    let done = build_out(&w, &[w.path("ctx").to_str().unwrap()]);
    let as_context = build_out(&w, &[&site.url("/evil.tar")]).fails(1);
    assert!(!std::path::Path::new("/canary2").exists() && !std::path::Path::new("/abs").exists());
    assert_eq!(std::fs::read_to_string(w.path("canary")).unwrap(), "canary", "{done:?} {as_context:?}");
    w.ply(&["fsck"]).ok();
}

/// Returns the arguments of all processes.
fn command_lines() -> Vec<String> {
    let read = |e: std::fs::DirEntry| std::fs::read(e.path().join("cmdline")).ok();
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(read).map(|b| String::from_utf8_lossy(&b).into_owned()).collect()
}

/// Starts a build, waits until `ready`, and asserts that ctrl-C ends it with nothing left.
fn interrupt(w: &World, args: &[&str], ready: impl Fn() -> bool) {
    let mut child = w.build_command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the transfer never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(processes(&w.path("store")), Vec::<String>::new());
    assert_eq!(w.unfinished(), Vec::<String>::new());
    w.ply(&["fsck"]).ok();
}

#[test]
fn ctrl_c_ends_transfers_whatever_the_server_does() {
    let server = TestServer::start(|request, _| match request.path.as_str() {
        "/endless" => Reply { endless: true, ..Reply::new(200, vec![b'x'; 64 << 10]) },
        _ => Reply { silent: true, ..Reply::default() },
    });
    for path in ["/endless", "/silent", "/silent.git"] {
        let w = World::new();
        w.file("Dockerfile", &format!("FROM base\nADD http://Usr4715:Pwd4716@{}{path} /f\n", server.host));
        let before = server.requests().len();
        interrupt(&w, &[], || {
            let asked = server.requests().len() > before;
            // Arguments are everybody's to read.
            assert!(!command_lines().iter().any(|line| line.contains("Pwd4716")), "{path}");
            asked
        });
    }
    // The context itself.
    let w = World::new();
    let url = format!("named=http://{}/silent", server.host);
    w.file("Dockerfile", "FROM base\nCOPY --from=named / /\n");
    let before = server.requests().len();
    interrupt(&w, &["--build-context", &url], || server.requests().len() > before);
}

/// Adds a file to a repository that git's own commands refuse to add.
fn forge(repo: &Repo, entries: &[(&str, &str, &str)]) -> String {
    let mut tree = String::new();
    for (mode, object, name) in entries {
        let kind = match *mode {
            "160000" => "commit",
            "040000" => "tree",
            _ => "blob",
        };
        tree.push_str(&format!("{mode} {kind} {object}\t{name}\n"));
    }
    let path = repo.0.join(".git/forged");
    std::fs::write(&path, tree).unwrap();
    let mktree =
        Command::new("git").args(["mktree", "--missing"]).current_dir(&repo.0).stdin(std::fs::File::open(&path).unwrap()).output().unwrap();
    assert!(mktree.status.success(), "{mktree:?}");
    let tree = String::from_utf8(mktree.stdout).unwrap();
    let commit = repo.git(&["commit-tree", "-m", "forged", tree.trim()]);
    repo.git(&["update-ref", "refs/heads/forged", &commit]);
    repo.published();
    commit
}

#[test]
fn repositories_cannot_reach_the_host() {
    let w = World::new();
    let server = file_server(w.dir.path().to_path_buf());
    std::fs::write(w.path("canary"), "canary").unwrap();
    let touched = w.path("touched");
    let repo = Repo::new(&w, "repo", &[]);
    repo.write("f", "f").write("g", "g").write(".gitattributes", "* filter=evil\n");
    repo.git(&["config", "filter.evil.smudge", &format!("touch {}", touched.display())]);
    repo.write("hook", "#!/bin/sh\n").commit("1");
    std::os::unix::fs::symlink("/", repo.0.join("up")).unwrap();
    repo.commit("link");
    let url = format!("http://{}/repo/.git", server.host);
    let blob = repo.git(&["rev-parse", "HEAD:f"]);
    let link = Command::new("sh").args(["-c", "printf .git | git hash-object -w --stdin"]).current_dir(&repo.0).output().unwrap();
    let link = String::from_utf8(link.stdout).unwrap().trim().to_string();
    let commit = repo.git(&["rev-parse", "HEAD"]);
    let mut wants: Vec<(String, &str)> =
        vec![("#master:up".into(), "links are not followed"), ("#master:up/etc".into(), "links are not followed")];
    for (entries, says) in [
        (vec![("120000", link.as_str(), ".git")], ".git"),
        (vec![("120000", link.as_str(), ".GIT")], ".GIT"),
        (vec![("100644", blob.as_str(), "..")], ""),
    ] {
        let forged = forge(&repo, &entries);
        wants.push((format!("#{forged}"), says));
    }
    for (name, address, says) in [
        ("file", format!("file://{}", w.path("repo").display()), "only http, https, ssh and git are spoken"),
        ("path", w.path("repo").display().to_string(), "only http, https, ssh and git are spoken"),
        ("ext", format!("ext::sh -c touch% {}", touched.display()), "only http, https, ssh and git are spoken"),
        ("option", format!("--upload-pack=touch {}", touched.display()), "only http, https, ssh and git are spoken"),
        ("ssh", "ssh://-oProxyCommand=touch/x".into(), "not an address of a repository"),
    ] {
        let modules = format!("[submodule \"{name}\"]\n\tpath = sub\n\turl = {address}\n");
        std::fs::write(repo.0.join(".git/modules-file"), modules).unwrap();
        let blob = repo.git(&["hash-object", "-w", ".git/modules-file"]);
        let forged = forge(&repo, &[("100644", &blob, ".gitmodules"), ("160000", &commit, "sub")]);
        wants.push((format!("#{forged}"), says));
    }
    let forged = forge(&repo, &[("160000", &commit, "sub")]);
    wants.push((format!("#{forged}"), "has no url in .gitmodules"));
    for (query, says) in &wants {
        w.file("Dockerfile", &format!("FROM scratch\nADD {url}{query} /r\n"));
        build_out(&w, &[w.path("ctx").to_str().unwrap()]).fails(1).says(says).says("Dockerfile:2:5");
        build_out(&w, &["-f", w.path("ctx/Dockerfile").to_str().unwrap(), &format!("{url}{query}")]).fails(1).says(says);
    }
    for address in [
        format!("{url}#--upload-pack=touch${{IFS}}{}", touched.display()),
        format!("{url}?ref=-h"),
        format!("ext::sh -c touch% {}", touched.display()),
        "git@-oProxyCommand=x:y".into(),
    ] {
        build_out(&w, &[&address]).fails(1);
    }
    assert!(!touched.exists());
    assert_eq!(std::fs::read_to_string(w.path("canary")).unwrap(), "canary");
    // What only looks odd is fine.
    w.file("Dockerfile", &format!("FROM scratch\nADD {url} /r\n"));
    build_out(&w, &[w.path("ctx").to_str().unwrap()]).ok();
    assert!(!touched.exists() && w.path("out/r/up").is_symlink());
    w.ply(&["fsck"]).ok();
}

#[test]
fn a_damaged_repository_of_ours_is_fetched_anew() {
    let w = World::new();
    let server = file_server(w.dir.path().to_path_buf());
    let repo = Repo::new(&w, "repo", &[]);
    let commit = repo.write("f", "f").commit("1");
    let image = |to: &str| w.image(&format!("FROM base\nADD http://{}/repo/.git#{commit} {to}\n", server.host));
    image("/a").ok();
    let dir = std::fs::read_dir(w.path("store/git")).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).unwrap();
    std::fs::write(dir.join("shallow.lock"), "").unwrap();
    std::fs::write(dir.join("HEAD"), "").unwrap();
    image("/b").ok();
    assert_eq!(w.out(&["cat", "/b/f"]), "f");
    // What a power cut leaves: files without their bytes.
    let commit = repo.write("f", "g").commit("2");
    let object = dir.join("objects").join(&commit[..2]).join(&commit[2..]);
    std::fs::create_dir_all(object.parent().unwrap()).unwrap();
    std::fs::write(object, "").unwrap();
    w.image(&format!("FROM base\nADD http://{}/repo/.git#{commit} /c\n", server.host)).ok();
    assert_eq!(w.out(&["cat", "/c/f"]), "g");
}
