//! Compressing layers: the same bytes on every machine and with any number of threads.
//!
//! gzip is cut into blocks of 1 MiB that are compressed side by side without knowing of each other and joined
//! into one member, so the output depends on the level and on zlib-rs's version alone (pinned in Cargo.toml).
//! zstd's own worker mode has the same property as long as there is at least one worker.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Input bytes a block; part of what decides the output.
const BLOCK_BYTES: usize = 1 << 20;
/// gzip's header without a name or a time; the system is `unknown` (RFC 1952).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// An empty last block of deflate (RFC 1951).
const DEFLATE_END: [u8; 2] = [3, 0];

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed {
    /// Of the compressed bytes.
    pub digest: Digest,
    /// How many they are.
    pub size_bytes: u64,
}

/// Hashes and counts what goes through to `sink`.
pub struct HashingWriter<W> {
    sink: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `sink`.
    pub fn new(sink: W) -> Self {
        Self { sink, hasher: Sha256::new(), bytes: 0 }
    }

    /// Flushes, and returns the sink and what went through.
    pub fn finish(mut self) -> io::Result<(W, Compressed)> {
        self.sink.flush()?;
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        Ok((self.sink, Compressed { digest, size_bytes: self.bytes }))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.sink.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Compresses to one gzip member, blocks side by side.
pub struct GzipWriter<W: Write> {
    sink: HashingWriter<W>,
    level: Compression,
    pending: Vec<u8>,
    batch_bytes: usize,
    crc: Crc,
    started: bool,
}

/// Starts a gzip of `level` (0 to 9) into `sink`; [`GzipWriter::finish`] ends it.
pub fn gzip<W: Write>(sink: W, level: u32) -> GzipWriter<W> {
    let batch_bytes = BLOCK_BYTES * rayon::current_num_threads().clamp(1, 16);
    let level = Compression::new(level.min(9));
    GzipWriter { sink: HashingWriter::new(sink), level, pending: Vec::new(), batch_bytes, crc: Crc::new(), started: false }
}

impl<W: Write> GzipWriter<W> {
    /// Writes what is left and returns the sink and what was written to it.
    pub fn finish(mut self) -> io::Result<(W, Compressed)> {
        self.write_blocks()?;
        self.sink.write_all(&DEFLATE_END)?;
        self.sink.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32 is what the format asks for; `amount` counts so.
        self.sink.write_all(&self.crc.amount().to_le_bytes())?;
        self.sink.finish()
    }

    fn write_blocks(&mut self) -> io::Result<()> {
        if !self.started {
            self.sink.write_all(&GZIP_HEADER)?;
            self.started = true;
        }
        let level = self.level;
        let blocks: Vec<(Vec<u8>, Crc)> = self.pending.par_chunks(BLOCK_BYTES).map(|b| deflate(b, level)).collect::<io::Result<_>>()?;
        for (bytes, crc) in blocks {
            self.sink.write_all(&bytes)?;
            self.crc.combine(&crc);
        }
        self.pending.clear();
        Ok(())
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(self.batch_bytes - self.pending.len());
        self.pending.extend_from_slice(&buf[..n]);
        if self.pending.len() == self.batch_bytes {
            self.write_blocks()?;
        }
        Ok(n)
    }
    /// Does nothing: a block boundary in the middle would change the output.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses one block, ended by a sync flush so that the next one can follow.
fn deflate(block: &[u8], level: Compression) -> io::Result<(Vec<u8>, Crc)> {
    let mut crc = Crc::new();
    crc.update(block);
    let mut state = Compress::new(level, false);
    let mut out = Vec::with_capacity(block.len() + block.len() / 8 + 4096);
    loop {
        let rest = &block[usize::try_from(state.total_in()).expect("a block's length")..];
        state.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        // Room left means that the flush is complete (zlib.h, deflate()).
        if state.total_in() == block.len() as u64 && out.len() < out.capacity() {
            return Ok((out, crc));
        }
        out.reserve(64 * 1024);
    }
}

/// Compresses to one zstd frame.
pub struct ZstdWriter<W: Write> {
    encoder: zstd::Encoder<'static, HashingWriter<W>>,
}

/// Starts a zstd frame of `level` (1 to 19, 3 is usual) into `sink`; [`ZstdWriter::finish`] ends it.
pub fn zstd<W: Write>(sink: W, level: i32) -> io::Result<ZstdWriter<W>> {
    let mut encoder = zstd::Encoder::new(HashingWriter::new(sink), level)?;
    // One worker already cuts the input as many do: more threads, same bytes.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 8);
    encoder.multithread(u32::try_from(workers).expect("at most 8"))?;
    encoder.include_checksum(true)?;
    Ok(ZstdWriter { encoder })
}

impl<W: Write> ZstdWriter<W> {
    /// Ends the frame and returns the sink and what was written to it.
    pub fn finish(self) -> io::Result<(W, Compressed)> {
        self.encoder.finish()?.finish()
    }
}

impl<W: Write> Write for ZstdWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.encoder.write(buf)
    }
    /// Does nothing: a flush in the middle would change the output.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
