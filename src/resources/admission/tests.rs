//! Verdicts on single objects. Those of a real API server are compared in `tests/k8s`.

use cel::Env;
use serde_json::json;

use super::*;

fn route(spec: &Value) -> Value {
    json!({
        "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIGatewayRoute",
        "metadata": { "name": "r", "namespace": "n" }, "spec": spec,
    })
}

fn verdict(object: &Value) -> Verdict {
    Admission::new().admit(object).expect("a kind of ours")
}

fn fields(object: &Value) -> Vec<String> {
    verdict(object).refusals.into_iter().map(|refusal| refusal.field).collect()
}

#[test]
fn what_is_good_is_taken_with_its_defaults() {
    let spec = json!({
        "parentRefs": [{ "name": "gw" }],
        "rules": [{ "backendRefs": [{ "name": "b", "priority": null }] }],
    });
    let verdict = verdict(&route(&spec));
    assert!(verdict.is_accepted(), "{:?}", verdict.refusals);
    let spec = &verdict.object["spec"];
    assert_eq!(spec["parentRefs"][0]["kind"], "Gateway");
    assert_eq!(spec["rules"][0]["modelsOwnedBy"], "Envoy AI Gateway");
    assert_eq!(spec["rules"][0]["backendRefs"][0], json!({ "name": "b", "priority": 0, "weight": 1 }));
}

#[test]
fn limits_types_and_patterns_are_named_with_their_field() {
    let rules: Vec<Value> = (0..16).map(|_| json!({})).collect();
    assert_eq!(fields(&route(&json!({ "rules": rules }))), ["spec.rules"]);
    assert_eq!(fields(&route(&json!({}))), ["spec.rules"]);
    let spec =
        json!({ "hostnames": ["UPPER"], "rules": [{ "backendRefs": [{ "name": "b", "weight": "1" }] }] });
    assert_eq!(fields(&route(&spec)), ["spec.hostnames[0]", "spec.rules[0].backendRefs[0].weight"]);
    let spec =
        json!({ "rules": [{ "backendRefs": [{ "name": "", "weight": -1, "priority": 3_000_000_000u64 }] }] });
    let path = |name: &str| format!("spec.rules[0].backendRefs[0].{name}");
    let mut found = fields(&route(&spec));
    found.sort();
    assert_eq!(found, [path("name"), path("priority"), path("weight")]);
    let header = json!({ "name": "x-a", "value": "1" });
    let spec = json!({ "rules": [{ "matches": [{ "headers": [header, header] }] }] });
    assert_eq!(fields(&route(&spec)), ["spec.rules[0].matches[0].headers[1]"]);
    assert_eq!(
        fields(&route(&json!({ "rules": [{ "modelsCreatedAt": "yesterday" }] }))),
        ["spec.rules[0].modelsCreatedAt"]
    );
}

#[test]
fn rules_in_cel_hold_or_are_named() {
    let taken = [
        json!({ "rules": [{ "name": "a" }, { "name": "b" }, {}] }),
        json!({ "rules": [{ "timeouts": { "request": "10s", "backendRequest": "10000ms" } }] }),
        json!({ "rules": [{ "timeouts": { "request": "0s", "backendRequest": "10s" } }] }),
    ];
    for spec in taken {
        assert_eq!(verdict(&route(&spec)).refusals, [], "{spec}");
    }
    let refused = [
        (json!({ "rules": [{ "name": "a" }, { "name": "a" }] }), "spec.rules"),
        (json!({ "rules": [{ "name": "route-not-found" }] }), "spec.rules[0]"),
        (json!({ "parentRefs": [{ "name": "a", "kind": "Service" }], "rules": [{}] }), "spec.parentRefs"),
        (
            json!({ "rules": [{ "timeouts": { "request": "1s", "backendRequest": "2s" } }] }),
            "spec.rules[0].timeouts",
        ),
    ];
    for (spec, field) in refused {
        let refusals = verdict(&route(&spec)).refusals;
        assert_eq!(refusals.len(), 1, "{spec}: {refusals:?}");
        assert_eq!(refusals[0].field, field);
        assert!(!refusals[0].message.contains("cannot be evaluated"), "{refusals:?}");
    }
}

#[test]
fn every_rule_of_every_definition_can_be_read() {
    fn rules(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                let own = object.get("x-kubernetes-validations").and_then(Value::as_array);
                found.extend(
                    own.into_iter().flatten().filter_map(|rule| rule["rule"].as_str().map(str::to_owned)),
                );
                object.values().for_each(|value| rules(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| rules(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    crd::all().iter().for_each(|definition| rules(definition, &mut found));
    assert!(found.len() > 50);
    found.sort();
    found.dedup();
    for rule in found {
        Env::stdlib().compile(&rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    }
}

#[test]
fn unknown_fields_are_told_and_dropped_and_versions_differ() {
    let verdict_of = |version: &str| {
        verdict(&json!({
            "apiVersion": format!("aigateway.envoyproxy.io/{version}"), "kind": "BackendSecurityPolicy",
            "metadata": { "name": "p" },
            "spec": {
                "type": "APIKey", "apiKey": { "secretRef": { "name": "s" } },
                "credentialOverride": { "fromRequestHeaders": {} },
            },
        }))
    };
    assert_eq!(verdict_of("v1beta1").unknown, []);
    assert_eq!(verdict_of("v1alpha1").unknown[0].field, "spec.credentialOverride");
    assert!(verdict_of("v1alpha1").is_accepted());
    assert_eq!(verdict_of("v2").refusals[0].field, "apiVersion");
}

#[test]
fn findings_have_a_place_and_other_kinds_are_counted() {
    let text = "apiVersion: aigateway.envoyproxy.io/v1beta1\nkind: AIServiceBackend\nmetadata: {name: b}\nspec:\n  schema:\n    name: OpenAY\n  backendRef: {name: x, kind: Backend, group: gateway.envoyproxy.io}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\napiVersion: aigateway.envoyproxy.io/v1beta1\nkind: AIGatewayRoutes\nmetadata: {name: b}\n";
    let judged = Admission::new().judge([Source::new("a.yaml", text)]);
    assert_eq!((judged.own, judged.foreign), (1, 2));
    let found: Vec<String> = judged.diagnostics.iter().map(|finding| finding.render(false)).collect();
    assert!(found[0].contains("a.yaml:6:5") && found[0].contains("OpenAY"), "{found:?}");
    assert!(found[1].contains("AIGatewayRoute") && found[1].contains("a.yaml:13"), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn strings_have_the_formats_that_are_enforced() {
    for (format, good, bad) in [
        ("date-time", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05"),
        ("date-time", "2026-01-02t03:04:05.5+02:00", "2026-13-02T03:04:05Z"),
        ("uri", "https://a.example:8443/x?y", "a.example/x"),
        ("uri", "urn:a:b", "http://a b/"),
        ("uri", "/path", "http://a.example:port/"),
        ("byte", "aGk=", "a-b"),
    ] {
        assert!(formats::is(format, good), "{format} {good}");
        assert!(!formats::is(format, bad), "{format} {bad}");
    }
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let name = prop_oneof![
                Just("rules".to_owned()),
                Just("backendRefs".to_owned()),
                Just("name".to_owned()),
                Just("matches".to_owned()),
                Just("parentRefs".to_owned()),
                Just("timeouts".to_owned()),
                ".{0,4}".prop_map(|name: String| name),
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is in an object, there is a verdict, and what is taken is taken again as it is kept.
        #[test]
        fn there_is_always_a_verdict(spec in any_json()) {
            let mut admission = Admission::new();
            let verdict = admission.admit(&route(&spec)).unwrap();
            if verdict.is_accepted() {
                let again = admission.admit(&verdict.object).unwrap();
                prop_assert!(again.is_accepted());
                prop_assert_eq!(again.object, verdict.object);
            }
        }
    }
}
