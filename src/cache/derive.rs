//! From a node of the graph, and the digests of what it reads, to what decides its result.
//!
//! Pure. A build and `ply replay` both come through here, so that what one calls the same step is the same for the other.
//! How a digest was found (a directory walked, a git tree read, a stage mounted) is the caller's affair.

use super::files::Name;
use super::key::{
    AddInputs, CopyInputs, MatchInputs, MountInputs, MountSource, Network, RunInputs, SourceInputs, SourceKind, StepInputs, WorkdirInputs,
};
use crate::address;
use crate::digest::ContentDigest;
use crate::graph::{CopyOp, CopySource, MkdirOp, Mount, MountKind, NetworkMode, RunOp};

/// What the caller of the whole build allows its RUNs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed<'a> {
    /// `--shm-size`.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: &'a [(String, u64, u64)],
    /// `--add-host`: name and address.
    pub add_hosts: &'a [(String, String)],
}

/// Derives what decides a RUN; `mounts`: those of [`mount`], in order.
pub fn run(op: &RunOp, mounts: Vec<MountInputs>, allowed: Allowed<'_>) -> StepInputs {
    let network = match op.network {
        NetworkMode::Default => Network::Default,
        NetworkMode::None => Network::None,
        NetworkMode::Host => Network::Host,
    };
    StepInputs::Run(Box::new(RunInputs {
        argv: op.argv.clone(),
        env: op.env.iter().cloned().collect(),
        cwd: op.cwd.clone(),
        user: op.user.clone(),
        hostname: op.hostname.clone(),
        network,
        insecure: op.insecure,
        mounts,
        scripts: op.scripts.iter().map(|(name, body)| (name.clone(), digest_of(body))).collect(),
        shm_size_bytes: allowed.shm_size_bytes,
        ulimits: allowed.ulimits.to_vec(),
        extra_hosts: allowed.add_hosts.iter().map(|(name, _)| name.clone()).collect(),
    }))
}

/// Derives what of a mount decides a RUN. `content`: the digest of the files that a bind mount shows, or that a cache begins
/// with; must be given where the mount has files.
pub fn mount(mount: &Mount, content: Option<ContentDigest>) -> MountInputs {
    let source = match &mount.kind {
        MountKind::Bind { .. } => MountSource::Bind { content: content.expect("a bind mount shows files") },
        MountKind::Cache { mode, uid, gid, .. } => MountSource::Cache { seed: content, mode: *mode, uid: *uid, gid: *gid },
        MountKind::Tmpfs { size_bytes } => MountSource::Tmpfs { size_bytes: *size_bytes },
        MountKind::Secret { id, required, env, mode, uid, gid } => {
            MountSource::Secret { id: id.clone(), required: *required, env: env.clone(), mode: *mode, uid: *uid, gid: *gid }
        }
        MountKind::Ssh { id, required, mode, uid, gid } => {
            MountSource::Ssh { id: id.clone(), required: *required, mode: *mode, uid: *uid, gid: *gid }
        }
    };
    MountInputs { target: mount.target.clone(), readonly: mount.readonly, source }
}

/// Derives what decides a WORKDIR.
pub fn workdir(op: &MkdirOp) -> StepInputs {
    StepInputs::Workdir(WorkdirInputs { path: op.path.clone(), user: op.user.clone() })
}

/// Derives what decides a COPY or an ADD; `sources`: those of [`source`], in order.
pub fn copy(op: &CopyOp, sources: Vec<SourceInputs>) -> StepInputs {
    StepInputs::Copy(Box::new(CopyInputs {
        sources,
        dest: op.dest.clone(),
        chown: op.chown.clone(),
        chmod: op.chmod.clone(),
        link: op.link,
        parents: op.parents,
        exclude: op.exclude.clone(),
        add: op.add.as_ref().map(|a| AddInputs { keep_git_dir: a.keep_git_dir, unpack: a.unpack }),
    }))
}

/// What a source of a COPY or an ADD led to.
#[derive(Debug, Clone)]
pub enum Found {
    /// What a path or pattern matched, by [`matched`], in the order of copying.
    Paths(Vec<MatchInputs>),
    /// What a URL or a repository gave.
    Remote(ContentDigest),
    /// Nothing had to be looked for: a heredoc.
    Inline,
}

/// Derives what of one source decides a COPY or an ADD.
pub fn source(op: &CopyOp, source: &CopySource, found: Found) -> SourceInputs {
    let one = |name: &[u8], content| vec![MatchInputs { name: name.into(), content }];
    match (source, found) {
        (CopySource::Path(path, _), found) => {
            let matches = if let Found::Paths(matches) = found { matches } else { Vec::new() };
            let pattern = if op.parents { path.clone() } else { base_name(path).to_string() };
            SourceInputs { kind: SourceKind::Path, pattern, matches }
        }
        (CopySource::Inline(name, body), _) => {
            SourceInputs { kind: SourceKind::Inline, pattern: base_name(name).to_string(), matches: one(name.as_bytes(), digest_of(body)) }
        }
        (CopySource::Http(url, _), Found::Remote(content)) => {
            let name = address::file_name(url);
            SourceInputs { kind: SourceKind::Http, matches: one(name.as_bytes(), content), pattern: name }
        }
        (CopySource::Git(..), Found::Remote(content)) => {
            SourceInputs { kind: SourceKind::Git, pattern: String::new(), matches: one(b"", content) }
        }
        (CopySource::Http(..) | CopySource::Git(..), _) => unreachable!("a remote source has remote content"),
    }
}

/// Derives what decides a copy of one thing that a source matched: a directory's own name reaches no destination.
pub fn matched(op: &CopyOp, directory: bool, name: &[u8], content: ContentDigest) -> MatchInputs {
    MatchInputs { name: Name(if directory && !op.parents { Vec::new() } else { name.to_vec() }), content }
}

/// Returns whether a copy stands on nothing: a linked one does, unless names of users have to be looked up below.
pub fn stands_alone(op: &CopyOp) -> bool {
    op.link && op.chown.as_deref().is_none_or(crate::image::users::chown_is_numeric)
}

fn digest_of(body: &[u8]) -> ContentDigest {
    ContentDigest::from_bytes(*blake3::hash(body).as_bytes())
}

/// The last name of a path as Rust's own paths read it: none of `..`.
fn base_name(path: &str) -> &str {
    std::path::Path::new(path).file_name().and_then(|n| n.to_str()).unwrap_or("")
}
