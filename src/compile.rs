//! L5. Resources in, configuration out: what the processor reads and what Envoy reads, from one plan.
//!
//! Pure: the same resources and options give the same result. An item that cannot be served is named in a diagnostic and
//! left out; the rest is served.
//!
//! ```text
//! Snapshot ─► listeners ─► routes ─► rules ─► services ─► destinations, credentials
//!                             └────────► Plan ─► config::Config
//!                                          └───► EnvoyConfig
//! ```

mod access_log;
mod backend_traffic;
mod certificates;
mod client_traffic;
mod costs;
mod credentials;
mod destinations;
mod digest;
mod envoy;
mod failover;
mod gateway_config;
mod grants;
mod hostnames;
pub mod kubernetes;
mod listeners;
mod models;
mod mutations;
mod overlap;
mod plan;
mod policies;
mod quota;
mod routes;
mod rules;
mod security;
mod security_parts;
mod services;
#[cfg(test)]
mod tests;
mod tls;
mod unserved;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use envoy::{CLUSTERS_FILE, response};
pub use envoy::{CertificateFile, EnvoyConfig, EnvoyListener, Resource, Routes, SecretFile, VirtualHost};

use crate::config::{self, Config};
use crate::diagnostics::Diagnostics;
use crate::exchange::{MODEL_HEADER, NO_ROUTE, PROCESSED_HEADER, ROUTING_HEADER};
use crate::mutation::METADATA_NAMESPACE;
use crate::resources::Snapshot;

use backend_traffic::BackendPolicies;
use overlap::Overlaps;
use plan::{Asked, ListenerPlan, Plan};
use security::Security;

/// What is not in the files.
#[derive(Debug, Clone)]
pub struct CompileOptions {
    /// Keys the routing keys. Made anew for every start.
    pub secret: RoutingSecret,
    /// PEM file with the CA certificates of this machine, for `wellKnownCACertificates: System`.
    pub ca_bundle: Option<PathBuf>,
    /// Where the listeners listen.
    pub listen_address: IpAddr,
    /// The port of the first listener; the others take the ones after it.
    pub first_port: u16,
    /// Ports of single listeners.
    pub ports: Vec<PortOverride>,
    /// Whether the processor is told where clients are: keys can be bound to networks.
    pub client_addresses: bool,
    /// Where the parts of the gateway meet.
    pub sockets: Sockets,
}

/// 32 random bytes that do not print.
#[derive(Clone)]
pub struct RoutingSecret(pub [u8; 32]);

impl fmt::Debug for RoutingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoutingSecret(..)")
    }
}

/// A port chosen for one listener: 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOverride {
    /// `listener`, or `gateway/listener` or `namespace/gateway/listener` where that alone is ambiguous.
    pub listener: String,
    /// The port.
    pub port: u16,
}

/// Socket files.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// The processor's.
    pub extproc: PathBuf,
    /// Envoy's administration interface.
    pub envoy_admin: PathBuf,
    /// The folder for those of embedded backends, and for the files in which Envoy finds certificates and their keys. Only
    /// this user should be able to enter it.
    pub embedded: PathBuf,
}

/// What came of the resources.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// For the processor.
    pub config: Config,
    /// For Envoy.
    pub envoy: EnvoyConfig,
    /// Everything there is to say about the resources.
    pub diagnostics: Diagnostics,
    /// Whether every [`CompileOptions::ports`] found its listener and is free there; if not, the diagnostics say which.
    pub options_fit: bool,
    /// Stand-in model servers to be started.
    pub embedded_backends: Vec<EmbeddedBackend>,
    /// In the order of their ports.
    pub listeners: Vec<Listener>,
}

impl Compiled {
    /// Whether the processor would be told the same.
    #[must_use]
    pub fn config_equals(&self, other: &Self) -> bool {
        // Credentials are no part of this, but of the routing keys, which are.
        self.config.redacted() == other.config.redacted()
    }

    /// Whether any request could be sent anywhere.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.listeners.iter().any(|listener| listener.rules > 0)
    }
}

/// A stand-in model server that the resources ask for by an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedBackend {
    /// `namespace/name` of the Service.
    pub name: String,
    /// The socket file it has to listen on.
    pub socket: PathBuf,
    /// The environment of its container.
    pub env: BTreeMap<String, String>,
}

/// A listener that Envoy opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The name in Envoy's configuration: `namespace/gateway/listener`.
    pub id: String,
    /// The name that `--listen` takes for it.
    pub name: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// A host name under which it serves; `None` if any will do.
    pub hostname: Option<String>,
    /// Whether TLS is spoken on it.
    pub tls: bool,
    /// How many rules it can send somewhere.
    pub rules: usize,
    /// The models its rules name.
    pub models: Vec<String>,
    /// Its rules, in the order of [`config::Gateway::rules`].
    pub described: Vec<RuleDescription>,
}

/// What becomes of the requests of one rule, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleDescription {
    /// `namespace/name` of the AIGatewayRoute.
    pub route: String,
    /// The index of the rule in it.
    pub index: usize,
    /// Where it leads.
    pub fate: RuleFate,
}

/// Where a rule leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleFate {
    /// To one of these, by priority, then by weight.
    Forwarded(Vec<Destination>),
    /// Nowhere: something is wrong with it, which a diagnostic says. Its requests are answered with 404.
    Refused,
    /// Nowhere: no backend has a weight. Its requests are answered with 500.
    NoBackend,
}

/// A backend of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// [`config::Backend::name`].
    pub backend: String,
    /// Its share, in proportion to the other weights of the same priority.
    pub weight: u32,
    /// Those with a lower number come first.
    pub priority: u32,
    /// Addresses, as `host:port` or `unix:path`.
    pub addresses: Vec<String>,
    /// The host names that requests to them carry, where they are known.
    pub hosts: Vec<String>,
    /// The host name that its certificate has to have, where TLS is spoken.
    pub tls: Option<String>,
}

/// Compiles resources. Never fails: what cannot be served is in [`Compiled::diagnostics`].
#[must_use]
pub fn compile(snapshot: &Snapshot, options: &CompileOptions) -> Compiled {
    let mut diagnostics = Diagnostics::new();
    let (targets, options_fit) = listeners::collect(snapshot, options, &mut diagnostics);
    let mut services = services::Services::new(snapshot, destinations::Place::Machine(options));
    let routes = routes::attach(snapshot, &targets, &mut services, &mut diagnostics);
    let policies = BackendPolicies::new(snapshot, &mut diagnostics);
    let security = Security::new(snapshot, options, &mut diagnostics);
    let quotas = quota::compile(snapshot, &mut diagnostics);
    let digest = digest::Digest::new(&options.secret.0);
    let (mut overlaps, mut clusters) = (Overlaps::default(), routes::Clusters::default());
    let listeners: Vec<ListenerPlan> = targets
        .iter()
        .enumerate()
        .map(|(index, target)| {
            let policies = routes::Policies { traffic: &policies, security: &security, quotas: &quotas };
            routes::plan(index, target, &routes, &policies, &digest, &mut overlaps, &mut clusters)
        })
        .collect();
    clusters.add(security.clusters().to_vec());
    overlaps.report(&routes, &mut diagnostics);
    unserved::check(snapshot, &routes, &services, &mut diagnostics);
    let plan = Plan { listeners, clusters: clusters.into_plans() };
    let mut config =
        Config { llm_request_costs: costs::of_routes(&routes, &mut diagnostics), ..Config::default() };
    gateway_config::add_costs(&targets, &routes, &mut config, &mut diagnostics);
    config.backends = rules::backends(&routes);
    let published = quota::published(&quotas, &routes, &config.llm_request_costs);
    config.llm_request_costs.extend(published);
    config.quotas = quotas;
    config.gateways = plan.listeners.iter().map(ListenerPlan::gateway_config).collect();
    Compiled {
        envoy: EnvoyConfig::write(&plan, options),
        listeners: listeners::describe(&targets, &plan),
        embedded_backends: services.embedded_backends(),
        config,
        diagnostics,
        options_fit,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl plan::Clients {
    /// What the processor demands of every request.
    fn proofs(&self) -> Vec<config::Proof> {
        let front = self.front.iter().flat_map(|Asked { proofs, .. }| proofs.iter());
        self.certificate.iter().chain(front).cloned().collect()
    }
}

impl ListenerPlan {
    fn gateway_config(&self) -> config::Gateway {
        config::Gateway {
            authority: self.authority.clone(),
            name: self.gateway.clone(),
            hosts: self.hosts.clone(),
            rules: self
                .rules
                .iter()
                .map(|rule| config::Rule {
                    route: rule.route.clone(),
                    backend: if rule.attempts.is_empty() { rule.backend.clone() } else { String::new() },
                    attempts: rule.attempts.clone(),
                    routing_key: rule.routing_key.clone(),
                    proofs: rule.asked.as_ref().map(|asked| asked.proofs.clone()).unwrap_or_default(),
                    tenancy: rule.tenancy.clone(),
                })
                .collect(),
            models: self.models.clone(),
            proofs: self.clients.proofs(),
            tenancy: self.clients.tenancy.clone(),
            gateway_key: self.clients.gateway_key,
        }
    }
}
