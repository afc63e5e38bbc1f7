//! What a step and a container can reach: some 300 questions of a C program, against docker's answers.
//!
//! `testdata/sandbox/` has the program (`probe.c`), what docker answers (`docker.tsv`) and where we differ, with the reason
//! (`differences.tsv`). Whatever is not listed there is as with docker, for root as for ordinary users.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use super::users::Account;
use super::{Done, World, is_root, note, program, skipped};

const DOCKER: &str = include_str!("../../../testdata/sandbox/docker.tsv");
const DIFFERENCES: &str = include_str!("../../../testdata/sandbox/differences.tsv");
/// The kernel that docker's answers are of: another one may lack what is asked for.
const KERNEL: (u32, u32) = (6, 18);

/// Question and answer.
type Answers = BTreeMap<String, String>;

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

fn answers(text: &str) -> Answers {
    rows(text).map(|row| (row[0].to_string(), row[1].to_string())).collect()
}

/// What `who` (`root`, `ranges`, `single`) shall be answered in a `step` or a `container`.
fn expected(who: &str, place: &str) -> Answers {
    let mut wanted = answers(DOCKER);
    for row in rows(DIFFERENCES) {
        let [question, whom, places, answer, why] = row[..] else { panic!("{row:?}") };
        assert!(!why.is_empty(), "{question}");
        if (whom == "all" || whom.split(',').any(|w| w == who)) && (places == "both" || places == place) {
            let old = wanted.insert(question.to_string(), answer.to_string());
            assert!(old.is_some_and(|old| old != answer), "{question}: docker was not asked it, or answers the same");
        }
    }
    wanted
}

/// Compiles the program into the context; false where the host has no C compiler.
fn compile(w: &World) -> bool {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sandbox/probe.c");
    let output = w.path("ctx/probe");
    match program("cc", &["-static", "-O1", "-o", output.to_str().unwrap(), source]) {
        None => false,
        Some(done) if done.code != Some(0) => {
            skipped(&format!("cc: {}", done.stderr));
            false
        }
        Some(_) => true,
    }
}

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Asks everything in a step and in a container, as `user` (none: as who we are), and compares.
fn ask(who: &str, user: Option<&str>) {
    let w = World::new();
    if !compile(&w) {
        return;
    }
    let name = format!("ply-canary-{}-{who}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let arguments = format!("{name} {} {}", std::process::id(), port.local_addr().unwrap().port());
    w.file("Dockerfile", &format!("FROM base\nCOPY probe /probe\nRUN mkdir -p /tmp; /probe {arguments} > /out\n"));
    let printed = build_and_run(&w, user, &format!("cat /out; echo =; /probe {arguments}"));
    let (step, container) = printed.split_once("=\n").unwrap();
    let docker = answers(DOCKER);
    for (place, got) in [("step", answers(step)), ("container", answers(container))] {
        let mut wanted = expected(who, place);
        if kernel() < (6, 12) {
            // Landlock's scopes are not there.
            wanted.insert("abstract socket of the host".into(), "yes".into());
        }
        assert!(got.len() >= 120 && got.keys().eq(wanted.keys()), "{who} {place}: {} questions", got.len());
        let differ = |(q, a): &(&String, &String)| wanted[*q] != **a && (*a == "yes" || kernel() == KERNEL);
        let wrong: Vec<_> = got.iter().filter(differ).collect();
        assert!(wrong.is_empty(), "{who}, {place}: otherwise than docker.tsv and differences.tsv say: {wrong:#?}");
        let count = |answer| got.iter().filter(|(q, a)| docker[*q] != **a && *a == answer).count();
        let (looser, stricter) = (count("yes"), count("no"));
        note(&format!(
            "sandbox battery: who={who} place={place} questions={} as_docker={} stricter={stricter} looser={looser} undocumented=0",
            got.len(),
            got.len() - stricter - looser
        ));
    }
}

/// Builds the context as `user` (none: as who we are), and returns what a command prints in the image.
fn build_and_run(w: &World, user: Option<&str>, shell: &str) -> String {
    let ply = w.own_ply();
    let dir = w.dir.path().display();
    let script = format!(
        "cd {dir} && export HOME={dir}/home PLY_STORE={dir}/store HOST_CANARY=1 && {ply} build -q --build-context {} -t t ctx && {ply} run --rm t sh -c '{shell}'",
        super::BASE,
        ply = ply.display(),
    );
    let mut command = Command::new(if user.is_some() { "runuser" } else { "sh" });
    if let Some(user) = user {
        assert!(Command::new("chown").args(["-R", user]).arg(w.dir.path()).status().unwrap().success());
        command.args(["-u", user, "--", "sh"]);
    }
    let done: Done = command.args(["-c", &script]).output().unwrap().into();
    let stdout = done.ok().stdout;
    stdout.split_once('\n').map(|(_digest, printed)| printed.to_string()).unwrap_or_default()
}

#[test]
fn who_we_are_reaches_what_docker_allows() {
    if is_root() {
        return ask("root", None);
    }
    // A user with a range of ids or without: the test for root makes both.
    skipped("needs root, to know who asks");
}

#[test]
fn privileged_ordinary_users_reach_what_docker_allows() {
    if !is_root() {
        return skipped("needs root, to make accounts");
    }
    for (who, ranges) in [("ranges", true), ("single", false)] {
        let Some(account) = Account::new(who, ranges) else { return };
        ask(who, Some(account.name()));
    }
}

#[test]
fn privileged_with_one_id_apt_is_told_to_stay_who_it_is() {
    if !is_root() {
        return skipped("needs root, to make accounts");
    }
    for (tag, ranges, told) in [("apt", false, "APT::Sandbox::User \"root\";\n"), ("apt1", true, "")] {
        let Some(account) = Account::new(tag, ranges) else { return };
        let w = World::new();
        w.file("Dockerfile", "FROM base\nRUN mkdir -p /etc/apt/apt.conf.d\nRUN cat /etc/apt/apt.conf.d/* > /told || true\n");
        // In no layer: a run of the image, which gets none, sees nothing.
        assert_eq!(build_and_run(&w, Some(account.name()), "cat /told; ls /etc/apt/apt.conf.d"), told, "{tag}");
    }
}
