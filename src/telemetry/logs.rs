//! Logs on standard error.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::exchange::{Outcome, Settlement};

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
    let filter = filter(&level.to_lowercase())?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Line);
    // Only the first call in a process can succeed.
    let _ = match format {
        LogFormat::Text => logs.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

thread_local! {
    /// Lines of this thread that are not written yet, while they are gathered.
    static GATHERED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Gathered lines are written once they are as long as this, in bytes.
const MOST_GATHERED: usize = 64 * 1024;

/// Does some work on this thread, and writes what it logs with as few writes as that takes.
pub fn written_together(work: impl FnOnce()) {
    /// Writes even if the work panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            let lines = GATHERED.with(RefCell::take).unwrap_or_default();
            // There is nowhere to tell of a failure.
            let _ = stderr().write_all(&lines);
        }
    }
    GATHERED.with(|gathered| gathered.replace(Some(Vec::new())));
    let end = End;
    work();
    drop(end);
}

/// Takes log lines to standard error, each in one write.
pub(super) struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        GATHERED.with_borrow_mut(|gathered| match gathered {
            Some(lines) => {
                lines.extend_from_slice(line);
                if lines.len() >= MOST_GATHERED {
                    stderr().write_all(lines)?;
                    lines.clear();
                }
                Ok(line.len())
            }
            None => stderr().write(line),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A bare level is that of this program. The libraries it is made of log from warnings on: what they have to say at lower
/// levels is of no use to its users, and may quote messages.
pub(super) fn filter(level: &str) -> Result<EnvFilter, String> {
    let chosen = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = chosen.unwrap_or_else(|| match level.parse::<LevelFilter>() {
        Ok(level) => format!("{},ai_gateway={level},aigw={level}", level.min(LevelFilter::WARN)),
        Err(_) => level.to_owned(),
    });
    EnvFilter::try_new(&filter).map_err(|error| {
        format!("the log level {filter:?} cannot be read ({error}); use debug, info, warn or error")
    })
}

/// One line for each settled exchange: who was asked, how it ended, what it used. No content, no credential.
pub fn log_settlement(settlement: &Settlement) {
    let served = settlement.served.as_deref();
    let route =
        served.map(|served| &*served.route).or_else(|| settlement.rule.as_deref().map(|rule| &*rule.route));
    let failed: Vec<&str> = settlement.failed.iter().map(|served| &*served.backend.name).collect();
    let reason = match settlement.outcome {
        Outcome::Refused(reason) => reason,
        _ => "",
    };
    tracing::info!(
        target: "aigw::exchange",
        outcome = settlement.outcome.word(),
        reason,
        operation = settlement.endpoint.map_or("", |endpoint| endpoint.operation()),
        status = settlement.status,
        gateway = settlement.gateway.as_deref(),
        tenant = (!settlement.tenant.is_anonymous()).then(|| tracing::field::display(&settlement.tenant)),
        route,
        backend = served.map(|served| &*served.backend.name),
        failed_backends = (!failed.is_empty()).then(|| failed.join(",")),
        model = settlement.original_model.as_deref(),
        response_model = settlement.response_model.as_deref(),
        streaming = settlement.streaming,
        input_tokens = settlement.usage.input,
        cached_input_tokens = settlement.usage.cached_input,
        cache_creation_input_tokens = settlement.usage.cache_creation_input,
        output_tokens = settlement.usage.output,
        reasoning_tokens = settlement.usage.reasoning,
        total_tokens = settlement.usage.total,
        estimated = settlement.estimated,
        duration_ms = settlement.duration.as_millis() as u64,
        "exchange settled",
    );
}
