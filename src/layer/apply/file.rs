//! An archive's regular file made in as few system calls as can be: created, written, its time set, closed.
//!
//! Nothing lies in most places where an archive's file goes, so it is created first (`O_EXCL`: a link is never followed),
//! and only when that fails somebody looks at what is there. Owner and mode are set only where the kernel gave others:
//! what it gives depends on the directory (setgid, a default ACL, how it is mounted) and on the mode that was asked for,
//! so the first file of each kind in a directory is looked at, and the others are like it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, ErrorKind, Write as _};
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{Apply, LayerError, Result, TarEntry};
use crate::path::{self, Birth, PathError, printable};

/// What a file is created with whose owner will be changed: until then nobody else shall see it.
const CLOSED: u32 = 0o600;
const SPECIAL: u32 = 0o7000;

/// A directory that entries go to.
pub(super) struct Parent {
    /// Its path without links.
    pub at: Vec<u8>,
    pub fd: OwnedFd,
    /// What new files get in it, by the mode that is asked for.
    births: RefCell<Vec<(u32, Birth)>>,
}

impl Parent {
    pub fn new(at: Vec<u8>, fd: OwnedFd) -> Self {
        Self { at, fd, births: RefCell::default() }
    }

    /// Returns what `file` was given, which was just made here with the mode `asked`.
    fn birth(&self, file: &File, asked: u32) -> rustix::io::Result<Birth> {
        let mut births = self.births.borrow_mut();
        if let Some((_, birth)) = births.iter().find(|(mode, _)| *mode == asked) {
            return Ok(*birth);
        }
        let stat = rustix::fs::fstat(file)?;
        let birth = Birth { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 };
        births.push((asked, birth));
        Ok(birth)
    }
}

impl Apply<'_> {
    pub(super) fn file(&mut self, entry: &TarEntry, dir: &Parent, name: &[u8], at: &[u8], data: &mut dyn BufRead) -> Result<()> {
        let io = |e: Errno| PathError::io("creating", at, e);
        let attributes = self.attributes(entry);
        let owner = (attributes.uid, attributes.gid);
        let asked = if self.born_to == Some(owner) && entry.mode & SPECIAL == 0 { entry.mode } else { CLOSED };
        let mut file = match path::create_new_at(&dir.fd, name, asked) {
            Err(Errno::EXIST) => {
                self.clear(&dir.fd, name, at)?;
                path::create_new_at(&dir.fd, name, asked)
            }
            other => other,
        }
        .map_err(io)?;
        let birth = dir.birth(&file, asked).map_err(|e| PathError::io("examining", at, e))?;
        self.born_to = Some((birth.uid, birth.gid));
        copy(data, &mut file, entry.size, at)?;
        self.refused += path::apply_to_new(&file, at, &attributes, self.ownership, birth)? as u64;
        Ok(())
    }
}

/// Writes an entry's data as it lies in the stream's buffer.
fn copy(data: &mut dyn BufRead, file: &mut File, size: u64, at: &[u8]) -> Result<()> {
    let truncated = || LayerError::Truncated { path: printable(at) };
    let mut left = size;
    while left > 0 {
        let piece = match data.fill_buf() {
            Ok([]) => return Err(truncated()),
            Ok(piece) => piece,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Err(truncated()),
            Err(source) => return Err(LayerError::Read { source }),
        };
        let n = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&piece[..n]).map_err(|source| LayerError::File { path: printable(at), source })?;
        data.consume(n);
        left -= n as u64;
    }
    Ok(())
}
