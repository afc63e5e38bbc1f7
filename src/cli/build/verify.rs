//! `--verify-cache[=SAMPLE[,seed=N]]`: which cached steps are run again.

use crate::cli::values::ValueError;
use crate::engine::request::Sample;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyCache {
    /// How many.
    pub sample: Sample,
    /// What the choice is made by; none: the clock.
    pub seed: Option<u64>,
}

/// Reads `all`, a count (`3`), a share (`0.1`, `10%`), each with `,seed=N` after it.
pub fn parse(text: &str) -> Result<VerifyCache, ValueError> {
    let bad = || ValueError::form("all, a count such as 3, or a share such as 0.1 or 10%, and maybe ,seed=N", text);
    let (sample, seed) = match text.split_once(',') {
        Some((sample, rest)) => (sample, Some(rest.strip_prefix("seed=").and_then(|n| n.parse().ok()).ok_or_else(bad)?)),
        None => (text, None),
    };
    let share = |number: &str, whole: f64| {
        let share = number.parse::<f64>().ok().map(|n| n / whole).filter(|n| (0.0..=1.0).contains(n))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and a million
        Some(Sample::Share { millionths: (share * 1e6).ceil() as u32 })
    };
    let sample = match sample {
        "all" | "" => Some(Sample::All),
        text if text.ends_with('%') => share(&text[..text.len() - 1], 100.0),
        text if text.contains('.') => share(text, 1.0),
        text => text.parse().ok().map(Sample::Count),
    };
    Ok(VerifyCache { sample: sample.ok_or_else(bad)?, seed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_all_a_count_or_a_share() {
        for (text, sample, seed) in [
            ("all", Sample::All, None),
            ("", Sample::All, None),
            ("3", Sample::Count(3), None),
            ("0.1", Sample::Share { millionths: 100_000 }, None),
            ("1.0", Sample::Share { millionths: 1_000_000 }, None),
            ("10%", Sample::Share { millionths: 100_000 }, None),
            ("0.5%,seed=42", Sample::Share { millionths: 5000 }, Some(42)),
            ("all,seed=0", Sample::All, Some(0)),
        ] {
            assert_eq!(parse(text), Ok(VerifyCache { sample, seed }), "{text}");
        }
        for bad in ["1.1", "101%", "-1", "some", "3,seed", "3,seed=x", "3,sede=1", "%", ".", "nan%"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
