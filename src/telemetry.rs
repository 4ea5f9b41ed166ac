//! L4. What the process tells of itself: logs, and metrics of every settled exchange.

mod attributes;
mod export;
mod logs;
mod metrics;
mod series;
mod slog;

pub use attributes::AttributeOptions;
pub use logs::{LogFormat, init_logs, log_settlement, written_together};
pub use metrics::Metrics;
pub use slog::init_slog;
