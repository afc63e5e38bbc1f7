//! A context's files: edited at random, remembered, and brought back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Random, TEXTS};

/// The names that edits are about; few, so that one undoes what another did.
const NAMES: [&str; 9] = ["f", "d/a", "d/b", "d/sub/c", "x.c", "y.c", "d/new", "d/sub/more", "new"];
const IGNORED: [&str; 6] = ["", "d/b\n", "*.c\n", "d\n!d/a\n!d/sub\n", "**/c\n", "*\n!d\n!f\n!x.c\n"];

/// What a context holds, but for the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context(BTreeMap<PathBuf, Thing>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Directory(u32),
    File(Vec<u8>, u32),
    Link(PathBuf),
    /// A further name of the file that comes first under this one.
    Again(PathBuf),
}

impl Context {
    /// Reads it.
    pub fn read(top: &Path) -> Self {
        let (mut things, mut names) = (BTreeMap::new(), BTreeMap::new());
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            for entry in fs::read_dir(top.join(&below)).unwrap() {
                let path = below.join(entry.unwrap().file_name());
                if path == Path::new("Dockerfile") {
                    continue;
                }
                let meta = fs::symlink_metadata(top.join(&path)).unwrap();
                let mode = meta.permissions().mode() & 0o7777;
                let thing = if meta.is_symlink() {
                    Thing::Link(fs::read_link(top.join(&path)).unwrap())
                } else if meta.is_dir() {
                    pending.push(path.clone());
                    Thing::Directory(mode)
                } else {
                    names.entry(meta.ino()).or_insert_with(Vec::new).push(path.clone());
                    Thing::File(fs::read(top.join(&path)).unwrap(), mode)
                };
                things.insert(path, thing);
            }
        }
        for mut same in names.into_values() {
            same.sort();
            for further in &same[1..] {
                things.insert(further.clone(), Thing::Again(same[0].clone()));
            }
        }
        Self(things)
    }

    /// Makes the directory hold this, whatever it held.
    pub fn write(&self, top: &Path) {
        for entry in fs::read_dir(top).unwrap().map(|e| e.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                fs::remove_dir_all(entry.path()).unwrap();
            } else {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        // In order: a directory comes before what is in it, a file before its further names.
        for (path, thing) in &self.0 {
            let path = top.join(path);
            match thing {
                Thing::Directory(_) => fs::create_dir(&path).unwrap(),
                Thing::File(bytes, mode) => {
                    fs::write(&path, bytes).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                }
                Thing::Link(to) => symlink(to, &path).unwrap(),
                Thing::Again(first) => fs::hard_link(top.join(first), &path).unwrap(),
            }
        }
        for (path, thing) in self.0.iter().rev() {
            if let Thing::Directory(mode) = thing {
                fs::set_permissions(top.join(path), fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
    }
}

/// The files that all contexts begin with.
pub fn start(top: &Path) {
    for (name, text) in [("f", "one"), ("d/a", "a"), ("d/b", "b"), ("d/sub/c", "c"), ("x.c", "x"), ("y.c", "y")] {
        put(&top.join(name), text);
    }
    symlink("f", top.join("link")).unwrap();
    symlink("a", top.join("d/l")).unwrap();
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) {
        fs::remove_file(path).unwrap();
    }
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn stamp(path: &Path, time: SystemTime) {
    // Opened by whoever owns it, whatever its mode says: tests of ordinary users make no unreadable files.
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Changes something; says what.
pub fn edit(r: &mut Random, top: &Path) -> String {
    let name = r.pick(&NAMES);
    let path = top.join(name);
    let kept = ["f", "d/a", "x.c"].contains(&name);
    let is_file = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file());
    match r.below(14) {
        0 if !kept => {
            let _ = fs::remove_file(&path);
            format!("remove {name}")
        }
        1 if is_file => {
            let mode = [0o600, 0o644, 0o755, 0o4755][r.below(4)];
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            format!("chmod {mode:o} {name}")
        }
        2 => {
            let rules = r.pick(&IGNORED);
            put(&top.join(".dockerignore"), rules);
            format!(".dockerignore {rules:?}")
        }
        3 if is_file => {
            stamp(&path, SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000 + r.below(1000) as u64));
            format!("times of {name}")
        }
        4 | 5 if is_file => {
            // Other bytes, as many, under the same time.
            let meta = fs::metadata(&path).unwrap();
            let bytes = vec![b'a' + u8::try_from(r.below(3)).unwrap(); usize::try_from(meta.len()).unwrap()];
            fs::write(&path, bytes).unwrap();
            stamp(&path, meta.modified().unwrap());
            format!("{name} with its size and time kept")
        }
        6 if is_file && !kept => {
            let to = r.pick(&["d/moved", "z.c", "d/b"]);
            fs::rename(&path, top.join(to)).unwrap();
            format!("move {name} to {to}")
        }
        7 => {
            let to = r.pick(&["a", "b", "sub", "nowhere"]);
            let _ = fs::remove_file(top.join("d/l"));
            symlink(to, top.join("d/l")).unwrap();
            format!("link d/l to {to}")
        }
        8 => {
            let to = r.pick(&["f", "x.c", "d/a"]);
            let _ = fs::remove_file(top.join("link"));
            symlink(to, top.join("link")).unwrap();
            format!("link link to {to}")
        }
        9 if !kept => {
            let _ = fs::remove_file(&path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::hard_link(top.join("d/a"), &path).unwrap();
            format!("hard link d/a at {name}")
        }
        10 => {
            let mode = [0o755, 0o711, 0o1777][r.below(3)];
            fs::set_permissions(top.join("d/sub"), fs::Permissions::from_mode(mode)).unwrap();
            format!("chmod {mode:o} d/sub")
        }
        11 => {
            let made = fs::create_dir(top.join("d/empty")).is_ok() || fs::remove_dir(top.join("d/empty")).is_ok();
            format!("d/empty comes or goes: {made}")
        }
        12 if is_file => {
            // The same again, as another file.
            let (bytes, meta) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap());
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, meta.permissions()).unwrap();
            format!("{name} made again")
        }
        _ => {
            let text = r.pick(&TEXTS);
            put(&path, text);
            format!("{name} is {text:?}")
        }
    }
}
