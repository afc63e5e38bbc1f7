//! Each change is named, and it alone; what is not a change is not.

use std::collections::BTreeMap;

use super::super::files::FileEntry;
use super::super::key::tests::{content, copy, run, singles};
use super::super::key::{SourceInputs, WorkdirInputs};
use super::super::state::StateId;
use super::words::quoted;
use super::*;
use crate::digest::LayerId;
use crate::image::platform::Platform;

fn slot(inputs: &KeyInputs, sources: &[&str]) -> Slot {
    Slot { inputs: inputs.clone(), sources: sources.iter().map(ToString::to_string).collect() }
}

fn step_4() -> Parent {
    Parent::Step("step 4".into())
}

fn inputs(step: StepInputs) -> KeyInputs {
    KeyInputs { platform: Platform::new("linux", "amd64", ""), parent: StateId::scratch(), step }
}

#[test]
fn exactly_the_input_that_changed_is_named() {
    for (base, changed, words) in singles() {
        let none = |_: &ContentDigest| None;
        let found = differences(&slot(&changed, &[]), &slot(&base, &[]), &step_4(), &none);
        let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(matches!(&texts[..], [only] if only.contains(words)), "{words}: {texts:?}");
        assert_eq!(differences(&slot(&base, &[]), &slot(&base, &[]), &step_4(), &none), []);
    }
}

#[test]
fn what_is_no_change_has_its_own_reasons() {
    let same = slot(&inputs(StepInputs::Workdir(WorkdirInputs::default())), &[]);
    let none = |_: &ContentDigest| None;
    for (reason, words) in [
        (explain(&same, None, &step_4(), &none), "first build of this step"),
        (explain(&same, Some(&same), &step_4(), &none), "the result of the earlier build is not kept any more"),
        (Reason::NoCache, "--no-cache"),
    ] {
        assert_eq!(reason.to_string(), words);
        let text = serde_json::to_string(&reason).unwrap();
        assert_eq!(serde_json::from_str::<Reason>(&text).unwrap(), reason);
    }
}

#[test]
fn the_state_below_is_named_for_what_it_is_and_last() {
    let mut old = inputs(StepInputs::Run(Box::new(run())));
    let mut new = old.clone();
    new.parent = StateId::of(&[LayerId::Content(content(1))]);
    let none = |_: &ContentDigest| None;
    let base = Parent::Base("alpine:3.20".into());
    let words =
        |new: &KeyInputs, old: &KeyInputs, parent: &Parent| explain(&slot(new, &[]), Some(&slot(old, &[])), parent, &none).to_string();
    assert_eq!(words(&new, &old, &base), "base image changed (alpine:3.20)");
    assert_eq!(words(&new, &old, &step_4()), "step 4 was rebuilt and its result differs");
    if let StepInputs::Run(run) = &mut old.step {
        run.user = "other".into();
    }
    assert_eq!(words(&new, &old, &step_4()), "user changed (\"other\" -> \"app\")");
    let workdir = inputs(StepInputs::Workdir(WorkdirInputs::default()));
    assert_eq!(words(&workdir, &inputs(StepInputs::Run(Box::new(run()))), &step_4()), "instruction changed (RUN -> WORKDIR)");
}

#[test]
fn the_file_that_changed_is_named_by_its_path_in_the_context() {
    let list = |files: &[(&str, u32, u8)]| {
        let entry = |mode, n| FileEntry { mode, uid: 0, gid: 0, content: Some(content(n)), link: b"" };
        FileList::of(files.iter().map(|(path, mode, n)| (path.as_bytes(), entry(*mode, *n))))
    };
    let old = list(&[("", 0o40755, 0), ("main.py", 0o100_644, 1), ("util.py", 0o100_644, 1)]);
    let lists: BTreeMap<ContentDigest, FileList> = [
        (content(1), old),
        (content(2), list(&[("", 0o40755, 0), ("main.py", 0o100_644, 2), ("util.py", 0o100_644, 1)])),
        (content(3), list(&[("", 0o40755, 0), ("main.py", 0o100_755, 1), ("new", 0o100_644, 1), ("util.py", 0o100_644, 1)])),
        (content(4), list(&[("", 0o40755, 0), ("main.py", 0o100_644, 1)])),
        (content(5), list(&[("", 0o100_644, 1)])),
        (content(6), list(&[("", 0o100_644, 2)])),
    ]
    .into();
    let find = |d: &ContentDigest| lists.get(d).cloned();
    let copied = |pattern: &str, n| {
        let name = pattern.into();
        let matches = vec![MatchInputs { name, content: content(n) }];
        let source = SourceInputs { kind: SourceKind::Path, pattern: pattern.into(), matches };
        inputs(StepInputs::Copy(Box::new(CopyInputs { sources: vec![source], ..copy() })))
    };
    for (shown, old, new, words) in [
        ("app/", 1, 2, "file app/main.py changed (content)"),
        ("app/.", 1, 2, "file app/main.py changed (content)"),
        (".", 1, 2, "file main.py changed (content)"),
        ("/", 1, 2, "file main.py changed (content)"),
        ("src/app", 1, 3, "file src/app/main.py changed (mode 0644 -> 0755), and 1 more"),
        ("app", 1, 4, "file app/util.py removed"),
        ("app", 4, 1, "file app/util.py added"),
        ("main.py", 5, 6, "file main.py changed (content)"),
        ("src/*", 5, 6, "file src/p changed (content)"),
        ("app", 1, 99, "content of app changed"),
    ] {
        let (new, old) = (copied("p", new), copied("p", old));
        let reason = explain(&slot(&new, &[shown]), Some(&slot(&old, &[shown])), &step_4(), &find);
        assert_eq!(reason.to_string(), words);
    }
    let mount = |n| {
        let mut run = run();
        run.mounts[0].source = MountSource::Bind { content: content(n) };
        slot(&inputs(StepInputs::Run(Box::new(run))), &["app"])
    };
    assert_eq!(explain(&mount(2), Some(&mount(1)), &step_4(), &find).to_string(), "file app/main.py changed (content)");
}

#[test]
fn long_values_are_cut_to_where_they_differ() {
    let long = |word: &str| format!("apt-get update && apt-get install -y build-essential {word} && rm -rf /var/lib/apt/lists/*");
    for (old, new, want) in [
        (Some("a"), None, ("\"a\"".to_string(), "none".to_string())),
        (Some("a\"b\n"), Some(""), ("\"a\\\"b\\n\"".into(), "\"\"".into())),
        (
            Some(long("python3").as_str()),
            Some(long("python3.12").as_str()),
            ("\"…tial python3 && rm -rf /var/lib/apt/lists/*\"".into(), "\"…tial python3.12 && rm -rf /var/lib/apt/lists/*\"".into()),
        ),
    ] {
        assert_eq!(quoted(old, new, "none"), want);
    }
}
