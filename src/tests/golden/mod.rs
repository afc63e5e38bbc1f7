//! What the golden tests share: a folder a case, the expected text beside the input, and how a diagnostic is printed.
//!
//! `PLY_BLESS=1 cargo test --test NAME` writes the expected texts anew, to be read before they are committed.
#![allow(dead_code)] // not every test prints diagnostics

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use plywood::dockerfile::source::{Diagnostic, Severity};

/// Runs the cases of a folder of `testdata`: `found` makes a case's text, which `expect.txt` must hold.
pub fn run(folder: &str, found: fn(&Path) -> Result<String, Failed>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("the golden folder").map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    let trials = cases.into_iter().map(|case| {
        let name = case.file_name().expect("a name").to_string_lossy().into_owned();
        Trial::test(name, move || check(&case, &found(&case)?))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn check(case: &Path, found: &str) -> Result<(), Failed> {
    let golden = case.join("expect.txt");
    if std::env::var_os("PLY_BLESS").is_some() {
        std::fs::write(&golden, found)?;
    }
    let expected = std::fs::read_to_string(&golden)?;
    if found == expected { Ok(()) } else { Err(format!("--- expected\n{expected}\n+++ found\n{found}").into()) }
}

/// An error or warning with the line that it stands on.
pub fn diagnostic(found: &Diagnostic) -> String {
    let kind = match (found.severity, found.rule) {
        (Severity::Error, _) => "error".to_owned(),
        (Severity::Warning, rule) => rule.unwrap_or("warning").to_owned(),
    };
    let mut text = format!("{kind}: {found}\n");
    if let Some(source) = &found.source {
        let (line, column) = source.line_column(found.span.start);
        let shown = source.text().split('\n').nth(line - 1).unwrap_or_default().trim_end_matches('\r');
        let width =
            source.text()[found.span.start as usize..found.span.end as usize].split('\n').next().unwrap_or_default().chars().count();
        let _ = writeln!(text, "  | {shown}\n  | {}{}", " ".repeat(column - 1), "^".repeat(width.max(1)));
    }
    if let Some(hint) = &found.hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}
