//! `--verify-cache`: cached steps run again, and what is said of those that differ.

use serde_json::Value;

use super::World;
use super::cache::outcomes;

const TEXT: &str = "FROM base AS s\nCOPY f /f\nRUN cat /f > /g && chmod 640 /g\nWORKDIR /w\nFROM base\nCOPY --link --from=s /g /g\n\
     RUN --mount=from=s,target=/m cat /m/f > /h\nCOPY <<E /i\nhey\nE\n";

fn report(w: &World) -> Value {
    serde_json::from_slice(&std::fs::read(w.path("m.json")).unwrap()).unwrap()
}

fn verify(w: &World, sample: &str, more: &[&str]) -> super::Done {
    let (flag, metadata) = (format!("--verify-cache{sample}"), w.path("m.json"));
    w.build(&[&["-t", "t", "--metadata-file", metadata.to_str().unwrap(), &flag], more].concat())
}

#[test]
fn steps_that_give_the_same_are_counted() {
    let w = World::new();
    w.file("f", "one").file("Dockerfile", TEXT);
    let first = verify(&w, "", &[]).ok();
    assert!(first.stderr.contains("verify: 0 of 0 cached steps"), "{}", first.stderr);
    let done = verify(&w, "", &[]).ok().says("verify: 6 of 6 cached steps ran again, 6 gave the same (seed ");
    assert_eq!(outcomes(&done), ["CACHED"; 6]);
    let verified = &report(&w)["plywood.verification"];
    assert_eq!((verified["hits"].as_u64(), verified["verified"].as_u64()), (Some(6), Some(6)));
    assert!(verified["steps"].as_array().unwrap().iter().all(|s| s["verdict"] == "same"), "{verified:#}");
    // A sample: as many as were asked for, the same ones for the same seed.
    let chosen = |sample: &str| {
        verify(&w, sample, &[]).ok();
        report(&w)["plywood.verification"]["steps"].as_array().unwrap().iter().map(|s| s["step"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let (a, b) = (chosen("=2,seed=1"), chosen("=30%,seed=1"));
    assert_eq!((a.len(), &a), (2, &b));
    assert_eq!(chosen("=0.01,seed=3").len(), 1);
    w.ply(&["fsck", "--deep"]).ok();
    assert_eq!(w.unfinished(), Vec::<String>::new());
    verify(&w, "=many", &[]).fails(2).says("a share such as");
}

#[test]
fn a_big_copy_that_stayed_packed_is_compared_too() {
    let w = World::new();
    for n in 0..300 {
        w.file(&format!("src/d{}/f{n}", n % 7), &format!("file {n}"));
    }
    w.file("Dockerfile", "FROM base\nCOPY src /src\n").build(&["-t", "t"]).ok();
    verify(&w, "=all", &[]).ok().says("1 gave the same");
}

#[test]
fn a_command_that_gives_something_else_each_time_is_told_and_is_no_failure() {
    let w = World::new();
    w.image("FROM base\nRUN cat /proc/uptime > /uptime\nRUN echo x > /x\n").ok();
    let done = verify(&w, "", &[]).ok();
    let step = "verify: step 1 RUN cat /proc/uptime > /uptime differs: /uptime (content";
    assert!(done.stderr.contains(step) && done.stderr.contains("not reproducible"), "{}", done.stderr);
    let verified = &report(&w)["plywood.verification"]["steps"];
    assert_eq!(
        (&verified[0]["verdict"], &verified[0]["path"], &verified[0]["what"]),
        (&"irreproducible".into(), &"/uptime".into(), &"content".into())
    );
    assert_eq!(verified[1]["verdict"], "same");
    // The record is as it was.
    let before = w.out(&["cat", "/uptime"]);
    assert_eq!(outcomes(&w.build(&["-t", "t"]).ok()), ["CACHED"; 2]);
    assert_eq!(w.out(&["cat", "/uptime"]), before);
}

#[test]
fn what_the_cache_gave_and_the_step_no_longer_gives_fails_the_build() {
    // What a cache mount holds decides these results: nothing in their keys tells.
    for (command, change, says) in [
        ("cat /c/x > /o", "echo 2 > /c/x", "/o (content, from byte 0 on)"),
        ("cat /c/x > /o", "echo 22 > /c/x", "/o (content: 2 -> 3 bytes)"),
        ("touch /o && chmod $(cat /c/mode) /o", "echo 640 > /c/mode", "/o (mode: 0600 -> 0640)"),
        ("ln -s $(cat /c/x) /o", "echo 2 > /c/x", "/o (link target: `1` -> `2`)"),
        ("test ! -e /c/more || touch /o; touch /p", "touch /c/more", "/o is made now only"),
        ("test -e /c/more || touch /o; touch /p", "touch /c/more", "/o is not made now"),
        ("if test -e /c/more; then mkdir /o; else touch /o; fi", "touch /c/more", "/o (type: file -> directory)"),
    ] {
        let w = World::new();
        let mount = "--mount=type=cache,id=c,target=/c";
        let prepare = |command: &str| {
            let text = format!("FROM base\nRUN {mount} {command}\n");
            w.file("Other", &text).build(&["-f", w.path("ctx/Other").to_str().unwrap(), "-o", "type=none"]).ok();
        };
        prepare("echo 1 > /c/x; echo 600 > /c/mode");
        w.image(&format!("FROM base\nRUN echo first > /first\nRUN {mount} {command}\n")).ok();
        verify(&w, "", &[]).ok();
        prepare(change);
        let done = verify(&w, "", &["-t", "new"]).fails(1).says("what was taken from the cache is not what the step gives");
        assert!(done.stderr.contains(says), "`{says}` is not in {}", done.stderr);
        let steps = &report(&w)["plywood.verification"]["steps"];
        assert_eq!((&steps[0]["verdict"], &steps[1]["verdict"]), (&"same".into(), &"differs".into()), "{steps:#}");
        w.ply(&["inspect", "new"]).fails(1);
        // A plain build goes on taking the record, a fresh one replaces it.
        assert_eq!(outcomes(&w.build(&["-t", "t"]).ok()), ["CACHED"; 2]);
    }
}

#[test]
fn a_step_that_fails_now_fails_the_build() {
    let w = World::new();
    let other = |command: &str| {
        w.file("Other", &format!("FROM base\nRUN --mount=type=cache,id=c,target=/c {command}\n"));
        w.build(&["-f", w.path("ctx/Other").to_str().unwrap(), "-o", "type=none"]).ok();
    };
    other("touch /c/x");
    w.image("FROM base\nRUN --mount=type=cache,id=c,target=/c test -e /c/x\n").ok();
    other("rm /c/x");
    let done = verify(&w, "", &[]).fails(1);
    assert!(done.stderr.contains("could not be run again") && done.stderr.contains("exit code: 1"), "{}", done.stderr);
}

#[test]
fn hits_of_a_shared_cache_are_run_too() {
    let w = World::new();
    let cache = w.path("cache").display().to_string();
    // The command's result is not in its key: another machine may have made another one.
    w.file("Dockerfile", "FROM base\nRUN echo same > /s\nRUN cat /proc/sys/kernel/random/boot_id > /boot; cat /proc/uptime > /uptime\n");
    w.build(&["-o", "type=none", "--cache-to", &format!("type=local,dest={cache},mode=max")]).ok();
    let other = World::new();
    std::fs::copy(w.path("ctx/Dockerfile"), other.path("ctx/Dockerfile")).unwrap();
    let done = verify(&other, "", &["--cache-from", &format!("type=local,src={cache}")]).ok();
    assert_eq!(outcomes(&done), ["CACHED"; 2], "{}", done.stderr);
    assert!(
        done.stderr.contains("differs: /uptime (content") && done.stderr.contains("2 of 2 cached steps ran again, 1 gave the same"),
        "{}",
        done.stderr
    );
    other.ply(&["fsck", "--deep"]).ok();
}
