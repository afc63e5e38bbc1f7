//! `ply rmi`: takes names from images, and images away that have none left.
//!
//! Layers stay while another image or the cache needs them; `ply prune` gives their room back.

use clap::Args;

use crate::cli::failure::{FAILED, Failure};
use crate::cli::session::Session;
use crate::cli::stored;
use crate::image::reference::Reference;
use crate::store::Store;
use crate::ui::out;

/// Remove images
#[derive(Debug, Clone, Args)]
pub struct RmiArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Remove an image by its id though it has several names; don't mind missing ones
    #[arg(short, long)]
    pub force: bool,
    /// Docker's; nothing depends on it here
    #[arg(long, hide = true)]
    pub no_prune: bool,
}

/// Removes the images; each is tried, what failed is told after the others.
pub fn run(args: &RmiArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let mut failures = Vec::new();
    for text in &args.images {
        match remove(&store, text, args.force) {
            Ok(lines) => out::result(&lines)?,
            Err(failure) => failures.extend(failure.diagnostics),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure { status: FAILED, diagnostics: failures }) }
}

/// Removes one name or image and returns what to tell.
fn remove(store: &Store, text: &str, force: bool) -> Result<String, Failure> {
    let failed = |e| Failure::of(&e);
    let image = match stored::find(store, text) {
        Ok(image) => image,
        Err(_) if force => return Ok(String::new()),
        Err(failure) => return Err(failure),
    };
    let name = Reference::parse(text).map(|r| r.tagged().to_string()).ok().filter(|n| image.names.contains(n));
    let untagged = |names: &[String]| names.iter().map(|n| format!("Untagged: {}\n", stored::familiar(n))).collect::<String>();
    match name {
        Some(name) if image.names.len() > 1 => {
            store.untag(&name).map_err(failed)?;
            Ok(untagged(&[name]))
        }
        None if image.names.len() > 1 && !force => {
            let names: Vec<String> = image.names.iter().map(|n| stored::familiar(n)).collect();
            Err(Failure::message(format!("`{text}` has several names: {}", names.join(", ")))
                .hint("name one of them, or use --force for all"))
        }
        Some(_) | None => {
            store.remove_image(&image.id).map_err(failed)?;
            Ok(untagged(&image.names) + &format!("Deleted: {}\n", image.id))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stored::tests::{put, store};

    #[test]
    fn an_image_goes_with_its_last_name() {
        let (store, _dir) = store();
        let id = put(&store, "a", &["docker.io/library/a:1", "docker.io/library/a:2"]);
        let failure = remove(&store, &id.hex()[..12], false).unwrap_err();
        assert!(failure.diagnostics[0].message.ends_with("has several names: a:1, a:2"), "{failure:?}");
        assert_eq!(remove(&store, "a:1", false).unwrap(), "Untagged: a:1\n");
        assert_eq!(remove(&store, "a:2", false).unwrap(), format!("Untagged: a:2\nDeleted: {id}\n"));
        assert_eq!(store.list().unwrap(), []);
        assert!(remove(&store, "a:2", false).is_err());
        assert_eq!(remove(&store, "a:2", true).unwrap(), "");
    }

    #[test]
    fn force_removes_all_names_of_an_id() {
        let (store, _dir) = store();
        let id = put(&store, "a", &["docker.io/library/a:1", "docker.io/library/b:2"]);
        assert_eq!(remove(&store, &id.to_string(), true).unwrap(), format!("Untagged: a:1\nUntagged: b:2\nDeleted: {id}\n"));
    }
}
