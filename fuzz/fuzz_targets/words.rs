//! libFuzzer's entry to `checks/words.rs`.
#![no_main]

#[path = "../checks/words.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::run(bytes));
