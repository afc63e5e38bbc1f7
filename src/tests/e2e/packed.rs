//! Layers that stay a tar as long as nobody looks at their files.

use std::path::PathBuf;

use super::cache::outcomes;
use super::{Done, World};

/// A world whose context has a tree of some hundred files.
fn world() -> World {
    let w = World::new();
    for n in 0..300 {
        w.file(&format!("src/d{}/f{n}", n % 7), &format!("file {n}"));
    }
    w
}

/// The directories of the store's layers that hold the copied tree.
fn unpacked(w: &World, store: &str) -> Vec<PathBuf> {
    let layers = std::fs::read_dir(w.path(store).join("layers")).unwrap();
    layers.map(|l| l.unwrap().path()).filter(|l| l.join("src").is_dir()).collect()
}

fn layers_in(w: &World, store: &str) -> String {
    let done: Done =
        w.command(&["inspect", "--format", "{{json .RootFS.Layers}}", "t"]).env("PLY_STORE", w.path(store)).output().unwrap().into();
    done.ok().stdout
}

#[test]
fn a_copy_that_no_step_looks_at_becomes_a_directory_when_somebody_does() {
    let w = world();
    let text = "FROM base\nCOPY src /src\nCMD [\"cat\", \"/src/d1/f1\"]\n";
    w.image(text).ok();
    assert_eq!(unpacked(&w, "store"), Vec::<PathBuf>::new());
    assert_eq!(outcomes(&w.image(text).ok()), ["CACHED"]);
    w.ply(&["fsck", "--deep"]).ok();
    w.ply(&["prune", "-f"]).ok();
    assert_eq!(w.ply(&["run", "--rm", "t"]).ok().stdout, "file 1");
    assert_eq!(unpacked(&w, "store").len(), 1);
    w.ply(&["fsck", "--deep"]).ok();
    assert_eq!(outcomes(&w.image(text).ok()), ["CACHED"]);
}

#[test]
fn a_later_step_hits_and_sees_a_packed_copy() {
    let w = world();
    w.image("FROM base\nCOPY src /src\n").ok();
    let done = w.image("FROM base\nCOPY src /src\nRUN cat /src/d6/f6 > /out && rm /src/d1/f1 && echo new > /src/d2/f2\n").ok();
    assert_eq!(outcomes(&done)[0], "CACHED", "{}", done.stderr);
    assert_eq!(w.out(&["sh", "-c", "cat /out /src/d2/f2; ls /src/d1/f1 || ls -ld /src/d1/f8"]).split('\n').next(), Some("file 6new"));
    let staged = "FROM base AS files\nCOPY src /src\nFROM base\nCOPY --from=files /src/d3 /d3\n";
    assert_eq!(outcomes(&w.image(staged).ok())[0], "CACHED");
    assert_eq!(w.out(&["cat", "/d3/f3"]), "file 3");
}

#[test]
fn a_packed_copy_is_the_layer_that_a_written_one_is() {
    let w = world();
    let build = |store: &str, out: &[&str], text: &str| {
        w.file("Dockerfile", text);
        let args = [&["-t", "t"], out].concat();
        Done::from(w.build_command(&args).env("PLY_STORE", w.path(store)).output().unwrap()).ok();
    };
    let text = "FROM base\nCOPY --chown=3:4 src /src\n";
    build("packed", &[], text);
    let tree = format!("type=local,dest={}", w.path("tree").display());
    build("written", &["-o", "type=image", "-o", &tree], text);
    assert_eq!((unpacked(&w, "packed").len(), unpacked(&w, "written").len()), (0, 1));
    assert_eq!(layers_in(&w, "packed"), layers_in(&w, "written"));
    // The same layer from both, under a clamp: the packed one is unpacked for that.
    for store in ["packed", "written"] {
        build(store, &["--build-arg", "SOURCE_DATE_EPOCH=1"], text);
    }
    assert_eq!(layers_in(&w, "packed"), layers_in(&w, "written"));
    for store in ["packed", "written"] {
        build(store, &["-o", &format!("type=oci,dest={}", w.path(store).with_extension("tar").display())], text);
    }
    let blobs = |name: &str| {
        let list = std::process::Command::new("tar").arg("tf").arg(w.path(name).with_extension("tar")).output().unwrap();
        let mut names: Vec<_> = String::from_utf8(list.stdout).unwrap().lines().map(String::from).collect();
        names.sort();
        names
    };
    // The configuration and the manifest have the hour of their build; layers are the same.
    let (packed, written) = (blobs("packed"), blobs("written"));
    let own = packed.iter().filter(|name| !written.contains(name)).count();
    assert!(packed.len() == written.len() && own <= 2, "{packed:?} {written:?}");
}

#[test]
fn an_edit_that_keeps_size_and_time_reaches_a_packed_copy() {
    let w = world();
    let text = "FROM base\nCOPY src /src\n";
    w.image(text).ok();
    let path = w.path("ctx/src/d5/f5");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "FILE 5").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    let done = w.image(text).ok();
    assert!(outcomes(&done)[0].contains("src/d5/f5"), "{}", done.stderr);
    assert_eq!(w.out(&["cat", "/src/d5/f5"]), "FILE 5");
}

/// Bytes from which on a single file's layer stays packed, and some.
const BIG: usize = (16 << 20) + 5;

/// Whether the store has the last layer of image `t` as a plain tar.
fn last_is_packed(w: &World, store: &str) -> bool {
    let layers = layers_in(w, store);
    let last = layers.rsplit("sha256:").next().unwrap().trim_end_matches(['"', ']', '\n']);
    w.path(store).join("blobs/sha256").join(last).exists()
}

#[test]
fn a_big_file_is_packed_into_the_layer_that_a_written_one_is() {
    let w = World::new();
    for (n, name) in ["big", "bag", "d1/same", "d2/same"].into_iter().enumerate() {
        w.file(name, &"0123456789abcdef".repeat(BIG.div_ceil(16))[n..][..BIG]);
    }
    w.file("small", "s").file("d2/little", "l");
    std::fs::create_dir(w.path("ctx/links")).unwrap();
    for name in ["one", "two"] {
        std::fs::hard_link(w.path("ctx/bag"), w.path("ctx/links").join(name)).unwrap();
    }
    std::fs::File::create(w.path("ctx/sparse")).unwrap().set_len(BIG as u64).unwrap();
    let old = "FROM base AS old\nRUN mkdir -p /opt/x && chmod 711 /opt/x && ln -s opt/x /link && ln -s /far/away /dangling && \
        echo other > /opt/x/bag && touch /opt/x/empty && dd if=/dev/zero of=/opt/x/equal bs=1 count=1 seek=%\nCOPY big /opt/x/big\n"
        .replace('%', &(BIG - 1).to_string());
    // No two are the same layer: what the store has is not put there again.
    let cases = [
        ("COPY big /", true),
        ("COPY big /name", true),
        ("COPY big /opt/x/other", true),
        ("COPY big /opt/new/", true),
        ("COPY big /new/way/name", true),
        ("COPY big /link/other", true),
        ("COPY big /dangling", true),
        ("COPY bag /opt/x/", true),
        ("COPY bag /opt/x/empty", true),
        ("COPY bag /opt/x/equal", true),
        // The layer that put it there before.
        ("COPY big /opt/x/", false),
        ("COPY --chmod=600 big /opt/x/", true),
        ("COPY --chown=3:4 --chmod=640 big /new/", true),
        ("COPY --link big /opt/x/", true),
        ("COPY --parents d1/same /p/", true),
        ("COPY big small bag /opt/x", true),
        ("COPY b* /many/", true),
        ("COPY d*/same /many/", true),
        ("COPY d1 d2 /opt/x/", true),
        ("COPY d1 d2 big /many/", true),
        ("COPY --chown=7 d2 /opt/x/", true),
        ("COPY links /opt/x/", false),
        ("COPY sparse /opt/x/", false),
        ("ADD --chown=8 bag /opt/x/", true),
        ("COPY <<here bag /opt/x/\ntext\nhere", true),
    ];
    let build = |store: &str, args: &[&str]| {
        let args = [&["-t", "t"], args].concat();
        Done::from(w.build_command(&args).env("PLY_STORE", w.path(store)).output().unwrap()).ok();
    };
    // Under a clamp all is written; what is packed already is unpacked for it. Directories were made at other times.
    let clamped = ["--build-arg", "SOURCE_DATE_EPOCH=1"];
    for (step, packed) in cases {
        w.file("Dockerfile", &format!("{old}FROM old\n{step}\n"));
        build("packed", &[]);
        assert_eq!(last_is_packed(&w, "packed"), packed, "{step}");
        build("packed", &clamped);
        build("written", &clamped);
        assert!(!last_is_packed(&w, "written"), "{step}");
        assert_eq!(layers_in(&w, "packed"), layers_in(&w, "written"), "{step}");
    }
    let fsck: Done = w.command(&["fsck", "--deep"]).env("PLY_STORE", w.path("packed")).output().unwrap().into();
    fsck.ok();
}
