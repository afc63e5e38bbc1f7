//! Uses of an image and of the cache, each beside collections of all that may go.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{ended, number, spawn};
use crate::{BASE, World, note};

#[test]
fn a_collection_takes_nothing_that_is_used() {
    let w = World::new();
    let archive = w.path("base.tar");
    let archive = archive.to_str().unwrap();
    w.file("f", "f").file("Dockerfile", "FROM base\nRUN echo loaded > /l\nCMD [\"cat\",\"/l\"]\n");
    w.build(&["-o", &format!("type=docker,dest={archive},name=loaded")]).ok();
    w.file("Upon", "FROM loaded\nRUN echo 1 > /1\nCOPY f /f\nFROM loaded\nCOPY --from=0 /1 /f /x/\nRUN cat /x/1 /x/f /l > /b\n");
    let (upon, ctx) = (w.path("ctx/Upon"), w.path("ctx"));
    let upon = ["build", "--progress=plain", "--build-context", BASE, "-f", upon.to_str().unwrap(), "-t", "upon", ctx.to_str().unwrap()];
    // In turn: what was loaded is used at once, is hit, is saved, is run; its names go, and it comes again.
    let uses: [&[&str]; 7] = [
        &["load", "-q", "-i", archive],
        &upon,
        &["save", "-o", "/dev/null", "upon"],
        &["run", "--rm", "loaded"],
        &upon,
        &["run", "--rm", "upon", "cat", "/b"],
        &["rmi", "upon", "loaded"],
    ];
    let races = number("PLY_TEST_ROUNDS", 50);
    let (over, names, collections) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let longest = Mutex::new((Duration::ZERO, Duration::ZERO));
    let mut done = 0;
    std::thread::scope(|scope| {
        for kind in [&["prune", "-a"][..], &["prune", "--max-used-space", "1"]] {
            let (w, over, names, collections) = (&w, &over, &names, &collections);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let (mut child, to) = spawn(w, names.fetch_add(1, Ordering::Relaxed), kind);
                    let done = ended(&mut child, &to).expect("the collection hung");
                    // An assertion here would leave the others running for ever.
                    if done.code != Some(0) {
                        over.store(true, Ordering::Relaxed);
                    }
                    done.ok();
                    collections.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for args in uses.iter().cycle().take(usize::try_from(races).unwrap()) {
            let begun = Instant::now();
            let (mut child, to) = spawn(&w, names.fetch_add(1, Ordering::Relaxed), args);
            let said = ended(&mut child, &to);
            let mut longest = longest.lock().unwrap();
            if args == &uses[3] {
                longest.0 = begun.elapsed().max(longest.0);
            }
            longest.1 = begun.elapsed().max(longest.1);
            if said.as_ref().is_none_or(|s| s.code != Some(0)) {
                over.store(true, Ordering::Relaxed);
            }
            let said = said.expect("a use hung").ok();
            if args.first() == Some(&"run") {
                let wanted = if args.contains(&"/b") { "1\nfloaded\n" } else { "loaded\n" };
                if said.stdout != wanted {
                    over.store(true, Ordering::Relaxed);
                }
                assert_eq!(said.stdout, wanted);
            }
            done += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    let (run, any) = *longest.lock().unwrap();
    w.ply(&["fsck", "--deep"]).ok();
    let collections = collections.into_inner();
    note(&format!(
        "collection races: uses={done} collections={collections} missing=0 longest_run={:.2}s longest={:.2}s",
        run.as_secs_f64(),
        any.as_secs_f64()
    ));
    assert!(done == races && collections > 0);
}
