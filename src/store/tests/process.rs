//! Several processes at once: locks, cache mounts, and one that is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use super::*;

#[test]
fn a_step_is_run_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open(dir.path()), open(dir.path()));
    let key = CacheKey::from_bytes([1; 32]);
    let guard = here.lock_step(&key).unwrap();
    assert!(!guard.waited());
    assert!(!there.lock_step(&CacheKey::from_bytes([2; 32])).unwrap().waited(), "another step is free");
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let first = tell.clone();
        scope.spawn(move || {
            let guard = there.lock_step(&key).unwrap();
            tell.send(("second", guard.waited())).unwrap();
        });
        // The kernel lists who waits: `1: -> FLOCK ADVISORY WRITE 123 08:01:456 0 EOF`.
        let inode = std::fs::metadata(here.root().join("locks").join(key.hex())).unwrap().ino();
        let waits = |line: &str| line.contains("->") && line.contains(&format!(":{inode} "));
        while !std::fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
            std::thread::yield_now();
        }
        first.send(("first", false)).unwrap();
        drop(guard);
    });
    assert_eq!(told.iter().take(2).collect::<Vec<_>>(), [("first", false), ("second", true)]);
    let locks: Vec<_> = std::fs::read_dir(here.root().join("locks")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(locks, ["collect"], "released locks leave no file");
}

#[test]
fn many_takers_of_one_lock_never_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let stores: Vec<_> = (0..4).map(|_| open(dir.path())).collect();
    let inside = std::sync::atomic::AtomicU32::new(0);
    let key = CacheKey::from_bytes([1; 32]);
    std::thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _guard = store.lock_step(&key).unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
}

#[test]
fn what_killed_processes_leave_beside_their_sessions_is_removed_and_what_is_held_stays() {
    let dir = tempfile::tempdir().unwrap();
    let here = open(dir.path());
    let (locks, root) = (here.root().join("locks"), here.root().to_path_buf());
    let held = here.lock_step(&CacheKey::from_bytes([1; 32])).unwrap();
    let staging = here.staging_dir().unwrap();
    std::fs::create_dir(staging.join("tree-x")).unwrap();
    std::fs::write(locks.join("left"), "").unwrap();
    std::fs::write(root.join(".format"), "half").unwrap();
    drop(open(dir.path()));
    assert_eq!(listed(&locks), [CacheKey::from_bytes([1; 32]).hex(), "collect".to_owned()]);
    assert!(staging.join("tree-x").exists(), "its process lives");
    drop((held, here));
    assert!(!staging.exists());
    std::fs::remove_file(root.join("format")).unwrap();
    drop(open(dir.path()));
    assert!(!root.join(".format").exists() && root.join("format").exists());
}

#[test]
fn an_interrupted_process_tidies_up_what_is_little() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.end_when(std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(15)));
    let staged = store.stage().unwrap();
    std::fs::write(staged.path().join("f"), "").unwrap();
    let tmp = store.root().join("tmp");
    drop((staged, store));
    assert_eq!(listed(&tmp), ["0.lock"]);
}

fn listed(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_lock_file_serves_one_session_after_the_other_and_never_two() {
    let dir = tempfile::tempdir().unwrap();
    let tmp = open(dir.path()).root().join("tmp");
    let layer = LayerId::Content(content(7));
    let lock = |n: u8| tmp.join(format!("{n}.lock"));
    for _ in 0..3 {
        let (one, two) = (open(dir.path()), open(dir.path()));
        one.hold(&[layer]).unwrap();
        two.hold(&[layer]).unwrap();
        assert_eq!(listed(&tmp), ["0.lock", "1.lock"]);
        assert_eq!(std::fs::read_to_string(lock(1)).unwrap(), format!("{layer}\n"));
        assert!(one.held(false).unwrap().contains(&layer.to_string()));
        drop((one, two));
        assert_eq!((std::fs::read(lock(0)).unwrap(), std::fs::read(lock(1)).unwrap()), (vec![], vec![]));
    }
    // What killed processes leave: names only, and unfinished work.
    std::fs::write(lock(0), "content-0\n").unwrap();
    std::fs::write(lock(1), "").unwrap();
    std::fs::create_dir(tmp.join("1")).unwrap();
    let (one, two) = (open(dir.path()), open(dir.path()));
    assert_eq!(listed(&tmp), Vec::<String>::new(), "reclaimed");
    one.hold(&[layer]).unwrap();
    std::fs::create_dir(tmp.join("1")).unwrap();
    two.hold(&[layer]).unwrap();
    assert_eq!(listed(&tmp), ["0.lock", "1", "1.lock", "2.lock"], "the next process removes it, with its lock file");
}

#[test]
fn cache_mounts_are_filled_once_and_shared_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let fill = |dir: &Path| -> Result<()> { std::fs::write(dir.join("seed"), "s").map_err(StoreError::io("writing", dir)) };
    let fresh = |_: &Path| -> Result<()> { panic!("it is there already") };
    let id = CacheMountId::plain("../../x");
    let failed: std::result::Result<CacheMount, StoreError> =
        store.open_cache_mount(&id, MountSharing::Shared, |_| Err(StoreError::NoImage("x".into())));
    assert!(failed.is_err());
    let a = store.open_cache_mount(&id, MountSharing::Shared, fill).unwrap();
    let b = store.open_cache_mount(&id, MountSharing::Shared, fresh).unwrap();
    assert_eq!(a.path(), b.path());
    assert_eq!(a.path().parent().unwrap(), store.root().join("cache-mounts"));
    assert_eq!(std::fs::read_to_string(a.path().join("seed")).unwrap(), "s");
    assert!(!store.remove_cache_mount(&id).unwrap(), "in use");
    drop((a, b));

    let first = store.open_cache_mount(&id, MountSharing::Private, fresh).unwrap();
    let second = store.open_cache_mount(&id, MountSharing::Private, fill).unwrap();
    assert_ne!(first.path(), second.path());
    drop((first, second));
    let mounts: Vec<_> = store.du().unwrap().into_iter().filter(|r| r.kind == UsageKind::CacheMount && r.name == "../../x").collect();
    assert_eq!(mounts.len(), 2);
    let others = [
        CacheMountId { namespace: "n".into(), ..id.clone() },
        CacheMountId { owner: Some((0o700, 1, 1)), ..id.clone() },
        CacheMountId { seed: Some("s".into()), ..id.clone() },
    ];
    let kept: Vec<_> = others.iter().map(|other| store.open_cache_mount(other, MountSharing::Shared, fill).unwrap()).collect();
    let mut listed: Vec<_> = store.cache_mounts().unwrap().into_iter().map(|r| (r.id, r.directories, r.in_use)).collect();
    let mut want: Vec<_> = others.iter().map(|other| (other.clone(), 1, true)).chain([(id.clone(), 2, false)]).collect();
    listed.sort();
    want.sort();
    assert_eq!(listed, want);
    drop(kept);
    assert!(store.remove_cache_mount(&id).unwrap());
    assert_eq!(store.cache_mounts().unwrap().len(), 3);
    store.open_cache_mount(&id, MountSharing::Locked, fill).unwrap();
}

/// Not a test by itself: the process that the next one kills.
#[test]
#[ignore = "started by a_kill_at_any_moment_leaves_a_clean_store"]
fn works_until_it_is_killed() {
    let Ok(root) = std::env::var("PLY_TEST_STORE") else { return };
    let store = Store::open_with(Path::new(&root), Durability::Unsynced).unwrap();
    for n in 0..=u8::MAX {
        let config = format!("{{{n}}}");
        let layer = commit(&store, n, &config);
        store.put_record(record(n, layer, i64::from(n))).unwrap();
        store.put_slot_row("slot", vec![n]).unwrap();
        if n % 8 == 7 {
            let id = put_image(&store, config.as_bytes(), &[layer]);
            store.tag("image", &id).unwrap();
            store.prune(&PruneOptions { all: n % 16 == 15, ..PruneOptions::default() }, &by_cost).unwrap();
            let bounds = Limits { max_used: Some(Space::Bytes(20_000)), ..Limits::default() };
            let policy = |disk| CollectPolicy { limits: bounds, ..CollectPolicy::of(disk) };
            store.collect(policy, i64::from(n) * 3600, &by_cost).unwrap();
        }
        // Past the harness, which would keep it back.
        writeln!(std::io::stdout(), "step {n}").unwrap();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_clean_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    for steps in [0, 1, 3, 8, 9, 20, 33] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::process::works_until_it_is_killed", "--ignored", "--nocapture"])
            .env("PLY_TEST_STORE", &root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = lines.map_while(std::result::Result::ok).filter(|l| l.contains("step ")).take(steps).count();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen, steps);

        let store = open(dir.path());
        let report = check(&store);
        assert_eq!(report.problems, [], "after {steps} steps");
        store.prune(&PruneOptions::default(), &by_cost).unwrap();
        assert_eq!(check(&store).garbage, Vec::<PathBuf>::new());
        let tmp: Vec<_> = std::fs::read_dir(root.join("tmp")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(tmp.len(), 2, "only our own session: {tmp:?}");
        for n in 0..=u8::MAX {
            if let Some(row) = store.record(&CacheKey::from_bytes([n; 32])).unwrap() {
                let file = store.layer_dir(&row.layer).unwrap().unwrap().join("file");
                assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{{{n}}}"));
            }
        }
    }
}
