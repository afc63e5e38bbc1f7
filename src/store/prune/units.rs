//! What of the store is cache, unit by unit: what each takes, who needs it too, what it is worth.
//!
//! | unit | its files | goes by |
//! |---|---|---|
//! | the layer of a step, with all records of it | its directory, its tars | deleting the records |
//! | a base image that has no name of its own | configuration, manifest, layers | deleting what registries said of it |
//! | a download | its blob | deleting its value |
//! | a git repository, a cache mount | its directory | renaming it away, while nobody has its lock |
//!
//! No unit, and so never chosen: images with a name, what belongs to such a name, containers. A newcomer would look for units of
//! records: two records may name one layer, and only when both go is there room.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::Connection;

use super::choose::{Choice, ChoiceFile};
use super::needed::{Needed, Tars};
use super::worth::{Appraise, fetch_secs, worth};
use crate::store::db::{all, parsed};
use crate::store::mounts::CacheMountRow;
use crate::store::repository::RepositoryRow;
use crate::store::rows::{DOWNLOADS, SEVERAL};
use crate::store::usage::Measured;
use crate::store::{RecordRow, Result, Usage};

/// What a unit is, in BuildKit's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitKind {
    /// A step's layer, a base image, a download.
    Regular,
    /// `RUN --mount=type=cache`.
    CacheMount,
    /// A git repository.
    GitCheckout,
}

impl UnitKind {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::CacheMount => "exec.cachemount",
            Self::GitCheckout => "source.git.checkout",
        }
    }

    /// Returns whether what is in it changes.
    pub fn is_mutable(self) -> bool {
        self != Self::Regular
    }
}

/// A part of the cache that can be removed by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheUnit {
    /// A layer's id, a digest, the name of a directory.
    pub id: String,
    /// What it is.
    pub kind: UnitKind,
    /// What people call it: `RUN make`, a reference, a remote, a cache mount's id.
    pub description: String,
    /// The ids of the layers that its steps stand on.
    pub parents: Vec<String>,
    /// What it takes.
    pub usage: Usage,
    /// What of it nothing else needs: what its going would free.
    pub private: Usage,
    /// When it was made, in unix seconds.
    pub created_secs: Option<i64>,
    /// When it was last of use, in unix seconds.
    pub last_used_secs: Option<i64>,
    /// How many of the builds that are on record took it from the cache.
    pub uses: u64,
    /// Whether a live build uses it.
    pub in_use: bool,
    /// Whether an image or a container needs something of it.
    pub shared: bool,
    /// What making it again would cost.
    pub secs: f64,
    /// Seconds a byte, less by disuse.
    pub worth: f64,
}

impl CacheUnit {
    /// Returns a unit of which nothing is known but its kind.
    pub fn of(kind: UnitKind) -> Self {
        Self {
            id: String::new(),
            kind,
            description: String::new(),
            parents: Vec::new(),
            usage: Usage::default(),
            private: Usage::default(),
            created_secs: None,
            last_used_secs: None,
            uses: 0,
            in_use: false,
            shared: false,
            secs: 0.0,
            worth: 0.0,
        }
    }
}

/// How a unit goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handle {
    Layer(String),
    Base(String),
    Download(String),
    CacheMount(String),
    Repository(String),
}

/// A unit and what removing it takes.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub facts: CacheUnit,
    pub handle: Handle,
    files: Vec<String>,
}

/// What lies beside the index.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub mounts: Vec<(String, CacheMountRow)>,
    pub repositories: Vec<RepositoryRow>,
}

/// All units, and the files that they need.
#[derive(Debug, Default)]
pub(super) struct Units {
    pub all: Vec<Unit>,
    places: HashMap<String, usize>,
    files: Vec<(Usage, bool)>,
}

impl Units {
    /// Gathers them. `measured`: what files take; those that are not in it count as nothing.
    pub fn gather(
        db: &Connection,
        beside: &Beside,
        held: &HashSet<String>,
        measured: &Measured,
        appraise: Appraise<'_>,
        now_secs: i64,
    ) -> Result<Self> {
        let tars = Tars::load(db)?;
        let mut all_units = layers(db, &tars, appraise)?;
        let bases = bases(db, &tars)?;
        let unnamed: HashSet<&str> = bases.iter().map(|(image, _)| image.as_str()).collect();
        let rooted = Needed::of_roots(db, &tars, &|image| unnamed.contains(image))?.names();
        all_units.extend(bases.into_iter().map(|(_, unit)| unit));
        all_units.extend(downloads(db)?);
        all_units.extend(beside.mounts.iter().map(|(name, row)| mount(name, row)));
        all_units.extend(beside.repositories.iter().map(repository));
        let mut units = Self { all: all_units, ..Self::default() };
        units.number(measured, &rooted);
        units.judge(held, now_secs);
        Ok(units)
    }

    fn number(&mut self, measured: &Measured, rooted: &HashSet<String>) {
        for name in self.all.iter().flat_map(|u| &u.files) {
            if !self.places.contains_key(name) {
                self.places.insert(name.clone(), self.files.len());
                self.files.push((measured.of(name), rooted.contains(name)));
            }
        }
    }

    fn judge(&mut self, held: &HashSet<String>, now_secs: i64) {
        for unit in &mut self.all {
            let facts = &mut unit.facts;
            for name in &unit.files {
                let (usage, rooted) = self.files[self.places[name]];
                facts.usage += usage;
                facts.in_use |= held.contains(name);
                facts.shared |= rooted;
                if !rooted {
                    facts.private += usage;
                }
            }
            facts.in_use |= held.contains(&facts.id);
            if matches!(unit.handle, Handle::Base(_) | Handle::Download(_) | Handle::CacheMount(_) | Handle::Repository(_)) {
                facts.secs = fetch_secs(facts.private.bytes);
            }
            let idle = now_secs.saturating_sub(facts.last_used_secs.or(facts.created_secs).unwrap_or(0));
            facts.worth = worth(facts.secs, facts.private.bytes, idle);
        }
    }

    /// Returns the units and files as places, for choosing.
    pub fn choices(&self, eligible: impl Fn(&CacheUnit) -> bool) -> (Vec<Choice>, Vec<ChoiceFile>) {
        let choice = |unit: &Unit| Choice {
            eligible: !unit.facts.in_use && eligible(&unit.facts),
            worth: unit.facts.worth,
            last_used_secs: unit.facts.last_used_secs.unwrap_or(0),
            files: unit.files.iter().map(|f| self.places[f]).collect(),
        };
        let files = self.files.iter().map(|(usage, rooted)| ChoiceFile { usage: *usage, rooted: *rooted }).collect();
        (self.all.iter().map(choice).collect(), files)
    }
}

/// The layers that records name.
fn layers(db: &Connection, tars: &Tars, appraise: Appraise<'_>) -> Result<Vec<Unit>> {
    let columns = all(db, "SELECT key,layer,content,cost_secs,created,last_used,body FROM records ORDER BY rowid", [], |r| {
        Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?, r.get(3)?, r.get(4)?, r.get::<_, i64>(5)?, r.get(6)?))
    })?;
    let (mut records, mut last_used) = (Vec::with_capacity(columns.len()), Vec::with_capacity(columns.len()));
    for (key, layer, content, cost_secs, created_secs, used, body) in columns {
        let (key, layer, content) = (parsed("cache key", &key)?, parsed("layer id", &layer)?, parsed("content digest", &content)?);
        records.push(RecordRow { key, layer, content, cost_secs, created_secs, body });
        last_used.push(used);
    }
    let appraisals = appraise(&records);
    let mut units: BTreeMap<String, Unit> = BTreeMap::new();
    for ((record, used), appraisal) in records.iter().zip(last_used).zip(appraisals) {
        let id = record.layer.to_string();
        let unit = units.entry(id.clone()).or_insert_with(|| Unit {
            facts: CacheUnit { id: id.clone(), ..CacheUnit::of(UnitKind::Regular) },
            handle: Handle::Layer(id.clone()),
            files: std::iter::once(id.clone()).chain(tars.of_layer(&id)).collect(),
        });
        let facts = &mut unit.facts;
        // The newest record gives the name.
        if facts.created_secs.is_none_or(|created| created <= record.created_secs) {
            facts.created_secs = Some(record.created_secs);
            facts.description = appraisal.title;
        }
        facts.last_used_secs = facts.last_used_secs.max(Some(used));
        facts.secs = facts.secs.max(appraisal.secs);
        facts.uses += appraisal.uses;
        let parent = appraisal.parent.and_then(|p| records.get(p)).map(|p| p.layer.to_string());
        if let Some(parent) = parent.filter(|p| *p != id && !facts.parents.contains(p)) {
            facts.parents.push(parent);
        }
    }
    Ok(units.into_values().collect())
}

/// The images without a name that registries gave, and that no name stands for besides.
fn bases(db: &Connection, tars: &Tars) -> Result<Vec<(String, Unit)>> {
    let sql = format!(
        "SELECT s.image,MIN(s.reference),MAX(s.checked),MIN(i.added),i.manifest,i.layers FROM sources s JOIN images i ON i.id=s.image
         WHERE s.image NOT IN (SELECT image FROM names) AND s.image NOT IN
            (SELECT j.value FROM meta, json_each(CAST(meta.value AS TEXT),'$.images') AS j WHERE meta.kind='{SEVERAL}' AND meta.key IN (SELECT name FROM names))
         GROUP BY s.image"
    );
    let rows =
        all(db, &sql, [], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get(2)?, r.get(3)?, r.get::<_, Option<String>>(4)?)))?;
    let mut found = Vec::with_capacity(rows.len());
    for (image, reference, checked, added, manifest) in rows {
        let mut files = vec![image.clone()];
        files.extend(manifest);
        let parts = "SELECT json_extract(l.value,'$.id'),json_extract(l.value,'$.diff_id') FROM images, json_each(images.layers) AS l WHERE images.id=?1";
        for (layer, diff_id) in all(db, parts, [&image], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))? {
            files.push(layer);
            files.extend(tars.of_diff(&diff_id));
        }
        let facts = CacheUnit {
            id: image.clone(),
            description: format!("pulled from {reference}"),
            created_secs: Some(added),
            last_used_secs: Some(checked),
            ..CacheUnit::of(UnitKind::Regular)
        };
        found.push((image.clone(), Unit { facts, handle: Handle::Base(image), files }));
    }
    Ok(found)
}

fn downloads(db: &Connection) -> Result<Vec<Unit>> {
    let sql = "SELECT key,json_extract(CAST(value AS TEXT),'$.digest'),json_extract(CAST(value AS TEXT),'$.used_secs'),
        json_extract(CAST(value AS TEXT),'$.shown') FROM meta WHERE kind=?1";
    let rows = all(db, sql, [DOWNLOADS], |r| {
        Ok((r.get::<_, String>(0)?, r.get::<_, Option<String>>(1)?, r.get::<_, Option<i64>>(2)?, r.get::<_, Option<String>>(3)?))
    })?;
    let unit = |(key, digest, used, shown): (String, Option<String>, Option<i64>, Option<String>)| {
        let digest = digest.unwrap_or_default();
        let description = shown.map_or_else(|| "a download".to_owned(), |url| format!("downloaded from {url}"));
        let facts = CacheUnit { id: digest.clone(), description, last_used_secs: used, ..CacheUnit::of(UnitKind::Regular) };
        Unit { facts, handle: Handle::Download(key), files: vec![digest] }
    };
    Ok(rows.into_iter().map(unit).collect())
}

fn mount(name: &str, row: &CacheMountRow) -> Unit {
    let space = if row.id.namespace.is_empty() { String::new() } else { format!(" ({})", row.id.namespace) };
    let facts = CacheUnit {
        id: name.to_owned(),
        description: format!("cache mount {}{space}", row.id.id),
        last_used_secs: Some(row.last_used_secs),
        in_use: row.in_use,
        ..CacheUnit::of(UnitKind::CacheMount)
    };
    Unit { facts, handle: Handle::CacheMount(name.to_owned()), files: vec![format!("cache-mounts/{name}")] }
}

fn repository(row: &RepositoryRow) -> Unit {
    let facts = CacheUnit {
        id: row.name.clone(),
        description: row.remote.clone().unwrap_or_else(|| "a git repository".to_owned()),
        last_used_secs: Some(row.last_used_secs),
        in_use: row.in_use,
        ..CacheUnit::of(UnitKind::GitCheckout)
    };
    Unit { facts, handle: Handle::Repository(row.name.clone()), files: vec![format!("git/{}", row.name)] }
}
