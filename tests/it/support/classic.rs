//! An Envoy as the Go gateway's control plane programs it: one filter in front of the routes, one in front of the providers, and
//! a processor that reads a configuration of backends alone.

use std::path::Path;

use ai_gateway::runtime::Runtime;
use ai_gateway::server::{Listen, Processor, ProcessorOptions};
use ai_gateway::source::Slot;
use serde_json::{Value, json};

use super::backend::Backend;
use super::envoy::Envoy;
use super::http::Peer;

/// The name of the backend at a place of a rule, in full.
pub(crate) fn name(index: usize) -> String {
    format!("default/b{index}/route/r/rule/0/ref/{index}")
}

/// What a rig is made of.
pub(crate) struct Setup<'a> {
    /// In order of priority.
    pub(crate) backends: &'a [&'a Backend],
    /// For each backend, what its entry in the processor's configuration says besides its name.
    pub(crate) config: Vec<Value>,
    /// The name of the only backend stands in the cluster's metadata instead of its host's, as with an endpoint picker.
    pub(crate) picked: bool,
    /// Of which processor, the first or the second, each filter asks: the router's, the providers'.
    pub(crate) asks: [&'static [usize]; 2],
}

/// Envoy and its processors.
pub(crate) struct Rig {
    envoy: Envoy,
    processors: Vec<(Processor, Slot)>,
}

/// The document the processors read.
pub(crate) fn document(config: &[Value]) -> Value {
    let backends = config.iter().enumerate().map(|(index, config)| {
        let mut backend = config.clone();
        backend["name"] = json!(name(index));
        backend
    });
    json!({
        "version": "dev",
        "backends": backends.collect::<Vec<_>>(),
        "llmRequestCosts": [{"metadataKey": "tokens", "type": "TotalToken", "routeName": "default/r"}],
        "models": [{"Name": "m", "OwnedBy": "us", "CreatedAt": "2026-01-01T00:00:00Z"}],
    })
}

/// Envoy alone. It looks for the first processor at `extproc0.sock` in its folder.
pub(crate) async fn envoy(setup: &Setup<'_>) -> Option<Envoy> {
    Envoy::start(|dir| bootstrap(setup, dir)).await
}

impl Rig {
    pub(crate) async fn start(setup: Setup<'_>) -> Option<Self> {
        let envoy = envoy(&setup).await?;
        let processors = [0, 1].map(|index| {
            let slot = Slot::default();
            let listen = Listen::Unix(envoy.path().join(format!("extproc{index}.sock")));
            let options = ProcessorOptions {
                admin: Some(Listen::Unix(envoy.path().join(format!("admin{index}.sock")))),
                ..ProcessorOptions::new(listen, slot.clone())
            };
            (Processor::start(options).expect("a processor"), slot)
        });
        let rig = Self { envoy, processors: processors.into() };
        rig.publish(&setup.config);
        Some(rig)
    }

    /// Puts a configuration of the backends in force, in every processor.
    pub(crate) fn publish(&self, config: &[Value]) {
        for (_, slot) in &self.processors {
            let config = serde_json::from_value(document(config)).expect("a configuration");
            let (runtime, problems) = Runtime::new(config);
            assert!(problems.is_empty(), "{problems:?}");
            slot.publish(runtime);
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        self.envoy.peer("http.sock")
    }

    /// Exchanges that are not over, in all processors.
    pub(crate) fn active(&self) -> u64 {
        self.processors.iter().map(|(processor, _)| processor.active().count()).sum()
    }

    /// The access log so far: a JSON object a line.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.envoy.path().join("access.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What Prometheus would read of a processor.
    pub(crate) async fn metrics(&self, processor: usize) -> String {
        self.envoy.peer(&format!("admin{processor}.sock")).send(super::http::get("/metrics")).await.text()
    }
}

const ATTRIBUTES: [&str; 4] = [
    "xds.upstream_host_metadata.filter_metadata['aigateway.envoy.io']['per_route_rule_backend_name']",
    "xds.cluster_metadata.filter_metadata['aigateway.envoy.io']['per_route_rule_backend_name']",
    "xds.upstream_host_metadata.filter_metadata['aigateway.envoy.io']['upstream_host']",
    "xds.route_metadata.filter_metadata['aigateway.envoy.io']['aigw_route_name']",
];

fn filter(cluster: &str, mode: &Value, attributes: &[&str]) -> Value {
    json!({
        "name": "envoy.filters.http.ext_proc",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": cluster, "authority": "anything"}},
            "processing_mode": mode,
            "request_attributes": attributes,
            "allow_mode_override": true,
            "message_timeout": "10s",
            "mutation_rules": {"allow_envoy": true},
            "metadata_options": {"receiving_namespaces": {"untyped": ["io.envoy.ai_gateway"]}},
        },
    })
}

fn http2() -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}

fn processors(name: &str, asked: &[usize], dir: &Path) -> Value {
    let endpoint = |index: &usize| {
        let path = dir.join(format!("extproc{index}.sock"));
        json!({"endpoint": {"address": {"pipe": {"path": path}}}})
    };
    let endpoints: Vec<Value> = asked.iter().map(endpoint).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": http2(),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

fn metadata(backend: &str, index: usize) -> Value {
    json!({"filter_metadata": {"aigateway.envoy.io": {
        "per_route_rule_backend_name": backend,
        "upstream_host": format!("b{index}.example"),
    }}})
}

fn providers(backends: &[&Backend], picked: bool) -> Value {
    let filters = json!([
        filter("attempt", &json!({
            "request_header_mode": "SEND", "request_body_mode": "NONE",
            "response_header_mode": "SKIP", "response_body_mode": "NONE",
        }), &ATTRIBUTES),
        {
            "name": "envoy.filters.http.header_mutation",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": {"request_mutations": [{"append": {
                    "append_action": "ADD_IF_ABSENT",
                    "header": {
                        "key": "content-length",
                        "value": "%DYNAMIC_METADATA(io.envoy.ai_gateway:content_length)%",
                    },
                }}]},
            },
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
            },
        },
    ]);
    let locality = |(index, backend): (usize, &&Backend)| {
        let (address, port) = (backend.addr.ip().to_string(), backend.addr.port());
        json!({"priority": index, "lb_endpoints": [{
            "endpoint": {
                "address": {"socket_address": {"address": address, "port_value": port}},
                "hostname": format!("b{index}.example"),
            },
            "metadata": metadata(&name(if picked { 99 } else { index }), index),
        }]})
    };
    let localities: Vec<Value> = backends.iter().enumerate().map(locality).collect();
    json!({
        "name": "providers",
        "type": "STATIC",
        "metadata": metadata(&name(if picked { 0 } else { 98 }), 0),
        // Every request is retried here.
        "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}},
            "http_filters": filters,
        }},
        "load_assignment": {"cluster_name": "providers", "endpoints": localities},
    })
}

fn bootstrap(setup: &Setup<'_>, dir: &Path) -> Value {
    let retry = json!({
        "retry_on": "5xx,connect-failure,retriable-status-codes",
        "retriable_status_codes": [429],
        "num_retries": 3,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    });
    let routes = json!([
        {
            "match": {"prefix": "/", "headers": [{"name": "x-ai-eg-model", "string_match": {"exact": "m"}}]},
            "metadata": {"filter_metadata": {"aigateway.envoy.io": {"aigw_route_name": "default/r"}}},
            "route": {"cluster": "providers", "auto_host_rewrite": true, "timeout": "60s", "retry_policy": retry},
        },
        {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": {"inline_string": "no route"}}},
    ]);
    let mode = json!({
        "request_header_mode": "SEND", "request_body_mode": "BUFFERED",
        "response_header_mode": "SEND", "response_body_mode": "BUFFERED",
    });
    let told = |key: &str| format!("%DYNAMIC_METADATA(io.envoy.ai_gateway:{key})%");
    let log = json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": dir.join("access.log"),
            "log_format": {"json_format": {
                "id": "%REQ(X-REQUEST-ID)%",
                "backend": told("backend_name"),
                "service": told("ai_service_backend_name"),
                "tokens": told("tokens"),
            }},
        },
    });
    json!({
        "static_resources": {
            "listeners": [{
                "name": "http",
                "address": {"pipe": {"path": dir.join("http.sock")}},
                "per_connection_buffer_limit_bytes": 50 << 20,
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "http",
                        "preserve_external_request_id": true,
                        "access_log": [log],
                        "http_filters": [
                            filter("router", &mode, &[]),
                            {
                                "name": "envoy.filters.http.router",
                                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                            },
                        ],
                        "http_protocol_options": {"enable_trailers": true},
                        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
                    },
                }]}],
            }],
            "clusters": [
                processors("router", setup.asks[0], dir),
                processors("attempt", setup.asks[1], dir),
                providers(setup.backends, setup.picked),
            ],
        },
    })
}
