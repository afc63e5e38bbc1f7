//! The environment of a RUN, shared between all that have the same one.
//!
//! A file of ten thousand RUNs has as many environments, which differ in little or nothing: each is a list of shared
//! variables, and equal ones in a row are one list. A newcomer would expect a map; the order is part of what a step is.

use std::sync::Arc;

/// A name and its value.
pub type Variable = (String, String);

/// Variables in order; cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Environment(Arc<[Arc<Variable>]>);

impl Environment {
    /// Returns the variables in order.
    pub fn iter(&self) -> impl Iterator<Item = &Variable> + Clone {
        self.0.iter().map(|variable| &**variable)
    }

    /// Returns the environment with another variable at its end.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let added = Arc::new((name.to_owned(), value.to_owned()));
        self.0.iter().cloned().chain([added]).collect()
    }
}

impl FromIterator<Arc<Variable>> for Environment {
    fn from_iter<I: IntoIterator<Item = Arc<Variable>>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// As the list that it is.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
