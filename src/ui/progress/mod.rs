//! Progress of a build on standard error: plain lines, a live display, JSON, or nothing.
//!
//! [`Progress`] takes the engine's events from any thread, stamps them with the time since its start and hands
//! them to one [`Renderer`]. Renderers are pure: events and times in, bytes out; so each is tested as text.
//!
//! ```text
//! engine threads ── Event ──► Progress (clock, lock) ──► Renderer ──► bytes ──► standard error
//! ticker thread ── every 80 ms, tty only ──►
//! ```

pub mod model;
pub mod plain;
pub mod quiet;
pub mod rawjson;
pub mod tty;

use std::io::{ErrorKind, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::engine::cancel::CancelToken;
use crate::engine::event::{Event, Observer};
use crate::ui::style::Paint;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Live on a terminal, plain lines elsewhere.
    Auto,
    /// A line an event, as BuildKit's plain mode.
    Plain,
    /// A live display.
    Tty,
    /// Nothing, but the output of a step that failed.
    Quiet,
    /// BuildKit's JSON, an object a line.
    RawJson,
}

impl Mode {
    /// Settles [`Mode::Auto`].
    pub fn resolve(self, can_redraw: bool) -> Self {
        match self {
            Self::Auto if can_redraw => Self::Tty,
            Self::Auto => Self::Plain,
            other => other,
        }
    }
}

/// Turns events into text.
///
/// `at` is the time since the build began; it never goes back. What is appended to `out` is written at once.
pub trait Renderer: Send {
    /// Takes one event.
    fn event(&mut self, at: Duration, event: &Event, out: &mut String);
    /// Lets a live display move; `size` is the terminal's columns and rows.
    fn tick(&mut self, _at: Duration, _size: (usize, usize), _out: &mut String) {}
    /// Closes: removes what was only for the moment, tells what must be told once more.
    fn finish(&mut self, at: Duration, out: &mut String);
}

/// The progress of one build; give clones of the `Arc` to the engine.
pub struct Progress {
    started: Instant,
    renderer: Mutex<Box<dyn Renderer>>,
    ticker: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
    /// What ends when nobody reads any more.
    work: OnceLock<CancelToken>,
}

/// How often a live display moves.
const TICK: Duration = Duration::from_millis(80);

impl Progress {
    /// Starts showing; `Mode::Auto` is plain here.
    ///
    /// Starts a thread in tty mode: enter namespaces before.
    pub fn start(mode: Mode, paint: Paint) -> Arc<Self> {
        let renderer: Box<dyn Renderer> = match mode {
            Mode::Plain | Mode::Auto => Box::new(plain::Plain::new(paint)),
            Mode::Tty => Box::new(tty::Tty::new(paint)),
            Mode::Quiet => Box::new(quiet::Quiet::new(paint)),
            Mode::RawJson => Box::new(rawjson::RawJson::new(SystemTime::now())),
        };
        let progress =
            Arc::new(Self { started: Instant::now(), renderer: Mutex::new(renderer), ticker: Mutex::new(None), work: OnceLock::new() });
        if mode == Mode::Tty {
            let (stop, stopped) = mpsc::channel();
            let shown = Arc::downgrade(&progress);
            let ticker = std::thread::spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                    let Some(progress) = shown.upgrade() else { break };
                    progress.tick();
                }
            });
            *lock(&progress.ticker) = Some((stop, ticker));
        }
        progress
    }

    /// Ends the display; later events are still taken, and shown as the mode does without a live part.
    pub fn finish(&self) {
        if let Some((stop, ticker)) = lock(&self.ticker).take() {
            drop(stop);
            // A ticker that panicked has nothing more to show.
            let _ = ticker.join();
        }
        self.render(|renderer, at, out| renderer.finish(at, out));
    }

    /// Ends this work, as SIGPIPE would, once nobody reads what is shown (`ply build 2>&1 | head -1`).
    pub fn ends(&self, work: &CancelToken) {
        // A second one has no reader either.
        let _ = self.work.set(work.clone());
    }

    fn tick(&self) {
        let size = terminal_size();
        self.render(|renderer, at, out| renderer.tick(at, size, out));
    }

    fn render(&self, show: impl FnOnce(&mut dyn Renderer, Duration, &mut String)) {
        // The lock is held while writing, so that times and lines stay in order.
        let mut renderer = lock(&self.renderer);
        let mut out = String::new();
        show(renderer.as_mut(), self.started.elapsed(), &mut out);
        if !out.is_empty() {
            let mut stderr = std::io::stderr().lock();
            let written = stderr.write_all(out.as_bytes()).and_then(|()| stderr.flush());
            if written.is_err_and(|e| e.kind() == ErrorKind::BrokenPipe)
                && let Some(work) = self.work.get().filter(|work| !work.is_cancelled())
            {
                // What asked for the end before is the cause.
                work.cancel(SIGPIPE);
            }
        }
    }
}

/// The signal's number, the same on every architecture.
const SIGPIPE: i32 = 13;

impl Observer for Progress {
    fn event(&self, event: Event) {
        self.render(|renderer, at, out| renderer.event(at, &event, out));
    }
}

/// Locks even after a panic elsewhere: a display may be odd, it must not take the build down.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the columns and rows of the terminal at standard error; 80 by 24 where it doesn't say.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (usize::from(size.ws_col), usize::from(size.ws_row)),
        _ => (80, 24),
    }
}

/// Events to text, for the renderers' tests.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::event::{StepInfo, Stream};

    /// Returns what a renderer writes for events at these milliseconds.
    pub(crate) fn shown(renderer: &mut dyn Renderer, events: &[(u64, Event)]) -> String {
        let mut out = String::new();
        for (ms, event) in events {
            renderer.event(Duration::from_millis(*ms), event, &mut out);
        }
        let end = events.last().map_or(0, |e| e.0);
        renderer.finish(Duration::from_millis(end), &mut out);
        out
    }

    /// Returns a plan of one stage `build` with these instructions.
    pub(crate) fn plan(titles: &[&str]) -> Event {
        let of = titles.len();
        let info = |(i, t): (usize, &&str)| StepInfo {
            title: (*t).into(),
            stage: "build".into(),
            platform: None,
            number: i + 1,
            of,
            after: Vec::new(),
        };
        Event::Plan(titles.iter().enumerate().map(info).collect())
    }

    /// Returns a log event on standard error.
    pub(crate) fn log(step: usize, text: &str) -> Event {
        Event::Log(step, Stream::Stderr, text.as_bytes().to_vec())
    }

    /// A build with a hit, two steps side by side, and a failure.
    pub(crate) fn failing_build() -> Vec<(u64, Event)> {
        vec![
            (0, Event::TaskStarted(0, "load metadata of busybox".into())),
            (20, Event::TaskDone(0, Duration::from_millis(20))),
            (20, plan(&["FROM busybox", "RUN make\x1b[2J", "COPY a /b"])),
            (21, Event::Cached(0)),
            (22, Event::Missed(1, "env CFLAGS changed".into())),
            (22, Event::Started(1)),
            (30, Event::Started(2)),
            (31, Event::Missed(2, "file a changed".into())),
            (100, log(1, "cc -o x\nld")),
            (150, Event::Done(2, Duration::from_millis(120))),
            (200, log(1, ": error\n")),
            (250, Event::Failed(1)),
        ]
    }

    #[test]
    fn auto_is_a_display_only_on_a_terminal() {
        assert_eq!((Mode::Auto.resolve(true), Mode::Auto.resolve(false)), (Mode::Tty, Mode::Plain));
        assert_eq!(Mode::Plain.resolve(true), Mode::Plain);
    }
}
