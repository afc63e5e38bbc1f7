//! Sandboxes that really run: static busybox in a temporary root.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use super::fixture::{busybox_root, eprintln_skip, skip};
use super::*;
use crate::sys;

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

/// Runs the ignored test `name` of this binary, alone and so with one thread, through `command`; returns its output.
fn rerun(command: &[&str], name: &str) -> String {
    let directory = tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let binary = directory.path().join("tests");
    // A link: a copy that another thread's child still holds open for writing could not be executed (ETXTBSY).
    std::fs::hard_link(std::env::current_exe().unwrap(), &binary).unwrap();
    let name = format!("sandbox::privileged_tests::{name}");
    let output = std::process::Command::new(command[0])
        .args(&command[1..])
        .arg(&binary)
        .args(["--exact", &name, "--ignored", "--nocapture", "--test-threads=1"])
        .env("RUST_BACKTRACE", "0")
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text
}

/// Runs `work` in a process with one thread, as the program's start is.
fn alone(work: fn()) {
    // SAFETY: the harness's other thread waits for this test; nothing holds a lock.
    match unsafe { sys::process::clone3(0) }.unwrap() {
        sys::process::Cloned::Child => sys::process::exit(i32::from(std::panic::catch_unwind(work).is_err())),
        sys::process::Cloned::Parent { pidfd, .. } => {
            let exited = rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
            assert_eq!(exited.unwrap().unwrap().exit_status(), Some(0));
        }
    }
}

const NO_USER: [&str; 5] = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--"];

#[test]
fn privileged_an_ordinary_user_with_one_id_gets_a_whole_sandbox() {
    if !skip() {
        rerun(&NO_USER, "inner_single_id");
    }
}

#[test]
#[ignore = "run by another test, as an ordinary user"]
fn inner_single_id() {
    alone(|| {
        let identity = userns::enter(userns::IdPolicy::SingleOnly).unwrap();
        assert_eq!(identity, userns::Identity::Single { reason: "only one id was asked for".into() });
        let root = busybox_root();
        let script =
            "id; grep -E '^Cap|Seccomp:' /proc/self/status; touch f && chown 33:33 f && stat -c %u f; mknod d c 8 0; ls d; echo $$";
        let mut spec = spec(root.path(), &["sh", "-c", script]);
        spec.fake_ownership = true;
        let (text, exit) = output(spec);
        let capabilities = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                            CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nSeccomp:\t2\n";
        // chown says that it worked, and the owner is still the one that exists; the device was not made.
        assert_eq!(text, format!("uid=0(root) gid=0\n{capabilities}0\nls: d: No such file or directory\n1\n"));
        assert_eq!(exit.unwrap(), Exit::Code(0));
    });
}

#[test]
fn privileged_an_ordinary_user_with_ranges_has_other_ids_too() {
    let subuid = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let user = subuid.lines().find_map(|line| line.split(':').next().filter(|name| name.parse::<u32>().is_err()));
    let Some(user) = user.filter(|_| Path::new("/usr/bin/newuidmap").exists()) else {
        return eprintln_skip();
    };
    if !skip() {
        rerun(&["runuser", "-u", user, "--"], "inner_ranges");
    }
}

#[test]
#[ignore = "run by another test, as an ordinary user"]
fn inner_ranges() {
    alone(|| {
        let identity = userns::enter(userns::IdPolicy::RangesOnly).unwrap();
        assert!(matches!(identity, userns::Identity::Ranges { count } if count > 1000), "{identity:?}");
        let root = busybox_root();
        std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let script = "id; grep -E '^Cap|^Groups|Seccomp:' /proc/self/status; stat -c %u:%g /bin/sh /dev/null /dev/pts; echo > /dev/stdout";
        let mut spec = spec(root.path(), &["sh", "-c", script]);
        spec.user = UserIds { uid: 33, gid: 34, groups: vec![35, 36] };
        let (text, exit) = output(spec);
        let nothing = "0000000000000000";
        let capabilities = format!(
            "Groups:\t35 36 \nCapInh:\t{nothing}\nCapPrm:\t{nothing}\nCapEff:\t{nothing}\nCapBnd:\t00000000a80425fb\nCapAmb:\t{nothing}\n"
        );
        assert_eq!(text, format!("uid=33 gid=34 groups=35,36\n{capabilities}Seccomp:\t2\n0:0\n65534:65534\n0:0\n\n"));
        assert_eq!(exit.unwrap(), Exit::Code(0));
    });
}

#[test]
fn privileged_kernel_state_is_masked_or_read_only() {
    if skip() {
        return;
    }
    let script = "cat /proc/interrupts /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
        for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/new; do (echo x > $f) 2>/dev/null && echo wrote $f; done; \
        umount /proc/interrupts 2>/dev/null && echo unmounted; mount -t tmpfs x /tmp 2>/dev/null && echo mounted; \
        mknod /tmp/sda b 8 0 && cat /tmp/sda 2>/dev/null | wc -c; setsid sleep 1000 & exit 0";
    let start = std::time::Instant::now();
    let text = shell(script);
    assert!(text.starts_with("0\n0\n") && !text.contains("wrote") && !text.contains("mounted"), "{text}");
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "the daemon was waited for");
}

#[test]
fn privileged_no_network_is_loopback_alone_and_no_mount_is_left() {
    if skip() {
        return;
    }
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = busybox_root();
    let mut spec = spec(root.path(), &["sh", "-c", "ls /sys/class/net; ip addr show lo | grep -c UP; cat /f; stat -c %a /f"]);
    spec.network = Network::None;
    let secret = MountSource::File { content: b"secret\n".to_vec(), mode: 0o400, uid: 0, gid: 0 };
    spec.mounts = vec![MountSpec::new("/f", secret).readonly().plain_files()];
    let stubs = stubs::Stubs::create(std::fs::File::open(root.path()).unwrap(), &spec.stub_targets().unwrap()).unwrap();
    let (text, exit) = output(spec);
    assert_eq!((text.as_str(), exit.unwrap()), ("lo\n1\nsecret\n400\n", Exit::Code(0)));
    stubs.remove().unwrap();
    assert!(!root.path().join("f").exists());
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn privileged_nothing_of_the_old_root_lies_on_the_new_one() {
    if skip() {
        return;
    }
    // A file mount puts one more mount over the old root; the first versions then left that in place.
    for files in 0..3 {
        let root = busybox_root();
        std::fs::write(root.path().join("f"), "").unwrap();
        let before = crate::sandbox::fixture::listing(root.path());
        let mut spec = spec(root.path(), &["sh", "-c", "ls /..; ls -d /../bin/busybox; grep -cE '^([^ ]+ ){4}/ ' /proc/self/mountinfo"]);
        for _ in 0..files {
            let source = MountSource::File { content: Vec::new(), mode: 0o644, uid: 0, gid: 0 };
            spec.mounts.push(MountSpec::new("/f", source));
        }
        let (text, exit) = output(spec);
        assert_eq!((text, exit.unwrap()), (format!("{before}/../bin/busybox\n1\n"), Exit::Code(0)), "{files} files");
    }
}
