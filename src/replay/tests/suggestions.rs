//! Suggestions over small histories: what is proposed, what it wins, and what is not proposed.

use super::*;

fn suggestions(made: &Made, costs: &[&str]) -> Vec<Suggestion> {
    let rules = costs.iter().map(|c| CostRule::parse(c).unwrap()).collect();
    let request = Request { suggest: Suggest::Yes, costs: Costs { rules, ..Costs::default() }, ..request() };
    replayed(made, &request).report.suggestions
}

/// Commits a change of one file after the other.
fn churn(made: &Made, files: &[&str]) {
    made.commit("first");
    for (n, file) in files.iter().enumerate() {
        made.write(file, n.to_string()).commit("x");
    }
}

#[test]
fn manifests_are_copied_and_installed_first() {
    let made = Made::new();
    let text = "FROM node AS build\nWORKDIR /app\n# everything\nCOPY . .\n# installs\nRUN npm ci && npm run build\nCMD [\"x\"]\n";
    made.write("Dockerfile", text)
        .write(".dockerignore", ".git\n")
        .write("package.json", "{}")
        .write("package-lock.json", "{}")
        .write("src/a.js", "s");
    churn(&made, &["src/a.js", "src/b.js", "package.json", "src/a.js"]);
    let all = suggestions(&made, &["RUN npm ci && npm run build=60"]);
    assert_eq!(all.len(), 1, "{all:?}");
    let one = &all[0];
    let want = "FROM node AS build\nWORKDIR /app\nCOPY package.json package-lock.json ./\n# installs\nRUN npm ci\n# everything\nCOPY . .\nRUN npm run build\nCMD [\"x\"]\n";
    // The comment of a RUN that is parted goes with neither part.
    assert_eq!(one.changes.len(), 1);
    assert_eq!(one.changes[0].new, want.replace("# installs\n", ""));
    // Four builds of 60 s; with it the install (30 s) runs once, the build (30 s) each time.
    assert_eq!((one.before.plywood_secs, one.after.plywood_secs, one.saved_secs), (Some(60.0), Some(37.5), Some(22.5)));
    assert_eq!((one.before.runs, one.after.runs), (Rate { hits: 0, of: 4 }, Rate { hits: 3, of: 8 }));
    assert_eq!(one.rewritten, 5);
}

#[test]
fn a_run_that_needs_no_files_goes_before_the_copies_and_both_together_win_more() {
    let made = Made::new();
    let text = "FROM python\nCOPY . /app\nRUN apt-get update && apt-get install -y gcc\nRUN pip install -r requirements.txt\n";
    made.write("Dockerfile", text).write("requirements.txt", "a").write("app.py", "s").write(".dockerignore", ".git\n");
    churn(&made, &["app.py", "app.py", "app.py", "requirements.txt"]);
    let all = suggestions(&made, &["RUN=10"]);
    let last = all.first().unwrap();
    assert!(last.what.starts_with("together: stage stage-0: "), "{:?}", all.iter().map(|s| &s.what).collect::<Vec<_>>());
    assert_eq!(
        last.changes[0].new,
        "FROM python\nRUN apt-get update && apt-get install -y gcc\nCOPY requirements.txt /app/\nRUN pip install -r requirements.txt\nCOPY . /app\n"
    );
    assert_eq!((last.before.plywood_secs, last.after.plywood_secs), (Some(20.0), Some(2.5)));
}

#[test]
fn files_that_builds_seldom_need_are_ignored_where_that_spares_misses() {
    let made = Made::new();
    made.write("Dockerfile", "FROM a\nCOPY . .\nRUN make\n").write(".dockerignore", ".git").write("a.c", "s");
    churn(&made, &["README.md", "docs/x.txt", "a.c", ".github/ci.yml"]);
    let all = suggestions(&made, &[]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].changes[0].new, ".git\n**/*.md\ndocs\n.github\n");
    assert_eq!((all[0].before.plywood, all[0].after.plywood), (Rate { hits: 0, of: 8 }, Rate { hits: 6, of: 8 }));
    // What the Dockerfile copies by name is not hidden.
    let made = Made::new();
    made.write("Dockerfile", "FROM a\nCOPY README.md .\nCOPY . .\nRUN make\n")
        .write(".dockerignore", ".git")
        .write("a.c", "s")
        .write("README.md", "");
    churn(&made, &["README.md", "README.md"]);
    assert_eq!(suggestions(&made, &[]).iter().map(|s| &s.what).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_git_directory_that_nothing_ignores_is_told_with_what_it_costs() {
    let made = Made::new();
    made.write("Dockerfile", "FROM a\nCOPY . .\nRUN make\n").write("a.c", "s").commit("first");
    for _ in 0..4 {
        made.commit("nothing");
    }
    let all = suggestions(&made, &[]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].what.starts_with("ignore .git"));
    assert_eq!((all[0].before.plywood, all[0].after.plywood), (Rate { hits: 0, of: 8 }, Rate { hits: 8, of: 8 }));
    assert_eq!(all[0].changes, [Change { file: ".dockerignore".into(), old: String::new(), new: ".git\n".into() }]);
}

#[test]
fn a_variable_goes_down_to_where_it_is_used() {
    let made = Made::new();
    let text = |v: u32| format!("FROM a\nENV VERSION={v}\nRUN make\nRUN echo $VERSION\n");
    made.write(".dockerignore", ".git").write("Dockerfile", text(0)).commit("x");
    for v in 1..5 {
        made.write("Dockerfile", text(v)).commit("x");
    }
    let all = suggestions(&made, &["RUN make=100"]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].changes[0].new, "FROM a\nRUN make\nENV VERSION=4\nRUN echo $VERSION\n");
    assert_eq!(all[0].saved_secs, Some(100.0));
}

#[test]
fn what_helps_nothing_or_can_not_be_told_is_not_proposed() {
    for text in [
        // In order already.
        "FROM node\nWORKDIR /app\nCOPY package.json ./\nRUN npm ci\nCOPY . .\nRUN npm run build\n",
        // The install may need anything.
        "FROM node\nWORKDIR /app\nCOPY . .\nRUN npm install ./local\nRUN make\n",
        // A command before it may make what is installed.
        "FROM node\nWORKDIR /app\nCOPY . .\nRUN ./generate\nRUN npm ci\n",
        // The copy's destination hangs on a WORKDIR in between.
        "FROM node\nCOPY . .\nWORKDIR /app\nRUN npm ci\n",
    ] {
        let made = Made::new();
        made.write("Dockerfile", text).write("package.json", "{}").write("src/a.js", "s").write(".dockerignore", ".git");
        churn(&made, &["src/a.js", "src/a.js"]);
        let all = suggestions(&made, &[]);
        assert_eq!(all.iter().map(|s| s.what.as_str()).collect::<Vec<_>>(), [""; 0], "{text}");
    }
}
