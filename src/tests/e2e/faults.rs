//! Builds that are interrupted, killed or broken: what they leave behind.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{World, is_root, mounts, processes, program, skipped};

/// Starts a build whose RUN ignores signals, and returns once it runs.
fn hanging_build(w: &World) -> std::process::Child {
    // A word of this build's own: others hang at the same time.
    let word = format!("hanging-{}", w.path("").file_name().unwrap().to_string_lossy());
    w.file(
        "Dockerfile",
        &format!("FROM base\nRUN echo done-before > /before\nRUN trap '' INT TERM; echo {word} > /ready; while :; do sleep 0.1; done\n"),
    );
    let child = w.build_command(&["-t", "t"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while processes(std::path::Path::new(&word)).is_empty() {
        assert!(Instant::now() < deadline, "the step never started");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn signals_end_a_build_soon_and_nothing_stays() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let w = World::new();
        let before = mounts(&w);
        let mut child = hanging_build(&w);
        let start = Instant::now();
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(processes(&w.path("store")), Vec::<String>::new());
        assert_eq!(mounts(&w), before);
        assert_eq!(w.unfinished(), Vec::<String>::new());
        w.ply(&["fsck"]).ok();
    }
}

#[test]
fn a_build_killed_outright_leaves_a_clean_store_that_the_next_build_uses() {
    let w = World::new();
    let before = mounts(&w);
    let mut child = hanging_build(&w);
    child.kill().unwrap();
    child.wait().unwrap();
    w.ply(&["fsck"]).ok();
    assert_eq!(mounts(&w), before);
    let done = w.image("FROM base\nRUN echo done-before > /before\nRUN echo after > /after\n").ok();
    assert_eq!(w.out(&["cat", "/before", "/after"]), "done-before\nafter\n", "{}", done.stderr);
    assert_eq!(processes(&w.path("store")), Vec::<String>::new());
}

#[test]
fn processes_left_by_a_step_are_killed_with_it() {
    let w = World::new();
    let start = Instant::now();
    w.image("FROM base\nRUN sleep 98.76 & \n").ok();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(processes(std::path::Path::new("98.76")), Vec::<String>::new());
}

#[test]
fn prune_and_du_and_fsck_tell_and_free() {
    let w = World::new();
    w.image("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=8\n").ok();
    assert!(w.ply(&["du"]).ok().stdout.contains('M'));
    w.ply(&["rmi", "t"]).ok();
    w.ply(&["prune", "--all", "--force"]).ok();
    w.ply(&["fsck", "--deep"]).ok();
    w.image("FROM base\nRUN echo again > /a\n").ok();
    assert_eq!(w.out(&["cat", "/a"]), "again\n");
}

/// A small file system; unmounted when dropped.
struct Small<'a>(&'a std::path::Path);

impl<'a> Small<'a> {
    fn mount(path: &'a std::path::Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let done = program("mount", &["-t", "tmpfs", "-o", options, "small", path.to_str().unwrap()])?;
        (done.code == Some(0)).then_some(Self(path))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = program("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[test]
fn privileged_a_full_disk_is_an_error_with_advice_and_the_store_stays_whole() {
    if !is_root() {
        return skipped("needs root, to mount");
    }
    // A step that looks at the files makes them inodes; without one they are a tar.
    let look = "RUN ls /big\n";
    for (options, files, size, then) in
        [("size=24m", 1, 40 << 20, ""), ("size=24m", 400, 100 << 10, ""), ("size=200m,nr_inodes=300", 500, 1, look)]
    {
        let w = World::new();
        let store = w.path("store");
        let Some(_small) = Small::mount(&store, options) else { return skipped("tmpfs can't be mounted") };
        for n in 0..files {
            w.file(&format!("big/{n}"), &"x".repeat(size));
        }
        let text = format!("FROM base\nCOPY big /big\n{then}");
        let done = w.file("Dockerfile", &text).build(&[]).fails(1).says("ply prune");
        // The kernel's words, or those of the index where that is what found no room.
        assert!(["No space left on device", "disk is full"].iter().any(|words| done.stderr.contains(words)), "{done:#?}");
        assert_eq!(w.unfinished(), Vec::<String>::new(), "{options}");
        w.ply(&["fsck"]).ok();
        w.image("FROM base\nRUN echo small > /small\n").ok();
        assert_eq!(w.out(&["cat", "/small"]), "small\n", "{options}");
    }
}

#[test]
fn a_signal_ends_an_import_and_nothing_stays() {
    let w = World::new();
    let mut child = w.command(&["import", "-", "t"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A file without end: the import is at it whenever the signal comes.
    let feeder = std::thread::spawn(move || {
        let mut header = tar::Header::new_ustar();
        header.set_path("endless").unwrap();
        header.set_size(1 << 32);
        header.set_cksum();
        let zeros = vec![0; 64 << 10];
        let mut fed = stdin.write_all(header.as_bytes());
        while fed.is_ok() {
            fed = stdin.write_all(&zeros);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let blobs = w.path("store/tmp");
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::fs::read_dir(&blobs).map_or(0, Iterator::count) < 2 {
        assert!(Instant::now() < deadline, "the import never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    feeder.join().unwrap();
    assert_eq!(w.unfinished(), Vec::<String>::new());
    w.ply(&["fsck"]).ok();
    assert_eq!(w.ply(&["images", "-q"]).ok().stdout, "");
}

/// Waits until a program has the file open: it is at work on it.
fn wait_until_open(child: &std::process::Child, file: &str) {
    let descriptors = format!("/proc/{}/fd", child.id());
    let deadline = Instant::now() + Duration::from_secs(60);
    let open = || {
        let links = std::fs::read_dir(&descriptors).into_iter().flatten().flatten();
        links.filter_map(|l| std::fs::read_link(l.path()).ok()).any(|l| l.ends_with(file))
    };
    while !open() {
        assert!(Instant::now() < deadline, "{file} was never opened");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_the_digesting_of_what_is_big() {
    // Of holes, so that only reading them takes long: minutes.
    let (of_the_context, of_a_step) = (World::new(), World::new());
    std::fs::File::create(of_the_context.path("ctx/big")).unwrap().set_len(1 << 38).unwrap();
    of_the_context.file("Dockerfile", "FROM base\nCOPY big /big\n");
    of_a_step.file("Dockerfile", "FROM base\nRUN dd if=/dev/zero of=/big bs=1 count=0 seek=256G\n");
    for w in [of_the_context, of_a_step] {
        let mut child = w.build_command(&["-t", "t"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until_open(&child, "big");
        let start = Instant::now();
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert_eq!(w.unfinished(), Vec::<String>::new());
        w.ply(&["fsck"]).ok();
    }
}

#[test]
fn a_signal_ends_the_wait_for_standard_input() {
    for args in [&["build", "-"][..], &["import", "-", "t"], &["load"]] {
        let w = World::new();
        let mut child = w.command(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Nothing ever comes.
        let _silent = child.stdin.take().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !polls(&child) {
            assert!(Instant::now() < deadline, "{args:?} never waited");
            std::thread::sleep(Duration::from_millis(20));
        }
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(143), "{args:?}");
        assert_eq!(w.unfinished(), Vec::<String>::new());
    }
}

/// Whether the process waits in poll(2).
fn polls(child: &std::process::Child) -> bool {
    std::fs::read_to_string(format!("/proc/{}/syscall", child.id())).is_ok_and(|s| {
        let number = s.split(' ').next().and_then(|n| n.parse::<libc::c_long>().ok());
        number == Some(libc::SYS_ppoll) || cfg!(target_arch = "x86_64") && number == Some(7)
    })
}
