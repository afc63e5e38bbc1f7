//! A blob's bytes passed on while another thread hashes them.
//!
//! Whoever reads also writes, so that the hash, which takes the longest, has a processor for itself. The other way round
//! (see [`crate::store::VerifyingReader`]) reading and hashing are one after the other.
//!
//! What a newcomer would get wrong: bytes are passed on before they are proven. They count only once [`pass`] succeeds.

use std::io::{self, ErrorKind, Read};
use std::sync::mpsc::{channel, sync_channel};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::store::StoreError;

/// Small enough that what one thread read the other finds in the processor's cache.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that were written and wait for the hash: it goes on while the disk makes writing wait.
const IN_FLIGHT: usize = 8;

/// Why a blob was not passed on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It can't be read, or is another: `InvalidData` with a [`StoreError`] inside.
    Read(io::Error),
    /// Its bytes were not taken.
    Take(io::Error),
}

/// Passes all of `reader` to `take`, in pieces: never more than `size_bytes`; fails unless they are the blob `digest`.
pub(super) fn pass(
    reader: &mut dyn Read,
    digest: Digest,
    size_bytes: u64,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Fault> {
    if size_bytes < CHUNK_BYTES as u64 {
        return pass_small(reader, digest, size_bytes, take);
    }
    std::thread::scope(|scope| {
        let (full, chunks) = sync_channel::<Vec<u8>>(IN_FLIGHT);
        let (give_back, empties) = channel();
        let hashing = scope.spawn(move || {
            let mut hash = Sha256::new();
            for chunk in chunks {
                hash.update(&chunk);
                // The reader may be done already.
                let _ = give_back.send(chunk);
            }
            hash
        });
        let mut left = size_bytes;
        loop {
            let mut chunk = empties.try_recv().unwrap_or_default();
            chunk.resize(CHUNK_BYTES, 0);
            let n = read_some(reader, &mut chunk).map_err(Fault::Read)?;
            chunk.truncate(n);
            left = left_after(left, n, digest, size_bytes)?;
            if n == 0 {
                break;
            }
            take(&chunk).map_err(Fault::Take)?;
            // A hash that ends before its time is told below.
            let _ = full.send(chunk);
        }
        drop(full);
        let hash = hashing.join().map_err(|_| Fault::Read(io::Error::other("the hashing thread panicked")))?;
        compare(hash, digest)
    })
}

/// A small one is proven before it is passed on, and not worth a thread.
fn pass_small(reader: &mut dyn Read, digest: Digest, size_bytes: u64, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Fault> {
    let mut bytes = Vec::new();
    let n = reader.take(size_bytes + 1).read_to_end(&mut bytes).map_err(Fault::Read)?;
    let left = left_after(size_bytes, n, digest, size_bytes)?;
    left_after(left, 0, digest, size_bytes)?;
    compare(Sha256::new_with_prefix(&bytes), digest)?;
    take(&bytes).map_err(Fault::Take)
}

/// Returns how many of `left` bytes are left after `n` more were read: none when it was the end (`n` is 0).
fn left_after(left: u64, n: usize, digest: Digest, expected: u64) -> Result<u64, Fault> {
    let wrong = |found| Fault::Read(io::Error::new(ErrorKind::InvalidData, StoreError::SizeMismatch { digest, expected, found }));
    match left.checked_sub(n as u64) {
        Some(left) if n > 0 || left == 0 => Ok(left),
        Some(left) => Err(wrong(expected - left)),
        None => Err(wrong(expected - left + n as u64)),
    }
}

fn compare(hash: Sha256, expected: Digest) -> Result<(), Fault> {
    let found = Digest::from_bytes(hash.finalize().into());
    let wrong = || Fault::Read(io::Error::new(ErrorKind::InvalidData, StoreError::DigestMismatch { expected, found }));
    if found == expected { Ok(()) } else { Err(wrong()) }
}

fn read_some(reader: &mut dyn Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(chunk) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what was passed on, and the fault's text with its causes.
    fn passed(bytes: &[u8], digest: Digest, size_bytes: u64) -> (Vec<u8>, Result<(), String>) {
        let mut out = Vec::new();
        let mut take = |chunk: &[u8]| {
            out.extend_from_slice(chunk);
            Ok(())
        };
        let done = pass(&mut &*bytes, digest, size_bytes, &mut take).map_err(|fault| format!("{fault:?}"));
        (out, done)
    }

    #[test]
    fn only_the_right_bytes_pass() {
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 40 * CHUNK_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let (digest, other) = (Digest::of(&bytes), Digest::of(b"other"));
            let len = size as u64;
            assert!(passed(&bytes, digest, len) == (bytes.clone(), Ok(())), "{size}");
            for (what, (out, done), kind) in [
                ("another digest", passed(&bytes, other, len), "DigestMismatch"),
                ("more than expected", passed(&[&bytes[..], b"x"].concat(), digest, len), "SizeMismatch"),
                ("less than expected", passed(&bytes, digest, len + 1), "SizeMismatch"),
            ] {
                assert!(done.as_ref().is_err_and(|e| e.contains(kind)), "{size} {what}: {done:?}");
                assert!(out.len() as u64 <= len, "{size} {what}");
            }
        }
    }

    #[test]
    fn who_takes_no_more_ends_it() {
        let bytes = vec![1; 64 * CHUNK_BYTES];
        for small in [10, bytes.len()] {
            let bytes = &bytes[..small];
            let done = pass(&mut &*bytes, Digest::of(bytes), small as u64, &mut |_| Err(io::Error::other("full")));
            assert!(matches!(done, Err(Fault::Take(e)) if e.to_string() == "full"));
        }
    }
}
