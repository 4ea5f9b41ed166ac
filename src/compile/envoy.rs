//! Envoy's configuration, written from the plan. Field names are those of Envoy's v3 API in its JSON form.

mod access_log;
mod authentication;
mod certificate;
mod cluster;
mod dynamic;
mod group;
mod listener;
mod local_reply;
mod processor;
mod route;
mod secret_file;
mod treatment;
mod written;

use std::path::{Path, PathBuf};

pub use certificate::CertificateFile;
pub(crate) use dynamic::{CLUSTERS_FILE, response};
pub use secret_file::SecretFile;
pub use written::{Resource, Routes, VirtualHost};

use serde_json::{Value, json};

use super::CompileOptions;
use super::plan::{Asked, Cluster, ClusterPlan, ListenerPlan, Plan};

/// The cluster under which Envoy knows the external processor.
const PROCESSOR_CLUSTER: &str = "aigw-extproc";

/// The name of our filter in the chain.
const PROCESSOR_FILTER: &str = "envoy.filters.http.ext_proc/aigateway";

/// Above any number of requests one machine can have in flight. Envoy's default of 1,024 is a trap for slow answers.
const NO_LIMIT: u32 = u32::MAX;

/// Envoy's half of what was compiled. It never holds a credential of a provider, nor prints the key of a certificate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EnvoyConfig {
    /// One for each listener that is opened.
    pub listeners: Vec<EnvoyListener>,
    /// Resources of type `envoy.config.cluster.v3.Cluster`: the providers.
    pub clusters: Vec<Resource>,
    /// The processor's cluster.
    pub processor: Value,
    /// What has to be there, in the folder of sockets, before a listener can speak TLS.
    pub certificates: Vec<CertificateFile>,
    /// What has to be there, in the folder of sockets, before the routes can come into force.
    pub secrets: Vec<SecretFile>,
    /// The socket file of Envoy's administration interface.
    pub admin_socket: PathBuf,
}

/// A listener and its routes. Its debug form does not show the routes, which hold what clients prove themselves with.
#[derive(Clone, Default, PartialEq)]
pub struct EnvoyListener {
    /// The name of both.
    pub name: String,
    /// A resource of type `envoy.config.listener.v3.Listener`, without routes.
    pub listener: Value,
    /// The routes.
    pub routes: Routes,
}

impl std::fmt::Debug for EnvoyListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnvoyListener").field("name", &self.name).finish_non_exhaustive()
    }
}

impl EnvoyConfig {
    /// [`EnvoyConfig::bootstrap`] without the keys and passwords of clients, for people.
    #[must_use]
    pub fn shown(&self) -> Value {
        let mut document = self.bootstrap();
        authentication::hide(&mut document);
        document
    }

    pub(super) fn write(plan: &Plan, options: &CompileOptions) -> Self {
        let listener = |plan: &ListenerPlan| EnvoyListener {
            name: plan.full_name(),
            listener: listener::write(plan, options),
            routes: route::configuration(plan),
        };
        let mut certificates: Vec<CertificateFile> = Vec::new();
        for certificate in plan.listeners.iter().flat_map(|listener| &listener.certificates) {
            let file = CertificateFile::new(certificate);
            if !certificates.contains(&file) {
                certificates.push(file);
            }
        }
        Self {
            certificates,
            secrets: secret_file::all(&plan.listeners),
            listeners: plan.listeners.iter().map(listener).collect(),
            clusters: plan.clusters.iter().map(|plan| Resource::new(&group::write(plan))).collect(),
            processor: cluster::processor(options),
            admin_socket: options.sockets.envoy_admin.clone(),
        }
    }

    /// The whole configuration in one document, as Envoy reads it with `-c`.
    pub fn bootstrap(&self) -> Value {
        let listeners: Vec<Value> = self.listeners.iter().map(EnvoyListener::whole).collect();
        let providers = self.clusters.iter().map(Resource::value);
        let clusters: Vec<Value> = std::iter::once(self.processor.clone()).chain(providers).collect();
        json!({
            "node": { "id": "aigw", "cluster": "aigw" },
            "admin": { "address": pipe(&self.admin_socket) },
            "static_resources": { "listeners": listeners, "clusters": clusters },
            "overload_manager": {
                "resource_monitors": [{
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 50_000,
                    },
                }],
            },
        })
    }
}

/// A destination as Envoy reads it; part of what a routing key stands for.
pub(super) fn provider_cluster(plan: &ClusterPlan) -> Value {
    cluster::provider(plan)
}

/// What is asked of clients as Envoy reads it; part of what a routing key stands for.
pub(super) fn asked(asked: &Asked) -> Value {
    authentication::per_filter(asked, authentication::Side::Behind)
}

/// A cluster as Envoy reads it, from which its name is made.
pub(super) fn cluster(plan: &Cluster) -> Value {
    group::write(plan)
}

fn pipe(path: &Path) -> Value {
    json!({ "pipe": { "path": path.to_string_lossy() } })
}

/// A duration as protobuf's JSON form has it.
fn duration(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    if rest == 0 { format!("{seconds}s") } else { format!("{seconds}.{rest:03}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_protobufs() {
        assert_eq!(duration(0), "0s");
        assert_eq!(duration(60_000), "60s");
        assert_eq!(duration(1_005), "1.005s");
    }
}
