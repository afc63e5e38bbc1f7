//! What people do with a store, what it gives, and what is to be looked at afterwards.
//!
//! A worker has a world and goes on with the store that suffered all that was done to it before; only cold builds make a store of
//! their own.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use super::super::random::Random;
use super::super::registry::Registry;
use super::super::remote::{Repo, file_server};
use super::super::testserver::TestServer;
use super::super::{Done, World};
use super::{Bench, Outcome, Reference, Running, golden, same, succeeded};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// A build of six steps in a store that it makes.
    Cold,
    /// A build of which the last three steps changed.
    Warm,
    Pull,
    Push,
    Load,
    Save,
    Prune,
    /// A build that fetches a repository.
    Git,
    /// A container that is removed at its end.
    Run,
    /// Two builds and a collection at once.
    Several,
}

pub(super) const DEEDS: [Deed; 10] =
    [Deed::Cold, Deed::Warm, Deed::Pull, Deed::Push, Deed::Load, Deed::Save, Deed::Prune, Deed::Git, Deed::Run, Deed::Several];

/// What is made once, and what everything gives.
pub(super) struct Golden {
    pub reference: Reference,
    /// None: no registry is installed.
    registry: Option<(Registry, World)>,
    archive: PathBuf,
    app: String,
    /// What serves a repository, and the build that fetches it.
    _server: TestServer,
    git_context: PathBuf,
    git: String,
    /// The image that nothing may take: acknowledged before all that is done.
    kept: String,
    kept_pushed: String,
}

impl Golden {
    pub(super) fn new() -> Self {
        let reference = Reference::new();
        let kept = reference.six(0);
        let (app, archive, registry, kept_pushed, server, git_context, git) = {
            let bench = reference.bench();
            let server = file_server(bench.w.dir.path().to_path_buf());
            let repo = Repo::new(&bench.w, "repo", &[]);
            repo.write("one", "1\n").write("two/three", &"3".repeat(100_000)).commit("all");
            let git_context = bench.w.path("git");
            std::fs::create_dir(&git_context).unwrap();
            let text = format!("FROM scratch\nADD http://{}/repo/.git /repo\nCOPY Dockerfile /\n", server.host);
            std::fs::write(git_context.join("Dockerfile"), text).unwrap();
            let git = bench.run(&["build", "-t", "git", git_context.to_str().unwrap()]).ok().stdout.trim().to_owned();
            // Of other layers than all else; what is random does not compress.
            let text = "FROM scratch\nCOPY one /one\nCOPY two /two/\nCOPY three /three\n";
            let dir = bench.w.path("app");
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("Dockerfile"), text).unwrap();
            let mut r = Random::new(7);
            for (name, bytes) in [("one", 300_000), ("two", 100), ("three", 50_000)] {
                std::fs::write(dir.join(name), (0..bytes).map(|_| u8::try_from(r.below(256)).unwrap()).collect::<Vec<_>>()).unwrap();
            }
            bench.run(&["build", "-t", "app", dir.to_str().unwrap()]).ok();
            let archive = bench.w.path("app.tar");
            bench.run(&["save", "-o", archive.to_str().unwrap(), "app"]).ok();
            let data = World::new();
            let registry = Registry::start(&data).map(|r| (r, data));
            let mut pushed = String::new();
            if let Some((registry, _)) = &registry {
                for (image, name) in [("app", "app"), ("t", "kept")] {
                    let name = format!("{}/{name}:1", registry.host());
                    bench.run(&["tag", image, &name]).ok();
                    pushed = bench.run(&["push", &name]).ok().stdout;
                }
            }
            // Others read it who are not its owner.
            Done::from(std::process::Command::new("chmod").arg("755").arg(bench.w.dir.path()).output().unwrap()).ok();
            (bench.id(&bench.w.path("store"), "app").unwrap(), archive, registry, pushed, server, git_context, git)
        };
        Self { reference, registry, archive, app, _server: server, git_context, git, kept, kept_pushed }
    }

    fn host(&self) -> String {
        self.registry.as_ref().map(|(r, _)| r.host()).unwrap_or_default()
    }
}

/// One deed, and how thorough the look is.
pub(super) struct Round {
    pub seed: u64,
    pub deed: Deed,
    /// Whether each byte is read again.
    pub deep: bool,
}

impl Round {
    pub(super) fn place(&self) -> usize {
        DEEDS.iter().position(|d| *d == self.deed).unwrap()
    }
}

/// One world, with how long things take in it.
pub(super) struct Worker<'g> {
    pub bench: Bench,
    golden: &'g Golden,
    /// Where its stores lie.
    home: PathBuf,
    /// The archive of the image that stays.
    saved: Vec<u8>,
    lasts: [Duration; DEEDS.len()],
}

impl<'g> Worker<'g> {
    /// Makes the image that stays, and measures each deed once.
    pub(super) fn new(bench: Bench, golden: &'g Golden, home: PathBuf) -> Self {
        let mut worker = Self { bench, golden, home, saved: Vec::new(), lasts: [Duration::ZERO; DEEDS.len()] };
        worker.build("ctx", "kept", &golden.kept).unwrap();
        let archive = worker.bench.w.path("saved.tar");
        worker.run(&["save", "-o", archive.to_str().unwrap(), "kept"]).ok();
        worker.saved = std::fs::read(archive).unwrap();
        for (n, deed) in DEEDS.into_iter().enumerate() {
            if !worker.can(deed) {
                continue;
            }
            let round = Round { seed: 1_000_000 + n as u64, deed, deep: true };
            worker.prepare(&round);
            let start = Instant::now();
            let done = worker.start(&round).into_iter().map(|c| c.end()).collect();
            worker.lasts[n] = start.elapsed();
            worker.check(&round, done).unwrap();
        }
        worker
    }

    pub(super) fn can(&self, deed: Deed) -> bool {
        self.golden.registry.is_some() || !matches!(deed, Deed::Pull | Deed::Push)
    }

    pub(super) fn store(&self, round: &Round) -> PathBuf {
        self.home.join(if round.deed == Deed::Cold { "cold" } else { "store" })
    }

    /// Runs a command on the store that stays.
    fn run(&self, args: &[&str]) -> Done {
        self.bench.command(args).env("PLY_STORE", self.home.join("store")).output().unwrap().into()
    }

    /// Builds a context in the store that stays.
    fn build(&self, context: &str, tag: &str, want: &str) -> Outcome<()> {
        golden(context, &self.bench.build_command(context, tag).env("PLY_STORE", self.home.join("store")).output().unwrap().into(), want)
    }

    /// The name that an image is pushed as, the name of the one that is pulled.
    fn remote(&self, round: &Round) -> (String, String) {
        let host = self.golden.host();
        (format!("{host}/r{}:1", round.seed), format!("{host}/app:1"))
    }

    /// Brings the store to where the deed has all its work before it.
    pub(super) fn prepare(&self, round: &Round) {
        let (pushed, pulled) = self.remote(round);
        match round.deed {
            Deed::Cold | Deed::Run => {}
            Deed::Save => {
                // Every other time there is one to be replaced.
                if round.seed.is_multiple_of(2) {
                    let _ = std::fs::remove_file(self.bench.w.path("out/kept.tar"));
                }
            }
            Deed::Warm => self.bench.context("warm", round.seed),
            Deed::Pull | Deed::Load => {
                self.run(&["rmi", if round.deed == Deed::Pull { &pulled } else { "app" }]);
                self.run(&["prune"]).ok();
            }
            Deed::Push => drop(self.run(&["tag", "kept", &pushed]).ok()),
            Deed::Prune => {
                self.bench.context("warm", round.seed);
                self.build("warm", "t", &self.golden.reference.six(round.seed)).unwrap();
            }
            // It takes the repository, too.
            Deed::Git => drop(self.run(&["prune", "--all"]).ok()),
            Deed::Several => {
                self.bench.context("a", round.seed);
                self.bench.context("b", round.seed + 1);
            }
        }
    }

    pub(super) fn start(&self, round: &Round) -> Vec<Running> {
        let (pushed, pulled) = self.remote(round);
        let build = |context, tag| self.bench.build_command(context, tag);
        let mut commands = match round.deed {
            Deed::Cold => vec![build("ctx", "kept")],
            Deed::Warm => vec![build("warm", "t")],
            Deed::Pull => vec![self.bench.command(&["pull", &pulled])],
            Deed::Push => vec![self.bench.command(&["push", &pushed])],
            Deed::Load => vec![self.bench.command(&["load", "-i", self.golden.archive.to_str().unwrap()])],
            Deed::Save => vec![self.bench.command(&["save", "-o", self.bench.w.path("out/kept.tar").to_str().unwrap(), "kept"])],
            Deed::Prune => vec![self.bench.command(&["prune", "--all"])],
            Deed::Git => vec![self.bench.command(&["build", "-t", "git", self.golden.git_context.to_str().unwrap()])],
            Deed::Run => {
                let mark = format!("MARK={}", self.bench.w.dir.path().display());
                let script = "echo x > /x; sleep 0.05; cat /x /two";
                vec![self.bench.command(&["run", "--rm", "--name", "one", "-e", &mark, "kept", "sh", "-c", script])]
            }
            Deed::Several => vec![build("a", "a"), build("b", "b"), self.bench.command(&["prune", "--all"])],
        };
        commands.iter_mut().map(|c| Running::start(c.env("PLY_STORE", self.store(round)))).collect()
    }

    /// The images that the deed leaves in the store, in the order of its commands, with their ids.
    pub(super) fn images(&self, round: &Round) -> Vec<(String, String)> {
        let six = |tag: &str, number| (tag.to_owned(), self.golden.reference.six(number));
        match round.deed {
            Deed::Cold => vec![six("kept", 0)],
            Deed::Warm => vec![six("t", round.seed)],
            Deed::Pull => vec![(self.remote(round).1, self.golden.app.clone())],
            Deed::Load => vec![("app".to_owned(), self.golden.app.clone())],
            Deed::Several => vec![six("a", round.seed), six("b", round.seed + 1)],
            Deed::Git => vec![("git".to_owned(), self.golden.git.clone())],
            Deed::Push | Deed::Save | Deed::Prune | Deed::Run => Vec::new(),
        }
    }

    /// How far into the deed the moment lies: `per_mille` of what it lasts.
    pub(super) fn moment(&self, round: &Round, per_mille: usize) -> Duration {
        self.lasts[round.place()].mul_f64(per_mille as f64 / 1000.0)
    }

    /// Waits for the moment, or for the end of all; returns how long it was.
    pub(super) fn wait(children: &mut [Running], moment: Duration) -> Duration {
        let start = Instant::now();
        while start.elapsed() < moment && children.iter_mut().any(|c| !c.has_ended()) {
            std::thread::sleep(Duration::from_millis(1).min(moment.saturating_sub(start.elapsed())));
        }
        start.elapsed()
    }

    /// Takes down what a disturbed deed tells of how long it lasts: it had ended before the moment, or would have gone on.
    pub(super) fn lasted(&mut self, round: &Round, how_long: Duration, ended: bool) {
        let lasts = &mut self.lasts[round.place()];
        if ended {
            *lasts = how_long;
        } else if how_long > lasts.mul_f64(0.9) {
            *lasts = lasts.mul_f64(1.1);
        }
    }

    /// Checks those that ended well of several that were disturbed.
    pub(super) fn spared(&self, round: &Round, done: &[Output]) -> Outcome<()> {
        if round.deed == Deed::Save {
            self.out(false)?;
        }
        if round.deed == Deed::Several {
            for (output, number) in done.iter().zip([round.seed, round.seed + 1]).filter(|(o, _)| o.status.success()) {
                same("one of those at once", String::from_utf8_lossy(&output.stdout).trim(), &self.golden.reference.six(number))?;
            }
        }
        Ok(())
    }

    /// Checks that nothing lies where archives go but a whole one.
    fn out(&self, is_there: bool) -> Outcome<()> {
        let names: Vec<_> = std::fs::read_dir(self.bench.w.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
        let whole = |name| std::fs::read(self.bench.w.path("out").join(name)).unwrap() == self.saved;
        match &names[..] {
            [] if !is_there => Ok(()),
            [one] if whole(one) => Ok(()),
            _ => Err(format!("beside a whole archive, or instead of it: {names:?}")),
        }
    }

    /// Does the same again, undisturbed, and checks it.
    pub(super) fn again(&self, round: &Round) -> Outcome<()> {
        let done = self.start(round).into_iter().map(|c| c.end()).collect();
        self.check(round, done)?;
        self.bench.settled()
    }

    /// Checks what the deed gave when it was let alone, and that the store is as if nobody had been killed.
    fn check(&self, round: &Round, done: Vec<Output>) -> Outcome<()> {
        let (store, golden_of) = (self.store(round), |n| self.golden.reference.six(n));
        let done: Vec<Done> = done.into_iter().map(Done::from).collect();
        match round.deed {
            Deed::Cold => golden("the cold build", &done[0], &self.golden.kept)?,
            Deed::Warm => golden("the warm build", &done[0], &golden_of(round.seed))?,
            Deed::Pull | Deed::Load => {
                succeeded("it", &done[0])?;
                let name = if round.deed == Deed::Pull { self.remote(round).1 } else { "app".into() };
                same("the image", &self.bench.id(&store, &name)?, &self.golden.app)?;
            }
            Deed::Push => {
                golden("the push", &done[0], self.golden.kept_pushed.trim())?;
                // The registry has all of it: somebody else gets the same image.
                let (reference, name) = (self.golden.reference.bench(), self.remote(round).0);
                succeeded("pulling what was pushed", &reference.run(&["pull", &name]))?;
                same("what was pushed", &reference.id(&reference.w.path("store"), &name)?, &self.golden.kept)?;
                self.run(&["rmi", &name]);
            }
            Deed::Prune => {
                succeeded("the collection", &done[0])?;
                self.build("warm", "t", &golden_of(round.seed))?;
            }
            Deed::Save => {
                succeeded("the saving", &done[0])?;
                self.out(true)?;
            }
            Deed::Run => golden("the container", &done[0], "x\none")?,
            Deed::Git => golden("the build from a repository", &done[0], &self.golden.git)?,
            Deed::Several => {
                golden("a", &done[0], &golden_of(round.seed))?;
                golden("b", &done[1], &golden_of(round.seed + 1))?;
                succeeded("the collection", &done[2])?;
            }
        }
        if round.deed == Deed::Cold {
            self.bench.fsck(&store, round.deep)?;
            self.bench.tidy(&store)?;
            self.bench.remove(&store);
            return Ok(());
        }
        self.stays()?;
        self.bench.fsck(&store, round.deep)?;
        self.bench.tidy(&store)
    }

    /// Gives an image of the store that stays another name.
    pub(super) fn tag(&self, image: &str, name: &str) -> Outcome<()> {
        succeeded("naming", &self.run(&["tag", image, name]))
    }

    /// Checks that the name is there, and takes it away.
    pub(super) fn is_kept(&self, name: &str) -> Outcome<()> {
        same(name, &self.bench.id(&self.home.join("store"), name)?, &self.golden.kept)?;
        succeeded("taking the name away", &self.run(&["rmi", name]))
    }

    /// Checks that an image can be taken out of a store: somebody else can load it.
    pub(super) fn loads(&self, store: &Path, image: &str) -> Outcome<()> {
        let archive = self.bench.w.path("loads.tar");
        let save = ["save", "-o", archive.to_str().unwrap(), image];
        succeeded("saving", &self.bench.command(&save).env("PLY_STORE", store).output().unwrap().into())?;
        succeeded("loading", &self.golden.reference.bench().run(&["load", "-i", archive.to_str().unwrap()]))
    }

    /// Checks that what was acknowledged long ago is there.
    pub(super) fn stays(&self) -> Outcome<()> {
        same("what was there before", &self.bench.id(&self.home.join("store"), "kept")?, &self.golden.kept)
    }
}
