//! Keys through a real Envoy: two gateways, one store.

use std::time::Instant;

use ai_gateway::keys::{Grant, NewKey};
use ai_gateway::keystore::Manager;
use secrecy::ExposeSecret;
use serde_json::Value;

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

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_key_is_let_in_and_nobody_else_and_nothing_tells_a_key() {
    let Some(redis) = Redis::start().await else { return };
    let backend = Backend::start(&[]).await;
    let url = redis.url();
    let (Some(first), Some(second)) =
        (start(&backend, &url, &["--log-level", "debug"]).await, start(&backend, &url, &[]).await)
    else {
        return;
    };
    let manager = Manager::new(open(&url));
    let grant = |name: &str| Grant { organisation: Some("acme".into()), ..Grant::named(name) };
    let make = async |grant: Grant| manager.create(grant, now()).await.unwrap();
    let good = make(grant("good")).await;
    let narrow = make(Grant { models: Some(vec!["goo*".parse().unwrap()]), ..grant("narrow") }).await;
    let local = make(Grant { sources: Some(vec!["127.0.0.0/8".parse().unwrap()]), ..grant("local") }).await;
    let elsewhere = make(Grant { sources: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..grant("far") }).await;
    let expired = make(Grant { expires: Some(ai_gateway::keys::Timestamp::of(now())), ..grant("old") }).await;
    let revoked = make(grant("revoked")).await;
    manager.revoke(revoked.record.id, now()).await.unwrap();
    let text = |created: &ai_gateway::keystore::Created| created.key.expose_secret().to_owned();
    for gateway in [&first, &second] {
        until("keys have come", async || status(gateway, &text(&elsewhere)).await == 403).await;
    }

    // As each SDK shows it; the provider gets its own key and nothing of the client's.
    let bearer = format!("Bearer {}", text(&good));
    for shown in [("authorization", &*bearer), ("x-api-key", &text(&good)), ("api-key", &text(&good))] {
        assert_eq!(ask(&first, CHAT, "good", &[shown]).await.status, 200, "{}", shown.0);
        let seen = backend.last();
        assert_eq!(header(&seen, "authorization"), ["Bearer sk-provider"]);
        assert!(!format!("{:?}", seen.headers).contains("aigw-"), "{:?}", seen.headers);
    }

    // One answer, to the byte, whatever is wrong with a key.
    let unknown = NewKey::generate(&[9; 64]).text.expose_secret().to_owned();
    let before = backend.all().len();
    for path in [CHAT, MESSAGES] {
        let mut answers = Vec::new();
        for key in [&unknown, &text(&revoked), &text(&expired)] {
            let answer = ask(&first, path, "good", &[("x-api-key", key)]).await;
            assert_eq!(answer.status, 401);
            let mut headers: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
            headers.sort();
            answers.push((answer.body.clone(), headers));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        let body: Value = serde_json::from_slice(&answers[0].0).unwrap();
        assert_eq!(body["error"]["type"], "authentication_error", "{body}");
    }
    let told = ask(&first, CHAT, "good", &[("x-api-key", &text(&good)[..66])]).await;
    assert!(told.status == 401 && told.text().contains("mistyped"), "{}", told.text());
    for headers in [&[][..], &[("authorization", "Bearer sk-123")], &[("x-ai-eg-tenant", "acme")]] {
        assert_eq!(ask(&first, CHAT, "good", headers).await.status, 401);
    }
    // A key twice, with something else beside it, or in a header that only looks right.
    let two = [("authorization", &*bearer), ("authorization", "Bearer x")];
    assert_eq!(ask(&first, CHAT, "good", &two).await.status, 401);
    assert_eq!(ask(&first, CHAT, "good", &[("x-forwarded-api-key", &text(&good))]).await.status, 401);

    // Models and networks, whatever the client says of itself.
    assert_eq!(ask(&first, CHAT, "good", &[("x-api-key", &text(&narrow))]).await.status, 200);
    for model in ["other", "not-there"] {
        let refused = ask(&first, CHAT, model, &[("x-api-key", &text(&narrow))]).await;
        assert_eq!(refused.status, 403, "{}", refused.text());
    }
    assert_eq!(ask(&first, CHAT, "good", &[("x-api-key", &text(&local))]).await.status, 200);
    let spoofed = [
        ("x-api-key", &*text(&elsewhere)),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-envoy-external-address", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
    ];
    assert_eq!(ask(&first, CHAT, "good", &spoofed).await.status, 403);
    assert_eq!(backend.all().len(), before + 2, "nothing that is refused reaches the provider");

    // Each sees its own.
    let list = async |key: &str| {
        let mut request = get("/v1/models");
        request.headers_mut().insert("x-api-key", key.parse().unwrap());
        first.peer().send(request).await
    };
    let names = |answer: &Answer| {
        let data = answer.json()["data"].as_array().cloned().unwrap_or_default();
        data.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&list(&text(&good)).await), ["good", "other"]);
    assert_eq!(names(&list(&text(&narrow)).await), ["good"]);
    assert_eq!(list(&unknown).await.status, 401);

    // Live everywhere.
    assert_eq!(status(&second, &text(&good)).await, 200);
    manager.revoke(good.record.id, now()).await.unwrap();
    let since = Instant::now();
    until("it is refused by both", async || {
        status(&first, &text(&good)).await == 401 && status(&second, &text(&good)).await == 401
    })
    .await;
    println!("refused by both gateways, through Envoy, after {:?}", since.elapsed());

    // Nowhere to be found: what each gateway wrote and serves, and the store.
    let mut told = [first.lines(), second.lines()].concat();
    for path in ["/metrics", "/config", "/health"] {
        told.push(admin(&first).send(get(path)).await.text());
    }
    told.push(redis.command(&["HGETALL", "{aigw-keys}:records"]));
    told.push(redis.command(&["--raw", "HVALS", "{aigw-keys}:records"]));
    for key in [&text(&good), &text(&narrow), &text(&elsewhere), &text(&revoked), &text(&expired), &unknown] {
        let secret = &key[18..];
        for text in &told {
            assert!(!text.contains(secret) && !text.contains(&secret[..16]), "{text}");
        }
    }
    for gateway in [first, second] {
        gateway.stop().await;
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
    println!("served {served} requests without the store, and none after {:?}", since.elapsed());
    assert!(served > 0);
    assert_eq!(status(&gateway, key).await, 503);
    let anthropic = ask(&gateway, MESSAGES, "good", &[("x-api-key", key)]).await;
    assert_eq!((anthropic.status.as_u16(), &anthropic.json()["type"]), (503, &Value::from("error")));
    redis.run().await;
    until("the store is heard of again", async || status(&gateway, key).await == 200).await;
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
