//! Sandboxes that really run: static busybox in a temporary root.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use super::*;

fn skip() -> bool {
    let root = rustix::process::geteuid().is_root() && Path::new("/bin/busybox").exists();
    if !root {
        eprintln_skip();
    }
    !root
}

#[allow(clippy::print_stderr)]
fn eprintln_skip() {
    eprintln!("skipped: needs root and a static /bin/busybox");
}

pub(super) fn busybox_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        std::fs::create_dir(root.path().join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    for name in ["sh", "ls", "cat", "env", "true", "sleep", "id", "grep", "mount", "stat", "hostname", "ip", "tty", "chown", "mknod", "ps"]
    {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    root
}

pub(super) fn spec(root: &Path, argv: &[&str]) -> SandboxSpec {
    SandboxSpec {
        root: RootMount::Directory(root.into()),
        readonly_root: false,
        mounts: Vec::new(),
        argv: argv.iter().map(Into::into).collect(),
        env: vec![("PATH".into(), "/bin".into()), ("A".into(), "b c".into())],
        cwd: "/".into(),
        user: UserIds::default(),
        hostname: "box".into(),
        network: Network::Host,
        terminal: None,
        insecure: false,
        no_new_privs: false,
        fake_ownership: false,
        shm_size_bytes: defaults::SHM_SIZE_BYTES,
        rlimits: Vec::new(),
        host: HostFacts::gather().unwrap(),
    }
}

/// Runs a specification; returns its output (both streams) and how it ended.
pub(super) fn output(spec: SandboxSpec) -> (String, Result<Exit, SandboxError>) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let running = spawn(spec, Stdio { stdin: null.as_fd(), stdout: writer.as_fd(), stderr: writer.as_fd() });
    drop(writer);
    let mut text = String::new();
    let exit = running.and_then(|running| {
        reader.read_to_string(&mut text).unwrap();
        running.wait()
    });
    (text, exit)
}

fn shell(script: &str) -> String {
    let root = busybox_root();
    let (text, exit) = output(spec(root.path(), &["sh", "-c", script]));
    assert_eq!(exit.unwrap(), Exit::Code(0), "{text}");
    text
}

#[test]
fn privileged_the_environment_is_exactly_the_specified_one() {
    if skip() {
        return;
    }
    assert_eq!(
        shell("cat /proc/1/environ | tr '\\0' '\\n'; hostname; id; ls /proc/self/fd"),
        "PATH=/bin\nA=b c\nbox\nuid=0(root) gid=0\n0\n1\n2\n3\n"
    );
}
