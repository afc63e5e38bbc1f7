//! `ply ps`: the containers that the store keeps.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::stored;
use crate::ui::table::{Align, Table};
use crate::ui::{human, out};

/// List containers
#[derive(Debug, Clone, Args)]
pub struct PsArgs {
    /// Also those that have ended
    #[arg(short, long)]
    pub all: bool,
    /// Only the ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// How many digits of an id people see.
const SHORT: usize = 12;

/// Prints the containers.
pub fn run(args: &PsArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let containers = stored::containers(&store)?;
    let mut table = Table::new(&[
        ("CONTAINER ID", Align::Left),
        ("IMAGE", Align::Left),
        ("COMMAND", Align::Left),
        ("CREATED", Align::Left),
        ("STATUS", Align::Left),
        ("NAMES", Align::Left),
    ]);
    let mut ids = String::new();
    for record in containers.list().map_err(|e| Failure::of(&e))? {
        let running = containers.is_running(&record.id);
        if !running && !args.all {
            continue;
        }
        let id: String = record.id.chars().take(SHORT).collect();
        let status = match (running, record.exit_code) {
            (true, _) => "Up".to_string(),
            (false, Some(code)) => format!("Exited ({code})"),
            (false, None) => "Lost".to_string(),
        };
        let created = human::ago(i64::try_from(record.created_secs).unwrap_or(i64::MAX), session.env.now_secs);
        ids.push_str(&id);
        ids.push('\n');
        table.row([id, record.image, record.command.join(" "), created, status, record.name]);
    }
    Ok(out::result(&if args.quiet { ids } else { table.render() })?)
}
