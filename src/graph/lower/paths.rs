//! Paths in an image, lexically: no file system is looked at.
//!
//! BuildKit's `system.NormalizePath` and `llb`'s file operations in one. What a newcomer would get wrong: a trailing
//! `/` or `/.` of a destination is kept, as it means "into this directory".

use crate::dockerfile::ignore::clean;

/// Returns `path` seen from `dir`, absolute and cleaned.
pub(super) fn join(dir: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("/{dir}/{path}")) }
}

/// Returns a WORKDIR as the configuration keeps it: an absolute one as written.
pub(super) fn workdir(current: &str, path: &str) -> String {
    let current = if current.is_empty() { "/" } else { current };
    match path {
        "" => current.to_string(),
        path if path.starts_with('/') => path.to_string(),
        path => join(current, path),
    }
}

/// Returns a destination of COPY, absolute and cleaned but for its end.
pub(super) fn destination(dir: &str, path: &str) -> String {
    let path = if matches!(path, "" | ".") { "./" } else { path };
    let cleaned = join(dir, path);
    if path.ends_with('/') && !cleaned.ends_with('/') {
        format!("{cleaned}/")
    } else if path.ends_with("/.") {
        format!("{}/.", cleaned.trim_end_matches('/'))
    } else {
        cleaned
    }
}

/// Returns the last element of a path, as Go's `path.Base` does.
pub(super) fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path.is_empty(), trimmed.is_empty()) {
        (true, _) => ".",
        (_, true) => "/",
        _ => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_their_end() {
        for (dir, path, want) in [
            ("/", "x", "/x"),
            ("/a", "x/", "/a/x/"),
            ("/a", ".", "/a/"),
            ("", ".", "/"),
            ("/a", "./", "/a/"),
            ("/a", "..", "/"),
            ("/a", "/b//c/.", "/b/c/."),
            ("/a", "/.", "/."),
            ("/a", "/", "/"),
        ] {
            assert_eq!(destination(dir, path), want, "{dir} {path}");
        }
    }

    #[test]
    fn working_directories() {
        for (current, path, want) in [("", "a", "/a"), ("/a", "b/../c", "/a/c"), ("/a", "", "/a"), ("", "", "/"), ("/a", "/b//", "/b//")] {
            assert_eq!(workdir(current, path), want, "{current} {path}");
        }
    }
}
