//! Mount points made in a root for one step, and removed after it without a trace.
//!
//! A file system needs something to mount on. What was made is remembered by the descriptor of its directory, its
//! name and its inode, never by path: the step may have put a link in the place of any directory of the way
//! (CVE-2024-23652). Removed is only what is still the same inode and still empty. A directory's times are put
//! back at once after making and again after removing, so that what the step changes keeps its own time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timestamps};
use rustix::io::Errno;

use super::spec::{SandboxSpec, Shape, is_within};

/// A mount point that a root needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubTarget {
    /// Absolute; links in it are followed inside the root.
    pub path: String,
    /// What it has to be.
    pub shape: Shape,
}

/// A mount point that could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StubError {
    #[error("looking at the mount on {target}")]
    Source { target: String, source: io::Error },
    #[error("making mount point {path} in the root")]
    Make { path: String, source: io::Error },
    #[error("mount point {path} is a {found} in the image")]
    Shape { path: String, found: &'static str },
    #[error("too many levels of symbolic links at mount point {path}")]
    Links { path: String },
    #[error("removing mount point {name:?}")]
    Remove { name: OsString, source: io::Error },
}

/// What was made, in order.
#[derive(Debug, Default)]
#[must_use = "stubs that are not removed enter the layer"]
pub struct Stubs {
    made: Vec<Stub>,
}

#[derive(Debug)]
struct Stub {
    directory: OwnedFd,
    name: OsString,
    shape: Shape,
    device_and_inode: (u64, u64),
}

const FOLLOWED_LINKS_MAX: usize = 40; // MAXSYMLINKS, include/linux/namei.h

impl SandboxSpec {
    /// Returns the mount points that the root itself must have: those of the kernel's file systems, and of the
    /// mounts that lie in no earlier one.
    pub fn stub_targets(&self) -> Result<Vec<StubTarget>, StubError> {
        let mut targets: Vec<StubTarget> =
            ["/proc", "/sys", "/dev"].iter().map(|path| StubTarget { path: (*path).into(), shape: Shape::Directory }).collect();
        for mount in &self.mounts {
            let covered = targets.iter().any(|target| target.shape == Shape::Directory && is_within(&mount.target, &target.path));
            if !covered {
                let shape = mount.shape().map_err(|source| StubError::Source { target: mount.target.clone(), source })?;
                targets.push(StubTarget { path: mount.target.clone(), shape });
            }
        }
        Ok(targets)
    }
}

impl Stubs {
    /// Makes the targets that are missing below `root`, with their missing parents (mode 0755, empty files 0644).
    ///
    /// On failure what was made already is removed again.
    pub fn create(root: impl AsFd, targets: &[StubTarget]) -> Result<Self, StubError> {
        let mut stubs = Self::default();
        for target in targets {
            if let Err(error) = stubs.ensure(root.as_fd(), target) {
                // The first error is the one to tell.
                let _ = stubs.remove();
                return Err(error);
            }
        }
        Ok(stubs)
    }

    /// Leaves everything where it is.
    pub fn keep(self) {}

    /// Removes what is still as it was made, last first. All are tried; the first failure is returned.
    pub fn remove(self) -> Result<(), StubError> {
        let mut result = Ok(());
        for stub in self.made.into_iter().rev() {
            let name = stub.name.clone();
            if let Err(source) = stub.remove()
                && result.is_ok()
            {
                result = Err(StubError::Remove { name, source });
            }
        }
        result
    }

    /// Walks to the target, one component at a time, never through a link that the kernel would follow.
    fn ensure(&mut self, root: BorrowedFd<'_>, target: &StubTarget) -> Result<(), StubError> {
        let failed = |source: io::Error| StubError::Make { path: target.path.clone(), source };
        let mut way = vec![open_directory(root, Path::new(".")).map_err(failed)?];
        let mut rest: VecDeque<OsString> = components(Path::new(&target.path));
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let is_last = rest.is_empty();
            let Some(here) = way.last() else { return Err(failed(io::Error::other("the way to the root is lost"))) };
            match rustix::fs::statat(here, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    let shape = if is_last { target.shape } else { Shape::Directory };
                    let stub = Stub::make(here, name.clone(), shape).map_err(failed)?;
                    self.made.push(stub);
                }
                Err(errno) => return Err(failed(errno.into())),
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => {
                        links += 1;
                        if links > FOLLOWED_LINKS_MAX {
                            return Err(StubError::Links { path: target.path.clone() });
                        }
                        let link = rustix::fs::readlinkat(here, name.as_os_str(), Vec::new()).map_err(|errno| failed(errno.into()))?;
                        let link = PathBuf::from(OsString::from_vec(link.into_bytes()));
                        if link.is_absolute() {
                            way.truncate(1);
                        }
                        let mut followed = components(&link);
                        followed.append(&mut rest);
                        rest = followed;
                        continue;
                    }
                    FileType::Directory if !is_last || target.shape == Shape::Directory => {}
                    FileType::Directory => return Err(StubError::Shape { path: target.path.clone(), found: "directory" }),
                    _ if is_last && target.shape == Shape::File => {}
                    _ => return Err(StubError::Shape { path: target.path.clone(), found: "file" }),
                },
            }
            if !rest.is_empty() {
                let next = open_directory(here.as_fd(), Path::new(&name)).map_err(failed)?;
                way.push(next);
            }
        }
        Ok(())
    }
}

/// The named components of a path; `.` and slashes are gone, `..` is kept.
fn components(path: &Path) -> VecDeque<OsString> {
    path.as_os_str()
        .as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

/// Opens for reading, not `O_PATH`: times are set through the descriptor.
fn open_directory(directory: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

#[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // the fields' types differ between C libraries
fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
    }
}

impl Stub {
    fn make(directory: &OwnedFd, name: OsString, shape: Shape) -> io::Result<Self> {
        let directory = directory.try_clone()?;
        let before = times(&rustix::fs::fstat(&directory)?);
        // What is made is opened at once and its mode set by descriptor, whatever the umask.
        let opened = match shape {
            Shape::Directory => {
                rustix::fs::mkdirat(&directory, name.as_os_str(), Mode::from_raw_mode(0o755))?;
                open_directory(directory.as_fd(), Path::new(&name))?
            }
            Shape::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&directory, name.as_os_str(), flags, Mode::from_raw_mode(0o644))?
            }
        };
        rustix::fs::fchmod(&opened, Mode::from_raw_mode(if shape == Shape::Directory { 0o755 } else { 0o644 }))?;
        let made = rustix::fs::fstat(&opened)?;
        rustix::fs::futimens(&directory, &before)?;
        Ok(Self { directory, name, shape, device_and_inode: (made.st_dev, made.st_ino) })
    }

    fn remove(self) -> io::Result<()> {
        let now = match rustix::fs::statat(&self.directory, self.name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let same = (now.st_dev, now.st_ino) == self.device_and_inode;
        if !same || (self.shape == Shape::File && now.st_size != 0) {
            return Ok(());
        }
        let flags = if self.shape == Shape::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let current = times(&rustix::fs::fstat(&self.directory)?);
        match rustix::fs::unlinkat(&self.directory, self.name.as_os_str(), flags) {
            // No longer empty: it is the step's now.
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(()),
            other => other?,
        }
        Ok(rustix::fs::futimens(&self.directory, &current)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree as sorted lines of type, name, and modification second.
    fn listing(root: &Path) -> Vec<String> {
        fn walk(root: &Path, at: &Path, lines: &mut Vec<String>) {
            use std::os::unix::fs::MetadataExt;
            for entry in std::fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                let kind = if meta.is_dir() {
                    'd'
                } else if meta.is_symlink() {
                    'l'
                } else {
                    'f'
                };
                lines.push(format!("{kind} {} {}", path.strip_prefix(root).unwrap().display(), meta.mtime()));
                if meta.is_dir() {
                    walk(root, &path, lines);
                }
            }
        }
        let mut lines = Vec::new();
        walk(root, root, &mut lines);
        lines.sort();
        lines
    }

    fn age(path: &Path) {
        let old = rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 };
        let times = Timestamps { last_access: old, last_modification: old };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/run/up/../resolv.conf", root.path().join("etc/resolv.conf")).unwrap();
        std::os::unix::fs::symlink("../../../..", root.path().join("out")).unwrap();
        age(&root.path().join("etc/resolv.conf"));
        age(&root.path().join("out"));
        age(&root.path().join("etc"));
        root
    }

    fn targets(paths: &[(&str, Shape)]) -> Vec<StubTarget> {
        paths.iter().map(|(path, shape)| StubTarget { path: (*path).into(), shape: *shape }).collect()
    }

    fn open(path: &Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    #[test]
    fn stubs_leave_no_trace_and_no_changed_times() {
        let root = root();
        let before = listing(root.path());
        let wanted = targets(&[
            ("/proc", Shape::Directory),
            ("/etc/hosts", Shape::File),
            ("/etc/resolv.conf", Shape::File),
            ("/a/b/c", Shape::File),
            ("/a/b/d", Shape::Directory),
            ("/out/e", Shape::Directory),
        ]);
        let stubs = Stubs::create(open(root.path()), &wanted).unwrap();
        let names: Vec<String> = listing(root.path()).iter().map(|line| line.rsplit_once(' ').unwrap().0.to_string()).collect();
        let want = [
            "d a",
            "d a/b",
            "d a/b/d",
            "d e",
            "d etc",
            "d proc",
            "d run",
            "d run/up",
            "f a/b/c",
            "f etc/hosts",
            "f run/resolv.conf",
            "l etc/resolv.conf",
            "l out",
        ];
        assert_eq!(names, want);
        stubs.remove().unwrap();
        assert_eq!(listing(root.path()), before);
    }

    #[test]
    fn what_the_step_used_or_replaced_stays() {
        let root = root();
        let wanted = targets(&[("/used", Shape::File), ("/filled", Shape::Directory), ("/swapped", Shape::Directory)]);
        let stubs = Stubs::create(open(root.path()), &wanted).unwrap();
        std::fs::write(root.path().join("used"), "x").unwrap();
        std::fs::write(root.path().join("filled/x"), "").unwrap();
        // Renamed away, so that the inode number is not given again.
        std::fs::rename(root.path().join("swapped"), root.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("etc", root.path().join("swapped")).unwrap();
        stubs.remove().unwrap();
        for name in ["used", "filled/x", "swapped", "moved", "etc"] {
            assert!(root.path().join(name).symlink_metadata().is_ok(), "{name}");
        }
    }

    #[test]
    fn a_directory_that_the_step_changed_keeps_its_new_time() {
        let root = root();
        let stubs = Stubs::create(open(root.path()), &targets(&[("/etc/hosts", Shape::File)])).unwrap();
        std::fs::write(root.path().join("etc/new"), "").unwrap();
        let time = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
        let changed = time(&root.path().join("etc"));
        stubs.remove().unwrap();
        assert_eq!(time(&root.path().join("etc")), changed);
        assert!(!root.path().join("etc/hosts").exists());
    }

    #[test]
    fn wrong_shapes_and_endless_links_are_errors_that_leave_nothing() {
        let root = root();
        std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let before = listing(root.path());
        for (path, shape, want) in [
            ("/etc", Shape::File, "mount point /etc is a directory in the image"),
            ("/file", Shape::Directory, "mount point /file is a file in the image"),
            ("/file/x", Shape::Directory, "mount point /file/x is a file in the image"),
            ("/loop/x", Shape::File, "too many levels of symbolic links at mount point /loop/x"),
        ] {
            let wanted = targets(&[("/first", Shape::Directory), (path, shape)]);
            assert_eq!(Stubs::create(open(root.path()), &wanted).unwrap_err().to_string(), want);
            assert_eq!(listing(root.path()), before, "{path}");
        }
    }
}
