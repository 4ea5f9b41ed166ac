//! Virtual hosts and routes. A route demands what the rule's match says and the rule's routing key besides.

use serde_json::{Value, json};

use crate::config::{HeaderMatch, HeaderMatchType, RuleMatch};

use super::super::plan::{Action, Forward, ListenerPlan, RulePlan};
use super::super::{NO_ROUTE, ROUTING_HEADER};
use super::duration;

/// How long a stream may be silent where nothing else is said; what the listener sets.
pub(super) const STREAM_IDLE_MS: u64 = 300_000;

pub(super) fn configuration(listener: &ListenerPlan) -> Value {
    let mut hosts: Vec<Value> = listener
        .hosts
        .iter()
        .map(|host| {
            let routes = host.matches.iter().enumerate().filter_map(|(index, selected)| {
                listener.rule(selected).map(|rule| route(&host.hostname, index, selected, rule))
            });
            virtual_host(&host.hostname, routes.collect())
        })
        .collect();
    if !listener.hosts.iter().any(|host| host.hostname == "*") {
        hosts.push(virtual_host("*", Vec::new()));
    }
    json!({
        "name": listener.full_name(),
        "ignore_port_in_host_matching": true,
        "request_headers_to_remove": [ROUTING_HEADER],
        "virtual_hosts": hosts,
    })
}

fn virtual_host(hostname: &str, mut routes: Vec<Value>) -> Value {
    // This is also the route on which every request starts, before the processor has said where it belongs.
    routes.push(json!({
        "name": format!("{hostname}/not-found"),
        "match": { "prefix": "/" },
        "direct_response": not_found(),
        "response_headers_to_add": plain_text(),
    }));
    json!({ "name": hostname, "domains": [hostname], "routes": routes })
}

fn route(hostname: &str, index: usize, selected: &RuleMatch, rule: &RulePlan) -> Value {
    let mut headers: Vec<Value> = selected.headers.iter().map(header).collect();
    headers.push(json!({ "name": ROUTING_HEADER, "string_match": { "exact": rule.routing_key } }));
    let mut route = json!({
        "name": format!("{hostname}/{index}/{}/rule/{}", rule.route, rule.index),
        "match": { "prefix": "/", "headers": headers },
    });
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
    if let Some(idle) = target.stream_idle_ms {
        action["retry_policy"] = json!({ "num_retries": 0, "per_try_idle_timeout": duration(idle) });
    }
    action
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
