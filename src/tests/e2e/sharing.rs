//! Builds that share: layers of equal content, one store, one step at a time.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use super::cache::outcomes;
use super::{Done, World};

fn finished(child: Child) -> Done {
    child.wait_with_output().unwrap().into()
}

#[test]
fn steps_with_equal_content_share_a_layer_and_nothing_else() {
    let w = World::new();
    for mode in ["700", "711"] {
        let text = format!("FROM base\nRUN chmod {mode} / && mkdir -m {mode} /d\nRUN echo x > /f; echo x > /d/f\n");
        w.image(&text).ok();
        assert_eq!(w.out(&["stat", "-c", "%a", "/", "/d"]), format!("{mode}\n{mode}\n"));
    }
    // What a linked copy was made on is an empty root.
    w.image("FROM base\nRUN chmod 711 /\nCOPY --link Dockerfile /z\nRUN stat -c %a / > /seen\n").ok();
    assert_eq!(w.out(&["cat", "/seen"]), "711\n");
}

#[test]
fn what_was_done_and_undone_can_be_done_again() {
    let w = World::new();
    let text =
        "FROM base\nRUN echo x > /f\nRUN rm /f\nRUN echo x > /f; true\nRUN rm /f; true\nRUN echo x > /f; true; true\nRUN cat /f > /g\n";
    w.image(text).ok();
    assert_eq!(w.out(&["cat", "/f", "/g"]), "x\nx\n");
}

#[test]
fn steps_that_make_one_layer_at_once_agree_on_its_tar() {
    let w = World::new();
    let stage = |n: usize| format!("FROM base AS s{n}\nENV N={n}\nRUN echo q > /q\n");
    let text = format!("{}{}FROM s0\nCOPY --from=s1 /q /q1\n", stage(0), stage(1));
    let dest = format!("type=oci,dest={}", w.path("o.tar").display());
    for _ in 0..4 {
        // The export writes the tar anew and compares.
        w.file("Dockerfile", &text).build(&["--no-cache", "-o", &dest]).ok();
        w.ply(&["prune", "-a", "-f"]).ok();
    }
}

#[test]
fn builds_at_once_run_an_equal_step_once() {
    let w = World::new();
    w.file("Dockerfile", "FROM base\nRUN sleep 0.7; echo ran > /o\n");
    let builds: Vec<Child> = (0..3).map(|_| w.build_command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    let ran = builds.into_iter().map(|b| outcomes(&finished(b).ok())).filter(|o| *o != ["CACHED"]).count();
    assert_eq!(ran, 1);
}

#[test]
fn whoever_waits_for_another_build_can_be_interrupted() {
    let w = World::new();
    let mount = "--mount=type=cache,target=/c,sharing=locked";
    let holder =
        w.file("Dockerfile", &format!("FROM base\nRUN {mount} echo ready; sleep 30\n")).build_command(&[]).stderr(Stdio::piped()).spawn();
    let mut holder = holder.unwrap();
    let mut lines = BufReader::new(holder.stderr.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().ends_with(" ready")));
    // One waits for the mount, another for the very step.
    let same = std::fs::read_to_string(w.path("ctx/Dockerfile")).unwrap();
    for dockerfile in [format!("FROM base\nRUN {mount} true\n"), same] {
        let mut waiter = w.file("Dockerfile", &dockerfile).build_command(&[]).stderr(Stdio::null()).spawn().unwrap();
        while !waits_for_a_lock(&waiter) {
            assert!(waiter.try_wait().unwrap().is_none(), "it did not wait");
            std::thread::yield_now();
        }
        interrupt(&waiter);
        assert_eq!(waiter.wait().unwrap().code(), Some(130));
    }
    assert!(holder.try_wait().unwrap().is_none(), "the waiter waited until the end");
    interrupt(&holder);
    drop(lines);
    holder.wait().unwrap();
}

/// Whether a thread of the process waits in flock, as its own name for that thread tells.
fn waits_for_a_lock(child: &Child) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten();
    tasks.into_iter().any(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|name| name.trim() == "lock"))
}

fn interrupt(child: &Child) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), nix::sys::signal::Signal::SIGINT).unwrap();
}

#[test]
fn stages_at_once_run_an_equal_step_once() {
    let w = World::new();
    let stage = |n: usize| format!("FROM base AS s{n}\nRUN sleep 0.3; echo q > /q\n");
    let done = w.image(&format!("{}{}FROM base\nCOPY --from=s0 /q /a\nCOPY --from=s1 /q /b\n", stage(0), stage(1))).ok();
    assert_eq!(outcomes(&done).iter().filter(|o| *o == "CACHED").count(), 1, "{}", done.stderr);
}

#[test]
fn collecting_garbage_all_the_time_disturbs_no_build() {
    let w = World::new();
    w.file(
        "Dockerfile",
        "FROM base AS a\nRUN echo 1 > /a\nRUN echo 2 > /b\nFROM base AS b\nCOPY --from=a /a /b /x/\nRUN ls /x > /l\nFROM b\nRUN cat /l\n",
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                w.ply(&["prune", "-a", "-f"]).ok();
            }
        });
        let dest = format!("type=oci,dest={}", w.path("o.tar").display());
        let codes: Vec<Done> = (0..8).map(|_| w.build(&["-o", &dest])).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for done in codes {
            done.ok();
        }
    });
    w.ply(&["fsck"]).ok();
}

#[test]
fn a_step_that_failed_or_was_interrupted_is_not_remembered() {
    let w = World::new();
    w.file("f", "no").file("Dockerfile", "FROM base\nRUN echo 1 > /o; test -e /there\n");
    for _ in 0..2 {
        let done = w.build(&[]).fails(1);
        assert!(!outcomes(&done).contains(&"CACHED".to_string()), "{}", done.stderr);
    }
    w.file("Dockerfile", "FROM base\nRUN echo ready; sleep 1; echo 1 > /o\n");
    let mut child = w.build_command(&[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().ends_with(" ready")));
    interrupt(&child);
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!outcomes(&w.build(&[]).ok()).contains(&"CACHED".to_string()));
}

#[test]
fn a_mounted_file_that_changes_while_the_step_runs_is_no_later_hit() {
    let w = World::new();
    // The directory itself is mounted where its owner is root, a copy else: then the step never sees the change.
    let wait = "for i in 1 2 3 4 5 6 7 8 9 10; do test $(cat /m/go) = no || break; sleep 0.1; done";
    let text = format!("FROM base\nRUN --mount=target=/m,source=d echo ready; {wait}; cat /m/go > /o\n");
    w.file("d/go", "no").file("Dockerfile", &text);
    let mut child = w.build_command(&["-t", "t"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.ends_with(" ready\n") {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the build ended early");
    }
    w.file("d/go", "yes");
    reader.read_to_string(&mut line).unwrap();
    assert!(child.wait().unwrap().success(), "{line}");
    assert!(line.contains("changed while it ran"), "{line}");
    w.file("d/go", "no").build(&["-t", "t"]).ok();
    assert_eq!(w.out(&["cat", "/o"]), "no");
}

#[test]
fn what_is_hit_counts_as_used() {
    let w = World::new();
    let text = "FROM base\nRUN echo 1 > /a\nRUN echo 2 > /b\n";
    w.image(text).ok();
    let db = rusqlite::Connection::open(w.path("store/index.db")).unwrap();
    let unused = |db: &rusqlite::Connection| db.query_row("SELECT count(*) FROM records WHERE last_used<1000", [], |r| r.get::<_, i64>(0));
    db.execute("UPDATE records SET last_used=1", []).unwrap();
    assert_eq!(unused(&db), Ok(2));
    assert_eq!(outcomes(&w.image(text).ok()), ["CACHED"; 2]);
    assert_eq!(unused(&db), Ok(0));
}

#[test]
fn a_clamp_gives_one_image_whatever_was_built_before() {
    let w = World::new();
    w.file("f", "1").file("Dockerfile", "FROM base\nWORKDIR /w\nCOPY <<E /h\nx\nE\nRUN echo 1 > /one\nCOPY f /new/dir/\n");
    let id = |args: &[&str], store: &str| {
        let file = w.path("id");
        let mut all = vec!["--iidfile", file.to_str().unwrap()];
        all.extend(args);
        let done: Done = w.build_command(&all).env("PLY_STORE", w.path(store)).output().unwrap().into();
        done.ok();
        std::fs::read_to_string(&file).unwrap()
    };
    let clamp = |secs: &'static str| ["--build-arg", secs];
    id(&clamp("SOURCE_DATE_EPOCH=100"), "store");
    let plain = id(&[], "store");
    let early = id(&clamp("SOURCE_DATE_EPOCH=1500000000"), "store");
    assert_eq!(id(&clamp("SOURCE_DATE_EPOCH=1500000000"), "other"), early);
    assert_eq!(id(&[], "store"), plain);
    assert_eq!(id(&clamp("SOURCE_DATE_EPOCH=100"), "store"), id(&clamp("SOURCE_DATE_EPOCH=100"), "other"));
}

#[test]
fn a_base_made_under_another_clamp_keeps_its_layers() {
    let w = World::new();
    w.file("Base", "FROM base\nRUN echo 1 > /one\n");
    let base = w.path("ctx/Base");
    w.build(&["-f", base.to_str().unwrap(), "-t", "mine", "--build-arg", "SOURCE_DATE_EPOCH=1"]).ok();
    w.file("Dockerfile", "FROM mine\nRUN echo 2 > /two\n");
    let dest = format!("type=oci,dest={}", w.path("o.tar").display());
    for clamp in ["A=1", "SOURCE_DATE_EPOCH=1000000000"] {
        w.build(&["-o", &dest, "--build-arg", clamp]).ok();
    }
}

#[test]
fn an_instruction_put_in_between_is_the_new_one() {
    let w = World::new();
    w.image("FROM base\nRUN echo a > /a\nRUN echo b > /b\nRUN echo c > /c\n").ok();
    let got = outcomes(&w.image("FROM base\nRUN echo a > /a\nRUN echo new > /n\nRUN echo b > /b\nRUN echo c > /c\n").ok());
    assert_eq!(got[0], "CACHED");
    assert_eq!(got[1], "first build of this step");
    assert!(got[2..].iter().all(|reason| reason == "step 2 is new"), "{got:?}");
}
