//! One changed bit anywhere in a store: found, and mended by what the store knows or by building again.
//!
//! `PLY_TEST_ROUNDS` sets how many bits for each file (by default one for every other file), `PLY_TEST_SEED` where to begin.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::random::{Random, number};
use super::{Done, World, note};

const DOCKERFILE: &str =
    "FROM base\nCOPY big /b/big\nCOPY f /f\nRUN echo x > /x; mkdir /d; ln -s x /l; dd if=/dev/zero of=/z bs=1k count=90\n";

/// The store's files that hold something, by their path in it. What is made anew with each process isn't among them.
fn files(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![store.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let inside = path.strip_prefix(store).unwrap().to_path_buf();
            let passing = inside.starts_with("tmp") || inside.starts_with("locks") || inside == Path::new("index.db-shm");
            if meta.is_dir() && !passing {
                todo.push(path);
            } else if meta.is_file() && meta.len() > 0 && !passing {
                found.push(inside);
            }
        }
    }
    found.sort();
    found
}

/// Changes a bit; times stay, as when a disk does it.
fn flip(path: &Path, random: &mut Random) -> u64 {
    let meta = path.metadata().unwrap();
    let at = random.below(usize::try_from(meta.len()).unwrap()) as u64;
    let mut permissions = meta.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, meta.mode() | 0o600);
    std::fs::set_permissions(path, permissions).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << random.below(8);
    file.write_all_at(&byte, at).unwrap();
    file.set_times(std::fs::FileTimes::new().set_modified(meta.modified().unwrap()).set_accessed(meta.accessed().unwrap())).unwrap();
    std::fs::set_permissions(path, meta.permissions()).unwrap();
    at
}

#[test]
fn a_changed_bit_is_found_and_mended_and_never_passed_on() {
    let w = World::new();
    let store = w.path("store");
    w.file("big", &"0123456789".repeat(50_000)).file("f", "hello").file("Dockerfile", DOCKERFILE);
    // Times are clamped: what is built anew is the same to the bit.
    let build = || w.build(&["-q", "-t", "t", "--build-arg", "SOURCE_DATE_EPOCH=1"]).ok().stdout;
    let id = build();
    let save = |to: &str| -> Done { w.ply(&["save", "-o", w.path(to).to_str().unwrap(), "t"]) };
    save("wanted.tar").ok();
    let wanted = std::fs::read(w.path("wanted.tar")).unwrap();
    let gold = w.path("gold");
    let restore = |from: &Path, to: &Path| {
        let _ = std::fs::metadata(to).map(|_| super::random::remove_tree(to));
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    restore(&store, &gold);

    let mut random = Random::new(number("PLY_TEST_SEED", 1));
    let (mut flips, mut found, mut harmless) = (0, 0, 0);
    let rounds = number("PLY_TEST_ROUNDS", 0);
    let every = if rounds == 0 { 2 } else { 1 };
    for name in files(&gold).into_iter().step_by(every) {
        for _ in 0..rounds.max(1) {
            restore(&gold, &store);
            let at = flip(&store.join(&name), &mut random);
            let about = format!("{} at byte {at}", name.display());
            flips += 1;
            let checked = w.ply(&["fsck", "--deep"]);
            if checked.code == Some(0) {
                // The index has free pages, and its log ends where a sum is wrong: then what it says must still be so.
                assert!(!name.starts_with("blobs") && !name.starts_with("layers"), "{about}: {checked:#?}");
                harmless += 1;
            } else {
                found += 1;
                if name == Path::new("format") {
                    // What a store is of another program can't know: nothing is touched.
                    checked.fails(1).says("has another format");
                    continue;
                }
                checked.fails(1);
                w.ply(&["fsck", "--deep", "--repair"]).ok();
            }
            assert_eq!(build(), id, "{about}");
            save("got.tar").ok();
            assert!(std::fs::read(w.path("got.tar")).unwrap() == wanted, "{about}");
            w.ply(&["fsck", "--deep"]).ok();
        }
    }
    note(&format!("damage: flips={flips} found={found} harmless={harmless} silent=0"));
    assert!(found >= 15, "{found}");
    super::random::remove_tree(&gold);
}
