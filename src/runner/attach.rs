//! Connects a container's streams to ours: pipes or a terminal, the window's size, and signals.
//!
//! Where our stream is a terminal and the container has none, a pipe lies between: the container's process must
//! not be able to change our terminal, and programs look at whether they write to one. Files and pipes are handed
//! over as they are, which costs nothing. A newcomer would join the input's thread: it waits for a person.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};

use crate::sandbox::Killer;

/// Copies between two descriptors in a thread of its own.
pub(super) struct Pump {
    thread: JoinHandle<()>,
    stop: Option<OwnedFd>,
}

impl Pump {
    /// Copies until `from` ends or either side fails.
    pub fn start(from: OwnedFd, to: OwnedFd) -> Self {
        Self { thread: std::thread::spawn(move || copy(&from, &to, None)), stop: None }
    }

    /// Copies until `from` ends, either side fails, or [`Pump::stop`].
    pub fn start_stoppable(from: OwnedFd, to: OwnedFd) -> io::Result<Self> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok(Self { thread: std::thread::spawn(move || copy(&from, &to, Some(stopped.as_fd()))), stop: Some(stop) })
    }

    /// Waits until all is copied.
    pub fn drain(self) {
        let _ = self.thread.join();
    }

    /// Ends the copying, at once unless the receiver is blocked; nobody waits for that.
    pub fn stop(mut self) {
        drop(self.stop.take());
    }
}

fn copy(from: &OwnedFd, to: &OwnedFd, stopped: Option<BorrowedFd<'_>>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut fds = vec![PollFd::new(from, PollFlags::IN)];
        fds.extend(stopped.as_ref().map(|fd| PollFd::new(fd, PollFlags::empty())));
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if fds.get(1).is_some_and(|stop| !stop.revents().is_empty()) => return,
            Ok(_) => {}
        }
        let mut rest = match rustix::io::read(from, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            // A terminal's last process has gone: EIO.
            Ok(0) | Err(_) => return,
            Ok(count) => &buffer[..count],
        };
        while !rest.is_empty() {
            match rustix::io::write(to, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let _ = poll(&mut [PollFd::new(to, PollFlags::OUT)], None);
                }
                Err(_) => return,
            }
        }
    }
}

/// Our terminal in raw mode; as it was before once dropped.
pub(super) struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    pub fn enter(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Returns rows and columns of the first of these that is a terminal.
pub(super) fn window_size(of: &[BorrowedFd<'_>]) -> Option<(u16, u16)> {
    of.iter().filter(|fd| isatty(fd)).find_map(|fd| tcgetwinsize(fd).ok()).map(|size| (size.ws_row, size.ws_col))
}

/// Sends our signals on to the container, until dropped.
pub(super) struct Forwarding {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// How many interrupts until a container that takes no notice is killed, as docker's client has it.
const INTERRUPTS_MAX: usize = 3;

impl Forwarding {
    /// `terminal` is the container's terminal and ours, whose size it follows; `asked`: the signal that came before.
    pub fn start(killer: Killer, terminal: Option<(OwnedFd, OwnedFd)>, asked: &dyn Fn() -> Option<i32>) -> io::Result<Self> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH])?;
        // Nobody saw it but the mark; one that comes just now may be passed on twice.
        if let Some(signal) = asked().and_then(Signal::from_named_raw) {
            killer.signal(signal);
        }
        let handle = signals.handle();
        let thread = std::thread::spawn(move || {
            let mut interrupts = 0;
            for number in signals.forever() {
                match (number, &terminal) {
                    (SIGWINCH, Some((container, ours))) => {
                        if let Ok(size) = tcgetwinsize(ours) {
                            // The kernel tells the container's processes.
                            let _ = tcsetwinsize(container, size);
                        }
                    }
                    _ => {
                        if let Some(signal) = Signal::from_named_raw(number) {
                            killer.signal(signal);
                        }
                    }
                }
                interrupts += usize::from(matches!(number, SIGINT | SIGTERM));
                if interrupts >= INTERRUPTS_MAX {
                    killer.kill();
                }
            }
        });
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
