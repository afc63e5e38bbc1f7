//! Images made by hand: documents, blobs, and the archives and layouts that hold them.

use std::collections::BTreeMap;
use std::path::Path;

use plywood::digest::Digest;
use serde_json::{Value, json};

use super::tar::{Entry, archive, dir, file};

/// Files of an OCI layout, by name.
#[derive(Default, Clone)]
pub struct Layout {
    pub files: BTreeMap<String, Vec<u8>>,
    pub manifests: Vec<Value>,
}

pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What a layer's blob claims to be.
pub fn layer_type(blob: &[u8]) -> &'static str {
    match blob {
        [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => "application/vnd.oci.image.layer.v1.tar",
    }
}

/// The digest of a blob's tar; of the blob where it holds none that can be read. More than a small store holds is not read.
pub fn diff_id(blob: &[u8]) -> Digest {
    let mut tar = Vec::new();
    let whole = plywood::layer::decompress(blob, 256 << 20).is_ok_and(|(_, mut r)| std::io::Read::read_to_end(&mut r, &mut tar).is_ok());
    Digest::of(if whole { &tar } else { blob })
}

pub fn config(diff_ids: &[Digest]) -> Value {
    let ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
    json!({"architecture": architecture(), "os": "linux", "config": {"Env": ["A=b"]}, "rootfs": {"type": "layers", "diff_ids": ids}, "history": []})
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

impl Layout {
    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.files.insert(format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.to_vec());
        descriptor(media_type, bytes)
    }

    /// Adds an image of such layers under a tag.
    pub fn image(&mut self, tag: &str, layers: &[&[u8]]) {
        let ids: Vec<Digest> = layers.iter().map(|l| diff_id(l)).collect();
        let config = self.blob(CONFIG, config(&ids).to_string().as_bytes());
        let layers: Vec<Value> = layers.iter().map(|l| self.blob(layer_type(l), l)).collect();
        self.manifest(
            tag,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).to_string().into_bytes(),
        );
    }

    pub fn manifest(&mut self, tag: &str, text: &[u8]) {
        let mut entry = self.blob(MANIFEST, text);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.manifests.push(entry);
    }

    /// All files, the index with them.
    pub fn whole(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files.clone();
        files.entry("oci-layout".into()).or_insert_with(|| br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests});
        files.entry("index.json".into()).or_insert_with(|| index.to_string().into_bytes());
        files
    }

    pub fn write(&self, at: &Path) {
        std::fs::create_dir_all(at.join("blobs/sha256")).unwrap();
        for (name, bytes) in self.whole() {
            std::fs::write(at.join(name), bytes).unwrap();
        }
    }

    pub fn tar(&self) -> Vec<u8> {
        archive(&entries(&self.whole()))
    }
}

/// Files as an archive has them.
pub fn entries(files: &BTreeMap<String, Vec<u8>>) -> Vec<Entry> {
    let files = files.iter().map(|(name, bytes)| Entry { data: bytes.clone(), ..file(name, "") });
    [dir("blobs"), dir("blobs/sha256")].into_iter().chain(files).collect()
}

/// What `docker save` writes: configurations and layers by name, and the list of images.
#[derive(Default)]
pub struct Saved {
    pub files: BTreeMap<String, Vec<u8>>,
    pub images: Vec<Value>,
}

impl Saved {
    pub fn image(&mut self, name: &str, layers: &[&[u8]]) {
        let ids: Vec<Digest> = layers.iter().map(|l| diff_id(l)).collect();
        let text = config(&ids).to_string().into_bytes();
        let config = format!("{}.json", Digest::of(&text).hex());
        let names: Vec<String> = layers.iter().map(|l| format!("{}/layer.tar", Digest::of(l).hex())).collect();
        for (name, layer) in names.iter().zip(layers) {
            self.files.insert(name.clone(), layer.to_vec());
        }
        self.files.insert(config.clone(), text);
        self.images.push(json!({"Config": config, "RepoTags": [name], "Layers": names}));
    }

    pub fn tar(&self) -> Vec<u8> {
        let mut files = self.files.clone();
        files.insert("manifest.json".into(), Value::from(self.images.clone()).to_string().into_bytes());
        archive(&entries(&files))
    }
}
