//! What cannot be served is named, and takes nothing else with it.

use super::*;

/// A served rule besides the one in question.
fn with_bystander(rule: &str, more: &str) -> String {
    let rules = [rule, &model_rule("bystander", "{name: good}")].concat();
    [GATEWAY, &route("r", &rules), &backend("good", ""), more].concat()
}

/// Compiles, demands the words, and that the rule answers as given while its neighbour serves.
fn refused(rule: &str, more: &str, status: u64, words: &[&str]) {
    let compiled = compile_text(&with_bystander(rule, more));
    let said = messages(&compiled);
    for word in words {
        assert!(said.contains(word), "`{word}` is not in\n{said}");
    }
    assert!(compiled.serves());
    let hosts = virtual_hosts(&compiled, 0);
    let routes = hosts[0]["routes"].as_array().expect("routes");
    let [bad, good, _] = routes.as_slice() else { panic!("three routes: {routes:#?}") };
    assert_eq!(bad["direct_response"]["status"], status, "{said}");
    assert_eq!(backend_of(&good["route"]["cluster"]), "backend/default/good");
    let gateway = only_gateway(&compiled);
    assert_eq!(gateway.models.all.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["bystander"]);
    // Every rule the processor may choose has a backend it knows, without a credential where nothing is sent.
    for rule in &gateway.rules {
        assert!(compiled.config.backends.iter().any(|backend| backend.name == rule.backend));
    }
    let placeholder =
        compiled.config.backends.iter().find(|backend| backend.name == gateway.rules[0].backend);
    assert!(placeholder.expect("known").auth.is_none());
}

#[test]
fn a_disabled_backend_does_not_count() {
    let more = [backend("one", ""), backend("two", ""), key("two", "second-key")].concat();
    let text = with_bystander(&model_rule("a", "{name: one}, {name: two, weight: 0}"), &more);
    let compiled = compile_clean(&text);
    assert_eq!(
        backend_of(&virtual_hosts(&compiled, 0)[0]["routes"][0]["route"]["cluster"]),
        "backend/default/one"
    );
}

#[test]
fn equal_backends_share_the_requests_by_weight() {
    let more =
        [backend("one", ""), backend("two", ""), key("one", "same-key"), key("two", "same-key")].concat();
    let rule = model_rule(
        "a",
        "{name: one, weight: 2147483647}, {name: two, weight: 2147483647}, {name: one, weight: 2147483647}",
    );
    let compiled = compile_clean(&with_bystander(&rule, &more));
    let clusters =
        virtual_hosts(&compiled, 0)[0]["routes"][0]["route"]["weighted_clusters"]["clusters"].clone();
    let weights: Vec<u64> = clusters
        .as_array()
        .expect("clusters")
        .iter()
        .map(|c| c["weight"].as_u64().expect("a number"))
        .collect();
    assert_eq!(weights, [2_147_483_647, 1_073_741_823], "scaled so that the sum fits 32 bits");
    assert!(weights.iter().sum::<u64>() <= u64::from(u32::MAX));
}

#[test]
fn no_weight_at_all() {
    refused(&model_rule("a", "{name: good, weight: 0}"), "", 500, &["no backend has a weight above zero"]);
    refused(&model_rule("a", ""), "", 500, &["no backend has a weight above zero"]);
}

#[test]
fn dangling_references() {
    refused(
        &model_rule("a", "{name: goood}"),
        "",
        404,
        &["there is no AIServiceBackend default/goood", "did you mean `good`?"],
    );
    let broken = backend("one", "").replace("backendRef: {name: one", "backendRef: {name: oen");
    refused(
        &model_rule("a", "{name: one}"),
        &broken,
        404,
        &["there is no Backend default/oen", "did you mean `one`?"],
    );
    let elsewhere = model_rule("a", "{name: one, namespace: other}");
    refused(
        &elsewhere,
        "",
        404,
        &["does not allow this reference", "add a ReferenceGrant to namespace `other`"],
    );
}

#[test]
fn credentials_that_are_not_there() {
    let policy =
        |edit: &dyn Fn(String) -> String| [backend("one", ""), edit(key("one", "live-key"))].concat();
    let rule = model_rule("a", "{name: one}");
    let no_secret = policy(&|text| text.replace("secretRef: {name: one-key}", "secretRef: {name: one-kye}"));
    refused(&rule, &no_secret, 404, &["there is no Secret default/one-kye", "did you mean `one-key`?"]);
    let no_key = policy(&|text| text.replace("{apiKey: live-key}", "{apikey: live-key}"));
    refused(&rule, &no_key, 404, &["the Secret has no key `apiKey`"]);
    let empty = policy(&|text| text.replace("live-key}", "' '}"));
    refused(&rule, &empty, 404, &["the API key is empty"]);
    let unsendable = policy(&|text| text.replace("live-key}", "\"a\\nb\"}"));
    refused(&rule, &unsendable, 404, &["cannot be sent in a header"]);
    let foreign = policy(&|text| {
        text.replace("secretRef: {name: one-key}", "secretRef: {name: one-key, namespace: vault}")
    });
    refused(&rule, &foreign, 404, &["the Secret is in namespace `vault`", "ReferenceGrant"]);
    let twice = [policy(&|text| text), key("one", "other").replace("one-key", "two-key")].concat();
    refused(
        &rule,
        &twice,
        404,
        &["BackendSecurityPolicy default/one-key and BackendSecurityPolicy default/two-key both target"],
    );
    let other_kind = policy(&|text| {
        text.replace("type: APIKey", "type: AWSCredentials").replace(
            "  apiKey: {secretRef: {name: one-key}}",
            "  awsCredentials: {region: here, credentialsFile: {secretRef: {name: one-key}}}",
        )
    });
    refused(&rule, &other_kind, 404, &["the Secret has no key `credentials`", "AWS credentials file"]);
}

#[test]
fn dialects_that_come_later() {
    let claude = backend("one", "").replace("{name: OpenAI}", "{name: AWSAnthropic}");
    refused(
        &model_rule("a", "{name: one}"),
        &claude,
        404,
        &["AWSAnthropic are not supported yet", "spec.schema.name"],
    );
    let azure = backend("one", "").replace("{name: OpenAI}", "{name: AzureOpenAI}");
    refused(&model_rule("a", "{name: one}"), &azure, 404, &["AzureOpenAI needs `version`"]);
}

#[test]
fn tls_that_cannot_be_set_up_is_never_left_out() {
    let policy = |validation: &str| {
        [
            &backend("one", ""),
            "---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTLSPolicy
metadata: {name: one}
spec:
  targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: one}]
  validation: {hostname: one.example.com, ",
            validation,
            "}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata: {other: x, ca.crt: not a certificate}\n",
        ]
        .concat()
    };
    let rule = model_rule("a", "{name: one}");
    let reference =
        |name: &str| policy(&format!("caCertificateRefs: [{{group: '', kind: ConfigMap, name: {name}}}]"));
    refused(&rule, &reference("cb"), 404, &["there is no ConfigMap default/cb"]);
    refused(&rule, &reference("ca"), 404, &["`ca.crt` of ConfigMap default/ca has no certificate"]);
    let mut options = options();
    options.ca_bundle = None;
    let compiled = compile_with(&with_bystander(&rule, &policy("wellKnownCACertificates: System")), &options);
    assert!(messages(&compiled).contains("no bundle of CA certificates"), "{}", messages(&compiled));
    assert!(!clusters(&compiled).iter().any(|cluster| backend_of(&cluster["name"]) == "backend/default/one"));
}

#[test]
fn a_broken_expression_takes_its_match_with_it() {
    let rule = "  - matches: [{headers: [{name: x-ai-eg-model, type: RegularExpression, value: 'a('}]}]\n    backendRefs: [{name: good}]\n";
    let compiled = compile_text(&with_bystander(rule, ""));
    assert!(messages(&compiled).contains("unclosed group"), "{}", messages(&compiled));
    assert_eq!(only_gateway(&compiled).hosts[0].matches.len(), 1);
    assert_eq!(only_gateway(&compiled).hosts[0].matches[0].rule, 1);
}

#[test]
fn warnings_for_what_will_disappoint() {
    let warned = |text: &str, words: &str| {
        let compiled = compile_text(text);
        assert!(messages(&compiled).contains(words), "`{words}` is not in\n{}", messages(&compiled));
        assert!(!compiled.diagnostics.has_errors());
    };
    let base = |more: &str| with_bystander(&model_rule("a", "{name: one}"), more);
    warned(&base(&backend("one", "").replace("8080", "443")), "port 443 without TLS");
    warned(&base(&[backend("one", ""), key("one", "OPENAI_API_KEY")].concat()), "looks like a placeholder");
    warned(
        &base(&backend("one", "").replace("{name: OpenAI}", "{name: OpenAI, version: openai/v1}")),
        "`version` has no meaning for OpenAI",
    );
    warned(
        &base(&backend("one", "")).replace("gatewayClassName: class", "gatewayClassName: clas"),
        "there is no GatewayClass `clas`",
    );
    warned(
        &base(&backend("one", ""))
            .replace("gateway.envoyproxy.io/gatewayclass-controller", "example.com/other"),
        "the controller of this class is `example.com/other`",
    );
}

#[test]
fn other_protocols_and_no_gateway_at_all() {
    let compiled = compile_text(&with_bystander("", "").replace("protocol: HTTP", "protocol: TLS"));
    assert!(
        messages(&compiled).contains("listeners of protocol TLS are not supported"),
        "{}",
        messages(&compiled)
    );
    assert!(!compiled.serves());
    let compiled = compile_text(&backend("one", ""));
    assert!(messages(&compiled).contains("there is no Gateway"), "{}", messages(&compiled));
    assert!(!compiled.serves());
}
