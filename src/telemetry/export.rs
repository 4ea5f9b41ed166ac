//! Where metrics go besides Prometheus, as OpenTelemetry's environment variables say.

use anyhow::Context;
use opentelemetry_otlp::{MetricExporter, Protocol, WithExportConfig};
use opentelemetry_sdk::metrics::MeterProviderBuilder;
use opentelemetry_sdk::metrics::periodic_reader_with_async_runtime::PeriodicReader;
use opentelemetry_sdk::runtime::Tokio;

/// What the environment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Export {
    Nothing,
    Console,
    Otlp(Protocol),
}

/// Adds the exporters that `OTEL_METRICS_EXPORTER` (`otlp`, `console`, `none`, `prometheus`) and the OTLP variables ask for;
/// without the former, OTLP is used once `OTEL_EXPORTER_OTLP_ENDPOINT` or its variant for metrics is set.
/// `OTEL_SDK_DISABLED=true` turns all off. Prometheus is always there and never turned off here. Must be called within a tokio
/// runtime. Fails, naming the variable, on a value that means nothing.
pub(super) fn add(
    provider: MeterProviderBuilder,
    env: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<MeterProviderBuilder> {
    Ok(match wanted(env)? {
        Export::Nothing => provider,
        Export::Console => {
            let exporter = opentelemetry_stdout::MetricExporter::default();
            provider.with_reader(PeriodicReader::builder(exporter, Tokio).build())
        }
        Export::Otlp(protocol) => {
            let exporter = match protocol {
                Protocol::Grpc => MetricExporter::builder().with_tonic().build(),
                _ => MetricExporter::builder().with_http().with_protocol(protocol).build(),
            };
            let exporter =
                exporter.context("the OTLP exporter cannot be set up; see OTEL_EXPORTER_OTLP_*")?;
            provider.with_reader(PeriodicReader::builder(exporter, Tokio).build())
        }
    })
}

fn wanted(env: impl Fn(&str) -> Option<String>) -> anyhow::Result<Export> {
    let env = |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    if env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(Export::Nothing);
    }
    let endpoint = env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT").or_else(|| env("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let exporter = env("OTEL_METRICS_EXPORTER");
    match exporter.as_deref() {
        Some("none" | "prometheus") => Ok(Export::Nothing),
        Some("console") => Ok(Export::Console),
        None if endpoint.is_none() => Ok(Export::Nothing),
        None | Some("otlp") => protocol(env).map(Export::Otlp),
        Some(other) => {
            anyhow::bail!("OTEL_METRICS_EXPORTER is {other:?}; use otlp, console, prometheus or none")
        }
    }
}

fn protocol(env: impl Fn(&str) -> Option<String>) -> anyhow::Result<Protocol> {
    let name = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL";
    let (name, value) = match env(name) {
        Some(value) => (name, Some(value)),
        None => ("OTEL_EXPORTER_OTLP_PROTOCOL", env("OTEL_EXPORTER_OTLP_PROTOCOL")),
    };
    match value.as_deref() {
        Some("grpc") => Ok(Protocol::Grpc),
        None | Some("http/protobuf") => Ok(Protocol::HttpBinary),
        Some(other) => anyhow::bail!("{name} is {other:?}; use grpc or http/protobuf"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_with(set: &[(&str, &str)]) -> Result<Export, String> {
        let env = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        wanted(env).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_decides() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        for (set, expected) in [
            (vec![], Export::Nothing),
            (vec![endpoint], Export::Otlp(Protocol::HttpBinary)),
            (vec![endpoint, grpc], Export::Otlp(Protocol::Grpc)),
            (
                vec![endpoint, grpc, ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")],
                Export::Otlp(Protocol::HttpBinary),
            ),
            (vec![("OTEL_METRICS_EXPORTER", "otlp"), grpc], Export::Otlp(Protocol::Grpc)),
            (vec![("OTEL_METRICS_EXPORTER", "console")], Export::Console),
            (vec![endpoint, ("OTEL_METRICS_EXPORTER", "none")], Export::Nothing),
            (vec![endpoint, ("OTEL_SDK_DISABLED", "true")], Export::Nothing),
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], Export::Nothing),
        ] {
            assert_eq!(wanted_with(&set), Ok(expected), "{set:?}");
        }
    }

    #[test]
    fn a_value_without_meaning_is_named() {
        let error = wanted_with(&[("OTEL_METRICS_EXPORTER", "zipkin")]).unwrap_err();
        assert!(error.contains("OTEL_METRICS_EXPORTER") && error.contains("zipkin"), "{error}");
        let set = [("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "soap")];
        assert!(wanted_with(&set).unwrap_err().contains("OTEL_EXPORTER_OTLP_PROTOCOL"));
    }
}
