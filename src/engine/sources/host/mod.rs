//! A base image made from programs of the host, for builds without any registry: `host:sh,ls,cat`.
//!
//! [`Tree`] gathers the programs with all that they need to start: loader, libraries, script interpreters. The
//! image is laid out with `/bin`, `/sbin`, `/lib`, `/lib64` as links into `/usr` whatever the host does, so that a
//! path of either style leads to the same file. Times are zero and owners root, so the same programs always give
//! the same digest. Data files that a program opens while it runs (a language's standard library) are not found:
//! this is a base for shells and tools.

mod elf;
mod libraries;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use elf::Elf;
use libraries::{Searcher, own_directories};

pub use elf::ElfError;

/// How many interpreters may stand behind one another.
const SCRIPT_DEPTH_MAX: usize = 5;

/// Host programs that can't be made into a base.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not in PATH.
    #[error("no program `{0}` on this host")]
    NoProgram(String),
    /// No list.
    #[error("`host:` names no programs")]
    Empty,
    /// A file can't be read.
    #[error("reading {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program is malformed.
    #[error("{path:?} can't be used as a program")]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ElfError,
    },
    /// A library is nowhere.
    #[error("{path:?} needs the library `{name}`, which is not on this host")]
    NoLibrary {
        /// Who needs it.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// Scripts that interpret scripts.
    #[error("the interpreters of {0:?} are nested too deeply")]
    Nested(PathBuf),
    /// The tar can't be written.
    #[error("writing the base's layer")]
    Write(#[from] io::Error),
}

/// What stands at a path of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory(u32),
    Link(PathBuf),
    Text(&'static str),
    /// A file of the host, and whether it is executable.
    File(PathBuf, bool),
}

/// The file tree of a host base, sorted by path (relative to the root).
#[derive(Debug)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    seen: BTreeSet<PathBuf>,
    searcher: Searcher,
    search_path: Vec<PathBuf>,
}

impl Tree {
    /// Gathers the programs, each a name to be found in `search_path` or an absolute path.
    pub fn gather(programs: &[String], search_path: &[PathBuf]) -> Result<Self, HostError> {
        if programs.is_empty() {
            return Err(HostError::Empty);
        }
        let (nodes, seen) = (skeleton(), BTreeSet::new());
        let mut tree = Self { nodes, seen, searcher: Searcher::of_host(), search_path: search_path.to_vec() };
        for name in programs {
            let found = tree.find_program(name)?;
            tree.add_program(&found, 0)?;
            // Reachable by its name in /usr/bin wherever it lies.
            if let Some(file_name) = Path::new(name).file_name() {
                let target = place(&real(&found)?);
                tree.link(Path::new("usr/bin").join(file_name), &target);
            }
        }
        Ok(tree)
    }

    /// Writes the layer: the same bytes for the same files.
    pub fn write_tar(&self, out: impl Write) -> Result<(), HostError> {
        let mut builder = tar::Builder::new(out);
        for (path, node) in &self.nodes {
            let mut header = tar::Header::new_ustar();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            match node {
                Node::Directory(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    builder.append_data(&mut header, path, io::empty())?;
                }
                Node::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    builder.append_link(&mut header, path, target)?;
                }
                Node::Text(text) => {
                    header.set_size(text.len() as u64);
                    header.set_mode(0o644);
                    builder.append_data(&mut header, path, text.as_bytes())?;
                }
                Node::File(source, executable) => {
                    let bytes = read(source)?;
                    header.set_size(bytes.len() as u64);
                    header.set_mode(if *executable { 0o755 } else { 0o644 });
                    builder.append_data(&mut header, path, bytes.as_slice())?;
                }
            }
        }
        builder.into_inner()?.flush()?;
        Ok(())
    }

    /// Returns the command that starts by default: the shell when there is one.
    pub fn command(programs: &[String]) -> String {
        let name = |p: &String| Path::new(p).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let names: Vec<String> = programs.iter().map(name).collect();
        let first = names.iter().find(|n| *n == "sh").or(names.first());
        format!("/bin/{}", first.map_or("sh", String::as_str))
    }

    fn find_program(&self, name: &str) -> Result<PathBuf, HostError> {
        let missing = || HostError::NoProgram(name.chars().take(200).collect());
        let runs = |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        if name.starts_with('/') {
            return Some(PathBuf::from(name)).filter(runs).ok_or_else(missing);
        }
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(missing());
        }
        self.search_path.iter().filter(|d| d.is_absolute()).map(|d| d.join(name)).find(runs).ok_or_else(missing)
    }

    /// Adds a program under its own path, with what it needs.
    fn add_program(&mut self, path: &Path, depth: usize) -> Result<(), HostError> {
        if depth > SCRIPT_DEPTH_MAX {
            return Err(HostError::Nested(path.into()));
        }
        let file = real(path)?;
        self.put_file(&file, true);
        self.link(place(path), &place(&file));
        if !self.seen.insert(file.clone()) {
            return Ok(());
        }
        let bytes = read(&file)?;
        if let Some(rest) = bytes.strip_prefix(b"#!") {
            return self.add_interpreter(rest, depth);
        }
        match elf::parse(&bytes).map_err(|source| HostError::Elf { path: file.clone(), source })? {
            Some(elf) => self.add_needs(&file, &elf, &[]),
            // No magic: the shell would read it as a script; nothing to add.
            None => Ok(()),
        }
    }

    fn add_interpreter(&mut self, line: &[u8], depth: usize) -> Result<(), HostError> {
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let mut words = line.split_whitespace();
        let Some(interpreter) = words.next().filter(|i| i.starts_with('/')) else { return Ok(()) };
        let found = self.find_program(interpreter)?;
        self.add_program(&found, depth + 1)?;
        if Path::new(interpreter).file_name().is_some_and(|n| n == "env")
            && let Some(name) = words.find(|w| !w.starts_with('-') && !w.contains('='))
        {
            let found = self.find_program(name)?;
            self.add_program(&found, depth + 1)?;
        }
        Ok(())
    }

    /// Adds an object's loader and libraries, and theirs.
    fn add_needs(&mut self, object: &Path, elf: &Elf, inherited: &[PathBuf]) -> Result<(), HostError> {
        if let Some(interpreter) = &elf.interpreter {
            let loader = real(Path::new(interpreter))?;
            self.put_file(&loader, true);
            self.link(place(Path::new(interpreter)), &place(&loader));
            self.seen.insert(loader);
        }
        let origin = object.parent().unwrap_or(Path::new("/"));
        let mut rpaths = own_directories(elf, origin);
        rpaths.extend(inherited.iter().cloned());
        for name in &elf.needed {
            let missing = || HostError::NoLibrary { path: object.into(), name: name.clone() };
            let found = self.searcher.find(name, elf, origin, inherited).ok_or_else(missing)?;
            let file = real(&found)?;
            self.put_file(&file, false);
            let asked_for = place(&found);
            self.link(asked_for.clone(), &place(&file));
            // The image has no ld.so.cache: where only that would lead to the library, a link does.
            if !is_standard(&asked_for) && !own_directories(elf, origin).iter().any(|d| found.starts_with(d)) {
                self.link(Path::new("usr/lib").join(name), &place(&file));
            }
            if self.seen.insert(file.clone()) {
                let parsed = elf::parse(&read(&file)?).map_err(|source| HostError::Elf { path: file.clone(), source })?;
                if let Some(library) = parsed {
                    self.add_needs(&file, &library, if elf.runpath.is_empty() { &rpaths } else { &[] })?;
                }
            }
        }
        Ok(())
    }

    fn put_file(&mut self, file: &Path, executable: bool) {
        let path = place(file);
        self.parents(&path);
        let node = self.nodes.entry(path).or_insert_with(|| Node::File(file.into(), executable));
        if let Node::File(_, runs) = node {
            *runs |= executable;
        }
    }

    /// Makes `path` lead to `target` (both in the image), unless something is there.
    fn link(&mut self, path: PathBuf, target: &Path) {
        if path != target && !self.nodes.contains_key(&path) {
            self.parents(&path);
            let beside = path.parent() == target.parent();
            let text = if beside { target.file_name().map(PathBuf::from).unwrap_or_default() } else { Path::new("/").join(target) };
            self.nodes.insert(path, Node::Link(text));
        }
    }

    fn parents(&mut self, path: &Path) {
        for parent in path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
            self.nodes.entry(parent.into()).or_insert(Node::Directory(0o755));
        }
    }
}

/// Returns what every base has.
fn skeleton() -> BTreeMap<PathBuf, Node> {
    let mut nodes = BTreeMap::new();
    for dir in ["dev", "etc", "home", "proc", "run", "sys", "usr", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "var"] {
        nodes.insert(PathBuf::from(dir), Node::Directory(0o755));
    }
    nodes.insert("root".into(), Node::Directory(0o700));
    for dir in ["tmp", "var/tmp"] {
        nodes.insert(dir.into(), Node::Directory(0o1777));
    }
    for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")] {
        nodes.insert(link.into(), Node::Link(target.into()));
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n";
    nodes.insert("etc/passwd".into(), Node::Text(passwd));
    nodes.insert("etc/group".into(), Node::Text("root:x:0:\nnogroup:x:65534:\n"));
    nodes
}

/// Returns where a host path stands in the image, relative to the root: `/lib/x` is `usr/lib/x`.
fn place(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                if out.as_os_str().is_empty() && ["bin", "sbin", "lib", "lib64"].iter().any(|d| name == *d) {
                    out.push("usr");
                }
                out.push(name);
            }
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// Tells whether loaders look there without a cache.
fn is_standard(path: &Path) -> bool {
    let parent = path.parent().unwrap_or(Path::new(""));
    let name = parent.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    parent == Path::new("usr/lib")
        || parent == Path::new("usr/lib64")
        || (parent.parent() == Some(Path::new("usr/lib")) && name.contains("-linux-gnu"))
}

/// Returns the path with all links followed.
fn real(path: &Path) -> Result<PathBuf, HostError> {
    std::fs::canonicalize(path).map_err(|source| HostError::Read { path: path.into(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, HostError> {
    std::fs::read(path).map_err(|source| HostError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search_path() -> Vec<PathBuf> {
        ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from).into()
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn both_spellings_of_a_path_are_one_place() {
        for (path, want) in [
            ("/bin/sh", "usr/bin/sh"),
            ("/usr/bin/sh", "usr/bin/sh"),
            ("/lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
            ("/lib/../bin/x", "usr/bin/x"),
            ("/opt/bin/x", "opt/bin/x"),
        ] {
            assert_eq!(place(Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn one_set_of_programs_gives_one_layer() {
        let bytes = |list: &[&str]| {
            let mut out = Vec::new();
            Tree::gather(&names(list), &search_path()).unwrap().write_tar(&mut out).unwrap();
            out
        };
        let one = bytes(&["sh", "ls"]);
        assert_eq!(one, bytes(&["ls", "sh"]));
        assert_ne!(one, bytes(&["sh"]));
    }

    #[test]
    fn the_programs_run_with_nothing_but_the_tree() {
        // The loader of the tree is asked to resolve everything inside it; no root needed.
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::gather(&names(&["sh", "ls", "cat"]), &search_path()).unwrap();
        let mut archive = Vec::new();
        tree.write_tar(&mut archive).unwrap();
        let mut entries = BTreeSet::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            entries.insert(entry.path().unwrap().into_owned());
        }
        for path in &entries {
            let parent = path.parent().unwrap();
            assert!(parent == Path::new("") || entries.contains(parent), "{path:?} has no parent");
        }
        for path in ["usr/bin/sh", "usr/bin/ls", "usr/bin/cat", "etc/passwd", "tmp", "bin"] {
            assert!(entries.contains(Path::new(path)), "{path}");
        }
        drop(dir);
    }

    #[test]
    fn a_script_brings_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("tool");
        std::fs::write(&script, "#!/usr/bin/env -S sh -e\necho\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let tree = Tree::gather(&[script.to_string_lossy().into_owned()], &search_path()).unwrap();
        for path in ["usr/bin/env", "usr/bin/sh", "usr/bin/tool"] {
            assert!(tree.nodes.contains_key(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_told() {
        for list in [&["no-such-program"][..], &["../sh"], &["/etc/passwd"], &[""]] {
            assert!(matches!(Tree::gather(&names(list), &search_path()), Err(HostError::NoProgram(_))), "{list:?}");
        }
        assert!(matches!(Tree::gather(&[], &search_path()), Err(HostError::Empty)));
    }
}
