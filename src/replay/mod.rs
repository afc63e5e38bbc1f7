//! How often the steps of a Dockerfile would have hit, over the commits of a git history, and what would raise that.
//!
//! | file | holds |
//! |---|---|
//! | this | [`replay`]: the way from commits to a [`Report`] |
//! | `plan` | Dockerfiles, lowered once for each distinct text |
//! | `evaluate` | what each commit's build begins with |
//! | `files`, `select` | what steps take from a commit's trees, as digests |
//! | `simulate` | a cache under each of three rules |
//! | `lanes`, `account` | each step through the history: hits, misses, and what began them |
//! | `cost`, `report` | seconds, and the sums |
//! | `executed` | a replay beside real builds |
//! | `suggest` | rewritten Dockerfiles and ignore files, replayed in their turn |
//!
//! No step is run, nothing is checked out, no registry is asked: what is known is what the repository holds. What a newcomer
//! would get wrong: a step below a RUN that ran again is *assumed* to miss, as nobody knows what that RUN would have given.

mod account;
mod cost;
mod evaluate;
mod executed;
mod files;
mod lanes;
mod plan;
mod report;
mod select;
mod simulate;
mod suggest;

#[cfg(test)]
mod tests;

use std::time::Instant;

use crate::history::{Commit, HistoryError, Range, Repository};

pub use account::{Account, Cell, Culprit, What};
pub use cost::{Costs, Rule as CostRule};
pub use evaluate::{Outcome, Place, Ready, Skipped};
pub use executed::{Executed, RealBuild, RealStep};
pub use lanes::Lane;
pub use plan::{Plan, Settings, Step};
pub use report::{Blame, CommitState, LaneReport, Rate, Report, Totals};
pub use suggest::{Change, Suggestion};

use evaluate::{Evaluator, Variant};
use plan::Plans;

/// Fewer commits than this are not worth a further thread.
const COMMITS_A_THREAD: usize = 32;
/// Changed files of a commit that are looked at to tell why a step missed.
const CHANGED_FILES: usize = 300;

/// What to replay.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the context and the Dockerfile lie in the tree.
    pub place: Place,
    /// Which commits.
    pub range: Range,
    /// What else decides the graphs.
    pub settings: Settings,
    /// What steps cost.
    pub costs: Costs,
    /// Whether to look for what would raise the hit rates.
    pub suggest: Suggest,
    /// How many threads may read.
    pub threads: usize,
}

/// Whether to look for suggestions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Suggest {
    Yes,
    No,
}

/// A history, evaluated.
pub struct Replayed {
    /// The commits, oldest first.
    pub commits: Vec<Commit>,
    /// What becomes of each.
    pub outcomes: Vec<Outcome>,
    /// Hits and misses.
    pub account: Account,
    /// What they come to.
    pub report: Report,
}

/// Replays a history.
///
/// Errors: git can't be run, or doesn't know the range. What is wrong with single commits is counted in the report.
pub fn replay(repository: &Repository, request: &Request) -> Result<Replayed, HistoryError> {
    let start = Instant::now();
    let commits = repository.commits(&request.range)?;
    let plans = Plans::new(request.settings.clone());
    let mut readers = Readers::start(repository, request, &plans, commits.len())?;
    let outcomes = readers.evaluate(&commits, Variant::default())?;
    let account = account::account(&outcomes, account::Rules::All);
    let because = readers.because(&outcomes, &account)?;
    let mut report = report::report(repository, request, &commits, &outcomes, &account, &because);
    report.took.replay_secs = start.elapsed().as_secs_f64();
    if request.suggest == Suggest::Yes {
        let before = Instant::now();
        report.suggestions = suggest::suggest(&mut readers, request, &commits, &outcomes, &account, &because, &report.totals)?;
        report.took.suggest_secs = before.elapsed().as_secs_f64();
    }
    report.took.objects_read = readers.evaluators.iter().map(Evaluator::objects_read).sum();
    report.took.dockerfiles = plans.count();
    Ok(Replayed { commits, outcomes, account, report })
}

/// For each commit the files that made its steps miss: the step's place in the plan, and paths.
type Because = Vec<Vec<(usize, Files)>>;

/// Files that changed under a step.
#[derive(Debug, Clone, Default)]
struct Files {
    paths: Vec<Vec<u8>>,
    /// There may be more.
    cut: bool,
}

/// The readers of a history, each with its run of commits.
struct Readers<'p> {
    evaluators: Vec<Evaluator<'p>>,
}

impl<'p> Readers<'p> {
    fn start(repository: &Repository, request: &'p Request, plans: &'p Plans, commits: usize) -> Result<Self, HistoryError> {
        let threads = request.threads.clamp(1, commits / COMMITS_A_THREAD + 1);
        let one = |_| Ok(Evaluator::new(repository.objects()?, plans, &request.place));
        Ok(Self { evaluators: (0..threads).map(one).collect::<Result<_, HistoryError>>()? })
    }

    /// Evaluates all commits, each thread a run of them.
    fn evaluate(&mut self, commits: &[Commit], variant: Variant<'_>) -> Result<Vec<Outcome>, HistoryError> {
        let of = |evaluator: &mut Evaluator<'p>, run: std::ops::Range<usize>| {
            commits[run].iter().map(|commit| evaluator.commit(commit, variant)).collect::<Result<Vec<_>, _>>()
        };
        self.each(commits.len(), of)
    }

    /// Finds the files behind each miss that began with files.
    fn because(&mut self, outcomes: &[Outcome], account: &Account) -> Result<Because, HistoryError> {
        let built = |at: usize| outcomes[..at].iter().rev().find_map(|o| o.as_ref().ok());
        let of = |evaluator: &mut Evaluator<'p>, run: std::ops::Range<usize>| {
            let one = |at: usize| {
                let (Ok(ready), Some(cells), Some(last)) = (&outcomes[at], &account.commits[at], built(at)) else { return Ok(Vec::new()) };
                let steps: Vec<usize> = (0..cells.len()).filter(|step| cells[*step].what == What::Files).collect();
                if steps.is_empty() {
                    return Ok(Vec::new());
                }
                let (changed, cut) = evaluator.changed(last.root, ready.root, CHANGED_FILES)?;
                // The reads of this reader: the rules in them are known to it alone.
                let files = |step: usize| {
                    let paths = evaluator.taken(&ready.reads[step], &changed).into_iter().map(<[u8]>::to_vec).collect();
                    (step, Files { paths, cut })
                };
                Ok(steps.into_iter().map(files).collect())
            };
            run.map(one).collect::<Result<Vec<_>, HistoryError>>()
        };
        self.each(outcomes.len(), of)
    }

    /// Lets each reader work on its run of `0..count`, and joins what they give.
    fn each<T: Send>(
        &mut self,
        count: usize,
        work: impl Fn(&mut Evaluator<'p>, std::ops::Range<usize>) -> Result<Vec<T>, HistoryError> + Sync,
    ) -> Result<Vec<T>, HistoryError> {
        let size = count.div_ceil(self.evaluators.len().max(1)).max(1);
        let work = &work;
        let parts: Vec<Result<Vec<T>, HistoryError>> = std::thread::scope(|scope| {
            let runs = self.evaluators.iter_mut().enumerate().map(|(n, evaluator)| {
                let run = (n * size).min(count)..((n + 1) * size).min(count);
                scope.spawn(move || work(evaluator, run))
            });
            let handles: Vec<_> = runs.collect();
            handles.into_iter().map(|handle| handle.join().expect("a reader doesn't panic")).collect()
        });
        let mut all = Vec::with_capacity(count);
        for part in parts {
            all.extend(part?);
        }
        Ok(all)
    }
}

/// How long parts of the work took.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Took {
    /// Reading and replaying the history, in seconds.
    pub replay_secs: f64,
    /// Looking for suggestions, in seconds.
    pub suggest_secs: f64,
    /// Objects that git was asked for.
    pub objects_read: u64,
    /// Distinct Dockerfiles, rewritten ones included.
    pub dockerfiles: usize,
}

/// Returns the plan of the newest commit that has one.
fn newest(outcomes: &[Outcome]) -> Option<&Ready> {
    outcomes.iter().rev().find_map(|outcome| outcome.as_ref().ok())
}
