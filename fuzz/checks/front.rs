//! Bytes as a Dockerfile: scan, parse, stages, graph, configuration.
//!
//! Fixed facts: no build arguments, linux/amd64, one configuration for every base image, except that an image whose name
//! has `onbuild` in it brings triggers. Checked is what holds for every input: no panic, all places lie within the text
//! and on character boundaries, what was accepted stays small. Time and memory are the fuzzer's to limit.
//!
//! Shared by the fuzz target and by `src/tests/fuzz_corpus.rs`, which replays `testdata/fuzz/front` on a stable toolchain.

use std::collections::BTreeMap;
use std::sync::Arc;

use plywood::dockerfile::instruction::{CopyArg, File, Instruction, Kind, Word};
use plywood::dockerfile::source::{Diagnostic, Source, Span};
use plywood::dockerfile::{parse, parse_trigger};
use plywood::graph::lower::lower;
use plywood::graph::{BuildGraph, Entitlement, Facts, ImageRequest, ImageSource, Lowered, NetworkMode, StageChoice, order};
use plywood::image::config::ImageConfig;
use plywood::image::platform::Platform;

/// Takes the bytes through the whole front; panics when something does not hold.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let source = Source::new("Dockerfile", text.as_ref());
    match parse(&source) {
        Ok(file) => {
            check_file(&source, &file);
            check_graph(&source, &file);
        }
        Err(error) => check_diagnostic(&source, &error),
    }
    // The same text as an image's trigger: it has a source of its own.
    for escape in ['\\', '`'] {
        match parse_trigger(&text, escape) {
            Ok(instruction) => assert!(instruction.span.end as usize <= text.len()),
            Err(error) => assert!(error.span.end as usize <= text.len()),
        }
    }
}

fn check_file(source: &Arc<Source>, file: &File) {
    let own = file.stages.iter().flat_map(|stage| std::iter::once(&stage.instruction).chain(&stage.instructions));
    let mut last_start = 0;
    for instruction in file.global_args.iter().chain(own) {
        check_instruction(source, instruction);
        assert!(instruction.span.start >= last_start, "instructions are in the order of the text");
        last_start = instruction.span.start;
    }
    file.warnings.iter().for_each(|warning| check_diagnostic(source, warning));
}

fn check_instruction(source: &Arc<Source>, instruction: &Instruction) {
    check_span(source, instruction.span);
    check_word(source, &instruction.name);
    match &instruction.kind {
        Kind::From(from) => {
            let others = [&from.platform, &from.alias, &from.as_keyword].into_iter().flatten();
            std::iter::once(&from.image).chain(others).for_each(|word| check_word(source, word));
        }
        Kind::Run(run) => {
            run.mounts.iter().for_each(|mount| check_span(source, mount.span));
            run.heredocs.iter().for_each(|heredoc| assert_eq!(at(source, heredoc.body_span), heredoc.body));
        }
        Kind::Copy(copy) | Kind::Add(copy) => {
            for argument in &copy.sources {
                match argument {
                    CopyArg::Path(word) => check_word(source, word),
                    CopyArg::Heredoc(heredoc) => assert_eq!(at(source, heredoc.body_span), heredoc.body),
                }
            }
            copy.dest.iter().chain(&copy.from).chain(&copy.exclude).for_each(|word| check_word(source, word));
        }
        Kind::Env(pairs) | Kind::Label(pairs) => {
            pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).for_each(|word| check_word(source, word));
        }
        Kind::Arg(names) => names.iter().for_each(|name| check_word(source, &name.name)),
        Kind::Workdir(word) | Kind::User(word) | Kind::StopSignal(word) | Kind::Maintainer(word) => check_word(source, word),
        Kind::Volume(words) | Kind::Expose(words) => words.iter().for_each(|word| check_word(source, word)),
        _ => {}
    }
}

fn check_graph(source: &Arc<Source>, file: &File) {
    let mut facts = facts();
    for _ in 0..8 {
        match lower(file, &facts) {
            Err(error) => return check_diagnostic(source, &error),
            Ok(Lowered::Needs(needs)) => {
                assert!(!needs.is_empty());
                for (request, span) in needs {
                    check_span(source, span);
                    let config = base(&request);
                    assert!(facts.images.insert(request, config).is_none(), "an image is asked for once");
                }
            }
            Ok(Lowered::NeedsEpoch(_)) => facts.epoch = Some(None),
            Ok(Lowered::Graph(graph)) => return check_nodes(source, &graph),
        }
    }
    panic!("the graph asks for images without end");
}

fn check_nodes(source: &Arc<Source>, graph: &BuildGraph) {
    assert_eq!(order::needed(graph).len(), graph.nodes.len());
    assert!(graph.target < graph.stages.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        check_span(source, node.span);
        assert!(node.parent.is_none_or(|parent| parent.0 < index), "inputs stand before users");
    }
    graph.warnings.iter().for_each(|warning| check_diagnostic(source, warning));
}

fn check_diagnostic(source: &Arc<Source>, found: &Diagnostic) {
    assert!(!found.message.is_empty());
    if found.source.is_some() {
        check_span(source, found.span);
        let (line, column) = source.line_column(found.span.start);
        assert!(line >= 1 && column >= 1);
    }
    assert!(found.to_string().len() <= 2 * source.text().len() + (4 << 20), "a message is no amplifier");
}

fn check_word(source: &Arc<Source>, word: &Word) {
    check_span(source, word.span);
}

fn check_span(source: &Arc<Source>, span: Span) {
    at(source, span);
}

/// Returns the text of a place; panics when it is none.
fn at(source: &Arc<Source>, span: Span) -> &str {
    &source.text()[span.start as usize..span.end as usize]
}

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
    config.config.env = vec!["PATH=/bin".into()];
    if let ImageSource::Reference(reference) = &request.source
        && reference.contains("onbuild")
    {
        config.config.on_build = ["ARG version", "COPY --from=build /out /srv/$version", "RUN <<E cat\nbody\nE"].map(String::from).into();
    }
    config
}
