//! Garbage collection: what nothing needs any more leaves the store, and of the cache what is worth least.
//!
//! | part | what |
//! |---|---|
//! | `units` | the cache, unit by unit: what each takes, who needs it too |
//! | `worth` | what keeping a unit is worth |
//! | `filter` | which units are meant |
//! | `choose` | which of them go, and when it is enough |
//! | `needed` | what stays whatever was chosen |
//!
//! Rows go first, in one transaction that is on the disk before the first file moves; then the files move into our
//! own staging (a rename each), then they are deleted at leisure. A kill in between leaves files without rows, which
//! the next collection takes. Only rows and renames happen under the collection lock, so a build that takes a layer
//! meanwhile waits for moments, and finds it there, held, or gone: a miss. A rehearsal (`dry_run`) is the same
//! transaction, rolled back.

mod choose;
mod filter;
mod needed;
mod units;
mod worth;

use std::collections::HashSet;
use std::path::PathBuf;

use rusqlite::{Transaction, TransactionBehavior};

pub use choose::{Disk, Limits, Space};
pub use filter::{FILTER_KEYS, FILTER_TYPES, Filter, FilterError};
pub use units::{CacheUnit, UnitKind};
pub use worth::{Appraisal, Appraise};

use super::rows::{MADE_AGAIN, SEVERAL};
use super::usage::{Measured, Usage, Walk};
use super::{Result, Store, StoreError, session};
use needed::{Needed, remove, texts};
use units::{Beside, Handle, Unit, Units};

/// What to remove. Without any choice: only what nothing can reach, and images without a name.
///
/// With a choice, the cache too: the units that all `filters` take, that were of no use since `unused_since_secs`, and that
/// nobody uses; with `limits` those of least worth, until the limits hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PruneOptions {
    /// The whole cache may go.
    pub all: bool,
    /// What was of use at this moment (unix seconds) or later stays.
    pub unused_since_secs: Option<i64>,
    /// Which units are meant.
    pub filters: Vec<Filter>,
    /// How much may stay.
    pub limits: Limits,
    /// The time, in unix seconds: what was of use long ago is worth less.
    pub now_secs: i64,
    /// Only tells what would go.
    pub dry_run: bool,
}

impl PruneOptions {
    /// Returns whether anything of the cache may go.
    fn chooses(&self) -> bool {
        self.all || self.unused_since_secs.is_some() || !self.filters.is_empty() || !self.limits.are_none()
    }

    /// Returns whether a unit that nobody uses may go.
    fn takes(&self, unit: &CacheUnit) -> bool {
        let last = unit.last_used_secs.or(unit.created_secs).unwrap_or(0);
        self.chooses() && self.unused_since_secs.is_none_or(|since| last < since) && self.filters.iter().all(|f| f.takes(unit))
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PruneReport {
    /// How many images.
    pub images: u64,
    /// How many records.
    pub records: u64,
    /// How many layer directories.
    pub layers: u64,
    /// How many blobs.
    pub blobs: u64,
    /// Which units of the cache, least worth first.
    pub units: Vec<CacheUnit>,
    /// What the disk got back.
    pub freed: Usage,
    /// What the cache takes afterwards, and nothing else needs; none: nobody looked.
    pub left_bytes: Option<u64>,
}

/// Everything that may be removed now, by name.
struct Victims {
    layers: Vec<PathBuf>,
    blobs: Vec<PathBuf>,
}

impl Store {
    /// Removes what `options` choose. Never what a live build uses, an image needs, or [`Store::pin`] protects.
    pub fn prune(&self, options: &PruneOptions, appraise: Appraise<'_>) -> Result<PruneReport> {
        let measured = if options.chooses() { self.measure()? } else { Measured::default() };
        self.prune_measured(options, appraise, &measured)
    }

    /// As [`Store::prune`], with sizes that were measured before.
    pub(super) fn prune_measured(&self, options: &PruneOptions, appraise: Appraise<'_>, measured: &Measured) -> Result<PruneReport> {
        self.with_reserve(|| self.prune_once(options, appraise, measured))
    }

    fn prune_once(&self, options: &PruneOptions, appraise: Appraise<'_>, measured: &Measured) -> Result<PruneReport> {
        self.flush()?;
        let disk = self.disk()?;
        session::reclaim_stale(&self.root)?;
        let trash = self.stage()?;
        let mut report = PruneReport::default();
        let mut chosen = Vec::new();
        let would_go: Vec<PathBuf>;
        {
            let _alone = self.collection.exclusive()?;
            let held = self.held(true)?;
            let beside = if options.chooses() { self.beside()? } else { Beside::default() };
            let needed = self.transact(options.dry_run, |tx| {
                report.images = remove_unnamed(tx, &held)?;
                if options.chooses() {
                    let units = Units::gather(tx, &beside, &held, measured, appraise, options.now_secs)?;
                    let (choices, files) = units.choices(|unit| options.takes(unit));
                    let used = choose::used(&choices, &files);
                    let places = choose::choose(&choices, &files, options.limits.keep(used, disk));
                    let (gone, left) = (HashSet::<usize>::from_iter(places.iter().copied()), 0..choices.len());
                    let left: Vec<_> = left.filter(|n| !gone.contains(n)).map(|n| choices[n].clone()).collect();
                    report.left_bytes = Some(choose::used(&left, &files).bytes);
                    chosen = places.into_iter().map(|n| units.all[n].clone()).collect();
                    report.records = remove_rows(tx, &chosen)?;
                    report.images += remove_unnamed(tx, &held)?;
                }
                let needed = Needed::gather(tx, &held)?;
                needed.remove_others(tx)?;
                Ok(needed)
            })?;
            let victims = self.victims(&needed)?;
            (report.layers, report.blobs) = (victims.layers.len() as u64, victims.blobs.len() as u64);
            would_go = victims.layers.into_iter().chain(victims.blobs).collect();
            if !options.dry_run {
                for (n, path) in would_go.iter().enumerate() {
                    let gone = trash.path().join(n.to_string());
                    std::fs::rename(path, gone).map_err(StoreError::io("removing", path))?;
                }
            }
        }
        if options.dry_run {
            // A walk, so without the lock: what goes meanwhile counts as nothing.
            let mut walk = Walk::default();
            for path in &would_go {
                report.freed += walk.tree(path)?;
            }
        } else {
            for (_, usage) in Walk::default().children(trash.path(), false)? {
                report.freed += usage;
            }
            trash.discard()?;
        }
        report.freed += self.remove_directories(&chosen, measured, options.dry_run)?;
        report.units = chosen.into_iter().map(|unit| unit.facts).collect();
        Ok(report)
    }

    /// Returns the cache, unit by unit, least worth first.
    pub fn cache_units(&self, appraise: Appraise<'_>, now_secs: i64) -> Result<Vec<CacheUnit>> {
        self.flush()?;
        let (measured, held, beside) = (self.measure()?, self.held(true)?, self.beside()?);
        let units = Units::gather(&self.db(), &beside, &held, &measured, appraise, now_secs)?;
        let (choices, files) = units.choices(|_| true);
        let every: Vec<_> = choices.into_iter().map(|c| choose::Choice { eligible: true, ..c }).collect();
        Ok(choose::choose(&every, &files, None).into_iter().map(|n| units.all[n].facts.clone()).collect())
    }

    /// Returns how big the disk is and how much of it is free.
    pub fn disk(&self) -> Result<Disk> {
        let stat = rustix::fs::statvfs(&self.root).map_err(StoreError::os("looking at the file system of", &self.root))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Disk {
            total_bytes: bytes(stat.f_blocks),
            free_bytes: bytes(stat.f_bavail),
            total_inodes: stat.f_files,
            free_inodes: stat.f_favail,
        })
    }

    fn beside(&self) -> Result<Beside> {
        Ok(Beside { mounts: self.mount_directories()?, repositories: self.repositories()? })
    }

    /// Runs a transaction that is on the disk when this returns, since rows go before their files do; a rehearsal is undone.
    fn transact<T>(&self, rehearsal: bool, act: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        if !rehearsal {
            return self.durably_or("removing rows", act);
        }
        let mut db = self.db_to_write();
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::index("rehearsing"))?;
        let done = act(&tx)?;
        tx.rollback().map_err(StoreError::index("rehearsing"))?;
        Ok(done)
    }

    /// Removes the directories of repositories and cache mounts, but those that somebody opened since.
    fn remove_directories(&self, chosen: &[Unit], measured: &Measured, rehearsal: bool) -> Result<Usage> {
        let (mut mounts, mut repositories, mut freed) = (HashSet::new(), HashSet::new(), Usage::default());
        for unit in chosen {
            match &unit.handle {
                Handle::CacheMount(name) => drop(mounts.insert(name.as_str())),
                Handle::Repository(name) => drop(repositories.insert(name.as_str())),
                Handle::Layer(_) | Handle::Base(_) | Handle::Download(_) => continue,
            }
            if rehearsal {
                freed += unit.facts.private;
            }
        }
        if !rehearsal && !mounts.is_empty() {
            self.remove_unused_mounts(|name| mounts.contains(name), |name| freed += measured.of(&format!("cache-mounts/{name}")))?;
        }
        if !rehearsal && !repositories.is_empty() {
            freed += self.remove_repositories(|name| repositories.contains(name))?;
        }
        Ok(freed)
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
}

/// Removes the rows that keep the chosen units; returns how many of them were records.
fn remove_rows(tx: &Transaction<'_>, chosen: &[Unit]) -> Result<u64> {
    // All layers in one scan: the records have no index by layer, and others wait for us.
    let mut layers = Vec::new();
    for unit in chosen {
        match &unit.handle {
            Handle::Layer(layer) => layers.push(layer),
            Handle::Base(image) => drop(remove(tx, "DELETE FROM sources WHERE image=?1", &[image])?),
            Handle::Download(key) => drop(remove(tx, "DELETE FROM meta WHERE kind=?1 AND key=?2", &[&super::DOWNLOADS, key])?),
            Handle::CacheMount(_) | Handle::Repository(_) => {}
        }
    }
    let layers = serde_json::to_string(&layers).expect("texts are JSON");
    let records = remove(tx, "DELETE FROM records WHERE layer IN (SELECT value FROM json_each(?1))", &[&layers])?;
    if records > 0 {
        remove(tx, "DELETE FROM meta WHERE kind=?1", &[&MADE_AGAIN])?;
    }
    Ok(records)
}

/// Removes images without a name, but not those that a live process just put or runs.
fn remove_unnamed(tx: &Transaction<'_>, held: &HashSet<String>) -> Result<u64> {
    // What belongs to a name beside its image lives as long as the name names one of its images.
    let alive = "EXISTS (SELECT 1 FROM json_each(CAST(meta.value AS TEXT),'$.images') AS j WHERE (meta.key,j.value) IN
        (SELECT name,image FROM names UNION SELECT name,image FROM repo_digests))";
    remove(tx, &format!("DELETE FROM meta WHERE meta.kind=?1 AND NOT {alive}"), &[&SEVERAL])?;
    let others = format!(
        "SELECT j.value FROM meta, json_each(CAST(meta.value AS TEXT),'$.images') AS j WHERE meta.kind='{SEVERAL}' AND meta.key IN (SELECT name FROM names)"
    );
    let sql = format!(
        "SELECT id FROM images WHERE id NOT IN (SELECT image FROM names) AND id NOT IN (SELECT image FROM sources) AND id NOT IN ({others})"
    );
    let mut images = 0;
    for id in texts(tx, &sql)?.iter().filter(|id| !held.contains(*id)) {
        images += remove(tx, "DELETE FROM images WHERE id=?1", &[id])?;
    }
    remove(tx, "DELETE FROM sources WHERE image NOT IN (SELECT id FROM images)", &[])?;
    remove(tx, "DELETE FROM repo_digests WHERE image NOT IN (SELECT id FROM images)", &[])?;
    Ok(images)
}
