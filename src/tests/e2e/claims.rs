//! What an image says of itself names nothing here: no file, no other image, no command.

use std::path::Path;

use super::{Done, World};

/// Writes an OCI layout of image `t` into `dir`, whose index and labels say these things.
fn layout(w: &World, dir: &Path, name: &str) {
    let out = format!("type=oci,tar=false,dest={}", dir.display());
    w.file("a", "a").file("Dockerfile", "FROM scratch\nCOPY a /\n").build(&["-o", &out]).ok();
    let path = dir.join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    index["manifests"][0]["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name});
    std::fs::write(path, index.to_string()).unwrap();
}

#[test]
fn a_layouts_name_is_a_reference_or_refused() {
    for (name, code, names) in [
        ("../../x", 1, "<none>"),
        ("/etc/passwd", 1, "<none>"),
        ("x:y:z", 1, "<none>"),
        ("-f", 0, "<none>"),
        ("a b", 0, "<none>"),
        ("", 0, "<none>"),
        ("\u{1b}]0;x\u{7}", 0, "<none>"),
        ("ok:1", 0, "ok"),
    ] {
        let w = World::new();
        let dir = w.path("layout");
        layout(&w, &dir, name);
        let other = World::new();
        let done = other.ply(&["load", "-i", dir.to_str().unwrap()]).fails(code);
        assert!(!format!("{done:?}").contains("\\u{1b}"), "{done:?}");
        assert_eq!(other.ply(&["images", "-a", "--format", "{{.Repository}}"]).ok().stdout.trim(), names, "{name:?}");
    }
}

#[test]
fn labels_that_other_programs_obey_are_text() {
    let w = World::new();
    let marker = w.path("marker");
    let touch = format!("touch {}", marker.display());
    // podman's `container runlabel`, docker's and containerd's own keys, a logger to be run.
    let keys = [
        "run",
        "INSTALL",
        "io.containers.autoupdate",
        "com.docker.compose.project",
        "containerd.io/restart.loguri",
        "org.opencontainers.image.ref.name",
    ];
    let labels: String = keys.iter().map(|k| format!("LABEL {k}=\"binary:///bin/sh?-c={touch}\"\n")).collect();
    w.image(&format!("FROM base\n{labels}CMD [\"true\"]\n")).ok();
    w.ply(&["run", "--rm", "t"]).ok();
    let archive = w.path("a.tar");
    w.ply(&["save", "-o", archive.to_str().unwrap(), "t"]).ok();
    let other = World::new();
    let loaded: Done = other.ply(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(loaded.stdout, "Loaded image: t:latest\n");
    other.ply(&["run", "--rm", "t"]).ok();
    assert!(!marker.exists());
}
