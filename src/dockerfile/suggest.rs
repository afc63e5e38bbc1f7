//! "Did you mean …?": the nearest of a list of names.

/// A name is offered only when it is nearer than this.
const TOO_FAR: usize = 3;

/// Returns the candidate with the smallest edit distance to `word`, if it is nearer than three edits.
///
/// Of equally near ones the first wins. Upper and lower case are different letters; an exact match means
/// that the name was not what was wrong, so nothing is returned. Linear in the candidates; those that differ much are
/// not compared letter by letter.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    nearest_within(word, candidates, TOO_FAR)
}

/// Like [`nearest`], for short names where two edits make another word: one is nearer than `limit` edits.
pub fn nearest_within<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>, limit: usize) -> Option<&'c str> {
    let mut best = None;
    let mut distance = limit;
    let sketch = Sketch::of(word);
    for candidate in candidates {
        if candidate == word {
            return None;
        }
        // Most candidates are far off, which their letters tell without comparing them one by one.
        if sketch.least_edits(Sketch::of(candidate)) >= distance {
            continue;
        }
        let found = edits(word, candidate);
        if found < distance {
            (best, distance) = (Some(candidate), found);
        }
    }
    best
}

/// Returns [`nearest`] without regard to case, spelt as `word` is: all lower, all upper, or as listed.
pub fn nearest_ignoring_case(word: &str, candidates: &[&str]) -> Option<String> {
    let upper: Vec<String> = candidates.iter().map(|name| name.to_uppercase()).collect();
    let found = nearest(&word.to_uppercase(), upper.iter().map(String::as_str))?;
    Some(if word == word.to_lowercase() { found.to_lowercase() } else { found.to_owned() })
}

/// What a word is made of, whatever the order.
#[derive(Clone, Copy)]
struct Sketch {
    /// In characters.
    length: usize,
    /// Which characters, by their last six bits.
    letters: u64,
}

impl Sketch {
    fn of(word: &str) -> Self {
        let add = |Self { length, letters }, c| Self { length: length + 1, letters: letters | 1 << (u32::from(c) % 64) };
        word.chars().fold(Self { length: 0, letters: 0 }, add)
    }

    /// Returns a distance that is not greater than the real one: an edit adds one character at most and takes one away.
    fn least_edits(self, other: Self) -> usize {
        let missing = (self.letters & !other.letters).count_ones().max((other.letters & !self.letters).count_ones());
        self.length.abs_diff(other.length).max(missing as usize)
    }
}

/// The Levenshtein distance, in characters.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in right.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_the_nearest_name_or_none() {
        let stages = ["base", "build", "final"];
        let cases =
            [("biuld", Some("build")), ("builder", Some("build")), ("bass", Some("base")), ("release", None), ("base", None), ("", None)];
        for (word, expected) in cases {
            assert_eq!(nearest(word, stages), expected, "{word}");
        }
    }

    #[test]
    fn keeps_the_case_of_the_word() {
        let names = ["COPY", "ENTRYPOINT"];
        for (word, expected) in [("COPPY", Some("COPY")), ("coppy", Some("copy")), ("Coppy", Some("COPY")), ("nothing", None)] {
            assert_eq!(nearest_ignoring_case(word, &names).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn counts_edits_in_characters() {
        for (left, right, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("ä", "a", 1), ("same", "same", 0)] {
            assert_eq!(edits(left, right), expected, "{left} {right}");
            assert!(Sketch::of(left).least_edits(Sketch::of(right)) <= expected, "{left} {right}");
        }
    }
}
