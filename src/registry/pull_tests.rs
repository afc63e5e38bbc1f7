//! Tests of the client against a registry that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use super::super::RegistryConfig;
use super::super::testserver::{Reply, Request, TestServer};
use super::*;

fn config() -> RegistryConfig {
    RegistryConfig {
        retry: Retry {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(4),
            patience: Duration::from_millis(20),
            patience_broken: Duration::from_millis(7),
            patience_unreachable: Duration::from_millis(3),
            stall: Duration::from_secs(5),
        },
        ..RegistryConfig::default()
    }
}

fn repository(server: &TestServer) -> Repository {
    Repository { host: server.host.clone(), path: "team/app".into() }
}

fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(|n| (n % 251).to_le_bytes()).take(400_000).collect()
}

fn pull(server: &TestServer, blob: &Descriptor) -> (Result<(), RegistryError>, Vec<u8>) {
    match Client::new(config()).small_blob(&repository(server), blob) {
        Ok(bytes) => (Ok(()), bytes),
        Err(e) => (Err(e), Vec::new()),
    }
}

/// Answers a Range request from `body`.
fn ranged(request: &Request, body: &[u8]) -> Reply {
    match request.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) {
        Some(from) => Reply::new(206, &body[from..]).header("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())),
        None => Reply::new(200, body),
    }
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    let body = content();
    let blob = Descriptor::of("x/y", &body);
    let served = body.clone();
    let server = TestServer::start(move |request, n| Reply { cut_after: (n < 3).then_some(70_000), ..ranged(request, &served) });
    let (outcome, got) = pull(&server, &blob);
    outcome.unwrap();
    assert_eq!(got, body);
    let ranges: Vec<Option<String>> = server.requests().iter().map(|r| r.header("range").map(String::from)).collect();
    assert_eq!(ranges, [None, Some("bytes=70000-".into()), Some("bytes=140000-".into()), Some("bytes=210000-".into())]);
}

#[test]
fn a_server_without_ranges_sends_all_again_and_no_byte_is_doubled() {
    let body = content();
    let blob = Descriptor::of("x/y", &body);
    let served = body.clone();
    let server = TestServer::start(move |_, n| Reply { cut_after: (n == 0).then_some(100_001), ..Reply::new(200, served.clone()) });
    let (outcome, got) = pull(&server, &blob);
    outcome.unwrap();
    assert_eq!(got, body);
}

#[test]
fn what_fails_in_passing_is_tried_again_and_what_stays_wrong_is_told() {
    let body = content();
    let blob = Descriptor::of("x/y", &body);
    let ok = |body: &[u8]| Reply::new(200, body);
    type Answer = Box<dyn Fn(usize, &[u8]) -> Reply + Send + Sync>;
    let cases: Vec<(&str, Answer, &str, usize)> = vec![
        ("503 then ok", Box::new(move |n, b| if n < 2 { Reply::new(503, "") } else { ok(b) }), "", 3),
        ("429 then ok", Box::new(move |n, b| if n < 1 { Reply::new(429, "") } else { ok(b) }), "", 2),
        ("503 for ever", Box::new(|_, _| Reply::new(503, "")), "Status", 7),
        ("404", Box::new(|_, _| Reply::new(404, "")), "NotFound", 1),
        ("403", Box::new(|_, _| Reply::new(403, "")), "Denied", 1),
        ("another content", Box::new(|_, b| Reply::new(200, vec![7; b.len()])), "Digest", 1),
        ("too long", Box::new(|_, b| Reply::new(200, [b, b"x"].concat())), "Size", 1),
        ("endless", Box::new(|_, b| Reply { endless: true, ..Reply::new(200, b) }), "Size", 1),
        ("500 for ever", Box::new(|_, _| Reply::new(500, "")), "Status", 4),
        ("shorter than its manifest says", Box::new(|_, b| Reply::new(200, &b[..1000])), "Size", 1),
        ("always cut", Box::new(move |_, b| Reply { cut_after: Some(1000), ..ok(b) }), "Body", 4),
        ("empty 206", Box::new(|_, _| Reply::new(206, "")), "Status", 1),
    ];
    for (name, answer, want, tries) in cases {
        let served = body.clone();
        let server = TestServer::start(move |_, n| answer(n, &served));
        let (outcome, got) = pull(&server, &blob);
        match outcome {
            Ok(()) => assert!(want.is_empty() && got == body, "{name}"),
            Err(e) => assert!(format!("{:?}", e.cause()).starts_with(want) && !want.is_empty(), "{name}: {e:?}"),
        }
        assert_eq!(server.requests().len(), tries, "{name}");
    }
}

#[test]
fn a_document_is_verified_by_the_digest_that_was_asked_for() {
    let server = TestServer::start(|request, _| {
        let reply = Reply::new(200, "{}").header("Content-Type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8");
        // The header lies; it is not believed.
        reply.header("Docker-Content-Digest", request.path.rsplit('/').next().unwrap())
    });
    let client = Client::new(config());
    let right = Digest::of(b"{}");
    let want = Fetched { bytes: b"{}".to_vec(), media_type: media::OCI_MANIFEST.into(), digest: right };
    assert_eq!(client.document(&repository(&server), "v1").unwrap(), want);
    assert_eq!(client.document(&repository(&server), &right.to_string()).unwrap(), want);
    let wrong = Digest::of(b"other").to_string();
    assert!(matches!(client.document(&repository(&server), &wrong), Err(RegistryError::Digest { found, .. }) if found == right));
    assert_eq!(server.requests()[0].path, "/v2/team/app/manifests/v1");
    assert_eq!(server.requests()[0].header("accept"), Some(media::MANIFEST_ACCEPT));
}

#[test]
fn endless_documents_and_errors_end() {
    for (status, want) in [(200, "TooLarge"), (500, "Status")] {
        let server = TestServer::start(move |_, _| Reply { endless: true, ..Reply::new(status, vec![b' '; 65536]) });
        let error = Client::new(config()).document(&repository(&server), "v1").unwrap_err();
        assert!(format!("{:?}", error.cause()).starts_with(want), "{error:?}");
    }
}

/// A registry that wants a token from its own `/token`.
fn with_token(realm: Option<String>) -> TestServer {
    let own: Arc<std::sync::OnceLock<String>> = Arc::default();
    let host = Arc::clone(&own);
    let server = TestServer::start(move |request, _| {
        if request.path.starts_with("/token") {
            let good = request.header("authorization").is_none_or(|a| a == "Basic dTpw");
            return if good { Reply::new(200, r#"{"access_token":"T"}"#) } else { Reply::new(401, "") };
        }
        if request.header("authorization") == Some("Bearer T") {
            return Reply::new(200, "{}");
        }
        let realm = realm.clone().unwrap_or_else(|| format!("http://{}/token", host.get().unwrap()));
        Reply::new(401, "").header("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="s v",scope="repository:other:push""#))
    });
    own.set(server.host.clone()).unwrap();
    server
}

fn with_password(host: &str, dir: &tempfile::TempDir) -> RegistryConfig {
    let path = dir.path().join("config.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}}}}}}"#)).unwrap();
    RegistryConfig { auth_files: vec![path], ..config() }
}

#[test]
fn a_token_is_fetched_once_and_for_our_scope() {
    let dir = tempfile::tempdir().unwrap();
    for logged_in in [false, true] {
        let server = with_token(None);
        let client = Client::new(if logged_in { with_password(&server.host, &dir) } else { config() });
        client.document(&repository(&server), "v1").unwrap();
        client.document(&repository(&server), "v2").unwrap();
        let requests = server.requests();
        let paths: Vec<&str> = requests.iter().map(|r| r.path.as_str()).collect();
        let token = "/token?service=s%20v&scope=repository%3Ateam%2Fapp%3Apull";
        assert_eq!(paths, ["/v2/team/app/manifests/v1", token, "/v2/team/app/manifests/v1", "/v2/team/app/manifests/v2"]);
        assert_eq!(requests[1].header("authorization"), logged_in.then_some("Basic dTpw"));
        assert_eq!(requests[0].header("authorization"), None);
    }
}

#[test]
fn credentials_never_go_to_a_realm_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_token(Some("https://login.elsewhere.test/token".into()));
    let error = Client::new(with_password(&server.host, &dir)).document(&repository(&server), "v1").unwrap_err();
    assert!(matches!(error, RegistryError::Realm { .. }), "{error:?}");
}

#[test]
fn basic_authentication_needs_known_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start(|request, _| match request.header("authorization") {
        Some("Basic dTpw") => Reply::new(200, "{}"),
        _ => Reply::new(401, "").header("WWW-Authenticate", r#"Basic realm="r""#),
    });
    Client::new(with_password(&server.host, &dir)).document(&repository(&server), "v1").unwrap();
    let error = Client::new(config()).document(&repository(&server), "v1").unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
}

#[test]
fn a_redirect_elsewhere_does_not_get_the_authorization() {
    let dir = tempfile::tempdir().unwrap();
    let body = content();
    let served = body.clone();
    let storage = TestServer::start(move |request, n| Reply { cut_after: (n == 0).then_some(50_000), ..ranged(request, &served) });
    let to = format!("http://{}/storage?sig=1", storage.host);
    let server = TestServer::start(move |request, _| match request.header("authorization") {
        Some("Basic dTpw") => Reply::new(307, "").header("Location", to.clone()),
        _ => Reply::new(401, "").header("WWW-Authenticate", "Basic"),
    });
    let blob = Descriptor::of("x/y", &body);
    let got = Client::new(with_password(&server.host, &dir)).small_blob(&repository(&server), &blob).unwrap();
    assert_eq!(got, body);
    let requests = storage.requests();
    assert_eq!(requests.len(), 2, "the storage broke once");
    assert!(requests.iter().all(|r| r.header("authorization").is_none()), "{requests:?}");
    assert_eq!(requests[1].header("range"), Some("bytes=50000-"));
}

#[test]
fn redirects_that_loop_or_lose_tls_are_not_followed() {
    for to in ["/v2/again", "http://plain.test/x", "file:///etc/passwd", ""] {
        let server = TestServer::start(move |_, _| Reply::new(302, "").header("Location", to));
        let error = Client::new(config()).document(&repository(&server), "v1").unwrap_err();
        assert!(matches!(error, RegistryError::Redirect { .. }), "{to}: {error:?}");
    }
}

#[test]
fn nobody_listening_is_told_soon() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::new(config()).document(&Repository { host, path: "x".into() }, "v1").unwrap_err();
    assert!(matches!(error.cause(), RegistryError::Transport { .. }), "{error:?}");
}

#[test]
fn hostile_hosts_are_refused() {
    for host in ["", "a b", "a/b", "a@b", "a?b", "ä"] {
        let error = Client::new(config()).document(&Repository { host: host.into(), path: "x".into() }, "v1").unwrap_err();
        assert!(matches!(error, RegistryError::Host(_)), "{host}: {error:?}");
    }
}
