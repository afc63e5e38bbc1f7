//! WORKDIR's directories, and owners by name.
//!
//! `--chown` with an unknown name fails, as the reference says (BuildKit takes 0). USER isn't checked when the
//! image is built, so for WORKDIR an unknown name counts as root, as in BuildKit: the RUN that needs the user
//! fails, not the directory.

use crate::graph::MkdirOp;
use crate::image::users::{self, UserError};
use crate::path::{Ownership, PathError, Root};

use super::error::{CopyCause, CopyError};

/// No honest passwd file is larger; BuildKit's bound too.
const PASSWD_MAX_BYTES: u64 = 10 << 20;
const WORKDIR_MODE: u32 = 0o755;

/// Makes a working directory and its missing parents, mode 0755, owned by the user of that point.
///
/// What exists keeps its mode and owner. Returns the paths of what was made, topmost first.
pub fn make_workdir(op: &MkdirOp, root: &Root, ownership: Ownership) -> Result<Vec<Vec<u8>>, CopyError> {
    let fail = |cause| CopyError { index: None, cause };
    let owner = if op.user.is_empty() {
        None
    } else {
        Some(match owner(&op.user, root) {
            Err(CopyCause::Owner { source: UserError::UnknownUser { .. } | UserError::UnknownGroup { .. }, .. }) => (0, 0),
            found => found.map_err(fail)?,
        })
    };
    root.mkdir_all(op.path.as_bytes(), WORKDIR_MODE, owner, ownership).map_err(|e| fail(e.into()))
}

/// Resolves `user[:group]` with the files of `root`.
pub(super) fn owner(spec: &str, root: &Root) -> Result<(u32, u32), CopyCause> {
    let (mut passwd, mut group) = (None, None);
    if !users::chown_is_numeric(spec) {
        passwd = read(root, b"etc/passwd")?;
        group = read(root, b"etc/group")?;
    }
    let owner = users::resolve_chown(spec, passwd.as_deref(), group.as_deref())
        .map_err(|source| CopyCause::Owner { owner: spec.to_owned(), source })?;
    Ok((owner.uid, owner.gid))
}

fn read(root: &Root, path: &[u8]) -> Result<Option<Vec<u8>>, CopyCause> {
    match root.read_small(path, PASSWD_MAX_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.is_not_found() || matches!(e, PathError::NotRegular { .. } | PathError::NotDirectory { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
