//! `ply explain`, `ply history` without an image, `ply stats`: what the log of builds tells.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Done, World};

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:#?}"))
}

/// Replaces what differs from run to run: times and places.
fn steady(line: &str) -> String {
    let line = match (line.split_once(" of "), line.split_once(": done")) {
        (Some((build, _)), Some((_, rest))) if build.starts_with("build ") => format!("build N of PLACE: done{rest}"),
        _ => line.to_string(),
    };
    let words = line.split(' ').map(|word| {
        let number = word.trim_end_matches([',', ':']);
        let is_time = number.strip_suffix('s').is_some_and(|n| n.parse::<f64>().is_ok());
        if is_time { word.replace(number, "TIME") } else { word.to_string() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A context as in the README: its base has a `node`.
fn readme_world() -> World {
    let w = World::new();
    w.file("node", "#!/bin/sh\ncat src/main.js > out.js\n").file("Base", "FROM base\nCOPY --chmod=755 node /bin/node\n");
    w.build(&["-f", w.path("ctx/Base").to_str().unwrap(), "-t", "node"]).ok();
    w.file("package.json", "{}").file("src/main.js", "1");
    w.file("Dockerfile", "FROM node\nCOPY package.json .\nCOPY src src\nRUN node build.js\n");
    w
}

#[test]
fn the_readme_shows_what_is_really_said() {
    let w = readme_world();
    let ply = |args: &[&str]| -> Done { w.command(args).current_dir(w.path("ctx")).output().unwrap().into() };
    ply(&["build", "--progress=plain", "-t", "app", "."]).ok();
    w.file("src/main.js", "2");
    let built = ply(&["build", "--progress=plain", "-t", "app", "."]).ok();
    let explained = ply(&["explain"]).ok();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = readme.split("## Why did it run again?").nth(1).unwrap();
    let block = section.split("```console\n$ ply explain\n").nth(1).unwrap().split("```").next().unwrap();
    let shown: Vec<String> = block.lines().map(steady).collect();
    let said: Vec<String> = explained.stdout.lines().map(steady).collect();
    assert_eq!(shown, said);
    for reason in said.iter().filter_map(|l| l.split_once(": ")).map(|(_, reason)| reason).skip(1) {
        assert!(built.stderr.contains(&format!("miss: {reason}\n")), "{reason}: {}", built.stderr);
    }
}

#[test]
fn earlier_builds_and_two_builds_are_told() {
    let w = World::new();
    w.file("f", "1").file("g", "1");
    let text = |v: &str| format!("FROM base\nENV V={v}\nCOPY f /f\nRUN cat /f > /o\nCOPY g /g\n");
    w.image(&text("1")).ok();
    w.file("f", "2").image(&text("1")).ok();
    w.file("g", "2").image(&text("2")).ok();
    w.image(&text("2")).ok();
    let causes = |args: &[&str]| -> Vec<String> {
        let mut all = vec!["explain", "--format", "json"];
        all.extend(args);
        let told = json(&w.ply(&all).ok());
        let words = |s: &Value| format!("{}: {}", s["outcome"].as_str().unwrap(), s["cause"]["words"].as_str().unwrap_or("-"));
        told["steps"].as_array().unwrap().iter().map(words).collect()
    };
    assert_eq!(causes(&[]), ["hit: -"; 3]);
    let third = ["hit: -", "built: env V changed (\"1\" -> \"2\")", "built: file g changed (content)"];
    assert_eq!(causes(&["-1"]), third);
    assert_eq!(causes(&["3"]), third);
    assert_eq!(causes(&["-3"]), ["built: first build of this step"; 3]);
    assert_eq!(causes(&["-2", "--step", "2"]), ["built: step 1 was rebuilt and its result differs"]);
    // Two builds apart: also what came between.
    let apart = ["hit: file f changed (content)", "hit: env V changed (\"1\" -> \"2\")", "hit: file g changed (content)"];
    assert_eq!(causes(&["4", "--against", "1"]), apart);
    assert_eq!(causes(&["4", "--against", "3"]), ["hit: -", "hit: -", "hit: -"]);
    let all = w.ply(&["explain", "4", "--against", "1", "-v"]).ok().stdout;
    assert!(all.contains("#2 hit, saved ") && all.contains("env V changed (\"1\" -> \"2\"), Dockerfile:2"), "{all}");
    assert!(all.contains("#2   also: step 1 has another result, from the cache"), "{all}");
    w.ply(&["explain", "99"]).fails(1).says("there is no build `99` in the log").says("ply history");
    w.ply(&["explain", "--step", "9"]).fails(2).says("the build has 3 steps");
}

#[test]
fn what_a_step_stands_on_is_told_by_what_really_changed() {
    let w = World::new();
    let base = |text: &str| {
        w.file("Base", &format!("FROM base\n{text}\n")).build(&["-f", w.path("ctx/Base").to_str().unwrap(), "-t", "mine"]).ok();
    };
    let last = |text: &str| {
        let missed = super::cache::outcomes(&w.image(text).ok());
        missed.into_iter().rfind(|o| o != "CACHED").unwrap()
    };
    base("RUN echo 1 > /v");
    let two = "FROM mine\nWORKDIR /w\nRUN echo x > /x\n";
    last(two);
    // The step below gives the same as before: only the base is another one.
    base("RUN echo 2 > /v");
    let said = last(two);
    assert!(said.starts_with("base image changed (") && said.contains("mine") && said.contains(" -> sha256:"), "{said}");
    assert!(said.ends_with("Dockerfile:1"), "{said}");
    assert_eq!(last("FROM mine\nWORKDIR /w\nRUN echo y > /y\nRUN echo x > /x\n"), "step 2 is new");
    assert_eq!(last("FROM mine\nRUN echo y > /y\nRUN echo x > /x\n"), "working directory changed (\"/w\" -> \"/\"), was Dockerfile:2");
    last("FROM mine\nRUN echo z > /z\nRUN echo y > /y\nRUN echo x > /x\n");
    assert_eq!(last("FROM mine\nRUN echo z > /z\nRUN echo x > /x\n"), "a step before it is gone (RUN echo y > /y)");
}

#[test]
fn failed_and_interrupted_steps_are_in_the_log() {
    let w = World::new();
    w.file("Dockerfile", "FROM base\nRUN echo 1 > /a\nRUN false\nRUN echo 3 > /c\n").build(&["-t", "t"]).fails(1);
    let told = json(&w.ply(&["explain", "--format", "json"]).ok());
    let outcomes: Vec<_> = told["steps"].as_array().unwrap().iter().map(|s| s["outcome"].as_str().unwrap()).collect();
    assert_eq!((outcomes.as_slice(), told["outcome"].as_str()), (&["built", "failed", "not reached"][..], Some("failed")));
    assert!(told["error"].as_str().unwrap().contains("exit code"), "{told}");
    // A source that is not there fails before it begins.
    w.file("Dockerfile", "FROM base\nRUN echo 1 > /a\nCOPY none /n\n").build(&[]).fails(1);
    let text = w.ply(&["explain"]).ok().stdout;
    assert!(text.contains("#2 failed after 0.0s\n") && text.contains("\nerror: "), "{text}");
}

#[test]
fn a_hit_leaves_what_the_next_miss_is_told_by() {
    let w = World::new();
    let text = "FROM base\nCOPY d /d\n";
    w.file("d/a", "1").image(text).ok();
    // Another Dockerfile: its step hits, and its place has no past.
    w.file("other/d/a", "1").file("other/Dockerfile", text);
    let other = || {
        let ctx = w.path("ctx/other");
        w.ply(&["build", "--progress=plain", "--build-context", super::BASE, ctx.to_str().unwrap()]).ok()
    };
    assert_eq!(super::cache::outcomes(&other()), ["CACHED"]);
    w.file("other/d/a", "2");
    assert_eq!(super::cache::outcomes(&other()), ["file d/a changed (content)"]);
}

#[test]
fn history_lists_builds() {
    let w = World::new();
    w.image("FROM base\nRUN true\n").ok();
    w.image("FROM base\nRUN true\n").ok();
    w.file("Dockerfile", "FROM base AS a\nRUN false\n").build(&["--target", "a"]).fails(1);
    let list = w.ply(&["history", "--format", "{{.ID}} {{.Cached}}/{{.Steps}} {{.Status}} {{.Target}} {{.Dockerfile}}"]).ok().stdout;
    assert_eq!(list, "3 0/1 failed a Dockerfile\n2 1/1 done  Dockerfile\n1 0/1 done  Dockerfile\n");
    assert_eq!(w.ply(&["history", "-q", "-n", "1"]).ok().stdout, "3\n");
    assert_eq!(w.ply(&["history", "-q", "-f", "nowhere"]).ok().stdout, "");
    let table = w.ply(&["history"]).ok().stdout;
    assert!(table.starts_with("BUILD   CREATED") && table.lines().count() == 4, "{table}");
    let first: Value = serde_json::from_str(w.ply(&["history", "--format", "json"]).ok().stdout.lines().last().unwrap()).unwrap();
    let image = w.ply(&["images", "-q", "t"]).ok().stdout;
    assert_eq!((first["Image"].as_str(), first["ID"].as_i64()), (Some(image.trim()), Some(1)));
    assert!(w.ply(&["history", "t"]).ok().stdout.starts_with("IMAGE"));
}

/// The samples of a family: their labels and values.
type Samples = Vec<(BTreeMap<String, String>, f64)>;

/// A strict reader of Prometheus's text format: families with their samples, or what is wrong.
fn read_metrics(text: &str) -> Result<BTreeMap<String, Samples>, String> {
    let name_ok = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !n.as_bytes()[0].is_ascii_digit();
    let mut families: BTreeMap<String, Samples> = BTreeMap::new();
    let (mut helped, mut typed) = (String::new(), String::new());
    if !text.ends_with('\n') {
        return Err("the last line is not ended".into());
    }
    for line in text.lines() {
        let wrong = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split(' ').next().unwrap_or_default().to_string();
            if families.contains_key(&helped) || !name_ok(&helped) {
                return wrong("a family begins twice, or has no name");
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, "gauge")) = rest.split_once(' ') else { return wrong("no type") };
            if name != helped {
                return wrong("TYPE without HELP before");
            }
            typed = name.to_string();
            families.insert(typed.clone(), Vec::new());
            continue;
        }
        let Some((name, rest)) = line.split_once('{') else { return wrong("no labels") };
        if name != typed {
            return wrong("a sample outside of its family");
        }
        let (mut labels, mut rest) = (BTreeMap::new(), rest);
        while !rest.starts_with('}') {
            let Some((label, value)) = rest.split_once("=\"") else { return wrong("no label") };
            let (mut text, mut chars) = (String::new(), value.char_indices());
            let end = loop {
                match chars.next() {
                    Some((at, '"')) => break at,
                    Some((_, '\\')) => match chars.next() {
                        Some((_, 'n')) => text.push('\n'),
                        Some((_, c @ ('"' | '\\'))) => text.push(c),
                        _ => return wrong("a bad escape"),
                    },
                    Some((_, c)) => text.push(c),
                    None => return wrong("an open value"),
                }
            };
            if !name_ok(label) || labels.insert(label.to_string(), text).is_some() {
                return wrong("a bad label");
            }
            rest = value[end + 1..].trim_start_matches(',');
        }
        let Ok(value) = rest[1..].trim_start().parse::<f64>() else { return wrong("no number") };
        let samples = families.get_mut(&typed).expect("it was begun");
        if samples.iter().any(|(l, _)| *l == labels) {
            return wrong("a sample twice");
        }
        samples.push((labels, value));
    }
    Ok(families)
}

#[test]
fn the_reader_of_metrics_refuses_what_is_wrong() {
    let good = "# HELP a x\n# TYPE a gauge\na{l=\"1\\n\\\"\"} 2\n";
    assert_eq!(read_metrics(good).unwrap()["a"], [(BTreeMap::from([("l".to_string(), "1\n\"".to_string())]), 2.0)]);
    for bad in [
        "a{} 1\n",
        "# HELP a x\n# TYPE b gauge\n",
        "# HELP a x\n# TYPE a gauge\nb{} 1\n",
        "# HELP a x\n# TYPE a gauge\na{l=\"\n\"} 1\n",
        "# HELP a x\n# TYPE a gauge\na{l=\"\\x\"} 1\n",
        "# HELP a x\n# TYPE a gauge\na{} 1\na{} 1\n",
        "# HELP a x\n# TYPE a gauge\na{} x\n",
        "# HELP a x\n# TYPE a gauge\n# HELP a x\n",
        "# HELP a x\n# TYPE a gauge\na{} 1",
    ] {
        assert!(read_metrics(bad).is_err(), "{bad}");
    }
}

#[test]
fn statistics_add_up() {
    let w = World::new();
    let ctx = w.path("ctx/quote\"d \\ dir");
    std::fs::create_dir(&ctx).unwrap();
    let build = |text: &str| {
        std::fs::write(ctx.join("Dockerfile"), text).unwrap();
        w.ply(&["build", "-q", "--build-context", super::BASE, ctx.to_str().unwrap()])
    };
    build("FROM base\nRUN echo a > /a\nRUN echo b > /b\n").ok();
    build("FROM base\nRUN echo a > /a\nRUN echo b > /b\n").ok();
    build("FROM base\nRUN echo a > /a\nRUN echo c > /b\n").ok();
    build("FROM base\nRUN echo a > /a\nRUN false\n").fails(1);
    let stats = json(&w.ply(&["stats", "--format", "json"]).ok());
    let of = &stats["dockerfiles"][0];
    assert_eq!((of["builds"]["done"].as_i64(), of["builds"]["failed"].as_i64()), (Some(3), Some(1)));
    let sums = &of["sums"];
    assert_eq!(["hits", "remote_hits", "built", "failed"].map(|f| sums[f].as_i64().unwrap()), [4, 0, 3, 1]);
    assert_eq!((sums["hit_rate"].as_f64(), sums["made_bytes"].as_i64()), (Some(0.5), Some(6)));
    let kinds: BTreeSet<_> = stats["causes"].as_array().unwrap().iter().map(|c| c["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["command", "first build"]));
    let metrics = read_metrics(&w.ply(&["stats", "--format", "prometheus"]).ok().stdout).unwrap();
    assert_eq!(metrics.len(), 11);
    let dockerfile = format!("{} (Dockerfile)", ctx.canonicalize().unwrap().display());
    let value = |family: &str, labels: &[(&str, &str)]| {
        let mut wanted: BTreeMap<String, String> = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        wanted.insert("dockerfile".into(), dockerfile.clone());
        metrics[family].iter().find(|(l, _)| *l == wanted).map(|(_, v)| *v)
    };
    assert_eq!(value("ply_builds", &[("outcome", "done")]), Some(3.0));
    assert_eq!(value("ply_steps", &[("outcome", "hit")]), Some(4.0));
    assert_eq!(value("ply_hit_ratio", &[]), Some(0.5));
    assert_eq!(value("ply_misses", &[("cause", "command")]), Some(2.0));
    let table = w.ply(&["stats"]).ok().stdout;
    assert!(table.contains("50%") && table.contains("MOST EXPENSIVE STEPS") && table.contains("command"), "{table}");
    assert_eq!(json(&w.ply(&["stats", "--format", "json", "--since", "2999-01-01"]).ok())["dockerfiles"], serde_json::json!([]));
    w.ply(&["stats", "--since", "soon"]).fails(2).says("is no time");
}
