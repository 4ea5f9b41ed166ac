//! Clusters: the processor's and one for each Backend.

use serde_json::{Value, json};

use super::super::CompileOptions;
use super::super::plan::{ClusterPlan, Endpoint, SubjectName, TlsPlan, Trust};
use super::{PROCESSOR_CLUSTER, pipe, treatment};

/// How much of an exchange with the processor may be under way: a whole body in one message, each way.
const PROCESSOR_WINDOW: u32 = 64 << 20;

pub(super) fn processor(options: &CompileOptions) -> Value {
    json!({
        "name": PROCESSOR_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": PROCESSOR_WINDOW,
        "circuit_breakers": treatment::breakers(None),
        "typed_extension_protocol_options": protocol_options(&json!({
            "explicit_http_config": {
                "http2_protocol_options": {
                    "initial_stream_window_size": PROCESSOR_WINDOW,
                    "initial_connection_window_size": PROCESSOR_WINDOW,
                },
            },
        })),
        "load_assignment": {
            "cluster_name": PROCESSOR_CLUSTER,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": pipe(&options.sockets.extproc) } }] }],
        },
    })
}

pub(super) fn provider(plan: &ClusterPlan) -> Value {
    let by_name = plan.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Fqdn { .. }));
    let mut endpoints: Vec<Value> =
        plan.endpoints.iter().map(|endpoint| lb_endpoint(endpoint, plan.tls.as_ref())).collect();
    if is_told_to_a_proxy(plan) {
        endpoints
            .iter_mut()
            .zip(&plan.endpoints)
            .for_each(|(written, endpoint)| name_fully(written, endpoint));
    }
    let mut cluster = json!({
        "name": plan.name,
        "connect_timeout": "10s",
        "per_connection_buffer_limit_bytes": 1 << 20,
        "circuit_breakers": null,
        "typed_extension_protocol_options": protocol_options(&http_config(plan)),
        "load_assignment": { "cluster_name": plan.name, "endpoints": [{ "lb_endpoints": endpoints }] },
    });
    if by_name {
        cluster["cluster_type"] = json!({
            "name": "envoy.cluster.dns",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
                "dns_lookup_family": "V4_PREFERRED",
                "respect_dns_ttl": true,
            },
        });
        treatment::dns(&mut cluster["cluster_type"]["typed_config"], plan.traffic.dns.as_ref());
    } else {
        cluster["type"] = json!("STATIC");
    }
    if let Some(tls) = &plan.tls {
        cluster["transport_socket"] = transport_socket(tls);
    }
    treatment::apply(&mut cluster, plan);
    treatment::through_proxy(&mut cluster, plan);
    cluster
}

fn lb_endpoint(endpoint: &Endpoint, tls: Option<&TlsPlan>) -> Value {
    let (hostname, address) = match endpoint {
        Endpoint::Fqdn { hostname, port } => (Some(hostname.clone()), socket_address(hostname, *port)),
        // An address has no name of its own; the validated one is what a server behind TLS expects to be asked for.
        Endpoint::Ip { address, port, hostname } => {
            let hostname = hostname.clone().or_else(|| tls.map(|tls| tls.hostname.clone()));
            (hostname, socket_address(&address.to_string(), *port))
        }
        Endpoint::Unix { path, hostname } => (Some(hostname.clone()), pipe(path)),
    };
    let mut endpoint = json!({ "address": address });
    if let Some(hostname) = hostname {
        endpoint["hostname"] = json!(hostname);
    }
    json!({ "endpoint": endpoint })
}

/// Whether a proxy reads from the request itself where it belongs.
fn is_told_to_a_proxy(plan: &ClusterPlan) -> bool {
    plan.tls.is_none() && treatment::proxy(plan).is_some()
}

/// Gives an address a name with which a proxy finds it.
fn name_fully(written: &mut Value, endpoint: &Endpoint) {
    let name = match endpoint {
        Endpoint::Ip { hostname: Some(hostname), port, .. } | Endpoint::Fqdn { hostname, port } => match port
        {
            80 => hostname.clone(),
            port => format!("{hostname}:{port}"),
        },
        Endpoint::Ip { hostname: None, .. } => endpoint.to_string(),
        Endpoint::Unix { .. } => return,
    };
    written["endpoint"]["hostname"] = json!(name);
}

fn socket_address(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": address, "port_value": port } })
}

fn http_config(plan: &ClusterPlan) -> Value {
    // Trailers of HTTP/1 answers are dropped unless asked for.
    let mut http1 = json!({ "enable_trailers": true });
    if is_told_to_a_proxy(plan) {
        // A proxy does not know otherwise where an unencrypted request belongs.
        http1["send_fully_qualified_url"] = json!(true);
    }
    let mut http2 =
        json!({ "initial_stream_window_size": 1 << 20, "initial_connection_window_size": 16 << 20 });
    treatment::http2(&mut http2, plan.traffic.http2.as_ref());
    let mut config = if plan.tls.is_some() {
        json!({ "auto_config": { "http_protocol_options": http1, "http2_protocol_options": http2 } })
    } else if plan.h2c {
        json!({ "explicit_http_config": { "http2_protocol_options": http2 } })
    } else {
        json!({ "explicit_http_config": { "http_protocol_options": http1 } })
    };
    if let Some(common) = treatment::common_http(plan) {
        config["common_http_protocol_options"] = common;
    }
    config
}

fn protocol_options(upstream: &Value) -> Value {
    let mut options = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    });
    if let (Some(options), Some(upstream)) = (options.as_object_mut(), upstream.as_object()) {
        options.extend(upstream.clone());
    }
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options })
}

fn transport_socket(tls: &TlsPlan) -> Value {
    let mut context = json!({
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
    });
    if let Some(validation) = validation(tls) {
        context["validation_context"] = validation;
    }
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": tls.hostname,
            "common_tls_context": context,
        },
    })
}

fn validation(tls: &TlsPlan) -> Option<Value> {
    let trusted = match &tls.trust {
        Trust::System(path) => json!({ "filename": path.to_string_lossy() }),
        Trust::Inline(pem) => json!({ "inline_string": pem }),
        Trust::Anyone => return None,
    };
    let names: Vec<Value> = if tls.names.is_empty() {
        vec![subject_name("DNS", &tls.hostname)]
    } else {
        tls.names
            .iter()
            .map(|name| match name {
                SubjectName::Dns(name) => subject_name("DNS", name),
                SubjectName::Uri(uri) => subject_name("URI", uri),
            })
            .collect()
    };
    Some(json!({ "trusted_ca": trusted, "match_typed_subject_alt_names": names }))
}

fn subject_name(kind: &str, name: &str) -> Value {
    json!({ "san_type": kind, "matcher": { "exact": name } })
}
