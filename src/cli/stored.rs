//! What the commands about stored images share: finding one by what a person writes, its configuration, its size.

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::values;
use crate::digest::{Digest, LayerId};
use crate::engine::export::FinishedImage;
use crate::engine::sources::{Several, Sources, several_of};
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::runner::container::Containers;
use crate::store::{Image, ImageLayer, Store};

/// The largest configuration that is read; registries allow 4 MiB for a manifest, and a configuration is of that kind.
const CONFIG_MAX_BYTES: u64 = 8 << 20;

/// Opens the session's store, making it when nothing is there. To be called before any thread starts.
pub fn open(session: &Session) -> Result<Store, Failure> {
    // Files of other ids than the user's can be removed only as root of the user namespace. Where there can be none,
    // no build made such files, and all else works.
    let _ = session.enter();
    Store::open(&session.store()?).map_err(|e| Failure::of(&e))
}

/// Opens the place of the store's containers.
pub fn containers(store: &Store) -> Result<Containers, Failure> {
    let trash = store.staging_dir().map_err(|e| Failure::of(&e))?;
    Containers::open(&store.containers_dir(), &trash).map_err(|e| Failure::of(&e))
}

/// Finds an image by name, id, beginning of an id, or `NAME@DIGEST`.
pub fn find(store: &Store, text: &str) -> Result<Image, Failure> {
    let resolve = |t: &str| store.resolve(t).map_err(|e| Failure::of(&e));
    // A name wins over an id that begins alike, as with docker.
    if let Ok(reference) = Reference::parse(text)
        && let Some(image) = resolve(&reference.tagged().to_string())?
    {
        return Ok(image);
    }
    if let Some(image) = resolve(text)? {
        return Ok(image);
    }
    let failure = Failure::message(format!("no image `{}` in the store", crate::ui::text::one_line(text)));
    let names: Vec<String> = store.list().unwrap_or_default().iter().flat_map(|i| i.names.iter().map(|n| familiar(n))).collect();
    Err(match values::nearest(text, &names.iter().map(String::as_str).collect::<Vec<_>>()) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint("`ply images` lists what is there"),
    })
}

/// Returns what belongs to the name by which a person named an image: images for other platforms.
pub fn several(store: &Store, text: &str, image: &Image) -> Result<Option<Several>, Failure> {
    let Ok(reference) = Reference::parse(text) else { return Ok(None) };
    several_of(store, &reference.tagged().to_string(), &image.id).map_err(|e| Failure::of(&e))
}

/// Returns the image for a platform among those that a name stands for.
pub fn of_platform(store: &Store, text: &str, image: &Image, platform: &Platform) -> Result<Image, Failure> {
    let mut there = vec![image.clone()];
    for id in several(store, text, image)?.map(|s| s.images).unwrap_or_default() {
        there.extend(store.image(&id).map_err(|e| Failure::of(&e))?.filter(|i| i.id != image.id));
    }
    let available: Vec<String> = there.iter().map(|i| i.platform.to_string()).collect();
    there.into_iter().find(|i| i.platform == *platform).ok_or_else(|| {
        let name = crate::ui::text::one_line(text);
        Failure::message(format!("the store has no image `{name}` for {platform}; there is {}", available.join(", ")))
            .hint(format!("`ply pull --platform {platform} NAME` pulls one"))
    })
}

/// Reads a name that a person gives to an image: normalised, `latest` where no tag is given, no digest.
pub fn name(text: &str) -> Result<Reference, Failure> {
    let reference = Reference::parse(text).map_err(|e| Failure::of(&e))?;
    if reference.digest().is_some() {
        return Err(Failure::message(format!("`{text}` has a digest: a name that is given has none")));
    }
    Ok(reference.tagged())
}

/// Returns an image as it goes out, under `names`.
pub fn exported(text: &str, names: Vec<String>, sources: &Sources<'_>, store: &Store) -> Result<FinishedImage, Failure> {
    let image = find(store, text)?;
    store.hold_image(&image).map_err(|e| Failure::of(&e))?;
    let resolved = sources.stored(&image, text).map_err(|e| Failure::of(&e))?;
    let gone = || Failure::message(format!("parts of `{}` have gone from the store", crate::ui::text::one_line(text)));
    let resolved = resolved.ok_or_else(|| gone().hint("`ply fsck` tells which"))?;
    FinishedImage::of_stored(store, &resolved, names).map_err(|e| Failure::of(&e))
}

/// Returns an image's configuration.
pub fn config(store: &Store, image: &Image) -> Result<ImageConfig, Failure> {
    let bytes = store.read_blob(&image.id, CONFIG_MAX_BYTES).map_err(|e| Failure::of(&e))?;
    ImageConfig::parse(&bytes).map_err(|e| Failure::message(format!("the configuration of {} can't be read: {e}", image.id)))
}

/// Returns what a layer takes: its files where it is unpacked, its tar or blob else; 0 where nothing is known.
pub fn layer_size(store: &Store, layer: &ImageLayer) -> Result<u64, Failure> {
    let failed = |e| Failure::of(&e);
    if let Some(facts) = store.layer_facts(&layer.id).map_err(failed)? {
        return Ok(facts.size_bytes);
    }
    if let Some((_, tar_bytes)) = store.diff_id(&layer.id, None).map_err(failed)? {
        return Ok(tar_bytes);
    }
    let LayerId::Diff(diff_id) = layer.id else { return Ok(0) };
    Ok(store.layer_blobs(&diff_id).map_err(failed)?.first().map_or(0, |b| b.size_bytes))
}

/// Returns the sum of an image's layers.
pub fn size(store: &Store, image: &Image) -> Result<u64, Failure> {
    image.layers.iter().try_fold(0, |sum: u64, l| Ok(sum.saturating_add(layer_size(store, l)?)))
}

/// Returns a stored name's short form: `alpine:3` for `docker.io/library/alpine:3`.
pub fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.familiar())
}

/// Returns an id's first twelve digits, or all of it.
pub fn shown_id(id: &Digest, whole: bool) -> String {
    if whole { id.to_string() } else { id.hex()[..12].to_owned() }
}

/// Stores for the tests of the commands.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::image::platform::Platform;
    use crate::store::NewImage;

    /// Returns a store in a directory of its own, and the directory.
    pub(crate) fn store() -> (Store, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Store::open(&dir.path().join("store")).unwrap(), dir)
    }

    /// Stores an image without layers, made by one instruction, under these names.
    pub(crate) fn put(store: &Store, cmd: &str, names: &[&str]) -> Digest {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "created": "2023-11-14T20:00:00Z",
            "config": {"Cmd": [cmd], "Env": ["A=1"]}, "rootfs": {"type": "layers", "diff_ids": []},
            "history": [{"created": "2023-11-14T20:00:00Z", "created_by": format!("CMD [\"{cmd}\"]"), "empty_layer": true}],
        });
        let bytes = ImageConfig::parse(config.to_string().as_bytes()).unwrap().to_json();
        let image =
            NewImage { config: &bytes, layers: Vec::new(), platform: Platform::new("linux", "amd64", ""), manifest: None, added_secs: 5 };
        let id = store.put_image(&image).unwrap();
        names.iter().for_each(|n| store.tag(n, &id).unwrap());
        id
    }

    #[test]
    fn images_are_found_by_name_and_id() {
        let (store, _dir) = store();
        let a = put(&store, "a", &["docker.io/library/alpine:latest"]);
        let b = put(&store, "b", &["localhost:5000/app:1"]);
        for (text, want) in [("alpine", a), ("alpine:latest", a), ("docker.io/library/alpine", a), ("localhost:5000/app:1", b)] {
            assert_eq!(find(&store, text).unwrap().id, want, "{text}");
        }
        assert_eq!(find(&store, &a.to_string()).unwrap().id, a);
        assert_eq!(find(&store, &a.hex()[..12]).unwrap().id, a);
        let failure = find(&store, "alpin").unwrap_err();
        assert_eq!((failure.diagnostics[0].message.as_str(), failure.status), ("no image `alpin` in the store", 1));
    }

    #[test]
    fn given_names_have_no_digest() {
        assert_eq!(name("a/b").unwrap().to_string(), "docker.io/a/b:latest");
        assert!(name(&format!("a@sha256:{}", "0".repeat(64))).is_err());
        assert!(name("A").is_err());
    }
}
