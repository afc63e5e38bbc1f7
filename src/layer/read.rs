//! A tar reader for archives that nobody vouches for.
//!
//! What readers disagree about is where attacks live (CVE-2025-62518, CVE-2026-33055), so: a PAX size always
//! wins over the header's, for finding the next header too; a damaged checksum, PAX record or long name is an
//! error and never passed over; GNU and PAX names that contradict each other are an error. Lengths in the
//! archive are never allocated before they are checked ([`MAX_EXTENSION_BYTES`]).
//!
//! Reads ustar, PAX (`path linkpath size uid gid mtime SCHILY.xattr.*`), GNU long names and base-256 numbers.
//! Sparse entries of GNU tar are refused: layers have none, and their maps are a parser of their own.

mod fields;

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use tar::Header;

use fields::{check_sum, number, parse_time, plain_mtime, records};

use super::header::BLOCK;
use super::{LayerError, Result};
use crate::path::{Time, Xattrs, printable};

/// The most that an extension header (PAX records, a GNU long name) may take: Go's archive/tar allows the same.
pub const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// The kernel's bound for an attribute's value (XATTR_SIZE_MAX).
const MAX_XATTR_BYTES: usize = 64 * 1024;
/// ustar's fields that [`tar::OldHeader`] doesn't name.
const DEV_MAJOR: std::ops::Range<usize> = 329..337;
const DEV_MINOR: std::ops::Range<usize> = 337..345;

/// What an archive's entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EntryKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// An archive's entry; names are raw and hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The name as written.
    pub path: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// The type.
    pub kind: EntryKind,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of data that follow.
    pub size: u64,
    /// Last change.
    pub mtime: Time,
    /// Device numbers.
    pub rdev: (u32, u32),
    /// All `SCHILY.xattr.*` records, sorted.
    pub xattrs: Xattrs,
}

/// Reads entries one after the other; the data of the current one by [`Read`].
pub struct TarReader<R> {
    inner: R,
    /// Where the next byte comes from.
    offset: u64,
    /// Data of the current entry that is still to come.
    left: u64,
    padding: u64,
    current: Vec<u8>,
}

/// What PAX and GNU headers said about the entry that follows.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<Time>,
    xattrs: Xattrs,
    gnu_path: Option<Vec<u8>>,
    gnu_link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    /// Starts at the archive's first byte.
    pub fn new(inner: R) -> Self {
        Self { inner, offset: 0, left: 0, padding: 0, current: Vec::new() }
    }

    /// Gives the underlying reader back.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Passes over what is left of the current entry and reads the next; none at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>> {
        let mut extensions = Extensions::default();
        loop {
            self.pass_over()?;
            let at = self.offset;
            let Some(block) = self.block()? else { return Ok(None) };
            if block == [0; BLOCK] {
                return match self.block()? {
                    None | Some([0, ..]) => Ok(None),
                    Some(_) => Err(malformed(at, "data after an empty block")),
                };
            }
            let header = Header::from_byte_slice(&block);
            check_sum(&block, at)?;
            let size = number(&header.as_old().size).ok_or(malformed(at, "size is no number"))?;
            match block[156] {
                b'x' | b'X' => {
                    extensions = Extensions { gnu_path: extensions.gnu_path, gnu_link: extensions.gnu_link, ..self.pax(size, at)? }
                }
                b'g' => self.global(size, at)?,
                b'L' => extensions.gnu_path = Some(self.long_name(size, at)?),
                b'K' => extensions.gnu_link = Some(self.long_name(size, at)?),
                kind => return self.entry(header, kind, size, extensions, at).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, kind: u8, size: u64, more: Extensions, at: u64) -> Result<TarEntry> {
        let path = agree(more.path, more.gnu_path, at)?.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = agree(more.link, more.gnu_link, at)?.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        if path.contains(&0) || link.contains(&0) {
            return Err(malformed(at, "a name holds a zero byte"));
        }
        let kind = match kind {
            // Archives from before POSIX tell directories by their name.
            b'0' | b'\0' | b'7' if kind == b'\0' && path.ends_with(b"/") => EntryKind::Directory,
            b'0' | b'\0' | b'7' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'S' => return Err(LayerError::Entry { path: printable(&path), what: "sparse files of GNU tar are not supported" }),
            _ => return Err(LayerError::Entry { path: printable(&path), what: "unknown type" }),
        };
        let small = |field: &[u8], what| number(field).and_then(|n| u32::try_from(n).ok()).ok_or(malformed(at, what));
        let id = |wide: Option<u32>, field, what| match wide.map_or_else(|| small(field, what), Ok)? {
            // chown(2) takes it for "leave it as it is".
            u32::MAX => Err(malformed(at, what)),
            id => Ok(id),
        };
        let old = header.as_old();
        // Only files carry data, whatever the size says (Go and Python read it so).
        let size = if kind == EntryKind::File { more.size.unwrap_or(size) } else { 0 };
        let device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        let part = |at| small(&header.as_bytes()[at], "device number is no number");
        let entry = TarEntry {
            mode: small(&old.mode, "mode is no number")? & 0o7777,
            uid: id(more.uid, &old.uid, "uid is no number")?,
            gid: id(more.gid, &old.gid, "gid is no number")?,
            mtime: more.mtime.map_or_else(|| plain_mtime(header, at), Ok)?,
            rdev: if device { (part(DEV_MAJOR)?, part(DEV_MINOR)?) } else { (0, 0) },
            xattrs: more.xattrs,
            path,
            link,
            kind,
            size,
        };
        self.left = size;
        self.padding = size.checked_next_multiple_of(BLOCK as u64).ok_or(malformed(at, "size is too large"))? - size;
        self.current.clone_from(&entry.path);
        Ok(entry)
    }

    /// Reads a block; none when the archive ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let n = read_full(&mut self.inner, &mut block)?;
        self.offset += n as u64;
        match n {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(LayerError::Truncated { path: printable(&self.current) }),
        }
    }

    /// Passes over the rest of the current entry.
    fn pass_over(&mut self) -> Result<()> {
        let mut left = self.left + self.padding;
        let mut buf = [0; 16 * 1024];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let n = read_full(&mut self.inner, &mut buf[..want])?;
            if n < want {
                return Err(LayerError::Truncated { path: printable(&self.current) });
            }
            self.offset += n as u64;
            left -= n as u64;
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads an extension's body.
    fn body(&mut self, size: u64, at: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION_BYTES {
            return Err(malformed(at, "extension header is larger than 1 MiB"));
        }
        let len = usize::try_from(size).map_err(|_| malformed(at, "size is too large"))?;
        let mut body = vec![0; len.next_multiple_of(BLOCK)];
        if read_full(&mut self.inner, &mut body)? < body.len() {
            return Err(LayerError::Truncated { path: "extension header".to_owned() });
        }
        self.offset += body.len() as u64;
        body.truncate(len);
        Ok(body)
    }

    fn long_name(&mut self, size: u64, at: u64) -> Result<Vec<u8>> {
        let mut name = self.body(size, at)?;
        if let Some(end) = name.iter().position(|&c| c == 0) {
            name.truncate(end);
        }
        if name.is_empty() { Err(malformed(at, "empty long name")) } else { Ok(name) }
    }

    /// Global records speak of all entries: git writes a comment. Those that would change entries are refused.
    fn global(&mut self, size: u64, at: u64) -> Result<()> {
        let body = self.body(size, at)?;
        for record in records(&body) {
            let (key, _) = record.ok_or(malformed(at, "damaged PAX record"))?;
            if matches!(key, b"path" | b"linkpath" | b"size") {
                return Err(malformed(at, "global PAX header sets names or sizes"));
            }
        }
        Ok(())
    }

    fn pax(&mut self, size: u64, at: u64) -> Result<Extensions> {
        let body = self.body(size, at)?;
        let mut out = Extensions::default();
        for record in records(&body) {
            let (key, value) = record.ok_or(malformed(at, "damaged PAX record"))?;
            let bad = |_| malformed(at, "PAX value is no number");
            // An empty value takes the header's (pax(1)).
            let text = || std::str::from_utf8(value).map_err(|_| malformed(at, "PAX value is no number"));
            let given = !value.is_empty();
            match key {
                b"path" => out.path = given.then(|| value.to_vec()),
                b"linkpath" => out.link = given.then(|| value.to_vec()),
                b"size" if given => out.size = Some(text()?.parse().map_err(bad)?),
                b"uid" if given => out.uid = Some(text()?.parse().map_err(bad)?),
                b"gid" if given => out.gid = Some(text()?.parse().map_err(bad)?),
                b"mtime" if given => out.mtime = Some(parse_time(text()?).ok_or(malformed(at, "PAX time is no number"))?),
                _ if key.starts_with(b"GNU.sparse.") => return Err(malformed(at, "sparse files of GNU tar are not supported")),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        if value.len() > MAX_XATTR_BYTES || name.is_empty() || name.contains(&0) {
                            return Err(malformed(at, "unusable extended attribute"));
                        }
                        out.xattrs.retain(|(n, _)| n != name);
                        out.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        out.xattrs.sort_unstable();
        Ok(out)
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// Returns where the current entry's data begins, in bytes from where the reader began.
    pub fn position(&self) -> u64 {
        self.offset
    }

    /// Moves past the current entry's data without reading it, of which nothing may have been read.
    pub fn seek_over(&mut self) -> Result<()> {
        let failed = |source| LayerError::Read { source };
        let bytes = self.left + self.padding;
        let here = self.inner.stream_position().map_err(failed)?;
        let end = self.inner.seek(SeekFrom::End(0)).map_err(failed)?;
        if end.checked_sub(here).is_none_or(|there| there < bytes) {
            return Err(LayerError::Truncated { path: printable(&self.current) });
        }
        self.inner.seek(SeekFrom::Start(here + bytes)).map_err(failed)?;
        self.offset += bytes;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

impl<R: Read> Read for TarReader<R> {
    /// Reads the current entry's data; an archive that ends within it is an error.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        self.offset += n as u64;
        Ok(n)
    }
}

impl<R: BufRead> BufRead for TarReader<R> {
    /// The current entry's data as it lies ready; nothing at its end, an error where the archive ends within it.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let ready = self.inner.fill_buf()?;
        if ready.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&ready[..usize::try_from(self.left).unwrap_or(usize::MAX).min(ready.len())])
    }

    fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.left -= n as u64;
        self.offset += n as u64;
    }
}

fn malformed(offset: u64, what: &'static str) -> LayerError {
    LayerError::Malformed { offset, what }
}

fn read_full(inner: &mut impl Read, buf: &mut [u8]) -> Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match inner.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(LayerError::Read { source }),
        }
    }
    Ok(n)
}

/// One value out of two that may say the same thing.
fn agree(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, at: u64) -> Result<Option<Vec<u8>>> {
    match (pax, gnu) {
        (Some(a), Some(b)) if a != b => Err(malformed(at, "GNU and PAX names contradict each other")),
        (a, b) => Ok(a.or(b)),
    }
}
