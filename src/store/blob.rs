//! Blobs: bytes under the name of their SHA-256.
//!
//! They are hashed while they are written, and again when they are read for the outside world: a disk may lie.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::db::int;
use super::rows::Row;
use super::{Result, Store, StoreError};
use crate::digest::Digest;

const BUFFER_BYTES: usize = 128 << 10;

impl Store {
    /// Stores `reader`'s bytes and returns their digest and count.
    ///
    /// With `expected`, other bytes or another count are an error and nothing is stored; no more than the count
    /// (and one byte) is read. Idempotent: success means that the content is stored, not that this call stored it.
    pub fn put_blob(&self, reader: &mut dyn Read, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64)> {
        let temp = self.temp_path()?;
        let outcome = self.write_temp(reader, expected, &temp);
        if outcome.is_err() {
            // The session's end tries again.
            let _ = std::fs::remove_file(&temp);
        }
        outcome
    }

    /// Stores bytes that are at hand.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest)? {
            return Ok(digest);
        }
        self.put_blob(&mut &*bytes, None).map(|(digest, _)| digest)
    }

    /// Begins a blob whose writer hashes it.
    pub fn new_blob(&self) -> Result<NewBlob<'_>> {
        let path = self.temp_path()?;
        let file = File::create_new(&path).map_err(StoreError::io("making", &path))?;
        Ok(NewBlob { store: self, file: Written::new(file), path })
    }

    fn write_temp(&self, reader: &mut dyn Read, expected: Option<(&Digest, u64)>, temp: &PathBuf) -> Result<(Digest, u64)> {
        let file = File::create_new(temp).map_err(StoreError::io("making", temp))?;
        let mut file = Written::new(file);
        let limit = expected.map_or(u64::MAX, |(_, size)| size.saturating_add(1));
        let mut reader = reader.take(limit);
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(StoreError::io("reading what is to be stored in", &self.root)(e)),
            };
            hash.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(StoreError::io("writing", temp))?;
        }
        let size = file.bytes;
        let digest = Digest::from_bytes(hash.finalize().into());
        if let Some((want, want_size)) = expected {
            if size != want_size {
                return Err(StoreError::SizeMismatch { digest: *want, expected: want_size, found: size });
            }
            if digest != *want {
                return Err(StoreError::DigestMismatch { expected: *want, found: digest });
            }
        }
        self.name_blob(temp, &digest, size)?;
        Ok((digest, size))
    }

    /// Puts a written file in place as the blob `digest`, unless it is there.
    fn name_blob(&self, temp: &Path, digest: &Digest, size_bytes: u64) -> Result<()> {
        if self.has_blob(digest)? {
            // Replacing a file that a row vouches for would put unsynced bytes under it.
            let _ = std::fs::remove_file(temp);
            return Ok(());
        }
        let path = self.blob_path(digest);
        std::fs::rename(temp, &path).map_err(StoreError::io("naming", &path))?;
        self.committer.push(Row::Blob { digest: *digest, size_bytes })
    }

    /// Returns whether the blob is there, whole, and safe from a power cut (or soon will be). If so, it is kept from
    /// garbage collection while this store is open.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        // Held first, asked afterwards: a collection in between then left it, or took it before we asked.
        self.hold_blob(digest)?;
        self.blob_is_there(digest)
    }

    /// As [`Store::has_blob`], without keeping it.
    pub(super) fn blob_is_there(&self, digest: &Digest) -> Result<bool> {
        let Some(size) = self.blob_size(digest)? else { return Ok(false) };
        let path = self.blob_path(digest);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) => Ok(meta.is_file() && meta.len() == size),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("looking at", &path)(e)),
        }
    }

    /// Opens a blob as it lies on the disk, unverified; none: not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        if !self.blob_is_there(digest)? {
            return Ok(None);
        }
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("opening", &path)(e)),
        }
    }

    /// Opens a blob for reading in whole: the last read fails when the bytes are not those of the digest.
    pub fn verifying_reader(&self, digest: &Digest) -> Result<Option<VerifyingReader<File>>> {
        let size = self.blob_size(digest)?.unwrap_or(0);
        Ok(self.open_blob(digest)?.map(|file| VerifyingReader::new(file, *digest, size)))
    }

    /// Returns a blob's verified bytes, when they are no more than `max_bytes`.
    pub fn read_blob(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>> {
        let mut file = self.open_blob(digest)?.ok_or(StoreError::NoBlob(*digest))?;
        let path = self.blob_path(digest);
        let size = file.metadata().map_err(StoreError::io("looking at", &path))?.len();
        if size > max_bytes {
            return Err(StoreError::TooBig { digest: *digest, size_bytes: size, limit_bytes: max_bytes });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(StoreError::io("reading", &path))?;
        let found = Digest::of(&bytes);
        if found == *digest { Ok(bytes) } else { Err(StoreError::DigestMismatch { expected: *digest, found }) }
    }

    /// Returns a blob's size as the index knows it; none: not there.
    pub fn blob_len(&self, digest: &Digest) -> Result<Option<u64>> {
        if self.blob_is_there(digest)? { self.blob_size(digest) } else { Ok(None) }
    }

    /// Forgets a blob whose bytes turned out to be wrong, so that it can be fetched again.
    pub fn discard_blob(&self, digest: &Digest) -> Result<()> {
        self.flush()?;
        self.durably("forgetting a blob", |tx| tx.execute("DELETE FROM blobs WHERE digest=?1", [digest.to_string()]).map(drop))?;
        let path = self.blob_path(digest);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::io("removing", &path)(e)),
            _ => Ok(()),
        }
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
}

/// How many written bytes the disk is asked to begin with at once.
const WRITEBACK_BYTES: u64 = 16 << 20;

/// A file whose bytes go to the disk while more are written, so that the sync at the end finds the most done.
struct Written {
    file: File,
    bytes: u64,
    /// How many bytes the disk was asked to begin with.
    begun_bytes: u64,
}

impl Written {
    fn new(file: File) -> Self {
        Self { file, bytes: 0, begun_bytes: 0 }
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.bytes += n as u64;
        if self.bytes - self.begun_bytes >= WRITEBACK_BYTES {
            let (from, bytes) = (int(self.begun_bytes), int(self.bytes - self.begun_bytes));
            // Only a hint: a file system that knows none is none the worse.
            let _ = crate::sys::file::begin_writeback(self.file.as_raw_fd(), from, bytes);
            self.begun_bytes = self.bytes;
        }
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob that is being written by somebody who hashes it; dropped, it is gone.
pub struct NewBlob<'a> {
    store: &'a Store,
    file: Written,
    path: PathBuf,
}

impl NewBlob<'_> {
    /// Puts the blob in place. The caller has hashed every byte that it wrote.
    pub fn keep(self, digest: &Digest, size_bytes: u64) -> Result<()> {
        self.store.name_blob(&self.path, digest, size_bytes)
    }
}

impl io::Write for NewBlob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|e| io::Error::new(e.kind(), StoreError::io("writing", &self.path)(e)))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewBlob<'_> {
    fn drop(&mut self) {
        // Kept, it has another name; the session's end tries again.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Passes bytes on, and fails at their end (or as soon as there are too many) when they are not the expected ones.
///
/// The failure is an [`io::Error`] of kind `InvalidData` with a [`StoreError`] inside. Whoever stops reading early
/// has verified nothing.
pub struct VerifyingReader<R> {
    inner: R,
    hash: Sha256,
    expected: Digest,
    expected_bytes: u64,
    read_bytes: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Wraps `inner`, which must give exactly `expected_bytes` bytes with the digest `expected`.
    pub fn new(inner: R, expected: Digest, expected_bytes: u64) -> Self {
        Self { inner, hash: Sha256::new(), expected, expected_bytes, read_bytes: 0 }
    }

    fn wrong_size(&self) -> io::Error {
        let (digest, expected, found) = (self.expected, self.expected_bytes, self.read_bytes);
        io::Error::new(ErrorKind::InvalidData, StoreError::SizeMismatch { digest, expected, found })
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buffer)?;
        self.read_bytes += n as u64;
        if self.read_bytes > self.expected_bytes || (n == 0 && self.read_bytes < self.expected_bytes) {
            return Err(self.wrong_size());
        }
        self.hash.update(&buffer[..n]);
        if n == 0 {
            let found = Digest::from_bytes(self.hash.clone().finalize().into());
            if found != self.expected {
                let error = StoreError::DigestMismatch { expected: self.expected, found };
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
        Ok(n)
    }
}
