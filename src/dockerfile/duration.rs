//! Durations in Go's notation: `1h15m30.5s`, `500ms`, `-2us`.

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration; returns nanoseconds, or none when it is malformed or too long for 64 bits.
///
/// Each number needs a unit, but for a lone `0`. Fractions of a nanosecond are cut off.
pub fn parse_ns(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &after[..end])?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.into() };
        total = total.checked_add(whole.checked_mul(*unit)?)?.checked_add(part(fraction, *unit))?;
        rest = &after[end..];
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Returns `0.fraction` of a unit. Digits past the 18th are far below a nanosecond.
fn part(fraction: &str, unit: i128) -> i128 {
    let shown = &fraction[..fraction.len().min(18)];
    let scale = 10_i128.pow(shown.len() as u32);
    shown.parse::<i128>().map_or(0, |value| value * unit / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_durations() {
        let cases = [
            ("0", Some(0)),
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("-1us", Some(-1_000)),
            ("+2µs", Some(2_000)),
            ("0.3333333333333333333h", Some(1_199_999_999_999)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("9223372036854775808ns", None),
            ("", None),
            ("-", None),
            ("5", None),
            (".s", None),
            ("s", None),
            ("1d", None),
            ("1 s", None),
            ("soon", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_ns(text), expected, "{text}");
        }
    }
}
