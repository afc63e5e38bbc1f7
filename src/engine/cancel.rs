//! The wish that a build or container end, as a value that any thread can ask.
//!
//! A signal handler (installed by `cli`) sets it; whoever waits, copies or runs a process asks it. It is never
//! taken back. A newcomer would let each thread end at once: each must first kill what it started and leave the
//! store whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether to end, and by which signal; clones share it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicUsize>);

impl CancelToken {
    /// Returns a token that nothing has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end, as if `signal` had come; the latest call's signal counts.
    pub fn cancel(&self, signal: i32) {
        self.0.store(usize::try_from(signal).unwrap_or(usize::MAX), Ordering::SeqCst);
    }

    /// Returns whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    /// Returns a reader that fails once the end was asked for.
    pub fn reading<R>(&self, inner: R) -> Reading<R> {
        Reading { inner, cancel: self.clone() }
    }

    /// Returns a sink that fails once the end was asked for: for work whose product is not kept.
    pub fn sink(&self) -> Sink {
        Sink(self.clone())
    }

    /// Returns the signal that asked for the end.
    pub fn signal(&self) -> Option<i32> {
        i32::try_from(self.0.load(Ordering::SeqCst)).ok().filter(|s| *s != 0)
    }

    /// Returns the number that a signal handler may set to the signal's number.
    pub fn cell(&self) -> Arc<AtomicUsize> {
        self.0.clone()
    }
}

/// See [`CancelToken::reading`].
#[derive(Debug)]
pub struct Reading<R> {
    inner: R,
    cancel: CancelToken,
}

impl<R: std::io::Read> std::io::Read for Reading<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // Not `Interrupted`: that kind is tried again.
        if self.cancel.is_cancelled() { Err(std::io::Error::other("interrupted")) } else { self.inner.read(buffer) }
    }
}

/// See [`CancelToken::sink`].
#[derive(Debug)]
pub struct Sink(CancelToken);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.is_cancelled() { Err(std::io::Error::other("interrupted")) } else { Ok(bytes.len()) }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_see_the_signal() {
        let token = CancelToken::new();
        let other = token.clone();
        assert_eq!((other.is_cancelled(), other.signal()), (false, None));
        token.cancel(15);
        assert_eq!((other.is_cancelled(), other.signal()), (true, Some(15)));
    }

    #[test]
    fn a_reader_fails_once_its_token_is_cancelled() {
        use std::io::Read as _;
        let token = CancelToken::new();
        let mut reader = token.reading(&b"ab"[..]);
        let mut byte = [0];
        assert_eq!((reader.read(&mut byte).unwrap(), byte), (1, *b"a"));
        token.cancel(15);
        assert_eq!(reader.read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::Other);
        assert!(std::io::Write::write_all(&mut token.sink(), b"a").is_err());
    }
}
