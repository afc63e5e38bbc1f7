//! Images and their names.

use super::*;

#[test]
fn an_image_is_found_by_each_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = commit(&store, 1, "x");
    let (first, second) = (put_image(&store, b"{1}", &[layer]), put_image(&store, b"{2}", &[layer]));
    store.tag("docker.io/library/a:1", &first).unwrap();
    store.tag("docker.io/library/b:1", &first).unwrap();
    store.tag("docker.io/library/b:1", &second).unwrap();
    store.put_repo_digest(&first, "docker.io/library/a@sha256:00").unwrap();
    store.flush().unwrap();
    let id = |text: &str| store.resolve(text).unwrap().map(|i| i.id);
    for (text, want) in [
        ("docker.io/library/a:1", Some(first)),
        ("docker.io/library/b:1", Some(second)),
        ("docker.io/library/c:1", None),
        ("docker.io/library/a@sha256:00", Some(first)),
        (first.to_string().as_str(), Some(first)),
        (first.hex().as_str(), Some(first)),
        (&second.hex()[..12], Some(second)),
        ("", None),
        ("sha256:", None),
        ("%", None),
    ] {
        assert_eq!(id(text), want, "{text}");
    }
    assert_eq!(store.image(&first).unwrap().unwrap().names, ["docker.io/library/a:1"]);
    assert_eq!(store.untag("docker.io/library/a:1").unwrap(), Some(first));
    assert_eq!(store.untag("docker.io/library/a:1").unwrap(), None);
    assert!(matches!(store.tag("x", &Digest::of(b"no")), Err(StoreError::NoImage(_))));
    let missing = [LayerId::Content(content(77))].map(|id| ImageLayer { id, diff_id: DiffId::from_bytes([1; 32]) });
    let new =
        NewImage { config: b"{3}", layers: missing.to_vec(), platform: Platform::new("linux", "amd64", ""), manifest: None, added_secs: 0 };
    assert!(matches!(store.put_image(&new), Err(StoreError::NoLayer(_))));
}

#[test]
fn an_ambiguous_beginning_of_an_id_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut firsts = std::collections::HashMap::new();
    for n in 0..17 {
        let id = put_image(&store, format!("{{{n}}}").as_bytes(), &[]);
        *firsts.entry(id.hex()[..1].to_string()).or_insert(0) += 1;
    }
    let (prefix, count) = firsts.into_iter().find(|(_, n)| *n > 1).expect("17 ids begin with 16 digits");
    assert!(matches!(store.resolve(&prefix), Err(StoreError::Ambiguous { count: c, .. }) if c == count));
}

#[test]
fn a_source_is_remembered_as_long_as_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = put_image(&store, b"{}", &[]);
    let platform = Platform::new("linux", "amd64", "");
    let source = Source {
        reference: "docker.io/library/a:1".into(),
        platform: platform.clone(),
        manifest: Digest::of(b"m"),
        image: id,
        checked_secs: 5,
    };
    store.put_source(source.clone()).unwrap();
    for _ in 0..2 {
        assert_eq!(store.source("docker.io/library/a:1", &platform).unwrap(), Some(source.clone()));
        store.flush().unwrap();
    }
    assert_eq!(store.source("docker.io/library/a:1", &Platform::new("linux", "arm64", "")).unwrap(), None);
    store.remove_image(&id).unwrap();
    assert_eq!(store.source("docker.io/library/a:1", &platform).unwrap(), None);
}
