//! The parser directives at the top: `# escape=`, `# syntax=`, `# check=`.
//!
//! The zone of directives ends at the first line that is not a known one; what looks like a directive after
//! it is a comment. There are two zones, and that is BuildKit's doing: `escape` is read by the line parser
//! (white space before `#` allowed, a `#!` line is a comment and ends the zone), `syntax` and `check` are
//! looked up beforehand (`#` in the first column, a `#!` line on top is skipped).

use std::sync::Arc;

use super::instruction::{CheckConfig, Directives, Word};
use super::source::{Diagnostic, Source, Span};

const BOM: char = '\u{FEFF}';
const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

/// Reads the directives. Also returns where the first line after the zone starts.
///
/// `check` replaces the `# check=` directive where given. Errors: a directive twice, an escape character that
/// is neither `\` nor `` ` ``, a malformed check option.
pub(super) fn read(source: &Arc<Source>, check: Option<&str>) -> Result<(Directives, usize), Diagnostic> {
    let text = source.text();
    let start = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
    let (zone, end) = zone(source, start, true)?;
    let escape = match zone.iter().find(|found| found.name == "escape") {
        None => '\\',
        Some(found) => match found.value.value.as_str() {
            "\\" => '\\',
            "`" => '`',
            other => {
                let message = format!("the escape directive must be `\\` or a backtick, not `{other}`");
                return Err(Diagnostic::error(source, found.value.span, message));
            }
        },
    };
    let early = start + shebang(&text[start..]);
    // A directive twice in this zone alone stands after a `#!` line: BuildKit takes what came before it.
    let early_zone = if early == start { zone } else { self::zone(source, early, false).map(|(zone, _)| zone).unwrap_or_default() };
    let value = |name: &str| early_zone.iter().find(|found| found.name == name && !found.indented).map(|found| found.value.clone());
    let check = match (check, value("check")) {
        (Some(given), _) => parse_check(given).map_err(|message| Diagnostic::error(source, Span::default(), message))?,
        (None, Some(found)) => {
            let first = found.value.split(' ').next().unwrap_or_default();
            parse_check(first).map_err(|message| Diagnostic::error(source, found.span, message))?
        }
        (None, None) => CheckConfig::default(),
    };
    Ok((Directives { escape, syntax: value("syntax"), check }, end))
}

struct Found {
    name: String,
    value: Word,
    indented: bool,
}

/// Reads known directives from `at` on, until a line that is none; returns them and where that line starts.
fn zone(source: &Arc<Source>, mut at: usize, indent: bool) -> Result<(Vec<Found>, usize), Diagnostic> {
    let text = source.text();
    let mut found: Vec<Found> = Vec::new();
    while at < text.len() {
        let length = text[at..].find('\n').map_or(text.len() - at, |end| end + 1);
        let line = text[at..at + length].trim_end_matches(['\r', '\n']);
        let shown = line.trim_start();
        let indented = shown.len() != line.len();
        let Some(comment) = shown.strip_prefix('#').filter(|_| indent || !indented) else { break };
        let Some((name, value)) = split(comment).filter(|(name, _)| KNOWN.contains(&name.as_str())) else { break };
        let start = at + (value.as_ptr() as usize - line.as_ptr() as usize);
        let value = Word::new(value.to_owned(), Span::new(start, start + value.len()));
        if found.iter().any(|earlier| earlier.name == name) {
            return Err(Diagnostic::error(source, value.span, format!("the `{name}` parser directive can be used only once")));
        }
        found.push(Found { name, value, indented });
        at += length;
    }
    Ok((found, at))
}

/// Splits `name = value`; the name is lower-cased, the value trimmed and not empty.
///
/// Of a value that is all blanks the last one stays, as BuildKit's pattern has it: `# escape= ` is an error.
pub(super) fn split(comment: &str) -> Option<(String, &str)> {
    const BLANK: [char; 5] = [' ', '\t', '\n', '\u{C}', '\r'];
    let (name, written) = comment.trim_start().split_once('=')?;
    let name = name.trim_end_matches(BLANK);
    let value = match written.trim_matches(BLANK) {
        "" => written.get(written.len().saturating_sub(1)..).unwrap_or_default(),
        value => value,
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

/// Returns the length of a `#!` line at the start of `text`.
fn shebang(text: &str) -> usize {
    if text.starts_with("#!") { text.split_inclusive('\n').next().map_or(0, str::len) } else { 0 }
}

/// Parses `skip=A,B;error=true;experimental=C`; `all` stands for every rule.
///
/// Errors are a message that names the option.
pub(super) fn parse_check(text: &str) -> Result<CheckConfig, String> {
    let mut config = CheckConfig::default();
    if text.trim().is_empty() {
        return Ok(config);
    }
    for option in text.trim().splitn(3, ';') {
        let Some((key, value)) = option.split_once('=') else {
            return Err(format!("invalid check option `{option}`: must be skip=, error= or experimental="));
        };
        let value = value.trim();
        match key.trim() {
            "skip" if value == "all" => config.skip_all = true,
            "skip" => config.skip = rules(value),
            "experimental" if value == "all" => config.experimental_all = true,
            "experimental" => config.experimental = rules(value),
            "error" => {
                config.error = boolean(value).ok_or_else(|| format!("invalid check option `{option}`: error must be true or false"))?;
            }
            other => return Err(format!("invalid check option `{other}`: must be skip, error or experimental")),
        }
    }
    Ok(config)
}

fn rules(list: &str) -> Vec<String> {
    list.split(',').map(|rule| rule.trim().to_owned()).collect()
}

/// Reads a boolean in the spellings that Go takes.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
