//! From a tag's document down to one image: indexes, manifest, configuration, each verified.
//!
//! The same for registries, layouts and the store; only how a document is fetched differs.

use crate::digest::Digest;
use crate::image::config::ImageConfig;
use crate::image::json;
use crate::image::manifest::{DOCUMENT_MAX_BYTES, Descriptor, Document, Manifest, media};
use crate::image::platform::Platform;
use crate::image::select::{self, INDEX_DEPTH_MAX};

use super::SourceError;

/// Where documents and configurations are fetched.
pub(super) trait Fetch {
    /// For messages.
    fn origin(&self) -> String;
    /// Returns a manifest's or index's bytes, at most [`DOCUMENT_MAX_BYTES`]; need not verify them.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError>;
    /// Returns a configuration's bytes; need not verify them.
    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError>;
}

/// An image, all documents verified.
#[derive(Debug)]
pub(super) struct Found {
    pub manifest: Manifest,
    pub manifest_bytes: Vec<u8>,
    pub digest: Digest,
    pub config: ImageConfig,
    pub config_bytes: Vec<u8>,
}

/// Finds the image for `platform` below `top`, whose bytes may be at hand.
pub(super) fn descend(from: &dyn Fetch, top: Descriptor, bytes: Option<Vec<u8>>, platform: &Platform) -> Result<Found, SourceError> {
    let mut at = top;
    let mut bytes = bytes;
    for _ in 0..=INDEX_DEPTH_MAX {
        let text = match bytes.take() {
            Some(text) => text,
            None => from.document(&at)?,
        };
        verify(from, "the document", &at, &text)?;
        let announced = (!at.media_type.is_empty()).then_some(at.media_type.as_str());
        let document = Document::parse(&text, announced).map_err(|source| SourceError::Document {
            origin: from.origin(),
            digest: at.digest,
            source,
        })?;
        match document {
            Document::Manifest(manifest) => return finish(from, manifest, text, at.digest),
            Document::Index(index) => {
                let chosen = select::select(&index, platform);
                at = chosen.map_err(|source| SourceError::Platform { origin: from.origin(), source: Box::new(source) })?.clone();
            }
        }
    }
    Err(SourceError::TooDeep { origin: from.origin(), limit: INDEX_DEPTH_MAX })
}

fn finish(from: &dyn Fetch, manifest: Manifest, manifest_bytes: Vec<u8>, digest: Digest) -> Result<Found, SourceError> {
    let origin = || from.origin();
    if !matches!(manifest.config.media_type.as_str(), media::OCI_CONFIG | media::DOCKER_CONFIG) {
        return Err(SourceError::NoImage { origin: origin(), media_type: manifest.config.media_type.chars().take(100).collect() });
    }
    manifest.require_layers().map_err(|source| SourceError::Document { origin: origin(), digest, source })?;
    let config_bytes = from.config(&manifest.config)?;
    verify(from, "the configuration", &manifest.config, &config_bytes)?;
    let config = parse_config(&config_bytes).map_err(|source| SourceError::Config { origin: origin(), source })?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(SourceError::LayerCount { origin: origin(), layers, diff_ids });
    }
    Ok(Found { manifest, manifest_bytes, digest, config, config_bytes })
}

/// Parses a configuration from outside.
pub(super) fn parse_config(bytes: &[u8]) -> Result<ImageConfig, serde_json::Error> {
    json::parse_strict(bytes)?;
    ImageConfig::parse(bytes)
}

/// Fails unless the bytes are the descriptor's. A size of 0 is not known: a bare digest was given.
pub(super) fn verify(from: &dyn Fetch, what: &'static str, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), SourceError> {
    if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
        return Err(SourceError::TooLarge { origin: from.origin(), what, limit: DOCUMENT_MAX_BYTES });
    }
    let (digest, expected) = (descriptor.digest, descriptor.size);
    let found = bytes.len() as u64;
    if found != expected && !(expected == 0 && descriptor.media_type.is_empty()) {
        return Err(SourceError::Size { origin: from.origin(), what, digest, expected, found });
    }
    let found = Digest::of(bytes);
    if found != digest {
        return Err(SourceError::Digest { origin: from.origin(), what, expected: digest, found });
    }
    Ok(())
}

/// Returns the platform that a configuration says.
pub(super) fn platform_of(config: &ImageConfig) -> Platform {
    Platform::new(&config.os, &config.architecture, config.variant.as_deref().unwrap_or_default())
}
