//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?`, and `\` before `*`, `?`, `\`.
//!
//! No `[...]`, unlike a shell. What a newcomer would get wrong: `*` and `?` stop at a line's end. All matching takes
//! time in proportion to pattern times value, whatever the pattern.

use super::ExpandErrorKind;
use crate::dockerfile::limits::MAX_EXPANSION_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Star,
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, ExpandErrorKind> {
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let token = match c {
                '*' => Token::Star,
                '?' => Token::One,
                // Escaped only to get through the braces: the `\` is not part of the pattern.
                '\\' if matches!(rest.peek(), Some('}' | '/')) => continue,
                '\\' => match rest.next() {
                    Some(c @ ('*' | '?' | '\\')) => Token::Char(c),
                    other => {
                        let escaped = other.map(String::from).unwrap_or_default();
                        return Err(ExpandErrorKind::BadPattern { pattern: text.to_string(), escaped });
                    }
                },
                c => Token::Char(c),
            };
            if token != Token::Star || tokens.last() != Some(&Token::Star) {
                tokens.push(token);
            }
        }
        Ok(Self(tokens))
    }

    pub(super) fn trim_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        chars[self.match_len(&chars, longest).unwrap_or(0)..].iter().collect()
    }

    pub(super) fn trim_suffix(&self, value: &str, longest: bool) -> String {
        let reversed = Self(self.0.iter().rev().copied().collect());
        let chars: Vec<char> = value.chars().rev().collect();
        chars[reversed.match_len(&chars, longest).unwrap_or(0)..].iter().rev().collect()
    }

    /// Replaces the first or all matches; none: the result is too long.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let starts = self.match_starts(&chars);
        let mut out = String::new();
        let (mut at, mut copied) = (0, 0);
        let mut last_end = None;
        while let Some(start) = (at..=chars.len()).find(|i| starts[*i]) {
            let end = start + self.match_len(&chars[start..], true).unwrap_or(0);
            out.extend(&chars[copied..start]);
            // As in Go: an empty match right behind the one before counts for nothing.
            if last_end != Some(end) {
                out.push_str(replacement);
            }
            copied = end;
            if !all {
                break;
            }
            if out.len() > MAX_EXPANSION_BYTES {
                return None;
            }
            last_end = Some(end);
            at = if end > at { end } else { at + 1 };
        }
        out.extend(&chars[copied..]);
        (out.len() <= MAX_EXPANSION_BYTES).then_some(out)
    }

    /// Returns the length of the shortest or longest match at the front of `chars`.
    fn match_len(&self, chars: &[char], longest: bool) -> Option<usize> {
        let mut now = vec![false; self.0.len() + 1];
        let mut next = now.clone();
        now[0] = true;
        let mut found = None;
        for at in 0..=chars.len() {
            self.skip_stars(&mut now);
            if now[self.0.len()] {
                found = Some(at);
                if !longest {
                    break;
                }
            }
            let Some(c) = chars.get(at) else { break };
            next.fill(false);
            let mut alive = false;
            for (i, token) in self.0.iter().enumerate().filter(|(i, _)| now[*i]) {
                let to = match token {
                    Token::Star if *c != '\n' => i,
                    Token::One if *c != '\n' => i + 1,
                    Token::Char(t) if t == c => i + 1,
                    _ => continue,
                };
                next[to] = true;
                alive = true;
            }
            if !alive {
                break;
            }
            std::mem::swap(&mut now, &mut next);
        }
        found
    }

    fn skip_stars(&self, places: &mut [bool]) {
        for i in 0..self.0.len() {
            places[i + 1] |= places[i] && self.0[i] == Token::Star;
        }
    }

    /// Tells for each place of `chars` (its end included) whether some match begins there.
    fn match_starts(&self, chars: &[char]) -> Vec<bool> {
        let len = self.0.len();
        let mut starts = vec![false; chars.len() + 1];
        // `can[i]`: the tokens from i on match something that begins at the place.
        let mut after = vec![false; len + 1];
        for at in (0..=chars.len()).rev() {
            let mut can = vec![false; len + 1];
            can[len] = true;
            for i in (0..len).rev() {
                let c = chars.get(at);
                can[i] = match self.0[i] {
                    Token::Star => can[i + 1] || (c.is_some_and(|c| *c != '\n') && after[i]),
                    Token::One => c.is_some_and(|c| *c != '\n') && after[i + 1],
                    Token::Char(t) => c == Some(&t) && after[i + 1],
                };
            }
            starts[at] = can[0];
            after = can;
        }
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing() {
        for (pattern, value, replacement, all, want) in [
            ("", "ab", "-", true, "-a-b-"),
            ("*", "abc", "-", true, "-"),
            ("a*b", "xaybzb\nab", "-", true, "x-\n-"),
            ("?", "a\nb", "-", true, "-\n-"),
            ("b", "abcb", "", false, "acb"),
            ("z", "abc", "-", true, "abc"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().replace(value, replacement, all).unwrap(), want, "{pattern}");
        }
    }

    #[test]
    fn many_stars_stay_quick() {
        let pattern = Pattern::parse(&format!("{}b", "*a".repeat(200))).unwrap();
        let value = "a".repeat(20_000);
        assert_eq!(pattern.trim_prefix(&value, true), value);
        assert_eq!(pattern.replace(&value, "x", true).unwrap(), value);
    }
}
