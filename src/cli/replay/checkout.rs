//! A commit's files written out, each commit over the one before: only what changed is touched.
//!
//! Bytes are written as git keeps them: neither filters nor line ends that attributes ask for are applied, as those name
//! programs. The directory is ours alone, and no path leads through a link: what is gone or of another kind is removed before
//! anything is made.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::history::{Kind, Objects, Oid};

/// A link's target that is longer can't be made.
const TARGET_MAX_BYTES: u64 = 4095;

/// A directory that holds a commit's files.
pub(super) struct Checkout {
    dir: PathBuf,
    /// What lies there, by path; parents come before what they hold.
    holds: BTreeMap<PathBuf, (Kind, Oid)>,
}

impl Checkout {
    /// Makes the directory.
    pub fn new(dir: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o755).create(&dir)?;
        Ok(Self { dir, holds: BTreeMap::new() })
    }

    /// Makes it hold this tree, and nothing else; returns where.
    pub fn set(&mut self, objects: &mut Objects, tree: Oid) -> io::Result<PathBuf> {
        let mut wanted = BTreeMap::new();
        list(objects, tree, Path::new(""), &mut wanted)?;
        // A directory stays whatever its tree is called.
        let same = |a: &(Kind, Oid), b: &(Kind, Oid)| a == b || (a.0 == b.0 && matches!(a.0, Kind::Directory | Kind::Submodule));
        let gone: Vec<PathBuf> = self
            .holds
            .iter()
            .filter(|(path, is)| wanted.get(*path).is_none_or(|new| !same(is, new)))
            .map(|(path, _)| path.clone())
            .collect();
        // What a directory holds is gone before it.
        for path in gone.into_iter().rev() {
            let (kind, _) = self.holds.remove(&path).unwrap_or((Kind::Link, tree));
            let place = self.dir.join(&path);
            if matches!(kind, Kind::Directory | Kind::Submodule) { fs::remove_dir(&place)? } else { fs::remove_file(&place)? }
        }
        for (path, (kind, id)) in wanted {
            if self.holds.insert(path.clone(), (kind, id)).is_none() {
                self.make(objects, &path, kind, id)?;
            }
        }
        Ok(self.dir.clone())
    }

    fn make(&self, objects: &mut Objects, path: &Path, kind: Kind, id: Oid) -> io::Result<()> {
        let place = self.dir.join(path);
        match kind {
            Kind::Directory | Kind::Submodule => {
                fs::DirBuilder::new().create(&place)?;
                fs::set_permissions(&place, fs::Permissions::from_mode(0o755))
            }
            Kind::File { executable } => {
                let mut file = fs::File::create_new(&place)?;
                objects.copy_blob(id, &mut file).map_err(io::Error::other)?;
                file.set_permissions(fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
            }
            Kind::Link => {
                let target = objects.blob(id, TARGET_MAX_BYTES).map_err(io::Error::other)?;
                symlink(OsStr::from_bytes(&target), &place)
            }
        }
    }
}

fn list(objects: &mut Objects, tree: Oid, path: &Path, out: &mut BTreeMap<PathBuf, (Kind, Oid)>) -> io::Result<()> {
    for item in &objects.tree(tree).map_err(io::Error::other)?.items {
        let below = path.join(OsStr::from_bytes(&item.name));
        out.insert(below.clone(), (item.kind, item.id));
        if item.kind == Kind::Directory {
            list(objects, item.id, &below, out)?;
        }
    }
    Ok(())
}
