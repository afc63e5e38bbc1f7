//! kill -9 at a random moment of what people do: afterwards the store is clean, and the same command gives what it always gives.
//!
//! The moment is any of the operation's duration, which is measured first. Killed is the process, or its whole group, or only what
//! it has started (a sandbox, a helper).

use std::os::unix::process::ExitStatusExt as _;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::super::random::{Random, number};
use super::super::{is_root, skipped};
use super::deeds::{DEEDS, Deed, Golden, Round, Worker};
use super::{Bench, Numbers, Outcome, Running, Tally, rounds};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Process,
    Group,
    /// Whatever the process has started.
    Child,
}

/// Kills at the moment; returns whether anybody was there to be killed.
fn strike(victim: Victim, r: &mut Random, children: &mut [Running]) -> bool {
    let mut inside = false;
    // Of several at once one, or all.
    let one = (children.len() > 1 && r.chance(70)).then(|| r.below(children.len()));
    for (_, child) in children.iter_mut().enumerate().filter(|(n, _)| one.is_none_or(|one| one == *n)) {
        inside |= match victim {
            Victim::Process => child.kill(),
            Victim::Group => !child.has_ended() && killpg(child.pid(), Signal::SIGKILL).is_ok(),
            Victim::Child => kill_child(child),
        };
    }
    inside
}

/// Kills once more, while what the first kill left is cleared up.
fn once_more(worker: &Worker<'_>, round: &Round, victim: Victim, r: &mut Random) -> Outcome<()> {
    let mut children = worker.start(round);
    Worker::wait(&mut children, worker.moment(round, r.below(300)));
    strike(victim, r, &mut children);
    let done: Vec<Output> = children.into_iter().map(|c| c.end()).collect();
    worker.bench.settled()?;
    spared(victim, &done)
}

/// One kill, and all that is looked at afterwards. Returns whether it landed inside, and whether `fsck` was clean.
fn round(worker: &mut Worker<'_>, round: &Round, victim: Victim, r: &mut Random) -> (bool, bool, Outcome<()>) {
    worker.prepare(round);
    let moment = worker.moment(round, r.below(1000));
    let mut children = worker.start(round);
    let lasted = Worker::wait(&mut children, moment);
    let inside = strike(victim, r, &mut children);
    worker.lasted(round, lasted, !inside);
    let done: Vec<Output> = children.into_iter().map(|c| c.end()).collect();
    let mut looks = || {
        worker.bench.settled()?;
        spared(victim, &done)?;
        worker.spared(round, &done)?;
        if r.chance(20) {
            once_more(worker, round, victim, r)?;
        }
        if worker.store(round).exists() {
            worker.bench.fsck(&worker.store(round), round.deep)?;
            if r.chance(30) {
                // The next command is another one.
                worker.bench.tidy(&worker.store(round))?;
            }
        }
        Ok(())
    };
    match looks() {
        Ok(()) => (inside, true, worker.again(round)),
        Err(e) => (inside, false, Err(e)),
    }
}

/// Those who were not killed did what they always do; one that lost a child may have failed, in words.
fn spared(victim: Victim, done: &[Output]) -> Outcome<()> {
    for output in done {
        let (killed, code) = (output.status.signal() == Some(9), output.status.code());
        if !(killed || code == Some(0) || victim == Victim::Child && code == Some(1) && !output.stderr.is_empty()) {
            return Err(format!("one that was not killed: {:?} {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}

/// Kills what the process has started, as soon as there is something; without anything, itself.
fn kill_child(running: &mut Running) -> bool {
    let deadline = Instant::now() + Duration::from_millis(200);
    while !running.has_ended() && Instant::now() < deadline {
        let threads = std::fs::read_dir(format!("/proc/{}/task", running.pid())).into_iter().flatten().flatten();
        let children = threads.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok()).collect::<String>();
        if let Some(first) = children.split_whitespace().next() {
            return kill(Pid::from_raw(first.parse().unwrap()), Signal::SIGKILL).is_ok();
        }
    }
    running.kill()
}

#[derive(Default)]
struct Counts {
    kills: u64,
    inside: u64,
    fsck_clean: u64,
    rebuilt: u64,
    by_deed: [u64; DEEDS.len()],
}

#[test]
fn whatever_moment_a_command_is_killed_at_the_store_is_clean_and_the_next_one_gives_the_same() {
    let seed = number("PLY_TEST_SEED", 1);
    let count = rounds(100);
    let golden = Golden::new();
    let (numbers, tally, counts) = (Numbers::new(seed, count), Tally::default(), std::sync::Mutex::new(Counts::default()));
    let makers: [&(dyn Fn() -> Option<Bench> + Sync); 3] =
        [&|| Some(Bench::own()), &|| Bench::user("ranges", true), &|| Bench::user("single", false)];
    let makers = if is_root() { &makers[..] } else { &makers[..1] };
    if makers.len() == 1 {
        skipped("users: needs root, to make accounts");
    }
    std::thread::scope(|scope| {
        for make in makers {
            let (golden, numbers, tally, counts) = (&golden, &numbers, &tally, &counts);
            scope.spawn(move || {
                let worker =
                    || make().map(|bench| (bench.w.dir.path().to_owned(), bench)).map(|(home, bench)| Worker::new(bench, golden, home));
                let Some(mut now) = worker() else { return };
                while let Some(seed) = numbers.next() {
                    let mut r = Random::new(seed);
                    let deed = DEEDS[r.below(DEEDS.len())];
                    let deed = if now.can(deed) { deed } else { Deed::Warm };
                    let sandboxes = matches!(deed, Deed::Cold | Deed::Warm | Deed::Git | Deed::Several);
                    let victim = [Victim::Process, Victim::Process, Victim::Group, Victim::Child][r.below(if sandboxes { 4 } else { 3 })];
                    let this = Round { seed, deed, deep: r.chance(20) };
                    let (inside, clean, outcome) = round(&mut now, &this, victim, &mut r);
                    let name = format!("seed {seed}, {deed:?}, {victim:?} as {}", now.bench.who);
                    let rebuilt = tally.take(&name, outcome);
                    let mut c = counts.lock().unwrap();
                    c.kills += 1;
                    c.inside += u64::from(inside);
                    c.fsck_clean += u64::from(clean);
                    c.rebuilt += u64::from(rebuilt);
                    c.by_deed[this.place()] += u64::from(inside);
                    drop(c);
                    if !rebuilt {
                        now.bench.keep();
                        // What follows shall not suffer from it.
                        let Some(fresh) = worker() else { return };
                        now = fresh;
                    }
                }
            });
        }
    });
    let c = counts.into_inner().unwrap();
    let deeds = DEEDS.iter().zip(c.by_deed).map(|(d, n)| format!("{d:?}:{n}")).collect::<Vec<_>>().join(",").to_lowercase();
    assert!(c.kills == count && c.inside * 3 > count, "kills={} inside={}", c.kills, c.inside);
    let sums = format!("kills={} inside={} fsck_clean={} rebuilt={}", c.kills, c.inside, c.fsck_clean, c.rebuilt);
    tally.end(&format!("{sums} inside_by_deed={deeds} worlds={} seed={seed}", makers.len()));
}
