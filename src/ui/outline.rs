//! `--call=outline` and `--call=targets`: tables for people, BuildKit's JSON for programs.
//!
//! Columns, headings and keys are those of BuildKit's `frontend/subrequests`; docker prints them as they are. Lines count
//! from 1, one range a line, as there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::dockerfile::source::{Source, Span};
use crate::graph::outline::{Argument, Offer, Outline, Targets};
use crate::ui::text::{one_line, width};

/// Returns the outline for people.
pub fn text(outline: &Outline) -> String {
    let mut out = String::new();
    if outline.name.is_some() || outline.description.is_some() {
        let mut rows = vec![["TARGET:".to_owned(), outline.name.clone().unwrap_or_else(|| DEFAULT.into())]];
        rows.extend(outline.description.as_deref().map(|text| ["DESCRIPTION:".to_owned(), one_line(text)]));
        out += &table(1, &rows);
    }
    if !outline.args.is_empty() {
        let row = |arg: &Argument| [arg.name.clone(), shown(arg.value.as_deref()), shown(arg.description.as_deref())];
        out += &table(3, &headed(["BUILD ARG", "VALUE", "DESCRIPTION"], outline.args.iter().map(row)));
    }
    for (heading, offers) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !offers.is_empty() {
            let row = |offer: &Offer| [one_line(&offer.name), if offer.required { "true".into() } else { String::new() }];
            out += &table(3, &headed([heading, "REQUIRED"], offers.iter().map(row)));
        }
    }
    out
}

/// Returns the targets for people.
pub fn targets_text(targets: &Targets) -> String {
    let rows = targets.stages.iter().map(|target| {
        let name = match (&target.name, target.is_default) {
            (None, true) => DEFAULT.to_owned(),
            (None, false) => String::new(),
            (Some(name), true) => format!("{name} {DEFAULT}"),
            (Some(name), false) => name.clone(),
        };
        [name, shown(target.description.as_deref())]
    });
    let mut out = table(1, &headed(["TARGET", "DESCRIPTION"], rows));
    // This table stands alone.
    out.pop();
    out
}

const DEFAULT: &str = "(default)";

/// The requests that BuildKit's frontend lists: name, version, what it is for.
const REQUESTS: [(&str, &str, &str); 3] = [
    ("outline", "1.0.0", "List all parameters current build target supports"),
    ("targets", "1.0.0", "List all targets current build supports"),
    ("subrequests.describe", "1.0.0", "List available subrequest types"),
];

/// Returns the requests for people.
pub fn requests_text() -> String {
    let rows = REQUESTS.iter().map(|(name, version, text)| [name.to_string(), version.to_string(), text.to_string()]);
    let mut out = table(1, &headed(["NAME", "VERSION", "DESCRIPTION"], rows));
    out.pop();
    out
}

/// Returns the requests for programs.
pub fn requests_json() -> String {
    let named = |name: &'static str, description: &'static str| JsonNamed { name, description };
    let request = |(name, version, description): &(&str, &'static str, &'static str)| JsonRequest {
        name: format!("frontend.{name}"),
        version,
        r#type: "rpc",
        description,
        opts: match *name {
            "outline" => Some(vec![named("target", "Target build stage")]),
            "targets" => Some(Vec::new()),
            _ => None,
        },
        inputs: None,
        metadata: [named("result.json", ""), named("result.txt", "")],
        refs: None,
    };
    pretty(&REQUESTS.iter().map(request).collect::<Vec<_>>())
}

fn shown(text: Option<&str>) -> String {
    text.map(one_line).unwrap_or_default()
}

fn headed<const N: usize>(heading: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Vec<[String; N]> {
    std::iter::once(heading.map(str::to_owned)).chain(rows).collect()
}

/// Returns columns `gap` blanks apart, and an empty line.
fn table<const N: usize>(gap: usize, rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|n| rows.iter().map(|row| width(&row[n])).max().unwrap_or_default());
    let mut out = String::new();
    for row in rows {
        for (n, cell) in row.iter().enumerate() {
            out += cell;
            if n + 1 < N {
                out += &" ".repeat(widths[n] - width(cell) + gap);
            }
        }
        out.push('\n');
    }
    out + "\n"
}

/// Returns the outline for programs.
pub fn json(outline: &Outline, source: &Source) -> String {
    let offer = |offer: &Offer| JsonOffer { name: offer.name.clone(), required: offer.required, location: location(source, offer.span) };
    let arg = |arg: &Argument| JsonArgument {
        name: arg.name.clone(),
        description: arg.description.clone(),
        value: arg.value.clone().filter(|value| !value.is_empty()),
        location: location(source, arg.span),
    };
    pretty(&JsonOutline {
        name: outline.name.clone(),
        description: outline.description.clone(),
        args: outline.args.iter().map(arg).collect(),
        secrets: outline.secrets.iter().map(offer).collect(),
        ssh: outline.ssh.iter().map(offer).collect(),
        sources: [STANDARD.encode(source.text().as_bytes())],
    })
}

/// Returns the targets for programs.
pub fn targets_json(targets: &Targets) -> String {
    let source = &targets.source;
    let target = |target: &crate::graph::outline::Target| JsonTarget {
        name: target.name.clone(),
        default: target.is_default,
        description: target.description.clone(),
        base: target.base.clone(),
        platform: target.platform.clone(),
        location: location(source, target.span),
    };
    pretty(&JsonTargets { targets: targets.stages.iter().map(target).collect(), sources: [STANDARD.encode(source.text().as_bytes())] })
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("strings, numbers and lists are JSON") + "\n"
}

fn location(source: &Source, span: Span) -> Location {
    let (first, last) = (source.line(span.start), source.line(span.end.saturating_sub(1).max(span.start)));
    let range = |line| Range { start: Position { line }, end: Position { line } };
    Location { ranges: (first..=last).map(range).collect() }
}

// The keys of BuildKit's structures, in their order; what is empty is left out where BuildKit leaves it out.

#[derive(Serialize)]
struct JsonOutline {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<JsonArgument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<JsonOffer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<JsonOffer>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct JsonArgument {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    location: Location,
}

#[derive(Serialize)]
struct JsonOffer {
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct JsonTargets {
    targets: Vec<JsonTarget>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct JsonTarget {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    base: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    location: Location,
}

#[derive(Serialize)]
struct Location {
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

#[derive(Serialize)]
struct JsonRequest {
    name: String,
    version: &'static str,
    r#type: &'static str,
    description: &'static str,
    opts: Option<Vec<JsonNamed>>,
    inputs: Option<Vec<JsonNamed>>,
    metadata: [JsonNamed; 2],
    refs: Option<Vec<JsonNamed>>,
}

#[derive(Serialize)]
struct JsonNamed {
    name: &'static str,
    description: &'static str,
}
