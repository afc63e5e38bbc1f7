//! What is known about each step and task so far; shared by the renderers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::dockerfile::source::Diagnostic;
use crate::engine::event::{Event, StepIndex, StepInfo, TaskId};
use crate::ui::diagnostic;
use crate::ui::style::Paint;
use crate::ui::text::{self, LineSplitter};

/// How many of a step's last lines are kept, to be shown once more when it fails.
const TAIL_LINES: usize = 40;

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Waiting,
    Running,
    Cached,
    Done(Duration),
    Failed,
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// `[build 2/5] RUN make`, one clean line.
    pub title: String,
    /// Where it stands.
    pub state: State,
    /// Why it missed.
    pub reason: Option<String>,
    /// When it began.
    pub since: Duration,
    /// Its last lines of output, with their times since it began.
    pub tail: VecDeque<(Duration, String)>,
    lines: LineSplitter,
}

/// Work that is no step.
#[derive(Debug)]
pub struct Task {
    /// What it is.
    pub title: String,
    /// When it began.
    pub since: Duration,
    /// Bytes done and bytes in all.
    pub progress: Option<(u64, Option<u64>)>,
    /// How long it took, once done.
    pub done: Option<Duration>,
}

/// Everything so far.
#[derive(Debug, Default)]
pub struct Model {
    /// The steps, in the plan's order.
    pub steps: Vec<Step>,
    /// The tasks.
    pub tasks: BTreeMap<TaskId, Task>,
    /// The build checks' findings.
    pub warnings: Vec<Diagnostic>,
}

impl Model {
    /// Takes an event and returns the output lines that it completed, cleaned.
    pub fn apply(&mut self, at: Duration, event: &Event) -> Vec<String> {
        match event {
            Event::Plan(steps) => self.steps = steps.iter().map(Step::new).collect(),
            Event::Started(i) => self.step(*i, |s| {
                s.state = State::Running;
                s.since = at;
            }),
            Event::Cached(i) => self.step(*i, |s| s.state = State::Cached),
            Event::Missed(i, reason) => self.step(*i, |s| s.reason = Some(text::one_line(reason))),
            Event::Log(i, _, bytes) => return self.steps.get_mut(*i).map(|s| s.log(at, bytes)).unwrap_or_default(),
            Event::Done(i, took) => return self.end(at, *i, State::Done(*took)),
            Event::Failed(i) => return self.end(at, *i, State::Failed),
            Event::TaskStarted(id, title) => {
                self.tasks.insert(*id, Task { title: text::one_line(title), since: at, progress: None, done: None });
            }
            Event::TaskProgress(id, done, all) => {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.progress = Some((*done, *all));
                }
            }
            Event::TaskDone(id, took) => {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.done = Some(*took);
                }
            }
            Event::Warning(warning) => self.warnings.push(warning.clone()),
            Event::Notice(_) | Event::Phase(_) | Event::Part(..) => {}
        }
        Vec::new()
    }

    /// Changes a step; an index that the plan doesn't have is left alone: a display never takes a build down.
    fn step(&mut self, index: StepIndex, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.get_mut(index) {
            change(step);
        }
    }

    fn end(&mut self, at: Duration, index: StepIndex, state: State) -> Vec<String> {
        let Some(step) = self.steps.get_mut(index) else { return Vec::new() };
        step.state = state;
        let rest: Vec<String> = step.lines.finish().into_iter().collect();
        step.keep(at, &rest);
        rest
    }

    /// Returns what is told once more at the end: warnings, then each failed step with its last output.
    pub fn closing(&self, paint: Paint) -> String {
        let mut out = String::new();
        for warning in &self.warnings {
            out.push_str(&diagnostic::render(warning, paint));
        }
        for step in self.steps.iter().filter(|s| s.state == State::Failed && !s.tail.is_empty()) {
            out.push_str(&paint.dim("------"));
            out.push_str(&format!("\n > {}:\n", step.title));
            for (at, line) in &step.tail {
                out.push_str(&format!("{:.3} {line}\n", at.as_secs_f64()));
            }
            out.push_str(&paint.dim("------"));
            out.push('\n');
        }
        out
    }
}

impl Step {
    fn new(info: &StepInfo) -> Self {
        let place: String = info.platform.iter().chain(Some(&info.stage)).filter(|t| !t.is_empty()).map(|t| format!("{t} ")).collect();
        Self {
            title: text::one_line(&format!("[{place}{}/{}] {}", info.number, info.of, info.title)),
            state: State::Waiting,
            reason: None,
            since: Duration::ZERO,
            tail: VecDeque::new(),
            lines: LineSplitter::default(),
        }
    }

    fn log(&mut self, at: Duration, bytes: &[u8]) -> Vec<String> {
        let lines = self.lines.push(bytes);
        self.keep(at, &lines);
        lines
    }

    fn keep(&mut self, at: Duration, lines: &[String]) {
        let elapsed = at.saturating_sub(self.since);
        self.tail.extend(lines.iter().map(|l| (elapsed, l.clone())));
        let surplus = self.tail.len().saturating_sub(TAIL_LINES);
        self.tail.drain(..surplus);
    }
}
