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
    /// The build as a whole comes to this.
    Phase(Phase),
    /// A part of a step's work ended now, after this time: for those who measure.
    Part(StepIndex, Part, Duration),
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
    /// The steps that it waits for.
    pub after: Vec<StepIndex>,
}

/// What a build as a whole is at, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Contexts are opened, the Dockerfile is read, bases are resolved.
    Inputs,
    /// Steps that hit are found: what is copied is digested for that.
    Lookup,
    /// The other steps have their turn.
    Steps,
    /// Bases are completed, images written, exported and pushed.
    Outputs,
    /// Shared caches are completed and the store is tidied.
    Closing,
}

impl Phase {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Lookup => "lookup",
            Self::Steps => "steps",
            Self::Outputs => "outputs",
            Self::Closing => "closing",
        }
    }
}

/// A part of a step's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What its key is made of was found out: files digested, the cache asked. Before the step has its turn, also for a hit.
    Files,
    /// What it stands on was put together: layers fetched, unpacked, mounted.
    Root,
    /// Its command ran, its files were copied.
    Work,
    /// Its changes became a layer with a digest and a record.
    Keep,
}

impl Part {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Root => "root",
            Self::Work => "work",
            Self::Keep => "layer",
        }
    }
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
