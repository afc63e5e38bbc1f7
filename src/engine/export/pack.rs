//! A layer's blob as an export wants it: the one that is there, or a new one that is kept in the store.
//!
//! What a base image brought stays as it is unless it is forced into another form. A layer of ours is compressed once;
//! the store remembers the blob by its diff ID and the parameters, so the next export of any image with it only copies.
//! While a layer is compressed its tar is hashed: a directory that changed behind our back is an error and never an
//! image whose diff IDs lie.

use std::io::{self, Read, Write};

use super::{ExportError, Exporter, FinishedImage, FinishedLayer, LayerSource};
use crate::digest::{DiffId, Digest};
use crate::engine::request::{Came, Compression, MediaTypes, Packing};
use crate::engine::sources::{BlobPlace, BlobRef, ORIGINAL, Progress, open_blob, open_unverified};
use crate::image::manifest::{Descriptor, LayerPacking, media};
use crate::layer::{self, LayerError, Limits, compress};
use crate::path::Root;
use crate::snapshot::diff;
use crate::store::LayerBlob;

const CHUNK: usize = 256 << 10;

/// How many layers are packed at once; the compression of each uses all processors besides.
const PARALLEL: usize = 2;

/// Finds or makes the blobs of all layers, in order; their media types are OCI's.
pub(super) fn pack_all(exporter: &Exporter<'_>, image: &FinishedImage, wanted: Packing) -> Result<Vec<BlobRef>, ExportError> {
    let places: Vec<_> = image.layers.iter().map(|layer| (layer, std::sync::OnceLock::new())).collect();
    crate::engine::sources::side_by_side(&places, PARALLEL, &|(layer, place)| {
        let blob = pack(exporter, layer, wanted)?;
        // Each place is set once.
        let _ = place.set(blob);
        Ok::<(), ExportError>(())
    })?;
    Ok(places.into_iter().map(|(_, place)| place.into_inner().expect("all layers were packed")).collect())
}

/// Finds or makes one layer's blob.
pub(in crate::engine) fn pack(exporter: &Exporter<'_>, layer: &FinishedLayer, wanted: Packing) -> Result<BlobRef, ExportError> {
    let known = exporter.store.layer_blobs(&layer.diff_id)?;
    let label = label(wanted.compression);
    if let LayerSource::Blob(blob) = &layer.source {
        let labels = || known.iter().filter(|k| k.digest == blob.descriptor.digest).map(|k| k.compression.as_str());
        if fits(blob, labels().find(|l| *l == label).or_else(|| labels().next()), wanted) {
            return Ok(BlobRef { descriptor: under(MediaTypes::Oci, &blob.descriptor), ..blob.clone() });
        }
    }
    let wanted = wanted.compression;
    for known in known {
        if known.compression == label && exporter.store.has_blob(&known.digest)? {
            return Ok(kept(&known.digest, known.size_bytes, wanted));
        }
    }
    let task = exporter.progress.begin(format!("compress layer {}", &layer.diff_id.hex()[..12]));
    let made = make(exporter, layer, wanted);
    exporter.progress.end(task);
    let (digest, size_bytes) = made?;
    let blob = LayerBlob { digest, size_bytes, media_type: media_type(wanted).into(), compression: label };
    exporter.store.put_layer_blob(&layer.diff_id, blob)?;
    Ok(kept(&digest, size_bytes, wanted))
}

/// Whether a blob goes out as it is. `made` is the label under which it was made, where that is known.
pub(in crate::engine) fn fits(blob: &BlobRef, made: Option<&str>, wanted: Packing) -> bool {
    let same_kind = blob.descriptor.layer_packing() == Some(packing(wanted.compression));
    let plain = wanted.compression == Compression::Uncompressed;
    match (blob.original, wanted.came) {
        (true, Came::Stay) => true,
        (true, Came::OtherKinds) => same_kind,
        (true, Came::Anew) => same_kind && plain,
        (false, _) => same_kind && (plain || made.is_none_or(|m| m == ORIGINAL || m == label(wanted.compression))),
    }
}

fn kept(digest: &Digest, size: u64, wanted: Compression) -> BlobRef {
    BlobRef { descriptor: Descriptor::new(media_type(wanted), *digest, size), place: BlobPlace::Store, original: false }
}

/// The parameters that decide the bytes.
fn label(wanted: Compression) -> String {
    match wanted {
        Compression::Uncompressed => "none".into(),
        Compression::Gzip(level) => format!("gzip-{level}"),
        Compression::Zstd(level) => format!("zstd-{level}"),
    }
}

fn packing(wanted: Compression) -> LayerPacking {
    match wanted {
        Compression::Uncompressed => LayerPacking::Plain,
        Compression::Gzip(_) => LayerPacking::Gzip,
        Compression::Zstd(_) => LayerPacking::Zstd,
    }
}

fn media_type(wanted: Compression) -> &'static str {
    of_packing(packing(wanted), MediaTypes::Oci)
}

fn of_packing(packing: LayerPacking, types: MediaTypes) -> &'static str {
    match (packing, types) {
        (LayerPacking::Plain, MediaTypes::Oci) => media::OCI_LAYER,
        (LayerPacking::Gzip, MediaTypes::Oci) => media::OCI_LAYER_GZIP,
        (LayerPacking::Zstd, MediaTypes::Oci) => media::OCI_LAYER_ZSTD,
        (LayerPacking::Plain, MediaTypes::Docker) => media::DOCKER_LAYER,
        (LayerPacking::Gzip, MediaTypes::Docker) => media::DOCKER_LAYER_GZIP,
        (LayerPacking::Zstd, MediaTypes::Docker) => media::DOCKER_LAYER_ZSTD,
    }
}

/// The same layer under another name: a manifest must not hold both OCI's media types and Docker's.
pub(super) fn under(types: MediaTypes, layer: &Descriptor) -> Descriptor {
    let packing = layer.layer_packing().unwrap_or(LayerPacking::Plain);
    Descriptor::new(of_packing(packing, types), layer.digest, layer.size)
}

/// Compresses into the store.
fn make(exporter: &Exporter<'_>, layer: &FinishedLayer, wanted: Compression) -> Result<(Digest, u64), ExportError> {
    let failed = |source| ExportError::Compress { diff_id: layer.diff_id, source };
    let mut blob = exporter.store.new_blob()?;
    let mut out = UntilWritten { inner: &mut blob, progress: exporter.progress };
    let made = match wanted {
        // A plain tar is named by its own digest.
        Compression::Uncompressed => tar_to(exporter, layer, &mut out)?,
        Compression::Gzip(level) => {
            let mut gzip = compress::gzip(&mut out, level);
            tar_to(exporter, layer, &mut gzip)?;
            gzip.finish().map_err(failed)?.1
        }
        Compression::Zstd(level) => {
            let mut zstd = compress::zstd(&mut out, level).map_err(failed)?;
            tar_to(exporter, layer, &mut zstd)?;
            zstd.finish().map_err(failed)?.1
        }
    };
    blob.keep(&made.digest, made.size_bytes)?;
    Ok((made.digest, made.size_bytes))
}

/// Fails once the work shall end.
struct UntilWritten<'a, W> {
    inner: W,
    progress: &'a dyn Progress,
}

impl<W: Write> Write for UntilWritten<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not `Interrupted`: that kind is tried again.
        if self.progress.is_cancelled() { Err(io::Error::other("interrupted")) } else { self.inner.write(bytes) }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the layer's tar, and fails unless it has the layer's diff ID.
fn tar_to(exporter: &Exporter<'_>, layer: &FinishedLayer, out: &mut dyn Write) -> Result<compress::Compressed, ExportError> {
    let diff_id = layer.diff_id;
    let broken = |source| ExportError::Compress { diff_id, source };
    let mut hashing = compress::HashingWriter::new(out);
    match &layer.source {
        LayerSource::Directory { path, clamp_epoch } => {
            let failed = |source| match source {
                LayerError::Write { source } => ExportError::Compress { diff_id, source },
                source => ExportError::Layer { diff_id, source },
            };
            let root = Root::open(path).map_err(|e| failed(e.into()))?.into_fd();
            let changes = diff::changes(&root).map_err(|e| failed(e.into()))?;
            layer::write_tar(&changes, &root, *clamp_epoch, &mut hashing).map_err(failed)?;
        }
        LayerSource::Blob(blob) => {
            let failed = |source| ExportError::LayerSource { diff_id, source: Box::new(source) };
            // A plain tar is named by what is hashed below: once is enough.
            let plain = blob.descriptor.digest.as_bytes() == diff_id.as_bytes();
            let open = if plain { open_unverified } else { open_blob };
            let reader = open(exporter.store, blob).map_err(failed)?;
            let (_, mut tar) = layer::decompress(reader, Limits::default().max_bytes).map_err(broken)?;
            let mut chunk = vec![0; CHUNK];
            loop {
                match tar.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(n) => hashing.write_all(&chunk[..n]).map_err(broken)?,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(broken(e)),
                }
            }
        }
    }
    let (_, tar) = hashing.finish().map_err(broken)?;
    let found = DiffId::from_bytes(*tar.digest.as_bytes());
    if found == diff_id { Ok(tar) } else { Err(ExportError::DiffId { diff_id, found }) }
}
