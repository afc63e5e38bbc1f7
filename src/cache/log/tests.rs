//! What is written is read again, once for all builds that share it.

use super::*;
use crate::cache::key::tests::{content, run};
use crate::cache::key::{KeyInputs, StepInputs};
use crate::cache::state::StateId;
use crate::image::platform::Platform;
use crate::store::Durability;

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open_with(&dir.path().join("store"), Durability::Unsynced).unwrap()
}

pub fn slot(command: &str) -> Slot {
    let run = crate::cache::key::RunInputs { argv: vec![command.into()], ..run() };
    let inputs =
        KeyInputs { platform: Platform::new("linux", "amd64", ""), parent: StateId::scratch(), step: StepInputs::Run(Box::new(run)) };
    Slot::new(inputs, vec!["b".into()])
}

pub fn step(command: &str, outcome: Outcome, cost_secs: f64) -> Step {
    Step {
        title: format!("RUN {command}"),
        stage: "build".into(),
        number: 2,
        of: 3,
        platform: "linux/amd64".into(),
        line: 4,
        outcome,
        reason: (outcome == Outcome::Built).then_some(Reason::FirstBuild),
        key: Some(slot(command).inputs.key()),
        inputs: None,
        slot: Some(SlotId::derive("a", "build", "RUN", 0)),
        parent: None,
        base: None,
        layer: Some(LayerId::Content(content(7))),
        bytes: Some(9),
        at_secs: None,
        secs: 0.0,
        cost_secs,
    }
}

pub fn new_build(dockerfile: &str, started_secs: i64, steps: Vec<Step>) -> NewBuild {
    let hits = steps.iter().filter(|s| s.outcome.is_hit()).count();
    let head = Head { target: None, secs: 1.5, ending: Ending::Done, error: None, image: None, steps: steps.len(), hits };
    let inputs = steps.iter().map(|s| s.key.map(|_| slot(s.title.trim_start_matches("RUN ")))).collect();
    let body = Body { key_format: 1, bases: Vec::new(), dockerfile: None, ignore: None, steps };
    let (dockerfile_text, ignore) = ("FROM a\n".into(), Some((".dockerignore".into(), "x\n".into())));
    NewBuild { dockerfile: dockerfile.into(), started_secs, head, body, inputs, dockerfile_text, ignore }
}

#[test]
fn a_build_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let steps = vec![step("make", Outcome::Built, 2.0), Step { key: None, ..step("later", Outcome::NotReached, 0.0) }];
    let id = append(&store, new_build("a", 5, steps.clone())).unwrap();
    let read = newest(&store, Some("a"), None).unwrap().unwrap();
    assert_eq!((read.id, read.dockerfile.as_str(), read.started_secs, read.head.steps, read.head.hits), (id, "a", 5, 2, 0));
    assert_eq!(build(&store, id).unwrap().as_ref(), Some(&read));
    let body = read.body(&store).unwrap().unwrap();
    let of_first = body.steps[0].inputs.clone().unwrap();
    assert_eq!(body.steps, [Step { inputs: Some(of_first.clone()), ..steps[0].clone() }, steps[1].clone()]);
    assert_eq!(inputs(&store, &of_first).unwrap(), Some(slot("make")));
    assert_eq!(text(&store, &body.dockerfile.unwrap()).unwrap().as_deref(), Some("FROM a\n"));
    assert_eq!(text(&store, &body.ignore.unwrap().text).unwrap().as_deref(), Some("x\n"));
    assert_eq!((newest(&store, Some("b"), None).unwrap(), newest(&store, None, Some(id)).unwrap()), (None, None));
}

#[test]
fn builds_in_which_nothing_changed_share_all_but_their_heads() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let hits = || (0..20).map(|n| step(&format!("make {n}"), Outcome::Hit, 1.0)).collect::<Vec<_>>();
    for n in 1..=3 {
        assert_eq!(append(&store, new_build("a", n, hits())).unwrap(), n);
    }
    let all = builds(&store, &BuildFilter::default()).unwrap();
    assert!(all.iter().all(|b| b.body_id() == all[0].body_id()));
    // Another order is another list of the same inputs.
    append(&store, new_build("a", 4, hits().into_iter().rev().collect())).unwrap();
    let last = newest(&store, None, None).unwrap().unwrap();
    assert_ne!(last.body_id(), all[0].body_id());
    assert_eq!(last.body(&store).unwrap().unwrap().steps[19].inputs, all[0].body(&store).unwrap().unwrap().steps[0].inputs);
}

#[test]
fn what_another_program_wrote_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    append(&store, new_build("a", 1, vec![step("make", Outcome::Hit, 1.0)])).unwrap();
    let rubbish = || b"rubbish".to_vec();
    let part = |id: &str| LogPart { id: id.into(), names: Vec::new(), body: &rubbish };
    let row = |body: &[u8]| BuildRow { id: 0, dockerfile: "a".into(), started_secs: 2, steps: "s".into(), body: body.to_vec() };
    store.put_build(&row(b"{}"), &[part("s")]).unwrap();
    assert_eq!(builds(&store, &BuildFilter::default()).unwrap().len(), 1);
    let head = encode(&new_build("a", 1, vec![]).head);
    store.put_build(&row(&head), &[]).unwrap();
    assert_eq!(newest(&store, None, None).unwrap().unwrap().body(&store).unwrap(), None);
    assert_eq!(inputs(&store, &InputsId("s".into())).unwrap(), None);
}

#[test]
fn costs_are_those_of_the_key_else_of_the_newest_step_of_that_title() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = |command: &str| Some(slot(command).inputs.key());
    append(&store, new_build("a", 1, vec![step("make", Outcome::Built, 2.0)])).unwrap();
    append(&store, new_build("a", 2, vec![Step { key: key("other"), ..step("make", Outcome::Built, 3.0) }])).unwrap();
    append(&store, new_build("a", 3, vec![Step { key: None, ..step("make", Outcome::Failed, 9.0) }])).unwrap();
    append(&store, new_build("b", 4, vec![step("make", Outcome::Built, 100.0)])).unwrap();
    let costs = step_costs(&store, "a").unwrap();
    for (key, stage, title, want) in [
        (key("make"), "build", "RUN make", Some(2.0)),
        (key("new"), "build", "RUN make", Some(3.0)),
        (None, "build", "RUN make", Some(3.0)),
        (key("make"), "other", "", Some(2.0)),
        (key("new"), "other", "RUN make", None),
    ] {
        assert_eq!(costs.of(key.as_ref(), stage, title), want, "{key:?} {stage} {title}");
    }
}
