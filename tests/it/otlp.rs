//! Metrics, as a collector gets them from the processor's process.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

struct Collector(mpsc::UnboundedSender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        // The test may have seen enough.
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// The classes of tokens in an export, each with its sum and temporality.
fn token_classes(export: &ExportMetricsServiceRequest) -> BTreeSet<(String, u64, i32)> {
    let metrics = export
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics);
    let mut classes = BTreeSet::new();
    for metric in metrics.filter(|metric| metric.name == "gen_ai.client.token.usage") {
        let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
        for point in &histogram.data_points {
            let class = point.attributes.iter().find(|attribute| attribute.key == "gen_ai.token.type");
            let class = format!("{:?}", class.and_then(|class| class.value.as_ref()));
            classes.insert((class, point.sum.unwrap_or(0.0) as u64, histogram.aggregation_temporality));
        }
    }
    classes
}

#[tokio::test]
async fn metrics_are_exported_as_the_environment_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut exports) = mpsc::unbounded_channel();
    let server =
        tonic::transport::Server::builder().add_service(MetricsServiceServer::new(Collector(sender)));
    super::support::spawn(async move {
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });

    let dir = tempfile::tempdir().unwrap();
    let (config, socket) = (dir.path().join("config.json"), dir.path().join("extproc.sock"));
    std::fs::write(&config, super::extproc::config().to_string()).unwrap();
    let mut processor = Command::new(env!("CARGO_BIN_EXE_extproc"))
        .args(["-configPath".as_ref(), config.as_os_str()])
        .args(["-extProcAddr", &format!("unix://{}", socket.display()), "-adminPort", "0"])
        .envs([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        ])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(processor.stderr.take().unwrap()).lines();
    while log.next_line().await.unwrap().expect("the ready line") != "AI Gateway External Processor is ready"
    {
    }
    super::extproc::exchange(super::extproc::channel(socket)).await;

    const DELTA: i32 = 1;
    let expected: BTreeSet<_> = [("input", 2), ("output", 3)]
        .map(|(class, sum)| (format!("Some(AnyValue {{ value: Some(StringValue({class:?})) }})"), sum, DELTA))
        .into();
    let seen = tokio::time::timeout(Duration::from_secs(180), async {
        loop {
            let export = exports.recv().await.expect("the collector lives");
            let classes = token_classes(&export);
            if !classes.is_empty() {
                return classes;
            }
        }
    });
    assert_eq!(seen.await.expect("an export with token usage"), expected);
    processor.kill().await.unwrap();
}
