//! L5. The whole gateway on this machine.

mod admin;
pub mod envoy_binary;
mod envoy_process;
mod ports;
mod runtime_dir;
