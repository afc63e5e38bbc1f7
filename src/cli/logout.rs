//! `ply logout`: forgets what `ply login`, or docker's, kept.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::login;
use crate::cli::session::Session;
use crate::cli::transfer;
use crate::registry::{Logins, host_of};
use crate::ui::out;

/// Forget the credentials of a registry
#[derive(Debug, Clone, Args)]
pub struct LogoutArgs {
    /// Its host [default: docker.io]
    #[arg(value_name = "HOST[:PORT]", default_value = "", hide_default_value = true)]
    pub host: String,
}

/// Forgets.
pub fn run(args: &LogoutArgs, session: &Session) -> Result<(), Failure> {
    let host = host_of(&args.host);
    let config = transfer::registry_config(&session.env);
    let logins = Logins { path: login::file(&session.env)?, config: &config };
    let found = logins.forget(&host).map_err(|e| Failure::of(&e))?;
    Ok(out::line(&if found { format!("Removed the credentials for {host}") } else { format!("Not logged in to {host}") })?)
}
