//! `--verify-cache`: steps that were taken from the cache are run again in a scratch place, and what they give is compared.
//!
//! Nothing is kept of it: no record is replaced, no layer committed. A step that differs runs once more, a second later: two new
//! results that differ from each other too are of a command that is not deterministic, and no fault of the cache's; two that
//! agree say that the cache gave what the step no longer gives.
//!
//! Cache mounts, secrets, agents and the network are those of the build: what a command finds there may have changed since, which
//! this can't tell from a wrong hit. Which hits are looked at depends on their keys and the seed alone.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::digest::{CacheKey, ContentDigest, LayerId};
use crate::graph::NodeId;
use crate::path::PathError;
use crate::snapshot::compare::{self, Difference};
use crate::store::Staging;

use super::decide::{Decision, Effort};
use super::error::BuildError;
use super::event::{Event, StepIndex};
use super::execute::{Doing, filled_by};
use super::request::{Sample, Verify};
use super::schedule;
use super::session::Build;

/// How long after the first run the second one starts: a clock in whole seconds shows another time then.
const APART: Duration = Duration::from_millis(1100);

/// What came of looking.
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    /// What the choice was made by.
    pub seed: u64,
    /// How many steps were taken from the cache.
    pub hits: usize,
    /// Those that were looked at, in order.
    pub steps: Vec<VerifiedStep>,
}

/// A step that ran again.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedStep {
    /// Its number, as shown.
    pub step: StepIndex,
    /// Its instruction.
    pub title: String,
    /// Its key.
    pub key: CacheKey,
    /// What came of it.
    pub verdict: Verdict,
}

/// What a step gave when it ran again.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The same.
    Same,
    /// Something else each time: its command is not deterministic.
    Irreproducible(Difference),
    /// Something else, twice the same: what was taken from the cache is not what the step gives.
    Differs(Difference),
    /// It could not be run again.
    Failed(String),
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Irreproducible(_) => "irreproducible",
            Self::Differs(_) => "differs",
            Self::Failed(_) => "failed",
        }
    }
}

impl Verification {
    /// Returns whether a hit was not what its step gives.
    pub fn has_failed(&self) -> bool {
        self.steps.iter().any(|s| matches!(s.verdict, Verdict::Differs(_) | Verdict::Failed(_)))
    }

    /// Returns it for machines.
    pub fn to_json(&self) -> Value {
        let step = |s: &VerifiedStep| {
            let (difference, message) = match &s.verdict {
                Verdict::Irreproducible(d) | Verdict::Differs(d) => (Some(d), Some(d.to_string())),
                Verdict::Failed(message) => (None, Some(message.clone())),
                Verdict::Same => (None, None),
            };
            json!({
                "step": s.step + 1, "title": s.title, "key": s.key.to_string(), "verdict": s.verdict.name(),
                "path": difference.map(|d| &d.path), "what": difference.map(|d| d.what.name()), "message": message,
            })
        };
        json!({ "seed": self.seed, "hits": self.hits, "verified": self.steps.len(), "steps": self.steps.iter().map(step).collect::<Vec<_>>() })
    }

    /// Returns it for people: a line for each step that was not the same, and one for all.
    pub fn told(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for VerifiedStep { step, title, verdict, .. } in &self.steps {
            let text = match verdict {
                Verdict::Same => continue,
                Verdict::Irreproducible(d) => {
                    format!("differs: {d}; not reproducible: two runs just now differ too, so the cache is not at fault")
                }
                Verdict::Differs(d) => {
                    format!("differs: {d}; two runs just now agree: what was taken from the cache is not what the step gives")
                }
                Verdict::Failed(message) => format!("could not be run again: {message}"),
            };
            lines.push(format!("verify: step {} {title} {text}", step + 1));
        }
        let same = self.steps.iter().filter(|s| s.verdict == Verdict::Same).count();
        let of = format!("{} of {} cached steps", self.steps.len(), self.hits);
        lines.push(format!("verify: {of} ran again, {same} gave the same (seed {})", self.seed));
        lines
    }
}

/// Runs hits again, as `wanted` says, and tells what came of it.
pub(super) fn run(builds: &[Build<'_>], wanted: Verify, jobs: Option<usize>) -> Result<Verification, BuildError> {
    let mut hits = Vec::new();
    for (at, build) in builds.iter().enumerate() {
        for (node, (step, result)) in build.steps.iter().zip(&build.results).enumerate() {
            if let (Some(step), Some(result)) = (step, result.get())
                && let (Some(key), None) = (result.key, &result.reason)
            {
                hits.push(Hit { at, node: NodeId(node), step: *step, key });
            }
        }
    }
    let chosen = choose(&hits, wanted);
    let places: Vec<usize> = (0..chosen.len()).collect();
    let verdicts: Mutex<Vec<Option<Verdict>>> = Mutex::new(vec![None; chosen.len()]);
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    schedule::run(
        &places,
        jobs,
        |_| Vec::new(),
        |place| {
            let Hit { at, node, .. } = chosen[place];
            let verdict = builds[at].verify(node)?;
            verdicts.lock().expect("nobody panics with it")[place] = Some(verdict);
            Ok::<(), BuildError>(())
        },
    )?;
    let verdicts = verdicts.into_inner().expect("nobody panics with it");
    let step = |(hit, verdict): (&Hit, Option<Verdict>)| {
        let title = &builds[hit.at].graph.nodes[hit.node.0].title;
        let title = title.split_once("] ").map_or(title.as_str(), |(_, t)| t).to_owned();
        VerifiedStep { step: hit.step, title, key: hit.key, verdict: verdict.expect("each had its turn") }
    };
    let verified = Verification { seed: wanted.seed, hits: hits.len(), steps: chosen.iter().zip(verdicts).map(step).collect() };
    if let Some(build) = builds.first() {
        verified.told().into_iter().for_each(|line| build.tell(Event::Notice(line)));
    }
    Ok(verified)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hit {
    at: usize,
    node: NodeId,
    step: StepIndex,
    key: CacheKey,
}

/// Returns the hits that are looked at, in order: those whose key and the seed hash lowest.
fn choose(hits: &[Hit], wanted: Verify) -> Vec<Hit> {
    let count = match wanted.sample {
        Sample::All => hits.len(),
        Sample::Count(n) => n.min(hits.len()),
        // Rounded up: a share of something is something.
        Sample::Share { millionths } => (hits.len() * millionths as usize).div_ceil(1_000_000),
    };
    let rank = |hit: &Hit| {
        let mut hasher = blake3::Hasher::new_derive_key("plywood sample of hits");
        hasher.update(&wanted.seed.to_le_bytes()).update(hit.key.as_bytes());
        (*hasher.finalize().as_bytes(), hit.step)
    };
    let mut ranked: Vec<Hit> = hits.to_vec();
    ranked.sort_by_key(rank);
    ranked.truncate(count);
    ranked.sort_by_key(|hit| hit.step);
    ranked
}

/// What a step gave in a scratch place, which is gone with this.
struct Again {
    _scratch: Staging,
    dir: PathBuf,
    content: ContentDigest,
}

impl Build<'_> {
    /// Runs a step again whose result was taken from the cache.
    fn verify(&self, id: NodeId) -> Result<Verdict, BuildError> {
        match self.verify_step(id) {
            Err(BuildError::Cancelled) => Err(BuildError::Cancelled),
            Err(_) if self.engine.cancel.is_cancelled() => Err(BuildError::Cancelled),
            Err(error) => Ok(Verdict::Failed(error.to_string())),
            done => done,
        }
    }

    fn verify_step(&self, id: NodeId) -> Result<Verdict, BuildError> {
        let result = self.result(id);
        let layer = result.layer.expect("a hit has a layer").id;
        let LayerId::Content(recorded) = layer else { return Ok(Verdict::Failed("its layer is not known by content".into())) };
        let decision = self.decide(id, Effort::Full)?.expect("full effort decides");
        if Some(decision.slot.inputs.key()) != result.key {
            return Ok(Verdict::Failed("its inputs changed while the build ran".into()));
        }
        let start = Instant::now();
        let first = self.again(id, &decision)?;
        if first.content == recorded {
            return Ok(Verdict::Same);
        }
        let Some(difference) = self.difference(id, recorded, &first)? else { return Ok(Verdict::Same) };
        std::thread::sleep(APART.saturating_sub(start.elapsed()));
        let second = self.again(id, &decision)?;
        Ok(if second.content == first.content { Verdict::Differs(difference) } else { Verdict::Irreproducible(difference) })
    }

    fn again(&self, id: NodeId, decision: &Decision) -> Result<Again, BuildError> {
        self.go_on()?;
        let scratch = self.engine.store.stage().map_err(|e| BuildError::caused("making a working directory", &e))?;
        let prepared = self.prepare(id, &self.chain_below(id), &scratch)?;
        let unwritten = self.work(id, decision, &prepared, Doing::Again)?;
        debug_assert!(unwritten.is_none(), "all files are written");
        let dir = prepared.finish(filled_by(&self.graph.nodes[id.0].op)).map_err(|e| self.snapshot_error(id, &e))?;
        let content = self.content(id, &dir)?;
        Ok(Again { _scratch: scratch, dir, content })
    }

    /// Returns where a layer and what was made now differ; none: both show the same files.
    fn difference(&self, id: NodeId, content: ContentDigest, now: &Again) -> Result<Option<Difference>, BuildError> {
        let below = self.lowers(&self.chain_below(id))?;
        let layer = LayerId::Content(content);
        // It may still be in a shared cache only.
        self.bring(&[layer])?;
        let kept = self.built_dir(&layer, &below.iter().rev().cloned().collect::<Vec<_>>())?;
        let failed = |e: PathError| self.failed(id, "comparing its layer", &e);
        let (a, b) = (compare::open(&kept).map_err(failed)?, compare::open(&now.dir).map_err(failed)?);
        let found = compare::first_difference((&a.0, &a.1), (&b.0, &b.1), &below).map_err(failed)?;
        if found.is_none() && self.content(id, &kept)? != content {
            // What the store has is not what the record says: that is damage.
            let damaged = BuildError::plain(format!("the layer {layer} is not what its name says"));
            return Err(damaged.hint("`ply fsck --deep` tells more"));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::compare::What;

    fn hits(n: u8) -> Vec<Hit> {
        (0..n).map(|i| Hit { at: 0, node: NodeId(i.into()), step: i.into(), key: CacheKey::from_bytes([i; 32]) }).collect()
    }

    #[test]
    fn a_sample_depends_on_keys_and_seed_alone() {
        let hits = hits(100);
        let steps = |hits: &[Hit], sample, seed| choose(hits, Verify { sample, seed }).iter().map(|h| h.step).collect::<Vec<_>>();
        let tenth = Sample::Share { millionths: 100_000 };
        let (a, b) = (steps(&hits, tenth, 1), steps(&hits, tenth, 2));
        assert_eq!((a.len(), b.len()), (10, 10));
        assert_eq!(a, steps(&hits, Sample::Count(10), 1), "whoever asks for as many gets the same");
        assert_ne!(a, b);
        assert!(a.is_sorted());
        let backwards: Vec<Hit> = hits.iter().rev().copied().collect();
        assert_eq!(steps(&backwards, tenth, 1), a);
        for (sample, want) in [
            (Sample::All, 100),
            (Sample::Count(200), 100),
            (Sample::Count(0), 0),
            (Sample::Share { millionths: 1 }, 1),
            (Sample::Share { millionths: 1_000_000 }, 100),
            (Sample::Share { millionths: 0 }, 0),
        ] {
            assert_eq!(steps(&hits, sample, 7).len(), want, "{sample:?}");
        }
        assert_eq!(steps(&[], tenth, 7), Vec::<usize>::new());
    }

    #[test]
    fn what_came_of_it_is_told() {
        let difference = Difference { path: "/f".into(), what: What::Mode(0o644, 0o755) };
        let step = |n: usize, verdict| VerifiedStep { step: n, title: "RUN x".into(), key: CacheKey::from_bytes([1; 32]), verdict };
        let verified = |verdicts: Vec<Verdict>| Verification {
            seed: 5,
            hits: 9,
            steps: verdicts.into_iter().enumerate().map(|(n, v)| step(n, v)).collect(),
        };
        let mild = verified(vec![Verdict::Same, Verdict::Irreproducible(difference.clone())]);
        assert!(!mild.has_failed());
        let want = [
            "verify: step 2 RUN x differs: /f (mode: 0644 -> 0755); not reproducible: two runs just now differ too, so the cache is not at fault",
            "verify: 2 of 9 cached steps ran again, 1 gave the same (seed 5)",
        ];
        assert_eq!(mild.told(), want);
        for verdict in [Verdict::Differs(difference), Verdict::Failed("exit code: 1".into())] {
            assert!(verified(vec![Verdict::Same, verdict]).has_failed());
        }
        let json = mild.to_json();
        assert_eq!(json["steps"][1]["what"], "mode");
        assert_eq!(json["steps"][1]["verdict"], "irreproducible");
        assert_eq!(json["steps"][0]["path"], Value::Null);
    }
}
