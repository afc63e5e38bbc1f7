//! The history of a git repository on this machine: its commits, and the trees and files that they have.
//!
//! | file | holds |
//! |---|---|
//! | this | [`Repository`]: finding one, and listing its commits |
//! | `command` | git run so that nothing which the repository says can start a program or reach another host |
//! | `objects` | [`Objects`]: trees and files by their ids, over one running `git cat-file --batch` |
//! | `tree` | [`Tree`]: what a tree object says |
//!
//! Only objects are read: there is no checkout, no index, no ref is moved, and a bare repository will do. What a newcomer
//! would get wrong: the repository is not trusted. Its configuration may name programs (a pager, `gpg.program`, a promisor
//! remote's transport), so only plumbing runs that asks none of them, and what is missing is never fetched.

mod command;
mod objects;
mod tree;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

pub use objects::{Object, Objects};
pub use tree::{Item, Kind, Oid, Tree};

use command::Git;

/// Why a history can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The program is not on this machine.
    #[error("git is not installed")]
    NoGit,
    /// Git did not start, or the pipe to it broke.
    #[error("running git to {doing}")]
    Run {
        /// What for.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Git refused.
    #[error("{doing}: git says: {said}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What it said, fit to be shown.
        said: String,
    },
    /// There is no repository at or above a path.
    #[error("`{}` is in no git repository", .path.display())]
    NoRepository {
        /// The path.
        path: PathBuf,
    },
    /// Git answers in a form that we don't know.
    #[error("{doing}: git answers `{answer}`, which is unexpected")]
    Unexpected {
        /// What was being done.
        doing: &'static str,
        /// The start of its answer.
        answer: String,
    },
    /// An object is not in the repository.
    #[error("object {id} is not in this repository")]
    Missing {
        /// Which.
        id: Oid,
    },
    /// An object is not what it should be.
    #[error("object {id} {problem}")]
    Broken {
        /// Which.
        id: Oid,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An object has more bytes than its use allows.
    #[error("object {id} has {size} bytes, more than {limit}")]
    TooLarge {
        /// Which.
        id: Oid,
        /// Its size.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
}

/// Which commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// As git reads it (`v1..main`); none: up to the one that is checked out.
    pub revisions: Option<String>,
    /// No more than these, the newest; none: all.
    pub most: Option<usize>,
    /// Which parents of merges are followed.
    pub parents: Parents,
}

/// Which parents of merge commits are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    /// The first: what a branch had from push to push.
    First,
    /// All: each commit that anybody made, by date.
    All,
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: Oid,
    /// Its root tree.
    pub tree: Oid,
    /// Its parents.
    pub parents: Vec<Oid>,
    /// When it was committed, in unix seconds.
    pub time_secs: i64,
    /// The first line of its message; may hold anything but line ends.
    pub subject: String,
}

/// A repository on this machine.
#[derive(Debug, Clone)]
pub struct Repository {
    git: Git,
    /// Where the path that was asked for lies in the tree: empty, or `a/b`.
    pub place: String,
    /// The top of its working tree; none: it is bare.
    pub work_tree: Option<PathBuf>,
    /// Whether older commits were left out when it was cloned.
    pub shallow: bool,
}

impl Repository {
    /// Finds the repository that `path` lies in, or is. `programs`: the directories where git is looked for.
    pub fn find(path: &Path, programs: &[PathBuf]) -> Result<Self, HistoryError> {
        const DOING: &str = "look for the repository";
        let git = Git::find(programs)?;
        if !path.is_dir() {
            return Err(HistoryError::NoRepository { path: path.to_owned() });
        }
        let ask = ["rev-parse", "--is-bare-repository", "--is-shallow-repository", "--absolute-git-dir"];
        let said = git.run_in(DOING, path, &ask).map_err(|e| match e {
            HistoryError::Refused { said, .. } if said.contains("not a git repository") => {
                HistoryError::NoRepository { path: path.to_owned() }
            }
            e => e,
        })?;
        let [bare, shallow, dir] = lines(DOING, &said)?;
        let git = git.at(PathBuf::from(bytes_to_path(dir)));
        let (place, work_tree) = match bare {
            b"true" => (Vec::new(), None),
            _ => {
                let said = git.run_in(DOING, path, &["rev-parse", "--show-prefix", "--show-toplevel"]);
                // In the `.git` directory itself there is no working tree.
                match said.as_deref().map(|said| lines::<2>(DOING, said)) {
                    Ok(Ok([place, top])) => (place.to_vec(), Some(PathBuf::from(bytes_to_path(top)))),
                    _ => (Vec::new(), None),
                }
            }
        };
        let place = String::from_utf8_lossy(&place).trim_end_matches('/').to_owned();
        Ok(Self { git, place, work_tree, shallow: shallow == b"true" })
    }

    /// Returns the commits of a range, oldest first.
    pub fn commits(&self, range: &Range) -> Result<Vec<Commit>, HistoryError> {
        const DOING: &str = "list the commits";
        let most = range.most.map(|n| format!("--max-count={n}"));
        let mut args = vec!["rev-list", "--encoding=UTF-8", "--format=%T%x09%P%x09%ct%x09%s"];
        args.push(if range.parents == Parents::First { "--first-parent" } else { "--date-order" });
        args.extend(most.as_deref());
        args.extend(["--end-of-options", range.revisions.as_deref().unwrap_or("HEAD"), "--"]);
        let said = self.git.run(DOING, &args)?;
        let mut commits = Vec::new();
        let mut lines = said.split(|b| *b == b'\n');
        while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
            let unexpected = |line: &[u8]| HistoryError::unexpected(DOING, line);
            let id = line.strip_prefix(b"commit ").and_then(Oid::from_hex).ok_or_else(|| unexpected(line))?;
            let line = lines.next().unwrap_or_default();
            commits.push(commit(id, line).ok_or_else(|| unexpected(line))?);
        }
        commits.reverse();
        Ok(commits)
    }

    /// Starts a reader of objects. Several may be used at once, each by one thread.
    pub fn objects(&self) -> Result<Objects, HistoryError> {
        Objects::start(&self.git)
    }
}

impl HistoryError {
    fn unexpected(doing: &'static str, answer: &[u8]) -> Self {
        const SHOWN: usize = 80;
        Self::Unexpected { doing, answer: answer[..answer.len().min(SHOWN)].escape_ascii().to_string() }
    }

    /// Returns what to do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoGit => Some("install git (apt-get install git)"),
            Self::NoRepository { .. } => Some("name a directory of a git repository, or a bare one"),
            Self::Missing { .. } => {
                Some("the clone is partial or shallow: `git fetch --unshallow`, or clone it whole (nothing is fetched here)")
            }
            Self::Refused { said, .. } if said.contains("bad revision") || said.contains("ambiguous argument") => {
                Some("a range is REV, FROM..TO or FROM.., as git writes it")
            }
            _ => None,
        }
    }
}

/// Reads `TREE\tPARENTS\tTIME\tSUBJECT`.
fn commit(id: Oid, line: &[u8]) -> Option<Commit> {
    let mut fields = line.splitn(4, |b| *b == b'\t');
    let tree = Oid::from_hex(fields.next()?)?;
    let parents = fields.next()?.split(|b| *b == b' ').filter(|p| !p.is_empty()).map(Oid::from_hex).collect::<Option<_>>()?;
    let time_secs = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let subject = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(Commit { id, tree, parents, time_secs, subject })
}

/// Returns the lines of an answer that must have `N`.
fn lines<'a, const N: usize>(doing: &'static str, said: &'a [u8]) -> Result<[&'a [u8]; N], HistoryError> {
    let said_lines: Vec<&[u8]> = said.strip_suffix(b"\n").unwrap_or(said).split(|b| *b == b'\n').collect();
    said_lines.try_into().map_err(|_| HistoryError::unexpected(doing, said))
}

fn bytes_to_path(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}
