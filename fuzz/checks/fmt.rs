//! Bytes as a Dockerfile to format: parse → print → parse is the identity, and printing twice is printing once.
//!
//! Shared by the fuzz target and by `src/tests/fuzz_corpus.rs`, which replays `testdata/fuzz/fmt` on a stable toolchain.

use plywood::dockerfile::format::{format, is_same, text};
use plywood::dockerfile::parse;
use plywood::dockerfile::source::Source;

/// Formats the bytes; panics when something does not hold.
pub fn run(bytes: &[u8]) {
    let written = String::from_utf8_lossy(bytes);
    let source = Source::new("Dockerfile", written.as_ref());
    let (file, parts) = match (parse(&source), format(&source)) {
        (Ok(file), Ok(parts)) => (file, parts),
        (Err(_), Err(_)) => return,
        (parsed, formatted) => panic!("parsed {}, formatted {}", parsed.is_ok(), formatted.is_ok()),
    };
    assert_eq!(parts.iter().map(|part| part.before).collect::<String>(), written, "every byte belongs to one part");
    let once = text(&parts);
    let again = Source::new("Dockerfile", once.as_str());
    let parsed = parse(&again).expect("what is printed can be parsed");
    assert!(is_same(&file, &parsed), "the meaning is kept");
    assert_eq!(text(&format(&again).expect("what can be parsed can be printed")), once, "printing twice is printing once");
}
