//! What other people's tools say of our images: skopeo, umoci, podman.

use super::{World, program, skipped};

fn archive(w: &World) -> String {
    w.file("f", "content").file("Dockerfile", "FROM base\nCOPY --chown=3:4 f /d/f\nRUN ln /d/f /hard && ln -s f /d/soft && rm /bin/dd && chmod 4755 /d/f\nCMD [\"cat\",\"/d/f\"]\n");
    let oci = w.path("image.tar");
    w.build(&["-t", "judged:1", "-o", &format!("type=oci,dest={}", oci.display())]).ok();
    oci.display().to_string()
}

#[test]
fn skopeo_reads_and_copies_it() {
    let w = World::new();
    let oci = archive(&w);
    let Some(done) = program("skopeo", &["inspect", &format!("oci-archive:{oci}")]) else { return };
    assert!(done.ok().stdout.contains("\"Layers\""));
    let dir = w.path("copy");
    program("skopeo", &["copy", "--insecure-policy", &format!("oci-archive:{oci}"), &format!("dir:{}", dir.display())]).unwrap().ok();
}

#[test]
fn privileged_umoci_unpacks_what_the_steps_made() {
    if !super::is_root() {
        return skipped("not root");
    }
    let w = World::new();
    w.file("f", "content")
        .file("Dockerfile", "FROM base\nCOPY --chown=3:4 f /d/f\nRUN ln /d/f /hard && ln -s f /d/soft && rm /bin/dd && chmod 4755 /d/f\n");
    let layout = w.path("layout");
    w.build(&["-t", "judged:1", "-o", &format!("type=oci,tar=false,dest={}", layout.display())]).ok();
    let bundle = w.path("bundle");
    let image = format!("{}:1", layout.display());
    let Some(done) = program("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()]) else { return };
    done.ok();
    let root = bundle.join("rootfs");
    use std::os::unix::fs::MetadataExt as _;
    let f = std::fs::metadata(root.join("d/f")).unwrap();
    assert_eq!((f.uid(), f.gid(), f.mode() & 0o7777, f.nlink()), (3, 4, 0o4755, 2));
    assert_eq!(std::fs::read_link(root.join("d/soft")).unwrap().to_str(), Some("f"));
    assert!(!root.join("bin/dd").exists());
}

#[test]
fn privileged_podman_loads_and_runs_it() {
    if !super::is_root() {
        return skipped("not root");
    }
    let w = World::new();
    w.file("f", "content").file("Dockerfile", "FROM base\nCOPY f /d/f\nCMD [\"cat\",\"/d/f\"]\n");
    let tar = w.path("docker.tar");
    w.build(&["-t", "judged:1", "-o", &format!("type=docker,dest={}", tar.display())]).ok();
    let (root, runroot) = (w.path("podman"), w.path("podman-run"));
    let base = [
        "--root",
        root.to_str().unwrap(),
        "--runroot",
        runroot.to_str().unwrap(),
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
    ];
    let podman = |args: &[&str]| program("podman", &[&base[..], args].concat());
    let Some(done) = podman(&["load", "-q", "-i", tar.to_str().unwrap()]) else { return };
    done.ok();
    let run =
        podman(&["run", "--rm", "--network=host", "--cgroups=disabled", "--security-opt", "seccomp=unconfined", "localhost/judged:1"])
            .unwrap();
    // Where podman itself can't start a container (no usable cgroups), that it could read the image is what counts.
    if run.code == Some(0) {
        assert_eq!(run.stdout, "content");
    } else {
        skipped(&format!("podman can't run containers here: {}", run.stderr));
        assert!(podman(&["images"]).unwrap().ok().stdout.contains("judged"));
    }
}

#[test]
fn a_saved_archive_loads_again_as_the_same_image() {
    let w = World::new();
    let oci = archive(&w);
    let id = w.build(&["-q", "-t", "direct"]).ok().stdout;
    let loaded = World::new();
    loaded.ply(&["load", "-i", &oci]).ok();
    assert_eq!(loaded.ply(&["images", "-q", "--no-trunc"]).ok().stdout.trim(), id.trim());
    assert_eq!(loaded.ply(&["run", "--rm", "judged:1"]).ok().stdout, "content");
}
