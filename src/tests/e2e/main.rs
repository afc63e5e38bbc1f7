//! End-to-end tests: the program `ply` as its users start it.
//!
//! Every test has a store, a context and a home of its own in a temporary directory. The base is made from this
//! host's programs (`host:`), so that nothing is fetched. Tests that need more than an ordinary user has begin
//! with `privileged_`; where the host lacks what a test needs, it says so and passes.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.

mod archives;
mod build;
mod cache;
mod checks;
mod claims;
mod compression;
mod damage;
mod defences;
mod explain;
mod faults;
#[path = "../../registry/fixture.rs"]
mod fixture;
mod fmt;
mod hostile;
mod judges;
mod kills;
mod metamorphic;
mod mirrors;
mod mounts;
mod named;
mod outline;
mod packed;
mod plan;
mod platforms;
mod prune;
mod random;
mod registry;
mod remote;
mod replay;
mod run;
mod sandbox_battery;
mod several;
mod shared_cache;
mod sharing;
mod storm;
#[path = "../../registry/testserver.rs"]
mod testserver;
mod users;
mod verify;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The programs that most tests need in their base.
const BASE: &str = "base=host:sh,true,false,cat,ls,mkdir,rm,ln,chmod,sleep,id,env,touch,test,stat,echo,dd,mv";

/// A directory with a context, a store and a home; removed at the end.
struct World {
    dir: tempfile::TempDir,
    ply: PathBuf,
}

/// What a command did.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    /// Asserts success and returns what it printed.
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Asserts the exit code.
    #[track_caller]
    fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts that the messages hold a text.
    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is not in {self:#?}");
        self
    }
}

impl From<Output> for Done {
    fn from(o: Output) -> Self {
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        Self { code: o.status.code(), stdout: text(o.stdout), stderr: text(o.stderr) }
    }
}

impl World {
    fn new() -> Self {
        Self::at(tempfile::Builder::new().prefix("ply-e2e-").tempdir().unwrap())
    }

    /// In a directory that was made for it.
    fn at(dir: tempfile::TempDir) -> Self {
        std::fs::create_dir(dir.path().join("ctx")).unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        // Another program's build can be tried, such as a release's.
        let ply = std::env::var_os("PLY_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_ply").into());
        Self { dir, ply: PathBuf::from(ply) }
    }

    /// Copies the program into this world, where an ordinary user may reach it.
    ///
    /// Another process does it: a file that this one has open for writing is inherited, for a moment, by whatever another test
    /// starts meanwhile, and can't be executed as long ("Text file busy").
    fn own_ply(&self) -> PathBuf {
        let to = self.path("ply");
        let done = Command::new("cp").arg(&self.ply).arg(&to).status().unwrap();
        assert!(done.success());
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
        to
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the unfinished work in the store: all but the empty lock files that wait for the next session.
    fn unfinished(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("store/tmp")).unwrap().map(|e| e.unwrap());
        let names = entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len()));
        names.filter(|(name, size)| !name.ends_with(".lock") || *size > 0).map(|(name, _)| name).collect()
    }

    /// Writes a file of the context.
    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.path("ctx").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        self
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut c = Command::new(&self.ply);
        c.args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("PLY_STORE", self.path("store"))
            .stdin(Stdio::null());
        c
    }

    fn ply(&self, args: &[&str]) -> Done {
        self.command(args).output().unwrap().into()
    }

    /// `ply build --progress=plain --build-context base=host:… ARGS ctx`.
    fn build(&self, args: &[&str]) -> Done {
        self.build_command(args).output().unwrap().into()
    }

    fn build_command(&self, args: &[&str]) -> Command {
        let ctx = self.path("ctx");
        let mut all = vec!["build", "--progress=plain", "--build-context", BASE];
        all.extend(args);
        all.push(ctx.to_str().unwrap());
        self.command(&all)
    }

    /// Writes the Dockerfile and builds it as image `t`.
    fn image(&self, dockerfile: &str) -> Done {
        self.file("Dockerfile", dockerfile).build(&["-t", "t"])
    }

    /// Runs a command in image `t` and returns what it printed.
    #[track_caller]
    fn out(&self, args: &[&str]) -> String {
        let mut all = vec!["run", "--rm", "t"];
        all.extend(args);
        self.ply(&all).ok().stdout
    }
}

/// Runs another program; none where it is not installed.
fn program(name: &str, args: &[&str]) -> Option<Done> {
    match Command::new(name).args(args).stdin(Stdio::null()).output() {
        Ok(o) => Some(o.into()),
        Err(_) => {
            skipped(&format!("{name} is not installed"));
            None
        }
    }
}

/// Says why a test did nothing.
#[allow(clippy::print_stderr)] // a test's own output
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Says what a test found out.
#[allow(clippy::print_stderr)] // a test's own output
fn note(text: &str) {
    eprintln!("{text}");
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns what is mounted, but for what other tests mount in their own directories meanwhile.
fn mounts(w: &World) -> Vec<String> {
    let own = w.dir.path().to_str().unwrap();
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().filter(|l| l.contains(own) || !l.contains("/ply-e2e-")).map(str::to_string).collect()
}

/// Returns the commands of processes whose environment or arguments name `mark`.
fn processes(mark: &Path) -> Vec<String> {
    let mark = mark.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["environ", "cmdline"] {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            if bytes.windows(mark.len()).any(|w| w == mark) && entry.file_name() != *std::process::id().to_string() {
                found.push(format!("{:?} {}", entry.file_name(), String::from_utf8_lossy(&bytes)));
            }
        }
    }
    found
}
