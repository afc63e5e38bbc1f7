//! The log of builds: what each build did with each of its steps, and why.
//!
//! `ply explain`, `ply history`, `ply stats` and the costs that `ply plan` expects are read from here. The store holds
//! bytes (`store::log`); what they mean stands here: a short [`Head`] a build, a [`Body`] that builds with equal outcomes
//! share, and each step's inputs, shared by all builds in which they were the same.
//!
//! What a newcomer gets wrong: the log never makes a hit, and it is finite. Old builds are forgotten; a build's steps or
//! inputs may be gone or written by another program, and are none then, not an error.

mod between;
mod costs;
pub mod stats;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::miss::Reason;
use super::record::{Slot, SlotId};
use crate::digest::{CacheKey, ContentDigest, Digest, LayerId};
use crate::store::{BuildFilter, BuildRow, LogPart, Result, Store};

pub use between::between;
pub use costs::{StepCosts, step_costs};

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With what was asked for.
    Done,
    /// With an error.
    Failed,
    /// It was interrupted.
    Cancelled,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Taken from this store.
    Hit,
    /// Taken from a shared cache.
    Remote,
    /// It ran.
    Built,
    /// It could not be done.
    Failed,
    /// It was under way when the build was interrupted or another step failed.
    Cancelled,
    /// The build ended before its turn.
    NotReached,
}

impl Outcome {
    /// Returns whether its result was at hand.
    pub fn is_hit(self) -> bool {
        matches!(self, Self::Hit | Self::Remote)
    }
}

/// The name of inputs in the log: the hash of their encoded form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InputsId(String);

/// The name of a text in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TextId(String);

/// An ignore file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignore {
    /// Its name.
    pub file: String,
    /// What stood in it.
    pub text: TextId,
}

/// What is known of a build without its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The target stage; none: the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How long it took.
    pub secs: f64,
    /// How it ended.
    pub ending: Ending,
    /// The error, when it failed: its first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The image that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// How many steps it had.
    pub steps: usize,
    /// How many of them were taken from a cache.
    pub hits: usize,
}

/// A base image of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// As the Dockerfile's reader knows it: where it came from.
    pub name: String,
    /// For what.
    pub platform: String,
    /// What it was: its manifest's digest, its configuration's where there is none.
    pub digest: Digest,
}

/// What builds with equal outcomes have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// The format of its keys ([`super::key::FORMAT`]).
    pub key_format: u64,
    /// Its base images.
    pub bases: Vec<Base>,
    /// Its Dockerfile ([`text`] reads it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<TextId>,
    /// The rules that hid files of its context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<Ignore>,
    /// Its steps, those of all platforms, in the order in which they are shown.
    pub steps: Vec<Step>,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `RUN make`: without stage and number.
    pub title: String,
    /// The stage's name, or `stage-N`.
    pub stage: String,
    /// Its number in its stage, FROM counted.
    pub number: usize,
    /// How many of them its stage has.
    pub of: usize,
    /// What it is built for.
    pub platform: String,
    /// Where in the Dockerfile its instruction begins, from 1.
    pub line: usize,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was not taken from the cache; none: it was, or nobody came to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Its key; none: its inputs were not known when the build ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<CacheKey>,
    /// Its inputs ([`inputs`] reads them).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<InputsId>,
    /// Which place in the Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// The step that it stands on, as a place in [`Body::steps`]; none: a base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<usize>,
    /// The base that it stands on directly, as a place in [`Body::bases`]; none: a step, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<usize>,
    /// Its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerId>,
    /// The result's size, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When its work began, in seconds after the build's beginning; none: there was no work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_secs: Option<f64>,
    /// How long its work took.
    #[serde(default)]
    pub secs: f64,
    /// What making its result took once: of a hit, what it saved.
    #[serde(default)]
    pub cost_secs: f64,
}

/// A build that ended, on its way into the log.
#[derive(Debug, Clone)]
pub struct NewBuild {
    /// Which Dockerfile.
    pub dockerfile: String,
    /// When it began, in unix seconds.
    pub started_secs: i64,
    /// What is known of it.
    pub head: Head,
    /// Its steps.
    pub body: Body,
    /// The inputs of each step, as far as they came to be known; [`Step::inputs`] is made of them.
    pub inputs: Vec<Option<Slot>>,
    /// The Dockerfile's text, without credentials; [`Body::dockerfile`] is made of it.
    pub dockerfile_text: String,
    /// The ignore file's name and text; [`Body::ignore`] is made of them.
    pub ignore: Option<(String, String)>,
}

/// A build of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// Its number.
    pub id: i64,
    /// Which Dockerfile: the context's place and the file's, on two lines.
    pub dockerfile: String,
    /// When it began, in unix seconds.
    pub started_secs: i64,
    /// What is known of it.
    pub head: Head,
    steps: String,
}

/// Writes a build to the log and returns its number.
pub fn append(store: &Store, mut build: NewBuild) -> Result<i64> {
    let inputs: Vec<Option<(Vec<u8>, Vec<String>)>> = build
        .inputs
        .iter()
        .map(|slot| slot.as_ref().map(|slot| (encode(slot), slot.inputs.trees().iter().map(ContentDigest::hex).collect())))
        .collect();
    for (step, inputs) in build.body.steps.iter_mut().zip(&inputs) {
        step.inputs = inputs.as_ref().map(|(bytes, _)| InputsId(name(bytes)));
    }
    let mut parts: Vec<(Vec<u8>, Vec<String>)> = inputs.into_iter().flatten().collect();
    build.body.dockerfile = Some(TextId(name(build.dockerfile_text.as_bytes())));
    parts.push((build.dockerfile_text.into_bytes(), Vec::new()));
    if let Some((file, text)) = build.ignore {
        build.body.ignore = Some(Ignore { file, text: TextId(name(text.as_bytes())) });
        parts.push((text.into_bytes(), Vec::new()));
    }
    parts.insert(0, (encode(&build.body), parts.iter().map(|(bytes, _)| name(bytes)).collect()));
    let packed: Vec<Box<dyn Fn() -> Vec<u8> + '_>> = parts.iter().map(|(bytes, _)| Box::new(move || pack(bytes)) as _).collect();
    let parts = parts.iter().zip(&packed);
    let parts: Vec<LogPart<'_>> =
        parts.map(|((bytes, names), body)| LogPart { id: name(bytes), names: names.clone(), body: &**body }).collect();
    let NewBuild { dockerfile, started_secs, head, .. } = build;
    store.put_build(&BuildRow { id: 0, dockerfile, started_secs, steps: parts[0].id.clone(), body: encode(&head) }, &parts)
}

/// Returns builds, newest first. Those that can't be read are left out.
pub fn builds(store: &Store, filter: &BuildFilter<'_>) -> Result<Vec<Build>> {
    Ok(store.builds(filter)?.into_iter().filter_map(Build::of).collect())
}

/// Returns a build by its number.
pub fn build(store: &Store, id: i64) -> Result<Option<Build>> {
    Ok(store.build(id)?.and_then(Build::of))
}

/// Returns the newest build of a Dockerfile; with `before`, the newest with a smaller number.
pub fn newest(store: &Store, dockerfile: Option<&str>, before: Option<i64>) -> Result<Option<Build>> {
    Ok(builds(store, &BuildFilter { dockerfile, before, limit: Some(1), ..BuildFilter::default() })?.pop())
}

/// Returns a step's inputs.
pub fn inputs(store: &Store, id: &InputsId) -> Result<Option<Slot>> {
    Ok(store.log_part(&id.0)?.and_then(|bytes| decode(&unpack(&bytes)?)))
}

/// Returns a text.
pub fn text(store: &Store, id: &TextId) -> Result<Option<String>> {
    Ok(store.log_part(&id.0)?.and_then(|bytes| String::from_utf8(unpack(&bytes)?).ok()))
}

impl Build {
    fn of(row: BuildRow) -> Option<Self> {
        let BuildRow { id, dockerfile, started_secs, steps, body } = row;
        Some(Self { id, dockerfile, started_secs, head: decode(&body)?, steps })
    }

    /// Reads its steps; none: they are not kept, or can't be read.
    pub fn body(&self, store: &Store) -> Result<Option<Body>> {
        Ok(store.log_part(&self.steps)?.and_then(|bytes| decode(&unpack(&bytes)?)))
    }

    /// Returns what is equal exactly for builds with equal bodies: to read each once.
    pub fn body_id(&self) -> &str {
        &self.steps
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text and numbers")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

/// The first half of a hash is enough for names that nobody has a reason to forge.
fn name(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_string()
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    // Memory is the only thing that can fail here, and then all does.
    zstd::bulk::compress(bytes, 3).unwrap_or_default()
}

fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    const LIMIT_BYTES: usize = 64 << 20;
    zstd::bulk::decompress(bytes, LIMIT_BYTES.min(zstd::zstd_safe::get_frame_content_size(bytes).ok()??.try_into().ok()?)).ok()
}

#[cfg(test)]
pub(in crate::cache) mod tests;
