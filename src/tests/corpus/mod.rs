//! Reads the recorded corpora: real Dockerfiles and BuildKit's answers to them.
//!
//! They are data, kept outside of the project (`PLY_CORPUS`, else `../shared/corpus` beside the checkout); a test that
//! finds no folder says so and passes.
#![allow(dead_code, missing_docs, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use serde_json::Value;

/// Returns the corpus folder, or says that there is none.
pub fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("PLY_CORPUS").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"));
    let there = folder.join("lex.jsonl.zst").is_file();
    if !there {
        println!("skipped: no corpus at {} (PLY_CORPUS names another place)", folder.display());
    }
    there.then_some(folder)
}

fn unpacked(folder: &std::path::Path, name: &str) -> Vec<u8> {
    let file = std::fs::File::open(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut out = Vec::new();
    zstd::Decoder::new(file).and_then(|mut d| d.read_to_end(&mut out)).unwrap_or_else(|e| panic!("{name}: {e}"));
    out
}

fn rows(text: &[u8]) -> Vec<Value> {
    text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).expect("a row is JSON")).collect()
}

/// Returns the rows of `lex.jsonl.zst`.
pub fn lex_rows(folder: &std::path::Path) -> Vec<Value> {
    rows(&unpacked(folder, "lex.jsonl.zst"))
}

/// Returns the files of `wild`, `micro` or `fuzz`, by name.
pub fn files(folder: &std::path::Path, set: &str) -> BTreeMap<String, Vec<u8>> {
    let tar = unpacked(folder, &format!("{set}.tar.zst"));
    let mut out = BTreeMap::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().expect("a tar") {
        let mut entry = entry.expect("a tar entry");
        if entry.header().entry_type().is_file() {
            let name = entry.path().expect("a name").file_stem().expect("a file").to_string_lossy().into_owned();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).expect("a tar entry");
            out.insert(name, text);
        }
    }
    out
}

/// Returns BuildKit's answers for a set.
pub fn answers(folder: &std::path::Path, set: &str) -> Vec<Value> {
    let tar = unpacked(folder, "ref.tar.zst");
    let want = format!("{set}.jsonl");
    for entry in tar::Archive::new(tar.as_slice()).entries().expect("a tar") {
        let mut entry = entry.expect("a tar entry");
        if entry.path().expect("a name").file_name().is_some_and(|n| n == want.as_str()) {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).expect("a tar entry");
            return rows(&text);
        }
    }
    panic!("ref.tar.zst has no {want}")
}
