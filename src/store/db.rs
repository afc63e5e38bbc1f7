//! The index database: its schema, and a connection as every part of the store wants it.
//!
//! SQLite in WAL mode: readers never wait, and a killed writer leaves nothing to repair. WAL needs shared memory
//! between all users of the file, which network file systems don't have: there it is a rollback journal.
//! Pragmas hold for a connection, not for the file, so each connection sets them.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, Row, Transaction, TransactionBehavior};

use super::rows::NAMED_BY_SLOTS;
use super::{Result, Store, StoreError};

/// How long a write waits for another process's transaction, which takes milliseconds.
const BUSY: Duration = Duration::from_secs(20);

/// How long the log may be when a build that added to it ends: whoever opens the store alone reads all of it.
pub(super) const LOG_BYTES: u64 = 64 << 10;
/// How long it may be when nobody has anything to add: some sixty builds' worth of what a build without changes writes.
pub(super) const LOG_MAX_BYTES: u64 = 256 << 10;

/// Which tables there are. A later program adds some, or makes those anew that can be lost; what a record or an image means
/// changes with the store's format number only.
const TABLES: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS blobs(digest TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layers(id TEXT PRIMARY KEY, content TEXT, size_bytes INTEGER NOT NULL, entries INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer_diffs(layer TEXT NOT NULL, epoch INTEGER NOT NULL, diff_id TEXT NOT NULL, tar_bytes INTEGER NOT NULL,
    PRIMARY KEY(layer, epoch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer_blobs(diff_id TEXT NOT NULL, compression TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, PRIMARY KEY(diff_id, compression, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images(id TEXT PRIMARY KEY, platform TEXT NOT NULL, layers TEXT NOT NULL, manifest TEXT, added INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS names(name TEXT PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repo_digests(image TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY(image, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources(reference TEXT NOT NULL, platform TEXT NOT NULL, manifest TEXT NOT NULL, image TEXT NOT NULL,
    checked INTEGER NOT NULL, PRIMARY KEY(reference, platform)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records(key TEXT NOT NULL, layer TEXT NOT NULL, content TEXT NOT NULL, cost_secs REAL NOT NULL,
    created INTEGER NOT NULL, last_used INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(key, layer));
CREATE INDEX IF NOT EXISTS records_content ON records(content);
CREATE TABLE IF NOT EXISTS slots(id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta(kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY(kind, key));
CREATE TABLE IF NOT EXISTS pins(owner TEXT NOT NULL, layer TEXT NOT NULL, PRIMARY KEY(owner, layer)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS builds(id INTEGER PRIMARY KEY, dockerfile TEXT NOT NULL, started INTEGER NOT NULL, steps TEXT NOT NULL,
    body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS log_parts(id TEXT PRIMARY KEY, of_step INTEGER NOT NULL, names TEXT NOT NULL, body BLOB NOT NULL);
";

/// Opens a connection to an index that exists.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(StoreError::index("opening the database"))?;
    db.busy_timeout(BUSY).map_err(StoreError::index("setting the timeout"))?;
    db.pragma_update(None, "synchronous", "NORMAL").map_err(StoreError::index("setting synchronous"))?;
    // Not (with two syncs) by whoever closes last: a build in which nothing changed lasts milliseconds. See `fold_log`.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(StoreError::index("setting up the log"))?;
    // Else SQLite compiles a statement anew at each new value of a parameter that its plan could depend on.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(StoreError::index("setting up the statements"))?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Folds the log into the file when it has more than `limit_bytes`; a process that uses the store at the same time may put it off.
///
/// It has to be emptied now and then: who opens the store alone reads the whole log, and does not know how much of it
/// is in the file already (walIndexRecover forgets nBackfill), so SQLite itself would let it grow for ever.
///
/// Returns whether there is a log: without one, whoever reads keeps writers waiting.
pub(super) fn fold_log(db: &Connection, path: &Path, limit_bytes: u64) -> Result<bool> {
    let log = std::fs::metadata(path.with_extension("db-wal"));
    if log.as_ref().map_or(0, std::fs::Metadata::len) < limit_bytes {
        return Ok(log.is_ok());
    }
    let failed = StoreError::index("folding the log");
    db.busy_timeout(Duration::ZERO).map_err(StoreError::index("setting the timeout"))?;
    // The row that it gives says whether it was put off: nothing to be done about that.
    let folded = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    db.busy_timeout(BUSY).map_err(StoreError::index("setting the timeout"))?;
    match folded {
        Err(e) if e.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseBusy) => Err(failed(e)),
        _ => Ok(true),
    }
}

/// Makes the index, or completes one whose making was interrupted; it is on the disk when this returns, since the store's `format`
/// vouches for it. The caller holds the creation lock.
pub(super) fn create(root: &Path, path: &Path) -> Result<Connection> {
    let mut db = open(path)?;
    let mode = if shares_memory(root)? { "WAL" } else { "DELETE" };
    // The answer tells what was really set; SQLite keeps the old mode where WAL can't work, which is what we want then.
    db.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).map_err(StoreError::index("setting the journal mode"))?;
    db.pragma_update(None, "synchronous", "FULL").map_err(StoreError::index("setting synchronous"))?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::index("making the tables"))?;
    make_tables(&tx).map_err(StoreError::index("making the tables"))?;
    tx.commit().map_err(StoreError::index("making the tables"))?;
    db.pragma_update(None, "synchronous", "NORMAL").map_err(StoreError::index("setting synchronous"))?;
    Ok(db)
}

fn make_tables(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch(SCHEMA)?;
    tx.pragma_update(None, "user_version", TABLES)
}

/// Makes the tables that an index of an earlier program lacks. What only explains misses may be lost.
pub(super) fn bring_up(db: &mut Connection, root: &Path) -> Result<()> {
    let doing = "bringing the tables up to date";
    let version = |db: &Connection| db.pragma_query_value(None, "user_version", |r| r.get::<_, i64>(0));
    match version(db).map_err(StoreError::index(doing))? {
        TABLES => Ok(()),
        0..TABLES => {
            let mut run = || {
                let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                // Another process may have been quicker.
                let found = version(&tx)?;
                if found < 1 {
                    tx.execute_batch("DROP TABLE IF EXISTS build_steps; DROP TABLE IF EXISTS builds")?;
                }
                // Before what is in them is looked at: a power cut while a store was made may have left none.
                make_tables(&tx)?;
                if found < 2 {
                    // Lists of files in another form.
                    tx.execute("DELETE FROM meta WHERE kind=?1", [NAMED_BY_SLOTS])?;
                }
                tx.commit()
            };
            run().map_err(StoreError::index(doing))
        }
        later => Err(StoreError::OtherFormat { path: root.into(), found: format!("plywood store 1, tables {later}") }),
    }
}

/// Returns whether a WAL index works at `root`: not on file systems that several machines share.
fn shares_memory(root: &Path) -> Result<bool> {
    // linux/magic.h, and fs/{smb,9p}: NFS, SMB1, CIFS, SMB2, 9p, AFS, Ceph.
    const NETWORK: [u32; 7] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x5346_414f, 0x00c3_6400];
    let stat = rustix::fs::statfs(root).map_err(StoreError::os("looking at the file system of", root))?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the kernel's magic numbers are 32 bits wide
    Ok(!NETWORK.contains(&(stat.f_type as u32)))
}

/// Runs a query for at most one row, prepared once a connection.
pub(super) fn one<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    let doing = StoreError::index("reading a row");
    let mut statement = match db.prepare_cached(sql) {
        Ok(s) => s,
        Err(e) => return Err(doing(e)),
    };
    statement.query_row(params, read).optional().map_err(doing)
}

/// Runs a query for all its rows.
pub(super) fn all<T>(db: &Connection, sql: &str, params: impl Params, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
    let mut statement = db.prepare_cached(sql).map_err(StoreError::index("reading rows"))?;
    let rows = statement.query_map(params, read).map_err(StoreError::index("reading rows"))?;
    rows.collect::<rusqlite::Result<_>>().map_err(StoreError::index("reading rows"))
}

impl Store {
    /// As [`one`], on the store's connection. Only for the call is it locked: a guard that lives on in an `if let`
    /// would lock out the body.
    pub(super) fn one<T>(&self, sql: &str, params: impl Params, read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>) -> Result<Option<T>> {
        one(&self.db(), sql, params, read)
    }

    /// As [`all`], on the store's connection.
    pub(super) fn all<T>(&self, sql: &str, params: impl Params, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        all(&self.db(), sql, params, read)
    }
}

/// Parses a text column.
pub(super) fn parsed<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|_| StoreError::BadRow { what, value: text.chars().take(100).collect() })
}

/// Parses a JSON column.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|_| StoreError::BadRow { what, value: text.chars().take(100).collect() })
}

/// SQLite's integers are signed; sizes beyond are not of this world.
pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The way back of [`int`].
pub(super) fn uint(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
