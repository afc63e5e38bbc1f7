//! Compressing layers: the same bytes on every machine and with any number of threads.
//!
//! gzip is cut into blocks of 1 MiB that are compressed side by side without knowing of each other and joined
//! into one member, so the output depends on the level and on zlib-rs's version alone (pinned in Cargo.toml).
//! zstd's own worker mode has the same property as long as there is at least one worker.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use flate2::{Compress, Compression, Crc, FlushCompress};
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
///
/// Blocks go to rayon's threads as they fill up, and their results to the sink in order: whoever writes goes on reading
/// while others compress.
pub struct GzipWriter<W: Write> {
    sink: HashingWriter<W>,
    level: Compression,
    pending: Vec<u8>,
    /// Blocks that are being compressed, in order.
    in_flight: VecDeque<Receiver<io::Result<Deflated>>>,
    /// Buffers that were used.
    spare: Vec<Vec<u8>>,
    crc: Crc,
}

/// A block that was compressed.
struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
    /// The block, to be filled again.
    block: Vec<u8>,
}

/// Starts a gzip of `level` (0 to 9) into `sink`; [`GzipWriter::finish`] ends it.
pub fn gzip<W: Write>(sink: W, level: u32) -> GzipWriter<W> {
    let (sink, level) = (HashingWriter::new(sink), Compression::new(level.min(9)));
    GzipWriter { sink, level, pending: Vec::new(), in_flight: VecDeque::new(), spare: Vec::new(), crc: Crc::new() }
}

impl<W: Write> GzipWriter<W> {
    /// Writes what is left and returns the sink and what was written to it.
    pub fn finish(mut self) -> io::Result<(W, Compressed)> {
        if !self.pending.is_empty() {
            self.send();
        }
        while !self.in_flight.is_empty() {
            self.take()?;
        }
        self.begin()?;
        self.sink.write_all(&DEFLATE_END)?;
        self.sink.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32 is what the format asks for; `amount` counts so.
        self.sink.write_all(&self.crc.amount().to_le_bytes())?;
        self.sink.finish()
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.sink.bytes == 0 { self.sink.write_all(&GZIP_HEADER) } else { Ok(()) }
    }

    /// Gives the pending block to another thread.
    fn send(&mut self) {
        let next = self.spare.pop().unwrap_or_default();
        let block = std::mem::replace(&mut self.pending, next);
        let (out, level) = (self.spare.pop().unwrap_or_default(), self.level);
        let (done, result) = sync_channel(1);
        // Nobody takes the result when the writer was dropped.
        rayon::spawn(move || drop(done.send(deflate(block, out, level))));
        self.in_flight.push_back(result);
    }

    /// Waits for the oldest block and writes it.
    fn take(&mut self) -> io::Result<()> {
        self.begin()?;
        let Some(oldest) = self.in_flight.pop_front() else { return Ok(()) };
        let Deflated { mut bytes, crc, mut block } = wait_for(&oldest)?;
        self.sink.write_all(&bytes)?;
        self.crc.combine(&crc);
        bytes.clear();
        block.clear();
        self.spare.extend([bytes, block]);
        Ok(())
    }
}

fn wait_for(block: &Receiver<io::Result<Deflated>>) -> io::Result<Deflated> {
    let lost = || io::Error::other("a compressing thread panicked");
    // One of rayon's own threads must not sleep: it may be the only one.
    while rayon::current_thread_index().is_some() {
        match block.try_recv() {
            Ok(done) => return done,
            Err(TryRecvError::Empty) => drop(rayon::yield_now()),
            Err(TryRecvError::Disconnected) => return Err(lost()),
        }
    }
    block.recv().map_err(|_| lost())?
}

/// How many blocks may be on their way: some for each thread, and bounded, since each holds two buffers of its size.
fn most_in_flight() -> usize {
    (rayon::current_num_threads() + 2).min(18)
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BLOCK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&buf[..n]);
        if self.pending.len() == BLOCK_BYTES {
            while self.in_flight.len() >= most_in_flight() {
                self.take()?;
            }
            self.send();
        }
        Ok(n)
    }
    /// Does nothing: a block boundary in the middle would change the output.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses one block, ended by a sync flush so that the next one can follow.
fn deflate(block: Vec<u8>, mut out: Vec<u8>, level: Compression) -> io::Result<Deflated> {
    let mut crc = Crc::new();
    crc.update(&block);
    let mut state = Compress::new(level, false);
    out.reserve(block.len() + block.len() / 8 + 4096);
    loop {
        let rest = &block[usize::try_from(state.total_in()).expect("a block's length")..];
        state.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        // Room left means that the flush is complete (zlib.h, deflate()).
        if state.total_in() == block.len() as u64 && out.len() < out.capacity() {
            return Ok(Deflated { bytes: out, crc, block });
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
