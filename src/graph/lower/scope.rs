//! Variables in scope, in the order in which a process gets them.
//!
//! ARG and ENV share one list: the latest declaration of a name counts (also an ARG after an ENV), and moves the name to
//! the end. A newcomer would expect ENV to keep its place here too; it does so in the image's configuration only.
//!
//! Setting and looking up take the same time however many variables there are.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dockerfile::expand::Env;
use crate::graph::environment::{Environment, Variable};

/// An ordered set of variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// In order; none where a variable was set again later, or unset.
    entries: Vec<Option<Arc<Variable>>>,
    places: HashMap<String, usize>,
    /// All of them as RUN has them, as long as nothing changes.
    environment: Option<Environment>,
}

impl Scope {
    /// Sets a variable and makes it the last.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.environment = None;
        let last = self.entries.len();
        match self.places.get_mut(name) {
            Some(place) => self.entries[std::mem::replace(place, last)] = None,
            None => drop(self.places.insert(name.to_owned(), last)),
        }
        self.entries.push(Some(Arc::new((name.to_owned(), value.to_owned()))));
        self.close_gaps();
    }

    pub(super) fn unset(&mut self, name: &str) {
        let Some(place) = self.places.remove(name) else { return };
        self.environment = None;
        self.entries[place] = None;
        self.close_gaps();
    }

    /// Forgets what was replaced, when there is more of it than of what counts.
    fn close_gaps(&mut self) {
        if self.entries.len() <= 2 * self.places.len() + 16 {
            return;
        }
        self.entries.retain(Option::is_some);
        for (place, variable) in self.entries.iter().flatten().enumerate() {
            if let Some(known) = self.places.get_mut(&variable.0) {
                *known = place;
            }
        }
    }

    /// Returns all variables in order.
    pub(super) fn environment(&mut self) -> Environment {
        self.environment.get_or_insert_with(|| self.entries.iter().flatten().cloned().collect()).clone()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().flatten().map(|variable| variable.0.as_str())
    }
}

impl Env for Scope {
    fn value(&self, name: &str) -> Option<&str> {
        let variable = self.entries[*self.places.get(name)?].as_ref()?;
        Some(&variable.1)
    }
}

/// A scope in which some variables are secrets: known to be set, their values not shown.
pub(super) struct Masked<'s> {
    pub scope: &'s Scope,
    pub secrets: Vec<&'s str>,
}

impl Env for Masked<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        if self.secrets.contains(&name) { Some("****") } else { self.scope.value(name) }
    }
}

/// No variables at all.
pub(super) struct Nothing;

impl Env for Nothing {
    fn value(&self, _name: &str) -> Option<&str> {
        None
    }
}

/// Splits `K=V`; without `=` the value is empty.
pub(super) fn key_value(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_declaration_counts_and_is_the_last() {
        let mut scope = Scope::default();
        for round in 0..50 {
            for name in ["a", "b", "c"] {
                scope.set(name, &format!("{name}{round}"));
            }
            scope.set("a", "again");
            scope.unset("b");
        }
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(scope.environment().iter().cloned().collect::<Vec<_>>(), [pair("c", "c49"), pair("a", "again")]);
        assert_eq!((scope.value("a"), scope.value("b"), scope.value("c")), (Some("again"), None, Some("c49")));
        assert!(scope.entries.len() < 30, "what was replaced is forgotten in time: {}", scope.entries.len());
    }
}
