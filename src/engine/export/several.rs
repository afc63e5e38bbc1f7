//! Pushes a pulled index as it came: every document and blob byte for byte, the index last.
//!
//! What a newcomer would get wrong: a registry takes an index only when it has all that the index names. What was not pulled
//! may be there already; where it is not, an index of the rest is made, which is another one with another digest.

use serde_json::Value;

use super::push::{Part, Pushed};
use super::{ExportError, Exported, Exporter};
use crate::digest::Digest;
use crate::engine::request::PushAs;
use crate::engine::sources::{BlobPlace, BlobRef, Several};
use crate::image::json;
use crate::image::manifest::{DOCUMENT_MAX_BYTES, Descriptor, Document, Index, media};
use crate::image::reference::Reference;
use crate::image::select::{INDEX_DEPTH_MAX, is_attestation};
use crate::registry::{Client, Repository};

impl Exporter<'_> {
    /// Pushes the index that `several` came with. Returns what it did, and what for was left out.
    pub fn push_index(
        &self,
        several: &Several,
        index: &Digest,
        to: &Reference,
        client: &Client,
    ) -> Result<(Pushed, Vec<String>), ExportError> {
        let repository = Repository { host: to.domain().into(), path: to.path().into() };
        let (bytes, parsed) = self.index(index)?;
        let (mut whole, mut missing) = (Part::default(), Vec::new());
        for entry in &parsed.manifests {
            let mut part = Part::default();
            if self.gather(entry, 0, &mut part)? {
                whole.append(part);
            } else {
                missing.push(entry);
            }
        }
        let there = |entry: &&Descriptor| {
            let failed = |source| ExportError::Push { name: to.familiar(), source: Box::new(source) };
            client.has_document(&repository, &entry.digest, &entry.media_type).map_err(failed)
        };
        let absent = missing.iter().map(|e| there(e).map(|is| (!is).then_some(e.digest))).collect::<Result<Vec<_>, _>>()?;
        let absent: Vec<Digest> = absent.into_iter().flatten().collect();
        let (media_type, bytes) = (parsed.media_type.clone(), if absent.is_empty() { bytes } else { without(&bytes, &absent) });
        let manifest = Descriptor::of(&media_type, &bytes);
        whole.documents.push((manifest.clone(), bytes));
        let exported = Exported { manifest, names: Vec::new() };
        let pushed = self.push_part(&whole, exported, &several.images, to, PushAs::Tag, client)?;
        let images = parsed.manifests.iter().filter(|e| absent.contains(&e.digest) && !is_attestation(e));
        Ok((pushed, images.map(|e| e.platform.as_ref().map_or_else(|| e.digest.to_string(), ToString::to_string)).collect()))
    }

    fn index(&self, digest: &Digest) -> Result<(Vec<u8>, Index), ExportError> {
        let bytes = self.store.read_blob(digest, DOCUMENT_MAX_BYTES)?;
        match Document::parse(&bytes, None) {
            Ok(Document::Index(index)) => Ok((bytes, index)),
            _ => Err(ExportError::NoIndex { digest: *digest }),
        }
    }

    /// Adds a document of the store with all that it names; no: a part of it is not here.
    fn gather(&self, entry: &Descriptor, depth: usize, part: &mut Part) -> Result<bool, ExportError> {
        if depth > INDEX_DEPTH_MAX || !self.store.has_blob(&entry.digest)? {
            return Ok(false);
        }
        let bytes = self.store.read_blob(&entry.digest, DOCUMENT_MAX_BYTES)?;
        match Document::parse(&bytes, Some(&entry.media_type)) {
            Ok(Document::Manifest(manifest)) => {
                for descriptor in std::iter::once(manifest.config).chain(manifest.layers) {
                    if !self.store.has_blob(&descriptor.digest)? {
                        return Ok(false);
                    }
                    part.blobs.push(BlobRef { descriptor, place: BlobPlace::Store, original: true });
                }
            }
            Ok(Document::Index(index)) => {
                for nested in &index.manifests {
                    if !self.gather(nested, depth + 1, part)? {
                        return Ok(false);
                    }
                }
            }
            Err(_) => return Ok(false),
        }
        part.documents.push((entry.clone(), bytes));
        Ok(true)
    }
}

/// Returns an index without some of its entries, and without what is about these.
fn without(index: &[u8], absent: &[Digest]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(index).unwrap_or_default();
    let text = |v: Option<&Value>| v.and_then(Value::as_str).and_then(|d| d.parse::<Digest>().ok());
    let gone = |entry: &Value| {
        let about = text(entry.pointer("/annotations/vnd.docker.reference.digest"));
        text(entry.get("digest")).into_iter().chain(about).any(|d| absent.contains(&d))
    };
    if let Some(entries) = value.get_mut("manifests").and_then(Value::as_array_mut) {
        entries.retain(|entry| !gone(entry));
    }
    if value.get("mediaType").is_none() {
        value["mediaType"] = media::OCI_INDEX.into();
    }
    json::to_sorted_vec(&value)
}
