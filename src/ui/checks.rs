//! The build checks' report: for people with docker's closing words, for programs as docker's JSON.
//!
//! The JSON is that of BuildKit's `frontend/subrequests/lint`: findings with rule, text and lines, and the sources that
//! they point into. Lines count from 1; columns are left out, as BuildKit's are always 0.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::dockerfile::check::ALL;
use crate::dockerfile::source::Diagnostic;
use crate::ui::diagnostic;
use crate::ui::style::Paint;

/// Where docker explains its rules.
const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule";

/// Returns the report for people: each finding, and how many there are.
pub fn text(findings: &[Diagnostic], paint: Paint) -> String {
    let mut out: String = findings.iter().map(|f| diagnostic::render(f, paint) + "\n").collect();
    out.push_str(&match findings.len() {
        0 => "Check complete, no warnings found.\n".to_string(),
        1 => "Check complete, 1 warning has been found!\n".to_string(),
        n => format!("Check complete, {n} warnings have been found!\n"),
    });
    out
}

/// Returns the report for programs; `error` is why the Dockerfile could not be read to its end.
pub fn json(findings: &[Diagnostic], error: Option<&Diagnostic>) -> String {
    let source = findings.iter().chain(error).find_map(|f| f.source.as_ref());
    let sources: Vec<Value> = source
        .iter()
        .map(|s| json!({"filename": s.name(), "language": "Dockerfile", "data": STANDARD.encode(s.text().as_bytes())}))
        .collect();
    let mut report = json!({"warnings": findings.iter().map(warning).collect::<Vec<_>>(), "sources": sources});
    if let Some(error) = error {
        report["buildError"] = json!({"message": error.message, "location": location(error)});
    }
    format!("{report:#}\n")
}

fn warning(finding: &Diagnostic) -> Value {
    let name = finding.rule.unwrap_or_default();
    let description = ALL.iter().find(|rule| rule.name() == name).map(|rule| rule.description());
    json!({
        "ruleName": name,
        "description": description,
        "url": format!("{PAGES}/{}/", kebab(name)),
        "detail": finding.message,
        "location": location(finding),
    })
}

fn location(finding: &Diagnostic) -> Value {
    let Some(source) = &finding.source else { return json!({}) };
    let span = finding.lines.unwrap_or(finding.span);
    let (first, last) = (source.line(span.start), source.line(span.end.saturating_sub(1).max(span.start)));
    json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})
}

/// `JSONArgsRecommended` → `json-args-recommended`: a word begins at a capital beside which a small letter stands.
fn kebab(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, letter) in letters.iter().enumerate() {
        let small = |at: Option<&char>| at.is_some_and(char::is_ascii_lowercase);
        if i > 0 && letter.is_ascii_uppercase() && (small(letters.get(i - 1)) || small(letters.get(i + 1))) {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::source::{Source, Span};

    fn finding() -> Diagnostic {
        let source = Source::new("Dockerfile", "FROM x\nCMD a \\\n b\n");
        Diagnostic::warning(&source, Span::new(7, 17), "JSONArgsRecommended", "use JSON")
    }

    #[test]
    fn the_report_for_people_ends_with_dockers_words() {
        assert_eq!(text(&[], Paint::Plain), "Check complete, no warnings found.\n");
        let want = "\
warning[JSONArgsRecommended]: use JSON
 --> Dockerfile:2:1
  |
2 | CMD a \\
  | ^^^^^^^

Check complete, 1 warning has been found!
";
        assert_eq!(text(&[finding()], Paint::Plain), want);
        assert!(text(&[finding(), finding()], Paint::Plain).ends_with("Check complete, 2 warnings have been found!\n"));
    }

    #[test]
    fn the_report_for_programs_is_dockers() {
        let place = json!({"ranges": [{"start": {"line": 2}, "end": {"line": 3}}]});
        let sources = json!([{"filename": "Dockerfile", "language": "Dockerfile", "data": STANDARD.encode("FROM x\nCMD a \\\n b\n")}]);
        let want = json!({"sources": sources, "warnings": [{
            "ruleName": "JSONArgsRecommended", "detail": "use JSON", "location": place,
            "description": "JSON arguments make ENTRYPOINT and CMD receive signals",
            "url": "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        }]});
        assert_eq!(serde_json::from_str::<Value>(&json(&[finding()], None)).unwrap(), want);
        assert_eq!(serde_json::from_str::<Value>(&json(&[], None)).unwrap(), json!({"warnings": [], "sources": []}));
        let want = json!({"sources": sources, "warnings": [], "buildError": {"message": "use JSON", "location": place}});
        assert_eq!(serde_json::from_str::<Value>(&json(&[], Some(&finding()))).unwrap(), want);
    }

    #[test]
    fn rules_have_dockers_page_names() {
        let names = ["StageNameCasing", "FromAsCasing", "JSONArgsRecommended", "InvalidDefaultArgInFrom", "SecretsUsedInArgOrEnv"];
        let pages =
            ["stage-name-casing", "from-as-casing", "json-args-recommended", "invalid-default-arg-in-from", "secrets-used-in-arg-or-env"];
        assert_eq!(names.map(kebab), pages);
    }
}
