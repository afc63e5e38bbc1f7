//! `ply plan`: what it says of a build is what the build then does, and it leaves nothing behind.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::random::{self, Random};
use super::{BASE, Done, World, is_root, note};

/// Edits of each random Dockerfile.
const EDITS: usize = 4;

/// What a plan said of the steps, by `[stage 2/4]`.
fn planned(done: &Done) -> BTreeMap<String, Value> {
    let plan: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:#?}"));
    let steps = plan["steps"].as_array().unwrap().iter().cloned();
    let name = |s: &Value| format!("[{} {}/{}]", s["stage"].as_str().unwrap(), s["number"], s["of"]);
    steps.map(|s| (name(&s), s)).collect()
}

/// What a build did with the steps that it came to: none for a hit, else the reason.
fn built(done: &Done) -> BTreeMap<String, Option<String>> {
    let mut names = BTreeMap::new();
    let mut out = BTreeMap::new();
    for line in done.stderr.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|l| l.split_once(' ')) else { continue };
        if let Some((name, _)) = rest.split_once("] ").filter(|_| rest.starts_with('[')) {
            names.entry(number.to_string()).or_insert_with(|| format!("{name}]"));
        }
        let outcome = if rest == "CACHED" { Some(None) } else { rest.strip_prefix("miss: ").map(|why| Some(why.to_string())) };
        if let Some(outcome) = outcome {
            out.insert(names[number].clone(), outcome);
        }
    }
    out
}

/// How often what was said.
#[derive(Debug, Default)]
struct Said {
    hit: usize,
    runs: usize,
    depends: usize,
}

/// Compares what was planned with what was built; `about` tells where.
fn compare(plan: &Done, build: &Done, said: &mut Said, about: &str) {
    if plan.code != Some(0) {
        assert_eq!((plan.code, build.code), (Some(1), Some(1)), "{about}\nplan: {}\nbuild: {}", plan.stderr, build.stderr);
        return;
    }
    let (planned, built) = (planned(plan), built(build));
    for (name, did) in &built {
        let step = &planned[name];
        let outcome = step["outcome"].as_str().unwrap();
        match outcome {
            "hit" => said.hit += 1,
            "runs" => said.runs += 1,
            _ => said.depends += 1,
        }
        let contradicts = match (outcome, did) {
            ("hit", None) | ("depends", _) => false,
            ("runs", Some(why)) => step["exact"] == true && step["why"] != why.as_str(),
            _ => true,
        };
        assert!(!contradicts, "{about}\n{name}: planned {step}\nbuilt: {did:?}\n{}", build.stderr);
    }
    if build.code == Some(0) {
        assert_eq!(planned.len(), built.len(), "{about}\n{}", build.stderr);
    }
}

impl World {
    /// As [`World::build`], for a plan.
    fn plan(&self, args: &[&str]) -> Done {
        let ctx = self.path("ctx");
        let mut all = vec!["plan", "--format=json", "--build-context", BASE];
        all.extend(args);
        all.push(ctx.to_str().unwrap());
        self.ply(&all)
    }
}

/// All that the store has but what is made again: rows, and names of files.
fn contents(store: &Path) -> Vec<String> {
    let db = rusqlite::Connection::open_with_flags(store.join("index.db"), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut out = Vec::new();
    let mut tables = db.prepare("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name").unwrap();
    let names: Vec<String> = tables.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
    for name in names {
        let only = if name == "meta" { " WHERE kind<>'stat-cache'" } else { "" };
        let mut rows = db.prepare(&format!("SELECT * FROM {name}{only}")).unwrap();
        let columns = rows.column_count();
        let mut found = rows.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            out.push(format!("{name} {:?}", (0..columns).map(|c| row.get_ref(c).unwrap()).collect::<Vec<_>>()));
        }
    }
    for part in ["blobs/sha256", "layers"] {
        let Ok(entries) = std::fs::read_dir(store.join(part)) else { continue };
        out.extend(entries.map(|e| format!("{part}/{}", e.unwrap().file_name().display())));
    }
    out.sort();
    out
}

#[test]
fn a_plan_says_what_a_build_then_does_and_leaves_nothing() {
    let w = World::new();
    w.file("early", "1").file("src/a", "1").file("late", "1");
    let text = "FROM base AS made\nCOPY early /e\nCOPY src /src/\nRUN cat /src/a > /out\nRUN cat /e > /out2\n\
                FROM base\nWORKDIR /w\nCOPY --from=made /out /w/\nCOPY --link late /l\nRUN echo end > /end\n";
    w.file("Dockerfile", text);
    let fresh = w.plan(&["--exit-code"]).fails(3);
    assert!(planned(&fresh).values().all(|s| s["outcome"] != "hit"), "{}", fresh.stdout);
    w.image(text).ok();
    let nothing = w.plan(&["--exit-code"]).ok();
    assert!(planned(&nothing).values().all(|s| s["outcome"] == "hit"), "{}", nothing.stdout);
    w.file("src/a", "2").file("late", "2");
    let before = contents(&w.path("store"));
    let plan = w.plan(&["--exit-code"]).fails(3);
    assert_eq!(contents(&w.path("store")), before);
    let steps = planned(&plan);
    let outcome = |name: &str| steps[name]["outcome"].as_str().unwrap().to_string();
    assert_eq!(outcome("[made 2/5]"), "hit");
    assert_eq!(steps["[made 3/5]"]["why"], "file src/a changed (content)");
    // What the COPY gives is known before it runs, so what stands on it runs for certain.
    assert_eq!(outcome("[made 4/5]"), "runs");
    assert_eq!(outcome("[made 5/5]"), "runs");
    assert_eq!(steps["[stage-1 3/5]"]["on"], serde_json::json!([{"step": 3}, {"step": 4}]));
    assert_eq!(steps["[stage-1 4/5]"]["why"], "file late changed (content)");
    // Neither stage above is asked, nor is anything run that depends on nothing.
    assert_eq!(outcome("[stage-1 5/5]"), "runs");
    let mut said = Said::default();
    let plan = w.plan(&["--jobs=1"]).ok();
    compare(&plan, &w.build(&["-t", "t", "--jobs=1"]).ok(), &mut said, text);
    assert_eq!(said.hit + said.runs + said.depends, 8);
}

#[test]
fn each_way_of_asking_gives_the_same_plan_and_what_is_no_plan_s_is_refused() {
    let w = World::new();
    w.file("f", "1").file("Dockerfile", "FROM base\nCOPY f /f\nRUN cat /f > /g\n");
    let ctx = w.path("ctx");
    let ctx = ctx.to_str().unwrap();
    let dry = w.ply(&["build", "--dry-run", "--build-context", BASE, ctx]).ok();
    assert_eq!(w.ply(&["plan", "--build-context", BASE, ctx]).ok().stdout, dry.stdout);
    assert!(
        dry.stdout.contains("COPY f /f")
            && dry.stdout.ends_with("2 steps: 0 hit, 2 run\nexpected: 0.0s, and 2 steps that were never timed\n"),
        "{}",
        dry.stdout
    );
    assert_eq!(w.ply(&["plan", "--format={{.runs}}", "--build-context", BASE, ctx]).ok().stdout, "2\n");
    w.ply(&["prebuild", "--dry-run", "--build-context", BASE, ctx]).ok();
    w.ply(&["build", "--exit-code", "--build-context", BASE, ctx]).fails(2).says("--exit-code is for a plan");
    w.ply(&["plan", "--check", "--build-context", BASE, ctx]).fails(2).says("there is nothing to plan");
    w.file("Dockerfile", "FROM base\nCOPY none /f\n");
    w.plan(&[]).fails(1).says("none");
}

#[test]
fn what_only_a_server_knows_is_said_to_be_unknown() {
    let w = World::new();
    let text = "FROM registry.invalid/base AS far\nRUN true\nFROM base\nCOPY --from=far /x /x\nADD http://host.invalid/f /f\n";
    w.file("Dockerfile", text);
    let steps = planned(&w.plan(&["--exit-code"]).fails(3));
    assert_eq!(steps["[far 2/2]"]["on"], serde_json::json!([{"base": "registry.invalid/base:latest"}]));
    // Nothing here was ever made of such inputs, whatever the server has.
    assert_eq!((&steps["[stage-1 2/3]"]["outcome"], &steps["[stage-1 3/3]"]["outcome"]), (&"runs".into(), &"runs".into()));
    let text = "FROM registry.invalid/base\nRUN true\n";
    assert_eq!(planned(&w.file("Dockerfile", text).plan(&["--exit-code"]).fails(4)).len(), 1);
    let shared =
        planned(&w.file("Dockerfile", "FROM base\nRUN true\n").plan(&["--cache-from=registry.invalid/cache", "--exit-code"]).fails(4));
    assert_eq!(shared["[stage-0 2/2]"]["on"], serde_json::json!([{"cache": "registry.invalid/cache"}]));
    w.plan(&["--no-cache", "--cache-from=registry.invalid/cache", "--exit-code"]).fails(3);
}

#[test]
fn a_shared_cache_in_a_directory_is_asked() {
    let w = World::new();
    let text = "FROM base\nCOPY f /f\nRUN cat /f > /g\n";
    let cache = format!("type=local,dest={}", w.path("cache").display());
    w.file("f", "1").file("Dockerfile", text).build(&["-t", "t", "--cache-to", &format!("{cache},mode=max")]).ok();
    random::remove_tree(&w.path("store"));
    let from = format!("--cache-from=type=local,src={}", w.path("cache").display());
    let plan = w.plan(&[&from, "--exit-code"]).ok();
    let steps = planned(&plan);
    assert!(steps.values().all(|s| s["outcome"] == "hit" && s["from"] == w.path("cache").to_str().unwrap()), "{}", plan.stdout);
    let all: Value = serde_json::from_str(&plan.stdout).unwrap();
    assert!(all["pulls"][0]["layers"] == 2 && all["pulls"][0]["bytes"].as_u64().unwrap() > 0, "{all}");
    let mut said = Said::default();
    compare(&plan, &w.build(&["-t", "t", &from, "--jobs=1"]).ok(), &mut said, text);
    assert_eq!(said.hit, 2);
}

/// Plans and builds a random Dockerfile, edited at random.
fn round(w: &World, seed: u64, said: &mut Said) {
    let mut r = Random::new(seed);
    let own = w.path(&format!("round-{seed}"));
    let (ctx, store) = (own.join("ctx"), own.join("store"));
    std::fs::create_dir_all(&ctx).unwrap();
    random::context::start(&ctx);
    let mut text = random::dockerfile::Text::new(&mut r, is_root());
    let mut told = Vec::new();
    for edit in 0..=EDITS {
        if edit > 0 {
            told.push(if r.chance(60) { text.edit(&mut r) } else { random::context::edit(&mut r, &ctx) });
        }
        let dockerfile = text.dockerfile();
        std::fs::write(ctx.join("Dockerfile"), &dockerfile).unwrap();
        let base = format!("base=oci-layout://{}", w.path("base").display());
        let filter = if r.chance(10) { "--no-cache-filter=s0" } else { "--no-cache-filter=none" };
        let run = |words: &[&str]| -> Done {
            let common = ["--build-context", &base, "--jobs=1", filter, ctx.to_str().unwrap()];
            w.command(&[words, &common].concat()).env("PLY_STORE", &store).output().unwrap().into()
        };
        let plan = run(&["plan", "--format=json"]);
        let build = run(&["build", "--progress=plain", "--gc=off", "-o", "type=none"]);
        compare(&plan, &build, said, &format!("seed {seed}, edits {told:?}\n{dockerfile}"));
    }
    random::remove_tree(&own);
}

#[test]
fn random_edits_are_foreseen() {
    let w = World::new();
    let dest = format!("type=oci,tar=false,dest={}", w.path("base").display());
    w.file("Dockerfile", "FROM base\n").build(&["-o", &dest]).ok();
    let first = random::number("PLY_TEST_SEED", 1);
    let mut said = Said::default();
    for seed in first..first + random::number("PLY_TEST_ROUNDS", 24) {
        round(&w, seed, &mut said);
    }
    note(&format!("of the steps that were built: {said:?}"));
    assert!(said.hit > said.depends && said.runs > said.depends, "{said:?}");
}
