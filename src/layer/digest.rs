//! Both digests of a change set in one pass over its files.
//!
//! One thread reads and hashes the content (BLAKE3), another the tar (SHA-256): a big layer takes as long as
//! the slower of the two. Small layers are not worth a thread.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::{Digest as _, Sha256};

use super::canonical::ContentHasher;
use super::write::{DirectoryFiles, FileBytes, Observer, write_observed};
use super::{EMPTY_TAR_BYTES, LayerError, Result};
use crate::digest::{ContentDigest, DiffId};
use crate::snapshot::diff::{Change, ChangeSet, Entry, NodeKind};

/// Layers with less file data are hashed without a second thread.
const SMALL_BYTES: u64 = 512 * 1024;
const CHUNK: usize = 256 * 1024;
/// Chunks on their way to the hashing thread: 1 MiB of memory a layer.
const IN_FLIGHT: usize = 4;

/// A layer's identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerDigests {
    /// Of the content: times and framing left out.
    pub content: ContentDigest,
    /// Of the tar.
    pub diff_id: DiffId,
    /// The tar's size.
    pub tar_size_bytes: u64,
}

/// Returns the digests of `changes` of the layer directory `dir`, its times clamped as
/// [`write_tar`](super::write_tar) does.
pub fn digest(changes: &ChangeSet, dir: impl AsFd, clamp_epoch: Option<i64>) -> Result<LayerDigests> {
    if changes.is_empty() {
        return Ok(empty());
    }
    write_and_digest(changes, dir, clamp_epoch, &mut io::sink())
}

/// Returns the content digest alone of `changes`. The bytes of a file are read from the layer directory `dir`, unless
/// `known` has their hash.
pub fn content_digest(changes: &ChangeSet, dir: impl AsFd, known: &dyn Fn(&[u8]) -> Option<blake3::Hash>) -> Result<ContentDigest> {
    let mut files = DirectoryFiles::new(dir.as_fd(), b"")?;
    let mut hasher = ContentHasher::new();
    for entry in &changes.entries {
        let size = match &entry.change {
            Change::Upsert(node) => match node.kind {
                NodeKind::File { size_bytes } => size_bytes,
                _ => 0,
            },
            _ => 0,
        };
        let data = match known(&entry.path) {
            _ if size == 0 => None,
            Some(hash) => Some(hash),
            None => {
                let mut data = blake3::Hasher::new();
                files.pass(&entry.path, size, &mut |bytes| {
                    data.update(bytes);
                    Ok(())
                })?;
                Some(data.finalize())
            }
        };
        hasher.add(entry, data.as_ref());
    }
    Ok(hasher.finish())
}

/// Writes the layer's tar to `sink` and returns its digests: each file is read once.
pub fn write_and_digest(changes: &ChangeSet, dir: impl AsFd, clamp_epoch: Option<i64>, sink: &mut dyn Write) -> Result<LayerDigests> {
    write_files_and_digest(changes, &mut DirectoryFiles::new(dir.as_fd(), b"")?, clamp_epoch, sink)
}

/// As [`write_and_digest`], with files that need not be in a directory.
pub fn write_files_and_digest(
    changes: &ChangeSet,
    files: &mut dyn FileBytes,
    clamp_epoch: Option<i64>,
    sink: &mut dyn Write,
) -> Result<LayerDigests> {
    let mut content = Content { hasher: ContentHasher::new(), file: blake3::Hasher::new(), known: None };
    if changes.file_bytes() < SMALL_BYTES {
        let mut tar = Inline { hasher: Sha256::new(), bytes: 0, sink };
        write_observed(changes, files, clamp_epoch, &mut tar, &mut content)?;
        let diff_id = DiffId::from_bytes(tar.hasher.finalize().into());
        return Ok(LayerDigests { content: content.hasher.finish(), diff_id, tar_size_bytes: tar.bytes });
    }
    std::thread::scope(|scope| {
        let (full, chunks) = sync_channel(IN_FLIGHT);
        let (give_back, empties) = channel();
        let hashing = scope.spawn(move || hash_chunks(&chunks, &give_back));
        let mut tar = Piped { sink, bytes: 0, chunk: Vec::with_capacity(CHUNK), full, empties };
        write_observed(changes, files, clamp_epoch, &mut tar, &mut content)?;
        let (sent, bytes) = (tar.send(), tar.bytes);
        drop(tar);
        sent.map_err(|source| LayerError::Write { source })?;
        let diff_id = hashing.join().map_err(|_| LayerError::Write { source: io::Error::other("the hashing thread panicked") })?;
        Ok(LayerDigests { content: content.hasher.finish(), diff_id, tar_size_bytes: bytes })
    })
}

/// The digests of a layer without changes.
fn empty() -> LayerDigests {
    let diff_id = DiffId::from_bytes(Sha256::digest([0; EMPTY_TAR_BYTES as usize]).into());
    LayerDigests { content: ContentHasher::new().finish(), diff_id, tar_size_bytes: EMPTY_TAR_BYTES }
}

fn hash_chunks(chunks: &Receiver<Vec<u8>>, give_back: &Sender<Vec<u8>>) -> DiffId {
    let mut hasher = Sha256::new();
    for mut chunk in chunks {
        hasher.update(&chunk);
        chunk.clear();
        // The writer may be done already.
        let _ = give_back.send(chunk);
    }
    DiffId::from_bytes(hasher.finalize().into())
}

/// Hashes file data as it goes by, and entries into the whole.
struct Content {
    hasher: ContentHasher,
    file: blake3::Hasher,
    known: Option<blake3::Hash>,
}

impl Observer for Content {
    fn data(&mut self, bytes: &[u8]) {
        self.file.update(bytes);
    }

    fn known(&mut self, hash: blake3::Hash) {
        self.known = Some(hash);
    }

    fn entry(&mut self, entry: &Entry) {
        if let Some(known) = self.known.take() {
            return self.hasher.add(entry, Some(&known));
        }
        if self.file.count() == 0 {
            return self.hasher.add(entry, None);
        }
        let data = self.file.finalize();
        self.file.reset();
        self.hasher.add(entry, Some(&data));
    }
}

struct Inline<'a> {
    hasher: Sha256,
    bytes: u64,
    sink: &'a mut dyn Write,
}

impl Write for Inline<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.sink.write_all(buf)?;
        self.hasher.update(buf);
        self.bytes += buf.len() as u64;
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

struct Piped<'a> {
    sink: &'a mut dyn Write,
    bytes: u64,
    chunk: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empties: Receiver<Vec<u8>>,
}

impl Piped<'_> {
    /// Writes the chunk, and hands it to the hashing thread.
    fn send(&mut self) -> io::Result<()> {
        self.sink.write_all(&self.chunk)?;
        let next = self.empties.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
        self.full.send(std::mem::replace(&mut self.chunk, next)).map_err(|_| io::Error::other("the hashing thread is gone"))
    }
}

impl Write for Piped<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&buf[..n]);
        self.bytes += n as u64;
        if self.chunk.len() == CHUNK {
            self.send()?;
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
