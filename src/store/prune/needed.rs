//! What stays: the names of layers and blobs that something needs.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Transaction};

use crate::store::db::all;
use crate::store::log;
use crate::store::rows::{DOWNLOADS, SEVERAL};
use crate::store::{Result, StoreError};

pub(super) fn texts(db: &Connection, sql: &str) -> Result<Vec<String>> {
    all(db, sql, [], |r| r.get(0))
}

/// Which tars layers have, and which blobs hold them.
#[derive(Debug, Default)]
pub(super) struct Tars {
    diffs: HashMap<String, Vec<String>>,
    blobs: HashMap<String, Vec<String>>,
}

impl Tars {
    pub fn load(db: &Connection) -> Result<Self> {
        let mut tars = Self::default();
        let pair = |r: &rusqlite::Row<'_>| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?));
        for (layer, diff_id) in all(db, "SELECT DISTINCT layer,diff_id FROM layer_diffs", [], pair)? {
            tars.diffs.entry(layer).or_default().push(diff_id);
        }
        for (diff_id, digest) in all(db, "SELECT DISTINCT diff_id,digest FROM layer_blobs", [], pair)? {
            tars.blobs.entry(diff_id).or_default().push(digest);
        }
        Ok(tars)
    }

    /// Returns the blobs that hold a tar.
    pub fn of_diff(&self, diff_id: &str) -> impl Iterator<Item = String> {
        self.blobs.get(diff_id).into_iter().flatten().cloned()
    }

    /// Returns the blobs that hold the tars of a layer.
    pub fn of_layer(&self, layer: &str) -> Vec<String> {
        let own = layer.strip_prefix("diff-").map(|hex| format!("sha256:{hex}"));
        let noted = self.diffs.get(layer).into_iter().flatten().cloned();
        let mut found: Vec<String> = own.into_iter().chain(noted).flat_map(|d| self.of_diff(&d).collect::<Vec<_>>()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// What stays: the names of layers (as directories are named) and of blobs.
#[derive(Debug, Default)]
pub(super) struct Needed {
    pub layers: HashSet<String>,
    pub blobs: HashSet<String>,
}

impl Needed {
    /// Gathers what images, records, downloads, pins and live builds need.
    pub fn gather(db: &Connection, held: &HashSet<String>) -> Result<Self> {
        let mut needed = Self { layers: held.clone(), blobs: held.clone() };
        needed.layers.extend(texts(db, "SELECT layer FROM records")?);
        let downloads = format!("SELECT json_extract(CAST(value AS TEXT),'$.digest') FROM meta WHERE kind='{DOWNLOADS}'");
        needed.blobs.extend(all(db, &downloads, [], |r| r.get::<_, Option<String>>(0))?.into_iter().flatten());
        needed.complete(db, &Tars::load(db)?, &|_| false)
    }

    /// Gathers what is needed by images, but for those that `is_cache` names, and by pins. What a live build uses of the cache
    /// is in use, and cache all the same.
    pub fn of_roots(db: &Connection, tars: &Tars, is_cache: &dyn Fn(&str) -> bool) -> Result<Self> {
        Self::default().complete(db, tars, is_cache)
    }

    fn complete(mut self, db: &Connection, tars: &Tars, without: &dyn Fn(&str) -> bool) -> Result<Self> {
        let parts =
            "SELECT images.id,json_extract(l.value,'$.id'),json_extract(l.value,'$.diff_id') FROM images, json_each(images.layers) AS l";
        for (image, layer, diff_id) in all(db, parts, [], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?)))?
        {
            if !without(&image) {
                self.layers.insert(layer);
                self.blobs.extend(tars.of_diff(&diff_id));
            }
        }
        for (image, manifest) in
            all(db, "SELECT id,manifest FROM images", [], |r| Ok((r.get::<_, String>(0)?, r.get::<_, Option<String>>(1)?)))?
        {
            if !without(&image) {
                self.blobs.insert(image);
                self.blobs.extend(manifest);
            }
        }
        self.layers.extend(texts(db, "SELECT layer FROM pins")?);
        let of_several =
            format!("SELECT j.value FROM meta, json_each(CAST(meta.value AS TEXT),'$.blobs') AS j WHERE meta.kind='{SEVERAL}'");
        self.blobs.extend(texts(db, &of_several)?);
        // A layer's tars: those of base layers in use, those made of layers in use.
        for layer in &self.layers {
            self.blobs.extend(tars.of_layer(layer));
        }
        Ok(self)
    }

    /// Returns the names of all.
    pub fn names(self) -> HashSet<String> {
        let mut names = self.layers;
        names.extend(self.blobs);
        names
    }

    /// Removes the rows of all else.
    pub fn remove_others(&self, tx: &Transaction<'_>) -> Result<()> {
        for layer in texts(tx, "SELECT id FROM layers")?.iter().filter(|l| !self.layers.contains(*l)) {
            remove(tx, "DELETE FROM layers WHERE id=?1", &[layer])?;
        }
        for layer in texts(tx, "SELECT DISTINCT layer FROM layer_diffs")?.iter().filter(|l| !self.layers.contains(*l)) {
            remove(tx, "DELETE FROM layer_diffs WHERE layer=?1", &[layer])?;
        }
        for digest in texts(tx, "SELECT digest FROM blobs")?.iter().filter(|d| !self.blobs.contains(*d)) {
            remove(tx, "DELETE FROM blobs WHERE digest=?1", &[digest])?;
        }
        remove(tx, "DELETE FROM layer_blobs WHERE digest NOT IN (SELECT digest FROM blobs)", &[])?;
        log::remove_lists(tx).map_err(StoreError::index("removing rows"))
    }
}

/// Runs a statement that removes rows; returns how many.
pub(super) fn remove(tx: &Transaction<'_>, sql: &str, params: &[&dyn rusqlite::ToSql]) -> Result<u64> {
    let failed = crate::store::StoreError::index("removing rows");
    match tx.prepare_cached(sql).and_then(|mut statement| statement.execute(params)) {
        Ok(rows) => Ok(rows as u64),
        Err(e) => Err(failed(e)),
    }
}
