//! The one form of a shared cache's objects: an OCI image manifest whose configuration is the object's body.
//!
//! Registries keep manifests and blobs and nothing else, so that is what an object is: its blobs are the manifest's layers,
//! its body the configuration, repeated in the descriptor's `data`, so that one request brings all that a lookup needs. The
//! same bytes serve in a directory.
//!
//! Pure. What comes from outside is narrowed here: kinds that are known, digests that are SHA-256, bodies that have the
//! digest that they are said to have.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::digest::{CacheKey, Digest};
use crate::image::json;
use crate::image::manifest::{DOCUMENT_MAX_BYTES, Descriptor, media};

/// A larger body is not repeated in the manifest: registries accept manifests of 4 MiB.
const EMBEDDED_MAX_BYTES: usize = 1 << 20;

/// What an object is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // see the module's table
pub enum Kind {
    Record,
    Selection,
    Places,
    Plan,
    Mount,
}

impl Kind {
    /// Returns its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Record => "application/vnd.plywood.cache.record.v1+json",
            Self::Selection => "application/vnd.plywood.cache.selection.v1+json",
            Self::Places => "application/vnd.plywood.cache.places.v1+json",
            Self::Plan => "application/vnd.plywood.cache.plan.v1+json",
            Self::Mount => "application/vnd.plywood.cache.mount.v1+json",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "record",
            Self::Selection => "selection",
            Self::Places => "places",
            Self::Plan => "plan",
            Self::Mount => "mount",
        })
    }
}

/// An object that can't be taken for what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// No JSON, or a field of a wrong type.
    #[error("the object's manifest is malformed")]
    Malformed(#[source] serde_json::Error),
    /// Something else lies under the tag.
    #[error("the object is `{found}`, not a {wanted}")]
    Kind {
        /// What was looked for.
        wanted: Kind,
        /// What its configuration's media type says.
        found: String,
    },
    /// The body in the manifest is not the one that the manifest names.
    #[error("the object's body is not what its digest {0} says")]
    Digest(Digest),
    /// The body has another form.
    #[error("the object's body is malformed")]
    Body(#[source] serde_json::Error),
    /// It is of another key than the one that it was found under.
    #[error("the record is of another step than {0}")]
    OtherKey(CacheKey),
    /// It has too few blobs, or too many.
    #[error("the {kind} has {found} blobs")]
    Blobs {
        /// What it is.
        kind: Kind,
        /// How many.
        found: usize,
    },
    /// Its blob is no layer.
    #[error("the record's blob has the media type `{0}`, which is no layer's")]
    NoLayer(String),
    /// A part is larger than what is read.
    #[error("the object's part {digest} has {size} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit_bytes: u64,
    },
}

/// An object to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is about.
    pub kind: Kind,
    /// What it says.
    pub body: Vec<u8>,
    /// What belongs to it.
    pub blobs: Vec<Descriptor>,
}

/// An object as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The body; its bytes may have come along.
    pub body: Descriptor,
    /// The body's bytes, of the right digest; none: they are a blob.
    pub embedded: Option<Vec<u8>>,
    /// The other blobs.
    pub blobs: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Named,
    layers: Vec<Named>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

impl Named {
    fn of(d: &Descriptor, data: Option<&[u8]>) -> Self {
        Self { media_type: d.media_type.clone(), digest: d.digest, size: d.size, data: data.map(|bytes| STANDARD.encode(bytes)) }
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest, self.size)
    }
}

impl Object {
    /// Returns the body's descriptor.
    pub fn body_descriptor(&self) -> Descriptor {
        Descriptor::of(self.kind.media_type(), &self.body)
    }

    /// Returns the manifest. All that it names must be there before it.
    pub fn manifest(&self) -> Vec<u8> {
        let body = self.body_descriptor();
        let embedded = (self.body.len() <= EMBEDDED_MAX_BYTES).then_some(self.body.as_slice());
        // Registries want one layer at least: an object without any names its body again.
        let layers =
            if self.blobs.is_empty() { vec![Named::of(&body, None)] } else { self.blobs.iter().map(|d| Named::of(d, None)).collect() };
        json::to_sorted_vec(&Manifest {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.into(),
            artifact_type: self.kind.media_type().into(),
            config: Named::of(&body, embedded),
            layers,
        })
    }
}

impl Parts {
    /// Reads a manifest in which an object of this kind is expected.
    pub fn parse(wanted: Kind, manifest: &[u8]) -> Result<Self, ObjectError> {
        let value = json::parse_strict(manifest).map_err(ObjectError::Malformed)?;
        let Manifest { config, layers, .. } = serde_json::from_value(value).map_err(ObjectError::Malformed)?;
        if config.media_type != wanted.media_type() {
            return Err(ObjectError::Kind { wanted, found: config.media_type.chars().take(100).collect() });
        }
        let body = config.descriptor();
        if body.size > DOCUMENT_MAX_BYTES {
            return Err(ObjectError::TooLarge { digest: body.digest, size: body.size, limit_bytes: DOCUMENT_MAX_BYTES });
        }
        let wrong = || ObjectError::Digest(body.digest);
        let embedded = config.data.map(|text| STANDARD.decode(text).map_err(|_| wrong())).transpose()?;
        if embedded.as_ref().is_some_and(|bytes| bytes.len() as u64 != body.size || Digest::of(bytes) != body.digest) {
            return Err(wrong());
        }
        let blobs = layers.iter().map(Named::descriptor).filter(|d| d.digest != body.digest).collect();
        Ok(Self { body, embedded, blobs })
    }
}
