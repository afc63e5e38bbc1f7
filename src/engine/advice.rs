//! What to do about the errors that any call to the kernel may give: no room, no more files, not allowed, read-only, broken.
//!
//! The error that people see names what was being done and to what; this finds the cause beneath, however deep it lies, and
//! says the way out. The index's errors are SQLite's, which keeps the kernel's answer to itself: for those it is a guess.

use std::error::Error;

use crate::registry::RegistryError;
use crate::sandbox::SandboxError;
use crate::sandbox::userns::UsernsError;
use crate::store::IndexTrouble;

const FULL: &str = "the file system of the store or of the output has no space or no inodes left (df -h, df -i): \
                    `ply prune --all` frees what the cache holds, --store takes another place";
const QUOTA: &str = "the quota for this user is used up on the file system of the store or of the output (quota): \
                     `ply prune --all` frees what the cache holds, --store takes another place";
const FILES: &str = "no more files can be open at once: raise the limit (`ulimit -n`; of the whole system: sysctl fs.file-max), \
                     or let fewer steps run side by side (`--jobs 1`)";
const DENIED: &str = "this user may not do that there: look at the owner and the mode of the path and of the directories above it \
                      (ls -ld); --store takes another place for the store";
const READ_ONLY: &str = "its file system is mounted read-only, which the kernel also does after errors (findmnt, dmesg): \
                         --store takes another place for the store";
const BROKEN: &str = "the device or the file system gave an error: the kernel's log says more (dmesg); `ply fsck` checks the store";
const INDEX: &str = "the file system of the store gave an error: look whether there is room (df -h, df -i), who owns the store \
                     (ls -ld), how many files may be open (ulimit -n), and what the kernel's log says (dmesg)";

/// Returns what to do about an error, where that is always the same.
pub fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(RegistryError::Denied { host, .. }) = error.downcast_ref() {
            return Some(format!("`ply login {host}` keeps credentials for it (docker's and podman's logins are used too)"));
        }
        next = beneath(error);
    }
    system_advice(error)
}

/// Returns what to do about an error that has the kernel's beneath it.
pub fn system_advice(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        // A program of the image: its mode is the Dockerfile's affair. And a refused namespace has its own words.
        let is_told = matches!(error.downcast_ref(), Some(UsernsError::Refused { .. } | UsernsError::Mounts { .. }));
        if is_told || matches!(error.downcast_ref(), Some(SandboxError::NotExecutable { .. })) {
            return None;
        }
        if let Some(text) = of_kernel(error).or_else(|| of_index(error)) {
            return Some(text.into());
        }
        next = beneath(error);
    }
    None
}

/// The cause of an error, also where it is not its source: errors are boxed on the way.
fn beneath<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    if let Some(boxed) = error.downcast_ref::<Box<RegistryError>>() {
        return Some(&**boxed);
    }
    // An error inside an `io::Error` is not its source.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn of_kernel(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    match io.or_else(|| error.downcast_ref::<rustix::io::Errno>().map(|e| e.raw_os_error()))? {
        libc::ENOSPC => Some(FULL),
        libc::EDQUOT => Some(QUOTA),
        libc::EMFILE | libc::ENFILE => Some(FILES),
        libc::EACCES => Some(DENIED),
        libc::EROFS => Some(READ_ONLY),
        libc::EIO => Some(BROKEN),
        _ => None,
    }
}

fn of_index(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match IndexTrouble::of(error)? {
        IndexTrouble::Full => Some(FULL),
        IndexTrouble::Unknown => Some(INDEX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::BuildError;
    use crate::store::StoreError;

    fn hint(error: &(dyn Error + 'static)) -> Option<String> {
        match BuildError::caused("copying", error) {
            BuildError::Plain { hint, .. } => hint,
            _ => None,
        }
    }

    #[test]
    fn a_full_disk_has_advice_however_deep_it_lies() {
        let full = || std::io::Error::from_raw_os_error(libc::ENOSPC);
        let wrapped = std::io::Error::other(full());
        let store = StoreError::Io { doing: "writing", path: "/x".into(), source: full() };
        for error in [&full() as &dyn Error, &wrapped, &store, &rustix::io::Errno::NOSPC] {
            assert_eq!(hint(error).as_deref(), Some(FULL), "{error}");
        }
        let denied = RegistryError::Denied { what: "x".into(), host: "r.example".into(), message: String::new() };
        let pushing = crate::engine::export::ExportError::Push { name: "x".into(), source: Box::new(denied) };
        assert!(hint(&pushing).unwrap().starts_with("`ply login r.example` "));
    }

    #[test]
    fn each_error_of_the_kernel_has_its_own_advice() {
        for (errno, want) in [
            (libc::EDQUOT, Some(QUOTA)),
            (libc::EMFILE, Some(FILES)),
            (libc::ENFILE, Some(FILES)),
            (libc::EACCES, Some(DENIED)),
            (libc::EROFS, Some(READ_ONLY)),
            (libc::EIO, Some(BROKEN)),
            (libc::ENOENT, None),
        ] {
            assert_eq!(hint(&std::io::Error::from_raw_os_error(errno)).as_deref(), want, "{errno}");
        }
    }
}
