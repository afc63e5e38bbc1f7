//! Collection, room on the disk, checking and repair.

use std::process::Command;

use super::*;

/// What the cache takes and nothing else needs.
fn used(store: &Store) -> u64 {
    store.cache_units(&by_cost, 0).unwrap().iter().map(|u| u.private.bytes).sum()
}

fn at_most(bytes: u64) -> PruneOptions {
    PruneOptions { limits: Limits { max_used: Some(Space::Bytes(bytes)), ..Limits::default() }, ..PruneOptions::default() }
}

#[test]
fn collection_takes_what_nothing_needs_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (of_image, of_record, of_pin, of_nothing);
    {
        let builder = open(dir.path());
        (of_image, of_record) = (commit(&builder, 1, "a"), commit(&builder, 2, "b"));
        (of_pin, of_nothing) = (commit(&builder, 3, "c"), commit(&builder, 4, "d"));
        let id = put_image(&builder, b"{named}", &[of_image]);
        builder.tag("named", &id).unwrap();
        put_image(&builder, b"{unnamed}", &[of_nothing]);
        builder.put_record(record(2, of_record, 10)).unwrap();
        builder.pin("container:x", &[of_pin]).unwrap();
        builder.flush().unwrap();

        // While the builder lives, all of it is in use.
        let other = open(dir.path());
        let report = other.prune(&PruneOptions { all: true, ..PruneOptions::default() }, &by_cost).unwrap();
        assert_eq!(PruneReport { left_bytes: None, ..report }, PruneReport::default());
    }
    let store = open(dir.path());
    let there = |id| store.layer_dir(&id).unwrap().is_some();
    let report = store.prune(&PruneOptions::default(), &by_cost).unwrap();
    assert_eq!((report.images, report.records, report.layers, report.blobs), (1, 0, 1, 1));
    assert!(report.freed.bytes > 0 && report.freed.inodes == 3, "{:?}", report.freed);
    assert_eq!([there(of_image), there(of_record), there(of_pin), there(of_nothing)], [true, true, true, false]);

    let report = store.prune(&PruneOptions { all: true, ..PruneOptions::default() }, &by_cost).unwrap();
    assert_eq!((report.images, report.records, report.layers, report.blobs), (0, 1, 1, 0));
    assert_eq!([there(of_image), there(of_record), there(of_pin)], [true, false, true]);
    store.pin("container:x", &[]).unwrap();
    drop(store); // it held what it pinned

    let store = open(dir.path());
    assert_eq!(store.prune(&PruneOptions::default(), &by_cost).unwrap().layers, 1);
    assert_eq!(check(&store), FsckReport { blobs: 1, layers: 1, ..FsckReport::default() });
}

#[test]
fn what_a_survey_takes_is_held_before_a_collection_can_begin() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c);
    {
        let builder = open(dir.path());
        (a, b, c) = (commit(&builder, 1, "a"), commit(&builder, 2, "b"), commit(&builder, 3, "c"));
        [(1, a), (2, b), (3, c)].into_iter().for_each(|(n, id)| builder.put_record(record(n, id, 10)).unwrap());
        builder.flush().unwrap();
    }
    let everything = PruneOptions { all: true, ..PruneOptions::default() };
    let (store, other) = (open(dir.path()), open(dir.path()));
    let survey = store.survey().unwrap();
    std::thread::scope(|scope| {
        // Waits for the survey.
        let collected = scope.spawn(|| other.prune(&everything, &by_cost).unwrap().layers);
        store.record(&CacheKey::from_bytes([1; 32])).unwrap().unwrap();
        // A write in the middle ends the snapshot, not the survey.
        store.save_blob_row("kind", "key", b"value").unwrap();
        store.record(&CacheKey::from_bytes([2; 32])).unwrap().unwrap();
        survey.end().unwrap();
        assert_eq!(collected.join().unwrap(), 1);
    });
    assert_eq!([a, b, c].map(|id| store.layer_dir(&id).unwrap().is_some()), [true, true, false]);
}

#[test]
fn a_snapshot_shows_one_state_until_this_process_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (open(dir.path()), open(dir.path()));
    let get = |store: &Store| store.load_blob_row("kind", "key").unwrap();
    let snapshot = store.snapshot().unwrap();
    assert_eq!(get(&store), None);
    other.save_blob_row("kind", "key", b"1").unwrap();
    assert_eq!((get(&other), get(&store)), (Some(b"1".to_vec()), None));
    store.save_blob_row("kind", "other", b"2").unwrap();
    assert_eq!(get(&store), Some(b"1".to_vec()));
    drop(snapshot);
    let snapshot = store.snapshot().unwrap();
    other.save_blob_row("kind", "key", b"3").unwrap();
    store.flush().unwrap();
    assert_eq!(get(&store), Some(b"3".to_vec()));
    drop(snapshot);
}

#[test]
fn records_go_by_age_and_by_room() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        for n in 1..=4 {
            let id = commit(&store, n, &"x".repeat(100_000));
            store.put_record(record(n, id, i64::from(n))).unwrap();
        }
        store.flush().unwrap();
        store.touch_records(&[CacheKey::from_bytes([1; 32])], 10_000).unwrap();
    }
    let left = |store: &Store| -> Vec<u8> {
        store.flush().unwrap();
        let rows = store.all("SELECT body FROM records ORDER BY body", [], |r| r.get::<_, Vec<u8>>(0)).unwrap();
        rows.into_iter().map(|b| b[0]).collect()
    };
    let store = open(dir.path());
    store.save_blob_row(MADE_AGAIN, "k", b"v").unwrap();
    store.prune(&PruneOptions::default(), &by_cost).unwrap();
    assert!(store.load_blob_row(MADE_AGAIN, "k").unwrap().is_some(), "no record went");
    store.prune(&PruneOptions { unused_since_secs: Some(3), ..PruneOptions::default() }, &by_cost).unwrap();
    assert!(store.load_blob_row(MADE_AGAIN, "k").unwrap().is_none());
    assert_eq!(left(&store), [1, 3, 4], "1 was of use later");
    let limit = used(&store) - 50_000;
    let report = store.prune(&at_most(limit), &by_cost).unwrap();
    assert_eq!(left(&store), [1, 4], "3 was of use longest ago");
    assert!(used(&store) <= limit);
    assert_eq!(report.left_bytes, Some(used(&store)));
}

#[test]
fn of_two_records_of_one_layer_neither_frees_anything_alone() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        let shared = commit(&store, 1, &"x".repeat(100_000));
        let alone = commit(&store, 2, &"x".repeat(50_000));
        for (n, layer) in [(1, shared), (2, alone), (3, shared)] {
            store.put_record(record(n, layer, i64::from(n))).unwrap();
        }
    }
    let store = open(dir.path());
    let units = store.cache_units(&by_cost, 0).unwrap();
    assert_eq!(units.len(), 2, "a layer with all its records is one thing: {units:#?}");
    let report = store.prune(&at_most(used(&store) - 1), &by_cost).unwrap();
    assert_eq!((report.records, report.layers, report.units.len()), (2, 1, 1), "both go, or neither");
    assert!(report.freed.bytes >= 100_000);
    let left = store.cache_units(&by_cost, 0).unwrap();
    assert_eq!((left.len(), Some(left[0].private.bytes)), (1, report.left_bytes));
}

#[test]
fn a_base_without_a_name_of_its_own_is_a_part_of_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (named, unnamed);
    {
        let store = open(dir.path());
        let (a, b) = (commit(&store, 1, &"x".repeat(50_000)), commit(&store, 2, &"x".repeat(80_000)));
        (named, unnamed) = (put_image(&store, b"{named}", &[a]), put_image(&store, b"{unnamed}", &[a, b]));
        store.tag("named", &named).unwrap();
        for (n, image) in [named, unnamed].into_iter().enumerate() {
            let platform = Platform::new("linux", "amd64", "");
            let source = Source { reference: format!("r{n}"), platform, manifest: image, image, checked_secs: 5 };
            store.put_source(source).unwrap();
        }
        store.flush().unwrap();
    }
    let store = open(dir.path());
    let units = store.cache_units(&by_cost, 0).unwrap();
    assert_eq!(units.iter().map(|u| u.description.as_str()).collect::<Vec<_>>(), ["pulled from r1"]);
    assert!(units[0].shared, "the named one has a layer of it");
    let private = units[0].private.bytes;
    assert!(private > 80_000 && private < 110_000, "what the named one needs as well is not counted: {private}");
    assert_eq!(store.prune(&at_most(private), &by_cost).unwrap().images, 0);
    let told = store.prune(&PruneOptions { dry_run: true, ..at_most(private - 1) }, &by_cost).unwrap();
    assert!(store.image(&unnamed).unwrap().is_some());
    let report = store.prune(&at_most(private - 1), &by_cost).unwrap();
    assert_eq!((report.images, report.layers, report.freed), (1, 1, told.freed));
    assert!(store.image(&unnamed).unwrap().is_none() && store.image(&named).unwrap().is_some());
    assert_eq!(check(&store).problems, []);
}

#[test]
fn a_process_that_wrote_no_file_never_collects() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        for n in 1..=4 {
            let staging = store.stage().unwrap();
            std::fs::write(staging.path().join("file"), "x".repeat(100_000)).unwrap();
            let id = LayerId::Content(content(n));
            store.commit_layer(staging.path(), &id, LayerFacts { size_bytes: 100_000, ..facts(n) }).unwrap();
            store.put_record(record(n, id, i64::from(n))).unwrap();
        }
    }
    let policy = |bytes| {
        let limits = Limits { max_used: Some(Space::Bytes(bytes)), ..Limits::default() };
        move |disk| CollectPolicy { limits, ..CollectPolicy::of(disk) }
    };
    let store = open(dir.path());
    store.put_slot_row("slot", vec![1]).unwrap();
    store.flush().unwrap();
    assert_eq!(store.collect(policy(1), 100, &by_cost).unwrap(), None);
    let mine = commit(&store, 9, "mine");
    store.put_record(record(9, mine, 100)).unwrap();
    assert_eq!(store.collect(policy(1 << 40), 100, &by_cost).unwrap(), None, "it is not over its bound");
    let report = store.collect(policy(250_000), 100, &by_cost).unwrap().unwrap();
    assert_eq!(report.records, 2, "no more than needed: {report:#?}");
    let report = store.collect(policy(1), 200, &by_cost).unwrap().unwrap();
    assert_eq!((report.records, store.layer_dir(&mine).unwrap().is_some()), (2, true), "what it holds stays");
    // All of it is in use: that is not measured again at once.
    assert_eq!(store.collect(policy(1), 201, &by_cost).unwrap(), None);
    assert!(store.collect(policy(1), 200 + 3600, &by_cost).unwrap().is_some());
}

#[test]
fn a_tar_that_serves_several_clamps_makes_room_once() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        for n in 1..=3_u8 {
            let layer = LayerId::Content(content(n));
            let tar = store.put_bytes(&[n; 100_000]).unwrap();
            let diff_id = DiffId::from_bytes(*tar.as_bytes());
            let blob = LayerBlob { digest: tar, size_bytes: 100_000, media_type: "m".into(), compression: "none".into() };
            store.put_layer_blob(&diff_id, blob).unwrap();
            for epoch in [None, Some(0), Some(1)] {
                store.put_diff_id(&layer, epoch, diff_id, 100_000).unwrap();
            }
            store.put_record(record(n, layer, i64::from(n))).unwrap();
        }
    }
    let store = open(dir.path());
    let limit = used(&store) - 150_000;
    let report = store.prune(&at_most(limit), &by_cost).unwrap();
    assert_eq!((report.records, report.blobs), (2, 2));
    assert!(used(&store) <= limit);
}

#[test]
fn a_layer_may_be_a_tar_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (layer, other) = (LayerId::Content(content(1)), LayerId::Content(content(2)));
    let (tar, clamped) = (store.put_bytes(b"tar").unwrap(), store.put_bytes(b"clamped").unwrap());
    let diff = |digest: &Digest| DiffId::from_bytes(*digest.as_bytes());
    for (epoch, digest) in [(Some(0), clamped), (None, tar)] {
        let blob = LayerBlob { digest, size_bytes: 3, media_type: "m".into(), compression: "none".into() };
        store.put_layer_blob(&diff(&digest), blob).unwrap();
        store.put_diff_id(&layer, epoch, diff(&digest), 3).unwrap();
    }
    store.put_diff_id(&other, None, DiffId::from_bytes([9; 32]), 3).unwrap();
    for (n, id) in [(1, layer), (2, other)] {
        store.put_record(record(n, id, 5)).unwrap();
    }
    let key = |n| CacheKey::from_bytes([n; 32]);
    for _ in 0..2 {
        // From the queue first, from the index then.
        assert_eq!(store.layer_tar(&layer).unwrap(), Some(diff(&tar)), "the one whose times are as they were");
        assert_eq!(store.layer_dir(&layer).unwrap(), None);
        assert!(store.record(&key(1)).unwrap().is_some());
        assert!(store.record(&key(2)).unwrap().is_none(), "nothing is here of it");
        store.flush().unwrap();
    }
    drop(store);
    let store = open(dir.path());
    let report = store.prune(&PruneOptions::default(), &by_cost).unwrap();
    assert_eq!((report.records, report.blobs), (0, 0), "the record needs the tars");
    assert!(store.record(&key(1)).unwrap().is_some());
    drop(store);
    let report = open(dir.path()).prune(&PruneOptions { all: true, ..PruneOptions::default() }, &by_cost).unwrap();
    assert_eq!((report.records, report.blobs), (2, 2));
}

#[test]
fn the_disk_is_counted_as_du_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let staging = store.stage().unwrap();
    std::fs::write(staging.path().join("a"), vec![1; 10_000]).unwrap();
    std::fs::hard_link(staging.path().join("a"), staging.path().join("b")).unwrap();
    std::os::unix::fs::symlink("/etc", staging.path().join("c")).unwrap();
    std::fs::create_dir_all(staging.path().join("d/e")).unwrap();
    let id = LayerId::Content(content(1));
    store.commit_layer(staging.path(), &id, facts(1)).unwrap();
    store.put_bytes(&[7; 5000]).unwrap();
    store.flush().unwrap();
    let rows = store.du().unwrap();
    let layer = rows.iter().find(|r| r.kind == UsageKind::Layer).unwrap();
    assert_eq!((layer.name.as_str(), layer.usage.inodes, layer.held), (id.to_string().as_str(), 5, true));
    let ours: u64 = rows.iter().filter(|r| matches!(r.kind, UsageKind::Layer | UsageKind::Blob)).map(|r| r.usage.bytes).sum();
    let du = Command::new("du").args(["-s", "-B1"]).arg(store.layer_path(&id)).arg(store.root().join("blobs/sha256")).output();
    let text = String::from_utf8(du.unwrap().stdout).unwrap();
    let theirs: u64 = text.lines().map(|l| l.split('\t').next().unwrap().parse::<u64>().unwrap()).sum();
    let own_dir = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(store.root().join("blobs/sha256")).unwrap()) * 512;
    assert_eq!(ours, theirs - own_dir);
}

#[test]
fn missing_parts_are_named_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = commit(&store, 1, "x");
    let id = put_image(&store, b"{}", &[layer]);
    store.tag("name", &id).unwrap();
    store.put_record(record(1, layer, 1)).unwrap();
    store.flush().unwrap();
    assert_eq!(check(&store).problems, []);
    std::fs::remove_file(store.layer_path(&layer).join("file")).unwrap();
    std::fs::remove_dir(store.layer_path(&layer)).unwrap();
    let found = check(&store).problems;
    let part = format!("the layer {layer}");
    assert_eq!(found, [Problem::LayerMissing(layer), Problem::ImageIncomplete { image: id, part }, Problem::RecordDangling(layer)]);
    store.repair(&found).unwrap();
    assert_eq!(check(&store).problems, []);
    assert_eq!(store.resolve("name").unwrap(), None);

    let layer = commit(&store, 2, "y");
    store.flush().unwrap();
    let changed = |_: &LayerId, _: &Path| Ok(content(9));
    let found = store.fsck(Depth::Deep, &changed).unwrap().problems;
    let text = format!("its content is {}, not {}", content(9), content(2));
    assert_eq!(found, [Problem::LayerDamaged { layer, found: text }]);
    store.repair(&found).unwrap();
    assert_eq!(store.layer_dir(&layer).unwrap(), None);
}

#[test]
fn a_damaged_index_can_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = commit(&store, 1, "x");
    let root = store.root().to_path_buf();
    drop(store);
    for end in ["", "-wal", "-shm"] {
        let path = root.join(format!("index.db{end}"));
        if path.exists() {
            std::fs::write(path, vec![0x5a; 8192]).unwrap();
        }
    }
    let broken = Store::open(&root).and_then(|s| s.layer_dir(&layer));
    assert!(matches!(broken, Err(StoreError::Index { .. })), "{broken:?}");
    Store::set_index_aside(&root).unwrap();
    let store = open(dir.path());
    assert_eq!(store.layer_dir(&layer).unwrap(), None);
    store.prune(&PruneOptions::default(), &by_cost).unwrap();
    assert_eq!(check(&store), FsckReport::default());
    assert!(!store.layer_path(&layer).exists());
}

#[test]
fn the_index_s_log_stays_short_over_many_processes() {
    let dir = tempfile::tempdir().unwrap();
    let value = vec![7; 16 << 10];
    // Who has nothing to vouch for leaves the folding to the next one; who has, does it.
    for (vouches, limit) in [(false, db::LOG_MAX_BYTES), (true, db::LOG_BYTES)] {
        let mut longest = 0;
        for n in 0..80 {
            // Closed before the next one opens it, as by processes one after the other.
            let store = open(dir.path());
            store.save_blob_row("test", &format!("{vouches} {n}"), &value).unwrap();
            if vouches {
                store.put_bytes(format!("{n}").as_bytes()).unwrap();
            }
            store.tidy().unwrap();
            let log = store.root().join("index.db-wal");
            drop(store);
            longest = longest.max(std::fs::metadata(log).unwrap().len());
        }
        assert!(longest > 0 && longest < limit + (128 << 10), "{vouches} {longest}");
    }
    assert_eq!(open(dir.path()).load_blob_row("test", "false 0").unwrap(), Some(value));
}

/// What a build waits for at the most while a big cache is collected beside it: what is held under the lock grows with the
/// number of records, not with its square. `PLY_TEST_RECORDS=10000` by hand.
#[test]
#[allow(clippy::print_stderr)] // a test's own output
fn a_big_collection_keeps_nobody_waiting_for_long() {
    let count: u32 = std::env::var("PLY_TEST_RECORDS").map_or(2000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let bytes = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    {
        let store = open(dir.path());
        for n in 0..count {
            let (key, content) = (CacheKey::from_bytes(bytes(n)), ContentDigest::from_bytes(bytes(n)));
            let layer = LayerId::Content(content);
            std::fs::create_dir(store.root().join("layers").join(layer.to_string())).unwrap();
            store.put_record(RecordRow { key, layer, content, cost_secs: 1.0, created_secs: 1, body: vec![b' '; 900] }).unwrap();
        }
    }
    let over = std::sync::atomic::AtomicBool::new(false);
    for options in
        [PruneOptions { all: true, dry_run: true, ..PruneOptions::default() }, PruneOptions { all: true, ..PruneOptions::default() }]
    {
        over.store(false, std::sync::atomic::Ordering::SeqCst);
        let (collector, builder) = (open(dir.path()), open(dir.path()));
        let longest = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let mut longest = std::time::Duration::ZERO;
                let mut n = 0;
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    let begun = std::time::Instant::now();
                    n += 1;
                    builder.hold(&[LayerId::Content(ContentDigest::from_bytes(bytes(count + n)))]).unwrap();
                    longest = longest.max(begun.elapsed());
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                longest
            });
            let report = collector.prune(&options, &by_cost).unwrap();
            over.store(true, std::sync::atomic::Ordering::SeqCst);
            assert_eq!((report.records, report.layers), (u64::from(count), u64::from(count)));
            waiter.join().unwrap()
        });
        eprintln!("collection: records={count} dry_run={} longest_wait={:.3}s", options.dry_run, longest.as_secs_f64());
        assert!(longest < std::time::Duration::from_secs(120));
    }
}
