//! A line an event, in the form of BuildKit's plain mode: what CI logs show and scripts search.
//!
//! ```text
//! #2 [build 1/3] FROM busybox
//! #2 CACHED
//!
//! #3 [build 2/3] RUN make    miss: env CFLAGS changed (unset -> "-O2")
//! #3 0.078 cc -o x
//! #3 DONE 1.2s
//! ```
//!
//! Numbers are given as things first appear. When output of another step comes between, a blank line separates
//! them and the step's title is repeated.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use crate::engine::event::{Event, StepIndex, TaskId};
use crate::ui::human;
use crate::ui::progress::Renderer;
use crate::ui::progress::model::{Model, State};
use crate::ui::style::Paint;
use crate::ui::text;

/// The plain renderer.
pub struct Plain {
    model: Model,
    paint: Paint,
    numbers: HashMap<Subject, usize>,
    /// Whose lines came last.
    current: Option<Subject>,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Step(StepIndex),
    Task(TaskId),
}

impl Plain {
    /// Starts with nothing known.
    pub fn new(paint: Paint) -> Self {
        Self { model: Model::default(), paint, numbers: HashMap::new(), current: None }
    }

    /// Returns the subject's number, after its title where the reader needs it again.
    fn number(&mut self, subject: Subject, out: &mut String) -> usize {
        let next = self.numbers.len() + 1;
        let number = *self.numbers.entry(subject).or_insert(next);
        if self.current != Some(subject) {
            if self.current.is_some() {
                out.push('\n');
            }
            self.current = Some(subject);
            let _ = writeln!(out, "#{number} {}", self.title(subject));
        }
        number
    }

    fn title(&self, subject: Subject) -> String {
        match subject {
            Subject::Step(i) => match self.model.steps.get(i) {
                Some(step) => match &step.reason {
                    Some(reason) if step.state != State::Cached => {
                        format!("{}    {} {reason}", self.paint.bold(&step.title), self.paint.warn("miss:"))
                    }
                    _ => self.paint.bold(&step.title),
                },
                None => format!("step {}", i + 1),
            },
            Subject::Task(id) => self.model.tasks.get(&id).map(|t| self.paint.bold(&t.title)).unwrap_or_default(),
        }
    }

    /// Writes the end of a subject; the next line of it, if any, repeats the title.
    fn end(&mut self, subject: Subject, line: &str, out: &mut String) {
        let number = self.number(subject, out);
        let _ = writeln!(out, "#{number} {line}");
    }
}

impl Renderer for Plain {
    fn event(&mut self, at: Duration, event: &Event, out: &mut String) {
        let known = matches!(event, Event::Missed(i, _) if self.numbers.contains_key(&Subject::Step(*i)));
        let lines = self.model.apply(at, event);
        if let Event::Log(i, ..) | Event::Done(i, _) | Event::Failed(i) = event {
            let since = self.model.steps.get(*i).map_or(at, |s| s.since);
            for line in lines {
                let number = self.number(Subject::Step(*i), out);
                let _ = writeln!(out, "#{number} {:.3} {line}", at.saturating_sub(since).as_secs_f64());
            }
        }
        match event {
            Event::Started(i) => {
                self.number(Subject::Step(*i), out);
            }
            Event::Missed(i, reason) if known => {
                self.end(Subject::Step(*i), &format!("{} {}", self.paint.warn("miss:"), text::one_line(reason)), out)
            }
            Event::Cached(i) => self.end(Subject::Step(*i), &self.paint.good("CACHED"), out),
            Event::Done(i, took) => self.end(Subject::Step(*i), &format!("DONE {}", human::duration(*took)), out),
            Event::Failed(i) => self.end(Subject::Step(*i), &self.paint.bad("ERROR"), out),
            Event::TaskStarted(id, _) => {
                self.number(Subject::Task(*id), out);
            }
            Event::TaskDone(id, took) => {
                let size = self.model.tasks.get(id).and_then(|t| t.progress).map(|(done, _)| format!("{} ", human::size(done)));
                self.end(Subject::Task(*id), &format!("{}DONE {}", size.unwrap_or_default(), human::duration(*took)), out);
            }
            Event::Notice(notice) => {
                if self.current.take().is_some() {
                    out.push('\n');
                }
                let _ = writeln!(out, "{} {}", self.paint.warn("notice:"), text::printable(notice));
            }
            _ => {}
        }
    }

    fn finish(&mut self, _at: Duration, out: &mut String) {
        let closing = self.model.closing(self.paint);
        if !closing.is_empty() && self.current.take().is_some() {
            out.push('\n');
        }
        out.push_str(&closing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::progress::tests::{failing_build, shown};

    #[test]
    fn a_failing_build_reads_like_buildkits() {
        let want = "\
#1 load metadata of busybox
#1 DONE 0.0s

#2 [build 1/3] FROM busybox
#2 CACHED

#3 [build 2/3] RUN make    miss: env CFLAGS changed

#4 [build 3/3] COPY a /b
#4 miss: file a changed

#3 [build 2/3] RUN make    miss: env CFLAGS changed
#3 0.078 cc -o x

#4 [build 3/3] COPY a /b    miss: file a changed
#4 DONE 0.1s

#3 [build 2/3] RUN make    miss: env CFLAGS changed
#3 0.178 ld: error
#3 ERROR

------
 > [build 2/3] RUN make:
0.078 cc -o x
0.178 ld: error
------
";
        assert_eq!(shown(&mut Plain::new(Paint::Plain), &failing_build()), want);
    }

    #[test]
    fn a_notice_stands_alone() {
        let events = [(0, Event::Notice("steps share the host's network\x07".into()))];
        assert_eq!(shown(&mut Plain::new(Paint::Plain), &events), "notice: steps share the host's network\n");
    }

    #[test]
    fn steps_outside_of_the_plan_do_no_harm() {
        let events = [(0, Event::Started(7)), (1, Event::Done(7, Duration::ZERO))];
        assert_eq!(shown(&mut Plain::new(Paint::Plain), &events), "#1 step 8\n#1 DONE 0.0s\n");
    }
}
