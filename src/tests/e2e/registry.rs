//! Pulling from and pushing to a real registry: Debian's docker-registry on loopback.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Done, World, program, skipped};

pub(super) struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    /// Starts one with its data in `w`; none where it is not installed.
    pub(super) fn start(w: &World) -> Option<Self> {
        Self::start_with(w, "")
    }

    fn start_with(w: &World, more: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = w.path("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
            w.path("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(w.path("registry.log")).unwrap();
        let started = Command::new("docker-registry").arg("serve").arg(&config).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let Ok(process) = started else {
            skipped("docker-registry is not installed");
            return None;
        };
        let registry = Self { process, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Registry {
    /// Returns the host's name.
    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_base_is_pulled_once_and_then_needs_no_network() {
    let w = World::new();
    let Some(registry) = Registry::start(&w) else { return };
    let oci = w.path("base.tar");
    w.file("Dockerfile", "FROM base\nRUN echo from-the-registry > /r\nENV FROM_BASE=1\n");
    w.build(&["-t", "b:1", "-o", &format!("type=oci,dest={}", oci.display())]).ok();
    let name = format!("127.0.0.1:{}/team/base:1", registry.port);
    let pushed = program(
        "skopeo",
        &["copy", "--insecure-policy", "--dest-tls-verify=false", &format!("oci-archive:{}", oci.display()), &format!("docker://{name}")],
    );
    let Some(pushed) = pushed else { return };
    pushed.ok();
    let puller = World::new();
    puller.image(&format!("FROM {name}\nRUN echo $FROM_BASE > /own\n")).ok();
    assert_eq!(puller.out(&["cat", "/r", "/own"]), "from-the-registry\n1\n");
    drop(registry);
    puller.image(&format!("FROM {name}\nRUN echo $FROM_BASE > /own\nRUN echo more > /more\n")).ok();
    assert_eq!(puller.out(&["cat", "/more"]), "more\n");
    puller.image(&format!("FROM {name}-missing\n")).fails(1).says("team/base").says("Dockerfile:1");
}

#[test]
fn a_pull_through_cache_is_a_mirror() {
    let (w, cache) = (World::new(), World::new());
    let Some(registry) = Registry::start(&w) else { return };
    let own = format!("127.0.0.1:{}", registry.port);
    let Some(proxy) = Registry::start_with(&cache, &format!("proxy:\n  remoteurl: http://{own}\n")) else { return };
    w.file("Dockerfile", "FROM base\nRUN echo mirrored > /m\n");
    w.build(&["--push", "-t", &format!("{own}/team/app:1")]).ok();
    let conf = w.path("registries.conf");
    let mirror = format!("[[registry.mirror]]\nlocation = '127.0.0.1:{}'\ninsecure = true\n", proxy.port);
    std::fs::write(&conf, format!("[[registry]]\nprefix = 'r.example'\nlocation = '{own}'\n{mirror}")).unwrap();
    let pull = |w: &World| {
        let mut command = w.command(&["pull", "r.example/team/app:1"]);
        super::Done::from(command.env("CONTAINERS_REGISTRIES_CONF", &conf).output().unwrap())
    };
    let through = World::new();
    assert!(!pull(&through).ok().stderr.contains("left out"));
    assert_eq!(through.ply(&["run", "--rm", "r.example/team/app:1", "cat", "/m"]).ok().stdout, "mirrored\n");
    drop(proxy);
    let without = World::new();
    pull(&without).ok().says("is left out");
    without.ply(&["fsck", "--deep"]).ok();
}

#[test]
fn what_is_pushed_is_pulled_again_with_the_same_digest() {
    let w = World::new();
    let Some(registry) = Registry::start(&w) else { return };
    let host = format!("127.0.0.1:{}", registry.port);
    w.file("Dockerfile", "FROM base\nRUN echo pushed > /p\n");
    w.build(&["--push", "-t", &format!("{host}/team/app:1"), "--metadata-file", w.path("m.json").to_str().unwrap()]).ok();
    let metadata = std::fs::read_to_string(w.path("m.json")).unwrap();
    let digest = metadata.split("\"containerimage.digest\": \"").nth(1).unwrap().split('"').next().unwrap().to_string();
    // Under another name its layers are taken over.
    w.ply(&["tag", &format!("{host}/team/app:1"), &format!("{host}/copy:2")]).ok();
    assert!(w.ply(&["push", &format!("{host}/copy:2")]).ok().stdout.starts_with(&format!("2: digest: {digest} size: ")));
    let log = std::fs::read_to_string(w.path("registry.log")).unwrap();
    assert_eq!(log.lines().filter(|l| l.contains("mount=") && l.contains("\" 201 ")).count(), 2, "{log}");

    let other = World::new();
    other.ply(&["pull", &format!("{host}/copy:2")]).ok();
    assert_eq!(other.ply(&["run", "--rm", &format!("{host}/copy:2"), "cat", "/p"]).ok().stdout, "pushed\n");
    other.ply(&["tag", &format!("{host}/copy:2"), &format!("{host}/third:a")]).ok();
    other.ply(&["tag", &format!("{host}/copy:2"), &format!("{host}/third:b")]).ok();
    let pushed = other.ply(&["push", "--all-tags", &format!("{host}/third")]).ok();
    assert_eq!(pushed.stdout.matches(&digest).count(), 2, "{}", pushed.stdout);
    other.ply(&["push", &format!("{host}/nothing")]).fails(1).says("no image");
}

#[test]
fn a_login_is_tried_kept_and_forgotten() {
    let w = World::new();
    let Some(hash) = program("htpasswd", &["-Bbn", "me", "secret"]) else { return skipped("htpasswd is not installed") };
    std::fs::write(w.path("htpasswd"), hash.ok().stdout).unwrap();
    let more = format!("auth:\n  htpasswd:\n    realm: r\n    path: {}\n", w.path("htpasswd").display());
    let Some(registry) = Registry::start_with(&w, &more) else { return };
    let host = format!("127.0.0.1:{}", registry.port);
    w.image("FROM base\nRUN echo secret-push > /s\n").ok();
    w.ply(&["tag", "t", &format!("{host}/s")]).ok();
    let ply = |args: &[&str]| {
        let mut command = w.command(args);
        super::Done::from(command.env("DOCKER_CONFIG", w.path("docker")).output().unwrap())
    };
    ply(&["push", &format!("{host}/s")]).fails(1).says("refuses access").says("ply login");
    ply(&["login", "-u", "me", "-p", "wrong", &host]).fails(1).says("the user or password is wrong");
    assert!(!w.path("docker/config.json").exists());
    ply(&["login", "-u", "me", "-p", "secret", &host]).ok();
    ply(&["push", &format!("{host}/s")]).ok();
    ply(&["logout", &host]).ok();
    ply(&["push", &format!("{host}/s")]).fails(1);
}

#[test]
fn what_is_saved_is_loaded_again_by_others_and_by_us() {
    let w = World::new();
    w.image("FROM base\nRUN echo saved > /s\n").ok();
    w.ply(&["tag", "t", "second:2"]).ok();
    let (docker, oci) = (w.path("docker.tar"), w.path("oci.tar"));
    w.ply(&["save", "-o", docker.to_str().unwrap(), "t", "second:2"]).ok();
    w.ply(&["save", "--format", "oci", "-o", oci.to_str().unwrap(), "t"]).ok();
    let other = World::new();
    let loaded = other.ply(&["load", "-i", docker.to_str().unwrap()]).ok();
    assert_eq!(loaded.stdout, "Loaded image: t:latest\nLoaded image: second:2\n");
    let id = |w: &World| w.ply(&["inspect", "--format", "{{.Id}}", "t"]).ok().stdout;
    assert_eq!(id(&other), id(&w));
    for (kind, file) in [("docker-archive", &docker), ("oci-archive", &oci)] {
        let Some(judged) = program("skopeo", &["inspect", "--raw", &format!("{kind}:{}", file.display())]) else { return };
        judged.ok();
    }
}

#[test]
fn a_signal_ends_a_pull_whose_registry_says_nothing() {
    for after in [0, 1] {
        let w = World::new();
        // It says nothing at all, or nothing any more after the first answer.
        let server = super::testserver::TestServer::start(move |_, n| {
            let reply = super::testserver::Reply::new(429, "");
            super::testserver::Reply { silent: n >= after, ..reply }
        });
        let name = format!("{}/silent:1", server.host);
        let mut child = w.command(&["pull", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.requests().len() <= after {
            assert!(Instant::now() < deadline, "nobody asked");
            std::thread::sleep(Duration::from_millis(20));
        }
        let start = Instant::now();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        // A request would wait for half a minute.
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!(w.unfinished(), Vec::<String>::new());
    }
}

#[test]
fn what_is_not_marked_as_insecure_is_never_spoken_to_in_plain_text() {
    // A proxy lets the first connection through to a server that speaks no TLS, and refuses the next ones. Whoever fell back to
    // http would ask it for `http://…`.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let (asked, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            let mut request = BufReader::new(&stream).lines().map_while(Result::ok);
            asked.send(request.next().unwrap_or_default()).unwrap();
            let _ = request.find(String::is_empty);
            let answer = if n == 0 { "200 OK\r\n\r\nHTTP/1.1 400 Bad Request" } else { "403 Forbidden\r\ncontent-length: 0" };
            let _ = (&stream).write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes());
        }
    });
    let w = World::new();
    for name in ["r.example/x", "localhost.example:5000/x"] {
        let mut pull = w.command(&["pull", name]);
        Done::from(pull.env("http_proxy", &proxy).env("https_proxy", &proxy).output().unwrap()).fails(1).says("https://");
    }
    let requests: Vec<String> = seen.try_iter().collect();
    assert!(requests.len() >= 2 && requests.iter().all(|line| line.starts_with("CONNECT ")), "{requests:#?}");
}
