//! Room on the disk, after a build: collection by the store's policy, told in one line.

use crate::cache::worth;
use crate::store::{CollectPolicy, Limits, PruneReport, RecordRow};

use super::Engine;
use super::error::chain;
use super::event::Event;
use super::request::Collection;

/// Collects if it is time to. That it failed is no failure of the build: what there is to say is a notice.
pub(super) fn after(engine: &Engine<'_>, wanted: Option<&Collection>) {
    let Some(wanted) = wanted.filter(|_| !engine.cancel.is_cancelled()) else { return };
    // What is said replaces what is usual, field by field.
    let policy = |disk| {
        let usual = CollectPolicy::of(disk);
        let limits = Limits {
            max_used: wanted.limits.max_used.or(usual.limits.max_used),
            min_free: wanted.limits.min_free.or(usual.limits.min_free),
            reserved: wanted.limits.reserved.or(usual.limits.reserved),
        };
        CollectPolicy { limits, keep_secs: wanted.keep_secs.unwrap_or(usual.keep_secs), ..usual }
    };
    let judge = |records: &[RecordRow]| worth::appraise(records, &worth::Uses::new());
    let collected = engine.store.collect(policy, engine.now_secs(), &judge);
    let notice = match collected {
        Ok(report) => report.as_ref().and_then(told),
        Err(error) => Some(format!("making room in the store: {}", chain(&error))),
    };
    notice.into_iter().for_each(|text| engine.observer.event(Event::Notice(text)));
}

fn told(report: &PruneReport) -> Option<String> {
    if report.freed.bytes == 0 && report.units.is_empty() {
        return None;
    }
    let mega = |bytes: u64| bytes.div_ceil(1_000_000);
    let things = report.units.len();
    let left = report.left_bytes.map(|bytes| format!("; the cache takes {} MB", mega(bytes))).unwrap_or_default();
    Some(format!(
        "made room in the store: {things} thing{} of least worth went, {} MB{left} (PLY_GC says how much it may take)",
        if things == 1 { "" } else { "s" },
        mega(report.freed.bytes)
    ))
}
