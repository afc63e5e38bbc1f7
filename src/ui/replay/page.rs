//! The page of a replay: figures, the picture, suggestions with their differences, causes, steps. Pure.

use std::fmt::Write as _;

use crate::replay::{Report, Suggestion};
use crate::ui::page::{Mark, Page, escape, figures, legend};
use crate::ui::text;

use super::change::difference;
use super::picture::picture;
use super::{by, gain, percent, place, seconds, sentences, span};

/// Causes that are shown.
const CAUSES: usize = 20;
/// The class of an assumed miss: paler than one that is certain.
pub(super) const ASSUMED: &str = "assumed";

const STYLE: &str = "\
.assumed{fill:color-mix(in srgb,var(--dragged) 45%,var(--panel))}
.swatch.assumed{background:color-mix(in srgb,var(--dragged) 45%,var(--panel));border:1px solid var(--dragged)}
svg .bar{fill:var(--built)}
svg .rule{fill:var(--line)}
.picture{padding:10px 8px 8px}
.wide table{background:var(--ground)}
.wide td:first-child,.wide th:first-child{padding-left:12px}
.note{border-left:3px solid var(--line);padding-left:10px}
.suggestion{border:1px solid var(--line);border-radius:6px;padding:4px 14px 12px;margin:12px 0;background:var(--panel)}
.suggestion h3{font-size:14px;margin:8px 0 2px}
.gain{font-weight:600;color:var(--hit)}
pre{margin:8px 0 0;padding:8px 10px;overflow-x:auto;background:var(--ground);border:1px solid var(--line);border-radius:4px;\
font:12px/1.4 ui-monospace,monospace}
.add{color:var(--hit)}.del{color:var(--failed)}.at{color:var(--dim)}
";

/// Returns the page.
pub fn page(report: &Report) -> String {
    let title = format!("Replay of {}", place(report));
    let built = report.commits.iter().filter(|c| c.skipped.is_none()).count();
    let about = format!("{built} commits, {}; no step was run: hits and misses are derived from git's objects", span(report));
    Page { title, about, style: STYLE.into(), body: body(report) }.render()
}

fn body(report: &Report) -> String {
    let mut out = numbers(report);
    if report.totals.builds == 0 {
        out.push_str("<p>No build after the first, so no rate of hits.</p>\n");
        return out;
    }
    let colours = legend(&[
        (Mark::Hit, "hit"),
        (Mark::Built, "its files changed"),
        (Mark::Failed, "the Dockerfile's text changed"),
        (Mark::Work, "a variable or the base changed"),
        (Mark::Dragged, "dragged by a step below it"),
        (Mark::Unknown, "first build"),
    ]);
    let assumed = format!("<li><span class=\"swatch {ASSUMED}\"></span>dragged, but only assumed: a RUN below it ran again</li></ul>");
    out.push_str(&colours.replace("</ul>", &assumed));
    let _ = writeln!(out, "<div class=\"wide picture\">{}</div>", picture(report));
    for note in &report.notes {
        let _ = writeln!(out, "<p class=\"note dim\">{}</p>", escape(&text::one_line(note)));
    }
    if let Some(executed) = &report.executed {
        out.push_str("<h2>Built for real</h2>\n");
        for line in sentences(executed) {
            let _ = writeln!(out, "<p>{}</p>", escape(&text::one_line(&line)));
        }
    }
    if !report.suggestions.is_empty() {
        out.push_str(
            "<h2>Suggestions</h2>\n<p class=\"dim\">Each was applied to every commit that it fits, and replayed. Whether the \
             build still works, only a build can tell.</p>\n",
        );
        report.suggestions.iter().for_each(|one| suggestion(&mut out, one));
    }
    causes(&mut out, report);
    steps(&mut out, report);
    let took = &report.took;
    let (replay, suggest) = (seconds(took.replay_secs), seconds(took.suggest_secs));
    let _ = writeln!(
        out,
        "<p class=\"dim\">Replayed in {replay}, suggestions in {suggest}; {} objects read, {} distinct Dockerfiles.</p>",
        took.objects_read, took.dockerfiles
    );
    out
}

fn numbers(report: &Report) -> String {
    let totals = &report.totals;
    let builds = (totals.builds.to_string(), "builds after the first");
    if totals.builds == 0 {
        return figures(&[builds]);
    }
    let mut numbers = vec![
        builds,
        (percent(totals.plain.part()), "hits as docker build keeps them"),
        (percent(totals.plywood.part()), "hits as Plywood does, at least"),
        (percent(totals.runs.part()), "of RUN steps"),
    ];
    numbers.extend(totals.plain_secs.map(|s| (seconds(s), "lost a build, docker build")));
    numbers.extend(totals.plywood_secs.map(|s| (seconds(s), "lost a build, Plywood")));
    // Those about a checkout compare with something else.
    let same = report.suggestions.iter().filter(|s| s.before == report.totals);
    let best = same.max_by(|a, b| a.after.plywood.part().total_cmp(&b.after.plywood.part()));
    numbers.extend(best.map(|s| (percent(s.after.plywood.part()), "hits with what is suggested")));
    figures(&numbers)
}

fn suggestion(out: &mut String, suggestion: &Suggestion) {
    let _ = writeln!(
        out,
        "<div class=\"suggestion\"><h3>{}</h3><div class=\"gain\">{}</div><div class=\"dim\">check first: {}</div>",
        escape(&suggestion.what),
        escape(&gain(suggestion)),
        escape(&suggestion.caveat)
    );
    for change in &suggestion.changes {
        out.push_str("<pre>");
        for line in difference(change).lines() {
            let class = match line.as_bytes() {
                [b'+', ..] => "add",
                [b'-', ..] => "del",
                [b'@', ..] => "at",
                _ => "",
            };
            let _ = writeln!(out, "<span class=\"{class}\">{}</span>", escape(line));
        }
        out.push_str("</pre>");
    }
    out.push_str("</div>\n");
}

/// The head of a table: columns of figures, and of text.
fn table_head(out: &mut String, heading: &str, columns: &[(&str, bool)]) {
    let _ = write!(out, "<h2>{heading}</h2>\n<div class=\"wide\"><table><tr>");
    for (name, number) in columns {
        let class = if *number { " class=\"number\"" } else { "" };
        let _ = write!(out, "<th{class}>{name}</th>");
    }
    out.push_str("</tr>\n");
}

fn number(out: &mut String, text: impl std::fmt::Display) {
    let _ = write!(out, "<td class=\"number\">{text}</td>");
}

fn causes(out: &mut String, report: &Report) {
    if report.causes.is_empty() {
        return;
    }
    let costs = report.causes.iter().any(|c| c.lost_secs.is_some());
    let mut columns = vec![("builds", true), ("steps", true), ("others dragged", true)];
    columns.extend(costs.then_some(("lost a build", true)));
    columns.extend([("by", false), ("most often", false)]);
    table_head(out, "What made steps miss", &columns);
    for cause in report.causes.iter().take(CAUSES) {
        out.push_str("<tr>");
        [cause.builds, cause.misses, cause.dragged].into_iter().for_each(|n| number(out, n));
        if costs {
            number(out, cause.lost_secs.map(seconds).unwrap_or_default());
        }
        let files: Vec<String> = cause.files.iter().map(|(path, n)| format!("<code>{}</code>&nbsp;{n}", escape(path))).collect();
        let _ = writeln!(out, "<td>{}</td><td>{}</td></tr>", escape(&by(cause)), files.join(", "));
    }
    out.push_str("</table></div>\n");
    let more = report.causes.len().saturating_sub(CAUSES);
    if more > 0 {
        let _ = writeln!(out, "<p class=\"dim\">{more} more.</p>");
    }
}

fn steps(out: &mut String, report: &Report) {
    let costs = report.steps.iter().any(|s| s.cost_secs.is_some());
    let mut columns = vec![("line", true), ("stage", false), ("step", false), ("plain", true), ("Plywood", true)];
    columns.extend([("own misses", true), ("dragged", true), ("assumed", true)]);
    columns.extend(costs.then_some([("cost", true), ("lost a build", true)]).into_iter().flatten());
    table_head(out, "Steps", &columns);
    for step in &report.steps {
        out.push_str("<tr>");
        number(out, step.line.map_or_else(|| "gone".to_owned(), |l| l.to_string()));
        let title = text::cut(&text::one_line(&step.title), 160);
        let _ = write!(out, "<td>{}</td><td><code>{}</code></td>", escape(&step.stage), escape(&title));
        [step.plain, step.plywood].into_iter().for_each(|rate| number(out, percent(rate.part())));
        [step.own_misses, step.dragged_misses, step.assumed_misses].into_iter().for_each(|n| number(out, n));
        if costs {
            [step.cost_secs, step.lost_secs].into_iter().for_each(|secs| number(out, secs.map(seconds).unwrap_or_default()));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}
