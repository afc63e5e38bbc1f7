//! What stands in a header's fields and in PAX records: sums, numbers, times, names with values.
//!
//! A newcomer would parse leniently, as old tar programs do. What is read in two ways is where readers can be made to differ: here
//! it is an error.

use tar::Header;

use super::malformed;
use crate::layer::Result;
use crate::layer::header::BLOCK;
use crate::path::Time;

/// Checks the header's sum; old writers summed signed bytes.
pub(super) fn check_sum(block: &[u8; BLOCK], at: u64) -> Result<()> {
    let want = number(&block[148..156]).ok_or(malformed(at, "no tar header"))?;
    let summed = |i: usize| if (148..156).contains(&i) { b' ' } else { block[i] };
    let unsigned: u64 = (0..BLOCK).map(|i| u64::from(summed(i))).sum();
    let signed: i64 = (0..BLOCK).map(|i| i64::from(summed(i).cast_signed())).sum();
    if want == unsigned || i64::try_from(want) == Ok(signed) { Ok(()) } else { Err(malformed(at, "header checksum is wrong")) }
}

/// Reads a header's number: octal digits among spaces and zero bytes (none at all: 0), or base-256 of GNU tar.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        let high_is_zero = high.iter().enumerate().all(|(i, &b)| if i == 0 { b == 0x80 } else { b == 0 });
        let first_of_low = if high.is_empty() { 0x7f } else { 0xff };
        let value = low.iter().enumerate().fold(0u64, |n, (i, &b)| n << 8 | u64::from(if i == 0 { b & first_of_low } else { b }));
        // An eight-byte field holds the flag in its first byte; negative numbers mean nothing here.
        return (high_is_zero && (!high.is_empty() || field[0] & 0x40 == 0)).then_some(value);
    }
    let blank = |c: &u8| matches!(c, b' ' | 0);
    let start = field.iter().position(|c| !blank(c)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return None;
    }
    digits[..end].iter().try_fold(0u64, |n, &c| match c {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(u64::from(c - b'0')),
        _ => None,
    })
}

/// The header's own mtime: octal, or base-256, which may be negative.
pub(super) fn plain_mtime(header: &Header, at: u64) -> Result<Time> {
    let field = &header.as_old().mtime;
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let start = if negative { -1 } else { 0 };
        let secs = field[4..].iter().fold(start, |n: i64, &b| n << 8 | i64::from(b));
        return Ok(Time { secs, nanos: 0 });
    }
    let secs = number(field).and_then(|n| i64::try_from(n).ok());
    Ok(Time { secs: secs.ok_or(malformed(at, "mtime is no number"))?, nanos: 0 })
}

/// Parses `-?SECONDS[.FRACTION]`; the fraction of a negative time counts downwards (pax(1)).
pub(super) fn parse_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let secs: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction));
    let nanos: u32 = digits.parse().ok()?;
    if negative && nanos > 0 {
        return Some(Time { secs: secs.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(Time { secs, nanos })
}

/// PAX records, `LENGTH KEY=VALUE\n` each; a damaged one is none, and the last.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.parse();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn parse(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.rest.iter().take(20).position(|&c| c == b' ')?;
        let digits = &self.rest[..space];
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let length: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let record = self.rest.get(space + 1..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&c| c == b'=')?;
        self.rest = &self.rest[length..];
        (equals > 0).then_some((&record[..equals], &record[equals + 1..]))
    }
}

pub(super) fn records(body: &[u8]) -> Records<'_> {
    Records { rest: body }
}
