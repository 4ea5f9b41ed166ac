//! A request whose attempts come to another processor than the one that has it.

use ai_gateway::server::QuotaOptions;
use serde_json::Value;

use crate::support::backend::{Backend, header};
use crate::support::http::{Answer, post};
use crate::support::planes::{GRACE, Planes};
use crate::support::redis::Redis;
use crate::support::{until, yaml};

const CHAT: &str = "/v1/chat/completions";
const RETRY: &str = "{numRetries: 1, retryOn: {triggers: [retriable-status-codes], httpStatusCodes: [503]}, perRetry: {backOff: {baseInterval: 1ms}}}";

fn resources(one: &Backend, two: &Backend) -> String {
    yaml::gateway("50Mi")
        + &yaml::backend("one", one.addr)
        + &yaml::backend_of("Anthropic", "two", two.addr, "")
        + &yaml::api_key("one", "key-of-one")
        + &yaml::anthropic_key("two", "key-of-two")
        + &yaml::shared_rule("{name: one}, {name: two, priority: 1, modelNameOverride: claude}", "")
        + &yaml::retries(RETRY, "")
}

fn request(size: usize, stream: bool) -> String {
    let text = "x".repeat(size);
    serde_json::json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]})
        .to_string()
}

/// Another dialect, another key, a retry, small and large, whole and streamed: all as if one processor did it.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_at_another_processor_completes_correctly() {
    let one = Backend::start(&["--status", "503"]).await;
    let two = Backend::start(&["--content", "I am elsewhere."]).await;
    let resources = resources(&one, &two);
    let Some(planes) = Planes::envoy_apart(&resources).await else { return };
    let (here, there) = (planes.processor(&resources), planes.processor_apart(&resources));
    for (size, stream) in [(1, false), (1, true), (1 << 20, false), (1 << 20, true)] {
        let client = [("authorization", "Bearer the-clients")];
        let answer = planes.peer().send(post(CHAT, &client, request(size, stream))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!answer.headers.contains_key("x-ai-eg-attempt"), "{:?}", answer.headers);
        if stream {
            let text = answer.text();
            assert!(text.contains("chat.completion.chunk") && text.ends_with("data: [DONE]\n\n"), "{text}");
            // Only the gateway asked for it.
            assert!(!text.contains("\"usage\":{"), "{text}");
        } else {
            let choice = &answer.json()["choices"][0];
            assert_eq!(choice["message"]["content"], "I am elsewhere.");
        }
        let (first, second) = (one.last(), two.last());
        assert_eq!(
            (header(&first, "authorization"), header(&first, "x-api-key")),
            (vec!["Bearer key-of-one".to_owned()], vec![])
        );
        assert_eq!(
            (header(&second, "authorization"), header(&second, "x-api-key")),
            (vec![], vec!["key-of-two".to_owned()])
        );
        assert_eq!((first.path.as_str(), second.path.as_str()), (CHAT, "/v1/messages"));
        if size == 1 {
            let body: Value = serde_json::from_str(second.body.as_str().expect("text")).expect("JSON");
            assert_eq!(body["model"], "claude");
            assert_eq!(body["stream"] == true, stream);
        }
    }
    // The stream that has the client accounts for all of it, by the provider that answered.
    until("all is accounted for", async || planes.metric("gen_ai_client_token_usage_count").await > 0.0)
        .await;
    until("no exchange is left", async || here.active().count() == 0).await;
    // Settlements gather for a moment before they are counted.
    until("each is settled", async || planes.metric("aigw_exchanges_settled_total").await >= 4.0).await;
    assert_eq!(planes.metric("aigw_exchanges_settled_total").await, 4.0);
    here.shutdown(GRACE).await;
    there.shutdown(GRACE).await;
}

/// The other processor has other keys, or none of this rule: nobody's request goes anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_processor_with_another_configuration_sends_nothing() {
    let (one, two) = (Backend::start(&[]).await, Backend::start(&[]).await);
    let ours = resources(&one, &two);
    let Some(planes) = Planes::envoy_apart(&ours).await else { return };
    let here = planes.processor(&ours);
    for theirs in [ours.replace("key-of-two", "another-key"), ours.replace("claude", "another-model")] {
        let there = planes.processor_apart(&theirs);
        let answer = planes.peer().send(post(CHAT, &[], request(1, false))).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!((one.counters().requests, two.counters().requests), (0, 0));
        there.shutdown(GRACE).await;
    }
    let there = planes.processor_apart(&ours);
    until("requests are served", async || {
        planes.peer().send(post(CHAT, &[], request(1, false))).await.status == 200
    })
    .await;
    there.shutdown(GRACE).await;
    here.shutdown(GRACE).await;
}

/// A rule that asks for proof, served by attempts at another processor: who is let in there, who is not, and what each backend gets.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_at_another_processor_asks_for_proof_as_here() {
    let one = Backend::start(&["--status", "503"]).await;
    let two = Backend::start(&[]).await;
    let policies = crate::tenants::keys(&crate::tenants::ON_ROUTE.replace("protected", "test"));
    let resources = resources(&one, &two) + &policies.replace("[paid, free]", "[m]");
    let Some(planes) = Planes::envoy_apart(&resources).await else { return };
    let (here, there) = (planes.processor(&resources), planes.processor_apart(&resources));
    let [acme, other, ..] = crate::tenants::SECRETS;
    for (shown, status) in [(Some(acme), 200), (Some(other), 403), (Some("wrong"), 401), (None, 401)] {
        let headers: Vec<_> = shown.iter().map(|key| ("x-api-token", *key)).collect();
        let answer = planes.peer().send(post(CHAT, &headers, request(1, false))).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(!answer.headers.contains_key("x-ai-eg-attempt"), "{:?}", answer.headers);
    }
    // Both were asked for the first of them, and for no other; neither got what proves, nor what it was proved with.
    assert_eq!((one.counters().requests, two.counters().requests), (1, 1));
    for seen in [one.last(), two.last()] {
        let sent = format!("{seen:?}");
        assert!(!sent.contains("x-ai-eg-auth-") && !sent.contains(acme), "{sent}");
    }
    until("all is accounted for", async || planes.metric("aigw_exchanges_settled_total").await == 4.0).await;
    here.shutdown(GRACE).await;
    there.shutdown(GRACE).await;
}

/// A policy of one limit in tokens.
fn limit(name: &str, target: &str, more: &str, amount: u64) -> String {
    format!(
        "---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: UsageLimit
metadata: {{name: {name}, namespace: default}}
spec:
  targetRefs: [{target}]
  onStoreFailure: Closed
{more}
  limits: [{{name: tokens, type: TotalToken, amount: {amount}, window: {{rolling: 1h}}}}]
"
    )
}

const TWO: &str = "{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: two}";
const GATEWAY: &str = "{group: gateway.networking.k8s.io, kind: Gateway, name: test}";
const USED: u64 = 20;

fn at(redis: &Redis) -> QuotaOptions {
    // Long enough for a busy machine: what is looked at is whether it is asked.
    let deadline = Some(std::time::Duration::from_secs(5));
    QuotaOptions { redis: Some(redis.url().into()), redis_deadline: deadline, ..QuotaOptions::default() }
}

async fn chat(planes: &Planes, max_tokens: u64, knobs: &[(&str, &str)]) -> Answer {
    let body = serde_json::json!({"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "Hi."}]});
    planes.peer().send(post(CHAT, knobs, body.to_string())).await
}

/// What is left of the backend's limit, by a request that can never fit.
async fn left(planes: &Planes) -> Option<u64> {
    let answer = chat(planes, 1_000_000_000, &[]).await;
    (answer.status == 429).then(|| answer.json()["error"]["quota"]["remaining"].as_u64().expect("a number"))
}

/// The processor that has the request does not know who is tried: the one that does asks, and settles.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_at_another_processor_is_held_to_its_backends_limits() {
    let Some(mut redis) = Redis::start().await else { return };
    let one = Backend::start(&["--status", "503"]).await;
    let two = Backend::start(&["--usage=prompt=9,completion=11"]).await;
    let resources = resources(&one, &two) + &limit("two", TWO, "", 5_000);
    let Some(planes) = Planes::envoy_apart(&resources).await else { return };
    let here = planes.processor_with(&resources, at(&redis));
    let there = planes.processor_apart_with(&resources, at(&redis));
    until("it is asked, and lets in", async || chat(&planes, 400, &[]).await.status == 200).await;
    let spent = two.counters().requests * USED;
    // What does not fit is refused, and not sent; what was used is charged, and nothing stays held.
    until("the attempt is settled", async || left(&planes).await == Some(5_000 - spent)).await;
    assert_eq!(two.counters().requests * USED, spent);
    let refused = chat(&planes, 1_000_000_000, &[]).await;
    assert_eq!(refused.json()["error"]["code"], "insufficient_quota", "{}", refused.text());
    assert!(!refused.headers.contains_key("x-ai-eg-attempt"), "{:?}", refused.headers);
    // An error costs nothing, and holds nothing.
    let failed = chat(&planes, 400, &[("x-testbackend-status", "503")]).await;
    assert_eq!((failed.status.as_u16(), two.counters().requests * USED), (503, spent + USED));
    until("the error is settled", async || left(&planes).await == Some(5_000 - spent)).await;
    // Its Redis gone, it lets nobody in.
    redis.kill();
    let before = two.counters().requests;
    let refused = chat(&planes, 400, &[]).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (503, &"quota_unavailable".into())
    );
    assert_eq!(two.counters().requests, before);
    here.shutdown(GRACE).await;
    there.shutdown(GRACE).await;
}

/// What the router's processor was granted is kept to by the one that sends, whatever the backend's mutation says.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_at_another_processor_keeps_to_what_was_granted() {
    let Some(redis) = Redis::start().await else { return };
    let (one, two) = (Backend::start(&["--status", "503"]).await, Backend::start(&[]).await);
    let mutation = "  bodyMutation: {set: [{path: max_tokens, value: '90000'}]}";
    let resources = resources(&one, &two).replace(
        &yaml::backend_of("Anthropic", "two", two.addr, ""),
        &yaml::backend_of("Anthropic", "two", two.addr, mutation),
    ) + &limit("all", GATEWAY, "  output: {clamp: true, minimum: 16}", 5_000);
    let Some(planes) = Planes::envoy_apart(&resources).await else { return };
    let here = planes.processor_with(&resources, at(&redis));
    let there = planes.processor_apart_with(&resources, at(&redis));
    let mut answer = None;
    until("it is let in", async || {
        answer = Some(chat(&planes, 400, &[]).await);
        answer.as_ref().is_some_and(|answer| answer.status == 200)
    })
    .await;
    let answer = answer.expect("one");
    let clamped: u64 = answer.headers["x-aigw-output-clamped"].to_str().unwrap().parse().unwrap();
    assert!((2_000..5_000).contains(&clamped), "{clamped}");
    let sent: Value = serde_json::from_str(two.last().body.as_str().expect("text")).expect("JSON");
    assert_eq!((&sent["model"], &sent["max_tokens"]), (&"claude".into(), &clamped.into()));
    here.shutdown(GRACE).await;
    there.shutdown(GRACE).await;
}
