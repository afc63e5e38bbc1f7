//! What needs no grammar: the words of plain text, and a name with flags that hold neither quotes nor escapes.
//!
//! Most lines of most files are like this, and looking at them is many times quicker than matching rules character by
//! character. All that is less plain is the grammar's. What a newcomer would get wrong: this is no second opinion. Plain is
//! only what all rules that split a line read the same way, and a test holds the two together.

use super::lines::Text;

/// A line's name and flags.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'l> {
    pub name: &'l str,
    /// Where each flag starts and ends.
    pub flags: Vec<(usize, usize)>,
    /// Where the arguments start.
    pub rest: usize,
}

/// Takes the head of a line off; none when a flag is not plain.
pub(super) fn head(line: &str, escape: char) -> Option<Head<'_>> {
    let is_blank = |b: u8| matches!(b, b' ' | b'\t' | 0x0B | 0x0C | b'\r');
    let name = &line[..line.bytes().position(is_blank).unwrap_or(line.len())];
    let mut flags = Vec::new();
    let mut rest = line[name.len()..].trim_start();
    while rest.starts_with("--") {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let flag = &rest[..end];
        if flag.contains(['\'', '"', escape]) {
            return None;
        }
        let start = line.len() - rest.len();
        rest = rest[end..].trim_start();
        // `--` alone ends the flags.
        if flag == "--" {
            break;
        }
        flags.push((start, start + end));
    }
    Some(Head { name, flags, rest: line.len() - rest.len() })
}

/// Splits a text at its blanks; none when it is not plain.
pub(super) fn words(text: Text<'_>) -> Option<Vec<Text<'_>>> {
    let is_plain = |b: u8| matches!(b, b' ' | b'\t' | b'!'..=b'~') && !matches!(b, b'\'' | b'"' | b'\\' | b'`');
    if !text.text.bytes().all(is_plain) {
        return None;
    }
    let whole = text.text;
    let words = whole.split([' ', '\t']).filter(|word| !word.is_empty());
    let at = |word: &str| word.as_ptr() as usize - whole.as_ptr() as usize;
    Some(words.map(|word| text.slice(at(word)..at(word) + word.len())).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dockerfile::grammar::{Rule, matching};
    use crate::dockerfile::lines::Lines;

    /// Returns the places of the parts of a kind.
    fn parts(rule: Rule, part: Rule, text: &str) -> Vec<(usize, usize)> {
        let pairs = matching(rule, text).into_iter().flat_map(|pair| pair.into_inner()).filter(|pair| pair.as_rule() == part);
        pairs.map(|pair| (pair.as_span().start(), pair.as_span().end())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_grammar_agrees_on_heads(line in "[a-zA-Z]{0,3}([ \t\u{b}\u{a0}]{0,2}(-{1,3}[a-z=\\\\`'\"]{0,3}|[a-z]|\u{e9}){0,2}){0,5}") {
            let line = line.trim();
            for (escape, rule, flag) in [('\\', Rule::head_bs, Rule::flag_bs), ('`', Rule::head_bt, Rule::flag_bt)] {
                let Some(head) = head(line, escape) else { continue };
                prop_assert_eq!(&head.flags, &parts(rule, flag, line));
                prop_assert_eq!(vec![(0, head.name.len())], parts(rule, Rule::name, line));
                let end = matching(rule, line).map(|pair| pair.as_span().end());
                prop_assert_eq!(end.map(|end| line[end..].trim_start()), Some(&line[head.rest..]));
            }
        }

        #[test]
        fn the_grammar_agrees_on_words(text in "([ \t\u{b}]{0,2}[a-z=$<{}\\\\`'\"\u{e9}\u{a0}-]{0,3}){0,6}") {
            let text = format!("x{text}");
            let Some(line) = Lines::new(&text, 0, '\\').next_line() else { return Ok(()) };
            let whole = line.text();
            let Some(words) = words(whole) else { return Ok(()) };
            let places: Vec<_> = words.iter().map(|word| (word.span().start as usize, word.span().end as usize)).collect();
            for (rule, part) in [
                (Rule::words, Rule::word),
                (Rule::quoted_words_bs, Rule::quoted_word_bs),
                (Rule::quoted_words_bt, Rule::quoted_word_bt),
            ] {
                prop_assert_eq!(&places, &parts(rule, part, whole.text));
            }
        }
    }
}
