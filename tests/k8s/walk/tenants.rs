//! Who clients are on a cluster: Envoy verifies their tokens, and the processors go by what it has verified.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{BASIC, KIMI};
use crate::support::guide::Guide;
use crate::support::{isolated_with_envoy, until};

const GATEWAY: &str = "envoy-ai-gateway-basic";
const KEY: &[u8] = b"only the tests' issuer knows this";

#[test]
fn tokens_say_who_clients_are_with_envoy_gateway_1_8() {
    isolated_with_envoy(async |api, envoy| tokens(Guide::begin(api, envoy, "v1.8.1", &[]).await).await);
}

#[test]
fn tokens_say_who_clients_are_with_envoy_gateway_1_9() {
    isolated_with_envoy(async |api, envoy| tokens(Guide::begin(api, envoy, "v1.9.1", &[]).await).await);
}

async fn tokens(guide: Guide) {
    let entrance = guide.basic_and_kimi("sk-kimi").await;
    until("both models are served", async || entrance.serves(BASIC).await && entrance.serves(KIMI).await)
        .await;
    let api = &guide.cluster.api;
    api.apply(&[policy(), tenants()].map(|object| object.to_string()).join("\n---\n")).await;
    let status = async |model: &str, token: Option<&str>| {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> =
            bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        entrance.chat_with(model, &headers).await.status.as_u16()
    };
    let (acme, other) = (token(KEY, "acme"), token(KEY, "other"));
    // There are two processors, and whichever is asked has to know.
    let mut streak = 0;
    until("tokens count, and lists are closed", async || {
        let seen = [
            status(BASIC, Some(&acme)).await,
            status(KIMI, Some(&acme)).await,
            status(BASIC, Some(&other)).await,
            status(BASIC, None).await,
        ];
        streak = if seen == [200, 403, 403, 401] { streak + 1 } else { 0 };
        streak == 10
    })
    .await;
    guide.provider.take();
    let forged = token(b"another key that the issuer never had", "acme");
    assert_eq!(status(BASIC, Some(&forged)).await, 401);
    // What a client says of itself in headers is nobody's token.
    let payload = acme.split('.').nth(1).expect("a payload").to_owned();
    let bearer = format!("Bearer {other}");
    for name in ["x-jwt-payload", "x-ai-eg-tenant", "x-ai-eg-auth-0011"] {
        let headers = [("authorization", bearer.as_str()), (name, payload.as_str())];
        assert_eq!(entrance.chat_with(BASIC, &headers).await.status, 403, "{name}");
    }
    assert_eq!(guide.provider.take(), [], "nothing of it has reached the provider");
    let said = ["-n", "default", "get", "tenantpolicy", "tenants", "-o", "jsonpath={.status.conditions}"];
    until("the policy says that clients are known", async || {
        api.kubectl(&said).await.contains(r#""reason":"Resolved","status":"True","type":"IdentityResolved""#)
    })
    .await;

    // Names that go with keys are not handed on: the policy says so, and the lists stay closed.
    api.apply(&super::changes::api_key("tokens", "Gateway", GATEWAY)).await;
    until("the policy says that they are not", async || {
        api.kubectl(&said).await.contains("apiKeyAuth of SecurityPolicy default/tokens")
    })
    .await;
    until("who has a key is nobody", async || {
        let answer = entrance.chat_with(BASIC, &[("x-key", "open sesame")]).await;
        answer.status == 401 && answer.text().contains("invalid_api_key")
    })
    .await;
    until("an event tells", async || {
        api.kubectl(&["-n", "default", "get", "events.events.k8s.io", "-o", "json"])
            .await
            .contains("NotCarried")
    })
    .await;
}

fn policy() -> Value {
    let keys =
        json!({"keys": [{"kty": "oct", "kid": "1", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(KEY)}]});
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "tokens", "namespace": "default"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY}],
            "jwt": {"providers": [{
                "name": "issuer", "issuer": "https://issuer.example",
                "localJWKS": {"type": "Inline", "inline": keys.to_string()},
            }]},
        },
    })
}

fn tenants() -> Value {
    json!({
        "apiVersion": "ext.aigateway.envoyproxy.io/v1alpha1", "kind": "TenantPolicy",
        "metadata": {"name": "tenants", "namespace": "default"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY}],
            "identity": {"jwt": {"organisation": "realm.org", "key": "sub"}},
            "access": [{"tenant": {"organisation": "acme"}, "models": [BASIC]}],
        },
    })
}

fn token(key: &[u8], organisation: &str) -> String {
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({
        "iss": "https://issuer.example", "sub": "someone", "exp": 4_102_444_800_u64, "scope": "a b",
        "realm": {"org": organisation}, "groups": ["x", {"y": 1}],
    });
    let signed = format!("{}.{}", part(json!({"alg": "HS256", "typ": "JWT", "kid": "1"})), part(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())))
}
