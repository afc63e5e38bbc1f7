//! Compares verdicts on thirty thousand Dockerfiles with BuildKit's.
//!
//! The corpus (`PLY_CORPUS`, default `../shared/corpus`; archives, or folders already unpacked) is data of its
//! own and no part of the project; without it the test says so and passes. Compared are: accepted or not, the
//! line of the error, and, where BuildKit's parse tree is
//! recorded, each instruction.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.

// A test's report goes to the terminal.
#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use plywood::dockerfile;
use plywood::dockerfile::instruction::{CommandLine, CopyArg, CopyArgs, File, Instruction, Kind, Pair, Word};
use plywood::dockerfile::source::{Diagnostic, Source};
use rayon::prelude::*;
use serde_json::Value;

#[path = "corpus_syntax/dump.rs"]
mod dump;
#[path = "corpus_syntax/tree.rs"]
mod tree;

/// Where the corpus is, if it is.
fn corpus() -> Option<PathBuf> {
    let folder =
        std::env::var_os("PLY_CORPUS").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"), PathBuf::from);
    folder.join("ref.tar.zst").is_file().then_some(folder)
}

/// Reads all files of an archive.
fn unpack(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = std::fs::File::open(archive).expect("the archive opens");
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("a zstd archive"));
    let mut files = BTreeMap::new();
    for entry in archive.entries().expect("a tar archive") {
        let mut entry = entry.expect("a tar entry");
        if entry.header().entry_type().is_file() {
            let path = entry.path().expect("a path").into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("the entry's bytes");
            let name = path.file_stem().expect("a file name").to_string_lossy().into_owned();
            files.insert(name, bytes);
        }
    }
    files
}

/// What is compared, each counted by itself.
const ASPECTS: [&str; 5] = ["verdict", "error line", "tree", "dump", "triggers"];

/// As many differences as an aspect of a set may have: one mutant spells an instruction over two lines, and we
/// name the second, where the error is.
const ALLOWED: usize = 1;

/// What a file's comparison gave.
#[derive(Default)]
struct Comparison {
    differences: Vec<(&'static str, String)>,
    /// The whole tree could be printed and compared.
    printed: bool,
}

fn compare(row: &Value, bytes: &[u8]) -> Comparison {
    let source = Source::new("Dockerfile", String::from_utf8_lossy(bytes));
    let error = row["error"].as_str().unwrap_or_default();
    // No FROM at all is an error of its planner; for us it is one of the text.
    let accepted = row["parse"] == "ok" && row["instr"] == "ok" && error != "dockerfile contains no stages to build";
    let mut comparison = Comparison::default();
    match (dockerfile::parse(&source), accepted) {
        (Ok(_), false) => comparison.differences.push(("verdict", format!("accepted; BuildKit: {error}"))),
        (Err(ours), true) => comparison.differences.push(("verdict", format!("refused: {ours}"))),
        (Err(ours), false) => comparison.differences.extend(line_of_error(&ours, error).map(|what| ("error line", what))),
        (Ok(file), true) => {
            let printed = dump::print(&file);
            comparison.printed = printed.is_some();
            comparison.differences.extend(tree::compare(&file, row).map(|what| ("tree", what)));
            comparison.differences.extend(printed.and_then(|text| dump::compare(text, row)).map(|what| ("dump", what)));
            comparison.differences.extend(triggers(&file, row).map(|what| ("triggers", what)));
        }
    }
    comparison
}

/// Compares the line where BuildKit names one.
fn line_of_error(ours: &Diagnostic, theirs: &str) -> Option<String> {
    let line: usize = theirs.split_once("on line ")?.1.split(':').next()?.parse().ok()?;
    let source = ours.source.as_ref()?;
    (!is_line(source, source.line(ours.span.start), line)).then(|| format!("{ours}; BuildKit: {theirs}"))
}

/// Tells whether two line numbers mean one instruction: BuildKit starts one at a lone continuation mark above,
/// or at comments and empty lines after that; we point at its text.
fn is_line(source: &Source, ours: usize, theirs: usize) -> bool {
    let lines: Vec<&str> = source.text().lines().collect();
    let nothing = |line: &&str| matches!(line.trim().trim_start_matches('\u{FEFF}'), "" | "\\" | "`") || line.trim_start().starts_with('#');
    theirs == ours || (theirs < ours && lines[theirs - 1..ours - 1].iter().all(nothing))
}

/// Compares the triggers that the last stage's image stores.
fn triggers(file: &File, row: &Value) -> Option<String> {
    let last = file.stages.last()?;
    let stored = |instruction: &Instruction| match &instruction.kind {
        Kind::Onbuild(onbuild) => Some(onbuild.text.clone()),
        _ => None,
    };
    let ours: Vec<String> = last.instructions.iter().filter_map(stored).collect();
    let theirs = row["config"].as_object()?.get("OnBuild").cloned().unwrap_or(Value::Array(Vec::new()));
    (theirs != Value::from(ours.clone())).then(|| format!("{ours:?}; BuildKit: {theirs}"))
}

fn instructions(file: &File) -> impl Iterator<Item = &Instruction> {
    file.global_args.iter().chain(file.stages.iter().flat_map(|stage| std::iter::once(&stage.instruction).chain(&stage.instructions)))
}

#[test]
fn verdicts_agree_with_buildkit() {
    let Some(folder) = corpus() else {
        eprintln!("skipped: no corpus; set PLY_CORPUS to its folder");
        return;
    };
    let reference = unpack(&folder.join("ref.tar.zst"));
    for set in ["wild", "micro", "fuzz"] {
        let files = unpack(&folder.join(format!("{set}.tar.zst")));
        let rows: Vec<Value> =
            String::from_utf8_lossy(&reference[set]).lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
        let compared: Vec<(&str, Comparison)> = rows
            .par_iter()
            .map(|row| {
                let file = row["file"].as_str().expect("a name");
                let bytes = files.get(file).unwrap_or_else(|| panic!("{set}/{file} is missing"));
                (file, compare(row, bytes))
            })
            .collect();
        let printed = compared.iter().filter(|(_, comparison)| comparison.printed).count();
        eprintln!("{set}: {printed} whole trees compared");
        assert!(printed >= rows.len() / 3, "{set}: too few trees are compared");
        for aspect in ASPECTS {
            let of_aspect = |(file, comparison): &(&str, Comparison)| {
                let found = comparison.differences.iter().filter(|(name, _)| *name == aspect);
                found.map(|(_, what)| format!("  {set}/{file}: {what}")).collect::<Vec<_>>()
            };
            let differences: Vec<String> = compared.iter().flat_map(of_aspect).collect();
            eprintln!("{set}: {aspect}: {} of {} files differ", differences.len(), rows.len());
            for difference in differences.iter().take(20) {
                eprintln!("{difference}");
            }
            assert!(differences.len() <= ALLOWED, "{set}: {aspect}");
        }
    }
}
