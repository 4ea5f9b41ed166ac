//! Keys through a real Envoy: two gateways, one store.

use std::collections::BTreeMap;
use std::time::Instant;

use ai_gateway::keys::NewKey;
use ai_gateway::keystore::{Created, Manager};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{create, now, open};
use crate::support::backend::{Backend, header};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{Answer, Peer, get, post};
use crate::support::redis::Redis;
use crate::support::{until, yaml};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/anthropic/v1/messages";

async fn start(backend: &Backend, store: &str, more: &[&str]) -> Option<Gateway> {
    let models = [("good", "b"), ("other", "b")];
    let resources = [
        yaml::gateway("1Mi"),
        yaml::backend("b", backend.addr),
        yaml::api_key("b", "sk-provider"),
        yaml::route(&models, ""),
    ];
    let mut setup = Setup::new().await?.yaml(resources.concat()).arg("--keys").arg(store);
    for argument in more {
        setup = setup.arg(argument);
    }
    Some(setup.start().await)
}

async fn ask(gateway: &Gateway, path: &str, model: &str, headers: &[(&str, &str)]) -> Answer {
    let body =
        format!(r#"{{"model":"{model}","max_tokens":5,"messages":[{{"role":"user","content":"Hi"}}]}}"#);
    gateway.peer().send(post(path, headers, body)).await
}

async fn status(gateway: &Gateway, key: &str) -> u16 {
    ask(gateway, CHAT, "good", &[("authorization", &format!("Bearer {key}"))]).await.status.as_u16()
}

/// Where a gateway serves /metrics and /config.
fn admin(gateway: &Gateway) -> Peer {
    let lines = gateway.lines();
    let line = lines.iter().find(|line| line.contains("/metrics")).expect("it says where");
    let at = line.split_once("http://").expect("a URL").1.split('/').next().expect("an address");
    Peer::Tcp(at.replace("localhost", "127.0.0.1").parse().expect("an address"))
}

/// Two gateways, one store, one provider, and keys of all kinds.
struct Scene {
    redis: Redis,
    backend: Backend,
    first: Gateway,
    second: Gateway,
    manager: Manager,
    keys: BTreeMap<&'static str, Created>,
}

impl Scene {
    async fn new() -> Option<Self> {
        let redis = Redis::start().await?;
        let backend = Backend::start(&[]).await;
        let url = redis.url();
        let first = start(&backend, &url, &["--log-level", "debug"]).await?;
        let second = start(&backend, &url, &[]).await?;
        let manager = Manager::new(open(&url));
        let mut keys = BTreeMap::new();
        for (name, restriction) in [
            ("good", json!({})),
            ("narrow", json!({"models": ["goo*"]})),
            ("local", json!({"sources": ["127.0.0.0/8"]})),
            ("expired", json!({"expires": "2026-01-01T00:00:00Z"})),
            ("revoked", json!({})),
            ("elsewhere", json!({"sources": ["10.0.0.0/8"]})),
        ] {
            let mut grant = restriction;
            grant["name"] = name.into();
            grant["organisation"] = "acme".into();
            let grant = serde_json::from_value(grant).unwrap();
            keys.insert(name, manager.create(grant, now()).await.unwrap());
        }
        manager.revoke(keys["revoked"].record.id, now()).await.unwrap();
        let scene = Self { redis, backend, first, second, manager, keys };
        // The last one that was made.
        for gateway in [&scene.first, &scene.second] {
            until("keys have come", async || status(gateway, scene.key("elsewhere")).await == 403).await;
        }
        Some(scene)
    }

    fn key(&self, name: &str) -> &str {
        self.keys[name].key.expose_secret()
    }
}

/// One of the right form that no store has.
fn unknown() -> String {
    NewKey::generate(&[9; 64]).text.expose_secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_key_is_let_in_and_nobody_else_and_nothing_tells_a_key() {
    let Some(scene) = Scene::new().await else { return };
    keys_end_at_the_gateway(&scene).await;
    let before = scene.backend.all().len();
    keys_that_are_not_valid_get_one_answer(&scene).await;
    what_shows_no_single_key_is_refused(&scene).await;
    assert_eq!(scene.backend.all().len(), before, "nothing that is refused reaches the provider");
    models_and_networks_count(&scene).await;
    each_sees_its_own(&scene).await;
    revocations_are_live(&scene).await;
    no_key_is_told(&scene).await;
    for gateway in [scene.first, scene.second] {
        gateway.stop().await;
    }
}

/// As each SDK shows it; the provider gets its own key and nothing of the client's.
async fn keys_end_at_the_gateway(scene: &Scene) {
    let (Scene { backend, first, .. }, key) = (scene, scene.key("good"));
    let bearer = format!("Bearer {key}");
    for shown in [("authorization", &*bearer), ("x-api-key", key), ("api-key", key)] {
        assert_eq!(ask(first, CHAT, "good", &[shown]).await.status, 200, "{}", shown.0);
        let seen = backend.last();
        assert_eq!(header(&seen, "authorization"), ["Bearer sk-provider"]);
        assert!(!format!("{:?}", seen.headers).contains("aigw-"), "{:?}", seen.headers);
    }
}

/// To the byte, whatever is wrong with them.
async fn keys_that_are_not_valid_get_one_answer(scene: &Scene) {
    for path in [CHAT, MESSAGES] {
        let mut answers = Vec::new();
        for key in [&unknown(), scene.key("revoked"), scene.key("expired")] {
            let answer = ask(&scene.first, path, "good", &[("x-api-key", key)]).await;
            assert_eq!(answer.status, 401);
            let mut headers: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
            headers.sort();
            answers.push((answer.body.clone(), headers));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        let body: Value = serde_json::from_slice(&answers[0].0).unwrap();
        assert_eq!(body["error"]["type"], "authentication_error", "{body}");
    }
}

async fn what_shows_no_single_key_is_refused(scene: &Scene) {
    let good = scene.key("good");
    let mistyped = ask(&scene.first, CHAT, "good", &[("x-api-key", &good[..66])]).await;
    assert!(mistyped.status == 401 && mistyped.text().contains("mistyped"), "{}", mistyped.text());
    let bearer = format!("Bearer {good}");
    for headers in [
        &[][..],
        &[("authorization", "Bearer sk-123")],
        &[("x-ai-eg-tenant", "acme")],
        &[("authorization", good)],
        &[("authorization", &bearer), ("authorization", "Bearer x")],
        &[("x-api-key", good), ("x-api-key", "x")],
        &[("x-forwarded-api-key", good)],
        &[("proxy-authorization", &bearer)],
    ] {
        let answer = ask(&scene.first, CHAT, "good", headers).await;
        let names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
        assert_eq!(answer.status, 401, "{names:?}");
    }
}

/// Whatever the client says of itself.
async fn models_and_networks_count(scene: &Scene) {
    let first = &scene.first;
    assert_eq!(ask(first, CHAT, "good", &[("x-api-key", scene.key("narrow"))]).await.status, 200);
    for model in ["other", "not-there"] {
        let refused = ask(first, CHAT, model, &[("x-api-key", scene.key("narrow"))]).await;
        assert_eq!(refused.status, 403, "{}", refused.text());
    }
    assert_eq!(ask(first, CHAT, "good", &[("x-api-key", scene.key("local"))]).await.status, 200);
    let spoofed = [
        ("x-api-key", scene.key("elsewhere")),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-envoy-external-address", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
    ];
    assert_eq!(ask(first, CHAT, "good", &spoofed).await.status, 403);
}

async fn each_sees_its_own(scene: &Scene) {
    let list = async |key: &str| {
        let mut request = get("/v1/models");
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        scene.first.peer().send(request).await
    };
    let names = |answer: &Answer| {
        let data = answer.json()["data"].as_array().cloned().unwrap_or_default();
        data.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&list(scene.key("good")).await), ["good", "other"]);
    assert_eq!(names(&list(scene.key("narrow")).await), ["good"]);
    assert_eq!(list(&unknown()).await.status, 401);
}

async fn revocations_are_live(scene: &Scene) {
    let Scene { first, second, manager, .. } = scene;
    let key = scene.key("good");
    assert_eq!(status(second, key).await, 200);
    manager.revoke(scene.keys["good"].record.id, now()).await.unwrap();
    let since = Instant::now();
    until("it is refused by both", async || {
        status(first, key).await == 401 && status(second, key).await == 401
    })
    .await;
    println!("refused by both gateways, through Envoy, after {:?}", since.elapsed());
}

/// What each gateway wrote and serves, and the store.
async fn no_key_is_told(scene: &Scene) {
    let Scene { redis, first, second, .. } = scene;
    // Why a key was refused is the operator's to know.
    until("refusals are in the log", async || {
        let lines = first.lines().join("\n");
        ["key_unknown", "key_revoked", "key_expired"].iter().all(|reason| lines.contains(reason))
    })
    .await;
    let mut told = [first.lines(), second.lines()].concat();
    for path in ["/metrics", "/config", "/health"] {
        told.push(admin(first).send(get(path)).await.text());
    }
    told.push(redis.command(&["--raw", "HGETALL", "{aigw-keys}:records"]));
    assert!(told.iter().any(|text| text.contains(scene.keys["good"].record.id.as_str())));
    let keys = scene.keys.values().map(|key| key.key.expose_secret().to_owned());
    for key in keys.chain([unknown()]) {
        let secret = &key[18..];
        for text in &told {
            assert!(!text.contains(secret) && !text.contains(&secret[..16]), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_known_keys_serve_for_a_while_and_then_nobody_is_let_in() {
    let Some(mut redis) = Redis::start().await else { return };
    let backend = Backend::start(&[]).await;
    let key = create(&Manager::new(open(&redis.url())), "k").await;
    let key = key.key.expose_secret();
    let Some(gateway) = start(&backend, &redis.url(), &["--keys-stale-after", "5s"]).await else { return };
    until("keys have come", async || status(&gateway, key).await == 200).await;
    redis.kill();
    let since = Instant::now();
    let mut served = 0_u32;
    // It is served until it is not, and from then on not any more.
    until("nobody is let in", async || {
        let status = status(&gateway, key).await;
        assert!(status == 200 || status == 503, "{status}");
        served += u32::from(status == 200);
        status == 503
    })
    .await;
    let health = admin(&gateway).send(get("/health")).await;
    assert_eq!(health.status, 200, "other clients may be served");
    assert!(health.text().contains("nobody with a key is let in any more"), "{}", health.text());
    println!("served {served} requests without the store, and none after {:?}", since.elapsed());
    assert!(served > 0);
    assert_eq!(status(&gateway, key).await, 503);
    let anthropic = ask(&gateway, MESSAGES, "good", &[("x-api-key", key)]).await;
    assert_eq!((anthropic.status.as_u16(), &anthropic.json()["type"]), (503, &Value::from("error")));
    redis.run().await;
    until("the store is heard of again", async || status(&gateway, key).await == 200).await;
    let health = admin(&gateway).send(get("/health")).await.text();
    assert!(health.contains("1 keys are in step with their store"), "{health}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_managed_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::start(&[]).await;
    let store = format!("file:{}", folder.path().join("keys.jsonl").display());
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let socket = folder.path().join("admin.sock");
    let listen = format!("unix://{}", socket.display());
    let more = ["--key-admin", &listen, "--key-admin-token-file", token.to_str().unwrap()];
    let Some(gateway) = start(&backend, &store, &more).await else { return };
    let admin = Peer::Unix(socket);
    let call = async |path: &str, body: &str| {
        let token = ("authorization", "Bearer 0123456789abcdef0123456789abcdef");
        admin.send(post(path, &[token], body.to_owned())).await
    };
    assert_eq!(admin.send(post("/v1/keys", &[], r#"{"name":"n"}"#)).await.status, 401);
    let made = call("/v1/keys", r#"{"name":"n"}"#).await.json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    until("the key is good", async || status(&gateway, key).await == 200).await;
    assert_eq!(call(&format!("/v1/keys/{id}/revoke"), "").await.status, 200);
    until("the key is refused", async || status(&gateway, key).await == 401).await;
    until("changes are in the log", async || {
        let audited = |line: &&String| line.contains("aigw::audit") && line.contains(id);
        gateway.lines().iter().filter(audited).count() == 2
    })
    .await;
    assert!(gateway.lines().iter().all(|line| !line.contains(&key[18..30])));
    gateway.stop().await;
}

/// What follows is a matter of the processor's start.
#[test]
fn options_that_do_not_fit_are_explained() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aigw"));
        let output = command.args(["extproc", "--config", "none.yaml"]).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let bad =
        run(&["--keys", "redis://me:geheim@host:port", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert!(bad.contains("--keys") && bad.contains("file:PATH") && !bad.contains("geheim"), "{bad}");
    assert!(run(&["--key-admin", ":1"]).contains("--keys"));
    assert!(run(&["--keys", "file:x", "--keys-stale-after", "soon"]).contains("30d"));
}

const POLICY: &str = "
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {name: NAME, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: GATEWAY}]
  gatewayKey: {mode: MODE}
---
";

/// Three Gateways of one process: one asks for keys, one takes them, one does not look; and a key for one of them.
#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_asks_for_keys_as_its_policy_says_and_a_key_may_be_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::start(&[]).await;
    let store = format!("file:{}", folder.path().join("keys.jsonl").display());
    let manager = Manager::new(open(&store));
    let any = create(&manager, "any").await;
    let grant = json!({"name": "bound", "gateways": ["default/optional"]});
    let bound = manager.create(serde_json::from_value(grant).unwrap(), now()).await.unwrap();
    let more = ["optional", "open"].map(|name| {
        format!(
            "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: default}}
spec: {{gatewayClassName: test, listeners: [{{name: {name}, protocol: HTTP, port: 80}}]}}
---
"
        )
    });
    let policy = |gateway: &str, mode: &str| {
        POLICY.replace("NAME", gateway).replace("GATEWAY", gateway).replace("MODE", mode)
    };
    let parents = "{group: gateway.networking.k8s.io, kind: Gateway, name: test}";
    let every =
        ["test", "optional", "open"].map(|name| parents.replace("test}", &format!("{name}}}"))).join(", ");
    let resources = [
        yaml::gateway("1Mi"),
        more.concat(),
        yaml::backend("b", backend.addr),
        yaml::route(&[("good", "b")], "").replace(parents, &every),
        policy("optional", "Optional"),
        policy("open", "NotAsked"),
    ];
    // The first one says nothing: it is asked as the option says.
    for (option, first) in [(None, 401), (Some("--keys-by-policy"), 200)] {
        let Some(mut setup) = Setup::new().await else { return };
        setup = setup.yaml(resources.concat()).arg("--keys").arg(&store);
        for listener in ["optional=0", "open=0"] {
            setup = setup.arg("--listen").arg(listener);
        }
        if let Some(option) = option {
            setup = setup.arg(option);
        }
        let gateway = setup.start().await;
        let at = |name: &str| Peer::Tcp(gateway.listener(name));
        let body = r#"{"model":"good","messages":[]}"#;
        let ask = async |peer: &Peer, shown: &[(&str, &str)]| {
            peer.send(post(CHAT, shown, body)).await.status.as_u16()
        };
        let (test, optional, open) = (gateway.peer(), at("optional"), at("open"));
        let (any, bound) = (any.key.expose_secret(), bound.key.expose_secret());
        let unknown = unknown();
        until("keys have come", async || ask(&optional, &[("x-api-key", bound)]).await == 200).await;
        for (peer, shown, wanted) in [
            (&test, None, first),
            (&test, Some(any), 200),
            (&test, Some(bound), first),
            (&test, Some(unknown.as_str()), first),
            (&optional, None, 200),
            (&optional, Some("sk-of-somebody-else"), 200),
            (&optional, Some(any), 200),
            (&optional, Some(unknown.as_str()), 401),
            (&open, None, 200),
            (&open, Some(unknown.as_str()), 200),
            (&open, Some(bound), 200),
        ] {
            let headers: Vec<_> = shown.iter().map(|key| ("x-api-key", *key)).collect();
            assert_eq!(ask(peer, &headers).await, wanted, "{option:?} {peer:?}");
        }
        gateway.stop().await;
    }
}
