//! The `.wh.` names by which a layer's tar says that something below is gone (OCI image spec, layer.md).
//!
//! They speak of lower layers only: an entry of the same layer is never removed by them, whatever the order.

use super::LayerError;
use crate::path::printable;

/// What a name in a layer's tar means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// Itself.
    Plain(&'a [u8]),
    /// That this name is gone.
    Removed(&'a [u8]),
    /// That all names of the directory are gone.
    Opaque,
    /// Bookkeeping of aufs, to be passed over (Docker does).
    Ignored,
}

/// Reads the last component of an entry's path.
///
/// # Errors
/// A whiteout of nothing, of `.` or of `..`.
pub fn parse<'a>(name: &'a [u8], path: &[u8]) -> Result<Name<'a>, LayerError> {
    match name.strip_prefix(b".wh.") {
        None => Ok(Name::Plain(name)),
        Some(b".wh..opq") => Ok(Name::Opaque),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Name::Ignored),
        Some(b"" | b"." | b"..") => Err(LayerError::Whiteout { path: printable(path) }),
        Some(rest) => Ok(Name::Removed(rest)),
    }
}

/// Returns the path of the entry that says that `path` is gone.
pub fn removal_of(path: &[u8]) -> Vec<u8> {
    let start = path.iter().rposition(|&c| c == b'/').map_or(0, |i| i + 1);
    [&path[..start], b".wh.", &path[start..]].concat()
}

/// Returns the path of the entry that says that everything in the directory `path` is gone.
pub fn opaque_of(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { b".wh..wh..opq".to_vec() } else { [path, b"/.wh..wh..opq"].concat() }
}
