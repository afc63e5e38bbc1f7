//! The files of a directory of a commit, summed up without being read.
//!
//! A blob's id stands for its bytes and a tree's id for all that it holds, so two equal sums mean equal files, and nothing
//! below an unchanged directory is looked at again: what a directory gave is remembered by its tree's id, the rules in force
//! and, as patterns speak of paths, where it lies. Which names count is [`Filters`]'s to say, as in a build.
//!
//! A newcomer would sum up tree ids alone. A file that is ignored changes the tree's id as well.

use std::collections::HashMap;
use std::sync::Arc;

use crate::context::{Decision, Filters, Include, Trails, resolve};
use crate::dockerfile::ignore::IgnoreRules;
use crate::history::{HistoryError, Kind, Objects, Oid};

/// How deep directories may be nested, as in a build.
const MAX_DEPTH: usize = 500;
/// Names looked at for one source of one step: a tree that is made of itself over and over has more.
const MAX_NAMES: usize = 20_000_000;
/// The tree that holds nothing, which git checks out as nothing: its SHA-1 and SHA-256.
const EMPTY_TREES: [&str; 2] =
    ["4b825dc642cb6eb9a060e54bf8d69288fbee4904", "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"];

/// Something that a source takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken<V> {
    /// Its name in its directory.
    pub name: Box<[u8]>,
    /// What it is.
    pub what: What<V>,
}

/// What is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What<V> {
    /// A directory, and what of its content is taken.
    Directory {
        /// It is here only since something below it is.
        implied: bool,
        /// The sum of its content.
        content: V,
    },
    /// A file.
    File {
        /// Of mode 0755, not 0644.
        executable: bool,
        /// Its bytes.
        id: Oid,
    },
    /// A symbolic link.
    Link(Oid),
    /// Another repository, which counts as unchanged while its commit is the same.
    Submodule(Oid),
}

/// How the content of a directory is summed up.
pub(super) trait Sum {
    /// The sum.
    type Value: Clone;
    /// Sums up one directory; equal exactly when all that is taken is.
    fn of(taken: &[Taken<Self::Value>]) -> Self::Value;
}

/// A hash.
pub(super) struct Hashed;

impl Sum for Hashed {
    type Value = [u8; 32];

    fn of(taken: &[Taken<[u8; 32]>]) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(taken.len() * 64);
        for Taken { name, what } in taken {
            bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
            bytes.extend_from_slice(name);
            let (kind, content) = match what {
                What::Directory { implied: false, content } => (b'd', content),
                What::Directory { implied: true, content } => (b'i', content),
                What::File { executable: false, id } => (b'f', id.padded()),
                What::File { executable: true, id } => (b'x', id.padded()),
                What::Link(id) => (b'l', id.padded()),
                What::Submodule(id) => (b's', id.padded()),
            };
            bytes.push(kind);
            bytes.extend_from_slice(content);
        }
        *blake3::Hasher::new_derive_key("plywood directory of a git tree").update(&bytes).finalize().as_bytes()
    }
}

/// What one directory gives.
#[derive(Debug, Clone)]
pub(super) struct Node<V> {
    /// The sum of what is taken.
    pub content: V,
    /// Something is taken.
    pub any: bool,
    /// Something in it isn't hidden, at whatever depth.
    pub visible: bool,
    /// The `--parents` pattern matched something that isn't hidden.
    pub included: bool,
    /// There is a file at all: git makes no directory else.
    populated: bool,
}

/// Which rules are in force; cheap to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FilterId(u32);

/// The rules for one source, and what they said of each path.
struct Filter {
    ignore: Option<Arc<IgnoreRules>>,
    exclude: Option<Arc<IgnoreRules>>,
    include: Option<Include>,
    /// By path from the tree's root; of a directory with a slash at its end.
    said: HashMap<Vec<u8>, (Decision, Trails)>,
}

impl Filter {
    fn filters(&self) -> Filters<'_> {
        Filters { ignore: self.ignore.as_deref(), exclude: self.exclude.as_deref(), include: self.include.as_ref() }
    }

    /// Whether where something lies can matter.
    fn is_plain(&self) -> bool {
        self.ignore.is_none() && self.exclude.is_none() && self.include.is_none()
    }

    fn decide(&mut self, trails: &Trails, paths: &Paths, is_directory: bool) -> (Decision, Trails) {
        if self.is_plain() {
            return (Decision { hidden: false, included: false, taken: true, enter: is_directory }, Trails::default());
        }
        let mut key = paths.in_tree.clone();
        if is_directory {
            key.push(b'/');
        }
        if let Some(known) = self.said.get(&key) {
            return known.clone();
        }
        let said = self.filters().decide(trails, &paths.in_tree, &paths.below, is_directory);
        self.said.insert(key, said.clone());
        said
    }
}

/// Where a walk is: from the tree's root, and below the source.
#[derive(Debug, Clone, Default)]
struct Paths {
    in_tree: Vec<u8>,
    below: Vec<u8>,
}

/// What is remembered of directories.
pub(super) struct Sums<S: Sum> {
    /// Reads trees.
    pub objects: Objects,
    filters: Vec<Filter>,
    /// What identifies each of `filters`: its rules by address, its patterns, and the source where they speak of it.
    identities: HashMap<FilterKey, FilterId>,
    places: HashMap<Vec<u8>, u32>,
    known: HashMap<(FilterId, u32, Oid), Node<S::Value>>,
    names: usize,
}

#[derive(PartialEq, Eq, Hash)]
struct FilterKey {
    ignore: Option<usize>,
    exclude: Vec<String>,
    include: Option<String>,
    source: Vec<u8>,
}

impl<S: Sum> Sums<S> {
    /// Begins with nothing known.
    pub fn new(objects: Objects) -> Self {
        Self { objects, filters: Vec::new(), identities: HashMap::new(), places: HashMap::new(), known: HashMap::new(), names: 0 }
    }

    /// Returns the id of the rules for a source directory. `ignore` must live as long as this does: it is known by its address.
    pub fn filter(
        &mut self,
        ignore: Option<&Arc<IgnoreRules>>,
        exclude: (&[String], Option<&Arc<IgnoreRules>>),
        include: Option<(&str, &Include)>,
        source: &[u8],
    ) -> FilterId {
        let ignore = ignore.filter(|rules| !rules.is_empty());
        // Ignore rules speak of paths from the root: all sources can share what they said.
        let relative = exclude.1.is_some() || include.is_some();
        let key = FilterKey {
            ignore: ignore.map(|rules| Arc::as_ptr(rules).addr()),
            exclude: exclude.0.to_vec(),
            include: include.map(|(text, _)| text.to_owned()),
            source: if relative { source.to_vec() } else { Vec::new() },
        };
        let next = FilterId(u32::try_from(self.filters.len()).expect("each has taken memory"));
        let filters = &mut self.filters;
        *self.identities.entry(key).or_insert_with(|| {
            let include = include.map(|(_, include)| include.clone());
            filters.push(Filter { ignore: ignore.cloned(), exclude: exclude.1.cloned(), include, said: HashMap::new() });
            next
        })
    }

    /// Sums up a source directory that lies at `source` in its tree.
    pub fn directory(&mut self, filter: FilterId, id: Oid, source: &[u8]) -> Result<Node<S::Value>, HistoryError> {
        self.names = 0;
        let trails = self.filters[filter.0 as usize].filters().trails_of_source(source);
        let mut paths = Paths { in_tree: source.to_vec(), below: Vec::new() };
        self.walk(filter, id, &mut paths, &trails, 0)
    }

    /// Returns whether a file at `path` is among what a source directory at `source` takes.
    pub fn takes(&self, filter: FilterId, source: &[u8], path: &[u8]) -> bool {
        let filters = self.filters[filter.0 as usize].filters();
        let below = match source {
            b"" => path,
            source => match path.strip_prefix(source).and_then(|rest| rest.strip_prefix(b"/")) {
                Some(below) => below,
                None => return false,
            },
        };
        let mut trails = filters.trails_of_source(source);
        let mut paths = Paths { in_tree: source.to_vec(), below: Vec::new() };
        let mut names = resolve::components(below).peekable();
        while let Some(name) = names.next() {
            resolve::push(&mut paths.in_tree, name);
            resolve::push(&mut paths.below, name);
            let last = names.peek().is_none();
            let (decision, handed) = filters.decide(&trails, &paths.in_tree, &paths.below, !last);
            if last {
                return !decision.hidden && decision.taken;
            }
            if !decision.enter {
                return false;
            }
            trails = handed;
        }
        false
    }

    fn walk(
        &mut self,
        filter: FilterId,
        id: Oid,
        paths: &mut Paths,
        trails: &Trails,
        depth: usize,
    ) -> Result<Node<S::Value>, HistoryError> {
        let place = if self.filters[filter.0 as usize].is_plain() { 0 } else { self.place(&paths.in_tree) };
        if let Some(known) = self.known.get(&(filter, place, id)) {
            return Ok(known.clone());
        }
        let tree = self.objects.tree(id)?;
        self.names += tree.items.len();
        if depth > MAX_DEPTH || self.names > MAX_NAMES {
            let problem = if depth > MAX_DEPTH { "lies more than 500 directories deep" } else { "has more than 20 million names below it" };
            return Err(HistoryError::Broken { id, problem });
        }
        let include = self.filters[filter.0 as usize].include.is_some();
        let mut taken = Vec::new();
        let mut node = Node { content: S::of(&[]), any: false, visible: false, included: false, populated: false };
        let lengths = (paths.in_tree.len(), paths.below.len());
        for item in &tree.items {
            resolve::push(&mut paths.in_tree, &item.name);
            resolve::push(&mut paths.below, &item.name);
            let is_directory = matches!(item.kind, Kind::Directory | Kind::Submodule);
            let (decision, handed) = self.filters[filter.0 as usize].decide(trails, paths, is_directory);
            let Decision { hidden, included, taken: wanted, enter } = decision;
            let mut seen = !hidden;
            let what = match item.kind {
                Kind::Directory => {
                    let below = match enter {
                        true => Some(self.walk(filter, item.id, paths, &handed, depth + 1)?),
                        false => None,
                    };
                    if below.as_ref().map_or_else(|| is_empty(item.id), |below| !below.populated) {
                        paths.in_tree.truncate(lengths.0);
                        paths.below.truncate(lengths.1);
                        continue;
                    }
                    seen |= below.as_ref().is_some_and(|below| below.visible);
                    node.included |= below.as_ref().is_some_and(|below| below.included);
                    // A hidden directory is in the context when something in it is.
                    below
                        .filter(|below| (wanted && seen) || below.any)
                        .map(|below| What::Directory { implied: !wanted || include, content: below.content })
                }
                Kind::File { executable } => (wanted && !hidden).then_some(What::File { executable, id: item.id }),
                Kind::Link => (wanted && !hidden).then_some(What::Link(item.id)),
                Kind::Submodule => (wanted && !hidden).then_some(What::Submodule(item.id)),
            };
            node.populated = true;
            node.visible |= seen;
            node.included |= included && !hidden;
            taken.extend(what.map(|what| Taken { name: item.name.clone(), what }));
            paths.in_tree.truncate(lengths.0);
            paths.below.truncate(lengths.1);
        }
        node.any = !taken.is_empty();
        node.content = S::of(&taken);
        self.known.insert((filter, place, id), node.clone());
        Ok(node)
    }

    fn place(&mut self, path: &[u8]) -> u32 {
        if let Some(known) = self.places.get(path) {
            return *known;
        }
        let next = u32::try_from(self.places.len() + 1).expect("each has taken memory");
        self.places.insert(path.to_vec(), next);
        next
    }
}

fn is_empty(id: Oid) -> bool {
    // Their first bytes; a directory that isn't entered is met often.
    matches!(id.padded()[0], 0x4b | 0x6e) && EMPTY_TREES.iter().any(|empty| id.to_string() == *empty)
}
