//! Switches as docker's: `--no-cache`, and also `--no-cache=true` or `--no-cache=false`, as scripts write them.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

use crate::cli::values;

/// Returns the command with every switch taking a boolean after `=`: its own, and those of the subcommand that is
/// called, with all below it. (Of the others nobody asks; describing them anew costs every start.)
pub fn accept_values(command: Command, called: Option<&str>) -> Command {
    let command = command.mut_args(accept_value);
    match called.filter(|name| command.find_subcommand(name).is_some()) {
        Some(name) => command.mut_subcommand(name, accept_all),
        None => command,
    }
}

fn accept_all(command: Command) -> Command {
    command.mut_args(accept_value).mut_subcommands(accept_all)
}

fn accept_value(arg: Arg) -> Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) || arg.is_positional() {
        return arg;
    }
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .value_name("BOOL")
        .value_parser(ValueParser::from(values::boolean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_take_a_boolean_after_an_equals_sign() {
        let switch = |id: &'static str| Arg::new(id).long(id).action(ArgAction::SetTrue);
        let command = || {
            accept_values(
                Command::new("x").arg(switch("top")).subcommand(Command::new("y").arg(switch("sub")).arg(Arg::new("path"))),
                Some("y"),
            )
        };
        for (value, want) in [("--sub", true), ("--sub=true", true), ("--sub=0", false)] {
            let matches = command().try_get_matches_from(["x", "y", value, "path"]).unwrap();
            let sub = matches.subcommand_matches("y").unwrap();
            assert_eq!(
                (sub.get_flag("sub"), matches.get_flag("top"), sub.get_one::<String>("path").unwrap().as_str()),
                (want, false, "path")
            );
        }
        assert!(command().try_get_matches_from(["x", "y", "--sub=maybe"]).is_err());
    }
}
