//! The rows of the log of builds: one a build, and parts that many builds share.
//!
//! A part is named by the hash of what is in it and written once; what repeats from build to build (the list of steps,
//! each step's inputs) is a part, so that a build in which nothing changed adds one short row. What the bytes mean is
//! `cache::log`'s; here is known only which part names which: a build its list of steps, that list the steps' inputs, and
//! these the trees whose lists of files explain them.
//!
//! What a newcomer gets wrong: builds are forgotten as new ones are written (every [`TRIM_EVERY`]th time), and only then
//! are parts that no build names any more.

use rusqlite::{Transaction, TransactionBehavior, params};

use super::db::{int, uint};
use super::rows::NAMED_BY_SLOTS;
use super::{Result, Store, StoreError};

/// How many builds of one Dockerfile are kept.
const KEPT_BUILDS: i64 = 500;
/// How much the log takes, lists of files excepted: at the most, give or take what comes between two trims.
const KEPT_BYTES: u64 = 16 << 20;
/// How many builds are written between two looks at the limits.
pub(super) const TRIM_EVERY: i64 = 32;

/// A build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// Its number, from 1, in the order of their ends; of one that is written: whatever.
    pub id: i64,
    /// Which Dockerfile, as the caller tells them apart.
    pub dockerfile: String,
    /// When it began, in unix seconds.
    pub started_secs: i64,
    /// The part that lists its steps.
    pub steps: String,
    /// What else is known of it.
    pub body: Vec<u8>,
}

/// Which builds to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BuildFilter<'a> {
    /// Of this Dockerfile.
    pub dockerfile: Option<&'a str>,
    /// With a smaller number.
    pub before: Option<i64>,
    /// That began at this moment (unix seconds) or later.
    pub since_secs: Option<i64>,
    /// So many at the most.
    pub limit: Option<usize>,
}

/// A part on its way into the log.
pub struct LogPart<'a> {
    /// The hash of what is in it, as text.
    pub id: String,
    /// The parts that a list of steps names; the trees (in hex) that a step's inputs name.
    pub names: Vec<String>,
    /// Its bytes, made only if the log has not got them.
    pub body: &'a dyn Fn() -> Vec<u8>,
}

impl Store {
    /// Writes a build and those of its parts that are not there yet; returns its number. The first part is its list of
    /// steps: where that is there, the others are too.
    ///
    /// Not synced: a power cut may take the last builds.
    pub fn put_build(&self, build: &BuildRow, parts: &[LogPart<'_>]) -> Result<i64> {
        let mut db = self.db_to_write();
        let mut run = || {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let id = write(&tx, build, parts)?;
            if id % TRIM_EVERY == 0 {
                trim(&tx, KEPT_BUILDS, KEPT_BYTES)?;
            }
            tx.commit()?;
            Ok(id)
        };
        run().map_err(StoreError::index("writing the log of builds"))
    }

    /// Returns builds, newest first.
    pub fn builds(&self, filter: &BuildFilter<'_>) -> Result<Vec<BuildRow>> {
        let sql = "SELECT id,dockerfile,started,steps,body FROM builds
            WHERE (?1 IS NULL OR dockerfile=?1) AND id<?2 AND started>=?3 ORDER BY id DESC LIMIT ?4";
        let BuildFilter { dockerfile, before, since_secs, limit } = filter;
        let limit = limit.map_or(-1, |n| int(n as u64));
        self.all(sql, params![dockerfile, before.unwrap_or(i64::MAX), since_secs.unwrap_or(i64::MIN), limit], |r| {
            Ok(BuildRow { id: r.get(0)?, dockerfile: r.get(1)?, started_secs: r.get(2)?, steps: r.get(3)?, body: r.get(4)? })
        })
    }

    /// Returns a build by its number; none: it is forgotten, or never was.
    pub fn build(&self, id: i64) -> Result<Option<BuildRow>> {
        let filter = BuildFilter { before: id.checked_add(1), limit: Some(1), ..BuildFilter::default() };
        Ok(self.builds(&filter)?.pop().filter(|b| b.id == id))
    }

    /// Returns a part's bytes; none: no build that is kept names it.
    pub fn log_part(&self, id: &str) -> Result<Option<Vec<u8>>> {
        self.one("SELECT body FROM log_parts WHERE id=?1", [id], |r| r.get(0))
    }
}

fn write(tx: &Transaction<'_>, build: &BuildRow, parts: &[LogPart<'_>]) -> rusqlite::Result<i64> {
    for (n, part) in parts.iter().enumerate() {
        let known: bool = tx.prepare_cached("SELECT EXISTS(SELECT 1 FROM log_parts WHERE id=?1)")?.query_row([&part.id], |r| r.get(0))?;
        match (n, known) {
            (0, true) => break,
            (_, true) => continue,
            _ => {}
        }
        let names = serde_json::to_string(&part.names).expect("names are text");
        tx.prepare_cached("INSERT INTO log_parts VALUES(?1,?2,?3,?4)")?.execute(params![part.id, n > 0, names, (part.body)()])?;
    }
    let BuildRow { dockerfile, started_secs, steps, body, .. } = build;
    let sql = "INSERT INTO builds(dockerfile,started,steps,body) VALUES(?1,?2,?3,?4)";
    tx.prepare_cached(sql)?.execute(params![dockerfile, started_secs, steps, body])?;
    Ok(tx.last_insert_rowid())
}

/// Forgets the builds that are too many, the oldest first, and what only they named. The newest build stays.
fn trim(tx: &Transaction<'_>, kept_builds: i64, kept_bytes: u64) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM builds WHERE id IN
            (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY dockerfile ORDER BY id DESC) AS n FROM builds) WHERE n>?1)",
        [kept_builds],
    )?;
    remove_unnamed(tx)?;
    loop {
        let taken =
            "SELECT (SELECT ifnull(sum(length(body)),0) FROM builds) + (SELECT ifnull(sum(length(body)+length(names)),0) FROM log_parts)";
        let bytes = uint(tx.query_row(taken, [], |r| r.get(0))?);
        let builds: i64 = tx.query_row("SELECT count(*) FROM builds", [], |r| r.get(0))?;
        if bytes <= kept_bytes || builds <= 1 {
            return Ok(());
        }
        // A quarter at a time, one at least.
        tx.execute("DELETE FROM builds WHERE id IN (SELECT id FROM builds ORDER BY id LIMIT ?1)", [(builds / 4).max(1)])?;
        remove_unnamed(tx)?;
    }
}

/// Removes the parts that no build needs.
fn remove_unnamed(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM log_parts WHERE NOT of_step AND id NOT IN (SELECT steps FROM builds)", [])?;
    tx.execute(
        "DELETE FROM log_parts WHERE of_step AND id NOT IN (SELECT j.value FROM log_parts AS p, json_each(p.names) AS j WHERE NOT p.of_step)",
        [],
    )?;
    remove_lists(tx)
}

/// Removes the lists of files that neither a slot nor the log names.
pub(super) fn remove_lists(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM meta WHERE kind=?1
            AND key NOT IN (SELECT j.value FROM log_parts AS p, json_each(p.names) AS j WHERE p.of_step)
            AND NOT EXISTS (SELECT 1 FROM slots WHERE instr(slots.body, CAST(meta.key AS BLOB))>0)",
        [NAMED_BY_SLOTS],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Durability;
    use super::*;

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open_with(&dir.path().join("store"), Durability::Unsynced).unwrap()
    }

    fn row(dockerfile: &str, started_secs: i64, steps: &str) -> BuildRow {
        BuildRow { id: 0, dockerfile: dockerfile.into(), started_secs, steps: steps.into(), body: b"body".to_vec() }
    }

    /// A list of steps that names inputs, each of which names a tree of the same name.
    fn put(store: &Store, build: &BuildRow, inputs: &[&str]) -> i64 {
        let body = || b"12345678".to_vec();
        let mut parts = vec![LogPart { id: build.steps.clone(), names: inputs.iter().map(ToString::to_string).collect(), body: &body }];
        parts.extend(inputs.iter().map(|i| LogPart { id: (*i).into(), names: vec![format!("tree {i}")], body: &body }));
        store.put_build(build, &parts).unwrap()
    }

    fn trim_to(store: &Store, builds: i64, bytes: u64) {
        let mut db = store.db_to_write();
        let tx = db.transaction().unwrap();
        trim(&tx, builds, bytes).unwrap();
        tx.commit().unwrap();
    }

    #[test]
    fn builds_are_listed_newest_first_and_by_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        for (n, (dockerfile, started)) in [("a", 10), ("b", 20), ("a", 30)].into_iter().enumerate() {
            assert_eq!(put(&store, &row(dockerfile, started, "s"), &[]), n as i64 + 1);
        }
        let ids = |filter: BuildFilter<'_>| store.builds(&filter).unwrap().iter().map(|b| b.id).collect::<Vec<_>>();
        let all = BuildFilter::default();
        assert_eq!(ids(all), [3, 2, 1]);
        assert_eq!(ids(BuildFilter { dockerfile: Some("a"), ..all }), [3, 1]);
        assert_eq!(ids(BuildFilter { dockerfile: Some("a"), before: Some(3), ..all }), [1]);
        assert_eq!(ids(BuildFilter { since_secs: Some(20), ..all }), [3, 2]);
        assert_eq!(ids(BuildFilter { limit: Some(1), ..all }), [3]);
        assert_eq!(store.build(2).unwrap(), Some(BuildRow { id: 2, ..row("b", 20, "s") }));
        assert_eq!((store.build(9).unwrap(), store.build(i64::MAX).unwrap()), (None, None));
    }

    #[test]
    fn a_part_is_written_once_and_made_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, &row("a", 1, "s"), &["i"]);
        let never = || panic!("the part is there already");
        let part = |id: &str| LogPart { id: id.into(), names: Vec::new(), body: &never };
        assert_eq!(store.put_build(&row("a", 2, "s"), &[part("s"), part("i")]).unwrap(), 2);
        // An input that another list named.
        let body = || b"list".to_vec();
        let list = LogPart { id: "s2".into(), names: vec!["i".into()], body: &body };
        assert_eq!(store.put_build(&row("a", 3, "s2"), &[list, part("i")]).unwrap(), 3);
        assert_eq!(store.log_part("s2").unwrap().as_deref(), Some(&b"list"[..]));
        assert_eq!(store.log_part("none").unwrap(), None);
    }

    #[test]
    fn what_only_forgotten_builds_named_goes_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        put(&store, &row("a", 1, "s1"), &["i1", "shared"]);
        put(&store, &row("a", 2, "s2"), &["i2", "shared"]);
        put(&store, &row("b", 3, "s3"), &["i3"]);
        for tree in ["tree i1", "tree i2", "tree shared", "tree of nobody"] {
            store.save_blob_row(NAMED_BY_SLOTS, tree, b"x").unwrap();
        }
        trim_to(&store, 1, u64::MAX);
        let known = |id: &str| store.log_part(id).unwrap().is_some();
        assert_eq!(store.builds(&BuildFilter::default()).unwrap().iter().map(|b| b.id).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(["s1", "i1", "s2", "i2", "shared", "s3", "i3"].map(known), [false, false, true, true, true, true, true]);
        let listed = |tree: &str| store.load_blob_row(NAMED_BY_SLOTS, tree).unwrap().is_some();
        assert_eq!(["tree i1", "tree i2", "tree shared", "tree of nobody"].map(listed), [false, true, true, false]);
    }

    #[test]
    fn the_log_is_kept_below_its_limit_and_the_newest_build_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        for n in 0..20 {
            put(&store, &row("a", n, &format!("s{n}")), &[&format!("i{n}")]);
        }
        trim_to(&store, 100, 500);
        let left = store.builds(&BuildFilter::default()).unwrap();
        assert!((1..=12).contains(&left.len()) && left[0].id == 20, "{}", left.len());
        trim_to(&store, 100, 0);
        assert_eq!(store.builds(&BuildFilter::default()).unwrap().iter().map(|b| b.id).collect::<Vec<_>>(), [20]);
        assert_eq!(put(&store, &row("a", 21, "s"), &[]), 21, "numbers are not used twice");
    }

    #[test]
    fn a_store_with_the_log_of_an_earlier_program_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(&dir);
            let db = store.db_to_write();
            db.execute_batch(
                "DROP TABLE builds; DROP TABLE log_parts; PRAGMA user_version=0;
                CREATE TABLE builds(id INTEGER PRIMARY KEY AUTOINCREMENT, dockerfile TEXT NOT NULL, target TEXT NOT NULL,
                    started INTEGER NOT NULL, secs REAL NOT NULL, outcome TEXT NOT NULL, image TEXT);
                CREATE TABLE build_steps(build INTEGER NOT NULL, step INTEGER NOT NULL, title TEXT NOT NULL);
                INSERT INTO builds(dockerfile,target,started,secs,outcome) VALUES('a','',1,1.0,'done');
                INSERT INTO slots VALUES('kept', x'01')",
            )
            .unwrap();
        }
        let store = open(&dir);
        assert_eq!(store.builds(&BuildFilter::default()).unwrap(), []);
        assert_eq!(store.slot_row("kept").unwrap(), Some(vec![1]));
        assert_eq!(put(&store, &row("a", 1, "s"), &[]), 1);
        drop(store);
        assert_eq!(open(&dir).builds(&BuildFilter::default()).unwrap().len(), 1);
    }

    #[test]
    fn a_store_of_a_later_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(&dir).db_to_write().execute_batch("PRAGMA user_version=99").unwrap();
        let error = Store::open_with(&dir.path().join("store"), Durability::Unsynced).unwrap_err();
        assert!(matches!(&error, StoreError::OtherFormat { found, .. } if found == "plywood store 1, tables 99"), "{error}");
    }
}
