//! Logs on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `level` is `debug`, `info`, `warn`, `error` (any case) or a filter as
/// `tracing-subscriber` reads it; the environment variable `RUST_LOG`, where set, goes first. Fails on a filter that
/// cannot be read. A second call changes nothing.
pub fn init_logs(level: &str, format: LogFormat) -> Result<(), String> {
    let chosen = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = chosen.unwrap_or_else(|| level.to_lowercase());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        format!("the log level {filter:?} cannot be read ({error}); use debug, info, warn or error")
    })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // Only the first call in a process can succeed.
    let _ = match format {
        LogFormat::Text => logs.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}
