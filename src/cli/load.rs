//! `ply load`: images of an archive, docker's or OCI's, into the store with the names that they have in it.

use std::path::PathBuf;

use clap::Args;

use crate::cli::failure::{Failure, USAGE};
use crate::cli::session::Session;
use crate::cli::{interrupt, stored, transfer, values};
use crate::image::platform::Platform;
use crate::ui::out;

/// Load images from an archive (docker save, OCI) or an OCI layout directory
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// The archive or directory [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    pub input: Option<PathBuf>,
    /// Which image of an index [default: the host's]
    #[arg(long, value_name = "OS/ARCH", value_parser = values::platform)]
    pub platform: Option<Platform>,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Loads, and prints the names, or the ids of images without one.
pub fn run(args: &LoadArgs, session: &Session) -> Result<(), Failure> {
    if args.input.is_none() && session.env.terminals.stdin {
        return Err(Failure::message("standard input is a terminal").status(USAGE).hint("name an archive with --input, or redirect one"));
    }
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let loaded = transfer::interruptible(session, args.quiet, false, |sources, _| {
        match &args.input {
            Some(path) => sources.load(&session.env.directory.join(path), &platform),
            None => sources.load_stream(interrupt::stdin(|| sources.progress.is_cancelled()), &platform),
        }
        .map_err(|e| Failure::of(&e))
    })?;
    for image in loaded {
        if image.names.is_empty() {
            out::line(&format!("Loaded image ID: {}", image.image))?;
        }
        for name in &image.names {
            out::line(&format!("Loaded image: {}", stored::familiar(name)))?;
        }
    }
    Ok(())
}
