//! libFuzzer's entry to `checks/front.rs`.
#![no_main]

#[path = "../checks/front.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::run(bytes));
