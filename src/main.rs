//! `aigw`: the gateway's command line.

use std::process::ExitCode;

/// Many small allocations, made and freed on different threads: what it is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ai_gateway::cli::aigw(std::env::args_os())
}
