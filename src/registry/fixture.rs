//! A registry in memory, for tests: the right answer to every request, which a test may spoil before it goes out.
//!
//! One content for all repositories' names: what a test asks is what goes over the wire, not who may see what.

#![allow(dead_code)] // each of its users uses a part of it

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::testserver::{Reply, Request, TestServer};
use sha2::Digest as _;

/// What a registry holds.
#[derive(Default)]
pub(crate) struct Content {
    /// By digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// By tag and by digest: media type and bytes.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
}

/// Spoils an answer: the request, how many of its kind came before, the right answer.
pub(crate) type Fault = dyn Fn(&Request, usize, Reply) -> Reply + Send + Sync;

/// A registry that runs until it is dropped.
pub(crate) struct Registry {
    pub server: TestServer,
    pub content: Arc<Mutex<Content>>,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

/// Says what a request is about: `manifest`, `config`-sized and other `blob`s, `upload`, `mount`, `commit`, `tags`, `exists`.
pub(crate) fn kind(request: &Request) -> &'static str {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    match (request.method.as_str(), path.contains("/blobs/uploads/"), path.contains("/manifests/")) {
        ("POST", true, _) if query.contains("mount=") => "mount",
        ("POST", true, _) => "upload",
        ("PATCH", true, _) => "piece",
        ("PUT", true, _) => "commit",
        ("GET", true, _) => "state",
        ("PUT", _, true) => "put manifest",
        (_, _, true) => "manifest",
        ("HEAD", ..) => "exists",
        _ if path.ends_with("/tags/list") => "tags",
        _ if path.contains("/blobs/") => "blob",
        _ => "other",
    }
}

impl Content {
    /// Adds an image of one layer; returns its manifest's descriptor, as an index has it.
    pub fn add_image(&mut self, tag: Option<&str>, architecture: &str, layer: Vec<u8>) -> serde_json::Value {
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(&layer), "size": layer.len()}],
        });
        self.blobs.insert(digest(&config), config);
        self.blobs.insert(digest(&layer), layer);
        let manifest = manifest.to_string().into_bytes();
        let mut descriptor = self.add_manifest(tag, OCI_MANIFEST, manifest);
        descriptor["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
        descriptor
    }

    /// Adds a document; returns its descriptor.
    pub fn add_manifest(&mut self, tag: Option<&str>, media_type: &str, bytes: Vec<u8>) -> serde_json::Value {
        let descriptor = serde_json::json!({"mediaType": media_type, "digest": digest(&bytes), "size": bytes.len()});
        for name in tag.map(String::from).into_iter().chain([digest(&bytes)]) {
            self.manifests.insert(name, (media_type.into(), bytes.clone()));
        }
        descriptor
    }

    /// Adds an index of these entries.
    pub fn add_index(&mut self, tag: &str, entries: &[serde_json::Value]) -> Vec<u8> {
        // Spaced as no serialiser of ours would.
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, "x-unknown": [1]});
        let bytes = format!("{}\n", serde_json::to_string_pretty(&index).unwrap()).into_bytes();
        self.add_manifest(Some(tag), OCI_INDEX, bytes.clone());
        bytes
    }

    /// Returns the right answer.
    pub fn answer(&mut self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let last = path.rsplit('/').next().unwrap_or_default().to_string();
        let parameter = |name: &str| query.split('&').find_map(|p| p.strip_prefix(&format!("{name}=")).map(String::from));
        match kind(request) {
            "manifest" => match self.manifests.get(&last) {
                Some((kind, bytes)) => Reply::new(200, bytes.as_slice()).header("Content-Type", kind.as_str()),
                None => Reply::new(404, ""),
            },
            "exists" => match self.blobs.get(&last) {
                Some(bytes) => Reply { length: Some(bytes.len()), ..Reply::new(200, "") },
                None => Reply::new(404, ""),
            },
            "blob" => match self.blobs.get(&last) {
                Some(bytes) => ranged(request, bytes),
                None => Reply::new(404, ""),
            },
            "tags" => self.tags(parameter("last").as_deref()),
            "mount" | "upload" => {
                let id = format!("u{}", self.uploads.len());
                self.uploads.insert(id.clone(), Vec::new());
                Reply::new(202, "").header("Location", format!("/v2/x/blobs/uploads/{id}"))
            }
            "piece" => {
                self.uploads.entry(last.clone()).or_default().extend(&request.body);
                Reply::new(202, "").header("Location", path)
            }
            "state" => {
                let have = self.uploads.get(&last).map_or(0, Vec::len);
                Reply::new(204, "").header("Range", format!("0-{}", have.max(1) - 1)).header("Location", path)
            }
            "commit" => {
                let mut bytes = self.uploads.remove(&last).unwrap_or_default();
                bytes.extend(&request.body);
                let wanted = parameter("digest").unwrap_or_default();
                if digest(&bytes) != wanted {
                    return Reply::new(400, r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}"#);
                }
                self.blobs.insert(wanted.clone(), bytes);
                Reply::new(201, "").header("Docker-Content-Digest", wanted)
            }
            "put manifest" => {
                let kind = request.header("content-type").unwrap_or_default();
                self.add_manifest(Some(&last), kind, request.body.clone());
                Reply::new(201, "").header("Docker-Content-Digest", digest(&request.body))
            }
            _ => Reply::new(if path == "/v2/" { 200 } else { 404 }, ""),
        }
    }

    /// Pages of two.
    fn tags(&self, last: Option<&str>) -> Reply {
        let all = self.manifests.keys().filter(|k| !k.contains(':')).filter(|k| last.is_none_or(|last| k.as_str() > last));
        let all: Vec<&String> = all.collect();
        let page = &all[..all.len().min(2)];
        let reply = Reply::new(200, serde_json::json!({"name": "x", "tags": page}).to_string());
        match page.last() {
            Some(last) if all.len() > 2 => reply.header("Link", format!("</v2/x/tags/list?n=2&last={last}>; rel=\"next\"")),
            _ => reply,
        }
    }
}

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Answers a Range request from `body`.
pub(crate) fn ranged(request: &Request, body: &[u8]) -> Reply {
    match request.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) {
        Some(from) if from < body.len() => {
            Reply::new(206, &body[from..]).header("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len()))
        }
        Some(_) => Reply::new(416, ""),
        None => Reply::new(200, body),
    }
}

impl Registry {
    /// Starts one that answers what is right.
    pub fn start() -> Self {
        Self::start_with(|_, _, right| right)
    }

    /// Starts one whose answers `fault` may spoil. What it makes of an upload counts all the same.
    pub fn start_with(fault: impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(Arc::default(), false, fault)
    }

    /// Starts one over a content that is there, by TLS or not.
    pub fn serve(content: Arc<Mutex<Content>>, tls: bool, fault: impl Fn(&Request, usize, Reply) -> Reply + Send + Sync + 'static) -> Self {
        let (shared, counts) = (Arc::clone(&content), Mutex::new(BTreeMap::<&str, usize>::new()));
        let answer = move |request: &Request, _| {
            let right = shared.lock().unwrap().answer(request);
            let before = {
                let mut counts = counts.lock().unwrap();
                let count = counts.entry(kind(request)).or_default();
                *count += 1;
                *count - 1
            };
            fault(request, before, right)
        };
        let server = if tls { TestServer::start_tls(answer) } else { TestServer::start(answer) };
        Self { server, content }
    }
}
