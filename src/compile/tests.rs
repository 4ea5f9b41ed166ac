//! Small resources in, both configurations out.

mod credentials;
mod failover;
mod golden;
mod https;
mod overlaps;
mod policies;
mod properties;
mod quota;
mod refusals;
mod routing;
mod tenants;
mod unserved;

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::*;
use crate::config::Gateway;

fn options() -> CompileOptions {
    CompileOptions {
        secret: RoutingSecret([42; 32]),
        ca_bundle: Some(PathBuf::from("/etc/ssl/certs/ca-certificates.crt")),
        listen_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        first_port: 1975,
        ports: Vec::new(),
        client_addresses: false,
        sockets: Sockets {
            extproc: PathBuf::from("/run/aigw/extproc.sock"),
            envoy_admin: PathBuf::from("/run/aigw/envoy.sock"),
            embedded: PathBuf::from("/run/aigw"),
        },
    }
}

/// Compiles text that has to be readable.
fn compile_text(text: &str) -> Compiled {
    compile_with(text, &options())
}

fn compile_with(text: &str, options: &CompileOptions) -> Compiled {
    let (snapshot, findings) = Snapshot::parse(text);
    assert!(findings.is_empty(), "the input is not as meant: {findings:#?}");
    compile(&snapshot, options)
}

fn messages(compiled: &Compiled) -> String {
    compiled.diagnostics.render(false)
}

/// Compiles text about which there must be nothing to say.
fn compile_clean(text: &str) -> Compiled {
    let compiled = compile_text(text);
    assert!(compiled.diagnostics.is_empty(), "{}", messages(&compiled));
    compiled
}

fn only_gateway(compiled: &Compiled) -> &Gateway {
    match compiled.config.gateways.as_slice() {
        [gateway] => gateway,
        other => panic!("{} gateways", other.len()),
    }
}

fn virtual_hosts(compiled: &Compiled, listener: usize) -> Vec<Value> {
    let routes = compiled.envoy.listeners[listener].routes.value();
    routes["virtual_hosts"].as_array().expect("virtual hosts").clone()
}

fn clusters(compiled: &Compiled) -> Vec<Value> {
    compiled.envoy.clusters.iter().map(Resource::value).collect()
}

/// The Backend that a cluster was made of: the name without the edition at its end.
fn backend_of(cluster: &Value) -> &str {
    let name = cluster.as_str().expect("a name");
    name.rsplit_once('/').map_or(name, |(backend, _)| backend)
}

/// A Gateway `gw` with one listener `http`.
const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: class}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: class
  listeners: [{name: http, protocol: HTTP, port: 80}]
";

/// An AIServiceBackend and its Backend, at `<name>.example.com:8080`, with more under the AIServiceBackend's spec.
fn backend(name: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {{name: {name}}}
spec:
  schema: {{name: OpenAI}}
  backendRef: {{name: {name}, kind: Backend, group: gateway.envoyproxy.io}}
{spec}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: {name}}}
spec: {{endpoints: [{{fqdn: {{hostname: {name}.example.com, port: 8080}}}}]}}
"
    )
}

/// A policy that gives a backend an API key.
fn key(backend: &str, key: &str) -> String {
    format!(
        "
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: BackendSecurityPolicy
metadata: {{name: {backend}-key}}
spec:
  targetRefs: [{{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: {backend}}}]
  type: APIKey
  apiKey: {{secretRef: {{name: {backend}-key}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {backend}-key}}
stringData: {{apiKey: {key}}}
"
    )
}

/// A route to `gw` with rules as given, in YAML's flow or block style, indented by two.
fn route(name: &str, rules: &str) -> String {
    format!(
        "
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
{rules}
"
    )
}

/// A rule for one model.
fn model_rule(model: &str, backend_refs: &str) -> String {
    format!(
        "  - matches: [{{headers: [{{name: x-ai-eg-model, value: {model}}}]}}]\n    backendRefs: [{backend_refs}]\n"
    )
}
