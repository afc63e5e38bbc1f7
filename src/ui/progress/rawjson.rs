//! BuildKit's `rawjson`: a SolveStatus object a line, for programs that follow a build.
//!
//! `{"vertexes":[…]}`, `{"statuses":[…]}`, `{"logs":[…]}`, `{"warnings":[…]}`, with the field names of BuildKit's client
//! (`client/graph.go`). A vertex's `digest` is only a name that stays the same during the build. Plywood adds
//! `missReason` to a vertex.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::engine::event::{Event, StepIndex, Stream, TaskId};
use crate::ui::progress::Renderer;
use crate::ui::progress::model::{Model, State};

/// The JSON renderer.
pub struct RawJson {
    model: Model,
    began: SystemTime,
}

impl RawJson {
    /// Starts with nothing known; `began` is what the events' times count from.
    pub fn new(began: SystemTime) -> Self {
        Self { model: Model::default(), began }
    }

    fn time(&self, at: Duration) -> String {
        jiff::Timestamp::try_from(self.began + at).map(|t| t.to_string()).unwrap_or_default()
    }

    fn step(&self, at: Duration, index: StepIndex) -> Option<Value> {
        let step = self.model.steps.get(index)?;
        let mut vertex = json!({"digest": step_name(index, &step.title), "name": step.title});
        if step.state != State::Waiting {
            let since = if step.state == State::Cached { at } else { step.since };
            vertex["started"] = self.time(since).into();
        }
        match step.state {
            State::Cached => vertex["cached"] = true.into(),
            State::Failed => vertex["error"] = "failed".into(),
            State::Done(_) | State::Running | State::Waiting => {}
        }
        if matches!(step.state, State::Cached | State::Done(_) | State::Failed) {
            vertex["completed"] = self.time(at).into();
        }
        if let Some(reason) = step.reason.as_ref().filter(|_| step.state != State::Cached) {
            vertex["missReason"] = reason.as_str().into();
        }
        Some(json!({"vertexes": [vertex]}))
    }

    fn task(&self, at: Duration, id: TaskId) -> Option<Value> {
        let task = self.model.tasks.get(&id)?;
        let mut vertex = json!({"digest": task_name(id, &task.title), "name": task.title, "started": self.time(task.since)});
        if task.done.is_some() {
            vertex["completed"] = self.time(at).into();
        }
        Some(json!({"vertexes": [vertex]}))
    }

    fn status(&self, at: Duration, id: TaskId) -> Option<Value> {
        let task = self.model.tasks.get(&id)?;
        let (current, total) = task.progress?;
        Some(json!({"statuses": [{
            "id": task.title, "vertex": task_name(id, &task.title), "current": current, "total": total.unwrap_or(0),
            "timestamp": self.time(at), "started": self.time(task.since),
        }]}))
    }
}

fn step_name(index: StepIndex, title: &str) -> String {
    Digest::of(format!("step {index} {title}").as_bytes()).to_string()
}

fn task_name(id: TaskId, title: &str) -> String {
    Digest::of(format!("task {id} {title}").as_bytes()).to_string()
}

impl Renderer for RawJson {
    fn event(&mut self, at: Duration, event: &Event, out: &mut String) {
        self.model.apply(at, event);
        let object = match event {
            Event::Plan(_) => {
                let all: Vec<Value> = (0..self.model.steps.len()).filter_map(|i| self.step(at, i)).collect();
                Some(json!({"vertexes": all.iter().flat_map(|v| v["vertexes"].as_array().cloned().unwrap_or_default()).collect::<Vec<_>>()}))
            }
            Event::Started(i) | Event::Cached(i) | Event::Missed(i, _) | Event::Done(i, _) | Event::Failed(i) => self.step(at, *i),
            Event::Log(i, stream, bytes) => self.model.steps.get(*i).map(|step| {
                let stream = if *stream == Stream::Stdout { 1 } else { 2 };
                json!({"logs": [{"vertex": step_name(*i, &step.title), "stream": stream, "data": STANDARD.encode(bytes), "timestamp": self.time(at)}]})
            }),
            Event::TaskStarted(id, _) | Event::TaskDone(id, _) => self.task(at, *id),
            Event::TaskProgress(id, ..) => self.status(at, *id),
            Event::Warning(warning) => {
                let line = warning.source.as_ref().map(|s| s.line(warning.span.start));
                let short = STANDARD.encode(warning.message.as_bytes());
                Some(json!({"warnings": [{"level": 1, "short": short, "rule": warning.rule, "line": line}]}))
            }
            Event::Phase(_) | Event::Part(..) => None,
            Event::Notice(notice) => Some(json!({"warnings": [{"level": 0, "short": STANDARD.encode(notice.as_bytes())}]})),
        };
        if let Some(object) = object {
            out.push_str(&object.to_string());
            out.push('\n');
        }
    }

    fn finish(&mut self, _at: Duration, _out: &mut String) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::progress::tests::{failing_build, shown};

    #[test]
    fn each_line_is_an_object_of_buildkits_form() {
        let text = shown(&mut RawJson::new(SystemTime::UNIX_EPOCH), &failing_build());
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), failing_build().len());
        let name = step_name(1, "[build 2/3] RUN make");
        assert_eq!(
            lines[11],
            json!({"vertexes": [{
                "digest": name, "name": "[build 2/3] RUN make", "started": "1970-01-01T00:00:00.022Z", "completed": "1970-01-01T00:00:00.25Z",
                "error": "failed", "missReason": "env CFLAGS changed"
            }]})
        );
        assert_eq!(
            lines[8],
            json!({"logs": [{"vertex": name, "stream": 2, "data": STANDARD.encode("cc -o x\nld"), "timestamp": "1970-01-01T00:00:00.1Z"}]})
        );
    }
}
