//! How a destination is treated, as BackendTrafficPolicies and forward proxies ask for. Envoy refuses a whole configuration
//! for a zero where it wants a time, so that times are at least a millisecond.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::resources::traffic::{
    ActiveHealthCheck, ActiveHealthCheckType, CircuitBreaker, DNS, DNSLookupFamily, HTTP2Settings,
    HealthCheckMethod, LoadBalancer, LoadBalancerType, PassiveHealthCheck, TCPKeepalive,
};
use crate::resources::types::GatewayDuration;

use super::super::milliseconds;
use super::super::plan::{ClusterPlan, Endpoint};
use super::{NO_LIMIT, duration};

/// Sets what is not as usual, apart from HTTP's options.
pub(super) fn apply(cluster: &mut Value, plan: &ClusterPlan) {
    let traffic = &plan.traffic;
    if let Some(timeout) = traffic.connect_timeout_ms {
        cluster["connect_timeout"] = json!(duration(timeout));
    }
    if let Some(limit) = traffic.buffer_limit {
        cluster["per_connection_buffer_limit_bytes"] = json!(limit);
    }
    if let Some(balancer) = &traffic.load_balancer {
        balance(cluster, balancer);
    }
    cluster["circuit_breakers"] = breakers(traffic.circuit_breaker.as_ref());
    if let Some(keepalive) = traffic.tcp_keepalive.as_ref().filter(|_| !is_local(plan)) {
        cluster["upstream_connection_options"] = json!({ "tcp_keepalive": tcp_keepalive(keepalive) });
    }
    if let Some(health) = &traffic.health_check {
        if let Some(check) = health.active.as_ref().and_then(|active| active_check(active, plan)) {
            cluster["health_checks"] = json!([check]);
        }
        if let Some(passive) = &health.passive {
            cluster["outlier_detection"] = outlier_detection(passive);
        }
        if let Some(threshold) = health.panic_threshold {
            cluster["common_lb_config"] = json!({ "healthy_panic_threshold": { "value": threshold } });
        }
    }
}

/// A destination on this machine, without a network in between.
fn is_local(plan: &ClusterPlan) -> bool {
    plan.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Unix { .. }))
}

fn at_least_one(written: GatewayDuration) -> String {
    duration(milliseconds(written.0).max(1))
}

fn balance(cluster: &mut Value, balancer: &LoadBalancer) {
    let (policy, config) = match balancer.kind {
        LoadBalancerType::RoundRobin => ("ROUND_ROBIN", "round_robin_lb_config"),
        LoadBalancerType::LeastRequest => ("LEAST_REQUEST", "least_request_lb_config"),
        LoadBalancerType::Random => ("RANDOM", ""),
        LoadBalancerType::ConsistentHash => ("MAGLEV", "maglev_lb_config"),
    };
    cluster["lb_policy"] = json!(policy);
    match balancer.kind {
        LoadBalancerType::RoundRobin | LoadBalancerType::LeastRequest => {
            if let Some(slow_start) = &balancer.slow_start {
                let window = at_least_one(slow_start.window);
                cluster[config] = json!({ "slow_start_config": { "slow_start_window": window } });
            }
        }
        LoadBalancerType::ConsistentHash => {
            if let Some(size) = balancer.consistent_hash.as_ref().and_then(|hash| hash.table_size) {
                cluster[config] = json!({ "table_size": size });
            }
        }
        LoadBalancerType::Random => {}
    }
}

/// Limits where they are asked for. Envoy's own of 1,024 requests is a trap for slow answers.
pub(super) fn breakers(asked: Option<&CircuitBreaker>) -> Value {
    let limit = |field: fn(&CircuitBreaker) -> Option<u32>| asked.and_then(field).unwrap_or(NO_LIMIT);
    let threshold = |priority: &str| {
        json!({
            "priority": priority,
            "max_connections": limit(|asked| asked.max_connections),
            "max_pending_requests": limit(|asked| asked.max_pending_requests),
            "max_requests": limit(|asked| asked.max_parallel_requests),
            "max_retries": limit(|asked| asked.max_parallel_retries),
        })
    };
    json!({ "thresholds": [threshold("DEFAULT"), threshold("HIGH")] })
}

pub(super) fn tcp_keepalive(asked: &TCPKeepalive) -> Value {
    let seconds = |time: GatewayDuration| time.0.as_secs().clamp(1, 32_767);
    let mut keepalive = json!({});
    if let Some(probes) = asked.probes {
        keepalive["keepalive_probes"] = json!(probes.clamp(1, 127));
    }
    if let Some(time) = asked.idle_time {
        keepalive["keepalive_time"] = json!(seconds(time));
    }
    if let Some(interval) = asked.interval {
        keepalive["keepalive_interval"] = json!(seconds(interval));
    }
    keepalive
}

fn active_check(asked: &ActiveHealthCheck, plan: &ClusterPlan) -> Option<Value> {
    let time =
        |time: Option<GatewayDuration>, default: &str| time.map_or_else(|| default.to_owned(), at_least_one);
    let mut check = json!({
        "timeout": time(asked.timeout, "1s"),
        "interval": time(asked.interval, "3s"),
        "unhealthy_threshold": asked.unhealthy_threshold.unwrap_or(3),
        "healthy_threshold": asked.healthy_threshold.unwrap_or(1),
    });
    if let Some(jitter) = asked.initial_jitter {
        check["initial_jitter"] = json!(at_least_one(jitter));
    }
    match asked.kind {
        ActiveHealthCheckType::HTTP => {
            let http = asked.http.as_ref()?;
            let mut question = json!({ "path": http.path });
            if let Some(hostname) = &http.hostname {
                question["host"] = json!(hostname);
            }
            if let Some(method) = http.method {
                question["method"] = json!(method_name(method));
            }
            if !http.expected_statuses.is_empty() {
                let range = |status: &u16| json!({ "start": status, "end": status + 1 });
                question["expected_statuses"] = http.expected_statuses.iter().map(range).collect();
            }
            if plan.h2c {
                question["codec_client_type"] = json!("HTTP2");
            }
            if plan.tls.is_some() {
                // The checks speak HTTP/1.1, whatever the requests do.
                check["tls_options"] = json!({ "alpn_protocols": ["http/1.1"] });
            }
            check["http_health_check"] = question;
        }
        ActiveHealthCheckType::TCP => check["tcp_health_check"] = json!({}),
        ActiveHealthCheckType::GRPC => return None,
    }
    Some(check)
}

fn method_name(method: HealthCheckMethod) -> &'static str {
    match method {
        HealthCheckMethod::Get => "GET",
        HealthCheckMethod::Head => "HEAD",
        HealthCheckMethod::Post => "POST",
        HealthCheckMethod::Put => "PUT",
        HealthCheckMethod::Delete => "DELETE",
        HealthCheckMethod::Options => "OPTIONS",
        HealthCheckMethod::Trace => "TRACE",
        HealthCheckMethod::Patch => "PATCH",
    }
}

/// What is counted also has an effect, which Envoy asks for separately.
fn outlier_detection(asked: &PassiveHealthCheck) -> Value {
    let mut detection = json!({});
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            detection[name] = value;
        }
    };
    let number = |number: Option<u32>| number.map(|number| json!(number));
    let enforced = |number: u32| json!(if number > 0 { 100 } else { 0 });
    set("interval", asked.interval.map(|time| json!(at_least_one(time))));
    set("base_ejection_time", asked.base_ejection_time.map(|time| json!(at_least_one(time))));
    set("max_ejection_percent", number(asked.max_ejection_percent));
    set("always_eject_one_host", asked.always_eject_one_endpoint.map(|always| json!(always)));
    set("consecutive_5xx", number(asked.consecutive_5xx_errors));
    set("enforcing_consecutive_5xx", asked.consecutive_5xx_errors.map(enforced));
    set("consecutive_gateway_failure", number(asked.consecutive_gateway_errors));
    set("enforcing_consecutive_gateway_failure", asked.consecutive_gateway_errors.map(enforced));
    set(
        "split_external_local_origin_errors",
        asked.split_external_local_origin_errors.map(|split| json!(split)),
    );
    set("consecutive_local_origin_failure", number(asked.consecutive_local_origin_failures));
    set("failure_percentage_threshold", number(asked.failure_percentage_threshold));
    set("enforcing_failure_percentage", asked.failure_percentage_threshold.map(|_| json!(100)));
    detection
}

/// The lookup of names: the options of Envoy's DNS cluster.
pub(super) fn dns(cluster: &mut Value, asked: Option<&DNS>) {
    let Some(asked) = asked else { return };
    if let Some(family) = asked.lookup_family {
        cluster["dns_lookup_family"] = json!(match family {
            DNSLookupFamily::IPv4 => "V4_ONLY",
            DNSLookupFamily::IPv6 => "V6_ONLY",
            DNSLookupFamily::IPv4Preferred => "V4_PREFERRED",
            DNSLookupFamily::IPv6Preferred => "AUTO",
            DNSLookupFamily::IPv4AndIPv6 => "ALL",
        });
    }
    if let Some(respect) = asked.respect_dns_ttl {
        cluster["respect_dns_ttl"] = json!(respect);
    }
    if let Some(rate) = asked.dns_refresh_rate {
        // Envoy wants more than one millisecond.
        cluster["dns_refresh_rate"] = json!(duration(milliseconds(rate.0).max(2)));
    }
}

/// Windows and streams of HTTP/2.
pub(super) fn http2(options: &mut Value, asked: Option<&HTTP2Settings>) {
    let Some(asked) = asked else { return };
    if let Some(size) = asked.initial_stream_window_size {
        options["initial_stream_window_size"] = json!(size.0);
    }
    if let Some(size) = asked.initial_connection_window_size {
        options["initial_connection_window_size"] = json!(size.0);
    }
    if let Some(streams) = asked.max_concurrent_streams {
        options["max_concurrent_streams"] = json!(streams);
    }
}

/// HTTP's options, of whatever version; `None` where nothing is asked for.
pub(super) fn common_http(plan: &ClusterPlan) -> Option<Value> {
    let mut options = json!({});
    if let Some(timeout) = &plan.traffic.http_timeout {
        let times = [
            ("idle_timeout", timeout.connection_idle_timeout),
            ("max_connection_duration", timeout.max_connection_duration),
            ("max_stream_duration", timeout.max_stream_duration),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                options[name] = json!(duration(milliseconds(time.0)));
            }
        }
    }
    if let Some(breaker) = &plan.traffic.circuit_breaker
        && let Some(requests) = breaker.max_requests_per_connection
    {
        options["max_requests_per_connection"] = json!(requests);
    }
    options.as_object().is_some_and(|options| !options.is_empty()).then_some(options)
}

/// The proxy through which a destination is reached, if there is one in between.
pub(super) fn proxy(plan: &ClusterPlan) -> Option<SocketAddr> {
    plan.traffic.proxy.filter(|_| !is_local(plan))
}

/// The way through a proxy: CONNECT for TLS, the whole URL without.
pub(super) fn through_proxy(cluster: &mut Value, plan: &ClusterPlan) {
    let Some(proxy) = proxy(plan) else { return };
    let inner = match cluster.get_mut("transport_socket") {
        Some(socket) => socket.take(),
        None => json!({
            "name": "envoy.transport_sockets.raw_buffer",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" },
        }),
    };
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.http_11_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport",
            "transport_socket": inner,
            "default_proxy_address": address(proxy),
        },
    });
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
