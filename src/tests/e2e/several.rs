//! Names that stand for images of several platforms, and repositories of many tags: pulled, kept, pushed.

use serde_json::{Value, json};

use super::World;
use super::fixture::{OCI_INDEX, OCI_MANIFEST, Registry, digest, kind};
use super::mirrors::{host_architecture, layer};

fn other_architecture() -> &'static str {
    if host_architecture() == "arm64" { "amd64" } else { "arm64" }
}

/// A registry with `app:1`: this host's platform, another one, s390x, and the provenance of this host's. Returns the index.
fn registry() -> (Registry, Vec<u8>) {
    let registry = Registry::start();
    let mut content = registry.content.lock().unwrap();
    let mut entries: Vec<Value> = [host_architecture(), other_architecture(), "s390x"]
        .map(|architecture| content.add_image(None, architecture, layer(&format!("for {architecture}"))))
        .into();
    let (empty, statement) = (b"{}".to_vec(), b"{\"predicate\":1}".to_vec());
    let attestation = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&empty), "size": empty.len()},
        "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": digest(&statement), "size": statement.len()}],
    });
    for blob in [empty, statement] {
        content.blobs.insert(digest(&blob), blob);
    }
    let mut entry = content.add_manifest(None, OCI_MANIFEST, attestation.to_string().into_bytes());
    entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    entry["annotations"] =
        json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": entries[0]["digest"]});
    entries.push(entry);
    let index = content.add_index("1", &entries);
    drop(content);
    (registry, index)
}

fn manifests_of(index: &[u8]) -> Vec<String> {
    let index: Value = serde_json::from_slice(index).unwrap();
    index["manifests"].as_array().unwrap().iter().map(|m| m["digest"].as_str().unwrap().to_string()).collect()
}

#[test]
fn an_index_that_was_pulled_whole_is_pushed_byte_for_byte() {
    let (from, index) = registry();
    let w = World::new();
    let name = format!("{}/app:1", from.server.host);
    w.ply(&["pull", "--all-platforms", &name]).ok();
    // Also under another name, and after a collection.
    let to = Registry::start();
    let target = format!("{}/copy:2", to.server.host);
    w.ply(&["tag", &name, &target]).ok();
    w.ply(&["rmi", &name]).ok();
    w.ply(&["prune", "--all", "--force"]).ok();
    w.ply(&["fsck", "--deep"]).ok();
    let pushed = w.ply(&["push", &target]).ok();
    assert_eq!(pushed.stdout, format!("2: digest: {} size: {}\n", digest(&index), index.len()));
    let (sent, there) = (to.content.lock().unwrap(), from.content.lock().unwrap());
    assert_eq!(sent.manifests["2"], (OCI_INDEX.to_string(), index));
    assert!(sent.blobs == there.blobs);
    drop((sent, there));
    // Pushed again nothing is sent but the documents.
    let before = to.server.requests().len();
    w.ply(&["push", &target]).ok();
    assert!(to.server.requests()[before..].iter().all(|r| !matches!(kind(r), "upload" | "mount" | "commit")));
    // Each image of it is there by itself.
    let archive = w.path("other.tar");
    w.ply(&["save", "--platform", &format!("linux/{}", other_architecture()), "-o", archive.to_str().unwrap(), &target]).ok();
    let saved = World::new();
    saved.ply(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(saved.ply(&["inspect", "--format", "{{.Architecture}}", &target]).ok().stdout, format!("{}\n", other_architecture()));
    w.ply(&["push", "--platform", "linux/s390x", &target]).ok();
    let manifest: Value = serde_json::from_slice(&to.content.lock().unwrap().manifests["2"].1).unwrap();
    assert_eq!(manifest["layers"][0]["digest"], digest(&layer("for s390x")));
    w.ply(&["push", "--platform", "linux/riscv64", &target]).fails(1).says("for linux/riscv64; there is linux/");
}

#[test]
fn of_an_index_that_was_pulled_in_part_that_part_is_pushed_unless_the_rest_is_there() {
    let (from, index) = registry();
    let w = World::new();
    let name = format!("{}/app:1", from.server.host);
    let both = format!("linux/{},linux/{}", host_architecture(), other_architecture());
    w.ply(&["pull", "--platform", &both, &name]).ok();
    let s390x = digest(&layer("for s390x"));
    assert!(from.server.requests().iter().all(|r| !r.path.contains(&s390x)), "what was not asked for was pulled");
    let to = Registry::start();
    let target = format!("{}/copy:2", to.server.host);
    w.ply(&["tag", &name, &target]).ok();
    w.ply(&["push", &target]).ok().says("left out linux/s390x");
    let all = manifests_of(&index);
    assert_eq!(manifests_of(&to.content.lock().unwrap().manifests["2"].1), [&all[..2], &all[3..]].concat());
    // Where the rest is, the index is whole.
    w.ply(&["tag", &name, &format!("{}/app:again", from.server.host)]).ok();
    let again = w.ply(&["push", &format!("{}/app:again", from.server.host)]).ok();
    assert!(again.stdout.contains(&digest(&index)) && !again.stderr.contains("left out"), "{again:?}");
    // The host's image alone, pulled anew, is an image alone.
    w.ply(&["pull", &name]).ok();
    let single = w.ply(&["push", &name]).ok();
    assert!(single.stdout.contains(&all[0]), "{single:?}");
    w.ply(&["pull", "--platform", "linux/riscv64,linux/amd64", &name]).fails(1).says("no image for linux/riscv64");
}

#[test]
fn an_index_that_was_built_is_pushed_as_the_build_would() {
    let w = World::new();
    w.file("Dockerfile", "FROM scratch\nARG TARGETARCH\nENV A=$TARGETARCH\nCOPY Dockerfile /\n");
    let (built, pushed) = (Registry::start(), Registry::start());
    let (a, b) = (format!("{}/app:1", built.server.host), format!("{}/app:1", pushed.server.host));
    let two = ["--platform", "linux/amd64,linux/arm64"];
    w.build(&[&two[..], &["--push", "-t", &a]].concat()).ok();
    w.build(&[&two[..], &["-t", &b]].concat()).ok();
    w.ply(&["prune", "--force"]).ok();
    w.ply(&["push", &b]).ok();
    let of = |registry: &Registry| registry.content.lock().unwrap().manifests["1"].clone();
    assert_eq!(of(&built), of(&pushed));
    assert_eq!(manifests_of(&of(&pushed).1).len(), 2);
    // Built for one again, it is one.
    w.build(&["-t", &b]).ok();
    w.ply(&["push", &b]).ok();
    assert_eq!(of(&pushed).0, OCI_MANIFEST);
}

#[test]
fn all_tags_are_pulled_and_pushed() {
    let from = Registry::start();
    for tag in ["a", "b", "c", "d", "e"] {
        from.content.lock().unwrap().add_image(Some(tag), host_architecture(), layer(tag));
    }
    let w = World::new();
    let repository = format!("{}/team/app", from.server.host);
    let pulled = w.ply(&["pull", "--all-tags", "-q", &repository]).ok();
    assert_eq!(pulled.stdout, ["a", "b", "c", "d", "e"].map(|tag| format!("{repository}:{tag}\n")).concat());
    assert_eq!(w.ply(&["push", "-a", &repository]).ok().stdout.lines().count(), 5);
    w.ply(&["pull", "-a", &format!("{repository}:a")]).fails(2).says("--all-tags exclude each other");
    let empty = Registry::start();
    w.ply(&["pull", "-a", &format!("{}/x", empty.server.host)]).fails(1).says("no tags");
    let lying = Registry::start_with(|_, _, right| super::testserver::Reply { body: br#"{"tags":["../../x"]}"#.to_vec(), ..right });
    w.ply(&["pull", "-a", &format!("{}/x", lying.server.host)]).fails(1).says("image reference");
}
