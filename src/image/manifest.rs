//! Descriptors, manifests and indexes: what a registry or a layout says an image is made of.
//!
//! Bytes from outside become a [`Document`] only when they mean one thing: no duplicate keys, either a manifest
//! or an index and never both, the media type that was announced, digests that are SHA-256 and well-formed,
//! sizes that fit. `oci-spec`'s types do the reading and writing; what leaves this module is narrower, so that
//! nobody below checks again. The digest of a document is of its bytes as they came: never write one again
//! that came from outside.

use std::collections::BTreeMap;

use oci_spec::image as oci;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::image::json;
use crate::image::platform::Platform;

/// The largest manifest, index or configuration that is read: containers/image's limit, and the least that the
/// distribution specification asks for.
pub const DOCUMENT_MAX_BYTES: u64 = 4 << 20;

/// The most descriptors that one document may hold.
const DESCRIPTORS_MAX: usize = 10_000;

/// Media types that Plywood reads or writes.
#[allow(missing_docs)]
pub mod media {
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// What a registry is asked for, by preference.
    pub const MANIFEST_ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
}

/// How a layer's blob is packed, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LayerPacking {
    Plain,
    Gzip,
    Zstd,
}

/// A document that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than [`DOCUMENT_MAX_BYTES`].
    #[error("the document has {size} bytes, more than the limit of {DOCUMENT_MAX_BYTES}")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// No JSON, or a field of a wrong type.
    #[error("the document is malformed")]
    Malformed(#[source] serde_json::Error),
    /// A manifest and an index at once.
    #[error("the document has both `manifests` and `{0}`: it could be read as two different images")]
    Ambiguous(&'static str),
    /// Not what it was announced as.
    #[error("the document says that it is `{own}`, but was announced as `{announced}`")]
    MediaTypeDiffers {
        /// Its `mediaType` field, or what its content shows.
        own: String,
        /// The descriptor's or the server's word.
        announced: String,
    },
    /// Neither manifest nor index, or a version that is not understood.
    #[error("the document is neither an image manifest nor an index (schema version {version}, media type `{media_type}`)")]
    Unsupported {
        /// `schemaVersion`.
        version: u64,
        /// `mediaType`.
        media_type: String,
    },
    /// A digest that is malformed or of another algorithm.
    #[error("a descriptor has a digest that can't be used")]
    Digest(#[from] crate::digest::DigestError),
    /// Too many layers or manifests.
    #[error("the document lists {0} descriptors, more than the limit of {DESCRIPTORS_MAX}")]
    TooMany(usize),
    /// A layer of a type that is no file system.
    #[error("a layer has the media type `{0}`, which is no file system layer")]
    NoLayer(String),
    /// `data` of a descriptor is not the content that it names.
    #[error("a descriptor's embedded data does not match its digest {0}")]
    Data(Digest),
}

/// Which bytes, and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type.
    pub media_type: String,
    /// Of the bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
    /// Free text; never a path, a tag or a command for us, `ref.name` in a layout excepted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// OCI's or Docker's.
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// Bottom first.
    pub layers: Vec<Descriptor>,
}

/// Images for several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// OCI's or Docker's.
    pub media_type: String,
    /// Manifests, and sometimes indexes.
    pub manifests: Vec<Descriptor>,
}

/// What a tag or digest can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Descriptor {
    /// Describes bytes that are at hand.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Makes a descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, annotations: BTreeMap::new(), platform: None }
    }

    /// Returns how the layer is packed; none when the media type is no layer's.
    ///
    /// A hint only: real images exist whose gzip layers are announced as plain tar, so readers look at the bytes.
    pub fn layer_packing(&self) -> Option<LayerPacking> {
        match self.media_type.as_str() {
            media::OCI_LAYER | media::DOCKER_LAYER => Some(LayerPacking::Plain),
            media::OCI_LAYER_GZIP | media::DOCKER_LAYER_GZIP => Some(LayerPacking::Gzip),
            media::OCI_LAYER_ZSTD | media::DOCKER_LAYER_ZSTD => Some(LayerPacking::Zstd),
            // The non-distributable ones of OCI and Docker's foreign ones: their bytes are ordinary layers.
            other if other.contains("nondistributable") || other.contains("rootfs.foreign.diff") => Some(if other.ends_with("gzip") {
                LayerPacking::Gzip
            } else if other.ends_with("zstd") {
                LayerPacking::Zstd
            } else {
                LayerPacking::Plain
            }),
            _ => None,
        }
    }

    fn from_oci(d: &oci::Descriptor) -> Result<Self, ManifestError> {
        let digest: Digest = d.digest().as_ref().parse()?;
        if let Some(data) = d.data() {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(data).map_err(|_| ManifestError::Data(digest))?;
            if bytes.len() as u64 != d.size() || Digest::of(&bytes) != digest {
                return Err(ManifestError::Data(digest));
            }
        }
        Ok(Self {
            media_type: d.media_type().to_string(),
            digest,
            size: d.size(),
            annotations: d.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            platform: d
                .platform()
                .as_ref()
                .map(|p| Platform::new(&p.os().to_string(), &p.architecture().to_string(), p.variant().as_deref().unwrap_or_default())),
        })
    }

    fn as_oci(&self) -> oci::Descriptor {
        let digest: oci::Digest = self.digest.to_string().parse().expect("our digests are a subset of OCI's");
        let mut out = oci::Descriptor::new(oci::MediaType::from(self.media_type.as_str()), self.size, digest);
        if !self.annotations.is_empty() {
            out.set_annotations(Some(self.annotations.clone().into_iter().collect()));
        }
        if let Some(p) = &self.platform {
            let mut platform = oci::Platform::default();
            platform.set_os(oci::Os::from(p.os.as_str()));
            platform.set_architecture(oci::Arch::from(p.architecture.as_str()));
            platform.set_variant((!p.variant.is_empty()).then(|| p.variant.clone()));
            out.set_platform(Some(platform));
        }
        out
    }
}

impl Document {
    /// Parses a manifest or an index.
    ///
    /// `announced` is the media type of the descriptor or of the HTTP answer; it must be the document's own
    /// where both speak. A plain `application/json` or an empty one announces nothing.
    pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
            return Err(ManifestError::TooLarge { size: bytes.len() as u64 });
        }
        let value = json::parse_strict(bytes).map_err(ManifestError::Malformed)?;
        let has = |key: &str| value.get(key).is_some();
        let kind = Kind::decide(&value, announced)?;
        match kind {
            Kind::Index => {
                if let Some(other) = ["layers", "config", "fsLayers"].into_iter().find(|k| has(k)) {
                    return Err(ManifestError::Ambiguous(other));
                }
                Index::from_value(value).map(Self::Index)
            }
            Kind::Manifest => {
                if has("manifests") {
                    return Err(ManifestError::Ambiguous("layers"));
                }
                Manifest::from_value(value).map(Self::Manifest)
            }
        }
    }
}

enum Kind {
    Manifest,
    Index,
}

impl Kind {
    /// Decides by the document's own word, else by the announcement, else by what it holds.
    fn decide(value: &Value, announced: Option<&str>) -> Result<Self, ManifestError> {
        let of = |media_type: &str| match media_type {
            media::OCI_MANIFEST | media::DOCKER_MANIFEST => Some(Self::Manifest),
            media::OCI_INDEX | media::DOCKER_INDEX => Some(Self::Index),
            _ => None,
        };
        let version = value.get("schemaVersion").and_then(Value::as_u64).unwrap_or_default();
        let own = value.get("mediaType").and_then(Value::as_str).unwrap_or_default();
        let announced = announced.unwrap_or_default();
        let announced = announced.split(';').next().unwrap_or_default().trim();
        let unsupported = |media_type: &str| ManifestError::Unsupported { version, media_type: media_type.chars().take(100).collect() };
        if version != 2 {
            return Err(unsupported(if own.is_empty() { announced } else { own }));
        }
        let silent = matches!(announced, "" | "application/json" | "application/octet-stream" | "text/plain");
        if !own.is_empty() && !silent && own != announced {
            return Err(ManifestError::MediaTypeDiffers { own: own.into(), announced: announced.into() });
        }
        let word = if !own.is_empty() { own } else { announced };
        if let Some(kind) = of(word) {
            return Ok(kind);
        }
        if !own.is_empty() || !silent {
            return Err(unsupported(word));
        }
        match (value.get("manifests").is_some(), value.get("config").is_some()) {
            (true, true) => Err(ManifestError::Ambiguous("config")),
            (true, false) => Ok(Self::Index),
            (false, true) => Ok(Self::Manifest),
            (false, false) => Err(unsupported("")),
        }
    }
}

impl Manifest {
    fn from_value(value: Value) -> Result<Self, ManifestError> {
        let parsed: oci::ImageManifest = serde_json::from_value(value).map_err(ManifestError::Malformed)?;
        if parsed.layers().len() > DESCRIPTORS_MAX {
            return Err(ManifestError::TooMany(parsed.layers().len()));
        }
        Ok(Self {
            media_type: parsed.media_type().as_ref().map_or_else(|| media::OCI_MANIFEST.into(), ToString::to_string),
            config: Descriptor::from_oci(parsed.config())?,
            layers: parsed.layers().iter().map(Descriptor::from_oci).collect::<Result<_, _>>()?,
        })
    }

    /// Fails when one of the layers is no file system (an artifact, an attestation).
    pub fn require_layers(&self) -> Result<(), ManifestError> {
        match self.layers.iter().find(|l| l.layer_packing().is_none()) {
            Some(layer) => Err(ManifestError::NoLayer(layer.media_type.clone())),
            None => Ok(()),
        }
    }

    /// Returns the one text of this manifest.
    pub fn to_json(&self) -> Vec<u8> {
        let manifest = oci::ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(oci::MediaType::from(self.media_type.as_str()))
            .config(self.config.as_oci())
            .layers(self.layers.iter().map(Descriptor::as_oci).collect::<Vec<_>>())
            .build()
            .expect("all that a manifest needs is set");
        json::to_sorted_vec(&manifest)
    }
}

impl Index {
    fn from_value(value: Value) -> Result<Self, ManifestError> {
        let parsed: oci::ImageIndex = serde_json::from_value(value).map_err(ManifestError::Malformed)?;
        if parsed.manifests().len() > DESCRIPTORS_MAX {
            return Err(ManifestError::TooMany(parsed.manifests().len()));
        }
        Ok(Self {
            media_type: parsed.media_type().as_ref().map_or_else(|| media::OCI_INDEX.into(), ToString::to_string),
            manifests: parsed.manifests().iter().map(Descriptor::from_oci).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the one text of this index.
    pub fn to_json(&self) -> Vec<u8> {
        let index = oci::ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(oci::MediaType::from(self.media_type.as_str()))
            .manifests(self.manifests.iter().map(Descriptor::as_oci).collect::<Vec<_>>())
            .build()
            .expect("all that an index needs is set");
        json::to_sorted_vec(&index)
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
