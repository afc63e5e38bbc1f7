//! `--timings`: listens to a build beside whoever shows it, and writes down what its time went by with.
//!
//! The file is written whatever came of the build: one that failed after ten minutes is the one to be looked at.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cli::failure::Failure;
use crate::engine::event::{Event, Observer};
use crate::fsio::{self, Durability};
use crate::ui::timings::{Timings, page};

/// The file that is written when none is named.
pub const DEFAULT: &str = "ply-timing.html";

/// How often the processors are looked at.
const SAMPLE: Duration = Duration::from_millis(100);
const STAT: &str = "/proc/stat";

/// Takes a build's events down, and hands them on.
pub struct Recorder {
    started: Instant,
    timings: Mutex<Timings>,
    shown: Arc<dyn Observer>,
    sampler: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Recorder {
    /// Begins. Starts a thread: enter namespaces before.
    pub fn start(shown: Arc<dyn Observer>) -> Arc<Self> {
        let recorder = Self { started: Instant::now(), timings: Mutex::default(), shown, sampler: Mutex::default() };
        let recorder = Arc::new(recorder);
        let (stop, stopped) = mpsc::channel();
        let told = Arc::downgrade(&recorder);
        let sampler = std::thread::spawn(move || {
            let mut last = Usage::now();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SAMPLE) {
                let Some(recorder) = told.upgrade() else { break };
                let now = Usage::now();
                if let Some(busy) = last.zip(now).and_then(|(last, now)| now.busy_since(last)) {
                    recorder.timings().cpu.push((recorder.started.elapsed(), busy));
                }
                last = now;
            }
        });
        *recorder.sampler.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop, sampler));
        recorder
    }

    fn timings(&self) -> std::sync::MutexGuard<'_, Timings> {
        self.timings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends, and writes the file: JSON where its name says so, else the page.
    pub fn write(&self, path: &Path, title: &str, about: &str) -> Result<(), Failure> {
        if let Some((stop, sampler)) = self.sampler.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(stop);
            // A sampler that panicked has nothing more to tell.
            let _ = sampler.join();
        }
        let mut timings = self.timings();
        timings.finish(self.started.elapsed());
        let text = match path.extension() {
            Some(extension) if extension == "json" => timings.json().to_string() + "\n",
            _ => page::render(&timings, title, about).render(),
        };
        fsio::write_atomic(path, text.as_bytes(), 0o644, Durability::Lazy)
            .map_err(|e| Failure::message(format!("--timings: writing `{}`: {e}", path.display())))
    }
}

impl Observer for Recorder {
    fn event(&self, event: Event) {
        {
            // The moment is taken with the lock held: moments stay in order.
            let mut timings = self.timings();
            timings.event(self.started.elapsed(), &event);
        }
        self.shown.event(event);
    }
}

/// Returns where `--timings` writes to.
pub fn file(given: &str, here: &Path) -> PathBuf {
    here.join(if given.is_empty() { DEFAULT } else { given })
}

/// The processors' time since the machine began, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    idle: u64,
    all: u64,
}

impl Usage {
    fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string(STAT).ok()?)
    }

    /// Reads the line of all processors: user, nice, system, idle, iowait, irq, softirq, steal, … (proc_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().take(8).map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { idle, all: ticks.iter().sum() })
    }

    fn busy_since(self, last: Self) -> Option<f64> {
        let all = self.all.checked_sub(last.all).filter(|all| *all > 0)?;
        let idle = self.idle.saturating_sub(last.idle);
        Some(1.0 - idle.min(all) as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_are_read_as_the_kernel_tells_them() {
        let first = Usage::parse("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!(first, Usage { idle: 850, all: 1000 });
        let second = Usage::parse("cpu  175 0 50 825 50 0 0 0 0 0\n").unwrap();
        assert_eq!((second.busy_since(first), first.busy_since(first)), (Some(0.75), None));
        assert_eq!(Usage::parse("cpu x\n"), None);
    }

    #[test]
    fn a_file_is_named_or_has_cargo_s_kind_of_name() {
        let names = ["", "t.html", "/x/t.json"].map(|n| file(n, Path::new("/here")));
        assert_eq!(names, ["/here/ply-timing.html", "/here/t.html", "/x/t.json"].map(PathBuf::from));
    }
}
