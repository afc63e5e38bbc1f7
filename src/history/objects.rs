//! Trees and files by their ids, over one running `git cat-file --batch`.
//!
//! A request is a line, an answer a line and the object's bytes. What a newcomer would get wrong: an answer must be read to
//! its end, also that of an object which is too large to be kept.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::Arc;

use super::HistoryError;
use super::command::Git;
use super::tree::{Oid, Tree};

const DOING: &str = "read objects";
/// A directory of a million names has less.
const TREE_MAX_BYTES: u64 = 128 << 20;
/// Trees that are kept at hand; more are read again.
const KEPT_ITEMS: usize = 4 << 20;

/// A reader of objects, with its process.
pub struct Objects {
    child: Child,
    /// None only while it is dropped.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    trees: HashMap<Oid, Arc<Tree>>,
    kept_items: usize,
    /// How many objects were read.
    pub read: u64,
}

/// An object's kind and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `blob`, `tree`, `commit`, `tag`.
    pub kind: String,
    /// Its bytes.
    pub size: u64,
}

impl Objects {
    pub(super) fn start(git: &Git) -> Result<Self, HistoryError> {
        let mut child = git.start(DOING, &["cat-file", "--batch"])?;
        let lost = || HistoryError::Run { doing: DOING, source: io::ErrorKind::BrokenPipe.into() };
        let input = child.stdin.take().ok_or_else(lost)?;
        let output = BufReader::with_capacity(64 << 10, child.stdout.take().ok_or_else(lost)?);
        Ok(Self { child, input: Some(input), output, trees: HashMap::new(), kept_items: 0, read: 0 })
    }

    /// Returns a tree.
    pub fn tree(&mut self, id: Oid) -> Result<Arc<Tree>, HistoryError> {
        if let Some(tree) = self.trees.get(&id) {
            return Ok(tree.clone());
        }
        let bytes = self.bytes(id, "tree", TREE_MAX_BYTES)?;
        let tree = Arc::new(Tree::parse(id, &bytes)?);
        if self.kept_items > KEPT_ITEMS {
            self.trees.clear();
            self.kept_items = 0;
        }
        self.kept_items += tree.items.len() + 1;
        self.trees.insert(id, tree.clone());
        Ok(tree)
    }

    /// Returns a file's bytes, or a link's target.
    pub fn blob(&mut self, id: Oid, limit_bytes: u64) -> Result<Vec<u8>, HistoryError> {
        self.bytes(id, "blob", limit_bytes)
    }

    /// Writes a file's bytes; however many, they are never all in memory.
    pub fn copy_blob(&mut self, id: Oid, into: &mut dyn Write) -> Result<u64, HistoryError> {
        let object = self.ask(id)?;
        let copied = io::copy(&mut (&mut self.output).take(object.size), into);
        let copied = copied.map_err(|source| HistoryError::Run { doing: "copy a file out of the repository", source })?;
        self.end()?;
        if object.kind == "blob" { Ok(copied) } else { Err(HistoryError::Broken { id, problem: "is no file" }) }
    }

    fn bytes(&mut self, id: Oid, kind: &str, limit: u64) -> Result<Vec<u8>, HistoryError> {
        let object = self.ask(id)?;
        let fits = object.kind == kind && object.size <= limit;
        let mut bytes = Vec::new();
        let mut whole = (&mut self.output).take(object.size);
        let read = if fits { whole.read_to_end(&mut bytes).map(|n| n as u64) } else { io::copy(&mut whole, &mut io::sink()) };
        let broken = |source| HistoryError::Run { doing: DOING, source };
        if read.map_err(broken)? != object.size {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.end()?;
        match (object.kind == kind, fits) {
            (true, true) => Ok(bytes),
            (true, false) => Err(HistoryError::TooLarge { id, size: object.size, limit }),
            (false, _) => Err(HistoryError::Broken { id, problem: if kind == "tree" { "is no tree" } else { "is no file" } }),
        }
    }

    /// Asks for an object, and reads the line before its bytes.
    fn ask(&mut self, id: Oid) -> Result<Object, HistoryError> {
        let failed = |source| HistoryError::Run { doing: DOING, source };
        let input = self.input.as_mut().expect("it is taken when this is dropped");
        input.write_all(format!("{id}\n").as_bytes()).map_err(failed)?;
        self.read += 1;
        let mut line = String::new();
        if self.output.read_line(&mut line).map_err(failed)? == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        match line.trim_end().split(' ').collect::<Vec<_>>()[..] {
            [_, "missing"] => Err(HistoryError::Missing { id }),
            [_, kind, size] => match size.parse() {
                Ok(size) => Ok(Object { kind: kind.to_owned(), size }),
                Err(_) => Err(HistoryError::unexpected(DOING, line.as_bytes())),
            },
            _ => Err(HistoryError::unexpected(DOING, line.as_bytes())),
        }
    }

    /// Reads the line end after an object's bytes.
    fn end(&mut self) -> Result<(), HistoryError> {
        let mut end = [0];
        self.output.read_exact(&mut end).map_err(|source| HistoryError::Run { doing: DOING, source })
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // Without input it ends by itself; one that was in the middle of an answer gets a broken pipe.
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
