//! `ply fsck`: is everything that the store vouches for there, and is it what it was?

use std::fs::File;
use std::path::Path;

use clap::Args;

use crate::cli::failure::{FAILED, Failure, chain};
use crate::cli::session::Session;
use crate::digest::{ContentDigest, DiffId, LayerId};
use crate::engine::sources::unpack_again;
use crate::image::config::ImageConfig;
use crate::layer;
use crate::path::Ownership;
use crate::snapshot::diff;
use crate::store::{Depth, FsckReport, LayerProof, Problem, Store, StoreError};
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
    // As `stored::open`: only in the user namespace do the files of an ordinary user's layers show the owners that they
    // were digested with.
    let ownership = session.enter().map_or(Ownership::Recorded, |identity| Session::ownership(&identity));
    let depth = if args.deep { Depth::Deep } else { Depth::Quick };
    let check = |store: &Store| store.fsck(depth, &Files { store, ownership }).map_err(|e| Failure::of(&e));
    let mut store = open(args, session)?;
    let mut report = check(&store)?;
    out::result(&told(&report))?;
    if args.repair && !report.problems.is_empty() {
        store.repair(&report.problems).map_err(|e| Failure::of(&e))?;
        report = check(&store)?;
        if report.problems.iter().any(|p| matches!(p, Problem::Index(_))) {
            let root = store.root().to_path_buf();
            drop(store);
            store = begin_anew(&root, "it is damaged")?;
            report = check(&store)?;
        }
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
    let root = session.store()?;
    match Store::open(&root) {
        Err(error @ StoreError::Index { .. }) if args.repair => begin_anew(&root, &chain(&error)),
        other => other.map_err(|e| Failure::of(&e)),
    }
}

/// Lets a store begin with an empty index; the old one is kept beside it.
fn begin_anew(root: &Path, why: &str) -> Result<Store, Failure> {
    out::line(&format!("{why}: the index is set aside as index.db.damaged"))?;
    Store::set_index_aside(root).map_err(|e| Failure::of(&e))?;
    Store::open(root).map_err(|e| Failure::of(&e))
}

/// Reads the store's layers again.
struct Files<'a> {
    store: &'a Store,
    ownership: Ownership,
}

impl LayerProof for Files<'_> {
    fn digest(&self, _: &LayerId, path: &Path) -> Result<ContentDigest, String> {
        let dir = File::open(path).map_err(|e| format!("opening {}: {e}", path.display()))?;
        let changes = diff::changes(&dir).map_err(|e| chain(&e))?;
        layer::digest(&changes, &dir, None).map(|d| d.content).map_err(|e| chain(&e))
    }

    fn by_blob(&self, layer: &LayerId) -> Result<Option<ContentDigest>, String> {
        let LayerId::Diff(diff_id) = layer else { return Ok(None) };
        let staging = self.store.stage().map_err(|e| chain(&e))?;
        let dir = staging.path().join("layer");
        std::fs::create_dir(&dir).map_err(|e| format!("making {}: {e}", dir.display()))?;
        match unpack_again(self.store, diff_id, &dir, self.ownership) {
            Ok(true) => self.digest(layer, &dir).map(Some),
            Ok(false) => Ok(None),
            Err(e) => Err(chain(&e)),
        }
    }

    fn diff_ids(&self, config: &[u8]) -> Result<Option<Vec<DiffId>>, String> {
        ImageConfig::parse(config).map(|c| Some(c.rootfs.diff_ids)).map_err(|e| format!("it can't be read: {e}"))
    }
}

fn told(report: &FsckReport) -> String {
    let mut out: String = report.problems.iter().map(|p| format!("{p}\n")).collect();
    out.push_str(&format!("{} blobs and {} layers looked at, {} problems", report.blobs, report.layers, report.problems.len()));
    for (layer, why) in &report.unproven {
        out.insert_str(0, &format!("the layer {layer} could not be compared with its blob: {why}\n"));
    }
    if !report.garbage.is_empty() {
        out.push_str(&format!(", {} leftovers for `ply prune`", report.garbage.len()));
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stored::tests::{put, store};
    use crate::image::platform::Platform;
    use crate::store::NewImage;

    #[test]
    fn a_missing_blob_is_found_and_forgotten() {
        let (store, dir) = store();
        let files = Files { store: &store, ownership: Ownership::Recorded };
        let id = put(&store, "a", &["docker.io/library/a:1"]);
        assert_eq!(told(&store.fsck(Depth::Deep, &files).unwrap()), "1 blobs and 0 layers looked at, 0 problems\n");
        std::fs::remove_file(dir.path().join("store/blobs/sha256").join(id.hex())).unwrap();
        let report = store.fsck(Depth::Quick, &files).unwrap();
        assert!(told(&report).contains(&format!("the blob {id} is missing\n")), "{}", told(&report));
        store.repair(&report.problems).unwrap();
        assert_eq!(store.fsck(Depth::Quick, &files).unwrap().problems, []);
    }

    #[test]
    fn an_image_with_other_layers_than_its_configuration_names_is_found_and_forgotten() {
        let (store, _dir) = store();
        let files = Files { store: &store, ownership: Ownership::Recorded };
        let right = put(&store, "a", &["docker.io/library/a:1"]);
        let diff_id = DiffId::from_bytes([1; 32]);
        let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#);
        let platform = Platform::new("linux", "amd64", "");
        let wrong =
            store.put_image(&NewImage { config: config.as_bytes(), layers: Vec::new(), platform, manifest: None, added_secs: 5 }).unwrap();
        let report = store.fsck(Depth::Quick, &files).unwrap();
        let said = told(&report);
        assert!(said.contains(&format!("the image {wrong} is not what its configuration says: it has 0 layers, not these 1\n")), "{said}");
        assert!(!said.contains(&right.to_string()), "{said}");
        store.repair(&report.problems).unwrap();
        assert_eq!(store.fsck(Depth::Quick, &files).unwrap().problems, []);
    }
}
