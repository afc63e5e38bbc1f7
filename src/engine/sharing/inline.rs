//! Records in an image's own configuration: written into the images that a build makes, read from an image that
//! `--cache-from` names.

use std::collections::HashMap;

use super::place::{Place, SharingError};
use super::{Sharing, Source};
use crate::cache::index::Index as _;
use crate::cache::remote::SharedRecord;
use crate::cache::remote::inline::{self, InlineRecord};
use crate::digest::CacheKey;
use crate::engine::error::BuildError;
use crate::engine::session::Build;
use crate::image::config::ImageConfig;
use crate::image::manifest::{Descriptor, Document, Manifest};
use crate::registry::RegistryError;

/// No image has that many platforms; of more no records are read.
const MANIFESTS_MAX: usize = 32;

impl Sharing<'_> {
    /// Returns the records of the image that a source's name leads to. Asked once.
    pub(super) fn inline_records<'s>(&self, source: &'s Source<'_>) -> &'s HashMap<CacheKey, SharedRecord> {
        source.inline.get_or_init(|| match &source.place {
            Place::Directory(_) => HashMap::new(),
            Place::Registry { .. } => match of_image(source) {
                Ok(found) => found.into_iter().map(|r| (r.record.key, r)).collect(),
                Err(e) => {
                    self.give_up(source, &e);
                    HashMap::new()
                }
            },
        })
    }
}

/// Reads an image's records, those of all its platforms; what is no image has none.
fn of_image(source: &Source<'_>) -> Result<Vec<SharedRecord>, SharingError> {
    let Some(bytes) = source.place.manifest(&source.name)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    match Document::parse(&bytes, None) {
        Ok(Document::Manifest(manifest)) => found.extend(of_manifest(source, &manifest)?),
        Ok(Document::Index(index)) => {
            for entry in index.manifests.iter().take(MANIFESTS_MAX) {
                let bytes = source.place.manifest(&entry.digest.to_string())?;
                if let Some(Ok(Document::Manifest(manifest))) = bytes.map(|b| Document::parse(&b, None)) {
                    found.extend(of_manifest(source, &manifest)?);
                }
            }
        }
        // Another program's cache, perhaps.
        Err(_) => {}
    }
    Ok(found)
}

fn of_manifest(source: &Source<'_>, manifest: &Manifest) -> Result<Vec<SharedRecord>, SharingError> {
    let bytes = match source.place.small_blob(&manifest.config) {
        Ok(bytes) => bytes,
        Err(SharingError::Registry(RegistryError::NotFound { .. } | RegistryError::TooLarge { .. })) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes) else { return Ok(Vec::new()) };
    let layers: Vec<Descriptor> = manifest.layers.iter().filter(|d| d.layer_packing().is_some()).cloned().collect();
    // Layers that are no file systems would shift the others.
    if layers.len() != manifest.layers.len() || layers.len() != config.rootfs.diff_ids.len() {
        return Ok(Vec::new());
    }
    Ok(inline::extract(&config.rest, &config.rootfs.diff_ids, &layers))
}

impl Build<'_> {
    /// Puts the records of an image's steps into its configuration, if that was asked for; records that came with its base
    /// are not its own and go.
    ///
    /// `first`: how many of its layers are the base's.
    pub fn embed_records(&self, config: &mut ImageConfig, first: usize, nodes: &[crate::graph::NodeId]) -> Result<(), BuildError> {
        let mut records = Vec::new();
        for (n, node) in nodes.iter().enumerate().filter(|_| self.sharing.inline) {
            let result = self.result(*node);
            let (Some(key), Some(layer)) = (result.key, result.layer) else { continue };
            let Some(record) = self.record_of(&key)?.filter(|r| r.layer == layer.id) else { continue };
            let (_, tar_bytes) = self.diff_id(&layer.id)?;
            records.push(InlineRecord { record, layer: first + n, clamp_epoch: self.epoch, tar_bytes, empty: layer.empty });
        }
        inline::embed(&mut config.rest, records);
        Ok(())
    }

    fn record_of(&self, key: &CacheKey) -> Result<Option<crate::cache::record::Record>, BuildError> {
        let found = self.engine.store.lookup(key).map_err(|e| BuildError::caused("asking the cache", &e))?;
        Ok(match found {
            Some(found) => Some(found),
            None => self.sharing.lookup(key).map_err(|e| BuildError::caused("asking the shared caches", &e))?,
        })
    }
}
