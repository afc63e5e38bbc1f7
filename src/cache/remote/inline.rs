//! Records that an image carries in its own configuration: `--cache-to type=inline`.
//!
//! Pure. The layers are the image's own, so a record only says which of them its step made, by its place. What differs
//! from run to run (how long a step took) is left out: two builds of one image stay one image.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::record::Record;
use super::{LayerForm, SharedRecord};
use crate::digest::DiffId;
use crate::image::manifest::Descriptor;

/// The configuration's key.
pub const KEY: &str = "plywood.cache.v1";

/// What a step of the image gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InlineRecord {
    /// The record; its cost is 0.
    pub record: Record,
    /// Which of the image's layers it made, from 0.
    pub layer: usize,
    /// The latest time in the layer's tar.
    pub clamp_epoch: Option<i64>,
    /// The tar's size.
    pub tar_bytes: u64,
    /// Whether the layer changes nothing.
    pub empty: bool,
}

/// Puts records into a configuration's unknown keys; none at all leaves none there.
pub fn embed(rest: &mut Map<String, Value>, records: Vec<InlineRecord>) {
    rest.remove(KEY);
    if !records.is_empty() {
        let without_cost = records.into_iter().map(|r| InlineRecord { record: Record { cost_secs: 0.0, ..r.record }, ..r });
        let value = serde_json::to_value(without_cost.collect::<Vec<_>>()).expect("records are text and numbers");
        rest.insert(KEY.into(), value);
    }
}

/// Returns the records of an image, each of the key that it says, with its layer's blob.
///
/// Those that can't be read, or speak of layers that the image has not, are left out: an image's maker may have used
/// another program.
pub fn extract(rest: &Map<String, Value>, diff_ids: &[DiffId], layers: &[Descriptor]) -> Vec<SharedRecord> {
    let Some(records) = rest.get(KEY).and_then(Value::as_array) else { return Vec::new() };
    let one = |value: &Value| {
        let InlineRecord { record, layer, clamp_epoch, tar_bytes, empty } = serde_json::from_value(value.clone()).ok()?;
        let (diff_id, blob) = (*diff_ids.get(layer)?, layers.get(layer)?.clone());
        // How its blob was made is not known: it stays as it is.
        let compression = "original".to_string();
        let key = record.key;
        let found = SharedRecord { record, form: LayerForm { clamp_epoch, diff_id, tar_bytes, empty, compression }, blob };
        found.is_of(&key).then_some(found)
    };
    records.iter().filter_map(one).collect()
}
