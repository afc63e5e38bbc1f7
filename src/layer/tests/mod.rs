//! Layers against hostile archives and against other people's tar.

mod archive;
mod births;
mod compression;
mod hostile;
mod round_trip;

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::path::{Ownership, Root, Xattrs, remove_contents};
use crate::snapshot::diff::{Change, ChangeSet, NodeKind, changes};

/// A temporary directory, emptied by our own means: devices and unwritable directories are in it.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self, name: &str) -> (PathBuf, Root) {
        let path = self.0.path().join(name);
        fs::create_dir(&path).unwrap();
        let root = Root::open(&path).unwrap();
        (path, root)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove_contents(Root::open(self.0.path()).unwrap());
    }
}

/// Root, perhaps of a user namespace: what is ours shows as 0:0.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_real_root() -> bool {
    is_root() && ids() > 1 << 20
}

/// How many ids are mapped: all of them for real root, one for `unshare -Ur`.
fn ids() -> u64 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    map.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

fn ownership() -> Ownership {
    if is_root() && ids() > 1 { Ownership::Real } else { Ownership::Recorded }
}

#[allow(clippy::print_stderr)]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// One line an entry: what a layer directory says.
fn listing(set: &ChangeSet) -> Vec<String> {
    let text = |b: &[u8]| crate::path::printable(b);
    let attributes = |x: &Xattrs| x.iter().map(|(n, v)| format!(" {}={}", text(n), text(v))).collect::<String>();
    set.entries
        .iter()
        .map(|e| {
            let path = text(&e.path);
            let node = match &e.change {
                Change::Remove => return format!("- {path}"),
                Change::Opaque => return format!("o {path}"),
                Change::Upsert(node) => node,
            };
            let facts = format!("{:o} {}:{}{}", node.mode, node.uid, node.gid, attributes(&node.xattrs));
            match &node.kind {
                NodeKind::Directory => format!("d {path} {facts}"),
                NodeKind::File { size_bytes } => format!("f {path} {facts} {size_bytes}"),
                NodeKind::HardLink { target } => format!("h {path} {}", text(target)),
                NodeKind::Symlink { target } => format!("l {path} {}", text(target)),
                NodeKind::CharDevice { major, minor } => format!("c {path} {facts} {major},{minor}"),
                NodeKind::BlockDevice { major, minor } => format!("b {path} {facts} {major},{minor}"),
                NodeKind::Fifo => format!("p {path} {facts}"),
            }
        })
        .collect()
}

fn listing_of(dir: &Path) -> Vec<String> {
    listing(&changes(Root::open(dir).unwrap()).unwrap())
}

fn tar_of(dir: &Path, clamp: Option<i64>) -> Vec<u8> {
    let root = Root::open(dir).unwrap();
    let mut out = Vec::new();
    write_tar(&changes(&root).unwrap(), &root, clamp, &mut out).unwrap();
    out
}

fn options(below: Below<'_>) -> UnpackOptions<'_> {
    UnpackOptions { below, ownership: ownership(), limits: Limits::default() }
}
