//! A replay's report as a table, as JSON, and as a page with a picture. Pure.
//!
//! | file | holds |
//! |---|---|
//! | this | the table and the JSON |
//! | `change` | a rewritten file as a difference |
//! | `page` | the page: figures, causes, suggestions |
//! | `picture` | commits across, steps down |

mod change;
pub mod page;
mod picture;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::replay::{Blame, Executed, LaneReport, Report, Suggestion, Totals};
use crate::ui::table::{Align, Table};
use crate::ui::{human, text};

use change::difference;

/// Columns of a step's title.
const TITLE_COLUMNS: usize = 56;
/// Causes that the table shows.
const CAUSES: usize = 12;
/// Failed builds that are named.
const FAILURES: usize = 10;

/// Returns the report for people.
pub fn table(report: &Report) -> String {
    let mut out = headline(report);
    if report.totals.builds > 0 {
        out.push('\n');
        out.push_str(&steps(report));
    }
    if !report.causes.is_empty() {
        out.push_str("\nWhat made steps miss\n");
        out.push_str(&causes(report));
    }
    if !report.suggestions.is_empty() {
        out.push_str("\nSuggestions, each replayed over the same commits\n");
        for (n, suggestion) in report.suggestions.iter().enumerate() {
            let _ = writeln!(out, "{}. {}: {}", n + 1, text::one_line(&suggestion.what), gain(suggestion));
            let _ = writeln!(out, "   check first: {}", text::one_line(&suggestion.caveat));
            for change in &suggestion.changes {
                for line in difference(change).lines() {
                    let _ = writeln!(out, "   {}", text::printable(line));
                }
            }
        }
    }
    if let Some(executed) = &report.executed {
        out.push_str("\nBuilt for real\n");
        sentences(executed).iter().for_each(|line| out.extend([text::one_line(line).as_str(), "\n"]));
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {}", text::one_line(note));
    }
    out
}

/// What real builds came to.
fn sentences(executed: &Executed) -> Vec<String> {
    let Executed { builds, hits, promised, certain, assumed, lost_secs, failures, surprises, .. } = executed;
    let mut out = vec![
        format!("{} of all steps hit in {builds} builds after the first; {} lost a build", percent(hits.part()), seconds(*lost_secs)),
        format!(
            "of {} promised hits {} hit; of {} certain misses {} missed",
            promised.of,
            promised.hits,
            certain.of,
            certain.of - certain.hits
        ),
        format!("of {} assumed misses {} hit, as a RUN gave what it gave before", assumed.of, assumed.hits),
    ];
    out.extend(failures.iter().take(FAILURES).map(|(commit, why)| format!("{commit} failed: {why}")));
    out.extend(surprises.iter().take(FAILURES).map(|(commit, step, what)| format!("{commit}: {step} {what}")));
    out
}

/// Returns the report as JSON: its fields, and each suggestion's changes as differences.
pub fn json(report: &Report) -> Value {
    let mut value = serde_json::to_value(report).expect("strings and numbers are serialisable");
    for (n, suggestion) in report.suggestions.iter().enumerate() {
        let text: String = suggestion.changes.iter().map(difference).collect();
        value["suggestions"][n]["diff"] = json!(text);
    }
    value
}

/// Of what, and the rates of all steps.
fn headline(report: &Report) -> String {
    let built = report.commits.iter().filter(|c| c.skipped.is_none()).count();
    let Totals { builds, plain, plywood, plain_secs, plywood_secs, .. } = &report.totals;
    let mut out = format!("{built} commit{} ({})", if built == 1 { "" } else { "s" }, span(report));
    if built < report.commits.len() {
        let _ = write!(out, ", {} skipped", report.commits.len() - built);
    }
    let _ = writeln!(out, ", {}", text::one_line(&place(report)));
    let lost = |secs: &Option<f64>| secs.map(|s| format!(", {} lost a build", seconds(s))).unwrap_or_default();
    if *builds == 0 {
        out.push_str("no build after the first, so no rate of hits: more commits are needed (--number, FROM..TO)\n");
        return out;
    }
    let _ = writeln!(out, "hits of all steps in {builds} builds after the first:");
    let _ = writeln!(out, "  {:>6}  as docker build keeps them{}", percent(plain.part()), lost(plain_secs));
    let _ = writeln!(out, "  {:>6}  as Plywood does, at least{}", percent(plywood.part()), lost(plywood_secs));
    out
}

/// The oldest and newest commit.
fn span(report: &Report) -> String {
    let short = |id: &str| id.chars().take(9).collect::<String>();
    match (report.commits.first(), report.commits.last()) {
        (Some(first), Some(last)) if first.id != last.id => format!("{}..{}", short(&first.id), short(&last.id)),
        (Some(one), _) => short(&one.id),
        _ => String::new(),
    }
}

/// The Dockerfile, with its context.
fn place(report: &Report) -> String {
    if report.context.is_empty() { report.dockerfile.clone() } else { format!("{}/{}", report.context, report.dockerfile) }
}

fn steps(report: &Report) -> String {
    let costs = report.steps.iter().any(|s| s.cost_secs.is_some());
    let mut columns = vec![
        ("LINE", Align::Right),
        ("STAGE", Align::Left),
        ("STEP", Align::Left),
        ("PLAIN", Align::Right),
        ("PLYWOOD", Align::Right),
        ("OWN", Align::Right),
        ("DRAGGED", Align::Right),
    ];
    if costs {
        columns.extend([("COST", Align::Right), ("LOST", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    for step in report.steps.iter().filter(|step| step.line.is_some()) {
        let LaneReport { stage, title, line, plain, plywood, own_misses, dragged_misses, cost_secs, lost_secs, .. } = step;
        let secs = |s: &Option<f64>| s.map(seconds).unwrap_or_default();
        let mut cells = vec![
            line.map(|l| l.to_string()).unwrap_or_default(),
            stage.clone(),
            text::cut(&text::one_line(title), TITLE_COLUMNS),
            percent(plain.part()),
            percent(plywood.part()),
            own_misses.to_string(),
            dragged_misses.to_string(),
        ];
        if costs {
            cells.extend([secs(cost_secs), secs(lost_secs)]);
        }
        table.row(cells);
    }
    let gone = report.steps.iter().filter(|step| step.line.is_none()).count();
    let gone = if gone == 0 { String::new() } else { format!("({gone} steps that the Dockerfile has no more are in the sums)\n") };
    table.render() + &gone
}

fn causes(report: &Report) -> String {
    let costs = report.causes.iter().any(|c| c.lost_secs.is_some());
    let mut columns = vec![("BUILDS", Align::Right), ("STEPS", Align::Right), ("OTHERS", Align::Right)];
    if costs {
        columns.push(("LOST", Align::Right));
    }
    columns.extend([("BY", Align::Left), ("MOST OFTEN", Align::Left)]);
    let mut table = Table::new(&columns);
    for cause in report.causes.iter().take(CAUSES) {
        let Blame { builds, misses, dragged, lost_secs, .. } = cause;
        let mut cells = vec![builds.to_string(), misses.to_string(), dragged.to_string()];
        if costs {
            cells.push(lost_secs.map(seconds).unwrap_or_default());
        }
        let files = cause.files.iter().take(3).map(|(path, n)| format!("{path} ({n})")).collect::<Vec<_>>().join(", ");
        cells.extend([by(cause), text::cut(&text::one_line(&files), TITLE_COLUMNS + 24)]);
        table.row(cells);
    }
    let more = report.causes.len().saturating_sub(CAUSES);
    table.render() + &if more == 0 { String::new() } else { format!("({more} more)\n") }
}

/// Who began misses, in words.
fn by(cause: &Blame) -> String {
    let line = cause.line.map(|line| format!(" (line {line})")).unwrap_or_default();
    let what = text::cut(&text::one_line(&cause.what), TITLE_COLUMNS);
    match cause.kind {
        "files" => format!("files of {what}{line}"),
        "variable" => format!("variable {what} in {}", text::one_line(&cause.stage)),
        "base" => format!("base of {}", text::one_line(&cause.stage)),
        _ => format!("text of {what}{line}"),
    }
}

/// What a suggestion wins.
fn gain(suggestion: &Suggestion) -> String {
    let Suggestion { before, after, saved_secs, .. } = suggestion;
    let rate = |what: &str, before: f64, after: f64| format!("{what} {} -> {} hits", percent(before), percent(after));
    let mut out = rate("all steps", before.plywood.part(), after.plywood.part());
    if before.runs != after.runs {
        out = format!("{}, {out}", rate("RUN", before.runs.part(), after.runs.part()));
    }
    if let Some(secs) = saved_secs {
        let _ = write!(out, ", {} saved a build", seconds(*secs));
    }
    out
}

/// `93.4%`; never 100 where something missed, nor 0 where something hit.
fn percent(part: f64) -> String {
    let tenths = (part * 1000.0).round();
    let tenths = if part < 1.0 { tenths.min(999.0) } else { tenths };
    let tenths = if part > 0.0 { tenths.max(1.0) } else { tenths };
    format!("{:.1}%", tenths / 10.0)
}

fn seconds(secs: f64) -> String {
    if secs <= 0.0 {
        return "0s".into();
    }
    human::duration(Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_percents_are_only_shown_where_they_are_whole() {
        let cases = [(1.0, "100.0%"), (0.9999, "99.9%"), (0.5, "50.0%"), (0.0001, "0.1%"), (0.0, "0.0%"), (0.934, "93.4%")];
        for (part, want) in cases {
            assert_eq!(percent(part), want);
        }
    }
}
