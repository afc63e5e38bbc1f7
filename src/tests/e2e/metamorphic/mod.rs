//! One input at a time: what is an input must miss and be named; what is none must hit.
//!
//! Each case is a context of its own, two builds, and what the second one says. The cases walk down the table of
//! inputs in `cache/mod.rs`: [`context`], [`text`] and [`flags`] have what must miss, [`others`] what must hit.

mod context;
mod flags;
mod others;
mod text;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cache::outcomes;
use super::{Done, World, is_root, program};

/// What the second build must do.
enum Want {
    /// All steps are taken from the cache.
    Hit,
    /// The first step that runs says all of these words.
    Miss(&'static [&'static str]),
}

struct Case {
    name: &'static str,
    /// Dockerfile and arguments, before and after.
    before: (String, Vec<&'static str>),
    after: (String, Vec<&'static str>),
    edit: fn(&Path),
    want: Want,
    /// Whether the last step must run too.
    through: bool,
}

fn nothing(_: &Path) {}

/// The context that all cases begin with.
fn context(ctx: &Path) {
    for (name, text) in [
        ("f", "one"),
        ("g", "one"),
        ("d/a", "a"),
        ("d/b", "b"),
        ("d/sub/c", "c"),
        ("d2/a", "a"),
        ("h/a", "h"),
        ("h/b", "h"),
        ("other/a", "2"),
        ("x.c", "x"),
        ("y.c", "y"),
        ("unused", "1"),
        ("hidden/h", "h"),
        (".dockerignore", "hidden\n"),
    ] {
        std::fs::create_dir_all(ctx.join(name).parent().unwrap()).unwrap();
        write(&ctx.join(name), text);
        mode(&ctx.join(name), 0o644);
    }
    symlink("a", ctx.join("d/l")).unwrap();
    symlink("f", ctx.join("link")).unwrap();
    stamp(&ctx.join("f"));
}

fn stamp(file: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    std::fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn relink(path: &Path, target: &str) {
    std::fs::remove_file(path).unwrap();
    symlink(target, path).unwrap();
}

fn xattr(path: &Path) {
    rustix::fs::setxattr(path, "user.color", b"red", rustix::fs::XattrFlags::empty()).unwrap();
}

/// A change of the context.
fn files(name: &'static str, dockerfile: &str, edit: fn(&Path), words: &'static [&'static str]) -> Case {
    let text = format!("FROM base\n{dockerfile}\n");
    Case { name, before: (text.clone(), vec![]), after: (text, vec![]), edit, want: Want::Miss(words), through: false }
}

/// A change of the Dockerfile, below FROM.
fn text(name: &'static str, before: &str, after: &str, words: &'static [&'static str]) -> Case {
    let full = |t: &str| if t.contains("FROM ") { format!("{t}\n") } else { format!("FROM base\n{t}\n") };
    Case { name, before: (full(before), vec![]), after: (full(after), vec![]), edit: nothing, want: Want::Miss(words), through: false }
}

/// A change of the command line.
fn flags(name: &'static str, dockerfile: &str, before: &[&'static str], after: &[&'static str], words: &'static [&'static str]) -> Case {
    let case = text(name, dockerfile, dockerfile, words);
    Case { before: (case.before.0, before.to_vec()), after: (case.after.0, after.to_vec()), ..case }
}

impl Case {
    fn hits(self) -> Self {
        Self { want: Want::Hit, ..self }
    }

    /// The last step too must run: what changed reaches it.
    fn through(self) -> Self {
        Self { through: true, ..self }
    }

    /// Builds in a context of its own, on a base of its own: no two cases have a step in common, but for linked copies, which
    /// stand on nothing: those that must miss have destinations of their own.
    fn build(&self, w: &World, ctx: &Path, (text, args): &(String, Vec<&'static str>)) -> Done {
        let own = format!("\nCOPY <<CASE /case\n{}\nCASE\n", self.name);
        let mut lines = String::new();
        for line in text.lines() {
            let line = line.replace("from=base", "from=mine");
            lines.push_str(&line.replace("FROM base", "FROM mine"));
            lines.push_str(if line.starts_with("FROM base") { &own } else { "\n" });
        }
        write(&ctx.join("Dockerfile"), &lines);
        let ctx = ctx.to_str().unwrap();
        let args: Vec<String> = args.iter().map(|a| a.replace("CTX", ctx)).collect();
        let args = ["build", "--progress=plain"].into_iter().chain(args.iter().map(String::as_str)).chain([ctx]);
        w.command(&args.collect::<Vec<_>>()).output().unwrap().into()
    }

    /// Returns what is wrong.
    fn run(&self, w: &World, ctx: &Path) -> Option<String> {
        context(ctx);
        let first = self.build(w, ctx, &self.before);
        if first.code != Some(0) {
            return Some(format!("{}: the first build failed: {}", self.name, first.stderr));
        }
        (self.edit)(ctx);
        let second = self.build(w, ctx, &self.after);
        if second.code != Some(0) {
            return Some(format!("{}: the second build failed: {}", self.name, second.stderr));
        }
        let all = outcomes(&second);
        let last_hit = all.last().is_some_and(|o| o == "CACHED");
        let missed: Vec<String> = all.into_iter().filter(|o| o != "CACHED").collect();
        match (&self.want, missed.first()) {
            (Want::Hit, None) => None,
            (Want::Hit, Some(reason)) => Some(format!("{}: should hit, but: {reason}", self.name)),
            (Want::Miss(_), None) => Some(format!("{}: FALSE HIT\n{}", self.name, second.stderr)),
            (Want::Miss(_), Some(_)) if self.through && last_hit => {
                Some(format!("{}: FALSE HIT of the last step\n{}", self.name, second.stderr))
            }
            (Want::Miss(words), Some(reason)) => {
                let unnamed: Vec<_> = words.iter().filter(|w| !reason.contains(**w)).collect();
                (!unnamed.is_empty()).then(|| format!("{}: the reason `{reason}` lacks {unnamed:?}", self.name))
            }
        }
    }
}

/// Runs the cases, several at once, and fails with all that is wrong.
fn run_all(cases: &[Case]) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let w = World::new();
                w.file("Dockerfile", "FROM base\n").build(&["-t", "mine"]).ok();
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(case) = cases.get(n) else { break };
                    let ctx = w.path(&format!("ctx/{n}"));
                    std::fs::create_dir(&ctx).unwrap();
                    wrong.lock().unwrap().extend(case.run(&w, &ctx));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn what_is_an_input_misses_and_is_named() {
    let mut cases = context::cases();
    cases.extend(text::cases());
    cases.extend(flags::cases());
    let scratch = Case { before: ("FROM scratch\nCOPY f /f\n".into(), vec![]), ..flags("--platform", "", &[], &[], &["platform changed"]) };
    cases.push(Case { after: (scratch.before.0.clone(), vec!["--platform", "linux/s390x"]), ..scratch });
    assert!(cases.len() >= 240, "{}", cases.len());
    run_all(&cases);
}

#[test]
fn what_differs_below_a_step_runs_it_again() {
    let cases = text::below();
    assert!(cases.len() >= 36, "{}", cases.len());
    run_all(&cases);
}

#[test]
fn what_is_no_input_hits() {
    let cases = others::cases();
    assert!(cases.len() >= 110, "{}", cases.len());
    run_all(&cases);
}

#[test]
fn an_archive_s_content_counts() {
    let w = World::new();
    let pack = |text: &str| {
        w.file("a", text);
        let tar = w.path("ctx/a.tar");
        program("tar", &["-C", w.path("ctx").to_str().unwrap(), "-cf", tar.to_str().unwrap(), "a"])
    };
    let Some(done) = pack("1") else { return };
    done.ok();
    let dockerfile = "FROM base\nADD a.tar /u\n";
    w.image(dockerfile).ok();
    pack("2").unwrap().ok();
    let got = outcomes(&w.image(dockerfile).ok());
    assert!(got[0].contains("a.tar") && got[0].contains("content"), "{got:?}");
    assert_eq!(w.out(&["cat", "/u/a"]), "2");
}

#[test]
fn other_content_under_the_base_s_tag_counts_and_is_named() {
    let w = World::new();
    let base = |text: &str| {
        w.file("Base", &format!("FROM base\n{text}\n")).build(&["-f", w.path("ctx/Base").to_str().unwrap(), "-t", "mine"]).ok()
    };
    base("RUN echo 1 > /v");
    let dockerfile = "FROM mine\nRUN cat /v > /o\n";
    w.image(dockerfile).ok();
    base("RUN echo 2 > /v");
    let got = outcomes(&w.image(dockerfile).ok());
    assert!(got[0].contains("base image changed") && got[0].contains("mine"), "{got:?}");
    assert_eq!(w.out(&["cat", "/o"]), "2\n");
    // The configuration alone.
    base("RUN echo 2 > /v\nENV Q=1");
    let got = outcomes(&w.image(dockerfile).ok());
    assert!(got[0].contains("env Q"), "{got:?}");
    base("RUN echo 2 > /v\nENV Q=1\nLABEL q=1");
    assert_eq!(outcomes(&w.image(dockerfile).ok()), ["CACHED"]);
}
