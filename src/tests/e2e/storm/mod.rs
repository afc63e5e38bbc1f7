//! Many processes on one store: each build gives what it gives alone, nobody waits for ever, nothing is taken from under anybody.
//!
//! | test | what happens at once | by hand, large |
//! |---|---|---|
//! | `many_processes_share_a_store` | builds of the same and of different Dockerfiles, collections, checks, other commands, kills | `PLY_TEST_ROUNDS=20 PLY_TEST_PROCESSES=32 cargo test --test e2e storm -- --nocapture` |
//! | `equal_builds_at_once_run_each_step_once` | eight equal cold builds, also when who runs a step is killed | the same |
//! | `a_collection_takes_nothing_that_is_used` | each use of an image beside collections of everything | `PLY_TEST_ROUNDS=500 …` |
//!
//! `PLY_TEST_SEED` sets where the random choices begin. Each prints one line with its counts.

mod flight;
mod races;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::random::{Random, number};
use super::{BASE, Done, World, mounts, note, processes};

/// Who takes longer is taken for hung.
const WATCHDOG: Duration = Duration::from_secs(120);

/// What the processes build: the first half of them the first one, the others one each.
const DOCKERFILES: [&str; 5] = [
    "FROM base\nCOPY a /a\nRUN cat /a > /b; echo same >> /b\nRUN mkdir /d; ln /b /d/b; sleep 0.05\nCOPY a /d/a\nCMD [\"cat\",\"/b\"]\n",
    "FROM base\nCOPY a /a\nRUN cat /a > /b; echo same >> /b\nRUN echo other > /other\nCMD [\"cat\",\"/b\"]\n",
    "FROM base AS x\nRUN echo x > /x\nFROM base AS y\nRUN echo y > /y\nFROM base\nCOPY --from=x /x /\nCOPY --from=y /y /\nRUN cat /x /y > /b\nCMD [\"cat\",\"/b\"]\n",
    "FROM base\nRUN --mount=type=cache,target=/c,sharing=locked echo n >> /c/n; echo l > /b\n\
     RUN --mount=type=cache,target=/p,sharing=private touch /p/x; sleep 0.02\nRUN --mount=type=cache,target=/s touch /s/x\nCMD [\"cat\",\"/b\"]\n",
    "FROM base\nWORKDIR /w\nCOPY . .\nRUN cat a > b; rm a; mv b /b\nRUN --mount=type=bind,target=/m cat /m/a >> /b\nUSER 7\nENV A=b\nCMD [\"cat\",\"/b\"]\n",
];

/// Starts a command; its output goes to files.
fn spawn(w: &World, n: u64, args: &[&str]) -> (Child, PathBuf) {
    let to = w.path(&format!("said-{n}"));
    let file = |end: &str| std::fs::File::create(to.with_extension(end)).unwrap();
    let mut command = w.command(args);
    (command.stdout(file("out")).stderr(file("err")).stdin(Stdio::null()).spawn().unwrap(), to)
}

/// Waits for the end; none: it hung, and was killed. What its threads did then is told.
fn ended(child: &mut Child, to: &Path) -> Option<Done> {
    let begun = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if begun.elapsed() > WATCHDOG {
            for task in std::fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten() {
                let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
                note(&format!("hung: {} {}{}\n{}", task.path().display(), read("comm"), read("wchan"), read("stack")));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let said = |end: &str| String::from_utf8_lossy(&std::fs::read(to.with_extension(end)).unwrap()).into_owned();
    Some(Done { code, stdout: said("out"), stderr: said("err") })
}

/// The storm's counts, and what went wrong in words.
#[derive(Default)]
struct Counts {
    builds: AtomicU64,
    others: AtomicU64,
    killed: AtomicU64,
    hung: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Counts {
    fn add(which: &AtomicU64) {
        which.fetch_add(1, Ordering::Relaxed);
    }

    fn complain(&self, what: String) {
        note(&what);
        self.wrong.lock().unwrap().push(what);
    }
}

/// A command whose failure could only come from others.
fn other(w: &World, counts: &Counts, names: &AtomicU64, args: &[&str]) -> Option<Done> {
    let (mut child, to) = spawn(w, names.fetch_add(1, Ordering::Relaxed), args);
    Counts::add(&counts.others);
    let Some(done) = ended(&mut child, &to) else {
        Counts::add(&counts.hung);
        return None;
    };
    if done.code != Some(0) {
        counts.complain(format!("{args:?} failed beside others: {done:#?}"));
    }
    Some(done)
}

/// One process's build in a round, which is killed now and then.
fn build(w: &World, counts: &Counts, names: &AtomicU64, process: usize, golden: &[String], random: &mut Random) {
    let which = if process.is_multiple_of(2) { 0 } else { (process / 2) % DOCKERFILES.len() };
    let file = w.path(&format!("ctx/{which}.Dockerfile"));
    let ctx = w.path("ctx");
    // Half of the equal ones want one name.
    let name = if process.is_multiple_of(4) { "same".to_owned() } else { format!("own-{process}") };
    let mut args = vec!["build", "--progress=plain", "--build-context", BASE, "--build-arg", "SOURCE_DATE_EPOCH=1", "-t", &name];
    args.extend(["-f", file.to_str().unwrap()]);
    if random.chance(30) {
        args.extend(["--gc", "max-used-space=1MB"]);
    }
    if random.chance(20) {
        args.push("--no-cache");
    }
    args.push(ctx.to_str().unwrap());
    let (mut child, to) = spawn(w, names.fetch_add(1, Ordering::Relaxed), &args);
    Counts::add(&counts.builds);
    if random.chance(25) {
        std::thread::sleep(Duration::from_millis(random.below(300) as u64));
        let _ = child.kill();
    }
    let Some(done) = ended(&mut child, &to) else { return Counts::add(&counts.hung) };
    match done.code {
        None => return Counts::add(&counts.killed),
        Some(0) if done.stdout == golden[which] => {}
        _ => return counts.complain(format!("a build of {which} gave another result than alone ({}): {done:#?}", golden[which])),
    }
    // Nobody else takes this name, so it is there; what it names is whole.
    if name != "same" {
        let told = other(w, counts, names, &["inspect", "--format", "{{.Id}}", &name]);
        if told.is_some_and(|t| t.code == Some(0) && t.stdout != golden[which]) {
            counts.complain(format!("{name} names another image"));
        }
        if random.chance(40) {
            other(w, counts, names, &["run", "--rm", &name]);
        }
    }
}

/// The commands that go on beside the builds until these have ended.
fn beside(w: &World, counts: &Counts, names: &AtomicU64, over: &AtomicBool, turn: usize) {
    let archive = w.path("archive.tar");
    let archive = archive.to_str().unwrap();
    let all: [&[&[&str]]; 3] = [
        &[
            &["prune"],
            &["prune", "-a"],
            &["prune", "--max-used-space", "2MB"],
            &["prune", "--cache-mounts"],
            &["prune", "--filter", "until=1h"],
        ],
        &[&["fsck"], &["fsck", "--deep"], &["du", "--verbose"]],
        &[
            &["load", "-q", "-i", archive],
            &["tag", "loaded", "mixed:1"],
            &["save", "-o", "/dev/null", "loaded"],
            &["rmi", "mixed:1"],
            &["run", "--rm", "loaded"],
            &["images", "-a"],
            &["history"],
            &["stats"],
        ],
    ];
    while !over.load(Ordering::Relaxed) {
        for args in all[turn] {
            other(w, counts, names, args);
        }
    }
}

#[test]
fn many_processes_share_a_store() {
    let w = World::new();
    for name in ["a", "z"] {
        w.file(name, name);
    }
    for (n, text) in DOCKERFILES.iter().enumerate() {
        w.file(&format!("{n}.Dockerfile"), text);
    }
    // What each gives alone, in a store of its own.
    let alone = |n: usize, more: &[&str]| {
        let file = w.path(&format!("ctx/{n}.Dockerfile"));
        let args = [&["--build-arg", "SOURCE_DATE_EPOCH=1", "-f", file.to_str().unwrap()], more].concat();
        Done::from(w.build_command(&args).env("PLY_STORE", w.path("alone")).output().unwrap()).ok().stdout
    };
    let golden: Vec<String> = (0..DOCKERFILES.len()).map(|n| alone(n, &[])).collect();
    let archive = format!("type=docker,dest={},name=loaded", w.path("archive.tar").display());
    alone(4, &["-o", &archive]);
    let before = mounts(&w);
    let (rounds, count) = (number("PLY_TEST_ROUNDS", 3), usize::try_from(number("PLY_TEST_PROCESSES", 8)).unwrap());
    let seed = number("PLY_TEST_SEED", 1);
    let (counts, names) = (Counts::default(), AtomicU64::new(0));
    let longest = Mutex::new(Duration::ZERO);
    for round in 0..rounds {
        let begun = Instant::now();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for turn in 0..3 {
                let (w, counts, names, over) = (&w, &counts, &names, &over);
                scope.spawn(move || beside(w, counts, names, over, turn));
            }
            let builds: Vec<_> = (0..count)
                .map(|process| {
                    let (w, counts, names, golden) = (&w, &counts, &names, &golden);
                    let mut random = Random::new(seed + round * 1000 + process as u64);
                    scope.spawn(move || build(w, counts, names, process, golden, &mut random))
                })
                .collect();
            for b in builds {
                b.join().unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut longest = longest.lock().unwrap();
        *longest = begun.elapsed().max(*longest);
    }
    let deep = w.ply(&["fsck", "--deep"]);
    if deep.code != Some(0) {
        counts.complain(format!("the store afterwards: {deep:#?}"));
    }
    w.ply(&["prune"]).ok();
    let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let wrong = counts.wrong.lock().unwrap();
    note(&format!(
        "storm: processes={count} rounds={rounds} builds={} others={} killed={} wrong={} deadlocks={} longest_round={:.1}s",
        read(&counts.builds),
        read(&counts.others),
        read(&counts.killed),
        wrong.len(),
        read(&counts.hung),
        longest.lock().unwrap().as_secs_f64()
    ));
    assert_eq!((wrong.len(), read(&counts.hung)), (0, 0), "seed {seed}: {wrong:#?}");
    assert!(read(&counts.builds) == rounds * count as u64 && read(&counts.others) > 0);
    assert_eq!(mounts(&w), before);
    assert_eq!(w.unfinished(), Vec::<String>::new());
    assert_eq!(processes(&w.path("store")), Vec::<String>::new());
}
