//! One image, for one or several platforms, with all its documents: what archives and registries get.
//!
//! An image that came with a manifest leaves with the same one, and so the same digest, as long as the store has all
//! blobs that it names and nothing else is asked for. Everything else gets a manifest made from the image alone.

use std::borrow::Cow;

use super::{ExportError, Exported, Exporter, FinishedImage, LayerSource, pack};
use crate::digest::Digest;
use crate::engine::request::{Came, MediaTypes, Packing};
use crate::engine::sources::BlobRef;
use crate::image::manifest::{Descriptor, Document, Index, Manifest, media};
use crate::image::reference::Reference;

/// An image's documents, and the blobs that they name.
pub(super) struct Bundle<'a> {
    pub exported: Exported,
    /// Manifests, configurations, and the index of several images, each after what it names.
    pub documents: Vec<(Descriptor, Cow<'a, [u8]>)>,
    /// The layers of all images.
    pub blobs: Vec<BlobRef>,
}

impl Exporter<'_> {
    /// Puts together what `images`, one image for several platforms, consist of. They go out under the names of the first
    /// and `names`.
    pub(super) fn bundle<'i>(&self, images: &'i [FinishedImage], packing: Packing, names: &[String]) -> Result<Bundle<'i>, ExportError> {
        let (mut documents, mut blobs, mut manifests) = (Vec::new(), Vec::new(), Vec::new());
        for image in images {
            manifests.push(self.add(image, packing, &mut documents, &mut blobs)?);
        }
        let (index_type, _, _) = types_of(packing.types);
        let manifest = match <[Descriptor; 1]>::try_from(manifests) {
            Ok([only]) => only,
            Err(manifests) => {
                let index = Index { media_type: index_type.into(), manifests }.to_json();
                let descriptor = Descriptor::of(index_type, &index);
                documents.push((descriptor.clone(), index.into()));
                descriptor
            }
        };
        let names = images.first().map(|image| all_names(image, names)).unwrap_or_default();
        Ok(Bundle { exported: Exported { manifest, names }, documents, blobs })
    }

    /// Adds one image, and returns its manifest.
    fn add<'i>(
        &self,
        image: &'i FinishedImage,
        packing: Packing,
        documents: &mut Vec<(Descriptor, Cow<'i, [u8]>)>,
        all_blobs: &mut Vec<BlobRef>,
    ) -> Result<Descriptor, ExportError> {
        if let Some((manifest, bytes, blobs)) = as_it_came(image, packing) {
            let mut descriptor = Descriptor::of(&manifest.media_type, bytes);
            descriptor.platform = Some(image.platform.clone());
            documents.extend([(manifest.config, image.config.as_slice().into()), (descriptor.clone(), bytes.into())]);
            all_blobs.extend(blobs);
            return Ok(descriptor);
        }
        let blobs = pack::pack_all(self, image, packing)?;
        let (_, manifest_type, config_type) = types_of(packing.types);
        let config = Descriptor::of(config_type, &image.config);
        let manifest = Manifest {
            media_type: manifest_type.into(),
            config: config.clone(),
            layers: blobs.iter().map(|b| pack::under(packing.types, &b.descriptor)).collect(),
        };
        let manifest_bytes = manifest.to_json();
        let mut descriptor = Descriptor::of(manifest_type, &manifest_bytes);
        descriptor.platform = Some(image.platform.clone());
        documents.extend([(config, image.config.as_slice().into()), (descriptor.clone(), manifest_bytes.into())]);
        all_blobs.extend(blobs);
        Ok(descriptor)
    }
}

/// The media types of an index, a manifest and a configuration.
fn types_of(types: MediaTypes) -> (&'static str, &'static str, &'static str) {
    match types {
        MediaTypes::Oci => (media::OCI_INDEX, media::OCI_MANIFEST, media::OCI_CONFIG),
        MediaTypes::Docker => (media::DOCKER_INDEX, media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
    }
}

/// Returns the manifest that an image came with, and its layers' blobs, if they are all here and may leave so.
pub(super) fn as_it_came(image: &FinishedImage, packing: Packing) -> Option<(Manifest, &[u8], Vec<BlobRef>)> {
    let bytes = image.manifest.as_deref()?;
    let Ok(Document::Manifest(manifest)) = Document::parse(bytes, None) else { return None };
    if packing.types == MediaTypes::Docker && manifest.media_type != media::DOCKER_MANIFEST {
        return None;
    }
    let named = manifest.config.digest == Digest::of(&image.config) && manifest.layers.len() == image.layers.len();
    let blobs = manifest.layers.iter().zip(&image.layers).map(|(wanted, layer)| match &layer.source {
        LayerSource::Blob(blob)
            if blob.descriptor.digest == wanted.digest && (packing.came == Came::Stay || pack::fits(blob, None, packing)) =>
        {
            Some(BlobRef { descriptor: wanted.clone(), ..blob.clone() })
        }
        _ => None,
    });
    let blobs: Vec<BlobRef> = blobs.collect::<Option<_>>()?;
    named.then_some((manifest, bytes, blobs))
}

fn all_names(image: &FinishedImage, more: &[String]) -> Vec<String> {
    let mut names = image.names.clone();
    for name in more {
        // What is no reference was refused before; here it is kept as it is.
        let name = Reference::parse(name).map_or_else(|_| name.clone(), |r| r.tagged().to_string());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
