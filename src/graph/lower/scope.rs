//! Variables in scope, in the order in which a process gets them.
//!
//! ARG and ENV share one list: the latest declaration of a name counts (also an ARG after an ENV), and moves the name to
//! the end. A newcomer would expect ENV to keep its place here too; it does so in the image's configuration only.
//!
//! Setting and looking up take the same time however many variables there are.

use std::collections::HashMap;

use crate::dockerfile::expand::Env;

/// An ordered set of variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// In order; none where a variable was set again later, or unset.
    entries: Vec<Option<(String, String)>>,
    places: HashMap<String, usize>,
}

impl Scope {
    /// Sets a variable and makes it the last.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.places.insert(name.to_string(), self.entries.len());
        self.entries.push(Some((name.to_string(), value.to_string())));
    }

    pub(super) fn unset(&mut self, name: &str) {
        let Some(place) = self.places.remove(name) else { return };
        self.entries[place] = None;
        if self.entries.len() > 2 * self.places.len() + 16 {
            self.entries.retain(Option::is_some);
            self.places = self.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn to_vec(&self) -> Vec<(String, String)> {
        self.iter().cloned().collect()
    }

    fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.entries.iter().flatten()
    }
}

impl Env for Scope {
    fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.entries[*self.places.get(name)?].as_ref()?;
        Some(value)
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
        assert_eq!(scope.to_vec(), [pair("c", "c49"), pair("a", "again")]);
        assert_eq!((scope.value("a"), scope.value("b"), scope.value("c")), (Some("again"), None, Some("c49")));
        assert!(scope.entries.len() < 30, "what was replaced is forgotten in time: {}", scope.entries.len());
    }
}
