//! `ply rm`: kept containers, removed.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::stored;
use crate::ui::out;

/// Remove containers that have ended
#[derive(Debug, Clone, Args)]
pub struct RmArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Removes each and prints it; the first failure ends it.
pub fn run(args: &RmArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let containers = stored::containers(&store)?;
    for wanted in &args.containers {
        containers.remove(wanted).map_err(|e| Failure::of(&e))?;
        out::line(wanted)?;
    }
    Ok(())
}
