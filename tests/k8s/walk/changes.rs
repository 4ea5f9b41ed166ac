//! What changes while a gateway is in use, and what must not be confused.

use serde_json::json;

use super::{BASIC, KIMI, NO_ROUTE};
use crate::support::guide::{Entrance, Guide, SYSTEM};
use crate::support::{isolated_with_envoy, until};

/// A route on a Gateway that leads a model to a backend.
fn route(name: &str, gateway: &str, model: &str, backend: &str) -> String {
    json!({
        "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIGatewayRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}],
            "rules": [{
                "matches": [{"headers": [{"name": "x-ai-eg-model", "value": model}]}],
                "backendRefs": [{"name": backend}],
            }],
        },
    })
    .to_string()
}

/// The backend of the guide's provider once more, with another key.
fn provider(name: &str, key: &str) -> String {
    let meta = json!({"name": name, "namespace": "default"});
    let documents = [
        json!({
            "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIServiceBackend", "metadata": meta,
            "spec": {"schema": {"name": "OpenAI"}, "backendRef": {
                "group": "gateway.envoyproxy.io", "kind": "Backend", "name": "envoy-ai-gateway-basic-openai",
            }},
        }),
        json!({
            "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "BackendSecurityPolicy", "metadata": meta,
            "spec": {
                "type": "APIKey", "apiKey": {"secretRef": {"name": name}},
                "targetRefs": [{"group": "aigateway.envoyproxy.io", "kind": "AIServiceBackend", "name": name}],
            },
        }),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"apiKey": key}}),
    ];
    documents.map(|document| document.to_string()).join("\n---\n")
}

/// A policy that asks for the key `open sesame` of the given target.
pub(super) fn api_key(name: &str, kind: &str, target: &str) -> String {
    let meta = json!({"name": name, "namespace": "default"});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"someone": "open sesame"},
    });
    let policy = json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "SecurityPolicy", "metadata": meta,
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": kind, "name": target}],
            "apiKeyAuth": {"credentialRefs": [{"name": name}], "extractFrom": [{"headers": ["x-key"]}]},
        },
    });
    format!("{secret}\n---\n{policy}")
}

const GATEWAY: &str = "envoy-ai-gateway-basic";

#[test]
fn routes_keys_and_gateways_come_change_and_go() {
    isolated_with_envoy(async |api, envoy| {
        let guide = Guide::begin(api, envoy, "v1.9.1", &[]).await;
        let entrance = guide.basic_and_kimi("sk-first").await;
        until("both models are served", async || entrance.serves(BASIC).await && entrance.serves(KIMI).await)
            .await;
        models(&guide, &entrance).await;
        rotation(&guide, &entrance).await;
        gateways(&guide, &entrance).await;
        protection(&guide, &entrance).await;
        nothing_is_left(&guide).await;
    });
}

/// A model is added, changed and removed; the others never notice.
async fn models(guide: &Guide, entrance: &Entrance) {
    let api = &guide.cluster.api;
    let backend = "envoy-ai-gateway-basic-openai";
    let undisturbed =
        async || assert_eq!(entrance.chat(BASIC).await.status, 200, "another model's change is felt");
    api.apply(&route("more", GATEWAY, "model-a", backend)).await;
    until("the model is added", async || {
        undisturbed().await;
        entrance.serves("model-a").await
    })
    .await;
    api.apply(&route("more", GATEWAY, "model-b", backend)).await;
    until("the model is changed", async || {
        undisturbed().await;
        entrance.serves("model-b").await && entrance.chat("model-a").await.status == 404
    })
    .await;
    api.kubectl(&["-n", "default", "delete", "aigatewayroute", "more", "--timeout=60s"]).await;
    until("the model is removed", async || {
        undisturbed().await;
        let answer = entrance.chat("model-b").await;
        answer.status == 404 && answer.text().contains(NO_ROUTE)
    })
    .await;
}

/// A Secret changes: the next requests carry the new key, and none fails or goes without.
async fn rotation(guide: &Guide, entrance: &Entrance) {
    let name = "envoy-ai-gateway-basic-openai-apikey";
    let patch = json!({"stringData": {"apiKey": "sk-second"}}).to_string();
    guide.provider.take();
    guide.cluster.api.kubectl(&["-n", "default", "patch", "secret", name, "-p", &patch]).await;
    guide.signs_with(entrance, "Bearer sk-second", "Bearer sk-first").await;
}

/// Two Gateways with the same (that is: any) hostname and model, and keys of their own; then one is deleted.
async fn gateways(guide: &Guide, entrance: &Entrance) {
    let api = &guide.cluster.api;
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "other", "namespace": "default"},
        "spec": {"gatewayClassName": GATEWAY, "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
    });
    api.apply(&gateway.to_string()).await;
    api.apply(&provider("other", "sk-other")).await;
    api.apply(&route("other", "other", KIMI, "other")).await;
    let other = guide.entrance("other").await;
    until("the other Gateway serves", async || other.serves(KIMI).await).await;
    guide.provider.take();
    for _ in 0..20 {
        for (entrance, key) in [(entrance, "Bearer sk-second"), (&other, "Bearer sk-other")] {
            assert_eq!(entrance.chat(KIMI).await.status, 200);
            let seen = guide.provider.take();
            assert!(seen.len() == 1 && seen[0].authorization == key, "{seen:?} instead of {key}");
        }
    }
    assert_eq!(other.chat(BASIC).await.status, 404, "that is a model of the first Gateway alone");

    let before = generated(guide).await;
    assert!(before.iter().any(|object| object.contains("aigw-other-")), "{before:?}");
    api.kubectl(&["-n", "default", "delete", "aigatewayroute/other", "gateway/other", "--timeout=60s"]).await;
    until("nothing of the other Gateway is left", async || {
        !generated(guide).await.iter().any(|object| object.contains("other"))
    })
    .await;
    assert_eq!(entrance.chat(KIMI).await.status, 200);
}

/// Of two routes one is protected: a policy of the route alone would be passed by, so its models are refused; one of the Gateway
/// protects both.
async fn protection(guide: &Guide, entrance: &Entrance) {
    let api = &guide.cluster.api;
    api.apply(&route("locked", GATEWAY, "locked-model", "envoy-ai-gateway-basic-openai")).await;
    until("the second route is served", async || entrance.serves("locked-model").await).await;
    api.apply(&api_key("lock", "HTTPRoute", "locked")).await;
    until("the route's models are refused", async || !entrance.serves("locked-model").await).await;
    until("the route says why", async || {
        let status =
            ["-n", "default", "get", "aigatewayroute", "locked", "-o", "jsonpath={.status.conditions}"];
        api.kubectl(&status).await.contains("SecurityPolicy")
    })
    .await;
    guide.provider.take();
    for headers in [&[][..], &[("x-key", "wrong")], &[("x-ai-eg-model", "locked-model")]] {
        let answer = entrance.chat_with("locked-model", headers).await;
        assert!(answer.status != 200, "served without a key: {}", answer.text());
    }
    assert_eq!(guide.provider.take(), [], "nothing of it has reached the provider");
    assert_eq!(entrance.chat(BASIC).await.status, 200, "the other route is served as before");

    api.kubectl(&["-n", "default", "delete", "securitypolicy/lock", "secret/lock"]).await;
    api.apply(&api_key("lock", "Gateway", GATEWAY)).await;
    until("everything asks for a key", async || {
        entrance.chat("locked-model").await.status == 401 && entrance.chat(BASIC).await.status == 401
    })
    .await;
    until("and serves those who have it", async || {
        let key = [("x-key", "open sesame")];
        entrance.chat_with("locked-model", &key).await.status == 200
            && entrance.chat_with(BASIC, &key).await.status == 200
    })
    .await;
}

async fn nothing_is_left(guide: &Guide) {
    let api = &guide.cluster.api;
    api.kubectl(&["-n", "default", "delete", "aigatewayroutes", "--all", "--timeout=60s"]).await;
    api.kubectl(&["-n", "default", "delete", "gateways", "--all", "--timeout=60s"]).await;
    until("nothing that was generated is left", async || generated(guide).await.is_empty()).await;
}

/// Everything that carries the controller's label, but for what belongs to its installation.
async fn generated(guide: &Guide) -> Vec<String> {
    const KINDS: &str = "httproutes.gateway.networking.k8s.io,referencegrants.gateway.networking.k8s.io,\
        envoyextensionpolicies.gateway.envoyproxy.io,httproutefilters.gateway.envoyproxy.io,\
        clienttrafficpolicies.gateway.envoyproxy.io,backendtrafficpolicies.gateway.envoyproxy.io,services";
    let label = "app.kubernetes.io/managed-by=envoy-ai-gateway";
    let columns = "custom-columns=:.kind,:.metadata.namespace,:.metadata.name,:.metadata.labels";
    let list = ["get", KINDS, "-A", "-l", label, "--no-headers", "-o", columns];
    let text = guide.cluster.api.kubectl(&list).await;
    assert!(
        !text.contains("ai-gateway-controller"),
        "{SYSTEM}'s own Service carries the label of what is pruned"
    );
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}
