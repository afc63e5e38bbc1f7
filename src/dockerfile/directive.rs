//! The parser directives at the top: `# escape=`, `# syntax=`, `# check=`.
//!
//! The zone of directives ends at the first line that is not a known one; what looks like a directive after
//! it is a comment. [`detect_syntax`] also finds the other ways of asking for a frontend, which no Dockerfile has.
//! There are two zones, and that is BuildKit's doing: `escape` is read by the line parser
//! (white space before `#` allowed, a `#!` line is a comment and ends the zone), `syntax` and `check` are
//! looked up beforehand (`#` in the first column, a `#!` line on top is skipped).

use std::sync::Arc;

use super::instruction::{CheckConfig, Directives, Word};
use super::source::{Diagnostic, Source, Span};

const BOM: char = '\u{FEFF}';
const CHECK_EXAMPLE: &str = "for example: `# check=skip=StageNameCasing,FromAsCasing;error=true`";
const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

/// Reads the directives. Also returns where the first line after the zone starts.
///
/// `check` replaces the `# check=` directive where given. Errors: a directive twice, an escape character that
/// is neither `\` nor `` ` ``, a malformed check option.
pub(super) fn read(source: &Arc<Source>, check: Option<&str>) -> Result<(Directives, usize), Diagnostic> {
    let text = source.text();
    let start = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
    let zone = zone(source, start, Zone::ESCAPE);
    if let Some(error) = zone.error {
        return Err(error);
    }
    let escape = match zone.found.iter().find(|found| found.name == "escape") {
        None => '\\',
        Some(found) => match found.value.value.as_str() {
            "\\" => '\\',
            "`" => '`',
            other => {
                let message = format!("the escape directive must be `\\` or a backtick, not `{other}`");
                return Err(Diagnostic::error(source, found.value.span, message).hint("write `# escape=\\`, or with a backtick"));
            }
        },
    };
    let early = start + shebang(&text[start..]);
    let shown = if early == start { &zone.found } else { &self::zone(source, early, Zone::EARLY).found };
    let shown = shown.iter().take_while(|found| !found.indented);
    let value = |name: &str| shown.clone().find(|found| found.name == name).map(|found| found.value.clone());
    let check = match (check, value("check")) {
        (Some(given), _) => parse_check(given)
            .map_err(|message| Diagnostic { source: None, ..Diagnostic::error(source, Span::default(), message) }.hint(CHECK_EXAMPLE))?,
        (None, Some(found)) => {
            let first = found.value.split(' ').next().unwrap_or_default();
            parse_check(first).map_err(|message| {
                let error = Diagnostic::error(source, found.span, message);
                error.hint(if first.len() < found.value.len() { "the options end at the first space" } else { CHECK_EXAMPLE })
            })?
        }
        (None, None) => CheckConfig::default(),
    };
    Ok((Directives { escape, syntax: value("syntax"), check }, zone.end))
}

struct Zone {
    found: Vec<Found>,
    /// Where the first line after the zone starts.
    end: usize,
    /// A directive that stands twice ends the zone.
    error: Option<Diagnostic>,
}

/// How a zone's lines look.
#[derive(Clone, Copy)]
struct ZoneForm {
    comment: &'static str,
    indent: bool,
}

impl Zone {
    const ESCAPE: ZoneForm = ZoneForm { comment: "#", indent: true };
    const EARLY: ZoneForm = ZoneForm { comment: "#", indent: false };
    const SLASHES: ZoneForm = ZoneForm { comment: "//", indent: false };
}

struct Found {
    name: String,
    value: Word,
    indented: bool,
}

/// Reads known directives from `at` on, until a line that is none.
fn zone(source: &Arc<Source>, mut at: usize, form: ZoneForm) -> Zone {
    let text = source.text();
    let mut found: Vec<Found> = Vec::new();
    while at < text.len() {
        let length = text[at..].find('\n').map_or(text.len() - at, |end| end + 1);
        let line = text[at..at + length].trim_end_matches(['\r', '\n']);
        let shown = line.trim_start();
        let indented = shown.len() != line.len();
        let Some(comment) = shown.strip_prefix(form.comment).filter(|_| form.indent || !indented) else { break };
        let Some((name, value)) = split(comment).filter(|(name, _)| KNOWN.contains(&name.as_str())) else { break };
        let start = at + (value.as_ptr() as usize - line.as_ptr() as usize);
        let value = Word::new(value.to_owned(), Span::new(start, start + value.len()));
        if found.iter().any(|earlier| earlier.name == name) {
            let error = Diagnostic::error(source, value.span, format!("the `{name}` parser directive can be used only once"))
                .hint("keep one of them");
            return Zone { found, end: at, error: Some(error) };
        }
        found.push(Found { name, value, indented });
        at += length;
    }
    Zone { found, end: at, error: None }
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

/// Returns the frontend that a file asks for, whatever language it is written in: `# syntax=`, `// syntax=`, or the key
/// `syntax` of a JSON object; a byte order mark and a `#!` line on top are skipped.
pub fn detect_syntax(source: &Arc<Source>) -> Option<Word> {
    let text = source.text();
    let start = if text.starts_with(BOM) { BOM.len_utf8() } else { 0 };
    let start = start + shebang(&text[start..]);
    let in_zone = |form| zone(source, start, form).found.into_iter().find(|found| found.name == "syntax").map(|found| found.value);
    in_zone(Zone::EARLY).or_else(|| in_zone(Zone::SLASHES)).or_else(|| json_syntax(text, start))
}

fn json_syntax(text: &str, start: usize) -> Option<Word> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text[start..]).ok()?;
    let value = object.get("syntax")?.as_str()?;
    let at = text.find("\"syntax\"").unwrap_or(start);
    Some(Word::new(value.to_owned(), Span::new(at, text.len().min(at + "\"syntax\"".len()))))
}

/// Returns the length of a `#!` line at the start of `text`.
fn shebang(text: &str) -> usize {
    if text.starts_with("#!") { text.split_inclusive('\n').next().map_or(0, str::len) } else { 0 }
}

/// Tells whether `# syntax=` asks for a frontend that is not the Dockerfile language as it is built in.
///
/// The official images are, from any registry and in any version: `docker/dockerfile`, `docker/dockerfile-upstream`.
pub fn is_foreign(syntax: &str) -> bool {
    let image = syntax.split(' ').next().unwrap_or_default();
    let image = image.split('@').next().unwrap_or_default();
    let (folder, last) = image.rsplit_once('/').unwrap_or(("", image));
    let name = last.split(':').next().unwrap_or_default();
    let official = matches!(name, "dockerfile" | "dockerfile-upstream") && folder.rsplit('/').next() == Some("docker");
    !official && image != "dockerfile.v0"
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Escape character, syntax, checks, and the line after the zone.
    type Read<S> = (char, Option<S>, CheckConfig, usize);

    fn read_text(text: &str, check: Option<&str>) -> Result<Read<String>, String> {
        let source = Source::new("Dockerfile", text);
        let (directives, end) = read(&source, check).map_err(|error| error.to_string())?;
        Ok((directives.escape, directives.syntax.map(|word| word.value), directives.check, source.line(end as u32)))
    }

    #[test]
    fn reads_the_zone_of_directives() {
        let skip = |rules: &[&str]| CheckConfig { skip: rules.iter().map(|rule| rule.to_string()).collect(), ..CheckConfig::default() };
        let none = CheckConfig::default;
        let cases: [(&str, Read<&str>); 15] = [
            ("FROM a", ('\\', None, none(), 1)),
            ("# escape=`\nFROM a", ('`', None, none(), 2)),
            ("\u{FEFF}# escape=`\nFROM a", ('`', None, none(), 2)),
            ("#  EsCaPe =  ` \r\nFROM a", ('`', None, none(), 2)),
            ("  # escape=`\nFROM a", ('`', None, none(), 2)),
            ("# syntax = x/y:1 z \n# escape=`\n", ('`', Some("x/y:1 z"), none(), 3)),
            ("# plain\n# escape=`\n", ('\\', None, none(), 1)),
            ("# flavour=vanilla\n# escape=`\n", ('\\', None, none(), 1)),
            ("\n# escape=`\n", ('\\', None, none(), 1)),
            ("# escape=\n# escape=`\n", ('\\', None, none(), 1)),
            ("# check=skip=A,B\nFROM a", ('\\', None, skip(&["A", "B"]), 2)),
            ("  # check=skip=A\nFROM a", ('\\', None, none(), 2)),
            ("#!/usr/bin/x\n# check=skip=A\n# escape=`\n", ('\\', None, skip(&["A"]), 1)),
            ("#!/usr/bin/x\n# check=skip=A\n# check=skip=B\n", ('\\', None, skip(&["A"]), 1)),
            ("  # escape=`\n# check=skip=A\n", ('`', None, none(), 3)),
        ];
        for (text, (escape, syntax, check, line)) in cases {
            assert_eq!(read_text(text, None), Ok((escape, syntax.map(str::to_owned), check, line)), "{text:?}");
        }
    }

    #[test]
    fn a_frontend_is_asked_for_in_four_ways() {
        let cases = [
            ("# syntax=a/b:1 -x\nFROM c", Some(("a/b:1 -x", 1))),
            ("#!/bin/x\n# syntax=a\n", Some(("a", 2))),
            ("\u{FEFF}// Syntax = a\nwhatever", Some(("a", 1))),
            ("#!/bin/x\n// check=skip=all\n// syntax=a\n", Some(("a", 3))),
            ("{\n \"x\": 1,\n \"syntax\": \"a\"\n}\n", Some(("a", 3))),
            ("{\"syntax\": 1}", None),
            ("// plain\n// syntax=a\n", None),
            ("FROM a\n# syntax=a\n", None),
            (" // syntax=a\n", None),
        ];
        for (text, want) in cases {
            let source = Source::new("Dockerfile", text);
            let found = detect_syntax(&source).map(|word| (word.value, source.line(word.span.start)));
            assert_eq!(found, want.map(|(value, line)| (value.to_owned(), line)), "{text:?}");
        }
    }

    #[test]
    fn refuses_malformed_directives() {
        let cases = [
            ("# escape=x\n", "Dockerfile:1:10: the escape directive must be `\\` or a backtick, not `x`"),
            ("# escape= \n", "Dockerfile:1:10: the escape directive must be `\\` or a backtick, not ` `"),
            ("# escape=`\n# ESCAPE=`\n", "Dockerfile:2:10: the `escape` parser directive can be used only once"),
            ("# check=skip\n", "Dockerfile:1:9: invalid check option `skip`: must be skip=, error= or experimental="),
            ("# check=skip=A; error=true\n", "Dockerfile:1:9: invalid check option ``: must be skip=, error= or experimental="),
            ("# check=warn=x\n", "Dockerfile:1:9: invalid check option `warn`: must be skip, error or experimental"),
            ("# check=error=maybe\n", "Dockerfile:1:9: invalid check option `error=maybe`: error must be true or false"),
        ];
        for (text, expected) in cases {
            assert_eq!(read_text(text, None), Err(expected.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_given_check_replaces_the_directive() {
        let given = CheckConfig { error: true, skip_all: true, experimental_all: true, ..CheckConfig::default() };
        assert_eq!(read_text("# check=skip=A\n", Some("skip=all;error=1; experimental = all")).map(|read| read.2), Ok(given));
        assert_eq!(read_text("# check=skip=A\n", Some("")).map(|read| read.2), Ok(CheckConfig::default()));
        assert_eq!(read_text("FROM a", Some("x")), Err("invalid check option `x`: must be skip=, error= or experimental=".to_owned()));
    }

    #[test]
    fn knows_the_official_frontends() {
        let cases = [
            ("docker/dockerfile", false),
            ("docker/dockerfile:1.4", false),
            ("docker.io/docker/dockerfile:1@sha256:00", false),
            ("mirror.example:5000/docker/dockerfile:1-labs", false),
            ("docker/dockerfile-upstream:master", false),
            ("docker/dockerfile:1 --flag", false),
            ("dockerfile.v0", false),
            ("dockerfile:1", true),
            ("someone/dockerfile", true),
            ("docker/other", true),
        ];
        for (syntax, expected) in cases {
            assert_eq!(is_foreign(syntax), expected, "{syntax}");
        }
    }
}
