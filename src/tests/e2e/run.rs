//! `ply run`: docker's rules for the command, the environment, the user, and the exit code.

use std::io::Write as _;
use std::process::Stdio;

use super::{Done, World, is_root, skipped};

fn world(dockerfile: &str) -> World {
    let w = World::new();
    w.image(dockerfile).ok();
    w
}

#[test]
fn exit_codes_are_dockers() {
    let w = world("FROM base\nRUN touch /plain\n");
    for (args, code) in [
        (&["t", "true"][..], 0),
        (&["t", "sh", "-c", "exit 7"], 7),
        (&["t", "sh", "-c", "kill -9 $$; kill -TERM 1; exec sh -c 'kill -KILL $$'"], 0),
        (&["t", "/plain"], 126),
        (&["t", "no-such-program"], 127),
        (&["no-such-image"], 125),
        (&["--no-such-flag", "t"], 125),
    ] {
        let mut all = vec!["run", "--rm"];
        all.extend(args);
        let done = w.ply(&all);
        // A pid 1 is not killed by its own signals; what it then returns is its own affair.
        if code != 0 || args[1] == "true" {
            assert_eq!(done.code, Some(code), "{args:?} {done:#?}");
        }
    }
}

#[test]
fn entrypoint_command_and_overrides_combine_as_in_docker() {
    let w = world("FROM base\nENTRYPOINT [\"echo\",\"e\"]\nCMD [\"c\"]\n");
    assert_eq!(w.out(&[]), "e c\n");
    assert_eq!(w.out(&["x", "y"]), "e x y\n");
    assert_eq!(w.ply(&["run", "--rm", "--entrypoint", "cat", "t", "/etc/hostname"]).code, Some(0));
    assert_eq!(w.ply(&["run", "--rm", "--entrypoint", "echo", "t"]).ok().stdout, "\n");
}

#[test]
fn environment_user_directory_and_host_name_are_what_was_asked() {
    let w = world("FROM base\nENV A=1 B=1\nWORKDIR /w\n");
    std::fs::write(w.path("envs"), "# comment\nB=file\nC=file\n").unwrap();
    let envs = w.path("envs");
    let run = |args: &[&str]| w.ply(&[&["run", "--rm"], args].concat()).ok().stdout;
    assert_eq!(
        run(&["-e", "A=2", "--env-file", envs.to_str().unwrap(), "t", "sh", "-c", "echo $A $B $C $HOME $PWD"]),
        "2 file file /root /w\n"
    );
    assert_eq!(run(&["-w", "/", "-u", "5:6", "t", "sh", "-c", "id -u; id -g; pwd"]), "5\n6\n/\n");
    assert_eq!(run(&["--hostname", "box", "t", "cat", "/proc/sys/kernel/hostname"]), "box\n");
}

#[test]
fn privileged_a_device_made_in_a_volume_is_not_opened_and_docker_s_own_ones_are() {
    if !is_root() {
        return skipped("needs root, to make devices");
    }
    let w = World::new();
    w.file("Dockerfile", "FROM nodes\n").build(&["-t", "t", "--build-context", "nodes=host:sh,cat,mknod"]).ok();
    std::fs::create_dir(w.path("data")).unwrap();
    let data = format!("{}:/data", w.path("data").display());
    let script = "mknod /data/null c 1 3 && ! cat /data/null && cat /null && : > /null && ! sh -c ': > /kmsg'";
    w.ply(&["run", "--rm", "-v", &data, "-v", "/dev/null:/null", "-v", "/dev/kmsg:/kmsg", "t", "sh", "-c", script]).ok();
}

#[test]
fn volumes_are_bound_and_read_only_ones_are() {
    let w = world("FROM base\n");
    std::fs::create_dir(w.path("data")).unwrap();
    std::fs::write(w.path("data/in"), "in").unwrap();
    let spec = format!("{}:/data", w.path("data").display());
    w.ply(&["run", "--rm", "-v", &spec, "t", "sh", "-c", "cat /data/in > /data/out"]).ok();
    assert_eq!(std::fs::read_to_string(w.path("data/out")).unwrap(), "in");
    assert_ne!(w.ply(&["run", "--rm", "-v", &format!("{spec}:ro"), "t", "touch", "/data/no"]).code, Some(0));
}

#[test]
fn standard_input_reaches_the_process_with_i() {
    let w = world("FROM base\n");
    let mut child = w.command(&["run", "--rm", "-i", "t", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let done: Done = child.wait_with_output().unwrap().into();
    assert_eq!(done.ok().stdout, "through");
    assert_eq!(w.command(&["run", "--rm", "t", "cat"]).output().unwrap().stdout, b"");
}

#[test]
fn without_a_network_only_loopback_is_there() {
    let w = world("FROM base\n");
    let got = w.ply(&["run", "--rm", "--network", "none", "t", "cat", "/proc/net/dev"]).ok().stdout;
    assert_eq!(got.lines().filter(|l| l.contains(':')).map(|l| l.trim().split(':').next().unwrap()).collect::<Vec<_>>(), ["lo"]);
}

#[test]
fn a_container_changes_nothing_in_its_image() {
    let w = world("FROM base\nRUN echo 1 > /n\n");
    assert_eq!(w.out(&["sh", "-c", "echo 2 > /n; cat /n"]), "2\n");
    assert_eq!(w.out(&["cat", "/n"]), "1\n");
}

#[test]
fn images_are_listed_tagged_inspected_and_removed() {
    let w = world("FROM base\nRUN echo 1 > /n\nCMD [\"true\"]\n");
    w.ply(&["tag", "t", "other:1"]).ok();
    assert!(w.ply(&["images"]).ok().stdout.contains("other"));
    assert!(w.ply(&["history", "--no-trunc", "other:1"]).ok().stdout.contains("echo 1 > /n"));
    w.ply(&["rmi", "t"]).ok();
    assert_eq!(w.ply(&["run", "--rm", "other:1", "true"]).code, Some(0));
    w.ply(&["rmi", "other:1"]).ok();
    w.ply(&["inspect", "other:1"]).fails(1);
    w.ply(&["fsck"]).ok();
}

#[test]
fn a_terminal_is_given_with_t() {
    // `script` gives ply a terminal of its own.
    let w = world("FROM base\n");
    let line = format!("{} run --rm -it t sh -c 'test -t 0 && test -t 1 && echo is-a-tty'", w.ply.display());
    let done = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("PLY_STORE", w.path("store"))
        .stdin(Stdio::null())
        .output();
    match done {
        Ok(o) => assert!(String::from_utf8_lossy(&o.stdout).contains("is-a-tty"), "{o:?}"),
        Err(_) => super::skipped("script is not installed"),
    }
}
