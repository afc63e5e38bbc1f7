//! Tests of uploads against a registry that misbehaves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::testserver::{Reply, Request, TestServer};
use super::super::{RegistryConfig, Retry};
use super::*;

/// A registry of one repository that holds one upload; `fault` may answer in its place.
struct Fake {
    server: TestServer,
    received: Arc<Mutex<Vec<u8>>>,
}

fn fake(fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Fake {
    let received = Arc::new(Mutex::new(Vec::new()));
    let bytes = Arc::clone(&received);
    let server = TestServer::start(move |request, n| {
        if let Some(reply) = fault(request, n) {
            return reply;
        }
        let mut bytes = bytes.lock().unwrap();
        match (request.method.as_str(), request.path.contains("/uploads/")) {
            ("HEAD", _) => Reply::new(404, ""),
            ("POST", _) if request.path.contains("mount=") => Reply::new(201, ""),
            ("POST", _) => {
                bytes.clear();
                Reply::new(202, "").header("Location", "/v2/team/app/blobs/uploads/u?state=1")
            }
            ("PATCH", _) => {
                bytes.extend(&request.body);
                Reply::new(202, "").header("Location", "/v2/team/app/blobs/uploads/u?state=2")
            }
            ("GET", _) => Reply::new(204, "").header("Range", format!("0-{}", bytes.len().max(1) - 1)).header("Location", "u?state=3"),
            ("PUT", true) => {
                bytes.extend(&request.body);
                let want = Digest::of(&bytes).to_string();
                Reply::new(if request.path.ends_with(&format!("&digest={want}")) { 201 } else { 400 }, "")
            }
            _ => Reply::new(405, ""),
        }
    });
    Fake { server, received }
}

fn client() -> Client {
    let ms = Duration::from_millis;
    let retry =
        Retry { first: ms(1), longest: ms(4), patience: ms(20), patience_broken: ms(7), patience_unreachable: ms(3), stall: ms(5000) };
    Client::new(RegistryConfig { retry, ..RegistryConfig::default() })
}

fn push(fake: &Fake, content: &[u8], mount: &[String]) -> Result<Sent, RegistryError> {
    let repository = Repository { host: fake.server.host.clone(), path: "team/app".into() };
    let content = content.to_vec();
    let open =
        move |from: u64| -> io::Result<Box<dyn Read>> { Ok(Box::new(io::Cursor::new(content[usize::try_from(from).unwrap()..].to_vec()))) };
    client().push_blob(&repository, &Descriptor::of("x/y", &open_all(&open)), mount, &open, &|_| {})
}

fn open_all(open: &BlobSource<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    open(0).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn methods(fake: &Fake) -> Vec<String> {
    fake.server.requests().into_iter().map(|r| r.method).collect()
}

#[test]
fn a_blob_is_sent_in_one_request_and_mounted_where_it_can_be() {
    let registry = fake(|_, _| None);
    assert_eq!(push(&registry, b"bytes", &[]).unwrap(), Sent::Uploaded);
    assert_eq!(
        (methods(&registry), registry.received.lock().unwrap().as_slice()),
        (vec!["HEAD".into(), "POST".into(), "PUT".into()], &b"bytes"[..])
    );
    let registry = fake(|_, _| None);
    assert_eq!(push(&registry, b"bytes", &["other".into()]).unwrap(), Sent::Mounted);
    assert!(registry.server.requests()[1].path.ends_with(&format!("?mount={}&from=other", Digest::of(b"bytes"))));
    let registry = fake(|r, _| (r.method == "HEAD").then(|| Reply::new(200, "")));
    assert_eq!((push(&registry, b"bytes", &[]).unwrap(), methods(&registry)), (Sent::Present, vec!["HEAD".to_string()]));
}

#[test]
fn what_fails_in_passing_is_sent_again() {
    for status in [429, 500, 503] {
        let registry = fake(move |_, n| (n % 2 == 0 && n < 6).then(|| Reply::new(status, "")));
        assert_eq!(push(&registry, b"bytes", &[]).unwrap(), Sent::Uploaded, "{status}");
        assert_eq!(registry.received.lock().unwrap().as_slice(), b"bytes");
    }
    let registry = fake(|r, _| (r.method == "PUT").then(|| Reply::new(400, r#"{"errors":[{"message":"no\u001b"}]}"#)));
    assert!(push(&registry, b"bytes", &[]).unwrap_err().to_string().ends_with("answered with status 400: no"));
    let registry = fake(|_, _| Some(Reply::new(403, "")));
    assert!(matches!(push(&registry, b"bytes", &[]), Err(RegistryError::Denied { .. })));
    assert_eq!(registry.server.requests().len(), 1);
}

#[test]
fn a_big_blob_goes_in_pieces_where_one_request_is_too_much_and_on_where_it_broke() {
    let content: Vec<u8> = (0..PIECE_BYTES * 2 + 1000).map(|n| (n % 249) as u8).collect();
    // One request is refused; of the pieces the second one is lost on the way the first time.
    let lost = Arc::new(Mutex::new(false));
    let registry = fake(move |r, _| match r.method.as_str() {
        "PUT" if !r.body.is_empty() => Some(Reply::new(413, "")),
        "PATCH"
            if r.header("content-range").is_some_and(|v| !v.starts_with("0-")) && !std::mem::replace(&mut *lost.lock().unwrap(), true) =>
        {
            Some(Reply::new(502, ""))
        }
        _ => None,
    });
    assert_eq!(push(&registry, &content, &[]).unwrap(), Sent::Uploaded);
    assert!(*registry.received.lock().unwrap() == content);
    assert_eq!(methods(&registry), ["HEAD", "POST", "PUT", "POST", "PATCH", "PATCH", "GET", "PATCH", "PATCH", "PUT"]);
}

#[test]
fn an_upload_elsewhere_gets_no_credentials_and_none_leaves_tls() {
    let elsewhere = TestServer::start(|_, _| Reply::new(201, ""));
    let to = format!("http://{}/up", elsewhere.host);
    let registry = fake(move |r, _| match (r.method.as_str(), r.header("authorization")) {
        (_, None) => Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x")),
        ("POST", _) => Some(Reply::new(202, "").header("Location", to.clone())),
        _ => None,
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"YTpi"}}}}}}"#, registry.server.host)).unwrap();
    let client = Client::new(RegistryConfig { auth_files: vec![file], ..RegistryConfig::default() });
    let repository = Repository { host: registry.server.host.clone(), path: "team/app".into() };
    let open = |_| -> io::Result<Box<dyn Read>> { Ok(Box::new(io::Cursor::new(b"bytes".to_vec()))) };
    client.push_blob(&repository, &Descriptor::of("x/y", b"bytes"), &[], &open, &|_| {}).unwrap();
    let put = &elsewhere.requests()[0];
    assert_eq!((put.method.as_str(), put.header("authorization"), put.body.as_slice()), ("PUT", None, &b"bytes"[..]));
    let registry = fake(|r, _| (r.method == "POST").then(|| Reply::new(202, "").header("Location", "http://registry.example/up")));
    assert!(matches!(push(&registry, b"bytes", &[]), Err(RegistryError::Redirect { .. })));
}
