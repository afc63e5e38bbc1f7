//! Containers that really run: static busybox, a plain directory as the root.

use std::os::fd::AsFd;
use std::sync::mpsc;

use rustix::mount::{OpenTreeFlags, open_tree};

use super::request::{parse_mount, parse_volume};
use super::*;
use crate::sandbox::fixture::{busybox_root, skip};

struct Outcome {
    text: String,
    result: Result<i32, RunError>,
    /// Containers that are left.
    left: usize,
}

/// Runs busybox with our streams as pipes, or (`terminal`) as a terminal into which `input` is typed.
fn outcome(request: RunRequest, image_user: &str, input: Option<&str>) -> Outcome {
    let (root, store) = (busybox_root(), tempfile::tempdir().unwrap());
    let trash = tempfile::tempdir_in(store.path().parent().unwrap()).unwrap();
    let containers = Containers::open(store.path(), trash.path()).unwrap();
    let mut config = ImageConfig::default();
    config.config.env = vec!["PATH=/bin".into()];
    config.config.user = image_user.into();
    let image = ImageToRun { name: "test".into(), config, lowers: Vec::new() };
    let host = HostFacts::gather().unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount_root = |_: &[PathBuf], _: &Path| {
        let mount = open_tree(rustix::fs::CWD, root.path(), flags)?;
        Ok(MountedRoot { mount, guard: Box::new(()) })
    };
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (result, text) = match input {
        None => {
            let null = std::fs::File::open("/dev/null").unwrap();
            let streams = Streams { stdin: null.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd(), asked: &|| None };
            let result = run(&request, &image, &containers, &host, streams, 7, mount_root);
            drop(writer);
            (result, read_all(reader))
        }
        Some(input) => {
            let (person, side) = terminal::open((30, 100), &host).unwrap();
            let (sender, receiver) = mpsc::channel();
            let person_reads = person.try_clone().unwrap();
            std::thread::spawn(move || sender.send(read_all(person_reads)));
            rustix::io::write(&person, input.as_bytes()).unwrap();
            let streams = Streams { stdin: side.tty(), stdout: side.tty(), stderr: side.tty(), asked: &|| None };
            let result = run(&request, &image, &containers, &host, streams, 7, mount_root);
            drop(side);
            (result, receiver.recv().unwrap())
        }
    };
    Outcome { text, result, left: containers.list().unwrap().len() }
}

fn read_all(from: OwnedFd) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    // EIO is a terminal's end.
    while let Ok(count @ 1..) = rustix::io::read(&from, &mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(text).unwrap()
}

fn shell(script: &str) -> RunRequest {
    RunRequest { args: ["sh", "-c", script].iter().map(Into::into).collect(), remove: true, ..RunRequest::default() }
}

#[test]
fn privileged_a_container_has_dockers_environment_and_its_volumes() {
    if skip() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("f"), "of the host").unwrap();
    let path = directory.path().display();
    let script = "echo $HOME $HOSTNAME $A $(hostname); id; pwd; cat /v/f; echo; echo x > /v/f; echo x > /w/new; cat /etc/hostname";
    let request = RunRequest {
        env: vec![("A".into(), "1".into())],
        hostname: Some("web".into()),
        workdir: Some("/made/for/it".into()),
        volumes: vec![parse_volume(&format!("{path}:/v:ro")).unwrap(), parse_mount(&format!("type=bind,src={path},dst=/w")).unwrap()],
        ..shell(script)
    };
    let outcome = outcome(request, "app", None);
    let want = "/home/app web 1 web\nuid=1000(app) gid=1000 groups=1000\n/made/for/it\nof the host\n\
                sh: can't create /v/f: Read-only file system\nsh: can't create /w/new: Permission denied\nweb\n";
    assert_eq!((outcome.text.as_str(), outcome.result.unwrap(), outcome.left), (want, 0, 0));
}

#[test]
fn privileged_exit_codes_are_dockers() {
    if skip() {
        return;
    }
    let command = |argv: &[&str]| RunRequest { args: argv.iter().map(Into::into).collect(), ..RunRequest::default() };
    for (request, user, want) in [
        (shell("exit 7"), "", 7),
        (shell("kill -9 $$; sleep 1; true & wait; exit 3"), "", 3),
        (command(&["nothing"]), "", 127),
        (command(&["/nothing"]), "", 127),
        (command(&["/etc/passwd"]), "", 126),
        (command(&["/etc"]), "", 126),
        (command(&["true"]), "unknown", 125),
        (command(&[]), "", 125),
    ] {
        let argv = request.args.clone();
        let kept = usize::from(!request.remove && !argv.is_empty());
        let outcome = outcome(request, user, None);
        let code = outcome.result.unwrap_or_else(|error| error.exit_code());
        assert_eq!((code, outcome.left), (want, kept), "{argv:?}");
    }
}

#[test]
fn privileged_a_terminal_has_a_name_a_size_and_the_persons_keys() {
    if skip() {
        return;
    }
    let request = RunRequest { tty: true, interactive: true, ..shell("tty; stty size; echo $TERM; read line; echo \"got $line\"") };
    let outcome = outcome(request, "", Some("hello\n"));
    assert_eq!(outcome.result.unwrap(), 0);
    // The person's terminal echoes before it becomes raw, or the container's does.
    let lines: Vec<&str> = outcome.text.split("\r\n").filter(|line| *line != "hello").collect();
    assert_eq!(lines, ["/dev/pts/0", "30 100", "xterm", "got hello", ""]);
}
