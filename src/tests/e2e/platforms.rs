//! Builds for several platforms.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::{World, skipped};

const BOTH: &str = "linux/amd64,linux/arm64";

/// The files of an archive, by name.
fn members(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        out.insert(entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_string(), bytes);
    }
    out
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// `FROM scratch` with a file that tells the platform.
fn two_platforms() -> World {
    let w = World::new();
    w.file("amd64", "amd").file("arm64", "arm");
    w.file("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nENV A=$TARGETARCH\n");
    w
}

#[test]
fn an_archive_has_an_index_with_a_manifest_a_platform() {
    let w = two_platforms();
    let (oci, meta) = (w.path("i.tar"), w.path("meta.json"));
    let out = format!("type=oci,dest={}", oci.display());
    let args = ["--platform", BOTH, "-t", "t", "-o", &out, "--load", "--metadata-file", meta.to_str().unwrap()];
    let first = w.build(&args).ok();
    assert!(first.stderr.contains("[linux/amd64 stage-0 2/2] COPY amd64 /arch"), "{}", first.stderr);
    assert!(first.stderr.contains("[linux/arm64 stage-0 2/2] COPY arm64 /arch"), "{}", first.stderr);
    let files = members(&oci);
    let blob = |descriptor: &Value| json(&files[&format!("blobs/sha256/{}", &descriptor["digest"].as_str().unwrap()[7..])]);
    let top = json(&files["index.json"]);
    let index = blob(&top["manifests"][0]);
    let entries = index["manifests"].as_array().unwrap();
    let architectures: Vec<_> = entries.iter().map(|m| m["platform"]["architecture"].as_str().unwrap()).collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    for entry in entries {
        let config = blob(&blob(entry)["config"]);
        assert_eq!(config["architecture"], entry["platform"]["architecture"]);
        let a = format!("A={}", config["architecture"].as_str().unwrap());
        assert!(config["config"]["Env"].as_array().unwrap().contains(&a.into()), "{config}");
    }
    let meta = json(&fs::read(&meta).unwrap());
    assert_eq!(meta["containerimage.digest"], top["manifests"][0]["digest"]);
    assert_eq!(meta["plywood.images"].as_object().unwrap().len(), 2);
    // The tag, and the printed ID, are this host's image.
    let config = json(w.ply(&["inspect", "t"]).ok().stdout.as_bytes());
    assert_eq!((config[0]["Architecture"].as_str(), config[0]["Id"].as_str()), (Some(host()), Some(first.stdout.trim())));
    let before = fs::read(&oci).unwrap();
    let second = w.build(&args).ok();
    assert_eq!((second.stderr.matches("CACHED").count(), fs::read(&oci).unwrap() == before), (2, true));
}

#[test]
fn file_systems_go_to_a_directory_a_platform() {
    let w = two_platforms();
    let (local, tar) = (w.path("local"), w.path("root.tar"));
    let outputs = [format!("type=tar,dest={}", tar.display()), local.display().to_string()];
    w.build(&["--platform", BOTH, "-o", &outputs[0], "-o", &outputs[1]]).ok();
    assert_eq!(fs::read_to_string(local.join("linux_amd64/arch")).unwrap(), "amd");
    assert_eq!(fs::read_to_string(local.join("linux_arm64/arch")).unwrap(), "arm");
    let names: Vec<String> = members(&tar).into_keys().collect();
    assert_eq!(names, ["linux_amd64", "linux_amd64/arch", "linux_arm64", "linux_arm64/arch"]);
    let unsplit = format!("type=local,platform-split=false,dest={}", w.path("one").display());
    w.build(&["--platform", BOTH, "-o", &unsplit]).fails(1).says("`arch` is a file of several");
    w.file("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n");
    w.build(&["--platform", BOTH, "-o", &unsplit]).ok();
    assert_eq!(fs::read_to_string(w.path("one/arm64")).unwrap(), "arm");
    let split = format!("type=local,platform-split=true,dest={}", w.path("split").display());
    w.build(&["--platform", "linux/arm64", "-o", &split]).ok();
    assert_eq!(fs::read_to_string(w.path("split/linux_arm64/arm64")).unwrap(), "arm");
    w.build(&["--platform", BOTH, "-o", "type=docker,dest=x"]).fails(2).says("type=docker holds an image for one platform only");
}

#[test]
fn a_stage_of_the_build_platform_runs_once_for_all() {
    let w = World::new();
    w.file(
        "Dockerfile",
        "FROM --platform=$BUILDPLATFORM base AS tool\nRUN dd if=/dev/urandom of=/r bs=16 count=1\nFROM scratch\nCOPY --from=tool /r /r\n",
    );
    let local = w.path("local");
    w.build(&["--platform", BOTH, "--no-cache", "-o", local.to_str().unwrap()]).ok();
    let read = |name: &str| fs::read(local.join(name).join("r")).unwrap();
    let first = read("linux_amd64");
    assert_eq!(first, read("linux_arm64"));
    w.build(&["--platform", BOTH, "--no-cache", "-o", local.to_str().unwrap()]).ok();
    assert_ne!(first, read("linux_amd64"));
}

#[test]
fn a_foreign_run_without_an_emulator_says_so_at_its_line() {
    let (foreign, machine): (_, u8) = if host() == "amd64" { ("arm64", 183) } else { ("amd64", 62) };
    let registrations = fs::read_dir("/proc/sys/fs/binfmt_misc").map_or(0, Iterator::count);
    if registrations > 2 {
        return skipped("binfmt_misc has registrations: there may be an emulator");
    }
    let w = World::new();
    let mut program = vec![0; 64];
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (program[16], program[18]) = (2, machine);
    fs::write(w.path("ctx/program"), program).unwrap();
    w.file("Dockerfile", "FROM scratch\nCOPY --chmod=755 program /program\nRUN [\"/program\"]\n");
    let platform = format!("linux/{foreign}");
    let done = w.build(&["--platform", &platform]).fails(1);
    for text in ["Dockerfile:3", &format!("for {platform}"), "has no emulator", "qemu-user-static"] {
        assert!(done.stderr.contains(text), "`{text}` is not in {}", done.stderr);
    }
    // What only copies needs none.
    w.file("Dockerfile", "FROM scratch\nCOPY --chmod=755 program /program\nWORKDIR /w\n").build(&["--platform", &platform]).ok();
}
