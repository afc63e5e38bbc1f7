//! What decides a step's result, field by field, and the key made of it.
//!
//! Pure. These structs are an allow-list written for the purpose: what has no field can't be in a key. Each is taken
//! apart with all its fields named, so that a new field doesn't compile before it is decided upon. The table of what
//! is in and out, and why, is in [the module's header](super).

use serde::{Deserialize, Serialize};

use super::files::Name;
use super::state::StateId;
use super::wire::Encoder;
use crate::digest::{CacheKey, ContentDigest};
use crate::image::platform::Platform;

/// Part of every key: a change of the meaning of a field, of how content is digested or of what a step does with
/// equal inputs is a new number.
pub const FORMAT: u64 = 1;

/// All that decides a step's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyInputs {
    /// What it is built for.
    pub platform: Platform,
    /// The content that it works on; for `COPY --link` and the like: [`StateId::scratch`].
    pub parent: StateId,
    /// What it does.
    pub step: StepInputs,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepInputs {
    /// RUN.
    Run(Box<RunInputs>),
    /// COPY and ADD.
    Copy(Box<CopyInputs>),
    /// WORKDIR.
    Workdir(WorkdirInputs),
}

/// What decides a RUN.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInputs {
    /// The process's arguments, the shell's included.
    pub argv: Vec<String>,
    /// Its environment, in order, without proxy variables.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: String,
    /// USER as written.
    pub user: String,
    /// Its host's name.
    pub hostname: String,
    /// What it can reach.
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
    /// Its mounts, in order.
    pub mounts: Vec<MountInputs>,
    /// Heredoc scripts: name, and BLAKE3 of their bytes.
    pub scripts: Vec<(String, ContentDigest)>,
    /// `--shm-size`.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// The names (not the addresses) of `--add-host`.
    pub extra_hosts: Vec<String>,
}

/// What a RUN can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Network {
    #[default]
    Default,
    None,
    Host,
}

/// A mount of a RUN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountInputs {
    /// Where.
    pub target: String,
    /// Not to be written by the process.
    pub readonly: bool,
    /// What.
    pub source: MountSource,
}

/// What a mount shows, as far as it decides the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// Files.
    Bind {
        /// The digest of what is mounted: of the file or directory at `source=`.
        content: ContentDigest,
    },
    /// A directory between builds: what a new one looks like.
    Cache {
        /// The digest of what it is filled with; none: empty.
        seed: Option<ContentDigest>,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Its limit.
        size_bytes: Option<u64>,
    },
    /// A secret, without its value.
    Secret {
        /// Its name.
        id: String,
        /// Fails without it.
        required: bool,
        /// Given as this variable.
        env: Option<String>,
        /// The file's mode.
        mode: u32,
        /// The file's owner.
        uid: u32,
        /// The file's group.
        gid: u32,
    },
    /// An agent's socket.
    Ssh {
        /// Its name.
        id: String,
        /// Fails without it.
        required: bool,
        /// The socket's mode.
        mode: u32,
        /// The socket's owner.
        uid: u32,
        /// The socket's group.
        gid: u32,
    },
}

/// What decides a COPY or an ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyInputs {
    /// What is copied, in order.
    pub sources: Vec<SourceInputs>,
    /// Where to: absolute, a trailing `/` or `/.` kept.
    pub dest: String,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// ADD's options; none: COPY.
    pub add: Option<AddInputs>,
}

/// One source of a COPY or an ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceInputs {
    /// What kind of source.
    pub kind: SourceKind,
    /// The base name as written (`*.c`, `app`); with `--parents` the whole path.
    pub pattern: String,
    /// What it matched, in the order of copying.
    pub matches: Vec<MatchInputs>,
}

/// What kind a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum SourceKind {
    Path,
    Inline,
    Http,
    Git,
}

/// A file or directory that a source matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchInputs {
    /// Its base name; with `--parents` its path.
    pub name: Name,
    /// What is in it, itself included, after `.dockerignore` and `--exclude`.
    pub content: ContentDigest,
}

/// What ADD has and COPY has not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddInputs {
    /// `--keep-git-dir`.
    pub keep_git_dir: bool,
    /// `--unpack`, when given.
    pub unpack: Option<bool>,
}

/// What decides a WORKDIR.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkdirInputs {
    /// Absolute and cleaned.
    pub path: String,
    /// USER as written: who owns what is made.
    pub user: String,
}

impl KeyInputs {
    /// Returns the key: equal exactly when all fields are.
    pub fn key(&self) -> CacheKey {
        let Self { platform, parent, step } = self;
        let Platform { os, architecture, variant, os_version } = platform;
        let mut e = Encoder::new("plywood cache key");
        e.field("format").number(FORMAT);
        e.field("os").text(os).field("architecture").text(architecture);
        e.field("variant").text(variant).field("os_version").text(os_version);
        e.field("parent").bytes(parent.as_bytes());
        match step {
            StepInputs::Run(run) => run.encode(e.variant("run")),
            StepInputs::Copy(copy) => copy.encode(e.variant("copy")),
            StepInputs::Workdir(workdir) => workdir.encode(e.variant("workdir")),
        }
        CacheKey::from_bytes(e.finish())
    }

    /// Returns the trees whose lists of files tell what of the inputs differs from others.
    pub fn trees(&self) -> Vec<ContentDigest> {
        match &self.step {
            StepInputs::Copy(copy) => {
                let paths = copy.sources.iter().filter(|s| s.kind == SourceKind::Path);
                paths.flat_map(|s| s.matches.iter().map(|m| m.content)).collect()
            }
            StepInputs::Run(run) => {
                let shown = |source: &MountSource| match source {
                    MountSource::Bind { content } => Some(*content),
                    MountSource::Cache { seed, .. } => *seed,
                    MountSource::Tmpfs { .. } | MountSource::Secret { .. } | MountSource::Ssh { .. } => None,
                };
                run.mounts.iter().filter_map(|m| shown(&m.source)).collect()
            }
            StepInputs::Workdir(_) => Vec::new(),
        }
    }
}

impl RunInputs {
    fn encode(&self, e: &mut Encoder) {
        let Self { argv, env, cwd, user, hostname, network, insecure, mounts, scripts, shm_size_bytes, ulimits, extra_hosts } = self;
        texts(e.field("argv"), argv);
        e.field("env").list(env, |e, (k, v)| {
            e.text(k).text(v);
        });
        e.field("cwd").text(cwd).field("user").text(user).field("hostname").text(hostname);
        e.field("network").variant(match network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        });
        e.field("insecure").flag(*insecure);
        e.field("mounts").list(mounts, |e, m| m.encode(e));
        e.field("scripts").list(scripts, |e, (name, content)| {
            e.text(name).bytes(content.as_bytes());
        });
        e.field("shm_size").option(shm_size_bytes.as_ref(), |e, n| {
            e.number(*n);
        });
        e.field("ulimits").list(ulimits, |e, (name, soft, hard)| {
            e.text(name).number(*soft).number(*hard);
        });
        texts(e.field("extra_hosts"), extra_hosts);
    }
}

impl MountInputs {
    fn encode(&self, e: &mut Encoder) {
        let Self { target, readonly, source } = self;
        e.field("target").text(target).field("readonly").flag(*readonly);
        let owned = |e: &mut Encoder, mode: u32, uid: u32, gid: u32| {
            e.field("mode").number(mode.into()).field("uid").number(uid.into()).field("gid").number(gid.into());
        };
        match source {
            MountSource::Bind { content } => {
                e.variant("bind").bytes(content.as_bytes());
            }
            MountSource::Cache { seed, mode, uid, gid } => {
                e.variant("cache").option(seed.as_ref(), |e, c| {
                    e.bytes(c.as_bytes());
                });
                owned(e, *mode, *uid, *gid);
            }
            MountSource::Tmpfs { size_bytes } => {
                e.variant("tmpfs").option(size_bytes.as_ref(), |e, n| {
                    e.number(*n);
                });
            }
            MountSource::Secret { id, required, env, mode, uid, gid } => {
                e.variant("secret").text(id).flag(*required).option(env.as_ref(), |e, s| {
                    e.text(s);
                });
                owned(e, *mode, *uid, *gid);
            }
            MountSource::Ssh { id, required, mode, uid, gid } => {
                e.variant("ssh").text(id).flag(*required);
                owned(e, *mode, *uid, *gid);
            }
        }
    }
}

impl CopyInputs {
    fn encode(&self, e: &mut Encoder) {
        let Self { sources, dest, chown, chmod, link, parents, exclude, add } = self;
        e.field("sources").list(sources, |e, source| {
            let SourceInputs { kind, pattern, matches } = source;
            e.variant(match kind {
                SourceKind::Path => "path",
                SourceKind::Inline => "inline",
                SourceKind::Http => "http",
                SourceKind::Git => "git",
            });
            e.text(pattern).list(matches, |e, MatchInputs { name, content }| {
                e.bytes(&name.0).bytes(content.as_bytes());
            });
        });
        e.field("dest").text(dest);
        let text = |e: &mut Encoder, s: &String| {
            e.text(s);
        };
        e.field("chown").option(chown.as_ref(), text).field("chmod").option(chmod.as_ref(), text);
        e.field("link").flag(*link).field("parents").flag(*parents);
        texts(e.field("exclude"), exclude);
        e.field("add").option(add.as_ref(), |e, AddInputs { keep_git_dir, unpack }| {
            e.flag(*keep_git_dir).option(unpack.as_ref(), |e, on| {
                e.flag(*on);
            });
        });
    }
}

impl WorkdirInputs {
    fn encode(&self, e: &mut Encoder) {
        let Self { path, user } = self;
        e.field("path").text(path).field("user").text(user);
    }
}

fn texts(e: &mut Encoder, list: &[String]) {
    e.list(list, |e, s| {
        e.text(s);
    });
}

#[cfg(test)]
pub(super) mod tests;
