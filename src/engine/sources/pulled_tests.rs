//! A registry that counts: which layers are fetched, when, and how often.

use std::collections::BTreeMap;

use super::super::tests::{Bench, reference, tar_of};
use super::*;
use crate::digest::DiffId;
use crate::image::config::{ImageConfig, RootFs};
use crate::image::manifest::{Manifest, media};
use crate::registry::testserver::{Reply, TestServer};
use crate::store::Depth;

/// An image of these layers' tars, served under any name; `lie` may change the blobs.
fn serve(tars: &[Vec<u8>], lie: impl Fn(usize, &mut Vec<u8>)) -> (TestServer, String, Vec<Digest>) {
    let diff_ids = tars.iter().map(|tar| DiffId::from_bytes(*Digest::of(tar).as_bytes())).collect();
    let rootfs = RootFs { diff_ids, ..RootFs::default() };
    let config =
        ImageConfig { architecture: Platform::host().architecture, os: "linux".into(), rootfs, ..ImageConfig::default() }.to_json();
    let layers: Vec<Descriptor> = tars.iter().map(|tar| Descriptor::of(media::OCI_LAYER, tar)).collect();
    let digests: Vec<Digest> = layers.iter().map(|l| l.digest).collect();
    let media_type = media::OCI_MANIFEST.to_string();
    let manifest = Manifest { media_type: media_type.clone(), config: Descriptor::of(media::OCI_CONFIG, &config), layers }.to_json();
    let mut blobs = BTreeMap::from([(Digest::of(&config), config)]);
    for (n, tar) in tars.iter().enumerate() {
        let mut bytes = tar.clone();
        lie(n, &mut bytes);
        blobs.insert(digests[n], bytes);
    }
    let server = TestServer::start(move |request, _| {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        match last.parse::<Digest>().ok().and_then(|digest| blobs.get(&digest)) {
            Some(bytes) => Reply::new(200, bytes.clone()),
            None if request.path.contains("/manifests/") => Reply::new(200, manifest.clone()).header("Content-Type", media_type.clone()),
            None => Reply::new(if request.path == "/v2/" { 200 } else { 404 }, ""),
        }
    });
    let name = format!("{}/app:v1", server.host);
    (server, name, digests)
}

/// How often each blob was asked for.
fn fetched(server: &TestServer, digests: &[Digest]) -> Vec<usize> {
    let asked = server.requests();
    digests.iter().map(|d| asked.iter().filter(|r| r.method == "GET" && r.path.ends_with(&d.to_string())).count()).collect()
}

fn two_layers() -> Vec<Vec<u8>> {
    let mut upper = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Link);
    link.set_size(0);
    // Of a file of the lower layer: it can't be unpacked alone.
    upper.append_link(&mut link, "etc/again", "etc/motd").unwrap();
    vec![tar_of(&[("etc/", ""), ("etc/motd", "hello")]), upper.into_inner().unwrap()]
}

#[test]
fn a_layer_is_fetched_once_and_only_when_it_is_needed() {
    let (server, name, layers) = serve(&two_layers(), |_, _| {});
    let (bench, pulls) = (Bench::new(), Pulls::default());
    let sources = Sources { pulls: Some(&pulls), ..bench.sources() };
    let image = sources.resolve(&reference(&name)).unwrap();
    assert_eq!(sources.resolve(&reference(&name)).unwrap().layers, image.layers, "what was described once is not asked for again");
    sources.finish_pulls(Missing::LeaveOut).unwrap();
    assert_eq!(fetched(&server, &layers), [0, 0]);
    assert!(matches!(bench.offline().resolve(&reference(&name)), Err(SourceError::Offline { .. })));
    let dirs = bench.unpack_with(&sources, &image).unwrap();
    assert_eq!(fetched(&server, &layers), [1, 1]);
    assert_eq!(std::fs::read_to_string(dirs[1].join("etc/again")).unwrap(), "hello");
    for missing in [Missing::LeaveOut, Missing::Fetch] {
        sources.finish_pulls(missing).unwrap();
        assert_eq!(bench.offline().resolve(&reference(&name)).unwrap().layers, image.layers);
    }
    assert_eq!(fetched(&server, &layers), [1, 1]);
}

#[test]
fn what_nobody_looked_at_is_fetched_at_the_end_and_not_unpacked() {
    let (server, name, layers) = serve(&two_layers(), |_, _| {});
    let (bench, pulls) = (Bench::new(), Pulls::default());
    let sources = Sources { pulls: Some(&pulls), ..bench.sources() };
    let image = sources.resolve(&reference(&name)).unwrap();
    sources.finish_pulls(Missing::Fetch).unwrap();
    assert_eq!(fetched(&server, &layers), [1, 1]);
    assert!(image.layers.iter().all(|l| bench.store.layer_dir(&l.id).unwrap().is_none()));
    assert_eq!(bench.offline().resolve(&reference(&name)).unwrap().digest, image.digest);
}

#[test]
fn a_registry_that_lies_or_breaks_off_leaves_nothing() {
    for lie in ["longer", "other", "shorter"] {
        let (_server, name, layers) = serve(&two_layers(), |n, bytes| match (n, lie) {
            (0, "longer") => bytes.push(0),
            (0, "other") => bytes[600] ^= 1,
            (0, _) => bytes.truncate(700),
            _ => {}
        });
        let retry = crate::registry::Retry { patience: std::time::Duration::ZERO, ..crate::registry::Retry::default() };
        let bench = Bench::with(crate::registry::RegistryConfig { retry, ..crate::registry::RegistryConfig::default() });
        let pulls = Pulls::default();
        let sources = Sources { pulls: Some(&pulls), ..bench.sources() };
        let image = sources.resolve(&reference(&name)).unwrap();
        bench.unpack_with(&sources, &image).unwrap_err();
        sources.finish_pulls(Missing::Fetch).unwrap_err();
        assert!(!bench.store.has_blob(&layers[0]).unwrap(), "{lie}");
        assert_eq!(bench.store.layer_dir(&image.layers[0].id).unwrap(), None, "{lie}");
        bench.store.flush().unwrap();
        let report = bench.store.fsck(Depth::Deep, &|_: &LayerId, _: &std::path::Path| Err("no layer is here".into())).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
    }
}
