//! The hashes of Plywood, a newtype for each kind, so that one can't stand where another is meant.
//!
//! | type | of what | with what |
//! |---|---|---|
//! | [`Digest`] | bytes as they are stored or sent (a blob, a manifest) | SHA-256 |
//! | [`DiffId`] | a layer's uncompressed tar | SHA-256 |
//! | [`ContentDigest`] | a tree or a change set: names, modes, owners, bytes; no times, no tar framing | BLAKE3 |
//! | [`CacheKey`] | all that decides a step's result | BLAKE3 |
//! | [`LayerId`] | which layer, by the identity at hand | one of the above |
//! | [`Checksum`] | a download, as its author published it | SHA-256, SHA-384, SHA-512 |
//!
//! A digest that comes from outside is parsed here once; its text then is safe as a file name.

mod checksum;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

pub use checksum::{Checksum, ChecksumHasher};

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: expected `{expected}`")]
pub struct DigestError {
    text: String,
    expected: &'static str,
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// What each byte is worth as a lower-case hex digit; 255: it is none. A build reads thousands of digests from its index.
const NIBBLES: [u8; 256] = {
    let mut table = [u8::MAX; 256];
    let mut nibble = 0;
    while nibble < 16 {
        table[DIGITS[nibble as usize] as usize] = nibble;
        nibble += 1;
    }
    table
};

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut out = [0; N];
    if pairs.len() != N {
        return None;
    }
    let mut worst = 0;
    for (o, [high, low]) in out.iter_mut().zip(pairs) {
        let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
        worst |= high | low;
        *o = high << 4 | low & 15;
    }
    (worst < 16).then_some(out)
}

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps a finished hash.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// Returns the raw hash.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// Returns the 64 lower-case hex digits, without the algorithm.
            pub fn hex(&self) -> String {
                to_hex(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}…)"), &self.hex()[..12])
            }
        }

        impl FromStr for $name {
            type Err = DigestError;
            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.strip_prefix($prefix).and_then(from_hex).map(Self).ok_or_else(|| DigestError {
                    text: text.chars().take(100).collect(),
                    expected: concat!($prefix, "<64 lower-case hex digits>"),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_type!(
    /// The SHA-256 of bytes as they are stored or sent; written `sha256:<hex>`.
    Digest,
    "sha256:"
);
hash_type!(
    /// The SHA-256 of a layer's uncompressed tar; written `sha256:<hex>`.
    DiffId,
    "sha256:"
);
hash_type!(
    /// The BLAKE3 of a tree's or change set's content, times left out; written `blake3:<hex>`.
    ContentDigest,
    "blake3:"
);
hash_type!(
    /// The BLAKE3 of a step's key inputs; written `key:<hex>`.
    CacheKey,
    "key:"
);

impl Digest {
    /// Hashes bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

/// Which layer, by the identity that was cheapest to get.
///
/// A layer of a base image is known by its diff ID, which stands in the image's configuration and needs no
/// unpacking. A layer that we built is known by its content, so that a step that ran again with an equal
/// result gives the same layer whatever its times. Written `diff-<hex>` or `content-<hex>`: also its
/// directory's name in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerId {
    /// A layer that came with an image.
    Diff(DiffId),
    /// A layer that a step made.
    Content(ContentDigest),
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Diff(d) => write!(f, "diff-{}", d.hex()),
            Self::Content(d) => write!(f, "content-{}", d.hex()),
        }
    }
}

impl FromStr for LayerId {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = |prefix| text.strip_prefix(prefix).and_then(from_hex);
        if let Some(h) = hex("diff-") {
            Ok(Self::Diff(DiffId(h)))
        } else if let Some(h) = hex("content-") {
            Ok(Self::Content(ContentDigest(h)))
        } else {
            Err(DigestError { text: text.chars().take(100).collect(), expected: "diff-<hex> or content-<hex>" })
        }
    }
}

impl Serialize for LayerId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LayerId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_hex_is_a_digest() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in ["", "sha256:", "sha256:0F", "0f", "sha512:aa", "sha256:../../x", &good.to_uppercase(), &format!("{good}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_layer_id_survives_its_text() {
        for id in [LayerId::Diff(DiffId([7; 32])), LayerId::Content(ContentDigest([9; 32]))] {
            assert_eq!(id.to_string().parse::<LayerId>().unwrap(), id);
        }
        assert!("content-../x".parse::<LayerId>().is_err());
    }
}
