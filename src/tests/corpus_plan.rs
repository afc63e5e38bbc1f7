//! Lowering against BuildKit's recorded plans: verdict, operations, configuration and history of real Dockerfiles.
//!
//! Facts are the recorder's: no build arguments, linux/amd64, and every base image with one fixed configuration.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.
#![allow(missing_docs, clippy::print_stdout)]

mod corpus;

use std::collections::{BTreeMap, BTreeSet};

use plywood::digest::DiffId;
use plywood::dockerfile::format;
use plywood::dockerfile::instruction::File;
use plywood::dockerfile::source::{Diagnostic, Source};
use plywood::graph::lower::lower_with;
use plywood::graph::{
    BuildGraph, CopyOp, CopySource, Entitlement, Facts, FileTree, ImageRequest, ImageSource, Mount, MountKind, NetworkMode, Op, RunOp,
    Sharing, StageChoice, order,
};
use plywood::image::config::ImageConfig;
use plywood::image::platform::Platform;
use rayon::prelude::*;
use serde_json::{Value, json};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn facts() -> Facts {
    let amd64 = Platform::new("linux", "amd64", "");
    Facts {
        build_args: BTreeMap::new(),
        build_platform: amd64.clone(),
        target_platform: amd64,
        target: None,
        stages: StageChoice::Needed,
        named_contexts: BTreeMap::new(),
        images: BTreeMap::new(),
        labels: Vec::new(),
        network: NetworkMode::Default,
        allow: vec![Entitlement::NetworkHost, Entitlement::SecurityInsecure],
        add_hosts: Vec::new(),
        no_context: false,
        epoch: None,
        ignore: None,
    }
}

fn base(request: &ImageRequest) -> ImageConfig {
    let mut config =
        ImageConfig { os: request.platform.os.clone(), architecture: request.platform.architecture.clone(), ..Default::default() };
    config.config.env = vec![PATH.into()];
    config.config.cmd = Some(vec!["/bin/sh".into()]);
    config.rootfs.diff_ids = vec![DiffId::from_bytes([1; 32])];
    config
}

/// Returns the graph of the target, and the findings in all stages.
fn plan(text: &[u8]) -> Result<(BuildGraph, BTreeSet<String>), String> {
    let source = Source::new("Dockerfile", String::from_utf8_lossy(text));
    let file = plywood::dockerfile::parse(&source).map_err(told)?;
    let mut facts = facts();
    let graph = lowered(&file, &mut facts)?;
    if file.stages.len() == 1 {
        let found = lint(&graph);
        return Ok((graph, found));
    }
    facts.stages = StageChoice::All;
    let found = lowered(&file, &mut facts).as_ref().map(lint).unwrap_or_default();
    Ok((graph, found))
}

/// Returns an error's message; it must have a place and say what to do.
fn told(error: Diagnostic) -> String {
    assert!(error.hint.is_some() && error.source.is_some(), "an error without a place or a hint: {error}");
    error.message
}

fn lowered(file: &File, facts: &mut Facts) -> Result<BuildGraph, String> {
    lower_with(file, facts, base, |_| None).map_err(told)
}

/// Removes what is absent, so that both sides write it the same way.
fn tidy(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, v| !(v.is_null() || *v == json!("") || *v == json!([]) || *v == json!({}) || *v == json!(false)));
    }
    value
}

fn our_operations(graph: &BuildGraph) -> Vec<Value> {
    let needed = order::needed(graph);
    let mut out = Vec::new();
    for (_, node) in graph.nodes.iter().enumerate().filter(|(id, _)| needed[*id]) {
        match &node.op {
            Op::Base(Some(ImageRequest { source: ImageSource::Reference(reference), .. })) => {
                out.push(json!({ "op": "source", "id": format!("docker-image://{reference}") }));
            }
            Op::Base(_) => {}
            Op::Run(run) => our_run(run, &mut out),
            Op::Copy(copy) => our_copy(copy, &mut out),
            // The recorder leaves out who owns the directory.
            Op::Mkdir(made) => {
                out.push(json!({ "op": "file", "actions": [{ "a": "mkdir", "path": made.path, "mode": "755", "parents": true }] }));
            }
        }
    }
    settled(out)
}

fn our_run(run: &RunOp, out: &mut Vec<Value>) {
    let network = match run.network {
        NetworkMode::Default => "",
        NetworkMode::None => "NONE",
        NetworkMode::Host => "HOST",
    };
    let mut mounts: Vec<Value> = run.mounts.iter().filter(|m| !m.target.is_empty()).map(our_mount).collect();
    for mount in &run.mounts {
        if let MountKind::Bind { from: FileTree::Context(None), .. } = mount.kind {
            out.push(json!({ "op": "source", "id": "local://context" }));
        }
    }
    for (name, body) in &run.scripts {
        mounts.push(json!({ "type": "BIND", "dest": "/dev/pipes/", "ro": true, "selector": "/" }));
        out.push(our_file(name, "755", body));
    }
    mounts.sort_by_key(Value::to_string);
    let env: Vec<String> = run.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    out.push(tidy(json!({
        "op": "exec", "args": run.argv, "cwd": run.cwd, "env": env, "user": run.user, "network": network,
        "security": if run.insecure { "INSECURE" } else { "" }, "mounts": mounts,
    })));
}

fn our_mount(mount: &Mount) -> Value {
    let ro = mount.readonly;
    tidy(match &mount.kind {
        MountKind::Bind { source, .. } => {
            json!({ "type": "BIND", "dest": mount.target, "ro": ro, "selector": if source == "/" { "" } else { source } })
        }
        MountKind::Cache { id, sharing, source, mode, uid, gid, .. } => {
            let sharing = match sharing {
                Sharing::Shared => "SHARED",
                Sharing::Private => "PRIVATE",
                Sharing::Locked => "LOCKED",
            };
            let owned = (*mode, *uid, *gid) != (0o755, 0, 0);
            let selector = if source != "/" {
                source.as_str()
            } else if owned {
                "/cache"
            } else {
                ""
            };
            json!({ "type": "CACHE", "dest": mount.target, "ro": ro, "cache_id": id, "sharing": sharing, "selector": selector })
        }
        MountKind::Tmpfs { .. } => json!({ "type": "TMPFS", "dest": mount.target, "ro": ro }),
        MountKind::Secret { id, .. } => json!({ "type": "SECRET", "dest": mount.target, "secret_id": id }),
        MountKind::Ssh { id, .. } => json!({ "type": "SSH", "dest": mount.target, "ssh_id": id }),
    })
}

fn our_file(name: &str, mode: &str, body: &[u8]) -> Value {
    let digest = plywood::digest::Digest::of(body).hex();
    let path = plywood::dockerfile::ignore::clean(&format!("/{name}"));
    json!({ "op": "file", "actions": [tidy(json!({ "a": "mkfile", "path": path, "mode": mode, "len": body.len(), "sha256": digest }))] })
}

fn our_copy(copy: &CopyOp, out: &mut Vec<Value>) {
    let owner = copy.chown.as_deref().map(owner).unwrap_or_default();
    let mode = copy.chmod.as_deref().map_or(String::new(), |m| u32::from_str_radix(m, 8).map_or(m.to_string(), |n| format!("{n:o}")));
    let unpack = copy.add.as_ref().is_some_and(|add| add.unpack.unwrap_or(true));
    let remote_unpack = copy.add.as_ref().is_some_and(|add| add.unpack.unwrap_or(false));
    let clean = |path: &str| plywood::dockerfile::ignore::clean(&format!("/{path}"));
    let mut actions = Vec::new();
    for source in &copy.sources {
        let (src, wild, unpack, include) = match source {
            CopySource::Path(path, _) if copy.parents => {
                let (root, pattern) = path.split_once("/./").unwrap_or(("/", path));
                (clean(root), true, unpack, vec![clean(pattern).trim_start_matches('/').to_string()])
            }
            CopySource::Path(path, _) => (clean(path), true, unpack, Vec::new()),
            CopySource::Inline(name, body) => {
                out.push(our_file(name, "644", body));
                (clean(name), false, false, Vec::new())
            }
            CopySource::Http(url, _) => {
                out.push(json!({ "op": "source", "id": url }));
                (clean(&url_name(url)), false, remote_unpack, Vec::new())
            }
            CopySource::Git(..) => ("/".to_string(), false, false, Vec::new()),
        };
        if wild && copy.from == FileTree::Context(None) {
            out.push(json!({ "op": "source", "id": "local://context" }));
        }
        actions.push(tidy(json!({
            "a": "copy", "src": src, "dest": copy.dest, "owner": owner, "mode": mode, "unpack": unpack, "wild": wild, "dircontents": wild,
            "include": include, "exclude": copy.exclude,
        })));
    }
    if copy.link {
        out.push(json!({ "op": "merge", "n": 2 }));
    }
    out.push(json!({ "op": "file", "actions": actions }));
}

fn url_name(url: &str) -> String {
    let path =
        url.split(['?', '#']).next().unwrap_or_default().split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |p| p.1);
    let mut bytes = Vec::new();
    let mut rest = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().bytes();
    while let Some(b) = rest.next() {
        let pair = rest.clone().take(2).collect::<Vec<_>>();
        match std::str::from_utf8(&pair).ok().filter(|p| b == b'%' && p.len() == 2).and_then(|p| u8::from_str_radix(p, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest.nth(1);
            }
            None => bytes.push(b),
        }
    }
    if bytes.is_empty() { "__unnamed__".into() } else { String::from_utf8_lossy(&bytes).into_owned() }
}

/// Writes an owner as the recorder does, when it is numeric.
fn owner(spec: &str) -> String {
    let (user, group) = spec.split_once(':').map_or((spec, None), |(u, g)| (u, Some(g)));
    let part = |kind: &str, text: &str| match text {
        "" | "root" | "0" => format!("{kind}:{{byID:0}}"),
        text if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => format!("{kind}:{{byID:{text}}}"),
        text => format!("{kind}:{{byName:{{name:{text:?}}}}}"),
    };
    [Some(part("user", user)), group.map(|g| part("group", g))].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn their_operations(plan: &Value) -> Vec<Value> {
    let mut out = Vec::new();
    for op in plan.as_array().into_iter().flatten() {
        let mut op = op.clone();
        let Some(map) = op.as_object_mut() else { continue };
        map.remove("name");
        map.remove("attrs");
        if let Some(Value::Array(mounts)) = map.get_mut("mounts") {
            for mount in mounts.iter_mut().filter(|m| m["dest"] != "/dev/pipes/") {
                clean_path(&mut mount["dest"]);
            }
            mounts.sort_by_key(Value::to_string);
        }
        map.entry("cwd").and_modify(clean_path);
        for action in map.get_mut("actions").and_then(Value::as_array_mut).into_iter().flatten() {
            simplify_owner(action);
        }
        // The directory that a cache mount with a mode or an owner starts with is part of our mount.
        let cache_root = map.get("actions").is_some_and(|a| a[0]["path"] == "/cache" && a[0]["parents"] == false);
        let git = map.get("id").and_then(Value::as_str).is_some_and(|id| id.starts_with("git://"));
        if !git && !cache_root {
            out.push(op);
        }
    }
    settled(out)
}

/// Ours are cleaned, BuildKit leaves that to the kernel.
fn clean_path(path: &mut Value) {
    if let Value::String(text) = path {
        *text = plywood::dockerfile::ignore::clean(text);
    }
}

/// `user:{byID:2}  group:{byID:2}` → one blank; a number alone stands for both, which our side leaves out.
fn simplify_owner(action: &mut Value) {
    let Some(map) = action.as_object_mut() else { return };
    if let Some(Value::String(owner)) = map.get_mut("owner") {
        let words: Vec<String> = owner.split_whitespace().map(|w| w.to_string()).collect();
        *owner = words.join(" ").replace(" input:-1", "");
    }
}

fn settled(ops: Vec<Value>) -> Vec<Value> {
    let texts: BTreeSet<String> = ops.iter().map(Value::to_string).collect();
    texts.into_iter().map(|t| serde_json::from_str(&t).expect("what was written is JSON")).collect()
}

fn titles(graph: &BuildGraph) -> BTreeSet<String> {
    let needed = order::needed(graph);
    let step = |op: &Op| matches!(op, Op::Run(_) | Op::Copy(_) | Op::Mkdir(_));
    graph.nodes.iter().enumerate().filter(|(id, n)| needed[*id] && step(&n.op)).map(|(_, n)| n.title.clone()).collect()
}

fn their_titles(plan: &Value) -> BTreeSet<String> {
    let steps = plan.as_array().into_iter().flatten().filter(|op| op["op"] == "exec" || op["op"] == "file");
    let names = steps.filter_map(|op| op["name"].as_str().map(str::to_string));
    names.filter(|n| !n.starts_with("[internal]")).collect()
}

fn our_config(graph: &BuildGraph) -> Value {
    let config = &graph.stages[graph.target].config.config;
    tidy(serde_json::to_value(config).expect("a configuration is JSON"))
}

fn history(graph: &BuildGraph) -> Value {
    graph.history(graph.target).into_iter().map(|h| json!({ "created_by": h.created_by, "empty_layer": h.node.is_none() })).collect()
}

/// Findings of all stages as `Rule:line`, the lines being those of docker's report.
fn lint(graph: &BuildGraph) -> BTreeSet<String> {
    let line = |w: &plywood::dockerfile::source::Diagnostic| graph.source.line(w.lines.unwrap_or(w.span).start);
    graph.warnings.iter().filter_map(|w| Some(format!("{}:{}", w.rule?, line(w)))).collect()
}

#[derive(Default)]
struct Score {
    name: &'static str,
    agree: usize,
    all: usize,
    examples: Vec<String>,
}

impl Score {
    fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }
    fn note(&mut self, file: &str, same: bool, difference: impl FnOnce() -> String) {
        self.all += 1;
        self.agree += usize::from(same);
        if !same && self.examples.len() < 400 {
            self.examples.push(format!("{file}: {}", difference()));
        }
    }
    fn share(&self) -> f64 {
        if self.all == 0 { 1.0 } else { self.agree as f64 / self.all as f64 }
    }
}

fn both(ours: &Value, theirs: &Value) -> String {
    format!("\n      ours   {ours}\n      theirs {theirs}")
}

fn only(ours: &[Value], theirs: &[Value]) -> String {
    let left: Vec<_> = ours.iter().filter(|o| !theirs.contains(o)).map(Value::to_string).collect();
    let right: Vec<_> = theirs.iter().filter(|o| !ours.contains(o)).map(Value::to_string).collect();
    format!("\n      ours   {}\n      theirs {}", left.join(" "), right.join(" "))
}

/// Compares one set. What differs on purpose or by the recording: a file that is no UTF-8 is accepted; relative targets
/// of secrets are made absolute; `--link` onto scratch is no merge in BuildKit; equal steps of two stages have one title.
/// Returns the scores: verdict, plan, titles, config, history, lint.
fn compare(set: &str) -> Option<Vec<Score>> {
    let folder = corpus::folder()?;
    let files = corpus::files(&folder, set);
    let rows = corpus::answers(&folder, set);
    let planned: Vec<_> = rows.par_iter().map(|row| plan(&files[row["file"].as_str().expect("a name")])).collect();
    let mut scores = ["verdict", "plan", "titles", "config", "history", "lint"].map(Score::new);
    for (row, ours) in rows.iter().zip(&planned) {
        let file = row["file"].as_str().expect("a name");
        let theirs = row["plan_status"] == "ok";
        scores[0].note(file, ours.is_ok() == theirs, || {
            let ours = ours.as_ref().err().map_or("accepted", String::as_str);
            format!("ours {ours}; theirs {}", row["error"])
        });
        let Ok((graph, mine)) = ours else { continue };
        if !theirs {
            continue;
        }
        let (operations, other) = (our_operations(graph), their_operations(&row["plan"]));
        scores[1].note(file, operations == other, || only(&operations, &other));
        let (shown, other) = (titles(graph), their_titles(&row["plan"]));
        scores[2].note(file, shown == other, || format!("{:?}", shown.symmetric_difference(&other).collect::<Vec<_>>()));
        let (config, other) = (our_config(graph), tidy(row["config"].clone()));
        scores[3].note(file, config == other, || both(&config, &other));
        let (texts, other) = (history(graph), row.get("history").filter(|h| !h.is_null()).cloned().unwrap_or(json!([])));
        scores[4].note(file, texts == other, || both(&texts, &other));
        let other: BTreeSet<String> = row["lint"].as_array().into_iter().flatten().filter_map(|l| l.as_str().map(str::to_string)).collect();
        scores[5].note(file, *mine == other, || {
            let left: Vec<_> = mine.difference(&other).collect();
            let right: Vec<_> = other.difference(mine).collect();
            format!("only ours {left:?}; only theirs {right:?}")
        });
    }
    Some(scores.into())
}

fn hold(set: &str, least: [f64; 6]) {
    let Some(scores) = compare(set) else { return };
    let shown = std::env::var("PLY_CORPUS_SHOW").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut failed = Vec::new();
    for (score, least) in scores.iter().zip(least) {
        println!("{set:6} {:8} {:6} of {:6} agree: {:.3} %", score.name, score.agree, score.all, score.share() * 100.0);
        score.examples.iter().take(shown).for_each(|e| println!("    {e}"));
        if score.share() < least {
            failed.push(format!("{}: {:.5} < {least}", score.name, score.share()));
        }
    }
    assert!(failed.is_empty(), "{set}: {}", failed.join(", "));
}

#[test]
fn wild_files_are_planned_as_buildkit_does() {
    hold("wild", [1.0, 0.999, 0.998, 1.0, 1.0, 1.0]);
}

#[test]
fn micro_files_are_planned_as_buildkit_does() {
    hold("micro", [1.0, 0.998, 0.998, 1.0, 1.0, 0.997]);
}

#[test]
fn fuzzed_files_are_planned_as_buildkit_does() {
    hold("fuzz", [0.998, 0.999, 0.998, 1.0, 1.0, 0.997]);
}

/// Formats a file; says what is wrong when that changes the plan, or when formatting again changes the text.
fn format_and_plan(text: &[u8], before: &BuildGraph) -> Result<bool, String> {
    let source = Source::new("Dockerfile", String::from_utf8_lossy(text));
    let parts = format::format(&source).map_err(|e| e.to_string())?;
    let once = format::text(&parts);
    let (after, _) = plan(once.as_bytes()).map_err(|e| format!("no longer planned: {e}"))?;
    for (what, before, after) in [
        ("operations", json!(our_operations(before)), json!(our_operations(&after))),
        ("configuration", our_config(before), our_config(&after)),
        ("history", history(before), history(&after)),
    ] {
        if before != after {
            return Err(format!("{what} differ: {}", both(&before, &after)));
        }
    }
    let again = Source::new("Dockerfile", once.as_str());
    let twice = format::text(&format::format(&again).map_err(|e| e.to_string())?);
    if twice == once { Ok(once != source.text()) } else { Err(format!("formatting again gives\n{twice}\ninstead of\n{once}")) }
}

#[test]
fn formatting_keeps_every_plan() {
    let Some(folder) = corpus::folder() else { return };
    for set in ["wild", "micro", "fuzz"] {
        let files = corpus::files(&folder, set);
        let planned: Vec<_> = files.par_iter().filter_map(|(name, text)| plan(text).ok().map(|(graph, _)| (name, text, graph))).collect();
        let results: Vec<_> = planned.par_iter().map(|(name, text, graph)| (name, format_and_plan(text, graph))).collect();
        let changed = results.iter().filter(|(_, result)| *result == Ok(true)).count();
        println!("{set:6} fmt      {changed:6} of {:6} files change, and no plan", results.len());
        let wrong: Vec<String> = results.iter().filter_map(|(name, r)| r.as_ref().err().map(|e| format!("{name}: {e}"))).take(20).collect();
        assert!(wrong.is_empty(), "{set}: {}", wrong.join("\n"));
    }
}
