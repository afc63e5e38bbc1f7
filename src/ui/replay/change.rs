//! A rewritten file as `diff -u` shows it, moved lines as such. Pure.

use crate::replay::Change;
use crate::ui::diff;

/// More lines than this are compared as a whole: the table of the comparison is the product of both counts.
const MAX_LINES: usize = 4000;

/// Returns the difference.
pub(super) fn difference(change: &Change) -> String {
    let parts = parts(&change.old, &change.new);
    diff::unified(&change.file, parts.iter().map(|(old, new)| (old.as_str(), new.as_str())))
}

/// Pairs what became what: the longest common subsequence of lines, and what lies between.
fn parts(old_text: &str, new_text: &str) -> Vec<(String, String)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old_text.split_inclusive('\n').collect(), new_text.split_inclusive('\n').collect());
    if old.len().max(new.len()) > MAX_LINES {
        return vec![(old_text.to_owned(), new_text.to_owned())];
    }
    let width = new.len() + 1;
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    for o in (0..old.len()).rev() {
        for n in (0..new.len()).rev() {
            longest[o * width + n] = match old[o] == new[n] {
                true => longest[(o + 1) * width + n + 1] + 1,
                false => longest[(o + 1) * width + n].max(longest[o * width + n + 1]),
            };
        }
    }
    let (mut o, mut n, mut out) = (0, 0, Vec::new());
    while o < old.len() || n < new.len() {
        if o < old.len() && n < new.len() && old[o] == new[n] {
            out.push((old[o].to_owned(), new[n].to_owned()));
            (o, n) = (o + 1, n + 1);
        } else if n >= new.len() || (o < old.len() && longest[(o + 1) * width + n] >= longest[o * width + n + 1]) {
            out.push((old[o].to_owned(), String::new()));
            o += 1;
        } else {
            out.push((String::new(), new[n].to_owned()));
            n += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_lines_are_shown_as_moved() {
        let text = |s: &str| s.split(' ').map(|word| format!("{word}\n")).collect::<String>();
        let change = Change { file: "F".into(), old: text("a copy b c"), new: text("a b copy c") };
        assert_eq!(difference(&change), "--- F\n+++ F\n@@ -1,4 +1,4 @@\n a\n-copy\n b\n+copy\n c\n");
        let made = Change { file: "F".into(), old: String::new(), new: text("a") };
        assert_eq!(difference(&made), "--- F\n+++ F\n@@ -0,0 +1 @@\n+a\n");
    }
}
