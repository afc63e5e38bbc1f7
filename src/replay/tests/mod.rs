//! Replays of small histories whose answers are known, and of random ones against checkouts.

mod checkout;
mod suggestions;

use std::collections::BTreeMap;

use super::*;
use crate::history::Parents;
use crate::history::tests::{Made, all};
use crate::image::platform::Platform;

fn request() -> Request {
    Request {
        place: Place { context: String::new(), dockerfile: None },
        range: all(),
        settings: Settings { build_args: BTreeMap::new(), target: None, platform: Platform::host(), named_contexts: BTreeMap::new() },
        costs: Costs::default(),
        suggest: Suggest::No,
        threads: 2,
    }
}

fn replayed(made: &Made, request: &Request) -> Replayed {
    replay(&made.open(), request).unwrap()
}

/// For each step of the report its title and its letters.
fn cells(made: &Made) -> Vec<(String, String)> {
    let report = replayed(made, &request()).report;
    report.steps.iter().map(|s| (s.title.clone(), s.cells.clone())).collect()
}

fn assert_cells(made: &Made, want: &[(&str, &str)]) {
    let want: Vec<_> = want.iter().map(|(t, c)| ((*t).to_owned(), (*c).to_owned())).collect();
    assert_eq!(cells(made), want);
}

const NODE: &str = "FROM node\nWORKDIR /app\nCOPY package.json ./\nRUN npm ci\nCOPY . .\nRUN npm run build\n";

#[test]
fn a_step_hits_until_its_files_change_and_again_when_they_are_back() {
    let made = Made::new();
    made.write("Dockerfile", NODE).write("package.json", "1").write("src/a.js", "1").write(".dockerignore", "docs\n").commit("one");
    made.write("docs/x", "1").commit("ignored");
    made.write("src/a.js", "2").commit("source");
    made.write("package.json", "2").commit("manifest");
    made.write("src/a.js", "1").write("package.json", "1").commit("back");
    made.commit("nothing");
    assert_cells(
        &made,
        &[
            ("WORKDIR /app", "0hhhhh"),
            ("COPY package.json ./", "0hhfhh"),
            ("RUN npm ci", "0hhdhh"),
            ("COPY . .", "0hffhh"),
            ("RUN npm run build", "0hddhh"),
        ],
    );
    let totals = replayed(&made, &request()).report.totals;
    // 5 builds of 5 steps; 2 missed by the source, 4 by the manifest.
    assert_eq!((totals.builds, totals.plywood, totals.plain), (5, Rate { hits: 19, of: 25 }, Rate { hits: 19, of: 25 }));
    assert_eq!(totals.runs, Rate { hits: 7, of: 10 });
}

#[test]
fn modes_links_and_renames_count_and_times_do_not() {
    let made = Made::new();
    let link = |to: &str| {
        let _ = std::fs::remove_file(made.path().join("d/link"));
        std::os::unix::fs::symlink(to, made.path().join("d/link")).unwrap();
    };
    made.write("Dockerfile", "FROM scratch\nCOPY d /d\n").write("d/f", "1");
    link("f");
    made.commit("one");
    std::fs::set_permissions(made.path().join("d/f"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    made.commit("mode");
    link("g");
    made.commit("link");
    made.git(&["mv", "d/f", "d/g"]);
    made.commit("rename");
    made.write("other", "1").commit("other");
    made.git(&["mv", "d", "e"]);
    made.write("Dockerfile", "FROM scratch\nCOPY e /d\n").commit("another source's name");
    assert_cells(&made, &[("COPY e /d", "0fffht")]);
}

#[test]
fn an_instruction_s_text_a_variable_and_a_base_are_told_apart() {
    let made = Made::new();
    let text = |base: &str, version: &str, command: &str| format!("FROM {base}\nENV VERSION={version}\nRUN {command}\nRUN last\n");
    let commit = |base, version, command| made.write("Dockerfile", text(base, version, command)).commit("x");
    commit("a:1", "1", "make");
    commit("a:1", "2", "make");
    commit("a:1", "2", "make all");
    commit("a:2", "2", "make all");
    assert_cells(&made, &[("RUN make all", "0vtb"), ("RUN last", "0vad")]);
    let causes = replayed(&made, &request()).report.causes;
    let told: Vec<_> = causes.iter().map(|c| (c.kind, c.what.as_str(), c.builds, c.misses, c.dragged)).collect();
    assert_eq!(told, [("variable", "VERSION", 1, 2, 0), ("text", "RUN make all", 1, 2, 1), ("base", "FROM", 1, 2, 1)]);
}

#[test]
fn a_step_put_in_between_is_new_and_its_neighbours_keep_their_lanes() {
    let made = Made::new();
    made.write("Dockerfile", "FROM a\nRUN one\nRUN two\n").commit("x");
    made.write("Dockerfile", "FROM a\nRUN one\nRUN between\nRUN two\n").commit("x");
    made.write("Dockerfile", "FROM a\nRUN two\n").commit("x");
    // With a layer more or less below it, no earlier `two` can be it.
    assert_cells(&made, &[("RUN two", "0dd"), ("RUN one", "0h."), ("RUN between", ".t.")]);
}

#[test]
fn what_stands_on_a_run_that_ran_again_is_assumed_and_what_stands_on_new_files_is_not() {
    let made = Made::new();
    made.write("Dockerfile", "FROM a AS b\nCOPY src /src\nRUN make\nFROM a\nCOPY conf /conf\nCOPY --from=b /out /out\nRUN post\n");
    made.write("src/f", "1").write("conf", "1").commit("x");
    made.write("src/f", "2").commit("x");
    made.write("conf", "2").commit("x");
    assert_cells(
        &made,
        &[
            ("COPY src /src", "0fh"),
            ("RUN make", "0dh"),
            ("COPY conf /conf", "0hf"),
            ("COPY --from=b /out /out", "0ad"),
            ("RUN post", "0ad"),
        ],
    );
}

#[test]
fn a_copy_with_link_stands_on_nothing_and_equal_files_are_an_equal_layer() {
    let made = Made::new();
    let text = |run: &str, copy: &str| format!("FROM a\nRUN {run}\nCOPY --link f /f\n").replace("COPY --link f", copy);
    made.write("f", "1").write("Dockerfile", text("one", "COPY --link f")).commit("x");
    made.write("Dockerfile", text("two", "COPY --link f")).commit("x");
    assert_cells(&made, &[("RUN two", "0t"), ("COPY --link f /f", "0h")]);

    // Written otherwise, the same files: the copy itself runs, what stands on it hits with Plywood and not with a plain chain.
    let made = Made::new();
    let text = |source: &str| format!("FROM a\nCOPY {source} /d\nRUN make\n");
    made.write("d/f", "1").write("Dockerfile", text("d")).commit("x");
    made.write("Dockerfile", text("--exclude=none d")).commit("x");
    let report = replayed(&made, &request()).report;
    let rates: Vec<_> = report.steps.iter().map(|s| (s.title.as_str(), s.plywood.hits, s.plain.hits)).collect();
    assert_eq!(rates, [("COPY --exclude=none d /d", 0, 0), ("RUN make", 1, 0)]);
}

#[test]
fn mounts_of_the_context_count_as_copies_do() {
    let made = Made::new();
    made.write(
        "Dockerfile",
        "FROM a\nRUN --mount=target=/src make\nRUN --mount=type=bind,source=go.mod,target=/m get\nRUN --mount=type=cache,target=/c x\n",
    );
    made.write("go.mod", "1").write("main.go", "1").commit("x");
    made.write("main.go", "2").commit("x");
    let letters: Vec<_> = cells(&made).into_iter().map(|(_, c)| c).collect();
    assert_eq!(letters, ["0f", "0a", "0a"]);
}

#[test]
fn an_ignore_file_of_its_own_comes_first_and_both_are_read_as_of_each_commit() {
    let made = Made::new();
    made.write("Dockerfile", "FROM scratch\nCOPY . /\n").write("a.md", "1").write("a.c", "1").commit("x");
    made.write(".dockerignore", "*.md\n.dockerignore\nDockerfile*\n").commit("hides");
    made.write("a.md", "2").commit("hidden");
    made.write("Dockerfile.dockerignore", "*.c\n*.dockerignore\nDockerfile*\n").commit("other rules");
    made.write("a.c", "2").commit("hidden by the other");
    made.write("a.md", "3").commit("seen");
    assert_cells(&made, &[("COPY . /", "0fhfhf")]);
}

#[test]
fn commits_that_cannot_be_built_are_counted_with_their_reason() {
    let made = Made::new();
    made.write("f", "1").commit("no Dockerfile");
    made.write("Dockerfile", "FROM a\nCOPY gone /\n").commit("a source is missing");
    made.write("Dockerfile", "FROM a\nRUNN x\n").commit("no instruction");
    made.write("Dockerfile", "FROM a\nCOPY f /\n").write(".dockerignore", "[\n").commit("a bad pattern");
    made.write(".dockerignore", "").commit("good");
    made.write("Dockerfile", "# syntax=other/frontend\nFROM a\n").commit("another frontend");
    let report = replayed(&made, &request()).report;
    let why: Vec<_> = report.commits.iter().map(|c| c.skipped.clone().unwrap_or_default()).collect();
    assert_eq!(
        why,
        [
            "without a Dockerfile",
            "Dockerfile:2: `gone` not found in the build context",
            "Dockerfile:2:1: unknown instruction `RUNN`",
            ".dockerignore: ignore pattern `[` in line 1",
            "",
            "Dockerfile:1:10: the frontend `other/frontend` is not built in",
        ]
    );
    assert_eq!(report.steps.iter().map(|s| s.cells.as_str()).collect::<Vec<_>>(), ["....0."]);
    assert!(report.notes[0].starts_with("4 commits skipped, whose build would fail (the newest "), "{:?}", report.notes);
}

#[test]
fn a_context_in_a_directory_a_named_dockerfile_and_a_target() {
    let made = Made::new();
    made.write("app/df/D", "FROM a AS x\nCOPY . /\nFROM a\nRUN y\n").write("app/f", "1").write("g", "1").commit("x");
    made.write("g", "2").commit("outside");
    made.write("app/f", "2").commit("inside");
    let mut request = request();
    request.place = Place { context: "app".into(), dockerfile: Some("df/D".into()) };
    request.settings.target = Some("x".into());
    let report = replayed(&made, &request).report;
    let got: Vec<_> = report.steps.iter().map(|s| (s.title.as_str(), s.cells.as_str())).collect();
    assert_eq!(got, [("COPY . /", "0hf")]);
    request.place.context = "gone".into();
    let report = replayed(&made, &request).report;
    assert!(report.commits.iter().all(|c| c.skipped.as_deref() == Some("without the context's directory")));
}

#[test]
fn a_submodule_counts_as_its_commit() {
    let made = Made::new();
    made.write("Dockerfile", "FROM a\nCOPY lib /lib\n").commit("x");
    for id in ["1", "1", "2"] {
        made.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},lib", id.repeat(40))]);
        made.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
    }
    let report = replayed(&made, &request()).report;
    assert_eq!(report.steps[0].cells, ".0hf");
}

#[test]
fn merges_are_followed_along_the_first_parent_unless_all_are_wanted() {
    let made = Made::new();
    made.write("Dockerfile", "FROM a\nCOPY f /\n").write("f", "1").commit("one");
    made.git(&["checkout", "-q", "-b", "side"]);
    made.write("f", "2").commit("side");
    made.git(&["checkout", "-q", "main"]);
    made.write("g", "1").commit("two");
    made.git(&["merge", "-q", "--no-ff", "-m", "merge", "side"]);
    let letters = |parents: Parents| {
        let mut request = request();
        request.range.parents = parents;
        replayed(&made, &request).report.steps[0].cells.clone()
    };
    assert_eq!(letters(Parents::First), "0hf");
    // The merge has what the side had.
    let every = letters(Parents::All);
    assert_eq!((every.len(), every.matches('f').count()), (4, 1), "{every}");
}

#[test]
fn many_threads_come_to_what_one_does() {
    let made = Made::new();
    made.write("Dockerfile", NODE).write("package.json", "1").write("src/a.js", "0").write(".dockerignore", "**/*.md\n");
    for n in 0..150 {
        match n % 5 {
            0 => made.write("package.json", n.to_string()),
            1 => made.write("src/x.md", n.to_string()),
            2 => made.write("src/deep/a.js", (n / 20).to_string()),
            3 => made.write("Dockerfile", NODE.replace("build", &format!("build{}", n / 40))),
            _ => made.write("src/a.js", n.to_string()),
        };
        made.commit("x");
    }
    let with = |threads: usize| {
        let replayed = replayed(&made, &Request { threads, suggest: Suggest::Yes, ..request() });
        let mut report = replayed.report;
        report.took = Took::default();
        serde_json::to_string(&report).unwrap()
    };
    let one = with(1);
    assert!(one.contains("\"suggestions\":[{"), "{one}");
    assert_eq!(one, with(4));
}
