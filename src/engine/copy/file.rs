//! Copies one file's bytes: cloned where the file system can, else by the kernel, holes kept.
//!
//! The bytes must be those that the step's key was made of. A settled file (see
//! [`crate::context::Entry::settled`]) is known by its stamp, before and after; any other is hashed on the way.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::context::{Entry, Node, Stamp};
use crate::path::Meta;

/// Files up to this size go through memory: fewer calls than asking the kernel for favours.
const SMALL_BYTES: u64 = 64 * 1024;
const BUFFER: usize = 128 * 1024;

/// Why a file's bytes couldn't be copied.
pub(super) enum Fault {
    /// They aren't those of the digest.
    Changed,
    Read(io::Error),
    Write(io::Error),
}

/// The state that many copies share.
pub(super) struct Copier {
    /// Whether the two file systems may share blocks; asked once.
    clones: Cell<bool>,
    buffer: Vec<u8>,
}

impl Copier {
    pub(super) fn new() -> Self {
        Self { clones: Cell::new(true), buffer: vec![0; BUFFER] }
    }

    /// Copies all of `from`, a regular file opened with stamp `found`, to the empty file `to`.
    pub(super) fn bytes(&mut self, from: &mut File, found: &Stamp, to: &mut File, entry: &Entry) -> Result<(), Fault> {
        if !found.same_content(&entry.stamp) {
            return Err(Fault::Changed);
        }
        if !entry.settled || found.size <= SMALL_BYTES {
            self.through_memory(from, to, entry)?;
        } else {
            self.by_the_kernel(from, to, found.size)?;
        }
        let after = rustix::fs::fstat(&*from).map_err(|e| Fault::Read(e.into()))?;
        match Stamp::from(&Meta::from(&after)).same_content(&entry.stamp) {
            true => Ok(()),
            false => Err(Fault::Changed),
        }
    }

    fn through_memory(&mut self, from: &mut File, to: &mut File, entry: &Entry) -> Result<(), Fault> {
        let mut hasher = (!entry.settled).then(blake3::Hasher::new);
        loop {
            let n = match from.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Fault::Read(e)),
            };
            if let Some(h) = &mut hasher {
                h.update(&self.buffer[..n]);
            }
            to.write_all(&self.buffer[..n]).map_err(Fault::Write)?;
            if (n as u64) < BUFFER as u64 && entry.stamp.size <= SMALL_BYTES && n as u64 == entry.stamp.size {
                break;
            }
        }
        match (hasher, &entry.node) {
            (Some(h), Node::File(digest)) if h.finalize().as_bytes() != digest.as_bytes() => Err(Fault::Changed),
            _ => Ok(()),
        }
    }

    fn by_the_kernel(&mut self, from: &mut File, to: &mut File, size: u64) -> Result<(), Fault> {
        if self.clones.get() {
            match rustix::fs::ioctl_ficlone(&*to, &*from) {
                Ok(()) => return Ok(()),
                // Not on this file system, or not between these two: don't ask again.
                Err(_) => self.clones.set(false),
            }
        }
        let mut at = 0;
        while at < size {
            let (start, end) = next_data(from, at, size);
            if start < end {
                self.range(from, to, start, end)?;
            }
            at = end;
        }
        to.set_len(size).map_err(Fault::Write)
    }

    fn range(&mut self, from: &mut File, to: &mut File, mut start: u64, end: u64) -> Result<(), Fault> {
        while start < end {
            let (mut in_at, mut out_at) = (start, start);
            let want = usize::try_from(end - start).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(from.as_fd(), Some(&mut in_at), to.as_fd(), Some(&mut out_at), want) {
                Ok(0) => return Err(Fault::Changed),
                Ok(n) => start += n as u64,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM | Errno::IO) => {
                    return self.range_through_memory(from, to, start, end);
                }
                Err(e) => return Err(Fault::Write(e.into())),
            }
        }
        Ok(())
    }

    fn range_through_memory(&mut self, from: &mut File, to: &mut File, mut start: u64, end: u64) -> Result<(), Fault> {
        from.seek(SeekFrom::Start(start)).map_err(Fault::Read)?;
        to.seek(SeekFrom::Start(start)).map_err(Fault::Write)?;
        while start < end {
            let want = usize::try_from(end - start).unwrap_or(BUFFER).min(BUFFER);
            let n = match from.read(&mut self.buffer[..want]) {
                Ok(0) => return Err(Fault::Changed),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Fault::Read(e)),
            };
            to.write_all(&self.buffer[..n]).map_err(Fault::Write)?;
            start += n as u64;
        }
        Ok(())
    }
}

/// Whether a file of `size` bytes has holes; it is at its start afterwards.
pub(super) fn has_holes(file: &File, size: u64) -> bool {
    // Without an answer all is data.
    let found = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(0)).is_ok_and(|at| at < size);
    // Failing, the next read fails as well.
    let _ = rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0));
    found
}

/// Returns the next stretch of data at or after `at`; an empty one at the end when only a hole follows.
fn next_data(file: &File, at: u64, size: u64) -> (u64, u64) {
    let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(start) => start.min(size),
        Err(Errno::NXIO) => return (size, size),
        // The file system doesn't know about holes: all is data.
        Err(_) => return (at, size),
    };
    let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).map_or(size, |end| end.clamp(start, size));
    (start, if end > start { end } else { size })
}
