//! Pushes to a registry that fails, forgets and mistakes what it was sent.

use super::*;

#[test]
fn what_fails_in_passing_while_pushing_is_outlived_and_what_stays_is_told() {
    let source = Registry::serve(content(), false, |_, _, right| right);
    let from = format!("{}/app:1", source.server.host);
    let all = SPOILS.iter().map(|s| (s, config())).chain(STALLS.iter().map(|s| (s, impatient())));
    for ((name, spoil), config) in all {
        let stalls = STALLS.iter().any(|(n, _)| n == name);
        // The answers to these have no body to break.
        if name.contains("body") {
            continue;
        }
        let bench = Bench::new(config);
        bench.pull(&from).unwrap();
        for target in ["exists", "upload", "commit", "put manifest"] {
            let times = if stalls { 1 } else { 2 };
            let registry =
                Registry::start_with(move |request, n, right| if kind(request) == target && n < times { spoil(right) } else { right });
            assert_eq!(bench.push(&from, &format!("{}/app:2", registry.server.host)), Ok(()), "{name}, {target}");
            let (sent, there) = (registry.content.lock().unwrap(), source.content.lock().unwrap());
            assert_eq!((sent.blobs == there.blobs, sent.manifests["2"] == there.manifests["1"]), (true, true), "{name}, {target}");
        }
        for target in ["upload", "put manifest"] {
            let registry = Registry::start_with(move |request, _, right| if kind(request) == target { spoil(right) } else { right });
            let error = bench.push(&from, &format!("{}/app:2", registry.server.host)).unwrap_err();
            assert!(error.contains("given up after"), "{name}, {target}: {error}");
        }
    }
}

#[test]
fn a_registry_that_refuses_or_mistakes_what_is_pushed_is_not_believed() {
    let source = Registry::serve(content(), false, |_, _, right| right);
    let from = format!("{}/app:1", source.server.host);
    let other = digest(b"other");
    let header = |status, name: &'static str, value: String| move |_| Reply::new(status, "").header(name, value.clone());
    type Lie = Box<dyn Fn(Reply) -> Reply + Send + Sync>;
    let cases: Vec<(&str, &str, Lie, Option<&str>)> = vec![
        ("upload", "says no address", Box::new(|_| Reply::new(202, "")), Some("says no address")),
        ("upload", "sends elsewhere", Box::new(header(202, "Location", "http://plain.test/x".into())), Some("is not followed")),
        ("upload", "forbids", Box::new(|_| Reply::new(403, "")), Some("refuses access")),
        ("upload", "is done before it began", Box::new(|_| Reply::new(201, "")), Some("status 201")),
        ("commit", "keeps it as something else", Box::new(header(201, "Docker-Content-Digest", other.clone())), Some(&other)),
        ("commit", "says that the digest is wrong", Box::new(|_| Reply::new(400, "")), Some("status 400")),
        ("put manifest", "keeps it as something else", Box::new(header(201, "Docker-Content-Digest", other.clone())), Some(&other)),
        ("put manifest", "finds it invalid", Box::new(|_| Reply::new(400, "")), Some("status 400")),
        ("exists", "has one of another size", Box::new(|_| Reply { length: Some(7), ..Reply::new(200, "") }), None),
    ];
    let bench = Bench::new(config());
    bench.pull(&from).unwrap();
    for (target, name, lie, want) in cases {
        let registry = Registry::start_with(move |request, _, right| if kind(request) == target { lie(right) } else { right });
        match (bench.push(&from, &format!("{}/app:2", registry.server.host)), want) {
            (Ok(()), None) => {}
            (Err(error), Some(want)) if error.contains(want) => {}
            (got, want) => panic!("{target} {name}: {got:?} instead of {want:?}"),
        }
    }
}

#[test]
fn an_upload_that_the_registry_forgets_begins_anew_and_in_the_end_is_given_up() {
    let source = Registry::serve(content(), false, |_, _, right| right);
    let from = format!("{}/app:1", source.server.host);
    for (times, want) in [(1, true), (usize::MAX, false)] {
        let registry =
            Registry::start_with(move |request, n, right| if kind(request) == "commit" && n < times { Reply::new(404, "") } else { right });
        let bench = Bench::new(config());
        bench.pull(&from).unwrap();
        let pushed = bench.push(&from, &format!("{}/app:2", registry.server.host));
        assert_eq!(pushed.is_ok(), want, "{pushed:?}");
    }
}

#[test]
fn a_blob_that_the_registry_does_not_find_for_a_moment_is_waited_for() {
    let source = Registry::serve(content(), false, |_, _, right| right);
    let from = format!("{}/app:1", source.server.host);
    let said = r#"{"errors":[{"code":"DIGEST_INVALID","message":"no match"},{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#;
    for (status, times, want) in [(400, 2, None), (404, 1, None), (400, usize::MAX, Some("given up after"))] {
        let unknown = move |request: &Request, n, right| match kind(request) {
            "put manifest" if n < times => Reply::new(status, said),
            _ => right,
        };
        let registry = Registry::start_with(unknown);
        let bench = Bench::new(config());
        bench.pull(&from).unwrap();
        let pushed = bench.push(&from, &format!("{}/app:2", registry.server.host));
        let as_wanted = pushed.as_ref().err().zip(want).map_or(pushed.is_ok() && want.is_none(), |(e, w)| e.contains(w));
        assert!(as_wanted, "{status} {times}: {pushed:?}");
    }
}

#[test]
fn a_mount_that_is_refused_or_pretended_is_no_reason_to_fail() {
    // One that says it mounted is believed; any other answer leads to an upload.
    for status in [202, 400, 404, 405, 500] {
        let registry = Registry::serve(content(), false, move |request, _, right| {
            if kind(request) == "mount" {
                Reply { status, ..right }
            } else if kind(request) == "exists" {
                Reply::new(404, "")
            } else {
                right
            }
        });
        let bench = Bench::new(config());
        bench.pull(&format!("{}/app:1", registry.server.host)).unwrap();
        assert_eq!(
            bench.push(&format!("{}/app:1", registry.server.host), &format!("{}/other:1", registry.server.host)),
            Ok(()),
            "{status}"
        );
    }
}
