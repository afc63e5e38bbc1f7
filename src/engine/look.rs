//! What files a node takes, as far as they are part of its key.
//!
//! Files are read as far as their digests need it; what a tree of the build itself holds is remembered by the tree's
//! state, so that a build in which nothing changed mounts nothing.

use serde::{Deserialize, Serialize};

use crate::address;
use crate::cache::derive::{self, Allowed, Found};
use crate::cache::files::{FileEntry, FileList, MAX_ENTRIES, Name};
use crate::cache::index::Index as _;
use crate::cache::key::{MatchInputs, MountInputs, SourceInputs, StepInputs};
use crate::context::{self, Hashing, Node, SelectedSource, Selection};
use crate::digest::ContentDigest;
use crate::graph::{CopyOp, CopySource, FileTree, Mount, MountKind, NodeId, RunOp};
use crate::store::MADE_AGAIN;

use super::copy;
use super::decide::{Decision, Effort};
use super::error::BuildError;
use super::plan::{self, Unknown};
use super::request::BuildRequest;
use super::session::Build;
use super::trees::Tree;

/// What is gathered on the way to a node's inputs.
pub(super) struct Look {
    pub effort: Effort,
    pub names: Vec<String>,
    pub mounted: Vec<Selection>,
    pub unknown: Vec<Unknown>,
}

impl Look {
    pub fn with(effort: Effort) -> Self {
        Self { effort, names: Vec::new(), mounted: Vec::new(), unknown: Vec::new() }
    }

    /// Takes what a URL's content is known to be, or marks it; none: the effort was not enough.
    fn or_placeholder(&mut self, content: Option<ContentDigest>, url: &str) -> Option<ContentDigest> {
        if content.is_none() && matches!(self.effort, Effort::Foresee(_)) {
            self.unknown.push(Unknown::Url(address::redact(url)));
            return Some(plan::placeholder(&("url", url)));
        }
        content
    }
}

/// What is remembered of a selection from a tree whose state is known.
#[derive(Serialize, Deserialize)]
struct Remembered {
    matches: Vec<(usize, Vec<MatchInputs>)>,
}

impl Build<'_> {
    pub fn run_inputs(&self, id: NodeId, op: &RunOp, look: &mut Look) -> Result<Option<StepInputs>, BuildError> {
        let mut mounts = Vec::new();
        for mount in &op.mounts {
            let Some(inputs) = self.mount_inputs(id, mount, look)? else { return Ok(None) };
            mounts.push(inputs);
        }
        let BuildRequest { shm_size_bytes, ulimits, add_hosts, .. } = self.request;
        Ok(Some(derive::run(op, mounts, Allowed { shm_size_bytes: *shm_size_bytes, ulimits, add_hosts })))
    }

    /// Whether a RUN's mounts of a context still show what its key says: a mount is the directory itself, and somebody may
    /// write to it while the command runs.
    pub fn mounts_are_as_keyed(&self, id: NodeId, op: &RunOp, decision: &Decision) -> bool {
        let of_context = |m: &Mount| match &m.kind {
            MountKind::Bind { from, .. } | MountKind::Cache { from: Some(from), .. } => matches!(from, FileTree::Context(_)),
            _ => false,
        };
        if !op.mounts.iter().any(of_context) {
            return true;
        }
        let now = self.run_inputs(id, op, &mut Look::with(Effort::Full));
        matches!(now, Ok(Some(now)) if now == decision.slot.inputs.step)
    }

    fn mount_inputs(&self, id: NodeId, mount: &Mount, look: &mut Look) -> Result<Option<MountInputs>, BuildError> {
        let content = match &mount.kind {
            MountKind::Bind { from, source } | MountKind::Cache { from: Some(from), source, .. } => {
                let Some(content) = self.mounted_content(id, from, source, look)? else { return Ok(None) };
                if matches!(mount.kind, MountKind::Bind { .. }) {
                    let of_context = matches!(from, FileTree::Context(_));
                    look.names.push(if of_context { source.trim_start_matches('/') } else { source.as_str() }.to_string());
                }
                Some(content)
            }
            _ => None,
        };
        Ok(Some(derive::mount(mount, content)))
    }

    /// The digest of what a mount shows.
    fn mounted_content(&self, id: NodeId, from: &FileTree, source: &str, look: &mut Look) -> Result<Option<ContentDigest>, BuildError> {
        let what = ("mount", source);
        let memory = self.memory_key(from, &what);
        if let Some(found) = self.remembered(id, from, memory.as_deref(), look.effort)? {
            return Ok(found.matches.first().and_then(|(_, m)| m.first()).map(|m| m.content));
        }
        match look.effort {
            Effort::Cheap if matches!(from, FileTree::Node(_)) => return Ok(None),
            Effort::Foresee(_) => {
                let unseen = self.unseen(from)?;
                if !unseen.is_empty() {
                    look.unknown.extend(unseen);
                    return Ok(Some(self.placeholder(from, &what)));
                }
            }
            Effort::Cheap | Effort::Full => {}
        }
        let selection = self.select_mount(id, from, source)?;
        let content = selection.sources.first().map_or_else(|| selection.digest(), SelectedSource::content);
        if matches!(look.effort, Effort::Foresee(_)) {
            look.mounted.push(selection);
            return Ok(Some(content));
        }
        self.keep_files(&selection)?;
        let matches = vec![(0, vec![MatchInputs { name: Name(Vec::new()), content }])];
        self.remember(id, memory.as_deref(), &Remembered { matches })?;
        Ok(Some(content))
    }

    /// Selects what a mount shows.
    pub fn select_mount(&self, id: NodeId, from: &FileTree, source: &str) -> Result<Selection, BuildError> {
        let tree = self.tree(id, from)?;
        let cache = self.inputs.stat_cache(from);
        let hashing = Hashing { cache, now: self.inputs.now };
        context::select_mount(tree.files(), source, hashing).map_err(|e| self.context_error(id, None, &e))
    }

    /// The files of a COPY as key inputs, and the selection itself when it was made.
    #[allow(clippy::type_complexity)] // an optional pair, used once
    pub fn copy_sources(
        &self,
        id: NodeId,
        op: &CopyOp,
        look: &mut Look,
    ) -> Result<Option<(Vec<SourceInputs>, Option<Selection>)>, BuildError> {
        // With their index: what is remembered speaks of it, and heredocs may stand between.
        let indexed = op.sources.iter().enumerate();
        let paths: Vec<(usize, &str)> =
            indexed.filter_map(|(i, s)| if let CopySource::Path(p, _) = s { Some((i, p.as_str())) } else { None }).collect();
        let what = ("copy", &paths, &op.exclude, op.parents);
        let memory = if paths.is_empty() { None } else { self.memory_key(&op.from, &what) };
        let foreseen = matches!(look.effort, Effort::Foresee(_));
        let unseen = if foreseen && !paths.is_empty() { self.unseen(&op.from)? } else { Vec::new() };
        let mut selection = None;
        let found = match self.remembered(id, &op.from, memory.as_deref(), look.effort)? {
            Some(found) => found,
            None if paths.is_empty() => Remembered { matches: Vec::new() },
            None if look.effort == Effort::Cheap && matches!(op.from, FileTree::Node(_)) => return Ok(None),
            None if !unseen.is_empty() => {
                look.unknown.extend(unseen);
                let matches = vec![MatchInputs { name: Name(Vec::new()), content: self.placeholder(&op.from, &what) }];
                Remembered { matches: paths.iter().map(|(index, _)| (*index, matches.clone())).collect() }
            }
            None => {
                let made = self.select(id, op)?;
                let found = Remembered { matches: matches_of(op, &made) };
                if !foreseen {
                    // A context's are kept when they are needed, on a miss: every build would write them else.
                    if matches!(op.from, FileTree::Node(_)) {
                        self.keep_files(&made)?;
                    }
                    self.remember(id, memory.as_deref(), &found)?;
                }
                selection = Some(made);
                found
            }
        };
        let mut sources = Vec::new();
        for (index, source) in op.sources.iter().enumerate() {
            let led_to = match source {
                CopySource::Path(..) => {
                    let matches = found.matches.iter().find(|(i, _)| *i == index).map(|(_, m)| m.clone());
                    Found::Paths(matches.unwrap_or_default())
                }
                CopySource::Inline(..) => Found::Inline,
                CopySource::Http(url, span) => {
                    let checksum = op.add.as_ref().and_then(|a| a.checksum.as_ref());
                    let content = self.inputs.remotes.url_content(url, checksum, look.effort.asks()).map_err(|e| self.placed(*span, e))?;
                    let Some(content) = look.or_placeholder(content, url) else { return Ok(None) };
                    Found::Remote(content)
                }
                CopySource::Git(address, span) => {
                    let content = self.inputs.remotes.git_content(address, look.effort.asks()).map_err(|e| self.placed(*span, e))?;
                    let Some(content) = look.or_placeholder(content, &address.text) else { return Ok(None) };
                    Found::Remote(content)
                }
            };
            look.names.push(address::redact(source.text()));
            sources.push(derive::source(op, source, led_to));
        }
        Ok(Some((sources, selection)))
    }

    /// Selects what a COPY takes.
    pub fn select(&self, id: NodeId, op: &CopyOp) -> Result<Selection, BuildError> {
        let tree = self.tree(id, &op.from)?;
        let hashing = Hashing { cache: self.inputs.stat_cache(&op.from), now: self.inputs.now };
        copy::select(op, tree.files(), hashing).map_err(|e| self.context_error(id, Some((op, e.index)), &e.cause))
    }

    /// The key under which a selection from a tree of the build is remembered; none for contexts, which change.
    fn memory_key(&self, from: &FileTree, what: &impl Serialize) -> Option<String> {
        let FileTree::Node(node) = from else { return None };
        let mut h = blake3::Hasher::new_derive_key("plywood remembered selection, v2");
        h.update(self.result(*node).chain.state().as_bytes());
        h.update(&serde_json::to_vec(what).expect("strings and flags are serialisable"));
        Some(h.finalize().to_hex().to_string())
    }

    fn remembered(&self, id: NodeId, from: &FileTree, key: Option<&str>, effort: Effort) -> Result<Option<Remembered>, BuildError> {
        let Some(key) = key else { return Ok(None) };
        let bytes = self.engine.store.load_blob_row(MADE_AGAIN, key).map_err(|e| BuildError::caused("asking the cache", &e))?;
        // Not kept here: it is another machine's word, asked for while the tree itself is not at hand.
        let bytes = match bytes {
            None if effort != Effort::Cheap => self.selection_elsewhere(from, key)?,
            known => known,
        };
        let found = bytes.as_deref().and_then(|b| serde_json::from_slice(b).ok());
        if let Some(bytes) = bytes.filter(|_| found.is_some()) {
            self.sharing.send_selection(self, id, key, &bytes);
        }
        Ok(found)
    }

    fn remember(&self, id: NodeId, key: Option<&str>, what: &Remembered) -> Result<(), BuildError> {
        let Some(key) = key else { return Ok(()) };
        let bytes = serde_json::to_vec(what).expect("digests and names are serialisable");
        self.sharing.send_selection(self, id, key, &bytes);
        self.engine.store.save_blob_row(MADE_AGAIN, key, &bytes).map_err(|e| BuildError::caused("writing the cache", &e))
    }

    /// Keeps the lists of files, so that a later miss can name the file that changed.
    pub fn keep_files(&self, selection: &Selection) -> Result<(), BuildError> {
        selection.sources.iter().try_for_each(|source| self.keep_list(source, &source.content()))
    }

    /// As [`Build::keep_files`], of trees whose list is not kept yet.
    pub fn keep_missing_files(&self, selection: &Selection) -> Result<(), BuildError> {
        for source in selection.sources.iter().filter(|s| s.entries.len() <= MAX_ENTRIES) {
            let content = source.content();
            if !self.engine.store.has_files(&content).map_err(|e| BuildError::caused("asking the cache", &e))? {
                self.keep_list(source, &content)?;
            }
        }
        Ok(())
    }

    fn keep_list(&self, source: &SelectedSource, content: &ContentDigest) -> Result<(), BuildError> {
        if source.entries.len() > MAX_ENTRIES {
            return Ok(());
        }
        self.engine.store.save_files(content, &list_of(source)).map_err(|e| BuildError::caused("writing the cache", &e))
    }

    /// Returns why a tree's files can't be looked at without making or fetching anything; nothing: they can.
    pub fn unseen(&self, from: &FileTree) -> Result<Vec<Unknown>, BuildError> {
        match from {
            FileTree::Context(name) => {
                Ok(self.inputs.unopened(name.as_deref()).map(|url| Unknown::Url(address::redact(url))).into_iter().collect())
            }
            FileTree::Node(node) => self.unmade(&self.result(*node).chain),
        }
    }

    /// Returns what stands for the digest of files that nobody has seen.
    fn placeholder(&self, from: &FileTree, what: &impl Serialize) -> ContentDigest {
        match from {
            FileTree::Context(name) => plan::placeholder(&(name, what)),
            FileTree::Node(node) => plan::placeholder(&(self.result(*node).chain.state(), what)),
        }
    }

    /// Returns the tree that a step reads.
    pub fn tree(&self, id: NodeId, from: &FileTree) -> Result<Tree, BuildError> {
        match from {
            FileTree::Context(name) => self.inputs.context_tree(name.as_deref()).map(Tree::context).ok_or_else(|| {
                self.at(id, "there are no files to copy from")
                    .hint("the Dockerfile came on standard input: give a context directory with `-f -`")
            }),
            FileTree::Node(node) => self.mounted(*node),
        }
    }
}

fn matches_of(op: &CopyOp, selection: &Selection) -> Vec<(usize, Vec<MatchInputs>)> {
    let mut out: Vec<(usize, Vec<MatchInputs>)> = Vec::new();
    for source in &selection.sources {
        let found = derive::matched(op, source.directory, &source.name, source.content());
        match out.last_mut().filter(|(i, _)| *i == source.source) {
            Some((_, matches)) => matches.push(found),
            None => out.push((source.source, vec![found])),
        }
    }
    out
}

/// Lists a source's files, so that a later miss can name the one that changed.
pub(super) fn list_of(source: &SelectedSource) -> FileList {
    FileList::of(source.entries.iter().map(|e| {
        let mode = e.mode | type_bits(e.node.kind());
        let (content, link) = match &e.node {
            Node::Directory => (None, &b""[..]),
            Node::File(digest) => (Some(*digest), &b""[..]),
            Node::Symlink(target) => (None, target.as_slice()),
            Node::Special(_, (major, minor)) => {
                let numbers = [major.to_le_bytes(), minor.to_le_bytes()].concat();
                (Some(ContentDigest::from_bytes(*blake3::hash(&numbers).as_bytes())), &b""[..])
            }
        };
        let (xattrs, hard_linked, implied) = (e.xattrs.as_slice(), e.hard_link.is_some(), e.implied);
        (e.path.as_slice(), FileEntry { mode, uid: e.uid, gid: e.gid, content, link, xattrs, hard_linked, implied })
    }))
}

fn type_bits(kind: &str) -> u32 {
    match kind {
        "directory" => 0o040_000,
        "symlink" => 0o120_000,
        "fifo" => 0o010_000,
        "char device" => 0o020_000,
        "block device" => 0o060_000,
        "socket" => 0o140_000,
        _ => 0o100_000,
    }
}
