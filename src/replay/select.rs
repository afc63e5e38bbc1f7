//! What the sources of a COPY, an ADD or a mount lead to in a commit: [`crate::context::select`] for git trees.
//!
//! The rules are those of a build from a checkout, and the property test beside this holds the two together. Links are
//! followed inside the tree; a submodule is a directory in which nothing can be found.

use std::sync::Arc;

use crate::context::{Include, is_pattern, resolve};
use crate::digest::ContentDigest;
use crate::dockerfile::ignore::{IgnoreError, IgnoreRules, path_match};
use crate::history::{HistoryError, Kind, Oid};
use crate::path::{clean, printable, split};

use super::files::{FilterId, Sum, Sums, Taken, What};

/// Links followed in one path, as in a build.
const MAX_LINKS: usize = 40;
/// Of a link: longer than any system takes.
const TARGET_MAX_BYTES: u64 = 64 << 10;

/// Why the sources of a step lead nowhere: the build of this commit would fail there.
#[derive(Debug, thiserror::Error)]
pub(super) enum SelectError {
    /// A source that must exist doesn't, or is hidden.
    #[error("`{0}` not found in the build context")]
    NotFound(String),
    /// A source is a link to something that isn't there, or is hidden.
    #[error("`{path}` is a link to `/{target}`, not found in the build context")]
    Dangling {
        /// The link, as written or matched.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// A component that isn't the last is no directory.
    #[error("`/{0}` is not a directory")]
    NotDirectory(String),
    /// Links lead round in a circle.
    #[error("too many levels of symbolic links in `{0}`")]
    Loop(String),
    /// An `--exclude` or `--parents` pattern is none.
    #[error("in the pattern `{pattern}`: {source}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong.
        source: IgnoreError,
    },
    /// The repository can't be read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// A context: a directory of a commit, and what is hidden of it.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// The directory.
    pub root: Oid,
    /// The ignore rules.
    pub ignore: Option<Arc<IgnoreRules>>,
}

/// What is asked of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// A path or pattern, as written.
    pub path: &'a str,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: &'a [String],
}

/// One thing that a source led to.
#[derive(Debug, Clone)]
pub(super) struct Match<V> {
    /// Its path in the tree, free of links.
    pub path: Vec<u8>,
    /// Its name as written or matched.
    pub name: Vec<u8>,
    /// What it is; of a directory what it holds.
    pub what: What<V>,
    /// The rules that were in force.
    pub filter: FilterId,
}

impl Match<[u8; 32]> {
    /// Returns the digest of it: as [`SelectedSource::content`](crate::context::SelectedSource::content), the name of a
    /// directory isn't part of it.
    pub fn content(&self) -> ContentDigest {
        use super::files::Hashed;
        let name: &[u8] = if matches!(self.what, What::Directory { .. } | What::Submodule(_)) { b"" } else { &self.name };
        ContentDigest::from_bytes(Hashed::of(&[Taken { name: name.into(), what: self.what.clone() }]))
    }

    /// Returns whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.what, What::Directory { .. } | What::Submodule(_))
    }
}

/// What a path leads to.
struct Place {
    /// What exists of it, free of links.
    path: Vec<u8>,
    missing: Vec<Vec<u8>>,
    links: Vec<Vec<u8>>,
    kind: Kind,
    id: Oid,
}

impl Place {
    fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory | Kind::Submodule)
    }

    fn full_path(&self) -> Vec<u8> {
        resolve::join([self.path.as_slice()].into_iter().chain(self.missing.iter().map(Vec::as_slice)).filter(|p| !p.is_empty()))
    }
}

/// What it means when a path turns out to be hidden.
#[derive(Clone, Copy)]
enum Missing<'a> {
    Error(&'a str),
    Nothing,
}

/// Finds what one source leads to, in the order of copying.
pub(super) fn select<S: Sum>(sums: &mut Sums<S>, tree: &Tree, wanted: Wanted<'_>) -> Result<Vec<Match<S::Value>>, SelectError> {
    let pattern = |source| SelectError::Pattern { pattern: wanted.exclude.join("`, `"), source };
    let rules = if wanted.exclude.is_empty() { None } else { Some(IgnoreRules::from_patterns(wanted.exclude).map_err(pattern)?) };
    let mut finder = Finder { sums, tree, exclude: (wanted.exclude, rules.map(Arc::new)), found: Vec::new(), include_matched: false };
    if wanted.parents {
        finder.with_parents(wanted.path)?
    } else {
        finder.plain(wanted.path)?
    }
    Ok(finder.found)
}

/// Finds what a mount shows.
pub(super) fn select_mount<S: Sum>(sums: &mut Sums<S>, tree: &Tree, source: &str) -> Result<Option<Match<S::Value>>, SelectError> {
    let mut finder = Finder { sums, tree, exclude: (&[], None), found: Vec::new(), include_matched: false };
    let place = finder.existing(&clean(source.as_bytes()), source)?;
    finder.take(&place, b"", None, Missing::Error(source))?;
    Ok(finder.found.pop())
}

/// Returns the blob at a path, links followed; none: there is no file. Ignore rules don't matter: a Dockerfile.
pub(super) fn file<S: Sum>(sums: &mut Sums<S>, root: Oid, path: &str) -> Result<Option<Oid>, SelectError> {
    let tree = Tree { root, ignore: None };
    let mut finder = Finder { sums, tree: &tree, exclude: (&[], None), found: Vec::new(), include_matched: false };
    match finder.resolve(path.as_bytes()) {
        Ok(place) if place.missing.is_empty() && !place.is_directory() => Ok(Some(place.id)),
        Ok(_) | Err(SelectError::NotDirectory(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

struct Finder<'a, S: Sum> {
    sums: &'a mut Sums<S>,
    tree: &'a Tree,
    exclude: (&'a [String], Option<Arc<IgnoreRules>>),
    found: Vec<Match<S::Value>>,
    include_matched: bool,
}

impl<S: Sum> Finder<'_, S> {
    /// A source without `--parents`.
    fn plain(&mut self, written: &str) -> Result<(), SelectError> {
        let path = clean(written.as_bytes());
        for (place, name, missing) in self.expand(written, &path)? {
            self.take(&place, &name, None, missing)?;
        }
        Ok(())
    }

    /// A source with `--parents`: what is before `/./` is where the walk begins, the rest is a pattern below it.
    fn with_parents(&mut self, written: &str) -> Result<(), SelectError> {
        let (base, pattern) = written.split_once("/./").unwrap_or(("/", written));
        let pattern_bytes = clean(pattern.as_bytes());
        let pattern = String::from_utf8_lossy(&pattern_bytes).into_owned();
        let include = match pattern.is_empty() {
            true => None,
            false => Some(Include::parse(&pattern).map_err(|_| SelectError::NotFound(written.to_owned()))?),
        };
        let literal = !resolve::components(&pattern_bytes).any(is_pattern);
        self.include_matched = false;
        for (place, name, missing) in self.expand(base, &clean(base.as_bytes()))? {
            self.take(&place, &name, include.as_ref().map(|include| (pattern.as_str(), include)), missing)?;
        }
        if literal && include.is_some() && !self.include_matched {
            return Err(SelectError::NotFound(written.to_owned()));
        }
        Ok(())
    }

    /// Returns the places that a path or pattern leads to, each with its name as matched.
    fn expand<'w>(&mut self, written: &'w str, path: &[u8]) -> Result<Vec<(Place, Vec<u8>, Missing<'w>)>, SelectError> {
        let names: Vec<&[u8]> = resolve::components(path).collect();
        let Some(first) = names.iter().position(|n| is_pattern(n)) else {
            let name = names.last().map(|n| n.to_vec()).unwrap_or_default();
            return Ok(vec![(self.existing(path, written)?, name, Missing::Error(written))]);
        };
        let base = match self.resolve(&names[..first].join(&b'/')) {
            Ok(base) if base.missing.is_empty() && base.kind == Kind::Directory => base,
            Ok(_) | Err(SelectError::NotDirectory(_)) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let patterns: Vec<String> = names[first..].iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
        let mut hits = Vec::new();
        self.match_below(base.id, &base.path, &patterns, &mut hits)?;
        // As a build's context does: what is sent is what matches in the ignore file's language too.
        let sent = IgnoreRules::from_patterns([printable(path)]).ok().filter(|r| !r.has_negations());
        let mut out = Vec::new();
        for hit in hits {
            if sent.as_ref().is_some_and(|rules| !rules.is_ignored(&hit)) {
                continue;
            }
            let name = split(&hit).map(|(_, n)| n.to_vec()).unwrap_or_default();
            match self.existing(&hit, &printable(&hit)) {
                Err(SelectError::NotFound(_)) => {}
                place => out.push((place?, name, Missing::Nothing)),
            }
        }
        Ok(out)
    }

    /// Collects the paths below a directory whose names match `patterns` one by one, sorted; links aren't followed.
    fn match_below(&mut self, id: Oid, path: &[u8], patterns: &[String], hits: &mut Vec<Vec<u8>>) -> Result<(), SelectError> {
        let Some((pattern, rest)) = patterns.split_first() else { return Ok(()) };
        for item in &self.sums.objects.tree(id)?.items {
            if !path_match(pattern, &item.name).unwrap_or(false) {
                continue;
            }
            let below = resolve::join([path, &item.name].into_iter().filter(|p| !p.is_empty()));
            if rest.is_empty() {
                hits.push(below);
            } else if item.kind == Kind::Directory {
                self.match_below(item.id, &below, rest, hits)?;
            }
        }
        Ok(())
    }

    /// Resolves a path that must exist and, if it is or leads through a file, must not be hidden.
    fn existing(&mut self, path: &[u8], written: &str) -> Result<Place, SelectError> {
        let not_found = || SelectError::NotFound(written.to_owned());
        let place = match self.resolve(path) {
            Ok(place) => place,
            Err(SelectError::NotDirectory(_)) => return Err(not_found()),
            Err(e) => return Err(e),
        };
        if place.links.iter().any(|l| self.is_hidden_file(l)) {
            return Err(not_found());
        }
        let full = place.full_path();
        let there = place.missing.is_empty() && (place.is_directory() || !self.is_hidden_file(&full));
        match there {
            true => Ok(place),
            false if place.links.is_empty() => Err(not_found()),
            false => Err(SelectError::Dangling { path: written.to_owned(), target: printable(&full) }),
        }
    }

    /// Takes what lies at a place.
    fn take(&mut self, place: &Place, name: &[u8], include: Option<(&str, &Include)>, missing: Missing<'_>) -> Result<(), SelectError> {
        let exclude = (self.exclude.0, self.exclude.1.as_ref());
        let filter = self.sums.filter(self.tree.ignore.as_ref(), exclude, include, &place.path);
        let what = match place.kind {
            Kind::Directory => {
                let node = self.sums.directory(filter, place.id, &place.path)?;
                if !node.visible && self.is_hidden_file(&place.path) {
                    return match missing {
                        Missing::Error(written) => Err(SelectError::NotFound(written.to_owned())),
                        Missing::Nothing => Ok(()),
                    };
                }
                self.include_matched |= node.included;
                What::Directory { implied: false, content: node.content }
            }
            Kind::Submodule => What::Submodule(place.id),
            // A file takes part in no pattern below it.
            _ if include.is_some() => return Ok(()),
            Kind::File { executable } => What::File { executable, id: place.id },
            Kind::Link => What::Link(place.id),
        };
        self.found.push(Match { path: place.path.clone(), name: name.to_vec(), what, filter });
        Ok(())
    }

    /// Resolves a path, following every link, the last one too; `..` and absolute links stop at the root.
    fn resolve(&mut self, path: &[u8]) -> Result<Place, SelectError> {
        let objects = &mut self.sums.objects;
        // What was passed, the root first: the name and what it is.
        let mut steps: Vec<(Vec<u8>, Kind, Oid)> = Vec::new();
        let (mut missing, mut links) = (Vec::<Vec<u8>>::new(), Vec::new());
        let mut todo: Vec<Vec<u8>> = resolve::components(path).rev().map(<[u8]>::to_vec).collect();
        let below = |steps: &[(Vec<u8>, Kind, Oid)], name: &[u8]| {
            resolve::join(steps.iter().map(|s| s.0.as_slice()).chain([name]).filter(|n| !n.is_empty()))
        };
        while let Some(name) = todo.pop() {
            if name == b".." {
                if missing.pop().is_none() {
                    steps.pop();
                }
                continue;
            }
            let (kind, id) = steps.last().map_or((Kind::Directory, self.tree.root), |s| (s.1, s.2));
            if !missing.is_empty() || kind == Kind::Submodule {
                missing.push(name);
                continue;
            }
            if kind != Kind::Directory {
                return Err(SelectError::NotDirectory(printable(&below(&steps, b""))));
            }
            let Some(item) = objects.tree(id)?.find(&name).cloned() else {
                missing.push(name);
                continue;
            };
            if item.kind != Kind::Link {
                steps.push((name, item.kind, item.id));
                continue;
            }
            let target = objects.blob(item.id, TARGET_MAX_BYTES)?;
            links.push(below(&steps, &name));
            if links.len() > MAX_LINKS {
                return Err(SelectError::Loop(printable(path)));
            }
            if target.starts_with(b"/") {
                steps.clear();
            }
            todo.extend(resolve::components(&target).rev().map(<[u8]>::to_vec));
        }
        let (kind, id) = steps.last().map_or((Kind::Directory, self.tree.root), |s| (s.1, s.2));
        Ok(Place { path: below(&steps, b""), missing, links, kind, id })
    }

    /// Whether ignore rules hide the path itself; a hidden directory may still hold something visible.
    fn is_hidden_file(&self, path: &[u8]) -> bool {
        !path.is_empty() && self.tree.ignore.as_ref().is_some_and(|rules| rules.is_ignored(path))
    }
}
