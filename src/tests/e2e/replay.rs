//! `ply replay` as its users start it, and beside real builds of the same commits.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::{BASE, Done, World, program, skipped};

/// A world whose context is a git repository; none where git is missing.
fn world() -> Option<World> {
    program("git", &["--version"])?;
    let w = World::new();
    git(&w, &["init", "-q", "-b", "main"]);
    Some(w)
}

fn git(w: &World, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]).args(args).current_dir(w.path("ctx"));
    command.env("HOME", w.path("home")).env("GIT_CONFIG_NOSYSTEM", "1");
    let out = command.output().unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn commit(w: &World, message: &str) {
    git(w, &["add", "-A"]);
    git(w, &["commit", "-q", "--allow-empty", "-m", message]);
}

fn replay(w: &World, args: &[&str]) -> Done {
    let mut all = vec!["replay", "--format", "json"];
    all.extend(args);
    all.push("ctx");
    w.ply(&all)
}

fn json(done: Done) -> serde_json::Value {
    serde_json::from_str(&done.ok().stdout).unwrap()
}

const DOCKERFILE: &str = "FROM base\nWORKDIR /w\nCOPY manifest ./\nRUN cat manifest > deps\nCOPY . .\nRUN cat src/* > out\n";

#[test]
fn a_history_is_replayed_and_shown_as_table_json_and_page() {
    let Some(w) = world() else { return };
    w.file("Dockerfile", DOCKERFILE).file("manifest", "1").file("src/a", "1").file(".dockerignore", ".git\n");
    commit(&w, "one");
    // One build says nothing of hits.
    let alone = w.ply(&["replay", "--html", "page.html", "ctx"]).ok().stdout;
    assert!(alone.contains("1 commit (") && alone.contains("more commits are needed") && !alone.contains('%'), "{alone}");
    assert!(!std::fs::read_to_string(w.path("page.html")).unwrap().contains("100.0%"));
    w.file("src/a", "2");
    commit(&w, "two <b>");
    w.file("manifest", "2");
    commit(&w, "three");
    let table = w.ply(&["replay", "--cost", "RUN cat manifest=10", "--cost", "RUN=2", "--html", "page.html", "ctx"]).ok().stdout;
    for want in
        ["3 commits", "Dockerfile", "40.0%  as docker build keeps them", "40.0%  as Plywood does", "files of COPY manifest ./ (line 3)"]
    {
        assert!(table.contains(want), "{want} is not in {table}");
    }
    let report = json(replay(&w, &["--cost", "RUN cat manifest=10", "--cost", "RUN=2"]));
    let cells: Vec<&str> = report["steps"].as_array().unwrap().iter().map(|s| s["cells"].as_str().unwrap()).collect();
    assert_eq!(cells, ["0hh", "0hf", "0hd", "0ff", "0dd"]);
    assert_eq!(report["totals"]["plywood_secs"], 7.0);
    let page = fs::read_to_string(w.path("page.html")).unwrap();
    for want in ["<svg", "files of COPY manifest ./ (line 3)", "default-src &#39;none&#39;", "RUN cat src/* &gt; out"] {
        assert!(page.contains(want) || page.contains(&want.replace("&#39;", "'")), "{want}");
    }
    assert!(!["<script", "http:", "https:", "src="].iter().any(|outside| page.contains(outside)), "{page}");
    // A bare clone, a subset, another directory.
    git(&w, &["clone", "-q", "--bare", ".", "../bare.git"]);
    let bare: serde_json::Value =
        serde_json::from_str(&w.ply(&["replay", "--format=json", "bare.git", "HEAD~1..", "-n", "5"]).ok().stdout).unwrap();
    assert_eq!(bare["commits"].as_array().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_replayed_is_told_with_what_to_do() {
    let Some(w) = world() else { return };
    w.ply(&["replay", "home"]).fails(1).says("is in no git repository").says("hint: name a directory of a git repository");
    w.ply(&["replay", "ctx"]).fails(1).says("git says");
    w.file("f", "1");
    commit(&w, "one");
    let none = w.ply(&["replay", "ctx"]).ok();
    assert!(none.stdout.contains("0 commits") && none.stdout.contains("without a Dockerfile"), "{}", none.stdout);
    w.ply(&["replay", "ctx", "gone..HEAD"]).fails(1).says("hint: a range is REV, FROM..TO or FROM..");
    w.ply(&["replay", "ctx", "HEAD..HEAD"]).fails(1).says("there is no commit in HEAD..HEAD");
    w.ply(&["replay", "--cost", "RUN", "ctx"]).fails(2).says("expected STEP=SECONDS");
    w.file("costs", "RUN x=1\nRUN y\n");
    w.ply(&["replay", "--cost-file", "ctx/costs", "ctx"]).fails(2).says("costs:2: expected STEP=SECONDS");
    w.ply(&["replay", "--context", "../..", "ctx"]).fails(2).says("must lie in the repository's tree");
    let missing = w.command(&["replay", "ctx"]).env("PATH", w.path("home")).output().unwrap();
    Done::from(missing).fails(1).says("git is not installed");
}

#[test]
fn costs_come_from_the_builds_that_were_made() {
    let Some(w) = world() else { return };
    w.file("Dockerfile", "FROM base\nCOPY f /f\nRUN sleep 0.3\n").file("f", "1").file(".dockerignore", ".git\n");
    commit(&w, "one");
    w.build(&[]).ok();
    w.file("f", "2");
    commit(&w, "two");
    let report = json(replay(&w, &[]));
    let cost = report["steps"][1]["cost_secs"].as_f64().unwrap();
    assert!((0.3..10.0).contains(&cost), "{report}");
}

/// A small generator: the same history on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Makes one commit's change: files, modes, links, ignore rules, the Dockerfile, and changes undone.
fn change(w: &World, random: &mut Random, n: u64) {
    let ctx = w.path("ctx");
    let value = random.below(3).to_string();
    match random.below(9) {
        0 => drop(w.file("manifest", &value)),
        1 | 2 => drop(w.file("src/a", &value)),
        3 => drop(w.file(&format!("src/deep/{}", random.below(2)), &value)),
        4 => drop(w.file("README.md", &n.to_string())),
        5 => {
            let mode = [0o644, 0o755][random.below(2) as usize];
            fs::set_permissions(ctx.join("src/a"), fs::Permissions::from_mode(mode)).unwrap();
        }
        6 => {
            let _ = fs::remove_file(ctx.join("src/link"));
            symlink(format!("t{value}"), ctx.join("src/link")).unwrap();
        }
        7 => drop(w.file(".dockerignore", ["*.md\n", "", "*.md\n**/link\n"][random.below(3) as usize])),
        _ => {
            let text = [
                DOCKERFILE.to_owned(),
                DOCKERFILE.replace("COPY . .", "ENV V=1\nCOPY --link . .").replace("FROM base\n", "FROM base AS main\n"),
                format!("FROM base AS b\nCOPY src /src\nRUN ls /src > /list\n{DOCKERFILE}COPY --from=b /list /list\nRUN cat /list\n"),
                DOCKERFILE.replace("RUN cat manifest", "RUN --mount=source=manifest,target=/m cat /m"),
            ];
            w.file("Dockerfile", &text[random.below(4) as usize]);
        }
    }
}

#[test]
fn what_a_replay_is_certain_of_is_what_builds_do() {
    let Some(w) = world() else { return };
    let mut random = Random(20_260_501);
    w.file("Dockerfile", DOCKERFILE).file("manifest", "0").file("src/a", "0").file(".dockerignore", "*.md\n");
    commit(&w, "first");
    for n in 0..40 {
        change(&w, &mut random, n);
        commit(&w, "x");
    }
    let done = replay(&w, &["--execute", "--no-suggestions", "--build-context", BASE]);
    if done.stderr.contains("failed:") {
        skipped(&format!("builds don't work here: {}", done.stderr));
        return;
    }
    let report = json(done);
    let executed = &report["executed"];
    assert_eq!((executed["failures"].to_string(), executed["surprises"].to_string()), ("[]".into(), "[]".into()), "{executed}");
    let of = |name: &str, what: &str| executed[name][what].as_u64().unwrap();
    assert_eq!(executed["builds"], 40);
    assert_eq!((of("promised", "hits"), of("certain", "hits")), (of("promised", "of"), 0));
    assert!(of("promised", "of") > 60 && of("certain", "of") > 40 && of("assumed", "of") > 0, "{executed}");
    // The rates are of the same steps.
    let (real, said) = (of("hits", "hits"), report["totals"]["plywood"]["hits"].as_u64().unwrap());
    assert_eq!((of("hits", "of"), real), (report["totals"]["plywood"]["of"].as_u64().unwrap(), said + of("assumed", "hits")));
    assert!(report["steps"].as_array().unwrap().iter().any(|s| s["cost_secs"].is_f64()), "costs were measured");
}

#[test]
fn a_build_that_fails_is_told_and_promises_nothing() {
    let Some(w) = world() else { return };
    let text = |run: &str| format!("FROM base\nCOPY f /f\nRUN {run}\nRUN cat /f\n");
    w.file("Dockerfile", &text("true")).file("f", "1").file(".dockerignore", "*\n!f\n");
    commit(&w, "one");
    for run in ["false", "false", "true"] {
        w.file("Dockerfile", &text(run));
        commit(&w, run);
    }
    let report = json(replay(&w, &["--execute", "--no-suggestions", "--build-context", BASE]));
    let executed = &report["executed"];
    assert_eq!(executed["failures"].as_array().unwrap().len(), 2, "{executed}");
    assert_eq!(executed["surprises"].to_string(), "[]", "{executed}");
}
