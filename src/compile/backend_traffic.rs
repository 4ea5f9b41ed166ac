//! BackendTrafficPolicies: how the backends of a rule are treated on a listener.
//!
//! The most specific policy counts: of the rule, of the route, of the listener, of the Gateway. Only where it asks to be
//! merged does it take from the next one what it does not say itself.

use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::aigateway::AIGatewayRoute;
use crate::resources::traffic::{
    ActiveHealthCheckType, BackendConnection, BackendTimeout, BackendTrafficPolicy, BackendTrafficPolicySpec,
    CircuitBreaker, ConsistentHashType, DNS, HTTP2Settings, HTTPTimeout, HealthCheck, LoadBalancer,
    LoadBalancerType, Retry, RetryTrigger, TCPKeepalive, TCPTimeout,
};
use crate::resources::{Located, Snapshot};

use super::client_traffic::buffer_limit;
use super::listeners::Target;
use super::milliseconds;
use super::plan::{ClusterTraffic, Hashed};
use super::policies::{Targets, references, unknown_listener};

/// All BackendTrafficPolicies of the files.
pub(super) struct BackendPolicies<'a> {
    targets: Targets<'a, BackendTrafficPolicy>,
}

/// How the backends of a rule are treated.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {
    pub(super) cluster: ClusterTraffic,
    pub(super) retry: Option<Retry>,
    pub(super) request_timeout_ms: Option<u64>,
    pub(super) hashed: Vec<Hashed>,
}

impl<'a> BackendPolicies<'a> {
    /// Sorts them, and says which have no effect.
    pub(super) fn new(snapshot: &'a Snapshot, diagnostics: &mut Diagnostics) -> Self {
        let targets = Targets::new(
            &snapshot.backend_traffic_policies,
            |policy| references(policy.spec.target_ref.as_ref(), &policy.spec.target_refs),
            diagnostics,
        );
        for ((kind, namespace, name, section), policy) in targets.iter() {
            let section = section.as_deref();
            if kind == "Gateway" {
                match snapshot.gateways.get(namespace, name) {
                    Some(gateway) => diagnostics.extend(unknown_listener(policy, gateway, section)),
                    None => {
                        let message = format!("there is no Gateway {namespace}/{name}");
                        let help = suggest(name, snapshot.gateways.names_in(namespace));
                        diagnostics.push(policy.warning("spec", message).help(help));
                    }
                }
            } else if kind == "HTTPRoute" {
                check_route(snapshot, policy, (namespace, name), section, diagnostics);
            } else {
                let message = format!("there are no {kind}s here, so that this has no effect");
                diagnostics.push(
                    policy
                        .warning("spec", message)
                        .help("target the HTTPRoute with the AIGatewayRoute's name"),
                );
            }
        }
        for policy in &snapshot.backend_traffic_policies {
            diagnostics.extend(super::policies::unselecting(policy, &policy.spec.target_selectors));
            check(policy, diagnostics);
        }
        Self { targets }
    }

    /// What counts for a rule on a listener.
    pub(super) fn of(
        &self,
        target: &Target<'_>,
        route: &Located<AIGatewayRoute>,
        rule: Option<&str>,
    ) -> Traffic {
        if self.targets.is_empty() {
            return Traffic::default();
        }
        let of_route = |section| self.targets.get("HTTPRoute", route.namespace(), route.name(), section);
        let (namespace, gateway) = (target.gateway.namespace(), target.gateway.name());
        let of_gateway = |section| self.targets.get("Gateway", namespace, gateway, section);
        let mut candidates = [
            rule.and_then(|rule| of_route(Some(rule))),
            of_route(None),
            of_gateway(Some(&target.listener.name)),
            of_gateway(None),
        ]
        .into_iter()
        .flatten();
        let Some(first) = candidates.next() else { return Traffic::default() };
        let mut spec = first.spec.clone();
        while spec.merge_type.is_some()
            && let Some(next) = candidates.next()
        {
            spec = merge(spec, next.spec.clone());
        }
        traffic(spec)
    }
}

fn check_route(
    snapshot: &Snapshot,
    policy: &Located<BackendTrafficPolicy>,
    (namespace, name): (&str, &str),
    section: Option<&str>,
    diagnostics: &mut Diagnostics,
) {
    let Some(route) = snapshot.ai_gateway_routes.get(namespace, name) else {
        let message = format!("there is no AIGatewayRoute {namespace}/{name}, so that this has no effect");
        let help = suggest(name, snapshot.ai_gateway_routes.names_in(namespace));
        diagnostics.push(policy.warning("spec", message).help(help));
        return;
    };
    let names = route.spec.rules.iter().filter_map(|rule| rule.name.as_deref());
    if let Some(section) = section.filter(|section| !names.clone().any(|name| name == *section)) {
        let message = format!("{} has no rule named `{section}`, so that this has no effect", route.id());
        diagnostics.push(policy.warning("spec", message).help(suggest(section, names)));
    }
}

/// Says what of a policy has no effect or another one than it seems.
fn check(policy: &Located<BackendTrafficPolicy>, diagnostics: &mut Diagnostics) {
    let spec = &policy.spec;
    if let Some(limit) = spec.connection.as_ref().and_then(|connection| connection.buffer_limit) {
        let _ = buffer_limit(policy, limit, diagnostics);
    }
    if let Some(on) = spec.retry.as_ref().and_then(|retry| retry.retry_on.as_ref())
        && !on.http_status_codes.is_empty()
        && !on.triggers.contains(&RetryTrigger::RetriableStatusCodes)
    {
        let message = "these statuses are not retried: the trigger `retriable-status-codes` is missing";
        let help = "add it to spec.retry.retryOn.triggers";
        diagnostics.push(policy.warning("spec.retry.retryOn.httpStatusCodes", message).help(help));
    }
    let back_off =
        spec.retry.as_ref().and_then(|retry| retry.per_retry.as_ref()).and_then(|per| per.back_off.as_ref());
    if let Some(back_off) = back_off
        && let (Some(base), Some(max)) = (back_off.base_interval, back_off.max_interval)
        && max < base
    {
        let message = "this is less than baseInterval, which is used for both";
        diagnostics
            .push(policy.warning("spec.retry.perRetry.backOff.maxInterval", message).help("make it larger"));
    }
    if let Some(hash) = spec.load_balancer.as_ref().and_then(|balancer| balancer.consistent_hash.as_ref()) {
        if matches!(hash.kind, ConsistentHashType::Cookie | ConsistentHashType::QueryParams) {
            let message =
                "only headers and the client's address can be hashed here: addresses take turns instead";
            let help = "use type Header, Headers or SourceIP";
            diagnostics.push(policy.warning("spec.loadBalancer.consistentHash.type", message).help(help));
        }
        if hash.table_size.is_some_and(|size| !is_prime(size)) {
            let message = "this is not a prime number: Envoy's default of 65537 is used";
            diagnostics.push(
                policy
                    .warning("spec.loadBalancer.consistentHash.tableSize", message)
                    .help("give a prime number"),
            );
        }
    }
    let active = spec.health_check.as_ref().and_then(|health| health.active.as_ref());
    if active.is_some_and(|active| active.kind == ActiveHealthCheckType::GRPC) {
        let message = "model providers are not asked by gRPC: this check is not made";
        diagnostics
            .push(policy.warning("spec.healthCheck.active.type", message).help("use type HTTP or TCP"));
    }
}

/// Both, field by field; what the first says counts.
fn merge(upper: BackendTrafficPolicySpec, lower: BackendTrafficPolicySpec) -> BackendTrafficPolicySpec {
    /// Merges two optional structs of optional fields.
    macro_rules! both {
        ($upper:expr, $lower:expr, $type:ident { $($field:ident),* $(,)? }) => {
            match ($upper, $lower) {
                (Some(upper), Some(lower)) => Some($type { $($field: upper.$field.or(lower.$field),)* }),
                (upper, lower) => upper.or(lower),
            }
        };
    }
    let timeout =
        |timeout: Option<BackendTimeout>| timeout.map_or((None, None), |both| (both.tcp, both.http));
    let ((upper_tcp, upper_http), (lower_tcp, lower_http)) = (timeout(upper.timeout), timeout(lower.timeout));
    BackendTrafficPolicySpec {
        target_selectors: Vec::new(),
        target_ref: None,
        target_refs: Vec::new(),
        merge_type: lower.merge_type,
        load_balancer: upper.load_balancer.or(lower.load_balancer),
        retry: both!(
            upper.retry,
            lower.retry,
            Retry { num_retries, num_attempts_per_priority, retry_on, per_retry }
        ),
        tcp_keepalive: both!(
            upper.tcp_keepalive,
            lower.tcp_keepalive,
            TCPKeepalive { probes, idle_time, interval }
        ),
        health_check: both!(
            upper.health_check,
            lower.health_check,
            HealthCheck { active, passive, panic_threshold }
        ),
        circuit_breaker: both!(
            upper.circuit_breaker,
            lower.circuit_breaker,
            CircuitBreaker {
                max_connections,
                max_pending_requests,
                max_parallel_requests,
                max_parallel_retries,
                max_requests_per_connection,
            }
        ),
        timeout: Some(BackendTimeout {
            tcp: both!(upper_tcp, lower_tcp, TCPTimeout { connect_timeout }),
            http: both!(
                upper_http,
                lower_http,
                HTTPTimeout {
                    connection_idle_timeout,
                    max_connection_duration,
                    request_timeout,
                    max_stream_duration,
                }
            ),
        }),
        connection: both!(upper.connection, lower.connection, BackendConnection { buffer_limit }),
        dns: both!(upper.dns, lower.dns, DNS { dns_refresh_rate, respect_dns_ttl, lookup_family }),
        http2: both!(
            upper.http2,
            lower.http2,
            HTTP2Settings {
                initial_stream_window_size,
                initial_connection_window_size,
                max_concurrent_streams
            }
        ),
    }
}

fn traffic(spec: BackendTrafficPolicySpec) -> Traffic {
    let timeout = spec.timeout.unwrap_or(BackendTimeout { tcp: None, http: None });
    let mut http_timeout = timeout.http;
    let request_timeout = http_timeout.as_mut().and_then(|http| http.request_timeout.take());
    let hashed = spec.load_balancer.as_ref().map_or_else(Vec::new, hashed);
    let load_balancer = spec.load_balancer.filter(|balancer| {
        // What cannot be hashed is as good as no choice.
        balancer.kind != LoadBalancerType::ConsistentHash || !hashed.is_empty()
    });
    Traffic {
        cluster: ClusterTraffic {
            load_balancer: load_balancer.map(with_prime),
            tcp_keepalive: spec.tcp_keepalive,
            health_check: spec.health_check,
            circuit_breaker: spec.circuit_breaker,
            connect_timeout_ms: timeout
                .tcp
                .and_then(|tcp| tcp.connect_timeout)
                .map(|timeout| milliseconds(timeout.0))
                .filter(|timeout| *timeout > 0),
            http_timeout,
            buffer_limit: spec
                .connection
                .and_then(|connection| connection.buffer_limit)
                .filter(|limit| limit.0 > 0)
                .map(|limit| u32::try_from(limit.0).unwrap_or(u32::MAX)),
            dns: spec.dns,
            http2: spec.http2,
            proxy: None,
        },
        retry: spec.retry,
        request_timeout_ms: request_timeout.map(|timeout| milliseconds(timeout.0)),
        hashed,
    }
}

fn hashed(balancer: &LoadBalancer) -> Vec<Hashed> {
    let Some(hash) = &balancer.consistent_hash else { return Vec::new() };
    let header = |name: &str| Hashed::Header(name.to_ascii_lowercase());
    match hash.kind {
        ConsistentHashType::SourceIP => vec![Hashed::SourceIp],
        ConsistentHashType::Header => hash.header.iter().map(|named| header(&named.name)).collect(),
        ConsistentHashType::Headers => hash.headers.iter().map(|named| header(&named.name)).collect(),
        ConsistentHashType::Cookie | ConsistentHashType::QueryParams => Vec::new(),
    }
}

fn with_prime(mut balancer: LoadBalancer) -> LoadBalancer {
    if let Some(hash) = &mut balancer.consistent_hash {
        hash.table_size = hash.table_size.filter(|size| is_prime(*size));
    }
    balancer
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told() {
        let primes: Vec<u32> = (0..30).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(5_000_011) && !is_prime(65_536));
    }
}
