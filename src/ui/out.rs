//! Standard output and standard error, written whole and with their faults handled.
//!
//! `println!` panics on a closed pipe; these don't. Results that can't be written are an error of the command;
//! what can't be said on standard error is lost, since there is nobody to tell.

use std::io::{self, Write};

/// Writes a result to standard output.
pub fn result(text: &str) -> io::Result<()> {
    bytes(text.as_bytes())
}

/// Writes a result and a line end to standard output.
pub fn line(text: &str) -> io::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output, as they are.
pub fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Writes text to standard error.
pub fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
