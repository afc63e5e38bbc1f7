//! Whole trees → one tar: image root file systems without layers, side by side or in directories of their own.
//!
//! A tree has no whiteouts; one that holds overlay's marks was not merged by whoever calls.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::BorrowedFd;

use super::write::{Counted, DirectoryFiles, Ignore, write_entries};
use super::{LayerError, Result, header};
use crate::path::printable;
use crate::snapshot::diff::{self, Change, ChangeSet, Entry, NodeKind};

/// A tree and its place in an archive.
#[derive(Debug, Clone)]
pub struct Placed<'a> {
    /// The directory of the archive that it goes to, one name; empty: the archive's root.
    pub below: String,
    /// The tree's root.
    pub dir: BorrowedFd<'a>,
}

/// Writes trees as one tar, in order, and returns the bytes written; times as [`super::write_tar`] has them.
///
/// Trees may share directories: the first one's owner and mode count. A file that two of them have is an error, found
/// before any byte of the later tree is written.
pub fn flatten(trees: &[Placed<'_>], clamp_epoch: Option<i64>, sink: &mut dyn Write) -> Result<u64> {
    let mut counted = Counted { sink, bytes: 0 };
    let mut taken = HashSet::new();
    for tree in trees {
        let below = if tree.below.is_empty() { String::new() } else { format!("{}/", tree.below) };
        let mut changes = moved(diff::tree(tree.dir)?, &tree.below, &below);
        if trees.len() > 1 {
            changes.entries = without_taken(changes.entries, &mut taken)?;
        }
        write_entries(&changes, &mut DirectoryFiles::new(tree.dir, below.as_bytes())?, clamp_epoch, &mut counted, &mut Ignore)?;
    }
    header::write_end(&mut counted).map_err(|source| LayerError::Write { source })?;
    Ok(counted.bytes)
}

/// Puts a tree into the directory `name`; `below` is its name with a `/`, or both are empty.
fn moved(mut tree: ChangeSet, name: &str, below: &str) -> ChangeSet {
    let place = |path: &[u8]| if path.is_empty() { name.as_bytes().to_vec() } else { [below.as_bytes(), path].concat() };
    for entry in &mut tree.entries {
        entry.path = place(&entry.path);
        if let Change::Upsert(node) = &mut entry.change
            && let NodeKind::HardLink { target } = &mut node.kind
        {
            *target = place(target);
        }
    }
    tree
}

/// Leaves out the directories that an earlier tree brought.
fn without_taken(entries: Vec<Entry>, taken: &mut HashSet<(Vec<u8>, bool)>) -> Result<Vec<Entry>> {
    let mut left = Vec::with_capacity(entries.len());
    for entry in entries {
        let directory = matches!(&entry.change, Change::Upsert(node) if node.kind == NodeKind::Directory);
        if taken.contains(&(entry.path.clone(), true)) && directory {
            continue;
        }
        if taken.contains(&(entry.path.clone(), true)) || taken.contains(&(entry.path.clone(), false)) {
            return Err(LayerError::Overlap { path: printable(&entry.path) });
        }
        taken.insert((entry.path.clone(), directory));
        left.push(entry);
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::layer::TarReader;
    use crate::path::Root;

    fn tree(files: &[&str]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn names(trees: &[(&str, &Root)]) -> Result<Vec<String>> {
        let placed: Vec<_> = trees.iter().map(|(below, root)| Placed { below: (*below).to_string(), dir: root.as_fd() }).collect();
        let mut tar = Vec::new();
        flatten(&placed, Some(0), &mut tar)?;
        let mut reader = TarReader::new(tar.as_slice());
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        Ok(names)
    }

    #[test]
    fn trees_go_to_directories_of_their_own_or_side_by_side() {
        let (one, first) = tree(&["d/a"]);
        std::fs::hard_link(one.path().join("d/a"), one.path().join("d/b")).unwrap();
        let (_two, second) = tree(&["d/c"]);
        let own = names(&[("linux_amd64", &first), ("linux_arm64", &second)]).unwrap();
        let want =
            ["linux_amd64/", "linux_amd64/d/", "linux_amd64/d/a", "linux_amd64/d/b", "linux_arm64/", "linux_arm64/d/", "linux_arm64/d/c"];
        assert_eq!(own, want);
        assert_eq!(names(&[("", &first), ("", &second)]).unwrap(), ["./", "d/", "d/a", "d/b", "d/c"]);
        assert_eq!(names(&[("", &second)]).unwrap(), ["./", "d/", "d/c"]);
    }

    #[test]
    fn a_file_of_two_trees_is_an_error() {
        let (_one, first) = tree(&["d/a"]);
        for other in ["d/a", "d"] {
            let (_two, second) = tree(&[other]);
            let error = names(&[("", &first), ("", &second)]).unwrap_err();
            assert!(matches!(&error, LayerError::Overlap { path } if path == other), "{error:?}");
            let error = names(&[("", &second), ("", &first)]).unwrap_err();
            assert!(matches!(&error, LayerError::Overlap { path } if path == other), "{error:?}");
        }
    }
}
