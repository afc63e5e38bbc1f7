//! Images of an OCI layout: a directory, or a tar file that holds one.
//!
//! Blobs are read where they lie: of a tar only the headers are looked at, and each blob is a range of the file.
//! Files of a layout are named by digests that were parsed, so no name in a document can lead out of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, LayerId};
use crate::image::layout::{self as documents, LayoutError};
use crate::image::manifest::{DOCUMENT_MAX_BYTES, Descriptor, Index};
use crate::image::platform::Platform;
use crate::layer::{EntryKind, LayerError, TarReader};

use super::descend::{self, Fetch};
use super::{BlobPlace, BlobRef, ResolvedImage, ResolvedLayer, SourceError};

/// The most entries of an archive that are looked at.
const ENTRIES_MAX: u64 = 100_000;
/// How many links of an archive are followed to a file.
const LINKS_MAX: usize = 8;

/// Resolves `tag` (a name or a digest) of the layout at `path`.
pub(super) fn resolve(path: &Path, tag: &str, platform: &Platform) -> Result<ResolvedImage, SourceError> {
    let layout = Layout::open(path)?;
    let index = layout.index()?;
    let top = documents::find(&index, tag).map_err(|source| layout.error(source))?;
    layout.image(top, platform, format!("oci-layout://{}:{tag}", path.display()))
}

/// A layout that is read.
#[derive(Debug)]
pub(super) enum Layout {
    Directory(PathBuf),
    Archive(Archive),
}

impl Layout {
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let meta = std::fs::metadata(path).map_err(SourceError::io(path))?;
        if meta.is_dir() { Ok(Self::Directory(path.into())) } else { Archive::scan(path).map(Self::Archive) }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Archive(archive) => &archive.path,
        }
    }

    fn error(&self, source: LayoutError) -> SourceError {
        SourceError::Layout { path: self.path().into(), source }
    }

    /// Reads `index.json`, after `oci-layout` if there is one (docker's archives of old have none).
    pub(super) fn index(&self) -> Result<Index, SourceError> {
        if let Some(version) = self.read("oci-layout")? {
            documents::check_version(&version).map_err(|e| self.error(e))?;
        }
        let text = self.read("index.json")?.ok_or_else(|| SourceError::NoLayout { path: self.path().into() })?;
        documents::parse_index(&text).map_err(|e| self.error(e))
    }

    /// Follows a descriptor of the index down to an image.
    pub(super) fn image(&self, top: Descriptor, platform: &Platform, origin: String) -> Result<ResolvedImage, SourceError> {
        let from = Blobs { layout: self, origin };
        let found = descend::descend(&from, top, None, platform)?;
        let mut layers = Vec::with_capacity(found.manifest.layers.len());
        for (descriptor, diff_id) in found.manifest.layers.iter().zip(&found.config.rootfs.diff_ids) {
            let place = self.place(&descriptor.digest).ok_or_else(|| from.missing("the layer", descriptor))?;
            let blob = BlobRef { descriptor: descriptor.clone(), place, original: true };
            layers.push(ResolvedLayer { id: LayerId::Diff(*diff_id), diff_id: *diff_id, blob: Some(blob) });
        }
        Ok(ResolvedImage {
            platform: descend::platform_of(&found.config),
            config: found.config,
            config_bytes: found.config_bytes,
            digest: found.digest,
            manifest: Some(found.manifest_bytes),
            layers,
            origin: from.origin,
        })
    }

    fn place(&self, digest: &Digest) -> Option<BlobPlace> {
        let name = blob_name(digest);
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                path.is_file().then_some(BlobPlace::File { path, offset: 0 })
            }
            Self::Archive(archive) => {
                let (offset, _) = archive.find(&name)?;
                Some(BlobPlace::File { path: archive.path.clone(), offset })
            }
        }
    }

    /// Reads a small file; none: not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                match File::open(&path) {
                    Ok(file) => read_capped(file, &path).map(Some),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(SourceError::io(&path)(e)),
                }
            }
            Self::Archive(archive) => archive.read(name),
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads one byte more than is allowed, so that the caller sees that it was too much.
fn read_capped(file: impl std::io::Read, path: &Path) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    file.take(DOCUMENT_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(SourceError::io(path))?;
    Ok(bytes)
}

struct Blobs<'a> {
    layout: &'a Layout,
    origin: String,
}

impl Blobs<'_> {
    fn missing(&self, what: &'static str, descriptor: &Descriptor) -> SourceError {
        SourceError::MissingBlob { origin: self.origin.clone(), what, digest: descriptor.digest }
    }
}

impl Fetch for Blobs<'_> {
    fn origin(&self) -> String {
        self.origin.clone()
    }
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        self.layout.read(&blob_name(&descriptor.digest))?.ok_or_else(|| self.missing("the document", descriptor))
    }
    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        self.layout.read(&blob_name(&descriptor.digest))?.ok_or_else(|| self.missing("the configuration", descriptor))
    }
}

/// A tar file whose entries are known by name and place.
#[derive(Debug)]
pub(super) struct Archive {
    pub path: PathBuf,
    entries: BTreeMap<String, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

impl Archive {
    /// Reads the headers of an uncompressed tar.
    pub(super) fn scan(path: &Path) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(SourceError::io(path))?;
        let mut entries = BTreeMap::new();
        let mut archive = TarReader::new(file);
        let failed = |source| SourceError::Archive { source };
        for n in 0.. {
            let Some(entry) = archive.next_entry().map_err(failed)? else { break };
            if n == ENTRIES_MAX {
                return Err(failed(LayerError::TooLarge { limit: ENTRIES_MAX, unit: "entries" }));
            }
            let offset = archive.position();
            archive.seek_over().map_err(failed)?;
            // Names that are no UTF-8 are no names of ours.
            let Ok(name) = String::from_utf8(crate::path::clean(&entry.path)) else { continue };
            // docker's archives of old share a layer's tar by links, relative to their own place.
            let link = |base: &str| {
                let joined = [base.as_bytes(), b"/", &entry.link].concat();
                Member::Link(String::from_utf8_lossy(&crate::path::clean(&joined)).into_owned())
            };
            let member = match entry.kind {
                EntryKind::File => Member::File { offset, size: entry.size },
                EntryKind::Symlink => link(name.rsplit_once('/').map_or("", |(dir, _)| dir)),
                EntryKind::HardLink => link(""),
                _ => continue,
            };
            entries.insert(name, member);
        }
        Ok(Self { path: path.into(), entries })
    }

    /// Returns where an entry's bytes begin, and how many they are.
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        for _ in 0..LINKS_MAX {
            match self.entries.get(name)? {
                Member::File { offset, size } => return Some((*offset, *size)),
                Member::Link(target) => name = target,
            }
        }
        None
    }

    /// Reads a small entry; none: not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let Some((offset, size)) = self.find(name) else { return Ok(None) };
        read_capped(self.open(offset, size)?, &self.path).map(Some)
    }

    /// Opens a range of the file.
    pub(super) fn open(&self, offset: u64, size: u64) -> Result<impl std::io::Read + use<>, SourceError> {
        let mut file = File::open(&self.path).map_err(SourceError::io(&self.path))?;
        file.seek(SeekFrom::Start(offset)).map_err(SourceError::io(&self.path))?;
        Ok(file.take(size))
    }
}
