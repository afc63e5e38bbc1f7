//! `ply fsck`: is everything that the store vouches for there, and is it what it was?

use std::fs::File;
use std::path::Path;

use clap::Args;

use crate::cli::failure::{FAILED, Failure, chain};
use crate::cli::session::Session;
use crate::digest::{ContentDigest, LayerId};
use crate::layer;
use crate::snapshot::diff;
use crate::store::{Depth, FsckReport, Store, StoreError};
use crate::ui::out;

/// Check the store
#[derive(Debug, Clone, Args)]
#[command(after_help = "Leftovers of killed builds are no damage; `ply prune` removes them.")]
pub struct FsckArgs {
    /// Read every byte again
    #[arg(long)]
    pub deep: bool,
    /// Forget what is damaged, so that it is built or fetched again
    #[arg(long)]
    pub repair: bool,
}

/// Checks, prints what was found; damage that stays is a failure.
pub fn run(args: &FsckArgs, session: &Session) -> Result<(), Failure> {
    let store = open(args, session)?;
    let depth = if args.deep { Depth::Deep } else { Depth::Quick };
    let check = || store.fsck(depth, &digest_layer).map_err(|e| Failure::of(&e));
    let mut report = check()?;
    out::result(&told(&report))?;
    if args.repair && !report.problems.is_empty() {
        store.repair(&report.problems).map_err(|e| Failure::of(&e))?;
        report = check()?;
        out::line(&format!("repaired; {} problems are left", report.problems.len()))?;
    }
    match report.problems.len() {
        0 => Ok(()),
        _ if args.repair => Err(Failure::silent(FAILED)),
        n => Err(Failure::message(format!("the store has {n} problems")).hint("`ply fsck --repair` forgets what is damaged")),
    }
}

/// Opens the store; one whose index can't be read begins anew where repair was asked for.
fn open(args: &FsckArgs, session: &Session) -> Result<Store, Failure> {
    // As `stored::open`: only in the user namespace do the files of an ordinary user's layers show the owners that they
    // were digested with.
    let _ = session.enter();
    let root = session.store()?;
    match Store::open(&root) {
        Err(error @ StoreError::Index { .. }) if args.repair => {
            out::line(&format!("{}: the index is set aside as index.db.damaged", chain(&error)))?;
            Store::set_index_aside(&root).map_err(|e| Failure::of(&e))?;
            Store::open(&root).map_err(|e| Failure::of(&e))
        }
        other => other.map_err(|e| Failure::of(&e)),
    }
}

/// Digests a layer's directory again.
fn digest_layer(_: &LayerId, path: &Path) -> Result<ContentDigest, String> {
    let dir = File::open(path).map_err(|e| format!("opening {}: {e}", path.display()))?;
    let changes = diff::changes(&dir).map_err(|e| chain(&e))?;
    layer::digest(&changes, &dir, None).map(|d| d.content).map_err(|e| chain(&e))
}

fn told(report: &FsckReport) -> String {
    let mut out: String = report.problems.iter().map(|p| format!("{p}\n")).collect();
    out.push_str(&format!("{} blobs and {} layers looked at, {} problems", report.blobs, report.layers, report.problems.len()));
    if !report.garbage.is_empty() {
        out.push_str(&format!(", {} leftovers for `ply prune`", report.garbage.len()));
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stored::tests::{put, store};

    #[test]
    fn a_missing_blob_is_found_and_forgotten() {
        let (store, dir) = store();
        let id = put(&store, "a", &["docker.io/library/a:1"]);
        assert_eq!(told(&store.fsck(Depth::Deep, &digest_layer).unwrap()), "1 blobs and 0 layers looked at, 0 problems\n");
        std::fs::remove_file(dir.path().join("store/blobs/sha256").join(id.hex())).unwrap();
        let report = store.fsck(Depth::Quick, &digest_layer).unwrap();
        assert!(told(&report).contains(&format!("the blob {id} is missing\n")), "{}", told(&report));
        store.repair(&report.problems).unwrap();
        assert_eq!(store.fsck(Depth::Quick, &digest_layer).unwrap().problems, []);
    }
}
