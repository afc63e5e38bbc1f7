//! What records are worth, for whoever makes room: `store::prune` takes the least first.
//!
//! Pure, but for [`uses`]. A record's seconds are its own step's and those of the costliest line of steps that stands on it: when it is gone its
//! step runs again, and where the result differs all of that line does too. Only what stands on it in the same stage
//! counts; that another stage copies from it is not in a record. Of two branches the costlier counts, not both: old
//! versions of a step, of use to nobody, would make what is below them precious.

use std::collections::HashMap;

use serde::Deserialize;

use super::log;
use super::state::StateId;
use crate::digest::CacheKey;
use crate::store::{Appraisal, BuildFilter, RecordRow, Result, Store};

/// Of a record what is needed here: the rest is not even looked at.
#[derive(Deserialize)]
struct Part {
    title: String,
    inputs: Inputs,
}

#[derive(Deserialize)]
struct Inputs {
    parent: StateId,
}

/// How often steps were taken from the cache, by key, as far as the log of builds goes.
pub type Uses = HashMap<CacheKey, u64>;

/// Counts them.
pub fn uses(store: &Store) -> Result<Uses> {
    // Builds in which nothing changed have one body: it is read once.
    let mut bodies: HashMap<String, (log::Build, u64)> = HashMap::new();
    for build in log::builds(store, &BuildFilter::default())? {
        bodies.entry(build.body_id().to_owned()).or_insert_with(|| (build, 0)).1 += 1;
    }
    let mut uses = Uses::new();
    for (build, times) in bodies.into_values() {
        for step in build.body(store)?.map(|b| b.steps).unwrap_or_default() {
            if let Some(key) = step.key.filter(|_| step.outcome.is_hit()) {
                *uses.entry(key).or_default() += times;
            }
        }
    }
    Ok(uses)
}

/// Judges records, in order. One that can't be read is worth what it took.
pub fn appraise(records: &[RecordRow], uses: &Uses) -> Vec<Appraisal> {
    let parts: Vec<Option<Part>> = records.iter().map(|r| serde_json::from_slice(&r.body).ok()).collect();
    let mut states: HashMap<StateId, usize> = HashMap::new();
    for (n, (record, part)) in records.iter().zip(&parts).enumerate() {
        if let Some(part) = part {
            // Of several that lead to one state the newest: it is what a build finds.
            states.insert(part.inputs.parent.with(&record.layer), n);
        }
    }
    let parents: Vec<Option<usize>> = parts.iter().map(|p| states.get(&p.as_ref()?.inputs.parent).copied()).collect::<Vec<Option<usize>>>();
    let above = lines_above(records, &parents);
    let appraisal = |(n, part): (usize, &Option<Part>)| Appraisal {
        secs: records[n].cost_secs + above[n],
        title: part.as_ref().map(|p| p.title.clone()).unwrap_or_default(),
        parent: parents[n],
        uses: uses.get(&records[n].key).copied().unwrap_or(0),
    };
    parts.iter().enumerate().map(appraisal).collect()
}

/// Returns what the costliest line of steps on top of each costs. States are hashes of what is below them, so no line ends in itself.
fn lines_above(records: &[RecordRow], parents: &[Option<usize>]) -> Vec<f64> {
    let (mut above, mut waiting) = (vec![0.0; records.len()], vec![0_usize; records.len()]);
    parents.iter().flatten().for_each(|p| waiting[*p] += 1);
    let mut ready: Vec<usize> = (0..records.len()).filter(|n| waiting[*n] == 0).collect();
    while let Some(n) = ready.pop() {
        let Some(parent) = parents[n] else { continue };
        above[parent] = f64::max(above[parent], above[n] + records[n].cost_secs);
        waiting[parent] -= 1;
        if waiting[parent] == 0 {
            ready.push(parent);
        }
    }
    above
}

#[cfg(test)]
mod tests {
    use super::super::key::{KeyInputs, StepInputs, WorkdirInputs};
    use super::super::record::Record;
    use super::*;
    use crate::digest::{ContentDigest, LayerId};
    use crate::image::platform::Platform;

    fn row(parent: StateId, n: u8, cost_secs: f64) -> RecordRow {
        let step = StepInputs::Workdir(WorkdirInputs { path: format!("/{n}"), user: String::new() });
        let inputs = KeyInputs { platform: Platform::new("linux", "amd64", ""), parent, step };
        let content = ContentDigest::from_bytes([n; 32]);
        let record = Record::new(inputs, LayerId::Content(content), content, &format!("step {n}"), cost_secs, 5);
        let body = serde_json::to_vec(&record).unwrap();
        RecordRow { key: record.key, layer: record.layer, content, cost_secs, created_secs: 5, body }
    }

    #[test]
    fn a_step_is_worth_the_costliest_line_on_top_of_it() {
        let base = StateId::scratch();
        let after = |state: StateId, n: u8| state.with(&LayerId::Content(ContentDigest::from_bytes([n; 32])));
        // 1 <- 2 <- 4, 1 <- 3; 5 stands on what nobody made.
        let rows = [
            row(after(after(base, 1), 2), 4, 10.0),
            row(base, 1, 1.0),
            row(after(base, 1), 2, 2.0),
            row(after(base, 1), 3, 5.0),
            row(after(base, 9), 5, 7.0),
            RecordRow { body: b"not ours".to_vec(), ..row(base, 6, 3.0) },
        ];
        let got = appraise(&rows, &Uses::from([(rows[2].key, 4)]));
        let secs: Vec<f64> = got.iter().map(|a| a.secs).collect();
        assert_eq!(secs, [10.0, 13.0, 12.0, 5.0, 7.0, 3.0]);
        let parents: Vec<Option<usize>> = got.iter().map(|a| a.parent).collect();
        assert_eq!(parents, [Some(2), None, Some(1), Some(1), None, None]);
        assert_eq!(got.iter().map(|a| a.uses).collect::<Vec<_>>(), [0, 0, 4, 0, 0, 0]);
        assert_eq!(got[1].title, "step 1");
        assert_eq!(got[5].title, "");
    }
}
