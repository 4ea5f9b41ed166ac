//! Envoy and the processor with different configurations, or one without the other: nothing is delivered wrongly.

use crate::support::backend::{Backend, header};
use crate::support::http::post;
use crate::support::planes::{GRACE, Planes};
use crate::support::{until, yaml};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[]}"#;

fn resources(backend: &Backend, key: &str) -> String {
    yaml::gateway("1Mi")
        + &yaml::backend("one", backend.addr)
        + &yaml::api_key("one", key)
        + &yaml::route(&[("m", "one")], "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_never_reaches_a_backend_it_was_not_meant_for() {
    let (a, b) = (Backend::start(&[]).await, Backend::start(&[]).await);
    let (with_a, with_b) = (resources(&a, "sk-a"), resources(&b, "sk-b"));
    let Some(planes) = Planes::envoy(&with_a).await else { return };

    let processor = planes.processor(&with_a);
    assert_eq!(planes.peer().send(post(CHAT, &[], BODY)).await.status, 200);
    assert_eq!(header(&a.last(), "authorization"), ["Bearer sk-a"]);
    processor.shutdown(GRACE).await;

    // Another backend and key; the same backend with another key; the same key for another backend; other header edits.
    let edited = resources(&a, "sk-a").replace(
        "  schema: {name: OpenAI}",
        "  schema: {name: OpenAI}\n  headerMutation: {set: [{name: x-secret, value: for-b-only}]}",
    );
    for other in [&with_b, &resources(&a, "sk-b"), &resources(&b, "sk-a"), &edited] {
        a.reset();
        let processor = planes.processor(other);
        let answer = planes.peer().send(post(CHAT, &[], BODY)).await;
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert_eq!((a.counters().requests, b.counters().requests), (0, 0));
        processor.shutdown(GRACE).await;
    }

    // In step again.
    let processor = planes.processor(&with_a);
    assert_eq!(planes.peer().send(post(CHAT, &[], BODY)).await.status, 200);
    processor.shutdown(GRACE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_processor_nothing_passes_and_with_it_everything_does_again() {
    let backend = Backend::start(&[]).await;
    let resources = resources(&backend, "sk");
    let Some(planes) = Planes::envoy(&resources).await else { return };
    for _ in 0..3 {
        let answer = planes.peer().send(post(CHAT, &[], BODY)).await;
        assert_eq!(answer.status, 500, "{}", answer.text());
        assert_eq!(backend.counters().requests, 0);
        let processor = planes.processor(&resources);
        // Envoy waits a little between its attempts to connect.
        until("requests are served again", async || {
            planes.peer().send(post(CHAT, &[], BODY)).await.status == 200
        })
        .await;
        assert_eq!(header(&backend.last(), "authorization"), ["Bearer sk"]);
        processor.shutdown(GRACE).await;
        backend.reset();
    }
}
