//! Nothing, but what a failed step said and the build checks' findings.

use std::time::Duration;

use crate::engine::event::Event;
use crate::ui::progress::Renderer;
use crate::ui::progress::model::Model;
use crate::ui::style::Paint;
use crate::ui::text;

/// The quiet renderer.
pub struct Quiet {
    model: Model,
    paint: Paint,
}

impl Quiet {
    /// Starts with nothing known.
    pub fn new(paint: Paint) -> Self {
        Self { model: Model::default(), paint }
    }
}

impl Renderer for Quiet {
    fn event(&mut self, at: Duration, event: &Event, out: &mut String) {
        match event {
            Event::Warning(_) => {}
            // A weaker isolation is never silent.
            Event::Notice(notice) => out.push_str(&format!("{} {}\n", self.paint.warn("notice:"), text::printable(notice))),
            _ => {
                self.model.apply(at, event);
            }
        }
    }

    fn finish(&mut self, _at: Duration, out: &mut String) {
        out.push_str(&self.model.closing(self.paint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::progress::tests::{failing_build, shown};

    #[test]
    fn only_the_failure_is_shown() {
        let got = shown(&mut Quiet::new(Paint::Plain), &failing_build());
        assert_eq!(got, "------\n > [build 2/3] RUN make:\n0.078 cc -o x\n0.178 ld: error\n------\n");
        let fine: Vec<_> = failing_build().into_iter().take(11).collect();
        assert_eq!(shown(&mut Quiet::new(Paint::Plain), &fine), "");
    }
}
