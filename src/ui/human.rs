//! Sizes, durations and ages as docker writes them. Pure: "now" is an argument.

use std::time::Duration;

/// Returns a size in steps of 1000 with three digits: `13.3kB`, `7.95MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    // 999.5 would be written as `1e+03`: the next unit starts there.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let number = format!("{value:.decimals$}");
    let number = if decimals > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", UNITS[unit])
}

/// Returns how long something took: `0.4s`, `12.3s`, `2m05s`, `1h02m`.
pub fn duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        // 59.95 would be written as `60.0s`.
        0..=59 if duration.as_millis() < 59_950 => format!("{:.1}s", duration.as_secs_f64()),
        0..=3599 => format!("{}m{:02}s", secs.max(60) / 60, secs.max(60) % 60),
        _ => format!("{}h{:02}m", secs / 3600, secs % 3600 / 60),
    }
}

/// Returns how long ago a time was, in docker's words; times ahead of now are `Less than a second ago`.
pub fn ago(then_secs: i64, now_secs: i64) -> String {
    let secs = now_secs.saturating_sub(then_secs);
    let (minutes, hours) = (secs / 60, (secs as f64 / 3600.0).round() as i64);
    let text = match () {
        () if secs < 1 => "Less than a second".into(),
        () if secs < 2 => "1 second".into(),
        () if secs < 60 => format!("{secs} seconds"),
        () if minutes < 2 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours < 2 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    };
    text + " ago"
}

/// Returns how long ago an RFC 3339 time was, or `N/A` where it says nothing.
pub fn created(rfc3339: Option<&str>, now_secs: i64) -> String {
    match rfc3339.and_then(|t| t.parse::<jiff::Timestamp>().ok()) {
        // A build with the clock at 0 made no statement about its age.
        Some(time) if time.as_second() > 0 => ago(time.as_second(), now_secs),
        _ => "N/A".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (13_256, "13.3kB"),
            (999_499, "999kB"),
            (999_999, "1MB"),
            (7_950_000, "7.95MB"),
            (120_000_000, "120MB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, want) in cases {
            assert_eq!(size(bytes), want, "{bytes}");
        }
    }

    #[test]
    fn durations_keep_to_two_units() {
        let cases =
            [(0, "0.0s"), (420, "0.4s"), (12_340, "12.3s"), (59_940, "59.9s"), (59_990, "1m00s"), (125_000, "2m05s"), (3_725_000, "1h02m")];
        for (ms, want) in cases {
            assert_eq!(duration(Duration::from_millis(ms)), want, "{ms}");
        }
    }

    #[test]
    fn ages_are_docker_s() {
        let day = 86_400;
        let cases = [
            (-5, "Less than a second ago"),
            (0, "Less than a second ago"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (60, "About a minute ago"),
            (600, "10 minutes ago"),
            (4000, "About an hour ago"),
            (7200, "2 hours ago"),
            (3 * day, "3 days ago"),
            (20 * day, "2 weeks ago"),
            (90 * day, "3 months ago"),
            (1000 * day, "2 years ago"),
        ];
        for (age, want) in cases {
            assert_eq!(ago(2_000_000_000 - age, 2_000_000_000), want, "{age}");
        }
        assert_eq!(created(Some("1970-01-01T00:00:00Z"), 5), "N/A");
        assert_eq!(created(Some("yesterday"), 5), "N/A");
        assert_eq!(created(Some("2020-01-01T00:00:00Z"), 1_577_836_800 + 7200), "2 hours ago");
    }
}
