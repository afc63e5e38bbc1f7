//! Finds what the sources of a COPY, an ADD or a mount lead to.
//!
//! BuildKit's rules, which differ from a shell's: a path is cleaned by its text and clamped at the root; a
//! pattern is matched a component at a time, without following links on the way, and may match nothing; a
//! source that is a link is followed inside the tree and keeps the link's name; a directory gives what it
//! holds. A literal source that is missing is an error. What `.dockerignore` hides does not exist.

use std::os::fd::{AsFd, BorrowedFd};

use crate::path::{self, FileKind, clean, printable};

use super::error::{ContextError, SelectError};
use super::filter::Include;
use super::hash::{self, Hashing};
use super::resolve::{self, Place, ResolveError};
use super::scan;
use super::selection::{Entry, Node, SelectedSource, Selection};
use super::tree::{SourceTree, list};
use super::walk::{self, Walk};
use crate::dockerfile::ignore::{IgnoreRules, path_match};
use crate::dockerfile::suggest;

/// Of two names shorter than this, two edits make another word.
const SHORT_NAME: usize = 6;

/// What is asked of a tree.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Paths and patterns, each with its index among the step's sources.
    pub paths: Vec<(usize, &'a str)>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, relative to each source directory.
    pub exclude: &'a [String],
}

/// Resolves all sources against the tree and digests what they lead to.
///
/// Only directories that a source asks for are walked. Nothing is written.
pub fn select(tree: &SourceTree, wanted: &Wanted<'_>, hashing: Hashing<'_>) -> Result<Selection, SelectError> {
    let first = wanted.paths.first().map_or(0, |(i, _)| *i);
    let exclude = match wanted.exclude {
        [] => None,
        patterns => Some(
            IgnoreRules::from_patterns(patterns)
                .map_err(|source| SelectError { index: first, cause: ContextError::Pattern { pattern: patterns.join("`, `"), source } })?,
        ),
    };
    let mut finder = Finder { tree, exclude: exclude.as_ref(), index: 0, found: Vec::new(), include_matched: false };
    for (index, written) in &wanted.paths {
        finder.index = *index;
        let outcome = if wanted.parents { finder.with_parents(written) } else { finder.plain(written) };
        outcome.map_err(|cause| SelectError { index: *index, cause })?;
    }
    let mut sources = finder.found;
    hash::fill(tree, &mut sources, hashing)?;
    Ok(Selection { sources })
}

/// Resolves one path and digests all that is there, the directory's own metadata included: a mount's source.
pub fn select_mount(tree: &SourceTree, source: &str, hashing: Hashing<'_>) -> Result<Selection, ContextError> {
    let mut finder = Finder { tree, exclude: None, index: 0, found: Vec::new(), include_matched: false };
    let place = finder.existing(&clean(source.as_bytes()), source)?;
    finder.take(&place, b"", None, Missing::Error(source))?;
    for s in finder.found.iter_mut().filter(|s| s.directory) {
        let (meta, xattrs) = tree.meta(place.fd(tree.root()), b"").map_err(|e| ContextError::io("examining", &s.path, e))?;
        let xattrs = xattrs.unwrap_or_default();
        let root = Entry { xattrs, settled: true, ..walk::entry(tree, b"", &meta, Node::Directory) };
        for e in &mut s.entries {
            e.hard_link = e.hard_link.map(|i| i + 1);
        }
        s.entries.insert(0, root);
    }
    let mut sources = finder.found;
    hash::fill(tree, &mut sources, hashing).map_err(|e| e.cause)?;
    Ok(Selection { sources })
}

struct Finder<'a> {
    tree: &'a SourceTree,
    exclude: Option<&'a IgnoreRules>,
    index: usize,
    found: Vec<SelectedSource>,
    /// Whether the current `--parents` pattern matched anything, also something that `--exclude` then took away.
    include_matched: bool,
}

/// What it means when a path turns out to be hidden or to hold nothing that was asked for.
#[derive(Clone, Copy)]
enum Missing<'a> {
    /// The source was written so.
    Error(&'a str),
    /// A pattern led there.
    Nothing,
}

impl Finder<'_> {
    /// A source without `--parents`.
    fn plain(&mut self, written: &str) -> Result<(), ContextError> {
        let path = clean(written.as_bytes());
        for (place, name, missing) in self.expand(written, &path)? {
            self.take(&place, &name, None, missing)?;
        }
        Ok(())
    }

    /// A source with `--parents`: what is before `/./` is where the walk begins, the rest is a pattern below it.
    fn with_parents(&mut self, written: &str) -> Result<(), ContextError> {
        let (base, pattern) = written.split_once("/./").unwrap_or(("/", written));
        let pattern_bytes = clean(pattern.as_bytes());
        let pattern = String::from_utf8_lossy(&pattern_bytes).into_owned();
        let include = if pattern.is_empty() { None } else { Some(Include::parse(&pattern)?) };
        let literal = !resolve::components(&pattern_bytes).any(is_pattern);
        self.include_matched = false;
        for (place, name, missing) in self.expand(base, &clean(base.as_bytes()))? {
            self.take(&place, &name, include.as_ref(), missing)?;
        }
        if literal && include.is_some() && !self.include_matched {
            let below = clean(format!("{base}/{pattern}").as_bytes());
            return Err(self.not_found(written, &below));
        }
        Ok(())
    }

    /// Returns the places that a path or pattern leads to, each with its name as matched.
    fn expand<'w>(&self, written: &'w str, path: &[u8]) -> Result<Vec<(Place, Vec<u8>, Missing<'w>)>, ContextError> {
        let names: Vec<&[u8]> = resolve::components(path).collect();
        let Some(first) = names.iter().position(|n| is_pattern(n)) else {
            let name = names.last().map(|n| n.to_vec()).unwrap_or_default();
            return Ok(vec![(self.existing(path, written)?, name, Missing::Error(written))]);
        };
        let base = match resolve::resolve(self.tree.root(), &names[..first].join(&b'/')) {
            Ok(base) if base.missing.is_empty() && base.is_directory() => base,
            Ok(_) | Err(ResolveError::NotDirectory { .. }) => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        let patterns: Vec<String> = names[first..].iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect();
        let mut hits = Vec::new();
        let io = |e| ContextError::io("opening directory", &base.path(), e);
        let dir = resolve::open_directory(self.tree.root(), &base.path()).map_err(io)?;
        match_below(dir.as_fd(), &base.path(), &patterns, &mut hits)?;
        // BuildKit's client sends what matches the pattern in the ignore file's language, and that reads `[*]` as
        // a star in brackets: `COPY star[*]name` copies nothing there.
        let sent = IgnoreRules::from_patterns([printable(path)]).ok().filter(|r| self.tree.is_local() && !r.has_negations());
        let mut out = Vec::new();
        for hit in hits {
            if sent.as_ref().is_some_and(|rules| !rules.is_ignored(&hit)) {
                continue;
            }
            let name = path::split(&hit).map(|(_, n)| n.to_vec()).unwrap_or_default();
            match self.existing(&hit, &printable(&hit)) {
                // Hidden, or gone meanwhile.
                Err(ContextError::NotFound { .. }) => {}
                place => out.push((place?, name, Missing::Nothing)),
            }
        }
        Ok(out)
    }

    /// Resolves a path that must exist and, if it is or leads through a file, must not be hidden.
    fn existing(&self, path: &[u8], written: &str) -> Result<Place, ContextError> {
        let place = match resolve::resolve(self.tree.root(), path) {
            Ok(place) => place,
            Err(ResolveError::NotDirectory { .. }) => return Err(self.not_found(written, path)),
            Err(e) => return Err(e.into()),
        };
        if let Some(link) = place.links.iter().find(|l| self.is_hidden_file(l)) {
            return Err(self.not_found(written, link));
        }
        let full = place.full_path();
        let there = place.missing.is_empty() && (place.is_directory() || !self.is_hidden_file(&full));
        match there {
            true => Ok(place),
            false if place.links.is_empty() => Err(self.not_found(written, &full)),
            false => Err(ContextError::Dangling {
                path: written.to_owned(),
                target: printable(&full),
                tree: self.tree.name().to_owned(),
                ignored_by: self.tree.ignored_by(&full),
            }),
        }
    }

    /// Takes what lies at a place.
    fn take(&mut self, place: &Place, name: &[u8], include: Option<&Include>, missing: Missing<'_>) -> Result<(), ContextError> {
        let tree = self.tree;
        let path = place.path();
        let io = |e| ContextError::io("examining", &path, e);
        let (meta, xattrs) = tree.meta(place.fd(tree.root()), b"").map_err(io)?;
        let directory = meta.kind == FileKind::Directory;
        let mut source = SelectedSource {
            source: self.index,
            path: path.clone(),
            name: name.to_vec(),
            directory,
            mtime: meta.mtime,
            as_is: tree.owner(&meta) == (meta.uid, meta.gid),
            entries: Vec::new(),
        };
        if directory {
            let mut walk = Walk::new(tree, include, self.exclude);
            let opened =
                resolve::open_directory_at(place.fd(tree.root()), b".").map_err(|e| ContextError::io("opening directory", &path, e))?;
            walk.run(opened.as_fd(), &path)?;
            if !walk.anything_visible && self.is_hidden_file(&path) {
                return match missing {
                    Missing::Error(written) => Err(self.not_found(written, &path)),
                    Missing::Nothing => Ok(()),
                };
            }
            self.include_matched |= walk.include_matched;
            source.as_is &= walk.as_is;
            source.entries = walk.entries;
        } else if include.is_none() {
            let node = scan::node_of(place.fd(tree.root()), b"", &meta, true).map_err(io)?;
            let (xattrs, settled) = (xattrs.unwrap_or_default(), meta.kind != FileKind::File);
            source.entries.push(Entry { xattrs, settled, ..walk::entry(tree, &[], &meta, node) });
        }
        self.found.push(source);
        Ok(())
    }

    /// Whether ignore rules hide the path itself; a hidden directory may still hold something visible.
    fn is_hidden_file(&self, path: &[u8]) -> bool {
        !path.is_empty() && self.tree.ignore().is_some_and(|rules| rules.is_ignored(path))
    }

    fn not_found(&self, written: &str, path: &[u8]) -> ContextError {
        let ignored_by = self.tree.ignored_by(path);
        let near = if ignored_by.is_none() { self.near(path) } else { None };
        ContextError::NotFound { path: written.to_owned(), tree: self.tree.name().to_owned(), ignored_by, near }
    }

    /// Returns what stands where `path` should and has nearly its name.
    fn near(&self, path: &[u8]) -> Option<Box<str>> {
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        let dir = resolve::open_directory(self.tree.root(), parent).ok()?;
        let names: Vec<String> = list(dir.as_fd()).ok()?.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
        let seen = |name: &&str| !self.is_hidden_file(&resolve::join([parent, name.as_bytes()].into_iter().filter(|p| !p.is_empty())));
        let limit = if name.len() < SHORT_NAME { 2 } else { 3 };
        let near = suggest::nearest_within(std::str::from_utf8(name).ok()?, names.iter().map(String::as_str).filter(seen), limit)?;
        Some(resolve::join([parent, near.as_bytes()].into_iter().filter(|p| !p.is_empty())).escape_ascii().to_string().into_boxed_str())
    }
}

/// Whether a path's component is a pattern: a backslash hides the byte after it, and alone makes none.
pub fn is_pattern(component: &[u8]) -> bool {
    let mut bytes = component.iter();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Collects the paths below `dir` whose names match `patterns` one by one, sorted; links aren't followed.
fn match_below(dir: BorrowedFd<'_>, path: &[u8], patterns: &[String], hits: &mut Vec<Vec<u8>>) -> Result<(), ContextError> {
    let Some((pattern, rest)) = patterns.split_first() else { return Ok(()) };
    for name in list(dir).map_err(|e| ContextError::path(path, e))? {
        // BuildKit drops a pattern's syntax error here: such a pattern matches nothing.
        if !path_match(pattern, &name).unwrap_or(false) {
            continue;
        }
        let below = resolve::join([path, &name].into_iter().filter(|p| !p.is_empty()));
        if rest.is_empty() {
            hits.push(below);
        } else if let Ok(opened) = resolve::open_directory_at(dir, &name) {
            match_below(opened.as_fd(), &below, rest, hits)?;
        }
    }
    Ok(())
}
