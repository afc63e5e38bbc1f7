//! Git repositories, by the host's `git`: refs resolved, commits fetched, trees checked out.
//!
//! | file | holds |
//! |---|---|
//! | this | [`Git`], and [`Git::resolve`]: which commit an address means |
//! | `command` | git run in an environment of ours: no configuration of the host, an allow-list of protocols, no prompts |
//! | `fetch` | a commit into the shared bare repository of its remote |
//! | `checkout` | a commit's tree into a directory of its own, modes and times settled, `.git` when asked for |
//! | `submodule` | what a tree's submodules are, resolved and fetched as any other repository |
//!
//! The semantics of refs are BuildKit's. What a newcomer would get wrong: an address pinned to a commit is never looked up
//! (`ls-remote`), and a commit that was fetched once never fetched again. `git submodule`, the most attacked part of git, is
//! not used: its work is a list of paths, addresses and commits, each checked here.

mod checkout;
mod command;
mod fetch;
mod submodule;

use std::path::PathBuf;

pub use checkout::{CheckedOut, Checkout};

use super::{RemoteError, Result};
use crate::address::{GitAddress, is_commit};
use crate::registry::RegistryConfig;
use crate::store::{GiveUp, Store};
use command::{Place, Runner};

/// How git reaches other hosts.
#[derive(Debug, Clone, Default)]
pub struct GitAccess {
    /// Where programs are looked for, git and ssh among them: PATH's absolute directories.
    pub program_dirs: Vec<PathBuf>,
    /// Proxies and certificates.
    pub network: RegistryConfig,
    /// The agent that `ssh` asks, `--ssh default`.
    pub ssh_agent: Option<PathBuf>,
    /// Keys given instead of an agent.
    pub ssh_keys: Vec<PathBuf>,
    /// Hosts that are known by their keys, besides those noted in the store.
    pub known_hosts: Option<PathBuf>,
    /// `Authorization` for the repository that is asked for, and others of its scheme and host.
    pub authorization: Option<String>,
}

/// Fetches from git repositories.
pub struct Git<'a> {
    /// Where repositories are kept.
    pub store: &'a Store,
    /// How others are reached.
    pub access: &'a GitAccess,
    /// Whether to end.
    pub give_up: GiveUp<'a>,
}

/// What an address means now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// What is fetched: a commit, or the tag object that points to it.
    pub object: String,
    /// The commit, as far as it is known before it is fetched: else `object`.
    pub commit: String,
    /// The full ref that led there; none: the address names a commit.
    pub reference: Option<String>,
}

impl Git<'_> {
    /// Finds the commit that an address means, and checks it against the address's checksum.
    ///
    /// Asks the remote, unless the address names a commit.
    pub fn resolve(&self, address: &GitAddress) -> Result<Commit> {
        let wanted = address.checksum.as_deref();
        let reference = address.reference.as_deref();
        if let Some(commit) = reference.filter(|r| is_commit(r)) {
            let found = Commit { object: commit.into(), commit: commit.into(), reference: None };
            return found.checked(address);
        }
        if address.fetch_by_commit {
            let commit = wanted.filter(|c| is_commit(c)).ok_or_else(|| RemoteError::FetchByCommit { remote: address.shown() })?;
            // A name without `refs/` is a branch's.
            let full = reference.map(|r| if r.starts_with("refs/") { r.to_string() } else { format!("refs/heads/{r}") });
            return Ok(Commit { object: commit.into(), commit: commit.into(), reference: full });
        }
        let runner = Runner::new(self, address)?;
        match reference {
            None => self.default_branch(&runner, address)?.checked(address),
            Some(reference) => self.look_up(&runner, address, reference)?.checked(address),
        }
    }

    fn default_branch(&self, runner: &Runner<'_>, address: &GitAddress) -> Result<Commit> {
        let listed = self.ls_remote(runner, &["ls-remote", "--symref", "origin", "HEAD"])?;
        let none = || RemoteError::NoDefaultBranch { remote: address.shown() };
        let head = listed.iter().find(|(object, name)| name == "HEAD" && is_commit(object)).ok_or_else(none)?;
        let branch = listed.iter().filter(|(_, name)| name == "HEAD").find_map(|(object, _)| object.strip_prefix("ref: "));
        let reference = branch.filter(|b| b.starts_with("refs/")).map(str::to_string);
        Ok(Commit { object: head.0.clone(), commit: head.0.clone(), reference })
    }

    /// As git does: a full name, then a branch, then a tag.
    fn look_up(&self, runner: &Runner<'_>, address: &GitAddress, reference: &str) -> Result<Commit> {
        let peeled = format!("{reference}^{{}}");
        let listed = self.ls_remote(runner, &["ls-remote", "origin", reference, &peeled])?;
        let find = |name: &str| listed.iter().find(|(_, n)| n == name).map(|(object, _)| object.clone());
        let under = |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference));
        let tag = under("refs/tags/");
        for name in [under("refs/"), under("refs/heads/")] {
            if let Some(object) = find(&name) {
                // A full name of an annotated tag, too, points to a commit in the end.
                let commit = find(&format!("{name}^{{}}")).unwrap_or_else(|| object.clone());
                return Ok(Commit { commit, object, reference: Some(name) });
            }
        }
        let object = find(&tag).ok_or_else(|| RemoteError::NoRef { remote: address.shown(), reference: reference.into() })?;
        let commit = find(&format!("{tag}^{{}}")).unwrap_or_else(|| object.clone());
        Ok(Commit { object, commit, reference: Some(tag) })
    }

    /// Returns the lines of a listing: object and name.
    fn ls_remote(&self, runner: &Runner<'_>, args: &[&str]) -> Result<Vec<(String, String)>> {
        let staging = self.store.stage()?;
        let listing = runner.run("listing the refs of", args, &Place::nowhere(staging.path()))?;
        let text = String::from_utf8_lossy(&listing);
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(lines.filter(|(o, _)| is_commit(o) || o.starts_with("ref: ")).map(|(o, n)| (o.to_string(), n.to_string())).collect())
    }
}

impl Commit {
    fn checked(self, address: &GitAddress) -> Result<Self> {
        let Some(expected) = address.checksum.as_deref() else { return Ok(self) };
        if self.object.starts_with(expected) || self.commit.starts_with(expected) {
            return Ok(self);
        }
        let found = if self.object == self.commit { self.object } else { format!("{} or {}", self.object, self.commit) };
        Err(RemoteError::Commit { remote: address.shown(), expected: expected.into(), found })
    }
}
