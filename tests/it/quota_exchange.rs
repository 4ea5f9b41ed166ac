//! Quotas through a real Envoy: nothing is ever overspent, and nothing stays held, however an exchange ends.

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{Answer, post};
use crate::support::{until, yaml};

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const AMOUNT: u64 = 10_000;
/// What the test backend reports of each answer.
pub(crate) const USED: u64 = 20;

/// A policy on the whole gateway.
pub(crate) fn policy(more: &str, limits: &str) -> String {
    format!(
        "---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: UsageLimit
metadata: {{name: limits, namespace: default}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: test}}]
{more}
  limits:
{limits}
"
    )
}

pub(crate) fn tokens(amount: u64) -> String {
    format!("    - {{name: tokens, type: TotalToken, amount: {amount}, window: {{rolling: 1h}}}}")
}

async fn start(policy: String) -> Option<(Backend, Gateway)> {
    let setup = Setup::new().await?;
    let backend = Backend::start(&["--usage=prompt=9,completion=11"]).await;
    let gateway = setup
        .yaml(yaml::gateway("1Mi"))
        .yaml(yaml::backend("one", backend.addr))
        .yaml(yaml::backend_of("Anthropic", "claude", backend.addr, ""))
        .yaml(yaml::route(&[("m", "one"), ("claude", "claude")], ""))
        .yaml(policy)
        .start()
        .await;
    Some((backend, gateway))
}

pub(crate) fn chat(max_tokens: u64, stream: bool) -> String {
    json!({"model": "m", "max_tokens": max_tokens, "stream": stream, "messages": [{"role": "user", "content": "Hi."}]})
        .to_string()
}

/// What is left, by a request that can never fit: it is refused and costs nothing.
async fn remaining(gateway: &Gateway) -> u64 {
    let answer = gateway.peer().send(post(CHAT, &[], chat(1_000_000_000, false))).await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    answer.json()["error"]["quota"]["remaining"].as_u64().unwrap()
}

pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).and_then(|value| value.to_str().ok())
}

/// Elsewhere requests at the same time see what is left before any of them has been charged, and all go through:
/// envoyproxy/ai-gateway#680 and #2394, higress-group/higress#2464, BerriAI/litellm#34732, #26672 and #40002.
#[tokio::test(flavor = "multi_thread")]
async fn clients_at_the_same_time_never_use_more_than_there_is() {
    // With and without answers being cut to what is left.
    for more in ["", "  output: {clamp: true, minimum: 16}"] {
        let amount = 3_000;
        let Some((backend, gateway)) = start(policy(more, &tokens(amount))).await else { return };
        let clients = (0..40).map(|_| async {
            let mut used = 0;
            for _ in 0..8 {
                let answer = gateway.peer().send(post(CHAT, &[], chat(400, false))).await;
                match answer.status.as_u16() {
                    200 => used += answer.json()["usage"]["total_tokens"].as_u64().unwrap(),
                    429 => {
                        assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded", "{}", answer.text())
                    }
                    status => panic!("{status}: {}", answer.text()),
                }
            }
            used
        });
        let used: u64 = futures_util::future::join_all(clients).await.into_iter().sum();
        assert!(used > 0 && used <= amount, "{used}");
        assert_eq!(used, backend.counters().requests * USED);
        if more.is_empty() {
            assert_eq!(remaining(&gateway).await, amount - used, "nothing stays held");
        }
        gateway.stop().await;
    }
}

/// An error is known for what it is, and costs nothing: envoyproxy/ai-gateway#2441.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_provider_and_of_the_connection_cost_nothing_and_hold_nothing() {
    let Some((_backend, gateway)) = start(policy("", &tokens(AMOUNT))).await else { return };
    for knob in [
        ("x-testbackend-status", "500"),
        ("x-testbackend-status", "429"),
        ("x-testbackend-status", "400"),
        ("x-testbackend-fault", "reset"),
        ("x-testbackend-fault", "close"),
    ] {
        for stream in [false, true] {
            let answer = gateway.peer().send(post(CHAT, &[knob], chat(400, stream))).await;
            assert!(!answer.status.is_success(), "{knob:?} {}", answer.status);
            until("it is settled", async || remaining(&gateway).await == AMOUNT).await;
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_client_leaves_costs_what_was_delivered_and_holds_nothing() {
    let Some((backend, gateway)) = start(policy("", &tokens(AMOUNT))).await else { return };
    let knobs = [("x-testbackend-chunks", "50"), ("x-testbackend-pace", "100ms")];
    let response = gateway.peer().open(post(CHAT, &knobs, chat(4_000, true))).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    let held = AMOUNT - remaining(&gateway).await;
    assert!(held > 4_000, "{held}");
    drop(body);
    let left = || async { AMOUNT - remaining(&gateway).await };
    until("it is settled", async || left().await < 4_000).await;
    let charged = left().await;
    assert!((1..200).contains(&charged), "{charged}");
    backend.idle().await;
    assert_eq!(left().await, charged);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_holds_nothing() {
    let Some((backend, gateway)) = start(policy("", &tokens(AMOUNT))).await else { return };
    let request = post(CHAT, &[("x-testbackend-delay", "3600s")], chat(4_000, false));
    let peer = gateway.peer();
    let asking = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        tokio::select! {
            _ = peer.send(request) => panic!("answered"),
            () = until("the backend was asked", async || backend.counters().requests_active == 1) => {}
        }
    });
    asking.await.unwrap();
    until("it is settled", async || AMOUNT - remaining(&gateway).await < 4_000).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_is_left_streams_included() {
    let Some((backend, gateway)) =
        start(policy("  output: {clamp: true, minimum: 16}", &tokens(AMOUNT))).await
    else {
        return;
    };
    for (stream, knobs) in [(false, vec![]), (true, vec![]), (false, vec![("x-testbackend-status", "500")])] {
        let answer = gateway.peer().send(post(CHAT, &knobs, chat(400, stream))).await;
        let left: u64 = header(&answer, "x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
        assert!(left < AMOUNT - 400, "{left}");
        assert_eq!(header(&answer, "x-ratelimit-limit-tokens"), Some("10000"));
        assert!(header(&answer, "x-ratelimit-reset-tokens").is_some());
        assert_eq!(header(&answer, "x-aigw-output-clamped"), None);
    }
    let answer = gateway.peer().send(post(CHAT, &[], chat(50_000, true))).await;
    let clamped: u64 = header(&answer, "x-aigw-output-clamped").unwrap().parse().unwrap();
    assert!((4_000..AMOUNT).contains(&clamped), "{clamped}");
    let sent: Value = serde_json::from_str(backend.last().body.as_str().unwrap()).unwrap();
    assert_eq!(sent["max_tokens"], json!(clamped));
    assert_eq!(
        sent["stream_options"]["include_usage"],
        json!(true),
        "what is not reported cannot be charged"
    );
    gateway.stop().await;
}

/// A backend's mutation of bodies speaks last, and yet no answer may be longer than what was granted.
#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_of_bodies_raises_no_cap_above_what_was_granted() {
    for (schema, more, status) in [
        ("OpenAI", "  output: {clamp: true, minimum: 16}", 200),
        ("Anthropic", "  output: {clamp: true, minimum: 16}", 200),
        // It is held as it is sent, and so does not fit.
        ("OpenAI", "", 429),
    ] {
        let Some(setup) = Setup::new().await else { return };
        let backend = Backend::start(&["--usage=prompt=9,completion=11"]).await;
        let mutation = "  bodyMutation: {set: [{path: max_tokens, value: '90000'}]}";
        let gateway = setup
            .yaml(yaml::gateway("1Mi"))
            .yaml(yaml::backend_of(schema, "one", backend.addr, mutation))
            .yaml(yaml::route(&[("m", "one")], ""))
            .yaml(policy(more, &tokens(AMOUNT)))
            .start()
            .await;
        let answer = gateway.peer().send(post(CHAT, &[], chat(400, false))).await;
        assert_eq!(answer.status, status, "{schema}: {}", answer.text());
        if status == 200 {
            let clamped: u64 = header(&answer, "x-aigw-output-clamped").unwrap().parse().unwrap();
            assert!((4_000..AMOUNT).contains(&clamped), "{clamped}");
            let sent: Value = serde_json::from_str(backend.last().body.as_str().unwrap()).unwrap();
            assert_eq!(sent["max_tokens"], json!(clamped), "{schema}");
        } else {
            assert_eq!(backend.counters().requests, 0);
        }
        gateway.stop().await;
    }
}

/// Requests at a time are limited by tenant like anything else, without negative costs: envoyproxy/envoy#41219.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_given_back_when_they_end() {
    let limits = "    - {name: parallel, type: InFlight, amount: 1}";
    let Some((backend, gateway)) = start(policy("", limits)).await else { return };
    let knobs = [("x-testbackend-chunks", "50"), ("x-testbackend-pace", "100ms")];
    let response = gateway.peer().open(post(CHAT, &knobs, chat(10, true))).await.unwrap();
    assert_eq!(response.status(), 200);
    let refused = gateway.peer().send(post(CHAT, &[], chat(10, false))).await;
    assert_eq!(refused.status, 429);
    assert_eq!(header(&refused, "retry-after"), Some("1"));
    drop(response);
    until("the place is free", async || {
        gateway.peer().send(post(CHAT, &[], chat(10, false))).await.status == 200
    })
    .await;
    // One after the other, all get in: none of them is still held when the next comes.
    for _ in 0..20 {
        let answer = gateway.peer().send(post(CHAT, &[], chat(10, false))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    backend.idle().await;
    gateway.stop().await;
}
