//! `--check` and `--call=check`.

use super::World;

const TWO: &str = "FROM base as b\nCMD true\n";

#[test]
fn findings_are_the_result_and_a_failure() {
    let w = World::new();
    w.file("Dockerfile", TWO);
    for flag in ["--check", "--call=check", "--call=lint,format=text"] {
        let done = w.build(&[flag]).fails(1);
        for text in
            ["warning[FromAsCasing]", "Dockerfile:1:", "warning[JSONArgsRecommended]", "Check complete, 2 warnings have been found!\n"]
        {
            assert!(done.stdout.contains(text), "{flag}: `{text}` is not in {done:#?}");
        }
        assert!(!done.stderr.contains("warning"), "{done:#?}");
    }
    w.build(&["--call=check,ignorestatus=true"]).ok();
    // One Dockerfile has its findings once, however many platforms it is for.
    w.file("Dockerfile", "FROM scratch as b\nCMD true\n");
    let done = w.build(&["--check", "--platform", "linux/amd64,linux/arm64"]).fails(1);
    assert!(done.stdout.ends_with("Check complete, 2 warnings have been found!\n"), "{done:#?}");
    w.file("Dockerfile", "FROM base AS b\nCMD [\"true\"]\n");
    assert_eq!(w.build(&["--check", "-t", "t"]).ok().stdout, "Check complete, no warnings found.\n");
    assert_eq!(w.ply(&["images", "-q", "t"]).ok().stdout, "", "nothing is built");
}

#[test]
fn programs_get_dockers_json() {
    let w = World::new();
    let report = |code| serde_json::from_str::<serde_json::Value>(&w.build(&["--call=check,format=json"]).fails(code).stdout).unwrap();
    w.file("Dockerfile", TWO);
    let found = report(1);
    let rules: Vec<_> = found["warnings"].as_array().unwrap().iter().map(|f| f["ruleName"].as_str().unwrap()).collect();
    assert_eq!((rules, &found["sources"][0]["filename"]), (vec!["FromAsCasing", "JSONArgsRecommended"], &"Dockerfile".into()));
    w.file("Dockerfile", "FROM base\nCOPPY a b\n");
    assert_eq!(report(1)["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    w.file("Dockerfile", "FROM base\n");
    assert_eq!(report(0)["warnings"], serde_json::json!([]));
}

#[test]
fn a_directive_makes_findings_an_error_of_the_build() {
    let w = World::new();
    w.file("Dockerfile", &format!("# check=error=true\n{TWO}"));
    w.build(&[]).fails(1).says("lint violation found for rules: FromAsCasing, JSONArgsRecommended");
    w.build(&["--check"]).fails(1).says("lint violation found");
}
