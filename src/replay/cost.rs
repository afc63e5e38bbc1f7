//! What steps cost: recorded by builds, or given by hand.

use std::collections::BTreeMap;

use crate::cache::log::StepCosts;
use crate::dockerfile::ignore::Glob;

/// Seconds by step.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    /// Given by hand: the first that fits counts, over all else.
    pub rules: Vec<Rule>,
    /// Measured by building the history itself, by stage and title.
    pub recorded: BTreeMap<(String, String), f64>,
    /// What the log of builds remembers.
    pub log: StepCosts,
}

/// `RUN npm ci=42`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// A title, or the beginning of one; `*` stands for anything.
    pub title: String,
    /// Seconds.
    pub secs: f64,
}

impl Costs {
    /// Returns a step's cost; none: nobody knows it.
    pub fn of(&self, stage: &str, title: &str) -> Option<f64> {
        let by_hand = self.rules.iter().find(|rule| rule.fits(title)).map(|rule| rule.secs);
        let measured = || self.recorded.get(&(stage.to_owned(), title.to_owned())).copied();
        let known = by_hand.or_else(measured).or_else(|| self.log.of(None, stage, title));
        // A copy that was linked by a suggestion costs what it cost before.
        known.or_else(|| title.contains(" --link").then(|| self.of(stage, &title.replacen(" --link", "", 1))).flatten())
    }

    /// Returns whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.recorded.is_empty() && self.log == StepCosts::default()
    }
}

impl Rule {
    /// Reads `TITLE=SECONDS`, the last `=` parting them.
    pub fn parse(text: &str) -> Option<Self> {
        let (title, secs) = text.rsplit_once('=')?;
        let secs: f64 = secs.trim().parse().ok().filter(|s: &f64| s.is_finite() && *s >= 0.0)?;
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        (!title.is_empty()).then_some(Self { title, secs })
    }

    fn fits(&self, title: &str) -> bool {
        if self.title.contains('*') {
            // Slashes are letters like others here.
            let plain = |text: &str| text.replace('/', "\u{0}");
            return Glob::parse(&plain(&self.title)).is_ok_and(|glob| glob.is_match(plain(title).as_bytes()));
        }
        title.strip_prefix(&self.title).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ') || self.title.ends_with(' '))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_or_its_beginning_has_a_cost() {
        let costs = Costs {
            rules: ["RUN npm ci=42", "RUN * /app/*=7", "RUN=1.5"].map(|r| Rule::parse(r).unwrap()).to_vec(),
            recorded: BTreeMap::from([(("build".into(), "COPY . .".into()), 0.5)]),
            log: StepCosts::default(),
        };
        for (title, want) in [
            ("RUN npm ci", Some(42.0)),
            ("RUN npm ci --omit=dev", Some(42.0)),
            ("RUN npm cinder", Some(1.5)),
            ("RUN cp x /app/y/z", Some(7.0)),
            ("COPY . .", Some(0.5)),
            ("COPY --link . .", Some(0.5)),
            ("COPY a b", None),
        ] {
            assert_eq!(costs.of("build", title), want, "{title}");
        }
        for bad in ["RUN", "=3", "RUN x=", "RUN x=-1", "RUN x=inf", "RUN x=soon"] {
            assert_eq!(Rule::parse(bad), None, "{bad}");
        }
        assert_eq!(Rule::parse("RUN  A=b   c=3").unwrap(), Rule { title: "RUN A=b c".into(), secs: 3.0 });
    }
}
