//! Checks a commit's tree out into a directory of its own.
//!
//! Modes do not depend on the umask: 0644, 0755 where git says executable, 0755 for directories. Times are now, as git
//! leaves them, or the commit's. With `.git` the result is a shallow clone with a detached HEAD, its index without the
//! marks of this checkout, so that two checkouts are alike.
//!
//! What a newcomer would get wrong: git itself refuses `.git` and the like as names in a tree (`read-tree`), also in
//! repositories that came without a check; a subdirectory is opened without following links.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::command::{Place, Runner};
use super::fetch::marker;
use super::{Commit, Git};
use crate::address::{CheckoutTime, GitAddress};
use crate::path::{self, Root, Time};
use crate::remote::{RemoteError, Result};
use crate::store::Staging;

/// How a commit is checked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkout {
    /// `.git` is part of the result.
    pub keep_git_dir: bool,
    /// Submodules are, too.
    pub submodules: bool,
    /// What time files get.
    pub time: CheckoutTime,
}

/// A checkout; its files go when this is dropped.
#[derive(Debug)]
pub struct CheckedOut {
    /// The directory that was asked for.
    pub directory: PathBuf,
    /// When the commit was made, in unix seconds.
    pub committed_secs: i64,
    _staging: Staging,
}

impl Git<'_> {
    /// Returns when a commit was made, in unix seconds; fetches it where that is needed.
    pub fn commit_time(&self, address: &GitAddress, commit: &Commit) -> Result<i64> {
        let runner = Runner::new(self, address)?;
        let fetched = self.fetched(&runner, address, commit)?;
        committed_secs(&runner, fetched.repository.path(), &commit.object)
    }

    /// Checks a commit out, fetching what is not here yet.
    pub fn checkout(&self, address: &GitAddress, commit: &Commit, how: &Checkout) -> Result<CheckedOut> {
        let staging = self.store.stage()?;
        let tree = staging.path().join("tree");
        let failed = |doing, source| RemoteError::Checkout { doing, remote: address.shown(), source };
        std::fs::DirBuilder::new().mode(0o755).create(&tree).map_err(|e| failed("making", e))?;
        let runner = Runner::new(self, address)?;
        let committed_secs = {
            let fetched = self.fetched(&runner, address, commit)?;
            let repository = fetched.repository.path();
            read_tree(&runner, repository, &commit.object, &tree, staging.path())?;
            if how.keep_git_dir && address.subdir.is_empty() {
                keep_git_dir(&runner, repository, address, commit, &tree)?;
            }
            committed_secs(&runner, repository, &commit.object)?
        };
        if how.submodules {
            self.check_submodules_out(address, &runner, commit, &tree, staging.path())?;
        }
        let root = Root::open(&tree).map_err(|e| failed("opening", std::io::Error::other(e)))?;
        let time = (how.time == CheckoutTime::Commit).then_some(Time { secs: committed_secs, nanos: 0 });
        settle(&root, time, self.give_up).map_err(|e| failed("settling", e))?;
        if (self.give_up)() {
            return Err(RemoteError::Cancelled);
        }
        let missing = || RemoteError::Subdir { remote: address.shown(), path: address.subdir.clone() };
        root.open_dir_nolinks(address.subdir.as_bytes()).map_err(|_| missing())?;
        Ok(CheckedOut { directory: tree.join(&address.subdir), committed_secs, _staging: staging })
    }
}

/// Writes a commit's files into an empty directory, by an index of its own.
pub(super) fn read_tree(runner: &Runner<'_>, repository: &Path, object: &str, tree: &Path, staging: &Path) -> Result<()> {
    let index = staging.join("index");
    let args = ["read-tree", "--reset", "-u", "--no-recurse-submodules", object];
    let done = runner.run("checking out", &args, &Place::tree(repository, tree, &index));
    // The next tree begins with none.
    let _ = std::fs::remove_file(&index);
    done.map(drop)
}

fn committed_secs(runner: &Runner<'_>, repository: &Path, object: &str) -> Result<i64> {
    let text = runner.run("reading a commit of", &["cat-file", "commit", object], &Place::repository(repository))?;
    let text = String::from_utf8_lossy(&text);
    // `committer NAME <MAIL> SECONDS ZONE`
    let line = text.lines().take_while(|l| !l.is_empty()).find_map(|l| l.strip_prefix("committer "));
    let seconds = line.and_then(|l| l.rsplit(' ').nth(1)).and_then(|s| s.parse().ok());
    seconds.ok_or_else(|| RemoteError::Git {
        doing: "reading a commit of",
        remote: runner.remote.clone(),
        said: format!("{object} does not say when it was made"),
    })
}

/// Makes `.git` beside the files: the commit alone, under the ref that led to it.
fn keep_git_dir(runner: &Runner<'_>, repository: &Path, address: &GitAddress, commit: &Commit, tree: &Path) -> Result<()> {
    let dir = tree.join(".git");
    let format = if commit.object.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    let index = dir.join("index");
    let run = |args: &[&str]| runner.run("making .git for", args, &Place::tree(&dir, tree, &index).local());
    run(&["init", "--quiet", "--template=", format])?;
    let to = commit.reference.as_deref().filter(|r| r.starts_with("refs/")).unwrap_or("refs/plywood/commit");
    let spec = format!("+{}:{to}", marker(&commit.object));
    let url = format!("file://{}", repository.display());
    // By a protocol, also on this machine: a path would be cloned by copying whatever files are there.
    run(&["fetch", "--quiet", "-u", "--depth=1", "--no-tags", "--no-write-fetch-head", &url, &spec])?;
    run(&["update-ref", "--no-deref", "HEAD", &format!("{}^{{commit}}", commit.object)])?;
    if to == "refs/plywood/commit" {
        run(&["update-ref", "-d", to])?;
    }
    run(&["read-tree", "HEAD"])?;
    run(&["config", "--local", "remote.origin.url", &address.shown()])?;
    run(&["config", "--local", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"])?;
    let failed = |source| RemoteError::Checkout { doing: "settling", remote: address.shown(), source };
    match std::fs::remove_dir_all(dir.join("logs")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(()),
    }
}

/// Gives everything the modes of umask 022, and the time if there is one. Opens one directory at a time.
fn settle(root: &Root, time: Option<Time>, give_up: crate::store::GiveUp<'_>) -> std::io::Result<()> {
    let mut pending = vec![Vec::new()];
    let mut directories: Vec<Vec<u8>> = Vec::new();
    while let Some(at) = pending.pop() {
        if give_up() {
            return Ok(());
        }
        let dir = root.open_dir_nolinks(&at).map_err(std::io::Error::other)?;
        for entry in path::read_dir(&dir).map_err(std::io::Error::other)? {
            let name = entry.name.to_bytes();
            let stat = path::lstat_at(&dir, name)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let own = stat.st_mode & 0o700;
            let mode = own | (own >> 3 & 0o050) | (own >> 6 & 0o005);
            let open = || rustix::fs::openat(&dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            if kind != FileType::Symlink && stat.st_mode & 0o7777 != mode {
                path::set_mode(open()?, mode)?;
            }
            if kind == FileType::Directory {
                pending.push(if at.is_empty() { name.to_vec() } else { [&at, &b"/"[..], name].concat() });
            } else if let Some(time) = time {
                path::set_times(open()?, time)?;
            }
        }
        directories.push(at);
    }
    path::set_mode(root, 0o755)?;
    // From the deepest up: what is done in a directory moves its time.
    for at in directories.iter().rev().filter(|_| time.is_some()) {
        let dir = root.open_dir_nolinks(at).map_err(std::io::Error::other)?;
        path::set_times(&dir, time.unwrap_or(Time { secs: 0, nanos: 0 }))?;
    }
    Ok(())
}
