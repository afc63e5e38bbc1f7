//! How layers leave: kinds, levels, force and media types, as other people's tools see them.

use serde_json::Value;

use super::registry::Registry;
use super::{World, program};

/// A world whose context has a few megabytes that compress.
fn world() -> World {
    let w = World::new();
    let text: String = (0..200_000u32).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761))).collect();
    w.file("data", &text).file("Dockerfile", "FROM base\nCOPY data /data\n");
    w
}

/// Builds to an OCI archive with these attributes, and returns its path.
fn archive(w: &World, attributes: &str) -> String {
    let path = w.path("image.tar").display().to_string();
    w.build(&["-t", "t", "-o", &format!("type=oci,dest={path},{attributes}")]).ok();
    path
}

/// What skopeo says that the manifest is; none without skopeo.
fn judged(from: &str) -> Option<Value> {
    let done = program("skopeo", &["inspect", "--raw", "--tls-verify=false", from])?;
    Some(serde_json::from_str(&done.ok().stdout).unwrap())
}

#[test]
fn skopeo_and_umoci_read_every_form() {
    let w = world();
    let (oci, docker) = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar");
    for (attributes, layer) in [
        ("compression=gzip,compression-level=9,force-compression=true", format!("{oci}+gzip")),
        ("compression=gzip,compression-level=0", format!("{oci}+gzip")),
        ("compression=zstd,compression-level=19,force-compression=true", format!("{oci}+zstd")),
        ("compression=uncompressed,force-compression=true", oci.to_string()),
        ("oci-mediatypes=false", format!("{docker}.gzip")),
        ("oci-mediatypes=false,compression=zstd,force-compression=true", format!("{docker}.zstd")),
    ] {
        let path = archive(&w, attributes);
        let Some(manifest) = judged(&format!("oci-archive:{path}")) else { return };
        assert_eq!(manifest["layers"][1]["mediaType"], layer, "{attributes}");
        if attributes.contains("force") {
            assert_eq!(manifest["layers"][0]["mediaType"], layer, "{attributes}");
        }
        // And we read our own.
        World::new().ply(&["load", "-i", &path]).ok();
        let copy = w.path("copy");
        let _ = std::fs::remove_dir_all(&copy);
        // A copy reads and verifies all layers; docker's zstd has a name that skopeo knows in OCI's words only.
        if !layer.contains("docker") {
            let to = format!("oci:{}:t", copy.display());
            program("skopeo", &["copy", "--insecure-policy", &format!("oci-archive:{path}"), &to]).unwrap().ok();
            // umoci knows no zstd.
            if layer.ends_with("zstd") {
                continue;
            }
            let bundle = w.path("bundle");
            let _ = std::fs::remove_dir_all(&bundle);
            let image = format!("{}:t", copy.display());
            let mut unpack = vec!["unpack", "--image", &image, bundle.to_str().unwrap()];
            if !super::is_root() {
                unpack.insert(1, "--rootless");
            }
            let Some(done) = program("umoci", &unpack) else { continue };
            done.ok();
            assert_eq!(std::fs::read(bundle.join("rootfs/data")).unwrap(), std::fs::read(w.path("ctx/data")).unwrap(), "{attributes}");
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let w = world();
    for attributes in
        ["compression=gzip", "compression=gzip,compression-level=1", "compression=zstd", "compression=zstd,compression-level=9"]
    {
        let written = ["1", "4"].map(|threads| {
            let path = w.path(&format!("{threads}.tar"));
            let output = format!("type=oci,dest={},{attributes}", path.display());
            // Without it the configurations differ by the second in which they were made.
            let mut command = w.build_command(&["-t", "t", "--build-arg", "SOURCE_DATE_EPOCH=1", "-o", &output]);
            // A store of its own: nothing is found, all is made.
            command.env("RAYON_NUM_THREADS", threads).env("PLY_STORE", w.path(&format!("store-{threads}")));
            super::Done::from(command.output().unwrap()).ok();
            std::fs::read(path).unwrap()
        });
        assert!(written[0] == written[1], "{attributes}");
    }
}

#[test]
fn a_layer_that_was_compressed_is_not_compressed_again() {
    let w = world();
    let compressed = |attributes: &str| {
        let path = w.path("image.tar").display().to_string();
        let done = w.build(&["-t", "t", "-o", &format!("type=oci,dest={path},{attributes}")]).ok();
        done.stderr.lines().filter(|l| l.contains("compress layer")).count() > 0
    };
    for attributes in
        ["compression=gzip,compression-level=3", "compression=zstd,compression-level=5,force-compression=true", "compression=gzip"]
    {
        assert!(compressed(attributes), "{attributes}");
        assert!(!compressed(attributes), "{attributes}");
    }
}

#[test]
fn a_push_forces_what_it_is_told_to() {
    let w = world();
    let Some(registry) = Registry::start(&w) else { return };
    let name = format!("{}/team/app:1", registry.host());
    let types = |manifest: &Value| -> Vec<String> {
        let layers = manifest["layers"].as_array().unwrap();
        layers.iter().map(|l| l["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_string()).collect()
    };
    // The form of an image output is that of what --push sends.
    w.build(&["-t", &name, "--push", "-o", "type=image,compression=zstd,compression-level=7"]).ok();
    let Some(first) = judged(&format!("docker://{name}")) else { return };
    assert_eq!(types(&first)[1], "tar+zstd");
    w.ply(&["push", "--compression", "zstd", "--compression-level", "1", "--force-compression", &name]).ok();
    let second = judged(&format!("docker://{name}")).unwrap();
    assert_eq!(types(&second), ["tar+zstd", "tar+zstd"]);
    assert_ne!(second["layers"][1]["digest"], first["layers"][1]["digest"]);
    w.build(&["-t", &name, "-o", "type=image,push=true,oci-mediatypes=false"]).ok();
    let third = judged(&format!("docker://{name}")).unwrap();
    assert_eq!(third["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(third["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
}

#[test]
fn what_can_not_be_done_is_said_before_anything_runs() {
    let w = world();
    for (attributes, want) in [
        ("compression=estargz", "`compression=estargz` is not supported"),
        ("compression=gzip,compression-level=10", "expected a level from 0 to 9 with gzip, got `10`"),
        ("compression=zstd,compression-level=23", "expected a level from 1 to 22 with zstd, got `23`"),
    ] {
        w.build(&["-o", &format!("type=oci,dest=x.tar,{attributes}")]).fails(2).says(want);
        w.build(&["--cache-to", &format!("type=local,dest=c,{attributes}")]).fails(2).says(want);
    }
    w.ply(&["push", "--compression-level=10", "h.example/a"]).fails(2).says("expected a level from 0 to 9 with gzip");
}
