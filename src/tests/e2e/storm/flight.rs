//! Equal builds at once: each step is run by one, and by another one where that is killed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{ended, number, spawn};
use crate::{BASE, World, note};

/// The number of runs is counted where all of them can see it: in a cache mount, a line a run.
const COUNTED: &str = "FROM base\nRUN --mount=type=cache,id=runs,target=/c echo one >> /c/runs; echo ready; sleep 0.3; echo 1 > /1\n\
     RUN --mount=type=cache,id=runs,target=/c echo two >> /c/runs; sleep 0.3; echo 2 > /2\n";

fn lines(w: &World) -> Vec<String> {
    w.file("Show", "FROM base\nRUN --mount=type=cache,id=runs,target=/c cat /c/runs > /seen\n");
    let file = w.path("ctx/Show");
    w.build(&["-t", "t", "-f", file.to_str().unwrap()]).ok();
    let mut lines: Vec<String> = w.out(&["cat", "/seen"]).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn equal_builds_at_once_run_each_step_once() {
    let processes = usize::try_from(number("PLY_TEST_PROCESSES", 8)).unwrap();
    let (mut runs, mut taken_over) = (0, 0);
    for kill in [false, true] {
        let w = World::new();
        w.file("Dockerfile", COUNTED);
        // Another Dockerfile with the same beginning waits for the same steps.
        w.file("Longer", &format!("{COUNTED}RUN echo 3 > /3\n"));
        let names = AtomicU64::new(0);
        let begin = |n: usize| {
            let file = w.path(if n.is_multiple_of(2) { "ctx/Dockerfile" } else { "ctx/Longer" });
            let ctx = w.path("ctx");
            let args = ["build", "--progress=plain", "--build-context", BASE, "-f", file.to_str().unwrap(), ctx.to_str().unwrap()];
            spawn(&w, names.fetch_add(1, Ordering::Relaxed), &args)
        };
        let mut first = begin(0);
        if kill {
            // Until it runs the step: then all others wait for it.
            let deadline = Instant::now() + Duration::from_secs(60);
            while !std::fs::read_to_string(first.1.with_extension("err")).unwrap().lines().any(|l| l.ends_with(" ready")) {
                assert!(Instant::now() < deadline, "it never began");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let rest: Vec<_> = (1..processes).map(begin).collect();
        if kill {
            first.0.kill().unwrap();
            first.0.wait().unwrap();
        }
        for (n, (mut child, to)) in rest.into_iter().enumerate() {
            ended(&mut child, &to).unwrap_or_else(|| panic!("build {n} hung")).ok();
        }
        if !kill {
            ended(&mut first.0, &first.1).expect("the first hung").ok();
        }
        let seen = lines(&w);
        let (one, two) = (seen.iter().filter(|l| *l == "one").count(), seen.iter().filter(|l| *l == "two").count());
        // Once; where the first was killed, once more by who took it over: the step that it was in, and the one before where
        // that one's row was not written yet.
        let most = 1 + usize::from(kill);
        assert!((1..=most).contains(&one) && (1..=most).contains(&two) && one + two > usize::from(kill) + 1, "kill {kill}: {seen:?}");
        if kill {
            taken_over += one + two - 2;
        } else {
            runs += one + two;
        }
        w.ply(&["fsck"]).ok();
    }
    note(&format!("single flight: builds={processes} steps=2 runs={runs} taken_over_after_a_kill={taken_over}"));
}
