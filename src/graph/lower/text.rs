//! History texts and values as Go's `fmt` writes them: BuildKit's histories are made with `%q`, `%v`, `%+v`.

use crate::dockerfile::instruction::Healthcheck;

/// Writes `["a" "b"]`: `%q` of a list of strings.
pub(super) fn quoted_list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|i| quoted(i)).collect::<Vec<_>>().join(" "))
}

/// Writes `[a b]`: `%v` of a list of strings.
pub(super) fn list(items: &[String]) -> String {
    format!("[{}]", items.join(" "))
}

/// Writes a string as Go's `strconv.Quote` does.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

fn is_printable(c: char) -> bool {
    // Rust escapes what Go's IsPrint refuses: marks only where no letter stands before them, which Go does not mind.
    c == ' ' || c.is_ascii_graphic() || (!c.is_whitespace() && ['a', c].iter().collect::<String>().escape_debug().count() == 2)
}

/// Writes HEALTHCHECK: `%+v` of Docker's structure.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration(check.interval_ns),
        duration(check.timeout_ns),
        duration(check.start_period_ns),
        duration(check.start_interval_ns),
        check.retries
    )
}

/// Writes a duration as Go does: `1h0m0s`, `1.5s`, `2ms`.
fn duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        match fraction.trim_end_matches('0') {
            "" => format!("{}", value / unit),
            digits => format!("{}.{digits}", value / unit),
        }
    };
    let body = match ns {
        0 => "0s".to_string(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(ns, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(ns, 1_000_000)),
        _ => {
            let (minutes, rest) = (ns / 60_000_000_000, ns % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000);
            match minutes {
                0 => format!("{seconds}s"),
                1..60 => format!("{minutes}m{seconds}s"),
                _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
            }
        }
    };
    format!("{sign}{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for (ns, want) in [
            (0, "0s"),
            (1_500_000_000, "1.5s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (2_000_000, "2ms"),
            (1_500, "1.5µs"),
        ] {
            assert_eq!(duration(ns), want);
        }
        assert_eq!(quoted_list(&["a\"b".into(), "é\n\x01\u{200b}".into()]), r#"["a\"b" "é\n\x01\u200b"]"#);
        assert_eq!(quoted_list(&["\u{abc}\u{200d}\u{a0}\u{e000}".into()]), "[\"\u{abc}\\u200d\\u00a0\\ue000\"]");
        assert_eq!(list(&["a".into(), "b".into()]), "[a b]");
    }
}
