//! Bytes as the small languages inside a Dockerfile: expansion, splitting, ignore patterns, image references, CSV, durations.
//!
//! The first line is the word or the patterns' file (with `\r` for its line ends), the second the variables
//! (`A=1,B=2`), the third a path or value to try it on. Checked is what holds for every input: no panic, results within
//! the documented limits, and the laws that each part has (a printed reference reads the same again, a walk that enters
//! directories one by one says what the whole path says).
//!
//! Shared by the fuzz target and by `src/tests/fuzz_corpus.rs`, which replays `testdata/fuzz/words` on a stable toolchain.

use std::collections::BTreeMap;

use plywood::dockerfile::expand::Expander;
use plywood::dockerfile::ignore::{Glob, IgnoreRules, Trail, clean, file_patterns};
use plywood::dockerfile::limits::MAX_EXPANSION_BYTES;
use plywood::dockerfile::{csv, duration, suggest};
use plywood::image::platform::Platform;
use plywood::image::reference::Reference;

/// Reads the bytes as each of the languages; panics when something does not hold.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(3, '\n');
    let (word, variables, tried) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    expansion(word, variables);
    patterns(word, tried);
    if let Ok(reference) = Reference::parse(word) {
        let printed = reference.to_string();
        assert_eq!(Reference::parse(&printed).map(|again| again.to_string()), Ok(printed));
        assert!(!reference.familiar().is_empty());
    }
    if let Ok(platform) = word.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().map(|again| again.to_string()), Ok(platform.to_string()));
    }
    if let Ok(fields) = csv::fields(word) {
        assert!(fields.iter().map(String::len).sum::<usize>() <= word.len());
    }
    let _ = duration::parse_ns(word);
    let _ = suggest::nearest(word, variables.split(','));
    let _ = suggest::nearest_ignoring_case(word, &variables.split(',').collect::<Vec<_>>());
}

fn expansion(word: &str, variables: &str) {
    let env: BTreeMap<String, String> =
        variables.split(',').filter_map(|v| v.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let expanders = [Expander::new('\\'), Expander::new('`'), Expander::new('\\').for_bodies(), Expander::new('\\').for_display()];
    for expander in expanders {
        if let Ok(expansion) = expander.word(word, &env) {
            assert!(expansion.text.len() <= MAX_EXPANSION_BYTES);
            assert!(expansion.matched.iter().all(|name| env.contains_key(name)));
            assert!(!expansion.unmatched.iter().any(|name| env.contains_key(name)));
            let words = expander.words(word, &env).expect("a word that expands can be split");
            assert!(words.iter().map(String::len).sum::<usize>() <= MAX_EXPANSION_BYTES);
        }
    }
}

fn patterns(text: &str, path: &str) {
    let file = text.replace('\r', "\n");
    for (line, _) in file_patterns(&file) {
        assert!(line >= 1 && line <= file.split('\n').count());
    }
    let path = clean(path.trim_matches('/'));
    if let Ok(rules) = IgnoreRules::parse(&file) {
        rules.matches_or_parent_matches(&path);
        rules.verdict(&path, true);
        let mut trail = Trail::default();
        for end in path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0) {
            trail = rules.enter(&trail, &path[..end], true).1;
        }
        assert_eq!(rules.enter(&trail, &path, false).0, rules.verdict(&path, false));
        assert_eq!(rules.matching_line(&path).is_some(), rules.is_ignored(&path));
    }
    if let Ok(glob) = Glob::parse(text) {
        glob.is_match(path.as_bytes());
    }
}
