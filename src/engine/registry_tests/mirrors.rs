//! Mirrors that fail or lie, hosts that are blocked: who is asked next, and who gets which credentials.

use super::*;

/// A rule by which names of `r.example` are asked for at `mirrors`, then at `own`.
fn ruled(own: &str, mirrors: &[&str]) -> RegistryConfig {
    let mirror = |host: &&str| Mirror { location: format!("{host}/m"), insecure: false, asked_for: AskedFor::All };
    let rule =
        Rule { prefix: "r.example".into(), location: Some(own.into()), mirrors: mirrors.iter().map(mirror).collect(), ..Rule::default() };
    RegistryConfig { rules: Rules(vec![rule]).into(), ..config() }
}

#[test]
fn mirrors_that_fail_or_lie_are_left_out_and_said_once() {
    type Lie = Box<dyn Fn(&Request, usize, Reply) -> Reply + Send + Sync>;
    let at = |target: &'static str, lie: fn(Reply) -> Reply| -> Lie {
        Box::new(move |request, _, right| if kind(request) == target { lie(right) } else { right })
    };
    let cases: Vec<(&str, Lie, &str)> = vec![
        ("works", Box::new(|_, _, right| right), ""),
        ("has nothing", at("manifest", |_| Reply::new(404, "")), "is not in the registry"),
        ("is broken", at("manifest", |_| Reply::new(503, "")), "status 503"),
        ("forbids", at("manifest", |_| Reply::new(403, "")), "refuses access"),
        ("has a page of its own", at("manifest", |_| Reply::new(200, "<html>")), "neither a manifest nor an index"),
        ("has no blobs", at("blob", |_| Reply::new(404, "")), "is not in the registry"),
        ("has wrong blobs", at("blob", |r| Reply { body: vec![0; r.body.len()], ..r }), "not those of its digest"),
        ("breaks off for ever", at("blob", |r| Reply { cut_after: Some(r.body.len() / 2), ..r }), "given up after"),
        ("says nothing", at("manifest", |r| Reply { silent: true, ..r }), "timeout"),
    ];
    for (name, lie, want) in cases {
        let (mirror, own) = (Registry::serve(content(), false, lie), Registry::serve(content(), false, |_, _, right| right));
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&said);
        let notices = Some(Notices(Arc::new(move |text: &str| log.lock().unwrap().push(text.into()))));
        let retry = if name == "says nothing" { impatient().retry } else { config().retry };
        let bench = Bench::new(RegistryConfig { notices, retry, ..ruled(&own.server.host, &[&mirror.server.host]) });
        assert_eq!(bench.pull("r.example/app:1"), Ok(()), "{name}");
        let said = said.lock().unwrap().clone();
        match want {
            "" => assert_eq!((said, own.server.requests().len()), (vec![], 0)),
            want => assert!(said.len() == 1 && said[0].contains(&mirror.server.host) && said[0].contains(want), "{name}: {said:?}"),
        }
        assert!(mirror.server.requests().iter().all(|r| r.path.starts_with("/v2/m/app/")), "{name}");
        let image = bench.store.list().unwrap().remove(0);
        assert_eq!(image.repo_digests, [format!("r.example/app@{}", digest(&own.content.lock().unwrap().manifests["1"].1))], "{name}");
    }
}

#[test]
fn wrong_bytes_of_a_mirror_that_are_unpacked_as_they_come_leave_no_trace() {
    let spoil = |request: &Request, _, right: Reply| {
        // The right length, and a tar that can be unpacked for a while.
        if !for_layer(request, &right) {
            return right;
        }
        let mut body = right.body.clone();
        let end = body.len() - 100_000;
        body[end..].fill(7);
        Reply { body, ..right }
    };
    let (mirror, own) = (Registry::serve(content(), false, spoil), Registry::serve(content(), false, |_, _, right| right));
    let bench = Bench::new(ruled(&own.server.host, &[&mirror.server.host]));
    let pulls = Pulls::default();
    let sources = Sources { pulls: Some(&pulls), ..bench.sources() };
    let request = ImageRequest { source: ImageSource::Reference("r.example/app:1".into()), platform: Platform::host() };
    let image = sources.resolve(&request).unwrap();
    let ownership = if rustix::process::geteuid().is_root() { Ownership::Real } else { Ownership::Recorded };
    let staging = bench.store.stage().unwrap();
    let driver = Driver::copying(staging.path(), ownership, "a test");
    let dirs = sources.ensure_layers(&image.layers, &driver, ownership).unwrap();
    let content: Vec<u8> = (0..LAYER_BYTES).map(|n| (n % 251) as u8).collect();
    assert!(std::fs::read(dirs[0].join("f")).unwrap() == content);
    assert_eq!(own.server.requests().iter().map(|r| kind(r)).collect::<Vec<_>>(), ["blob"]);
}

#[test]
fn each_host_gets_its_own_credentials_only_and_a_blob_goes_on_elsewhere_where_it_broke() {
    let dir = tempfile::tempdir().unwrap();
    let guarded = |password: &'static str, spoil: fn(Reply) -> Reply| {
        Registry::serve(content(), false, move |request, _, right| match request.header("authorization") {
            Some(value) if value == password => {
                if for_layer(request, &right) {
                    spoil(right)
                } else {
                    right
                }
            }
            _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x"),
        })
    };
    // base64: m:1, o:2
    let (mirror, own) = (guarded("Basic bTox", |r| Reply { cut_after: Some(100_000), cut: Cut::Reset, ..r }), guarded("Basic bzoy", |r| r));
    let entry = |host: &str, auth: &str| (host.to_string(), serde_json::json!({ "auth": auth }));
    let auths = BTreeMap::from([entry(&mirror.server.host, "bTox"), entry(&own.server.host, "bzoy"), entry("r.example", "djoz")]);
    let file = dir.path().join("config.json");
    std::fs::write(&file, serde_json::json!({"auths": auths}).to_string()).unwrap();
    let config = RegistryConfig { auth_files: vec![file], ..ruled(&own.server.host, &[&mirror.server.host]) };
    // The mirror resets every answer after 100,000 bytes: three pieces of the layer are its, or the registry has the rest.
    assert_eq!(Bench::new(config).pull("r.example/app:1"), Ok(()));
    for (registry, right) in [(&mirror, "Basic bTox"), (&own, "Basic bzoy")] {
        assert!(registry.server.requests().iter().all(|r| r.header("authorization").is_none_or(|a| a == right)));
    }
}

#[test]
fn blocked_names_are_neither_pulled_nor_pushed() {
    let registry = Registry::serve(content(), false, |_, _, right| right);
    let host = &registry.server.host;
    let rule = Rule { prefix: format!("{host}/evil"), blocked: true, file: "f".into(), ..Rule::default() };
    let bench = Bench::new(RegistryConfig { rules: Rules(vec![rule]).into(), ..config() });
    let blocked = format!("the registries of `{host}/evil` are blocked by f");
    assert!(bench.pull(&format!("{host}/evil/app:1")).unwrap_err().ends_with(&blocked));
    bench.pull(&format!("{host}/good:1")).unwrap();
    assert!(bench.push(&format!("{host}/good:1"), &format!("{host}/evil:1")).unwrap_err().ends_with(&blocked));
}
