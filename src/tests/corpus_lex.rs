//! Word expansion, ignore matching and image references against BuildKit's recorded answers.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.
#![allow(missing_docs, clippy::print_stdout)]

mod corpus;

use std::collections::BTreeMap;

use plywood::dockerfile::expand::{ExpandError, Expander};
use plywood::dockerfile::ignore::{IgnoreRules, file_patterns};
use plywood::image::reference::Reference;
use serde_json::{Value, json};

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|a| a.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// An error, whatever its words.
fn refused() -> Value {
    json!({ "error": true })
}

/// Returns what we say and what BuildKit says.
fn compare(row: &Value) -> (Value, Value) {
    let want = match (row.get("error"), text(row, "k")) {
        (Some(e), "word" | "words") => e.clone(),
        (Some(_), _) => refused(),
        // Go's empty list.
        (None, "words") if row["out"].is_null() => json!([]),
        (None, _) => row["out"].clone(),
    };
    let got = match text(row, "k") {
        kind @ ("word" | "words") => expansion(row, kind),
        "ignore" => match IgnoreRules::from_patterns(strings(&row["patterns"])) {
            Ok(rules) => json!(rules.matches_or_parent_matches(text(row, "path"))),
            Err(_) => refused(),
        },
        "ignorefile" => json!(file_patterns(text(row, "in")).into_iter().map(|(_, p)| p).collect::<Vec<_>>()),
        "ref" => {
            return match Reference::parse(text(row, "in")) {
                Ok(r) => {
                    (json!([r.to_string(), r.familiar(), r.tagged().to_string()]), json!([row["out"], row["familiar"], row["tagged"]]))
                }
                Err(_) => (refused(), want),
            };
        }
        other => panic!("unknown kind {other}"),
    };
    (got, want)
}

fn expansion(row: &Value, kind: &str) -> Value {
    let env: BTreeMap<String, String> =
        strings(&row["env"]).iter().filter_map(|e| e.split_once('=')).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let escape = text(row, "esc").chars().next().unwrap_or('\\');
    let expander = if row["raw"] == true { Expander::new(escape).for_display() } else { Expander::new(escape) };
    // BuildKit quotes the word as Go does; what follows must be the same.
    let error = |e: ExpandError| match row["error"].as_str() {
        Some(theirs) if theirs.ends_with(&format!(": {}", e.kind)) => json!(theirs),
        _ => json!(e.to_string()),
    };
    if kind == "words" {
        return expander.words(text(row, "in"), &env).map_or_else(error, |w| json!(w));
    }
    match expander.word(text(row, "in"), &env) {
        Ok(got) => {
            let noted = |v: &Value| strings(v).iter().map(|s| s.to_string()).collect::<std::collections::BTreeSet<_>>();
            let same = got.matched == noted(&row["matched"]) && got.unmatched == noted(&row["unmatched"]);
            if same { json!(got.text) } else { json!([got.text, got.matched, got.unmatched]) }
        }
        Err(e) => error(e),
    }
}

/// Rows that show the recording program, not BuildKit: it was built without SHA-256 and refused every digest.
fn recorded_without_sha256(row: &Value) -> bool {
    let sha256 = text(row, "in").split_once("@sha256:").is_some_and(|(_, hex)| hex.len() == 64);
    sha256 && text(row, "error") == "unsupported digest algorithm"
}

#[test]
fn every_row_is_as_recorded() {
    let Some(folder) = corpus::folder() else { return };
    let rows = corpus::lex_rows(&folder);
    let mut differences = Vec::new();
    for row in rows.iter().filter(|r| !recorded_without_sha256(r)) {
        let (got, want) = compare(row);
        if got != want {
            differences.push(format!("{row}\n    ours {got}"));
        }
    }
    println!("{} of {} rows agree", rows.len() - differences.len(), rows.len());
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.iter().take(60).cloned().collect::<Vec<_>>().join("\n")
    );
}
