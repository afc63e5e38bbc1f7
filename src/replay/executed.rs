//! What builds of a history really came to, beside what its replay said of them. Pure.
//!
//! A step that failed, or was not reached, left no result: what the replay promises of it holds again once it has run.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::account::{Account, What};
use super::report::Rate;

/// A step of a real build.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RealStep {
    /// It was taken from the cache.
    pub hit: bool,
    /// How long it took.
    pub secs: f64,
}

/// A real build.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RealBuild {
    /// Which commit.
    pub commit: usize,
    /// Its steps in order; none: not reached, or failed.
    pub steps: Vec<Option<RealStep>>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// The comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Executed {
    /// Builds that were made, the first one left out.
    pub builds: u64,
    /// Real hits among the steps that ended.
    pub hits: Rate,
    /// Hits that were promised, and what became of them: hits of all.
    pub promised: Rate,
    /// Misses that were said to be certain: those that hit all the same, of all.
    pub certain: Rate,
    /// Misses that were assumed: those that hit, of all.
    pub assumed: Rate,
    /// What missed steps took in a build, in seconds.
    pub lost_secs: f64,
    /// Builds that failed: commit and message.
    pub failures: Vec<(String, String)>,
    /// Steps for which the replay was wrong: commit, title and what happened.
    pub surprises: Vec<(String, String, &'static str)>,
    /// Mean seconds of the steps that ran, by stage and title.
    #[serde(skip)]
    pub costs: BTreeMap<(String, String), f64>,
}

impl Executed {
    /// Compares builds, in the order in which they were made, with a replay of the same commits.
    pub fn compare(account: &Account, commits: &[crate::history::Commit], builds: &[RealBuild]) -> Self {
        let mut out = Self::default();
        let mut unknown: BTreeSet<usize> = BTreeSet::new();
        let mut took: BTreeMap<(String, String), (f64, u32)> = BTreeMap::new();
        let mut first = true;
        for build in builds {
            let Some(Some(cells)) = account.commits.get(build.commit) else { continue };
            let commit = commits[build.commit].id.short();
            let counts = !std::mem::take(&mut first);
            out.builds += u64::from(counts);
            out.failures.extend(build.failure.clone().map(|message| (commit.clone(), message)));
            for (at, cell) in cells.iter().enumerate() {
                let lane = &account.lanes[cell.lane];
                let Some(Some(step)) = build.steps.get(at) else {
                    unknown.insert(cell.lane);
                    continue;
                };
                if !step.hit {
                    let (secs, times) = took.entry((lane.stage.clone(), lane.title.clone())).or_default();
                    (*secs, *times) = (*secs + step.secs, *times + 1);
                }
                let known = !unknown.remove(&cell.lane);
                if !counts {
                    continue;
                }
                out.hits.add(step.hit);
                out.lost_secs += if step.hit { 0.0 } else { step.secs };
                if !known {
                    continue;
                }
                let surprise = match cell.what {
                    What::Hit => {
                        out.promised.add(step.hit);
                        (!step.hit).then_some("was promised to hit and missed")
                    }
                    What::Assumed => {
                        out.assumed.add(step.hit);
                        None
                    }
                    _ => {
                        out.certain.add(step.hit);
                        step.hit.then_some("was to miss for certain and hit")
                    }
                };
                out.surprises.extend(surprise.map(|what| (commit.clone(), lane.title.clone(), what)));
            }
        }
        out.lost_secs /= out.builds.max(1) as f64;
        out.costs = took.into_iter().map(|(step, (secs, times))| (step, secs / f64::from(times))).collect();
        out
    }
}
