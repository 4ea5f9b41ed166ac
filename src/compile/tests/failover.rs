//! Rules over backends of several kinds: one of them is chosen for each attempt.

use super::*;

/// A policy for the route `r` that asks for other attempts.
fn retries(retry: &str) -> String {
    format!(
        "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: retries}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}}]
  retry: {retry}
"
    )
}

/// The backend's certificate is checked.
fn tls(name: &str) -> String {
    format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}]
  validation: {{wellKnownCACertificates: System, hostname: {name}.example.com}}
"
    )
}

/// Three backends with keys of their own.
fn three(refs: &str) -> String {
    let mut text = [GATEWAY, &route("r", &model_rule("m", refs))].concat();
    for name in ["one", "two", "three"] {
        text += &(backend(name, "") + &key(name, &format!("key-of-{name}")));
    }
    text
}

fn only_cluster(compiled: &Compiled) -> Value {
    match clusters(compiled).as_slice() {
        [cluster] => cluster.clone(),
        other => panic!("{} clusters", other.len()),
    }
}

fn action(compiled: &Compiled) -> Value {
    virtual_hosts(compiled, 0)[0]["routes"][0]["route"].clone()
}

/// By locality: backend, priority, weight.
fn localities(cluster: &Value) -> Vec<(String, u64, u64)> {
    let all = cluster["load_assignment"]["endpoints"].as_array().expect("localities");
    let number = |value: &Value| value.as_u64().expect("a number");
    all.iter()
        .map(|locality| {
            let told = &locality["lb_endpoints"][0]["metadata"]["filter_metadata"]["aigateway.envoy.io"];
            let name = told["per_route_rule_backend_name"].as_str().expect("a name");
            let short = name.split('/').nth(1).expect("a backend").to_owned();
            (short, number(&locality["priority"]), number(&locality["load_balancing_weight"]))
        })
        .collect()
}

fn attempts(compiled: &Compiled) -> &[String] {
    &only_gateway(compiled).rules[0].attempts
}

#[test]
fn the_whole_of_a_rule_that_is_served_per_attempt() {
    let policy = "{numRetries: 5, numAttemptsPerPriority: 1, retryOn: {triggers: [connect-failure, retriable-status-codes], httpStatusCodes: [429, 500]}, perRetry: {timeout: 30s, backOff: {baseInterval: 100ms, maxInterval: 10s}}}";
    let refs = "{name: one}, {name: two, priority: 3, modelNameOverride: other}, {name: three, priority: 3, weight: 9}";
    let text = [&three(refs), &*retries(policy), &tls("one"), &tls("two"), &tls("three")].concat();
    let compiled = compile_clean(&text.replace("port: 8080", "port: 443"));
    insta::assert_json_snapshot!("per_attempt_cluster", only_cluster(&compiled));
    insta::assert_json_snapshot!("per_attempt_route", virtual_hosts(&compiled, 0)[0]["routes"][0]);
    insta::assert_json_snapshot!("per_attempt_rule", compiled.config.redacted()["gateways"][0]["rules"]);
}

#[test]
fn priorities_are_ranks_and_weights_count_within_them() {
    let refs = "{name: one, priority: 70, weight: 3}, {name: two, priority: 5}, {name: three, priority: 70}";
    let compiled = compile_clean(&three(refs));
    let named = |name: &str, priority, weight| (name.to_owned(), priority, weight);
    assert_eq!(
        localities(&only_cluster(&compiled)),
        [named("one", 1, 3), named("two", 0, 1), named("three", 1, 1)]
    );
    assert_eq!(attempts(&compiled).len(), 3);
    assert_eq!(only_gateway(&compiled).rules[0].backend, "");
}

#[test]
fn envoy_takes_no_sum_of_weights_beyond_32_bits() {
    let most = "weight: 2147483647";
    let refs = format!("{{name: one, {most}}}, {{name: two, {most}}}, {{name: three, {most}}}");
    let compiled = compile_clean(&three(&refs));
    let sum: u64 = localities(&only_cluster(&compiled)).iter().map(|(_, _, weight)| weight).sum();
    assert!(sum <= u64::from(u32::MAX), "{sum}");
}

#[test]
fn of_backends_that_differ_in_nothing_but_priority_it_is_known_who_served() {
    let refs = "{name: one}, {name: two, priority: 1}";
    let text =
        [GATEWAY, &route("r", &model_rule("m", refs)), &backend("one", ""), &backend("two", "")].concat();
    let compiled = compile_clean(&text);
    assert_eq!(localities(&only_cluster(&compiled)).len(), 2);
    assert_eq!(attempts(&compiled).len(), 2);
}

#[test]
fn equal_backends_are_one_cluster_where_another_attempt_may_go_to_the_other() {
    let refs = "{name: one}, {name: two}";
    let base =
        [GATEWAY, &route("r", &model_rule("m", refs)), &backend("one", ""), &backend("two", "")].concat();
    assert_eq!(clusters(&compile_clean(&base)).len(), 2);
    let compiled = compile_clean(&(base + &retries("{numRetries: 1}")));
    assert_eq!(localities(&only_cluster(&compiled)).len(), 2);
    assert!(!only_cluster(&compiled).to_string().contains("ext_proc") && attempts(&compiled).is_empty());
    let policy = &action(&compiled)["retry_policy"];
    assert_eq!(policy["retry_priority"], Value::Null);
    assert_eq!(policy["rate_limited_retry_back_off"], Value::Null);
}

#[test]
fn another_attempt_goes_to_the_next_priority_once_the_first_has_been_tried() {
    let refs = "{name: one}, {name: two}, {name: three, priority: 1}";
    let frequency = |retry: &str| {
        let compiled = compile_clean(&(three(refs) + &retries(retry)));
        action(&compiled)["retry_policy"]["retry_priority"]["typed_config"]["update_frequency"].clone()
    };
    assert_eq!(frequency("{numRetries: 3}"), 2);
    assert_eq!(frequency("{numRetries: 3, numAttemptsPerPriority: 1}"), 1);
    // Without a policy there is one attempt, and health alone decides on the priority.
    let compiled = compile_clean(&three(refs));
    assert_eq!(action(&compiled)["retry_policy"], Value::Null);
}

#[test]
fn a_single_backend_that_says_when_to_come_back_is_left_alone_until_then() {
    let base = [GATEWAY, &route("r", &model_rule("m", "{name: one}")), &backend("one", "")].concat();
    let policy = "{retryOn: {triggers: [retriable-status-codes], httpStatusCodes: [429]}}";
    let compiled = compile_clean(&(base + &retries(policy)));
    let waiting = &action(&compiled)["retry_policy"]["rate_limited_retry_back_off"];
    assert_eq!(waiting["reset_headers"][0]["name"], "retry-after");
    assert_eq!(waiting["max_interval"], "60s");
}

#[test]
fn ways_that_envoy_cannot_mix_are_put_in_order() {
    let refs = "{name: one, weight: 3}, {name: two}, {name: three, priority: 1}";
    let text = three(refs)
        .replace("{fqdn: {hostname: one.example.com, port: 8080}}", "{unix: {path: /run/one.sock}}");
    let compiled = compile_clean(&(text + &tls("three")));
    let written = clusters(&compiled);
    let [one, two, three, first, second] = written.as_slice() else { panic!("{:#?}", clusters(&compiled)) };
    let names = |cluster: &Value| localities(cluster).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    // In the order of their ways.
    assert_eq!([names(two), names(one), names(three)], [["one"], ["two"], ["three"]]);
    assert_eq!((one["type"].clone(), two["type"].clone()), (Value::Null, "STATIC".into()));
    let order = |chain: &Value| chain["cluster_type"]["typed_config"]["clusters"].clone();
    let listed = |clusters: [&Value; 3]| clusters.map(|cluster| cluster["name"].clone()).to_vec();
    assert_eq!(order(first), Value::from(listed([two, one, three])));
    assert_eq!(order(second), Value::from(listed([one, two, three])));
    for chain in [first, second] {
        assert!(chain.to_string().contains("ext_proc"), "{chain:#}");
    }
    for part in [one, two, three] {
        assert!(!part.to_string().contains("ext_proc"), "{part:#}");
    }
    let weighted = action(&compiled)["weighted_clusters"]["clusters"].clone();
    assert_eq!(weighted[0]["name"], first["name"]);
    assert_eq!((&weighted[0]["weight"], &weighted[1]["weight"]), (&3.into(), &1.into()));
}

#[test]
fn ways_that_cannot_be_weighed_are_named() {
    let refs = "{name: one}, {name: two, priority: 1}, {name: three, priority: 1}";
    let said = messages(&compile_text(&(three(refs) + &tls("three"))));
    assert!(said.contains("backendRefs[1] is reached by the network without TLS"), "{said}");
    assert!(said.contains("backendRefs[2], of the same priority, by the network with TLS"), "{said}");
}

#[test]
fn an_address_is_reached_with_the_certificate_of_its_own_backend() {
    let text = [&three("{name: one}, {name: two, priority: 1}"), &*tls("one"), &tls("two")].concat();
    let compiled = compile_clean(&text);
    let cluster = only_cluster(&compiled);
    for (index, name) in ["one", "two"].into_iter().enumerate() {
        let endpoint = &cluster["load_assignment"]["endpoints"][index]["lb_endpoints"][0];
        let wanted = &endpoint["metadata"]["filter_metadata"]["envoy.transport_socket_match"];
        let sockets = cluster["transport_socket_matches"].as_array().expect("sockets");
        let found: Vec<&Value> = sockets.iter().filter(|socket| socket["match"] == *wanted).collect();
        let [socket] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(socket["transport_socket"]["typed_config"]["sni"], format!("{name}.example.com"));
    }
}

#[test]
fn another_backend_another_key_or_another_order_is_another_destination() {
    let keys = |text: &str| {
        let compiled = compile_clean(text);
        let rule = &only_gateway(&compiled).rules[0];
        (rule.routing_key.clone(), only_cluster(&compiled)["name"].as_str().expect("a name").to_owned())
    };
    let base = three("{name: one}, {name: two, priority: 1}");
    let (key, cluster) = keys(&base);
    assert_eq!((key.clone(), cluster.clone()), keys(&base));
    let moved = keys(&base.replace("two.example.com", "elsewhere.example.com"));
    let turned = keys(&three("{name: one, priority: 1}, {name: two}"));
    let heavier = keys(&three("{name: one, weight: 2}, {name: two, priority: 1}"));
    for other in [&moved, &turned, &heavier] {
        assert!(other.0 != key && other.1 != cluster, "{other:?}");
    }
    // The key is the processor's affair, and the same cluster will do.
    let signed = keys(&base.replace("key-of-two", "another-key"));
    assert!(signed.0 != key && signed.1 == cluster, "{signed:?}");
}

#[test]
fn a_fallback_that_cannot_be_used_does_not_take_the_rule_with_it() {
    let refs = "{name: one}, {name: two, priority: 1}";
    let broken = |name: &str| {
        let named = format!("metadata: {{name: {name}}}\nspec:\n  schema: {{name: OpenAI}}");
        compile_text(&three(refs).replace(&named, &named.replace("OpenAI", "AzureOpenAI")))
    };
    let compiled = broken("two");
    let said = messages(&compiled);
    assert!(said.contains("the rule is served without AIServiceBackend default/two"), "{said}");
    assert_eq!(backend_of(&action(&compiled)["cluster"]), "backend/default/one");
    // The others are no stand-ins for the one that requests are meant for.
    let compiled = broken("one");
    assert_eq!(virtual_hosts(&compiled, 0)[0]["routes"][0]["direct_response"]["status"], 404);
}

#[test]
fn signatures_over_the_host_are_made_for_the_host_that_is_chosen() {
    let aws = key("one", "x")
        .replace("type: APIKey", "type: AWSCredentials")
        .replace(
            "apiKey: {secretRef: {name: one-key}}",
            "awsCredentials: {region: here, credentialsFile: {secretRef: {name: one-key}}}",
        )
        .replace(
            "apiKey: x",
            "credentials: \"[default]\\naws_access_key_id = a\\naws_secret_access_key = b\"",
        );
    let text = [GATEWAY, &route("r", &model_rule("m", "{name: one}")), &backend("one", ""), &aws].concat();
    assert!(attempts(&compile_clean(&text)).is_empty());
    let another = "}}, {fqdn: {hostname: one.example.org, port: 8080}}]";
    assert_eq!(attempts(&compile_clean(&text.replacen("}}]", another, 1))).len(), 1);
}
