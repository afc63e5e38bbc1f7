//! Where an archive goes: a file that appears whole or not at all, a device or pipe, standard output.
//!
//! Where the file system can, the file has no name until it is whole: a kill leaves nothing, and nobody has to find it. It is not
//! synced, as no file is that a program writes for its user.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::ExportError;
use crate::engine::request::Destination;
use crate::fsio;

/// An archive that is being written.
pub(super) enum Sink<'a> {
    Nameless {
        file: io::BufWriter<File>,
        path: PathBuf,
    },
    /// Where no file can be without a name.
    Temporary {
        file: io::BufWriter<tempfile::NamedTempFile>,
        path: PathBuf,
    },
    /// Not a regular file: nothing to rename.
    Direct {
        file: File,
        path: PathBuf,
    },
    Stdout(&'a mut dyn Write),
}

/// For headers and padding; a blob's pieces are bigger and go past it.
const BUFFER_BYTES: usize = 64 << 10;

impl<'a> Sink<'a> {
    pub(super) fn open(destination: &Destination, stdout: &'a mut dyn Write) -> Result<Self, ExportError> {
        let path = match destination {
            Destination::Stdout => return Ok(Self::Stdout(stdout)),
            Destination::Path(path) => path,
        };
        let failed = |source| ExportError::Write { dest: path.display().to_string(), source };
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => return Err(ExportError::IsDirectory { path: path.clone() }),
            Ok(meta) if !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                return Ok(Self::Direct { file, path: path.clone() });
            }
            _ => {}
        }
        // A link to a file is written through: the file is replaced, the link stays.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Some(file) = nameless(parent) {
            return Ok(Self::Nameless { file: io::BufWriter::with_capacity(BUFFER_BYTES, file), path });
        }
        // The umask applies to 0666 as for any file that a program makes.
        let temp = fsio::temp_file_in(parent, ".ply-", "", 0o666);
        let file = io::BufWriter::with_capacity(BUFFER_BYTES, temp.map_err(failed)?);
        Ok(Self::Temporary { file, path })
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Nameless { path, .. } | Self::Temporary { path, .. } | Self::Direct { path, .. } => path.display().to_string(),
            Self::Stdout(_) => "standard output".into(),
        }
    }

    pub(super) fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Nameless { file, .. } => file,
            Self::Temporary { file, .. } => file,
            Self::Direct { file, .. } => file,
            Self::Stdout(out) => out,
        }
    }

    /// Puts the whole file in place. A sink that is dropped instead leaves nothing.
    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        let dest = self.name();
        let failed = |source| ExportError::Write { dest: dest.clone(), source };
        self.writer().flush().map_err(failed)?;
        match self {
            Self::Nameless { file, path } => {
                let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
                name(&file, &path).map_err(failed)
            }
            Self::Temporary { file, path } => {
                let temp = file.into_inner().map_err(|e| failed(e.into_error()))?;
                temp.persist(&path).map(drop).map_err(|e| failed(e.error))
            }
            Self::Direct { .. } | Self::Stdout(_) => Ok(()),
        }
    }
}

/// Makes a file without a name in `dir`; none: that can't be done, or it could not be named afterwards.
fn nameless(dir: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666)).ok()?);
    link_of(&file).exists().then_some(file)
}

/// By this link a file is named that has no name, open(2).
fn link_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Gives the file its name, in place of whatever has it.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let link = |to: &Path| rustix::fs::linkat(CWD, link_of(file), CWD, to, AtFlags::SYMLINK_FOLLOW);
    match link(path) {
        Err(Errno::EXIST) => {}
        other => return other.map_err(io::Error::from),
    }
    // A link replaces nothing, a rename does.
    for n in 0_u32.. {
        let temp = path.with_file_name(format!(".ply-{}-{n}", std::process::id()));
        match link(&temp) {
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
            Ok(()) => {
                return std::fs::rename(&temp, path).inspect_err(|_| {
                    // The first error is the one to tell.
                    let _ = std::fs::remove_file(&temp);
                });
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        let to = Destination::Path(path.clone());
        let mut nowhere = io::sink();
        let mut sink = Sink::open(&to, &mut nowhere).unwrap();
        sink.writer().write_all(b"half").unwrap();
        drop(sink);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for text in ["one", "two"] {
            assert!(std::fs::read_dir(dir.path()).unwrap().all(|e| e.unwrap().path() == path), "nothing beside it");
            let mut sink = Sink::open(&to, &mut nowhere).unwrap();
            sink.writer().write_all(text.as_bytes()).unwrap();
            sink.finish().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut sink = Sink::open(&Destination::Path(link.clone()), &mut nowhere).unwrap();
        sink.writer().write_all(b"three").unwrap();
        sink.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three");
        assert!(link.is_symlink());
        let here = Destination::Path(dir.path().into());
        assert!(matches!(Sink::open(&here, &mut nowhere), Err(ExportError::IsDirectory { .. })));
    }
}
