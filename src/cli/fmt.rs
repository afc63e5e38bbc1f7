//! `ply fmt`: Dockerfiles in one style, their comments and meaning kept.
//!
//! What the style is, `dockerfile::format` says; here files are read and written. A file is replaced whole, so that a
//! crash leaves the old or the new one, and keeps its mode; what a link names is formatted, the link stays. A newcomer
//! would rename always: a file with several names, or of another owner, would lose them, so it is overwritten in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::cli::failure::{FAILED, Failure, chain};
use crate::cli::session::Session;
use crate::dockerfile::format;
use crate::dockerfile::source::Source;
use crate::fsio::{self, Durability};
use crate::ui::{diagnostic, diff, out};

/// What is formatted without FILES.
const DEFAULT: &str = "Dockerfile";
/// What standard input is called.
const STDIN: &str = "<stdin>";
/// A larger file is no Dockerfile: `ply build` takes none either.
const MAX_BYTES: u64 = 16 << 20;

/// Format Dockerfiles
#[derive(Debug, Clone, Args)]
#[command(after_help = "Keywords become upper case; blanks between words, at line ends and empty lines are tidied; continued\n\
    lists are indented. The text of RUN and the like, heredocs and quoted words stay as they are, and so does what a file\n\
    means: the same instructions, and the same image.")]
pub struct FmtArgs {
    /// The files; `-` reads standard input and writes standard output [default: Dockerfile]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write nothing; list the files that are not formatted, and fail if there are any
    #[arg(long)]
    pub check: bool,
    /// Write nothing; show what would change
    #[arg(long)]
    pub diff: bool,
    /// Read standard input and write standard output; the same as `-`
    #[arg(long, conflicts_with = "files")]
    pub stdin: bool,
}

/// Formats each file; one that can't be formatted does not keep the others from it.
pub fn run(args: &FmtArgs, session: &Session) -> Result<(), Failure> {
    let files = match args.files.as_slice() {
        _ if args.stdin => vec![PathBuf::from("-")],
        [] => vec![PathBuf::from(DEFAULT)],
        files => files.to_vec(),
    };
    let mut failed = false;
    for file in &files {
        match one(args, file) {
            Ok(formatted) => failed |= args.check && !formatted,
            Err(failure) if failure.diagnostics.is_empty() => return Err(failure),
            Err(failure) => {
                failure.diagnostics.iter().for_each(|d| out::say(&diagnostic::render(d, session.stderr)));
                failed = true;
            }
        }
    }
    if failed { Err(Failure::silent(FAILED)) } else { Ok(()) }
}

/// Formats one file, or says what would change. Returns whether it was formatted before.
fn one(args: &FmtArgs, file: &Path) -> Result<bool, Failure> {
    let from_stdin = file == Path::new("-");
    let name = if from_stdin { STDIN.to_owned() } else { file.display().to_string() };
    let cannot = |what: &str, e: &io::Error| Failure::message(format!("{what} `{name}`: {e}"));
    let read = if from_stdin { limited(io::stdin().lock()) } else { read(file) };
    let source = source(&name, read.map_err(|e| cannot("reading", &e))?)?;
    let parts = format::format(&source)?;
    let text = format::text(&parts);
    let formatted = text == source.text();
    if args.diff {
        out::result(&diff::unified(&name, parts.iter().map(|part| (part.before, &*part.after))))?;
    } else if args.check {
        if !formatted {
            out::line(&name)?;
        }
    } else if from_stdin {
        out::result(&text)?;
    } else if !formatted {
        write(file, text.as_bytes()).map_err(|e| cannot("writing", &e))?;
    }
    Ok(formatted)
}

fn source(name: &str, bytes: Vec<u8>) -> Result<Arc<Source>, Failure> {
    // A build reads other bytes as U+FFFD; written back, they would be lost.
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Failure::message(format!("`{name}` is not UTF-8 in line {line}: it stays as it is"))
    })?;
    Ok(Source::new(name, text))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let opened = File::open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    limited(opened)
}

fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES { Err(io::Error::other("it is larger than 16 MiB")) } else { Ok(bytes) }
}

/// Replaces a file's content; its mode, owner and names stay.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = fs::canonicalize(file)?;
    // Who may not write the file may not replace it either.
    let mut opened = OpenOptions::new().write(true).open(&file)?;
    let stat = opened.metadata()?;
    let mine = stat.uid() == rustix::process::geteuid().as_raw();
    if stat.nlink() > 1 || !mine {
        opened.write_all(bytes)?;
        opened.set_len(bytes.len() as u64)?;
        return opened.sync_all();
    }
    let mode = stat.permissions().mode() & 0o7777;
    fsio::write_atomic(&file, bytes, mode, Durability::Synced).map_err(|e| io::Error::other(chain(&e)))
}
