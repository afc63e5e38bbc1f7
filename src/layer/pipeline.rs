//! Reading (and decompressing), hashing and unpacking a layer side by side.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use super::{LayerError, Result};
use crate::digest::DiffId;

const CHUNK: usize = 256 * 1024;
/// Chunks on their way: bounds the memory to 2 MiB a layer.
const IN_FLIGHT: usize = 4;

type Chunk = Arc<[u8]>;

/// Lets `work` read all of `reader` and returns, with its result, the digest and number of *all* bytes, also of
/// those that `work` left unread.
pub(super) fn hashed<T>(reader: impl Read + Send, work: impl FnOnce(&mut ChunkReader) -> Result<T>) -> Result<(T, DiffId, u64)> {
    std::thread::scope(|scope| {
        let (to_hash, hash_side) = sync_channel::<Chunk>(IN_FLIGHT);
        let (to_work, work_side) = sync_channel::<io::Result<Chunk>>(IN_FLIGHT);
        let hashing = scope.spawn(move || {
            let (mut hasher, mut bytes) = (Sha256::new(), 0);
            for chunk in hash_side {
                hasher.update(&chunk);
                bytes += chunk.len() as u64;
            }
            (DiffId::from_bytes(hasher.finalize().into()), bytes)
        });
        scope.spawn(move || produce(reader, &to_hash, &to_work));
        let mut chunks = ChunkReader { source: work_side, chunk: Chunk::from([]), at: 0 };
        let result = work(&mut chunks)?;
        io::copy(&mut chunks, &mut io::sink()).map_err(|source| LayerError::Read { source })?;
        drop(chunks);
        let (digest, bytes) = hashing.join().map_err(|_| LayerError::Read { source: io::Error::other("the hashing thread panicked") })?;
        Ok((result, digest, bytes))
    })
}

fn produce(mut reader: impl Read, to_hash: &SyncSender<Chunk>, to_work: &SyncSender<io::Result<Chunk>>) {
    let mut buf = vec![0; CHUNK];
    loop {
        let n = match fill(&mut reader, &mut buf) {
            Ok(0) => return,
            Ok(n) => n,
            Err(e) => {
                // Nobody listens any more when the work has failed already.
                let _ = to_work.send(Err(e));
                return;
            }
        };
        let chunk = Chunk::from(&buf[..n]);
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
    source: Receiver<io::Result<Chunk>>,
    chunk: Chunk,
    at: usize,
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            match self.source.recv() {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buf.len().min(self.chunk.len() - self.at);
        buf[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
