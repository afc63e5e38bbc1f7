//! Pulls and pushes against a registry that fails and lies: what passes is outlived, what stays is told, and whatever happens
//! the store holds no wrong byte.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::export::{Exporter, FinishedImage};
use super::request::{Packing, PushAs};
use super::sources::{Policy, Pulls, Silent, Sources};
use crate::graph::{ImageRequest, ImageSource};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::path::Ownership;
use crate::registry::fixture::{Content, OCI_MANIFEST, Registry, digest, kind, ranged};
use crate::registry::testserver::{Cut, Reply, Request, TestServer};
use crate::registry::{AskedFor, Client, Mirror, Notices, RegistryConfig, Retry, Rule, Rules};
use crate::snapshot::Driver;
use crate::store::{Depth, Durability, Store};

mod mirrors;
mod push;

/// Big enough for a transfer to break in the middle of it.
const LAYER_BYTES: usize = 300_000;

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    client: Client,
}

impl Bench {
    fn new(config: RegistryConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(&dir.path().join("store"), Durability::Unsynced).unwrap();
        Self { store, client: Client::new(config), _dir: dir }
    }

    fn sources(&self) -> Sources<'_> {
        let policy = Policy { now_secs: 1, ..Policy::default() };
        Sources { store: &self.store, client: &self.client, policy, host_path: &[], progress: &Silent, pulls: None }
    }

    /// Pulls, and returns the error's text with its causes.
    fn pull(&self, name: &str) -> Result<(), String> {
        let request = ImageRequest { source: ImageSource::Reference(name.into()), platform: Platform::host() };
        let pulled = self.sources().resolve(&request);
        // Whatever came of it.
        let report =
            self.store.fsck(Depth::Deep, &|_: &crate::digest::LayerId, _: &std::path::Path| Err("there are no layers".into())).unwrap();
        assert_eq!(report.problems, []);
        pulled.map(drop).map_err(|e| super::error::chain(&e))
    }

    fn push(&self, from: &str, to: &str) -> Result<(), String> {
        let request = ImageRequest { source: ImageSource::Reference(from.into()), platform: Platform::host() };
        let image = self.sources().resolve(&request).unwrap();
        let image = FinishedImage::of_stored(&self.store, &image, Vec::new()).unwrap();
        let exporter = Exporter { store: &self.store, progress: &Silent };
        let to = Reference::parse(to).unwrap();
        let pushed = exporter.push(&[image], &to, PushAs::Tag, Packing::default(), &self.client);
        pushed.map(drop).map_err(|e| super::error::chain(&e))
    }
}

fn config() -> RegistryConfig {
    let ms = Duration::from_millis;
    let retry = Retry {
        first: ms(1),
        longest: ms(4),
        patience: ms(20),
        patience_broken: ms(7),
        patience_unreachable: ms(3),
        stall: Duration::from_secs(10),
    };
    RegistryConfig { retry, ..RegistryConfig::default() }
}

/// Where a server is broken off for saying nothing, soon.
fn impatient() -> RegistryConfig {
    let config = config();
    RegistryConfig { retry: Retry { stall: Duration::from_millis(400), patience: Duration::from_secs(1), ..config.retry }, ..config }
}

fn layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let content: Vec<u8> = (0..LAYER_BYTES).map(|n| (n % 251) as u8).collect();
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "f", content.as_slice()).unwrap();
    builder.into_inner().unwrap()
}

fn host() -> String {
    Platform::host().architecture
}

fn content() -> Arc<Mutex<Content>> {
    let mut content = Content::default();
    content.add_image(Some("1"), &host(), layer());
    Arc::new(Mutex::new(content))
}

/// Tells whether a request is for the layer: the one big blob.
fn for_layer(request: &Request, right: &Reply) -> bool {
    kind(request) == "blob" && (right.body.len() > 10_000 || request.header("range").is_some())
}

type Spoil = fn(Reply) -> Reply;

const SPOILS: &[(&str, Spoil)] = &[
    ("408", |_| Reply::new(408, "")),
    ("429", |_| Reply::new(429, "")),
    ("429 and now", |_| Reply::new(429, "").header("Retry-After", "0")),
    ("500", |_| Reply::new(500, "<html>")),
    ("502", |_| Reply::new(502, "")),
    ("503", |_| Reply::new(503, "")),
    ("504", |_| Reply::new(504, "")),
    ("closed at once", |r| Reply { cut_head_after: Some(0), ..r }),
    ("closed in the head", |r| Reply { cut_head_after: Some(20), ..r }),
    ("reset in the head", |r| Reply { cut_head_after: Some(20), cut: Cut::Reset, ..r }),
    ("closed in the body", |r| Reply { cut_after: Some(r.body.len() / 3), ..r }),
    ("reset in the body", |r| Reply { cut_after: Some(r.body.len() / 3), cut: Cut::Reset, ..r }),
];

const STALLS: &[(&str, Spoil)] = &[
    ("silent", |r| Reply { silent: true, ..r }),
    ("stalls in the head", |r| Reply { cut_head_after: Some(20), cut: Cut::Stall, ..r }),
    ("stalls in the body", |r| Reply { cut_after: Some(r.body.len() / 3), cut: Cut::Stall, ..r }),
];

#[test]
fn what_fails_in_passing_while_pulling_is_outlived() {
    let all = SPOILS.iter().map(|s| (s, config())).chain(STALLS.iter().map(|s| (s, impatient())));
    for ((name, spoil), config) in all {
        for target in ["manifest", "blob"] {
            let times = if STALLS.iter().any(|(n, _)| n == name) { 1 } else { 2 };
            let fault = move |request: &Request, n, right| if kind(request) == target && n < times { spoil(right) } else { right };
            let registry = Registry::serve(content(), false, fault);
            let bench = Bench::new(config.clone());
            assert_eq!(bench.pull(&format!("{}/app:1", registry.server.host)), Ok(()), "{name}, {target}");
            let layer = bench.store.read_blob(&digest(&layer()).parse().unwrap(), 1 << 20).unwrap();
            assert!(layer == self::layer(), "{name}, {target}");
        }
    }
}

#[test]
fn what_stays_wrong_while_pulling_is_told() {
    let all = SPOILS.iter().map(|s| (s, config())).chain(STALLS.iter().map(|s| (s, impatient())));
    for ((name, spoil), config) in all {
        let registry =
            Registry::serve(content(), false, move |request, _, right| if for_layer(request, &right) { spoil(right) } else { right });
        let bench = Bench::new(config);
        let error = bench.pull(&format!("{}/app:1", registry.server.host)).unwrap_err();
        assert!(error.contains("given up after"), "{name}: {error}");
        assert_eq!(bench.store.list().unwrap(), [], "{name}");
    }
}

/// What a lying server does with the answers of one kind, and what is said of it; nothing: the pull succeeds.
#[test]
fn lies_are_told_at_once_and_oddities_are_lived_with() {
    type Lie = Box<dyn Fn(&Request, usize, Reply) -> Reply + Send + Sync>;
    fn at_layer(lie: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Lie {
        Box::new(move |request, _, right| if for_layer(request, &right) { lie(request, right) } else { right })
    }
    fn at_manifest(lie: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Lie {
        Box::new(move |request, _, right| if kind(request) == "manifest" { lie(right) } else { right })
    }
    let first_cut = || {
        let cut = Mutex::new(false);
        move || !std::mem::replace(&mut *cut.lock().unwrap(), true)
    };
    let cut = |right: Reply| Reply { cut_after: Some(100_000), ..right };
    let (a, b, c, d) = (first_cut(), first_cut(), first_cut(), first_cut());
    let cases: Vec<(&str, Lie, Option<&str>)> = vec![
        ("announces more", at_layer(|_, r| Reply { length: Some(r.body.len() + 10), ..r }), Some("bytes, not")),
        ("announces less", at_layer(|_, r| Reply { length: Some(r.body.len() - 10), ..r }), Some("bytes, not")),
        ("has less", at_layer(|_, r| Reply::new(200, &r.body[10..])), Some("bytes, not")),
        ("has more", at_layer(|_, r| Reply::new(200, [&r.body[..], b"x"].concat())), Some("bytes, not")),
        ("never ends", at_layer(|_, r| Reply { endless: true, ..r }), Some("bytes, not")),
        ("has other bytes", at_layer(|_, r| Reply::new(200, vec![0; r.body.len()])), Some("digest")),
        ("sends a part unasked", at_layer(|_, r| Reply { status: 206, ..r }), Some("status 206")),
        (
            "sends another part than asked for",
            at_layer(move |request, right| match request.header("range") {
                Some(_) => Reply::new(206, "xx").header("Content-Range", "bytes 0-1/2"),
                None if a() => cut(right),
                None => right,
            }),
            None,
        ),
        (
            "knows no parts",
            at_layer(move |request, right| match request.header("range") {
                Some(_) => Reply::new(200, layer()),
                None if b() => cut(right),
                None => right,
            }),
            None,
        ),
        (
            "refuses parts",
            at_layer(move |request, right| match request.header("range") {
                Some(_) => Reply::new(416, ""),
                None if c() => cut(right),
                None => right,
            }),
            None,
        ),
        (
            "goes on with other bytes",
            at_layer(move |request, right| match request.header("range") {
                Some(_) => ranged(request, &vec![1; layer().len()]),
                None if d() => cut(right),
                None => right,
            }),
            Some("digest"),
        ),
        ("leads in circles", at_layer(|request, _| Reply::new(307, "").header("Location", request.path.as_str())), Some("is not followed")),
        ("leads out of TLS", at_layer(|_, _| Reply::new(307, "").header("Location", "http://plain.test/x")), Some("is not followed")),
        ("has no manifest", at_manifest(|_| Reply::new(404, "")), Some("is not in the registry")),
        ("has a page for a manifest", at_manifest(|_| Reply::new(200, "<html>hello</html>")), Some("malformed")),
        ("has nothing for a manifest", at_manifest(|_| Reply::new(200, "")), Some("malformed")),
        ("announces a huge manifest", at_manifest(|r| Reply { length: Some(1 << 40), ..r }), Some("more than 4194304 bytes")),
        (
            "has a manifest without end",
            at_manifest(|_| Reply { endless: true, ..Reply::new(200, vec![b' '; 65536]) }),
            Some("more than 4194304 bytes"),
        ),
        (
            "calls its manifest something else",
            at_manifest(|r| Reply { headers: vec![("Content-Type".into(), "application/vnd.oci.image.index.v1+json".into())], ..r }),
            Some("was announced as"),
        ),
        ("calls its manifest nothing", at_manifest(|r| Reply { headers: Vec::new(), ..r }), None),
        (
            "wants a password",
            at_manifest(|_| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x")),
            Some("no credentials are known"),
        ),
        (
            "wants the unknown",
            at_manifest(|_| Reply::new(401, "").header("WWW-Authenticate", "Negotiate")),
            Some("in a way that is not known"),
        ),
        ("forbids", at_manifest(|_| Reply::new(403, "")), Some("refuses access")),
    ];
    for (name, lie, want) in cases {
        let registry = Registry::serve(content(), false, lie);
        let bench = Bench::new(config());
        match (bench.pull(&format!("{}/app:1", registry.server.host)), want) {
            (Ok(()), None) => {}
            (Err(error), Some(want)) if error.contains(want) => assert_eq!(bench.store.list().unwrap(), [], "{name}"),
            (got, want) => panic!("{name}: {got:?} instead of {want:?}"),
        }
    }
}

#[test]
fn a_manifest_that_lies_of_its_layers_is_not_believed() {
    for (field, value, want) in [
        ("size", serde_json::json!(5), "bytes, not 5"),
        ("size", serde_json::json!(1_000_000_000_000_u64), "bytes, not 1000000000000"),
        ("digest", serde_json::json!(digest(b"nobody")), "is not in the registry"),
        ("mediaType", serde_json::json!("text/plain"), "no file system layer"),
    ] {
        let content = content();
        let (_, bytes) = content.lock().unwrap().manifests["1"].clone();
        let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        manifest["layers"][0][field] = value;
        content.lock().unwrap().add_manifest(Some("1"), OCI_MANIFEST, manifest.to_string().into_bytes());
        let registry = Registry::serve(content, false, |_, _, right| right);
        let error = Bench::new(config()).pull(&format!("{}/app:1", registry.server.host)).unwrap_err();
        assert!(error.contains(want), "{field}: {error}");
    }
}

#[test]
fn a_token_server_that_fails_in_passing_is_asked_again() {
    for (name, spoil) in SPOILS {
        for (times, want) in [(2, true), (usize::MAX, false)] {
            let own: Arc<std::sync::OnceLock<String>> = Arc::default();
            let host = Arc::clone(&own);
            let asked = Mutex::new(0);
            let registry = Registry::serve(content(), false, move |request, _, right| {
                if request.path.starts_with("/token") {
                    let mut asked = asked.lock().unwrap();
                    *asked += 1;
                    let right = Reply::new(200, r#"{"token":"T"}"#);
                    return if *asked <= times { spoil(right) } else { right };
                }
                match request.header("authorization") {
                    Some("Bearer T") => right,
                    _ => Reply::new(401, "").header("WWW-Authenticate", format!(r#"Bearer realm="http://{}/token""#, host.get().unwrap())),
                }
            });
            own.set(registry.server.host.clone()).unwrap();
            let pulled = Bench::new(config()).pull(&format!("{}/app:1", registry.server.host));
            assert_eq!(pulled.is_ok(), want, "{name}: {pulled:?}");
        }
    }
}

#[test]
fn a_storage_elsewhere_gets_no_authorization() {
    let stored = layer();
    let storage = TestServer::start(move |request, _| ranged(request, &stored));
    let to = format!("http://{}/s", storage.host);
    let registry = Registry::serve(content(), false, move |request, _, right| match request.header("authorization") {
        None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x"),
        Some(_) if for_layer(request, &right) => Reply::new(307, "").header("Location", to.clone()),
        Some(_) => right,
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, registry.server.host)).unwrap();
    assert_eq!(Bench::new(RegistryConfig { auth_files: vec![file], ..config() }).pull(&format!("{}/app:1", registry.server.host)), Ok(()));
    assert_eq!(storage.requests().iter().map(|r| r.header("authorization").map(String::from)).collect::<Vec<_>>(), [None]);
}
