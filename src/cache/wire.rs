//! Canonical bytes: the encoder under every key, and the compact form of lists of files.
//!
//! Pure. Each value is written with its type and length, each field with its name, so that no two different inputs
//! give the same bytes and a new optional field leaves the keys without it as they were. Never JSON: its texts
//! depend on a library's taste.

/// Writes typed values into a hash.
pub(super) struct Encoder(blake3::Hasher);

impl Encoder {
    /// Starts a hash that no other purpose shares.
    pub(super) fn new(purpose: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(purpose))
    }

    pub(super) fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    fn typed(&mut self, kind: u8, bytes: &[u8]) -> &mut Self {
        self.0.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    /// The name of the field whose value comes next.
    pub(super) fn field(&mut self, name: &str) -> &mut Self {
        self.typed(b'f', name.as_bytes())
    }

    /// Which variant of an enum comes next.
    pub(super) fn variant(&mut self, name: &str) -> &mut Self {
        self.typed(b'v', name.as_bytes())
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.typed(b's', text.as_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.typed(b'b', bytes)
    }

    pub(super) fn number(&mut self, n: u64) -> &mut Self {
        self.typed(b'n', &n.to_le_bytes())
    }

    pub(super) fn flag(&mut self, on: bool) -> &mut Self {
        self.typed(b'?', &[u8::from(on)])
    }

    /// A list: its length, then each item by `write`.
    pub(super) fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.typed(b'l', &(items.len() as u64).to_le_bytes());
        for item in items {
            write(self, item);
        }
        self
    }

    /// Something or nothing.
    pub(super) fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) -> &mut Self {
        self.typed(b'o', &[u8::from(value.is_some())]);
        if let Some(value) = value {
            write(self, value);
        }
        self
    }
}

/// Appends values to bytes that [`Reader`] takes apart again.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    /// LEB128.
    pub(super) fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            #[allow(clippy::cast_possible_truncation)] // the low seven bits are meant
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        #[allow(clippy::cast_possible_truncation)]
        self.0.push(n as u8);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Takes apart what [`Writer`] made; none at anything unexpected, whatever the bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(n);
            }
        }
        None
    }

    pub(super) fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(super) fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?.try_into().ok()?;
        self.raw(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_look_alike_side_by_side_hash_apart() {
        let hash = |write: &dyn Fn(&mut Encoder)| {
            let mut e = Encoder::new("test");
            write(&mut e);
            e.finish()
        };
        let pair = |e: &mut Encoder, list: &[&str]| {
            e.list(list, |e, s| {
                e.text(s);
            });
        };
        let all = [
            hash(&|e| pair(e, &["ab", "c"])),
            hash(&|e| pair(e, &["a", "bc"])),
            hash(&|e| pair(e, &["abc"])),
            hash(&|e| pair(e, &["abc", ""])),
            hash(&|e| {
                e.bytes(b"abc");
            }),
            hash(&|e| {
                e.text("abc");
            }),
            hash(&|e| {
                e.option(None::<&u64>, |_, _| {});
            }),
            hash(&|e| {
                e.option(Some(&0), |e, n| {
                    e.number(*n);
                });
            }),
            hash(&|e| {
                e.flag(false);
            }),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn a_reader_gives_back_what_was_written_and_refuses_what_is_cut() {
        let mut w = Writer::default();
        for n in [0, 127, 128, u64::MAX] {
            w.number(n);
        }
        w.bytes(b"xy");
        let mut r = Reader(&w.0);
        assert_eq!([r.number(), r.number(), r.number(), r.number()], [Some(0), Some(127), Some(128), Some(u64::MAX)]);
        assert_eq!(r.bytes(), Some(&b"xy"[..]));
        assert!(r.0.is_empty());
        assert_eq!(Reader(&[0x80]).number(), None);
        assert_eq!(Reader(&[9, 1]).bytes(), None);
        assert_eq!(Reader(&[0xff; 12]).number(), None);
    }
}
