//! The host's programs as an image of one layer, in the store.
//!
//! Nothing of the time or the place enters it: the same programs give the same digest, so steps on it stay hits.

use std::io::Write;

use crate::digest::{DiffId, LayerId};
use crate::image::config::{History, ImageConfig, RootFs, RunConfig};
use crate::image::manifest::{Descriptor, Manifest, media};
use crate::image::platform::Platform;
use crate::layer::compress::HashingWriter;

use super::host::{HostError, Tree};
use super::keep::{self, Incoming};
use super::{BlobPlace, BlobRef, ResolvedImage, ResolvedLayer, SourceError, Sources};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the base, or finds it in the store.
pub(super) fn resolve(sources: &Sources<'_>, programs: &[String]) -> Result<ResolvedImage, SourceError> {
    let tree = Tree::gather(programs, sources.host_path)?;
    let descriptor = if sources.policy.look_only { describe_layer(&tree)? } else { store_layer(sources, &tree)? };
    let diff_id = DiffId::from_bytes(*descriptor.digest.as_bytes());
    let config = config(programs, diff_id);
    let config_bytes = config.to_json();
    let manifest = Manifest {
        media_type: media::OCI_MANIFEST.into(),
        config: Descriptor::of(media::OCI_CONFIG, &config_bytes),
        layers: vec![descriptor.clone()],
    };
    let manifest_bytes = manifest.to_json();
    let platform = Platform::host();
    let name = format!("host:{}", programs.join(","));
    if !sources.policy.look_only {
        let incoming = Incoming {
            config: &config_bytes,
            manifest: Some(&manifest_bytes),
            platform: platform.clone(),
            layers: vec![(diff_id, descriptor.clone())],
            name: &name,
        };
        let gone = |d: &Descriptor| Err(SourceError::MissingBlob { origin: name.clone(), what: "the layer", digest: d.digest });
        keep::keep(sources, &incoming, 1, &gone)?;
    }
    let blob = BlobRef { descriptor, place: BlobPlace::Store, original: false };
    Ok(ResolvedImage {
        config,
        digest: crate::digest::Digest::of(&manifest_bytes),
        manifest: Some(manifest_bytes.clone()),
        platform,
        layers: vec![ResolvedLayer { id: LayerId::Diff(diff_id), diff_id, blob: Some(blob) }],
        origin: name.clone(),
        config_bytes: config_bytes.clone(),
    })
}

/// Hashes the layer.
fn describe_layer(tree: &Tree) -> Result<Descriptor, SourceError> {
    let mut hashing = HashingWriter::new(std::io::sink());
    tree.write_tar(&mut hashing)?;
    let (_, tar) = hashing.finish().map_err(HostError::Write)?;
    Ok(Descriptor::new(media::OCI_LAYER, tar.digest, tar.size_bytes))
}

/// Hashes the layer, and writes it only when the store lacks it.
fn store_layer(sources: &Sources<'_>, tree: &Tree) -> Result<Descriptor, SourceError> {
    let tar = describe_layer(tree)?;
    if !sources.store.has_blob(&tar.digest)? {
        let staging = sources.store.stage()?;
        let path = staging.path().join("base.tar");
        let mut file = std::fs::File::create_new(&path).map_err(SourceError::io(&path))?;
        let mut buffered = std::io::BufWriter::new(&mut file);
        tree.write_tar(&mut buffered)?;
        buffered.flush().map_err(SourceError::io(&path))?;
        drop(buffered);
        let mut file = std::fs::File::open(&path).map_err(SourceError::io(&path))?;
        // A program that was replaced between the two passes is an error, not another base.
        sources.store.put_blob(&mut file, Some((&tar.digest, tar.size)))?;
    }
    // Before `keep` says "original": this blob is ours, and an export may compress it.
    keep::note_blob(sources, &DiffId::from_bytes(*tar.digest.as_bytes()), &tar, "none")?;
    Ok(tar)
}

fn config(programs: &[String], diff_id: DiffId) -> ImageConfig {
    let host = Platform::host();
    let created_by = format!("ply host:{}", programs.join(","));
    ImageConfig {
        architecture: host.architecture,
        os: host.os,
        variant: (!host.variant.is_empty()).then_some(host.variant),
        config: RunConfig { env: vec![PATH.into()], cmd: Some(vec![Tree::command(programs)]), ..RunConfig::default() },
        rootfs: RootFs { diff_ids: vec![diff_id], ..RootFs::default() },
        history: vec![History { created_by, ..History::default() }],
        ..ImageConfig::default()
    }
}
