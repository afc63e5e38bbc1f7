//! What a build spent its time on: its events, with the moments at which they came.
//!
//! | file | does |
//! |---|---|
//! | this | events → bars |
//! | `page` | bars → a waterfall, as a self-contained page |
//!
//! Pure: the moments come in as values, from whoever has a clock. What a newcomer gets wrong: the events tell when a piece of
//! work was *over*, and how long it took; when it began follows from that.

pub mod page;

use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::event::{Event, Part, Phase, StepIndex, StepInfo, TaskId};

/// From when to when, since the build began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its begin.
    pub start: Duration,
    /// Its end.
    pub end: Duration,
}

impl Span {
    /// Returns how long it was.
    pub fn took(self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was in a cache.
    Hit,
    /// It ran, and why.
    Built(String),
    /// It ran and failed, and why it ran.
    Failed(String),
    /// The build ended before it.
    NotReached,
}

impl Outcome {
    /// Returns its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Built(_) => "ran",
            Self::Failed(_) => "failed",
            Self::NotReached => "not reached",
        }
    }

    /// Returns why it ran.
    pub fn why(&self) -> &str {
        match self {
            Self::Built(why) | Self::Failed(why) => why,
            Self::Hit | Self::NotReached => "",
        }
    }
}

/// A step's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepBar {
    /// As it is shown.
    pub info: StepInfo,
    /// What became of it.
    pub outcome: Outcome,
    /// When it worked; of a hit the moment at which it was found.
    pub span: Option<Span>,
    /// What it did then, and before that to learn its key.
    pub parts: Vec<(Part, Span)>,
}

/// The time of work that is no step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskBar {
    /// `compress layer 1234`.
    pub title: String,
    /// When.
    pub span: Span,
    /// How much, as far as it was told.
    pub bytes: Option<u64>,
}

/// How a build's time went by.
#[derive(Debug, Clone, Default)]
pub struct Timings {
    /// The steps, in the order in which they are numbered.
    pub steps: Vec<StepBar>,
    /// The other work, in the order in which it began.
    pub tasks: Vec<TaskBar>,
    /// What the build as a whole was at.
    pub phases: Vec<(Phase, Span)>,
    /// The machine's processors, 0 to 1, at moments.
    pub cpu: Vec<(Duration, f64)>,
    /// How long it took in all.
    pub total: Duration,
    ids: Vec<TaskId>,
}

impl Timings {
    /// Takes an event of this moment.
    pub fn event(&mut self, at: Duration, event: &Event) {
        match event {
            Event::Plan(infos) => {
                let bar = |info: &StepInfo| StepBar { info: info.clone(), outcome: Outcome::NotReached, span: None, parts: Vec::new() };
                self.steps = infos.iter().map(bar).collect();
            }
            Event::Phase(phase) => {
                if let Some((_, last)) = self.phases.last_mut() {
                    last.end = at;
                }
                self.phases.push((*phase, Span { start: at, end: at }));
            }
            Event::Part(step, part, took) => {
                let span = Span { start: at.saturating_sub(*took), end: at };
                self.step(*step, |s| s.parts.push((*part, span)));
            }
            Event::Started(step) => self.step(*step, |s| s.span = Some(Span { start: at, end: at })),
            Event::Cached(step) => self.step(*step, |s| (s.outcome, s.span) = (Outcome::Hit, Some(Span { start: at, end: at }))),
            Event::Missed(step, why) => self.step(*step, |s| s.outcome = Outcome::Built(why.clone())),
            Event::Done(step, took) => self.step(*step, |s| s.span = Some(Span { start: at.saturating_sub(*took), end: at })),
            Event::Failed(step) => self.step(*step, |s| {
                s.outcome = Outcome::Failed(s.outcome.why().to_string());
                s.span = s.span.map(|span| Span { end: at, ..span });
            }),
            Event::TaskStarted(id, title) => {
                self.ids.push(*id);
                self.tasks.push(TaskBar { title: title.clone(), span: Span { start: at, end: at }, bytes: None });
            }
            Event::TaskProgress(id, done, _) => self.task(*id, |t| t.bytes = Some(*done)),
            Event::TaskDone(id, _) => self.task(*id, |t| t.span.end = at),
            Event::Log(..) | Event::Warning(_) | Event::Notice(_) => {}
        }
    }

    /// Ends it: what is still open ends now.
    pub fn finish(&mut self, at: Duration) {
        self.total = at;
        if let Some((_, last)) = self.phases.last_mut() {
            last.end = at;
        }
        let open = |span: &mut Span| {
            if span.end == span.start {
                span.end = at;
            }
        };
        let running = self.steps.iter_mut().filter(|s| matches!(s.outcome, Outcome::Built(_)));
        running.filter_map(|s| s.span.as_mut()).for_each(open);
    }

    fn step(&mut self, step: StepIndex, change: impl FnOnce(&mut StepBar)) {
        if let Some(bar) = self.steps.get_mut(step) {
            change(bar);
        }
    }

    fn task(&mut self, id: TaskId, change: impl FnOnce(&mut TaskBar)) {
        // Numbers may be used again; the last one is meant.
        if let Some(place) = self.ids.iter().rposition(|i| *i == id) {
            change(&mut self.tasks[place]);
        }
    }

    /// Returns the steps whose time is the build's, in order: each waited for the one before.
    pub fn critical_path(&self) -> Vec<StepIndex> {
        let end = |step: StepIndex| self.steps.get(step).and_then(|s| s.span).map(|s| s.end);
        let ran = |step: &StepIndex| self.steps.get(*step).is_some_and(|s| matches!(s.outcome, Outcome::Built(_) | Outcome::Failed(_)));
        let last = (0..self.steps.len()).filter(ran).max_by_key(|s| end(*s));
        let before = |step: &StepIndex| self.steps[*step].info.after.iter().copied().filter(|s| *s < *step).max_by_key(|s| end(*s));
        let mut path: Vec<StepIndex> = std::iter::successors(last, before).filter(ran).collect();
        path.reverse();
        path
    }

    /// Returns the moments at which the number of things done side by side changes, with the numbers of steps and of other work
    /// from then on.
    pub fn side_by_side(&self) -> Vec<(Duration, usize, usize)> {
        let steps = self.steps.iter().filter_map(|s| s.span).map(|span| (span, true));
        let tasks = self.tasks.iter().map(|t| (t.span, false));
        let all: Vec<(Span, bool)> = steps.chain(tasks).filter(|(span, _)| span.end > span.start).collect();
        let mut moments: Vec<Duration> = all.iter().flat_map(|(span, _)| [span.start, span.end]).collect();
        moments.sort();
        moments.dedup();
        let count = |at: Duration, step: bool| all.iter().filter(|(s, kind)| *kind == step && s.start <= at && at < s.end).count();
        moments.into_iter().map(|at| (at, count(at, true), count(at, false))).collect()
    }

    /// Returns it for programs; times are seconds since the build began.
    pub fn json(&self) -> Value {
        let secs = |span: Span| json!({"start": span.start.as_secs_f64(), "end": span.end.as_secs_f64()});
        let steps = self.steps.iter().enumerate().map(|(n, bar)| {
            let parts: Vec<Value> = bar.parts.iter().map(|(part, span)| json!({"part": part.word(), "span": secs(*span)})).collect();
            let StepInfo { title, stage, platform, number, of, after } = &bar.info;
            json!({
                "step": n + 1, "title": title, "stage": stage, "platform": platform, "number": number, "of": of,
                "after": after.iter().map(|s| s + 1).collect::<Vec<_>>(),
                "outcome": bar.outcome.word(), "why": bar.outcome.why(), "span": bar.span.map(secs), "parts": parts,
            })
        });
        let tasks = self.tasks.iter().map(|t| json!({"title": t.title, "span": secs(t.span), "bytes": t.bytes}));
        let phases = self.phases.iter().map(|(phase, span)| json!({"phase": phase.word(), "span": secs(*span)}));
        json!({
            "total_secs": self.total.as_secs_f64(),
            "critical_path": self.critical_path().iter().map(|s| s + 1).collect::<Vec<_>>(),
            "phases": phases.collect::<Vec<_>>(), "steps": steps.collect::<Vec<_>>(), "tasks": tasks.collect::<Vec<_>>(),
            "cpu": self.cpu.iter().map(|(at, busy)| json!([at.as_secs_f64(), busy])).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn info(title: &str, number: usize, after: &[StepIndex]) -> StepInfo {
        StepInfo { title: title.into(), stage: "build".into(), platform: None, number, of: 5, after: after.to_vec() }
    }

    /// A hit, two stages side by side, a step on both, one that fails, and one that is not reached.
    pub(crate) fn failing() -> Timings {
        let mut t = Timings::default();
        let plan = vec![
            info("COPY a /", 2, &[]),
            info("RUN <one> & more", 3, &[0]),
            info("RUN two", 2, &[]),
            info("RUN both", 4, &[1, 2]),
            info("RUN never", 5, &[3]),
        ];
        for (at, event) in [
            (0, Event::Phase(Phase::Inputs)),
            (10, Event::Phase(Phase::Lookup)),
            (10, Event::Plan(plan)),
            (12, Event::Part(0, Part::Files, ms(2))),
            (12, Event::Cached(0)),
            (13, Event::Phase(Phase::Steps)),
            (13, Event::Started(1)),
            (13, Event::Missed(1, "command changed".into())),
            (14, Event::Started(2)),
            (14, Event::Missed(2, "first build of this step".into())),
            (20, Event::TaskStarted(7, "unpack layer abc".into())),
            (30, Event::TaskProgress(7, 1000, None)),
            (40, Event::TaskDone(7, ms(20))),
            (60, Event::Done(2, ms(46))),
            (113, Event::Part(1, Part::Work, ms(90))),
            (113, Event::Done(1, ms(100))),
            (114, Event::Started(3)),
            (114, Event::Missed(3, "step 2 was rebuilt and its result differs".into())),
            (150, Event::Failed(3)),
        ] {
            t.event(ms(at), &event);
        }
        t.finish(ms(160));
        t
    }

    #[test]
    fn bars_stand_where_the_work_was() {
        let t = failing();
        let spans: Vec<_> = t.steps.iter().map(|s| (s.outcome.word(), s.span.map(|s| (s.start, s.end)))).collect();
        assert_eq!(
            spans,
            [
                ("hit", Some((ms(12), ms(12)))),
                ("ran", Some((ms(13), ms(113)))),
                ("ran", Some((ms(14), ms(60)))),
                ("failed", Some((ms(114), ms(150)))),
                ("not reached", None),
            ]
        );
        assert_eq!(t.steps[1].parts, [(Part::Work, Span { start: ms(23), end: ms(113) })]);
        assert_eq!(t.tasks, [TaskBar { title: "unpack layer abc".into(), span: Span { start: ms(20), end: ms(40) }, bytes: Some(1000) }]);
        assert_eq!(t.phases.last(), Some(&(Phase::Steps, Span { start: ms(13), end: ms(160) })));
    }

    #[test]
    fn the_critical_path_is_what_the_last_step_waited_for() {
        assert_eq!(failing().critical_path(), [1, 3]);
        assert_eq!(Timings::default().critical_path(), Vec::<StepIndex>::new());
    }

    #[test]
    fn what_is_done_side_by_side_is_counted() {
        let at = failing().side_by_side();
        assert_eq!(at[..4], [(ms(13), 1, 0), (ms(14), 2, 0), (ms(20), 2, 1), (ms(40), 2, 0)]);
        assert_eq!(at.last(), Some(&(ms(150), 0, 0)));
        assert_eq!(failing().json()["critical_path"], json!([2, 4]));
    }
}
