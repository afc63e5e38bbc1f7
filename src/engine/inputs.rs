//! Gathers what a build starts from: contexts, the Dockerfile, base images, and the graphs that they give.
//!
//! Contexts are opened once, and one graph is lowered for each platform. Base images are resolved in rounds: lowering
//! says which configurations it needs, and may need more once it knows the triggers of the first. Nothing is unpacked
//! here.

mod urls;

use std::collections::BTreeMap;
use std::io::{Read, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::address;
use crate::context::{Context, ContextError, DockerfileText, Ignoring, SourceTree, StatCache};
use crate::dockerfile;
use crate::dockerfile::instruction::File;
use crate::dockerfile::source::{Diagnostic, Source};
use crate::dockerfile::suggest;
use crate::graph::lower::lower;
use crate::graph::outline::Targets;
use crate::graph::uses::context_paths;
use crate::graph::{BuildGraph, Facts, FileTree, ImageRequest, ImageSource, Lowered, NamedContext, NodeId, Op, StageChoice};
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::layer;

use super::Engine;
use super::advice::system_advice;
use super::error::{BuildError, chain};
use super::remotes::Remotes;
use super::request::{BuildRequest, ContextSource, DockerfileSource, Intent, Purpose};
use super::sources::{FilesSource, ResolvedImage, SourceError, Sources, parse_build_context};
use urls::{Dated, Kept};

/// Rounds of resolving before triggers that need ever more images count as endless.
const MAX_ROUNDS: usize = 50;
/// A Dockerfile on standard input that is larger is something else.
const MAX_STDIN_DOCKERFILE_BYTES: u64 = 16 << 20;
/// A tar begins with a header of this size.
const TAR_BLOCK_BYTES: u64 = 512;
const STAT_CACHE: &str = "stat-cache";
const SYNTAX_ARGUMENT: &str = "BUILDKIT_SYNTAX";
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What a build starts from.
pub(super) struct Inputs<'a> {
    /// Read before any file was looked at.
    pub now: SystemTime,
    /// What this Dockerfile is told apart by from others.
    pub dockerfile_id: String,
    /// The stages, where nothing else is asked for.
    pub stages: Option<Targets>,
    contexts: BTreeMap<Option<String>, Opened>,
    images: BTreeMap<ImageRequest, ResolvedImage>,
    /// Images that only a registry could describe, which was not to be asked: their names.
    unresolved: BTreeMap<ImageRequest, String>,
    /// Named contexts that are fetched when a step reads them.
    named_urls: BTreeMap<String, String>,
    /// The way to URLs and repositories.
    pub remotes: Remotes<'a>,
    engine: &'a Engine<'a>,
}

/// What is to be built for one platform.
pub(super) struct Target {
    /// The platform that was asked for.
    pub platform: Platform,
    /// The way there.
    pub graph: BuildGraph,
}

struct Opened {
    context: Context,
    id: String,
    stat_cache: StatCache,
    /// Of a context that lies in the store for the moment.
    kept: Option<Kept>,
}

impl<'a> Inputs<'a> {
    /// Opens the contexts, reads the Dockerfile, resolves the bases and lowers a graph for each platform.
    pub fn gather(engine: &'a Engine<'a>, request: &'a BuildRequest, stdin: &mut dyn Read) -> Result<(Self, Vec<Target>), BuildError> {
        let mut inputs = Self {
            now: (engine.clock)(),
            dockerfile_id: String::new(),
            stages: None,
            contexts: BTreeMap::new(),
            images: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            named_urls: BTreeMap::new(),
            remotes: Remotes::new(engine, request),
            engine,
        };
        let text = inputs.open_main(request, stdin)?;
        let named = inputs.open_named(request)?;
        let ignore = inputs.apply_ignore_rules(&text)?;
        let source = Source::new(text.name.clone(), String::from_utf8_lossy(&text.bytes));
        let check = request.build_args.get(CHECK_ARGUMENT).map(String::as_str);
        check_frontend(&source, request)?;
        let file = dockerfile::parse_with_check_override(&source, check)?;
        if request.purpose == Purpose::Targets {
            inputs.stages = Some(Targets::of(&file));
            return Ok((inputs, Vec::new()));
        }
        let place = match &request.context {
            ContextSource::Directory(dir) => dir.canonicalize().unwrap_or_else(|_| dir.clone()).display().to_string(),
            // Whatever ref: a build of the next commit is compared with that of the last.
            ContextSource::Url(url) => match address::GitAddress::parse_context(url) {
                Ok(Some(git)) => format!("{} {}", git.shown(), git.subdir),
                _ => address::redact(url),
            },
            ContextSource::Stdin => "-".into(),
        };
        inputs.dockerfile_id = format!("{place}\n{}", text.name);
        let host = Platform::host();
        let platforms = if request.platforms.is_empty() { vec![host.clone()] } else { request.platforms.clone() };
        let facts = Facts {
            build_args: request.build_args.clone(),
            build_platform: host.clone(),
            target_platform: host,
            target: request.target.clone(),
            stages: match request.purpose {
                Purpose::Check | Purpose::Prebuild if request.target.is_none() => StageChoice::All,
                Purpose::Prebuild => StageChoice::NeededBy(request.more_targets.clone()),
                _ => StageChoice::Needed,
            },
            named_contexts: named,
            images: BTreeMap::new(),
            labels: request.labels.clone(),
            network: request.network,
            allow: request.allow.clone(),
            add_hosts: request.add_hosts.clone(),
            no_context: !inputs.contexts.contains_key(&None),
            epoch: None,
            ignore,
        };
        let mut targets = Vec::with_capacity(platforms.len());
        for platform in platforms {
            let facts = Facts { target_platform: platform.clone(), ..facts.clone() };
            targets.push(Target { platform, graph: inputs.lower(&file, facts, &source, request)? });
        }
        // The checks look at no files.
        if matches!(request.purpose, Purpose::Build | Purpose::Prebuild) && request.asks() {
            let used: Vec<_> = targets.iter().flat_map(|t| context_paths(&t.graph).into_keys().flatten()).collect();
            inputs.open_named_urls(used.iter().map(String::as_str), request)?;
        }
        Ok((inputs, targets))
    }

    fn open_main(&mut self, request: &BuildRequest, stdin: &mut dyn Read) -> Result<DockerfileText, BuildError> {
        let failed = |e: ContextError| context_error("", &e);
        match &request.context {
            ContextSource::Directory(dir) => {
                let context = Context::open_directory(dir, "the build context").map_err(failed)?;
                let text = match &request.dockerfile {
                    DockerfileSource::Default => context.default_dockerfile(),
                    DockerfileSource::Path(path) => context.dockerfile_on_host(path),
                    DockerfileSource::Stdin => Ok(DockerfileText::from_stdin(read_dockerfile(stdin, "standard input")?)),
                    DockerfileSource::Url(url) => Ok(self.dockerfile_at_url(url)?),
                };
                let text = text.map_err(failed)?;
                self.keep(None, context, None)?;
                Ok(text)
            }
            ContextSource::Stdin => self.open_stdin(request, stdin),
            ContextSource::Url(url) => self.open_main_url(request, url, stdin),
        }
    }

    /// Standard input: an archive is the context, anything else the Dockerfile.
    fn open_stdin(&mut self, request: &BuildRequest, stdin: &mut dyn Read) -> Result<DockerfileText, BuildError> {
        let io = |e: std::io::Error| BuildError::caused("reading the context from standard input", &e);
        let staging = self.engine.store.stage()?;
        let path = staging.path().join("stdin");
        let mut file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
        std::io::copy(&mut self.engine.cancel.reading(stdin), &mut file).map_err(io)?;
        file.flush().map_err(io)?;
        file.rewind().map_err(io)?;
        if !is_archive(&mut file).map_err(io)? {
            return Ok(DockerfileText::from_stdin(read_dockerfile(&mut file, "standard input")?));
        }
        let archive = file.try_clone().map_err(io)?;
        let failed = |e: ContextError| context_error("", &e);
        let dir = staging.path().join("context");
        std::fs::create_dir(&dir).map_err(io)?;
        let context = Context::from_tar(self.engine.cancel.reading(file), &dir, "the build context").map_err(failed)?;
        let text = match &request.dockerfile {
            DockerfileSource::Path(path) => context.dockerfile(&path.to_string_lossy()),
            DockerfileSource::Url(url) => Ok(self.dockerfile_at_url(url)?),
            _ => context.default_dockerfile(),
        };
        let text = text.map_err(failed)?;
        self.keep(None, context, Some(Kept { staging: Box::new(staging), dated: Dated::Archive(archive) }))?;
        Ok(text)
    }

    fn open_named(&mut self, request: &BuildRequest) -> Result<BTreeMap<String, NamedContext>, BuildError> {
        let mut named = BTreeMap::new();
        for (name, value) in &request.build_contexts {
            let parsed = parse_build_context(value).map_err(|e| BuildError::caused(format!("--build-context {name}"), &e))?;
            match parsed.files {
                None => {}
                Some(FilesSource::Directory(dir)) => {
                    let shown = format!("the context `{name}`");
                    let context = Context::open_directory(Path::new(&dir), shown)
                        .map_err(|e| context_error(&format!("--build-context {name}"), &e))?;
                    let rules = context.ignore_rules(None).map_err(|e| context_error(&format!("--build-context {name}"), &e))?;
                    self.keep(Some(name.clone()), context.with_ignore(rules), None)?;
                }
                Some(FilesSource::Url(url)) => {
                    // A mistake in the address is told at once, whoever reads it.
                    address::GitAddress::parse(&url).map_err(|e| BuildError::plain(format!("--build-context {name}: {e}")))?;
                    self.named_urls.insert(name.clone(), url);
                }
            }
            named.insert(name.clone(), parsed.named);
        }
        Ok(named)
    }

    fn apply_ignore_rules(&mut self, text: &DockerfileText) -> Result<Option<Arc<crate::dockerfile::ignore::IgnoreRules>>, BuildError> {
        let Some(main) = self.contexts.remove(&None) else { return Ok(None) };
        let rules = main.context.ignore_rules(Some(text)).map_err(|e| context_error("", &e))?;
        let shared = Arc::new(rules.rules.clone());
        self.contexts.insert(None, Opened { context: main.context.with_ignore(rules), ..main });
        Ok(Some(shared))
    }

    fn keep(&mut self, name: Option<String>, context: Context, kept: Option<Kept>) -> Result<(), BuildError> {
        let id = context.id().map_err(|e| context_error("", &e))?;
        let saved = self.engine.store.load_blob_row(STAT_CACHE, &id)?;
        let stat_cache = StatCache::open(saved, self.now);
        self.contexts.insert(name, Opened { context, id, stat_cache, kept });
        Ok(())
    }

    fn lower(&mut self, file: &File, mut facts: Facts, source: &Arc<Source>, request: &BuildRequest) -> Result<BuildGraph, BuildError> {
        for _ in 0..MAX_ROUNDS {
            match lower(file, &facts)? {
                Lowered::Graph(graph) => return Ok(graph),
                Lowered::NeedsEpoch(of) => facts.epoch = Some(self.find_epoch(&of, request)?),
                Lowered::Needs(needs) => {
                    for (wanted, span) in needs {
                        if !self.images.contains_key(&wanted) && !self.unresolved.contains_key(&wanted) {
                            let resolved = self.resolve(&wanted, request);
                            match resolved {
                                Ok(image) => drop(self.images.insert(wanted.clone(), image)),
                                Err(SourceError::Offline { reference, .. }) if !request.asks() => {
                                    self.unresolved.insert(wanted.clone(), reference);
                                }
                                Err(e) => {
                                    let error = Diagnostic::error(source, span, chain(&e));
                                    let hint = system_advice(&e).unwrap_or_else(|| image_hint(&wanted, file, &facts));
                                    return Err(error.hint(hint).into());
                                }
                            }
                        }
                        let config = self.images.get(&wanted).map_or_else(|| nothing_known(&wanted.platform), |i| i.config.clone());
                        facts.images.insert(wanted, config);
                    }
                }
            }
        }
        Err(BuildError::plain(format!("base images' triggers asked for more images {MAX_ROUNDS} times over")))
    }

    fn resolve(&self, wanted: &ImageRequest, request: &BuildRequest) -> Result<ResolvedImage, SourceError> {
        let mut sources = self.engine.sources(request.pull);
        sources.policy.look_only = request.intent != Intent::Build;
        sources.policy.offline = !request.asks();
        if let ImageSource::Reference(text) = &wanted.source
            && request.pull
            && !request.asks()
            && Reference::parse(text).is_ok_and(|r| r.digest().is_none())
        {
            // The registry would be asked although the image is here: what it would say is what is not known.
            return Err(SourceError::Offline { reference: text.clone(), platform: wanted.platform.clone() });
        }
        sources.resolve(wanted)
    }

    /// Returns the name of the image behind a base node that only a registry could describe, which was not asked.
    pub fn unresolved(&self, graph: &BuildGraph, node: NodeId) -> Option<&str> {
        match &graph.nodes[node.0].op {
            Op::Base(Some(request)) => self.unresolved.get(request).map(String::as_str),
            _ => None,
        }
    }

    /// Returns the URL of a named context that was not fetched.
    pub fn unopened(&self, name: Option<&str>) -> Option<&str> {
        let name = name.filter(|n| !self.contexts.contains_key(&Some((*n).to_string())))?;
        self.named_urls.get(name).map(String::as_str)
    }

    /// The image behind a base node.
    pub fn image(&self, graph: &BuildGraph, node: NodeId) -> Option<&ResolvedImage> {
        match &graph.nodes[node.0].op {
            Op::Base(Some(request)) => self.images.get(request),
            _ => None,
        }
    }

    /// The way to images, for layers that have to be unpacked.
    pub fn sources(&self) -> Sources<'_> {
        self.engine.sources(false)
    }

    /// The files of a context.
    pub fn context_tree(&self, name: Option<&str>) -> Option<SourceTree> {
        self.contexts.get(&name.map(str::to_string)).map(|o| o.context.tree().until(self.engine.cancel.cell()))
    }

    /// What is hidden of the main context; none: there is no ignore file, or no context.
    pub fn ignoring(&self) -> Option<&Ignoring> {
        self.contexts.get(&None).map(|o| o.context.ignoring()).filter(|i| !i.file.is_empty())
    }

    /// What is known of a context's files.
    pub fn stat_cache(&self, tree: &FileTree) -> Option<&StatCache> {
        match tree {
            FileTree::Context(name) => self.contexts.get(name).map(|o| &o.stat_cache),
            FileTree::Node(_) => None,
        }
    }

    /// Keeps what was learnt of the contexts' files.
    pub fn save_stat_caches(&self) -> Result<(), BuildError> {
        for opened in self.contexts.values().filter(|o| o.kept.is_none()) {
            if let Some(bytes) = opened.stat_cache.to_bytes() {
                self.engine.store.save_blob_row(STAT_CACHE, &opened.id, &bytes)?;
            }
        }
        Ok(())
    }
}

/// What stands for the configuration of an image that nobody was asked about.
fn nothing_known(platform: &Platform) -> ImageConfig {
    let variant = (!platform.variant.is_empty()).then(|| platform.variant.clone());
    ImageConfig { os: platform.os.clone(), architecture: platform.architecture.clone(), variant, ..ImageConfig::default() }
}

/// Says what may be meant by an image that can't be had: BuildKit's candidates.
fn image_hint(wanted: &ImageRequest, file: &File, facts: &Facts) -> String {
    const COMMON: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];
    let other = "`ply load` and `ply import` bring images in; --build-context NAME=... says what a name stands for".to_owned();
    let ImageSource::Reference(reference) = &wanted.source else { return other };
    let Ok(reference) = Reference::parse(reference) else { return other };
    let familiar = reference.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let stages = file.stages.iter().filter_map(|s| s.name.as_deref());
    let near = suggest::nearest(name, stages.chain(facts.named_contexts.keys().map(String::as_str)).chain(COMMON));
    near.map_or(other, |near| format!("did you mean `{near}`?"))
}

/// Refuses a file that another frontend must read. `BUILDKIT_SYNTAX` decides over what the file says.
fn check_frontend(source: &Arc<Source>, request: &BuildRequest) -> Result<(), BuildError> {
    let hint = "frontends are never fetched; `--build-arg BUILDKIT_SYNTAX=dockerfile.v0` reads the file as a Dockerfile";
    if let Some(given) = request.build_args.get(SYNTAX_ARGUMENT).map(|v| v.trim()).filter(|v| !v.is_empty()) {
        return match dockerfile::is_foreign_frontend(given) {
            true => Err(BuildError::plain(format!("{SYNTAX_ARGUMENT}: the frontend `{given}` is not built in")).hint(hint)),
            false => Ok(()),
        };
    }
    match dockerfile::detect_syntax(source).filter(|syntax| dockerfile::is_foreign_frontend(&syntax.value)) {
        Some(syntax) => {
            let error = Diagnostic::error(source, syntax.span, format!("the frontend `{}` is not built in", syntax.value));
            Err(error.hint(hint).into())
        }
        None => Ok(()),
    }
}

/// Returns what the build checks and the lowering found, each once, in the order of the text.
pub(super) fn findings(targets: &[Target]) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    for warning in targets.iter().flat_map(|t| &t.graph.warnings) {
        if !found.iter().any(|f| (f.rule, f.span, &f.message) == (warning.rule, warning.span, &warning.message)) {
            found.push(warning.clone());
        }
    }
    found.sort_by_key(|f| f.span.start);
    found
}

/// Tells a tar, packed or not, from a Dockerfile; the file is at its start afterwards.
fn is_archive(file: &mut std::fs::File) -> std::io::Result<bool> {
    let mut head = Vec::new();
    file.take(TAR_BLOCK_BYTES).read_to_end(&mut head)?;
    file.rewind()?;
    let packed = layer::sniff(&head) != layer::Codec::Plain;
    Ok(packed || (head.len() as u64 == TAR_BLOCK_BYTES && layer::TarReader::new(head.as_slice()).next_entry().is_ok()))
}

fn read_dockerfile(from: &mut dyn Read, name: &str) -> Result<Vec<u8>, BuildError> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_STDIN_DOCKERFILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| BuildError::caused(format!("reading the Dockerfile from {name}"), &e))?;
    if bytes.len() as u64 > MAX_STDIN_DOCKERFILE_BYTES {
        return Err(BuildError::plain(format!("{name} is neither an archive nor a Dockerfile: it is larger than 16 MiB")));
    }
    Ok(bytes)
}

fn context_error(doing: &str, error: &ContextError) -> BuildError {
    let text = chain(error);
    let plain = BuildError::plain(if doing.is_empty() { text } else { format!("{doing}: {text}") });
    match error.hint() {
        Some(hint) => plain.hint(hint),
        None => plain.advised(error),
    }
}
