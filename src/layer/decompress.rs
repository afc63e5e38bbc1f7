//! Decompression told by content, with bounds: names and media types lie.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::GzDecoder;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Codec {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// Tells the compression by a stream's first bytes; six are enough.
pub fn sniff(head: &[u8]) -> Codec {
    const MAGIC: [(&[u8], Codec); 4] =
        [(b"\x1f\x8b", Codec::Gzip), (b"\x28\xb5\x2f\xfd", Codec::Zstd), (b"BZh", Codec::Bzip2), (b"\xfd7zXZ\0", Codec::Xz)];
    MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map_or(Codec::Plain, |(_, codec)| *codec)
}

/// The largest zstd window that is taken: 128 MiB, as the `zstd` program does.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Memory for xz's dictionary.
const XZ_MEMORY_BYTES: u64 = 256 << 20;

/// Returns `reader` decompressed, whatever it is compressed with; plain bytes come through.
///
/// More than `max_bytes` is an error of kind `FileTooLarge`. Gzip and zstd may consist of many members; what
/// follows the last must be another one, but for gzip's padding with zero bytes.
pub fn decompress<'a>(mut reader: impl Read + Send + 'a, max_bytes: u64) -> io::Result<(Codec, Box<dyn Read + Send + 'a>)> {
    let mut head = [0; 6];
    let mut n = 0;
    while n < head.len() {
        match reader.read(&mut head[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let codec = sniff(&head[..n]);
    let whole = BufReader::with_capacity(128 * 1024, Cursor::new(head).take(n as u64).chain(reader));
    let open: Box<dyn Read + Send> = match codec {
        Codec::Plain => Box::new(whole),
        Codec::Gzip => Box::new(Gzip { member: Some(GzDecoder::new(whole)) }),
        Codec::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Codec::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, liblzma::stream::CONCATENATED).map_err(io::Error::other)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
    };
    Ok((codec, Box::new(Bounded { inner: open, left: max_bytes })))
}

/// Gzip's members one after the other. Zero bytes after the last are passed over, as gzip(1) does: tapes are padded with them.
struct Gzip<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            match rest.fill_buf()?.first() {
                None => {}
                Some(0) => padding(rest)?,
                Some(_) => self.member = Some(GzDecoder::new(rest)),
            }
        }
        Ok(0)
    }
}

/// Reads zero bytes to the end.
fn padding(mut rest: impl BufRead) -> io::Result<()> {
    loop {
        let bytes = rest.fill_buf()?;
        if bytes.iter().any(|&b| b != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what follows the last gzip member is none"));
        }
        let n = bytes.len();
        if n == 0 {
            return Ok(());
        }
        rest.consume(n);
    }
}

struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more bytes than allowed after decompression")),
        }
        Ok(n)
    }
}
