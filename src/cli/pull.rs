//! `ply pull`: an image of a registry into the store, under the name that it was asked for by.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{transfer, values};
use crate::digest::Digest;
use crate::graph::{ImageRequest, ImageSource};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::ui::out;

/// Pull an image from a registry
#[derive(Debug, Clone, Args)]
pub struct PullArgs {
    /// Its name there
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub name: String,
    /// Which image of an index [default: the host's]
    #[arg(long, value_name = "OS/ARCH", value_parser = values::platform)]
    pub platform: Option<Platform>,
    /// Show only the name
    #[arg(short, long)]
    pub quiet: bool,
}

/// Pulls, and prints the full name.
pub fn run(args: &PullArgs, session: &Session) -> Result<(), Failure> {
    let reference = Reference::parse(&args.name).map_err(|e| Failure::of(&e))?.tagged();
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    transfer::interruptible(session, args.quiet, true, |sources, store| {
        let request = ImageRequest { source: ImageSource::Reference(reference.to_string()), platform };
        let image = sources.resolve(&request).map_err(|e| Failure::of(&e))?;
        if reference.digest().is_none() {
            store.tag(&reference.to_string(), &Digest::of(&image.config_bytes)).map_err(|e| Failure::of(&e))?;
        }
        Ok(())
    })?;
    Ok(out::line(&reference.to_string())?)
}
