//! The providers' own SDKs, with good and bad credentials of every kind: `tests/python/test_tenants.py`.

use std::time::Duration;

use ai_gateway::keys::{Grant, NewKey};
use ai_gateway::keystore::Manager;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::sdk::pytest;

/// A route for two models in both dialects.
fn models(name: &str) -> String {
    let rule = |model: &str, backend: &str| {
        format!(
            "
    - matches: [{{headers: [{{name: x-ai-eg-model, value: \"{model}\"}}]}}]
      backendRefs: [{{name: {backend}}}]"
        )
    };
    let rules: String = [("m", "one"), ("n", "one"), ("claude-m", "claude"), ("claude-n", "claude")]
        .map(|(model, backend)| rule(model, backend))
        .concat();
    format!(
        "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {{name: {name}, namespace: default}}
spec:
  parentRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: test}}]
  rules:{rules}
---
"
    )
}

async fn start(backend: &Backend, policies: &str, keys: Option<&str>) -> Option<Gateway> {
    let resources = yaml::gateway("1Mi")
        + &yaml::backend("one", backend.addr)
        + &yaml::backend_of("Anthropic", "claude", backend.addr, "")
        + &models("protected")
        + policies;
    let mut setup = Setup::new().await?.yaml(resources);
    if let Some(store) = keys {
        setup = setup.arg("--keys").arg(store);
    }
    Some(setup.start().await)
}

const ALL: [&str; 4] = ["m", "n", "claude-m", "claude-n"];
const SOME: [&str; 2] = ["m", "claude-m"];
/// Acme may use everything, another tenant one model in each dialect.
const ACCESS: &str = "
  access:
    - {tenant: {organisation: acme}, models: ['*']}
    - {tenant: {organisation: other}, models: [m, claude-m]}
---
";

fn by_api_key(target: &str) -> String {
    let policies = keys(target).replace("[authorization, x-api-token]", "[authorization, x-api-key]");
    policies.split("  access:").next().unwrap_or_default().to_owned() + ACCESS
}

fn by_token(target: &str) -> String {
    format!(
        "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: tokens, namespace: default}}
spec:
  targetRefs: [{target}]
  jwt: {{providers: [{{name: idp, issuer: idp, audiences: [aigw], localJWKS: {{type: Inline, inline: '{}'}}}}]}}
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {{name: tenants, namespace: default}}
spec:
  targetRefs: [{target}]
  identity: {{jwt: {{organisation: org}}}}{ACCESS}",
        jwks()
    )
}

fn case(name: &str, credential: &str, model: &str, status: u16) -> Value {
    json!({ "name": name, "credential": credential, "model": model, "status": status })
}

/// One of those that nobody can tell apart.
fn bad(name: &str, credential: &str) -> Value {
    json!({ "name": name, "credential": credential, "status": 401, "alike": true })
}

/// The gateway's own keys.
async fn own_keys(folder: &tempfile::TempDir, backend: &Backend) -> Option<(Gateway, Value)> {
    let store = format!("file:{}", folder.path().join("keys.jsonl").display());
    let manager = Manager::new(crate::keys::open(&store));
    let make = async |grant: Value| {
        let grant: Grant = serde_json::from_value(grant).unwrap();
        manager.create(grant, SystemTime::now()).await.unwrap()
    };
    let text = |created: &ai_gateway::keystore::Created| created.key.expose_secret().to_owned();
    let good = make(json!({ "name": "good" })).await;
    let narrow = make(json!({ "name": "narrow", "models": ["m", "claude-m"] })).await;
    let expired = make(json!({ "name": "expired", "expires": "2026-01-01T00:00:00Z" })).await;
    let revoked = make(json!({ "name": "revoked" })).await;
    manager.revoke(revoked.record.id, SystemTime::now()).await.unwrap();
    let old = make(json!({ "name": "old" })).await;
    manager.rotate(old.record.id, Duration::ZERO, SystemTime::now()).await.unwrap();
    let unknown = NewKey::generate(&[9; 64]).text.expose_secret().to_owned();
    let gateway = start(backend, "", Some(&store)).await?;
    let show = text(&good);
    until("keys have come", async || status(&gateway, "m", &[("x-api-key", &show)]).await == 200).await;
    let cases = vec![
        case("right", &text(&good), "m", 200),
        case("unknown-model", &text(&good), "nothing", 404),
        case("narrow", &text(&narrow), "m", 200),
        case("model-of-another", &text(&narrow), "n", 403),
        case("mistyped", &show[..66], "m", 401),
        case("foreign", "sk-of-somebody-else", "m", 401),
        bad("wrong", &unknown),
        bad("revoked", &text(&revoked)),
        bad("expired", &text(&expired)),
        bad("rotated", &text(&old)),
    ];
    let lists = json!([[text(&good), ALL], [text(&narrow), SOME]]);
    let scene = json!({ "url": format!("http://{}", gateway.addr), "cases": cases, "lists": lists });
    Some((gateway, scene))
}

/// Keys in a Secret.
async fn policy_keys(backend: &Backend, target: &str) -> Option<(Gateway, Value)> {
    let gateway = start(backend, &by_api_key(target), None).await?;
    let of_gateway = target == ON_GATEWAY;
    let mut cases = vec![
        case("right", SECRETS[0], "n", 200),
        case("other-tenant", SECRETS[1], "m", 200),
        case("model-of-another", SECRETS[1], "n", 403),
        bad("wrong", "key-of-nobody"),
        bad("almost", &SECRETS[0][..15]),
    ];
    // A route's policy lets nobody tell a model that it protects from one that is not there.
    cases.push(case("unknown-model", SECRETS[0], "nothing", if of_gateway { 404 } else { 401 }));
    let lists =
        if of_gateway { json!([[SECRETS[0], ALL], [SECRETS[1], SOME]]) } else { json!([[SECRETS[0], []]]) };
    let scene = json!({ "url": format!("http://{}", gateway.addr), "cases": cases, "lists": lists });
    Some((gateway, scene))
}

/// Tokens of an issuer.
async fn policy_tokens(backend: &Backend, target: &str) -> Option<(Gateway, Value)> {
    let gateway = start(backend, &by_token(target), None).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let good = json!({ "iss": "idp", "aud": "aigw", "sub": "ann", "org": "acme", "exp": now + 600 });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        token(&claims)["Bearer ".len()..].to_owned()
    };
    let (acme, other) = (with("sub", json!("ann")), with("org", json!("other")));
    let mut forged = acme.clone();
    forged.replace_range(forged.len() - 3.., "AAA");
    let cases = vec![
        case("right", &acme, "n", 200),
        case("other-tenant", &other, "m", 200),
        case("model-of-another", &other, "n", 403),
        case("stranger", &with("org", json!("stranger")), "m", 403),
        bad("expired", &with("exp", json!(now - 600))),
        bad("not-yet", &with("nbf", json!(now + 600))),
        bad("audience", &with("aud", json!("other"))),
        bad("issuer", &with("iss", json!("evil"))),
        bad("forged", &forged),
        bad("no-token", "sk-of-somebody-else"),
    ];
    let lists = if target == ON_GATEWAY { json!([[acme, ALL], [other, SOME]]) } else { json!([[acme, []]]) };
    let scene = json!({ "url": format!("http://{}", gateway.addr), "cases": cases, "lists": lists });
    Some((gateway, scene))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_raise_what_they_have_for_each_refusal() {
    let backend = Backend::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let Some(own) = own_keys(&folder, &backend).await else { return };
    let mut gateways = vec![("keys", own)];
    for (name, target) in [("apiKeyAuth-gateway", ON_GATEWAY), ("apiKeyAuth-route", ON_ROUTE)] {
        let Some(found) = policy_keys(&backend, target).await else { return };
        gateways.push((name, found));
    }
    for (name, target) in [("jwt-gateway", ON_GATEWAY), ("jwt-route", ON_ROUTE)] {
        let Some(found) = policy_tokens(&backend, target).await else { return };
        gateways.push((name, found));
    }
    let scene: Value = gateways
        .iter()
        .map(|(name, (_, scene))| ((*name).to_owned(), scene.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let files = ["tests/python/test_tenants.py"];
    let Some(text) = pytest(&files, &[("AIGW_TENANTS", scene.to_string())]).await else { return };
    // A run that collects nothing is no proof.
    for case in [
        "keys-revoked-by_anthropic]",
        "apiKeyAuth-route-wrong-by_openai]",
        "jwt-gateway-audience-streamed_by_openai]",
    ] {
        assert!(text.contains(case), "{case} has not run");
    }
    for (_, (gateway, _)) in gateways {
        gateway.stop().await;
    }
}
