//! Reading much at once: one state of the index, and no collection meanwhile.
//!
//! A build in which nothing changed asks the index some hundred questions. Each on its own costs a transaction (locks
//! on the index's files), and each layer that is taken costs the collection lock and a write to the session's file;
//! together they cost one of each.
//!
//! What a newcomer gets wrong: a snapshot ends by itself where this process writes to the index or waits for its
//! writes ([`Store::flush`]), since what is asked afterwards must see them. A survey ends where it says so.

use super::lock::CollectionGuard;
use super::{Result, Store, StoreError};

/// A moment of [`Store::snapshot`]; the snapshot ends with it.
pub struct Snapshot<'a>(&'a Store);

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        self.0.end_snapshot();
    }
}

/// A moment of [`Store::survey`].
pub struct Survey<'a> {
    // In this order: what was taken is written down before a collection can begin.
    held: Holding<'a>,
    _snapshot: Snapshot<'a>,
    _no_collection: CollectionGuard<'a>,
}

/// Ends the gathering of names for the session's file, also when the survey was given up by an error.
struct Holding<'a>(&'a Store);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        // Whoever goes on after a survey has called `end` and knows.
        let _ = self.0.write_gathered();
    }
}

impl Survey<'_> {
    /// Ends it. Error: what was taken in it can't be protected from collection any further.
    pub fn end(self) -> Result<()> {
        self.held.0.write_gathered()
    }
}

impl Store {
    /// Lets what is read until the end be of one state of the index, as far as nothing is written in between.
    /// (Not on a file system that several machines share: there each question stays a transaction of its own.)
    pub fn snapshot(&self) -> Result<Snapshot<'_>> {
        let snapshot = Snapshot(self);
        let db = self.db();
        if self.has_log && db.is_autocommit() {
            // First: what is written from here on may be missing in what is read.
            self.committer.remember_written();
            db.execute_batch("BEGIN").map_err(StoreError::index("beginning to read"))?;
        }
        drop(db);
        Ok(snapshot)
    }

    /// As [`Store::snapshot`], and nothing is collected meanwhile: to find and hold the layers of a whole build.
    ///
    /// Of one thread's work, and of moments: a collection waits as long as this lasts.
    pub fn survey(&self) -> Result<Survey<'_>> {
        // First: what is read then is what no collection takes away before it is held.
        let no_collection = self.collection.shared()?;
        self.begin_gathering()?;
        let held = Holding(self);
        Ok(Survey { held, _snapshot: self.snapshot()?, _no_collection: no_collection })
    }

    /// Ends a snapshot, if there is one: what others wrote meanwhile is seen from then on.
    pub fn end_snapshot(&self) {
        self.end_snapshot_of(&self.db());
    }

    /// As [`Store::end_snapshot`], for who has the connection.
    pub(super) fn end_snapshot_of(&self, db: &rusqlite::Connection) {
        if !db.is_autocommit() {
            // Of a transaction that wrote nothing it can only fail by being ended already.
            let _ = db.execute_batch("COMMIT");
            self.committer.forget_written();
        }
    }
}
