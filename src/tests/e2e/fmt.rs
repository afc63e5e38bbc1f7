//! `ply fmt`: files, links, modes, standard input, exit codes. The style itself has its cases beside the code.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Stdio;

use super::{Done, World};

const UGLY: &str = "from   base as b\n\n\nrun true \n# why\ncopy  a   b /c";
const TIDY: &str = "FROM base AS b\n\nRUN true\n# why\nCOPY a b /c\n";

fn piped(w: &World, args: &[&str], input: &str) -> Done {
    let mut child = w.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn files_are_formatted_in_place_and_keep_mode_links_and_names() {
    let w = World::new();
    w.file("Dockerfile", UGLY).file("two", UGLY);
    let (file, two) = (w.path("ctx/Dockerfile"), w.path("ctx/two"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink("Dockerfile", w.path("ctx/link")).unwrap();
    std::fs::hard_link(&two, w.path("ctx/same")).unwrap();
    let done = w.ply(&["fmt", "ctx/link", "ctx/two"]).ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), TIDY);
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    assert!(std::fs::symlink_metadata(w.path("ctx/link")).unwrap().is_symlink());
    assert_eq!(std::fs::read_to_string(w.path("ctx/same")).unwrap(), TIDY, "both names are the same file still");
    let before = std::fs::metadata(&file).unwrap().ino();
    w.ply(&["fmt", "ctx/Dockerfile"]).ok();
    assert_eq!(std::fs::metadata(&file).unwrap().ino(), before, "what is formatted is not written again");
    let mut names: Vec<_> = std::fs::read_dir(w.path("ctx")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["Dockerfile", "link", "same", "two"], "nothing is left beside");
}

#[test]
fn check_and_diff_write_nothing() {
    let w = World::new();
    w.file("Dockerfile", UGLY).file("tidy", TIDY);
    let done = w.ply(&["fmt", "--check", "ctx/tidy", "ctx/Dockerfile"]).fails(1);
    assert_eq!(done.stdout, "ctx/Dockerfile\n");
    w.ply(&["fmt", "--check", "ctx/tidy"]).ok();
    let want = "--- ctx/Dockerfile\n+++ ctx/Dockerfile\n@@ -1,6 +1,5 @@\n-from   base as b\n+FROM base AS b\n \n-\n-run true \n+RUN true\n \
                # why\n-copy  a   b /c\n\\ No newline at end of file\n+COPY a b /c\n";
    assert_eq!(w.ply(&["fmt", "--diff", "ctx/Dockerfile"]).ok().stdout, want);
    assert_eq!(w.ply(&["fmt", "--diff", "--check", "ctx/Dockerfile"]).fails(1).stdout, want);
    assert_eq!(w.ply(&["fmt", "--diff", "ctx/tidy"]).ok().stdout, "");
    assert_eq!(std::fs::read_to_string(w.path("ctx/Dockerfile")).unwrap(), UGLY);
}

#[test]
fn standard_input_goes_to_standard_output() {
    let w = World::new();
    for flag in ["-", "--stdin"] {
        assert_eq!(piped(&w, &["fmt", flag], UGLY).ok().stdout, TIDY);
    }
    assert_eq!(piped(&w, &["fmt", "--check", "-"], UGLY).fails(1).stdout, "<stdin>\n");
    piped(&w, &["fmt", "-"], "FROM a\nCOPPY a b\n").fails(1).says("--> <stdin>:2:1");
}

#[test]
fn what_cannot_be_formatted_is_told_and_the_rest_is_done() {
    let w = World::new();
    w.file("bad", "FROM a\nCOPPY a b\n").file("good", UGLY);
    std::fs::write(w.path("ctx/latin"), b"FROM a\n# caf\xe9\n").unwrap();
    let done = w.ply(&["fmt", "ctx/bad", "ctx/latin", "ctx/none", "ctx", "ctx/good"]).fails(1);
    for text in [
        "unknown instruction `COPPY`",
        "--> ctx/bad:2:1",
        "`ctx/latin` is not UTF-8 in line 2",
        "reading `ctx/none`",
        "reading `ctx`: it is not a regular file",
    ] {
        assert!(done.stderr.contains(text), "`{text}` is not in {done:#?}");
    }
    assert_eq!(std::fs::read_to_string(w.path("ctx/bad")).unwrap(), "FROM a\nCOPPY a b\n");
    assert_eq!(std::fs::read_to_string(w.path("ctx/good")).unwrap(), TIDY);
}
