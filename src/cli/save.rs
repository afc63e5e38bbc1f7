//! `ply save`: images of the store as one archive, for `docker load`, `podman load`, skopeo and `ply load`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::failure::{Failure, USAGE};
use crate::cli::packing::PackingArgs;
use crate::cli::session::Session;
use crate::cli::{stored, transfer, values};
use crate::engine::export::{Exporter, FinishedImage};
use crate::engine::request::{ArchiveOutput, Destination};
use crate::image::platform::Platform;
use crate::image::reference::Reference;

/// Save images to an archive
#[derive(Debug, Clone, Args)]
pub struct SaveArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Docker's archive (a layout with a manifest.json), or a plain OCI layout
    #[arg(long, value_enum, default_value = "docker")]
    pub format: Format,
    /// Which image, where a name stands for several [default: the one that `ply images` lists]
    #[arg(long, value_name = "OS/ARCH", value_parser = values::platform)]
    pub platform: Option<Platform>,
    /// How layers leave
    #[command(flatten)]
    pub packing: PackingArgs,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// An archive's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Format {
    Docker,
    #[value(name = "oci", alias = "oci-archive")]
    Oci,
}

/// Saves; names that were asked for are the names in the archive.
pub fn run(args: &SaveArgs, session: &Session) -> Result<(), Failure> {
    if args.output.is_none() && session.env.terminals.stdout {
        return Err(Failure::message("an archive is not written to a terminal")
            .status(USAGE)
            .hint("name a file with --output, or redirect"));
    }
    let packing = args.packing.packing()?;
    transfer::interruptible(session, args.quiet, false, |sources, store| {
        let mut images: Vec<FinishedImage> = Vec::new();
        for text in &args.images {
            let image = stored::find(store, text)?;
            // An id gives no name.
            let name = Reference::parse(text).ok().map(|r| r.tagged().to_string()).filter(|n| image.names.contains(n));
            let id = match &args.platform {
                Some(platform) => stored::of_platform(store, text, &image, platform)?.id,
                None => image.id,
            };
            let image = stored::exported(&id.to_string(), name.into_iter().collect(), sources, store)?;
            match images.iter_mut().find(|i| i.config == image.config) {
                Some(same) => same.names.extend(image.names),
                None => images.push(image),
            }
        }
        let dest = args.output.as_ref().map_or(Destination::Stdout, |p| Destination::Path(session.env.directory.join(p)));
        let output = ArchiveOutput { dest, names: Vec::new(), packing, directory: false };
        let exporter = Exporter { store, progress: sources.progress };
        let mut stdout = std::io::stdout();
        let saved = match args.format {
            Format::Docker => exporter.docker(&images, &output, &mut stdout).map(drop),
            Format::Oci => exporter.oci_of_many(&images, &output, &mut stdout),
        };
        saved.map_err(|e| Failure::of(&e))?;
        store.flush().map_err(|e| Failure::of(&e))
    })
}
