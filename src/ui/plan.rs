//! A plan as people read it, and as programs do.
//!
//! Steps have the numbers that a build shows them under, from 1, in both.

use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::event::StepIndex;
use crate::engine::plan::{Expected, Outcome, Plan, PlannedStep, Pull, Unknown};
use crate::ui::table::{Align, Table};
use crate::ui::{human, text};

/// Columns of an instruction that is not shown whole.
const TITLE_COLUMNS: usize = 48;

/// Returns the plan for people: a line a step, and what it comes to.
pub fn text(plan: &Plan) -> String {
    let columns = ["#", "STAGE", "INSTRUCTION", "OUTCOME", "TIME", "WHY"];
    let aligns = [Align::Right, Align::Left, Align::Left, Align::Left, Align::Right, Align::Left];
    let mut table = Table::new(&columns.into_iter().zip(aligns).collect::<Vec<_>>());
    for (n, step) in plan.steps.iter().enumerate() {
        let PlannedStep { info, outcome, cost_secs, .. } = step;
        let platform = info.platform.as_deref().map(|p| format!("{p} ")).unwrap_or_default();
        table.row([
            (n + 1).to_string(),
            format!("{platform}{} {}/{}", info.stage, info.number, info.of),
            text::cut(&text::one_line(&info.title), TITLE_COLUMNS),
            word(outcome).to_string(),
            cost_secs.map(seconds).unwrap_or_default(),
            why(outcome),
        ]);
    }
    table.render() + &summary(plan)
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Hit | Outcome::Remote(_) | Outcome::Equal(_) => "hit",
        Outcome::Runs { .. } => "runs",
        Outcome::Depends(_) => "depends",
    }
}

fn why(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Hit => String::new(),
        Outcome::Remote(cache) => format!("in the cache {cache}"),
        Outcome::Equal(step) => format!("equal to step {}", step + 1),
        Outcome::Runs { reason, .. } => reason.to_string(),
        Outcome::Depends(on) => on.iter().map(unknown).collect::<Vec<_>>().join("; "),
    }
}

fn unknown(of: &Unknown) -> String {
    match of {
        Unknown::Step(step) => format!("what step {} gives", step + 1),
        Unknown::Base(name) => format!("the base image {name}, which is not here"),
        Unknown::Url(url) => format!("what {url} has now"),
        Unknown::Cache(cache) => format!("what the cache {cache} has"),
        Unknown::Files(image) => format!("files of {image}, which is not unpacked"),
    }
}

fn summary(plan: &Plan) -> String {
    let (hits, runs, depends) = plan.counts();
    let steps = plan.steps.len();
    let mut parts = vec![format!("{hits} hit")];
    parts.extend((runs > 0).then(|| format!("{runs} run")));
    parts.extend((depends > 0).then(|| format!("{depends} depend")));
    let mut out = format!("{steps} {}: {}\n", if steps == 1 { "step" } else { "steps" }, parts.join(", "));
    let Plan { fewest, most, .. } = plan;
    if runs + depends > 0 {
        out += "expected: ";
        out += &match depends {
            0 => expected(fewest),
            _ => format!("{} if what may hit does, {} if not", expected(fewest), expected(most)),
        };
        out.push('\n');
    }
    for Pull { from, layers, bytes, perhaps } in &plan.pulls {
        let (s, perhaps) = (if *layers == 1 { "" } else { "s" }, if *perhaps { ", perhaps" } else { "" });
        out += &format!("to fetch{perhaps}: {} from {from} ({layers} layer{s})\n", human::size(*bytes));
    }
    let asked = |step: &PlannedStep| match &step.outcome {
        Outcome::Depends(on) => on.iter().any(|u| matches!(u, Unknown::Base(_) | Unknown::Url(_) | Unknown::Cache(_))),
        _ => false,
    };
    if !plan.unresolved.is_empty() || plan.steps.iter().any(asked) {
        out += "no server was asked: --online asks them\n";
    }
    out
}

fn expected(expected: &Expected) -> String {
    let Expected { secs, unknown, critical_path, .. } = expected;
    let mut out = seconds(*secs);
    match critical_path.as_slice() {
        [] => {}
        [only] => out += &format!(" (step {})", only + 1),
        path => {
            out += &format!(" (steps {}, one after the other)", path.iter().map(|s| (s + 1).to_string()).collect::<Vec<_>>().join(", "))
        }
    }
    match unknown {
        0 => {}
        1 => out += ", and a step that was never timed",
        n => out += &format!(", and {n} steps that were never timed"),
    }
    out
}

fn seconds(secs: f64) -> String {
    human::duration(Duration::try_from_secs_f64(secs).unwrap_or_default())
}

/// Returns the plan for programs.
pub fn json(plan: &Plan) -> Value {
    let Plan { steps, unresolved, pulls, fewest, most } = plan;
    let (hits, runs, depends) = plan.counts();
    let steps: Vec<Value> = steps.iter().enumerate().map(|(n, step)| step_json(n, step)).collect();
    let pulls: Vec<Value> = pulls
        .iter()
        .map(|Pull { from, layers, bytes, perhaps }| json!({"from": from, "layers": layers, "bytes": bytes, "perhaps": perhaps}))
        .collect();
    json!({
        "steps": steps, "hits": hits, "runs": runs, "depends": depends, "unresolved": unresolved, "pulls": pulls,
        "expected": {"fewest": expected_json(fewest), "most": expected_json(most)},
    })
}

fn step_json(n: StepIndex, step: &PlannedStep) -> Value {
    let PlannedStep { info, line, outcome, cost_secs } = step;
    let mut out = json!({
        "step": n + 1, "stage": info.stage, "number": info.number, "of": info.of, "title": info.title, "line": line,
        "outcome": word(outcome),
    });
    let mut set = |key: &str, value: Value| out[key] = value;
    if let Some(platform) = &info.platform {
        set("platform", json!(platform));
    }
    if let Some(secs) = cost_secs {
        set("cost_secs", json!(secs));
    }
    let why = why(outcome);
    if !why.is_empty() {
        set("why", json!(why));
    }
    match outcome {
        Outcome::Hit => set("from", json!("store")),
        Outcome::Remote(cache) => set("from", json!(cache)),
        Outcome::Equal(step) => set("equal_to", json!(step + 1)),
        Outcome::Runs { reason, exact } => {
            set("reason", json!(reason));
            set("exact", json!(exact));
        }
        Outcome::Depends(on) => set("on", on.iter().map(unknown_json).collect()),
    }
    out
}

fn unknown_json(of: &Unknown) -> Value {
    match of {
        Unknown::Step(step) => json!({"step": step + 1}),
        other => json!(other),
    }
}

fn expected_json(expected: &Expected) -> Value {
    let Expected { secs, work_secs, unknown, critical_path } = expected;
    let path: Vec<usize> = critical_path.iter().map(|s| s + 1).collect();
    json!({"secs": secs, "work_secs": work_secs, "untimed_steps": unknown, "critical_path": path})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::miss::{Difference, Reason};
    use crate::engine::event::StepInfo;

    fn step(number: usize, title: &str, outcome: Outcome, cost_secs: Option<f64>) -> PlannedStep {
        let info = StepInfo { title: title.into(), stage: "stage-0".into(), platform: None, number: number + 1, of: 5, after: Vec::new() };
        PlannedStep { info, line: number + 1, outcome, cost_secs }
    }

    fn plan() -> Plan {
        let changed = Reason::Changed(vec![Difference::Step { name: "step 2".into(), rebuilt: true }.into()]);
        let fewest = Expected { secs: 3.5, work_secs: 3.5, unknown: 1, critical_path: vec![2] };
        Plan {
            steps: vec![
                step(1, "COPY package.json .", Outcome::Hit, None),
                step(2, "COPY src src", Outcome::Runs { reason: Reason::FirstBuild, exact: true }, None),
                step(3, "RUN make", Outcome::Runs { reason: changed, exact: true }, Some(3.5)),
                step(4, "RUN make test", Outcome::Depends(vec![Unknown::Step(2)]), Some(60.0)),
            ],
            unresolved: Vec::new(),
            pulls: vec![Pull { from: "app/cache".into(), layers: 2, bytes: 1_500_000, perhaps: true }],
            most: Expected { secs: 63.5, critical_path: vec![2, 3], ..fewest.clone() },
            fewest,
        }
    }

    #[test]
    fn people_read_a_line_a_step_and_what_it_comes_to() {
        let want = "\
#   STAGE         INSTRUCTION           OUTCOME    TIME   WHY
1   stage-0 2/5   COPY package.json .   hit
2   stage-0 3/5   COPY src src          runs              first build of this step
3   stage-0 4/5   RUN make              runs       3.5s   step 2 was rebuilt and its result differs
4   stage-0 5/5   RUN make test         depends   1m00s   what step 3 gives
4 steps: 1 hit, 2 run, 1 depend
expected: 3.5s (step 3), and a step that was never timed if what may hit does, 1m03s (steps 3, 4, one after the other), \
and a step that was never timed if not
to fetch, perhaps: 1.5MB from app/cache (2 layers)
";
        assert_eq!(text(&plan()), want);
    }

    #[test]
    fn programs_get_the_same_numbers() {
        let got = json(&plan());
        assert_eq!((&got["hits"], &got["runs"], &got["depends"]), (&json!(1), &json!(2), &json!(1)));
        assert_eq!(got["steps"][3]["on"], json!([{"step": 3}]));
        assert_eq!(got["steps"][2]["reason"], json!({"changed": [{"difference": {"step": {"name": "step 2", "rebuilt": true}}}]}));
        assert_eq!(got["expected"]["most"]["critical_path"], json!([3, 4]));
    }
}
