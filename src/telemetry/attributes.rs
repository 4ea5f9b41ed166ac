//! The options that map request headers to telemetry attributes.

use crate::headers::{HeaderAttributes, HeaderMapping};

/// Which request headers are told in metrics and access logs, as `header:attribute,…`; an empty text maps none.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct AttributeOptions {
    /// Request headers told everywhere: `header:attribute,…`
    #[arg(long, value_name = "MAPPING", env = "OTEL_AIGW_REQUEST_HEADER_ATTRIBUTES")]
    pub request_header_attributes: Option<HeaderMapping>,
    /// Request headers told as labels of metrics, besides those; each value makes series of its own
    #[arg(long, value_name = "MAPPING", env = "OTEL_AIGW_METRICS_REQUEST_HEADER_ATTRIBUTES")]
    pub metrics_request_header_attributes: Option<HeaderMapping>,
    /// Request headers told in dynamic metadata, for access logs, besides those [default: agent-session-id:session.id]
    #[arg(long, value_name = "MAPPING", env = "OTEL_AIGW_LOG_REQUEST_HEADER_ATTRIBUTES")]
    pub log_request_header_attributes: Option<HeaderMapping>,
}

impl AttributeOptions {
    /// The mappings in force: the specific ones over the general one.
    pub fn resolve(&self) -> HeaderAttributes {
        let Self {
            request_header_attributes,
            metrics_request_header_attributes,
            log_request_header_attributes,
        } = self;
        let base = request_header_attributes.clone().unwrap_or_default();
        let session = || HeaderMapping::of("agent-session-id", "session.id");
        HeaderAttributes {
            metrics: base.merged(&metrics_request_header_attributes.clone().unwrap_or_default()),
            logs: base.merged(&log_request_header_attributes.clone().unwrap_or_else(session)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_logged_unless_that_is_turned_off() {
        let session = HeaderMapping::of("agent-session-id", "session.id");
        assert_eq!(AttributeOptions::default().resolve().logs, session);
        let off = AttributeOptions {
            log_request_header_attributes: Some("".parse().unwrap()),
            ..Default::default()
        };
        assert_eq!(off.resolve(), HeaderAttributes::default());
        let both = AttributeOptions {
            request_header_attributes: Some("a:b".parse().unwrap()),
            ..Default::default()
        };
        assert_eq!(both.resolve().metrics, "a:b".parse().unwrap());
        assert_eq!(both.resolve().logs, "a:b,agent-session-id:session.id".parse().unwrap());
    }
}
