//! What comes from URLs and repositories: ADD, contexts, epochs; servers on loopback that the tests start and end.

mod contexts;
mod git;
mod hostile;
mod http;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::World;
use super::testserver::{Reply, TestServer};

/// A site whose pages a test changes as it goes.
struct Site {
    server: TestServer,
    pages: Arc<Mutex<BTreeMap<String, Reply>>>,
}

impl Site {
    fn new() -> Self {
        let pages: Arc<Mutex<BTreeMap<String, Reply>>> = Arc::default();
        let served = Arc::clone(&pages);
        let server = TestServer::start(move |request, _| {
            let page = served.lock().unwrap().get(&request.path).cloned().unwrap_or_else(|| Reply::new(404, "none"));
            let known = page.headers.iter().find(|(n, _)| n == "ETag").map(|(_, v)| v.as_str());
            match known.is_some() && request.header("if-none-match") == known {
                true => Reply { status: 304, body: Vec::new(), ..page },
                false => page,
            }
        });
        Self { server, pages }
    }

    fn page(&self, path: &str, reply: Reply) -> &Self {
        self.pages.lock().unwrap().insert(path.into(), reply);
        self
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.host)
    }

    /// How often a page was asked for.
    fn asked(&self, path: &str) -> usize {
        self.server.requests().iter().filter(|r| r.path == path).count()
    }
}

/// Serves a directory as a server of plain files does.
pub(super) fn file_server(dir: PathBuf) -> TestServer {
    TestServer::start(move |request, _| {
        let path = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        std::fs::read(dir.join(path)).map_or_else(|_| Reply::new(404, "none"), |bytes| Reply::new(200, bytes))
    })
}

/// A repository of a test, outside of the context.
pub(super) struct Repo(PathBuf);

impl Repo {
    pub(super) fn new(w: &World, name: &str, init: &[&str]) -> Self {
        let repo = Self(w.path(name));
        std::fs::create_dir_all(&repo.0).unwrap();
        repo.git(&[&["init", "-q", "-b", "master"], init].concat());
        repo
    }

    /// Runs git in it and returns what it printed.
    #[track_caller]
    fn git(&self, args: &[&str]) -> String {
        let done = Command::new("git")
            .args(args)
            .current_dir(&self.0)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(["AUTHOR", "COMMITTER"].iter().flat_map(|who| {
                [(format!("GIT_{who}_NAME"), "t"), (format!("GIT_{who}_EMAIL"), "t@t"), (format!("GIT_{who}_DATE"), "1700000101 +0000")]
            }))
            .output()
            .unwrap();
        assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_string()
    }

    pub(super) fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Commits everything and returns the commit.
    pub(super) fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.published()
    }

    /// Makes it readable for clients of plain files, and returns the commit.
    fn published(&self) -> String {
        self.git(&["update-server-info"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// git's own server, with all repositories of a world; ended by its number.
struct Daemon {
    process: Child,
    port: u16,
}

impl Daemon {
    fn start(base: &Path) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let exec_path = Command::new("git").arg("--exec-path").output().ok()?;
        let program = PathBuf::from(String::from_utf8(exec_path.stdout).unwrap().trim()).join("git-daemon");
        let started = Command::new(program)
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--base-path={}", base.display()))
            .arg(base)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            super::skipped("git-daemon is not installed");
            return None;
        };
        let daemon = Self { process, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "git-daemon does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Builds with the files of the result in `out`.
fn build_out(w: &World, args: &[&str]) -> super::Done {
    let out = w.path("out");
    let _ = std::fs::remove_dir_all(&out);
    let mut all = vec!["build", "--progress=plain", "--build-context", super::BASE, "-o"];
    all.push(out.to_str().unwrap());
    all.extend(args);
    w.ply(&all)
}

/// Returns a file of the result.
#[track_caller]
fn out(w: &World, name: &str) -> String {
    std::fs::read_to_string(w.path("out").join(name)).unwrap()
}

/// Makes a tar of small files, each with its time.
fn tar_of(files: &[(&str, &str, u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text, mtime) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(*mtime);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}
