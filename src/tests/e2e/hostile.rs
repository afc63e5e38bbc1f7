//! Dockerfiles, images and contexts made to reach the host.
//!
//! The oracle is a canary directory outside the store and the context: its secret is never printed, and nothing in it
//! ever changes. Each attempt also says how it ends, so that a test that stopped short would be seen.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use super::World;

const SECRET: &str = "canary-2718281";

/// A world with a canary, links to it in the context, and an image `links` that has some, too.
fn world() -> World {
    let w = World::new();
    let canary = w.path("canary");
    std::fs::create_dir_all(canary.join("sub")).unwrap();
    std::fs::write(canary.join("secret"), SECRET).unwrap();
    w.file("f", "harmless").file("dir/s", "s");
    symlink(canary.join("secret"), w.path("ctx/leak")).unwrap();
    symlink("../canary/secret", w.path("ctx/leak-relative")).unwrap();
    symlink(&canary, w.path("ctx/leak-dir")).unwrap();
    let (abs, up) = (canary.display(), "../".repeat(9));
    let links =
        format!("FROM base\nRUN ln -s {abs} /w; ln -s {up}{abs} /rel; ln -s / /top; ln -s /proc/self/fd /pfd; ln -s {abs}/secret /f\n");
    w.file("Dockerfile", &links).build(&["-t", "links"]).ok();
    w
}

/// Everything about a tree that anybody could change.
fn state(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        lines.push(format!("{} {:o} {}:{} {} {} {times:?}", path.display(), meta.mode(), meta.uid(), meta.gid(), meta.nlink(), meta.len()));
        if meta.is_dir() {
            lines.extend(state(&path));
        }
    }
    lines.sort();
    lines
}

/// Builds each Dockerfile (`CANARY` is the canary's path), and compares the exit code.
#[track_caller]
fn attempt(w: &World, attempts: &[(i32, &str)]) {
    let canary = w.path("canary");
    let before = state(&canary);
    for (code, dockerfile) in attempts {
        let dockerfile = dockerfile.replace("CANARY", canary.to_str().unwrap());
        let done = w.file("Dockerfile", &dockerfile).build(&["--no-cache"]);
        assert_eq!(done.code, Some(*code), "{dockerfile}{done:#?}");
        assert!(!done.stderr.contains(SECRET), "{dockerfile}{done:#?}");
        assert_eq!(state(&canary), before, "{dockerfile}");
    }
    w.ply(&["fsck"]).ok();
}

#[test]
fn the_root_has_nothing_above_it() {
    let w = World::new();
    w.image("FROM base\nRUN touch /here /above /by-proc /mounts; ls / > /here; ls /.. > /above; ls /proc/1/root/.. > /by-proc; cat /proc/self/mountinfo > /mounts\n").ok();
    let here = w.out(&["cat", "/here"]);
    assert_eq!([w.out(&["cat", "/above"]), w.out(&["cat", "/by-proc"])], [here.clone(), here]);
    let mounts = w.out(&["cat", "/mounts"]);
    assert_eq!(mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count(), 1, "{mounts}");
    assert!(!mounts.contains(w.dir.path().to_str().unwrap()), "{mounts}");
    // A container, also with a volume: its `/..` is its `/`.
    let volume = format!("{}:/v", w.path("ctx").display());
    for more in [vec![], vec!["-v", &volume], vec!["--network", "none"]] {
        let args = [&["run", "--rm"][..], &more, &["t", "sh", "-c", "test \"$(ls /..)\" = \"$(ls /)\""]].concat();
        w.ply(&args).ok();
    }
}

#[test]
fn what_is_written_through_an_images_links_stays_in_the_image() {
    attempt(
        &world(),
        &[
            (0, "FROM links\nWORKDIR /w/new\nRUN echo x > y"),
            (0, "FROM links\nWORKDIR /rel/new\nRUN echo x > y"),
            (0, "FROM links\nCOPY f /w/f\nCOPY dir /rel/dir/\nCOPY f /topCANARY/secret\nRUN cat /w/secret > /got"),
            (0, "FROM links\nCOPY f /f\nRUN cat /f"),
            (0, "FROM links\nCOPY --chmod=777 f /w/\nRUN ls -l /w"),
            (0, "FROM links\nRUN --mount=type=cache,target=/w/c echo x > /w/c/x"),
            (0, "FROM links\nRUN --mount=type=tmpfs,target=/rel/t echo x > /rel/t/x"),
            (0, "FROM links\nRUN --mount=type=bind,target=/w/b ls /w/b"),
            (0, "FROM base\nRUN ln -s / /r\nCOPY f /rCANARY/secret"),
            (1, "FROM links\nWORKDIR /pfd/9/x\nRUN true"),
            (1, "FROM links\nWORKDIR /proc/self/fd/9\nRUN true"),
            (1, "FROM links\nRUN --mount=type=tmpfs,target=/pfd true"),
            (1, "FROM links\nRUN --mount=type=tmpfs,target=/proc true"),
            (1, "FROM links\nRUN --mount=type=tmpfs,target=/proc/self/attr true"),
            (1, "FROM base\nRUN touch /.wh.etc"),
            (1, "FROM base\nCOPY f /.wh..wh..opq"),
        ],
    );
}

#[test]
fn what_is_read_through_links_is_read_inside() {
    attempt(
        &world(),
        &[
            (1, "FROM base\nCOPY --from=links /w /got"),
            (1, "FROM base\nCOPY --from=links /f /got"),
            (1, "FROM base\nCOPY --from=links /topCANARY /got"),
            (1, "FROM base\nCOPY --from=links /pfd/9 /got"),
            (1, "FROM base\nRUN --mount=type=bind,from=links,source=/w,target=/m cat /m/secret"),
            (1, "FROM base\nRUN --mount=type=bind,from=links,source=/rel,target=/m cat /m/secret"),
            (1, "FROM base\nRUN --mount=type=cache,from=links,source=/w,target=/m cat /m/secret"),
            (0, "FROM base\nRUN --mount=type=cache,id=k,target=/c ln -s CANARY /c/l"),
            (1, "FROM base\nRUN --mount=type=cache,id=k,source=l,target=/m cat /m/secret"),
            (0, "FROM base\nRUN --mount=type=cache,id=../../../canary,target=/m touch /m/x"),
            (1, "FROM base\nCOPY leak /"),
            (1, "FROM base\nCOPY leak-relative /"),
            (1, "FROM base\nCOPY leak-dir/secret /"),
            (1, "FROM base\nADD leak-dir/ /d/"),
            (1, "FROM base\nRUN --mount=type=bind,source=leak-dir,target=/m cat /m/secret"),
            (1, "FROM base\nRUN --mount=type=bind,target=/m cat /m/leak /m/leak-relative /m/leak-dir/secret"),
            (1, "FROM base\nCOPY . /all/\nRUN cat /all/leak /all/leak-relative"),
        ],
    );
}

/// An image's tar with one entry besides `/etc`.
fn tar_with(path: &Path, name: &str, kind: tar::EntryType, link: &str) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, kind, link) in [("etc", tar::EntryType::Directory, ""), (name, kind, link)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(0);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        builder.append_data(&mut header, name, std::io::empty()).unwrap();
    }
    builder.finish().unwrap();
}

#[test]
fn an_image_cannot_choose_where_the_kernels_file_systems_go() {
    use tar::EntryType::{Fifo, Regular, Symlink};
    let w = world();
    let canary = w.path("canary");
    let up = format!("{}{}", "../".repeat(9), canary.display());
    for target in ["proc", "sys", "dev"] {
        for (kind, link) in [(Symlink, canary.to_str().unwrap()), (Symlink, &up), (Symlink, "/tmp"), (Regular, ""), (Fifo, "")] {
            let tar = w.path("image.tar");
            tar_with(&tar, target, kind, link);
            w.ply(&["import", tar.to_str().unwrap(), "evil"]).ok();
            let before = state(&canary);
            let done = w.file("Dockerfile", "FROM evil\nRUN [\"/none\"]\n").build(&[]).fails(1);
            assert!(done.stderr.contains(&format!("/{target}")) && !done.stderr.contains("not found"), "{kind:?} {link} {done:#?}");
            assert_eq!(state(&canary), before, "{target} {kind:?} {link}");
        }
    }
}

#[test]
fn a_passwd_that_is_no_file_ends_the_build_at_once() {
    use tar::EntryType::{Fifo, Symlink};
    let w = world();
    let secret = w.path("canary/secret");
    for (kind, link) in [(Fifo, ""), (Symlink, "/dev/zero"), (Symlink, "/proc/self/environ"), (Symlink, secret.to_str().unwrap())] {
        let tar = w.path("image.tar");
        tar_with(&tar, "etc/passwd", kind, link);
        w.ply(&["import", tar.to_str().unwrap(), "evil"]).ok();
        let done = w.file("Dockerfile", "FROM evil\nUSER app\nRUN [\"/none\"]\n").build(&[]).fails(1).says("passwd");
        assert!(!done.stderr.contains(SECRET), "{done:#?}");
    }
}

#[test]
fn a_dockerfile_is_a_file_of_the_context() {
    let w = World::new();
    std::fs::write(w.path("outside"), SECRET).unwrap();
    symlink(w.path("outside"), w.path("ctx/Dockerfile")).unwrap();
    let done = w.build(&[]).fails(1);
    assert!(!done.stderr.contains(SECRET), "{done:#?}");
    for name in ["Dockerfile", ".dockerignore"] {
        w.file("Dockerfile.good", "FROM base\nCOPY . /\n");
        let _ = std::fs::remove_file(w.path("ctx/Dockerfile"));
        std::fs::copy(w.path("ctx/Dockerfile.good"), w.path("ctx/Dockerfile")).unwrap();
        let path = w.path("ctx").join(name);
        let _ = std::fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Nobody writes to it: who opened it for reading would wait for ever.
        w.build(&[]).fails(1).says(&format!("`{name}` is not a regular file"));
        std::fs::remove_file(&path).unwrap();
    }
}
