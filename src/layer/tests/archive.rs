//! Archives made by hand, field by field: also those that no tar program writes.

use tar::{EntryType, Header};

/// Bytes of an archive under construction.
#[derive(Default, Clone)]
pub struct Archive(pub Vec<u8>);

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn header(kind: u8, path: &str, link: &str, size: u64) -> Header {
        let mut h = Header::new_ustar();
        h.set_entry_type(EntryType::new(kind));
        h.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        h.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        h.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(1_000_000_000);
        h.set_size(size);
        h
    }

    pub fn push(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn entry(self, kind: u8, path: &str, link: &str) -> Self {
        self.push(Self::header(kind, path, link, 0), b"")
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "")
    }

    pub fn file(self, path: &str, data: &str) -> Self {
        self.push(Self::header(b'0', path, "", data.len() as u64), data.as_bytes())
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target)
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target)
    }

    pub fn device(self, kind: u8, path: &str, major: u32, minor: u32) -> Self {
        let mut h = Self::header(kind, path, "", 0);
        h.set_device_major(major).unwrap();
        h.set_device_minor(minor).unwrap();
        self.push(h, b"")
    }

    /// An extension header: `x`, `g`, `L`, `K`.
    pub fn extension(self, kind: u8, body: &[u8]) -> Self {
        self.push(Self::header(kind, "ext", "", body.len() as u64), body)
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let mut length = key.len() + value.len() + 3;
            length += (length + 1).to_string().len();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.extension(b'x', &body)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
