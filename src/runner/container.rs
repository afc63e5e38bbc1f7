//! Containers on disk: identity, name, what they were made of, and their changes.
//!
//! ```text
//! <containers>/names/NAME      the id of the container of that name; made with O_EXCL, so that a name has one owner
//! <containers>/ID/lock         locked (flock) by the process that runs it: free means that it does not run
//! <containers>/ID/record.json  Record
//! <containers>/ID/files/       what the root's owner puts there: the upper directory
//! ```
//!
//! A killed `ply` leaves a container whose lock is free; [`Containers::reclaim`] removes those that were to be removed
//! at their end, and those that were being made or removed. A newcomer would write "running" into the record: after kill -9
//! that would be a lie.
//!
//! Containers come and go under a lock on `<containers>` itself, so that what looks unfinished is a leftover. What goes is
//! first moved into the store's staging of this process, and removed at leisure.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::fsio::{self, Durability};
use crate::path;

use super::process::SHORT_ID;

/// Where the names are.
const NAMES: &str = "names";

/// The directory of all containers.
#[derive(Debug, Clone)]
pub struct Containers {
    directory: PathBuf,
    trash: PathBuf,
}

/// What is remembered of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name; the first digits of its id unless given.
    pub name: String,
    /// The image as the user named it.
    pub image: String,
    /// Its command and arguments, made printable.
    pub command: Vec<String>,
    /// When it was made, seconds since 1970.
    pub created_secs: u64,
    /// Whether it is removed when it ends.
    pub remove: bool,
    /// How it ended; none: not yet, or nobody saw it.
    pub exit_code: Option<i32>,
}

/// A container that could not be made, kept or removed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ContainerError {
    #[error("`{0}` is no container name: letters, digits, `_`, `.` and `-`, at least two, the first a letter or digit")]
    BadName(String),
    #[error("the container name `{name}` is in use by container {id}")]
    NameInUse { name: String, id: String },
    #[error("no such container: {0}")]
    Unknown(String),
    #[error("container {0} is running")]
    IsRunning(String),
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("writing the record of a container")]
    Record { source: fsio::FsioError },
    #[error("removing container {id}")]
    Remove { id: String, source: path::PathError },
}

type Result<T> = std::result::Result<T, ContainerError>;

fn io_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContainerError {
    let path = path.to_owned();
    move |source| ContainerError::Io { doing, path, source }
}

/// A container of this process: locked until dropped.
#[derive(Debug)]
pub struct Container {
    containers: Containers,
    record: Record,
    _lock: File,
}

/// Returns a new id from the kernel's random numbers.
pub fn new_id() -> io::Result<String> {
    let mut bytes = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    }))
}

impl Containers {
    /// Takes `directory` (made when missing, mode 0700) as the place of all containers. `trash` is a directory on the same file
    /// system, whose content somebody removes if this process does not.
    pub fn open(directory: &Path, trash: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let names = directory.join(NAMES);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&names).map_err(io_at("making", &names))?;
        Ok(Self { directory: directory.into(), trash: trash.into() })
    }

    /// Waits until no other process makes or removes a container; none does until the file is dropped.
    fn alone(&self) -> Result<File> {
        let file = File::open(&self.directory).map_err(io_at("opening", &self.directory))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map(|()| file).map_err(|errno| io_at("locking", &self.directory)(errno.into())),
            }
        }
    }

    /// Makes a container. An empty `record.name` becomes the first digits of its id.
    pub fn create(&self, mut record: Record) -> Result<Container> {
        if record.name.is_empty() {
            record.name = record.id.chars().take(SHORT_ID).collect();
        }
        if !is_name(&record.name) {
            return Err(ContainerError::BadName(record.name));
        }
        let alone = self.alone()?;
        let home = self.directory.join(&record.id);
        let files = home.join("files");
        fs::create_dir_all(&files).map_err(io_at("making", &files))?;
        let lock_path = home.join("lock");
        let lock = File::create(&lock_path).map_err(io_at("making", &lock_path))?;
        // Before anyone can find the container, so it never waits.
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| io_at("locking", &lock_path)(errno.into()))?;
        let container = Container { containers: self.clone(), record, _lock: lock };
        if let Err(error) = self.claim_name(&container.record).and_then(|()| container.save()) {
            drop(alone);
            // The first error is the one to tell.
            let _ = self.delete(&container.record);
            return Err(error);
        }
        Ok(container)
    }

    fn name_path(&self, name: &str) -> PathBuf {
        self.directory.join(NAMES).join(name)
    }

    fn claim_name(&self, record: &Record) -> Result<()> {
        let path = self.name_path(&record.name);
        loop {
            match File::create_new(&path) {
                Ok(mut file) => return file.write_all(record.id.as_bytes()).map_err(io_at("writing", &path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_at("making", &path)(error)),
            }
            let id = fs::read_to_string(&path).unwrap_or_default();
            // Empty, or without directory: of a container that was made or removed halfway.
            if !id.is_empty() && self.directory.join(&id).exists() {
                return Err(ContainerError::NameInUse { name: record.name.clone(), id: id.chars().take(SHORT_ID).collect() });
            }
            fs::remove_file(&path).map_err(io_at("removing", &path))?;
        }
    }

    /// Returns the records of all containers, oldest first.
    pub fn list(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(io_at("reading", &self.directory))? {
            let entry = entry.map_err(io_at("reading", &self.directory))?;
            // One that is being made has none.
            records.extend(self.record(&entry.file_name().to_string_lossy()));
        }
        records.sort_by(|a, b| (a.created_secs, &a.id).cmp(&(b.created_secs, &b.id)));
        Ok(records)
    }

    /// Finds a container by its name, its id or the beginning of its id.
    pub fn find(&self, wanted: &str) -> Result<Record> {
        let records = self.list()?;
        let by_name = records.iter().find(|record| record.name == wanted || record.id == wanted);
        let mut by_id = records.iter().filter(|record| !wanted.is_empty() && record.id.starts_with(wanted));
        match (by_name, by_id.next(), by_id.next()) {
            (Some(record), ..) | (None, Some(record), None) => Ok(record.clone()),
            _ => Err(ContainerError::Unknown(wanted.into())),
        }
    }

    /// Whether a process runs this container.
    pub fn is_running(&self, id: &str) -> bool {
        File::open(self.directory.join(id).join("lock")).is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Removes a container that does not run.
    pub fn remove(&self, wanted: &str) -> Result<()> {
        let record = self.find(wanted)?;
        if self.is_running(&record.id) {
            return Err(ContainerError::IsRunning(record.name));
        }
        self.delete(&record)
    }

    /// Removes what killed processes left that was to be removed at its end, or was being made or removed. Returns how many.
    pub fn reclaim(&self) -> Result<usize> {
        let alone = self.alone()?;
        let mut stale = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(io_at("reading", &self.directory))? {
            let entry = entry.map_err(io_at("reading", &self.directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == NAMES || self.is_running(&name) || self.record(&name).is_some_and(|record| !record.remove) {
                continue;
            }
            self.discard(&name)?;
            stale.push(name);
        }
        let names = self.directory.join(NAMES);
        for entry in fs::read_dir(&names).map_err(io_at("reading", &names))? {
            let path = entry.map_err(io_at("reading", &names))?.path();
            let id = fs::read_to_string(&path).unwrap_or_default();
            if id.is_empty() || !self.directory.join(id).exists() {
                fs::remove_file(&path).map_err(io_at("removing", &path))?;
            }
        }
        drop(alone);
        stale.iter().try_for_each(|id| self.empty_trash(id))?;
        Ok(stale.len())
    }

    fn delete(&self, record: &Record) -> Result<()> {
        let alone = self.alone()?;
        self.discard(&record.id)?;
        let name = self.name_path(&record.name);
        if fs::read_to_string(&name).is_ok_and(|id| id == record.id) {
            fs::remove_file(&name).map_err(io_at("removing", &name))?;
        }
        drop(alone);
        self.empty_trash(&record.id)
    }

    /// Takes a container out of sight: from now on it is not listed, and owns no name.
    fn discard(&self, id: &str) -> Result<()> {
        let home = self.directory.join(id);
        fs::rename(&home, self.trash.join(id)).map_err(io_at("removing", &home))
    }

    fn empty_trash(&self, id: &str) -> Result<()> {
        let failed = |source| ContainerError::Remove { id: id.to_owned(), source };
        let trash = path::Root::open(&self.trash).map_err(failed)?;
        path::remove_tree(&trash, id.as_bytes()).map_err(failed)
    }

    /// Reads a container's record; none: it is being made, or is no container.
    fn record(&self, id: &str) -> Option<Record> {
        let bytes = fs::read(self.directory.join(id).join("record.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

impl Container {
    /// Returns the directory for its root's files, empty at first.
    pub fn files(&self) -> PathBuf {
        self.containers.directory.join(&self.record.id).join("files")
    }

    fn save(&self) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(&self.record).unwrap_or_default();
        let path = self.containers.directory.join(&self.record.id).join("record.json");
        fsio::write_atomic(&path, &bytes, 0o600, Durability::Lazy).map_err(|source| ContainerError::Record { source })
    }

    /// Ends it: removed, or kept with its exit code.
    pub fn finish(mut self, exit_code: i32) -> Result<()> {
        if self.record.remove {
            return self.containers.delete(&self.record);
        }
        self.record.exit_code = Some(exit_code);
        self.save()
    }
}

/// Docker's rule for names.
fn is_name(name: &str) -> bool {
    let rest_is_fine = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    name.len() >= 2 && rest_is_fine && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, name: &str, remove: bool) -> Record {
        let (id, name) = (id.to_string(), name.to_string());
        Record { id, name, image: "i".into(), command: vec!["c".into()], created_secs: 1, remove, exit_code: None }
    }

    fn containers() -> (tempfile::TempDir, Containers) {
        let directory = tempfile::tempdir().unwrap();
        let trash = directory.path().join("trash");
        fs::create_dir(&trash).unwrap();
        let containers = Containers::open(&directory.path().join("c"), &trash).unwrap();
        (directory, containers)
    }

    #[test]
    fn a_container_is_kept_with_its_exit_code_or_removed() {
        let (_directory, containers) = containers();
        let kept = containers.create(record("aa11", "kept", false)).unwrap();
        let removed = containers.create(record("bb22", "", true)).unwrap();
        assert_eq!(containers.find("bb").unwrap(), record("bb22", "bb22", true));
        assert!(containers.is_running("aa11"));
        assert!(matches!(containers.remove("kept"), Err(ContainerError::IsRunning(name)) if name == "kept"));
        kept.finish(3).unwrap();
        removed.finish(0).unwrap();
        assert_eq!(containers.list().unwrap(), [Record { exit_code: Some(3), ..record("aa11", "kept", false) }]);
        assert!(!containers.is_running("aa11"));
        containers.remove("kept").unwrap();
        assert_eq!(containers.list().unwrap(), []);
        assert_eq!(fs::read_dir(&containers.directory).unwrap().count(), 1, "only `names` is left");
        assert_eq!(fs::read_dir(containers.directory.join("names")).unwrap().count(), 0);
    }

    #[test]
    fn a_name_has_one_owner() {
        let (_directory, containers) = containers();
        let _first = containers.create(record("aa11", "web", false)).unwrap();
        let error = containers.create(record("bb22", "web", false)).unwrap_err();
        assert_eq!(error.to_string(), "the container name `web` is in use by container aa11");
        assert_eq!(containers.list().unwrap().len(), 1);
        assert!(!containers.directory.join("bb22").exists());
        for name in ["x", "-x", "a/b", "..", "a b"] {
            assert!(matches!(containers.create(record("cc33", name, false)), Err(ContainerError::BadName(_))), "{name}");
        }
    }

    #[test]
    fn what_a_killed_process_left_is_reclaimed() {
        let (_directory, containers) = containers();
        drop(containers.create(record("aa11", "gone", true)).unwrap());
        drop(containers.create(record("bb22", "kept", false)).unwrap());
        let running = containers.create(record("cc33", "running", true)).unwrap();
        // One that was killed while it was made, two that a power cut took the bytes of, and a name without a container.
        fs::create_dir(containers.directory.join("dd44")).unwrap();
        for (id, name) in [("ee55", "torn"), ("ff66", "")] {
            drop(containers.create(record(id, name, false)).unwrap());
            fs::write(containers.directory.join(id).join("record.json"), "").unwrap();
        }
        fs::write(containers.name_path("torn"), "").unwrap();
        assert_eq!(containers.reclaim().unwrap(), 4);
        let names: Vec<_> = fs::read_dir(containers.directory.join(NAMES)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.len() == 2 && fs::read_dir(&containers.trash).unwrap().count() == 0, "{names:?}");
        let ids: Vec<_> = containers.list().unwrap().into_iter().map(|record| record.id).collect();
        assert_eq!(ids, ["bb22", "cc33"]);
        running.finish(0).unwrap();
    }

    #[test]
    fn ids_are_64_digits_and_differ() {
        let (a, b) = (new_id().unwrap(), new_id().unwrap());
        assert!(a != b && a.len() == 64 && a.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
