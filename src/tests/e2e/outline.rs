//! `--call=outline` and `--call=targets`, as docker prints them.

use serde_json::{Value, json};

use super::World;

const TEXT: &str = "\
# which of the bases
ARG kind=se
ARG unused=x
# base is what all starts from
ARG base=ba${kind}

# tools is what compiles
FROM ${base} AS tools
# MODE is debug or release
ARG MODE=debug
ARG kind
RUN --mount=type=secret,id=token-${MODE},required --mount=type=ssh <<E cat
body
E

FROM nowhere AS other
ARG NEVER
RUN --mount=type=secret,id=never true

FROM scratch AS root
ARG MODE=release EMPTY
ARG TARGETARCH

# app is what runs
FROM root AS app
COPY --from=tools / /
RUN --mount=type=secret,id=late \\
    true
FROM other
";

fn world() -> World {
    let w = World::new();
    w.file("Dockerfile", TEXT);
    w
}

/// Returns each item's name and lines.
fn places(report: &Value, list: &str) -> Vec<(String, Vec<u64>)> {
    let line = |range: &Value| {
        assert_eq!(range["start"], range["end"]);
        range["start"]["line"].as_u64().unwrap()
    };
    let lines = |item: &Value| item["location"]["ranges"].as_array().unwrap().iter().map(line).collect();
    report[list].as_array().unwrap().iter().map(|item| (item["name"].as_str().unwrap_or_default().to_owned(), lines(item))).collect()
}

#[test]
fn an_outline_is_of_what_the_target_needs() {
    let w = world();
    let want = [
        "TARGET:      app",
        "DESCRIPTION: is what runs",
        "",
        "BUILD ARG   VALUE   DESCRIPTION",
        "kind        se      ",
        "base        base    is what all starts from",
        "EMPTY               ",
        "MODE        fast    ",
        "",
        "SECRET       REQUIRED",
        "token-fast   true",
        "late         ",
        "",
        "SSH       REQUIRED",
        "default   ",
        "",
        "",
    ]
    .join("\n");
    // `tools` declares MODE too; the target's own comes first.
    let flags = ["--target=APP", "--build-arg=MODE=fast"];
    assert_eq!(w.build(&[&flags[..], &["--call=outline"]].concat()).ok().stdout, want);
    assert_eq!(w.build(&[&flags[..], &["--print", "outline,format=text"]].concat()).ok().stdout, want, "docker's older flag");
    let report: Value = serde_json::from_str(&w.build(&[&flags[..], &["--call=outline,format=json"]].concat()).ok().stdout).unwrap();
    let at = |name: &str, lines: &[u64]| (name.to_owned(), lines.to_vec());
    assert_eq!(places(&report, "args"), [at("kind", &[2]), at("base", &[5]), at("EMPTY", &[21]), at("MODE", &[21])]);
    assert_eq!(places(&report, "secrets"), [at("token-fast", &[12, 13, 14]), at("late", &[27, 28])]);
    assert_eq!(
        (&report["name"], &report["description"], &report["args"][2]["value"]),
        (&json!("app"), &json!("is what runs"), &Value::Null)
    );
    assert_eq!(report["secrets"][0]["required"], true);
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["args", "description", "name", "secrets", "sources", "ssh"]);
}

#[test]
fn an_outline_of_little_is_short() {
    let w = world();
    let want = "TARGET: root\n\nBUILD ARG   VALUE     DESCRIPTION\nEMPTY                 \nMODE        release   \n\n";
    assert_eq!(w.build(&["--call=outline", "--target=root"]).ok().stdout, want);
    w.file("Dockerfile", "FROM base\n");
    assert_eq!(w.build(&["--call=outline"]).ok().stdout, "");
    let report: Value = serde_json::from_str(&w.build(&["--call=outline,format=json"]).ok().stdout).unwrap();
    assert_eq!(report, json!({"sources": ["RlJPTSBiYXNlCg=="]}));
}

#[test]
fn targets_are_listed_without_a_look_at_their_bases() {
    let w = world();
    let want = "TARGET    DESCRIPTION\ntools     is what compiles\nother     \nroot      \napp       is what runs\n(default) \n";
    assert_eq!(w.build(&["--call=targets"]).ok().stdout, want);
    w.file("Dockerfile", "FROM a\n# last is best\nFROM --platform=$BUILDPLATFORM a:$b as Last\n");
    let text = w.build(&["--call", "targets,format=json"]).ok().stdout;
    let place = |line: u64| json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    let want = json!({
        "targets": [
            {"base": "a", "location": place(1)},
            {"name": "last", "default": true, "description": "is best", "base": "a:$b", "platform": "$BUILDPLATFORM", "location": place(3)},
        ],
        "sources": ["RlJPTSBhCiMgbGFzdCBpcyBiZXN0CkZST00gLS1wbGF0Zm9ybT0kQlVJTERQTEFURk9STSBhOiRiIGFzIExhc3QK"],
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), want);
    assert!(text.starts_with("{\n  \"targets\": [\n    {\n      \"base\": \"a\""), "BuildKit's order and indentation: {text}");
    w.build(&["--call=targets,format=xml"]).fails(2);
    w.file("Dockerfile", "FROM a\nCOPPY\n").build(&["--call=targets"]).fails(1).says("unknown instruction");
}

#[test]
fn the_reports_describe_themselves() {
    let w = World::new();
    let text = w.build(&["--call=subrequests.describe"]).ok().stdout;
    assert_eq!(text.lines().nth(1).unwrap(), "outline              1.0.0   List all parameters current build target supports");
    let all: Value = serde_json::from_str(&w.build(&["--call=subrequests.describe,format=json"]).ok().stdout).unwrap();
    assert_eq!(all[1]["name"], "frontend.targets");
}
