//! ctrl-C, SIGTERM and SIGHUP ask for an orderly end; the second one ends at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::cli::failure::Failure;
use crate::engine::cancel::CancelToken;

/// Installs the handlers and returns what they set.
///
/// The first signal only marks the token, for whoever runs to kill its processes and unmount. A second one ends
/// the program with 128 + n: the store stays whole (it survives kill -9), a sandbox dies with its parent.
pub fn install() -> Result<CancelToken, Failure> {
    let token = CancelToken::new();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let again = Arc::new(AtomicBool::new(false));
        // In this order: at the first signal the shutdown sees `again` unset, then it is set.
        flag::register_conditional_shutdown(signal, 128 + signal, again.clone())
            .and_then(|_| flag::register(signal, again))
            .and_then(|_| flag::register_usize(signal, token.cell(), signal.unsigned_abs() as usize))
            .map_err(|e| Failure::message(format!("installing the handler of signal {signal}: {e}")))?;
    }
    Ok(token)
}

/// Returns the exit code of a command that was ended by the token's signal: 128 + n.
pub fn status(token: &CancelToken) -> Option<u8> {
    token.signal().and_then(|s| u8::try_from(128 + s).ok())
}
