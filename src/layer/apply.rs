//! A hostile tar made into files: a layer into a layer directory, or an archive into a tree.
//!
//! Each entry's parent is walked to inside the root; the last name is never followed, what lies there is
//! removed before something else is made. The order for one file is data, owner, mode, attributes, times: `chown` clears setuid, writing
//! clears capabilities. Directories get their owner, mode and times at the very end: entries that come later
//! would move the times, and might not be writable.
//!
//! In a layer directory a parent that the archive does not name, or a hard link's target, may lie in the layers
//! below: see [`Below`].

mod below;
mod file;
mod parents;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use file::Parent;

use super::read::{EntryKind, TarEntry, TarReader};
use super::whiteout::{self, Name};
use super::{LayerError, Result, pipeline};
use crate::digest::DiffId;
use crate::path::{self, Attributes, FileKind, Ownership, PathError, Root, printable};
use crate::snapshot::overlay;

/// The layers under the one that is unpacked.
#[derive(Debug, Clone, Copy)]
pub enum Below<'a> {
    /// It is the lowest: whiteouts mean nothing.
    Nothing,
    /// Not at hand. An archive that needs them ends with [`LayerError::NeedsBelow`]; few do.
    Unknown,
    /// All of them, merged.
    Tree(&'a Root),
}

/// What an archive may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of file data.
    pub max_bytes: u64,
    /// The most entries.
    pub max_entries: u64,
}

impl Default for Limits {
    /// 256 GiB and ten million entries: far above any image, far below a full disk's worth of inodes.
    fn default() -> Self {
        Self { max_bytes: 256 << 30, max_entries: 10_000_000 }
    }
}

/// How a layer is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct UnpackOptions<'a> {
    /// The layers under it.
    pub below: Below<'a>,
    /// Whether owners can be real.
    pub ownership: Ownership,
    /// What it may cost.
    pub limits: Limits,
}

/// What a layer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries.
    pub entries: u64,
    /// Bytes of file data.
    pub bytes: u64,
    /// Attributes that the file system or the lack of privilege refused.
    pub refused_xattrs: u64,
    /// The SHA-256 of all bytes read, up to the end of the stream.
    pub diff_id: DiffId,
    /// How many those are.
    pub tar_size_bytes: u64,
}

/// How an archive is extracted (ADD).
#[derive(Debug, Clone, Copy)]
pub struct ExtractOptions {
    /// Owner and group of everything (`--chown`); none: the archive's.
    pub owner: Option<(u32, u32)>,
    /// Whether owners can be real.
    pub ownership: Ownership,
    /// What it may cost.
    pub limits: Limits,
}

/// What an archive held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extracted {
    /// Entries.
    pub entries: u64,
    /// Bytes of file data.
    pub bytes: u64,
}

/// Applies a layer's uncompressed tar to the empty layer directory `dir`, and returns its diff ID.
///
/// On failure `dir` holds some of it: the caller throws it away. Nothing outside `dir` was touched.
pub fn unpack(reader: impl Read + Send, dir: &Root, options: &UnpackOptions<'_>) -> Result<Unpacked> {
    let mut apply = Apply::new(dir, Some(options.below), options.ownership, options.limits, None);
    let ((), diff_id, tar_size_bytes) = pipeline::hashed(reader, |stream| apply.all(stream))?;
    let Apply { entries, bytes, refused, .. } = apply;
    Ok(Unpacked { entries, bytes, refused_xattrs: refused, diff_id, tar_size_bytes })
}

/// Extracts an uncompressed tar below the directory `dest` of the tree `root`, which is made when missing.
///
/// Files replace what lies in their place one by one, directories merge. `.wh.` names mean nothing here.
pub fn extract(reader: impl Read, root: &Root, dest: &[u8], options: &ExtractOptions) -> Result<Extracted> {
    root.mkdir_all(dest, 0o755, options.owner, options.ownership)?;
    let (_, at) = root.descend::<PathError>(dest, &mut |_, _, at, _| Err(PathError::NotDirectory { path: printable(at) }))?;
    let mut apply = Apply::new(root, None, options.ownership, options.limits, options.owner);
    apply.dest = at;
    apply.all(BufReader::with_capacity(BUFFER_BYTES, reader))?;
    Ok(Extracted { entries: apply.entries, bytes: apply.bytes })
}

/// What is read at once of an archive that no thread reads ahead.
const BUFFER_BYTES: usize = 128 << 10;

struct Apply<'a> {
    root: &'a Root,
    /// A layer directory over these layers; none: a plain tree.
    below: Option<Below<'a>>,
    ownership: Ownership,
    owner: Option<(u32, u32)>,
    limits: Limits,
    /// Where the archive's root lies; without links.
    dest: Vec<u8>,
    /// The directory of the last entry: archives come directory by directory.
    parent: Option<Rc<Parent>>,
    /// The owner that the last new file had by itself.
    born_to: Option<(u32, u32)>,
    /// What directories get at the end.
    directories: BTreeMap<Vec<u8>, Attributes>,
    /// Files of lower layers that are here only so that they could be linked to: nothing that the layer itself says.
    copied_up: BTreeSet<Vec<u8>>,
    /// Directories of lower layers that are here only on the way to what is gone or was copied up.
    passed: BTreeSet<Vec<u8>>,
    entries: u64,
    bytes: u64,
    refused: u64,
}

impl<'a> Apply<'a> {
    fn new(root: &'a Root, below: Option<Below<'a>>, ownership: Ownership, limits: Limits, owner: Option<(u32, u32)>) -> Self {
        let (directories, copied_up, passed) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (parent, born_to, dest, entries, bytes, refused) = (None, None, Vec::new(), 0, 0, 0);
        Self { root, below, ownership, owner, limits, dest, parent, born_to, directories, copied_up, passed, entries, bytes, refused }
    }

    fn all(&mut self, stream: impl BufRead) -> Result<()> {
        let mut tar = TarReader::new(stream);
        while let Some(entry) = tar.next_entry()? {
            self.entries += 1;
            self.bytes = self.bytes.saturating_add(entry.size);
            if self.entries > self.limits.max_entries {
                return Err(LayerError::TooLarge { limit: self.limits.max_entries, unit: "entries" });
            }
            if self.bytes > self.limits.max_bytes {
                return Err(LayerError::TooLarge { limit: self.limits.max_bytes, unit: "bytes" });
            }
            self.entry(&entry, &mut tar)?;
        }
        self.finish_directories()
    }

    fn entry(&mut self, entry: &TarEntry, data: &mut dyn BufRead) -> Result<()> {
        let inside = path::clean(&entry.path);
        let Some((parent, name)) = path::split(&inside) else { return self.root_entry(entry) };
        if self.below.is_some() {
            if parent.split(|&c| c == b'/').any(|part| part.starts_with(b".wh.")) {
                return Err(refuse(&inside, "it lies in a whiteout"));
            }
            match whiteout::parse(name, &inside)? {
                Name::Plain(_) => {}
                Name::Ignored => return Ok(()),
                Name::Removed(name) => return self.whiteout(parent, name),
                Name::Opaque => return self.opaque(parent),
            }
        }
        if entry.kind == EntryKind::CharDevice && entry.rdev == (0, 0) {
            // Overlay's mark of a removed file: no device, and nothing that an archive may say.
            return Ok(());
        }
        let (at, parent_at) = (self.located(&inside), self.located(parent));
        let dir = self.parent(&parent_at)?;
        let at = if dir.at == parent_at { at } else { join(&dir.at, name) };
        match entry.kind {
            EntryKind::File => self.file(entry, &dir, name, &at, data),
            EntryKind::Directory => self.directory(entry, &dir.fd, name, at),
            EntryKind::HardLink => self.hard_link(entry, &dir.fd, name, &at),
            _ => self.other(entry, &dir.fd, name, &at),
        }
    }

    /// The archive's own root: only a directory can be one.
    fn root_entry(&mut self, entry: &TarEntry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(refuse(&entry.path, "the root can only be a directory"));
        }
        if self.below.is_some() {
            overlay::set_root_changed(self.root).map_err(|e| PathError::io("marking", b"/", e))?;
        }
        self.directories.insert(self.dest.clone(), self.attributes(entry));
        Ok(())
    }

    fn directory(&mut self, entry: &TarEntry, dir: &OwnedFd, name: &[u8], at: Vec<u8>) -> Result<()> {
        match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if found(dir, name, &at)?.as_ref().is_some_and(is_directory) => {}
            Err(Errno::EXIST) => {
                self.clear(dir, name, &at)?;
                make_directory(dir, name, &at, self.has_lowers())?;
            }
            Err(e) => return Err(PathError::io("creating directory", &at, e).into()),
        }
        self.keep(&at);
        self.directories.insert(at, self.attributes(entry));
        Ok(())
    }

    fn other(&mut self, entry: &TarEntry, dir: &OwnedFd, name: &[u8], at: &[u8]) -> Result<()> {
        if found(dir, name, at)?.is_some() {
            self.clear(dir, name, at)?;
        }
        let io = |e: Errno| PathError::io("creating", at, e);
        let attributes = self.attributes(entry);
        let made: OwnedFd = match entry.kind {
            EntryKind::Symlink => {
                rustix::fs::symlinkat(entry.link.as_slice(), dir, name).map_err(io)?;
                open_nofollow(dir, name).map_err(io)?
            }
            kind => {
                let kind = match kind {
                    EntryKind::CharDevice => FileKind::CharDevice,
                    EntryKind::BlockDevice => FileKind::BlockDevice,
                    _ => FileKind::Fifo,
                };
                path::mknod_at(dir, name, kind, entry.rdev, self.ownership).map_err(io)?;
                open_nofollow(dir, name).map_err(io)?
            }
        };
        self.refused += path::apply(&made, at, &attributes, self.ownership)? as u64;
        Ok(())
    }

    fn hard_link(&mut self, entry: &TarEntry, dir: &OwnedFd, name: &[u8], at: &[u8]) -> Result<()> {
        let target = path::clean(&entry.link);
        let Some((target_parent, target_name)) = path::split(&target) else {
            return Err(refuse(at, "a hard link to the root"));
        };
        let from = self.link_source(target_parent, target_name, at)?;
        let stat = found(&from, target_name, at)?.ok_or_else(|| refuse(at, "the hard link's target does not exist"))?;
        if is_directory(&stat) {
            return Err(refuse(at, "a hard link to a directory"));
        }
        if let Some(old) = found(dir, name, at)? {
            if (old.st_dev, old.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(());
            }
            self.clear(dir, name, at)?;
        }
        // Without AT_SYMLINK_FOLLOW: a link as the target is itself linked.
        rustix::fs::linkat(&from, target_name, dir, name, AtFlags::empty()).map_err(|e| PathError::io("linking", at, e))?;
        Ok(())
    }

    /// Removes what lies where an entry goes, and forgets what was to be done to it.
    fn clear(&mut self, dir: &OwnedFd, name: &[u8], at: &[u8]) -> Result<()> {
        path::remove_tree(dir, name)?;
        let below = [at, b"/"].concat();
        let stays = |p: &[u8]| p != at && !p.starts_with(&below);
        self.directories.retain(|p, _| stays(p));
        self.copied_up.retain(|p| stays(p));
        self.passed.retain(|p| stays(p));
        // The remembered directory may just have gone.
        self.parent = None;
        Ok(())
    }

    /// Whether there may be anything that a mark of overlay could hide.
    fn has_lowers(&self) -> bool {
        matches!(self.below, Some(Below::Unknown | Below::Tree(_)))
    }

    fn located(&self, inside: &[u8]) -> Vec<u8> {
        join(&self.dest, inside)
    }

    fn attributes(&self, entry: &TarEntry) -> Attributes {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        let mode = (entry.kind != EntryKind::Symlink).then_some(entry.mode);
        Attributes { uid, gid, mode, mtime: Some(entry.mtime), xattrs: entry.xattrs.clone() }
    }

    /// Deepest first: a directory that is closed to us is closed after what is in it.
    fn finish_directories(&mut self) -> Result<()> {
        for (at, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            let dir = self.root.open_dir_nolinks(&at)?;
            self.refused += path::apply(&dir, &at, &attributes, self.ownership)? as u64;
        }
        Ok(())
    }
}

fn refuse(path: &[u8], what: &'static str) -> LayerError {
    LayerError::Entry { path: printable(path), what }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir, name) {
        (b"", name) => name.to_vec(),
        (dir, b"") => dir.to_vec(),
        (dir, name) => [dir, b"/", name].concat(),
    }
}

fn found(dir: &OwnedFd, name: &[u8], at: &[u8]) -> Result<Option<Stat>> {
    match path::lstat_at(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(PathError::io("examining", at, e).into()),
    }
}

fn is_whiteout(dir: &OwnedFd, name: &[u8], at: &[u8]) -> Result<bool> {
    let meta = path::meta_at(dir, name).map_err(|e| PathError::io("examining", at, e))?;
    Ok(overlay::is_whiteout(&meta))
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn open_nofollow(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a directory; one that replaces something hides what lower layers have there.
fn make_directory(dir: &OwnedFd, name: &[u8], at: &[u8], opaque: bool) -> Result<()> {
    let io = |e: Errno| PathError::io("creating directory", at, e);
    rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(io)?;
    if opaque {
        overlay::set_opaque(open_nofollow(dir, name).map_err(io)?).map_err(io)?;
    }
    Ok(())
}
