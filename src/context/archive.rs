//! Recognises a compressed or plain tar by its content, and gives its plain bytes.
//!
//! A name means nothing here. An archive without members isn't recognised: its first block is no header, and
//! BuildKit copies such a file as it is. Memory for decompression is bounded by what real archives need, since
//! the archive may be hostile.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// The largest window that is accepted, as a power of two: 128 MiB, as the `zstd` program by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// What `xz -9` needs is 65 MiB; larger dictionaries exist, but not for honest archives.
const XZ_MEMORY_MAX_BYTES: u64 = 256 << 20;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Packing {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Packing {
    /// Tells from the first bytes; six are enough.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame may come first (RFC 8878, 3.1.2).
            [b, 0x2a, 0x4d, 0x18, ..] if b & 0xf0 == 0x50 => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Returns the plain bytes of `packed`.
    pub fn unpack<'a>(self, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let packed = BufReader::with_capacity(128 * 1024, packed);
        Ok(match self {
            Self::Plain => Box::new(packed),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX_BYTES, liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        })
    }
}

/// Returns how a tar archive is packed, or none when the file isn't one; the file is at its start afterwards.
pub fn recognise(file: &mut File) -> io::Result<Option<Packing>> {
    let (start, length) = read_up_to(file)?;
    file.seek(SeekFrom::Start(0))?;
    let packing = Packing::of(&start[..length]);
    if packing == Packing::Plain {
        return Ok(is_tar_header(&start[..length]).then_some(packing));
    }
    // Bytes that only begin like a compressed stream are no archive either.
    let plain = packing.unpack(&mut *file).and_then(|mut r| read_up_to(&mut r));
    file.seek(SeekFrom::Start(0))?;
    Ok(plain.is_ok_and(|(block, length)| is_tar_header(&block[..length])).then_some(packing))
}

/// Whether these are the first bytes of a tar archive that has a member.
pub fn is_tar_header(block: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let Some(block) = block.get(..512) else { return false };
    let text: Vec<u8> = block[CHECKSUM].iter().copied().skip_while(|b| *b == b' ').take_while(|b| (b'0'..=b'7').contains(b)).collect();
    let Some(written) = std::str::from_utf8(&text).ok().and_then(|t| i64::from_str_radix(t, 8).ok()) else { return false };
    let sum = |value: fn(u8) -> i64| -> i64 {
        block.iter().enumerate().map(|(i, b)| if CHECKSUM.contains(&i) { i64::from(b' ') } else { value(*b) }).sum()
    };
    // Old writers summed signed bytes (pax(1), "chksum").
    written == sum(i64::from) || written == sum(|b| i64::from(b.cast_signed()))
}

fn read_up_to(reader: &mut impl Read) -> io::Result<([u8; 512], usize)> {
    let mut block = [0; 512];
    let mut length = 0;
    while length < block.len() {
        match reader.read(&mut block[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok((block, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn tar() -> Vec<u8> {
        let mut b = tar::Builder::new(Vec::new());
        let mut h = tar::Header::new_gnu();
        h.set_size(1);
        h.set_mode(0o644);
        b.append_data(&mut h, "f", &b"f"[..]).unwrap();
        b.into_inner().unwrap()
    }

    fn packed(packing: Packing, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match packing {
            Packing::Plain => out.extend_from_slice(data),
            Packing::Gzip => flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast()).write_all(data).unwrap(),
            Packing::Bzip2 => bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::fast()).write_all(data).unwrap(),
            Packing::Xz => liblzma::write::XzEncoder::new(&mut out, 0).write_all(data).unwrap(),
            Packing::Zstd => out = zstd::encode_all(data, 1).unwrap(),
        }
        out
    }

    #[test]
    fn archives_are_known_by_content() {
        let cases = |p| [(tar(), Some(p)), (b"just text\n".to_vec(), None), (vec![0; 10240], None), (Vec::new(), None)];
        for packing in [Packing::Plain, Packing::Gzip, Packing::Bzip2, Packing::Xz, Packing::Zstd] {
            for (data, expected) in cases(packing) {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&packed(packing, &data)).unwrap();
                file.seek(SeekFrom::Start(0)).unwrap();
                assert_eq!(recognise(&mut file).unwrap(), expected, "{packing:?} {}", data.len());
                let mut plain = Vec::new();
                packing.unpack(&mut file).unwrap().read_to_end(&mut plain).unwrap();
                assert_eq!(plain, data, "the file is at its start");
            }
        }
    }

    #[test]
    fn what_only_begins_like_an_archive_is_none() {
        for bytes in [&b"\x1f\x8bnot gzip"[..], b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd\x00"] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            assert_eq!(recognise(&mut file).unwrap(), None, "{bytes:?}");
        }
    }
}
