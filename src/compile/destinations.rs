//! Backends: addresses, and how they are spoken to. One Backend becomes one cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::diagnostics::Diagnostics;
use crate::resources::core::{Deployment, Service};
use crate::resources::envoy_gateway::{AppProtocol, Backend, BackendEndpoint, BackendType};
use crate::resources::{Located, Snapshot};

use super::plan::{ClusterPlan, ClusterTraffic, Endpoint};
use super::{CompileOptions, EmbeddedBackend, digest, envoy, tls};

/// The image whose containers the embedded test backend stands in for.
const EMBEDDED_IMAGE: &str = "ai-gateway-testupstream";

/// A Backend cannot be used; why is in the diagnostics.
#[derive(Debug)]
pub(super) struct Unavailable;

/// Where the addresses have to be reached from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// From this machine, by an Envoy that is told all about them.
    Machine(&'a CompileOptions),
    /// From a cluster, by an Envoy that Envoy Gateway tells about them: names, TLS and their policies are its business.
    Cluster,
}

/// Turns Backends into clusters and collects which embedded backends they need.
pub(super) struct Destinations<'a> {
    snapshot: &'a Snapshot,
    place: Place<'a>,
    /// By Service.
    embedded: BTreeMap<String, EmbeddedBackend>,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, place: Place<'a>) -> Self {
        Self { snapshot, place, embedded: BTreeMap::new() }
    }

    /// The same resources, nothing collected yet.
    pub(super) fn afresh(&self) -> Self {
        Self::new(self.snapshot, self.place)
    }

    pub(super) fn into_embedded(self) -> Vec<EmbeddedBackend> {
        self.embedded.into_values().collect()
    }

    /// The cluster of a Backend.
    pub(super) fn cluster(
        &mut self,
        backend: &Located<Backend>,
        diagnostics: &mut Diagnostics,
    ) -> Result<ClusterPlan, Unavailable> {
        if backend.spec.kind == BackendType::DynamicResolver {
            diagnostics.push(
                backend
                    .error(
                        "spec.type",
                        "a DynamicResolver backend sends the credential wherever the client says",
                    )
                    .help("list the provider's address under spec.endpoints"),
            );
            return Err(Unavailable);
        }
        if backend.spec.endpoints.is_empty() {
            diagnostics
                .push(backend.error("spec.endpoints", "there is no address").help("add an fqdn or an ip"));
            return Err(Unavailable);
        }
        let options = match self.place {
            Place::Machine(options) => options,
            Place::Cluster => return Ok(in_cluster(backend)),
        };
        let tls =
            tls::of(self.snapshot, backend, options, diagnostics).map_err(|tls::Unavailable| Unavailable)?;
        let endpoints: Vec<Endpoint> = backend
            .spec
            .endpoints
            .iter()
            .enumerate()
            .filter_map(|(index, endpoint)| {
                self.endpoint(backend, index, endpoint, (tls.is_some(), options), diagnostics)
            })
            .collect();
        let named = endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Fqdn { .. }));
        let local = endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Unix { .. }));
        if named && local {
            diagnostics.push(
                backend
                    .error(
                        "spec.endpoints",
                        "names that are looked up and sockets of this machine cannot be mixed",
                    )
                    .help("make two Backends of it"),
            );
            return Err(Unavailable);
        }
        if tls.is_some() && endpoints.iter().any(|endpoint| self.is_embedded(endpoint)) {
            diagnostics.push(
                backend
                    .warning("spec.endpoints[0]", "the embedded test backend does not speak TLS, which this Backend asks for: no attempt at it succeeds")
                    .help("remove the BackendTLSPolicy, or start `aigw testbackend` with TLS and point the Backend at it"),
            );
        }
        let mut plan = ClusterPlan {
            name: String::new(),
            backend: format!("{}/{}", backend.namespace(), backend.name()),
            endpoints,
            h2c: tls.is_none() && backend.spec.app_protocols.contains(&AppProtocol::H2c),
            tls,
            traffic: ClusterTraffic::default(),
        };
        name(&mut plan);
        Ok(plan)
    }

    fn endpoint(
        &mut self,
        backend: &Located<Backend>,
        index: usize,
        endpoint: &BackendEndpoint,
        (tls, options): (bool, &CompileOptions),
        diagnostics: &mut Diagnostics,
    ) -> Option<Endpoint> {
        let field = format!("spec.endpoints[{index}]");
        let hostname = || endpoint.hostname.clone();
        let (port, planned) = if let Some(fqdn) = &endpoint.fqdn {
            let hostname = fqdn.hostname.to_ascii_lowercase();
            if let Some(service) = self.service(backend.namespace(), &hostname)
                && let Some(deployment) = stand_in(self.snapshot, service)
            {
                let path = self.embed(service, deployment, options);
                return Some(Endpoint::Unix { path, hostname });
            }
            if self.is_cluster_name(backend.namespace(), &hostname) {
                let message = format!(
                    "`{hostname}` is known inside a Kubernetes cluster only: requests to it are answered with 503 here"
                );
                diagnostics.push(
                    backend
                        .warning(&format!("{field}.fqdn.hostname"), message)
                        .help("point it at an address that this machine can reach"),
                );
            }
            (fqdn.port, Endpoint::Fqdn { hostname, port: fqdn.port })
        } else if let Some(ip) = &endpoint.ip {
            (ip.port, Endpoint::Ip { address: ip.address, port: ip.port, hostname: hostname() })
        } else {
            let unix = endpoint.unix.as_ref()?;
            let hostname = hostname().unwrap_or_else(|| "localhost".to_owned());
            return Some(Endpoint::Unix { path: PathBuf::from(&unix.path), hostname });
        };
        if port == 443 && !tls {
            diagnostics.push(
                backend
                    .warning(&field, "requests, credential included, are sent to port 443 without TLS")
                    .help(format!(
                        "add a BackendTLSPolicy that targets Backend `{}` in namespace `{}`",
                        backend.name(),
                        backend.namespace()
                    )),
            );
        }
        Some(planned)
    }

    fn embed(
        &mut self,
        service: &Located<Service>,
        deployment: &Located<Deployment>,
        options: &CompileOptions,
    ) -> PathBuf {
        let name = format!("{}/{}", service.namespace(), service.name());
        let env = environment(deployment);
        let socket = format!("backend-{}.sock", fingerprint(&format!("{name} {env:?}")));
        let socket = options.sockets.embedded.join(socket);
        self.embedded.entry(name.clone()).or_insert(EmbeddedBackend { name, socket, env }).socket.clone()
    }

    fn is_embedded(&self, endpoint: &Endpoint) -> bool {
        match endpoint {
            Endpoint::Unix { path, .. } => self.embedded.values().any(|embedded| embedded.socket == *path),
            _ => false,
        }
    }

    /// The Service that a name stands for where it is used in a namespace.
    fn service(&self, namespace: &str, hostname: &str) -> Option<&'a Located<Service>> {
        let hostname = hostname.trim_end_matches('.');
        let rest = hostname
            .strip_suffix(".svc.cluster.local")
            .or_else(|| hostname.strip_suffix(".svc"))
            .unwrap_or(hostname);
        match rest.rsplit_once('.') {
            Some((name, namespace)) => self.snapshot.services.get(namespace, name),
            // Only the bare name; `name.svc` is none.
            None if rest == hostname => self.snapshot.services.get(namespace, rest),
            None => None,
        }
    }

    fn is_cluster_name(&self, namespace: &str, hostname: &str) -> bool {
        hostname.ends_with(".svc.cluster.local")
            || hostname.ends_with(".svc")
            || self.service(namespace, hostname).is_some()
    }
}

/// The addresses as they are written: what is said of them tells one edition from another, and the host name that is signed.
fn in_cluster(backend: &Located<Backend>) -> ClusterPlan {
    let endpoint = |endpoint: &BackendEndpoint| {
        let hostname = endpoint.hostname.clone();
        if let Some(fqdn) = &endpoint.fqdn {
            return Some(Endpoint::Fqdn { hostname: fqdn.hostname.to_ascii_lowercase(), port: fqdn.port });
        }
        if let Some(ip) = &endpoint.ip {
            return Some(Endpoint::Ip { address: ip.address, port: ip.port, hostname });
        }
        let path = PathBuf::from(&endpoint.unix.as_ref()?.path);
        Some(Endpoint::Unix { path, hostname: hostname.unwrap_or_else(|| "localhost".to_owned()) })
    };
    let mut plan = ClusterPlan {
        name: String::new(),
        backend: format!("{}/{}", backend.namespace(), backend.name()),
        endpoints: backend.spec.endpoints.iter().filter_map(endpoint).collect(),
        h2c: backend.spec.app_protocols.contains(&AppProtocol::H2c),
        tls: None,
        traffic: ClusterTraffic::default(),
    };
    name(&mut plan);
    plan
}

/// The Deployment behind a Service, if it runs the test backend.
fn stand_in<'a>(snapshot: &'a Snapshot, service: &Located<Service>) -> Option<&'a Located<Deployment>> {
    snapshot.deployment_of(service).filter(|deployment| {
        deployment
            .spec
            .template
            .spec
            .containers
            .iter()
            .any(|container| image_name(&container.image) == EMBEDDED_IMAGE)
    })
}

fn environment(deployment: &Deployment) -> BTreeMap<String, String> {
    let containers = &deployment.spec.template.spec.containers;
    let container = containers.iter().find(|container| image_name(&container.image) == EMBEDDED_IMAGE);
    let variables = container.into_iter().flat_map(|container| &container.env);
    variables.map(|variable| (variable.name.clone(), variable.value.clone())).collect()
}

/// Another destination, or one that is treated otherwise, is another cluster, never the same one with a new content: a
/// request that was signed for the old one must not end at the new one while both are known.
fn name(plan: &mut ClusterPlan) {
    plan.name = format!("backend/{}", plan.backend);
    plan.name = format!("{}/{}", plan.name, fingerprint(&envoy::provider_cluster(plan).to_string()));
}

/// A destination, treated as a rule asks for.
pub(super) fn treated(plan: &ClusterPlan, traffic: &ClusterTraffic) -> ClusterPlan {
    let mut plan = plan.clone();
    if *traffic != plan.traffic {
        plan.traffic = traffic.clone();
        name(&mut plan);
    }
    plan
}

/// The first 8 hexadecimal digits of SHA-256: enough to tell the editions of one thing apart.
pub(super) fn fingerprint(text: &str) -> String {
    digest::of(text).chars().take(8).collect()
}

/// `registry:5000/path/name:tag@digest` → `name`.
fn image_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_their_last_part() {
        for image in [
            "ai-gateway-testupstream",
            "docker.io/envoyproxy/ai-gateway-testupstream:latest",
            "registry:5000/ai-gateway-testupstream@sha256:00",
        ] {
            assert_eq!(image_name(image), EMBEDDED_IMAGE, "{image}");
        }
        assert_ne!(image_name("ai-gateway-testupstream/other:1"), EMBEDDED_IMAGE);
    }
}
