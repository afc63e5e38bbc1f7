//! INT, TERM, HUP and closed pipes at random moments: a command ends within two seconds and with the right code, and leaves no
//! process, no mount and nothing unfinished; the store is clean, and the same command then gives what it always gives.
//!
//! The rule of the codes: 130, 143 and 129 after a signal, whatever the step in the sandbox does about it; 141 where nobody reads what
//! is shown any more; 1 where nobody reads the archive that goes to standard output; 0 where all was done before. A container gets the
//! signals itself, and its code counts; three of them end one that takes no notice. `PLY_TEST_ROUNDS` sets how many moments of each
//! signal are tried.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::random::{Random, number, remove_tree};
use super::super::{BASE, Done, is_root, skipped};
use super::{Bench, Outcome, Tally, rounds, succeeded};
use plywood::digest::Digest;
use plywood::image::platform::Platform;

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// A build of six steps in a store that it makes.
    Cold,
    /// One that finds its results.
    Warm,
    /// A COPY of a big file.
    Big,
    /// A RUN that ignores signals, and prints.
    Ignoring,
    /// A RUN that left its session and its parent.
    Forked,
    /// A RUN that stopped itself.
    Stopped,
    /// A download that takes for ever.
    Slow,
    /// A base whose layer takes for ever.
    Pull,
    /// A collection.
    Prune,
    Run,
    Load,
    /// An archive into a pipe.
    Save,
}

const DEEDS: [Deed; 12] = [
    Deed::Cold,
    Deed::Warm,
    Deed::Big,
    Deed::Ignoring,
    Deed::Forked,
    Deed::Stopped,
    Deed::Slow,
    Deed::Pull,
    Deed::Prune,
    Deed::Run,
    Deed::Load,
    Deed::Save,
];

const SIGNALS: [(&str, Signal, i32); 4] =
    [("int", Signal::SIGINT, 130), ("term", Signal::SIGTERM, 143), ("hup", Signal::SIGHUP, 129), ("pipe", Signal::SIGPIPE, 141)];

/// How long it may take until all is gone; a busy machine may be late once in a while, but never by far.
const LIMIT: Duration = Duration::from_secs(2);
const FAR: Duration = Duration::from_secs(15);

const BIG_BYTES: u64 = 96 << 20;

/// A registry of one image and a server of files: a few bytes at a time, without end, to whoever listens; returns its address.
fn slow_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let n = stream.read(&mut request).unwrap_or(0);
                let line = String::from_utf8_lossy(&request[..n]).lines().next().unwrap_or_default().to_owned();
                if let Some(body) = at_once(&line) {
                    let kind = "application/vnd.oci.image.manifest.v1+json";
                    let head =
                        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                    let _ = stream.write_all(head.as_bytes());
                    if !line.starts_with("HEAD ") {
                        let _ = stream.write_all(body.as_bytes());
                    }
                    return;
                }
                let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                while sent.is_ok() {
                    sent = stream.write_all(b"some");
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    host
}

/// What the server has of the image: all but the layer. None: something else is asked for.
fn at_once(line: &str) -> Option<String> {
    let layer = format!("sha256:{}", "5".repeat(64));
    let config = serde_json::json!({
        "architecture": Platform::host().architecture, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer]}
    })
    .to_string();
    let digest = Digest::of(config.as_bytes()).to_string();
    let path = line.split(' ').nth(1)?;
    if path == "/v2/" {
        return Some("{}".into());
    }
    if path.contains("/manifests/") {
        let part = |kind: &str, digest: &str, size: usize| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": part("config.v1+json", &digest, config.len()), "layers": [part("layer.v1.tar+gzip", &layer, 1_000_000_000)],
        });
        return Some(manifest.to_string());
    }
    path.ends_with(&digest).then_some(config)
}

struct Site {
    bench: Bench,
    server: String,
    six: String,
    kept: String,
}

impl Site {
    fn new(bench: Bench) -> Self {
        let server = slow_server();
        let mut site = Self { bench, server, six: String::new(), kept: String::new() };
        let w = &site.bench.w;
        for deed in [Deed::Big, Deed::Ignoring, Deed::Forked, Deed::Stopped, Deed::Slow, Deed::Pull] {
            let dir = w.path(&format!("{deed:?}"));
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("Dockerfile"), site.text(deed)).unwrap();
        }
        std::fs::File::create(w.path("Big/big")).unwrap().set_len(BIG_BYTES).unwrap();
        site.kept = Done::from(site.bench.build_command("ctx", "t").output().unwrap()).ok().stdout;
        site.six = site.kept.clone();
        let archive = w.path("t.tar");
        site.bench.run(&["save", "-o", archive.to_str().unwrap(), "t"]).ok();
        let big = w.path("big-image");
        std::fs::create_dir(&big).unwrap();
        std::fs::write(big.join("Dockerfile"), "FROM scratch\nCOPY big /\n").unwrap();
        let mut r = Random::new(9);
        let block: Vec<u8> = (0..1 << 20).map(|_| u8::try_from(r.below(256)).unwrap()).collect();
        std::fs::write(big.join("big"), block.repeat(24)).unwrap();
        Done::from(site.bench.build_command("big-image", "big").output().unwrap()).ok();
        if let Some(id) = site.bench.ids {
            let done = std::process::Command::new("chown").args(["-R", &format!("{id}:{id}")]).arg(site.bench.w.dir.path()).status();
            assert!(done.unwrap().success());
        }
        site
    }

    fn text(&self, deed: Deed) -> String {
        let run = match deed {
            Deed::Big => "COPY big /big".to_owned(),
            Deed::Ignoring => "RUN trap '' INT TERM HUP PIPE; while :; do echo ignoring; sleep 0.05; done".to_owned(),
            // The shell of the step waits for what has left it.
            Deed::Forked => "RUN (setsid sh -c 'trap \"\" INT TERM HUP; while :; do sleep 0.05; done' > /dev/null 2>&1 &) ; \
                 while :; do echo forked; sleep 0.05; done"
                .to_owned(),
            Deed::Stopped => "RUN kill -STOP $$; kill -STOP 0; sleep 1000".to_owned(),
            _ => format!("ADD http://{}/slow /slow", self.server),
        };
        match deed {
            // Its files are looked at, so that they have to come.
            Deed::Pull => format!("FROM {}/slow:1\nRUN true\n", self.server),
            _ => format!("FROM base\n{run}\n"),
        }
    }

    fn store(&self, deed: Deed) -> std::path::PathBuf {
        self.bench.w.path(if deed == Deed::Cold { "cold" } else { "store" })
    }

    fn command(&self, deed: Deed, signal: Signal) -> std::process::Command {
        let archive = self.bench.w.path("t.tar");
        let mut command = match deed {
            Deed::Cold | Deed::Warm => self.bench.build_command("ctx", "t"),
            Deed::Run if signal == Signal::SIGPIPE => self.bench.command(&["run", "--rm", "t", "cat", "/dev/zero"]),
            Deed::Run => {
                self.bench.command(&["run", "--rm", "t", "sh", "-c", "trap 'exit 9' INT TERM HUP; while :; do echo .; sleep 0.02; done"])
            }
            Deed::Prune => self.bench.command(&["prune", "--all"]),
            Deed::Load => self.bench.command(&["load", "-i", archive.to_str().unwrap()]),
            Deed::Save => self.bench.command(&["save", "big"]),
            deed => {
                let path = self.bench.w.path(&format!("{deed:?}")).display().to_string();
                let mark = format!("no_proxy={}", self.bench.w.dir.path().display());
                let args = [
                    "build",
                    "--progress=plain",
                    "--gc=off",
                    "--no-cache",
                    "--build-context",
                    BASE,
                    "--build-arg",
                    &mark,
                    "-t",
                    "x",
                    &path,
                ];
                self.bench.command(&args)
            }
        };
        command.env("PLY_STORE", self.store(deed));
        command
    }

    /// What the command gives when nobody interrupts it, and what that leaves.
    fn again(&self, deed: Deed) -> Outcome<()> {
        let build = |want: &str| {
            super::golden("again", &self.bench.build_command("ctx", "t").env("PLY_STORE", self.store(deed)).output().unwrap().into(), want)
        };
        match deed {
            Deed::Load => succeeded("again", &self.command(deed, Signal::SIGINT).output().unwrap().into())?,
            Deed::Prune => succeeded("again", &self.command(deed, Signal::SIGINT).output().unwrap().into())?,
            Deed::Save => {
                let done = self.command(deed, Signal::SIGINT).stdout(Stdio::null()).output().unwrap().into();
                succeeded("again", &done)?;
            }
            _ => {}
        }
        build(self.six.trim())?;
        self.bench.fsck(&self.store(deed), false).map(drop)
    }

    /// Interrupts it after a moment; returns whether it was still at work, and how long it took until all was gone.
    fn strike(&self, deed: Deed, (_, signal, code): (&str, Signal, i32), moment: Duration) -> Outcome<(bool, Duration)> {
        let store = self.store(deed);
        if deed == Deed::Cold && store.exists() {
            remove_tree(&store);
        }
        let mut child = self.command(deed, signal).spawn().unwrap();
        let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let start = Instant::now();
        while start.elapsed() < moment && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let inside = child.try_wait().unwrap().is_none();
        let struck = Instant::now();
        if signal == Signal::SIGPIPE {
            stdout.close();
            stderr.close();
        } else {
            send(&child, signal);
        }
        let mut sent = 1;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            // A container's first process hears no signal before it has said what to do about it: as a person would, once more.
            if deed == Deed::Run && signal != Signal::SIGPIPE && struck.elapsed() > Duration::from_millis(300) * sent {
                send(&child, signal);
                sent += 1;
            }
            if struck.elapsed() > FAR {
                let _ = child.kill();
                return Err(format!("hang: still there after {FAR:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.bench.settled().map_err(|e| format!("left: {e}"))?;
        let took = struck.elapsed();
        let done = Done::from(Output { status, stdout: stdout.text(), stderr: stderr.text() });
        // A signal before the program has its handlers ends it as any other, and then there is no code.
        use std::os::unix::process::ExitStatusExt as _;
        let got = status.code().or(status.signal().map(|s| 128 + s)).unwrap();
        let allowed: &[i32] = match (deed, signal) {
            (Deed::Run, Signal::SIGPIPE) => &[0, 1, 125, 141],
            (Deed::Run, _) => &[9, 137],
            (Deed::Save, Signal::SIGPIPE) => &[0, 1, 141],
            _ => &[0],
        };
        if got != code && !allowed.contains(&got) || done.stderr.contains("panicked") {
            return Err(format!("code: it ended with {got}: {done:#?}"));
        }
        let left = unfinished(&store);
        if !left.is_empty() {
            return Err(format!("left: in the store {left:?}: {done:#?}"));
        }
        Ok((inside && got != 0, took))
    }
}

fn send(child: &Child, signal: Signal) {
    // It may have ended.
    let _ = kill(Pid::from_raw(child.id().try_into().unwrap()), signal);
}

fn unfinished(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store.join("tmp")).into_iter().flatten().map(|e| e.unwrap());
    let names = entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len()));
    let mut left: Vec<_> = names.filter(|(name, size)| !name.ends_with(".lock") || *size > 0).map(|(name, _)| name).collect();
    let containers = std::fs::read_dir(store.join("containers")).into_iter().flatten().map(|e| e.unwrap());
    left.extend(containers.map(|e| e.file_name().into_string().unwrap()).filter(|name| name.len() == 64));
    left
}

/// Reads what a child prints until it ends, or until it is closed.
struct Drain {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Vec<u8>>,
}

fn drain(from: Option<impl std::io::Read + std::os::fd::AsFd + Send + 'static>) -> Drain {
    let mut from = from.unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let (mut text, mut block) = (Vec::new(), [0; 4096]);
        loop {
            if stopped.try_recv().is_ok() {
                return text;
            }
            let ready = {
                let mut fds = [rustix::event::PollFd::new(&from, rustix::event::PollFlags::IN)];
                let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                rustix::event::poll(&mut fds, Some(&wait)).unwrap_or(0)
            };
            if ready > 0 {
                match from.read(&mut block) {
                    Ok(0) | Err(_) => return text,
                    // Of an archive, the beginning.
                    Ok(n) if text.len() < 1 << 20 => text.extend(&block[..n]),
                    Ok(_) => {}
                }
            }
        }
    });
    Drain { stop, thread }
}

impl Drain {
    fn close(&self) {
        let _ = self.stop.send(());
    }

    fn text(self) -> Vec<u8> {
        self.thread.join().unwrap()
    }
}

#[test]
fn signals_and_closed_pipes_end_everything_soon_and_nothing_stays() {
    let (seed, count) = (number("PLY_TEST_SEED", 1), rounds(10));
    let tally = Tally::default();
    let mut sites = vec![Site::new(Bench::own())];
    match is_root().then(|| Bench::user("signals", false)).flatten() {
        Some(bench) => sites.push(Site::new(bench)),
        None => skipped("users: needs root, to make accounts"),
    }
    let totals = std::sync::Mutex::new([(0_u64, 0_u64, Duration::ZERO); SIGNALS.len()]);
    let share = count.div_ceil(sites.len() as u64);
    std::thread::scope(|scope| {
        for (who, site) in sites.iter().enumerate() {
            let (tally, totals) = (&tally, &totals);
            scope.spawn(move || {
                let mut r = Random::new(seed + who as u64);
                for n in 0..share {
                    for (s, signal) in SIGNALS.into_iter().enumerate() {
                        let deed = DEEDS[(usize::try_from(n).unwrap() * 5 + s * 2 + who * 6) % DEEDS.len()];
                        // Nothing is printed there, so that nobody finds the pipe closed.
                        let deed =
                            if signal.0 == "pipe" && matches!(deed, Deed::Stopped | Deed::Slow | Deed::Pull | Deed::Big | Deed::Prune) {
                                Deed::Ignoring
                            } else {
                                deed
                            };
                        let most = if matches!(deed, Deed::Warm | Deed::Load | Deed::Prune) { 120 } else { 700 };
                        let moment = Duration::from_millis(u64::try_from(r.below(most)).unwrap());
                        let struck = site.strike(deed, signal, moment).and_then(|found| site.again(deed).map(|()| found));
                        let round = format!("seed {seed}: {} of {deed:?} as {} after {moment:?}", signal.0, site.bench.who);
                        let slow = matches!(&struck, Ok((_, took)) if *took > LIMIT);
                        if slow {
                            super::super::note(&format!("slow: {round}: {struck:?}"));
                        }
                        if let Ok((inside, took)) = struck {
                            let total = &mut totals.lock().unwrap()[s];
                            *total = (total.0 + u64::from(inside), total.1 + u64::from(slow), total.2.max(took));
                        } else if let Err(e) = struck {
                            tally.failed(format!("{round}: {e}"));
                        }
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap();
    let rounds = share * sites.len() as u64;
    let each: Vec<_> = SIGNALS
        .iter()
        .zip(totals)
        .map(|((name, ..), (inside, slow, most))| format!("{name}={inside}/{rounds} slow={slow} longest={most:.1?}"))
        .collect();
    let of = |what: &str| tally.failures.lock().unwrap().iter().filter(|f| f.contains(what)).count();
    let (left, hang, code) = (of(": left: "), of(": hang: "), of(": code: "));
    let other = tally.failures.lock().unwrap().len() - left - hang - code;
    // A busy machine is late now and then; a rule that is broken is late at each round of its kind.
    assert!(totals.iter().all(|(inside, ..)| *inside > 0), "no signal came while there was work: {each:?}");
    assert!(totals.iter().map(|t| t.1).sum::<u64>() <= 1 + rounds / 10, "too slow: {each:?}");
    tally.end(&format!("signals: seed={seed} {} left={left} hang={hang} wrong_code={code} other={other}", each.join(" ")));
}
