//! Listeners: one HTTP connection manager with our filter and the router.

use serde_json::{Value, json};

use crate::resources::envoy_gateway::{ConnectionLimit, EscapedSlashesAction, WithUnderscoresAction};
use crate::resources::types::GatewayDuration;

use super::super::plan::{ClientPlan, ListenerPlan};
use super::super::{CompileOptions, milliseconds};
use super::authentication::{self, Side};
use super::{PROCESSOR_FILTER, access_log, certificate, duration, local_reply, processor, route, treatment};

pub(super) fn write(plan: &ListenerPlan, options: &CompileOptions) -> Value {
    let mut filters: Vec<Value> = plan.client.connection_limit.iter().map(connection_limit).collect();
    filters.push(json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": connection_manager(plan, options),
    }));
    let mut listener = json!({
        "name": plan.full_name(),
        "address": {
            "socket_address": { "address": options.listen_address.to_string(), "port_value": plan.port },
        },
        "per_connection_buffer_limit_bytes": plan.client.buffer_limit,
        "filter_chains": [{ "filters": filters }],
    });
    if let Some(keepalive) = &plan.client.tcp_keepalive {
        listener["tcp_keepalive"] = treatment::tcp_keepalive(keepalive);
    }
    if !plan.certificates.is_empty() {
        listener["filter_chains"][0]["transport_socket"] = certificate::transport_socket(
            &plan.certificates,
            plan.client.certificates.as_ref(),
            &options.sockets.embedded,
        );
    }
    listener
}

fn connection_limit(limit: &ConnectionLimit) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        "stat_prefix": "connections",
        "max_connections": limit.value,
    });
    if let Some(delay) = limit.close_delay {
        config["delay"] = json!(duration(milliseconds(delay.0)));
    }
    json!({ "name": "envoy.filters.network.connection_limit", "typed_config": config })
}

fn connection_manager(plan: &ListenerPlan, options: &CompileOptions) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": "AUTO",
        "http_filters": filters(plan, options),
        "access_log": plan.access_logs.iter().map(access_log::write).collect::<Vec<_>>(),
        "use_remote_address": true,
        // Without this the addresses of private networks may set `x-envoy-*` headers, retries and timeouts included.
        "internal_address_config": { "unix_sockets": false },
        "generate_request_id": true,
        "normalize_path": true,
        "merge_slashes": plan.client.merge_slashes,
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": duration(route::STREAM_IDLE_MS),
        "http_protocol_options": { "enable_trailers": true },
        "http2_protocol_options": {
            "max_concurrent_streams": 1024,
            "initial_stream_window_size": 1 << 20,
            "initial_connection_window_size": 16 << 20,
        },
        "local_reply_config": local_reply::configuration(plan.clients.front.is_some() || plan.clients.behind),
    });
    let rules = plan.rules.iter().filter_map(|rule| rule.asked.as_ref());
    if let Some(early) = authentication::early(&plan.clients, rules) {
        manager["early_header_mutation_extensions"] = early;
    }
    treat(&mut manager, &plan.client);
    manager
}

/// Clients are asked who they are before the processor reads what they send, or, where rules ask by themselves, once it has chosen
/// the rule.
fn filters(plan: &ListenerPlan, options: &CompileOptions) -> Vec<Value> {
    let mut filters: Vec<Value> = authentication::certificate(&plan.clients).into_iter().collect();
    filters.extend(authentication::places(&plan.clients, Side::Front));
    filters.push(processor(&plan.authority, options.client_addresses));
    filters.extend(authentication::places(&plan.clients, Side::Behind));
    filters.push(router());
    filters
}

/// Sets what a ClientTrafficPolicy asks for.
fn treat(manager: &mut Value, client: &ClientPlan) {
    treatment::http2(&mut manager["http2_protocol_options"], client.http2.as_ref());
    if let Some(timeout) = &client.timeout {
        let time = |time: GatewayDuration| json!(duration(milliseconds(time.0)));
        if let Some(received) = timeout.request_received_timeout {
            manager["request_timeout"] = time(received);
        }
        if let Some(idle) = timeout.idle_timeout {
            manager["common_http_protocol_options"]["idle_timeout"] = time(idle);
        }
        if let Some(idle) = timeout.stream_idle_timeout {
            manager["stream_idle_timeout"] = time(idle);
        }
    }
    if let Some(action) = client.underscores {
        manager["common_http_protocol_options"]["headers_with_underscores_action"] = json!(match action {
            WithUnderscoresAction::Allow => "ALLOW",
            WithUnderscoresAction::RejectRequest => "REJECT_REQUEST",
            WithUnderscoresAction::DropHeader => "DROP_HEADER",
        });
    }
    if let Some(action) = client.escaped_slashes {
        manager["path_with_escaped_slashes_action"] = json!(match action {
            EscapedSlashesAction::KeepUnchanged => "KEEP_UNCHANGED",
            EscapedSlashesAction::RejectRequest => "REJECT_REQUEST",
            EscapedSlashesAction::UnescapeAndForward => "UNESCAPE_AND_FORWARD",
            EscapedSlashesAction::UnescapeAndRedirect => "UNESCAPE_AND_REDIRECT",
        });
    }
}

/// Our filter. The processor reads whole request bodies; of answers it asks for the body where it needs it.
fn processor(authority: &str, client_addresses: bool) -> Value {
    let mut config = processor::filter(authority);
    if client_addresses {
        config["request_attributes"] = json!(["source.address"]);
    }
    config["processing_mode"] = json!({
        "request_header_mode": "SEND",
        "request_body_mode": "BUFFERED",
        "request_trailer_mode": "SKIP",
        "response_header_mode": "SEND",
        "response_body_mode": "NONE",
        "response_trailer_mode": "SKIP",
    });
    json!({ "name": PROCESSOR_FILTER, "typed_config": config })
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
