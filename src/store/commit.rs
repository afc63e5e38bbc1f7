//! The group commit: rows that vouch for files are written by one thread, after one `syncfs` for all of them.
//!
//! A build step costs its caller a queue entry; the thread lingers a moment to gather more, syncs the file system
//! once, then inserts all rows in one transaction. Until then the rows are visible to this process through
//! [`Committer::find`], and to nobody else: another process that misses them does the work again, no harm done.
//!
//! The order is the point: rename, sync, row. An entry is queued after its file was renamed, so the sync that
//! follows covers it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::rows::Row;
use super::{Result, StoreError, db};

/// How long the first entry of a group waits for company. A kill loses no more than this and one sync.
const LINGER: Duration = Duration::from_millis(100);

/// How many bytes are written before the disk is asked to take them, while more are written.
const EARLY_BYTES: u64 = 32 << 20;

/// What a finished build withstands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A power cut.
    #[default]
    Synced,
    /// A kill, but no power cut: for stores that are thrown away.
    Unsynced,
}

/// The queue, and the thread that empties it (started by the first entry).
pub(super) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Syncs the store's file system.
type SyncFs = Box<dyn Fn() -> rustix::io::Result<()> + Send + Sync>;

struct Shared {
    sync: SyncFs,
    db_path: PathBuf,
    durability: Durability,
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
}

#[derive(Default)]
struct State {
    queue: Vec<Arc<Row>>,
    in_flight: Vec<Arc<Row>>,
    /// While a reader looks at one state of the index: what was written since, which that state may lack.
    since: Option<Vec<Arc<Row>>>,
    accepted: u64,
    /// Whether a row that vouches for files was among them.
    vouched: bool,
    settled: u64,
    /// Somebody waits: don't linger.
    hurry: bool,
    /// Bytes that were written since the file system was last synced.
    unsynced_bytes: u64,
    /// A sync failed. The kernel tells of a lost write once, and does not say whose it was: no row that vouches for files
    /// may be written any more.
    lost: Option<rustix::io::Errno>,
    closing: bool,
    /// What failed since somebody was last told.
    failure: Option<StoreError>,
    /// What failed first.
    failed: Option<StoreError>,
}

impl Committer {
    pub(super) fn new(root: OwnedFd, db_path: PathBuf, durability: Durability) -> Self {
        Self::syncing(Box::new(move || rustix::fs::syncfs(&root)), db_path, durability)
    }

    fn syncing(sync: SyncFs, db_path: PathBuf, durability: Durability) -> Self {
        let shared = Shared { sync, db_path, durability, state: Mutex::default(), wake: Condvar::new(), done: Condvar::new() };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Queues a row. What it vouches for is in place under its final name.
    pub(super) fn push(&self, row: Row) -> Result<()> {
        self.start()?;
        let mut state = self.shared.state();
        state.vouched |= row.vouches();
        state.queue.push(Arc::new(row));
        state.accepted += 1;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Returns what `pick` makes of the newest queued row that it takes.
    ///
    /// Once rows could not be written it is an error: who looked for one of them would take it for never written.
    pub(super) fn find<T>(&self, mut pick: impl FnMut(&Row) -> Option<T>) -> Result<Option<T>> {
        let state = self.shared.state();
        if let Some(failure) = state.failed.as_ref() {
            return Err(failure.again());
        }
        let since = state.since.iter().flatten().rev();
        Ok(state.queue.iter().rev().chain(state.in_flight.iter().rev()).chain(since).find_map(|row| pick(row)))
    }

    /// From now on, until [`Committer::forget_written`], rows are found here even when they are written: whoever reads an
    /// older state of the index would else find them nowhere.
    pub(super) fn remember_written(&self) {
        self.shared.state().since.get_or_insert_default();
    }

    /// Ends [`Committer::remember_written`].
    pub(super) fn forget_written(&self) {
        self.shared.state().since = None;
    }

    /// Waits until everything queued so far is on the disk.
    pub(super) fn flush(&self) -> Result<()> {
        let mut state = self.shared.state();
        let target = state.accepted;
        while state.settled < target {
            state.hurry = true;
            self.shared.wake.notify_one();
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    /// Returns whether anything was queued so far.
    pub(super) fn has_written(&self) -> bool {
        self.shared.state().accepted > 0
    }

    /// Returns whether anything that speaks of files was queued so far.
    pub(super) fn has_vouched(&self) -> bool {
        self.shared.state().vouched
    }

    /// Writes what is queued without lingering.
    pub(super) fn hurry(&self) {
        self.shared.state().hurry = true;
        self.shared.wake.notify_one();
    }

    /// Tells that files which a row will vouch for are being written: `bytes` more. Where they are many the disk begins
    /// to take them now, so that less is left to wait for at the end.
    pub(super) fn note_writing(&self, bytes: u64) -> Result<()> {
        if self.shared.durability == Durability::Unsynced {
            return Ok(());
        }
        let mut state = self.shared.state();
        state.unsynced_bytes += bytes;
        let early = state.unsynced_bytes >= EARLY_BYTES;
        drop(state);
        if early {
            self.start()?;
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Syncs the file system now: for what is vouched for by other means than a row.
    pub(super) fn sync(&self) -> Result<()> {
        if self.shared.durability == Durability::Unsynced { Ok(()) } else { self.shared.sync() }
    }

    fn start(&self) -> Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let spawned = std::thread::Builder::new().name("store-commit".into()).spawn(move || shared.run());
            *thread = Some(spawned.map_err(StoreError::io("starting the thread that writes", &self.shared.db_path))?);
        }
        Ok(())
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic there was reported by the panic hook; there is nobody to tell here.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut db = None;
        while let Some(batch) = self.gather() {
            let outcome = self.write(&mut db, &batch);
            let mut state = self.state();
            state.settled += batch.len() as u64;
            let batch = std::mem::take(&mut state.in_flight);
            if let (Ok(()), Some(since)) = (&outcome, &mut state.since) {
                since.extend(batch);
            }
            if let Err(e) = outcome {
                // The first failure tells the cause; later ones are its consequences.
                state.failed.get_or_insert(e.again());
                state.failure.get_or_insert(e);
            }
            drop(state);
            self.done.notify_all();
        }
    }

    /// Waits for a group; none: the store was closed and nothing is left.
    fn gather(&self) -> Option<Vec<Arc<Row>>> {
        let mut state = self.state();
        while state.queue.is_empty() {
            if state.closing {
                return None;
            }
            if state.unsynced_bytes >= EARLY_BYTES {
                state.unsynced_bytes = 0;
                drop(state);
                // What failed here is told with the first row that it concerns.
                let _ = self.sync();
                state = self.state();
                continue;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut state, _) =
            self.wake.wait_timeout_while(state, LINGER, |s| !s.hurry && !s.closing).unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
        state.unsynced_bytes = 0;
        state.in_flight = std::mem::take(&mut state.queue);
        Some(state.in_flight.clone())
    }

    fn sync(&self) -> Result<()> {
        let failed = StoreError::os("syncing the store's file system", &self.db_path);
        let lost = self.state().lost;
        let outcome = lost.map_or_else(|| (self.sync)(), Err);
        outcome.map_err(|e| {
            self.state().lost = Some(e);
            failed(e)
        })
    }

    fn write(&self, kept: &mut Option<Connection>, batch: &[Arc<Row>]) -> Result<()> {
        let vouching = batch.iter().any(|row| row.vouches());
        let synced = self.durability == Durability::Synced && vouching;
        if synced {
            self.sync()?;
        }
        let db = match kept {
            Some(db) => db,
            None => kept.insert(db::open(&self.db_path)?),
        };
        // FULL makes the transaction itself survive a power cut, once a group.
        let level = if synced { "FULL" } else { "NORMAL" };
        db.pragma_update(None, "synchronous", level).map_err(StoreError::index("setting synchronous"))?;
        let doing = "writing rows";
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::index(doing))?;
        for row in batch {
            row.write(&tx).map_err(StoreError::index(doing))?;
        }
        tx.commit().map_err(StoreError::index(doing))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::io::Errno;

    use super::*;
    use crate::digest::Digest;

    #[test]
    fn after_a_failed_sync_no_row_vouches_for_files() {
        let dir = tempfile::tempdir().unwrap();
        let (path, calls) = (dir.path().join("index.db"), Arc::new(AtomicUsize::new(0)));
        drop(db::create(dir.path(), &path).unwrap());
        for early in [false, true] {
            calls.store(0, Ordering::SeqCst);
            let counted = Arc::clone(&calls);
            // As the kernel: it tells once.
            let once = move || if counted.fetch_add(1, Ordering::SeqCst) == 0 { Err(Errno::IO) } else { Ok(()) };
            let committer = Committer::syncing(Box::new(once), path.clone(), Durability::Synced);
            let blob = |n: u8| Row::Blob { digest: Digest::of(&[n]), size_bytes: 1 };
            if early {
                committer.note_writing(EARLY_BYTES).unwrap();
                while calls.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
            }
            for n in 0..2 {
                committer.push(blob(n)).unwrap();
                let failed = committer.flush().unwrap_err();
                assert!(matches!(failed, StoreError::Io { .. }), "{early} {n}: {failed:?}");
            }
            let found = committer.find(|row| matches!(row, Row::Blob { .. }).then_some(()));
            assert!(matches!(found, Err(StoreError::Io { .. })), "a lost row passes for one that never was: {found:?}");
            committer.push(Row::Slot { id: "s".into(), body: Vec::new() }).unwrap();
            committer.flush().unwrap();
            let count = |table| {
                let sql = format!("SELECT count(*) FROM {table}");
                db::open(&path).unwrap().query_row(&sql, [], |r| r.get::<_, i64>(0)).unwrap()
            };
            assert_eq!((count("blobs"), count("slots"), calls.load(Ordering::SeqCst)), (0, 1, 1), "{early}");
        }
    }

    #[test]
    fn much_that_is_written_is_synced_before_its_row_comes_and_never_where_nothing_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        for (durability, want) in [(Durability::Synced, 1), (Durability::Unsynced, 0)] {
            let (told, heard) = std::sync::mpsc::channel();
            let sync = Box::new(move || told.send(()).map_err(|_| Errno::IO));
            let committer = Committer::syncing(sync, dir.path().join("index.db"), durability);
            committer.note_writing(EARLY_BYTES - 1).unwrap();
            committer.note_writing(1).unwrap();
            if want == 1 {
                heard.recv_timeout(Duration::from_secs(60)).unwrap();
            }
            drop(committer);
            assert_eq!(heard.try_iter().count(), 0, "{durability:?}");
        }
    }
}
