//! Each input changed singly: the key changes, and no two changes give one key.

use super::super::state::StateId;
use super::*;
use crate::digest::LayerId;

pub(in crate::cache) fn content(n: u8) -> ContentDigest {
    ContentDigest::from_bytes([n; 32])
}

fn inputs(step: StepInputs) -> KeyInputs {
    KeyInputs { platform: Platform::new("linux", "amd64", ""), parent: StateId::scratch(), step }
}

pub(in crate::cache) fn run() -> RunInputs {
    let mount = |target: &str, source| MountInputs { target: target.into(), readonly: false, source };
    RunInputs {
        argv: ["/bin/sh", "-c", "make"].map(Into::into).to_vec(),
        env: vec![("PATH".into(), "/bin".into()), ("A".into(), "1".into())],
        cwd: "/src".into(),
        user: "app".into(),
        hostname: "buildkitsandbox".into(),
        mounts: vec![
            mount("/b", MountSource::Bind { content: content(1) }),
            mount("/c", MountSource::Cache { seed: None, mode: 0o755, uid: 0, gid: 0 }),
            mount("/t", MountSource::Tmpfs { size_bytes: None }),
            mount("/s", MountSource::Secret { id: "s".into(), required: false, env: None, mode: 0o400, uid: 0, gid: 0 }),
            mount("/a", MountSource::Ssh { id: "a".into(), required: false, mode: 0o600, uid: 0, gid: 0 }),
        ],
        scripts: vec![("EOF".into(), content(2))],
        ulimits: vec![("nofile".into(), 1, 2)],
        extra_hosts: vec!["h".into()],
        ..RunInputs::default()
    }
}

pub(in crate::cache) fn copy() -> CopyInputs {
    let source = |kind, pattern: &str, names: &[&str]| SourceInputs {
        kind,
        pattern: pattern.into(),
        matches: names.iter().map(|n| MatchInputs { name: (*n).into(), content: content(1) }).collect(),
    };
    CopyInputs {
        sources: vec![
            source(SourceKind::Path, "app", &["app"]),
            source(SourceKind::Path, "*.c", &["a.c", "b.c"]),
            source(SourceKind::Inline, "EOF", &["EOF"]),
            source(SourceKind::Http, "x.tgz", &["x.tgz"]),
        ],
        dest: "/srv/".into(),
        exclude: vec!["*.o".into()],
        add: Some(AddInputs::default()),
        ..CopyInputs::default()
    }
}

/// Base inputs, those with one thing changed, and the words for the change. The last is for `miss`.
pub(in crate::cache) fn singles() -> Vec<(KeyInputs, KeyInputs, &'static str)> {
    let mut all = Vec::new();
    let mut of_run = |words, change: &dyn Fn(&mut RunInputs)| {
        let mut changed = run();
        change(&mut changed);
        all.push((inputs(StepInputs::Run(Box::new(run()))), inputs(StepInputs::Run(Box::new(changed))), words));
    };
    of_run("command changed (\"make\" -> \"make all\")", &|r| r.argv[2] = "make all".into());
    of_run("command changed (\"/bin/sh\" -> \"/bin/bash\")", &|r| r.argv[0] = "/bin/bash".into());
    of_run("command changed (nothing -> \"x\")", &|r| r.argv.push("x".into()));
    of_run("env A changed (\"1\" -> \"2\")", &|r| r.env[1].1 = "2".into());
    of_run("env A changed (\"1\" -> \"\")", &|r| r.env[1].1 = String::new());
    of_run("env A changed (\"1\" -> unset)", &|r| drop(r.env.pop()));
    of_run("env RUSTFLAGS changed (unset -> \"-C lto\")", &|r| r.env.push(("RUSTFLAGS".into(), "-C lto".into())));
    of_run("order of the environment changed", &|r| r.env.swap(0, 1));
    of_run("working directory changed (\"/src\" -> \"/\")", &|r| r.cwd = "/".into());
    of_run("user changed (\"app\" -> \"\")", &|r| r.user = String::new());
    of_run("hostname changed (\"buildkitsandbox\" -> \"h\")", &|r| r.hostname = "h".into());
    of_run("network changed (\"default\" -> \"none\")", &|r| r.network = Network::None);
    of_run("network changed (\"default\" -> \"host\")", &|r| r.network = Network::Host);
    of_run("--security=insecure changed (unset -> \"on\")", &|r| r.insecure = true);
    of_run("EOF", &|r| r.scripts[0].1 = content(3));
    of_run("heredocs changed (\"EOF\" -> \"X\")", &|r| r.scripts[0].0 = "X".into());
    of_run("--shm-size changed (unset -> \"64\")", &|r| r.shm_size_bytes = Some(64));
    of_run("--ulimit changed (\"nofile=1:2\" -> \"nofile=1:3\")", &|r| r.ulimits[0].2 = 3);
    of_run("--add-host changed (\"h\" -> \"h i\")", &|r| r.extra_hosts.push("i".into()));
    of_run("content of /b changed", &|r| r.mounts[0].source = MountSource::Bind { content: content(9) });
    of_run("mount /b readonly changed (unset -> \"on\")", &|r| r.mounts[0].readonly = true);
    of_run("mount target changed (\"/t\" -> \"/T\")", &|r| r.mounts[2].target = "/T".into());
    of_run("mount /a changed (\"ssh\" -> unset)", &|r| drop(r.mounts.pop()));
    let cache = |seed, mode, uid, gid| MountSource::Cache { seed, mode, uid, gid };
    of_run("mount /c seed changed (unset -> \"files\")", &|r| r.mounts[1].source = cache(Some(content(1)), 0o755, 0, 0));
    of_run("mount /c mode changed (\"0755\" -> \"0700\")", &|r| r.mounts[1].source = cache(None, 0o700, 0, 0));
    of_run("mount /c uid changed (\"0\" -> \"1\")", &|r| r.mounts[1].source = cache(None, 0o755, 1, 0));
    of_run("mount /c gid changed (\"0\" -> \"1\")", &|r| r.mounts[1].source = cache(None, 0o755, 0, 1));
    of_run("mount /t size changed (unset -> \"1\")", &|r| r.mounts[2].source = MountSource::Tmpfs { size_bytes: Some(1) });
    let secret = |id: &str, required, env: Option<&str>, mode, uid, gid| MountSource::Secret {
        id: id.into(),
        required,
        env: env.map(Into::into),
        mode,
        uid,
        gid,
    };
    of_run("mount /s id changed (\"s\" -> \"S\")", &|r| r.mounts[3].source = secret("S", false, None, 0o400, 0, 0));
    of_run("mount /s required changed (unset -> \"on\")", &|r| r.mounts[3].source = secret("s", true, None, 0o400, 0, 0));
    of_run("mount /s env changed (unset -> \"S\")", &|r| r.mounts[3].source = secret("s", false, Some("S"), 0o400, 0, 0));
    of_run("mount /s mode changed (\"0400\" -> \"0444\")", &|r| r.mounts[3].source = secret("s", false, None, 0o444, 0, 0));
    of_run("mount /s uid changed", &|r| r.mounts[3].source = secret("s", false, None, 0o400, 1, 0));
    of_run("mount /s gid changed", &|r| r.mounts[3].source = secret("s", false, None, 0o400, 0, 1));
    let ssh = |id: &str, required, mode, uid, gid| MountSource::Ssh { id: id.into(), required, mode, uid, gid };
    of_run("mount /a id changed (\"a\" -> \"b\")", &|r| r.mounts[4].source = ssh("b", false, 0o600, 0, 0));
    of_run("mount /a required changed", &|r| r.mounts[4].source = ssh("a", true, 0o600, 0, 0));
    of_run("mount /a mode changed", &|r| r.mounts[4].source = ssh("a", false, 0o660, 0, 0));
    of_run("mount /a uid changed", &|r| r.mounts[4].source = ssh("a", false, 0o600, 1, 0));
    of_run("mount /a gid changed", &|r| r.mounts[4].source = ssh("a", false, 0o600, 0, 1));

    let mut of_copy = |words, change: &dyn Fn(&mut CopyInputs)| {
        let mut changed = copy();
        change(&mut changed);
        all.push((inputs(StepInputs::Copy(Box::new(copy()))), inputs(StepInputs::Copy(Box::new(changed))), words));
    };
    of_copy("content of app changed", &|c| c.sources[0].matches[0].content = content(2));
    of_copy("content of b.c changed", &|c| c.sources[1].matches[1].content = content(2));
    of_copy("file b.c removed", &|c| drop(c.sources[1].matches.pop()));
    of_copy("file c.c added", &|c| {
        c.sources[1].matches.push(MatchInputs { name: "c.c".into(), content: content(1) });
    });
    of_copy("content of *.c changed", &|c| c.sources[1].matches.swap(0, 1));
    of_copy("heredoc EOF changed", &|c| c.sources[2].matches[0].content = content(2));
    of_copy("x.tgz now answers other content", &|c| c.sources[3].matches[0].content = content(2));
    of_copy("sources changed", &|c| c.sources[0].pattern = "lib".into());
    of_copy("sources changed", &|c| c.sources[0].kind = SourceKind::Git);
    of_copy("sources changed", &|c| drop(c.sources.pop()));
    of_copy("destination changed (\"/srv/\" -> \"/srv\")", &|c| c.dest = "/srv".into());
    of_copy("--chown changed (unset -> \"1:2\")", &|c| c.chown = Some("1:2".into()));
    of_copy("--chmod changed (unset -> \"644\")", &|c| c.chmod = Some("644".into()));
    of_copy("--link changed (unset -> \"on\")", &|c| c.link = true);
    of_copy("--parents changed (unset -> \"on\")", &|c| c.parents = true);
    of_copy("--exclude changed (\"*.o\" -> unset)", &|c| c.exclude.clear());
    of_copy("instruction changed (ADD -> COPY)", &|c| c.add = None);
    let add = |change: &dyn Fn(&mut AddInputs)| {
        let mut add = AddInputs::default();
        change(&mut add);
        Some(add)
    };
    of_copy("--keep-git-dir changed (unset -> \"on\")", &|c| c.add = add(&|a| a.keep_git_dir = true));
    of_copy("--unpack changed (unset -> \"true\")", &|c| c.add = add(&|a| a.unpack = Some(true)));
    of_copy("--unpack changed (unset -> \"false\")", &|c| c.add = add(&|a| a.unpack = Some(false)));

    let workdir = |path: &str, user: &str| WorkdirInputs { path: path.into(), user: user.into() };
    let of = |w| inputs(StepInputs::Workdir(w));
    all.push((of(workdir("/a", "u")), of(workdir("/b", "u")), "directory changed (\"/a\" -> \"/b\")"));
    all.push((of(workdir("/a", "u")), of(workdir("/a", "v")), "user changed (\"u\" -> \"v\")"));

    let base = of(workdir("/a", "u"));
    let platform = |p| KeyInputs { platform: p, ..base.clone() };
    all.push((base.clone(), platform(Platform::new("linux", "arm64", "")), "platform changed (\"linux/amd64\" -> \"linux/arm64\")"));
    all.push((base.clone(), platform(Platform::new("linux", "amd64", "v2")), "platform changed"));
    all.push((base.clone(), platform(Platform::new("windows", "amd64", "")), "platform changed"));
    let versioned = Platform { os_version: "10".into(), ..Platform::new("linux", "amd64", "") };
    all.push((base.clone(), platform(versioned), "platform changed"));
    let parent = StateId::of(&[LayerId::Content(content(1))]);
    all.push((base.clone(), KeyInputs { parent, ..base }, "what it stands on changed (step 4 or below)"));
    all
}

#[test]
fn each_input_changed_singly_gives_another_key() {
    let cases = singles();
    let mut keys = std::collections::BTreeMap::new();
    for (base, changed, words) in &cases {
        assert_ne!(base.key(), changed.key(), "{words}");
        let text = serde_json::to_string(changed).unwrap();
        if let Some(other) = keys.insert(changed.key(), text.clone()) {
            panic!("one key for two inputs:\n{other}\n{text}");
        }
    }
    assert_eq!(keys.len(), cases.len());
}

#[test]
fn equal_inputs_give_one_key_also_after_a_journey_through_json() {
    for (base, changed, _) in singles() {
        for inputs in [base, changed] {
            let text = serde_json::to_string(&inputs).unwrap();
            let back: KeyInputs = serde_json::from_str(&text).unwrap();
            assert_eq!((back.key(), &back), (inputs.key(), &inputs), "{text}");
        }
    }
}

#[test]
fn what_moves_between_neighbouring_fields_changes_the_key() {
    let key = |step: RunInputs| inputs(StepInputs::Run(Box::new(step))).key();
    let with = |change: &dyn Fn(&mut RunInputs)| {
        let mut run = run();
        change(&mut run);
        key(run)
    };
    let moved = [
        with(&|r| (r.cwd, r.user) = ("/src".into(), "app".into())),
        with(&|r| (r.cwd, r.user) = ("/srca".into(), "pp".into())),
        with(&|r| (r.cwd, r.user) = ("app".into(), "/src".into())),
        with(&|r| r.env = vec![("PATH".into(), "/binA1".into())]),
        with(&|r| r.argv = ["/bin/sh", "-c make"].map(Into::into).to_vec()),
        with(&|r| {
            r.extra_hosts.clear();
            r.argv.push("h".into());
        }),
    ];
    let different: std::collections::BTreeSet<_> = moved.iter().collect();
    assert_eq!(different.len(), moved.len());
}

/// A change of this value loses every user's cache: only together with [`FORMAT`], or for a good reason.
#[test]
fn the_keys_of_this_format_are_stable() {
    let keys = [StepInputs::Run(Box::new(run())), StepInputs::Copy(Box::new(copy()))].map(|s| inputs(s).key().to_string());
    assert_eq!(
        keys,
        [
            "key:457d5da352e7abac7b54d231a565c2dd0220c475cc9f7557b4c1e5d36486ee2e",
            "key:965921b8fb04230b3aee226e732ca1a5540f60a4e8dff62eff14792298dedf91"
        ]
    );
}
