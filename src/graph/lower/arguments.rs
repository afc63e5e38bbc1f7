//! The ARGs that a stage declares, with those of the stages that it starts from.
//!
//! RUN's history lists them, and a variable that one of them declares is no undefined one. What a newcomer would get wrong:
//! a name that is declared again keeps its place, other than in the [`Scope`](super::scope::Scope), where it goes to the end.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::dockerfile::expand::Env as _;

use super::scope::Scope;

/// Names in the order of their first declarations, each with the value of its last.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    list: Vec<(String, Option<String>)>,
    places: HashMap<String, usize>,
}

impl Arguments {
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        match self.places.get(name) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, Option<String>)> {
        self.list.iter()
    }

    /// Returns `|2 A=1 B=2 `, what the history of a RUN begins with. An ENV of the same name counts.
    pub(super) fn shown(&self, scope: &Scope) -> String {
        let mut out = String::new();
        if self.list.is_empty() {
            return out;
        }
        let _ = write!(out, "|{}", self.list.len());
        for (name, value) in &self.list {
            let value = scope.value(name).or(value.as_deref()).unwrap_or_default();
            let _ = write!(out, " {name}={value}");
        }
        out.push(' ');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_declaration_counts_at_the_place_of_the_first() {
        let (mut arguments, mut scope) = (Arguments::default(), Scope::default());
        assert_eq!(arguments.shown(&scope), "");
        for (name, value) in [("A", Some("1")), ("B", None), ("C", Some("3")), ("A", Some("4"))] {
            arguments.declare(name, value.map(str::to_owned));
        }
        scope.set("C", "env");
        assert_eq!(arguments.shown(&scope), "|3 A=4 B= C=env ");
        assert!(arguments.contains("B") && !arguments.contains("D"));
    }
}
