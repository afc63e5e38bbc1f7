//! The checksum of a download as its author published it: `sha256:…`, `sha384:…` or `sha512:…`.
//!
//! Not the name of anything of ours: what is stored is named by [`super::Digest`]. Its text is in lower case.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::{Digest, DigestError, from_hex, to_hex};

/// A checksum of one of the kinds that BuildKit parses.
#[derive(Clone, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256(Digest),
    /// SHA-384.
    Sha384([u8; 48]),
    /// SHA-512.
    Sha512([u8; 64]),
}

/// Computes the checksum of bytes that come in pieces.
#[derive(Clone)]
pub enum ChecksumHasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(Sha384),
    /// SHA-512.
    Sha512(Sha512),
}

impl Checksum {
    /// Returns a hasher of the same kind.
    pub fn hasher(&self) -> ChecksumHasher {
        match self {
            Self::Sha256(_) => ChecksumHasher::Sha256(Sha256::new()),
            Self::Sha384(_) => ChecksumHasher::Sha384(Sha384::new()),
            Self::Sha512(_) => ChecksumHasher::Sha512(Sha512::new()),
        }
    }
}

impl ChecksumHasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha384(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// Returns the checksum of all bytes so far.
    pub fn finish(self) -> Checksum {
        match self {
            Self::Sha256(h) => Checksum::Sha256(Digest::from_bytes(h.finalize().into())),
            Self::Sha384(h) => Checksum::Sha384(h.finalize().into()),
            Self::Sha512(h) => Checksum::Sha512(h.finalize().into()),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha384(bytes) => write!(f, "sha384:{}", to_hex(bytes)),
            Self::Sha512(bytes) => write!(f, "sha512:{}", to_hex(bytes)),
        }
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Checksum {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let bad = |expected| DigestError { text: text.chars().take(200).collect(), expected };
        match text.split_once(':') {
            Some(("sha384", hex)) => from_hex(hex).map(Self::Sha384).ok_or_else(|| bad("sha384:<96 lower-case hex digits>")),
            Some(("sha512", hex)) => from_hex(hex).map(Self::Sha512).ok_or_else(|| bad("sha512:<128 lower-case hex digits>")),
            _ => text.parse().map(Self::Sha256),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_written_and_computed() {
        for (text, of) in [
            ("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "abc"),
            ("sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7", "abc"),
            (
                "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
                "abc",
            ),
        ] {
            let checksum: Checksum = text.parse().unwrap();
            assert_eq!(checksum.to_string(), text);
            let mut hasher = checksum.hasher();
            hasher.update(of.as_bytes());
            assert_eq!(hasher.finish(), checksum);
        }
        for bad in ["", "md5:aa", "sha512:aa", "sha384:../x", "sha256:AA", "abc"] {
            assert!(bad.parse::<Checksum>().is_err(), "{bad}");
        }
    }
}
