//! Fetches commits into the bare repository that all builds share for a remote.
//!
//! A commit is whole when `refs/plywood/<object>` stands: git sets a ref only when all that it needs is there, while a
//! single object may be what an interrupted fetch left. Fetched is as little as the server allows: the ref or the commit
//! without its past, else everything. git syncs packs only, so all is synced before the ref is set.

use std::path::Path;

use super::command::{Place, Runner};
use super::{Commit, Git};
use crate::address::{GitAddress, Parts};
use crate::path::{Root, read_dir, remove_contents, remove_tree};
use crate::remote::{RemoteError, Result};
use crate::store::Repository;

/// Words by which git tells that a repository of ours is no good any more.
const DAMAGED: [&str; 8] = [
    "corrupt",
    "bad object",
    "not a git repository",
    "unable to read",
    "loose object",
    "would clobber existing tag",
    "unable to update local ref",
    "missing blob",
];

/// A remote's repository, ours alone for the moment.
pub(super) struct Fetched {
    pub repository: Repository,
}

impl Git<'_> {
    /// Opens the repository of a remote, and makes sure that the commit is in it.
    pub(super) fn fetched(&self, runner: &Runner<'_>, address: &GitAddress, commit: &Commit) -> Result<Fetched> {
        let format = if commit.object.len() == 64 { "sha256" } else { "sha1" };
        let id = format!("{}{}", identity(address), if format == "sha256" { " (sha256)" } else { "" });
        let opened = self.store.open_repository(&id, self.give_up, |dir| init(runner, dir, format))?;
        let repository = opened.ok_or(RemoteError::Cancelled)?;
        remove_leftovers(repository.path());
        match self.fetch(runner, repository.path(), commit) {
            Err(RemoteError::Git { said, .. }) if DAMAGED.iter().any(|word| said.contains(word)) || is_torn(repository.path()) => {
                self.begin_anew(runner, repository.path(), format)?;
                self.fetch(runner, repository.path(), commit)?;
            }
            other => other?,
        }
        Ok(Fetched { repository })
    }

    fn begin_anew(&self, runner: &Runner<'_>, dir: &Path, format: &str) -> Result<()> {
        let failed = |source: std::io::Error| RemoteError::Checkout { doing: "emptying", remote: runner.remote.clone(), source };
        let root = Root::open(dir).map_err(|e| failed(std::io::Error::other(e)))?;
        remove_contents(&root).map_err(|e| failed(std::io::Error::other(e)))?;
        init(runner, dir, format)
    }

    fn fetch(&self, runner: &Runner<'_>, dir: &Path, commit: &Commit) -> Result<()> {
        let place = Place::repository(dir);
        let marker = marker(&commit.object);
        if self.object_of(runner, dir, &marker).as_deref() == Some(&commit.object) {
            return Ok(());
        }
        let mut last = None;
        // The ref as the server offers it, then the object itself, which not all servers give.
        for source in commit.reference.iter().chain([&commit.object]) {
            let spec = format!("+{source}:refs/plywood/incoming");
            match self.fetch_shallow(runner, &place, &spec) {
                Ok(()) if self.object_of(runner, dir, "refs/plywood/incoming").as_deref() == Some(&commit.object) => {
                    return self.mark(runner, dir, &marker, commit);
                }
                Ok(()) => {}
                Err(e @ RemoteError::Git { .. }) => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        let mut args = vec!["fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head"];
        if dir.join("shallow").exists() {
            args.push("--unshallow");
        }
        args.extend(["origin", "+refs/heads/*:refs/plywood/heads/*", "+refs/tags/*:refs/plywood/tags/*"]);
        // Of two failures the first one speaks of what was asked for.
        runner.run("fetching", &args, &place).map_err(|e| last.filter(|_| !matches!(e, RemoteError::Cancelled)).unwrap_or(e))?;
        let exists = runner.run("looking at", &["cat-file", "-e", &commit.object], &place);
        exists.map_err(|_| RemoteError::NoCommit { remote: runner.remote.clone(), commit: commit.object.clone() })?;
        self.mark(runner, dir, &marker, commit)
    }

    fn fetch_shallow(&self, runner: &Runner<'_>, place: &Place<'_>, spec: &str) -> Result<()> {
        let args = ["fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--depth=1", "origin", spec];
        match runner.run("fetching", &args, place) {
            // Servers of plain files know no depth.
            Err(RemoteError::Git { said, .. }) if said.contains("shallow") || said.contains("--depth") => {
                let whole: Vec<&str> = args.into_iter().filter(|a| *a != "--depth=1").collect();
                runner.run("fetching", &whole, place).map(drop)
            }
            other => other.map(drop),
        }
    }

    fn mark(&self, runner: &Runner<'_>, dir: &Path, marker: &str, commit: &Commit) -> Result<()> {
        self.store.sync_files()?;
        runner.run("noting", &["update-ref", marker, &commit.object], &Place::repository(dir)).map(drop)
    }

    /// Returns the object that a ref of ours points to; none: there is no such ref.
    fn object_of(&self, runner: &Runner<'_>, dir: &Path, name: &str) -> Option<String> {
        let found = runner.run("looking at", &["rev-parse", "--verify", "--quiet", name], &Place::repository(dir)).ok()?;
        Some(String::from_utf8_lossy(&found).trim().to_string())
    }
}

/// Returns the ref that says that an object is here, whole.
pub(super) fn marker(object: &str) -> String {
    format!("refs/plywood/{object}")
}

/// Returns what a repository is known by: its address without credentials; ssh's user is part of it.
fn identity(address: &GitAddress) -> String {
    match Parts::of(&address.remote) {
        Some(p) if p.scheme != "ssh" => format!("{}://{}{}", p.scheme, p.authority, p.path),
        _ => address.shown(),
    }
}

fn init(runner: &Runner<'_>, dir: &Path, format: &str) -> Result<()> {
    let format = format!("--object-format={format}");
    runner.run("making a repository for", &["init", "--quiet", "--bare", "--template=", &format], &Place::repository(dir)).map(drop)
}

/// Returns whether files lost their bytes, as by a power cut during a fetch: git makes none without any.
fn is_torn(dir: &Path) -> bool {
    let mut below = vec![dir.join("objects"), dir.join("refs")];
    let single = ["HEAD", "config", "packed-refs", "shallow"].map(|name| dir.join(name));
    let is_empty = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_file() && m.len() == 0);
    if single.iter().any(|path| is_empty(path)) {
        return true;
    }
    while let Some(dir) = below.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => below.push(entry.path()),
                _ if is_empty(&entry.path()) => return true,
                _ => {}
            }
        }
    }
    false
}

/// Removes what a git that was killed leaves: locks that nobody holds, since the repository is ours alone, and half packs.
fn remove_leftovers(dir: &Path) {
    for (below, unfinished) in [("", ".lock"), ("refs/plywood", ".lock"), ("objects/pack", "")] {
        let Ok(root) = Root::open(&dir.join(below)) else { continue };
        for entry in read_dir(&root).unwrap_or_default() {
            let name = entry.name.to_bytes();
            let stale = if unfinished.is_empty() { name.starts_with(b"tmp_") } else { name.ends_with(unfinished.as_bytes()) };
            if stale {
                // What resists stays in the way of git, which then says so.
                let _ = remove_tree(&root, name);
            }
        }
    }
}
