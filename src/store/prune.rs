//! Garbage collection: what nothing needs any more leaves the store.
//!
//! Rows go first, in one transaction that is on the disk before the first file moves; then the files move into our
//! own staging (a rename each), then they are deleted at leisure. A kill in between leaves files without rows, which
//! the next collection takes. Only rows and renames happen under the collection lock, so a build that takes a layer
//! meanwhile waits for moments, and finds it there, held, or gone: a miss.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rusqlite::Transaction;

use super::db::uint;
use super::rows::{DOWNLOADS, MADE_AGAIN, SEVERAL};
use super::usage::{Usage, UsageKind, Walk};
use super::{Result, Store, StoreError, log, session};

/// What to remove. Without any choice: only what nothing can reach, and images without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneOptions {
    /// Also every record, downloads, git repositories, and pulled images that have no name of their own.
    pub all: bool,
    /// Also records, downloads and repositories that were last of use before this moment (unix seconds).
    pub unused_since_secs: Option<i64>,
    /// Also the records that were of use longest ago, until the store takes no more than this. Images, repositories, cache mounts and
    /// what live builds hold stay, so it may not get there.
    pub max_used_bytes: Option<u64>,
    /// Also cache mounts that no step uses; with `unused_since_secs`, those that none opened since.
    pub cache_mounts: bool,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// How many images.
    pub images: u64,
    /// How many records.
    pub records: u64,
    /// How many layer directories.
    pub layers: u64,
    /// How many blobs.
    pub blobs: u64,
    /// What the disk got back.
    pub freed: Usage,
}

/// Everything that may be removed now, by name.
struct Victims {
    layers: Vec<PathBuf>,
    blobs: Vec<PathBuf>,
}

impl Store {
    /// Removes what `options` choose. Never what a live build uses, an image needs, or [`Store::pin`] protects.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        self.flush()?;
        let mut report = PruneReport::default();
        if options.cache_mounts {
            report.freed += self.freed_mounts(options.unused_since_secs.filter(|_| !options.all))?;
        }
        if options.all || options.unused_since_secs.is_some() {
            report.freed += self.remove_repositories(options.unused_since_secs.filter(|_| !options.all))?;
        }
        let sizes = match options.max_used_bytes {
            Some(_) => self.sizes()?,
            None => Sizes::default(),
        };
        session::reclaim_stale(&self.root)?;
        let trash = self.stage()?;
        {
            let _alone = self.collection.exclusive()?;
            let held = self.held(true)?;
            let needed = self.durably("removing rows", |tx| {
                report.images = remove_unnamed(tx, options.all, &held)?;
                report.records = remove_records(tx, options, &held, &sizes)?;
                remove_downloads(tx, options, &sizes)?;
                if report.records > 0 {
                    tx.execute("DELETE FROM meta WHERE kind=?1", [MADE_AGAIN])?;
                }
                let needed = Needed::gather(tx, &held)?;
                needed.remove_others(tx)?;
                Ok(needed)
            })?;
            let victims = self.victims(&needed)?;
            (report.layers, report.blobs) = (victims.layers.len() as u64, victims.blobs.len() as u64);
            for (n, path) in victims.layers.iter().chain(&victims.blobs).enumerate() {
                let gone = trash.path().join(n.to_string());
                std::fs::rename(path, gone).map_err(StoreError::io("removing", path))?;
            }
        }
        for (_, usage) in Walk::default().children(trash.path(), false)? {
            report.freed += usage;
        }
        session::remove(trash.path())?;
        Ok(report)
    }

    /// Lists the files whose rows are gone (or never came), and whom no live build holds.
    fn victims(&self, needed: &Needed) -> Result<Victims> {
        let unneeded = |dir: &str, prefix: &str, kept: &HashSet<String>| {
            let dir = self.root.join(dir);
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&dir).map_err(StoreError::io("listing", &dir))? {
                let entry = entry.map_err(StoreError::io("listing", &dir))?;
                if !kept.contains(&format!("{prefix}{}", entry.file_name().to_string_lossy())) {
                    found.push(entry.path());
                }
            }
            Ok(found)
        };
        Ok(Victims { layers: unneeded("layers", "", &needed.layers)?, blobs: unneeded("blobs/sha256", "sha256:", &needed.blobs)? })
    }

    fn freed_mounts(&self, since_secs: Option<i64>) -> Result<Usage> {
        let total = |store: &Self| -> Result<Usage> {
            let mut sum = Usage::default();
            for row in store.du()?.iter().filter(|r| r.kind == UsageKind::CacheMount) {
                sum += row.usage;
            }
            Ok(sum)
        };
        let before = total(self)?;
        self.remove_unused_mounts(since_secs, |_| true)?;
        let after = total(self)?;
        Ok(Usage { bytes: before.bytes.saturating_sub(after.bytes), inodes: before.inodes.saturating_sub(after.inodes) })
    }

    fn sizes(&self) -> Result<Sizes> {
        let mut sizes = Sizes::default();
        for row in self.du()? {
            sizes.total += row.usage.bytes;
            if row.kind == UsageKind::Layer {
                sizes.layers.insert(row.name, row.usage.bytes);
            }
        }
        // A layer's tars go with it.
        // Each blob once: a tar may serve with and without a clamp.
        let tars = "SELECT DISTINCT d.layer,b.digest,b.size_bytes FROM layer_diffs d JOIN layer_blobs b ON b.diff_id=d.diff_id";
        for (layer, bytes) in self.all(tars, [], |r| Ok((r.get::<_, String>(0)?, uint(r.get(2)?))))? {
            let size = sizes.layers.entry(layer).or_default();
            *size = size.saturating_add(bytes);
        }
        Ok(sizes)
    }
}

#[derive(Default)]
struct Sizes {
    total: u64,
    layers: HashMap<String, u64>,
}

fn texts(tx: &Transaction<'_>, sql: &str) -> rusqlite::Result<Vec<String>> {
    tx.prepare_cached(sql)?.query_map([], |r| r.get(0))?.collect()
}

/// Removes images without a name, but not those that a live process just put or runs.
fn remove_unnamed(tx: &Transaction<'_>, all: bool, held: &HashSet<String>) -> rusqlite::Result<u64> {
    // What belongs to a name beside its image lives as long as the name names one of its images.
    let alive = "EXISTS (SELECT 1 FROM json_each(CAST(meta.value AS TEXT),'$.images') AS j WHERE (meta.key,j.value) IN
        (SELECT name,image FROM names UNION SELECT name,image FROM repo_digests))";
    tx.execute(&format!("DELETE FROM meta WHERE meta.kind=?1 AND NOT {alive}"), [SEVERAL])?;
    let others = format!(
        "SELECT j.value FROM meta, json_each(CAST(meta.value AS TEXT),'$.images') AS j WHERE meta.kind='{SEVERAL}' AND meta.key IN (SELECT name FROM names)"
    );
    if all {
        tx.execute(&format!("DELETE FROM sources WHERE image NOT IN (SELECT image FROM names) AND image NOT IN ({others})"), [])?;
    }
    let sql = format!(
        "SELECT id FROM images WHERE id NOT IN (SELECT image FROM names) AND id NOT IN (SELECT image FROM sources) AND id NOT IN ({others})"
    );
    let mut images = 0;
    for id in texts(tx, &sql)?.iter().filter(|id| !held.contains(*id)) {
        images += tx.execute("DELETE FROM images WHERE id=?1", [id])? as u64;
    }
    tx.execute("DELETE FROM sources WHERE image NOT IN (SELECT id FROM images)", [])?;
    tx.execute("DELETE FROM repo_digests WHERE image NOT IN (SELECT id FROM images)", [])?;
    Ok(images)
}

/// Removes the records that the options choose. A record whose layer a live build holds stays: it is in use.
fn remove_records(tx: &Transaction<'_>, options: &PruneOptions, held: &HashSet<String>, sizes: &Sizes) -> rusqlite::Result<u64> {
    let records: Vec<(i64, String, i64)> = tx
        .prepare_cached("SELECT rowid,layer,last_used FROM records ORDER BY last_used, cost_secs, rowid")?
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut users: HashMap<String, u64> = HashMap::new();
    for layer in records.iter().map(|r| &r.1).chain(&layers_of_images(tx)?).chain(&texts(tx, "SELECT layer FROM pins")?) {
        *users.entry(layer.clone()).or_default() += 1;
    }
    let mut total = sizes.total;
    let mut removed = 0;
    for (row, layer, last_used) in &records {
        let old = options.unused_since_secs.is_some_and(|since| *last_used < since);
        let too_much = options.max_used_bytes.is_some_and(|max| total > max);
        if held.contains(layer) || !(options.all || old || too_much) {
            continue;
        }
        tx.prepare_cached("DELETE FROM records WHERE rowid=?1")?.execute([row])?;
        removed += 1;
        let left = users.entry(layer.clone()).or_default();
        *left = left.saturating_sub(1);
        if *left == 0 {
            total = total.saturating_sub(sizes.layers.get(layer).copied().unwrap_or(0));
        }
    }
    Ok(removed)
}

/// Forgets downloads that the options choose: their content is in the layers of those who wanted it.
fn remove_downloads(tx: &Transaction<'_>, options: &PruneOptions, sizes: &Sizes) -> rusqlite::Result<()> {
    let full = options.max_used_bytes.is_some_and(|max| sizes.total > max);
    if options.all || full {
        tx.execute("DELETE FROM meta WHERE kind=?1", [DOWNLOADS])?;
    } else if let Some(since) = options.unused_since_secs {
        tx.execute(
            "DELETE FROM meta WHERE kind=?1 AND json_extract(CAST(value AS TEXT),'$.used_secs')<?2",
            rusqlite::params![DOWNLOADS, since],
        )?;
    }
    Ok(())
}

/// Reads the layer and diff ids out of the images' lists; both forms are names of layers.
fn layers_of_images(tx: &Transaction<'_>) -> rusqlite::Result<Vec<String>> {
    texts(tx, "SELECT json_extract(l.value,'$.id') FROM images, json_each(images.layers) AS l")
}

/// What stays: the names of layers (as directories are named) and of blobs.
struct Needed {
    layers: HashSet<String>,
    blobs: HashSet<String>,
}

impl Needed {
    fn gather(tx: &Transaction<'_>, held: &HashSet<String>) -> rusqlite::Result<Self> {
        let mut layers = held.clone();
        layers.extend(layers_of_images(tx)?);
        layers.extend(texts(tx, "SELECT layer FROM records")?);
        layers.extend(texts(tx, "SELECT layer FROM pins")?);
        let mut blobs = held.clone();
        blobs.extend(texts(tx, "SELECT id FROM images")?);
        blobs.extend(texts(tx, "SELECT manifest FROM images WHERE manifest IS NOT NULL")?);
        blobs.extend(texts(tx, &format!("SELECT json_extract(CAST(value AS TEXT),'$.digest') FROM meta WHERE kind='{DOWNLOADS}'"))?);
        let of_several =
            format!("SELECT j.value FROM meta, json_each(CAST(meta.value AS TEXT),'$.blobs') AS j WHERE meta.kind='{SEVERAL}'");
        blobs.extend(texts(tx, &of_several)?);
        // A layer's tars: those of images, those of base layers in use, those made of layers in use.
        let mut tars: HashSet<String> =
            texts(tx, "SELECT json_extract(l.value,'$.diff_id') FROM images, json_each(images.layers) AS l")?.into_iter().collect();
        tars.extend(layers.iter().filter_map(|l| l.strip_prefix("diff-")).map(|hex| format!("sha256:{hex}")));
        let mut diffs = tx.prepare_cached("SELECT layer,diff_id FROM layer_diffs")?;
        for row in diffs.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))? {
            let (layer, diff_id) = row?;
            if layers.contains(&layer) {
                tars.insert(diff_id);
            }
        }
        let mut of_tars = tx.prepare_cached("SELECT diff_id,digest FROM layer_blobs")?;
        for row in of_tars.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))? {
            let (diff_id, digest) = row?;
            if tars.contains(&diff_id) {
                blobs.insert(digest);
            }
        }
        Ok(Self { layers, blobs })
    }

    /// Removes the rows of all else.
    fn remove_others(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        for layer in texts(tx, "SELECT id FROM layers")?.iter().filter(|l| !self.layers.contains(*l)) {
            tx.prepare_cached("DELETE FROM layers WHERE id=?1")?.execute([layer])?;
        }
        for layer in texts(tx, "SELECT DISTINCT layer FROM layer_diffs")?.iter().filter(|l| !self.layers.contains(*l)) {
            tx.prepare_cached("DELETE FROM layer_diffs WHERE layer=?1")?.execute([layer])?;
        }
        for digest in texts(tx, "SELECT digest FROM blobs")?.iter().filter(|d| !self.blobs.contains(*d)) {
            tx.prepare_cached("DELETE FROM blobs WHERE digest=?1")?.execute([digest])?;
        }
        tx.execute("DELETE FROM layer_blobs WHERE digest NOT IN (SELECT digest FROM blobs)", [])?;
        log::remove_lists(tx)
    }
}
