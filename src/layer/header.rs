//! Tar headers as we write them: ustar, and PAX records only for what ustar can't hold.
//!
//! | fact | in the ustar header when | else PAX record |
//! |---|---|---|
//! | name | ASCII, at most 100 bytes, or splits at a `/` into 155 + 100 | `path` |
//! | link target | ASCII, at most 100 bytes | `linkpath` |
//! | uid, gid | below 8^7 | `uid`, `gid` |
//! | size | below 8^11 | `size` |
//! | mtime, whole seconds | 0 to 8^11 - 1 | `mtime` |
//! | attributes | never | `SCHILY.xattr.NAME` |
//!
//! Records are sorted by key; user and group names are left out, as Docker and BuildKit leave them out. Equal
//! facts give equal bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::path::Xattrs;

/// A tar's block.
pub(super) const BLOCK: usize = 512;
const MAX_ID: u64 = 0o777_7777;
const MAX_SIZE: u64 = 0o777_7777_7777;

/// The facts of one entry.
pub(super) struct Facts<'a> {
    pub path: &'a [u8],
    pub link: &'a [u8],
    pub kind: EntryType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime_secs: i64,
    pub rdev: (u32, u32),
    pub xattrs: &'a Xattrs,
}

/// Writes the header, and the PAX header that it may need before it.
pub(super) fn write(facts: &Facts<'_>, sink: &mut dyn Write) -> io::Result<()> {
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut record = |key: &str, value: &[u8]| records.insert(key.as_bytes().to_vec(), value.to_vec());
    let mut header = Header::new_ustar();
    header.set_entry_type(facts.kind);
    header.set_mode(facts.mode);
    if !put_path(&mut header, facts.path) {
        record("path", facts.path);
        put(&mut header.as_old_mut().name, &ascii(facts.path));
    }
    if facts.link.is_ascii() && facts.link.len() <= 100 {
        put(&mut header.as_old_mut().linkname, facts.link);
    } else {
        record("linkpath", facts.link);
        put(&mut header.as_old_mut().linkname, &ascii(facts.link));
    }
    for (key, id) in [("uid", u64::from(facts.uid)), ("gid", u64::from(facts.gid))] {
        let fits = id <= MAX_ID;
        if !fits {
            record(key, id.to_string().as_bytes());
        }
        let id = if fits { id } else { 0 };
        if key == "uid" { header.set_uid(id) } else { header.set_gid(id) }
    }
    if facts.size > MAX_SIZE {
        record("size", facts.size.to_string().as_bytes());
    }
    header.set_size(if facts.size > MAX_SIZE { 0 } else { facts.size });
    match u64::try_from(facts.mtime_secs) {
        Ok(secs) if secs <= MAX_SIZE => header.set_mtime(secs),
        _ => {
            record("mtime", facts.mtime_secs.to_string().as_bytes());
            header.set_mtime(0);
        }
    }
    if facts.kind.is_character_special() || facts.kind.is_block_special() {
        header.set_device_major(facts.rdev.0)?;
        header.set_device_minor(facts.rdev.1)?;
    }
    for (name, value) in facts.xattrs {
        records.insert([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
    }
    if !records.is_empty() {
        write_pax(facts.path, &records, sink)?;
    }
    header.set_cksum();
    sink.write_all(header.as_bytes())
}

/// Fills up to the next block.
pub(super) fn write_padding(size: u64, sink: &mut dyn Write) -> io::Result<()> {
    let used = usize::try_from(size % BLOCK as u64).expect("below 512");
    if used > 0 { sink.write_all(&[0; BLOCK][used..]) } else { Ok(()) }
}

/// Writes the two empty blocks that end a tar.
pub(super) fn write_end(sink: &mut dyn Write) -> io::Result<()> {
    sink.write_all(&[0; 2 * BLOCK])
}

/// Puts a path into name and prefix; false when it does not fit.
fn put_path(header: &mut Header, path: &[u8]) -> bool {
    if !path.is_ascii() || path.len() > 256 {
        return false;
    }
    if path.len() <= 100 {
        put(&mut header.as_old_mut().name, path);
        return true;
    }
    // The leftmost `/` that leaves 100 bytes or less; a directory's own last `/` splits nothing.
    let split = path.iter().enumerate().position(|(i, &c)| c == b'/' && i > 0 && path.len() - i - 1 <= 100);
    let Some(at) = split.filter(|&at| at <= 155 && at + 1 < path.len()) else { return false };
    let ustar = header.as_ustar_mut().expect("made as ustar");
    put(&mut ustar.prefix, &path[..at]);
    put(&mut ustar.name, &path[at + 1..]);
    true
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let n = bytes.len().min(field.len());
    field[..n].copy_from_slice(&bytes[..n]);
}

/// What a reader without PAX gets to see.
fn ascii(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|&c| if c.is_ascii() { c } else { b'_' }).take(100).collect()
}

fn write_pax(path: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>, sink: &mut dyn Write) -> io::Result<()> {
    let mut body = Vec::new();
    for (key, value) in records {
        body.extend_from_slice(record_length(key.len() + value.len()).to_string().as_bytes());
        body.push(b' ');
        body.extend_from_slice(key);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    let base = path.strip_suffix(b"/").unwrap_or(path);
    let base = base.rsplit(|&c| c == b'/').next().unwrap_or_default();
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    put(&mut header.as_old_mut().name, &ascii(&[b"PaxHeaders.0/", base].concat()));
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(body.len() as u64);
    header.set_cksum();
    sink.write_all(header.as_bytes())?;
    sink.write_all(&body)?;
    write_padding(body.len() as u64, sink)
}

/// The length of a record `LENGTH KEY=VALUE\n`, which counts its own digits.
fn record_length(key_and_value: usize) -> usize {
    let rest = key_and_value + 3;
    let mut digits = 1;
    while (rest + digits).to_string().len() > digits {
        digits += 1;
    }
    rest + digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_length_counts_its_own_digits() {
        for (n, want) in [(1, 5), (5, 9), (6, 11), (94, 99), (95, 101), (994, 1001), (1 << 20, (1 << 20) + 10)] {
            assert_eq!(record_length(n), want, "{n}");
        }
    }
}
