//! Finds a path in a tree that may be hostile: every component is opened by descriptor, links are followed here.
//!
//! The kernel never follows a link for us and never sees a `..`, so nothing outside of the root can be reached,
//! whatever the links say and however the tree changes meanwhile. A newcomer would miss
//! that a path may *end* in names that don't exist: these come back in [`Place::missing`], links already
//! resolved, since COPY creates its destination even behind a dangling link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::path::{link_target_at, printable as text};

/// Links followed in one path before it counts as a loop; Linux's own limit (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// The longest path that a call takes, its ending zero not counted (PATH_MAX, linux/limits.h).
const PATH_MAX_BYTES: usize = 4095;

/// What a path leads to.
#[derive(Debug)]
pub struct Place {
    steps: Vec<Step>,
    /// Names after the last component that exists, in order; empty: the path exists.
    pub missing: Vec<Vec<u8>>,
    /// The links that were followed: each one's own path below the root.
    pub links: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Step {
    name: Vec<u8>,
    fd: OwnedFd,
    stat: Stat,
}

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A component that isn't the last is no directory.
    #[error("`/{path}` is not a directory")]
    NotDirectory {
        /// The component, from the root.
        path: String,
    },
    /// Links lead round in a circle.
    #[error("too many levels of symbolic links in `{path}`")]
    Loop {
        /// The path as asked for.
        path: String,
    },
    /// The system refused.
    #[error("opening `/{path}`")]
    Io {
        /// The component, from the root.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Place {
    /// Returns the path of what exists, below the root, free of links and dots; empty: the root itself.
    pub fn path(&self) -> Vec<u8> {
        join(self.steps.iter().map(|s| s.name.as_slice()))
    }
    /// Returns the whole path: what exists and what is missing.
    pub fn full_path(&self) -> Vec<u8> {
        join(self.steps.iter().map(|s| &s.name).chain(&self.missing).map(Vec::as_slice))
    }
    /// Returns a descriptor (`O_PATH`) of what exists; `root` must be the one that was resolved in.
    pub fn fd<'a>(&'a self, root: BorrowedFd<'a>) -> BorrowedFd<'a> {
        self.steps.last().map_or(root, |s| s.fd.as_fd())
    }
    /// Returns the directory that holds what exists, and its name in it; none for the root.
    pub fn parent<'a>(&'a self, root: BorrowedFd<'a>) -> Option<(BorrowedFd<'a>, &'a [u8])> {
        let (last, before) = self.steps.split_last()?;
        Some((before.last().map_or(root, |s| s.fd.as_fd()), &last.name))
    }
    /// Returns the metadata of what exists; none for the root.
    pub fn stat(&self) -> Option<&Stat> {
        self.steps.last().map(|s| &s.stat)
    }
    /// Whether what exists is a directory.
    pub fn is_directory(&self) -> bool {
        self.stat().is_none_or(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
    }
}

/// Resolves `path` inside `root`, following every link, the last one too.
///
/// `..` and absolute links stop at the root. A missing name is no error: see [`Place::missing`].
pub fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<Place, ResolveError> {
    let mut place = Place { steps: Vec::new(), missing: Vec::new(), links: Vec::new() };
    let mut todo: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    while let Some(name) = todo.pop() {
        if name == b".." {
            if place.missing.pop().is_none() {
                place.steps.pop();
            }
            continue;
        }
        if !place.missing.is_empty() {
            place.missing.push(name);
            continue;
        }
        let here = |place: &Place| text(&join(place.steps.iter().map(|s| s.name.as_slice()).chain([name.as_slice()])));
        let parent = place.fd(root);
        let fd = match rustix::fs::openat(parent, &*name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                place.missing.push(name);
                continue;
            }
            Err(Errno::NOTDIR) => return Err(ResolveError::NotDirectory { path: text(&place.path()) }),
            Err(e) => return Err(ResolveError::Io { path: here(&place), source: e.into() }),
        };
        let io = |e: Errno, place: &Place| ResolveError::Io { path: here(place), source: e.into() };
        let stat = rustix::fs::fstat(&fd).map_err(|e| io(e, &place))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            place.steps.push(Step { name, fd, stat });
            continue;
        }
        let target = link_target_at(&fd, b"").map_err(|e| io(e, &place))?;
        place.links.push(join(place.steps.iter().map(|s| s.name.as_slice()).chain([name.as_slice()])));
        if place.links.len() > MAX_LINKS {
            return Err(ResolveError::Loop { path: text(path) });
        }
        if target.starts_with(b"/") {
            place.steps.clear();
        }
        todo.extend(components(&target).rev().map(<[u8]>::to_vec));
    }
    Ok(place)
}

/// Returns the path's components; empty ones and `.` left out.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".")
}

/// Opens a directory below `root` for reading, no component of `path` being a link. A path may be of any length.
pub fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (piece, rest) = split_path(path);
    let open = |piece: &[u8]| rustix::fs::openat2(root, piece, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH);
    let dir = match if piece.is_empty() { open_directory_at(root, b".") } else { open(piece) } {
        // Older than 5.6, or hidden by a container's seccomp filter.
        Err(Errno::NOSYS | Errno::PERM) => open_by_components(root, piece)?,
        other => other?,
    };
    if rest.is_empty() { Ok(dir) } else { open_directory(dir.as_fd(), rest) }
}

/// Cuts a path before it gets too long for one call.
fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() < PATH_MAX_BYTES {
        return (path, b"");
    }
    let end = path[..PATH_MAX_BYTES].iter().rposition(|b| *b == b'/').unwrap_or(PATH_MAX_BYTES);
    (&path[..end], path[end..].strip_prefix(b"/").unwrap_or(&path[end..]))
}

fn open_by_components(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut dir = open_directory_at(root, b".")?;
    for name in components(path) {
        dir = open_directory_at(dir.as_fd(), name)?;
    }
    Ok(dir)
}

/// Opens the directory `name` in `dir` for reading; a link there is refused.
pub fn open_directory_at(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Appends a name or a path to a path.
pub fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Joins names by slashes.
pub fn join<'a>(names: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for name in names {
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let p = dir.path();
        fs::create_dir_all(p.join("real/in")).unwrap();
        fs::write(p.join("real/f"), "f").unwrap();
        symlink("/real", p.join("abs")).unwrap();
        symlink("../../../../real", p.join("climb")).unwrap();
        symlink("abs/f", p.join("chain")).unwrap();
        symlink("/gone/deep", p.join("dangling")).unwrap();
        symlink("loop", p.join("loop")).unwrap();
        symlink("/etc/passwd", p.join("leak")).unwrap();
        let fd = rustix::fs::open(p, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn a_directory_of_any_depth_is_opened_and_never_through_a_link() {
        let (dir, root) = tree();
        let deep = join(std::iter::repeat_n([b'n'; 200].as_slice(), 60));
        let mut at = open_directory(root.as_fd(), b"real").unwrap();
        for name in components(&deep) {
            rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
            at = open_directory_at(at.as_fd(), name).unwrap();
        }
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let path = [b"real/".as_slice(), &deep].concat();
        assert_eq!(inode(&open_directory(root.as_fd(), &path).unwrap()), inode(&at));
        assert_eq!(inode(&open_by_components(root.as_fd(), &path).unwrap()), inode(&at));
        assert_eq!(inode(&open_directory(root.as_fd(), b"").unwrap()), inode(&root));
        for (path, error) in
            [("abs", Errno::LOOP), ("abs/in", Errno::LOOP), ("real/f", Errno::NOTDIR), ("none", Errno::NOENT), ("../x", Errno::XDEV)]
        {
            assert_eq!(open_directory(root.as_fd(), path.as_bytes()).unwrap_err(), error, "{path}");
        }
        crate::path::remove_contents(rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap()).unwrap();
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let (_dir, root) = tree();
        for (path, exists, missing) in [
            ("", "", vec![]),
            ("/", "", vec![]),
            ("../../..", "", vec![]),
            ("real/f", "real/f", vec![]),
            ("/abs/in/", "real/in", vec![]),
            ("climb/f", "real/f", vec![]),
            ("chain", "real/f", vec![]),
            ("abs/../real/f", "real/f", vec![]),
            ("real/new/x", "real", vec!["new", "x"]),
            ("dangling/y", "", vec!["gone", "deep", "y"]),
            ("leak", "", vec!["etc", "passwd"]),
            ("none/../real", "real", vec![]),
        ] {
            let place = resolve(root.as_fd(), path.as_bytes()).unwrap();
            let missing_names: Vec<_> = place.missing.iter().map(|m| text(m)).collect();
            assert_eq!(
                (text(&place.path()).as_str(), missing_names),
                (exists, missing.iter().map(ToString::to_string).collect()),
                "{path}"
            );
        }
        assert!(matches!(resolve(root.as_fd(), b"loop"), Err(ResolveError::Loop { .. })));
        assert!(matches!(resolve(root.as_fd(), b"real/f/x"), Err(ResolveError::NotDirectory { path }) if path == "real/f"));
    }
}
