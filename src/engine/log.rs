//! The log of builds, that statistics are made of.

use std::time::Instant;

use crate::store::{BuildRow, BuildStepRow};

use super::error::BuildError;
use super::result::BuildOutcome;
use super::session::{Build, NodeResult};

/// Writes a build to the log: its steps for all platforms, in the order in which they are shown.
pub(super) fn write(builds: &[Build<'_>], start: Instant, outcome: &Result<BuildOutcome, BuildError>) -> Result<(), BuildError> {
    let Some(first) = builds.first() else { return Ok(()) };
    let secs = start.elapsed().as_secs_f64();
    let row = BuildRow {
        dockerfile: first.inputs.dockerfile_id.clone(),
        target: first.request.target.clone().unwrap_or_default(),
        started_secs: first.engine.now_secs() - secs as i64,
        secs,
        outcome: match outcome {
            Ok(_) => "done",
            Err(BuildError::Cancelled) => "cancelled",
            Err(_) => "failed",
        }
        .into(),
        image: outcome.as_ref().ok().and_then(|o| o.image),
        steps: builds.iter().flat_map(steps).collect(),
    };
    first.engine.store.put_build(&row)?;
    Ok(())
}

fn steps(build: &Build<'_>) -> Vec<BuildStepRow> {
    let steps = build.graph.nodes.iter().zip(&build.steps).zip(&build.results).filter(|((_, step), _)| step.is_some());
    steps.map(|((node, _), result)| step_row(&node.title, result.get())).collect()
}

fn step_row(title: &str, result: Option<&NodeResult>) -> BuildStepRow {
    let title = title.to_string();
    match result {
        None => BuildStepRow { title, outcome: "none".into(), reason: None, key: None, secs: 0.0, saved_secs: 0.0 },
        Some(r) => BuildStepRow {
            title,
            outcome: if r.reason.is_some() { "built" } else { "cached" }.into(),
            reason: r.reason.as_ref().map(ToString::to_string),
            key: r.key,
            secs: r.took.as_secs_f64(),
            saved_secs: if r.reason.is_some() { 0.0 } else { r.cost_secs },
        },
    }
}
