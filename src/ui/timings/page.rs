//! The waterfall: a row a piece of work, time to the right; the critical path marked; a table beneath.

use std::fmt::Write as _;
use std::time::Duration;

use crate::engine::event::{Part, Phase};
use crate::ui::human;
use crate::ui::page::{Mark, Page, escape, figures, legend};
use crate::ui::text;

use super::{Outcome, Span, StepBar, Timings};

const WIDTH: f64 = 1400.0;
/// Where time begins: names stand left of it.
const LEFT: f64 = 380.0;
/// What the durations beside the bars need.
const RIGHT: f64 = 76.0;
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;
const TOP: f64 = 30.0;
const CHART: f64 = 110.0;
/// Characters of a name.
const NAME_COLUMNS: usize = 50;

const STYLE: &str = "\
.grid{stroke:var(--line);stroke-width:1}
.critical-bar{stroke:var(--strong);stroke-width:1.6}
.critical-name{font-weight:700}
.link{fill:none;stroke:var(--strong);stroke-width:1.2;stroke-dasharray:3 2}
.shade{fill:var(--ground);opacity:.38}
.row:hover rect.back{fill:var(--line);opacity:.35}
.back{fill:transparent}
.phase{fill:var(--line);opacity:.55}
.cpu{fill:none;stroke:var(--strong);stroke-width:1.4}
td.critical{font-weight:700}
";

/// Returns the page. `about` says of which build it is.
pub fn render(timings: &Timings, title: &str, about: &str) -> Page {
    let body = summary(timings) + &waterfall(timings) + &concurrency(timings) + &table(timings);
    Page { title: title.into(), about: about.into(), style: STYLE.into(), body }
}

fn summary(t: &Timings) -> String {
    let count = |word: &str| t.steps.iter().filter(|s| s.outcome.word() == word).count();
    let work: Duration = t.steps.iter().filter_map(|s| s.span).map(Span::took).sum();
    let path: Duration = t.critical_path().iter().filter_map(|s| t.steps[*s].span).map(Span::took).sum();
    let mut all = vec![(shown(t.total), "in all"), (count("hit").to_string(), "hits"), (count("ran").to_string(), "steps ran")];
    for (word, name) in [("failed", "failed"), ("not reached", "not reached")] {
        all.extend(Some(count(word)).filter(|n| *n > 0).map(|n| (n.to_string(), name)));
    }
    all.extend([(shown(work), "work of all steps"), (shown(path), "critical path")]);
    figures(&all)
}

/// One row of the picture.
struct Row<'a> {
    name: String,
    tooltip: String,
    span: Span,
    mark: Mark,
    parts: &'a [(Part, Span)],
    step: Option<usize>,
}

fn rows(t: &Timings) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (n, bar) in t.steps.iter().enumerate() {
        let Some((span, mark)) = placed(bar) else { continue };
        let parts = if bar.outcome == Outcome::Hit { &[][..] } else { &bar.parts[..] };
        rows.push(Row { name: name_of(n, bar), tooltip: tooltip(n, bar, span), span, mark, parts, step: Some(n) });
    }
    for task in &t.tasks {
        let bytes = task.bytes.map(|b| format!("\n{}", human::size(b))).unwrap_or_default();
        let tooltip = format!("{}\n{}{bytes}", task.title, between(task.span));
        rows.push(Row { name: task.title.clone(), tooltip, span: task.span, mark: Mark::Work, parts: &[], step: None });
    }
    // Steps first where both begin at once: a pull that a step waits for stands under it.
    rows.sort_by_key(|r| (r.span.start, r.step.is_none(), r.step));
    rows
}

/// Where a step's bar stands, and its colour; none: it was not reached.
fn placed(bar: &StepBar) -> Option<(Span, Mark)> {
    let mark = match bar.outcome {
        Outcome::Hit => Mark::Hit,
        Outcome::Failed(_) => Mark::Failed,
        Outcome::Built(_) | Outcome::NotReached => Mark::Built,
    };
    // What a hit took is what it took to know that it is one.
    let files = bar.parts.iter().find(|(part, _)| *part == Part::Files && bar.outcome == Outcome::Hit);
    bar.span.map(|span| (files.map_or(span, |(_, files)| *files), mark))
}

fn name_of(n: usize, bar: &StepBar) -> String {
    let platform = bar.info.platform.as_deref().map(|p| format!("{p} ")).unwrap_or_default();
    format!("{} [{platform}{} {}/{}] {}", n + 1, bar.info.stage, bar.info.number, bar.info.of, text::one_line(&bar.info.title))
}

fn tooltip(n: usize, bar: &StepBar, span: Span) -> String {
    let mut out = format!("{}\n{}, {}", name_of(n, bar), bar.outcome.word(), between(span));
    if !bar.outcome.why().is_empty() {
        let _ = write!(out, "\nwhy: {}", bar.outcome.why());
    }
    for (part, span) in &bar.parts {
        let _ = write!(out, "\n{}: {}", part.word(), shown(span.took()));
    }
    if !bar.info.after.is_empty() {
        let steps: Vec<String> = bar.info.after.iter().map(|s| (s + 1).to_string()).collect();
        let _ = write!(out, "\nafter step {}", steps.join(", "));
    }
    out
}

fn between(span: Span) -> String {
    format!("{} from {} to {}", shown(span.took()), shown(span.start), shown(span.end))
}

/// Milliseconds count here.
fn shown(time: Duration) -> String {
    match time.as_millis() {
        0..1000 => format!("{}ms", time.as_millis()),
        1000..10_000 => format!("{:.2}s", time.as_secs_f64()),
        _ => human::duration(time),
    }
}

/// Where moments stand.
struct Scale {
    total_secs: f64,
}

impl Scale {
    fn of(t: &Timings) -> Self {
        Self { total_secs: t.total.as_secs_f64().max(0.001) }
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at.as_secs_f64() / self.total_secs).min(1.0)
    }

    /// A round number of seconds between two lines of the grid, of which there are ten at the most.
    fn grid_secs(&self) -> f64 {
        let rough = self.total_secs / 10.0;
        let power = 10f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|n| *n >= rough).unwrap_or(rough)
    }

    fn grid(&self, height: f64, out: &mut String) {
        let step = self.grid_secs();
        for n in 0..=10 {
            let secs = step * f64::from(n);
            if secs > self.total_secs {
                break;
            }
            let x = self.x(Duration::from_secs_f64(secs));
            let label = if step < 1.0 { format!("{:.0}ms", secs * 1000.0) } else { human::duration(Duration::from_secs_f64(secs)) };
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{height:.0}\"/><text class=\"dim\" x=\"{x:.1}\" \
                 y=\"{:.0}\" text-anchor=\"middle\">{label}</text>",
                TOP - 8.0,
                TOP - 13.0,
            );
        }
    }
}

fn waterfall(t: &Timings) -> String {
    let (scale, rows, path) = (Scale::of(t), rows(t), t.critical_path());
    let first = TOP + ROW;
    let height = first + ROW * rows.len() as f64 + 8.0;
    let mut svg = String::new();
    phases(t, &scale, height, &mut svg);
    scale.grid(height, &mut svg);
    let y_of = |row: usize| first + ROW * row as f64;
    for (n, row) in rows.iter().enumerate() {
        draw(row, y_of(n), &scale, row.step.is_some_and(|s| path.contains(&s)), &mut svg);
    }
    for pair in path.windows(2) {
        let place = |step: usize| rows.iter().position(|r| r.step == Some(step));
        let (Some(from), Some(to)) = (place(pair[0]), place(pair[1])) else { continue };
        let (x, next) = (scale.x(rows[from].span.end), scale.x(rows[to].span.start));
        let (y, below) = (y_of(from) + (ROW + BAR) / 2.0, y_of(to) + ROW / 2.0);
        let _ = write!(svg, "<path class=\"link\" d=\"M{x:.1} {y:.1}V{below:.1}H{next:.1}\"/>");
    }
    let marks =
        [(Mark::Hit, "hit"), (Mark::Built, "ran"), (Mark::Failed, "failed"), (Mark::Work, "pulls, unpacking, exports, shared caches")];
    format!(
        "<h2>What was done when</h2>\n{}<p class=\"dim\">Outlined: the critical path, what the build took so long for. Within a bar, the \
         pale parts are what surrounds the step's own work: its files and root before, its layer after.</p>\n\
         <div class=\"wide\"><svg width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">{svg}</svg></div>\n",
        legend(&marks),
    )
}

/// What the build as a whole was at, as bands behind everything.
fn phases(t: &Timings, scale: &Scale, height: f64, out: &mut String) {
    for (n, (phase, span)) in t.phases.iter().enumerate() {
        let (x, end) = (scale.x(span.start), scale.x(span.end));
        let (name, took) = (phase.word(), shown(span.took()));
        let title = format!("<title>{name}: {}</title>", escape(&between(*span)));
        if n % 2 == 0 {
            let _ = write!(
                out,
                "<g>{title}<rect class=\"phase\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.0}\"/></g>",
                (end - x).max(0.5),
                height - TOP
            );
        }
        // A name that has no room would lie on the next one's.
        let label = format!("{name} {took}");
        if end - x > 6.2 * text::width(&label) as f64 {
            let _ = write!(out, "<text class=\"dim\" x=\"{:.1}\" y=\"{:.0}\">{label}{title}</text>", x + 4.0, TOP + 14.0);
        }
    }
}

fn draw(row: &Row<'_>, y: f64, scale: &Scale, critical: bool, out: &mut String) {
    let (x, end) = (scale.x(row.span.start), scale.x(row.span.end));
    let width = (end - x).max(2.5);
    let name_class = if critical { " class=\"critical-name\"" } else { "" };
    let bar_class = if critical { " critical-bar" } else { "" };
    let (bar_y, base) = (y + (ROW - BAR) / 2.0, y + ROW / 2.0 + 4.0);
    let _ = write!(
        out,
        "<g class=\"row\"><title>{}</title><rect class=\"back\" x=\"0\" y=\"{y:.1}\" width=\"{WIDTH}\" height=\"{ROW}\"/>\
         <text{name_class} x=\"10\" y=\"{base:.1}\">{}</text>\
         <rect class=\"{}{bar_class}\" x=\"{x:.1}\" y=\"{bar_y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>",
        escape(&row.tooltip),
        escape(&text::cut(&row.name, NAME_COLUMNS)),
        row.mark.class(),
    );
    for (_, span) in row.parts.iter().filter(|(part, span)| *part != Part::Work && span.start >= row.span.start) {
        let (x, end) = (scale.x(span.start), scale.x(span.end));
        let _ = write!(out, "<rect class=\"shade\" x=\"{x:.1}\" y=\"{bar_y:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>", end - x);
    }
    // Right of a bar, unless that is outside: then before it.
    let (label_x, anchor) = if x + width + 60.0 < WIDTH { (x + width + 6.0, "start") } else { (x - 6.0, "end") };
    let _ = write!(
        out,
        "<text class=\"dim\" x=\"{label_x:.1}\" y=\"{base:.1}\" text-anchor=\"{anchor}\">{}</text></g>",
        shown(row.span.took())
    );
}

fn concurrency(t: &Timings) -> String {
    let scale = Scale::of(t);
    let moments = t.side_by_side();
    let most = moments.iter().map(|(_, steps, tasks)| steps + tasks).max().unwrap_or(0).max(1);
    let height = TOP + CHART + 12.0;
    let mut svg = String::new();
    scale.grid(TOP + CHART, &mut svg);
    let level = |n: usize| TOP + CHART * (1.0 - n as f64 / most as f64);
    let ends = moments.iter().skip(1).map(|m| m.0).chain([t.total]);
    for ((at, steps, tasks), end) in moments.iter().zip(ends) {
        let (x, width) = (scale.x(*at), scale.x(end) - scale.x(*at));
        for (mark, from, to) in [(Mark::Built, 0, *steps), (Mark::Work, *steps, steps + tasks)] {
            let (y, tall) = (level(to), level(from) - level(to));
            if tall > 0.0 {
                let _ = write!(
                    svg,
                    "<rect class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{tall:.1}\"><title>{steps} steps and {tasks} \
                     other pieces of work from {} to {}</title></rect>",
                    mark.class(),
                    shown(*at),
                    shown(end),
                );
            }
        }
    }
    let _ = write!(svg, "<text class=\"dim\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{most} at once</text>", LEFT - 8.0, TOP + 6.0);
    if t.cpu.len() > 1 {
        let point = |(at, busy): &(Duration, f64)| format!("{:.1},{:.1}", scale.x(*at), TOP + CHART * (1.0 - busy.clamp(0.0, 1.0)));
        let _ = write!(svg, "<polyline class=\"cpu\" points=\"{}\"/>", t.cpu.iter().map(point).collect::<Vec<_>>().join(" "));
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">line: all processors, 0 to 100 %</text>",
            LEFT - 8.0,
            TOP + 24.0
        );
    }
    format!(
        "<h2>Side by side</h2>\n{}<div class=\"wide\"><svg width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         role=\"img\">{svg}</svg></div>\n",
        legend(&[(Mark::Built, "steps"), (Mark::Work, "other work")]),
    )
}

fn table(t: &Timings) -> String {
    let path = t.critical_path();
    let mut out = String::from(
        "<h2>Steps</h2>\n<table><thead><tr><th class=\"number\">#</th><th>Step</th><th>Outcome</th><th class=\"number\">From</th>\
         <th class=\"number\">Took</th><th class=\"number\">Files</th><th class=\"number\">Root</th><th class=\"number\">Work</th>\
         <th class=\"number\">Layer</th><th>Why it ran</th></tr></thead>\n<tbody>\n",
    );
    for (n, bar) in t.steps.iter().enumerate() {
        let part = |wanted: Part| {
            let took: Duration = bar.parts.iter().filter(|(p, _)| *p == wanted).map(|(_, s)| s.took()).sum();
            format!("<td class=\"number\">{}</td>", if took.is_zero() { String::new() } else { shown(took) })
        };
        let span = |f: fn(Span) -> Duration| bar.span.filter(|_| bar.outcome != Outcome::Hit).map(|s| shown(f(s))).unwrap_or_default();
        let critical = if path.contains(&n) { " class=\"critical\"" } else { "" };
        let _ = writeln!(
            out,
            "<tr><td class=\"number\">{}</td><td{critical}><span class=\"dim\">{} {}/{}</span> <code>{}</code></td><td>{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td>{}{}{}{}<td>{}</td></tr>",
            n + 1,
            escape(&bar.info.stage),
            bar.info.number,
            bar.info.of,
            escape(&text::one_line(&bar.info.title)),
            bar.outcome.word(),
            span(|s| s.start),
            span(Span::took),
            part(Part::Files),
            part(Part::Root),
            part(Part::Work),
            part(Part::Keep),
            escape(bar.outcome.why()),
        );
    }
    out += "</tbody></table>\n<h2>The build as a whole</h2>\n<table><tbody>\n";
    for (phase, span) in &t.phases {
        let _ = writeln!(out, "<tr><td>{}</td><td class=\"number\">{}</td></tr>", about(*phase), shown(span.took()));
    }
    out + "</tbody></table>\n"
}

fn about(phase: Phase) -> &'static str {
    match phase {
        Phase::Inputs => "inputs: contexts opened, Dockerfile read, bases resolved",
        Phase::Lookup => "lookup: what is copied is digested, steps that hit are found",
        Phase::Steps => "steps: those that run, and those whose hit was not known before",
        Phase::Outputs => "outputs: bases completed, image written, exported, pushed",
        Phase::Closing => "closing: shared caches written, store tidied",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::failing;
    use super::*;

    #[test]
    fn everything_is_on_the_page_and_nothing_of_it_is_markup() {
        let page = render(&failing(), "Build of <app>", "ply build .").render();
        for text in [
            "Build of &lt;app&gt;",
            "RUN &lt;one&gt; &amp; more",
            "unpack layer abc",
            "why: command changed",
            "step 2 was rebuilt and its result differs",
            "not reached",
            "after step 2, 3",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("<one>") && !page.contains("<app>"));
        // Each row has its bar: four steps that were reached, and a task.
        assert_eq!(page.matches("<g class=\"row\">").count(), 5);
        assert_eq!(page.matches("critical-bar\"").count(), 2);
    }

    #[test]
    fn a_build_that_failed_at_once_has_a_page_too() {
        let page = render(&Timings::default(), "t", "").render();
        assert!(page.contains("0ms") && !page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn the_grid_is_of_round_numbers() {
        for (secs, want) in [(0.05, 0.005), (1.0, 0.1), (7.0, 1.0), (13.0, 2.0), (95.0, 10.0)] {
            let got = Scale { total_secs: secs }.grid_secs();
            assert!((got - want).abs() < 1e-9, "{secs}: {got}");
        }
    }
}
