//! libFuzzer's entry to `checks/fmt.rs`.
#![no_main]

#[path = "../checks/fmt.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::run(bytes));
