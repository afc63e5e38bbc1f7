//! Tests of exports: what is written is read back, by our own readers; other judges run in the end-to-end tests.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use super::*;
use crate::digest::{DiffId, LayerId};
use crate::engine::export::{FinishedLayer, LayerSource};
use crate::engine::request::{Came, Compression, MediaTypes, Packing};
use crate::engine::sources::{Policy, ResolvedImage, Silent, Sources, open_blob};
use crate::graph::{ImageRequest, ImageSource};
use crate::image::config::{ImageConfig, RootFs};
use crate::image::manifest::Document;
use crate::image::platform::Platform;
use crate::layer;
use crate::registry::{Client, RegistryConfig};
use crate::snapshot::diff;
use crate::store::{Durability as StoreDurability, Store};

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    client: Client,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(&dir.path().join("store"), StoreDurability::Unsynced).unwrap();
        Self { dir, store, client: Client::new(RegistryConfig::default()) }
    }

    fn sources(&self) -> Sources<'_> {
        let policy = Policy { offline: true, ..Policy::default() };
        Sources { store: &self.store, client: &self.client, policy, host_path: &[], progress: &Silent, pulls: None }
    }

    fn exporter(&self) -> Exporter<'_> {
        Exporter { store: &self.store, progress: &Silent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes an image of two layers out of directories: the second as a directory, the first as given.
    fn image(&self) -> FinishedImage {
        let mut layers = Vec::new();
        for (n, content) in ["hello\n", "again\n"].into_iter().enumerate() {
            let path = self.path(&format!("layer{n}"));
            std::fs::create_dir_all(path.join("etc")).unwrap();
            std::fs::write(path.join("etc/file"), content.repeat(50_000)).unwrap();
            let root = crate::path::Root::open(&path).unwrap().into_fd();
            let changes = diff::changes(&root).unwrap();
            let digests = layer::digest(&changes, &root, Some(0)).unwrap();
            let source = LayerSource::Directory { path, clamp_epoch: Some(0) };
            layers.push(FinishedLayer { id: LayerId::Content(digests.content), diff_id: digests.diff_id, source });
        }
        let diff_ids = layers.iter().map(|l| l.diff_id).collect();
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            rootfs: RootFs { diff_ids, ..RootFs::default() },
            ..ImageConfig::default()
        };
        let names = vec!["docker.io/library/app:v1".to_string(), "localhost:5000/team/app:v2".to_string()];
        FinishedImage { config: config.to_json(), platform: Platform::new("linux", "amd64", ""), names, layers, manifest: None }
    }

    fn output(&self, name: &str, compression: Compression) -> ArchiveOutput {
        ArchiveOutput { dest: Destination::Path(self.path(name)), names: Vec::new(), packing: compression.into(), directory: false }
    }

    fn resolve(&self, name: &str, tag: &str) -> ResolvedImage {
        let source = ImageSource::OciLayout { path: self.path(name).to_string_lossy().into_owned(), tag: tag.into() };
        self.sources().resolve(&ImageRequest { source, platform: Platform::new("linux", "amd64", "") }).unwrap()
    }

    /// Reads all layers to their end, which verifies digest, size and diff ID.
    fn verify(&self, image: &ResolvedImage) {
        for layer in &image.layers {
            let reader = open_blob(&self.store, layer.blob.as_ref().unwrap()).unwrap();
            let (_, mut tar) = layer::decompress(reader, 1 << 30).unwrap();
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes).unwrap();
            assert_eq!(DiffId::from_bytes(*Digest::of(&bytes).as_bytes()), layer.diff_id);
        }
    }
}

fn members(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut previous = String::new();
    for entry in tar::Archive::new(std::fs::File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        assert!(previous < name, "`{name}` stands behind `{previous}`");
        previous.clone_from(&name);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        out.insert(name, bytes);
    }
    out
}

#[test]
fn an_archive_is_read_back_and_written_twice_is_the_same() {
    let bench = Bench::new();
    let image = bench.image();
    for (name, compression, media_type) in [
        ("gzip", Compression::GZIP, media::OCI_LAYER_GZIP),
        ("zstd", Compression::ZSTD, media::OCI_LAYER_ZSTD),
        ("plain", Compression::Uncompressed, media::OCI_LAYER),
    ] {
        let exported = bench.exporter().oci(std::slice::from_ref(&image), &bench.output(name, compression), &mut io::sink()).unwrap();
        for tag in ["v1", "v2", "docker.io/library/app:v1", &exported.manifest.digest.to_string()] {
            let back = bench.resolve(name, tag);
            assert_eq!((back.digest, &back.config_bytes), (exported.manifest.digest, &image.config), "{name} {tag}");
            assert!(back.layers.iter().all(|l| l.blob.as_ref().unwrap().descriptor.media_type == media_type));
            bench.verify(&back);
        }
        // Another store compresses anew and gives the same bytes.
        let other = Bench::new();
        other.exporter().oci(&[other.image()], &other.output(name, compression), &mut io::sink()).unwrap();
        assert_eq!(std::fs::read(bench.path(name)).unwrap(), std::fs::read(other.path(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_layer_once_compressed_is_only_copied() {
    let bench = Bench::new();
    let image = bench.image();
    bench.exporter().oci(std::slice::from_ref(&image), &bench.output("one", Compression::GZIP), &mut io::sink()).unwrap();
    for n in [0, 1] {
        std::fs::remove_dir_all(bench.path(&format!("layer{n}"))).unwrap();
    }
    let mut stdout = Vec::new();
    let output = ArchiveOutput { dest: Destination::Stdout, ..bench.output("", Compression::GZIP) };
    bench.exporter().oci(std::slice::from_ref(&image), &output, &mut stdout).unwrap();
    assert_eq!(std::fs::read(bench.path("one")).unwrap(), stdout);
}

#[test]
fn a_layer_that_changed_is_an_error_and_leaves_no_archive() {
    let bench = Bench::new();
    let image = bench.image();
    std::fs::write(bench.path("layer1").join("etc/file"), "other").unwrap();
    let error = bench.exporter().oci(std::slice::from_ref(&image), &bench.output("out", Compression::GZIP), &mut io::sink()).unwrap_err();
    assert!(matches!(error, ExportError::DiffId { diff_id, .. } if diff_id == image.layers[1].diff_id), "{error:?}");
    assert!(!bench.path("out").exists());
}

#[test]
fn base_blobs_stay_as_they_are_and_damaged_ones_never_leave() {
    let bench = Bench::new();
    bench.exporter().oci(&[bench.image()], &bench.output("base", Compression::ZSTD), &mut io::sink()).unwrap();
    let base = bench.resolve("base", "v1");
    let layers = base.layers.iter().map(|l| FinishedLayer::of_base(l, None).unwrap()).collect();
    let image =
        FinishedImage { config: base.config_bytes.clone(), platform: base.platform.clone(), names: Vec::new(), layers, manifest: None };
    let exported = bench.exporter().oci(std::slice::from_ref(&image), &bench.output("again", Compression::GZIP), &mut io::sink()).unwrap();
    assert_eq!(exported.manifest.digest, base.digest);
    let mut bytes = std::fs::read(bench.path("base")).unwrap();
    let BlobRef { place: crate::engine::sources::BlobPlace::File { offset, .. }, .. } = base.layers[0].blob.clone().unwrap() else {
        panic!("a layout's blob lies in a file")
    };
    bytes[usize::try_from(offset).unwrap() + 30] ^= 1;
    std::fs::write(bench.path("base"), bytes).unwrap();
    let error = bench.exporter().oci(std::slice::from_ref(&image), &bench.output("bad", Compression::GZIP), &mut io::sink()).unwrap_err();
    assert!(matches!(error, ExportError::BlobRead { .. }), "{error:?}");
    assert!(!bench.path("bad").exists());
}

#[test]
fn a_docker_archive_is_both_and_loads_with_its_names() {
    let bench = Bench::new();
    let image = bench.image();
    let output = ArchiveOutput { names: vec!["extra".into()], ..bench.output("docker", Compression::GZIP) };
    bench.exporter().docker(std::slice::from_ref(&image), &output, &mut io::sink()).unwrap();
    let files = members(&bench.path("docker"));
    let [entry] = docker::parse(&files["manifest.json"]).unwrap().try_into().unwrap();
    assert_eq!(entry.repo_tags, ["app:v1", "localhost:5000/team/app:v2", "extra:latest"]);
    assert!(entry.layers.iter().chain([&entry.config]).all(|n| files.contains_key(n)));
    let other = Bench::new();
    let loaded = other.sources().load(&bench.path("docker"), &image.platform).unwrap();
    let names = ["docker.io/library/app:v1", "localhost:5000/team/app:v2", "docker.io/library/extra:latest"].map(String::from);
    assert_eq!(loaded, [crate::engine::sources::Loaded { image: Digest::of(&image.config), names: names.into() }]);
    let source = ImageSource::Reference("app:v1".into());
    let back = other.sources().resolve(&ImageRequest { source, platform: image.platform.clone() }).unwrap();
    assert_eq!(back.config_bytes, image.config);
    other.verify(&back);
}

#[test]
fn a_directory_takes_several_images() {
    let bench = Bench::new();
    let mut image = bench.image();
    let output = ArchiveOutput { directory: true, ..bench.output("dir", Compression::GZIP) };
    let first = bench.exporter().oci(std::slice::from_ref(&image), &output, &mut io::sink()).unwrap();
    image.names = vec!["docker.io/library/app:v1".into()];
    image.config.insert(1, b' ');
    let second = bench.exporter().oci(std::slice::from_ref(&image), &output, &mut io::sink()).unwrap();
    for (tag, want) in [("v1", &second), ("v2", &first)] {
        let back = bench.resolve("dir", tag);
        assert_eq!(back.digest, want.manifest.digest, "{tag}");
        bench.verify(&back);
    }
    // The same once more changes nothing.
    let before = std::fs::read(bench.path("dir/index.json")).unwrap();
    bench.exporter().oci(std::slice::from_ref(&image), &output, &mut io::sink()).unwrap();
    assert_eq!(std::fs::read(bench.path("dir/index.json")).unwrap(), before);
}

#[test]
fn images_for_several_platforms_share_an_index() {
    let bench = Bench::new();
    let amd64 = bench.image();
    let mut arm64 = FinishedImage { platform: Platform::new("linux", "arm64", ""), ..amd64.clone() };
    arm64.config.insert(1, b' ');
    let images = [amd64.clone(), arm64.clone()];
    let exported = bench.exporter().oci(&images, &bench.output("both", Compression::GZIP), &mut io::sink()).unwrap();
    assert_eq!(exported.manifest.media_type, media::OCI_INDEX);
    let files = members(&bench.path("both"));
    let Ok(Index { manifests, .. }) = documents::parse_index(&files[&format!("blobs/sha256/{}", exported.manifest.digest.hex())]) else {
        panic!("the index can be read")
    };
    let platforms: Vec<_> = manifests.iter().map(|d| d.platform.clone().unwrap()).collect();
    assert_eq!(platforms, images.clone().map(|i| i.platform));
    // Two configurations, two manifests, the index, and the two layers once.
    assert_eq!(files.keys().filter(|n| n.starts_with("blobs/sha256/") && !n.ends_with('/')).count(), 7);
    for image in images {
        let source = ImageSource::OciLayout { path: bench.path("both").to_string_lossy().into_owned(), tag: "v1".into() };
        let back = bench.sources().resolve(&ImageRequest { source, platform: image.platform.clone() }).unwrap();
        assert_eq!(back.config_bytes, image.config);
        bench.verify(&back);
    }
}

#[test]
fn metadata_has_buildkits_keys() {
    let bench = Bench::new();
    let exported = bench.exporter().oci(&[bench.image()], &bench.output("one", Compression::GZIP), &mut io::sink()).unwrap();
    let metadata = exported.metadata();
    let keys: Vec<&str> = metadata.keys().map(String::as_str).collect();
    assert_eq!(keys, ["containerimage.descriptor", "containerimage.digest", "image.name"]);
    assert_eq!(metadata["containerimage.descriptor"]["mediaType"], media::OCI_MANIFEST);
    assert_eq!(metadata["containerimage.descriptor"]["digest"], metadata["containerimage.digest"]);
}

/// The labels under which the store knows blobs of the image's layers.
fn labels(bench: &Bench, image: &FinishedImage) -> Vec<Vec<String>> {
    let of = |l: &FinishedLayer| {
        let mut labels: Vec<String> = bench.store.layer_blobs(&l.diff_id).unwrap().into_iter().map(|b| b.compression).collect();
        labels.sort();
        labels
    };
    image.layers.iter().map(of).collect()
}

#[test]
fn each_level_is_a_blob_of_its_own_that_is_made_once() {
    let bench = Bench::new();
    let image = bench.image();
    let levels = [Compression::Gzip(1), Compression::GZIP, Compression::Gzip(9), Compression::Zstd(1), Compression::ZSTD];
    for (n, level) in levels.into_iter().enumerate() {
        bench.exporter().oci(std::slice::from_ref(&image), &bench.output(&n.to_string(), level), &mut io::sink()).unwrap();
        bench.verify(&bench.resolve(&n.to_string(), "v1"));
    }
    let all = ["gzip-1", "gzip-6", "gzip-9", "zstd-1", "zstd-3"].map(String::from).to_vec();
    assert_eq!(labels(&bench, &image), [all.clone(), all]);
    for n in [0, 1] {
        std::fs::remove_dir_all(bench.path(&format!("layer{n}"))).unwrap();
    }
    for (n, level) in levels.into_iter().enumerate() {
        bench.exporter().oci(std::slice::from_ref(&image), &bench.output("again", level), &mut io::sink()).unwrap();
        assert_eq!(std::fs::read(bench.path("again")).unwrap(), std::fs::read(bench.path(&n.to_string())).unwrap(), "{level:?}");
    }
}

#[test]
fn what_came_with_a_base_is_compressed_anew_only_when_forced() {
    let maker = Bench::new();
    maker.exporter().oci(&[maker.image()], &maker.output("base", Compression::Gzip(1)), &mut io::sink()).unwrap();
    let base = maker.resolve("base", "v1");
    let came: Vec<Digest> = base.layers.iter().map(|l| l.blob.as_ref().unwrap().descriptor.digest).collect();
    let layers = base.layers.iter().map(|l| FinishedLayer::of_base(l, None).unwrap()).collect();
    let (config, platform, names) = (base.config_bytes.clone(), base.platform.clone(), vec!["docker.io/library/app:v1".into()]);
    // With its manifest it is an image that was pulled, without one a build of ours stands on it.
    let pulled = FinishedImage { config, platform, names, layers, manifest: base.manifest.clone() };
    let built = FinishedImage { manifest: None, ..pulled.clone() };
    let stays = |compression| Packing { compression, came: Came::Stay, ..Packing::default() };
    let other_kinds = |compression| Packing { came: Came::OtherKinds, ..stays(compression) };
    let anew = |compression| Packing { came: Came::Anew, ..stays(compression) };
    for (packing, stay, media_type, label) in [
        (stays(Compression::ZSTD), true, media::OCI_LAYER_GZIP, None),
        (stays(Compression::Gzip(9)), true, media::OCI_LAYER_GZIP, None),
        (other_kinds(Compression::GZIP), true, media::OCI_LAYER_GZIP, None),
        (other_kinds(Compression::ZSTD), false, media::OCI_LAYER_ZSTD, Some("zstd-3")),
        (other_kinds(Compression::Uncompressed), false, media::OCI_LAYER, Some("none")),
        (anew(Compression::Gzip(9)), false, media::OCI_LAYER_GZIP, Some("gzip-9")),
    ] {
        for image in [&pulled, &built] {
            let bench = Bench::new();
            let output = ArchiveOutput { packing, ..bench.output("out", Compression::GZIP) };
            bench.exporter().oci(std::slice::from_ref(image), &output, &mut io::sink()).unwrap();
            let back = bench.resolve("out", "v1");
            bench.verify(&back);
            let blobs: Vec<_> = back.layers.iter().map(|l| l.blob.clone().unwrap().descriptor).collect();
            assert!(blobs.iter().all(|b| b.media_type == media_type), "{packing:?}");
            assert_eq!(blobs.iter().map(|b| b.digest).eq(came.iter().copied()), stay, "{packing:?}");
            let made: Vec<String> = label.into_iter().map(String::from).collect();
            assert_eq!(labels(&bench, image), [made.clone(), made], "{packing:?}");
        }
    }
}

#[test]
fn docker_s_media_types_are_all_docker_s() {
    let bench = Bench::new();
    let amd64 = bench.image();
    let mut arm64 = FinishedImage { platform: Platform::new("linux", "arm64", ""), ..amd64.clone() };
    arm64.config.insert(1, b' ');
    for (name, compression, layer_type) in [
        ("gzip", Compression::GZIP, media::DOCKER_LAYER_GZIP),
        ("zstd", Compression::ZSTD, media::DOCKER_LAYER_ZSTD),
        ("plain", Compression::Uncompressed, media::DOCKER_LAYER),
    ] {
        let packing = Packing { types: MediaTypes::Docker, ..compression.into() };
        let output = ArchiveOutput { packing, ..bench.output(name, compression) };
        let exported = bench.exporter().oci(&[amd64.clone(), arm64.clone()], &output, &mut io::sink()).unwrap();
        assert_eq!(exported.manifest.media_type, media::DOCKER_INDEX);
        let files = members(&bench.path(name));
        let document = |d: &Descriptor| Document::parse(&files[&format!("blobs/sha256/{}", d.digest.hex())], Some(&d.media_type)).unwrap();
        let Document::Index(index) = document(&exported.manifest) else { panic!("an index") };
        for descriptor in index.manifests {
            assert_eq!(descriptor.media_type, media::DOCKER_MANIFEST);
            let Document::Manifest(manifest) = document(&descriptor) else { panic!("a manifest") };
            assert_eq!(manifest.config.media_type, media::DOCKER_CONFIG);
            assert!(manifest.layers.iter().all(|l| l.media_type == layer_type), "{name}: {:?}", manifest.layers);
        }
        bench.verify(&bench.resolve(name, "v1"));
    }
}
