//! ADD's archives: known by content, unpacked where the destination is.
//!
//! A name means nothing here. An archive without members isn't recognised: its first block is no header, and
//! BuildKit copies such a file as it is. So is a stream whose beginning doesn't unpack to a tar's header.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use crate::layer::{self, ExtractOptions, Limits, TarReader};
use crate::path::{self, Attributes, Ownership, Root, printable};

use super::error::CopyCause;
use crate::engine::cancel::CancelToken;

/// Whether the file, which is at its start before and afterwards, is a tar, compressed or not.
pub(super) fn recognise(file: &mut File) -> io::Result<bool> {
    let stream = layer::decompress(file.try_clone()?, Limits::default().max_bytes);
    let member = stream.is_ok_and(|(_, plain)| matches!(TarReader::new(plain).next_entry(), Ok(Some(_))));
    file.seek(SeekFrom::Start(0))?;
    Ok(member)
}

/// Unpacks an archive into the directory at `dest` (without links) inside `root`, which exists.
///
/// Files replace what lies in their place, directories merge. The directory itself keeps what it has, whatever
/// the archive says of `./`.
pub(super) fn unpack(
    file: &File,
    cancel: &CancelToken,
    shown: &str,
    root: &Root,
    dest: &[u8],
    owner: Option<(u32, u32)>,
    ownership: Ownership,
) -> Result<(), CopyCause> {
    let fail = |source| CopyCause::Unpack { archive: shown.to_owned(), source };
    let io = |source| CopyCause::Io { action: "reading", path: shown.to_owned(), source };
    let dir = root.open_dir_nolinks(dest)?;
    let (meta, xattrs) =
        path::inspect(&dir, b"").map_err(|e| CopyCause::Io { action: "examining", path: printable(dest), source: e.into() })?;
    let limits = Limits::default();
    let (_, plain) = layer::decompress(cancel.reading(file.try_clone().map_err(io)?), limits.max_bytes).map_err(io)?;
    layer::extract(plain, root, dest, &ExtractOptions { owner, ownership, limits }).map_err(fail)?;
    let attributes = Attributes { uid: meta.uid, gid: meta.gid, mode: Some(meta.mode), mtime: None, xattrs };
    path::apply(&dir, dest, &attributes, ownership)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn tar() -> Vec<u8> {
        let mut b = tar::Builder::new(Vec::new());
        let mut h = tar::Header::new_gnu();
        h.set_size(1);
        h.set_mode(0o644);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(0);
        b.append_data(&mut h, "f", &b"f"[..]).unwrap();
        b.into_inner().unwrap()
    }

    fn packed(with: &str, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match with {
            "gzip" => flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast()).write_all(data).unwrap(),
            "bzip2" => bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::fast()).write_all(data).unwrap(),
            "xz" => liblzma::write::XzEncoder::new(&mut out, 0).write_all(data).unwrap(),
            "zstd" => out = zstd::encode_all(data, 1).unwrap(),
            _ => out.extend_from_slice(data),
        }
        out
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    #[test]
    fn archives_are_known_by_content() {
        for with in ["plain", "gzip", "bzip2", "xz", "zstd"] {
            for (data, expected) in [(tar(), true), (b"just text\n".to_vec(), false), (vec![0; 10240], false), (Vec::new(), false)] {
                let bytes = packed(with, &data);
                let mut f = file(&bytes);
                assert_eq!(recognise(&mut f).unwrap(), expected, "{with} {}", data.len());
                let mut again = Vec::new();
                f.read_to_end(&mut again).unwrap();
                assert_eq!(again, bytes, "the file is at its start");
            }
        }
    }

    #[test]
    fn what_only_begins_like_an_archive_is_none() {
        for bytes in [&b"\x1f\x8bnot gzip"[..], b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd\x00"] {
            assert!(!recognise(&mut file(bytes)).unwrap(), "{bytes:?}");
        }
    }
}
