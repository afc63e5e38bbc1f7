//! The identity of a file system state: which layers, in which order.
//!
//! Pure. Layers that we built are named by content, so that two states are equal when their layers' contents are,
//! whichever steps made them. It is a fold, not a Merkle tree over the merged files: the same files spread over
//! other layers are another state. That costs a missed hit now and then, never a false one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::LayerId;

/// A BLAKE3 fold of layer ids, bottom to top; written `state:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId([u8; 32]);

impl StateId {
    /// The state without any layer: `FROM scratch`, and what `COPY --link` stands on.
    pub fn scratch() -> Self {
        Self(*blake3::Hasher::new_derive_key("plywood state 1").finalize().as_bytes())
    }

    /// Returns the state of these layers, bottom first.
    pub fn of<'a>(layers: impl IntoIterator<Item = &'a LayerId>) -> Self {
        layers.into_iter().fold(Self::scratch(), |state, layer| state.with(layer))
    }

    /// Returns the state with one more layer on top.
    #[must_use]
    pub fn with(self, layer: &LayerId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("plywood state 1");
        hasher.update(&self.0);
        let (kind, bytes) = match layer {
            LayerId::Diff(d) => (b'd', d.as_bytes()),
            LayerId::Content(c) => (b'c', c.as_bytes()),
        };
        hasher.update(&[kind]).update(bytes);
        Self(*hasher.finalize().as_bytes())
    }

    /// Returns the raw hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state:{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateId({}…)", &blake3::Hash::from_bytes(self.0).to_hex()[..12])
    }
}

/// A text that is no state id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a state id: expected state:<64 lower-case hex digits>")]
pub struct StateIdError;

impl FromStr for StateId {
    type Err = StateIdError;
    fn from_str(text: &str) -> Result<Self, StateIdError> {
        let hex = text.strip_prefix("state:").ok_or(StateIdError)?;
        let hash = blake3::Hash::from_hex(hex).map_err(|_| StateIdError)?;
        if hash.to_hex().as_str() == hex { Ok(Self(*hash.as_bytes())) } else { Err(StateIdError) }
    }
}

impl Serialize for StateId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StateId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{ContentDigest, DiffId};

    #[test]
    fn order_kind_and_number_of_layers_count() {
        let content = |n| LayerId::Content(ContentDigest::from_bytes([n; 32]));
        let diff = |n| LayerId::Diff(DiffId::from_bytes([n; 32]));
        let cases: [&[LayerId]; 6] =
            [&[], &[content(1)], &[diff(1)], &[content(1), content(2)], &[content(2), content(1)], &[content(1), content(1)]];
        let states: std::collections::BTreeSet<StateId> = cases.iter().map(|c| StateId::of(*c)).collect();
        assert_eq!(states.len(), cases.len());
        assert_eq!(StateId::of(&[content(1), diff(2)]), StateId::scratch().with(&content(1)).with(&diff(2)));
    }

    #[test]
    fn its_text_gives_it_back() {
        let state = StateId::scratch();
        assert_eq!(state.to_string().parse(), Ok(state));
        assert_eq!(state.to_string().to_uppercase().parse::<StateId>(), Err(StateIdError));
    }
}
