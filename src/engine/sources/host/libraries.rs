//! Finds shared libraries as the dynamic loader does, without running it.
//!
//! `ldd` runs the program's loader; that is no way to look at a file. The order is ld.so(8)'s: RPATH (of the
//! object and of those that asked for it, when the object has no RUNPATH), RUNPATH, the directories of
//! `/etc/ld.so.conf`, the standard ones. `ld.so.cache` is not read: it is made of the same directories.
//! LD_LIBRARY_PATH is not looked at: the base must not depend on who builds it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf};

const CONFIG_DEPTH_MAX: usize = 8;

/// Where libraries are looked for on this host.
#[derive(Debug, Clone)]
pub struct Searcher {
    configured: Vec<PathBuf>,
    /// What was looked at, and what it is loaded by; none: it is no library. Each program asks for libc again.
    kinds: RefCell<HashMap<PathBuf, Option<(u8, u16)>>>,
}

/// Directories that loaders look in by themselves.
const STANDARD: [&str; 4] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];

impl Searcher {
    /// Reads the host's configuration; a missing one is empty.
    pub fn of_host() -> Self {
        let mut configured = Vec::new();
        read_config(Path::new("/etc/ld.so.conf"), &mut configured, 0);
        Self { configured, kinds: RefCell::default() }
    }

    /// Returns the library that an object would load under this name.
    ///
    /// `origin` is the object's directory; `inherited` the RPATHs of those that asked for the object, expanded.
    pub fn find(&self, name: &str, object: &Elf, origin: &Path, inherited: &[PathBuf]) -> Option<PathBuf> {
        let fits = |path: &Path| self.kind(path) == Some(object.kind);
        if name.contains('/') {
            let path = expand(name, origin);
            return fits(&path).then_some(path);
        }
        let own = own_directories(object, origin);
        let inherited = if object.runpath.is_empty() { inherited } else { &[] };
        let multiarch = multiarch(object.kind);
        let multiarch = multiarch.iter().flat_map(|m| [PathBuf::from("/lib").join(m), PathBuf::from("/usr/lib").join(m)]);
        own.into_iter()
            .chain(inherited.iter().cloned())
            .chain(self.configured.iter().cloned())
            .chain(multiarch)
            .chain(STANDARD.iter().map(PathBuf::from))
            .map(|d| d.join(name))
            .find(|p| p.is_file() && fits(p))
    }

    /// Returns the word size and machine of a library.
    fn kind(&self, path: &Path) -> Option<(u8, u16)> {
        let read = || elf::parse(&std::fs::read(path).ok()?).ok()?.map(|e| e.kind);
        *self.kinds.borrow_mut().entry(path.into()).or_insert_with(read)
    }
}

/// Returns an object's own RPATH or RUNPATH, expanded.
pub fn own_directories(object: &Elf, origin: &Path) -> Vec<PathBuf> {
    let list = if object.runpath.is_empty() { &object.rpath } else { &object.runpath };
    list.iter().map(|d| expand(d, origin)).filter(|d| d.is_absolute()).collect()
}

fn expand(text: &str, origin: &Path) -> PathBuf {
    let origin = origin.to_string_lossy();
    PathBuf::from(text.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
}

/// Debian's names for a machine's directories.
fn multiarch((class, machine): (u8, u16)) -> Option<&'static str> {
    Some(match (class, machine) {
        (2, 62) => "x86_64-linux-gnu",
        (1, 62) => "x86_64-linux-gnux32",
        (1, 3) => "i386-linux-gnu",
        (2, 183) => "aarch64-linux-gnu",
        (1, 40) => "arm-linux-gnueabihf",
        (2, 243) => "riscv64-linux-gnu",
        (2, 22) => "s390x-linux-gnu",
        (2, 21) => "powerpc64le-linux-gnu",
        _ => return None,
    })
}

/// Reads `ld.so.conf` and what it includes; patterns may stand for file names only.
fn read_config(path: &Path, out: &mut Vec<PathBuf>, depth: usize) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include").filter(|p| p.starts_with([' ', '\t'])) {
            if depth < CONFIG_DEPTH_MAX {
                for file in included(pattern.trim(), path.parent().unwrap_or(Path::new("/"))) {
                    read_config(&file, out, depth + 1);
                }
            }
        } else if line.starts_with('/') {
            out.push(PathBuf::from(line));
        }
    }
}

fn included(pattern: &str, base: &Path) -> Vec<PathBuf> {
    let pattern = base.join(pattern);
    let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|n| n.to_str())) else { return Vec::new() };
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.clone()] };
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let matches = |n: &str| n.len() >= before.len() + after.len() && n.starts_with(before) && n.ends_with(after);
    let mut found: Vec<PathBuf> = entries.flatten().filter(|e| e.file_name().to_str().is_some_and(matches)).map(|e| e.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_read_with_its_includes_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("ld.so.conf", "/first # note\ninclude conf.d/*.conf\n\n/last\ninclude ld.so.conf\n");
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        write("conf.d/b.conf", "/b\n");
        write("conf.d/a.conf", "# nothing\n/a\n");
        write("conf.d/c.txt", "/c\n");
        let mut found = Vec::new();
        read_config(&dir.path().join("ld.so.conf"), &mut found, CONFIG_DEPTH_MAX - 1);
        let want: Vec<PathBuf> = ["/first", "/a", "/b", "/last", "/first", "/last"].map(PathBuf::from).into();
        assert_eq!(found, want);
    }

    #[test]
    fn the_own_program_s_libraries_are_found() {
        let program = std::env::current_exe().unwrap();
        let elf = elf::parse(&std::fs::read(&program).unwrap()).unwrap().unwrap();
        for name in &elf.needed {
            let found = Searcher::of_host().find(name, &elf, program.parent().unwrap(), &[]);
            assert!(found.is_some(), "{name}");
        }
        assert_eq!(Searcher::of_host().find("libnot-there.so.9", &elf, Path::new("/"), &[]), None);
    }
}
