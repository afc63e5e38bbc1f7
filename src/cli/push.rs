//! `ply push`: images of the store into a registry, under the names that they have here.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::packing::PackingArgs;
use crate::cli::session::Session;
use crate::cli::{stored, transfer, values};
use crate::engine::export::{Exporter, Pushed};
use crate::engine::request::{Came, Packing, PushAs};
use crate::engine::sources::{Several, Sources, several_of};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::store::Store;
use crate::ui::out;

/// Push an image to a registry
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// Its name, here and there
    #[arg(value_name = "NAME[:TAG]")]
    pub name: String,
    /// Push all tags of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// Push the image for this platform alone, where the name stands for several
    #[arg(long, value_name = "OS/ARCH", value_parser = values::platform)]
    pub platform: Option<Platform>,
    /// How layers leave
    #[command(flatten)]
    pub packing: PackingArgs,
    /// Show only the name
    #[arg(short, long)]
    pub quiet: bool,
}

/// Pushes, and prints each tag with the digest that it has there.
pub fn run(args: &PushArgs, session: &Session) -> Result<(), Failure> {
    let wanted = stored::name(&args.name)?;
    let packing = args.packing.packing()?;
    let pushed = transfer::interruptible(session, args.quiet, true, |sources, store| {
        let names = if args.all_tags { tags(store, args)? } else { vec![wanted.clone()] };
        names.into_iter().map(|name| push(&name, args, packing, sources, store).map(|pushed| (name, pushed))).collect::<Result<Vec<_>, _>>()
    })?;
    for (name, pushed) in pushed {
        let manifest = &pushed.exported.manifest;
        out::line(&match args.quiet {
            true => name.to_string(),
            false => format!("{}: digest: {} size: {}", name.tag().unwrap_or("latest"), manifest.digest, manifest.size),
        })?;
    }
    Ok(())
}

/// Returns all names of the store that have the repository of `args`.
fn tags(store: &Store, args: &PushArgs) -> Result<Vec<Reference>, Failure> {
    let repository = Reference::parse(&args.name).map_err(|e| Failure::of(&e))?;
    if repository.tag().is_some() {
        return Err(Failure::usage("a tag and --all-tags exclude each other"));
    }
    let images = store.list().map_err(|e| Failure::of(&e))?;
    let names = images.iter().flat_map(|i| &i.names).filter_map(|n| Reference::parse(n).ok());
    let mut found: Vec<Reference> = names.filter(|n| n.name() == repository.name()).collect();
    found.sort_by_key(ToString::to_string);
    match found.is_empty() {
        true => {
            Err(Failure::message(format!("no image of `{}` in the store", repository.familiar())).hint("`ply images` lists what is there"))
        }
        false => Ok(found),
    }
}

fn push(name: &Reference, args: &PushArgs, packing: Packing, sources: &Sources<'_>, store: &Store) -> Result<Pushed, Failure> {
    let text = name.to_string();
    let image = stored::find(store, &text)?;
    let several = several_of(store, &text, &image.id).map_err(|e| Failure::of(&e))?.filter(|_| args.platform.is_none());
    let exporter = Exporter { store, progress: sources.progress };
    let pushed = match &several {
        // An index goes out as it came, unless layers of its images do not.
        Some(several @ Several { index: Some(index), .. }) if packing.came == Came::Stay => {
            let pushed = exporter.push_index(several, index, name, sources.client);
            pushed.map(|(pushed, left_out)| {
                if !left_out.is_empty() {
                    out::say(&format!("{}: left out {}, not pulled: the index is another one\n", name.familiar(), left_out.join(", ")));
                }
                pushed
            })
        }
        _ => {
            let ids = several.map_or_else(|| vec![image.id], |s| s.images);
            let ids = match &args.platform {
                Some(platform) => vec![stored::of_platform(store, &text, &image, platform)?.id],
                None => ids,
            };
            let images =
                ids.iter().map(|id| stored::exported(&id.to_string(), Vec::new(), sources, store)).collect::<Result<Vec<_>, _>>()?;
            exporter.push(&images, name, PushAs::Tag, packing, sources.client)
        }
    };
    let pushed = pushed.map_err(|e| Failure::of(&e))?;
    store.flush().map_err(|e| Failure::of(&e))?;
    Ok(pushed)
}
