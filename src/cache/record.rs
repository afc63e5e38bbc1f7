//! What is kept of a step: its record (makes hits) and its slot (explains misses).
//!
//! Pure. Both are self-contained: with their key inputs in them they can be compared, shown and carried to another
//! machine without the build that made them.

use serde::{Deserialize, Serialize};

use super::key::{FORMAT, KeyInputs};
use super::wire::Encoder;
use crate::digest::{CacheKey, ContentDigest, LayerId};

/// What a key gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The key of `inputs`; what it is looked up by.
    pub key: CacheKey,
    /// What decided the result.
    pub inputs: KeyInputs,
    /// The layer that the step made.
    pub layer: LayerId,
    /// What is in the layer.
    ///
    /// Two steps with equal content share one `LayerId::Content`, and so one directory, one diff ID, one blob: a step
    /// that ran again with an equal result continues with the earlier layer, times included, and the image's digest
    /// stays. Nothing has to be looked up for that.
    pub content: ContentDigest,
    /// `RUN make`, for lists and statistics.
    pub title: String,
    /// How long the step took.
    pub cost_secs: f64,
    /// When, in unix seconds.
    pub created_secs: i64,
}

impl Record {
    /// Makes the record of a step that ended well.
    pub fn new(inputs: KeyInputs, layer: LayerId, content: ContentDigest, title: &str, cost_secs: f64, created_secs: i64) -> Self {
        Self { key: inputs.key(), inputs, layer, content, title: title.into(), cost_secs, created_secs }
    }
}

/// The last inputs of one place in a Dockerfile, with what people call them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// What decided the result.
    pub inputs: KeyInputs,
    /// The paths as written, one for each source of a COPY (`app/`) or each bind mount of a RUN, in order.
    #[serde(default)]
    pub sources: Vec<String>,
    /// The format of the key: other formats make other keys of equal inputs.
    #[serde(default = "first_format")]
    pub format: u64,
}

/// What a slot without a format was made by.
fn first_format() -> u64 {
    1
}

impl Slot {
    /// Makes the slot of a step that is decided now.
    pub fn new(inputs: KeyInputs, sources: Vec<String>) -> Self {
        Self { inputs, sources, format: FORMAT }
    }
}

/// Which place in which Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(String);

impl SlotId {
    /// Derives the id of the `nth` (from 0) instruction of this kind in a stage.
    ///
    /// `dockerfile` is what the caller tells Dockerfiles apart by: the context's and the file's path. Counting by kind
    /// keeps the COPYs' slots when a RUN is put in between.
    pub fn derive(dockerfile: &str, stage: &str, kind: &str, nth: usize) -> Self {
        let mut e = Encoder::new("plywood slot");
        e.text(dockerfile).text(stage).text(kind).number(nth as u64);
        Self(blake3::Hash::from_bytes(e.finish()).to_hex().to_string())
    }

    /// Returns its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
