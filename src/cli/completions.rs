//! `ply completions`: the words that a shell may complete, made from the flags themselves.
//!
//! Words only, no positions or values: a shell falls back to file names where no word fits.

use clap::{Args, Command, ValueEnum};

use crate::cli::failure::Failure;
use crate::ui::out;

/// Print a script for a shell
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that can complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub fn run(args: &CompletionsArgs, command: &Command) -> Result<(), Failure> {
    Ok(out::result(&script(args.shell, command))?)
}

fn script(shell: Shell, command: &Command) -> String {
    let commands: Vec<&Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
    let names = commands.iter().map(|c| c.get_name()).collect::<Vec<_>>().join(" ");
    match shell {
        Shell::Fish => {
            let mut out = String::from("complete -c ply -n __fish_use_subcommand -f\n");
            for c in &commands {
                let about = c.get_about().map(|a| a.to_string().replace('\'', "")).unwrap_or_default();
                out.push_str(&format!("complete -c ply -n __fish_use_subcommand -a {} -d '{about}'\n", c.get_name()));
                for flag in long_flags(c) {
                    out.push_str(&format!("complete -c ply -n '__fish_seen_subcommand_from {}' -l {flag}\n", c.get_name()));
                }
            }
            out
        }
        Shell::Bash | Shell::Zsh => {
            let mut out = String::new();
            if shell == Shell::Zsh {
                out.push_str("autoload -U +X bashcompinit && bashcompinit\n");
            }
            out.push_str("_ply() {\n  local word=${COMP_WORDS[COMP_CWORD]} words\n  case ${COMP_WORDS[1]} in\n");
            for c in &commands {
                let flags: Vec<String> = long_flags(c).map(|f| format!("--{f}")).collect();
                out.push_str(&format!("    {}) words=\"{}\" ;;\n", c.get_name(), flags.join(" ")));
            }
            out.push_str(&format!("    *) words=\"{names}\" ;;\n  esac\n"));
            out.push_str(&format!("  [ \"$COMP_CWORD\" -gt 1 ] || words=\"{names}\"\n"));
            out.push_str("  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\ncomplete -o default -F _ply ply\n");
            out
        }
    }
}

fn long_flags(command: &Command) -> impl Iterator<Item = String> + '_ {
    command.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_the_commands_and_their_flags() {
        let command = crate::cli::command();
        let bash = script(Shell::Bash, &command);
        assert!(bash.contains("build) words=\"") && bash.contains("--build-arg") && !bash.contains("--squash"), "{bash}");
        assert!(script(Shell::Fish, &command).contains("complete -c ply -n '__fish_seen_subcommand_from build' -l build-arg\n"));
    }
}
