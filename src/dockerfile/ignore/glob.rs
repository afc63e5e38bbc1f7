//! One path element pattern as Go's `filepath.Match` reads it: COPY's wildcards, and the syntax check of ignore patterns.
//!
//! Not the matcher of ignore files (that is `pattern`): here `**` is two stars, no more. What a newcomer would get
//! wrong: a class matches `/` (`[^a]` does), only `*` and `?` stop at it; and the first place where the text between
//! two stars fits is taken for good, which makes matching need no backtracking beyond the last star.

/// A pattern that Go's `filepath.Match` refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Element {
    Byte(u8),
    AnyChar,
    Class { negated: bool, ranges: Vec<(char, char)> },
    Star,
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<Element>);

/// Tells whether `name` matches `pattern`, whole against whole.
pub fn path_match(pattern: &str, name: &[u8]) -> Result<bool, BadPattern> {
    Ok(Glob::parse(pattern)?.is_match(name))
}

/// Tells whether `pattern` is more than a literal name.
pub fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

impl Glob {
    /// Compiles a pattern.
    pub fn parse(pattern: &str) -> Result<Self, BadPattern> {
        let mut elements = Vec::new();
        let mut rest = pattern.chars();
        while let Some(c) = rest.next() {
            match c {
                '*' if elements.last() == Some(&Element::Star) => {}
                '*' => elements.push(Element::Star),
                '?' => elements.push(Element::AnyChar),
                '[' => elements.push(class(&mut rest)?),
                '\\' => literal(rest.next().ok_or(BadPattern)?, &mut elements),
                c => literal(c, &mut elements),
            }
        }
        Ok(Self(elements))
    }

    /// Tells whether the whole of `name` matches. At most `name.len() * pattern.len()` steps.
    pub fn is_match(&self, name: &[u8]) -> bool {
        let (mut at, mut element) = (0, 0);
        // Where to go on when the text after the last star does not fit: that star swallows one more byte.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match self.0.get(element) {
                Some(Element::Star) => {
                    element += 1;
                    star = Some((element, at));
                    continue;
                }
                Some(one) => {
                    if let Some(width) = one.width(&name[at..]) {
                        (at, element) = (at + width, element + 1);
                        continue;
                    }
                }
                None if at == name.len() => return true,
                None => {}
            }
            match star {
                Some((after, from)) if from < name.len() && name[from] != b'/' => {
                    star = Some((after, from + 1));
                    (at, element) = (from + 1, after);
                }
                _ => return false,
            }
        }
    }
}

impl Element {
    /// Returns how many bytes at the front of `rest` this element takes; none: it does not fit.
    fn width(&self, rest: &[u8]) -> Option<usize> {
        match self {
            Self::Star => None,
            Self::Byte(b) => (rest.first() == Some(b)).then_some(1),
            Self::AnyChar => first_char(rest).filter(|(c, _)| *c != '/').map(|(_, width)| width),
            Self::Class { negated, ranges } => {
                let (c, width) = first_char(rest)?;
                (ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c)) != *negated).then_some(width)
            }
        }
    }
}

/// Returns the first character and its width; a byte that is no UTF-8 counts as U+FFFD of width 1, as in Go.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => head.first().map(|_| (char::REPLACEMENT_CHARACTER, 1)),
    }
}

fn literal(c: char, elements: &mut Vec<Element>) {
    elements.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Element::Byte));
}

/// Parses a class after its `[`.
fn class(rest: &mut std::str::Chars<'_>) -> Result<Element, BadPattern> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.as_str().starts_with(']') {
            rest.next();
            return Ok(Element::Class { negated, ranges });
        }
        let lo = class_char(rest)?;
        let hi = if rest.as_str().starts_with('-') {
            rest.next();
            class_char(rest)?
        } else {
            lo
        };
        ranges.push((lo, hi));
    }
}

fn class_char(rest: &mut std::str::Chars<'_>) -> Result<char, BadPattern> {
    match rest.next() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => rest.next().ok_or(BadPattern),
        Some(c) => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        // Go's path/filepath/match_test.go, and more.
        for (pattern, name, want) in [
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*/b", "a/c/b", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Ok(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a?b", "a☺b", Ok(true)),
            ("a[^a]b", "a☺b", Ok(true)),
            ("[a-ζ]*", "α", Ok(true)),
            ("a?b", "a/b", Ok(false)),
            ("a[^x]b", "a/b", Ok(true)),
            ("[\\]a]", "]", Ok(true)),
            ("**", "ab", Ok(true)),
            ("**", "a/b", Ok(false)),
            ("", "", Ok(true)),
            ("[]a]", "]", Err(BadPattern)),
            ("[-]", "-", Err(BadPattern)),
            ("[x-]", "x", Err(BadPattern)),
            ("[", "a", Err(BadPattern)),
            ("[^bc", "a", Err(BadPattern)),
            ("a[", "ab", Err(BadPattern)),
            ("a\\", "a", Err(BadPattern)),
        ] {
            assert_eq!(path_match(pattern, name.as_bytes()), want, "{pattern} {name}");
        }
        assert_eq!(path_match("?", b"\xff"), Ok(true));
    }

    #[test]
    fn many_stars_stay_quick() {
        let pattern = "*a".repeat(2000) + "b";
        assert_eq!(path_match(&pattern, "a".repeat(20_000).as_bytes()), Ok(false));
    }
}
