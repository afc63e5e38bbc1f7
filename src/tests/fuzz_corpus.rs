//! Replays the committed fuzz inputs (`testdata/fuzz/TARGET`) on a stable toolchain, with the checks of the fuzz targets.
//!
//! Not fuzzing: that is `cargo fuzz` (fuzz/README.md). What was found once stays found: a finding is a file `finding-…`.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.

#[path = "../../fuzz/checks/fmt.rs"]
mod fmt;
#[path = "../../fuzz/checks/front.rs"]
mod front;
#[path = "../../fuzz/checks/words.rs"]
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fuzz").join(target);
    let mut inputs = 0;
    let mut failed = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder of inputs") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("an input");
        inputs += 1;
        if catch_unwind(AssertUnwindSafe(|| run(&bytes))).is_err() {
            failed.push(path);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert!(inputs > 100, "only {inputs} inputs in {}", folder.display());
}

#[test]
fn the_front_holds_for_every_input() {
    replay("front", front::run);
}

#[test]
fn the_small_languages_hold_for_every_input() {
    replay("words", words::run);
}

#[test]
fn the_formatter_holds_for_every_input() {
    replay("fmt", fmt::run);
}
