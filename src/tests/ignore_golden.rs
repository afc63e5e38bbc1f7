//! Golden ignore files: each folder of `testdata/ignore` holds an `ignore` file, the `paths` to try, and in `expect.txt` what
//! becomes of each, or the error.
//!
//! `/` after a path in `expect.txt` tells that, if it is a directory, a walk enters it although it is left out.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.

mod golden;

use std::fmt::Write as _;

use plywood::dockerfile::ignore::{IgnoreRules, Verdict};

fn main() {
    golden::run("ignore", |case| {
        let text = std::fs::read_to_string(case.join("ignore"))?;
        let rules = match IgnoreRules::parse(&text) {
            Ok(rules) => rules,
            Err(error) => return Ok(format!("error: {error}\n")),
        };
        let mut out = String::new();
        for path in std::fs::read_to_string(case.join("paths"))?.lines() {
            let enters = rules.verdict(path, true) == Verdict::IgnoreButDescend;
            let _ = match rules.matching_line(path) {
                None => writeln!(out, "kept     {path}"),
                Some(line) => writeln!(out, "ignored  {path}{} by line {line}", if enters { "/" } else { "" }),
            };
        }
        Ok(out)
    });
}
