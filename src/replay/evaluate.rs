//! What the build of each commit would begin with: its plan, and the digests of what its steps take from the context.
//!
//! Commits are independent of each other here, so each thread takes a run of them: neighbours share nearly all trees.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::derive;
use crate::cache::key::MatchInputs;
use crate::digest::ContentDigest;
use crate::dockerfile::ignore::IgnoreRules;
use crate::graph::{CopySource, FileTree, MountKind, Op};
use crate::history::{Commit, HistoryError, Kind, Objects, Oid};

use super::files::{FilterId, Hashed, Sums};
use super::plan::{Plan, Plans};
use super::select::{self, Match, SelectError, Tree, Wanted};

/// As a build's.
const DOCKERFILE_MAX_BYTES: u64 = 16 << 20;
const IGNORE_FILE: &str = ".dockerignore";

/// Where the files of a build lie in the tree of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The context's directory; empty: the root.
    pub context: String,
    /// The Dockerfile, from the context's directory; none: `Dockerfile`, else `dockerfile`.
    pub dockerfile: Option<String>,
}

/// What a commit's build begins with.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its Dockerfile.
    pub plan: Arc<Plan>,
    /// What its steps read, one for each of the plan's.
    pub(super) reads: AllReads,
    /// The context's directory.
    pub(super) root: Oid,
    /// The ignore file's name and text.
    pub ignore: Option<(String, Arc<str>)>,
}

/// What the steps of a plan take from the context, in their order.
pub(super) type AllReads = Arc<Vec<Arc<Reads>>>;

/// A plan, the context's directory and the rules, by addresses of what is kept.
type Key = (usize, Oid, usize);

/// What a step takes from the context.
#[derive(Debug, Default)]
pub struct Reads {
    /// For each source of a copy what it matched, or for each mount what it shows; none: it is not of the context.
    pub(super) inputs: Vec<Option<Vec<MatchInputs>>>,
    /// Where the files lie: to tell which of them changed. The rules are known to the reader that found them alone.
    pub(super) places: Vec<ReadPlace>,
}

/// A file or directory that a step takes.
#[derive(Debug)]
pub(super) struct ReadPlace {
    pub path: Vec<u8>,
    pub directory: bool,
    pub filter: FilterId,
}

/// Why a commit can't be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skipped {
    /// The context's directory isn't there.
    NoContext,
    /// There is no Dockerfile.
    NoDockerfile,
    /// The build would fail; what it would say, with its place.
    Fails(String),
    /// Objects are missing or broken.
    Unreadable(String),
}

/// What becomes of a commit.
pub type Outcome = Result<Ready, Skipped>;

/// Texts of a commit, to be rewritten before they are evaluated.
pub(super) struct Texts {
    pub dockerfile: Arc<str>,
    /// None: there is no ignore file.
    pub ignore: Option<Arc<str>>,
}

/// Rewrites a commit's texts, told which paths are in its context; none: as they are.
pub(super) type Rewrite<'r> = &'r (dyn Fn(&Texts, &mut dyn FnMut(&str) -> bool) -> Option<Texts> + Sync);

/// What is asked of commits besides what they are.
#[derive(Clone, Copy, Default)]
pub(super) struct Variant<'r> {
    /// Rewrites their texts.
    pub rewrite: Option<Rewrite<'r>>,
    /// The context is a checkout: it has a `.git`.
    pub checkout: bool,
}

/// One thread's reader.
pub(super) struct Evaluator<'p> {
    sums: Sums<Hashed>,
    plans: &'p Plans,
    place: &'p Place,
    texts: HashMap<Oid, Arc<str>>,
    /// By text: rules are told apart by their address.
    rules: HashMap<Arc<str>, Result<Arc<IgnoreRules>, String>>,
    reads: HashMap<Key, AllReads>,
    /// Keeps alive what `reads` knows by address.
    used: Vec<Arc<Plan>>,
    failures: HashMap<Key, Skipped>,
}

impl<'p> Evaluator<'p> {
    pub fn new(objects: Objects, plans: &'p Plans, place: &'p Place) -> Self {
        Self {
            sums: Sums::new(objects),
            plans,
            place,
            texts: HashMap::new(),
            rules: HashMap::new(),
            reads: HashMap::new(),
            used: Vec::new(),
            failures: HashMap::new(),
        }
    }

    /// How many objects were read so far.
    pub fn objects_read(&self) -> u64 {
        self.sums.objects.read
    }

    /// Evaluates a commit. Errors: git itself fails; whatever is wrong with the commit is its outcome.
    pub fn commit(&mut self, commit: &Commit, variant: Variant<'_>) -> Result<Outcome, HistoryError> {
        match self.ready(commit, variant) {
            Ok(outcome) => Ok(outcome),
            Err(e @ (HistoryError::Missing { .. } | HistoryError::Broken { .. } | HistoryError::TooLarge { .. })) => {
                Ok(Err(Skipped::Unreadable(e.to_string())))
            }
            Err(e) => Err(e),
        }
    }

    fn ready(&mut self, commit: &Commit, variant: Variant<'_>) -> Result<Outcome, HistoryError> {
        let Some(root) = self.context(commit.tree)? else { return Ok(Err(Skipped::NoContext)) };
        let Some((name, dockerfile)) = self.dockerfile(root)? else { return Ok(Err(Skipped::NoDockerfile)) };
        let own = format!("{name}{IGNORE_FILE}");
        let ignore = match self.text(root, &own)? {
            Some(text) => Some((own, text)),
            None => self.text(root, IGNORE_FILE)?.map(|text| (IGNORE_FILE.to_owned(), text)),
        };
        let ignore_name = ignore.as_ref().map_or(IGNORE_FILE, |(name, _)| name.as_str()).to_owned();
        let texts = Texts { dockerfile, ignore: ignore.map(|(_, text)| text) };
        let rewritten = match variant.rewrite {
            Some(rewrite) => self.rewritten(root, &texts, rewrite)?,
            None => None,
        };
        let texts = rewritten.unwrap_or(texts);
        let plan = match self.plans.of(&name, &texts.dockerfile) {
            Ok(plan) => plan,
            Err(e) => return Ok(Err(Skipped::Fails(e.to_string()))),
        };
        let rules = match texts.ignore.as_ref().map(|text| self.rules_of(text)) {
            None => None,
            Some(Ok(rules)) => Some(rules),
            Some(Err(problem)) => return Ok(Err(Skipped::Fails(format!("{ignore_name}: {problem}")))),
        };
        let ignore = texts.ignore.map(|text| (ignore_name, text));
        let tree = Tree { root, ignore: rules };
        let reads = match self.all_reads(&plan, &tree)? {
            Ok(reads) if variant.checkout => Ok(self.of_checkout(commit, &reads)),
            reads => reads,
        };
        Ok(reads.map(|reads| Ready { plan, reads, root, ignore }))
    }

    fn rewritten(&mut self, root: Oid, texts: &Texts, rewrite: Rewrite<'_>) -> Result<Option<Texts>, HistoryError> {
        let rules = texts.ignore.as_ref().and_then(|text| self.rules_of(text).ok());
        let tree = Tree { root, ignore: rules };
        let mut failed = None;
        let mut exists = |path: &str| {
            let wanted = Wanted { path, parents: false, exclude: &[] };
            match select::select(&mut self.sums, &tree, wanted) {
                Ok(found) => !found.is_empty(),
                Err(SelectError::History(e)) => {
                    failed = Some(e);
                    false
                }
                Err(_) => false,
            }
        };
        let texts = rewrite(texts, &mut exists);
        failed.map_or(Ok(texts), Err)
    }

    /// What steps take from a checkout: where they take its top, `.git` comes along unless it is ignored.
    fn of_checkout(&self, commit: &Commit, reads: &AllReads) -> AllReads {
        let takes = |place: &ReadPlace| place.directory && place.path.is_empty() && self.sums.takes(place.filter, b"", b".git/HEAD");
        if !reads.iter().any(|step| step.places.iter().any(takes)) {
            return reads.clone();
        }
        let with_git = |m: &MatchInputs| {
            let both = [*m.content.as_bytes(), *commit.id.padded()].concat();
            MatchInputs { content: ContentDigest::from_bytes(*blake3::hash(&both).as_bytes()), ..m.clone() }
        };
        let step = |step: &Arc<Reads>| {
            if !step.places.iter().any(takes) {
                return step.clone();
            }
            let inputs = step.inputs.iter().map(|matches| matches.as_ref().map(|matches| matches.iter().map(with_git).collect()));
            Arc::new(Reads { inputs: inputs.collect(), places: Vec::new() })
        };
        Arc::new(reads.iter().map(step).collect())
    }

    /// The context's directory in a root tree; a link on the way is not followed.
    fn context(&mut self, root: Oid) -> Result<Option<Oid>, HistoryError> {
        let mut at = root;
        for name in self.place.context.split('/').filter(|n| !n.is_empty()) {
            match self.sums.objects.tree(at)?.find(name.as_bytes()) {
                Some(item) if item.kind == Kind::Directory => at = item.id,
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn dockerfile(&mut self, root: Oid) -> Result<Option<(String, Arc<str>)>, HistoryError> {
        let place = self.place;
        let names = place.dockerfile.as_deref().map_or(vec!["Dockerfile", "dockerfile"], |name| vec![name]);
        for name in names {
            if let Some(text) = self.text(root, name)? {
                return Ok(Some((name.to_owned(), text)));
            }
        }
        Ok(None)
    }

    /// Reads a small file of the context; none: it isn't there.
    fn text(&mut self, root: Oid, path: &str) -> Result<Option<Arc<str>>, HistoryError> {
        let id = match select::file(&mut self.sums, root, path) {
            Ok(Some(id)) => id,
            Err(SelectError::History(e)) => return Err(e),
            Ok(None) | Err(_) => return Ok(None),
        };
        if let Some(text) = self.texts.get(&id) {
            return Ok(Some(text.clone()));
        }
        let bytes = self.sums.objects.blob(id, DOCKERFILE_MAX_BYTES)?;
        let text: Arc<str> = String::from_utf8_lossy(&bytes).into();
        self.texts.insert(id, text.clone());
        Ok(Some(text))
    }

    fn rules_of(&mut self, text: &Arc<str>) -> Result<Arc<IgnoreRules>, String> {
        let parse = || IgnoreRules::parse(text).map(Arc::new).map_err(|e| e.to_string());
        self.rules.entry(text.clone()).or_insert_with(parse).clone()
    }

    /// What all steps of a plan take from a context.
    fn all_reads(&mut self, plan: &Arc<Plan>, tree: &Tree) -> Result<Result<AllReads, Skipped>, HistoryError> {
        let key = (Arc::as_ptr(plan).addr(), tree.root, tree.ignore.as_ref().map_or(0, |rules| Arc::as_ptr(rules).addr()));
        if let Some(known) = self.reads.get(&key) {
            return Ok(Ok(known.clone()));
        }
        if let Some(known) = self.failures.get(&key) {
            return Ok(Err(known.clone()));
        }
        self.used.push(plan.clone());
        let mut all = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            match self.reads(&plan.graph.nodes[step.node.0].op, tree) {
                Ok(reads) => all.push(Arc::new(reads)),
                Err(SelectError::History(e)) => return Err(e),
                Err(e) => {
                    let skipped = Skipped::Fails(format!("{}:{}: {e}", plan.graph.source.name(), step.line));
                    self.failures.insert(key, skipped.clone());
                    return Ok(Err(skipped));
                }
            }
        }
        let all = Arc::new(all);
        self.reads.insert(key, all.clone());
        Ok(Ok(all))
    }

    fn reads(&mut self, op: &Op, tree: &Tree) -> Result<Reads, SelectError> {
        let mut reads = Reads::default();
        match op {
            Op::Copy(copy) if copy.from == FileTree::Context(None) => {
                for source in &copy.sources {
                    let CopySource::Path(path, _) = source else {
                        reads.inputs.push(None);
                        continue;
                    };
                    let wanted = Wanted { path, parents: copy.parents, exclude: &copy.exclude };
                    let found = select::select(&mut self.sums, tree, wanted)?;
                    let inputs = found.iter().map(|m| derive::matched(copy, m.is_directory(), &m.name, m.content())).collect();
                    reads.add(inputs, &found);
                }
            }
            Op::Run(run) => {
                for mount in &run.mounts {
                    match &mount.kind {
                        MountKind::Bind { from: FileTree::Context(None), source }
                        | MountKind::Cache { from: Some(FileTree::Context(None)), source, .. } => {
                            let found: Vec<_> = select::select_mount(&mut self.sums, tree, source)?.into_iter().collect();
                            let inputs = found.iter().map(|m| MatchInputs { name: Default::default(), content: m.content() }).collect();
                            reads.add(inputs, &found);
                        }
                        _ => reads.inputs.push(None),
                    }
                }
            }
            _ => {}
        }
        Ok(reads)
    }

    /// Returns the paths below the context's directory that differ between two commits, no more than `most`; the last value
    /// tells whether there are more.
    pub fn changed(&mut self, old: Oid, new: Oid, most: usize) -> Result<(Vec<Vec<u8>>, bool), HistoryError> {
        let mut out = Vec::new();
        let all = self.differences(Some(old), Some(new), &mut Vec::new(), most, &mut out)?;
        Ok((out, !all))
    }

    fn differences(
        &mut self,
        old: Option<Oid>,
        new: Option<Oid>,
        path: &mut Vec<u8>,
        most: usize,
        out: &mut Vec<Vec<u8>>,
    ) -> Result<bool, HistoryError> {
        let old = old.map(|id| self.sums.objects.tree(id)).transpose()?.unwrap_or_default();
        let new = new.map(|id| self.sums.objects.tree(id)).transpose()?.unwrap_or_default();
        let gone = old.items.iter().filter(|o| new.find(&o.name).is_none()).map(|o| (&o.name, Some(o), None));
        let stays = new.items.iter().map(|n| (&n.name, old.find(&n.name), Some(n)));
        let length = path.len();
        for (name, old, new) in gone.chain(stays) {
            if old == new {
                continue;
            }
            if out.len() >= most {
                return Ok(false);
            }
            crate::context::resolve::push(path, name);
            let directory = |item: Option<&crate::history::Item>| item.filter(|i| i.kind == Kind::Directory).map(|i| i.id);
            let (was, is) = (directory(old), directory(new));
            let file = |item: Option<&crate::history::Item>| item.filter(|i| i.kind != Kind::Directory).map(|i| (i.kind, i.id));
            if file(old) != file(new) {
                out.push(path.clone());
            }
            let all = (was == is) || self.differences(was, is, path, most, out)?;
            path.truncate(length);
            if !all {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns which of these paths a step takes.
    pub fn taken<'c>(&self, reads: &Reads, changed: &'c [Vec<u8>]) -> Vec<&'c [u8]> {
        let takes = |place: &ReadPlace, path: &[u8]| match place.directory {
            true => self.sums.takes(place.filter, &place.path, path),
            false => place.path == path,
        };
        changed.iter().map(Vec::as_slice).filter(|path| reads.places.iter().any(|place| takes(place, path))).collect()
    }
}

impl Reads {
    fn add(&mut self, inputs: Vec<MatchInputs>, found: &[Match<[u8; 32]>]) {
        self.inputs.push(Some(inputs));
        let place = |m: &Match<_>| ReadPlace { path: m.path.clone(), directory: m.is_directory(), filter: m.filter };
        self.places.extend(found.iter().map(place));
    }

    /// Returns the digest of what a mount shows.
    pub(super) fn mounted(&self, at: usize) -> Option<ContentDigest> {
        self.inputs.get(at)?.as_ref()?.first().map(|m| m.content)
    }
}
