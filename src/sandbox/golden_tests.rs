//! The programs of some specifications, as text: `testdata/sandbox/*.txt`. SNAPSHOTS=overwrite writes them anew.
//!
//! A change in one of these files is a change of what keeps a step from the host: read it as such.

use std::os::fd::OwnedFd;

use super::facts::{DeviceSource, IdRange, ProcSource};
use super::spec::Shape;
use super::terminal::TerminalSide;
use super::*;

fn any_fd() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// A RUN of root on root's host.
fn plain() -> SandboxSpec {
    SandboxSpec {
        root: RootMount::Detached(any_fd()),
        readonly_root: false,
        mounts: Vec::new(),
        argv: ["/bin/sh", "-c", "make all"].iter().map(Into::into).collect(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("V".into(), "1 2".into())],
        cwd: "/src/app".into(),
        user: UserIds::default(),
        hostname: "buildkitsandbox".into(),
        network: Network::Host,
        terminal: None,
        insecure: false,
        no_new_privs: false,
        fake_ownership: false,
        shm_size_bytes: defaults::SHM_SIZE_BYTES,
        rlimits: Vec::new(),
        host: HostFacts::of_a_roots_host(),
    }
}

fn users_host() -> HostFacts {
    HostFacts { devices: DeviceSource::Bind, ids: IdRange::Many(65537), in_user_namespace: true, ..HostFacts::of_a_roots_host() }
}

fn text(spec: &SandboxSpec, shapes: &[Shape]) -> String {
    compile(spec, shapes).unwrap().to_string()
}

fn golden(text: String, name: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/sandbox").join(name);
    snapbox::Assert::new().action_env(snapbox::assert::DEFAULT_ACTION_ENV).eq(text, snapbox::Data::read_from(&path, None).raw());
}

#[test]
fn a_run_of_root() {
    golden(text(&plain(), &[]), "root.txt");
}

#[test]
fn a_run_of_another_user_in_a_user_namespace_without_network() {
    let user = UserIds { uid: 1000, gid: 1001, groups: vec![1001, 27] };
    let spec = SandboxSpec { user, network: Network::None, no_new_privs: true, host: users_host(), ..plain() };
    golden(text(&spec, &[]), "user-namespace-no-network.txt");
}

#[test]
fn a_run_with_a_single_id_in_a_container_whose_proc_is_masked() {
    let host = HostFacts {
        ids: IdRange::Single,
        proc: ProcSource::Host,
        unified_cgroups: false,
        machine_masked_paths: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()],
        ..users_host()
    };
    let spec = SandboxSpec { fake_ownership: true, host, ..plain() };
    golden(text(&spec, &[]), "single-id-reduced.txt");
}

#[test]
fn an_insecure_run() {
    golden(text(&SandboxSpec { insecure: true, ..plain() }, &[]), "insecure.txt");
}

#[test]
fn a_container_with_a_terminal_mounts_and_limits() {
    let bind = |recursive| MountSource::Bind { source: any_fd(), recursive };
    let file = MountSource::File { content: b"x".to_vec(), mode: 0o400, uid: 0, gid: 0 };
    let spec = SandboxSpec {
        argv: vec!["top".into()],
        cwd: "/".into(),
        readonly_root: true,
        terminal: Some(TerminalSide { tty: any_fd(), file_system: any_fd(), number: 0 }),
        rlimits: vec![Rlimit { resource: Rlimit::resource_of("nofile").unwrap(), soft: 1024, hard: 4096 }],
        mounts: vec![
            MountSpec::new("/data", bind(true)),
            MountSpec::new("/data/sub/file", bind(false)).readonly(),
            MountSpec::new("/run/secrets/token", file).readonly().plain_files(),
            MountSpec::new("/scratch", MountSource::Tmpfs { size_bytes: Some(4096), mode: 0o1777 }).plain_files(),
            MountSpec::new("/layers", MountSource::Detached(any_fd())),
            MountSpec::new("/dev/pipes/script", MountSource::File { content: Vec::new(), mode: 0o755, uid: 0, gid: 0 }).readonly(),
        ],
        ..plain()
    };
    let shapes = [Shape::Directory, Shape::File, Shape::File, Shape::Directory, Shape::Directory, Shape::File];
    golden(text(&spec, &shapes), "container.txt");
}

#[test]
fn wrong_specifications_are_named() {
    let mount = |target: &str| MountSpec::new(target, MountSource::Tmpfs { size_bytes: None, mode: 0o755 });
    let clean = |path: &str| format!("path `{path}` is not absolute and clean");
    let hidden = |path: &str| format!("mounting on `{path}` is not allowed: it would hide or replace kernel state");
    for (spec, want) in [
        (SandboxSpec { argv: Vec::new(), ..plain() }, "the command is empty".into()),
        (SandboxSpec { argv: vec!["".into()], ..plain() }, "the command is empty".into()),
        (SandboxSpec { argv: vec!["a\0b".into()], ..plain() }, "`a\0b` holds a NUL byte".into()),
        (SandboxSpec { cwd: "src".into(), ..plain() }, clean("src")),
        (SandboxSpec { cwd: "/a/../b".into(), ..plain() }, clean("/a/../b")),
        (
            SandboxSpec { env: vec![("A=B".into(), String::new())], ..plain() },
            "environment variable name `A=B` is empty or holds `=`".into(),
        ),
        (SandboxSpec { mounts: vec![mount("/")], ..plain() }, hidden("/")),
        (SandboxSpec { mounts: vec![mount("/proc")], ..plain() }, hidden("/proc")),
        (SandboxSpec { mounts: vec![mount("/proc/self/attr")], ..plain() }, hidden("/proc/self/attr")),
        (SandboxSpec { mounts: vec![mount("//proc")], ..plain() }, clean("//proc")),
        (SandboxSpec { mounts: vec![mount("/a/")], ..plain() }, clean("/a/")),
    ] {
        let shapes: Vec<Shape> = spec.mounts.iter().map(|_| Shape::Directory).collect();
        assert_eq!(compile(&spec, &shapes).unwrap_err().to_string(), want);
    }
}
