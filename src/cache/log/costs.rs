//! What steps cost, by what the log remembers: to expect how long a build will take.

use std::collections::{HashMap, HashSet};

use super::{Outcome, builds};
use crate::digest::CacheKey;
use crate::store::{BuildFilter, Result, Store};

/// How many builds are looked at.
const LOOKED_AT: usize = 100;

/// The last known costs of a Dockerfile's steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepCosts {
    by_key: HashMap<CacheKey, f64>,
    by_title: HashMap<(String, String), f64>,
}

impl StepCosts {
    /// Returns what a step cost when it last ran, in seconds: with this very key, else the one of this title in its stage.
    pub fn of(&self, key: Option<&CacheKey>, stage: &str, title: &str) -> Option<f64> {
        let exact = key.and_then(|k| self.by_key.get(k));
        exact.or_else(|| self.by_title.get(&(stage.to_owned(), title.to_owned()))).copied()
    }
}

/// Returns what the steps of a Dockerfile cost, by its last builds; the newer count.
pub fn step_costs(store: &Store, dockerfile: &str) -> Result<StepCosts> {
    let mut costs = StepCosts::default();
    let mut seen = HashSet::new();
    let filter = BuildFilter { dockerfile: Some(dockerfile), limit: Some(LOOKED_AT), ..BuildFilter::default() };
    for build in builds(store, &filter)? {
        // Builds in which nothing changed have one body.
        if !seen.insert(build.body_id().to_owned()) {
            continue;
        }
        for step in build.body(store)?.map(|b| b.steps).unwrap_or_default() {
            if !(step.outcome.is_hit() || step.outcome == Outcome::Built) {
                continue;
            }
            if let Some(key) = step.key {
                costs.by_key.entry(key).or_insert(step.cost_secs);
            }
            costs.by_title.entry((step.stage, step.title)).or_insert(step.cost_secs);
        }
    }
    Ok(costs)
}
