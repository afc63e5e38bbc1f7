//! kill -9 before each call that changes something: a file, a mount, the index (by SQLite's writes and syncs), a process.
//!
//! The calls are counted first, then the command is started once for each and killed when it comes to it. Counted are those of
//! all its threads and children: the sandbox's, and what runs in it. `PLY_TEST_ROUNDS` sets how many calls of each deed are tried,
//! spread over all; `all` tries every one, which are some thousands.

use std::path::{Path, PathBuf};

use super::super::random::{number, remove_tree};
use super::super::{Done, is_root, skipped};
use super::{Bench, Numbers, Outcome, Reference, Tally, golden, memory, rounds, same, succeeded, tool};

/// What is killed. Each starts from a copy of a store, or from none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// A build of six steps in a store that it makes.
    Six,
    /// A build of which the last three steps changed.
    Warm,
    Load,
    /// A container that is removed at its end.
    Run,
    Prune,
}

const DEEDS: [Deed; 5] = [Deed::Six, Deed::Warm, Deed::Load, Deed::Run, Deed::Prune];

struct Site<'r> {
    bench: Bench,
    reference: &'r Reference,
    tool: PathBuf,
    /// Stores lie in memory: a kill does not mind, and nothing waits for a disk.
    memory: tempfile::TempDir,
    /// The store that copies are made of: it has the build of six steps.
    template: PathBuf,
    archive: PathBuf,
}

impl<'r> Site<'r> {
    fn new(bench: Bench, reference: &'r Reference) -> Option<Self> {
        let tool = tool(bench.w.dir.path())?;
        let memory = memory();
        std::os::unix::fs::chown(memory.path(), bench.ids, bench.ids).unwrap();
        let (template, archive) = (memory.path().join("template"), bench.w.path("six.tar"));
        Done::from(bench.build_command("ctx", "six").env("PLY_STORE", &template).output().unwrap()).ok();
        Done::from(bench.command(&["save", "-o", archive.to_str().unwrap(), "six"]).env("PLY_STORE", &template).output().unwrap()).ok();
        bench.context("warm", 1);
        Some(Self { bench, reference, tool, memory, template, archive })
    }

    fn args(&self, deed: Deed) -> Vec<String> {
        match deed {
            Deed::Six => self.bench.build_args("ctx", "t"),
            Deed::Warm => self.bench.build_args("warm", "t"),
            Deed::Load => vec!["load".into(), "-i".into(), self.archive.display().to_string()],
            Deed::Run => ["run", "--rm", "--name", "one", "six", "sh", "-c", "echo x > /x; cat /two"].map(str::to_owned).into(),
            Deed::Prune => vec!["prune".into(), "--all".into()],
        }
    }

    /// Brings the store to where the deed has all its work before it.
    fn prepare(&self, deed: Deed, store: &Path) {
        if store.exists() {
            remove_tree(store);
        }
        if deed == Deed::Six {
            return;
        }
        let done = std::process::Command::new("cp").arg("-a").arg(&self.template).arg(store).status().unwrap();
        assert!(done.success());
        let here: &[&[&str]] = match deed {
            Deed::Load => &[&["rmi", "six"], &["prune", "--all"]],
            Deed::Prune => &[&["rmi", "six"]],
            _ => &[],
        };
        here.iter().for_each(|args| drop(Done::from(self.bench.command(args).env("PLY_STORE", store).output().unwrap()).ok()));
    }

    fn run(&self, deed: Deed, store: &Path) -> Done {
        let args = self.args(deed);
        self.bench.command(&args.iter().map(String::as_str).collect::<Vec<_>>()).env("PLY_STORE", store).output().unwrap().into()
    }

    /// Runs it until its `k`th call (0: to its end), and returns the calls that were made.
    fn trace(&self, deed: Deed, store: &Path, k: u64) -> (Done, Vec<String>) {
        let log = store.with_extension("log");
        let mut args = vec!["trace".to_owned(), log.display().to_string(), k.to_string(), self.bench.ids.unwrap_or(0).to_string()];
        args.push(self.bench.w.ply.display().to_string());
        args.extend(self.args(deed));
        let like = self.bench.command(&[]);
        let mut traced = std::process::Command::new(&self.tool);
        traced.args(args).current_dir(self.bench.w.dir.path()).env_clear();
        traced.envs(like.get_envs().filter_map(|(k, v)| Some((k, v?)))).env("PLY_STORE", store);
        let done = traced.stdin(std::process::Stdio::null()).output().unwrap().into();
        let log = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
        (done, log.lines().map(str::to_owned).collect())
    }

    /// Tries whether programs can be traced here.
    fn can_trace(&self) -> Outcome<()> {
        let done: Done = std::process::Command::new(&self.tool).args(["trace", "/dev/null", "0", "0", "true"]).output().unwrap().into();
        succeeded("tracing", &done)
    }

    /// What is to be there after the deed was done again.
    fn check(&self, deed: Deed, done: &Done, store: &Path) -> Outcome<()> {
        let want = |n| self.reference.six(n);
        match deed {
            Deed::Six => golden("six steps", done, &want(0))?,
            Deed::Warm => golden("the warm build", done, &want(1))?,
            Deed::Load => {
                succeeded("the load", done)?;
                same("what was loaded", &self.bench.id(store, "six")?, &want(0))?;
            }
            Deed::Run => golden("the container", done, "one")?,
            Deed::Prune => {
                succeeded("the collection", done)?;
                golden("what is built afterwards", &self.run(Deed::Six, store), &want(0))?;
            }
        }
        self.bench.fsck(store, true)?;
        self.bench.tidy(store)?;
        self.bench.settled()
    }

    /// Kills at the `k`th call; returns the call's name, none where it was not come to.
    fn kill(&self, deed: Deed, k: u64, store: &Path) -> Outcome<Option<String>> {
        self.prepare(deed, store);
        let (done, calls) = self.trace(deed, store, k);
        let at = calls.get(usize::try_from(k - 1).unwrap()).cloned();
        let name = at.as_deref().and_then(|line| line.split(' ').nth(1)).map(str::to_owned);
        let rest = || {
            let killed = done.code == Some(137);
            if killed != at.is_some() || !killed && done.code != Some(0) {
                return Err(format!("it ended otherwise: {done:#?}"));
            }
            if store.exists() {
                self.bench.fsck(store, k.is_multiple_of(10))?;
            }
            self.check(deed, &self.run(deed, store), store)
        };
        rest().map_err(|e| format!("{}: {e}", at.unwrap_or_default())).map(|()| name)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // Layers hold unwritable directories.
        for entry in std::fs::read_dir(self.memory.path()).unwrap().flatten().filter(|e| e.file_type().unwrap().is_dir()) {
            remove_tree(&entry.path());
        }
    }
}

/// Which of `total` calls are tried, when there may be `count`.
fn spread(total: u64, count: u64, shift: u64) -> Vec<u64> {
    if count >= total {
        return (1..=total).collect();
    }
    (0..count).map(|n| 1 + (n * total / count + shift) % total).collect()
}

#[test]
fn privileged_whatever_call_a_command_is_killed_at_the_store_is_clean_and_the_next_one_gives_the_same() {
    if !is_root() {
        return skipped("needs root, to trace what has privileges");
    }
    let (seed, count) = (number("PLY_TEST_SEED", 1), rounds(8));
    let reference = Reference::new();
    let Some(site) = Site::new(Bench::own(), &reference) else { return };
    let mut summary = Vec::new();
    let tally = Tally::default();
    if let Err(why) = site.can_trace() {
        return skipped(&why);
    }
    let user = |who, ranges| Bench::user(who, ranges).and_then(|bench| Site::new(bench, &reference));
    let (ranges, single) = (user("rcalls", true), user("scalls", false));
    for (site, deeds) in [(Some(&site), &DEEDS[..]), (ranges.as_ref(), &DEEDS[..1]), (single.as_ref(), &DEEDS[..1])] {
        let Some(site) = site else { continue };
        for deed in deeds {
            let line = every_call(site, *deed, count, seed, &tally);
            super::super::note(&line);
            summary.push(line);
        }
    }
    assert!(!summary.is_empty());
    tally.end(&summary.join(" | "));
}

/// Tries `count` of the deed's calls.
fn every_call(site: &Site<'_>, deed: Deed, count: u64, seed: u64, tally: &Tally) -> String {
    let store = site.memory.path().join("counted");
    site.prepare(deed, &store);
    let (done, calls) = site.trace(deed, &store, 0);
    let total = calls.len() as u64;
    let name = format!("{deed:?} as {}", site.bench.who).to_lowercase();
    if !tally.take(&name, site.check(deed, &done, &store)) {
        return name;
    }
    let mut points = spread(total, count, seed * 7919);
    // Who dies with whom is asked for in few calls, and until then nobody does.
    let lives = (1..).zip(&calls).filter(|(_, line)| line.contains(" prctl ")).map(|(k, _)| k);
    points.extend(lives.filter(|k| !points.contains(k)).collect::<Vec<_>>());
    let (numbers, killed, names) = (Numbers::new(0, points.len() as u64), std::sync::Mutex::new(0), std::sync::Mutex::default());
    let names: &std::sync::Mutex<std::collections::BTreeSet<String>> = &names;
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (points, numbers, killed, name) = (&points, &numbers, &killed, &name);
            scope.spawn(move || {
                let store = site.memory.path().join(format!("store-{thread}"));
                while let Some(n) = numbers.next() {
                    let k = points[usize::try_from(n).unwrap()];
                    match site.kill(deed, k, &store) {
                        Ok(None) => {}
                        Ok(Some(call)) => {
                            *killed.lock().unwrap() += 1;
                            names.lock().unwrap().insert(call);
                        }
                        Err(e) => tally.failed(format!("{name}, call {k} of {total}: {e}")),
                    }
                }
            });
        }
    });
    let (killed, names) = (killed.into_inner().unwrap(), names.lock().unwrap().len());
    assert!(killed * 10 >= points.len() as u64 * 9 || !tally.failures.lock().unwrap().is_empty(), "{name}: killed {killed}");
    format!("{name}: calls={total} points={} killed={killed} recovered={killed} kinds={names}", points.len())
}
