//! The picture of a replay: a column a commit, a row a step, as an SVG whose rectangles are runs of like cells. Pure.
//!
//! A history of thousands of commits has more columns than a screen; then a column stands for several commits and shows the
//! worst of them, so that no miss is lost.

use std::fmt::Write as _;

use crate::replay::{LaneReport, Report};
use crate::ui::page::{Mark, escape};
use crate::ui::text;

use super::seconds;

/// Columns at most: a pixel each.
const COLUMNS: usize = 900;
/// How wide the cells are together, unless there are few.
const WIDTH: f64 = 900.0;
/// How wide a column is at most, and from where on cells keep a gap.
const WIDE: (f64, f64) = (24.0, 5.0);
/// A row's height.
const ROW: usize = 20;
/// Room for the steps' titles.
const LABELS: usize = 350;
/// Characters of a title.
const TITLE: usize = 40;
/// Room for the bars, and how long the longest is.
const BARS: (usize, f64) = (170, 80.0);
/// Rows of steps that the newest Dockerfile has no more.
const GONE: usize = 8;
/// What is between stages.
const GAP: usize = 7;

/// Where things are.
struct Frame {
    /// The first commit that is shown: those before were all skipped.
    first: usize,
    /// Commits of a column.
    bin: usize,
    /// A column's width.
    column: f64,
    /// Where the bars begin.
    bars: usize,
    width: usize,
}

/// Returns the picture.
pub(super) fn picture(report: &Report) -> String {
    let first = report.commits.iter().position(|c| c.skipped.is_none()).unwrap_or(0);
    let commits = (report.commits.len() - first).max(1);
    let bin = commits.div_ceil(COLUMNS);
    let columns = commits.div_ceil(bin);
    let column = (WIDTH / columns as f64).min(WIDE.0);
    let bars = LABELS + (columns as f64 * column).ceil() as usize + 16;
    let frame = Frame { first, bin, column, bars, width: bars + BARS.0 };
    let (rows, height) = rows(report, &frame);
    let width = frame.width;
    let mut out = format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"hits and misses of each step in each commit\">\n"
    );
    head(&mut out, report, &frame);
    out.push_str(&rows);
    out.push_str("</svg>\n");
    if bin > 1 {
        let _ = writeln!(out, "<p class=\"dim\">A column stands for {bin} commits and shows the worst of them.</p>");
    }
    out
}

/// The line above: the first and the last commit, and what the bars are.
fn head(out: &mut String, report: &Report, frame: &Frame) {
    let end = frame.bars - 16;
    let _ = write!(out, "<text class=\"dim\" x=\"{LABELS}\" y=\"14\">{}</text>", escape(&label(report, frame.first)));
    if end - LABELS > 330 {
        let newest = label(report, report.commits.len().saturating_sub(1));
        let _ = write!(out, "<text class=\"dim\" x=\"{end}\" y=\"14\" text-anchor=\"end\">{}</text>", escape(&newest));
    }
    let what = if most_lost(report) > 0.0 { "misses, lost a build" } else { "misses" };
    let _ = writeln!(out, "<text class=\"dim\" x=\"{}\" y=\"14\">{what}</text>", frame.bars);
}

/// All rows, and where the last one ends.
fn rows(report: &Report, frame: &Frame) -> (String, usize) {
    let (mut out, mut y, mut stage) = (String::new(), 24, None);
    let is_there = |step: &&LaneReport| step.line.is_some();
    for step in report.steps.iter().filter(is_there) {
        if stage.is_some_and(|s| s != &step.stage) {
            let _ = writeln!(out, "<rect class=\"rule\" x=\"0\" y=\"{}\" width=\"{}\" height=\"1\"/>", y + 2, frame.width);
            y += GAP;
        }
        stage = Some(&step.stage);
        row(&mut out, report, step, frame, y);
        y += ROW;
    }
    let gone: Vec<&LaneReport> = report.steps.iter().filter(|step| !is_there(step)).collect();
    if !gone.is_empty() {
        let more = gone.len().saturating_sub(GONE);
        let more = if more == 0 { String::new() } else { format!(" ({more} more are not shown)") };
        let _ = writeln!(out, "<text class=\"dim\" x=\"8\" y=\"{}\">no more in the Dockerfile{more}:</text>", y + 16);
        y += ROW + 2;
    }
    for step in gone.into_iter().take(GONE) {
        row(&mut out, report, step, frame, y);
        y += ROW;
    }
    (out, y + 6)
}

fn row(out: &mut String, report: &Report, step: &LaneReport, frame: &Frame, y: usize) {
    let title = text::one_line(&step.title);
    let _ = write!(
        out,
        "<g><title>{}: {}</title><text class=\"dim\" x=\"34\" y=\"{base}\" text-anchor=\"end\">{}</text>\
         <text class=\"mono\" x=\"42\" y=\"{base}\">{}</text></g>",
        escape(&step.stage),
        escape(&text::cut(&title, 400)),
        step.line.map(|line| line.to_string()).unwrap_or_default(),
        escape(&text::cut(&title, TITLE)),
        base = y + 14,
    );
    cells(out, step, frame, y);
    bar(out, report, step, frame.bars, y);
    out.push('\n');
}

fn cells(out: &mut String, step: &LaneReport, frame: &Frame, y: usize) {
    let cells = step.cells.as_bytes().get(frame.first..).unwrap_or_default();
    let worst: Vec<u8> = cells.chunks(frame.bin).map(worst).collect();
    let (column, top, height) = (frame.column, y + 1, ROW - 3);
    let mut at = 0;
    while at < worst.len() {
        let run = worst[at..].iter().take_while(|cell| **cell == worst[at]).count();
        if let Some(class) = class(worst[at]) {
            // Wide cells are told apart by a gap, narrow ones are one rectangle a run.
            let gap = if column >= WIDE.1 { 1.0 } else { 0.0 };
            let (wide, rects) = if gap > 0.0 { (1, run) } else { (run, 1) };
            for n in 0..rects {
                let (x, w) = (LABELS as f64 + (at + n) as f64 * column, wide as f64 * column - gap);
                let (x, w) = (tenths(x), tenths(w));
                let _ = write!(out, "<rect class=\"{class}\" x=\"{x}\" y=\"{top}\" width=\"{w}\" height=\"{height}\"/>");
            }
        }
        at += run;
    }
}

/// A length with no more digits than anybody sees.
fn tenths(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

/// Misses, and what they cost.
fn bar(out: &mut String, report: &Report, step: &LaneReport, x: usize, y: usize) {
    let misses = step.plywood.of - step.plywood.hits;
    let lost = most_lost(report);
    let most = report.steps.iter().map(|s| s.plywood.of - s.plywood.hits).max().unwrap_or(0).max(1);
    let (part, text) = match step.lost_secs {
        Some(secs) if lost > 0.0 => (secs / lost, format!("{misses}, {}", seconds(secs))),
        _ if lost > 0.0 => (0.0, misses.to_string()),
        _ => (misses as f64 / most as f64, misses.to_string()),
    };
    let w = (part * BARS.1).round();
    let (top, height, base) = (y + 5, ROW - 11, y + 14);
    let _ = write!(out, "<rect class=\"bar\" x=\"{x}\" y=\"{top}\" width=\"{w}\" height=\"{height}\"/>");
    let _ = write!(out, "<text x=\"{}\" y=\"{base}\">{text}</text>", x as f64 + w + 5.0);
}

/// The most that one step loses.
fn most_lost(report: &Report) -> f64 {
    report.steps.iter().filter_map(|s| s.lost_secs).fold(0.0, f64::max)
}

fn label(report: &Report, at: usize) -> String {
    let Some(commit) = report.commits.get(at) else { return String::new() };
    let id: String = commit.id.chars().take(9).collect();
    let day = jiff::Timestamp::from_second(commit.time_secs).map(|t| t.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
    format!("{id} {day}")
}

/// Of several commits the one that cost most.
fn worst(cells: &[u8]) -> u8 {
    const ORDER: &[u8] = b".h0adbvtf";
    cells.iter().copied().max_by_key(|cell| ORDER.iter().position(|o| o == cell)).unwrap_or(b'.')
}

fn class(cell: u8) -> Option<&'static str> {
    Some(match cell {
        b'h' => Mark::Hit.class(),
        b'0' => Mark::Unknown.class(),
        b'f' => Mark::Built.class(),
        b't' => Mark::Failed.class(),
        b'v' | b'b' => Mark::Work.class(),
        b'd' => Mark::Dragged.class(),
        b'a' => super::page::ASSUMED,
        _ => return None,
    })
}
