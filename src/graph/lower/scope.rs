//! Variables in scope, in the order in which a process gets them.
//!
//! ARG and ENV share one list: the latest declaration of a name counts (also an ARG after an ENV), and moves the name to
//! the end. A newcomer would expect ENV to keep its place here too; it does so in the image's configuration only.

use crate::dockerfile::expand::Env;

/// An ordered set of variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope(Vec<(String, String)>);

impl Scope {
    /// Sets a variable and makes it the last.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.0.push((name.to_string(), value.to_string()));
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(n, _)| n.as_str())
    }

    pub(super) fn to_vec(&self) -> Vec<(String, String)> {
        self.0.clone()
    }
}

impl Env for Scope {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
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
