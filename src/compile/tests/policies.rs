//! What policies and GatewayConfigs change, and which of several counts.

use serde_json::json;

use super::*;

/// A policy of a kind, with targets and the rest of its spec as given.
fn policy(kind: &str, name: &str, targets: &str, spec: &str) -> String {
    let targets = targets
        .split_whitespace()
        .map(|target| {
            let mut parts = target.split('/');
            let (kind, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let section = parts.next().map_or_else(String::new, |name| format!(", sectionName: {name}"));
            format!("{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}{section}}}")
        })
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: {kind}
metadata: {{name: {name}}}
spec:
  targetRefs: [{targets}]
  {spec}
"
    )
}

fn backend_policy(name: &str, targets: &str, spec: &str) -> String {
    policy("BackendTrafficPolicy", name, targets, spec)
}

fn client_policy(name: &str, targets: &str, spec: &str) -> String {
    policy("ClientTrafficPolicy", name, targets, spec)
}

/// A served route `r` with rules `one` and `two`, on listeners `http` and `other` of Gateway `gw`.
fn base() -> String {
    let gateway = GATEWAY.replace("port: 80}]", "port: 80}, {name: other, protocol: HTTP, port: 81}]");
    let rules = ["one", "two"].map(|name| {
        model_rule(name, "{name: good}").replacen("  - matches", &format!("  - name: {name}\n    matches"), 1)
    });
    [gateway, route("r", &rules.concat()), backend("good", "")].concat()
}

fn rule(compiled: &Compiled, listener: usize, index: usize) -> Value {
    virtual_hosts(compiled, listener)[0]["routes"][index]["route"].clone()
}

/// The cluster of a rule.
fn cluster(compiled: &Compiled, listener: usize, index: usize) -> Value {
    let name = &rule(compiled, listener, index)["cluster"];
    clusters(compiled).into_iter().find(|cluster| cluster["name"] == *name).expect("a cluster")
}

fn connect_timeouts(compiled: &Compiled) -> Vec<String> {
    let of =
        |listener, index| cluster(compiled, listener, index)["connect_timeout"].as_str().map(str::to_owned);
    [of(0, 0), of(0, 1), of(1, 0), of(1, 1)].into_iter().map(|time| time.expect("a time")).collect()
}

fn connect(seconds: u32) -> String {
    format!("timeout: {{tcp: {{connectTimeout: {seconds}s}}}}")
}

#[test]
fn the_most_specific_policy_counts() {
    let gateway = backend_policy("a", "Gateway/gw", &connect(1));
    let listener = backend_policy("b", "Gateway/gw/other", &connect(2));
    let whole_route = backend_policy("c", "HTTPRoute/r", &connect(3));
    let one_rule = backend_policy("d", "HTTPRoute/r/two", &connect(4));
    let check = |policies: &[&String], expected: [&str; 4]| {
        let text = policies.iter().fold(base(), |text, policy| text + policy.as_str());
        assert_eq!(connect_timeouts(&compile_clean(&text)), expected);
    };
    check(&[], ["10s", "10s", "10s", "10s"]);
    check(&[&gateway], ["1s", "1s", "1s", "1s"]);
    check(&[&listener, &gateway], ["1s", "1s", "2s", "2s"]);
    check(&[&listener, &gateway, &whole_route], ["3s", "3s", "3s", "3s"]);
    check(&[&one_rule, &listener, &gateway], ["1s", "4s", "2s", "4s"]);
    check(&[&one_rule, &whole_route], ["3s", "4s", "3s", "4s"]);
}

#[test]
fn a_policy_is_merged_only_if_it_asks_for_it() {
    let gateway = backend_policy(
        "a",
        "Gateway/gw",
        "circuitBreaker: {maxConnections: 7, maxParallelRequests: 8}\n  timeout: {tcp: {connectTimeout: 1s}, http: {requestTimeout: 5s}}",
    );
    let specific = |merge: &str| {
        let spec = format!(
            "{merge}circuitBreaker: {{maxParallelRequests: 9}}\n  timeout: {{http: {{requestTimeout: 6s}}}}"
        );
        backend_policy("b", "HTTPRoute/r", &spec)
    };
    let alone = compile_clean(&[base(), gateway.clone(), specific("")].concat());
    let limits = |compiled: &Compiled| cluster(compiled, 0, 0)["circuit_breakers"]["thresholds"][0].clone();
    assert_eq!(
        (&limits(&alone)["max_connections"], &limits(&alone)["max_requests"]),
        (&json!(u32::MAX), &json!(9))
    );
    assert_eq!(
        (rule(&alone, 0, 0)["timeout"].clone(), connect_timeouts(&alone)[0].as_str()),
        (json!("6s"), "10s")
    );
    let merged = compile_clean(&[base(), gateway, specific("mergeType: StrategicMerge\n  ")].concat());
    assert_eq!(
        (&limits(&merged)["max_connections"], &limits(&merged)["max_requests"]),
        (&json!(7), &json!(9))
    );
    assert_eq!(
        (rule(&merged, 0, 0)["timeout"].clone(), connect_timeouts(&merged)[0].as_str()),
        (json!("6s"), "1s")
    );
}

#[test]
fn of_equal_policies_the_older_counts_and_the_other_is_told() {
    let young = backend_policy("a", "Gateway/gw HTTPRoute/r", &connect(1))
        .replace("name: a}", "name: a, creationTimestamp: '2026-01-01T00:00:00Z'}");
    let old = backend_policy("b", "HTTPRoute/r", &connect(2))
        .replace("name: b}", "name: b, creationTimestamp: '2025-01-01T00:00:00Z'}");
    let compiled = compile_text(&[base(), young, old].concat());
    assert_eq!(connect_timeouts(&compiled)[0], "2s");
    let said = messages(&compiled);
    assert!(said.contains("BackendTrafficPolicy default/b targets it too and is the older one"), "{said}");
    assert_eq!(compiled.diagnostics.iter().count(), 1, "{said}");
}

#[test]
fn targets_that_are_not_there_are_told() {
    let text = [
        base(),
        backend_policy("a", "Gateway/gv HTTPRoute/q HTTPRoute/r/oen Gateway/gw/htpp", &connect(1)),
        client_policy("b", "Gateway/gw/htpp", ""),
    ]
    .concat();
    let compiled = compile_text(&text);
    let said = messages(&compiled);
    for words in [
        "there is no Gateway default/gv",
        "there is no AIGatewayRoute default/q",
        "AIGatewayRoute default/r has no rule named `oen`",
        "did you mean `one`?",
        "Gateway default/gw has no listener `htpp`",
        "did you mean `http`?",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!compiled.diagnostics.has_errors());
}

#[test]
fn retries_are_envoys() {
    let spec = "retry: {numAttemptsPerPriority: 1, numRetries: 5, perRetry: {backOff: {baseInterval: 100ms, maxInterval: 10s}, timeout: 30s}, retryOn: {httpStatusCodes: [500], triggers: [connect-failure, retriable-status-codes]}}";
    let compiled = compile_clean(&[base(), backend_policy("a", "HTTPRoute/r", spec)].concat());
    let mut policy = rule(&compiled, 0, 0)["retry_policy"].clone();
    policy.as_object_mut().expect("an object").remove("retry_host_predicate");
    assert_eq!(
        policy,
        json!({
            "retry_on": "connect-failure,retriable-status-codes",
            "num_retries": 5,
            "host_selection_retry_max_attempts": 5,
            "retriable_status_codes": [500],
            "per_try_timeout": "30s",
            "retry_back_off": { "base_interval": "0.100s", "max_interval": "10s" },
            "rate_limited_retry_back_off": {
                "reset_headers": [{ "name": "retry-after", "format": "SECONDS" }],
                "max_interval": "10s",
            },
        })
    );
    let compiled = compile_clean(&[base(), backend_policy("a", "HTTPRoute/r", "retry: {}")].concat());
    let policy = &rule(&compiled, 0, 0)["retry_policy"];
    assert_eq!((&policy["num_retries"], &policy["retriable_status_codes"]), (&json!(2), &json!([503])));
    assert_eq!(cluster(&compiled, 0, 0)["name"], only_cluster(&compile_clean(&base())));
}

fn only_cluster(compiled: &Compiled) -> Value {
    assert_eq!(compiled.envoy.clusters.len(), 1);
    clusters(compiled)[0]["name"].clone()
}

#[test]
fn limits_of_an_attempt_are_of_the_whole_where_there_is_one_attempt() {
    let text = base().replace(
        "  - name: one\n",
        "  - name: one\n    timeouts: {request: 40s, backendRequest: 20s}\n    streamIdleTimeout: 3s\n",
    );
    let single = compile_clean(&text);
    assert_eq!(rule(&single, 0, 0)["timeout"], "20s");
    let spec = "timeout: {http: {requestTimeout: 7s}}\n  retry: {perRetry: {timeout: 30s}}";
    let several = compile_clean(&[text, backend_policy("a", "Gateway/gw", spec)].concat());
    let first = rule(&several, 0, 0);
    assert_eq!(first["timeout"], "40s", "what the rule says counts before the policy");
    assert_eq!(first["retry_policy"]["per_try_timeout"], "20s");
    assert_eq!(first["retry_policy"]["per_try_idle_timeout"], "3s");
    assert_eq!(rule(&several, 0, 1)["timeout"], "7s");
    assert_eq!(rule(&several, 0, 1)["retry_policy"]["per_try_timeout"], "30s");
}

/// One of everything that is a destination's.
const EVERYTHING: &str = "loadBalancer: {type: ConsistentHash, consistentHash: {type: Header, header: {name: X-User}, tableSize: 101}}
  tcpKeepalive: {probes: 3, idleTime: 60s, interval: 10s}
  healthCheck:
    active: {type: HTTP, timeout: 2s, unhealthyThreshold: 4, http: {path: /health, method: GET, expectedStatuses: [200, 204]}}
    passive: {consecutive5XxErrors: 5, consecutiveGatewayErrors: 0, interval: 3s, baseEjectionTime: 30s, maxEjectionPercent: 50}
    panicThreshold: 10
  circuitBreaker: {maxConnections: 1, maxPendingRequests: 2, maxParallelRequests: 3, maxParallelRetries: 4, maxRequestsPerConnection: 5}
  timeout: {tcp: {connectTimeout: 3s}, http: {connectionIdleTimeout: 1m, maxConnectionDuration: 2m, maxStreamDuration: 3m}}
  connection: {bufferLimit: 2Mi}
  dns: {dnsRefreshRate: 5s, respectDnsTtl: false, lookupFamily: IPv6}
  http2: {maxConcurrentStreams: 50, initialStreamWindowSize: 128Ki}";

#[test]
fn a_destination_is_treated_as_asked() {
    let compiled = compile_clean(&[base(), backend_policy("a", "HTTPRoute/r/one", EVERYTHING)].concat());
    assert_eq!(rule(&compiled, 0, 0)["hash_policy"], json!([{ "header": { "header_name": "x-user" } }]));
    assert_ne!(rule(&compiled, 0, 0)["cluster"], rule(&compiled, 0, 1)["cluster"]);
    assert_eq!(rule(&compiled, 0, 0)["cluster"], rule(&compiled, 1, 0)["cluster"], "shared by listeners");
    let mut treated = cluster(&compiled, 0, 0);
    treated["name"] = json!("[name]");
    treated["load_assignment"]["cluster_name"] = json!("[name]");
    insta::assert_json_snapshot!(treated);
}

#[test]
fn what_envoy_would_refuse_is_told_and_left_out() {
    let spec = "loadBalancer: {type: ConsistentHash, consistentHash: {type: Cookie, tableSize: 100}}
  retry: {perRetry: {backOff: {baseInterval: 2s, maxInterval: 1s}}, retryOn: {httpStatusCodes: [500], triggers: [5xx]}}
  healthCheck: {active: {type: GRPC}}
  connection: {bufferLimit: 0}";
    let compiled = compile_text(&[base(), backend_policy("a", "Gateway/gw", spec)].concat());
    let said = messages(&compiled);
    for words in [
        "only headers and the client's address can be hashed",
        "not a prime number",
        "less than baseInterval",
        "`retriable-status-codes` is missing",
        "not asked by gRPC",
        "a limit of zero",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let cluster = cluster(&compiled, 0, 0);
    assert!(cluster["lb_policy"].is_null() && cluster["health_checks"].is_null());
    let back_off = &rule(&compiled, 0, 0)["retry_policy"]["retry_back_off"];
    assert_eq!(*back_off, json!({ "base_interval": "2s", "max_interval": "2s" }));
}

fn manager(compiled: &Compiled, listener: usize) -> Value {
    let filters = compiled.envoy.listeners[listener].listener["filter_chains"][0]["filters"].clone();
    filters.as_array().and_then(|filters| filters.last()).expect("a filter")["typed_config"].clone()
}

#[test]
fn clients_are_treated_as_asked() {
    let spec = "connection: {bufferLimit: 1Mi, connectionLimit: {value: 10, closeDelay: 1s}}
  timeout: {http: {requestReceivedTimeout: 10s, idleTimeout: 20s, streamIdleTimeout: 30s}}
  http2: {maxConcurrentStreams: 7, initialStreamWindowSize: 64Ki, initialConnectionWindowSize: 1Mi}
  path: {escapedSlashesAction: RejectRequest, disableMergeSlashes: false}
  headers: {withUnderscoresAction: RejectRequest}
  tcpKeepalive: {idleTime: 1m}";
    let other = "timeout: {http: {idleTimeout: 5s}}";
    let text =
        [base(), client_policy("a", "Gateway/gw", spec), client_policy("b", "Gateway/gw/other", other)];
    let compiled = compile_clean(&text.concat());
    let listener = &compiled.envoy.listeners[0].listener;
    assert_eq!(listener["per_connection_buffer_limit_bytes"], 1 << 20);
    assert_eq!(listener["tcp_keepalive"], json!({ "keepalive_time": 60 }));
    let limit = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!((&limit["max_connections"], &limit["delay"]), (&json!(10), &json!("1s")));
    let http = manager(&compiled, 0);
    assert_eq!((&http["request_timeout"], &http["stream_idle_timeout"]), (&json!("10s"), &json!("30s")));
    assert_eq!(
        http["common_http_protocol_options"],
        json!({ "idle_timeout": "20s", "headers_with_underscores_action": "REJECT_REQUEST" })
    );
    assert_eq!(http["http2_protocol_options"]["max_concurrent_streams"], 7);
    assert_eq!(http["http2_protocol_options"]["initial_stream_window_size"], 65_536);
    assert_eq!(
        (&http["path_with_escaped_slashes_action"], &http["merge_slashes"]),
        (&json!("REJECT_REQUEST"), &json!(true))
    );
    // The policy of a listener takes the place of the Gateway's.
    let other = &compiled.envoy.listeners[1].listener;
    assert_eq!(other["per_connection_buffer_limit_bytes"], 64 << 20);
    assert_eq!(manager(&compiled, 1)["common_http_protocol_options"], json!({ "idle_timeout": "5s" }));
    // With a filter in front, the routes still get where they belong.
    let whole = compiled.envoy.bootstrap();
    let filters = &whole["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
    assert!(filters[1]["typed_config"]["route_config"].is_object());
}

/// Gateways `gw` and `second`, each with a GatewayConfig, and route `r` on both.
fn with_configs(first: &str, second: &str) -> String {
    let gateway = |text: &str, config: &str| {
        text.replace(
            "metadata: {name: gw}",
            &format!(
                "metadata: {{name: gw, annotations: {{aigateway.envoyproxy.io/gateway-config: {config}}}}}"
            ),
        )
    };
    let mut text = gateway(GATEWAY, "one");
    let at = GATEWAY.find("---").expect("two documents");
    text += &gateway(&GATEWAY[at..], "two").replace("name: gw,", "name: second,");
    for (name, spec) in [("one", first), ("two", second)] {
        text += &format!(
            "\n---\napiVersion: aigateway.envoyproxy.io/v1beta1\nkind: GatewayConfig\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
    }
    let r = route("r", &model_rule("m", "{name: good}"))
        .replace("  rules:", "  llmRequestCosts: [{metadataKey: own, type: InputToken}]\n  rules:");
    let second = route("s", &model_rule("k", "{name: good}")).replace("[{name: gw}]", "[{name: second}]");
    text + &r + &second + &backend("good", "")
}

#[test]
fn costs_of_a_gateway_are_global_where_all_agree_and_else_those_of_its_routes() {
    let total = "{metadataKey: total, type: TotalToken}";
    let same = format!("{{globalLLMRequestCosts: [{total}]}}");
    let compiled = compile_clean(&with_configs(&same, &same));
    assert_eq!(compiled.config.global_llm_request_costs.len(), 1);
    assert_eq!(compiled.config.llm_request_costs.len(), 1);

    let own = "{metadataKey: own, type: OutputToken}";
    let compiled =
        compile_clean(&with_configs(&format!("{{globalLLMRequestCosts: [{total}, {own}]}}"), "{}"));
    assert!(compiled.config.global_llm_request_costs.is_empty());
    let costs = compiled.config.llm_request_costs.iter();
    let costs: Vec<_> =
        costs.map(|cost| (cost.route_name.as_str(), cost.cost.metadata_key.as_str())).collect();
    assert_eq!(costs, [("default/r", "own"), ("default/r", "total")]);
}

#[test]
fn providers_are_reached_through_the_proxy_or_not_at_all() {
    let compiled = compile_clean(&with_configs(
        "{forwardProxy: {address: '10.0.0.1:3128'}, extProc: {kubernetes: {env: []}}}",
        "{}",
    ));
    let socket = &cluster(&compiled, 0, 0)["transport_socket"];
    assert_eq!(socket["name"], "envoy.transport_sockets.http_11_proxy");
    let proxy = &socket["typed_config"]["default_proxy_address"]["socket_address"];
    assert_eq!(*proxy, json!({ "address": "10.0.0.1", "port_value": 3128 }));
    assert!(cluster(&compiled, 1, 0)["transport_socket"].is_null());
    let keys: Vec<_> = compiled.config.gateways.iter().map(|gateway| &gateway.rules[0].routing_key).collect();
    assert_ne!(keys[0], keys[1]);

    let compiled = compile_text(&with_configs("{forwardProxy: {address: 'proxy.corp:3128'}}", "{}"));
    assert!(messages(&compiled).contains("does not look up a proxy's name"), "{}", messages(&compiled));
    let served: Vec<_> = compiled.listeners.iter().map(|listener| listener.id.as_str()).collect();
    assert_eq!(served, ["default/second/http"]);
}
