//! What a step can reach: some sixty attempts by a C program, as root and as ordinary users.
//!
//! The program prints what worked (`testdata/sandbox/probe.c`); two controls must, and nothing else may.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;

use super::users::Account;
use super::{Done, World, is_root, program, skipped};

const CONTROLS: &str = "control: chroot\ncontrol: own abstract socket\n";

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

/// Whether this kernel can keep a process from abstract sockets: Landlock's ABI 6.
fn has_scopes() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

/// Runs the program in a step, as `user` (none: as who we are), and returns what worked.
fn reached(user: Option<&str>) -> Option<String> {
    let w = World::new();
    if !compile(&w) {
        return None;
    }
    let name = format!("ply-canary-{}-{}", std::process::id(), user.unwrap_or("self"));
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    w.file("Dockerfile", &format!("FROM base\nCOPY probe /probe\nRUN mkdir -p /tmp; /probe {name} {} > /out\n", std::process::id()));
    let worked = build_and_run(&w, user, "cat /out");
    Some(if has_scopes() { worked } else { worked.replace("abstract socket of the host\n", "") })
}

/// Builds the context as `user` (none: as who we are), and returns what a command prints in the image.
fn build_and_run(w: &World, user: Option<&str>, shell: &str) -> String {
    let ply = w.path("ply");
    std::fs::copy(&w.ply, &ply).unwrap();
    let dir = w.dir.path().display();
    let script = format!(
        "cd {dir} && export HOME={dir}/home PLY_STORE={dir}/store && {ply} build -q --build-context {} -t t ctx && {ply} run --rm t sh -c '{shell}'",
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
fn a_step_reaches_nothing_that_it_should_not() {
    if let Some(worked) = reached(None) {
        assert_eq!(worked, CONTROLS);
    }
}

#[test]
fn privileged_an_ordinary_users_step_reaches_no_more() {
    if !is_root() {
        return skipped("needs root, to make accounts");
    }
    for (tag, ranges) in [("bat", true), ("bat1", false)] {
        let Some(account) = Account::new(tag, ranges) else { return };
        if let Some(worked) = reached(Some(account.name())) {
            assert_eq!(worked, CONTROLS, "{tag}");
        }
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
