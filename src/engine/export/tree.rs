//! `type=tar` and `type=local`: the images' file systems without layers.
//!
//! The caller shows the merged trees (`snapshot::Driver::mount_readonly`) and says where each goes. A directory is filled through the same
//! code that unpacks hostile archives, so links that lie in the destination are replaced and never followed.

use std::io::{self, Write};
use std::path::Path;

use super::destination::Sink;
use super::{ExportError, Exporter};
use crate::engine::request::Destination;
use crate::layer::{self, ExtractOptions, LayerError, Limits, Placed};
use crate::path::{Ownership, Root};

impl Exporter<'_> {
    /// Writes the trees as one tar, times no later than `clamp_epoch`.
    pub fn tar(
        &self,
        trees: &[Placed<'_>],
        clamp_epoch: Option<i64>,
        destination: &Destination,
        stdout: &mut dyn Write,
    ) -> Result<(), ExportError> {
        let mut sink = Sink::open(destination, stdout)?;
        let dest = sink.name();
        let task = self.progress.begin(format!("write {dest}"));
        let written = layer::flatten(trees, clamp_epoch, sink.writer());
        self.progress.end(task);
        written.map_err(|e| match e {
            LayerError::Write { source } => ExportError::Write { dest, source },
            other => other.into(),
        })?;
        sink.finish()
    }

    /// Copies the trees into a directory, which is made when missing and merged into when not.
    ///
    /// `owner` is who gets all files; none: those that the image says, which needs the right to.
    pub fn local(&self, trees: &[Placed<'_>], clamp_epoch: Option<i64>, path: &Path, owner: Option<(u32, u32)>) -> Result<(), ExportError> {
        let failed = |source| ExportError::Write { dest: path.display().to_string(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let dest = Root::open(path).map_err(|source| ExportError::Directory { path: path.into(), source })?;
        let (reader, writer) = io::pipe().map_err(failed)?;
        let task = self.progress.begin(format!("write {}", path.display()));
        let outcome = std::thread::scope(|scope| {
            let source = scope.spawn(|| {
                let mut out = io::BufWriter::with_capacity(256 << 10, writer);
                let bytes = layer::flatten(trees, clamp_epoch, &mut out)?;
                out.flush().map_err(|source| LayerError::Write { source })?;
                Ok::<u64, LayerError>(bytes)
            });
            let options = ExtractOptions { owner, ownership: Ownership::Real, limits: Limits::default() };
            let extracted = layer::extract(reader, &dest, b"", &options);
            let read = source.join().unwrap_or_else(|_| Err(LayerError::Read { source: io::Error::other("the reading thread panicked") }));
            match (read, extracted) {
                // The destination's failure closes the pipe.
                (Err(LayerError::Write { .. }), Err(e)) => Err(e),
                (Err(e), _) | (Ok(_), Err(e)) => Err(e),
                (Ok(_), Ok(_)) => Ok(()),
            }
        });
        self.progress.end(task);
        Ok(outcome?)
    }
}
