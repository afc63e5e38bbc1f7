//! `ply load`: an OCI archive or layout, or a `docker save` archive, into the store with its names.
//!
//! Names in an archive are its maker's words; here they become names of the store, as `docker load` does, because
//! the user asked for exactly that. Nowhere else does image data become a name.

use std::io::{Read, Write as _};
use std::path::Path;

use crate::digest::{DiffId, Digest};
use crate::image::archive::{self as docker, Entry};
use crate::image::layout as documents;
use crate::image::manifest::{Descriptor, media};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::select;
use crate::layer::{self, Codec, LayerError};

use super::descend;
use super::keep::{self, Incoming};
use super::layout::{Archive, Layout};
use super::{BlobPlace, BlobRef, ResolvedImage, SourceError, Sources, Until, unpack};

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub image: Digest,
    /// The names that it has now because of the archive.
    pub names: Vec<String>,
}

impl Sources<'_> {
    /// Loads all images of an archive (compressed or not) or a layout directory.
    pub fn load(&self, path: &Path, platform: &Platform) -> Result<Vec<Loaded>, SourceError> {
        if path.is_dir() {
            return self.load_layout(&Layout::open(path)?, platform);
        }
        let mut file = std::fs::File::open(path).map_err(SourceError::io(path))?;
        let mut head = [0; 6];
        let n = file.read(&mut head).map_err(SourceError::io(path))?;
        let seekable = file.metadata().map_err(SourceError::io(path))?.is_file();
        if seekable && layer::sniff(&head[..n]) == Codec::Plain {
            return self.load_archive(path, platform);
        }
        self.load_stream(std::io::Cursor::new(head).take(n as u64).chain(file), platform)
    }

    /// Loads an archive that comes as a stream: it is written down first, since its index may come last.
    pub fn load_stream(&self, reader: impl Read + Send, platform: &Platform) -> Result<Vec<Loaded>, SourceError> {
        let failed = |source| SourceError::Archive { source: LayerError::Read { source } };
        let (_, mut plain) =
            layer::decompress(Until { inner: reader, progress: self.progress }, layer::Limits::default().max_bytes).map_err(failed)?;
        let staging = self.store.stage()?;
        let path = staging.path().join("archive.tar");
        let mut file = std::fs::File::create_new(&path).map_err(SourceError::io(&path))?;
        std::io::copy(&mut plain, &mut file).map_err(failed)?;
        file.flush().map_err(SourceError::io(&path))?;
        self.load_archive(&path, platform)
    }

    fn load_archive(&self, path: &Path, platform: &Platform) -> Result<Vec<Loaded>, SourceError> {
        let archive = Archive::scan(path)?;
        // An archive of docker 25 and later is both; docker's document has the names as people wrote them.
        if let Some(text) = archive.read("manifest.json")? {
            let malformed = |source| SourceError::ArchiveDocument { what: "manifest.json".into(), source };
            let entries = docker::parse(&text).map_err(malformed)?;
            return entries.iter().map(|e| self.load_entry(&archive, e)).collect();
        }
        if archive.find("index.json").is_none() {
            return Err(SourceError::NoArchive);
        }
        self.load_layout(&Layout::Archive(archive), platform)
    }

    fn load_layout(&self, layout: &Layout, platform: &Platform) -> Result<Vec<Loaded>, SourceError> {
        let index = layout.index()?;
        let mut loaded: Vec<Loaded> = Vec::new();
        for entry in index.manifests.iter().filter(|d| !select::is_attestation(d)) {
            let image = layout.image(entry.clone(), platform, format!("archive entry {}", entry.digest))?;
            let id = self.keep_resolved(&image)?;
            let names = self.name(&id, documents::names(entry).take(1))?;
            // One image under several names has several entries.
            match loaded.iter_mut().find(|l| l.image == id) {
                Some(known) => known.names.extend(names),
                None => loaded.push(Loaded { image: id, names }),
            }
        }
        Ok(loaded)
    }

    /// Copies a resolved image's blobs into the store, and the image with them; what is there already costs nothing.
    pub fn keep_resolved(&self, image: &ResolvedImage) -> Result<Digest, SourceError> {
        let is_file = |blob: &BlobRef| matches!(blob.place, BlobPlace::File { .. });
        if !image.layers.is_empty() && !image.layers.iter().filter_map(|l| l.blob.as_ref()).any(is_file) {
            // The store has it all, and knows it better: layers that were built here are directories without a blob.
            return Ok(Digest::of(&image.config_bytes));
        }
        let blobs = || image.layers.iter().filter_map(|l| l.blob.as_ref().map(|b| (l.diff_id, b)));
        let incoming = Incoming {
            config: &image.config_bytes,
            manifest: image.manifest.as_deref(),
            platform: image.platform.clone(),
            layers: blobs().map(|(diff_id, b)| (diff_id, b.descriptor.clone())).collect(),
            name: &image.origin,
        };
        let open = |d: &Descriptor| match blobs().find(|(_, b)| b.descriptor.digest == d.digest) {
            Some((_, blob)) => unpack::open_blob(self.store, blob),
            None => Err(SourceError::MissingBlob { origin: image.origin.clone(), what: "the layer", digest: d.digest }),
        };
        keep::keep(self, &incoming, 2, &open)
    }

    /// Loads one image of docker's `manifest.json`. Its layers have no digests but the diff IDs: these are checked.
    fn load_entry(&self, archive: &Archive, entry: &Entry) -> Result<Loaded, SourceError> {
        let missing = |name: &str| SourceError::ArchiveEntry(name.chars().take(200).collect());
        let config_bytes = archive.read(&clean(&entry.config))?.ok_or_else(|| missing(&entry.config))?;
        let malformed = |source| SourceError::ArchiveDocument { what: entry.config.chars().take(200).collect(), source };
        let config = descend::parse_config(&config_bytes).map_err(malformed)?;
        let (layers, diff_ids) = (entry.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            return Err(SourceError::LayerCount { origin: entry.config.chars().take(200).collect(), layers, diff_ids });
        }
        let mut kept = Vec::with_capacity(layers);
        for (name, diff_id) in entry.layers.iter().zip(&config.rootfs.diff_ids) {
            let (offset, size) = archive.find(&clean(name)).ok_or_else(|| missing(name))?;
            kept.push((*diff_id, self.keep_layer(archive, offset, size, *diff_id)?));
        }
        let platform = descend::platform_of(&config);
        let incoming = Incoming { config: &config_bytes, manifest: None, platform, layers: kept, name: &entry.config };
        let gone = |d: &Descriptor| Err(SourceError::MissingBlob { origin: "the archive".into(), what: "the layer", digest: d.digest });
        let image = keep::keep(self, &incoming, 1, &gone)?;
        let names = self.name(&image, entry.repo_tags.iter().map(String::as_str))?;
        Ok(Loaded { image, names })
    }

    fn keep_layer(&self, archive: &Archive, offset: u64, size: u64, diff_id: DiffId) -> Result<Descriptor, SourceError> {
        let mut head = [0; 6];
        let n = archive.open(offset, size)?.read(&mut head).map_err(SourceError::io(&archive.path))?;
        let media_type = match layer::sniff(&head[..n]) {
            Codec::Gzip => media::OCI_LAYER_GZIP,
            Codec::Zstd => media::OCI_LAYER_ZSTD,
            _ => media::OCI_LAYER,
        };
        if media_type == media::OCI_LAYER {
            let digest = Digest::from_bytes(*diff_id.as_bytes());
            if !self.store.has_blob(&digest)? {
                self.store.put_blob(&mut archive.open(offset, size)?, Some((&digest, size)))?;
            }
            let descriptor = Descriptor::new(media_type, digest, size);
            keep::note_blob(self, &diff_id, &descriptor, "none")?;
            return Ok(descriptor);
        }
        let (digest, size) = self.store.put_blob(&mut archive.open(offset, size)?, None)?;
        let descriptor = Descriptor::new(media_type, digest, size);
        let blob = super::BlobRef { descriptor: descriptor.clone(), place: super::BlobPlace::Store, original: true };
        let found = unpack::diff_id_of(self.store, &blob)?;
        if found != diff_id {
            return Err(SourceError::DiffId { diff_id, found });
        }
        Ok(descriptor)
    }

    fn name<'a>(&self, image: &Digest, names: impl Iterator<Item = &'a str>) -> Result<Vec<String>, SourceError> {
        let mut given = Vec::new();
        // A bare tag (`latest`) names no repository.
        for name in names.filter(|n| n.contains([':', '/'])) {
            let name = Reference::parse(name)?.tagged().to_string();
            self.store.tag(&name, image)?;
            given.push(name);
        }
        Ok(given)
    }
}

fn clean(name: &str) -> String {
    String::from_utf8_lossy(&crate::path::clean(name.as_bytes())).into_owned()
}
