//! The store's own check: do the rows and the files agree, and do the bytes still have their digests?
//!
//! Rows promise files, never the other way round: a file without a row is what a kill leaves, reported as garbage and
//! taken by the next [`Store::prune`]. What is reported as a [`Problem`] is damage: something vouched for is not
//! there, or is not what it was.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::blob::VerifyingReader;
use super::db::{from_json, parsed};
use super::image::ImageLayer;
use super::{Result, Store, StoreError, db};
use crate::digest::{ContentDigest, DiffId, Digest, LayerId};
use crate::image::manifest::DOCUMENT_MAX_BYTES;

/// How thorough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Rows against names and sizes of files.
    Quick,
    /// Every byte read again.
    Deep,
}

/// Something vouched for is not so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Problem {
    #[error("the index is damaged: {0}")]
    Index(String),
    #[error("the blob {0} is missing")]
    BlobMissing(Digest),
    #[error("the blob {digest} is damaged: {found}")]
    BlobDamaged { digest: Digest, found: String },
    #[error("the layer {0} is missing")]
    LayerMissing(LayerId),
    #[error("the layer {layer} is damaged: {found}")]
    LayerDamaged { layer: LayerId, found: String },
    #[error("the image {image} lacks {part}")]
    ImageIncomplete { image: Digest, part: String },
    #[error("the image {image} is not what its configuration says: {found}")]
    ImageDiffers { image: Digest, found: String },
    #[error("the name `{name}` points to an image that is not there")]
    NameDangling { name: String },
    #[error("a record points to the layer {0}, which is not there")]
    RecordDangling(LayerId),
    #[error("a row can't be read: {0}")]
    Row(String),
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsckReport {
    /// Damage.
    pub problems: Vec<Problem>,
    /// Leftovers of killed processes; harmless, and no live process's.
    pub garbage: Vec<PathBuf>,
    /// How many blobs were looked at.
    pub blobs: u64,
    /// How many layer directories were looked at.
    pub layers: u64,
    /// How many of these nothing can be compared with, or why not: only at [`Depth::Deep`].
    pub unproven: Vec<(LayerId, String)>,
}

/// What a layer's files are, and what they should be; errors are texts for people.
pub trait LayerProof {
    /// Digests a layer's directory.
    fn digest(&self, layer: &LayerId, dir: &Path) -> std::result::Result<ContentDigest, String>;

    /// Returns what a directory that is named by its diff ID should hold, by the blob that it was made of; none: nobody can tell.
    fn by_blob(&self, _layer: &LayerId) -> std::result::Result<Option<ContentDigest>, String> {
        Ok(None)
    }

    /// Returns the layers that an image's configuration names, lowest first; none: nobody can tell.
    fn diff_ids(&self, _config: &[u8]) -> std::result::Result<Option<Vec<DiffId>>, String> {
        Ok(None)
    }
}

impl<F: Fn(&LayerId, &Path) -> std::result::Result<ContentDigest, String>> LayerProof for F {
    fn digest(&self, layer: &LayerId, dir: &Path) -> std::result::Result<ContentDigest, String> {
        self(layer, dir)
    }
}

impl Store {
    /// Checks the store; builds may go on meanwhile. With [`Depth::Deep`], `proof` reads the layers again.
    pub fn fsck(&self, depth: Depth, proof: &dyn LayerProof) -> Result<FsckReport> {
        // The directories themselves are asked, whatever this process saw before.
        self.forget_in_place();
        self.flush()?;
        let mut report = FsckReport::default();
        let pragma = if depth == Depth::Deep { "PRAGMA integrity_check" } else { "PRAGMA quick_check" };
        let verdict = self.all(pragma, [], |r| r.get::<_, String>(0))?;
        report.problems.extend(verdict.into_iter().filter(|line| line != "ok").map(Problem::Index));
        self.check_blobs(depth, &mut report)?;
        self.check_layers(depth, proof, &mut report)?;
        self.check_images(proof, &mut report)?;
        self.check_references(&mut report)?;
        self.confirm(depth, proof, &mut report)?;
        self.find_garbage(&mut report)?;
        Ok(report)
    }

    /// Looks again at what was found while nothing is collected: others may have removed, row and file, what this saw in between.
    fn confirm(&self, depth: Depth, proof: &dyn LayerProof, report: &mut FsckReport) -> Result<()> {
        if report.problems.is_empty() {
            return Ok(());
        }
        let _no_collection = self.collection.shared()?;
        let mut again = FsckReport::default();
        for problem in std::mem::take(&mut report.problems) {
            match &problem {
                Problem::BlobMissing(digest) | Problem::BlobDamaged { digest, .. } => {
                    if let Some(size) = self.blob_size(digest)? {
                        again.problems.extend(self.check_blob(*digest, size, depth));
                    }
                }
                Problem::LayerMissing(layer) | Problem::LayerDamaged { layer, .. } => {
                    let row = self.one("SELECT content FROM layers WHERE id=?1", [layer.to_string()], |r| r.get::<_, Option<String>>(0))?;
                    if let Some(content) = row {
                        self.check_layer(*layer, content, depth, proof, &mut again);
                    }
                }
                Problem::Index(_) | Problem::Row(_) => again.problems.push(problem),
                // Found once more below, if they are still so.
                Problem::ImageIncomplete { .. }
                | Problem::ImageDiffers { .. }
                | Problem::NameDangling { .. }
                | Problem::RecordDangling(_) => {}
            }
        }
        let mut rest = FsckReport::default();
        self.check_images(proof, &mut rest)?;
        self.check_references(&mut rest)?;
        for problem in rest.problems {
            if !again.problems.contains(&problem) {
                again.problems.push(problem);
            }
        }
        report.problems = again.problems;
        Ok(())
    }

    fn check_blobs(&self, depth: Depth, report: &mut FsckReport) -> Result<()> {
        for (digest, size) in self.all("SELECT digest,size_bytes FROM blobs", [], |r| Ok((r.get::<_, String>(0)?, r.get(1)?)))? {
            let Some(digest) = read::<Digest>(&digest, report) else { continue };
            report.blobs += 1;
            report.problems.extend(self.check_blob(digest, db::uint(size), depth));
        }
        Ok(())
    }

    fn check_blob(&self, digest: Digest, size: u64, depth: Depth) -> Option<Problem> {
        let found = match std::fs::File::open(self.blob_path(&digest)) {
            Ok(file) if depth == Depth::Deep => std::io::copy(&mut VerifyingReader::new(file, digest, size), &mut std::io::sink()).err(),
            Ok(file) => file.metadata().map_or_else(Some, |m| {
                let found = m.len();
                (found != size).then(|| std::io::Error::other(format!("{found} bytes instead of {size}")))
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Some(Problem::BlobMissing(digest)),
            Err(e) => Some(e),
        };
        found.map(|e| Problem::BlobDamaged { digest, found: e.to_string() })
    }

    fn check_layers(&self, depth: Depth, proof: &dyn LayerProof, report: &mut FsckReport) -> Result<()> {
        let rows = self.all("SELECT id,content FROM layers", [], |r| Ok((r.get::<_, String>(0)?, r.get::<_, Option<String>>(1)?)))?;
        for (id, content) in rows {
            let Some(layer) = read::<LayerId>(&id, report) else { continue };
            report.layers += 1;
            self.check_layer(layer, content, depth, proof, report);
        }
        Ok(())
    }

    fn check_layer(&self, layer: LayerId, content: Option<String>, depth: Depth, proof: &dyn LayerProof, report: &mut FsckReport) {
        let path = self.layer_path(&layer);
        if !path.is_dir() {
            return report.problems.push(Problem::LayerMissing(layer));
        }
        if depth == Depth::Quick {
            return;
        }
        // A base's layer is named by its tar: what its files should be, the blob knows.
        let by_blob = || match proof.by_blob(&layer) {
            Ok(content) => content.map(|c| c.to_string()).ok_or_else(|| "there is no blob of it".to_owned()),
            Err(why) => Err(why),
        };
        let wanted = match content.map_or_else(by_blob, Ok) {
            Ok(wanted) => wanted,
            Err(why) => return report.unproven.push((layer, why)),
        };
        let found = match proof.digest(&layer, &path) {
            Ok(found) if found.to_string() == wanted => return,
            Ok(found) => format!("its content is {found}, not {wanted}"),
            Err(e) => e,
        };
        report.problems.push(Problem::LayerDamaged { layer, found });
    }

    fn check_images(&self, proof: &dyn LayerProof, report: &mut FsckReport) -> Result<()> {
        let rows = self.all("SELECT id,layers,manifest FROM images", [], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, Option<String>>(2)?))
        })?;
        for (id, layers, manifest) in rows {
            let Some(image) = read::<Digest>(&id, report) else { continue };
            let layers: Vec<ImageLayer> = match from_json("list of layers", &layers) {
                Ok(layers) => layers,
                Err(e) => {
                    report.problems.push(Problem::Row(e.to_string()));
                    continue;
                }
            };
            let mut lacks = |part: String| report.problems.push(Problem::ImageIncomplete { image, part });
            let has_config = self.blob_is_there(&image)?;
            if !has_config {
                lacks("its configuration".into());
            }
            if let Some(manifest) = manifest
                && !self.blob_is_there(&parsed("digest", &manifest)?)?
            {
                lacks(format!("its manifest {manifest}"));
            }
            for layer in &layers {
                if !self.layer_known(&layer.id)? && !self.layer_known(&LayerId::Diff(layer.diff_id))? {
                    lacks(format!("the layer {}", layer.id));
                }
            }
            // One whose bytes are wrong is found where blobs are looked at.
            if has_config && let Ok(config) = self.read_blob(&image, DOCUMENT_MAX_BYTES) {
                let found = match proof.diff_ids(&config) {
                    Ok(Some(wanted)) if wanted.iter().ne(layers.iter().map(|l| &l.diff_id)) => {
                        Some(format!("it has {} layers, not these {}", layers.len(), wanted.len()))
                    }
                    Ok(_) => None,
                    Err(why) => Some(why),
                };
                report.problems.extend(found.map(|found| Problem::ImageDiffers { image, found }));
            }
        }
        Ok(())
    }

    fn check_references(&self, report: &mut FsckReport) -> Result<()> {
        let dangling = "SELECT name FROM names WHERE image NOT IN (SELECT id FROM images)";
        for name in self.all(dangling, [], |r| r.get::<_, String>(0))? {
            report.problems.push(Problem::NameDangling { name });
        }
        for layer in self.all("SELECT DISTINCT layer FROM records", [], |r| r.get::<_, String>(0))? {
            let Some(layer) = read::<LayerId>(&layer, report) else { continue };
            if !self.layer_known(&layer)? {
                report.problems.push(Problem::RecordDangling(layer));
            }
        }
        Ok(())
    }

    /// Lists what no row vouches for and no live process holds.
    fn find_garbage(&self, report: &mut FsckReport) -> Result<()> {
        // The files first, then who holds them or vouches for them: in this order nothing fresh looks like garbage.
        let mut files = Vec::new();
        for (dir, prefix) in [("blobs/sha256", "sha256:"), ("layers", "")] {
            let dir = self.root.join(dir);
            for entry in std::fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
                let entry = entry.map_err(StoreError::io("listing", &dir))?;
                files.push((format!("{prefix}{}", entry.file_name().to_string_lossy()), entry.path()));
            }
        }
        let mut known: HashSet<String> = self.held(true)?;
        known.extend(self.all("SELECT digest FROM blobs UNION ALL SELECT id FROM layers", [], |r| r.get::<_, String>(0))?);
        report.garbage.extend(files.into_iter().filter(|(name, _)| !known.contains(name)).map(|(_, path)| path));
        report.garbage.extend(super::session::stale(&self.root)?);
        Ok(())
    }

    /// Forgets what the problems speak of, so that it is built or fetched again; images that lack a part are removed
    /// with their names. The damaged files become garbage. An index that can be read is written anew, of what it still says;
    /// where it can't be, [`Problem::Index`] is left: see [`Store::set_index_aside`].
    pub fn repair(&self, problems: &[Problem]) -> Result<()> {
        if problems.iter().any(|p| matches!(p, Problem::Index(_))) {
            self.flush()?;
            // What fails here, the next check still finds.
            let _ = self.db().execute_batch("REINDEX; VACUUM");
        }
        for problem in problems {
            match problem {
                Problem::BlobMissing(digest) | Problem::BlobDamaged { digest, .. } => self.discard_blob(digest)?,
                Problem::LayerMissing(layer) | Problem::LayerDamaged { layer, .. } | Problem::RecordDangling(layer) => {
                    self.discard_layer(layer)?;
                }
                Problem::ImageIncomplete { image, .. } | Problem::ImageDiffers { image, .. } => self.remove_image(image)?,
                Problem::NameDangling { name } => drop(self.untag(name)?),
                Problem::Row(_) | Problem::Index(_) => {}
            }
        }
        // An image whose layer was just forgotten lacks it now.
        let mut report = FsckReport::default();
        self.check_images(&|_: &LayerId, _: &Path| Err(String::new()), &mut report)?;
        for problem in report.problems {
            if let Problem::ImageIncomplete { image, .. } = problem {
                self.remove_image(&image)?;
            }
        }
        Ok(())
    }

    /// Forgets a layer directory whose content turned out to be wrong, and every record of it.
    pub fn discard_layer(&self, layer: &LayerId) -> Result<()> {
        self.flush()?;
        self.forget_in_place();
        let id = layer.to_string();
        self.durably("forgetting a layer", |tx| {
            tx.execute("DELETE FROM records WHERE layer=?1", [&id])?;
            tx.execute("DELETE FROM layers WHERE id=?1", [&id]).map(drop)
        })
    }

    /// Moves a damaged index out of the way (to `index.db.damaged`), so that [`Store::open`] starts with an empty one.
    ///
    /// For a store that can't be opened. Images and records are forgotten; their files are garbage afterwards.
    pub fn set_index_aside(root: &Path) -> Result<()> {
        for end in ["", "-wal", "-shm"] {
            let from = root.join(format!("index.db{end}"));
            match std::fs::rename(&from, root.join(format!("index.db.damaged{end}"))) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(StoreError::io("moving away", &from)(e)),
                _ => {}
            }
        }
        db::create(root, &root.join("index.db")).map(drop)
    }
}

fn read<T: std::str::FromStr>(text: &str, report: &mut FsckReport) -> Option<T> {
    let value = text.parse().ok();
    if value.is_none() {
        report.problems.push(Problem::Row(text.chars().take(100).collect()));
    }
    value
}
