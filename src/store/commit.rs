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

struct Shared {
    root: OwnedFd,
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
    accepted: u64,
    settled: u64,
    /// Somebody waits: don't linger.
    hurry: bool,
    /// Bytes that were written since the file system was last synced.
    unsynced_bytes: u64,
    closing: bool,
    failure: Option<StoreError>,
}

impl Committer {
    pub(super) fn new(root: OwnedFd, db_path: PathBuf, durability: Durability) -> Self {
        let shared = Shared { root, db_path, durability, state: Mutex::default(), wake: Condvar::new(), done: Condvar::new() };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Queues a row. What it vouches for is in place under its final name.
    pub(super) fn push(&self, row: Row) -> Result<()> {
        self.start()?;
        let mut state = self.shared.state();
        state.queue.push(Arc::new(row));
        state.accepted += 1;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Returns what `pick` makes of the newest queued row that it takes.
    pub(super) fn find<T>(&self, mut pick: impl FnMut(&Row) -> Option<T>) -> Option<T> {
        let state = self.shared.state();
        state.queue.iter().rev().chain(state.in_flight.iter().rev()).find_map(|row| pick(row))
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

    /// Writes what is queued without lingering.
    pub(super) fn hurry(&self) {
        self.shared.state().hurry = true;
        self.shared.wake.notify_one();
    }

    /// Tells that files which a row will vouch for are being written: `bytes` more. Where they are many the disk begins
    /// to take them now, so that less is left to wait for at the end.
    pub(super) fn note_writing(&self, bytes: u64) -> Result<()> {
        let mut state = self.shared.state();
        state.unsynced_bytes += bytes;
        let early = state.unsynced_bytes >= EARLY_BYTES && self.shared.durability == Durability::Synced;
        drop(state);
        if early {
            self.start()?;
            self.shared.wake.notify_one();
        }
        Ok(())
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
            state.in_flight.clear();
            if let Err(e) = outcome {
                // The first failure tells the cause; later ones are its consequences.
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
                let outcome = self.sync();
                state = self.state();
                // The kernel tells of a failed write once: who syncs next would not hear of it.
                if let Err(e) = outcome {
                    state.failure.get_or_insert(e);
                }
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
        rustix::fs::syncfs(&self.root).map_err(StoreError::os("syncing the store's file system", &self.db_path))
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
