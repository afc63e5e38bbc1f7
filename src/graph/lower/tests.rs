//! What the recorded corpora can't show: build arguments, named contexts, targets, entitlements, triggers, messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{lower, lower_with};
use crate::dockerfile::ignore::IgnoreRules;
use crate::dockerfile::source::{Diagnostic, Source};
use crate::graph::uses::{PathUse, context_paths};
use crate::graph::{
    BuildGraph, Entitlement, EpochSource, Facts, FileTree, ImageRequest, ImageSource, Lowered, NamedContext, NetworkMode, Op, RunOp,
    StageChoice, order,
};
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;

fn facts() -> Facts {
    let platform = Platform::new("linux", "amd64", "");
    Facts {
        build_args: BTreeMap::new(),
        build_platform: platform.clone(),
        target_platform: platform,
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
    }
}

fn base_image(request: &ImageRequest) -> ImageConfig {
    let mut config = ImageConfig { os: "linux".into(), architecture: request.platform.architecture.clone(), ..Default::default() };
    config.config.env = vec!["PATH=/bin".into()];
    if matches!(&request.source, ImageSource::Reference(r) if r.contains("onbuild")) {
        config.config.on_build = vec!["ENV FROM_TRIGGER=$X".into(), "COPY --from=tool /t /t".into(), "RUN make".into()];
    }
    config
}

fn graph(text: &str, mut facts: Facts) -> Result<BuildGraph, Diagnostic> {
    let file = crate::dockerfile::parse(&Source::new("Dockerfile", text))?;
    // `timeless` stands for whatever has no time.
    let epoch = |source: &EpochSource| (*source != EpochSource::Named("timeless".into())).then_some(1_700_000_000);
    lower_with(&file, &mut facts, base_image, epoch)
}

fn runs(graph: &BuildGraph) -> Vec<&RunOp> {
    graph.nodes.iter().filter_map(|n| if let Op::Run(run) = &n.op { Some(&**run) } else { None }).collect()
}

fn args(pairs: &[(&str, &str)]) -> Facts {
    Facts { build_args: pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(), ..facts() }
}

#[test]
fn build_arguments_win_over_defaults_and_latest_declarations_over_earlier_ones() {
    let text = "ARG G=global\nFROM a\nARG G\nARG A=1 B=$A\nENV A=env\nARG A=2\nARG C=${nothing:?never}\nRUN x\n";
    let graph = graph(text, args(&[("B", "given"), ("C", "c"), ("HTTP_PROXY", "p")])).unwrap();
    let run = runs(&graph)[0];
    let pair = |k: &str, v: &str| (k.to_string(), v.to_string());
    let env: Vec<_> = run.env.iter().cloned().collect();
    assert_eq!(env, [pair("PATH", "/bin"), pair("G", "global"), pair("B", "given"), pair("A", "2"), pair("C", "c")]);
    assert_eq!(run.proxy_env, [pair("HTTP_PROXY", "p"), pair("http_proxy", "p")]);
    let stage = &graph.stages[graph.target];
    assert_eq!(stage.history.last().unwrap().created_by, "RUN |4 G=global A=2 B=given C=c /bin/sh -c x # buildkit");
    assert_eq!(stage.config.config.env, ["PATH=/bin", "A=env"]);
}

#[test]
fn a_target_drops_what_it_does_not_need() {
    let text = "FROM a AS one\nRUN 1\nFROM b AS two\nRUN 2\nFROM one AS Three\nCOPY --from=two /x /y\nFROM c\nRUN 4\n";
    let only = |target: &str| {
        let graph = graph(text, Facts { target: Some(target.into()), ..facts() }).unwrap();
        let stages: Vec<usize> = graph.stages.iter().map(|s| s.index).collect();
        (stages, graph.nodes.len(), order::levels(&graph).len())
    };
    assert_eq!(only("THREE"), (vec![0, 1, 2], 5, 3));
    assert_eq!(only("two"), (vec![1], 2, 2));
}

#[test]
fn errors_name_the_thing_and_the_line() {
    for (text, facts, want) in [
        ("FROM a AS one\nCOPY --from=one /a /b", facts(), "2: circular dependency detected on stage: one"),
        ("FROM a\nCOPY --from=3 /a /b", facts(), "2: invalid stage index 3: the file has 1 stages"),
        (
            "FROM a AS one\nCOPY --from=two /a /b\nFROM b AS two",
            Facts { target: Some("one".into()), ..facts() },
            "2: cannot copy from stage `two`, it needs to be defined before current stage `one`",
        ),
        ("FROM a AS builder", Facts { target: Some("bulder".into()), ..facts() }, "1: target stage `bulder` could not be found"),
        ("FROM a\nRUN --network=host x", facts(), "2: the entitlement network.host is not allowed"),
        ("FROM a\nRUN --security=insecure x", facts(), "2: the entitlement security.insecure is not allowed"),
        ("FROM a\nCOPY f /f", Facts { no_context: true, ..facts() }, "2: COPY source `f`: not found, as there is no build context"),
        ("FROM a\nCOPY https://x/f /f", facts(), "2: COPY source can't be a URL: `https://x/f`"),
        ("FROM $none", facts(), "1: base name ($none) should not be blank"),
        ("FROM a\nWORKDIR /${dir?}", facts(), "2: failed to process `/${dir?}`: dir: is not allowed to be unset"),
        (
            "FROM a",
            args(&[("SOURCE_DATE_EPOCH", "yesterday")]),
            "1: invalid SOURCE_DATE_EPOCH: `yesterday` is no number of seconds, context or stage",
        ),
        ("FROM a\nRUN --mount=target=/ x", facts(), "2: invalid mount target `/`: the root itself can't be a mount point"),
        ("# check=error=true\nFROM a\nMAINTAINER me", facts(), "3: lint violation found for rules: MaintainerDeprecated"),
    ] {
        let error = graph(text, facts).unwrap_err();
        let line = error.source.as_ref().unwrap().line(error.span.start);
        assert_eq!(format!("{line}: {}", error.message), want, "{text}");
    }
}

#[test]
fn triggers_fire_first_and_bring_their_needs() {
    let text = "FROM t AS tool\nRUN tool\nFROM onbuild AS app\nARG X=1\nRUN own\n";
    let graph = graph(text, facts()).unwrap();
    let argv: Vec<&str> = runs(&graph).iter().map(|r| r.argv[2].as_str()).collect();
    assert_eq!(argv, ["tool", "make", "own"]);
    let make = graph.nodes.iter().find(|n| n.onbuild.as_deref() == Some("RUN make")).unwrap();
    assert_eq!(make.title, "[app 3/5] ONBUILD RUN make");
    assert_eq!(graph.source.line(make.span.start), 3);
    let config = &graph.stages[graph.target].config.config;
    assert_eq!((config.env.as_slice(), config.on_build.len()), (["PATH=/bin".to_string(), "FROM_TRIGGER=".into()].as_slice(), 0));
}

#[test]
fn named_contexts_replace_images_and_stages() {
    let image = |name: &str| NamedContext::Image(ImageSource::Reference(name.into()));
    let named = [
        ("alpine".to_string(), image("docker.io/library/other:1")),
        ("files".into(), NamedContext::Files),
        ("dep".into(), image("x.io/dep:2")),
    ];
    let text = "FROM nowhere AS dep\nRUN never\nFROM docker.io/library/alpine\nCOPY --from=files a* /a\nCOPY --from=dep /d /d\n";
    let graph = graph(text, Facts { named_contexts: named.into(), ..facts() }).unwrap();
    assert!(runs(&graph).is_empty());
    let mut bases = Vec::new();
    let mut trees = Vec::new();
    for node in &graph.nodes {
        match &node.op {
            Op::Base(Some(request)) => bases.push(request.source.clone()),
            Op::Copy(copy) => trees.push(copy.from.clone()),
            _ => {}
        }
    }
    assert_eq!(bases, [ImageSource::Reference("x.io/dep:2".into()), ImageSource::Reference("docker.io/library/other:1".into())]);
    assert_eq!(trees[0], FileTree::Context(Some("files".into())));
    assert!(matches!(trees[1], FileTree::Node(_)));
    assert_eq!(context_paths(&graph), BTreeMap::from([(Some("files".into()), PathUse::Everything)]));
}

#[test]
fn only_what_steps_read_is_walked() {
    let text = "FROM a\nCOPY src/*.c go.mod ../x /d/\nADD --chown=1 deep/dir /d\nRUN --mount=target=/m,source=tools x\n";
    let paths = ["src", "go.mod", "x", "deep/dir", "tools"].map(String::from);
    let want = BTreeMap::from([(None, PathUse::Below(paths.into()))]);
    assert_eq!(context_paths(&graph(text, facts()).unwrap()), want);
    assert_eq!(context_paths(&graph("FROM a\nCOPY . /\n", facts()).unwrap()), BTreeMap::from([(None, PathUse::Everything)]));
}

#[test]
fn heredocs_become_scripts_files_or_stay_the_shells() {
    let text = "FROM a\nRUN <<EOF\n$X\nEOF\nRUN <<-E\n\t#!/bin/x\n\ty\nE\nRUN cat <<A && y\nb\nA\nARG X=1\nCOPY <<f /f\n\"$X\" \\$X\nf\n";
    let graph = graph(text, facts()).unwrap();
    let argv: Vec<&str> = runs(&graph).iter().map(|r| r.argv[2].as_str()).collect();
    assert_eq!(argv, ["$X\n", "/dev/pipes/E", "cat <<A && y\nb\nA"]);
    assert_eq!(runs(&graph)[1].scripts, [("E".to_string(), b"#!/bin/x\ny\n".to_vec())]);
    let Op::Copy(copy) = &graph.nodes.last().unwrap().op else { panic!("the last step is COPY") };
    assert_eq!(copy.sources, [crate::graph::CopySource::Inline("f".into(), b"\"1\" $X\n".to_vec())]);
}

#[test]
fn findings_that_need_more_than_the_text() {
    let text = "ARG V\nFROM --platform=linux/arm64 a:${VV} AS x\nWORKDIR rel\nCOPY secret.txt $undefined/d\nENV A=$A\n";
    let ignore = Some(Arc::new(IgnoreRules::parse("secret.txt").unwrap()));
    let graph = graph(text, Facts { ignore, ..args(&[("TYPO", "1")]) });
    // `a:` is no reference once VV is empty.
    assert!(graph.unwrap_err().message.contains("failed to parse stage name `a:`"));
    let text = text.replace("a:${VV}", "a${VV}");
    let ignore = Some(Arc::new(IgnoreRules::parse("secret.txt").unwrap()));
    let found = super::tests::graph(&text, Facts { ignore, ..args(&[("TYPO", "1")]) }).unwrap();
    let mut rules: Vec<&str> = found.warnings.iter().filter_map(|w| w.rule).collect();
    rules.sort_unstable();
    assert_eq!(
        rules,
        ["CopyIgnoredFile", "FromPlatformFlagConstDisallowed", "UndefinedArgInFrom", "UndefinedVar", "UndefinedVar", "WorkdirRelativePath"]
    );
    assert!(found.warnings.iter().any(|w| w.rule.is_none() && w.message.contains("TYPO")));
}

#[test]
fn labels_of_the_command_line_come_last() {
    let labels = vec![("k".to_string(), "cli".to_string())];
    let allow = vec![Entitlement::NetworkHost];
    let graph = graph("FROM scratch\nLABEL k=file\nRUN --network=host [\"x\"]", Facts { labels, allow, ..facts() }).unwrap();
    assert_eq!(graph.stages[0].config.config.labels, BTreeMap::from([("k".to_string(), "cli".to_string())]));
    assert_eq!(runs(&graph)[0].network, NetworkMode::Host);
}

/// Returns the error of a file that can't be lowered.
pub(super) fn error_of(text: &str) -> Diagnostic {
    match graph(text, facts()) {
        Ok(_) => panic!("it is lowered: {} bytes", text.len()),
        Err(error) => error,
    }
}
fn found(text: &str, facts: Facts) -> Vec<String> {
    let graph = graph(text, facts).unwrap_or_else(|e| panic!("{text}: {e}"));
    let line = |span: crate::dockerfile::source::Span| graph.source.line(span.start);
    graph.warnings.iter().map(|w| format!("{}:{}:{}", w.rule.unwrap_or("-"), line(w.span), line(w.lines.unwrap_or(w.span)))).collect()
}

#[test]
fn what_depends_on_a_stages_state_is_found() {
    for (text, want) in [
        ("FROM a\nCMD b\nSHELL [\"c\"]\nENTRYPOINT d\n", vec!["JSONArgsRecommended:2:2"]),
        ("FROM a AS s\nSHELL [\"c\"]\nFROM s\nCMD d\n", vec![]),
        ("FROM a\nCMD []\nCMD []\nCMD []\n", vec!["MultipleInstructionsDisallowed:2:2", "MultipleInstructionsDisallowed:3:3"]),
        ("FROM a AS s\nCMD []\nFROM s\nCMD []\n", vec![]),
        ("FROM a\nENV b c\nLABEL d e\nENV f=g\n", vec!["LegacyKeyValueFormat:2:2", "LegacyKeyValueFormat:3:3"]),
        ("ARG TOKEN\nFROM a\nARG TOKEN\nENV A=2 \\\n KEY=1\n", vec!["SecretsUsedInArgOrEnv:3:3", "SecretsUsedInArgOrEnv:5:4"]),
        ("FROM a\nARG K=KEY\nENV API_$K=1 $K=2\n", vec!["SecretsUsedInArgOrEnv:3:3", "SecretsUsedInArgOrEnv:3:3"]),
        ("FROM a\nARG P=3/TCP\nEXPOSE 80/TCP 1:2 $P\n", vec!["ExposeProtoCasing:3:3", "ExposeInvalidFormat:3:3", "ExposeProtoCasing:3:3"]),
        ("FROM a\n# check=skip=LegacyKeyValueFormat\nENV b c\nENV d e\n", vec!["LegacyKeyValueFormat:4:4"]),
        ("FROM a AS s\nENV b c\nFROM a\n", vec![]),
        ("FROM a\nRUN a \\\n\n b\n", vec!["NoEmptyContinuation:3:4"]),
        (
            "FROM a AS s\nONBUILD ENV TOKEN 1\nONBUILD CMD b\nFROM s\nCMD []\n",
            vec!["LegacyKeyValueFormat:4:4", "SecretsUsedInArgOrEnv:4:4", "JSONArgsRecommended:4:4", "MultipleInstructionsDisallowed:4:4"],
        ),
    ] {
        assert_eq!(found(text, facts()), want, "{text}");
    }
}

#[test]
fn a_check_without_a_target_looks_at_all_stages() {
    let text = "FROM a AS s\nENV b c\nFROM a AS t\nENV d e\n";
    let all = Facts { stages: StageChoice::All, ..facts() };
    assert_eq!(found(text, all), ["LegacyKeyValueFormat:2:2", "LegacyKeyValueFormat:4:4"]);
    assert_eq!(found(text, Facts { target: Some("s".into()), ..facts() }), ["LegacyKeyValueFormat:2:2"]);
}

#[test]
fn what_is_given_and_has_no_effect_is_said() {
    let said = |text: &str, facts: Facts| -> Vec<String> {
        let graph = graph(text, facts).unwrap_or_else(|e| panic!("{text}: {e}"));
        graph.warnings.iter().filter(|w| w.rule.is_none()).map(|w| format!("{w} ({})", w.hint.as_deref().unwrap_or("-"))).collect()
    };
    let contexts =
        |names: &[&str]| Facts { named_contexts: names.iter().map(|n| (n.to_string(), NamedContext::Files)).collect(), ..facts() };
    for (text, facts, want) in [
        ("ARG A=1\nFROM x:$A\n", facts(), ""),
        ("ARG A=1\nARG B=$A\nFROM x:${B}\n", facts(), ""),
        ("ARG A\nFROM x\nARG A\n", facts(), ""),
        ("ARG TARGETARCH\nARG SOURCE_DATE_EPOCH=1\nFROM x\n", facts(), ""),
        (
            "ARG A=1\nFROM x\n",
            facts(),
            "Dockerfile:1:5: ARG `A` is not used (no FROM refers to it, and no stage has an ARG of that name; `# check=skip=UnusedGlobalArg` silences this)",
        ),
        (
            "ARG A=1\nFROM x\nRUN echo $A\n",
            facts(),
            "Dockerfile:1:5: ARG `A` is not used (before FROM it counts for FROM lines only: the stage that uses it (line 3) needs an `ARG A` of its own; `# check=skip=UnusedGlobalArg` silences this)",
        ),
        ("# check=skip=UnusedGlobalArg\nARG A=1\nFROM x\n", facts(), ""),
        ("# check=skip=all;error=true\nARG A=1\nFROM x\n", facts(), ""),
        (
            "# check=error=true\nARG A=1\nFROM x\n",
            facts(),
            "Dockerfile:2:5: ARG `A` is not used (no FROM refers to it, and no stage has an ARG of that name; `# check=skip=UnusedGlobalArg` silences this)",
        ),
        (
            "FROM x\nARG VERSION\n",
            args(&[("VERSON", "1")]),
            "build argument `VERSON` is not used (no ARG declares it (did you mean `VERSION`?); `# check=skip=UnusedBuildArg` silences this)",
        ),
        ("FROM x\nCOPY --from=assets . .\n", contexts(&["assets"]), ""),
        ("FROM x\nRUN --mount=from=assets,target=/a true\n", contexts(&["assets"]), ""),
        ("FROM x AS assets\nFROM y\n", contexts(&["assets"]), ""),
        ("FROM x\n", contexts(&["other::linux/arm64"]), ""),
        (
            "FROM x\nCOPY --from=assets . .\n",
            contexts(&["asets"]),
            "build context `asets` is not used (no FROM, COPY --from or mount names it (did you mean `assets`?); `# check=skip=UnusedBuildContext` silences this)",
        ),
    ] {
        assert_eq!(said(text, facts).join("\n"), want, "{text}");
    }
}

#[test]
fn a_context_can_stand_for_a_stage_of_the_file() {
    let to = |stage: &str| Facts { named_contexts: BTreeMap::from([("x".into(), NamedContext::Stage(stage.into()))]), ..facts() };
    let graph_of =
        |text: &str, stage: &str| graph(text, to(stage)).map(|g| g.stages.iter().filter_map(|s| s.name.clone()).collect::<Vec<_>>());
    assert_eq!(graph_of("FROM a AS base\nFROM x AS top\n", "Base").unwrap(), ["base", "top"]);
    assert_eq!(graph_of("FROM a AS base\nFROM b AS top\nCOPY --from=x . .\n", "base").unwrap(), ["base", "top"]);
    let late = graph_of("FROM x AS top\nFROM a AS base\nFROM top\n", "base").unwrap_err();
    assert!(late.to_string().contains("comes later"), "{late}");
}

#[test]
fn an_epoch_that_is_no_number_is_asked_for_and_then_counts_as_given() {
    use crate::address::GitAddress;
    use crate::graph::CopySource;
    let mut named = args(&[("SOURCE_DATE_EPOCH", "timeless")]);
    named.named_contexts.insert("timeless".into(), NamedContext::Files);
    let dated = "FROM a\nARG SOURCE_DATE_EPOCH\nRUN x\nFROM scratch AS src\nARG V=1\nADD https://x/$V.tar /\n";
    let want = |text: &str| runs(&graph(text, args(&[])).unwrap())[0].env.iter().cloned().collect::<Vec<_>>();
    assert_eq!(want("ARG SOURCE_DATE_EPOCH=context\nFROM a\nARG SOURCE_DATE_EPOCH\nRUN x")[1].1, "1700000000");
    for (text, facts, epoch, arg) in [
        ("FROM a\nARG SOURCE_DATE_EPOCH\nRUN x", args(&[("SOURCE_DATE_EPOCH", "context")]), Some(1_700_000_000), Some("1700000000")),
        ("FROM a\nARG SOURCE_DATE_EPOCH\nRUN x", args(&[("SOURCE_DATE_EPOCH", "7")]), Some(7), Some("7")),
        ("FROM a\nARG SOURCE_DATE_EPOCH\nRUN x", named, None, None),
        (dated, Facts { target: Some("0".into()), ..args(&[("SOURCE_DATE_EPOCH", "src")]) }, Some(1_700_000_000), Some("1700000000")),
    ] {
        let facts = Facts { target: None, ..facts };
        let text = text
            .replace("FROM a\nARG SOURCE_DATE_EPOCH\nRUN x\nFROM scratch", "FROM a AS first\nARG SOURCE_DATE_EPOCH\nRUN x\nFROM scratch");
        let target = text.contains("first").then(|| "first".to_string());
        let graph = graph(&text, Facts { target, ..facts }).unwrap();
        assert_eq!(graph.epoch, epoch, "{text}");
        let env = &runs(&graph)[0].env;
        assert_eq!(env.iter().find(|(n, _)| n == "SOURCE_DATE_EPOCH").map(|(_, v)| v.as_str()), arg, "{text}");
    }
    let file = crate::dockerfile::parse(&Source::new("Dockerfile", "FROM scratch AS s\nADD https://h/x.git#v1 /\n")).unwrap();
    let Ok(Lowered::NeedsEpoch(EpochSource::Remote(CopySource::Git(address, _), None))) =
        lower(&file, &args(&[("SOURCE_DATE_EPOCH", "S")]))
    else {
        panic!("a stage that adds a repository has its time");
    };
    assert_eq!(Some(*address), GitAddress::parse("https://h/x.git#v1").unwrap());
}

#[test]
fn credentials_are_in_no_title_and_no_history() {
    let text = "FROM a\nADD https://me:pw@h/f https://tok@h/r.git#main /d/\n";
    let graph = graph(text, facts()).unwrap();
    let stage = &graph.stages[graph.target];
    assert_eq!(stage.history[0].created_by, "ADD https://xxxxx:xxxxx@h/f https://xxxxx@h/r.git#main /d/ # buildkit");
    assert!(graph.nodes.iter().all(|n| !n.title.contains("pw@") && !n.title.contains("tok@")), "{:?}", graph.nodes);
}

#[test]
fn an_error_in_a_heredoc_stands_in_its_line() {
    for (text, want) in [
        ("FROM a\nCOPY <<A /x\nok $X\nbad ${X:?must}\nA\n", "Dockerfile:4:1: failed to process `bad ${X:?must}`: X: must"),
        ("FROM a\nCOPY <<-A /x\n\tok\n\t${X\nA\n", "Dockerfile:4:1: failed to process `${X`"),
    ] {
        let error = graph(text, facts()).unwrap_err();
        assert!(error.to_string().starts_with(want) && error.hint.is_some(), "{error}");
    }
}

#[test]
fn an_error_of_a_trigger_shows_it() {
    let error = graph("FROM a AS b\nONBUILD RUN --mount=type=no x\nFROM b\n", facts()).unwrap_err();
    assert_eq!(error.to_string(), "Dockerfile:3:1: unsupported mount type `no`");
    assert_eq!(error.label.as_deref(), Some("its trigger `RUN --mount=type=no x`"));
}
