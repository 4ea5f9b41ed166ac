//! `extproc`: the external processor with the flag syntax of the Go gateway.

use std::process::ExitCode;

fn main() -> ExitCode {
    ai_gateway::cli::extproc(std::env::args_os())
}
