//! A build context: its files, the digests of what steps take from it, its ignore rules, its Dockerfile.
//!
//! | file | holds |
//! |---|---|
//! | this | [`Context`]: opening one, its Dockerfile, its ignore file |
//! | `tree` | [`SourceTree`]: what COPY and mounts read, a context or a root file system |
//! | `select` | which files a step takes: patterns, links |
//! | `filter` | what is in the context and what is taken: ignore rules, `--exclude`, `--parents` |
//! | `scan`, `walk` | what lies in a directory of the host, and what of it is taken |
//! | `selection` | [`Selection`]: the list of these files, and its digest |
//! | `hash`, `stat_cache` | digests of files, remembered between builds |
//! | `resolve` | paths in a hostile tree, missing ends allowed |
//!
//! Nothing here runs or writes a build step. A context is read through one directory descriptor; a link that
//! leads out of it leads nowhere. The ignore rules are applied in one place, `filter`, for COPY, ADD and mounts.

mod error;
mod filter;
mod hash;
pub mod resolve;
#[cfg(test)]
mod scale_tests;
mod scan;
mod select;
mod selection;
pub mod stat_cache;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
mod walk;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::dockerfile::ignore::IgnoreRules;
use crate::layer::{ExtractOptions, LayerError, Limits, decompress, extract};
use crate::path::{Ownership, Root, printable};

pub use error::{ContextError, IgnoredBy, SelectError};
pub use filter::{Decision, Filters, Include, Trails};
pub use hash::Hashing;
pub use select::{Wanted, is_pattern, select, select_mount};
pub use selection::{Entry, FileFact, Node, SelectedSource, Selection};
pub use stat_cache::{StatCache, StatCacheStore};
pub use tree::{Ignoring, SourceTree, Stamp, TreeKind, open_file};

/// A Dockerfile is text that people write: more than this is something else.
const DOCKERFILE_MAX_BYTES: u64 = 16 << 20;
const IGNORE_FILE: &str = ".dockerignore";

/// A directory that a build reads files from.
#[derive(Debug, Clone)]
pub struct Context {
    root: Arc<OwnedFd>,
    /// Where it lies on the host; none for an unpacked archive.
    host: Option<PathBuf>,
    name: String,
    ignoring: Arc<Ignoring>,
}

/// A Dockerfile's bytes, and the ignore file that belongs to it alone.
#[derive(Debug, Clone)]
pub struct DockerfileText {
    /// What messages call it.
    pub name: String,
    /// As read; not necessarily UTF-8.
    pub bytes: Vec<u8>,
    /// `<Dockerfile>.dockerignore`: name and bytes.
    pub ignore_file: Option<(String, Vec<u8>)>,
}

impl DockerfileText {
    /// Takes a Dockerfile that came on standard input.
    pub fn from_stdin(bytes: Vec<u8>) -> Self {
        Self { name: "-".to_owned(), bytes, ignore_file: None }
    }
}

impl Context {
    /// Opens a directory of the host; nothing is ignored yet. `name` is what messages call it: "the build context".
    pub fn open_directory(path: &Path, name: impl Into<String>) -> Result<Self, ContextError> {
        let root = open_root(path)?;
        let host = std::path::absolute(path).ok();
        Ok(Self { root: Arc::new(root), host, name: name.into(), ignoring: Arc::default() })
    }

    /// Unpacks a tar, packed in whatever way, into `staging`, an empty directory that stays the caller's.
    ///
    /// Owners in the archive don't matter: they count as 0:0.
    pub fn from_tar(input: impl Read + Send, staging: &Path, name: impl Into<String>) -> Result<Self, ContextError> {
        let name = name.into();
        let fail = |source| ContextError::Unpack { archive: name.clone(), source };
        let root = open_root(staging)?;
        let clone = root.try_clone().map_err(|e| ContextError::Io { action: "opening", path: staging.display().to_string(), source: e })?;
        let limits = Limits::default();
        let (_, plain) = decompress(input, limits.max_bytes).map_err(|source| fail(LayerError::Read { source }))?;
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let options = ExtractOptions { owner: Some(me), ownership: Ownership::Real, limits };
        extract(plain, &Root::from_fd(clone), b"", &options).map_err(fail)?;
        Ok(Self { root: Arc::new(root), host: None, name, ignoring: Arc::default() })
    }

    /// Returns the same context with files hidden.
    pub fn with_ignore(self, ignoring: Ignoring) -> Self {
        Self { ignoring: Arc::new(ignoring), ..self }
    }

    /// Returns the tree that steps read.
    pub fn tree(&self) -> SourceTree {
        SourceTree::local(Arc::clone(&self.root), Arc::clone(&self.ignoring), self.name.clone())
    }

    /// Returns what is hidden of it.
    pub fn ignoring(&self) -> &Ignoring {
        &self.ignoring
    }

    /// Returns a name for the stat cache of this context: its directory's device and inode.
    pub fn id(&self) -> Result<String, ContextError> {
        let stat = rustix::fs::fstat(&self.root).map_err(|e| ContextError::io("examining", self.name.as_bytes(), e))?;
        Ok(format!("{:x}-{:x}", stat.st_dev, stat.st_ino))
    }

    /// Reads `Dockerfile`, or `dockerfile` where that is missing, at the context's root.
    pub fn default_dockerfile(&self) -> Result<DockerfileText, ContextError> {
        match self.dockerfile("Dockerfile") {
            Err(ContextError::NoDockerfile { path }) => match self.dockerfile("dockerfile") {
                Err(ContextError::NoDockerfile { .. }) => Err(ContextError::NoDockerfile { path }),
                other => other,
            },
            other => other,
        }
    }

    /// Reads a Dockerfile inside the context; links are followed inside it.
    pub fn dockerfile(&self, path: &str) -> Result<DockerfileText, ContextError> {
        read_dockerfile(&self.root, path, path)
    }

    /// Reads a Dockerfile by its path on the host (`-f`).
    ///
    /// Inside the context, links may lead anywhere in the context; elsewhere, anywhere below the Dockerfile's
    /// own directory.
    pub fn dockerfile_on_host(&self, path: &Path) -> Result<DockerfileText, ContextError> {
        let shown = path.display().to_string();
        let missing = || ContextError::NoDockerfile { path: shown.clone() };
        let absolute = std::path::absolute(path).map_err(|_| missing())?;
        let inside = self.host.as_ref().and_then(|host| absolute.strip_prefix(host).ok());
        if let Some(inside) = inside.filter(|p| p.components().all(|c| matches!(c, Component::Normal(_))))
            && let Some(inside) = inside.to_str()
        {
            return read_dockerfile(&self.root, inside, &shown);
        }
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name().and_then(|n| n.to_str())) else { return Err(missing()) };
        let directory = open_root(parent).map_err(|_| missing())?;
        read_dockerfile(&directory, name, &shown)
    }

    /// Reads the rules that go with a Dockerfile: its own ignore file, else the context's `.dockerignore`.
    pub fn ignore_rules(&self, dockerfile: Option<&DockerfileText>) -> Result<Ignoring, ContextError> {
        let own = dockerfile.and_then(|d| d.ignore_file.clone());
        let found = match own {
            Some(found) => Some(found),
            None => read_confined(&self.root, IGNORE_FILE, IGNORE_FILE)?.map(|bytes| (IGNORE_FILE.to_owned(), bytes)),
        };
        let Some((file, bytes)) = found else { return Ok(Ignoring::default()) };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let rules = IgnoreRules::parse(&text).map_err(|source| ContextError::Ignore { file: file.clone(), source })?;
        Ok(Ignoring { rules, file, text })
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, ContextError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| match e {
        Errno::NOTDIR => ContextError::NotDirectory { path: path.to_owned() },
        e => ContextError::Io { action: "opening", path: path.display().to_string(), source: e.into() },
    })
}

fn read_dockerfile(root: &OwnedFd, path: &str, shown: &str) -> Result<DockerfileText, ContextError> {
    let bytes = read_confined(root, path, shown)?.ok_or_else(|| ContextError::NoDockerfile { path: shown.to_owned() })?;
    let ignore_path = format!("{path}{IGNORE_FILE}");
    let ignore_file = read_confined(root, &ignore_path, &ignore_path)?.map(|bytes| (format!("{shown}{IGNORE_FILE}"), bytes));
    Ok(DockerfileText { name: shown.to_owned(), bytes, ignore_file })
}

/// Reads a small file inside `root`; none: it isn't there, or leads out.
fn read_confined(root: &OwnedFd, path: &str, shown: &str) -> Result<Option<Vec<u8>>, ContextError> {
    let bad = |problem| ContextError::BadFile { path: shown.to_owned(), problem };
    let place = match resolve::resolve(root.as_fd(), path.as_bytes()) {
        Ok(place) => place,
        Err(resolve::ResolveError::NotDirectory { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if !place.missing.is_empty() {
        return Ok(None);
    }
    let Some((parent, name)) = place.parent(root.as_fd()) else { return Err(bad("is a directory")) };
    if place.is_directory() {
        return Err(bad("is a directory"));
    }
    let (file, stamp): (File, Stamp) = match open_file(parent, name) {
        Ok(opened) => opened,
        Err(Errno::INVAL) => return Err(bad("is not a regular file")),
        Err(e) => return Err(ContextError::Io { action: "reading", path: shown.to_owned(), source: e.into() }),
    };
    if stamp.size > DOCKERFILE_MAX_BYTES {
        return Err(bad("is larger than 16 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(DOCKERFILE_MAX_BYTES).read_to_end(&mut bytes).map_err(|e| ContextError::Io {
        action: "reading",
        path: printable(shown.as_bytes()),
        source: e,
    })?;
    Ok(Some(bytes))
}
