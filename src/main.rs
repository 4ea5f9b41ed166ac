//! `aigw`: the gateway's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ai_gateway::cli::aigw(std::env::args_os())
}
