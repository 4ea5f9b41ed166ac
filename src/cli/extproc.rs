//! `aigw extproc` and `extproc`: the data plane alone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::exchange::Settings;
use crate::headers::HeaderMapping;
use crate::server::{Listen, Processor, ProcessorOptions};
use crate::source::{self, Slot};
use crate::telemetry::{AttributeOptions, LogFormat};

/// Options of `aigw extproc`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  aigw extproc --config filter-config.yaml
  aigw extproc --config filter-config.yaml --listen unix:///run/aigw/extproc.sock --admin :1064")]
pub(super) struct Options {
    /// The compiled configuration, YAML or JSON; read again whenever it changes
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where Envoy connects: `:1063`, `127.0.0.1:1063` or `unix:///path`
    #[arg(long, default_value = ":1063", value_name = "ADDRESS")]
    listen: Listen,
    /// Where /health and /metrics are served
    #[arg(long, default_value = ":1064", value_name = "ADDRESS")]
    admin: Listen,
    /// How long exchanges may go on after a signal to stop, in seconds
    #[arg(long, default_value = "30", value_name = "SECONDS")]
    drain_timeout: u64,
    #[command(flatten)]
    attributes: AttributeOptions,
}

/// The external processor of an Envoy AI gateway, with the flags of the Go implementation. Flags take one dash or two.
#[derive(Debug, Parser)]
#[command(name = "extproc", version, max_term_width = 110)]
#[command(after_help = "Example:
  extproc -configPath /etc/filter-config/filter-config.yaml -extProcAddr unix:///run/extproc.sock -adminPort 1064")]
pub(super) struct GoFlags {
    /// The filter configuration, YAML or JSON
    #[arg(long = "configPath", value_name = "FILE")]
    config_path: PathBuf,
    /// Where Envoy connects: host:port or unix:///path
    #[arg(long = "extProcAddr", default_value = ":1063", value_name = "ADDRESS")]
    ext_proc_addr: Listen,
    /// The port of /health and /metrics, on all interfaces
    #[arg(long = "adminPort", default_value = "1064", value_name = "PORT")]
    admin_port: u16,
    /// debug, info, warn or error
    #[arg(long = "logLevel", default_value = "info", value_name = "LEVEL")]
    pub(super) log_level: String,
    /// text or json
    #[arg(long = "logFormat", default_value = "text", value_name = "FORMAT")]
    pub(super) log_format: LogFormat,
    /// Request headers told in all telemetry: header:attribute,…
    #[arg(long = "requestHeaderAttributes", value_name = "MAPPING")]
    request_header_attributes: Option<HeaderMapping>,
    /// Request headers told as labels of metrics, besides those
    #[arg(long = "metricsRequestHeaderAttributes", value_name = "MAPPING")]
    metrics_request_header_attributes: Option<HeaderMapping>,
    /// Request headers told in dynamic metadata, besides those [default: agent-session-id:session.id]
    #[arg(long = "logRequestHeaderAttributes", value_name = "MAPPING")]
    log_request_header_attributes: Option<HeaderMapping>,
}

impl From<GoFlags> for Options {
    fn from(flags: GoFlags) -> Self {
        let admin = Listen::Tcp(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), flags.admin_port));
        let attributes = AttributeOptions {
            request_header_attributes: flags.request_header_attributes,
            metrics_request_header_attributes: flags.metrics_request_header_attributes,
            log_request_header_attributes: flags.log_request_header_attributes,
        };
        Self { config: flags.config_path, listen: flags.ext_proc_addr, admin, drain_timeout: 30, attributes }
    }
}

/// Serves until told to stop. A configuration that cannot be read at start is an error; later ones are only reported.
#[expect(clippy::print_stderr, reason = "supervisors wait for this very line")]
pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let Options { config, listen, admin, drain_timeout, attributes } = options;
    let slot = Slot::default();
    let processor = Processor::start(ProcessorOptions {
        listen,
        admin: Some(admin),
        slot: slot.clone(),
        settings: Settings { attributes: attributes.resolve(), ..Settings::default() },
    })?;
    let (runtime, problems) = source::read(&config).context("the configuration cannot be used")?;
    for problem in problems {
        tracing::error!(%problem, "a part of the configuration is not served");
    }
    drop(slot.publish(runtime));
    tracing::info!(listen = %processor.listen(), admin = processor.admin().map(tracing::field::display), "serving");
    eprintln!("AI Gateway External Processor is ready");
    tokio::select! {
        stopped = stop_signal() => stopped?,
        () = source::follow(config, slot) => {}
    }
    tracing::info!(active = processor.active().count(), "stopping");
    processor.shutdown(Duration::from_secs(drain_timeout)).await;
    Ok(())
}

/// Resolves at SIGINT or SIGTERM.
pub(super) async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
