//! Virtual hosts and routes. A route demands what the rule's match says and the rule's routing key besides.

use serde_json::{Value, json};

use crate::auth::CLIENT_CREDENTIAL_HEADERS;
use crate::config::{HeaderMatch, HeaderMatchType, RuleMatch};

use crate::resources::traffic::Retry;
use crate::resources::types::GatewayDuration;

use super::super::plan::{Action, Forward, Hashed, ListenerPlan, RetryPlan, RulePlan};
use super::super::{NO_ROUTE, PROCESSED_HEADER, ROUTING_HEADER, milliseconds};
use super::authentication::{self, Side};
use super::written::{Route, Routes, VirtualHost};
use super::{duration, group};

/// How long a stream may be silent where nothing else is said; what the listener sets.
pub(super) const STREAM_IDLE_MS: u64 = 300_000;

/// Envoy Gateway's choice where a policy does not say what is retried; of statuses it is 503.
const DEFAULT_TRIGGERS: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// Beyond this, a backend's wish to be left alone is not waited for.
const DEFAULT_RETRY_AFTER_MS: u64 = 60_000;

/// Envoy's own.
const DEFAULT_BACK_OFF_MS: u64 = 25;

pub(super) fn configuration(listener: &ListenerPlan) -> Routes {
    let mut hosts: Vec<VirtualHost> = listener
        .hosts
        .iter()
        .map(|host| {
            let routes = host.matches.iter().enumerate().filter_map(|(index, selected)| {
                listener.rule(selected).map(|rule| Route::new(&route(&host.hostname, index, selected, rule)))
            });
            virtual_host(&host.hostname, routes.collect(), listener)
        })
        .collect();
    if !listener.hosts.iter().any(|host| host.hostname == "*") {
        hosts.push(virtual_host("*", Vec::new(), listener));
    }
    let mut common = json!({
        "name": listener.full_name(),
        "ignore_port_in_host_matching": true,
        "request_headers_to_remove": [ROUTING_HEADER, PROCESSED_HEADER],
    });
    if let Some(asked) = &listener.clients.front {
        common["typed_per_filter_config"] = authentication::per_filter(asked, Side::Front);
    }
    let Value::Object(common) = common else { return Routes::default() };
    Routes { common, virtual_hosts: hosts }
}

fn virtual_host(hostname: &str, mut routes: Vec<Route>, listener: &ListenerPlan) -> VirtualHost {
    // This is also the route on which every request starts, before the processor has said where it belongs.
    let mut last = json!({
        "name": format!("{hostname}/not-found"),
        "match": { "prefix": "/" },
        "direct_response": not_found(),
        "response_headers_to_add": plain_text(),
    });
    if let Some(asked) = &listener.clients.rest {
        last["typed_per_filter_config"] = authentication::per_filter(asked, Side::Behind);
    }
    routes.push(Route::new(&last));
    VirtualHost { name: hostname.to_owned(), domains: [hostname.to_owned()], routes }
}

fn route(hostname: &str, index: usize, selected: &RuleMatch, rule: &RulePlan) -> Value {
    // Clients' credentials are gone by the time Envoy chooses the route. What a rule asks of them the processor has seen to: nobody
    // else knows the routing key.
    let remains = |wanted: &&HeaderMatch| !CLIENT_CREDENTIAL_HEADERS.contains(&wanted.name.as_str());
    let mut headers: Vec<Value> = selected.headers.iter().filter(remains).map(header).collect();
    headers.push(json!({ "name": ROUTING_HEADER, "string_match": { "exact": rule.routing_key } }));
    let mut route = json!({
        "name": format!("{hostname}/{index}/{}/rule/{}", rule.route, rule.index),
        "match": { "prefix": "/", "headers": headers },
    });
    if !rule.attempts.is_empty() {
        route["metadata"] = group::route_metadata(&rule.route);
    }
    if let Some(asked) = &rule.asked {
        route["typed_per_filter_config"] = authentication::per_filter(asked, Side::Behind);
    }
    match &rule.action {
        Action::Forward(target) => route["route"] = forward(target),
        Action::Refuse => {
            route["direct_response"] = not_found();
            route["response_headers_to_add"] = plain_text();
        }
        Action::NoBackend => {
            route["direct_response"] = json!({ "status": 500 });
        }
    }
    route
}

fn header(wanted: &HeaderMatch) -> Value {
    let string_match = match wanted.kind {
        HeaderMatchType::Exact => json!({ "exact": wanted.value }),
        HeaderMatchType::RegularExpression => json!({ "safe_regex": { "regex": wanted.value } }),
    };
    json!({ "name": wanted.name, "string_match": string_match })
}

fn forward(target: &Forward) -> Value {
    let mut action = match target.clusters.as_slice() {
        [(cluster, _)] => json!({ "cluster": cluster }),
        clusters => {
            let weighted: Vec<Value> = clusters
                .iter()
                .map(|(cluster, weight)| json!({ "name": cluster, "weight": weight }))
                .collect();
            json!({ "weighted_clusters": { "clusters": weighted } })
        }
    };
    action["timeout"] = json!(duration(target.timeout_ms));
    action["auto_host_rewrite"] = json!(true);
    if target.timeout_ms == 0 {
        action["idle_timeout"] = json!("0s");
    } else if target.timeout_ms > STREAM_IDLE_MS {
        // A model may think for as long as the rule allows before its first byte.
        action["idle_timeout"] = json!(duration(target.timeout_ms));
    }
    let mut retries = target.retry.as_ref().map(retry_policy);
    if let Some(idle) = target.stream_idle_ms {
        let policy = retries.get_or_insert_with(|| json!({ "num_retries": 0 }));
        policy["per_try_idle_timeout"] = json!(duration(idle));
    }
    if let Some(policy) = retries {
        action["retry_policy"] = policy;
    }
    if !target.hashed.is_empty() {
        action["hash_policy"] = target.hashed.iter().map(hash_policy).collect();
    }
    action
}

/// Another attempt goes to another address where there is one.
fn retry_policy(plan: &RetryPlan) -> Value {
    let Retry { num_retries, num_attempts_per_priority: _, retry_on, per_retry } = &plan.policy;
    let (triggers, statuses) = match retry_on {
        Some(on) if !(on.triggers.is_empty() && on.http_status_codes.is_empty()) => {
            let names: Vec<&str> = on.triggers.iter().map(|trigger| trigger.name()).collect();
            (names.join(","), on.http_status_codes.clone())
        }
        _ => (DEFAULT_TRIGGERS.to_owned(), vec![503]),
    };
    let mut policy = json!({
        "retry_on": triggers,
        "num_retries": num_retries.unwrap_or(2),
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }],
        "host_selection_retry_max_attempts": 5,
    });
    if !statuses.is_empty() {
        policy["retriable_status_codes"] = json!(statuses);
    }
    if let Some(limit) = plan.attempt_ms {
        policy["per_try_timeout"] = json!(duration(limit));
    }
    if let Some(back_off) = per_retry.as_ref().and_then(|limits| limits.back_off.as_ref()) {
        let time = |time: GatewayDuration| milliseconds(time.0).max(1);
        let base = back_off.base_interval.map_or(DEFAULT_BACK_OFF_MS, time);
        let mut written = json!({ "base_interval": duration(base) });
        if let Some(max) = back_off.max_interval {
            written["max_interval"] = json!(duration(time(max).max(base)));
        }
        policy["retry_back_off"] = written;
    }
    if let Some(attempts) = plan.per_priority {
        policy["retry_priority"] = json!({
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": attempts,
            },
        });
    }
    if !plan.elsewhere {
        // A backend that says when it can be asked again is asked then. Another one need not be waited for.
        let max = per_retry.as_ref().and_then(|limits| limits.back_off.as_ref()?.max_interval);
        let max = max.map_or(DEFAULT_RETRY_AFTER_MS, |max| milliseconds(max.0).max(1));
        policy["rate_limited_retry_back_off"] = json!({
            "reset_headers": [{ "name": "retry-after", "format": "SECONDS" }],
            "max_interval": duration(max),
        });
    }
    policy
}

fn hash_policy(hashed: &Hashed) -> Value {
    match hashed {
        Hashed::Header(name) => json!({ "header": { "header_name": name } }),
        Hashed::SourceIp => json!({ "connection_properties": { "source_ip": true } }),
    }
}

fn not_found() -> Value {
    json!({ "status": 404, "body": { "inline_string": NO_ROUTE } })
}

fn plain_text() -> Value {
    json!([{
        "header": { "key": "content-type", "value": "text/plain" },
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }])
}
