//! A layer cache that machines share: what its objects are, as bytes.
//!
//! | file | is |
//! |---|---|
//! | `object` | the one form of all objects: an OCI manifest with a small body |
//! | `tag` | how an object is found: by what it is about |
//! | `inline` | records that an image carries in its own configuration |
//!
//! There is no list of what a cache holds. Each step's result is an object of its own, found by its key and written
//! once, so that any number of builds write at once and none takes back what another wrote. The objects of other kinds:
//!
//! | kind | found by | says | written |
//! |---|---|---|---|
//! | record | a step's key | what the step gave: its inputs, its layer, the layer's blob | once |
//! | selection | a tree's state and what is taken from it | the content of that: lets a `COPY --from` be keyed without the tree | once |
//! | places | Dockerfile, stage, instruction | the last inputs of the steps there, to explain a miss | by each build |
//! | plan | Dockerfile | the tags of a build's records and selections, to ask for them all at once | by each build that wrote something new |
//! | mount | a cache mount's id | its files, as one tar | by each build that is told to |
//!
//! Pure. What a newcomer gets wrong is whom to trust: a record says what its key is *of*, and that is derived again, but
//! that the step gave this layer is the word of whoever could write to the cache. What can be proven is that the files
//! are those that the record names: by the blob's digest, the tar's, and the content's once it is unpacked.

pub mod inline;
pub mod object;
pub mod tag;

use serde::{Deserialize, Serialize};

use super::record::{Record, Slot};
use crate::digest::{CacheKey, ContentDigest, DiffId, LayerId};
use crate::image::manifest::Descriptor;

use object::{Kind, Object, ObjectError, Parts};

/// What a shared cache knows of a step's layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerForm {
    /// The latest time in its tar, in unix seconds; none: times are as the step left them.
    pub clamp_epoch: Option<i64>,
    /// The tar's digest.
    pub diff_id: DiffId,
    /// The tar's size.
    pub tar_bytes: u64,
    /// Whether the layer changes nothing.
    pub empty: bool,
    /// How the blob was made, parameters included, as the store names it.
    pub compression: String,
}

impl LayerForm {
    /// Returns whether the tar is the layer's tar also when times are clamped to `epoch`.
    pub fn serves(&self, epoch: Option<i64>) -> bool {
        match (self.clamp_epoch, epoch) {
            (own, wanted) if own == wanted => true,
            // Nothing in it is younger than its own clamp: a later one, or none, changes nothing.
            (Some(own), wanted) => wanted.is_none_or(|wanted| wanted >= own),
            (None, _) => false,
        }
    }
}

/// A record as a shared cache has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedRecord {
    /// What the step gave.
    pub record: Record,
    /// Its layer's form there.
    pub form: LayerForm,
    /// The blob of the layer's tar.
    pub blob: Descriptor,
}

#[derive(Serialize, Deserialize)]
struct RecordBody {
    record: Record,
    layer: LayerForm,
}

impl SharedRecord {
    /// Returns the record as an object.
    pub fn to_object(&self) -> Object {
        let body = RecordBody { record: self.record.clone(), layer: self.form.clone() };
        let body = serde_json::to_vec(&body).expect("a record is text and numbers");
        Object { kind: Kind::Record, body, blobs: vec![self.blob.clone()] }
    }

    /// Reads what was found under a key; the record is of that key, whatever its writer says.
    pub fn parse(key: &CacheKey, parts: &Parts, body: &[u8]) -> Result<Self, ObjectError> {
        let RecordBody { record, layer: form } = serde_json::from_slice(body).map_err(ObjectError::Body)?;
        let [blob] = parts.blobs.as_slice() else { return Err(ObjectError::Blobs { kind: Kind::Record, found: parts.blobs.len() }) };
        if blob.layer_packing().is_none() {
            return Err(ObjectError::NoLayer(blob.media_type.clone()));
        }
        let found = Self { record, form, blob: blob.clone() };
        if found.is_of(key) { Ok(found) } else { Err(ObjectError::OtherKey(*key)) }
    }

    /// Whether it is the record of this key, by its inputs, and speaks of one layer only.
    fn is_of(&self, key: &CacheKey) -> bool {
        let Record { key: own, inputs, layer, content, .. } = &self.record;
        own == key && inputs.key() == *key && *layer == LayerId::Content(*content)
    }
}

/// The last inputs of all steps of one kind in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// By order in the stage; none: unknown.
    pub slots: Vec<Option<Slot>>,
    /// Of the trees that these mention, the lists of files that are kept, each a blob.
    pub lists: Vec<(ContentDigest, Descriptor)>,
}

#[derive(Serialize, Deserialize)]
struct PlacesBody {
    slots: Vec<Option<Slot>>,
    lists: Vec<ContentDigest>,
}

impl Places {
    /// Returns them as an object.
    pub fn to_object(&self) -> Object {
        let body = PlacesBody { slots: self.slots.clone(), lists: self.lists.iter().map(|(tree, _)| *tree).collect() };
        let body = serde_json::to_vec(&body).expect("slots are text and numbers");
        Object { kind: Kind::Places, body, blobs: self.lists.iter().map(|(_, blob)| blob.clone()).collect() }
    }

    /// Reads them from an object.
    pub fn parse(parts: &Parts, body: &[u8]) -> Result<Self, ObjectError> {
        let PlacesBody { slots, lists } = serde_json::from_slice(body).map_err(ObjectError::Body)?;
        if lists.len() != parts.blobs.len() {
            return Err(ObjectError::Blobs { kind: Kind::Places, found: parts.blobs.len() });
        }
        Ok(Self { slots, lists: lists.into_iter().zip(parts.blobs.iter().cloned()).collect() })
    }
}

#[cfg(test)]
mod tests;
