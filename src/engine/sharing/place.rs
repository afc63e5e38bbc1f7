//! Where a shared cache lies: a registry's repository, or a directory.
//!
//! ```text
//! DIR/objects/<tag>          what a registry has as a manifest under a tag
//! DIR/blobs/sha256/<hex>     bytes, named by their hash
//! ```
//!
//! Files appear whole, by a rename, and no file lists others: any number of builds may write at once. Both kinds are
//! outside: what is read is verified wherever it has a digest, and judged by [`crate::cache::remote`] where it has none.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::cache::remote::object::{Kind, Object, ObjectError, Parts};
use crate::digest::Digest;
use crate::engine::export::ExportError;
use crate::engine::sources::{BlobPlace, BlobRef, SourceError};
use crate::fsio::{self, Durability};
use crate::image::manifest::{DOCUMENT_MAX_BYTES, Descriptor, media};
use crate::layer::LayerError;
use crate::registry::{Client, RegistryError, Repository, Sent};
use crate::store::{Store, StoreError, VerifyingReader};

/// A failure of a shared cache.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub(in crate::engine) enum SharingError {
    #[error("asking the registry")]
    Registry(#[from] RegistryError),
    #[error("{doing} `{path}`")]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("reading an object")]
    Object(#[from] ObjectError),
    #[error("using the store")]
    Store(#[from] StoreError),
    #[error("packing a layer")]
    Pack(#[from] ExportError),
    #[error("reading a layer")]
    Source(#[from] SourceError),
    #[error("reading the layer {layer}")]
    Layer { layer: crate::digest::LayerId, source: LayerError },
    #[error("reading or writing a cache mount")]
    Mount { source: LayerError },
    #[error("the layer {layer} is not what its record says: {found}")]
    Lie { layer: crate::digest::LayerId, found: String },
    #[error("{0}")]
    Build(String),
}

impl SharingError {
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { doing, path, source }
    }
}

/// Where objects and blobs are.
#[derive(Debug)]
pub(in crate::engine) enum Place<'a> {
    Registry { client: &'a Client, repository: Repository },
    Directory(PathBuf),
}

impl Place<'_> {
    /// Returns what messages call it.
    pub fn shown(&self) -> String {
        match self {
            Self::Registry { repository, .. } => format!("{}/{}", repository.host, repository.path),
            Self::Directory(dir) => dir.display().to_string(),
        }
    }

    /// Returns whether both are one place.
    pub fn is(&self, other: &Place<'_>) -> bool {
        match (self, other) {
            (Self::Registry { repository: a, .. }, Place::Registry { repository: b, .. }) => a == b,
            (Self::Directory(a), Place::Directory(b)) => a == b,
            _ => false,
        }
    }

    /// Returns the object under a tag, with its body: one request, if the body is not large. None: there is none.
    pub fn object(&self, kind: Kind, tag: &str) -> Result<Option<(Parts, Vec<u8>)>, SharingError> {
        let Some(manifest) = self.manifest(tag)? else { return Ok(None) };
        let mut parts = Parts::parse(kind, &manifest)?;
        let body = match parts.embedded.take() {
            Some(body) => body,
            None => self.small_blob(&parts.body)?,
        };
        Ok(Some((parts, body)))
    }

    /// Returns the document under a tag; none: there is none.
    pub fn manifest(&self, tag: &str) -> Result<Option<Vec<u8>>, SharingError> {
        match self {
            Self::Registry { client, repository } => match client.document(repository, tag) {
                Ok(found) => Ok(Some(found.bytes)),
                Err(RegistryError::NotFound { .. }) => Ok(None),
                Err(e) => Err(e.into()),
            },
            Self::Directory(dir) => {
                let path = dir.join("objects").join(tag);
                let file = match File::open(&path) {
                    Ok(file) => file,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(SharingError::file("opening", &path)(e)),
                };
                let mut bytes = Vec::new();
                file.take(DOCUMENT_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(SharingError::file("reading", &path))?;
                Ok(Some(bytes))
            }
        }
    }

    /// Writes an object; its blobs were put before. What lay under the tag is replaced.
    pub fn put(&self, tag: &str, object: &Object) -> Result<(), SharingError> {
        let body = object.body_descriptor();
        self.put_blob(&body, &[], &|from| {
            let mut bytes = io::Cursor::new(object.body.clone());
            bytes.seek(SeekFrom::Start(from))?;
            Ok(Box::new(bytes))
        })?;
        let manifest = object.manifest();
        match self {
            Self::Registry { client, repository } => Ok(client.push_document(repository, tag, media::OCI_MANIFEST, &manifest)?),
            Self::Directory(dir) => {
                let path = dir.join("objects").join(tag);
                make_parent(&path)?;
                fsio::write_atomic(&path, &manifest, 0o644, Durability::Synced)
                    .map_err(|e| SharingError::file("writing", &path)(io::Error::other(e)))
            }
        }
    }

    /// Makes sure that a blob is there. `mount` names repositories of the same registry that may have it.
    pub fn put_blob(&self, blob: &Descriptor, mount: &[String], open: &crate::registry::BlobSource<'_>) -> Result<Sent, SharingError> {
        match self {
            Self::Registry { client, repository } => Ok(client.push_blob(repository, blob, mount, open, &|_| {})?),
            Self::Directory(dir) => {
                let path = blob_path(dir, &blob.digest);
                if std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() == blob.size) {
                    return Ok(Sent::Present);
                }
                make_parent(&path)?;
                write_blob(&path, blob, open).map_err(SharingError::file("writing", &path))?;
                Ok(Sent::Uploaded)
            }
        }
    }

    /// Returns a small blob's verified bytes.
    pub fn small_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, SharingError> {
        match self {
            Self::Registry { client, repository } => Ok(client.small_blob(repository, blob)?),
            Self::Directory(dir) => {
                if blob.size > DOCUMENT_MAX_BYTES {
                    let (digest, size) = (blob.digest, blob.size);
                    return Err(ObjectError::TooLarge { digest, size, limit_bytes: DOCUMENT_MAX_BYTES }.into());
                }
                let path = blob_path(dir, &blob.digest);
                let mut bytes = Vec::new();
                let read = File::open(&path).and_then(|f| VerifyingReader::new(f, blob.digest, blob.size).read_to_end(&mut bytes));
                read.map_err(SharingError::file("reading", &path))?;
                Ok(bytes)
            }
        }
    }

    /// Brings a blob into the store, verified.
    pub fn fetch(&self, store: &Store, blob: &Descriptor, watch: &mut dyn FnMut(u64) -> io::Result<()>) -> Result<(), SharingError> {
        if store.has_blob(&blob.digest)? {
            return Ok(());
        }
        let mut reader: Box<dyn Read> = match self {
            Self::Registry { client, repository } => Box::new(client.open_blob(repository, blob)),
            Self::Directory(dir) => {
                let path = blob_path(dir, &blob.digest);
                Box::new(File::open(&path).map_err(SharingError::file("opening", &path))?)
            }
        };
        let mut watched = Watched { inner: &mut reader, done: 0, watch };
        match store.put_blob(&mut watched, Some((&blob.digest, blob.size))) {
            Ok(_) => Ok(()),
            // The registry's own error, which the store met while reading.
            Err(StoreError::Io { source, .. }) if source.get_ref().is_some_and(|e| e.is::<RegistryError>()) => {
                Err(RegistryError::from_io(source, || blob.digest.to_string()).into())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Names a blob where it is, for an export that may not need its bytes.
    pub fn blob(&self, blob: &Descriptor) -> BlobRef {
        let place = match self {
            Self::Registry { repository, .. } => BlobPlace::Repository(repository.clone()),
            Self::Directory(dir) => BlobPlace::File { path: blob_path(dir, &blob.digest), offset: 0 },
        };
        BlobRef { descriptor: blob.clone(), place, original: false }
    }

    /// Returns the repositories of this registry in which a blob may be had without sending it.
    pub fn mounts(&self, blob: &BlobRef) -> Vec<String> {
        match (self, &blob.place) {
            (Self::Registry { repository, .. }, BlobPlace::Repository(from)) if from.host == repository.host && from != repository => {
                vec![from.path.clone()]
            }
            _ => Vec::new(),
        }
    }
}

struct Watched<'w, R> {
    inner: R,
    done: u64,
    watch: &'w mut dyn FnMut(u64) -> io::Result<()>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.watch)(self.done)?;
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        Ok(n)
    }
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

fn make_parent(path: &Path) -> Result<(), SharingError> {
    let dir = path.parent().expect("the path was joined");
    std::fs::create_dir_all(dir).map_err(SharingError::file("making", dir))
}

/// Writes a blob beside its place, and renames it once its bytes have proven to be the right ones.
fn write_blob(path: &Path, blob: &Descriptor, open: &crate::registry::BlobSource<'_>) -> io::Result<()> {
    let dir = path.parent().expect("the path was joined");
    let mut temp = fsio::temp_file_in(dir, ".blob", "", 0o600)?;
    io::copy(&mut VerifyingReader::new(open(0)?, blob.digest, blob.size), &mut temp)?;
    rustix::fs::fchmod(temp.as_file(), rustix::fs::Mode::from_raw_mode(0o644))?;
    temp.as_file().sync_all()?;
    temp.persist(path).map(drop).map_err(|e| e.error)
}
