//! `type=oci` and `type=docker`: an OCI layout as an archive or a directory.
//!
//! A Docker archive is the same layout with a `manifest.json` beside `index.json`, as Docker 25 and BuildKit write
//! it; Docker 20.10 and podman read the former. Entries are sorted by name and have no times, so the archive's
//! bytes follow from the image alone.

use std::io::{self, Write};
use std::path::Path;

use super::bundle::Bundle;
use super::destination::Sink;
use super::verified::{self, Fault};
use super::{ExportError, Exported, Exporter, FinishedImage};
use crate::digest::Digest;
use crate::engine::request::{ArchiveOutput, Destination};
use crate::engine::sources::{BlobRef, open_unverified};
use crate::fsio::{self, Durability};
use crate::image::archive as docker;
use crate::image::layout as documents;
use crate::image::manifest::{Descriptor, Index, media};
use crate::image::reference::Reference;

/// One file of the layout.
enum Content<'a> {
    Bytes(&'a [u8]),
    Blob(&'a BlobRef),
}

impl Exporter<'_> {
    /// Writes an OCI archive, or a layout directory (`tar=false`) which may hold other images already.
    ///
    /// `images` are one image for several platforms; they go out under an index and the names of the first.
    pub fn oci(&self, images: &[FinishedImage], output: &ArchiveOutput, stdout: &mut dyn Write) -> Result<Exported, ExportError> {
        let packed = self.bundle(images, output.packing, &output.names)?;
        match (&output.dest, output.directory) {
            (Destination::Path(path), true) => self.write_directory(&packed, path)?,
            _ => self.write_archive(std::slice::from_ref(&packed), output, None, stdout)?,
        }
        Ok(packed.exported)
    }

    /// Writes an archive for `docker load`: a layout with a `manifest.json`. Each of `images` is one of its own.
    pub fn docker(&self, images: &[FinishedImage], output: &ArchiveOutput, stdout: &mut dyn Write) -> Result<Vec<Exported>, ExportError> {
        let packed = self.bundles(images, output)?;
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let entry = |(image, bundle): (&FinishedImage, &Bundle<'_>)| docker::Entry {
            config: path(&Digest::of(&image.config)),
            // Docker's own spelling: `app:latest`, not `docker.io/library/app:latest`.
            repo_tags: bundle.exported.names.iter().map(|n| Reference::parse(n).map_or_else(|_| n.clone(), |r| r.familiar())).collect(),
            layers: bundle.blobs.iter().map(|b| path(&b.descriptor.digest)).collect(),
        };
        let entries: Vec<_> = images.iter().zip(&packed).map(entry).collect();
        self.write_archive(&packed, output, Some(&docker::manifest_json(&entries)), stdout)?;
        Ok(packed.into_iter().map(|b| b.exported).collect())
    }

    /// Writes an OCI archive of several images, each one of its own.
    pub fn oci_of_many(&self, images: &[FinishedImage], output: &ArchiveOutput, stdout: &mut dyn Write) -> Result<(), ExportError> {
        self.write_archive(&self.bundles(images, output)?, output, None, stdout)
    }

    fn bundles<'i>(&self, images: &'i [FinishedImage], output: &ArchiveOutput) -> Result<Vec<Bundle<'i>>, ExportError> {
        images.iter().map(|image| self.bundle(std::slice::from_ref(image), output.packing, &output.names)).collect()
    }

    fn write_archive(
        &self,
        packed: &[Bundle<'_>],
        output: &ArchiveOutput,
        manifest_json: Option<&[u8]>,
        stdout: &mut dyn Write,
    ) -> Result<(), ExportError> {
        let index = documents::index_json(packed.iter().map(|b| (&b.exported.manifest, b.exported.names.as_slice())));
        let mut files = files_of(packed);
        files.push(("index.json".into(), Content::Bytes(&index)));
        files.push(("oci-layout".into(), Content::Bytes(documents::LAYOUT_TEXT.as_bytes())));
        if let Some(text) = manifest_json {
            files.push(("manifest.json".into(), Content::Bytes(text)));
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let mut sink = Sink::open(&output.dest, stdout)?;
        let dest = sink.name();
        let task = self.progress.begin(format!("write {dest}"));
        let written = self.write_entries(&files, sink.writer(), &dest, task);
        self.progress.end(task);
        written?;
        sink.finish()
    }

    fn write_entries(&self, files: &[(String, Content<'_>)], out: &mut dyn Write, dest: &str, task: usize) -> Result<(), ExportError> {
        let failed = |source| ExportError::Write { dest: dest.into(), source };
        let total = files.iter().map(|(_, c)| c.size()).fold(0, u64::saturating_add);
        let mut done = 0;
        for dir in ["blobs/", "blobs/sha256/"] {
            out.write_all(header(dir, 0, tar::EntryType::Directory, 0o755).as_bytes()).map_err(failed)?;
        }
        for (name, content) in files {
            let size = content.size();
            out.write_all(header(name, size, tar::EntryType::Regular, 0o644).as_bytes()).map_err(failed)?;
            self.copy(content, dest, &mut |chunk| {
                if self.progress.is_cancelled() {
                    return Err(io::Error::other("interrupted"));
                }
                out.write_all(chunk)?;
                done += chunk.len() as u64;
                self.progress.advance(task, done, Some(total));
                Ok(())
            })?;
            let padding = (512 - size % 512) % 512;
            out.write_all(&[0; 512][..usize::try_from(padding).expect("less than a block")]).map_err(failed)?;
        }
        out.write_all(&[0; 1024]).map_err(failed)
    }

    /// Passes a file's content on; a blob's is the right one only when this succeeds.
    fn copy(&self, content: &Content<'_>, dest: &str, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), ExportError> {
        let failed = |source| ExportError::Write { dest: dest.into(), source };
        let blob = match content {
            Content::Bytes(bytes) => return take(bytes).map_err(failed),
            Content::Blob(blob) => blob,
        };
        let Descriptor { digest, size, .. } = blob.descriptor;
        let mut reader = open_unverified(self.store, blob).map_err(|e| ExportError::Blob { digest, source: Box::new(e) })?;
        verified::pass(&mut *reader, digest, size, take).map_err(|fault| match fault {
            Fault::Read(source) => ExportError::BlobRead { digest, source },
            Fault::Take(source) => failed(source),
        })
    }

    fn write_directory(&self, packed: &Bundle<'_>, path: &Path) -> Result<(), ExportError> {
        let failed = |source| ExportError::Write { dest: path.display().to_string(), source };
        if path.exists() && !path.is_dir() {
            return Err(ExportError::NotDirectory { path: path.into() });
        }
        let blobs = path.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(failed)?;
        for (name, content) in files_of(std::slice::from_ref(packed)) {
            let file = path.join(name);
            if std::fs::metadata(&file).is_ok_and(|m| m.is_file() && m.len() == content.size()) {
                continue;
            }
            let dest = Destination::Path(file);
            let mut nowhere = io::sink();
            let mut sink = Sink::open(&dest, &mut nowhere)?;
            let (name, out) = (sink.name(), sink.writer());
            self.copy(&content, &name, &mut |chunk| out.write_all(chunk))?;
            sink.finish()?;
        }
        let index = merged_index(path, packed)?;
        for (name, text) in [("oci-layout", documents::LAYOUT_TEXT.as_bytes()), ("index.json", &index)] {
            fsio::write_atomic(&path.join(name), text, 0o644, Durability::Lazy).map_err(|e| failed(io::Error::other(e)))?;
        }
        Ok(())
    }
}

/// The blobs, each once.
fn files_of<'a>(packed: &'a [Bundle<'_>]) -> Vec<(String, Content<'a>)> {
    let documents = packed.iter().flat_map(|b| &b.documents).map(|(descriptor, bytes)| (&descriptor.digest, Content::Bytes(bytes)));
    let blobs = packed.iter().flat_map(|b| &b.blobs).map(|blob| (&blob.descriptor.digest, Content::Blob(blob)));
    let mut files: Vec<(String, Content<'_>)> = Vec::new();
    for (digest, content) in documents.chain(blobs) {
        let name = format!("blobs/sha256/{}", digest.hex());
        if files.iter().all(|(n, _)| *n != name) {
            files.push((name, content));
        }
    }
    files
}

/// Returns `index.json` with this image added to what the directory holds; entries of the same names are replaced.
fn merged_index(path: &Path, packed: &Bundle<'_>) -> Result<Vec<u8>, ExportError> {
    let new = documents::index_json([(&packed.exported.manifest, packed.exported.names.as_slice())]);
    let failed = |source| ExportError::Index { path: path.into(), source };
    let old = match std::fs::read(path.join("index.json")) {
        Ok(text) => documents::parse_index(&text).map_err(failed)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(new),
        Err(source) => return Err(ExportError::Write { dest: path.display().to_string(), source }),
    };
    let added = documents::parse_index(&new).map_err(failed)?.manifests;
    let replaced = |d: &Descriptor| {
        let same_names = |a: &Descriptor| a.annotations == d.annotations && (!a.annotations.is_empty() || a.digest == d.digest);
        added.iter().any(same_names)
    };
    let mut manifests: Vec<Descriptor> = old.manifests.into_iter().filter(|d| !replaced(d)).collect();
    manifests.extend(added.iter().cloned());
    Ok(Index { media_type: media::OCI_INDEX.into(), manifests }.to_json())
}

impl Content<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.descriptor.size,
        }
    }
}

/// A ustar header without owner and time; the names here are short, the size may take the base-256 form.
fn header(name: &str, size: u64, kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("a layout's names fit a ustar header");
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
