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
        let report = self.store.fsck(Depth::Deep, &|_, _| Err("there are no layers".into())).unwrap();
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
