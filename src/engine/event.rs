//! What a build tells while it runs: plain values, in order, from any thread.
//!
//! `ui` turns them into a live display, plain lines or JSON; nothing below it prints.

use std::time::Duration;

use crate::dockerfile::source::Diagnostic;

/// A step's number among the steps of this build, from 0, in the order of [`Event::Plan`].
pub type StepIndex = usize;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The steps that this build has, in order; sent once, before any step event.
    Plan(Vec<StepInfo>),
    /// A step's work began.
    Started(StepIndex),
    /// The step was taken from the cache.
    Cached(StepIndex),
    /// The step has to run, and why: `env RUSTFLAGS changed (unset -> "-C lto")`.
    Missed(StepIndex, String),
    /// Output of a RUN: bytes as they came, not cut at lines.
    Log(StepIndex, Stream, Vec<u8>),
    /// The step is done; how long its work took.
    Done(StepIndex, Duration),
    /// The step failed; the error itself is the build's result.
    Failed(StepIndex),
    /// Work that is no step (resolving, pulling, exporting) began.
    TaskStarted(TaskId, String),
    /// How far it is: bytes done, bytes in all.
    TaskProgress(TaskId, u64, Option<u64>),
    /// It is done.
    TaskDone(TaskId, Duration),
    /// A build check's finding.
    Warning(Diagnostic),
    /// Something that the user should know once: a reduced isolation, a driver that copies.
    Notice(String),
}

/// A number that the engine gives to each piece of work that is no step.
pub type TaskId = usize;

/// One step as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInfo {
    /// `RUN make`: the instruction, one line, heredoc bodies cut.
    pub title: String,
    /// The stage's name or number.
    pub stage: String,
    /// In a build for several platforms: `linux/arm64`, or `linux/amd64->linux/arm64` for a stage of one platform that
    /// works for another.
    pub platform: Option<String>,
    /// Number within the stage, from 1.
    pub number: usize,
    /// How many steps the stage has.
    pub of: usize,
}

/// Which stream an output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Takes events; called from several threads.
pub trait Observer: Send + Sync {
    /// Takes one event; must not block for long.
    fn event(&self, event: Event);
}
