//! What a kill and a power cut leave: a store that `ply fsck` finds clean, and in which the next command gives what it always
//! gives.
//!
//! | module | what is done to it | by hand, all of it |
//! |---|---|---|
//! | `random` | kill -9 at random moments of builds, a pull, a push, a load, a save, a collection, a container, and of three at once | `PLY_TEST_ROUNDS=1000 cargo test --test e2e kills::random -- --nocapture` |
//! | `calls` | kill -9 before each call of a build, a load, a container, a collection that changes something | `PLY_TEST_ROUNDS=all cargo test --test e2e kills::calls -- --nocapture` |
//! | `errors` | an error from each call that changes something | `PLY_TEST_ROUNDS=all cargo test --test e2e kills::errors -- --nocapture` |
//! | `disks` | real file systems that are full | `cargo test --test e2e kills::disks -- --nocapture` |
//! | `signals` | INT, TERM, HUP and closed pipes at random moments | `PLY_TEST_ROUNDS=100 cargo test --test e2e kills::signals -- --nocapture` |
//! | `power` | the file system forgets what it has not written | `PLY_TEST_ROUNDS=200 cargo test --test e2e kills::power -- --nocapture` |
//!
//! `PLY_TEST_SEED` sets where the random choices begin. Each test prints one line with its counts, and fails where one is not what
//! it should be; what went wrong, with its seed or the number of the call, stands above it. With `PLY_TEST_KEEP` the directory of a
//! failure stays.

mod calls;
mod deeds;
mod disks;
mod errors;
mod power;
mod random;
mod signals;

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::users::Account;
use super::{Done, World, mounts, processes, program, skipped};

/// What went wrong, for people.
type Outcome<T> = Result<T, String>;

/// Six steps, of which each leaves something else; NUMBER is what makes one build differ from another.
const SIX: &str = "FROM base\nCOPY a /a\nRUN dd if=/dev/zero of=/zeros bs=64k count=40; echo one > /one\n\
     RUN --mount=type=cache,target=/c,from=base,source=/usr/bin cat /c/mkdir > /copied; sleep 0.03; mkdir -p /d/e; ln -s /one /d/l\nCOPY --chown=1:2 b /b\n\
     RUN rm /a; mv /one /two; touch -d @5 /d/e\nWORKDIR /w\nCMD [\"cat\",\"/two\"]\n";

/// How long what a killed process leaves may take to be gone: its children die at their next step.
const SETTLE: Duration = Duration::from_secs(20);

/// Who builds: a world of their own, and their ids.
struct Bench {
    w: World,
    who: &'static str,
    ids: Option<u32>,
    // After the world: its files are theirs.
    _account: Option<Account>,
    mounts: Vec<String>,
}

impl Bench {
    /// As who we are.
    fn own() -> Self {
        Self::of(World::new(), "own", None)
    }

    /// As an ordinary user, with a range of ids or with one id; none: no such user can be made here.
    fn user(who: &'static str, ranges: bool) -> Option<Self> {
        let account = Account::new(&format!("k{who}"), ranges)?;
        let id = program("id", &["-u", account.name()])?.ok().stdout.trim().parse().unwrap();
        // In memory: a kill does not mind, and nothing waits for a disk. Who we are ourselves builds on the disk.
        let mut w = World::at(memory());
        w.ply = w.own_ply();
        Some(Self::of(w, who, Some((id, account))))
    }

    fn of(w: World, who: &'static str, user: Option<(u32, Account)>) -> Self {
        let (ids, account) = user.unzip();
        let bench = Self { mounts: mounts(&w), w, who, ids, _account: account };
        for (name, number) in [("ctx", 0), ("warm", 0), ("a", 0), ("b", 0)] {
            bench.context(name, number);
        }
        std::fs::create_dir(bench.w.path("out")).unwrap();
        if let Some(id) = ids {
            let owner = format!("{id}:{id}");
            assert!(Command::new("chown").args(["-R", &owner]).arg(bench.w.dir.path()).status().unwrap().success());
        }
        bench
    }

    /// Writes the context of a build of six steps; from the fourth on they depend on the number.
    fn context(&self, name: &str, number: u64) {
        let dir = self.w.path(name);
        std::fs::create_dir_all(dir.join("b/c")).unwrap();
        std::fs::write(dir.join("Dockerfile"), SIX).unwrap();
        std::fs::write(dir.join("a"), "a").unwrap();
        for (file, text) in [("b/1", number.to_string()), ("b/2", "two".repeat(1000)), ("b/c/3", String::new())] {
            std::fs::write(dir.join(file), text).unwrap();
        }
    }

    /// A command in this world, in a process group of its own.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.w.command(args);
        command.env("SOURCE_DATE_EPOCH", "1").process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(id) = self.ids {
            command.uid(id).gid(id);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        self.command(args).output().unwrap().into()
    }

    /// The arguments that build a context as an image.
    fn build_args(&self, context: &str, tag: &str) -> Vec<String> {
        // In no key and in no image, but in the environment of whatever a step runs.
        let mark = format!("no_proxy={}", self.w.dir.path().display());
        let path = self.w.path(context).display().to_string();
        ["build", "--progress=plain", "--gc=off", "--build-context", super::BASE, "--build-arg", &mark, "-t", tag, &path]
            .map(str::to_owned)
            .into()
    }

    fn build_command(&self, context: &str, tag: &str) -> Command {
        let args = self.build_args(context, tag);
        self.command(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Waits until no process of this world is left, and no mount.
    fn settled(&self) -> Outcome<()> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let (left, mounted) = (processes(self.w.dir.path()), mounts(&self.w));
            if left.is_empty() && mounted == self.mounts {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("left: processes {left:?}, mounts {mounted:?}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Checks the store; returns how many leftovers of killed processes there are.
    fn fsck(&self, store: &Path, deep: bool) -> Outcome<u64> {
        let args: &[&str] = if deep { &["fsck", "--deep"] } else { &["fsck"] };
        let done = Done::from(self.command(args).env("PLY_STORE", store).output().unwrap());
        let said = done.stdout.trim_end();
        if done.code != Some(0) || !said.contains(" 0 problems") || said.contains('\n') {
            return Err(format!("fsck: {done:#?}"));
        }
        Ok(said.split_once("problems, ").map_or(0, |(_, left)| left.split(' ').next().unwrap().parse().unwrap()))
    }

    /// Checks that a later command leaves nothing of an earlier one that was killed.
    fn tidy(&self, store: &Path) -> Outcome<()> {
        succeeded("prune", &Done::from(self.command(&["prune"]).env("PLY_STORE", store).output().unwrap()))?;
        let (left, strays) = (self.fsck(store, false)?, strays(store));
        if left > 0 || !strays.is_empty() {
            return Err(format!("after a collection there is still: {left} leftovers, {strays:?}"));
        }
        Ok(())
    }

    /// The id of an image in the store.
    fn id(&self, store: &Path, image: &str) -> Outcome<String> {
        let done = Done::from(self.command(&["inspect", "--format", "{{.Id}}", image]).env("PLY_STORE", store).output().unwrap());
        succeeded(&format!("inspecting {image}"), &done)?;
        Ok(done.stdout.trim().to_owned())
    }

    /// Removes a store.
    fn remove(&self, store: &Path) {
        if !super::is_root() {
            // Files of other ids are not ours to remove, outside of ply.
            let run = |args: &[&str]| Done::from(self.command(args).env("PLY_STORE", store).output().unwrap());
            for image in run(&["images", "-q"]).stdout.split_whitespace() {
                run(&["rmi", "-f", image]);
            }
            run(&["prune", "--all"]);
        }
        super::random::remove_tree(store);
    }

    /// Keeps the directory of a failure, where that is asked for.
    fn keep(&mut self) {
        if std::env::var_os("PLY_TEST_KEEP").is_some() {
            self.w.dir.disable_cleanup(true);
            super::note(&format!("kept: {}", self.w.dir.path().display()));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Of its layers' unwritable directories nothing else rids an ordinary user's world.
        for name in ["store", "cold"] {
            let path = self.w.path(name);
            if path.exists() && std::env::var_os("PLY_TEST_KEEP").is_none() {
                self.remove(&path);
            }
        }
    }
}

fn succeeded(doing: &str, done: &Done) -> Outcome<()> {
    if done.code == Some(0) { Ok(()) } else { Err(format!("{doing}: {done:#?}")) }
}

/// Compares what a command gave with what it gives.
fn golden(doing: &str, done: &Done, want: &str) -> Outcome<()> {
    succeeded(doing, done)?;
    if done.stdout.trim() == want { Ok(()) } else { Err(format!("{doing}: {want} was expected: {done:#?}")) }
}

fn same(what: &str, found: &str, want: &str) -> Outcome<()> {
    if found == want { Ok(()) } else { Err(format!("{what} is {found}, not {want}")) }
}

/// What lies in a store beside what belongs there while nobody uses it.
fn strays(store: &Path) -> Vec<String> {
    const ROOT: [&str; 12] = [
        "format",
        "index.db",
        "index.db-wal",
        "index.db-shm",
        "blobs",
        "layers",
        "tmp",
        "locks",
        "cache-mounts",
        "git",
        "containers",
        "reserve",
    ];
    let listed = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect::<Vec<_>>();
    let mut found = Vec::new();
    for (dir, belongs) in [
        ("", &(|name: &str, _: u64| ROOT.contains(&name)) as &dyn Fn(&str, u64) -> bool),
        ("tmp", &|name, size| name.ends_with(".lock") && size == 0),
        ("locks", &|name, _| name == "collect"),
        ("blobs", &|name, _| name == "sha256"),
        ("containers", &|name, _| name == "names"),
        ("containers/names", &|_, _| false),
    ] {
        for entry in Some(store.join(dir)).filter(|d| d.exists()).map(|d| listed(&d)).unwrap_or_default() {
            if !belongs(entry.file_name().to_str().unwrap(), entry.metadata().unwrap().size()) {
                found.push(format!("{dir}/{}", entry.file_name().display()));
            }
        }
    }
    found
}

/// A store that nobody kills: what builds give.
struct Reference {
    bench: Mutex<Bench>,
}

impl Reference {
    fn new() -> Self {
        Self { bench: Mutex::new(Bench::own()) }
    }

    fn bench(&self) -> std::sync::MutexGuard<'_, Bench> {
        self.bench.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the build of six steps with this number gives.
    fn six(&self, number: u64) -> String {
        let bench = self.bench();
        bench.context("ctx", number);
        Done::from(bench.build_command("ctx", "t").output().unwrap()).ok().stdout.trim().to_owned()
    }
}

/// A command that runs. What it prints goes to files: a process that it left behind would keep a pipe open.
struct Running {
    child: Child,
    stdout: std::fs::File,
    stderr: std::fs::File,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        Self { child: command.spawn().unwrap(), stdout, stderr }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Kills it; returns whether it was alive.
    fn kill(&mut self) -> bool {
        let alive = !self.has_ended();
        // It may end in between.
        let _ = self.child.kill();
        alive
    }

    /// Waits for its end, which it must come to.
    fn end(mut self) -> Output {
        let deadline = Instant::now() + Duration::from_secs(300);
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.child);
            std::thread::sleep(Duration::from_millis(1));
        }
        let read = |mut file: std::fs::File| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).unwrap();
            bytes
        };
        let status = self.child.wait().unwrap();
        Output { status, stdout: read(self.stdout), stderr: read(self.stderr) }
    }
}

/// Compiles `testdata/kills/tool.c`; none where the host has no C compiler.
fn tool(dir: &Path) -> Option<PathBuf> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/kills/tool.c");
    let output = dir.join("tool");
    let done = program("cc", &["-O1", "-o", output.to_str().unwrap(), source])?;
    if done.code != Some(0) {
        skipped(&format!("cc: {}", done.stderr));
        return None;
    }
    Some(output)
}

/// A directory in memory, where there is such a file system.
fn memory() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("ply-e2e-");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

/// How many rounds: as `PLY_TEST_ROUNDS` says.
fn rounds(default: u64) -> u64 {
    if std::env::var("PLY_TEST_ROUNDS").is_ok_and(|v| v == "all") { u64::MAX } else { super::random::number("PLY_TEST_ROUNDS", default) }
}

/// Counts and failures of a harness, from several threads.
#[derive(Default)]
struct Tally {
    failures: Mutex<Vec<String>>,
}

impl Tally {
    /// Takes down a failure; what is printed at once is what a run of an hour is watched by.
    fn failed(&self, what: String) {
        super::note(&format!("FAILED {what}"));
        self.failures.lock().unwrap().push(what);
    }

    /// Notes the failure of a round, and returns whether there was none.
    fn take(&self, round: &str, outcome: Outcome<()>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(e) => {
                self.failed(format!("{round}: {e}"));
                false
            }
        }
    }

    /// Prints the summary, and fails if anything did.
    #[track_caller]
    fn end(self, summary: &str) {
        super::note(summary);
        let failures = self.failures.into_inner().unwrap();
        assert!(failures.is_empty(), "{summary}: {} failures, of which the first: {}", failures.len(), failures[0]);
    }
}

/// Gives threads one number after the other below `end`.
struct Numbers {
    next: AtomicU64,
    end: u64,
}

impl Numbers {
    fn new(first: u64, count: u64) -> Self {
        Self { next: AtomicU64::new(first), end: first.saturating_add(count) }
    }

    fn next(&self) -> Option<u64> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        (n < self.end).then_some(n)
    }
}
