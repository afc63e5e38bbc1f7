//! Which step below a step changed first, by two chains of steps: the present one and an earlier build's.
//!
//! A chain has its steps from the bottom up, the one that is explained last. Steps are matched by title, since one may
//! have been put in or taken out; of the matched ones the lowest whose result differs is the cause.

use crate::cache::align::align;
use crate::digest::LayerId;

/// A step of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Its title.
    pub title: String,
    /// Its result; none: not known.
    pub layer: Option<LayerId>,
}

/// What changed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Culprit {
    /// The result of the step at this place of the new chain.
    Result(usize),
    /// The step at this place of the new chain was not there before.
    New(usize),
    /// A step that is no more there, by its title.
    Gone(String),
}

/// Returns what changed first between two chains; none: nothing that is known of them. The last of each is the step that
/// is explained, whose own result doesn't count.
pub fn culprit(new: &[Rung], old: &[Rung]) -> Option<Culprit> {
    let (below, was) = (new.split_last()?.1, old.split_last()?.1);
    let titles = |chain: &[Rung]| chain.iter().map(|r| r.title.clone()).collect::<Vec<_>>();
    let mut next_old = 0;
    for (n, pair) in align(&titles(was), &titles(below)).into_iter().enumerate() {
        match pair {
            None => return Some(Culprit::New(n)),
            Some(o) if o > next_old => return Some(Culprit::Gone(was[next_old].title.clone())),
            Some(o) if below[n].layer.is_some() && was[o].layer.is_some() && below[n].layer != was[o].layer => {
                return Some(Culprit::Result(n));
            }
            Some(o) => next_old = o + 1,
        }
    }
    was.get(next_old).map(|gone| Culprit::Gone(gone.title.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_step_that_differs_is_the_cause() {
        let chain = |text: &str| {
            let rung = |word: &str| {
                let (title, layer) = word.split_once('=').unwrap_or((word, ""));
                let layer = layer.parse().ok().map(|n: u8| LayerId::Content(crate::digest::ContentDigest::from_bytes([n; 32])));
                Rung { title: title.into(), layer }
            };
            text.split(' ').map(rung).collect::<Vec<_>>()
        };
        let gone = |title: &str| Some(Culprit::Gone(title.into()));
        for (old, new, want) in [
            ("a=1 b=2 me", "a=1 b=2 me", None),
            ("a=1 b=2 me=3", "a=1 b=2 me=4", None),
            ("a=1 b=2 me", "a=1 b=3 me", Some(Culprit::Result(1))),
            ("a=1 b=2 me", "a=2 b=3 me", Some(Culprit::Result(0))),
            ("a=1 b=2 me", "a=2 b=2 me", Some(Culprit::Result(0))),
            ("a=1 b=2 me", "a=1 new=9 b=3 me", Some(Culprit::New(1))),
            ("a=1 b=2 me", "a=1 b=2 new=9 me", Some(Culprit::New(2))),
            ("a=1 b=2 me", "b=3 me", gone("a")),
            ("a=1 b=2 me", "a=1 me", gone("b")),
            ("me", "a=1 me", Some(Culprit::New(0))),
            ("a=1 me", "me", gone("a")),
            ("a=1 edit=2 me", "a=1 edited=3 me", Some(Culprit::Result(1))),
            ("a b=2 me", "a=1 b=3 me", Some(Culprit::Result(1))),
        ] {
            assert_eq!(culprit(&chain(new), &chain(old)), want, "{old} -> {new}");
        }
        assert_eq!(culprit(&[], &chain("a")), None);
    }
}
