//! Reading (and decompressing), hashing and unpacking a layer side by side.
//!
//! A chunk is filled once and read by two: nothing is copied on the way. The last of them to be done with it gives it back,
//! to be filled again.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::{Digest as _, Sha256};

use super::{LayerError, Result};
use crate::digest::DiffId;

const CHUNK: usize = 256 * 1024;
/// Chunks on their way to each of the two: bounds the memory to 3 MiB a layer.
const IN_FLIGHT: usize = 4;

/// A piece of the stream, shared by those who read it.
struct Chunk {
    bytes: Vec<u8>,
    len: usize,
}

/// Gives a chunk back, unless the other one still reads it.
fn give_back(chunk: Arc<Chunk>, empties: &Sender<Vec<u8>>) {
    if let Some(chunk) = Arc::into_inner(chunk) {
        // Nothing is read any more when nobody takes it.
        let _ = empties.send(chunk.bytes);
    }
}

/// Lets `work` read all of `reader` and returns, with its result, the digest and number of *all* bytes, also of
/// those that `work` left unread.
pub(super) fn hashed<T>(reader: impl Read + Send, work: impl FnOnce(&mut ChunkReader) -> Result<T>) -> Result<(T, DiffId, u64)> {
    std::thread::scope(|scope| {
        let (to_hash, hash_side) = sync_channel::<Arc<Chunk>>(IN_FLIGHT);
        let (to_work, work_side) = sync_channel::<io::Result<Arc<Chunk>>>(IN_FLIGHT);
        let (empties, empty) = channel();
        let hashed = empties.clone();
        let hashing = scope.spawn(move || {
            let (mut hasher, mut bytes) = (Sha256::new(), 0);
            for chunk in hash_side {
                hasher.update(&chunk.bytes[..chunk.len]);
                bytes += chunk.len as u64;
                give_back(chunk, &hashed);
            }
            (DiffId::from_bytes(hasher.finalize().into()), bytes)
        });
        scope.spawn(move || produce(reader, &empty, &to_hash, &to_work));
        let mut chunks = ChunkReader { source: work_side, chunk: None, at: 0, empties };
        let result = work(&mut chunks)?;
        io::copy(&mut chunks, &mut io::sink()).map_err(|source| LayerError::Read { source })?;
        drop(chunks);
        let (digest, bytes) = hashing.join().map_err(|_| LayerError::Read { source: io::Error::other("the hashing thread panicked") })?;
        Ok((result, digest, bytes))
    })
}

fn produce(
    mut reader: impl Read,
    empty: &Receiver<Vec<u8>>,
    to_hash: &SyncSender<Arc<Chunk>>,
    to_work: &SyncSender<io::Result<Arc<Chunk>>>,
) {
    loop {
        let mut bytes = empty.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
        let chunk = match fill(&mut reader, &mut bytes) {
            Ok(0) => return,
            Ok(len) => Arc::new(Chunk { bytes, len }),
            Err(e) => {
                // Nobody listens any more when the work has failed already.
                let _ = to_work.send(Err(e));
                return;
            }
        };
        if to_hash.send(chunk.clone()).is_err() || to_work.send(Ok(chunk)).is_err() {
            return;
        }
    }
}

fn fill(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match reader.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// The unpacking side's view of the stream.
pub(super) struct ChunkReader {
    source: Receiver<io::Result<Arc<Chunk>>>,
    chunk: Option<Arc<Chunk>>,
    at: usize,
    empties: Sender<Vec<u8>>,
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(read) = self.chunk.take_if(|c| self.at == c.len) {
            give_back(read, &self.empties);
        }
        if self.chunk.is_none()
            && let Ok(next) = self.source.recv()
        {
            (self.chunk, self.at) = (Some(next?), 0);
        }
        Ok(self.chunk.as_ref().map_or(&[], |c| &c.bytes[self.at..c.len]))
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let n = buf.len().min(ready.len());
        buf[..n].copy_from_slice(&ready[..n]);
        self.consume(n);
        Ok(n)
    }
}
