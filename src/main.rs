//! The `ply` program: hands its arguments to [`plywood::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    plywood::cli::main(std::env::args_os())
}
