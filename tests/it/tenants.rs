//! Who may use what, through a real Envoy: two routes of which one is protected, each way in.

mod gateways;
mod outputs;
mod sdks;
mod smuggling;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};
use ring::{digest, hmac};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::backend::{Backend, header};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{get, post};
use crate::support::provider::{Provider, answer};
use crate::support::{spawn, until, yaml};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/anthropic/v1/messages";
pub(crate) const SECRETS: [&str; 4] =
    ["key-of-acme-1b7f", "key-of-other-77aa", "password-of-ann", "key-of-the-provider"];
const ON_GATEWAY: &str = "{group: gateway.networking.k8s.io, kind: Gateway, name: test}";
pub(crate) const ON_ROUTE: &str = "{group: aigateway.envoyproxy.io, kind: AIGatewayRoute, name: protected}";
const ON_HTTP_ROUTE: &str = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: protected}";

fn body(model: &str) -> String {
    json!({ "model": model, "max_tokens": 5, "messages": [{ "role": "user", "content": "Hi." }] }).to_string()
}

fn route(name: &str, model: &str) -> String {
    format!(
        "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {{name: {name}, namespace: default}}
spec:
  parentRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: test}}]
  rules:
    - matches: [{{headers: [{{name: x-ai-eg-model, value: {model}}}]}}]
      backendRefs: [{{name: one}}]
---
"
    )
}

/// Two routes, for the models `free` and `paid`, and what these lines say of them.
fn resources(backend: &Backend, policies: &str) -> String {
    resources_at(backend.addr, policies)
}

fn resources_at(backend: SocketAddr, policies: &str) -> String {
    yaml::gateway("50Mi")
        + &yaml::backend("one", backend)
        + &yaml::api_key("one", SECRETS[3])
        + &route("open", "free")
        + &route("protected", "paid")
        + policies
}

async fn gateway(backend: &Backend, policies: &str) -> Option<Gateway> {
    let setup = Setup::new().await?.yaml(resources(backend, policies));
    Some(setup.arg("--log-level").arg("debug").start().await)
}

pub(crate) fn keys(target: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: clients, namespace: default}}
stringData: {{acme.research.ci: {}, other.web.app: {}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: keys, namespace: default}}
spec:
  targetRefs: [{target}]
  apiKeyAuth:
    credentialRefs: [{{name: clients}}]
    extractFrom: [{{headers: [authorization, x-api-token]}}]
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {{name: tenants, namespace: default}}
spec:
  targetRefs: [{target}]
  identity: {{apiKey: {{pattern: '{{organisation}}.{{team}}.{{key}}'}}}}
  access:
    - {{tenant: {{organisation: acme}}, models: [paid, free]}}
    - {{tenant: {{organisation: other}}, models: [free]}}
---
",
        SECRETS[0], SECRETS[1]
    )
}

async fn status(gateway: &Gateway, model: &str, headers: &[(&str, &str)]) -> u16 {
    gateway.peer().send(post(CHAT, headers, body(model))).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_route_protects_its_models_whatever_route_a_request_first_matched() {
    for target in [ON_ROUTE, ON_HTTP_ROUTE] {
        let backend = Backend::start(&[]).await;
        let Some(gateway) = gateway(&backend, &keys(target)).await else { return };
        let acme = format!("Bearer {}", SECRETS[0]);
        assert_eq!(status(&gateway, "free", &[]).await, 200);
        assert_eq!(backend.counters().requests, 1);
        for refused in [
            vec![],
            vec![("authorization", "Bearer wrong")],
            vec![("authorization", "")],
            vec![("x-client", "acme.research.ci"), ("x-ai-eg-auth-", "acme"), ("X-Ai-Eg-Model", "free")],
            vec![("x-ai-eg-model", "free"), ("x-ai-eg-model", "paid"), ("x-ai-eg-route", "1")],
            vec![("x-ai-eg-tenant", "acme\tresearch"), ("authorization", "Bearer\tkey-of-acme-1b7f")],
        ] {
            assert_eq!(status(&gateway, "paid", &refused).await, 401, "{refused:?}");
        }
        // Another tenant's key opens the door, and not this model.
        let other = format!("Bearer {}", SECRETS[1]);
        assert_eq!(status(&gateway, "paid", &[("authorization", &other)]).await, 403);
        assert_eq!(backend.counters().requests, 1, "a refused request reached the provider");

        assert_eq!(status(&gateway, "paid", &[("authorization", &acme)]).await, 200);
        assert_eq!(status(&gateway, "paid", &[("x-api-token", SECRETS[0])]).await, 200);
        let seen = backend.last();
        assert_eq!(header(&seen, "authorization"), [format!("Bearer {}", SECRETS[3])]);
        assert_eq!(header(&seen, "x-api-token"), [""; 0]);
        let sent = format!("{seen:?}");
        assert!(!sent.contains("x-ai-eg-auth-") && !sent.contains(SECRETS[0]), "{sent}");

        // Without proof, only what is open to everybody is listed.
        for headers in [&[][..], &[("authorization", acme.as_str())]] {
            let mut request = get("/v1/models");
            for (name, value) in headers {
                request
                    .headers_mut()
                    .insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
            let listed = gateway.peer().send(request).await.json();
            assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
            assert_eq!(listed["data"][0]["id"], "free");
        }
        told(&gateway, "tenant=acme/research/ci").await;
        no_secrets(&gateway).await;
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_gateway_asks_before_anything_is_read_and_shows_tenants_their_own() {
    let backend = Backend::start(&[]).await;
    let Some(gateway) = gateway(&backend, &keys(ON_GATEWAY)).await else { return };
    let (acme, other) = (format!("Bearer {}", SECRETS[0]), format!("Bearer {}", SECRETS[1]));
    for path in [CHAT, "/v1/models", "/nowhere"] {
        assert_eq!(gateway.peer().send(post(path, &[], body("free"))).await.status, 401, "{path}");
    }
    let wrong = gateway.peer().send(post(CHAT, &[("authorization", "Bearer x")], body("free"))).await;
    let none = gateway.peer().send(post(CHAT, &[], body("free"))).await;
    assert_eq!((wrong.status, wrong.text()), (StatusCode::UNAUTHORIZED, none.text()));
    assert_eq!(none.json()["error"]["code"], "invalid_api_key");
    let anthropic = gateway.peer().send(post(MESSAGES, &[], body("free"))).await.json();
    assert_eq!(
        (&anthropic["type"], &anthropic["error"]["type"]),
        (&"error".into(), &"authentication_error".into())
    );
    let cohere = gateway.peer().send(post("/cohere/v2/rerank", &[], body("free"))).await.json();
    assert!(cohere["message"].is_string(), "{cohere}");

    for (key, model, wanted) in
        [(&acme, "paid", 200), (&acme, "free", 200), (&other, "free", 200), (&other, "paid", 403)]
    {
        assert_eq!(status(&gateway, model, &[("authorization", key)]).await, wanted, "{model}");
    }
    // Whether there is such a model is nobody's business who may not use it.
    let refused =
        async |model| gateway.peer().send(post(CHAT, &[("authorization", &other)], body(model))).await.text();
    assert_eq!(refused("paid").await, refused("there-is-none").await);
    for (key, wanted) in [(&acme, vec!["free", "paid"]), (&other, vec!["free"])] {
        for path in ["/v1/models", "/anthropic/v1/models"] {
            let mut request = get(path);
            request.headers_mut().insert("authorization", key.parse().unwrap());
            let listed = gateway.peer().send(request).await.json();
            let mut ids: Vec<_> = listed["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|model| model["id"].as_str().unwrap())
                .collect();
            ids.sort_unstable();
            assert_eq!(ids, wanted, "{path}");
        }
    }
    no_secrets(&gateway).await;
    gateway.stop().await;
}

const KEY: &[u8] = b"a key that only this test's issuer has";

fn jwks() -> Value {
    json!({ "keys": [{ "kty": "oct", "kid": "1", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(KEY) }] })
}

fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT", "kid": "1" })), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), signed.as_bytes());
    format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_have_to_be_good_in_every_respect() {
    let jwks = jwks();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for target in [ON_ROUTE, ON_GATEWAY] {
        let backend = Backend::start(&[]).await;
        let policies = format!(
            "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: tokens, namespace: default}}
spec:
  targetRefs: [{target}]
  jwt:
    providers:
      - name: idp
        issuer: https://idp.example
        audiences: [aigw]
        localJWKS: {{type: Inline, inline: '{jwks}'}}
        claimToHeaders: [{{claim: sub, header: x-user}}]
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {{name: tenants, namespace: default}}
spec:
  targetRefs: [{target}]
  identity: {{jwt: {{organisation: org.name, key: sub}}}}
  access: [{{tenant: {{organisation: acme}}, models: ['*']}}]
---
"
        );
        let Some(gateway) = gateway(&backend, &policies).await else { return };
        let good = json!({ "iss": "https://idp.example", "aud": "aigw", "sub": "ann", "org": { "name": "acme" }, "exp": now + 600 });
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            token(&claims)
        };
        let mut forged = token(&good);
        forged.replace_range(forged.len() - 3.., "AAA");
        for (why, bad, wanted) in [
            ("expired", with("exp", json!(now - 600)), 401),
            ("another audience", with("aud", json!("other")), 401),
            ("another issuer", with("iss", json!("https://evil.example")), 401),
            ("forged", forged, 401),
            ("another tenant", with("org", json!({ "name": "other" })), 403),
        ] {
            let answer = gateway.peer().send(post(CHAT, &[("authorization", &bad)], body("paid"))).await;
            assert_eq!(answer.status, wanted, "{why} {target}: {}", answer.text());
        }
        assert_eq!(status(&gateway, "paid", &[]).await, 401);
        assert_eq!(backend.counters().requests, 0);
        let headers = [("authorization", &*token(&good)), ("x-user", "forged")];
        assert_eq!(status(&gateway, "paid", &headers).await, 200, "{target}");
        assert_eq!(header(&backend.last(), "x-user"), ["ann"]);
        told(&gateway, "tenant=acme/-/ann").await;
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_prove_themselves_by_password() {
    let backend = Backend::start(&[]).await;
    let hash = STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, SECRETS[2].as_bytes()));
    let policies = format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: users, namespace: default}}
stringData: {{.htpasswd: 'ann:{{SHA}}{hash}'}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: users, namespace: default}}
spec:
  targetRefs: [{ON_ROUTE}]
  basicAuth: {{users: {{name: users}}, forwardUsernameHeader: x-user}}
---
"
    );
    let Some(gateway) = gateway(&backend, &policies).await else { return };
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    for bad in ["ann:wrong", "bob:password-of-ann", ""] {
        assert_eq!(status(&gateway, "paid", &[("authorization", &basic(bad))]).await, 401, "{bad}");
    }
    let good = basic(&format!("ann:{}", SECRETS[2]));
    assert_eq!(status(&gateway, "paid", &[("authorization", &good), ("x-user", "bob")]).await, 200);
    assert_eq!(header(&backend.last(), "x-user"), ["ann"]);
    assert_eq!(status(&gateway, "free", &[("x-user", "bob")]).await, 200);
    assert_eq!(header(&backend.last(), "x-user"), [""; 0]);
    no_secrets(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_be_served_closes_what_it_is_for() {
    let backend = Backend::start(&[]).await;
    let broken =
        keys(ON_ROUTE).replace("credentialRefs: [{name: clients}]", "credentialRefs: [{name: misspelt}]");
    let Some(gateway) = gateway(&backend, &broken).await else { return };
    assert_eq!(status(&gateway, "free", &[]).await, 200);
    let key = format!("Bearer {}", SECRETS[0]);
    // Nobody can prove anything, and those who do not are not on the list of the TenantPolicy.
    assert_eq!(status(&gateway, "paid", &[("authorization", &key)]).await, 401);
    assert_eq!(backend.counters().requests, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuers_keys_are_fetched() {
    let backend = Backend::start(&[]).await;
    let jwks = jwks().to_string();
    let issuer = Provider::start(move |_| {
        let answer = answer(200, &jwks);
        async move { answer }
    })
    .await;
    let policies = format!(
        "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: tokens, namespace: default}}
spec:
  targetRefs: [{ON_ROUTE}]
  jwt: {{optional: true, providers: [{{name: idp, issuer: idp, audiences: [aigw], remoteJWKS: {{uri: 'http://{}/jwks.json'}}}}]}}
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {{name: tenants, namespace: default}}
spec:
  targetRefs: [{ON_HTTP_ROUTE}]
  access: [{{tenant: {{key: ann}}, models: ['*']}}]
---
",
        issuer.addr
    );
    let Some(gateway) = gateway(&backend, &policies).await else { return };
    let good = token(&json!({ "iss": "idp", "aud": "aigw", "sub": "ann" }));
    // Envoy fetches them beside its start.
    until("the keys are there", async || status(&gateway, "paid", &[("authorization", &good)]).await == 200)
        .await;
    assert!(!issuer.seen().is_empty());
    let of_another = token(&json!({ "iss": "idp", "aud": "aigw", "sub": "bob" }));
    assert_eq!(status(&gateway, "paid", &[("authorization", &of_another)]).await, 403);
    // The token is optional, but the list names nobody without.
    assert_eq!(status(&gateway, "paid", &[]).await, 401);
    assert_eq!(status(&gateway, "paid", &[("authorization", "Bearer no-token")]).await, 401);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_attempt_knows_who_was_let_in_and_a_clients_key_reaches_no_backend() {
    let (one, two) = (Backend::start(&["--status", "503"]).await, Backend::start(&[]).await);
    let resources = yaml::gateway("1Mi")
        + &yaml::backend("one", one.addr)
        + &yaml::backend("two", two.addr)
        + &yaml::api_key("one", "key-of-one")
        + &yaml::api_key("two", "key-of-two")
        + &yaml::shared_rule("{name: one}, {name: two, priority: 1}", "")
        + &yaml::retries("{numRetries: 3, numAttemptsPerPriority: 1}", "")
        + &keys(ON_HTTP_ROUTE.replace("protected", "test").as_str()).replace("[paid, free]", "[m]");
    let Some(setup) = Setup::new().await else { return };
    let gateway = setup.yaml(resources).start().await;
    let acme = [("x-api-token", SECRETS[0])];
    let answer = gateway.peer().send(post(CHAT, &acme, body("m"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(gateway.peer().send(post(CHAT, &[], body("m"))).await.status, 401);
    for backend in [&one, &two] {
        assert!(backend.counters().requests >= 1);
        for seen in backend.all() {
            let sent = format!("{seen:?}");
            assert!(!sent.contains("x-ai-eg-auth-") && !sent.contains(SECRETS[0]), "{sent}");
        }
    }
    told(&gateway, "tenant=acme/research/ci").await;
    gateway.stop().await;
}

/// An HTTPS listener that checks certificates, and a policy that lets in one organisation.
fn with_certificates(
    backend: &Backend,
    server: (&rcgen::Certificate, &KeyPair),
    authority: &rcgen::Certificate,
) -> String {
    yaml::gateway("1Mi").replace(
        "port: 80}]",
        "port: 80}, {name: https, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: server}]}}]",
    ) + &yaml::backend("one", backend.addr)
        + &yaml::route(&[("m", "one")], "")
        + &format!(
            "
apiVersion: v1
kind: Secret
metadata: {{name: server}}
stringData: {{tls.crt: {:?}, tls.key: {:?}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: authority}}
data: {{ca.crt: {:?}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: certificates, namespace: default}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: test, sectionName: https}}]
  tls: {{clientValidation: {{optional: true, caCertificateRefs: [{{kind: ConfigMap, group: '', name: authority}}]}}}}
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {{name: tenants, namespace: default}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: test, sectionName: https}}]
  access: [{{tenant: {{organisation: acme}}, models: [m]}}]
---
",
            server.0.pem(),
            server.1.serialize_pem(),
            authority.pem()
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_prove_themselves_by_certificate() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let named = |organisation: &str, uri: Option<&str>| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["gateway.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.distinguished_name.push(DnType::CommonName, "ci");
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let signed = |organisation: &str| named(organisation, None);
    let (server, server_key) = signed("us");
    let resources = with_certificates(&backend, (&server, &server_key), &authority);
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let ask = async |address: SocketAddr, shown: Option<(rcgen::Certificate, KeyPair)>| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots.clone());
        let config = match shown {
            Some((certificate, key)) => config
                .with_client_auth_cert(
                    vec![certificate.der().clone()],
                    PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
                )
                .unwrap(),
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from("gateway.example").unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.ok()?;
        let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.ok()?;
        spawn(connection);
        let forged = [
            ("x-ai-eg-auth-0", "O=acme"),
            ("x-forwarded-client-cert", "Subject=\"O=acme\";URI=spiffe://acme/ns/research/sa/ci"),
        ];
        let response = sender.send_request(post(CHAT, &forged, body("m"))).await.ok()?;
        Some(response.status().as_u16())
    };
    let gateway = setup.yaml(&resources).arg("--listen").arg("https=0").start().await;
    let address = gateway.listener("https");
    assert_eq!(ask(address, Some(signed("acme"))).await, Some(200));
    assert_eq!(ask(address, Some(signed("other"))).await, Some(403));
    assert_eq!(ask(address, None).await, Some(401));
    let stranger = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["acme".to_owned()]).unwrap().self_signed(&stranger).unwrap();
    assert_eq!(ask(address, Some((own, stranger))).await, None);
    assert_eq!(backend.counters().requests, 1);
    told(&gateway, "tenant=acme/-/ci").await;
    gateway.stop().await;

    // The same, by the URI that a certificate names; its subject says nothing then.
    let pattern = "identity: {clientCertificateURI: {pattern: 'spiffe://{organisation}/ns/{team}/sa/{key}'}}\n  access:";
    let resources = resources.replace("access:", pattern);
    let Some(setup) = Setup::new().await else { return };
    let gateway = setup.yaml(&resources).arg("--listen").arg("https=0").start().await;
    let address = gateway.listener("https");
    let of = |uri| Some(named("acme", uri));
    assert_eq!(ask(address, of(Some("spiffe://acme/ns/research/sa/ci"))).await, Some(200));
    assert_eq!(ask(address, of(Some("spiffe://other/ns/research/sa/ci"))).await, Some(403));
    assert_eq!(ask(address, of(Some("spiffe://x,spiffe://acme/ns/research/sa/ci"))).await, Some(401));
    assert_eq!(ask(address, of(None)).await, Some(401));
    told(&gateway, "tenant=acme/research/ci").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_be_read_closes_its_namespace() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let resources = yaml::gateway("1Mi")
        + &yaml::backend("one", backend.addr)
        + &yaml::route(&[("free", "one")], "")
        + &keys(ON_ROUTE).replace("apiKeyAuth:", "apiKeysAuth:");
    let output = setup.yaml(resources).output().await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("a SecurityPolicy cannot be read: until it is mended"), "{told}");
    assert!(told.contains("did you mean `apiKeyAuth`?") && told.contains("nothing to serve"), "{told}");
}

/// Waits for a line of the log: exchanges are told of after their end.
async fn told(gateway: &Gateway, text: &str) {
    until(text, async || gateway.lines().iter().any(|line| line.contains(text))).await;
}

/// Nothing that is written or shown holds what clients prove themselves with.
async fn no_secrets(gateway: &Gateway) {
    let lines = gateway.lines();
    let line = lines.iter().find(|line| line.contains("/metrics")).expect("the address of the metrics");
    let port = line.rsplit_once(':').unwrap().1.split('/').next().unwrap();
    let admin = crate::support::http::Peer::Tcp(format!("127.0.0.1:{port}").parse().unwrap());
    let mut shown = lines.join("\n");
    for path in ["/metrics", "/config"] {
        shown += &admin.send(get(path)).await.text();
    }
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}
