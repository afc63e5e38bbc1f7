//! Asks for records before their keys are known, so that a chain of steps is not a chain of round trips.
//!
//! A key depends on the content of what the step stands on, which the record before it tells: asked one by one, twenty
//! steps wait twenty times. So a build that wrote something new also leaves a plan: under which tags its results are. The
//! next build fetches all these side by side at its first question. A plan only says what to ask for early; what is taken
//! is still found by key, and a plan that is old, wrong or missing costs a few requests.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::place::{Place, SharingError};
use super::{Sharing, locked};
use crate::cache::remote::object::{Kind, Object, Parts};
use crate::cache::remote::tag;
use crate::engine::session::Build;

/// How many objects are asked for at once.
const PARALLEL: usize = 8;
/// More are not asked for early.
const TAGS_MAX: usize = 1000;

/// An object with its body, or that there is none; set once it is known.
type Answer = Arc<OnceLock<Option<(Parts, Vec<u8>)>>>;

#[derive(Serialize, Deserialize)]
struct PlanBody {
    tags: BTreeSet<String>,
}

/// What was asked for, and whether anybody asks.
#[derive(Default)]
pub(super) struct Ahead {
    /// By source and tag.
    answers: Mutex<HashMap<(usize, String), Answer>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Waiting,
    Wanted,
    Over,
}

impl Ahead {
    /// Somebody asks: what may be wanted next is worth its requests.
    fn begin(&self) {
        self.set(State::Wanted);
    }

    /// Nobody will ask any more.
    pub fn end(&self) {
        self.set(State::Over);
    }

    fn set(&self, next: State) {
        let mut state = locked(&self.state);
        if *state != State::Over && *state != next {
            *state = next;
            self.changed.notify_all();
        }
    }

    fn is_over(&self) -> bool {
        *locked(&self.state) == State::Over
    }

    /// Waits until somebody asks; false: nobody did.
    fn is_wanted(&self) -> bool {
        let mut state = locked(&self.state);
        while *state == State::Waiting {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state == State::Wanted
    }
}

impl Sharing<'_> {
    /// Returns an object of a source, asked for now or earlier; whoever comes while it is on its way waits.
    ///
    /// A source that fails is not asked again; nonsense under a tag is no object.
    pub(super) fn answer(&self, number: usize, kind: Kind, tag: &str) -> Option<(Parts, Vec<u8>)> {
        self.ahead.begin();
        self.ask(number, kind, tag)
    }

    fn ask(&self, number: usize, kind: Kind, tag: &str) -> Option<(Parts, Vec<u8>)> {
        let answer = Arc::clone(locked(&self.ahead.answers).entry((number, tag.to_string())).or_default());
        let source = &self.sources[number];
        // One that failed meanwhile would fail again, as patiently.
        if source.broken.load(Ordering::Relaxed) {
            return answer.get().cloned().flatten();
        }
        let found = answer.get_or_init(|| match source.place.object(kind, tag) {
            Ok(found) => found,
            Err(SharingError::Object(_)) => None,
            Err(e) => {
                self.give_up(source, &e);
                None
            }
        });
        found.clone()
    }

    /// Waits for the first question, and then asks for all that the plans name. For a thread of its own.
    pub(super) fn ask_ahead(&self, builds: &[Build<'_>]) {
        let Some(build) = builds.first().filter(|_| self.ahead.is_wanted()) else { return };
        // A directory answers at once.
        let far = self.asked().filter(|(_, s)| matches!(s.place, Place::Registry { .. }));
        let mut wanted = Vec::new();
        for (number, source) in far {
            let plan = self.ask(number, Kind::Plan, &tag::of_plan(&source.name, build.dockerfile_name()));
            let Some(PlanBody { tags }) = plan.and_then(|(_, body)| serde_json::from_slice(&body).ok()) else { continue };
            wanted.extend(tags.into_iter().take(TAGS_MAX).filter_map(|t| Some((number, tag::kind_of(&t)?, t))));
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(wanted.len()) {
                scope.spawn(|| {
                    while let Some((number, kind, tag)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if self.ahead.is_over() || self.engine.cancel.is_cancelled() {
                            return;
                        }
                        self.ask(*number, *kind, tag);
                    }
                });
            }
        });
    }

    /// Leaves a plan where a result was new.
    pub(super) fn send_plans(&self, builds: &[Build<'_>]) {
        let Some(build) = builds.first().filter(|_| !locked(&self.news).is_empty()) else { return };
        for sink in self.sinks.iter().filter(|s| !s.broken.load(Ordering::Relaxed)) {
            let tags = locked(&sink.tags).clone();
            let body = serde_json::to_vec(&PlanBody { tags }).expect("tags are text");
            let object = Object { kind: Kind::Plan, body, blobs: Vec::new() };
            if let Err(e) = sink.place.put(&tag::of_plan(&sink.name, build.dockerfile_name()), &object) {
                sink.fail(&e);
            }
        }
    }
}
