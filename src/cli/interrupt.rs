//! ctrl-C, SIGTERM and SIGHUP ask for an orderly end; the second one ends at once.

use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
            .map_err(|e| refused(signal, &e))?;
    }
    Ok(token)
}

/// As [`install`], but no signal ends the program at once: for a command that passes signals on as soon as it can.
pub fn mark() -> Result<CancelToken, Failure> {
    let token = CancelToken::new();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let cell = token.cell();
        flag::register_usize(signal, cell, signal.unsigned_abs() as usize).map_err(|e| refused(signal, &e))?;
    }
    Ok(token)
}

fn refused(signal: i32, error: &std::io::Error) -> Failure {
    Failure::message(format!("installing the handler of signal {signal}: {error}"))
}

/// Returns the exit code of a command that was ended by the token's signal: 128 + n.
pub fn status(token: &CancelToken) -> Option<u8> {
    token.signal().and_then(|s| u8::try_from(128 + s).ok())
}

/// Returns standard input as a reader that fails once `asked` says that the work shall end, also while nothing comes.
pub fn stdin<'a>(asked: impl Fn() -> bool + 'a) -> impl Read + 'a {
    BufReader::with_capacity(64 << 10, Waiting { asked })
}

struct Waiting<F> {
    asked: F,
}

impl<F: Fn() -> bool> Read for Waiting<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // A signal would not end a read: the handlers are installed to restart calls, for the sake of everything else.
        const ASK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let stdin = rustix::stdio::stdin();
        loop {
            if (self.asked)() {
                return Err(std::io::Error::other("interrupted"));
            }
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&ASK_EVERY)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(rustix::io::read(stdin, buffer)?),
                Err(e) => return Err(e.into()),
            }
        }
    }
}
