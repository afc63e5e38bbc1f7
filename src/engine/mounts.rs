//! The mounts of a RUN: from what the graph says to what the sandbox takes.

use std::any::Any;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use crate::graph::{FileTree, Mount, MountKind, NodeId, RunOp, Sharing};
use crate::path::{Attributes, Root};
use crate::sandbox::{MountSource, MountSpec};
use crate::store::{CacheMountId, MountSharing, Staging, StoreError};

use super::copy;
use super::error::BuildError;
use super::request::SecretSource;
use super::session::Build;
use super::ssh::{Door, SshError};

/// The build argument that keeps cache mounts apart.
const CACHE_NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";
/// The largest secret (BuildKit's limit).
const MAX_SECRET_BYTES: u64 = 500 * 1024;

/// What must live as long as the step: mounted trees, locks of cache mounts, working directories. Nobody looks at it.
#[derive(Default)]
pub(super) struct Kept(Vec<Box<dyn Any>>);

impl Build<'_> {
    /// Returns a step's mounts in order, and the variables that hold secrets.
    #[allow(clippy::type_complexity)] // a list and a list, used once
    pub fn mounts(&self, id: NodeId, op: &RunOp, kept: &mut Kept) -> Result<(Vec<MountSpec>, Vec<(String, String)>), BuildError> {
        let mut mounts = self.name_files(id, op)?;
        let mut env = Vec::new();
        for (name, body) in &op.scripts {
            let source = MountSource::File { content: body.clone(), mode: 0o755, uid: 0, gid: 0 };
            mounts.push(MountSpec::new(format!("/dev/pipes/{name}"), source).readonly());
        }
        for mount in &op.mounts {
            let source = match &mount.kind {
                MountKind::Bind { from, source } => Some(self.bind(id, mount, from, source, kept)?),
                MountKind::Cache { .. } => Some(self.cache_mount(id, mount, kept)?),
                MountKind::Tmpfs { size_bytes } => Some(MountSource::Tmpfs { size_bytes: *size_bytes, mode: 0o1777 }),
                MountKind::Secret { .. } => self.secret(id, mount, &mut env)?,
                MountKind::Ssh { .. } => self.ssh(id, mount, kept)?,
            };
            let Some(source) = source else { continue };
            let spec = MountSpec::new(mount.target.clone(), source);
            let spec = if mount.readonly { spec.readonly() } else { spec };
            // Files of an image or a context may be run; those of memory and of the caller have no business with
            // set-user-id bits or devices.
            mounts.push(spec.plain_files());
        }
        Ok((mounts, env))
    }

    fn bind(&self, id: NodeId, mount: &Mount, from: &FileTree, source: &str, kept: &mut Kept) -> Result<MountSource, BuildError> {
        let tree = self.tree(id, from)?;
        let selection = self.select_mount(id, from, source)?;
        if mount.readonly
            && let Some(fd) = copy::open_bind(tree.files(), &selection).map_err(|e| self.failed(id, "opening a mount's source", &e))?
            && can_clone(&fd)
        {
            kept.0.push(Box::new(tree));
            return Ok(MountSource::Bind { source: fd, recursive: false });
        }
        // What the process writes is thrown away with the copy.
        let (stage, root) = self.empty_directory(id)?;
        let fd = copy::stage_bind(tree.files(), &selection, &root, self.engine.ownership);
        let fd = fd.map_err(|e| self.failed(id, "copying a mount's source", &e))?;
        kept.0.push(Box::new(stage));
        Ok(MountSource::Bind { source: fd, recursive: false })
    }

    fn empty_directory(&self, id: NodeId) -> Result<(Staging, Root), BuildError> {
        let stage = self.engine.store.stage().map_err(|e| self.failed(id, "making a working directory", &e))?;
        let root = Root::open(stage.path()).map_err(|e| self.failed(id, "opening a working directory", &e))?;
        Ok((stage, root))
    }

    fn cache_mount(&self, id: NodeId, mount: &Mount, kept: &mut Kept) -> Result<MountSource, BuildError> {
        let MountKind::Cache { id: name, sharing, from, source, mode, uid, gid } = &mount.kind else {
            unreachable!("called for cache mounts");
        };
        let store = self.engine.store;
        let name = self.cache_mount_id(id, name, from.as_ref(), source, (*mode, *uid, *gid))?;
        if self.uncached(id) {
            let mut emptied = self.shared.emptied.lock().expect("nobody panics with it");
            if !emptied.contains(&name) {
                store.remove_cache_mount(&name).map_err(|e| self.failed(id, "emptying a cache mount", &e))?;
                emptied.push(name.clone());
            }
        }
        let sharing = match sharing {
            Sharing::Shared => MountSharing::Shared,
            Sharing::Private => MountSharing::Private,
            Sharing::Locked => MountSharing::Locked,
        };
        let fill = |dir: &std::path::Path| {
            let carried = !self.uncached(id) && self.sharing.fill_mount(&name, dir);
            self.fill_cache(id, dir, from.as_ref().filter(|_| !carried), source, (*mode, *uid, *gid))
        };
        self.sharing.note_mount(&name);
        let cancelled = || self.engine.cancel.is_cancelled();
        let opened = store.open_cache_mount_unless(&name, sharing, &cancelled, fill)?.ok_or(BuildError::Cancelled)?;
        let root = Root::open(opened.path()).map_err(|e| self.failed(id, "opening a cache mount", &e))?;
        let fd = if from.is_some() {
            root.into_fd()
        } else {
            root.resolve(source.as_bytes()).map_err(|e| self.failed(id, "in a cache mount", &e))?
        };
        kept.0.push(Box::new(opened));
        Ok(MountSource::Bind { source: fd, recursive: false })
    }

    /// Returns what tells a cache mount apart: a new directory's owner, mode and seed are part of it, as in BuildKit.
    fn cache_mount_id(
        &self,
        id: NodeId,
        name: &str,
        from: Option<&FileTree>,
        source: &str,
        owner: (u32, u32, u32),
    ) -> Result<CacheMountId, BuildError> {
        let namespace = self.request.build_args.get(CACHE_NAMESPACE).map(String::as_str).unwrap_or_default();
        let plain = name.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
        let seed = from.map(|from| self.select_mount(id, from, source)).transpose()?.map(|seed| seed.digest().to_string());
        let owner = Some(owner).filter(|owner| *owner != (0o755, 0, 0));
        Ok(CacheMountId { namespace: namespace.into(), id: plain.into(), owner, seed })
    }

    /// Fills a new cache mount with its seed, and gives it its owner and mode.
    fn fill_cache(
        &self,
        id: NodeId,
        dir: &std::path::Path,
        from: Option<&FileTree>,
        source: &str,
        (mode, uid, gid): (u32, u32, u32),
    ) -> Result<(), BuildError> {
        let ownership = self.engine.ownership;
        let root = Root::open(dir).map_err(|e| self.failed(id, "opening a new cache mount", &e))?;
        if let Some(from) = from {
            let tree = self.tree(id, from)?;
            let selection = self.select_mount(id, from, source)?;
            copy::fill(tree.files(), &selection, &root, ownership).map_err(|e| self.failed(id, "filling a new cache mount", &e))?;
        }
        let attributes = Attributes { uid, gid, mode: Some(mode), mtime: None, xattrs: Default::default() };
        crate::path::apply(&root, b"/", &attributes, ownership).map(|_| ()).map_err(|e| self.failed(id, "preparing a new cache mount", &e))
    }

    /// A secret as a file, and as a variable.
    fn secret(&self, id: NodeId, mount: &Mount, env: &mut Vec<(String, String)>) -> Result<Option<MountSource>, BuildError> {
        let MountKind::Secret { id: name, required, env: variable, mode, uid, gid } = &mount.kind else {
            unreachable!("called for secrets");
        };
        let given = self.request.secrets.iter().rev().find(|s| s.id == *name);
        let value = match given.map(|s| &s.source) {
            Some(SecretSource::Value(bytes)) => Some(bytes.clone()),
            Some(SecretSource::File(path)) => {
                Some(read_secret(path).map_err(|e| self.failed(id, &format!("reading secret `{name}`"), &e))?)
            }
            None if *required => {
                let hint = format!("give it with --secret id={name},src=FILE or id={name},env=NAME");
                return Err(self.at(id, format!("secret `{name}` is required, and was not given (not found)")).hint(hint));
            }
            None => None,
        };
        if value.as_ref().is_some_and(|v| v.len() as u64 > MAX_SECRET_BYTES) {
            return Err(self.at(id, format!("secret `{name}` is larger than 500 KiB")));
        }
        if let Some(variable) = variable {
            // BuildKit: a missing optional secret gives an empty variable.
            let text = String::from_utf8(value.clone().unwrap_or_default());
            env.push((variable.clone(), text.map_err(|e| self.failed(id, &format!("secret `{name}` as a variable"), &e))?));
        }
        let file = value.filter(|_| !mount.target.is_empty());
        Ok(file.map(|content| MountSource::File { content, mode: *mode, uid: *uid, gid: *gid }))
    }

    fn ssh(&self, id: NodeId, mount: &Mount, kept: &mut Kept) -> Result<Option<MountSource>, BuildError> {
        let MountKind::Ssh { id: name, required, mode, uid, gid } = &mount.kind else {
            unreachable!("called for agents");
        };
        let given = self.request.ssh.iter().rev().find(|(n, _)| n == name);
        let Some((_, paths)) = given else {
            if *required {
                let hint = format!("give it with --ssh {name}");
                return Err(self.at(id, format!("ssh agent `{name}` is required, and was not given (not found)")).hint(hint));
            }
            return Ok(None);
        };
        let staging = || self.engine.store.stage().map_err(|e| self.failed(id, "making a working directory", &e));
        let (door_stage, key_stage) = (staging()?, staging()?);
        let failed = |e: SshError| {
            let error = self.failed(id, &format!("ssh agent `{name}`"), &e);
            match e.hint() {
                Some(hint) => error.hint(hint),
                None => error,
            }
        };
        let upstream = self.shared.key_agents.upstream(name, paths, || Ok(key_stage)).map_err(failed)?;
        let door = Door::open(upstream, door_stage, (*uid, *gid, *mode), self.engine.ownership).map_err(failed)?;
        let fd = door.socket().map_err(|e| self.failed(id, "opening the step's agent socket", &e))?;
        kept.0.push(Box::new(door));
        Ok(Some(MountSource::Bind { source: fd, recursive: false }))
    }
}

pub(super) fn read_secret(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut value = Vec::new();
    File::open(path)?.take(MAX_SECRET_BYTES + 1).read_to_end(&mut value)?;
    Ok(value)
}

/// Whether the kernel clones this place for a mount: of a mount that is attached nowhere it does since 6.15.
fn can_clone(fd: &OwnedFd) -> bool {
    use rustix::mount::OpenTreeFlags;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(fd.as_fd(), "", flags).is_ok()
}

impl From<StoreError> for BuildError {
    fn from(error: StoreError) -> Self {
        Self::caused("using the store", &error)
    }
}
