//! Tests of sources: layouts, archives, imports, a base of host programs, and a real registry where there is one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::engine::export::{Exporter, FinishedImage, FinishedLayer};
use crate::engine::request::{ArchiveOutput, Destination, Packing};
use crate::image::manifest::{Index, Manifest, media};
use crate::path::Ownership;
use crate::registry::{RegistryConfig, Retry};
use crate::snapshot::Driver;
use crate::store::Durability;

pub(super) struct Bench {
    dir: tempfile::TempDir,
    pub(super) store: Store,
    client: Client,
    host_path: Vec<PathBuf>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(RegistryConfig::default())
    }

    pub(super) fn with(config: RegistryConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(&dir.path().join("store"), Durability::Unsynced).unwrap();
        let host_path = ["/usr/bin", "/bin"].map(PathBuf::from).into();
        Self { dir, store, client: Client::new(config), host_path }
    }

    pub(super) fn sources(&self) -> Sources<'_> {
        let policy = Policy { now_secs: 1_700_000_000, ..Policy::default() };
        Sources { store: &self.store, client: &self.client, policy, host_path: &self.host_path, progress: &Silent, pulls: None }
    }

    pub(super) fn offline(&self) -> Sources<'_> {
        let sources = self.sources();
        Sources { policy: Policy { offline: true, ..sources.policy }, ..sources }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn unpack(&self, image: &ResolvedImage) -> Result<Vec<PathBuf>, SourceError> {
        self.unpack_with(&self.sources(), image)
    }

    pub(super) fn unpack_with(&self, sources: &Sources<'_>, image: &ResolvedImage) -> Result<Vec<PathBuf>, SourceError> {
        let staging = self.store.stage().unwrap();
        let ownership = if rustix::process::geteuid().is_root() { Ownership::Real } else { Ownership::Recorded };
        let driver = Driver::copying(staging.path(), ownership, "a test");
        sources.ensure_layers(&image.layers, &driver, ownership)
    }
}

fn linux() -> Platform {
    Platform::host()
}

fn request(source: ImageSource) -> ImageRequest {
    ImageRequest { source, platform: linux() }
}

pub(super) fn reference(text: &str) -> ImageRequest {
    request(ImageSource::Reference(text.into()))
}

fn layout(path: &Path, tag: &str) -> ImageRequest {
    request(ImageSource::OciLayout { path: path.to_string_lossy().into_owned(), tag: tag.into() })
}

/// A tar of files with these contents; a path that ends in `/` is a directory.
pub(super) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(if path.ends_with('/') { 0o755 } else { 0o644 });
        header.set_entry_type(if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn import(bench: &Bench, name: &str, files: &[(&str, &str)]) -> Digest {
    let wanted = ImportRequest { name: Some(name.into()), changes: Vec::new(), message: None, platform: linux() };
    bench.sources().import(tar_of(files).as_slice(), &wanted).unwrap()
}

fn export(bench: &Bench, image: &ResolvedImage, names: &[&str], to: &Path, directory: bool) {
    let layers = FinishedLayer::all_of(&bench.store, image).unwrap();
    let names = names.iter().map(|n| n.to_string()).collect();
    let finished = FinishedImage { config: image.config_bytes.clone(), platform: image.platform.clone(), names, layers, manifest: None };
    let dest = Destination::Path(to.into());
    let output = ArchiveOutput { dest, names: Vec::new(), packing: Packing::default(), directory };
    Exporter { store: &bench.store, progress: &Silent }.oci(&[finished], &output, &mut std::io::sink()).unwrap();
}

#[test]
fn an_imported_tar_is_an_image_that_unpacks() {
    let bench = Bench::new();
    let id = import(&bench, "app", &[("etc/", ""), ("etc/motd", "hi")]);
    let image = bench.offline().resolve(&reference("app")).unwrap();
    assert_eq!(Digest::of(&image.config_bytes), id);
    assert_eq!(image.config.config.cmd, Some(vec!["/bin/sh".to_string()]));
    assert_eq!(image.config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
    let dirs = bench.unpack(&image).unwrap();
    assert_eq!(std::fs::read_to_string(dirs[0].join("etc/motd")).unwrap(), "hi");
    assert_eq!(bench.unpack(&image).unwrap(), dirs);
}

#[test]
fn blobs_that_this_store_made_are_not_read_to_resolve_an_image() {
    let bench = Bench::new();
    import(&bench, "app", &[("a", "1")]);
    let image = bench.offline().resolve(&reference("app")).unwrap();
    // The export keeps the compressed layer: the tar has two blobs now.
    export(&bench, &image, &["app"], &bench.path("tar"), false);
    let blobs = bench.store.layer_blobs(&image.layers[0].diff_id).unwrap();
    assert_eq!(blobs.len(), 2);
    for blob in &blobs {
        // Reading one to its end would fail.
        std::fs::write(bench.store.root().join("blobs/sha256").join(blob.digest.hex()), vec![0; blob.size_bytes as usize]).unwrap();
    }
    let found = bench.offline().resolve(&reference("app")).unwrap().layers[0].blob.clone().unwrap();
    assert!(blobs.iter().any(|blob| blob.digest == found.descriptor.digest), "{found:?}");
}

#[test]
fn what_is_no_tar_is_not_imported() {
    let bench = Bench::new();
    let wanted = ImportRequest { name: None, changes: Vec::new(), message: None, platform: linux() };
    for bytes in [&b"FROM alpine\n"[..], b"", &[0x1f, 0x8b, 8, 0, 0], &[7; 4096]] {
        let outcome = bench.sources().import(bytes, &wanted);
        assert!(matches!(outcome, Err(SourceError::Archive { .. })), "{outcome:?}");
    }
}

#[test]
fn a_layout_is_read_in_place_and_nothing_enters_the_store() {
    let bench = Bench::new();
    import(&bench, "app", &[("a", "1")]);
    let image = bench.offline().resolve(&reference("app")).unwrap();
    export(&bench, &image, &["docker.io/library/app:latest"], &bench.path("dir"), true);
    export(&bench, &image, &["docker.io/library/app:latest"], &bench.path("tar"), false);
    let other = Bench::new();
    for name in ["dir", "tar"] {
        let found = other.offline().resolve(&layout(&bench.path(name), "latest")).unwrap();
        assert_eq!(found.config_bytes, image.config_bytes, "{name}");
        assert!(other.store.list().unwrap().is_empty());
        let error = other.offline().resolve(&layout(&bench.path(name), "nope")).unwrap_err();
        assert!(matches!(error, SourceError::Layout { .. }), "{error:?}");
        other.unpack(&found).unwrap();
    }
    let error = other.offline().resolve(&layout(&bench.path("store"), "latest")).unwrap_err();
    assert!(matches!(error, SourceError::NoLayout { .. }), "{error:?}");
}

#[test]
fn a_layer_that_is_not_its_diff_id_is_never_a_directory() {
    let bench = Bench::new();
    import(&bench, "good", &[("a", "1")]);
    import(&bench, "other", &[("a", "2")]);
    let mut image = bench.offline().resolve(&reference("good")).unwrap();
    let other = bench.offline().resolve(&reference("other")).unwrap();
    image.layers[0].blob.clone_from(&other.layers[0].blob);
    let error = bench.unpack(&image).unwrap_err();
    assert!(matches!(error, SourceError::DiffId { found, .. } if found == other.layers[0].diff_id), "{error:?}");
    assert_eq!(bench.store.layer_dir(&image.layers[0].id).unwrap(), None);
}

#[test]
fn documents_of_a_layout_are_verified() {
    let bench = Bench::new();
    import(&bench, "app", &[("a", "1")]);
    let image = bench.offline().resolve(&reference("app")).unwrap();
    let dir = bench.path("dir");
    export(&bench, &image, &["docker.io/library/app:latest"], &dir, true);
    let digest = bench.offline().resolve(&layout(&dir, "latest")).unwrap().digest;
    let blob = |digest: &Digest| dir.join("blobs/sha256").join(digest.hex());
    let manifest = std::fs::read(blob(&digest)).unwrap();
    let config = blob(&Digest::of(&image.config_bytes));
    for (path, bytes, want) in [
        (blob(&digest), [manifest.as_slice(), b" "].concat(), "Size"),
        (blob(&digest), manifest.iter().map(|b| if *b == b'2' { b'3' } else { *b }).collect(), "Digest"),
        (config.clone(), vec![b' '; image.config_bytes.len()], "Digest"),
        (config, vec![b' '; 5 << 20], "TooLarge"),
    ] {
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let error = bench.offline().resolve(&layout(&dir, "latest")).unwrap_err();
        assert!(format!("{error:?}").starts_with(want), "{want}: {error:?}");
        std::fs::write(&path, whole).unwrap();
    }
    std::fs::remove_file(blob(&digest)).unwrap();
    let error = bench.offline().resolve(&layout(&dir, "latest")).unwrap_err();
    assert!(matches!(error, SourceError::MissingBlob { .. }), "{error:?}");
}

#[test]
fn indexes_are_followed_to_a_depth_and_artifacts_are_no_images() {
    let bench = Bench::new();
    let dir = bench.path("dir");
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        std::fs::write(dir.join("blobs/sha256").join(Digest::of(bytes).hex()), bytes).unwrap();
        Descriptor::of(media_type, bytes)
    };
    let index = |entry: Descriptor| Index { media_type: media::OCI_INDEX.into(), manifests: vec![entry] }.to_json();
    let image = |config: &[u8], config_type: &str, layers: usize| {
        let layers = vec![Descriptor::of(media::OCI_LAYER, b""); layers];
        let config = put(config_type, config);
        put(media::OCI_MANIFEST, &Manifest { media_type: media::OCI_MANIFEST.into(), config, layers }.to_json())
    };
    let good = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let scratch = image(good, media::OCI_CONFIG, 0);
    let mut nested = scratch.clone();
    for depth in 1..=6 {
        std::fs::write(dir.join("index.json"), index(nested.clone())).unwrap();
        let outcome = bench.offline().resolve(&layout(&dir, "latest"));
        match outcome {
            Ok(found) => assert!(depth <= 5 && found.digest == scratch.digest, "{depth}"),
            Err(SourceError::TooDeep { .. }) => assert_eq!(depth, 6),
            Err(e) => panic!("{depth}: {e:?}"),
        }
        nested = put(media::OCI_INDEX, &index(nested));
    }
    for (manifest, want) in [
        (image(b"{}", "application/vnd.example", 0), "NoImage"),
        (image(b"{}", media::OCI_CONFIG, 1), "LayerCount"),
        (image(b"[]", media::OCI_CONFIG, 0), "Config"),
        (image(br#"{"os":"a","os":"b"}"#, media::OCI_CONFIG, 0), "Config"),
    ] {
        std::fs::write(dir.join("index.json"), index(manifest)).unwrap();
        let error = bench.offline().resolve(&layout(&dir, "latest")).unwrap_err();
        assert!(format!("{error:?}").starts_with(want), "{want}: {error:?}");
    }
}

#[test]
fn a_host_base_is_the_same_in_every_store() {
    let host = || request(ImageSource::Host(vec!["sh".into(), "ls".into()]));
    let (one, two) = (Bench::new(), Bench::new());
    let image = one.offline().resolve(&host()).unwrap();
    assert_eq!(two.offline().resolve(&host()).unwrap().digest, image.digest);
    assert_eq!(one.offline().resolve(&host()).unwrap().digest, image.digest);
    let dirs = one.unpack(&image).unwrap();
    assert!(dirs[0].join("usr/bin/ls").is_file());
    assert_eq!(image.config.config.cmd, Some(vec!["/bin/sh".to_string()]));
}

#[test]
fn privileged_programs_of_a_host_base_run_in_a_chroot() {
    if !rustix::process::geteuid().is_root() {
        eprintln_skip("chroot needs root");
        return;
    }
    let bench = Bench::new();
    let image = bench.offline().resolve(&request(ImageSource::Host(vec!["sh".into(), "ls".into(), "cat".into()]))).unwrap();
    let root = bench.unpack(&image).unwrap().remove(0);
    let script = "ls /bin/sh && cat /etc/group";
    let output = Command::new("chroot").arg(&root).args(["/bin/sh", "-c", script]).env_clear().env("PATH", "/bin:/usr/sbin").output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "/bin/sh\nroot:x:0:\nnogroup:x:65534:\n", "{output:?}");
}

/// Says why a test counts as skipped; tests are the one place besides `ui` that may.
#[allow(clippy::print_stderr)]
fn eprintln_skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// Debian's registry on loopback; it ends with the value.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// None: it is not installed.
    fn start(dir: &Path, htpasswd: Option<&str>) -> Option<Self> {
        for program in ["docker-registry", "skopeo"] {
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            dir.join("data").display()
        );
        if let Some(line) = htpasswd {
            std::fs::write(dir.join("htpasswd"), line).ok()?;
            config.push_str(&format!("auth:\n  htpasswd:\n    realm: r\n    path: {}\n", dir.join("htpasswd").display()));
        }
        std::fs::write(dir.join("config.yml"), config).ok()?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { child, host })
    }

    fn push(&self, archive: &Path, name: &str, credentials: Option<&str>) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--retry-times=5"]);
        if let Some(credentials) = credentials {
            command.arg(format!("--dest-creds={credentials}"));
        }
        let output =
            command.arg(format!("oci-archive:{}", archive.display())).arg(format!("docker://{}/{name}", self.host)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_image_is_pulled_from_a_real_registry_once() {
    let bench = Bench::new();
    let Some(registry) = Registry::start(bench.dir.path(), None) else { return eprintln_skip("docker-registry or skopeo is missing") };
    import(&bench, "app", &[("etc/", ""), ("etc/motd", "hello")]);
    let image = bench.offline().resolve(&reference("app")).unwrap();
    export(&bench, &image, &["docker.io/library/app:latest"], &bench.path("tar"), false);
    registry.push(&bench.path("tar"), "team/app:v1", None);
    let other = Bench::new();
    let name = format!("{}/team/app:v1", registry.host);
    let pulled = other.sources().resolve(&reference(&name)).unwrap();
    assert_eq!(pulled.config_bytes, image.config_bytes);
    let dirs = other.unpack(&pulled).unwrap();
    assert_eq!(std::fs::read_to_string(dirs[0].join("etc/motd")).unwrap(), "hello");
    let pinned = format!("{}/team/app@{}", registry.host, pulled.digest);
    let by_digest = Bench::new().sources().resolve(&reference(&pinned)).map(|i| i.digest);
    assert_eq!(by_digest.unwrap(), pulled.digest);
    let missing = other.sources().resolve(&reference(&format!("{}/team/app:v2", registry.host))).unwrap_err();
    assert!(matches!(missing, SourceError::Registry { .. }), "{missing:?}");
    drop(registry);
    // The registry is gone; the store remembers, by tag and by digest.
    assert_eq!(other.sources().resolve(&reference(&name)).unwrap().layers, pulled.layers);
    assert_eq!(other.offline().resolve(&reference(&pinned)).unwrap().digest, pulled.digest);
}

#[test]
fn a_registry_with_passwords_gets_them_from_the_auth_file() {
    let bench = Bench::new();
    // htpasswd -nbB u p
    let Ok(line) = Command::new("htpasswd").args(["-nbB", "u", "p"]).output() else { return eprintln_skip("htpasswd is missing") };
    let line = String::from_utf8(line.stdout).unwrap();
    let Some(registry) = Registry::start(bench.dir.path(), Some(&line)) else { return eprintln_skip("docker-registry is missing") };
    import(&bench, "app", &[("a", "1")]);
    let image = bench.offline().resolve(&reference("app")).unwrap();
    export(&bench, &image, &[], &bench.path("tar"), false);
    registry.push(&bench.path("tar"), "app:v1", Some("u:p"));
    let name = format!("{}/app:v1", registry.host);
    let auth = bench.path("config.json");
    let text = serde_json::json!({ "auths": BTreeMap::from([(&registry.host, serde_json::json!({ "auth": "dTpw" }))]) });
    std::fs::File::create(&auth).unwrap().write_all(text.to_string().as_bytes()).unwrap();
    let other = Bench::with(RegistryConfig { auth_files: vec![auth], retry: Retry::default(), ..RegistryConfig::default() });
    assert_eq!(other.sources().resolve(&reference(&name)).unwrap().config_bytes, image.config_bytes);
    let stranger = Bench::new().sources().resolve(&reference(&name)).map(|i| i.digest);
    assert!(matches!(stranger, Err(SourceError::Registry { .. })), "{stranger:?}");
}
