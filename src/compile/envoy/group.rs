//! Clusters over several backends, and the filters through which each attempt goes on its way to one of them.
//!
//! Envoy replays the body for another attempt as the listener's filter left it, but the headers as the last attempt left them.

use serde_json::{Value, json};

use super::super::METADATA_NAMESPACE;
use super::super::plan::{ChainPlan, Cluster, ClusterPlan, GroupPlan, Member};
use super::{PROCESSOR_FILTER, cluster, processor, treatment};

/// The metadata namespace in which Envoy tells the processor of backends and routes.
const BACKEND_NAMESPACE: &str = "aigateway.envoy.io";
/// In it: which backend an address belongs to.
const BACKEND_NAME: &str = "per_route_rule_backend_name";
/// In it: the host name a request is sent to.
const UPSTREAM_HOST: &str = "upstream_host";
/// In it: the route.
const ROUTE_NAME: &str = "aigw_route_name";

/// The options of a cluster that hold its filters.
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster of any kind.
pub(super) fn write(plan: &Cluster) -> Value {
    match plan {
        Cluster::Backend(plan) => cluster::provider(plan),
        Cluster::Group(plan) => group(plan),
        Cluster::Chain(plan) => chain(plan),
    }
}

/// What the attempts of a route's requests are told of it.
pub(super) fn route_metadata(route: &str) -> Value {
    json!({ "filter_metadata": { BACKEND_NAMESPACE: { ROUTE_NAME: route } } })
}

/// One cluster with a locality for each backend.
fn group(plan: &GroupPlan) -> Value {
    let Some(first) = plan.members.first() else { return json!({ "name": plan.name }) };
    let addresses = plan.members.iter().flat_map(|member| member.cluster.endpoints.clone());
    let whole =
        ClusterPlan { name: plan.name.clone(), endpoints: addresses.collect(), ..first.cluster.clone() };
    let mut cluster = cluster::provider(&whole);
    let mut written: Vec<Value> =
        plan.members.iter().map(|member| cluster::provider(&member.cluster)).collect();
    let sockets: Vec<Value> = written.iter_mut().map(|cluster| cluster["transport_socket"].take()).collect();
    let one_socket = sockets.windows(2).all(|pair| pair[0] == pair[1]);
    if !one_socket {
        let matched = |(index, socket): (usize, &Value)| json!({ "name": index.to_string(), "match": { "backend": index }, "transport_socket": socket });
        cluster["transport_socket_matches"] = sockets.iter().enumerate().map(matched).collect();
    }
    let localities = plan.members.iter().zip(written).enumerate();
    let localities = localities.map(|(index, (member, mut cluster))| {
        let endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].take();
        locality(member, endpoints, (!one_socket).then_some(index))
    });
    cluster["load_assignment"]["endpoints"] = localities.collect();
    cluster["common_lb_config"]["locality_weighted_lb_config"] = json!({});
    if let Some(authority) = &plan.attempts {
        cluster["typed_extension_protocol_options"][OPTIONS]["http_filters"] = filters(authority);
    }
    cluster
}

fn locality(member: &Member, mut endpoints: Value, socket: Option<usize>) -> Value {
    for endpoint in endpoints.as_array_mut().into_iter().flatten() {
        let mut told = json!({ BACKEND_NAME: member.backend });
        if let Some(hostname) = endpoint["endpoint"].get("hostname") {
            told[UPSTREAM_HOST] = hostname.clone();
        }
        let mut metadata = json!({ BACKEND_NAMESPACE: told });
        if let Some(index) = socket {
            metadata["envoy.transport_socket_match"] = json!({ "backend": index });
        }
        endpoint["metadata"] = json!({ "filter_metadata": metadata });
    }
    json!({
        "locality": { "region": member.backend },
        "priority": member.priority,
        "load_balancing_weight": member.weight,
        "lb_endpoints": endpoints,
    })
}

/// Groups one after the other. Of the filters, those of the whole are run, not those of its parts.
fn chain(plan: &ChainPlan) -> Value {
    let mut options = json!({
        "@type": format!("type.googleapis.com/{OPTIONS}"),
        "explicit_http_config": { "http_protocol_options": {} },
    });
    if let Some(authority) = &plan.attempts {
        options["http_filters"] = filters(authority);
    }
    json!({
        "name": plan.name,
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": plan.groups,
            },
        },
        "circuit_breakers": treatment::breakers(plan.circuit_breaker.as_ref()),
        "typed_extension_protocol_options": { OPTIONS: options },
    })
}

/// The processor translates and signs an attempt; a body that it replaced needs its length said; the codec sends it.
fn filters(authority: &str) -> Value {
    let mut attempt = processor::filter(authority);
    attempt["processing_mode"] = json!({
        "request_header_mode": "SEND",
        "request_body_mode": "NONE",
        "request_trailer_mode": "SKIP",
        "response_header_mode": "SKIP",
        "response_body_mode": "NONE",
        "response_trailer_mode": "SKIP",
    });
    attempt["metadata_options"]["forwarding_namespaces"] = json!({ "untyped": [METADATA_NAMESPACE] });
    let told = |source: &str, name: &str| {
        format!("xds.{source}_metadata.filter_metadata['{BACKEND_NAMESPACE}']['{name}']")
    };
    attempt["request_attributes"] = json!([
        told("upstream_host", BACKEND_NAME),
        told("cluster", BACKEND_NAME),
        told("upstream_host", UPSTREAM_HOST),
        told("route", ROUTE_NAME),
        "upstream.request_attempt_count",
    ]);
    let length = format!("%DYNAMIC_METADATA({METADATA_NAMESPACE}:content_length)%");
    json!([
        { "name": PROCESSOR_FILTER, "typed_config": attempt },
        {
            "name": "envoy.filters.http.header_mutation",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": {
                    "request_mutations": [{
                        "append": {
                            "header": { "key": "content-length", "value": length },
                            "append_action": "ADD_IF_ABSENT",
                        },
                    }],
                },
            },
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
            },
        },
    ])
}
