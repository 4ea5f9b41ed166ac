//! Who may use a rule is asked on another one's route.

use super::*;

fn base() -> String {
    let routes =
        [route("open", &["gw"], &[("m", "a")]), route("closed", &["gw"], &[("other", "b")])].concat();
    [CLASS, &gateway("gw"), &backend("a"), &backend("b"), &routes].concat()
}

fn policy(targets: &str, asks: &str) -> String {
    format!(
        "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: p, namespace: default}}
spec:
  {targets}
  {asks}
"
    )
}

const KEYS: &str = "apiKeyAuth: {credentialRefs: [{name: keys}], extractFrom: [{headers: [x-key]}]}";

fn target(kind: &str, name: &str) -> String {
    format!("targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}}}]")
}

/// Whether the rule of `closed` is served, and without a credential anywhere if it is not.
fn serves(text: &str) -> bool {
    let programme = compiled(text);
    let gateway = only(&programme);
    let rule = gateway.rules.iter().find(|rule| rule.route == "default/closed").unwrap();
    let served = !leads_to(&programme.objects, &rule.routing_key).is_empty();
    let document = programme.gateways[0].config.reveal();
    assert_eq!(served, String::from_utf8_lossy(document.bytes()).contains("key-of-b"));
    assert_eq!(served, refused(&programme, "closed").is_empty());
    assert!(refused(&programme, "open").is_empty(), "the other one is not to suffer");
    served
}

#[test]
fn a_policy_of_one_route_is_not_enforced_where_another_has_the_host_name() {
    for asks in [
        KEYS,
        "oidc: {}",
        "extAuth: {}",
        "authorization: {}",
        "jwt: {providers: [{name: x, remoteJWKS: {uri: 'https://x/y'}}]}",
    ] {
        assert!(
            !serves(&[&base(), policy(&target("HTTPRoute", "closed"), asks).as_str()].concat()),
            "{asks}"
        );
    }
    assert!(serves(&[&base(), policy(&target("HTTPRoute", "closed"), "cors: {}").as_str()].concat()));
}

#[test]
fn it_is_where_the_other_has_another_host_name_or_the_same_policy() {
    let apart = base().replacen("rules:\n", "hostnames: [a.com]\n  rules:\n", 1);
    assert!(serves(&[&apart, policy(&target("HTTPRoute", "closed"), KEYS).as_str()].concat()));
    let all = "targetSelectors: [{kind: HTTPRoute, matchLabels: {team: blue}}]";
    assert!(serves(&[&base(), policy(all, KEYS).as_str()].concat()));
    assert!(serves(&[&base(), policy(&target("Gateway", "gw"), KEYS).as_str()].concat()));
}

#[test]
fn a_route_without_what_the_gateway_asks_for_opens_none_of_the_others() {
    let opening = policy(&target("HTTPRoute", "open"), "cors: {}").replace("name: p,", "name: q,");
    let closed = [&base(), policy(&target("Gateway", "gw"), KEYS).as_str(), &opening].concat();
    assert!(!serves(&closed));
}

#[test]
fn a_policy_of_a_rule_or_of_an_ai_gateway_route_never_runs() {
    let named = base().replace(
        "  - matches: [{headers: [{name: x-ai-eg-model, value: other}]}]",
        "  - name: rule\n    matches: [{headers: [{name: x-ai-eg-model, value: other}]}]",
    );
    let section =
        "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: closed, sectionName: rule}]";
    assert!(!serves(&[&named, policy(section, KEYS).as_str()].concat()));
    assert!(!serves(&[&base(), policy(&target("AIGatewayRoute", "closed"), KEYS).as_str()].concat()));
}

#[test]
fn a_policy_counts_on_the_gateway_on_which_the_route_has_the_name_it_names() {
    let text = [
        CLASS,
        &gateway("one"),
        &gateway("two"),
        &backend("b"),
        &route("closed", &["one", "two"], &[("other", "b")]),
        &policy(&target("HTTPRoute", "closed"), KEYS),
    ];
    let programme = compiled(&text.concat());
    let served: Vec<bool> = programme
        .gateways
        .iter()
        .map(|it| !leads_to(&programme.objects, &it.config.gateways[0].rules[0].routing_key).is_empty())
        .collect();
    assert_eq!(served, [true, false]);
    assert!(refused(&programme, "closed").contains("targetSelectors"));
}
