//! `ply tag`: gives an image another name.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::stored;
use crate::engine::sources::note_several;

/// Give an image another name
#[derive(Debug, Clone, Args)]
pub struct TagArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The new name; it no longer names another image
    #[arg(value_name = "NAME[:TAG]")]
    pub name: String,
}

/// Names the image.
pub fn run(args: &TagArgs, session: &Session) -> Result<(), Failure> {
    let name = stored::name(&args.name)?;
    let store = stored::open(session)?;
    let image = stored::find(&store, &args.image)?;
    store.tag(&name.to_string(), &image.id).map_err(|e| Failure::of(&e))?;
    // The images for other platforms go along.
    let several = stored::several(&store, &args.image, &image)?;
    note_several(&store, &name.to_string(), several.as_ref()).map_err(|e| Failure::of(&e))
}
