//! `aigw run` with a real Envoy and a Redis that is silent, gone, or back: who is let in, and that all is charged once.

use std::path::Path;

use http_body_util::BodyExt;
use serde_json::json;

use crate::quota_exchange::{AMOUNT, CHAT, USED, chat, policy, tokens};
use crate::support::backend::Backend;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{Answer, get, post};
use crate::support::redis::Redis;
use crate::support::{until, yaml};

const CLOSED: &str = "  onStoreFailure: Closed";
const OPEN: &str = "  onStoreFailure: Open";

/// A gateway whose quotas are in that Redis. What it owes to it is in `journal`.
async fn start(backend: &Backend, redis: &Redis, journal: &Path, more: &str) -> Option<Gateway> {
    let setup = Setup::new().await?;
    let resources = [
        yaml::gateway("1Mi"),
        yaml::backend("one", backend.addr),
        yaml::backend_of("Anthropic", "claude", backend.addr, ""),
        yaml::route(&[("m", "one"), ("claude", "claude")], ""),
        policy(more, &tokens(AMOUNT)),
    ];
    let setup = setup.yaml(resources.concat()).arg("--redis").arg(redis.url());
    Some(setup.arg("--quota-journal").arg(journal).start().await)
}

async fn backend() -> Backend {
    Backend::start(&["--usage=prompt=9,completion=11"]).await
}

async fn ask(gateway: &Gateway) -> Answer {
    gateway.peer().send(post(CHAT, &[], chat(400, false))).await
}

/// What is left, by a request that can never fit. Only where nobody is let in while Redis is away.
async fn left(closed: &Gateway) -> Option<u64> {
    let answer = closed.peer().send(post(CHAT, &[], chat(1_000_000_000, false))).await;
    match answer.status.as_u16() {
        429 => answer.json()["error"]["quota"]["remaining"].as_u64(),
        503 => None,
        status => panic!("{status}: {}", answer.text()),
    }
}

/// Redis is gone, or there and silent.
fn leave(redis: &mut Redis, gone: bool) {
    if gone { redis.kill() } else { redis.signal("STOP") }
}

async fn come_back(redis: &mut Redis, gone: bool) {
    if gone { redis.run().await } else { redis.signal("CONT") }
}

/// Ends of requests that Redis has not been told of.
async fn owed(gateway: &Gateway) -> f64 {
    let text = gateway.admin().send(get("/metrics")).await.text();
    let line = text.lines().find(|line| {
        line.strip_prefix("aigw_quota_unsettled").is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_policy_serves_while_redis_is_silent_or_gone_and_charges_once_it_is_back() {
    let Some(mut redis) = Redis::start().await else { return };
    let (backend, folder, other) =
        (backend().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(gateway) = start(&backend, &redis, folder.path(), OPEN).await else { return };
    assert_eq!(ask(&gateway).await.status, 200);
    for gone in [false, true] {
        until("nothing is owed", async || owed(&gateway).await == 0.0).await;
        leave(&mut redis, gone);
        for _ in 0..5 {
            let answer = ask(&gateway).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(
                !answer.headers.contains_key("x-ratelimit-remaining-tokens"),
                "nobody knows what is left"
            );
        }
        until("it is owed", async || owed(&gateway).await >= 5.0).await;
        come_back(&mut redis, gone).await;
    }
    until("Redis is told", async || owed(&gateway).await == 0.0).await;
    gateway.stop().await;
    let looking = start(&backend, &redis, other.path(), CLOSED).await.expect("Envoy");
    let charged = backend.counters().requests * USED;
    until("each is charged", async || left(&looking).await.is_some()).await;
    assert_eq!(left(&looking).await, Some(AMOUNT - charged), "once, and nothing stays held");
    looking.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_policy_says_that_the_store_is_away_in_the_clients_dialect() {
    let Some(mut redis) = Redis::start().await else { return };
    let (backend, folder) = (backend().await, tempfile::tempdir().unwrap());
    let Some(gateway) = start(&backend, &redis, folder.path(), CLOSED).await else { return };
    for gone in [false, true] {
        until("requests are let in", async || ask(&gateway).await.status == 200).await;
        let before = backend.counters().requests;
        leave(&mut redis, gone);
        for _ in 0..5 {
            let answer = ask(&gateway).await;
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert_eq!(answer.json()["error"]["code"], "quota_unavailable");
            let message = json!({"model": "claude", "max_tokens": 400, "messages": [{"role": "user", "content": "Hi."}]});
            let answer = gateway.peer().send(post("/anthropic/v1/messages", &[], message.to_string())).await;
            assert_eq!(answer.status, 503, "{}", answer.text());
            let said = answer.json();
            assert_eq!(
                (&said["type"], &said["error"]["code"]),
                (&json!("error"), &json!("quota_unavailable"))
            );
        }
        assert_eq!(backend.counters().requests, before, "nobody was let in");
        come_back(&mut redis, gone).await;
    }
    until("requests are let in again", async || ask(&gateway).await.status == 200).await;
    let charged = backend.counters().requests * USED;
    // What was refused meanwhile costs nothing, though Redis may have held it.
    until("all is settled", async || left(&gateway).await == Some(AMOUNT - charged)).await;
    gateway.stop().await;
}

/// The process is told to stop in the middle of answers: they end, and are charged. Also where Redis is not there to hear of it before
/// the next process runs.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_when_the_process_is_told_to_stop_is_charged_once() {
    for gone in [false, true] {
        let Some(mut redis) = Redis::start().await else { return };
        let (backend, folder) = (backend().await, tempfile::tempdir().unwrap());
        let Some(gateway) = start(&backend, &redis, folder.path(), CLOSED).await else { return };
        until("Redis is there", async || left(&gateway).await == Some(AMOUNT)).await;
        let knobs = [("x-testbackend-chunks", "20"), ("x-testbackend-pace", "400ms")];
        let request = || post(CHAT, &knobs, chat(400, true));
        let mut bodies = Vec::new();
        for _ in 0..3 {
            let mut response = gateway.peer().open(request()).await.unwrap();
            assert_eq!(response.status(), 200);
            response.body_mut().frame().await.unwrap().unwrap();
            bodies.push(response.into_body());
        }
        assert_eq!(backend.counters().requests_active, 3, "they were over before");
        if gone {
            redis.kill();
        }
        gateway.terminate();
        for body in bodies {
            body.collect().await.expect("all of it");
        }
        gateway.ended().await;
        if gone {
            redis.run().await;
        }
        let next = start(&backend, &redis, folder.path(), CLOSED).await.expect("Envoy");
        until("all is charged, and nothing held", async || left(&next).await == Some(AMOUNT - 3 * USED))
            .await;
        // Nothing of it comes a second time.
        until("nothing is owed", async || owed(&next).await == 0.0).await;
        assert_eq!(left(&next).await, Some(AMOUNT - 3 * USED));
        next.stop().await;
    }
}
