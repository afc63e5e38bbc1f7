//! The build graph: stages and facts turned into nodes whose every value is a plain string.
//!
//! Pure. Nothing here knows files or processes: what lies outside (base images' configurations, build
//! arguments, platforms) comes in as [`Facts`]. A newcomer would expect `lower` to ask for images; it returns
//! [`Lowered::Needs`] instead, the caller fetches them, adds them to the facts, and calls it again.

pub mod environment;
pub mod lower;
pub mod order;
pub mod outline;
pub mod uses;

mod mounts;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::address::GitAddress;
use crate::digest::Checksum;
use crate::dockerfile::ignore::IgnoreRules;
use crate::dockerfile::source::{Diagnostic, Source, Span};
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;
use environment::Environment;

/// The index of a node in [`BuildGraph::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// What lies outside the Dockerfile and decides the graph.
#[derive(Debug, Clone)]
pub struct Facts {
    /// `--build-arg`, last value of each name. A name without a value was resolved by `cli`.
    pub build_args: BTreeMap<String, String>,
    /// Where the build runs.
    pub build_platform: Platform,
    /// What is built for.
    pub target_platform: Platform,
    /// `--target`; none: the last stage.
    pub target: Option<String>,
    /// Which stages to lower.
    pub stages: StageChoice,
    /// `--build-context`: what each name stands for.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// Images that were resolved so far.
    pub images: BTreeMap<ImageRequest, ImageConfig>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--network` of the whole build.
    pub network: NetworkMode,
    /// Privileges given with `--allow`.
    pub allow: Vec<Entitlement>,
    /// `--shm-size`, `--ulimit`, `--add-host` of the whole build, kept as given.
    pub add_hosts: Vec<(String, String)>,
    /// Whether the main context was given as a Dockerfile on stdin alone: no files to copy from.
    pub no_context: bool,
    /// What `SOURCE_DATE_EPOCH` leads to where it is no number, once that was found out ([`Lowered::NeedsEpoch`]); inside:
    /// none, where what it names has no time.
    pub epoch: Option<Option<i64>>,
    /// The main context's ignore rules, for the build check `CopyIgnoredFile` and hints; they filter nothing here.
    pub ignore: Option<Arc<IgnoreRules>>,
}

/// Which stages are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageChoice {
    /// Those that the target needs.
    Needed,
    /// Those that the target and these stages need.
    NeededBy(Vec<String>),
    /// All: what the build checks do where no target is named.
    All,
}

/// What `--build-context NAME=VALUE` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// An image: `docker-image://`, `oci-layout://`, `host:`, …
    Image(ImageSource),
    /// A tree of files: a directory, git, an http tar; the name is its key.
    Files,
    /// `target:` or another stage.
    Stage(String),
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageSource {
    /// A normalised reference (`docker.io/library/alpine:latest`): the store first, a registry else.
    Reference(String),
    /// An OCI layout directory or archive and a tag or digest in it.
    OciLayout {
        /// The directory or tar file.
        path: String,
        /// `latest` unless given; `sha256:…` for a digest.
        tag: String,
    },
    /// A base made from these programs of the host, with the libraries that they need.
    Host(Vec<String>),
}

/// One image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRequest {
    /// Where from.
    pub source: ImageSource,
    /// For what; selects from an index.
    pub platform: Platform,
}

/// The outcome of lowering.
#[derive(Debug)]
pub enum Lowered {
    /// Everything was known.
    Graph(BuildGraph),
    /// These images' configurations are needed first; the span is where they are named.
    Needs(Vec<(ImageRequest, Span)>),
    /// The time of this is needed first: [`Facts::epoch`].
    NeedsEpoch(EpochSource),
}

/// What `SOURCE_DATE_EPOCH` may name instead of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSource {
    /// `context`: the main context.
    Context,
    /// A named context.
    Named(String),
    /// A stage that adds this and nothing else.
    Remote(CopySource, Option<Checksum>),
}

/// The whole build, as nodes and the stages that they form.
#[derive(Debug, Clone)]
pub struct BuildGraph {
    /// The text that spans point into.
    pub source: Arc<Source>,
    /// All nodes of the stages that the target reaches, inputs always before users.
    pub nodes: Vec<Node>,
    /// The stages that the target reaches, in file order.
    pub stages: Vec<StagePlan>,
    /// Which of `stages` is the result.
    pub target: usize,
    /// Findings of the build checks, all of them (also the parser's).
    pub warnings: Vec<Diagnostic>,
    /// What the target takes from its caller.
    pub outline: outline::Outline,
    /// `SOURCE_DATE_EPOCH` as a build argument or a global ARG gives it, in seconds; none: not given.
    pub epoch: Option<i64>,
}

/// A stage's result.
#[derive(Debug, Clone)]
pub struct StagePlan {
    /// Its place in the file, from 0.
    pub index: usize,
    /// Its name, lower-cased.
    pub name: Option<String>,
    /// What it is built for.
    pub platform: Platform,
    /// Its base.
    pub base: NodeId,
    /// Its last node: the file system of the result.
    pub last: NodeId,
    /// The configuration of the result. `rootfs` and `history` are the base image's; what the stage added
    /// is in [`BuildGraph::history`]. For `FROM earlier-stage` they are that stage's base image's.
    pub config: ImageConfig,
    /// The stage that it starts from, as its place among [`BuildGraph::stages`].
    pub continues: Option<usize>,
    /// The history that this stage adds to that of the one that it starts from, in order.
    pub history: Vec<PlannedHistory>,
}

impl BuildGraph {
    /// Returns the history that a stage and those that it is based on add to the base image's, in order.
    ///
    /// The stages hold a part each: in a chain of many, complete ones would take the square of its length.
    pub fn history(&self, stage: usize) -> Vec<&PlannedHistory> {
        let chain = std::iter::successors(Some(&self.stages[stage]), |plan| plan.continues.map(|below| &self.stages[below]));
        let mut parts: Vec<&[PlannedHistory]> = chain.map(|plan| plan.history.as_slice()).collect();
        parts.reverse();
        parts.into_iter().flatten().collect()
    }
}

/// A history entry to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHistory {
    /// BuildKit's text.
    pub created_by: String,
    /// The node whose layer it tells of; none: `empty_layer`.
    pub node: Option<NodeId>,
    /// MAINTAINER at that point.
    pub author: Option<String>,
}

/// One operation on file systems.
#[derive(Debug, Clone)]
pub struct Node {
    /// What to do.
    pub op: Op,
    /// The state that it works on; none for [`Op::Base`].
    pub parent: Option<NodeId>,
    /// The stage's index in the file.
    pub stage: usize,
    /// Where the instruction stands. For a trigger of a base image: the FROM that fired it.
    pub span: Span,
    /// `[build 2/5] RUN make`: what progress shows.
    pub title: String,
    /// The trigger's text, when the instruction comes from ONBUILD.
    pub onbuild: Option<String>,
    /// Where it is built for.
    pub platform: Platform,
}

/// What a node does.
#[derive(Debug, Clone)]
pub enum Op {
    /// The start of a stage, or an image that COPY or a mount reads; none: scratch.
    Base(Option<ImageRequest>),
    /// RUN.
    Run(Box<RunOp>),
    /// COPY, ADD.
    Copy(Box<CopyOp>),
    /// WORKDIR: make the directory and its missing parents.
    Mkdir(MkdirOp),
}

/// RUN, ready to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOp {
    /// The process's arguments (the shell's included).
    pub argv: Vec<String>,
    /// Its whole environment in order, `HOME` excepted (the runtime's); proxy variables excepted.
    pub env: Environment,
    /// Proxy variables given as build arguments: in the environment, not in the key.
    pub proxy_env: Vec<(String, String)>,
    /// Its working directory, absolute.
    pub cwd: String,
    /// USER as written; empty: root.
    pub user: String,
    /// `--mount`, checked and expanded.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: NetworkMode,
    /// `--security=insecure`.
    pub insecure: bool,
    /// `BUILDKIT_SANDBOX_HOSTNAME`, else `buildkitsandbox`.
    pub hostname: String,
    /// Heredoc scripts with `#!`, to be placed read-only at `/dev/pipes/NAME`, mode 0755.
    pub scripts: Vec<(String, Vec<u8>)>,
    /// The base image has no shell of its own: only for a better message.
    pub shell: Vec<String>,
}

/// The network of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NetworkMode {
    /// What the engine gives.
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// A privilege that the user of the program must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entitlement {
    /// `network.host`.
    NetworkHost,
    /// `security.insecure`.
    SecurityInsecure,
}

/// One mount of a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute, cleaned; empty for a secret that is only a variable.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Read-only for the process.
    pub readonly: bool,
    /// Where the flag stands.
    pub span: Span,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of a tree; writes are discarded.
    Bind {
        /// The tree.
        from: FileTree,
        /// The path in it.
        source: String,
    },
    /// A directory that lives on between builds.
    Cache {
        /// Its name, with `BUILDKIT_CACHE_MOUNT_NS` in front.
        id: String,
        /// How steps share it.
        sharing: Sharing,
        /// What a new one is filled with.
        from: Option<FileTree>,
        /// The path in `from`.
        source: String,
        /// Mode of a new directory.
        mode: u32,
        /// Owner of a new directory.
        uid: u32,
        /// Group of a new directory.
        gid: u32,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Bytes; none: unlimited.
        size_bytes: Option<u64>,
    },
    /// A secret of the caller.
    Secret {
        /// Its name.
        id: String,
        /// A missing one is an error.
        required: bool,
        /// Also (or only) as this variable.
        env: Option<String>,
        /// File mode.
        mode: u32,
        /// File owner.
        uid: u32,
        /// File group.
        gid: u32,
    },
    /// An agent socket of the caller.
    Ssh {
        /// Its name.
        id: String,
        /// A missing one is an error.
        required: bool,
        /// Socket mode.
        mode: u32,
        /// Socket owner.
        uid: u32,
        /// Socket group.
        gid: u32,
    },
}

/// `sharing=` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

/// A tree of files that a step reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileTree {
    /// The main context, or a named one.
    Context(Option<String>),
    /// What a node made (a stage's last node, an image's base node).
    Node(NodeId),
}

/// COPY or ADD, ready to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOp {
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Where the paths among `sources` are read.
    pub from: FileTree,
    /// Absolute (joined to the working directory, not cleaned at its end: a trailing `/` or `/.` counts).
    pub dest: String,
    /// `--chown` after expansion.
    pub chown: Option<String>,
    /// `--chmod` after expansion, checked.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// ADD's additions; none: COPY.
    pub add: Option<AddOptions>,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path or pattern in `from`, expanded, as written else.
    Path(String, Span),
    /// A heredoc: a file of this name and content, mode 0644.
    Inline(String, Vec<u8>),
    /// ADD of a URL.
    Http(String, Span),
    /// ADD of a git repository, the flags that concern it included.
    Git(Box<GitAddress>, Span),
}

impl CopySource {
    /// Returns the source as written, variables expanded; of a heredoc its name. May hold credentials.
    pub fn text(&self) -> &str {
        match self {
            Self::Path(text, _) | Self::Inline(text, _) | Self::Http(text, _) => text,
            Self::Git(address, _) => &address.text,
        }
    }

    /// Returns where it stands; none: a heredoc.
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::Path(_, span) | Self::Http(_, span) | Self::Git(_, span) => Some(*span),
            Self::Inline(..) => None,
        }
    }
}

/// What ADD has and COPY has not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddOptions {
    /// `--checksum` of a URL; a repository's is in its address.
    pub checksum: Option<Checksum>,
    /// `--keep-git-dir`.
    pub keep_git_dir: bool,
    /// `--unpack`; none: local archives yes, remote ones no.
    pub unpack: Option<bool>,
}

/// WORKDIR, ready to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MkdirOp {
    /// Absolute and cleaned.
    pub path: String,
    /// USER at that point: owner of what is made.
    pub user: String,
}
