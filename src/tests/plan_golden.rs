//! Golden plans: each folder of `testdata/plan` holds a `Dockerfile` and, in `expect.txt`, the graph that it gives: each
//! step with all that decides it, the configuration, the history, what the checks found; or the error with its place.
//!
//! Facts are fixed: linux/amd64, every image with one configuration, except that `onbuild` has triggers, `shell` a SHELL,
//! `amd64only` that platform whatever was asked for, and `empty` nothing. A file `facts` may hold `NAME=VALUE` build arguments, `target NAME`, `platform P` and
//! `ignore PATTERN` lines. A new case is a new folder; `PLY_BLESS=1 cargo test --test plan_golden` writes `expect.txt`.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.

mod golden;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use golden::diagnostic;
use libtest_mimic::Failed;
use plywood::dockerfile;
use plywood::dockerfile::ignore::IgnoreRules;
use plywood::dockerfile::source::{Diagnostic, Source};
use plywood::graph::lower::lower_with;
use plywood::graph::{
    BuildGraph, CopyOp, CopySource, Facts, FileTree, ImageRequest, ImageSource, Mount, NetworkMode, Node, Op, RunOp, StageChoice, order,
};
use plywood::image::config::ImageConfig;
use plywood::image::platform::Platform;

fn main() {
    golden::run("plan", |case| {
        let bytes = std::fs::read(case.join("Dockerfile"))?;
        let source = Source::new("Dockerfile", String::from_utf8_lossy(&bytes));
        let facts = facts(&case.join("facts"))?;
        Ok(match plan(&source, facts) {
            Ok(graph) => print(&graph),
            Err(error) => diagnostic(&error),
        })
    });
}

fn plan(source: &Arc<Source>, mut facts: Facts) -> Result<BuildGraph, Diagnostic> {
    let check = facts.build_args.get("BUILDKIT_DOCKERFILE_CHECK").cloned();
    let file = dockerfile::parse_with_check_override(source, check.as_deref())?;
    // Whatever SOURCE_DATE_EPOCH names has no time here.
    lower_with(&file, &mut facts, base, |_| None)
}

fn facts(file: &Path) -> Result<Facts, Failed> {
    let amd64 = Platform::new("linux", "amd64", "");
    let mut facts = Facts {
        build_args: BTreeMap::new(),
        build_platform: amd64.clone(),
        target_platform: amd64,
        target: None,
        stages: StageChoice::Needed,
        named_contexts: BTreeMap::new(),
        images: BTreeMap::new(),
        labels: Vec::new(),
        network: NetworkMode::Default,
        allow: Vec::new(),
        add_hosts: Vec::new(),
        no_context: false,
        epoch: None,
        ignore: None,
    };
    let mut ignored = Vec::new();
    for line in std::fs::read_to_string(file).unwrap_or_default().lines() {
        match (line.split_once(' '), line.split_once('=')) {
            (Some(("target", name)), _) => facts.target = Some(name.to_owned()),
            (Some(("platform", text)), _) => facts.target_platform = text.parse().map_err(|e| format!("{text}: {e}"))?,
            (Some(("ignore", pattern)), _) => ignored.push(pattern.to_owned()),
            (_, Some((name, value))) => {
                facts.build_args.insert(name.to_owned(), value.to_owned());
            }
            _ => return Err(format!("no fact: {line}").into()),
        }
    }
    facts.ignore = Some(Arc::new(IgnoreRules::from_patterns(ignored)?));
    Ok(facts)
}

fn base(request: &ImageRequest) -> ImageConfig {
    let mut config =
        ImageConfig { os: request.platform.os.clone(), architecture: request.platform.architecture.clone(), ..Default::default() };
    let name = match &request.source {
        ImageSource::Reference(reference) => reference.trim_start_matches("docker.io/library/").trim_end_matches(":latest"),
        other => panic!("{other:?}"),
    };
    if name == "empty" {
        return config;
    }
    config.config.env = vec!["PATH=/bin".into(), "HOME=/root".into()];
    config.config.cmd = Some(vec!["sh".into()]);
    match name {
        "onbuild" => config.config.on_build = vec!["ARG version=1".into(), "COPY . /src".into(), "RUN make $version".into()],
        "amd64only" => config.architecture = "amd64".into(),
        "shell" => config.config.shell = Some(vec!["/bin/bash".into(), "-c".into()]),
        _ => {}
    }
    config
}

fn print(graph: &BuildGraph) -> String {
    let mut text = String::new();
    let needed = order::needed(graph);
    for (id, node) in graph.nodes.iter().enumerate().filter(|(id, _)| needed[*id]) {
        let _ = writeln!(text, "{id} {}{}", node.title, node.parent.map_or(String::new(), |parent| format!(" <- {}", parent.0)));
        operation(&mut text, node);
    }
    let stage = &graph.stages[graph.target];
    let _ = writeln!(text, "result {} {}", stage.last.0, stage.platform);
    let config = serde_json::to_value(&stage.config.config).expect("a configuration is JSON");
    for (key, value) in config.as_object().expect("an object").iter().filter(|(_, value)| !value.is_null()) {
        let _ = writeln!(text, "  {key} {value}");
    }
    for entry in graph.history(graph.target) {
        let _ = writeln!(text, "history {}{}", entry.created_by, if entry.node.is_none() { " (empty)" } else { "" });
    }
    if let Some(epoch) = graph.epoch {
        let _ = writeln!(text, "epoch {epoch}");
    }
    graph.warnings.iter().for_each(|warning| text += &diagnostic(warning));
    text
}

fn operation(text: &mut String, node: &Node) {
    let _ = match &node.op {
        Op::Base(None) => writeln!(text, "  scratch"),
        Op::Base(Some(ImageRequest { source: ImageSource::Reference(reference), platform })) => writeln!(text, "  {reference} {platform}"),
        Op::Base(Some(other)) => writeln!(text, "  {other:?}"),
        Op::Run(run) => return self::run(text, run),
        Op::Copy(copy) => return self::copy(text, copy),
        Op::Mkdir(made) => writeln!(text, "  mkdir {:?} user {:?}", made.path, made.user),
    };
}

fn run(text: &mut String, run: &RunOp) {
    let env: Vec<String> = run.env.iter().chain(&run.proxy_env).map(|(name, value)| format!("{name}={value}")).collect();
    let _ = writeln!(text, "  argv {:?}\n  env {env:?}\n  cwd {:?} user {:?} network {:?}", run.argv, run.cwd, run.user, run.network);
    for Mount { target, kind, readonly, .. } in &run.mounts {
        let _ = writeln!(text, "  mount {target:?} {kind:?}{}", if *readonly { " readonly" } else { "" });
    }
    for (name, body) in &run.scripts {
        let _ = writeln!(text, "  script {name:?} {:?}", String::from_utf8_lossy(body));
    }
    if run.hostname != "buildkitsandbox" {
        let _ = writeln!(text, "  hostname {}", run.hostname);
    }
}

fn copy(text: &mut String, copy: &CopyOp) {
    let CopyOp { sources, from, dest, chown, chmod, link, parents, exclude, add } = copy;
    let source = |source: &CopySource| match source {
        CopySource::Path(path, _) => format!("{path:?}"),
        CopySource::Inline(name, body) => format!("<<{name} {:?}", String::from_utf8_lossy(body)),
        CopySource::Http(url, _) => format!("http {url:?}"),
        CopySource::Git(url, _) => format!("git {url:?}"),
    };
    let from = match from {
        FileTree::Context(None) => "context".to_owned(),
        FileTree::Context(Some(name)) => format!("context {name}"),
        FileTree::Node(id) => id.0.to_string(),
    };
    let sources = sources.iter().map(source).collect::<Vec<_>>().join(" ");
    let _ = writeln!(text, "  copy {sources} from {from} to {dest:?}");
    let flags = [
        chown.as_ref().map(|owner| format!("chown {owner:?}")),
        chmod.as_ref().map(|mode| format!("chmod {mode:?}")),
        link.then(|| "link".to_owned()),
        parents.then(|| "parents".to_owned()),
        (!exclude.is_empty()).then(|| format!("exclude {exclude:?}")),
        add.as_ref().map(|add| format!("{add:?}")),
    ];
    let flags: Vec<String> = flags.into_iter().flatten().collect();
    if !flags.is_empty() {
        let _ = writeln!(text, "  {}", flags.join(" "));
    }
}
