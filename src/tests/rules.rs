//! Every rule of the language has a test: holds `testdata/rules.tsv`, rule ids against where they are held.
//!
//! A line is: id, what the rule takes (`text` of a Dockerfile or ignore file, `files`, the command line: `cli`, or a step that
//! runs: `run`), what it is about, and references. A reference is a golden folder (`dockerfile/NAME`, `plan/NAME`,
//! `ignore/NAME` of `testdata`), a test (`src/FILE.rs#FUNCTION`) or a recorded case (`case:GROUP/NAME`). A rule that takes
//! text has a golden folder. Ids are those of the specification and of the recorded cases; these lie outside of the
//! project, so what they say is checked where they are found beside the checkout.
#![allow(missing_docs, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Row {
    id: String,
    takes: String,
    references: Vec<String>,
}

fn table() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("testdata/rules.tsv")).expect("the table");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [id, takes, about, references] = cells[..] else { panic!("four cells, not {}: {line}", cells.len()) };
        assert!(["text", "files", "cli", "run"].contains(&takes), "{id}: {takes}");
        assert!(!about.is_empty(), "{id} is about nothing");
        Row { id: id.to_owned(), takes: takes.to_owned(), references: references.split(' ').map(str::to_owned).collect() }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

/// Returns a folder or file beside the checkout, or says that it is not there.
fn beside(variable: &str, path: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let place = named.unwrap_or_else(|| root().join("..").join(path));
    if !place.exists() {
        println!("skipped: {} is not there ({variable} names another place)", place.display());
    }
    Some(place).filter(|place| place.exists())
}

/// Says what is wrong with a reference.
fn wrong(reference: &str, cases: Option<&Path>) -> Option<String> {
    if let Some(case) = reference.strip_prefix("case:") {
        let there = cases.is_none_or(|cases| cases.join(case).join("case.json").is_file());
        return (!there).then(|| format!("no case {case}"));
    }
    if let Some((file, function)) = reference.split_once('#') {
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        let declared = text.split("#[test]").skip(1).any(|after| {
            let head = after.split('{').next().unwrap_or_default();
            head.contains(&format!("fn {function}("))
        });
        return (!declared).then(|| format!("{file} has no test {function}"));
    }
    let folder = root().join("testdata").join(reference);
    (!is_golden(reference) || !folder.join("expect.txt").is_file()).then(|| format!("no golden folder {reference}"))
}

fn is_golden(reference: &str) -> bool {
    ["dockerfile/", "plan/", "ignore/"].iter().any(|folder| reference.starts_with(folder))
}

#[test]
fn every_rule_names_tests_that_exist() {
    let cases = beside("PLY_CONFORMANCE", "shared/conformance/cases");
    let mut found = Vec::new();
    for Row { id, takes, references } in table() {
        found.extend(references.iter().filter_map(|reference| wrong(reference, cases.as_deref()).map(|why| format!("{id}: {why}"))));
        if takes == "text" && !references.iter().any(|reference| is_golden(reference)) {
            found.push(format!("{id}: takes text, and has no golden folder"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_id_stands_once() {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    table().into_iter().for_each(|row| *count.entry(row.id).or_default() += 1);
    assert!(count.len() > 100, "only {} rules", count.len());
    assert_eq!(count.into_iter().filter(|(_, count)| *count > 1).collect::<Vec<_>>(), []);
}

#[test]
fn every_golden_folder_is_of_some_rule() {
    let named: BTreeSet<String> = table().into_iter().flat_map(|row| row.references).collect();
    let mut unnamed = Vec::new();
    for folder in ["dockerfile", "plan", "ignore"] {
        for entry in std::fs::read_dir(root().join("testdata").join(folder)).expect("a folder") {
            let name = format!("{folder}/{}", entry.expect("an entry").file_name().to_string_lossy());
            unnamed.extend((!named.contains(&name)).then_some(name));
        }
    }
    unnamed.sort();
    assert!(unnamed.is_empty(), "no rule names {unnamed:?}");
}

#[test]
fn every_build_check_is_a_rule() {
    let ids: BTreeSet<String> = table().into_iter().map(|row| row.id).collect();
    let missing: Vec<&str> =
        plywood::dockerfile::check::ALL.iter().map(|rule| rule.name()).filter(|name| !ids.contains(&format!("1.13/{name}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The ids of the specification: `| L-F1 |` in tables, `- **C-1**` in lists, sections 1.1 to 1.13.
fn specified(text: &str) -> BTreeSet<String> {
    let rules = text.split("\n## 1.14").next().unwrap_or_default();
    let id = |line: &str| {
        let cell = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next());
        let item = line.strip_prefix("- **").and_then(|rest| rest.split("**").next());
        cell.or(item).filter(|id| id.chars().next().is_some_and(|c| "LHICAR".contains(c)) && id.contains('-')).map(str::to_owned)
    };
    rules.lines().filter_map(id).filter(|id| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && id.len() <= 6).collect()
}

#[test]
fn every_rule_of_the_specification_is_in_the_table() {
    let Some(spec) = beside("PLY_SPEC", "shared/spec/dockerfile.md") else { return };
    let ids: BTreeSet<String> = table().into_iter().map(|row| row.id).collect();
    let specified = specified(&std::fs::read_to_string(spec).expect("the specification"));
    assert!(specified.len() > 70, "only {} ids were found in it", specified.len());
    let missing: Vec<&String> = specified.difference(&ids).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_rule_of_the_recorded_cases_is_in_the_table() {
    let Some(cases) = beside("PLY_CONFORMANCE", "shared/conformance/cases") else { return };
    let ids: BTreeSet<String> = table().into_iter().map(|row| row.id).collect();
    let mut missing = BTreeSet::new();
    for group in std::fs::read_dir(cases).expect("the cases").flatten() {
        for case in std::fs::read_dir(group.path()).into_iter().flatten().flatten() {
            let Ok(text) = std::fs::read(case.path().join("case.json")) else { continue };
            let case: serde_json::Value = serde_json::from_slice(&text).expect("a case is JSON");
            let rules = case["rule"].as_array().cloned().unwrap_or_else(|| vec![case["rule"].clone()]);
            missing.extend(rules.iter().filter_map(|rule| rule.as_str()).filter(|rule| !ids.contains(*rule)).map(str::to_owned));
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// The page of defences: its tables' rows, and the tests that its other sections name.
fn defences() -> (Vec<Vec<String>>, Vec<String>) {
    let text = std::fs::read_to_string(root().join("src/defences.md")).expect("the page");
    let (table, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("| "));
    let rows = table.into_iter().filter(|line| !line.starts_with("| id |"));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let words = rest.iter().flat_map(|line| line.split_whitespace()).filter(|word| word.starts_with("src/") && word.contains('#'));
    (rows.map(cells).collect(), words.map(str::to_owned).collect())
}

#[test]
fn every_class_of_attack_has_a_defence_and_a_test_or_a_reason() {
    let (rows, named) = defences();
    let mut found: Vec<String> = named.iter().filter_map(|reference| wrong(reference, None)).collect();
    let mut ids = Vec::new();
    for row in rows {
        let [id, tried, defence, shown] = &row[..] else { panic!("four cells: {row:?}") };
        assert!(!tried.is_empty() && !defence.is_empty(), "{row:?}");
        ids.push(id.clone());
        if shown.strip_prefix("can't occur: ").is_none_or(str::is_empty) {
            let references: Vec<&str> = shown.split_whitespace().collect();
            assert!(!references.is_empty(), "{id} has no test");
            found.extend(references.into_iter().filter_map(|reference| wrong(reference, None)).map(|why| format!("{id}: {why}")));
        }
    }
    let wanted = [('A', 16), ('B', 9), ('C', 6), ('D', 17), ('F', 13)]
        .into_iter()
        .flat_map(|(class, n)| (1..=n).map(move |i| format!("{class}{i}")));
    assert_eq!(ids, wanted.collect::<Vec<_>>());
    assert!(named.len() >= 10, "{named:?}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}
