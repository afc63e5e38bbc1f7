//! The store's promises, each with several open stores on one directory, as several processes would have.

mod collect;
mod image;
mod process;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::digest::{CacheKey, ContentDigest, DiffId, Digest, LayerId};
use crate::image::platform::Platform;

fn open(dir: &Path) -> Store {
    Store::open_with(&dir.join("store"), Durability::Unsynced).unwrap()
}

fn content(n: u8) -> ContentDigest {
    ContentDigest::from_bytes([n; 32])
}

fn facts(n: u8) -> LayerFacts {
    LayerFacts { content: Some(content(n)), size_bytes: 1, entries: 1 }
}

fn commit(store: &Store, n: u8, text: &str) -> LayerId {
    let staging = store.stage().unwrap();
    std::fs::write(staging.path().join("file"), text).unwrap();
    let id = LayerId::Content(content(n));
    store.commit_layer(staging.path(), &id, facts(n)).unwrap();
    id
}

fn record(n: u8, layer: LayerId, created_secs: i64) -> RecordRow {
    let key = CacheKey::from_bytes([n; 32]);
    RecordRow { key, layer, content: content(n), cost_secs: 1.5, created_secs, body: vec![n] }
}

fn put_image(store: &Store, config: &[u8], layers: &[LayerId]) -> Digest {
    let layers = layers.iter().map(|id| ImageLayer { id: *id, diff_id: DiffId::from_bytes([1; 32]) }).collect();
    let platform = Platform::new("linux", "amd64", "");
    store.put_image(&NewImage { config, layers, platform, manifest: None, added_secs: 7 }).unwrap()
}

/// Judges each record by its own cost.
fn by_cost(records: &[RecordRow]) -> Vec<Appraisal> {
    records.iter().map(|r| Appraisal { secs: r.cost_secs, title: String::new(), parent: None, uses: 0 }).collect()
}

fn no_digest(_: &LayerId, _: &Path) -> std::result::Result<ContentDigest, String> {
    Err("not asked".into())
}

fn check(store: &Store) -> FsckReport {
    store.fsck(Depth::Quick, &no_digest).unwrap()
}

#[test]
fn a_store_is_closed_to_others_and_recognised_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    drop(Store::open(&root).unwrap());
    assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(std::fs::read_to_string(root.join("format")).unwrap(), FORMAT);
    drop(Store::open(&root).unwrap());

    std::fs::write(root.join("format"), "plywood store 2\n").unwrap();
    assert!(matches!(Store::open(&root), Err(StoreError::OtherFormat { found, .. }) if found == "plywood store 2"));

    let other = dir.path().join("home");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("letter"), "").unwrap();
    assert!(matches!(Store::open(&other), Err(StoreError::NotAStore { found, .. }) if found == "letter"));
    let entries = std::fs::read_dir(&other).unwrap().count();
    assert_eq!(entries, 1, "nothing was put beside the letter");
}

#[test]
fn what_is_written_while_one_state_is_read_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let before = commit(&store, 1, "one");
    store.flush().unwrap();
    let snapshot = store.snapshot().unwrap();
    // The state is that of the first question.
    assert!(store.layer_facts(&before).unwrap().is_some());
    let id = commit(&store, 2, "two");
    // Written by the thread, and not through this store's connection, which would end the state.
    store.committer.flush().unwrap();
    assert!(store.layer_facts(&id).unwrap().is_some() && store.layer_known(&id).unwrap());
    drop(snapshot);
    assert!(store.committer.find(|_| Some(())).unwrap().is_none(), "nothing is remembered any more");
    assert!(store.layer_facts(&id).unwrap().is_some());
}

#[test]
fn an_index_that_a_power_cut_left_without_tables_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = open(dir.path()).root().join("index.db");
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(path.with_extension(format!("db{end}")));
    }
    let store = open(dir.path());
    commit(&store, 1, "f");
    store.flush().unwrap();
    assert_eq!(check(&store).problems, []);
}

#[test]
fn privileged_a_store_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let root = dir.path().join("store");
    if std::os::unix::fs::chown(&root, Some(12_345), None).is_err() {
        writeln!(std::io::stderr(), "skipped: only root can give a directory away").unwrap();
        return;
    }
    assert!(matches!(Store::open(&root), Err(StoreError::OtherOwner { owner: 12_345, .. })));
}

#[test]
fn a_blob_is_stored_once_its_bytes_are_the_expected_ones() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = Digest::of(b"hello");
    let put = |bytes: &[u8], size| store.put_blob(&mut &*bytes, Some((&digest, size)));
    assert!(matches!(put(b"hellO", 5), Err(StoreError::DigestMismatch { .. })));
    assert!(matches!(put(b"hell", 5), Err(StoreError::SizeMismatch { found: 4, .. })));
    assert!(matches!(put(b"hello and more", 5), Err(StoreError::SizeMismatch { found: 6, .. })));
    assert!(!store.has_blob(&digest).unwrap());
    for _ in 0..2 {
        assert_eq!(put(b"hello", 5).unwrap(), (digest, 5));
    }
    assert!(store.has_blob(&digest).unwrap());
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
    assert!(matches!(store.read_blob(&digest, 4), Err(StoreError::TooBig { size_bytes: 5, .. })));
    store.flush().unwrap();
    let left = std::fs::read_dir(store.root().join("tmp")).unwrap().count();
    assert_eq!(left, 2, "the session's lock and its directory, no temporary file beside them");
    assert!(open(dir.path()).has_blob(&digest).unwrap());
}

#[test]
fn a_damaged_blob_is_not_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let digest = store.put_bytes(b"0123456789").unwrap();
    let path = store.blob_path(&digest);
    let read = || {
        let mut bytes = Vec::new();
        let reader = store.verifying_reader(&digest).unwrap();
        reader.map(|mut r| r.read_to_end(&mut bytes).map(|_| bytes))
    };
    assert_eq!(read().unwrap().unwrap(), b"0123456789");
    std::fs::write(&path, b"0123456780").unwrap();
    assert_eq!(read().unwrap().unwrap_err().kind(), ErrorKind::InvalidData);
    assert!(matches!(store.read_blob(&digest, 100), Err(StoreError::DigestMismatch { .. })));
    store.flush().unwrap();
    assert_eq!(check(&store).problems, [], "a quick check doesn't read");
    let deep = store.fsck(Depth::Deep, &no_digest).unwrap();
    assert!(matches!(&deep.problems[..], [Problem::BlobDamaged { digest: d, .. }] if *d == digest));
    for wrong in [&b"0123456"[..], b"0123456789+"] {
        std::fs::write(&path, wrong).unwrap();
        assert!(read().is_none(), "a wrong size is noticed before");
    }
    store.repair(&deep.problems).unwrap();
    assert!(!store.has_blob(&digest).unwrap());
    assert_eq!(store.put_bytes(b"0123456789").unwrap(), digest);
    assert_eq!(store.read_blob(&digest, 100).unwrap(), b"0123456789");
}

#[test]
fn a_committed_layer_is_seen_here_at_once_and_elsewhere_after_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (open(dir.path()), open(dir.path()));
    let id = commit(&here, 1, "first");
    here.put_record(record(1, id, 10)).unwrap();
    let key = CacheKey::from_bytes([1; 32]);
    assert_eq!(here.record(&key).unwrap(), Some(record(1, id, 10)));
    here.flush().unwrap();
    assert_eq!(there.record(&key).unwrap(), Some(record(1, id, 10)));
    assert_eq!(there.layer_facts(&id).unwrap(), Some(facts(1)));
    let path = there.layer_dir(&id).unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "first");
}

#[test]
fn the_earlier_layer_of_equal_content_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path()), open(dir.path()));
    let text = |store: &Store, id| std::fs::read_to_string(store.layer_path(&id).join("file")).unwrap();
    let id = commit(&a, 1, "first");
    // Another process, before the row is written: the holder lives.
    commit(&b, 1, "second");
    assert_eq!(text(&a, id), "first");
    a.flush().unwrap();
    b.flush().unwrap();
    commit(&b, 1, "third");
    assert_eq!(text(&b, id), "first");
    assert_eq!(check(&b), FsckReport { layers: 1, ..FsckReport::default() });
}

#[test]
fn a_layer_that_nobody_vouches_for_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = LayerId::Content(content(1));
    // What a power cut leaves: the name, without bytes or row.
    std::fs::create_dir(store.layer_path(&id)).unwrap();
    assert_eq!(store.layer_dir(&id).unwrap(), None);
    assert_eq!(check(&store).garbage, [store.layer_path(&id)]);
    commit(&store, 1, "whole");
    assert_eq!(std::fs::read_to_string(store.layer_path(&id).join("file")).unwrap(), "whole");
    store.flush().unwrap();
    assert_eq!(check(&store), FsckReport { layers: 1, ..FsckReport::default() });
}

#[test]
fn the_newest_record_whose_layer_is_there_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (old, new) = (commit(&store, 1, "old"), commit(&store, 2, "new"));
    let key = CacheKey::from_bytes([9; 32]);
    let with = |layer, at| RecordRow { key, ..record(3, layer, at) };
    store.put_record(with(new, 20)).unwrap();
    store.put_record(with(old, 10)).unwrap();
    store.flush().unwrap();
    assert_eq!(store.record(&key).unwrap(), Some(with(new, 20)));
    store.discard_layer(&new).unwrap();
    assert_eq!(store.record(&key).unwrap(), Some(with(old, 10)));
}

#[test]
fn what_is_computed_of_a_layer_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = commit(&store, 1, "x");
    let diff = |n| DiffId::from_bytes([n; 32]);
    store.put_diff_id(&id, None, diff(1), 100).unwrap();
    store.put_diff_id(&id, Some(0), diff(2), 200).unwrap();
    let blob = |compression: &str, n: u8| LayerBlob {
        digest: Digest::from_bytes([n; 32]),
        size_bytes: 5,
        media_type: "m".into(),
        compression: compression.into(),
    };
    store.put_layer_blob(&diff(1), blob("gzip-6", 1)).unwrap();
    store.put_layer_blob(&diff(1), blob("original", 2)).unwrap();
    for _ in 0..2 {
        assert_eq!(store.diff_id(&id, None).unwrap(), Some((diff(1), 100)));
        assert_eq!(store.diff_id(&id, Some(0)).unwrap(), Some((diff(2), 200)));
        assert_eq!(store.diff_id(&id, Some(1)).unwrap(), None);
        assert_eq!(store.layer_blobs(&diff(1)).unwrap().len(), 2);
        store.flush().unwrap();
    }
    assert_eq!(store.layer_blobs(&diff(1)).unwrap(), [blob("original", 2), blob("gzip-6", 1)]);
}

#[test]
fn small_tables_keep_what_they_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for value in [&b"one"[..], b"two", b"two", b""] {
        store.save_blob_row("kind", "key", value).unwrap();
        assert_eq!(store.load_blob_row("kind", "key").unwrap().as_deref(), Some(value));
    }
    assert_eq!(store.load_blob_row("other", "key").unwrap(), None);
    store.remove_blob_row("kind", "key").unwrap();
    assert_eq!(store.load_blob_row("kind", "key").unwrap(), None);
    store.put_slot_row("s", b"1".to_vec()).unwrap();
    store.put_slot_row("s", b"2".to_vec()).unwrap();
    assert_eq!(store.slot_row("s").unwrap().unwrap(), b"2");
    store.flush().unwrap();
    assert_eq!(store.slot_row("s").unwrap().unwrap(), b"2");
}

#[test]
fn a_failure_behind_the_callers_back_is_told_by_flush() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.db().execute_batch("DROP TABLE layers").unwrap();
    store.db().execute_batch("CREATE TABLE layers(x)").unwrap();
    store.committer.push(rows::Row::Layer { id: LayerId::Content(content(1)), facts: facts(1) }).unwrap();
    assert!(matches!(store.flush(), Err(StoreError::Index { .. })));
    store.flush().unwrap();
}
