//! An error from each call that changes something: no space, no quota, too many files, not allowed, read-only, a broken device.
//!
//! The calls are counted first, then the command is started once for each pair of a call and an error; `tool fail` gives the error
//! to the calls of `ply`'s own processes alone, those inside the sandbox's set-up among them, not to what a RUN runs. Either the
//! command ends with exit code 1, words that name what failed, and advice; or it could do without the call, and its result is
//! what it always is. In both cases the store is clean, nothing is left, and the same command then gives what it always gives.
//! `PLY_TEST_ROUNDS` sets how many pairs of each deed are tried, spread over all; `all` tries every one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::super::random::{Random, number, remove_tree};
use super::super::{BASE, Done, is_root, skipped};
use super::{Bench, Numbers, Outcome, Tally, memory, rounds, succeeded, tool};

/// What is hindered. All but the first start from a copy of a store that has the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// A build of six steps in a store that it makes, with an archive and other files beside it.
    Build,
    Load,
    Import,
    Save,
    Prune,
    Run,
}

const DEEDS: [Deed; 6] = [Deed::Build, Deed::Load, Deed::Import, Deed::Save, Deed::Prune, Deed::Run];

const ERRORS: [(&str, i32); 6] = [
    ("ENOSPC", libc::ENOSPC),
    ("EIO", libc::EIO),
    ("EDQUOT", libc::EDQUOT),
    ("EMFILE", libc::EMFILE),
    ("EACCES", libc::EACCES),
    ("EROFS", libc::EROFS),
];

const TEXT: &str = "FROM base\nWORKDIR /w\nCOPY a /a\nADD t.tar /t/\n\
     RUN dd if=/dev/zero of=/zeros bs=64k count=40; echo one > /one; mkdir -p /d/e; ln -s /one /d/l\n\
     COPY --chown=1:2 big /big\nUSER 5\nCMD [\"cat\",\"/one\"]\n";

/// How long a failing command may take, and when it is given up.
const LIMIT: Duration = Duration::from_secs(5);
const HANG_SECS: &str = "60";

struct Site {
    bench: Bench,
    tool: PathBuf,
    /// Stores lie in memory: nothing waits for a disk.
    memory: tempfile::TempDir,
    golden: String,
    /// The layers of the import: its own id tells its time.
    imported: String,
}

impl Site {
    fn new(bench: Bench) -> Option<Self> {
        let tool = tool(bench.w.dir.path())?;
        let memory = memory();
        std::os::unix::fs::chown(memory.path(), bench.ids, bench.ids).unwrap();
        let ctx = bench.w.path("ctx");
        let mut r = Random::new(5);
        std::fs::write(ctx.join("big"), (0..2_000_000).map(|_| u8::try_from(r.below(256)).unwrap()).collect::<Vec<_>>()).unwrap();
        std::fs::write(ctx.join("Dockerfile"), TEXT).unwrap();
        let mut tar = tar::Builder::new(std::fs::File::create(ctx.join("t.tar")).unwrap());
        for name in ["x/1", "x/2"] {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(4);
            tar.append_data(&mut header, name, &b"text"[..]).unwrap();
        }
        tar.into_inner().unwrap();
        let mut site = Self { bench, tool, memory, golden: String::new(), imported: String::new() };
        let template = site.memory.path().join("template");
        site.output(&template);
        site.golden = site.run(Deed::Build, &template).ok().stdout;
        let archive = site.bench.w.path("t.tar");
        let save = ["save", "-o", archive.to_str().unwrap(), "t"];
        Done::from(site.bench.command(&save).env("PLY_STORE", &template).output().unwrap()).ok();
        let probe = site.memory.path().join("probe");
        site.prepare(Deed::Import, &probe);
        site.run(Deed::Import, &probe).ok();
        site.imported = site.layers(&probe).unwrap();
        Some(site)
    }

    /// Where a store's command writes beside the store: fresh and empty.
    fn output(&self, store: &Path) -> PathBuf {
        let output = store.with_extension("out");
        let _ = std::fs::remove_dir_all(&output);
        std::fs::create_dir(&output).unwrap();
        std::os::unix::fs::chown(&output, self.bench.ids, self.bench.ids).unwrap();
        output
    }

    fn args(&self, deed: Deed, store: &Path) -> Vec<String> {
        let output = |name: &str| store.with_extension("out").join(name).display().to_string();
        let path = |name: &str| self.bench.w.path(name).display().to_string();
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        match deed {
            Deed::Build => {
                // In no key and in no image, but in the environment of whatever a step runs.
                let mark = format!("no_proxy={}", self.bench.w.dir.path().display());
                let archive = format!("type=oci,dest={}", output("o.tar"));
                let mut all = words(&["build", "--progress=plain", "--gc=off", "--build-context", BASE, "--build-arg", &mark, "-t", "t"]);
                all.extend(words(&[
                    "--load",
                    "-o",
                    &archive,
                    "--iidfile",
                    &output("iid"),
                    "--metadata-file",
                    &output("meta"),
                    &path("ctx"),
                ]));
                all
            }
            Deed::Load => words(&["load", "-i", &path("t.tar")]),
            Deed::Import => words(&["import", &path("ctx/t.tar"), "imported"]),
            Deed::Save => words(&["save", "-o", &output("s.tar"), "t"]),
            Deed::Prune => words(&["prune", "--all"]),
            Deed::Run => words(&["run", "--rm", "t"]),
        }
    }

    fn prepare(&self, deed: Deed, store: &Path) {
        if store.exists() {
            remove_tree(store);
        }
        self.output(store);
        if deed == Deed::Build {
            return;
        }
        let copied = Command::new("cp").arg("-a").arg(self.memory.path().join("template")).arg(store).status().unwrap();
        assert!(copied.success());
        let here: &[&[&str]] = match deed {
            Deed::Load => &[&["rmi", "t"], &["prune", "--all"]],
            Deed::Prune => &[&["rmi", "t"]],
            _ => &[],
        };
        here.iter().for_each(|args| drop(Done::from(self.bench.command(args).env("PLY_STORE", store).output().unwrap()).ok()));
    }

    fn run(&self, deed: Deed, store: &Path) -> Done {
        let args = self.args(deed, store);
        self.bench.command(&args.iter().map(String::as_str).collect::<Vec<_>>()).env("PLY_STORE", store).output().unwrap().into()
    }

    /// Runs it with its `k`th call failing (0: with none), and returns the calls that were made.
    fn fail(&self, deed: Deed, store: &Path, k: u64, errno: i32) -> (Done, Vec<String>) {
        let log = store.with_extension("log");
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", HANG_SECS]).arg(&self.tool).arg("fail").arg(&log);
        command.args([k.to_string(), self.bench.ids.unwrap_or(0).to_string(), errno.to_string()]).arg(&self.bench.w.ply);
        let like = self.bench.command(&[]);
        command.args(self.args(deed, store)).current_dir(self.bench.w.dir.path()).env_clear();
        command.envs(like.get_envs().filter_map(|(k, v)| Some((k, v?)))).env("PLY_STORE", store);
        let done = command.stdin(Stdio::null()).output().unwrap().into();
        let log = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
        (done, log.lines().map(str::to_owned).collect())
    }

    fn layers(&self, store: &Path) -> Outcome<String> {
        let args = ["inspect", "--format", "{{json .RootFS}}", "imported"];
        let done = Done::from(self.bench.command(&args).env("PLY_STORE", store).output().unwrap());
        succeeded("inspecting what was imported", &done)?;
        Ok(done.stdout)
    }

    /// Checks what the deed gives when it succeeds.
    fn right(&self, deed: Deed, done: &Done, store: &Path) -> Outcome<()> {
        succeeded("it", done)?;
        let same = |found: &str, want: &str| if found == want { Ok(()) } else { Err(format!("{want} was expected: {done:#?}")) };
        match deed {
            Deed::Build => {
                same(&done.stdout, &self.golden)?;
                same(std::fs::read_to_string(store.with_extension("out").join("iid")).unwrap().trim(), self.golden.trim())
            }
            Deed::Load => same(&self.bench.id(store, "t")?, self.golden.trim()),
            Deed::Import => same(&self.layers(store)?, &self.imported),
            Deed::Save => same(&list(&store.with_extension("out").join("s.tar"))?, &list(&self.bench.w.path("t.tar"))?),
            Deed::Run => same(&done.stdout, "one\n"),
            Deed::Prune => Ok(()),
        }
    }

    /// Checks how a command with a failing call ended, and what it left.
    fn ended(&self, deed: Deed, done: &Done, call: &str, errno: i32, store: &Path) -> Outcome<bool> {
        let wrong = |what: &str| Err(format!("{what}: {done:#?}"));
        if done.code == Some(137) {
            return wrong("hang");
        }
        if done.stderr.contains("panicked") {
            return wrong("panic");
        }
        let failed = match done.code {
            Some(0) => self.right(deed, done, store).map(|()| false)?,
            Some(1) => true,
            Some(125) if deed == Deed::Run => true,
            _ => return wrong("another exit code"),
        };
        if failed {
            let told: Vec<&str> = done.stderr.lines().filter(|l| l.starts_with("error: ")).collect();
            let [told] = told[..] else { return wrong("not one error") };
            let cause = std::io::Error::from_raw_os_error(errno).to_string();
            let cause = cause.split(" (os error").next().unwrap();
            // SQLite keeps the kernel's answer to itself.
            if !told.contains(cause) && !told.contains("the store's index") {
                return wrong("the message has no cause");
            }
            let subject = &told["error: ".len()..];
            if !subject.contains(['/', '`', '"'])
                && !["index", "sandbox", "overlay", "mount", "namespace"].iter().any(|s| subject.contains(s))
            {
                return wrong("the message names nothing");
            }
            if !done.stderr.contains("hint: ") {
                return wrong("no advice");
            }
        }
        self.bench.settled()?;
        let beside: Vec<_> = std::fs::read_dir(store.with_extension("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
        let removes = call.starts_with("unlink");
        if beside.iter().any(|name| !["o.tar", "iid", "meta", "s.tar"].iter().any(|n| name == n)) && !removes {
            return Err(format!("beside the output there is {beside:?}"));
        }
        if store.exists() {
            self.bench.fsck(store, false).map_err(|e| format!("dirty: {e}"))?;
            let left = unfinished(store);
            if !left.is_empty() && !removes {
                return Err(format!("dirty: left in the store: {left:?}, {done:#?}"));
            }
        }
        Ok(failed)
    }

    /// Lets the `k`th call fail; returns its name and whether the command did, none where it was not come to.
    fn point(&self, deed: Deed, k: u64, (name, errno): (&str, i32), store: &Path) -> Outcome<Option<(String, bool)>> {
        let mut took = Duration::ZERO;
        let mut outcome = None;
        // A busy machine may take long once.
        for _ in 0..2 {
            self.prepare(deed, store);
            let start = Instant::now();
            let (done, calls) = self.fail(deed, store, k, errno);
            took = start.elapsed();
            let Some(at) = calls.get(usize::try_from(k - 1).unwrap()) else { return Ok(None) };
            let call = at.split(' ').nth(1).unwrap().to_owned();
            let told = |e: String| format!("{name} at {at}: {e}");
            let failed = self.ended(deed, &done, &call, errno, store).map_err(told)?;
            outcome = Some((call, failed));
            if took < LIMIT {
                break;
            }
        }
        if took >= LIMIT {
            return Err(format!("{name}: slow: it took {took:?}"));
        }
        let again = self.run(deed, store);
        self.right(deed, &again, store).and_then(|()| self.bench.tidy(store)).map_err(|e| format!("{name} at call {k}, again: {e}"))?;
        Ok(outcome)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.memory.path()).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()) {
            remove_tree(&entry.path());
        }
    }
}

/// The names and sizes in an archive.
fn list(archive: &Path) -> Outcome<String> {
    let done = Command::new("tar").arg("-tvf").arg(archive).output().unwrap().into();
    succeeded("listing the archive", &done)?;
    Ok(done.stdout)
}

fn unfinished(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store.join("tmp")).into_iter().flatten().map(|e| e.unwrap());
    let names = entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len()));
    names.filter(|(name, size)| !name.ends_with(".lock") || *size > 0).map(|(name, _)| name).collect()
}

/// Counts of all that was tried.
#[derive(Default)]
struct Counts {
    points: u64,
    failed: u64,
    calls: BTreeSet<String>,
}

/// Tries `count` pairs of a call and an error; returns how many calls there are.
fn every_call(site: &Site, deed: Deed, count: u64, seed: u64, tally: &Tally, counts: &Mutex<Counts>) -> u64 {
    let store = site.memory.path().join("counted");
    site.prepare(deed, &store);
    let (done, calls) = site.fail(deed, &store, 0, 0);
    site.right(deed, &done, &store).unwrap();
    let (total, errors) = (calls.len() as u64, ERRORS.len() as u64);
    // Spread over the calls, with one error after the other.
    let pairs: Vec<(u64, u64)> = match count >= total * errors {
        true => (0..total * errors).map(|n| (1 + n / errors, n % errors)).collect(),
        false => (0..count).map(|n| (1 + (n * total / count + seed * 7919) % total, (n + seed) % errors)).collect(),
    };
    let numbers = Numbers::new(0, pairs.len() as u64);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (pairs, numbers) = (&pairs, &numbers);
            scope.spawn(move || {
                let store = site.memory.path().join(format!("store-{thread}"));
                while let Some(n) = numbers.next() {
                    let (k, error) = pairs[usize::try_from(n).unwrap()];
                    match site.point(deed, k, ERRORS[usize::try_from(error).unwrap()], &store) {
                        Ok(None) => {}
                        Ok(Some((call, failed))) => {
                            let mut counts = counts.lock().unwrap();
                            counts.points += 1;
                            counts.failed += u64::from(failed);
                            counts.calls.insert(call);
                        }
                        Err(e) => tally.failed(format!("{deed:?} as {}, call {k} of {total}: {e}", site.bench.who)),
                    }
                }
            });
        }
    });
    total
}

#[test]
fn whatever_call_fails_a_command_tells_it_and_the_store_is_clean() {
    let (seed, count) = (number("PLY_TEST_SEED", 1), rounds(7));
    let (tally, counts) = (Tally::default(), Mutex::<Counts>::default());
    let Some(site) = Site::new(Bench::own()) else { return };
    let mut calls = 0;
    for deed in DEEDS {
        calls += every_call(&site, deed, count, seed, &tally, &counts);
    }
    let mut who = site.bench.who.to_owned();
    drop(site);
    match is_root().then(|| Bench::user("errors", false)).flatten().and_then(Site::new) {
        Some(site) => {
            for deed in [Deed::Build, Deed::Run] {
                calls += every_call(&site, deed, count, seed + 1, &tally, &counts);
            }
            who += "+user";
        }
        None => skipped("users: needs root, to make accounts"),
    }
    let of = |what: &str| tally.failures.lock().unwrap().iter().filter(|f| f.contains(what)).count();
    let (hang, panic, dirty, slow) = (of(": hang"), of(": panic"), of("dirty: "), of(": slow"));
    let all = tally.failures.lock().unwrap().len();
    let counts = counts.into_inner().unwrap();
    assert!(counts.points > 0);
    let summary = format!(
        "errors: seed={seed} as={who} calls={calls} points={} errors={} kinds={} exit1={} exit0={} hang={hang} panic={panic} dirty={dirty} slow={slow} other={}",
        counts.points,
        ERRORS.len(),
        counts.calls.len(),
        counts.failed,
        counts.points - counts.failed,
        all - hang - panic - dirty - slow
    );
    tally.end(&summary);
}

#[test]
fn however_few_files_may_be_open_a_build_tells_it_and_the_store_is_clean() {
    let bench = Bench::own();
    let args = bench.build_args("ctx", "t");
    let (mut failed, mut built) = (0, 0);
    // With fewer the program itself can't be started; with so many it all works.
    for limit in (4..60).step_by(5).chain([1000]) {
        let like = bench.command(&[]);
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}")).arg(&bench.w.ply).args(&args).current_dir(bench.w.dir.path()).env_clear();
        command.envs(like.get_envs().filter_map(|(k, v)| Some((k, v?)))).stdin(Stdio::null());
        let Ok(output) = command.output() else { return skipped("prlimit is not installed") };
        let done = Done::from(output);
        match done.code {
            Some(0) => built += 1,
            _ => {
                failed += 1;
                let done = done.fails(1).says("error: ").says("hint: ");
                assert!(!done.stderr.contains("panicked"), "{limit}: {done:#?}");
            }
        }
        bench.settled().unwrap();
        bench.fsck(&bench.w.path("store"), false).unwrap();
        assert_eq!(bench.w.unfinished(), Vec::<String>::new(), "{limit}");
    }
    super::super::note(&format!("files: limits={} exit1={failed} exit0={built}", failed + built));
    assert!(failed > 5 && built > 0);
}
