//! Each change is named, and it alone; what is not a change is not.

use std::collections::BTreeMap;

use super::super::files::FileEntry;
use super::super::key::tests::{content, copy, run, singles};
use super::super::key::{CopyInputs, KeyInputs, MatchInputs, MountSource, SourceInputs, StepInputs, WorkdirInputs};
use super::super::state::StateId;
use super::words::quoted;
use super::*;
use crate::digest::LayerId;
use crate::image::platform::Platform;

fn slot(inputs: &KeyInputs, sources: &[&str]) -> Slot {
    Slot::new(inputs.clone(), sources.iter().map(ToString::to_string).collect())
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
fn other_keys_of_equal_inputs_are_told_by_their_format() {
    let now = slot(&inputs(StepInputs::Workdir(WorkdirInputs::default())), &[]);
    let then = Slot { format: now.format + 1, ..now.clone() };
    let none = |_: &ContentDigest| None;
    let reason = explain(&now, Some(&then), &step_4(), &none);
    assert_eq!((reason.to_string().as_str(), reason.kind()), ("key format changed (\"2\" -> \"1\")", "key format"));
}

#[test]
fn causes_have_their_place_and_kind() {
    let variable = Difference::Variable { name: "A".into(), old: None, new: Some("1".into()) };
    let place = |was| Some(Place { file: "Dockerfile".into(), line: 3, was });
    for (place, words) in [
        (None, "env A changed (unset -> \"1\")"),
        (place(false), "env A changed (unset -> \"1\"), Dockerfile:3"),
        (place(true), "env A changed (unset -> \"1\"), was Dockerfile:3"),
    ] {
        let cause = Cause { difference: variable.clone(), place };
        assert_eq!(cause.to_string(), words);
        assert_eq!(serde_json::from_str::<Cause>(&serde_json::to_string(&cause).unwrap()).unwrap(), cause);
    }
    let file = |change, rule: Option<&str>| Difference::File { path: "f".into(), change, more: 0, rule: rule.map(Into::into) };
    let value = |what: &str| Difference::Value { what: what.into(), old: None, new: None };
    for (difference, words, kind) in [
        (file(FileChange::Added, Some("x")), "file f added: no longer ignored by `x`", "ignore rule"),
        (file(FileChange::Removed, Some("x")), "file f removed: now ignored by `x`", "ignore rule"),
        (file(FileChange::Content, None), "file f changed (content)", "file"),
        (Difference::Step { name: "step 2".into(), rebuilt: true }, "step 2 was rebuilt and its result differs", "earlier step"),
        (Difference::Step { name: "step 2".into(), rebuilt: false }, "step 2 has another result, from the cache", "earlier step"),
        (Difference::NewStep("step 2".into()), "step 2 is new", "earlier step"),
        (Difference::GoneStep("RUN x".into()), "a step before it is gone (RUN x)", "earlier step"),
        (value("mount /m mode"), "mount /m mode changed (unset -> unset)", "mount"),
        (value("platform"), "platform changed (unset -> unset)", "platform"),
        (value("--chown"), "--chown changed (unset -> unset)", "setting"),
    ] {
        assert_eq!((difference.to_string().as_str(), difference.kind()), (words, kind));
    }
    let digest = |n| crate::digest::Digest::from_bytes([n; 32]);
    let base = Difference::Base { name: "alpine:3".into(), old: Some(digest(1)), new: Some(digest(2)) };
    let words = "base image changed (alpine:3, sha256:010101010101 -> sha256:020202020202)";
    assert_eq!((base.to_string().as_str(), base.kind()), (words, "base image"));
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
    let base = Parent::Base("alpine:3.20".into(), None);
    let words =
        |new: &KeyInputs, old: &KeyInputs, parent: &Parent| explain(&slot(new, &[]), Some(&slot(old, &[])), parent, &none).to_string();
    assert_eq!(words(&new, &old, &base), "base image changed (alpine:3.20)");
    assert_eq!(words(&new, &old, &step_4()), "what it stands on changed (step 4 or below)");
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
        let entry = |mode, n| FileEntry { mode, content: Some(content(n)), ..FileEntry::default() };
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
