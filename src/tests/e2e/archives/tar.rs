//! A tar writer that writes whatever it is told: also what no tar program would.

/// The three dialects in which a long name or a large number can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Ustar,
    Pax,
    Gnu,
}

/// An entry as a tree would have it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub kind: u8,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub dev: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub form: Form,
}

pub fn entry(kind: u8, name: impl AsRef<[u8]>) -> Entry {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    let (link, data, xattrs) = (Vec::new(), Vec::new(), Vec::new());
    let name = name.as_ref().to_vec();
    Entry { kind, name, link, data, mode, uid: 0, gid: 0, mtime: 1_500_000_000, dev: (0, 0), xattrs, form: Form::Ustar }
}

pub fn dir(name: impl AsRef<[u8]>) -> Entry {
    entry(b'5', name)
}

pub fn file(name: impl AsRef<[u8]>, data: &str) -> Entry {
    Entry { data: data.into(), ..entry(b'0', name) }
}

pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry { link: target.as_ref().to_vec(), ..entry(b'2', name) }
}

pub fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry { link: target.as_ref().to_vec(), ..entry(b'1', name) }
}

pub fn device(kind: u8, name: &str, major: u32, minor: u32) -> Entry {
    Entry { dev: (major, minor), ..entry(kind, name) }
}

impl Entry {
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn owner(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }

    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((name.into(), value.to_vec()));
        self
    }

    pub fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// The bytes: extension headers, header, data, padding.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut records: Vec<(Vec<u8>, Vec<u8>)> =
            self.xattrs.iter().map(|(n, v)| ([b"SCHILY.xattr.", n.as_slice()].concat(), v.clone())).collect();
        for (key, kind, text) in [("path", b'L', &self.name), ("linkpath", b'K', &self.link)] {
            if text.len() <= 100 && (self.form == Form::Ustar || text.is_empty()) {
                continue;
            }
            match self.form {
                Form::Gnu => out.extend(block(kind, b"././@LongLink", &[text.as_slice(), b"\0"].concat())),
                _ => records.push((key.into(), text.clone())),
            }
        }
        if !records.is_empty() {
            let borrowed: Vec<(&[u8], &[u8])> = records.iter().map(|(k, v)| (k.as_slice(), v.as_slice())).collect();
            out.extend(block(b'x', b"PaxHeaders/0", &pax(&borrowed)));
        }
        out.extend(self.header().finish());
        out.extend(&self.data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    /// The entry's own header, to be spoiled.
    pub fn header(&self) -> Header {
        let mut h = Header([0; 512]);
        h.text(0, 100, &self.name).octal(100, 8, self.mode.into()).octal(108, 8, self.uid.into()).octal(116, 8, self.gid.into());
        h.octal(124, 12, self.data.len() as u64).octal(136, 12, self.mtime).text(157, 100, &self.link);
        h.0[156] = self.kind;
        if self.form == Form::Gnu {
            h.text(257, 8, b"ustar  \0")
        } else {
            h.text(257, 8, b"ustar\x0000")
        };
        if matches!(self.kind, b'3' | b'4') {
            h.octal(329, 8, self.dev.0.into()).octal(337, 8, self.dev.1.into());
        }
        h
    }
}

/// 512 bytes under construction.
#[derive(Clone)]
pub struct Header(pub [u8; 512]);

impl Header {
    /// Writes a field, cut to its length.
    pub fn text(&mut self, at: usize, len: usize, text: &[u8]) -> &mut Self {
        let n = text.len().min(len);
        self.0[at..at + len].fill(0);
        self.0[at..at + n].copy_from_slice(&text[..n]);
        self
    }

    pub fn octal(&mut self, at: usize, len: usize, value: u64) -> &mut Self {
        let text = format!("{value:0width$o}", width = len - 1);
        self.text(at, len, text.as_bytes())
    }

    /// Base-256, as GNU tar writes large numbers.
    pub fn binary(&mut self, at: usize, len: usize, value: u64) -> &mut Self {
        self.0[at..at + len].fill(0);
        self.0[at + len - 8..at + len].copy_from_slice(&value.to_be_bytes());
        self.0[at] |= 0x80;
        self
    }

    /// In octal where it has the room.
    pub fn large(&mut self, at: usize, len: usize, value: u64) -> &mut Self {
        if value < 1 << (3 * (len - 1)) { self.octal(at, len, value) } else { self.binary(at, len, value) }
    }

    /// The bytes with the right sum.
    pub fn finish(&self) -> Vec<u8> {
        let mut bytes = self.0;
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes.iter().map(|&b| u32::from(b)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.to_vec()
    }
}

/// A header of any type with a body: extensions, for one.
pub fn block(kind: u8, name: &[u8], body: &[u8]) -> Vec<u8> {
    Entry { data: body.to_vec(), ..entry(kind, name) }.bytes_plain()
}

impl Entry {
    fn bytes_plain(&self) -> Vec<u8> {
        let mut out = self.header().finish();
        out.extend(&self.data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

/// PAX records with right lengths.
pub fn pax(records: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let bare = key.len() + value.len() + 3;
        let mut length = bare + bare.to_string().len();
        if length.to_string().len() > bare.to_string().len() {
            length = bare + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} ").as_bytes());
        body.extend_from_slice(key);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

/// An `x` header with such records.
pub fn extended(records: &[(&str, &[u8])]) -> Vec<u8> {
    let raw: Vec<(&[u8], &[u8])> = records.iter().map(|(k, v)| (k.as_bytes(), *v)).collect();
    block(b'x', b"PaxHeaders/0", &pax(&raw))
}

/// A whole archive.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    end(entries.iter().flat_map(Entry::bytes).collect())
}

pub fn end(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
