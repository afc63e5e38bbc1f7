//! Room on the disk: what is counted, what goes first, what never goes, and collection by itself.

use std::process::Stdio;

use serde_json::Value;

use super::cache::outcomes;
use super::{Done, World, program};

/// Three stages of one step each: quick and big, slow and small, and one that nothing but the cache needs.
const STAGES: &str = "FROM base AS big\nRUN dd if=/dev/zero of=/big bs=1M count=8\nFROM base AS slow\nRUN sleep 0.6; echo x > /small\n\
     FROM base\nRUN echo final > /final\nCOPY --from=big /big /b\nCOPY --from=slow /small /s\n";

fn lines(done: &Done) -> Vec<Value> {
    done.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn sum(rows: &[Value], field: &str) -> u64 {
    rows.iter().map(|r| r[field].as_u64().unwrap()).sum()
}

/// Returns the cache's units, least worth first.
fn units(w: &World) -> Vec<Value> {
    lines(&w.ply(&["du", "--verbose", "--format", "json"]).ok())
}

fn descriptions(units: &[Value]) -> Vec<String> {
    units.iter().map(|u| u["Description"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn du_counts_what_the_disk_counts() {
    let w = World::new();
    for n in 0..300 {
        w.file(&format!("many/{n}"), "x");
    }
    w.file("f", "one");
    // A sparse file, a hard link, a tar that is no directory, a cache mount, a container, all forms of layers.
    let text = "FROM base\nRUN dd if=/dev/zero of=/holes bs=1 count=1 seek=10000000; echo x > /x; ln /x /y\n\
                RUN --mount=type=cache,target=/c echo kept > /c/kept\nCOPY f /f\nCOPY many /many\n";
    w.image(text).ok();
    w.build(&["-o", &format!("type=oci,dest={}", w.path("o.tar").display())]).ok();
    w.ply(&["run", "--name", "kept", "t", "true"]).ok();
    let rows = lines(&w.ply(&["du", "--format", "json"]).ok());
    let store = w.path("store");
    let count = |args: &[&str]| {
        let done = program("du", &[args, &[store.to_str().unwrap()]].concat())?;
        // An ordinary user's files of other ids are not theirs to look at, outside of ply.
        (done.code == Some(0)).then(|| done.stdout.split_whitespace().next().unwrap().parse::<u64>().unwrap())
    };
    let Some(bytes) = count(&["-s", "--block-size=1"]) else { return };
    assert_eq!(sum(&rows, "Bytes"), bytes);
    assert_eq!(sum(&rows, "Inodes"), count(&["-s", "--inodes"]).unwrap());
    let table = w.ply(&["du"]).ok().stdout;
    let last = table.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!((last[0], last[1], last[3]), ("all", rows.len().to_string().as_str(), sum(&rows, "Inodes").to_string().as_str()), "{table}");
}

/// Without what changes as time goes by.
fn timeless(mut units: Vec<Value>) -> Vec<Value> {
    units.iter_mut().for_each(|u| drop(u.as_object_mut().unwrap().remove("SecsAMegabyte")));
    units
}

#[test]
fn what_saves_the_least_for_its_size_goes_first_and_no_more_than_needed() {
    let w = World::new();
    w.image(STAGES).ok();
    w.ply(&["rmi", "t"]).ok();
    w.ply(&["prune"]).ok();
    let all = units(&w);
    assert!(all.is_sorted_by_key(|u| (u["SecsAMegabyte"].as_f64().unwrap() * 1e9) as u64), "{all:#?}");
    let names = descriptions(&all);
    let place = |part: &str| names.iter().position(|n| n.contains(part)).unwrap_or_else(|| panic!("{part} is not in {names:?}"));
    assert!(place("dd if") < place("sleep 0.6"), "{names:?}");
    assert!(place("COPY --from=big") < place("sleep 0.6"), "{names:?}");
    // A rehearsal changes nothing, and says what the real one then does.
    let report = |args: &[&str]| lines(&w.ply(&[args, &["--format", "json"]].concat()).ok()).remove(0);
    let told = report(&["prune", "--max-used-space", "4MB", "--dry-run"]);
    assert_eq!(timeless(units(&w)), timeless(all));
    let done = report(&["prune", "--max-used-space", "4MB"]);
    for field in ["Records", "Layers", "Blobs", "FreedBytes", "FreedInodes", "LeftBytes", "Units"] {
        assert_eq!(told[field], done[field], "{field}");
    }
    assert!(done["FreedBytes"].as_u64().unwrap() > 8 << 20 && done["LeftBytes"].as_u64().unwrap() <= 4 << 20, "{done}");
    let left = descriptions(&units(&w));
    assert!(left.iter().any(|n| n.contains("sleep 0.6")), "{left:?}");
    w.ply(&["fsck", "--deep"]).ok();
    let again = w.image(STAGES).ok();
    assert!(outcomes(&again).iter().any(|o| o == "CACHED"), "{}", again.stderr);
}

#[test]
fn filters_choose_as_docker_s_do() {
    let w = World::new();
    w.image("FROM base\nRUN --mount=type=cache,id=one,target=/c echo 1 > /c/x\nRUN echo second > /second\n").ok();
    w.ply(&["rmi", "t"]).ok();
    w.ply(&["prune"]).ok();
    let would = |filters: &[&str]| -> Vec<String> {
        let mut args = vec!["prune", "--dry-run", "--format", "json"];
        filters.iter().for_each(|f| args.extend(["--filter", f]));
        let report = lines(&w.ply(&args).ok()).remove(0);
        let names = descriptions(report["Units"].as_array().unwrap());
        names.into_iter().filter(|n| !n.contains("base")).collect()
    };
    assert_eq!(would(&["type=exec.cachemount"]), ["cache mount one"]);
    assert_eq!(would(&["mutable"]), ["cache mount one"]);
    assert_eq!(would(&["description~=second$"]), ["[stage-0 3/3] RUN echo second > /second"]);
    assert_eq!(would(&["until=1h"]), Vec::<String>::new());
    assert_eq!(would(&["type=regular", "description=second"]).len(), 1);
    assert_eq!(would(&["type!=regular", "description=second"]).len(), 0);
    assert_eq!(would(&["inuse"]), Vec::<String>::new());
    let second = units(&w).into_iter().find(|u| u["Description"].as_str().unwrap().contains("second")).unwrap();
    let id = second["ID"].as_str().unwrap();
    assert_eq!(would(&[&format!("id={}", &id[..20])]).len(), 1);
    let parent = second["Parents"][0].as_str().unwrap();
    assert_eq!(would(&[&format!("parents={parent}")]), ["[stage-0 3/3] RUN echo second > /second"]);
    w.ply(&["prune", "--filter", "type=exec.cachemount"]).ok();
    assert_eq!(w.ply(&["cache", "mounts", "-q"]).ok().stdout, "");
    for (args, said) in [
        (&["--filter", "typ=regular"][..], "did you mean `type`?"),
        (&["--filter", "type=mount"], "is no type"),
        (&["--filter", "24h"], "is no filter"),
        (&["--filter", "until=soon"], "a duration"),
        (&["--filter", "until=1h", "--keep-duration", "2h"], "given twice"),
        (&["--max-used-space", "much"], "a size"),
        (&["--min-free-space", "120%"], "a size"),
        (&["--reserved-space", "-1"], ""),
        (&["surplus"], ""),
    ] {
        w.ply(&[&["prune"], args].concat()).fails(2).says(said);
    }
    w.build_command(&["--gc", "max-used-space=x"]).output().map(Done::from).unwrap().fails(2).says("a size");
    w.build_command(&[]).env("PLY_GC", "often").output().map(Done::from).unwrap().fails(2).says("PLY_GC");
}

#[test]
fn what_an_image_needs_stays_and_is_not_counted() {
    let w = World::new();
    w.image("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=8\n").ok();
    let unit = units(&w).into_iter().find(|u| u["Description"].as_str().unwrap().contains("dd if")).unwrap();
    assert_eq!((unit["Shared"].as_bool(), unit["PrivateBytes"].as_u64()), (Some(true), Some(0)), "{unit}");
    assert!(unit["Bytes"].as_u64().unwrap() > 8 << 20);
    let report = lines(&w.ply(&["prune", "--max-used-space", "0", "--format", "json"]).ok()).remove(0);
    assert_eq!(report["Records"], 0, "its going would free nothing: {report}");
    assert_eq!(outcomes(&w.image("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=8\n").ok()), ["CACHED"]);
    // Without a bound it goes all the same, and the image lives on.
    w.ply(&["prune", "--all"]).ok();
    assert_eq!(units(&w).len(), 0);
    assert_eq!(w.out(&["sh", "-c", "stat -c %s /big"]), "8388608\n");
}

/// A build that leaves some megabytes.
fn fill(w: &World, n: usize, gc: &str) -> Done {
    w.file("Dockerfile", &format!("FROM base\nRUN dd if=/dev/zero of=/{n} bs=1M count=4\nRUN rm /{n}\n"));
    w.build_command(&["-o", "type=none"]).env("PLY_GC", gc).output().map(Done::from).unwrap()
}

fn used(w: &World) -> u64 {
    units(w).iter().map(|u| u["PrivateBytes"].as_u64().unwrap()).sum()
}

#[test]
fn a_build_that_writes_makes_room_by_itself() {
    let w = World::new();
    let policy = "max-used-space=10MB,reserved-space=0,min-free-space=0";
    let mut told = 0;
    for n in 0..6 {
        let done = fill(&w, n, policy).ok();
        told += usize::from(done.stderr.contains("made room in the store"));
        assert!(done.stderr.matches("made room").count() <= 1, "{}", done.stderr);
        assert!(used(&w) < 15 << 20, "{n}: {}", used(&w));
        // What it just made is still there, whatever it is worth.
        let again = w.build_command(&["-o", "type=none"]).env("PLY_GC", policy).output().map(Done::from).unwrap().ok();
        assert_eq!(outcomes(&again), ["CACHED", "CACHED"], "{}", again.stderr);
        assert!(!again.stderr.contains("made room"), "nothing was written: {}", again.stderr);
    }
    assert!(told >= 3, "{told}");
    w.ply(&["fsck", "--deep"]).ok();
    for n in 6..10 {
        assert!(!fill(&w, n, "off").ok().stderr.contains("made room"));
    }
    assert!(used(&w) > 16 << 20, "{}", used(&w));
    assert!(fill(&w, 10, policy).ok().stderr.contains("made room"));
    w.ply(&["fsck", "--deep"]).ok();
}

#[test]
fn builds_that_collect_at_once_take_nothing_from_each_other() {
    let w = World::new();
    let policy = "max-used-space=1,reserved-space=0,min-free-space=0";
    let contexts: Vec<_> = (0..3).map(|n| w.path(&format!("c{n}"))).collect();
    std::thread::scope(|scope| {
        for (n, ctx) in contexts.iter().enumerate() {
            let w = &w;
            scope.spawn(move || {
                std::fs::create_dir(ctx).unwrap();
                for round in 0..6 {
                    let text = format!(
                        "FROM base AS a\nRUN echo {n}-{round} > /a\nFROM base\nRUN echo both > /b\nCOPY --from=a /a /x/\nRUN test \"$(cat /x/a)\" = {n}-{round}\n"
                    );
                    std::fs::write(ctx.join("Dockerfile"), text).unwrap();
                    let args = ["build", "--progress=plain", "--build-context", super::BASE, "-t", "t", ctx.to_str().unwrap()];
                    Done::from(w.command(&args).env("PLY_GC", policy).output().unwrap()).ok();
                }
            });
        }
    });
    w.ply(&["fsck", "--deep"]).ok();
}

#[test]
fn a_collection_that_is_killed_leaves_a_clean_store() {
    let w = World::new();
    for n in 0..12 {
        fill(&w, n, "off").ok();
    }
    let mut delay = std::time::Duration::from_millis(1);
    loop {
        let mut child = w.command(&["prune", "--all"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        let ended = child.try_wait().unwrap().is_some();
        // It may end in between.
        let _ = child.kill();
        child.wait().unwrap();
        w.ply(&["fsck"]).ok();
        if ended {
            break;
        }
        delay = delay * 5 / 4;
    }
    assert_eq!(units(&w).len(), 0);
    fill(&w, 0, "off").ok();
    w.ply(&["fsck", "--deep"]).ok();
    assert_eq!(w.unfinished(), Vec::<String>::new());
}
