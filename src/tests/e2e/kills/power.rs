//! Power cuts: the store lies on a file system of its own, which at a random moment forgets all that it has not written; then it is
//! mounted again, as after a reboot.
//!
//! What a command had said is done is there; the store is clean to the last byte, so no row vouches for a file that came back empty;
//! the same command gives what it always gives. A control file that nobody synced shows that the cuts are real. The file system is an
//! image in a loop device, mounted in a namespace of the test's own thread. `PLY_TEST_ROUNDS` sets how often ext4 is cut; xfs is half as
//! often.
//!
//! Not simulated: a disk that lies about what it has written.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, killpg};

use super::super::random::{Random, number};
use super::super::{Done, is_root, program, skipped};
use super::deeds::{DEEDS, Deed, Golden, Round, Worker};
use super::{Bench, Outcome, Running, Tally, memory, rounds, same, tool};

/// A file system in a file.
struct Disk {
    tool: PathBuf,
    kind: &'static str,
    image: PathBuf,
    // In memory: how long a real disk takes is of no interest.
    _memory: tempfile::TempDir,
    place: PathBuf,
    /// The loop device's name, while it is mounted.
    device: Option<String>,
}

impl Disk {
    /// Makes one and mounts it on `place`; none: this host can't. The thread gets a mount namespace of its own: nobody else's copy of
    /// the mount keeps the file system alive.
    fn new(kind: &'static str, place: PathBuf, tool: PathBuf) -> Option<Self> {
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        let own = nix::sched::unshare(CloneFlags::CLONE_NEWNS);
        if let Err(e) = own.and_then(|()| nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>)) {
            skipped(&format!("a mount namespace: {e}"));
            return None;
        }
        let memory = memory();
        let image = memory.path().join("disk.img");
        // mkfs.xfs wants 300 MB.
        std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        let make = format!("mkfs.{kind}");
        let quiet = if kind == "xfs" { "-qf" } else { "-qF" };
        let made = program(&make, &[quiet, image.to_str().unwrap()])?;
        if made.code != Some(0) {
            skipped(&format!("{make}: {}", made.stderr));
            return None;
        }
        std::fs::create_dir(&place).unwrap();
        let mut disk = Self { tool, kind, image, _memory: memory, place, device: None };
        match disk.mount() {
            Ok(()) => Some(disk),
            Err(e) => {
                skipped(&format!("{kind} in a loop device: {e}"));
                None
            }
        }
    }

    fn mount(&mut self) -> Outcome<()> {
        let (image, place) = (self.image.to_str().unwrap(), self.place.to_str().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            // The device goes with the mount.
            let done = program("mount", &["-o", "loop", image, place]).ok_or("no mount")?;
            if done.code == Some(0) {
                break;
            }
            // The former device may not be gone yet.
            if self.device.is_none() || Instant::now() > deadline {
                return Err(done.stderr);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = mounts.lines().rfind(|l| l.contains(place)).ok_or("it is not among the mounts")?;
        let device = line.split("/dev/").nth(1).and_then(|rest| rest.split(' ').next()).ok_or("its mount has no device")?;
        self.device = Some(device.to_owned());
        Ok(())
    }

    /// Unmounts it and waits until the kernel has let go of it.
    fn unmount(&self) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while nix::mount::umount(&self.place).is_err() {
            if Instant::now() > deadline {
                return Err("it can't be unmounted: somebody uses it".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let known = format!("/sys/fs/{}/{}", self.kind, self.device.as_deref().unwrap_or_default());
        while Path::new(&known).exists() {
            if Instant::now() > deadline {
                return Err(format!("{known} is still there"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// From now on nothing is written any more.
    fn cut(&self) {
        Done::from(Command::new(&self.tool).arg("cut").arg(&self.place).output().unwrap()).ok();
    }

    /// The reboot.
    fn restore(&mut self) -> Outcome<()> {
        self.unmount()?;
        self.mount()
    }

    /// Shows that a cut loses what is not synced, and nothing else.
    fn control(&mut self) -> Outcome<()> {
        let (synced, unsynced) = (self.place.join("synced"), self.place.join("unsynced"));
        std::fs::write(&synced, "x".repeat(100_000)).unwrap();
        std::fs::File::open(&synced).unwrap().sync_all().unwrap();
        std::fs::write(&unsynced, "x".repeat(100_000)).unwrap();
        self.cut();
        self.restore()?;
        let sizes = [synced, unsynced].map(|p| std::fs::metadata(p).map_or(0, |m| m.len()));
        if sizes == [100_000, 0] { Ok(()) } else { Err(format!("what is synced and what is not, after a cut: {sizes:?}")) }
    }
}

/// Makes the names in the file system durable all the time, by syncing a file of its own: a journal is written as a whole, other
/// files' bytes are not. Without it a name and its bytes would mostly be lost together.
struct Hurry(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Hurry {
    fn on(disk: &Disk) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, file) = (Arc::clone(&over), std::fs::File::create(disk.place.join("hurry")).unwrap());
        let thread = std::thread::spawn(move || {
            let mut n = 0_u64;
            // After the cut it fails.
            while !stop.load(Ordering::Relaxed) && file.write_at(&n.to_ne_bytes(), n).is_ok() && file.sync_all().is_ok() {
                n += 8;
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self(over, Some(thread))
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.device.is_some()
            && let Err(e) = self.unmount()
        {
            super::super::note(&e);
        }
    }
}

/// A world and the file system that is mounted in it: unmounted first, then removed.
struct Place<'g> {
    disk: Disk,
    worker: Worker<'g>,
}

#[derive(Default)]
struct Counts {
    cuts: u64,
    inside: u64,
    acknowledged: u64,
    lost: u64,
    clean: u64,
    rebuilt: u64,
}

/// Begins the deed, and cuts the power; returns the images that were acknowledged before.
fn cut_off(worker: &mut Worker<'_>, disk: &mut Disk, round: &Round, r: &mut Random, c: &mut Counts) -> Outcome<Vec<(String, String)>> {
    // A little beyond the end, too: what has just been acknowledged.
    let moment = worker.moment(round, r.below(1200));
    let hurry = Hurry::on(disk);
    let mut children = worker.start(round);
    let lasted = Worker::wait(&mut children, moment);
    let ended: Vec<bool> = children.iter_mut().map(Running::has_ended).collect();
    disk.cut();
    drop(hurry);
    for child in &children {
        // It may have ended.
        let _ = killpg(child.pid(), Signal::SIGKILL);
    }
    let done: Vec<Output> = children.into_iter().map(|c| c.end()).collect();
    c.cuts += 1;
    let inside = !ended.iter().all(|e| *e);
    worker.lasted(round, lasted, !inside);
    c.inside += u64::from(inside);
    worker.bench.settled()?;
    disk.restore()?;
    if let Some((failed, _)) = done.iter().zip(&ended).find(|(o, ended)| **ended && !o.status.success()) {
        return Err(format!("it failed before the cut: {}", String::from_utf8_lossy(&failed.stderr)));
    }
    Ok(worker.images(round).into_iter().zip(&ended).filter(|(_, ended)| **ended).map(|(image, _)| image).collect())
}

fn round(worker: &mut Worker<'_>, disk: &mut Disk, round: &Round, r: &mut Random, c: &mut Counts) -> Outcome<()> {
    worker.prepare(round);
    let name = format!("acknowledged{}", round.seed);
    worker.tag("kept", &name)?;
    let mut promised = Vec::new();
    // Sometimes the power goes again while what the first cut left is cleared up.
    for _ in 0..1 + usize::from(r.chance(25)) {
        promised.extend(cut_off(worker, disk, round, r, c)?);
    }
    let store = worker.store(round);
    c.acknowledged += promised.len() as u64 + 2;
    for (image, id) in promised {
        let found = worker.bench.id(&store, &image).and_then(|found| same(&image, &found, &id)).and_then(|()| worker.loads(&store, &image));
        c.lost += u64::from(found.is_err());
        found?;
    }
    let kept = worker.stays().and_then(|()| worker.is_kept(&name));
    c.lost += u64::from(kept.is_err());
    kept?;
    if store.exists() {
        worker.bench.fsck(&store, true)?;
    }
    c.clean += 1;
    worker.again(round)?;
    c.rebuilt += 1;
    Ok(())
}

/// Cuts one kind of file system `count` times; returns the summary.
fn cut(kind: &'static str, count: u64, seed: u64, golden: &Golden, tally: &Tally) -> Option<String> {
    let mut c = Counts::default();
    let mut n = 0;
    while n < count {
        let bench = Bench::own();
        let tool = tool(bench.w.dir.path())?;
        let mut disk = Disk::new(kind, bench.w.path("disk"), tool)?;
        disk.control().unwrap();
        let home = disk.place.clone();
        let mut place = Place { disk, worker: Worker::new(bench, golden, home) };
        // One that failed is thrown away: what follows shall not suffer from it.
        let mut goes_on = true;
        while goes_on && n < count {
            let mut r = Random::new(seed + n);
            let deed = DEEDS[r.below(DEEDS.len())];
            let this = Round { seed: seed + n, deed: if place.worker.can(deed) { deed } else { Deed::Warm }, deep: true };
            let outcome = round(&mut place.worker, &mut place.disk, &this, &mut r, &mut c);
            goes_on = tally.take(&format!("seed {}, {:?} on {kind}", this.seed, this.deed), outcome);
            n += 1;
        }
    }
    let sums = format!("{kind}: cuts={} inside={} acknowledged={} lost={}", c.cuts, c.inside, c.acknowledged, c.lost);
    assert!(c.cuts >= count && c.inside * 4 > count, "{sums}");
    Some(format!("{sums} fsck_clean={} rebuilt={}", c.clean, c.rebuilt))
}

#[test]
fn privileged_a_power_cut_takes_nothing_that_was_acknowledged_and_no_row_vouches_for_an_empty_file() {
    if !is_root() {
        return skipped("needs root, to mount");
    }
    let (seed, count) = (number("PLY_TEST_SEED", 1), rounds(14));
    let golden = Golden::new();
    let tally = Tally::default();
    let summary: Vec<String> = std::thread::scope(|scope| {
        let cuts = [("ext4", count), ("xfs", count.div_ceil(2))];
        let threads = cuts.map(|(kind, count)| {
            let (golden, tally) = (&golden, &tally);
            // A thread each: it gets a mount namespace of its own.
            scope.spawn(move || cut(kind, count, seed, golden, tally))
        });
        threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
    });
    if summary.is_empty() {
        return skipped("no file system can be mounted here");
    }
    tally.end(&format!("{} seed={seed}", summary.join(" | ")));
}
