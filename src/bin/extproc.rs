//! `extproc`: the external processor with the flag syntax of the Go gateway.
fn main() {}
