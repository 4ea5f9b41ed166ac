//! Listeners: one HTTP connection manager with our filter and the router.

use serde_json::{Value, json};

use super::super::CompileOptions;
use super::super::plan::ListenerPlan;
use super::{PROCESSOR_CLUSTER, PROCESSOR_FILTER, access_log, duration, local_reply, route};

pub(super) fn write(plan: &ListenerPlan, options: &CompileOptions) -> Value {
    json!({
        "name": plan.full_name(),
        "address": {
            "socket_address": { "address": options.listen_address.to_string(), "port_value": plan.port },
        },
        "per_connection_buffer_limit_bytes": plan.buffer_limit,
        "filter_chains": [{
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager(plan),
            }],
        }],
    })
}

fn connection_manager(plan: &ListenerPlan) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": "AUTO",
        "http_filters": [processor(&plan.authority), router()],
        "access_log": plan.access_logs.iter().map(access_log::write).collect::<Vec<_>>(),
        "use_remote_address": true,
        // Without this the addresses of private networks may set `x-envoy-*` headers, retries and timeouts included.
        "internal_address_config": { "unix_sockets": false },
        "generate_request_id": true,
        "normalize_path": true,
        "merge_slashes": false,
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": duration(route::STREAM_IDLE_MS),
        "http_protocol_options": { "enable_trailers": true },
        "http2_protocol_options": {
            "max_concurrent_streams": 1024,
            "initial_stream_window_size": 1 << 20,
            "initial_connection_window_size": 16 << 20,
        },
        "local_reply_config": local_reply::configuration(),
    })
}

/// Our filter. The processor reads whole request bodies; of answers it asks for the body where it needs it.
fn processor(authority: &str) -> Value {
    json!({
        "name": PROCESSOR_FILTER,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {
                "envoy_grpc": { "cluster_name": PROCESSOR_CLUSTER, "authority": authority },
            },
            "failure_mode_allow": false,
            "processing_mode": {
                "request_header_mode": "SEND",
                "request_body_mode": "BUFFERED",
                "request_trailer_mode": "SKIP",
                "response_header_mode": "SEND",
                "response_body_mode": "NONE",
                "response_trailer_mode": "SKIP",
            },
            "allow_mode_override": true,
            "message_timeout": "10s",
            // `x-envoy-original-path` is set by the processor.
            "mutation_rules": { "allow_envoy": true },
            "metadata_options": { "receiving_namespaces": { "untyped": [super::super::METADATA_NAMESPACE] } },
        },
    })
}

fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
        },
    })
}
