//! A live display: what is finished scrolls away above, what runs is redrawn below with its last lines of output.
//!
//! ```text
//!  ✓ [build 1/5] FROM busybox                                      CACHED
//!  ✓ [build 2/5] COPY . /src        miss: src/main.c changed         0.1s
//! Building 3.2s   2/5 steps, 1 cached
//!  ▸ [build 3/5] RUN make                                            3.1s
//!    │ cc -c main.c
//! ```
//!
//! Finished lines are written once and never touched again, so they survive any resize and stay in the
//! scrollback. Only the live part is erased: it is counted in screen rows at the *present* width, since a
//! terminal that became narrower has wrapped what was drawn.

use std::time::Duration;

use crate::engine::event::{Event, StepIndex, TaskId};
use crate::ui::human;
use crate::ui::progress::Renderer;
use crate::ui::progress::model::{Model, State, Step, Task};
use crate::ui::style::Paint;
use crate::ui::text;

/// How many lines of output a running step shows.
const LOG_LINES: usize = 6;
/// Synchronised output (terminals that don't know it ignore it): the redraw shows at once, without flicker.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";

/// The live renderer.
pub struct Tty {
    model: Model,
    paint: Paint,
    size: (usize, usize),
    /// Finished lines that are still to be written: a left and a right side.
    queue: Vec<Line>,
    /// The widths of the live lines on the screen.
    drawn: Vec<usize>,
}

/// One line: what stands left and is cut, what stands right and is not.
#[derive(Debug, Default, Clone)]
struct Line {
    mark: char,
    title: String,
    detail: String,
    right: String,
    look: Look,
}

/// How a line's right side and mark are painted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Look {
    #[default]
    Neutral,
    Good,
    Bad,
    Notice,
    Log,
}

impl Tty {
    /// Starts with nothing known and a screen of 80 by 24, until the first tick tells.
    pub fn new(paint: Paint) -> Self {
        Self { model: Model::default(), paint, size: (80, 24), queue: Vec::new(), drawn: Vec::new() }
    }

    fn finished_step(&mut self, index: StepIndex) {
        let Some(step) = self.model.steps.get(index) else { return };
        let (mark, right, look) = match step.state {
            State::Cached => ('✓', "CACHED".into(), Look::Good),
            State::Done(took) => ('✓', human::duration(took), Look::Neutral),
            State::Failed => ('✗', "ERROR".into(), Look::Bad),
            State::Waiting | State::Running => return,
        };
        let detail = if step.state == State::Cached { String::new() } else { reason(step) };
        self.queue.push(Line { mark, title: step.title.clone(), detail, right, look });
    }

    fn finished_task(&mut self, id: TaskId) {
        let Some(task) = self.model.tasks.get(&id) else { return };
        let right = task.done.map(human::duration).unwrap_or_default();
        self.queue.push(Line { mark: '✓', title: task.title.clone(), detail: amount(task), right, look: Look::Neutral });
    }

    /// Erases the live part: up to its first row, then all below.
    fn erase(&mut self, out: &mut String) {
        let columns = self.size.0;
        let rows: usize = self.drawn.drain(..).map(|w| w.div_ceil(columns).max(1)).sum();
        if rows > 0 {
            out.push_str(&format!("\x1b[{rows}A\r\x1b[J"));
        }
    }

    fn write_queue(&mut self, out: &mut String) {
        for line in std::mem::take(&mut self.queue) {
            for row in line.rows(self.size.0) {
                out.push_str(&row.paint(self.paint, self.size.0));
                out.push('\n');
            }
        }
    }

    fn live(&self, at: Duration) -> Vec<Line> {
        let running: Vec<&Step> = self.model.steps.iter().filter(|s| s.state == State::Running).collect();
        let tasks: Vec<&Task> = self.model.tasks.values().filter(|t| t.done.is_none()).collect();
        let mut lines = vec![self.heading(at)];
        // One row stays free for the cursor, one for what the shell printed before.
        let budget = self.size.1.saturating_sub(2).max(2);
        let room = budget.saturating_sub(1 + running.len() + tasks.len()) / running.len().max(1);
        for step in running {
            let right = human::duration(at.saturating_sub(step.since));
            lines.push(Line { mark: '▸', title: step.title.clone(), detail: reason(step), right, look: Look::Neutral });
            let skip = step.tail.len().saturating_sub(room.min(LOG_LINES));
            lines.extend(step.tail.iter().skip(skip).map(|(_, l)| Line {
                mark: '│',
                title: l.clone(),
                look: Look::Log,
                ..Line::default()
            }));
        }
        for task in tasks {
            let right = human::duration(at.saturating_sub(task.since));
            lines.push(Line { mark: '▸', title: task.title.clone(), detail: amount(task), right, look: Look::Neutral });
        }
        if lines.len() > budget {
            let hidden = lines.len() - (budget - 1);
            lines.truncate(budget - 1);
            lines.push(Line { mark: ' ', title: format!("and {hidden} more"), look: Look::Log, ..Line::default() });
        }
        lines
    }

    fn heading(&self, at: Duration) -> Line {
        let steps = &self.model.steps;
        let cached = steps.iter().filter(|s| s.state == State::Cached).count();
        let done = cached + steps.iter().filter(|s| matches!(s.state, State::Done(_))).count();
        let counts = if steps.is_empty() { String::new() } else { format!("   {done}/{} steps, {cached} cached", steps.len()) };
        Line { mark: '\0', title: format!("Building {}{counts}", human::duration(at)), ..Line::default() }
    }
}

fn reason(step: &Step) -> String {
    step.reason.as_ref().map(|r| format!("miss: {r}")).unwrap_or_default()
}

fn amount(task: &Task) -> String {
    match task.progress {
        Some((done, Some(all))) if task.done.is_none() => format!("{} / {}", human::size(done), human::size(all)),
        Some((done, _)) => human::size(done),
        None => String::new(),
    }
}

impl Line {
    fn indent(&self) -> &'static str {
        match (self.mark, self.look) {
            ('\0', _) => "",
            (_, Look::Log) => "   ",
            _ => " ",
        }
    }

    /// Returns this line, its detail on a row of its own where the width doesn't hold both.
    fn rows(mut self, columns: usize) -> Vec<Self> {
        let fixed = 3 + self.right.len() + 1;
        if self.detail.is_empty() || fixed + text::width(&self.title) + 4 + text::width(&self.detail) <= columns {
            return vec![self];
        }
        let detail = std::mem::take(&mut self.detail);
        let more = text::wrap(&detail, columns.saturating_sub(3).max(1)).into_iter();
        std::iter::once(self).chain(more.map(|detail| Self { mark: ' ', detail, look: Look::Notice, ..Self::default() })).collect()
    }

    /// Returns the line at its full width, cut and painted.
    fn paint(&self, paint: Paint, columns: usize) -> String {
        let indent = self.indent();
        let mark = match (self.mark, self.look) {
            ('\0', _) => String::new(),
            ('✓', _) => paint.good("✓ "),
            ('✗', _) => paint.bad("✗ "),
            (mark, Look::Log) => paint.dim(&format!("{mark} ")),
            (mark, Look::Notice) if mark != ' ' => paint.warn(&format!("{mark} ")),
            (mark, _) => format!("{mark} "),
        };
        let used = indent.len() + if self.mark == '\0' { 0 } else { 2 };
        let room = columns.saturating_sub(used + if self.right.is_empty() { 0 } else { self.right.len() + 1 });
        let title = text::cut(&self.title, room);
        let gap = if title.is_empty() { "" } else { "    " };
        let detail_room = room.saturating_sub(text::width(&title) + gap.len());
        let detail = if self.detail.is_empty() || detail_room < 12 { String::new() } else { text::cut(&self.detail, detail_room) };
        let gap = if detail.is_empty() { "" } else { gap };
        let pad = if self.right.is_empty() { 0 } else { room - text::width(&title) - text::width(&detail) - gap.len() + 1 };
        let title = match self.look {
            Look::Log => paint.dim(&title),
            _ if self.mark == '\0' => paint.bold(&title),
            _ => title,
        };
        let right = match self.look {
            Look::Good => paint.good(&self.right),
            Look::Bad => paint.bad(&self.right),
            _ => self.right.clone(),
        };
        format!("{indent}{mark}{title}{gap}{}{}{right}", paint.warn(&detail), " ".repeat(pad)).trim_end().to_owned()
    }

    fn width(&self, columns: usize) -> usize {
        text::width(&self.paint(Paint::Plain, columns))
    }
}

impl Renderer for Tty {
    fn event(&mut self, at: Duration, event: &Event, _out: &mut String) {
        self.model.apply(at, event);
        match event {
            Event::Cached(i) | Event::Done(i, _) | Event::Failed(i) => self.finished_step(*i),
            Event::TaskDone(id, _) => self.finished_task(*id),
            Event::Notice(notice) => {
                self.queue.push(Line { mark: '!', title: text::one_line(notice), look: Look::Notice, ..Line::default() });
            }
            _ => {}
        }
    }

    fn tick(&mut self, at: Duration, size: (usize, usize), out: &mut String) {
        self.size = (size.0.max(20), size.1.max(4));
        out.push_str(BEGIN);
        self.erase(out);
        self.write_queue(out);
        for line in self.live(at) {
            self.drawn.push(line.width(self.size.0));
            out.push_str(&line.paint(self.paint, self.size.0));
            out.push('\n');
        }
        out.push_str(END);
    }

    fn finish(&mut self, at: Duration, out: &mut String) {
        out.push_str(BEGIN);
        self.erase(out);
        self.write_queue(out);
        let heading = self.heading(at);
        let verb = if self.model.steps.iter().any(|s| s.state == State::Failed) { "Failed after" } else { "Built in" };
        out.push_str(&self.paint.bold(&heading.title.replacen("Building", verb, 1)));
        out.push('\n');
        out.push_str(END);
        out.push_str(&self.model.closing(self.paint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::progress::tests::{failing_build, log, plan};

    /// Plays events, with a tick after each, and returns what each tick wrote.
    fn ticks(events: &[(u64, Event)], size: (usize, usize)) -> Vec<String> {
        let mut tty = Tty::new(Paint::Plain);
        let mut screens = Vec::new();
        for (ms, event) in events {
            let mut out = String::new();
            tty.event(Duration::from_millis(*ms), event, &mut out);
            tty.tick(Duration::from_millis(*ms), size, &mut out);
            screens.push(out.replace(BEGIN, "").replace(END, ""));
        }
        let mut out = String::new();
        tty.finish(Duration::from_millis(2000), &mut out);
        screens.push(out.replace(BEGIN, "").replace(END, ""));
        screens
    }

    #[test]
    fn finished_steps_scroll_away_and_running_ones_are_redrawn() {
        let screens = ticks(&failing_build(), (64, 24));
        // After the first output of RUN make, with COPY running beside it.
        assert_eq!(
            screens[8],
            "\x1b[3A\r\x1b[J\
Building 0.1s   1/3 steps, 1 cached
 ▸ [build 2/3] RUN make    miss: env CFLAGS changed         0.1s
   │ cc -o x
 ▸ [build 3/3] COPY a /b    miss: file a changed            0.1s
"
        );
        assert_eq!(
            screens[9],
            "\x1b[4A\r\x1b[J \
✓ [build 3/3] COPY a /b    miss: file a changed            0.1s
Building 0.1s   2/3 steps, 1 cached
 ▸ [build 2/3] RUN make    miss: env CFLAGS changed         0.1s
   │ cc -o x
"
        );
        assert_eq!(
            screens.last().unwrap(),
            "\x1b[1A\r\x1b[J\
Failed after 2.0s   2/3 steps, 1 cached
------
 > [build 2/3] RUN make:
0.078 cc -o x
0.178 ld: error
------
"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_screen_and_no_display_higher() {
        let long = "x".repeat(300);
        let mut events = vec![(0, plan(&[&long, "漢字漢字漢字漢字漢字漢字漢字漢字", "c", "d"]))];
        for step in 0..4 {
            events.push((1, Event::Missed(step, long.clone())));
            events.push((1, Event::Started(step)));
            events.extend((0..20).map(|n| (n, log(step, &format!("{long}\n")))));
        }
        for size in [(20, 4), (33, 7), (80, 24)] {
            for screen in ticks(&events, size).iter().rev().skip(1) {
                let live = screen.rsplit("\x1b[J").next().unwrap();
                assert!(live.lines().count() < size.1, "{size:?}\n{live}");
                for line in live.lines() {
                    assert!(text::width(line) <= size.0, "{size:?}: {line}");
                }
            }
        }
    }

    #[test]
    fn a_narrower_terminal_is_erased_in_its_own_rows() {
        let mut tty = Tty::new(Paint::Plain);
        let mut out = String::new();
        tty.event(Duration::ZERO, &plan(&["a"]), &mut out);
        tty.event(Duration::ZERO, &Event::Started(0), &mut out);
        tty.tick(Duration::ZERO, (80, 24), &mut out);
        out.clear();
        tty.tick(Duration::ZERO, (40, 24), &mut out);
        // The heading of 34 columns is one row still, the step's line of 80 became two.
        assert!(out.starts_with("\x1b[?2026h\x1b[3A\r\x1b[J"), "{out:?}");
    }

    #[test]
    fn a_reason_that_does_not_fit_gets_its_own_row() {
        let events = [
            (0, plan(&["RUN make"])),
            (0, Event::Missed(0, "env CFLAGS changed (unset -> \"-O2\")".into())),
            (0, Event::Done(0, Duration::ZERO)),
        ];
        let screens = ticks(&events, (40, 24));
        let want = " ✓ [build 1/1] RUN make             0.0s\n   miss: env CFLAGS changed (unset -> \"-\n   O2\")\n";
        assert!(screens[2].contains(want), "{}", screens[2]);
    }
}
