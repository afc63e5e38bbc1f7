//! What is compressed comes back, bounded, and is the same with any number of threads.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::digest::Digest;

/// Bytes that compress a little.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x3f
    };
    (0..len).map(|_| next()).collect()
}

fn unpacked(bytes: &[u8], max: u64) -> std::io::Result<(Codec, Vec<u8>)> {
    let (codec, mut reader) = decompress(bytes, max)?;
    let mut out = Vec::new();
    reader.read_to_end(&mut out)?;
    Ok((codec, out))
}

fn gzipped(data: &[u8], level: u32, piece: usize) -> Vec<u8> {
    let mut writer = compress::gzip(Vec::new(), level);
    data.chunks(piece).for_each(|c| writer.write_all(c).unwrap());
    let (bytes, done) = writer.finish().unwrap();
    assert_eq!((done.digest, done.size_bytes), (Digest::of(&bytes), bytes.len() as u64));
    bytes
}

#[test]
fn gzip_comes_back_and_does_not_depend_on_threads_or_writes() {
    for len in [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let data = sample(len);
        let one = gzipped(&data, 6, usize::MAX);
        assert_eq!(unpacked(&one, u64::MAX).unwrap(), (Codec::Gzip, data.clone()), "{len}");
        assert_eq!(gzipped(&data, 6, 7777), one);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| gzipped(&data, 6, 100_000)), one, "{threads} threads");
        }
    }
    // Data that does not compress must not outgrow its buffer.
    let noise: Vec<u8> = sample(3 << 20).chunks(4).flat_map(|c| blake3::hash(c).as_bytes()[..4].to_vec()).collect();
    assert_eq!(unpacked(&gzipped(&noise, 1, usize::MAX), u64::MAX).unwrap().1, noise);
}

#[test]
fn the_gzip_program_reads_ours() {
    let data = sample(3 << 20);
    let mut gzip = match Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(e) => return skip(&format!("gzip: {e}")),
    };
    let mut stdin = gzip.stdin.take().unwrap();
    let bytes = gzipped(&data, 6, usize::MAX);
    let writing = std::thread::spawn(move || stdin.write_all(&bytes));
    let out = gzip.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(out.status.success() && out.stdout == data);
}

#[test]
fn zstd_comes_back_and_is_the_same_twice() {
    for len in [0, 1, 3 << 20] {
        let data = sample(len);
        let make = || {
            let mut writer = compress::zstd(Vec::new(), 3).unwrap();
            writer.write_all(&data).unwrap();
            writer.finish().unwrap()
        };
        let (bytes, done) = make();
        assert_eq!(make().0, bytes);
        assert_eq!(done.digest, Digest::of(&bytes));
        assert_eq!(unpacked(&bytes, u64::MAX).unwrap(), (Codec::Zstd, data));
    }
}

#[test]
fn the_codec_is_told_by_content_and_bombs_are_bounded() {
    let tar = sample(100);
    assert_eq!(unpacked(&tar, 100).unwrap(), (Codec::Plain, tar));
    assert_eq!(unpacked(b"", 0).unwrap(), (Codec::Plain, Vec::new()));
    let zeros = gzipped(&vec![0; 20 << 20], 6, usize::MAX);
    assert!(zeros.len() < 40_000);
    let refused = unpacked(&zeros, 1 << 20).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::FileTooLarge);
    // Many members are one stream; junk behind the last is an error.
    let many = gzipped(b"ab", 6, usize::MAX).repeat(1000);
    assert_eq!(unpacked(&many, u64::MAX).unwrap().1, b"ab".repeat(1000));
    assert!(unpacked(&[many, b"junk".to_vec()].concat(), u64::MAX).is_err());
    let empty = gzipped(b"", 6, usize::MAX).repeat(100_000);
    assert_eq!(unpacked(&empty, 0).unwrap().1, b"");
    // A window of 2 GiB would be allocated before a byte comes out.
    let window = b"\x28\xb5\x2f\xfd\x00\xa8\x01\0\0";
    assert!(unpacked(window, u64::MAX).is_err());
}
