//! A build as asked for: plain values, made once in `cli` from flags and environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::graph::{Entitlement, NetworkMode};
use crate::image::platform::Platform;
use crate::store::Limits;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An image.
    Build,
    /// The steps of the targets, of all stages if there are none, and no image.
    Prebuild,
    /// What the build checks find.
    Check,
    /// What the target takes from its caller.
    Outline,
    /// What can be built. The Dockerfile is only parsed: no base image is asked for.
    Targets,
}

/// Whether servers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asking {
    /// Registries, shared caches, URLs and repositories.
    #[default]
    Network,
    /// None of them: for [`super::plan`], to which what only they know is unknown.
    Nobody,
}

/// Whether something is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Intent {
    /// The build.
    #[default]
    Build,
    /// Nothing: it is only foreseen, and what is learnt on the way is not kept ([`super::plan`]).
    Plan(Asking),
}

/// Everything that `ply build` was told.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The main context.
    pub context: ContextSource,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// `-t`, as given.
    pub tags: Vec<String>,
    /// `--build-arg`; names without a value were taken from the environment or left out by `cli`.
    pub build_args: BTreeMap<String, String>,
    /// `--build-context NAME=VALUE`, as given, in order.
    pub build_contexts: Vec<(String, String)>,
    /// `--target`.
    pub target: Option<String>,
    /// Further ones, of [`Purpose::Prebuild`].
    pub more_targets: Vec<String>,
    /// `--platform`, each once; empty: the host's.
    pub platforms: Vec<Platform>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stage names.
    pub no_cache_filter: Vec<String>,
    /// `--pull`: ask the registry even when the store has the image.
    pub pull: bool,
    /// `--cache-from`: shared caches that are asked, in order.
    pub cache_from: Vec<CacheLocation>,
    /// `--cache-to`: shared caches that are written.
    pub cache_to: Vec<CacheTo>,
    /// `--cache-mounts`: the ids of cache mounts that go through the shared caches; an empty list is all, none is none.
    pub cache_mounts: Option<Vec<String>>,
    /// `-o`; empty: the image goes to the store.
    pub outputs: Vec<Output>,
    /// `--iidfile`.
    pub iidfile: Option<PathBuf>,
    /// `--metadata-file`.
    pub metadata_file: Option<PathBuf>,
    /// `--network`.
    pub network: NetworkMode,
    /// `--allow`.
    pub allow: Vec<Entitlement>,
    /// `--secret`.
    pub secrets: Vec<Secret>,
    /// `--ssh ID[=PATH]`: id and socket or key paths.
    pub ssh: Vec<(String, Vec<PathBuf>)>,
    /// The caller's list of ssh hosts, for git.
    pub known_hosts: Option<PathBuf>,
    /// `--add-host`: name and address.
    pub add_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// `--require-isolation=full`.
    pub require_full_isolation: bool,
    /// `--call`: what to do with the Dockerfile.
    pub purpose: Purpose,
    /// Whether it is done, or foreseen.
    pub intent: Intent,
    /// How many steps may run side by side; none: the number of processors.
    pub jobs: Option<usize>,
    /// `--gc`: how much the cache may take after this build; none: nothing is collected.
    pub collection: Option<Collection>,
    /// `--verify-cache`: which hits are run again and compared.
    pub verify: Option<Verify>,
}

/// Which hits are run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// How many.
    pub sample: Sample,
    /// What the choice is made by.
    pub seed: u64,
}

/// How many of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Sample {
    All,
    Count(usize),
    /// Rounded up.
    Share {
        millionths: u32,
    },
}

/// What was said of automatic collection; the rest is the store's usual policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collection {
    /// The bounds that were said.
    pub limits: Limits,
    /// What was of no use for longer goes first.
    pub keep_secs: Option<i64>,
}

impl BuildRequest {
    /// Whether servers may be asked.
    pub fn asks(&self) -> bool {
        self.intent != Intent::Plan(Asking::Nobody)
    }
}

/// Where the main context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A local directory.
    Directory(PathBuf),
    /// `-`: a tar or a Dockerfile on standard input, told apart by content.
    Stdin,
    /// A git or http(s) URL.
    Url(String),
}

/// Where the Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` (or `dockerfile`) at the context's root.
    Default,
    /// `-f PATH`: relative to the working directory when the context is a directory, else to the context.
    Path(PathBuf),
    /// `-f -`.
    Stdin,
    /// `-f https://…`.
    Url(String),
}

/// Where a shared cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheLocation {
    /// `type=registry,ref=…`: a repository; the tag tells caches apart, or is an image that carries its records.
    Registry(String),
    /// `type=local,src=…` or `dest=…`.
    Directory(PathBuf),
}

/// `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    /// Where to; none: into the image itself (`type=inline`).
    pub location: Option<CacheLocation>,
    /// `mode=`.
    pub mode: CacheMode,
    /// `compression=` and what goes with it: of the layers.
    pub packing: Packing,
    /// `ignore-error=`: a cache that can't be written is a notice.
    pub ignore_error: bool,
}

/// Which results go into a shared cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Those whose layers the result has.
    #[default]
    Min,
    /// All.
    Max,
}

/// `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// `type=oci`: an OCI archive (or directory with `tar=false`).
    Oci(ArchiveOutput),
    /// `type=docker`: an archive for `docker load`.
    Docker(ArchiveOutput),
    /// `type=tar`: the root file system as a tar.
    Tar(Destination, PlatformSplit),
    /// `type=local`: the root file system as a directory.
    Local(PathBuf, PlatformSplit),
    /// `type=image`: the store, which keeps layers as they are; how they are packed counts where it is pushed too.
    Image(PushOutput),
    /// `type=registry`, `push=true`: the store, and registries.
    Registry(PushOutput),
    /// `type=none` or `type=cacheonly`.
    None,
}

/// What is pushed, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushOutput {
    /// `name=`: names besides `-t`.
    pub names: Vec<String>,
    /// `compression=` and what goes with it.
    pub packing: Packing,
    /// `push-by-digest`: no tag is moved.
    pub named: PushAs,
}

/// How what is pushed is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushAs {
    /// By its tag.
    #[default]
    Tag,
    /// By its digest alone.
    Digest,
}

/// `platform-split=`: whether a platform's files go to a directory of their own, `linux_arm64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum PlatformSplit {
    #[default]
    WhenSeveral,
    Always,
    Never,
}

/// An archive's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveOutput {
    /// Where to.
    pub dest: Destination,
    /// `name=`: names in the archive, besides `-t`.
    pub names: Vec<String>,
    /// `compression=` and what goes with it.
    pub packing: Packing,
    /// `tar=false`: a directory instead of an archive (oci).
    pub directory: bool,
}

/// How an image's layers leave, and under which names for what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packing {
    /// `compression=` and `compression-level=`: of layers that did not come with a base image.
    pub compression: Compression,
    /// `force-compression=`: of those that did.
    pub came: Came,
    /// `oci-mediatypes=`.
    pub types: MediaTypes,
}

/// How a layer is compressed: all that decides a blob's bytes, besides the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    Uncompressed,
    /// Of a level, 0 to 9.
    Gzip(u32),
    /// Of a level, 1 to 19.
    Zstd(i32),
}

impl Compression {
    /// The gzip of layers: the ratio of BuildKit's default.
    pub const GZIP: Self = Self::Gzip(6);
    /// The zstd of layers: zstd's own default.
    pub const ZSTD: Self = Self::Zstd(3);
}

impl Default for Compression {
    fn default() -> Self {
        Self::GZIP
    }
}

impl From<Compression> for Packing {
    fn from(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }
}

/// What becomes of blobs that came with a base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Came {
    /// They go out byte for byte.
    #[default]
    Stay,
    /// Those that are compressed otherwise are compressed anew (`force-compression=true`).
    OtherKinds,
    /// All are: their level is unknown, and one was asked for.
    Anew,
}

/// Whose media types manifests, configurations and layers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum MediaTypes {
    #[default]
    Oci,
    /// Docker's schema 2.
    Docker,
}

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Destination {
    Path(PathBuf),
    Stdout,
}

/// `--secret id=ID,src=PATH` or `env=NAME`; the value is read when a step needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SecretSource {
    File(PathBuf),
    /// Read by `cli`.
    Value(Vec<u8>),
}
