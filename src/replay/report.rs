//! The sums over a history, as plain data: what the table, the JSON and the page are made of.
//!
//! Rates leave out the first build, which finds an empty cache and misses everything. Seconds count steps whose cost is known.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::history::{Commit, Parents, Repository};

use super::account::{Account, Cell, Culprit, What};
use super::cost::Costs;
use super::evaluate::{Outcome, Skipped};
use super::executed::Executed;
use super::suggest::Suggestion;
use super::{Because, Request, Took, newest};

/// Files named for one culprit.
const FILES_SHOWN: usize = 8;

/// What a replay found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The context's directory in the tree; empty: the root.
    pub context: String,
    /// The Dockerfile's name in the newest commit.
    pub dockerfile: String,
    /// The range as asked for.
    pub range: String,
    /// The commits, oldest first.
    pub commits: Vec<CommitState>,
    /// The steps: those of the newest Dockerfile in its order, then those that it has no more.
    pub steps: Vec<LaneReport>,
    /// Who began misses, the one that cost most first.
    pub causes: Vec<Blame>,
    /// All steps together.
    pub totals: Totals,
    /// What would raise the rates.
    pub suggestions: Vec<Suggestion>,
    /// What a reader should know: submodules, a shallow clone, costs that are missing.
    pub notes: Vec<String>,
    /// What real builds came to, where they were made.
    pub executed: Option<Executed>,
    /// How long it took.
    pub took: Took,
}

/// A commit of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitState {
    /// Its id.
    pub id: String,
    /// When, in unix seconds.
    pub time_secs: i64,
    /// Its message's first line.
    pub subject: String,
    /// Why it was skipped.
    pub skipped: Option<String>,
}

/// Hits among builds of a step, or of all steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Steps taken from the cache.
    pub hits: u64,
    /// Steps in all.
    pub of: u64,
}

impl Rate {
    pub(super) fn add(&mut self, hit: bool) {
        self.hits += u64::from(hit);
        self.of += 1;
    }

    /// Returns hits as a part of all; 1 where there was nothing to hit.
    pub fn part(&self) -> f64 {
        if self.of == 0 { 1.0 } else { self.hits as f64 / self.of as f64 }
    }
}

/// Rates and seconds under the rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Builds that count: all but the first.
    pub builds: u64,
    /// By the plain rule.
    pub plain: Rate,
    /// By Plywood's rule, assumed misses as misses: what it is at least.
    pub plywood: Rate,
    /// By Plywood's rule, assumed misses as hits: what it is at most.
    pub at_most: Rate,
    /// RUN steps alone, by Plywood's rule.
    pub runs: Rate,
    /// Seconds that missed steps cost a build, by the plain rule; none: no cost is known.
    pub plain_secs: Option<f64>,
    /// The same by Plywood's rule.
    pub plywood_secs: Option<f64>,
}

/// A step through the history.
#[derive(Debug, Clone, Serialize)]
pub struct LaneReport {
    /// Its stage.
    pub stage: String,
    /// `RUN make`.
    pub title: String,
    /// Its line in the newest Dockerfile; none: it is in there no more.
    pub line: Option<usize>,
    /// By the plain rule.
    pub plain: Rate,
    /// By Plywood's rule.
    pub plywood: Rate,
    /// Misses that began with itself.
    pub own_misses: u64,
    /// Misses that something below it began.
    pub dragged_misses: u64,
    /// Those of them that are assumed.
    pub assumed_misses: u64,
    /// What it costs, in seconds, where that is known.
    pub cost_secs: Option<f64>,
    /// What its misses cost a build, by Plywood's rule.
    pub lost_secs: Option<f64>,
    /// For each commit a letter: `.` absent, `h` hit, `0` first build, `f` files, `t` text, `v` variable, `b` base, `d` dragged,
    /// `a` assumed.
    pub cells: String,
}

/// Who began misses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blame {
    /// `files`, `text`, `variable`, `base`.
    pub kind: &'static str,
    /// The step's title, the variable's name, or the stage of the base.
    pub what: String,
    /// Its stage.
    pub stage: String,
    /// Its line in the newest Dockerfile.
    pub line: Option<usize>,
    /// In how many builds.
    pub builds: u64,
    /// Steps that missed by it, its own among them.
    pub misses: u64,
    /// Those that are not its own.
    pub dragged: u64,
    /// What these misses cost a build.
    pub lost_secs: Option<f64>,
    /// The files that changed most often: path, and in how many builds.
    pub files: Vec<(String, u64)>,
}

/// Sums up a history.
pub(super) fn report(
    repository: &Repository,
    request: &Request,
    commits: &[Commit],
    outcomes: &[Outcome],
    account: &Account,
    because: &Because,
) -> Report {
    let totals = totals(account, &request.costs);
    let order = order(account);
    Report {
        context: request.place.context.clone(),
        dockerfile: newest(outcomes).map_or_else(|| "Dockerfile".into(), |ready| ready.plan.graph.source.name().to_owned()),
        range: range(request),
        commits: commits.iter().zip(outcomes).map(|(commit, outcome)| state(commit, outcome)).collect(),
        steps: order.iter().map(|lane| lane_report(*lane, account, &request.costs, totals.builds)).collect(),
        causes: causes(account, because, &request.costs, totals.builds),
        notes: notes(repository, request, commits, outcomes, &totals),
        totals,
        suggestions: Vec::new(),
        executed: None,
        took: Took::default(),
    }
}

/// The cells that count: all but those of the first build.
pub(super) fn counted(account: &Account) -> impl Iterator<Item = &Vec<Cell>> {
    account.commits.iter().flatten().skip(1)
}

/// Sums up all steps.
pub(super) fn totals(account: &Account, costs: &Costs) -> Totals {
    let cost: Vec<Option<f64>> = account.lanes.iter().map(|lane| costs.of(&lane.stage, &lane.title)).collect();
    let mut totals = Totals::default();
    let (mut plain, mut plywood) = (0.0, 0.0);
    for cells in counted(account) {
        totals.builds += 1;
        for cell in cells {
            totals.plain.add(cell.plain_hit);
            totals.plywood.add(cell.hit);
            totals.at_most.add(cell.at_most_hit);
            if account.lanes[cell.lane].kind == "RUN" {
                totals.runs.add(cell.hit);
            }
            let cost = cost[cell.lane].unwrap_or(0.0);
            plain += if cell.plain_hit { 0.0 } else { cost };
            plywood += if cell.hit { 0.0 } else { cost };
        }
    }
    if cost.iter().any(Option::is_some) && totals.builds > 0 {
        totals.plain_secs = Some(plain / totals.builds as f64);
        totals.plywood_secs = Some(plywood / totals.builds as f64);
    }
    totals
}

fn range(request: &Request) -> String {
    let revisions = request.range.revisions.as_deref().unwrap_or("HEAD");
    match request.range.most {
        Some(most) => format!("{revisions}, the last {most}"),
        None => revisions.to_owned(),
    }
}

fn state(commit: &Commit, outcome: &Outcome) -> CommitState {
    let skipped = outcome.as_ref().err().map(ToString::to_string);
    CommitState { id: commit.id.to_string(), time_secs: commit.time_secs, subject: commit.subject.clone(), skipped }
}

/// Lanes of the newest Dockerfile by line, then the others, those that were there most first.
fn order(account: &Account) -> Vec<usize> {
    let mut present = vec![0_usize; account.lanes.len()];
    for cell in account.commits.iter().flatten().flatten() {
        present[cell.lane] += 1;
    }
    let mut order: Vec<usize> = (0..account.lanes.len()).filter(|lane| present[*lane] > 0).collect();
    order.sort_by_key(|lane| (account.lanes[*lane].line.unwrap_or(usize::MAX), std::cmp::Reverse(present[*lane]), *lane));
    order
}

fn lane_report(lane: usize, account: &Account, costs: &Costs, builds: u64) -> LaneReport {
    let of = &account.lanes[lane];
    let cost_secs = costs.of(&of.stage, &of.title);
    let mut report = LaneReport {
        stage: of.stage.clone(),
        title: of.title.clone(),
        line: of.line,
        plain: Rate::default(),
        plywood: Rate::default(),
        own_misses: 0,
        dragged_misses: 0,
        assumed_misses: 0,
        cost_secs,
        lost_secs: None,
        cells: String::with_capacity(account.commits.len()),
    };
    let mut first = true;
    for cells in &account.commits {
        let Some(cells) = cells else {
            report.cells.push('.');
            continue;
        };
        let counts = !std::mem::take(&mut first);
        let Some(cell) = cells.iter().find(|cell| cell.lane == lane) else {
            report.cells.push('.');
            continue;
        };
        report.cells.push(letter(cell.what));
        if counts {
            report.plain.add(cell.plain_hit);
            report.plywood.add(cell.hit);
            match cell.what {
                What::Hit | What::Cold => {}
                What::Files | What::Text | What::Variable | What::Base => report.own_misses += 1,
                What::Below => report.dragged_misses += 1,
                What::Assumed => {
                    report.dragged_misses += 1;
                    report.assumed_misses += 1;
                }
            }
        }
    }
    let misses = report.plywood.of - report.plywood.hits;
    report.lost_secs = cost_secs.filter(|_| builds > 0).map(|cost| cost * misses as f64 / builds as f64);
    report
}

fn letter(what: What) -> char {
    match what {
        What::Hit => 'h',
        What::Cold => '0',
        What::Files => 'f',
        What::Text => 't',
        What::Variable => 'v',
        What::Base => 'b',
        What::Below => 'd',
        What::Assumed => 'a',
    }
}

fn causes(account: &Account, because: &Because, costs: &Costs, builds: u64) -> Vec<Blame> {
    let mut blames: Vec<Blame> = account.culprits.iter().map(|culprit| blame(culprit, account)).collect();
    let mut files: Vec<BTreeMap<&[u8], u64>> = vec![BTreeMap::new(); blames.len()];
    let mut secs = vec![0.0; blames.len()];
    let cost: Vec<Option<f64>> = account.lanes.iter().map(|lane| costs.of(&lane.stage, &lane.title)).collect();
    for (cells, because) in account.commits.iter().zip(because).filter_map(|(cells, because)| cells.as_ref().map(|c| (c, because))) {
        let mut met: HashMap<usize, ()> = HashMap::new();
        for (step, cell) in cells.iter().enumerate() {
            let Some(culprit) = cell.culprit else { continue };
            if met.insert(culprit, ()).is_none() {
                blames[culprit].builds += 1;
            }
            blames[culprit].misses += 1;
            blames[culprit].dragged += u64::from(matches!(cell.what, What::Below | What::Assumed));
            secs[culprit] += cost[cell.lane].unwrap_or(0.0);
            for (_, changed) in because.iter().filter(|(at, _)| *at == step) {
                changed.paths.iter().for_each(|path| *files[culprit].entry(path).or_default() += 1);
            }
        }
    }
    for ((blame, files), secs) in blames.iter_mut().zip(files).zip(secs) {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_by_key(|(path, builds)| (std::cmp::Reverse(*builds), *path));
        blame.files = files.into_iter().take(FILES_SHOWN).map(|(path, n)| (String::from_utf8_lossy(path).into_owned(), n)).collect();
        blame.lost_secs = (cost.iter().any(Option::is_some) && builds > 0).then(|| secs / builds as f64);
    }
    blames.sort_by(|a, b| {
        let worth = |blame: &Blame| (blame.lost_secs.unwrap_or(0.0), blame.misses);
        worth(b).partial_cmp(&worth(a)).unwrap_or(std::cmp::Ordering::Equal)
    });
    blames
}

fn blame(culprit: &Culprit, account: &Account) -> Blame {
    let lane = |lane: &usize| (account.lanes[*lane].title.clone(), account.lanes[*lane].stage.clone(), account.lanes[*lane].line);
    let (kind, (what, stage, line)) = match culprit {
        Culprit::Files(of) => ("files", lane(of)),
        Culprit::Text(of) => ("text", lane(of)),
        Culprit::Variable(stage, name) => ("variable", (name.clone(), stage.clone(), None)),
        Culprit::Base(stage) => ("base", ("FROM".to_owned(), stage.clone(), None)),
    };
    Blame { kind, what, stage, line, builds: 0, misses: 0, dragged: 0, lost_secs: None, files: Vec::new() }
}

fn notes(repository: &Repository, request: &Request, commits: &[Commit], outcomes: &[Outcome], totals: &Totals) -> Vec<String> {
    let mut notes = Vec::new();
    let mut skipped: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    for (commit, outcome) in commits.iter().zip(outcomes) {
        if let Err(why) = outcome {
            let entry = skipped.entry(why.kind()).or_insert_with(|| (0, String::new()));
            entry.0 += 1;
            // The newest is the one that somebody may mend.
            entry.1 = format!("{}: {why}", commit.id.short());
        }
    }
    notes.extend(skipped.into_iter().map(|(kind, (count, newest))| format!("{count} commits skipped, {kind} (the newest {newest})")));
    if repository.shallow && request.range.most.is_none_or(|most| commits.len() < most) {
        let first = commits.first().map_or_else(|| "nothing".into(), |c| c.id.short());
        notes.push(format!("the clone is shallow: its history begins at {first}"));
    }
    if commits.iter().any(|c| c.parents.len() > 1) && request.range.parents == Parents::First {
        notes.push("of merges the first parent was followed (--all-parents follows all)".to_owned());
    }
    let assumed = totals.at_most.hits - totals.plywood.hits;
    if assumed > 0 {
        let misses = totals.plywood.of - totals.plywood.hits;
        notes.push(format!(
            "{assumed} of {misses} misses are assumed: they stand on a RUN that ran again, and hit if that gave what it gave before \
             (--execute finds out)"
        ));
    }
    notes
}

impl Skipped {
    /// Returns what commits are counted by.
    fn kind(&self) -> &'static str {
        match self {
            Self::NoContext => "without the context's directory",
            Self::NoDockerfile => "without a Dockerfile",
            Self::Fails(_) => "whose build would fail",
            Self::Unreadable(_) => "that can't be read",
        }
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoContext | Self::NoDockerfile => f.write_str(self.kind()),
            Self::Fails(what) | Self::Unreadable(what) => f.write_str(what),
        }
    }
}
