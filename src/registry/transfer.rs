//! HTTP requests that end when they are cancelled.
//!
//! A read from a socket can't be called off, and a server may say nothing for as long as it likes. So a thread of its own
//! waits for the server, and whoever wants the answer waits for the thread, and asks meanwhile whether to give up. A
//! thread that nobody waits for any more ends with its next read or timeout, or with the process; it holds a socket and
//! nothing of the store.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ureq::BodyReader;

/// How often a wait asks whether to give up.
const POLL: Duration = Duration::from_millis(50);
/// What is read at once, and how many of these may lie ready: the memory of one transfer.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS: usize = 16;

/// Runs `work` in a thread and returns what it gave; none: `give_up` became true first.
pub(crate) fn patiently<T: Send + 'static>(give_up: &dyn Fn() -> bool, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Option<T>> {
    let (tell, told) = sync_channel(1);
    std::thread::Builder::new().name("request".into()).spawn(move || {
        // Nobody listens any more: that is what giving up means.
        let _ = tell.send(work());
    })?;
    receive(&told, give_up)
}

/// Sleeps; no: `give_up` became true first.
pub(crate) fn pause(time: Duration, give_up: &dyn Fn() -> bool) -> bool {
    let mut left = time;
    while !left.is_zero() {
        if give_up() {
            return false;
        }
        let now = left.min(POLL);
        std::thread::sleep(now);
        left -= now;
    }
    !give_up()
}

fn receive<T>(from: &Receiver<T>, give_up: &dyn Fn() -> bool) -> io::Result<Option<T>> {
    loop {
        if give_up() {
            return Ok(None);
        }
        match from.recv_timeout(POLL) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the transfer's thread ended")),
        }
    }
}

/// A body, read ahead by a thread; reading fails once `give_up` is true.
pub(crate) struct Pumped<G> {
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
    give_up: G,
}

impl<G: Fn() -> bool> Pumped<G> {
    pub(crate) fn start(body: BodyReader<'static>, give_up: G) -> io::Result<Self> {
        let (fill, chunks) = sync_channel(CHUNKS);
        std::thread::Builder::new().name("download".into()).spawn(move || pump(body, &fill))?;
        Ok(Self { chunks, current: Vec::new(), at: 0, ended: false, give_up })
    }
}

/// Ends when the body does, or when nobody takes the chunks any more.
fn pump(mut body: BodyReader<'static>, fill: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = match body.read(&mut chunk) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => read,
        };
        let last = !matches!(read, Ok(n) if n > 0);
        let sent = fill.send(read.map(|n| {
            chunk.truncate(n);
            chunk
        }));
        if last || sent.is_err() {
            return;
        }
    }
}

impl<G: Fn() -> bool> Read for Pumped<G> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() && !self.ended {
            // Not `Interrupted`: that kind is tried again.
            self.current = receive(&self.chunks, &self.give_up)?.ok_or_else(|| io::Error::other("interrupted"))??;
            self.at = 0;
            self.ended = self.current.is_empty();
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
