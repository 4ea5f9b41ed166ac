//! `extproc`: the external processor with the flag syntax of the Go gateway.

use std::process::ExitCode;

/// Many small allocations, made and freed on different threads: what it is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ai_gateway::cli::extproc(std::env::args_os())
}
