//! Envoy and the processor started apart, so that one can be changed or stopped without the other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ai_gateway::compile::{CompileOptions, Compiled, PortOverride, RoutingSecret, Sockets, compile};
use ai_gateway::config::Config;
use ai_gateway::resources::Snapshot;
use ai_gateway::runtime::Runtime;
use ai_gateway::server::{Listen, Processor, ProcessorOptions, QuotaOptions};
use ai_gateway::source::Slot;

use super::envoy::Envoy;
use super::http::{Peer, get};

/// An Envoy with the configuration of some resources, and the place where it looks for the processor.
pub(crate) struct Planes {
    pub(crate) envoy: Envoy,
    /// Where the listener `http` is.
    pub(crate) addr: SocketAddr,
    // Both sockets' folder.
    dir: tempfile::TempDir,
}

/// The socket of the processor that attempts go to.
const APART: &str = "apart.sock";

fn options(dir: &Path) -> CompileOptions {
    CompileOptions {
        // The same for every compilation, as within one process.
        secret: RoutingSecret([7; 32]),
        ca_bundle: None,
        listen_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        first_port: 0,
        ports: vec![PortOverride { listener: "http".to_owned(), port: 0 }],
        client_addresses: false,
        sockets: Sockets {
            extproc: dir.join("extproc.sock"),
            envoy_admin: dir.join("unused.sock"),
            embedded: dir.to_owned(),
        },
    }
}

fn compiled(yaml: &str, dir: &Path) -> Compiled {
    let (snapshot, findings) = Snapshot::parse(yaml);
    assert!(findings.is_empty(), "{findings:#?}");
    let compiled = compile(&snapshot, &options(dir));
    assert!(!compiled.diagnostics.has_errors(), "{}", compiled.diagnostics.render(false));
    compiled
}

impl Planes {
    /// Starts Envoy for these resources, without a processor.
    pub(crate) async fn envoy(yaml: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let bootstrap = compiled(yaml, dir.path()).envoy.bootstrap();
        Self::start(dir, bootstrap).await
    }

    async fn start(dir: tempfile::TempDir, bootstrap: serde_json::Value) -> Option<Self> {
        let envoy = Envoy::start(|_| bootstrap).await?;
        let listeners = envoy.admin("/listeners?format=json").await;
        let listeners: serde_json::Value = serde_json::from_str(&listeners).expect("JSON");
        let port = &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
        let port = port.as_u64().and_then(|p| u16::try_from(p).ok()).expect("a port");
        Some(Self { envoy, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), dir })
    }

    /// As [`Planes::envoy`], but attempts go to a processor of their own, another than the one that has the request.
    pub(crate) async fn envoy_apart(yaml: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let mut bootstrap = compiled(yaml, dir.path()).envoy.bootstrap();
        let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().expect("clusters");
        let mut apart = None;
        for cluster in &mut *clusters {
            let filter = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/http_filters/0";
            if let Some(filter) = cluster.pointer_mut(filter) {
                filter["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = "apart".into();
            }
        }
        for cluster in &*clusters {
            if cluster["name"] == "aigw-extproc" {
                let there = dir.path().join(APART).to_string_lossy().into_owned();
                let here = dir.path().join("extproc.sock").to_string_lossy().into_owned();
                let text = cluster.to_string().replace(&here, &there).replace("aigw-extproc", "apart");
                apart = serde_json::from_str(&text).ok();
            }
        }
        clusters.push(apart.expect("the processor's cluster"));
        Self::start(dir, bootstrap).await
    }

    /// Starts the processor that [`Planes::envoy_apart`] sends attempts to.
    pub(crate) fn processor_apart(&self, yaml: &str) -> Processor {
        self.processor_apart_with(yaml, QuotaOptions::default())
    }

    /// The same, with quotas kept there.
    pub(crate) fn processor_apart_with(&self, yaml: &str, quotas: QuotaOptions) -> Processor {
        let slot = Slot::default();
        let options = ProcessorOptions {
            quotas,
            ..ProcessorOptions::new(Listen::Unix(self.dir.path().join(APART)), slot.clone())
        };
        let processor = Processor::start(options).expect("a processor");
        self.publish(&slot, yaml);
        processor
    }

    /// Starts Envoy with the routes and clusters of several editions of some resources side by side, as it has them while one
    /// takes the place of another; returns what the processor is to be told in each.
    pub(crate) async fn envoy_for_all(editions: &[String]) -> Option<(Self, Vec<Config>)> {
        let dir = tempfile::tempdir().expect("a folder");
        let compiled: Vec<Compiled> = editions.iter().map(|yaml| compiled(yaml, dir.path())).collect();
        let mut all = compiled.iter().map(|edition| edition.envoy.clone());
        let first = all.next().expect("an edition");
        let union = all.fold(first, |union, edition| edition.with_rest_of(&union));
        let planes = Self::start(dir, union.bootstrap()).await?;
        Some((planes, compiled.into_iter().map(|edition| edition.config).collect()))
    }

    /// Starts a processor that serves nothing yet, and what it is told by.
    pub(crate) fn bare_processor(&self) -> (Processor, Slot) {
        self.bare_processor_with(QuotaOptions::default())
    }

    fn bare_processor_with(&self, quotas: QuotaOptions) -> (Processor, Slot) {
        let slot = Slot::default();
        let options = ProcessorOptions {
            admin: Some(Listen::Unix(self.admin_socket())),
            quotas,
            ..ProcessorOptions::new(Listen::Unix(self.dir.path().join("extproc.sock")), slot.clone())
        };
        (Processor::start(options).expect("a processor"), slot)
    }

    /// Starts a processor for these resources where Envoy looks for it.
    pub(crate) fn processor(&self, yaml: &str) -> Processor {
        let (processor, slot) = self.bare_processor();
        self.publish(&slot, yaml);
        processor
    }

    /// The same, with quotas kept there.
    pub(crate) fn processor_with(&self, yaml: &str, quotas: QuotaOptions) -> Processor {
        let (processor, slot) = self.bare_processor_with(quotas);
        self.publish(&slot, yaml);
        processor
    }

    fn publish(&self, slot: &Slot, yaml: &str) {
        let (runtime, problems) = Runtime::new(compiled(yaml, self.dir.path()).config);
        assert!(problems.is_empty(), "{problems:?}");
        slot.publish(runtime);
    }

    fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::Tcp(self.addr)
    }

    /// The sum of a metric's series, as Prometheus would read it.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = Peer::Unix(self.admin_socket()).send(get("/metrics")).await.text();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && !line[name.len()..].starts_with(char::is_alphanumeric));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

/// Long enough for what is in flight to end, and no test waits for it.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
