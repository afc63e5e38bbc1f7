//! File systems that are really full, by bytes and by inodes: a command ends soon, with words that name the path and the way out,
//! the store is clean, `ply prune` works without a free byte or inode, and a build that fits works afterwards.
//!
//! And inodes count as space for the automatic collection: builds go on where the bytes would last for long.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::{Done, is_root, program, skipped};
use super::{Bench, Outcome, Tally, succeeded};

/// How long a failing command may take.
const LIMIT: Duration = Duration::from_secs(5);

const BASE: &str = "base=host:sh,cat,ls";

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarce {
    Bytes,
    Inodes,
}

/// A small file system in a world's directory; unmounted when dropped.
struct Small<'b> {
    bench: &'b Bench,
    at: PathBuf,
}

impl<'b> Small<'b> {
    /// None: it can't be made here.
    fn new(bench: &'b Bench, kind: &str, flags: &[&str]) -> Option<Self> {
        let (at, image) = (bench.w.path("small"), bench.w.path("image"));
        std::fs::create_dir_all(&at).unwrap();
        let target = at.to_str().unwrap();
        let done = if kind == "ext4" {
            std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
            let image = image.to_str().unwrap();
            let made = program("mkfs.ext4", &[&["-qF", "-m", "0"], flags, &[image]].concat())?;
            assert_eq!(made.code, Some(0), "{made:#?}");
            program("mount", &["-o", "loop", image, target])?
        } else {
            program("mount", &["-t", kind, "-o", &flags.join(","), "small", target])?
        };
        if done.code != Some(0) {
            skipped(&format!("mounting {kind}: {}", done.stderr));
            return None;
        }
        let small = Self { bench, at };
        std::os::unix::fs::chown(&small.at, bench.ids, bench.ids).unwrap();
        Some(small)
    }

    fn run(&self, args: &[&str]) -> Done {
        self.bench.command(args).env("PLY_STORE", self.at.join("store")).output().unwrap().into()
    }

    fn build(&self, text: &str, flags: &[&str]) -> Done {
        let ctx = self.bench.w.path("ctx");
        std::fs::write(ctx.join("Dockerfile"), text).unwrap();
        let mut args = vec!["build", "--progress=plain", "--build-context", BASE];
        args.extend(flags);
        args.push(ctx.to_str().unwrap());
        self.run(&args)
    }

    /// Fails to build for want of room, as it should.
    fn fails(&self, text: &str) -> Outcome<()> {
        let start = Instant::now();
        let done = self.build(text, &["-t", "big"]);
        let took = start.elapsed();
        if done.code != Some(1) || took > LIMIT {
            return Err(format!("it took {took:?}: {done:#?}"));
        }
        let told = done.stderr.lines().find(|l| l.starts_with("error: ")).unwrap_or_default();
        let is_right =
            told.contains("No space left on device") && told.contains(['/', '`']) || told.contains("index: database or disk is full");
        if !is_right || !done.stderr.contains("hint: ") || !done.stderr.contains("ply prune") {
            return Err(format!("what it says: {done:#?}"));
        }
        self.clean(&[])
    }

    fn clean(&self, flags: &[&str]) -> Outcome<()> {
        let done = self.run(&[&["fsck"], flags].concat());
        succeeded("fsck", &done)?;
        let tmp = std::fs::read_dir(self.at.join("store/tmp")).unwrap().map(|e| e.unwrap());
        let left: Vec<_> = tmp.filter(|e| e.path().extension().is_none_or(|e| e != "lock")).map(|e| e.path()).collect();
        if !done.stdout.contains(" 0 problems") || !left.is_empty() {
            return Err(format!("dirty: {left:?} {done:#?}"));
        }
        self.bench.settled_as(&self.bench.w)
    }

    /// Takes all that is left.
    fn fill(&self, scarce: Scarce) {
        let path = |n: usize| self.at.join(format!("fill-{n}"));
        if scarce == Scarce::Inodes {
            let made = (0..).take_while(|n| std::fs::File::create(path(*n)).is_ok()).count();
            assert!(made > 0);
            return;
        }
        for (n, block) in ["bs=1M", "bs=1k", "bs=1"].into_iter().enumerate() {
            let done = program("dd", &["if=/dev/zero", &format!("of={}", path(n).display()), block]).unwrap();
            assert!(done.stderr.contains("No space left"), "{done:#?}");
        }
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        // The loop device goes with the mount.
        let _ = std::fs::remove_file(self.bench.w.path("image"));
    }
}

impl Bench {
    /// Waits until no process of this world is left; the small file system's mount is not one of the command's.
    fn settled_as(&self, w: &super::World) -> Outcome<()> {
        let deadline = Instant::now() + super::SETTLE;
        loop {
            let left = super::processes(w.dir.path());
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("left: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Fills it up with a build, then with all else, and frees it.
fn full(small: &Small<'_>, scarce: Scarce) -> Outcome<()> {
    let ctx = small.bench.w.path("ctx");
    let (some, many) = if scarce == Scarce::Bytes { ((1, 8 << 20), (1, 70 << 20)) } else { ((50, 1), (400, 1)) };
    for (dir, (files, bytes)) in [("some", some), ("many", many)] {
        let dir = ctx.join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        (0..files).for_each(|n| std::fs::write(dir.join(n.to_string()), vec![b'x'; bytes]).unwrap());
    }
    // A step that looks at the files makes them inodes; without one they are a tar.
    succeeded("the first build", &small.build("FROM base\nCOPY some /some\nRUN ls /some > /n\n", &["-t", "t"]))?;
    small.fails("FROM base\nCOPY many /many\nRUN ls /many > /n\n")?;
    small.fill(scarce);
    small.fails("FROM base\nRUN echo small > /small\n")?;
    succeeded("taking the name away", &small.run(&["rmi", "t"]))?;
    succeeded("prune on a full disk", &small.run(&["prune", "--all"]))?;
    small.clean(&[])?;
    succeeded("a build that fits", &small.build("FROM base\nRUN echo small > /small\n", &["-t", "t"]))?;
    let ran = small.run(&["run", "--rm", "t", "cat", "/small"]);
    succeeded("running it", &ran)?;
    if ran.stdout != "small\n" {
        return Err(format!("{ran:#?}"));
    }
    small.clean(&["--deep"])
}

#[test]
fn privileged_a_full_disk_is_told_and_prune_makes_room_on_it() {
    if !is_root() {
        return skipped("needs root, to mount");
    }
    let kinds: [(&str, &[&str], Scarce); 4] = [
        ("ext4", &[], Scarce::Bytes),
        ("ext4", &["-N", "200"], Scarce::Inodes),
        ("tmpfs", &["size=64m"], Scarce::Bytes),
        ("tmpfs", &["size=64m", "nr_inodes=200"], Scarce::Inodes),
    ];
    let (tally, mut tried) = (Tally::default(), 0);
    for user in [false, true] {
        let bench = if user { Bench::user("disks", false) } else { Some(Bench::own()) };
        let Some(bench) = bench else { continue };
        for (kind, flags, scarce) in kinds {
            let Some(small) = Small::new(&bench, kind, flags) else { continue };
            tried += 1;
            tally.take(&format!("{kind} {flags:?} as {}", bench.who), full(&small, scarce));
        }
    }
    assert!(tried > 0);
    let failed = tally.failures.lock().unwrap().len();
    tally.end(&format!(
        "fullfs={tried} kinds=ext4,ext4-inodes,tmpfs,tmpfs-inodes told={0} pruned={0} rebuilt={0} failed={failed}",
        tried - failed
    ));
}

#[test]
fn privileged_few_inodes_start_the_automatic_collection() {
    if !is_root() {
        return skipped("needs root, to mount");
    }
    let bench = Bench::own();
    let Some(small) = Small::new(&bench, "tmpfs", &["size=1g", "nr_inodes=1000"]) else { return };
    let (mut collected, builds) = (0, 12);
    for n in 0..builds {
        let text = format!(
            "FROM base\nRUN for n in 1 2 3 4 5 6 7 8 9 a b c d e f; do for m in 1 2 3 4 5 6 7 8 9 a; do echo {n} > /$n$m; done; done\n"
        );
        let done = small.build(&text, &["-t", "t"]).ok();
        collected += usize::from(done.stderr.contains("made room in the store"));
    }
    small.clean(&[]).unwrap();
    super::super::note(&format!("inodes: builds={builds} collected={collected}"));
    assert!(collected > 0);
}
