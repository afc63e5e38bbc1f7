//! What a stack of layers is as a whole, before anything is mounted.
//!
//! A newcomer would take the topmost layer's root directory for the root: it only is when that layer says so. Layers of
//! equal content share one directory, and its root looks as the root did where it was first made.

use std::path::{Path, PathBuf};

use super::{Result, materialise, overlay};
use crate::path::{self, Attributes, PathError};

/// Leaves the topmost of layers that occur more than once: overlay refuses a directory twice, and whatever a lower
/// occurrence says, the upper one says again.
pub(super) fn distinct(lowers: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = std::collections::HashSet::new();
    lowers.iter().filter(|l| seen.insert(*l)).cloned().collect()
}

/// Returns what the root directory is like above `lowers` (top first): as the topmost layer says that says anything of
/// it. The roots of the others tell of the stack on which they happened to be made, which layers of equal content share.
pub(super) fn root_of(lowers: &[PathBuf]) -> Result<Attributes> {
    let mut root = Attributes { mode: Some(0o755), ..Attributes::default() };
    for (n, lower) in lowers.iter().enumerate() {
        let dir = path::Root::open(lower)?;
        if overlay::is_root_changed(&dir).map_err(|e| PathError::io("examining", b"/", e))? {
            let found = root_attributes(lower)?;
            return Ok(Attributes { mtime: root.mtime.or(found.mtime), ..found });
        }
        if n == 0 {
            root.mtime = root_attributes(lower)?.mtime;
        }
    }
    Ok(root)
}

/// Returns what the root of a layer's own directory is like.
pub(super) fn root_attributes(layer: &Path) -> Result<Attributes> {
    let (meta, xattrs) = path::inspect(path::Root::open(layer)?, b"").map_err(|e| PathError::io("examining", b"/", e))?;
    Ok(materialise::attributes(&meta, xattrs))
}
