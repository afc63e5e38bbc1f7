//! Why a build ended without a result.

use crate::dockerfile::source::Diagnostic;
use crate::registry::RegistryError;

/// The error of a build.
///
/// What a Dockerfile's author can act on carries its place; the rest says what was being done.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Something is wrong at a place of the Dockerfile, or a step failed there.
    #[error("{0}")]
    At(Box<Diagnostic>),
    /// Something is wrong elsewhere: the context, the store, an output.
    #[error("{message}")]
    Plain {
        /// What was being done and what went wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The caller's cancel flag was set.
    #[error("the build was cancelled")]
    Cancelled,
}

impl BuildError {
    /// Makes an error without a place.
    pub fn plain(message: impl Into<String>) -> Self {
        Self::Plain { message: message.into(), hint: None }
    }

    /// Makes an error without a place from an error and all its causes.
    pub fn caused(doing: impl std::fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::plain(format!("{doing}: {}", chain(error))).advised(error)
    }

    /// Adds what to do about `error`, the cause, where that is always the same.
    pub fn advised(self, error: &(dyn std::error::Error + 'static)) -> Self {
        match advice(error) {
            Some(text) => self.hint(text),
            None => self,
        }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::At(d) => d.hint = Some(text.into()),
            Self::Plain { hint, .. } => *hint = Some(text.into()),
            Self::Cancelled => {}
        }
        self
    }
}

impl From<Diagnostic> for BuildError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::At(Box::new(diagnostic))
    }
}

const FULL_DISK: &str = "the file system of the store or of the output has no space or no inodes left (df -h, df -i): \
                         `ply prune --all` frees what the cache holds, --store takes another place";

/// Returns what to do about an error, where that is always the same.
pub fn advice(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if is_full_disk(error) {
        return Some(FULL_DISK.into());
    }
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(RegistryError::Denied { host, .. }) = error.downcast_ref() {
            return Some(format!("`ply login {host}` keeps credentials for it (docker's and podman's logins are used too)"));
        }
        // Errors are boxed on the way.
        next = error.downcast_ref::<Box<RegistryError>>().map(|e| &**e as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    None
}

fn is_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        let errno = io.or_else(|| error.downcast_ref::<rustix::io::Errno>().map(|e| e.raw_os_error()));
        if matches!(errno, Some(libc::ENOSPC | libc::EDQUOT)) {
            return true;
        }
        // An error inside an `io::Error` is not its source.
        next = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref).map_or_else(|| error.source(), |e| Some(e));
    }
    false
}

/// Returns an error's text with those of its causes, each once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_has_advice_however_deep_it_lies() {
        let full = || std::io::Error::from_raw_os_error(libc::ENOSPC);
        let wrapped = std::io::Error::other(full());
        let store = crate::store::StoreError::Io { doing: "writing", path: "/x".into(), source: full() };
        let hint = |error: &(dyn std::error::Error + 'static)| match BuildError::caused("copying", error) {
            BuildError::Plain { hint, .. } => hint,
            _ => None,
        };
        for error in [&full() as &dyn std::error::Error, &wrapped, &store, &rustix::io::Errno::DQUOT] {
            assert_eq!(hint(error).as_deref(), Some(FULL_DISK), "{error}");
        }
        assert_eq!(hint(&std::io::Error::from_raw_os_error(libc::EIO)), None);
        let denied = RegistryError::Denied { what: "x".into(), host: "r.example".into(), message: String::new() };
        let pushing = crate::engine::export::ExportError::Push { name: "x".into(), source: Box::new(denied) };
        assert!(hint(&pushing).unwrap().starts_with("`ply login r.example` "));
    }
}
