//! A request whose attempts come to another processor than the one that has it.

use serde_json::Value;

use crate::support::backend::{Backend, header};
use crate::support::http::post;
use crate::support::planes::{GRACE, Planes};
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
