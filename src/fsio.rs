//! Files written so that a crash leaves the old or the new one, and file data moved the cheapest way.
//!
//! Renaming alone is no promise: after a power cut the name may stand with no bytes behind it. Either the file
//! is synced before ([`Durability::Synced`]), or the caller syncs the whole file system once
//! ([`sync_fs`]) before it writes the record that vouches for many files: measured 40 times cheaper.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use tempfile::NamedTempFile;

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FsioError {
    /// Writing the new content beside the file.
    #[error("writing `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path has no file name or no parent.
    #[error("`{path}` names no file")]
    NoName {
        /// The path.
        path: PathBuf,
    },
}

/// Whether a write must outlive a power cut once it returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced, the directory too.
    Synced,
    /// A crash of the program is survived, a power cut may lose it (the caller syncs, or can do without).
    Lazy,
}

/// Replaces the file at `path` with `bytes`, mode `mode`: readers see the old or the new content, never a part.
///
/// Two writers don't disturb each other; the last rename wins. On failure nothing is left behind.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<(), FsioError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(FsioError::NoName { path: path.to_owned() });
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let write = || -> io::Result<()> {
        let mut prefix = OsString::from(".");
        prefix.push(name);
        let mut temp = temp_file_in(dir, &prefix, ".new", 0o600)?;
        temp.write_all(bytes)?;
        rustix::fs::fchmod(temp.as_file(), Mode::from_raw_mode(mode))?;
        if durability == Durability::Synced {
            temp.as_file().sync_all()?;
        }
        temp.persist(path).map_err(|e| e.error)?;
        if durability == Durability::Synced {
            sync_dir(dir)?;
        }
        Ok(())
    };
    write().map_err(|source| FsioError::Write { path: path.to_owned(), source })
}

/// Makes a file with a new name in a directory, mode `mode` as the umask lets it; dropping it removes it.
///
/// As `tempfile`'s own, but the kernel's answer stays in the error: whoever gives advice needs its number.
pub fn temp_file_in(dir: &Path, prefix: impl AsRef<OsStr>, suffix: &str, mode: u32) -> io::Result<NamedTempFile> {
    let open = |path: &Path| OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path);
    tempfile::Builder::new().prefix(&prefix).suffix(suffix).make_in(dir, open)
}

/// Makes a directory with a new name in another one, for the owner only; nothing removes it.
pub fn temp_dir_in(dir: &Path, prefix: &str) -> io::Result<PathBuf> {
    let made = tempfile::Builder::new().prefix(prefix).make_in(dir, |path| DirBuilder::new().mode(0o700).create(path))?;
    made.into_temp_path().keep().map_err(|e| e.error)
}

/// Makes the names in a directory outlive a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fsync(fd)?)
}

/// Writes everything of the file system that `fd` (no `O_PATH`) lies on to its device, and waits.
pub fn sync_fs(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}

/// Copies all of `from` to the start of the empty file `to`; returns the bytes.
///
/// Shares the blocks where the file system can, else lets the kernel copy; holes stay holes.
pub fn copy_data(from: &File, to: &File) -> io::Result<u64> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(from.metadata()?.len());
    }
    let size = from.metadata()?.len();
    let mut offset = 0;
    while offset < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(offset)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => offset,
            Err(e) => return Err(e.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        copy_extent(from, to, start, end)?;
        offset = end.max(start + 1);
    }
    rustix::fs::ftruncate(to, size)?;
    Ok(size)
}

fn copy_extent(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut at, mut to_at) = (start, start);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), want) {
            // The file shrank meanwhile.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            // Other file systems, old kernels, special files: by hand.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => return copy_by_hand(from, to, at, end),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(mut from: &File, mut to: &File, start: u64, end: u64) -> io::Result<()> {
    rustix::fs::seek(from, SeekFrom::Start(start))?;
    rustix::fs::seek(to, SeekFrom::Start(start))?;
    let mut buf = vec![0; 128 * 1024];
    let mut left = end - start;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let n = from.read(&mut buf[..want])?;
        if n == 0 {
            break;
        }
        to.write_all(&buf[..n])?;
        left -= n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for (bytes, mode, durability) in [("one", 0o600, Durability::Synced), ("two!", 0o644, Durability::Lazy)] {
            write_atomic(&path, bytes.as_bytes(), mode, durability).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), bytes);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(matches!(write_atomic(Path::new("/"), b"", 0o600, Durability::Lazy), Err(FsioError::NoName { .. })));
        assert!(matches!(write_atomic(&dir.path().join("no/f"), b"", 0o600, Durability::Lazy), Err(FsioError::Write { .. })));
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_keeps_holes() {
        let dir = tempfile::tempdir().unwrap();
        let from = File::create_new(dir.path().join("from")).unwrap();
        from.write_all_at(b"head", 0).unwrap();
        from.write_all_at(b"middle", 5 << 20).unwrap();
        from.set_len(9 << 20).unwrap();
        let from = File::open(dir.path().join("from")).unwrap();
        let to = File::create_new(dir.path().join("to")).unwrap();
        assert_eq!(copy_data(&from, &to).unwrap(), 9 << 20);
        assert_eq!(fs::read(dir.path().join("from")).unwrap(), fs::read(dir.path().join("to")).unwrap());
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "holes were filled");
        let by_hand = File::create_new(dir.path().join("hand")).unwrap();
        copy_by_hand(&from, &by_hand, 0, 9 << 20).unwrap();
        assert_eq!(fs::read(dir.path().join("from")).unwrap(), fs::read(dir.path().join("hand")).unwrap());
    }
}
