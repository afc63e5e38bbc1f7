//! What every command gets: the surroundings, the global flags settled, and how to paint.

use std::path::PathBuf;

use crate::cli::environment::{Colour, Environment};
use crate::cli::failure::Failure;
use crate::path::Ownership;
use crate::sandbox::userns::{self, IdPolicy, Identity};
use crate::ui::style::Paint;

/// One run of the program.
#[derive(Debug, Clone)]
pub struct Session {
    /// The surroundings.
    pub env: Environment,
    /// `--store`.
    store: Option<PathBuf>,
    /// How to paint standard output.
    pub stdout: Paint,
    /// How to paint standard error.
    pub stderr: Paint,
}

impl Session {
    /// Settles the global flags.
    pub fn new(env: Environment, store: Option<PathBuf>) -> Self {
        let paint = |terminal| match (env.colour(), terminal) {
            (Colour::Always, _) | (Colour::Terminal, true) => Paint::Coloured,
            (Colour::Never, _) | (Colour::Terminal, false) => Paint::Plain,
        };
        Self { stdout: paint(env.terminals.stdout), stderr: paint(env.terminals.stderr), store, env }
    }

    /// Returns the store's directory, absolute; it may not be there yet.
    pub fn store(&self) -> Result<PathBuf, Failure> {
        self.env.store(self.store.as_ref()).ok_or_else(|| {
            Failure::message("there is no place for the store: HOME is not set")
                .hint("set HOME, or name a directory with --store or PLY_STORE")
        })
    }

    /// Makes this process able to hold files of other owners and to start sandboxes.
    ///
    /// To be called before any thread starts, and before the store is opened.
    pub fn enter(&self) -> Result<Identity, Failure> {
        userns::enter(IdPolicy::BestAvailable).map_err(|e| Failure::of(&e).hint("`ply doctor` tells what this host allows"))
    }

    /// Returns whether files can have the owners that an image says, by who this process is now.
    pub fn ownership(identity: &Identity) -> Ownership {
        match identity {
            Identity::Single { .. } => Ownership::Recorded,
            Identity::Root | Identity::Ranges { .. } => Ownership::Real,
        }
    }
}
