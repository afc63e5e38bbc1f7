//! Differences of two texts as `diff -u` writes them, so that `patch` can read them.
//!
//! Not a search for the smallest difference: the caller knows which parts of a text became which, and within a part that
//! changed the lines between its first and last difference count as replaced.

use std::fmt::Write as _;

/// Unchanged lines shown before and after a change.
const CONTEXT: usize = 3;

/// One line, with what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'t> {
    Same(&'t str),
    Gone(&'t str),
    New(&'t str),
}

/// Returns the differences between the parts' old and new texts, joined; empty where there are none.
pub fn unified<'t>(name: &str, parts: impl IntoIterator<Item = (&'t str, &'t str)>) -> String {
    let mut lines = Vec::new();
    parts.into_iter().for_each(|(old, new)| compare(old, new, &mut lines));
    let is_change = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let mut out = String::new();
    // How many lines of the old and the new text stand before `at`.
    let (mut at, mut before) = (0, (0, 0));
    while let Some(first) = lines[at..].iter().position(is_change).map(|n| at + n) {
        let start = first.saturating_sub(CONTEXT).max(at);
        let mut end = first + 1;
        while let Some(next) = lines[end..].iter().take(2 * CONTEXT + 1).position(is_change) {
            end += next + 1;
        }
        end = (end + CONTEXT).min(lines.len());
        before = counted(before, &lines[at..start]);
        let after = counted(before, &lines[start..end]);
        if out.is_empty() {
            let _ = write!(out, "--- {name}\n+++ {name}\n");
        }
        let _ = writeln!(out, "@@ -{} +{} @@", place(before.0, after.0), place(before.1, after.1));
        lines[start..end].iter().for_each(|line| show(*line, &mut out));
        (at, before) = (end, after);
    }
    out
}

/// Adds the lines of a part: common ones at both ends stay, those between are replaced.
fn compare<'t>(old: &'t str, new: &'t str, lines: &mut Vec<Line<'t>>) {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    lines.extend(old[..head].iter().map(|line| Line::Same(line)));
    lines.extend(old[head..old.len() - tail].iter().map(|line| Line::Gone(line)));
    lines.extend(new[head..new.len() - tail].iter().map(|line| Line::New(line)));
    lines.extend(old[old.len() - tail..].iter().map(|line| Line::Same(line)));
}

/// Adds what `lines` hold of the old and the new text.
fn counted((old, new): (usize, usize), lines: &[Line<'_>]) -> (usize, usize) {
    let count = |counts: fn(&Line<'_>) -> bool| lines.iter().filter(|line| counts(line)).count();
    (old + count(|line| !matches!(line, Line::New(_))), new + count(|line| !matches!(line, Line::Gone(_))))
}

/// Returns `first,count`; an empty range names the line before it.
fn place(before: usize, after: usize) -> String {
    match after - before {
        0 => format!("{before},0"),
        1 => format!("{}", before + 1),
        count => format!("{},{count}", before + 1),
    }
}

fn show(line: Line<'_>, out: &mut String) {
    let (mark, text) = match line {
        Line::Same(text) => (' ', text),
        Line::Gone(text) => ('-', text),
        Line::New(text) => ('+', text),
    };
    out.push(mark);
    out.push_str(text);
    if !text.ends_with('\n') {
        out.push_str("\n\\ No newline at end of file\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shown_as_diff_shows_them() {
        assert_eq!(unified("f", [("a\n", "a\n"), ("b", "b")]), "");
        let want = "--- f\n+++ f\n@@ -1,2 +1,2 @@\n-from a\n+FROM a\n b\n\\ No newline at end of file\n";
        assert_eq!(unified("f", [("from a\n", "FROM a\n"), ("b", "b")]), want);
        let want = "--- f\n+++ f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n";
        assert_eq!(unified("f", [("a", "a\n")]), want);
        let want = "--- f\n+++ f\n@@ -1,2 +0,0 @@\n-\n-\n";
        assert_eq!(unified("f", [("\n\n", "")]), want);
    }

    #[test]
    fn changes_far_apart_have_hunks_of_their_own() {
        let same: Vec<String> = (1..=9).map(|n| format!("{n}\n")).collect();
        let text = |same: &[String]| {
            let mut parts = vec![("a\n", "A\n")];
            parts.extend(same.iter().map(|line| (line.as_str(), line.as_str())));
            parts.push(("b\n", "B\nC\n"));
            unified("f", parts)
        };
        let near = "--- f\n+++ f\n@@ -1,8 +1,9 @@\n-a\n+A\n 1\n 2\n 3\n 4\n 5\n 6\n-b\n+B\n+C\n";
        assert_eq!(text(&same[..6]), near);
        let far = "--- f\n+++ f\n@@ -1,4 +1,4 @@\n-a\n+A\n 1\n 2\n 3\n@@ -6,4 +6,5 @@\n 5\n 6\n 7\n-b\n+B\n+C\n";
        assert_eq!(text(&same[..7]), far);
    }
}
