//! `ply pull`: images of a registry into the store, under the names that they were asked for by.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{transfer, values};
use crate::digest::Digest;
use crate::engine::sources::{Sources, Which, note_several};
use crate::graph::{ImageRequest, ImageSource};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::registry::Repository;
use crate::store::Store;
use crate::ui::out;

/// Pull an image from a registry
#[derive(Debug, Clone, Args)]
pub struct PullArgs {
    /// Its name there
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub name: String,
    /// Pull all tags of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// Which image of an index; of several, the index is kept for `ply push` [default: the host's]
    #[arg(long, value_name = "OS/ARCH,...", value_delimiter = ',', value_parser = values::platform, conflicts_with = "all_platforms")]
    pub platform: Vec<Platform>,
    /// Pull the images for all platforms, and keep the index
    #[arg(long)]
    pub all_platforms: bool,
    /// Show only the name
    #[arg(short, long)]
    pub quiet: bool,
}

/// Pulls, and prints the full name.
pub fn run(args: &PullArgs, session: &Session) -> Result<(), Failure> {
    let reference = Reference::parse(&args.name).map_err(|e| Failure::of(&e))?;
    if args.all_tags && (reference.tag().is_some() || reference.digest().is_some()) {
        return Err(Failure::usage("a tag or digest and --all-tags exclude each other"));
    }
    let pulled = transfer::interruptible(session, args.quiet, true, |sources, store| {
        let names = if args.all_tags { all_tags(&reference, sources)? } else { vec![reference.tagged()] };
        names.into_iter().map(|name| pull(&name, args, sources, store).map(|()| name)).collect::<Result<Vec<_>, _>>()
    })?;
    for name in pulled {
        out::line(&name.to_string())?;
    }
    Ok(())
}

/// Returns the names of all tags that the registry has.
fn all_tags(reference: &Reference, sources: &Sources<'_>) -> Result<Vec<Reference>, Failure> {
    let repository = Repository { host: reference.domain().into(), path: reference.path().into() };
    let tags = sources.client.tags(&repository).map_err(|e| Failure::of(&e))?;
    if tags.is_empty() {
        return Err(Failure::message(format!("the registry has no tags of {}", reference.familiar())));
    }
    // Whatever the registry says: a tag is a tag.
    let name = |tag: &String| Reference::parse(&format!("{}:{tag}", reference.name())).map_err(|e| Failure::of(&e));
    tags.iter().map(name).collect()
}

fn pull(reference: &Reference, args: &PullArgs, sources: &Sources<'_>, store: &Store) -> Result<(), Failure> {
    let failed = |e| Failure::of(&e);
    if args.all_platforms || args.platform.len() > 1 {
        let which = if args.all_platforms { Which::All } else { Which::For(args.platform.clone()) };
        return sources.pull_several(reference, &which).map(drop).map_err(failed);
    }
    let platform = args.platform.first().cloned().unwrap_or_else(Platform::host);
    let request = ImageRequest { source: ImageSource::Reference(reference.to_string()), platform };
    let image = sources.resolve(&request).map_err(failed)?;
    if reference.digest().is_none() {
        store.tag(&reference.to_string(), &Digest::of(&image.config_bytes)).map_err(|e| Failure::of(&e))?;
        note_several(store, &reference.to_string(), None).map_err(|e| Failure::of(&e))?;
    }
    Ok(())
}
