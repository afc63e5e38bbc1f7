//! `ply import`: a root file system's tar becomes an image of one layer.

use std::fs::File;

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{interrupt, stored, transfer, values};
use crate::engine::sources::ImportRequest;
use crate::image::platform::Platform;
use crate::ui::out;

/// Make an image of a root file system's tar
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The tar, compressed or not; `-` for standard input
    #[arg(value_name = "FILE|-")]
    pub file: String,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Set something of its configuration: 'CMD ["sh"]', 'ENV A=b'
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// A comment for its history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// What it is for [default: the host's platform]
    #[arg(long, value_name = "OS/ARCH", value_parser = values::platform)]
    pub platform: Option<Platform>,
}

/// Imports, and prints the id.
pub fn run(args: &ImportArgs, session: &Session) -> Result<(), Failure> {
    let name = args.name.as_deref().map(stored::name).transpose()?;
    let request = ImportRequest {
        name: name.map(|n| n.to_string()),
        changes: args.change.clone(),
        message: args.message.clone(),
        platform: args.platform.clone().unwrap_or_else(Platform::host),
    };
    let image = transfer::interruptible(session, true, false, |sources, _| {
        if args.file == "-" {
            return sources.import(interrupt::stdin(|| sources.progress.is_cancelled()), &request).map_err(|e| Failure::of(&e));
        }
        let path = session.env.directory.join(&args.file);
        let file = File::open(&path).map_err(|e| Failure::message(format!("opening `{}`: {e}", args.file)))?;
        sources.import(file, &request).map_err(|e| Failure::of(&e))
    })?;
    Ok(out::line(&image.to_string())?)
}
