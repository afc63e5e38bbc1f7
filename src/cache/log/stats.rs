//! Sums over the builds of the log: hit rates, what hits saved, what misses cost and why.
//!
//! Pure. What a newcomer gets wrong: the log is finite, so these are sums over what it still holds, not since ever.

use std::collections::BTreeMap;

use super::{Build, Ending, Outcome, Step};

/// Counts and times of steps.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sums {
    /// Steps that were taken from the store.
    pub hits: u64,
    /// Steps that were taken from a shared cache.
    pub remote: u64,
    /// Steps that ran.
    pub built: u64,
    /// Steps that failed.
    pub failed: u64,
    /// What the hits would have taken.
    pub saved_secs: f64,
    /// What the steps that ran took, failed ones too.
    pub ran_secs: f64,
    /// Of these, steps that had been built before, with other inputs.
    pub lost_secs: f64,
    /// What the steps that ran made.
    pub made_bytes: u64,
}

impl Sums {
    fn add(&mut self, step: &Step) {
        match step.outcome {
            Outcome::Hit => self.hits += 1,
            Outcome::Remote => self.remote += 1,
            Outcome::Built => self.built += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Cancelled | Outcome::NotReached => return,
        }
        if step.outcome.is_hit() {
            self.saved_secs += step.cost_secs;
            return;
        }
        self.ran_secs += step.secs;
        self.made_bytes = self.made_bytes.saturating_add(step.bytes.unwrap_or(0));
        if kind(step) != FIRST {
            self.lost_secs += step.secs;
        }
    }

    /// Returns the share of steps that were hits; none: no step was decided.
    pub fn rate(&self) -> Option<f64> {
        let hits = self.hits + self.remote;
        let all = hits + self.built + self.failed;
        #[allow(clippy::cast_precision_loss)] // counts of what a person builds
        (all > 0).then(|| hits as f64 / all as f64)
    }

    /// As [`Sums::rate`], each step weighed by the seconds that it costs.
    pub fn weighed_rate(&self) -> Option<f64> {
        let all = self.saved_secs + self.ran_secs;
        (all > 0.0).then(|| self.saved_secs / all)
    }
}

/// The kind of the reason of a step that was never built before.
const FIRST: &str = "first build";

/// Why a step ran, in a word.
fn kind(step: &Step) -> &'static str {
    step.reason.as_ref().map_or("unknown", super::Reason::kind)
}

/// The builds of one Dockerfile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OfDockerfile {
    /// How many ended well, failed, were cancelled.
    pub builds: [u64; 3],
    /// How long they took.
    pub secs: f64,
    /// Their steps.
    pub sums: Sums,
    /// The same for each step, by stage and title.
    pub steps: BTreeMap<(String, String), Sums>,
    /// How many steps ran by the kind of the first cause, and how long.
    pub causes: BTreeMap<&'static str, (u64, f64)>,
}

/// Sums over builds, by Dockerfile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    /// By what Dockerfiles are told apart by.
    pub dockerfiles: BTreeMap<String, OfDockerfile>,
}

impl Stats {
    /// Adds a build and its steps, where they are kept.
    pub fn add(&mut self, build: &Build, steps: &[Step]) {
        let of = self.dockerfiles.entry(build.dockerfile.clone()).or_default();
        of.builds[match build.head.ending {
            Ending::Done => 0,
            Ending::Failed => 1,
            Ending::Cancelled => 2,
        }] += 1;
        of.secs += build.head.secs;
        for step in steps {
            of.sums.add(step);
            of.steps.entry((step.stage.clone(), step.title.clone())).or_default().add(step);
            if matches!(step.outcome, Outcome::Built | Outcome::Failed) {
                let (count, secs) = of.causes.entry(kind(step)).or_default();
                *count += 1;
                *secs += step.secs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Head;
    use super::super::tests::step;
    use super::*;
    use crate::cache::miss::{Difference, Reason};

    #[test]
    fn hits_save_and_misses_cost() {
        let build = |ending| Build {
            id: 1,
            dockerfile: "a".into(),
            started_secs: 0,
            head: Head { target: None, secs: 2.0, ending, error: None, image: None, steps: 0, hits: 0 },
            steps: String::new(),
        };
        let changed = Some(Reason::Changed(vec![Difference::EnvOrder.into()]));
        let steps = [
            step("a", Outcome::Hit, 3.0),
            step("a", Outcome::Remote, 1.0),
            Step { secs: 2.0, ..step("b", Outcome::Built, 2.0) },
            Step { secs: 1.0, reason: changed, ..step("b", Outcome::Built, 1.0) },
            Step { secs: 0.5, bytes: None, ..step("c", Outcome::Failed, 0.0) },
            step("d", Outcome::NotReached, 9.0),
        ];
        let mut stats = Stats::default();
        stats.add(&build(Ending::Done), &steps);
        stats.add(&build(Ending::Failed), &[]);
        let of = &stats.dockerfiles["a"];
        let want = Sums { hits: 1, remote: 1, built: 2, failed: 1, saved_secs: 4.0, ran_secs: 3.5, lost_secs: 1.5, made_bytes: 18 };
        assert_eq!((of.builds, of.secs, of.sums), ([1, 1, 0], 4.0, want));
        assert_eq!((want.rate(), want.weighed_rate()), (Some(0.4), Some(4.0 / 7.5)));
        assert_eq!((Sums::default().rate(), Sums::default().weighed_rate()), (None, None));
        assert_eq!(of.causes, BTreeMap::from([("first build", (1, 2.0)), ("unknown", (1, 0.5)), ("variable", (1, 1.0))]));
        assert_eq!(of.steps[&("build".to_string(), "RUN a".to_string())].hits, 1);
    }
}
