//! What a client reads when something is wrong, through a real Envoy.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{get, post};
use crate::support::yaml;

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[]}"#;

async fn start(backend: SocketAddr) -> Option<Gateway> {
    let resources = yaml::gateway("1Mi") + &yaml::backend("one", backend) + &yaml::route(&[("m", "one")], "");
    Some(Setup::new().await?.yaml(resources).start().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_wrong_are_refused_without_asking_the_backend() {
    let backend = Backend::start(&[]).await;
    let Some(gateway) = start(backend.addr).await else { return };
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(100_000));
    for (body, says) in [
        (r#"{"model":"m","messages":[}"#, "column"),
        (r#"{"model":"m","a":"\"#, "column"),
        (r#"{"messages":[]}"#, "model"),
        (r#"{"model":7}"#, "model"),
        (r#"{"model":null}"#, "model"),
        ("", ""),
        ("[]", ""),
        (&long, "model"),
    ] {
        let answer = gateway.peer().send(post(CHAT, &[], body.to_owned())).await;
        let shown = &body[..body.len().min(80)];
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        assert_eq!(answer.headers["content-type"], "application/json", "{shown}");
        let json: Value = answer.json();
        let message = json["error"]["message"].as_str().unwrap_or_else(|| panic!("{shown}: {json}"));
        assert!(message.contains(says), "{shown}: {message}");
    }
    let answer = gateway.peer().send(post("/v1/unheard-of", &[], BODY)).await;
    assert_eq!(answer.status, 404);
    let answer = gateway.peer().send(get("/")).await;
    assert_eq!(answer.status, 404);
    let answer = gateway
        .peer()
        .send(post(CHAT, &[], format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(2 << 20))))
        .await;
    assert_eq!(answer.status, 413);
    assert_eq!(backend.counters().requests, 0);

    // After all that it serves.
    assert_eq!(gateway.peer().send(post(CHAT, &[], BODY)).await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_is_a_503_until_it_is_up() {
    let backend = Backend::start(&[]).await;
    let addr = backend.addr;
    let Some(gateway) = start(addr).await else { return };
    assert_eq!(gateway.peer().send(post(CHAT, &[], BODY)).await.status, 200);
    backend.stop().await;
    assert_eq!(gateway.peer().send(post(CHAT, &[], BODY)).await.status, 503);
    let _backend = Backend::start_at(&addr.to_string(), &[]).await;
    assert_eq!(gateway.peer().send(post(CHAT, &[], BODY)).await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_errors_and_faults_pass_and_the_gateway_lives() {
    let backend = Backend::start(&[]).await;
    let Some(gateway) = start(backend.addr).await else { return };
    let stream = r#"{"model":"m","stream":true}"#;
    for body in [BODY, stream] {
        for status in ["400", "401", "429", "500", "503"] {
            let answer = gateway.peer().send(post(CHAT, &[("x-testbackend-status", status)], body)).await;
            assert_eq!(answer.status.as_str(), status);
            assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
        }
        // Before its headers: nothing of an answer has come.
        let answer = gateway.peer().send(post(CHAT, &[("x-testbackend-fault", "reset")], body)).await;
        assert_eq!(answer.status, 503, "{body}");
        // Within the body: the client must not take it for whole.
        let fault = [("x-testbackend-fault", "reset:1"), ("x-testbackend-chunks", "5")];
        let whole = match gateway.peer().open(post(CHAT, &fault, body)).await {
            Ok(response) => {
                let status = response.status();
                status.is_success() && http_body_util::BodyExt::collect(response.into_body()).await.is_ok()
            }
            Err(_) => false,
        };
        assert!(!whole, "a broken answer passed for a whole one: {body}");
    }
    // Ends inside an event: passed on as it came, for the client to judge.
    let answer = gateway.peer().send(post(CHAT, &[("x-testbackend-fault", "cut:2")], stream)).await;
    assert!(
        answer.text().contains("\"role\":\"assistant\"") && !answer.text().contains("[DONE]"),
        "{}",
        answer.text()
    );
    let answer = gateway.peer().send(post(CHAT, &[("x-testbackend-fault", "garbage:1")], stream)).await;
    assert!(answer.body.ends_with(b"data: [DONE]\n\n"));
    let answer = gateway.peer().send(post(CHAT, &[("x-testbackend-body", "not JSON")], BODY)).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "not JSON".to_owned()));

    backend.idle().await;
    assert!(gateway.peer().send(post(CHAT, &[], BODY)).await.text().contains("inevitable"));
    gateway.stop().await;
}
