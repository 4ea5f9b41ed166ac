//! The processor under an Envoy as the Go gateway's control plane programs it, with both filters.

use serde_json::{Value, json};

use crate::support::backend::{Backend, header};
use crate::support::classic::{Rig, Setup, name};
use crate::support::http::{get, post};
use crate::support::{spawn, until};

const CHAT: &str = "/v1/chat/completions";
/// Both filters ask the same processor.
const ONE: [&[usize]; 2] = [&[0], &[0]];
/// The attempts of a request never come to the processor that has it.
const APART: [&[usize]; 2] = [&[0], &[1]];
/// Either may be.
const MIXED: [&[usize]; 2] = [&[0, 1], &[0, 1]];

/// Two backends that differ in everything.
fn config() -> Vec<Value> {
    vec![
        json!({
            "schema": {"name": "OpenAI"},
            "auth": {"apiKey": {"key": "sk-of-0"}},
            "httpHeaderMutation": {"set": [{"name": "x-only-0", "value": "yes"}], "remove": ["x-team"]},
        }),
        json!({
            "schema": {"name": "OpenAI", "prefix": "/compatible/v9"},
            "modelNameOverride": "other-model",
            "auth": {"azureAPIKey": {"key": "key-of-1"}},
        }),
    ]
}

fn chat(size: usize, stream: bool) -> String {
    let text = "x".repeat(size);
    json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}).to_string()
}

/// The last request is one for the second backend, and nothing of the first is in it.
fn is_for_the_second(backend: &Backend, sent: &str) {
    let mut expected = sent.replace(r#""model":"m""#, r#""model":"other-model""#);
    if sent.contains(r#""stream":true"#) {
        expected.truncate(expected.len() - 1);
        expected.push_str(r#","stream_options":{"include_usage":true}}"#);
    }
    let recorded = backend.last();
    assert_eq!(recorded.path, "/compatible/v9/chat/completions");
    assert_eq!(header(&recorded, "api-key"), ["key-of-1"]);
    for absent in ["authorization", "x-only-0", "x-ai-eg-upstream-host", "x-ai-eg-attempt"] {
        assert_eq!(header(&recorded, absent), [""; 0], "{absent}");
    }
    assert_eq!(recorded.body_sha256, sha256(&expected));
    assert_eq!(header(&recorded, "content-length"), [recorded.body_bytes.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_to_the_next_backend_as_if_it_were_the_first() {
    for asks in [ONE, APART, MIXED] {
        let failing = Backend::start(&["--status", "503"]).await;
        let serving = Backend::start(&["--usage", "prompt=3,completion=4"]).await;
        let setup = Setup { backends: &[&failing, &serving], config: config(), asks, picked: false };
        let Some(rig) = Rig::start(setup).await else { return };
        for (number, size) in [10, 100, 1 << 20].into_iter().enumerate() {
            let body = chat(size, false);
            let id = format!("request-{number}");
            let headers = [("x-team", "a"), ("x-request-id", id.as_str())];
            let answer = rig.peer().send(post(CHAT, &headers, body.clone())).await;
            assert_eq!(answer.status, 200, "{asks:?} {}", answer.text());
            assert!(!answer.headers.contains_key("x-ai-eg-attempt"), "{:?}", answer.headers);
            let first = failing.last();
            assert_eq!(first.path, CHAT);
            assert_eq!(header(&first, "authorization"), ["Bearer sk-of-0"]);
            assert_eq!(
                (header(&first, "x-only-0"), header(&first, "x-team")),
                (vec!["yes".to_owned()], vec![])
            );
            is_for_the_second(&serving, &body);
            if asks == ONE {
                // What the first attempt took off is there again.
                assert_eq!(header(&serving.last(), "x-team"), ["a"]);
            }
            let mut entry = Value::Null;
            until("the request is logged", async || {
                entry = rig.log().into_iter().find(|entry| entry["id"] == id.as_str()).unwrap_or_default();
                !entry.is_null()
            })
            .await;
            assert_eq!(entry["backend"], name(1), "{asks:?}");
            assert_eq!((&entry["service"], &entry["tokens"]), (&json!("default/b1"), &json!(7)), "{asks:?}");
        }
        until("every exchange is over", async || rig.active() == 0).await;
        if asks == ONE {
            let failed = |line: &str| {
                line.starts_with("aigw_attempts_failed_total")
                    && line.contains(&name(0))
                    && line.ends_with(" 3")
            };
            until("the failed attempts are counted", async || rig.metrics(0).await.lines().any(failed)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_retried_and_its_usage_asked_for_and_counted() {
    for asks in [ONE, APART] {
        let failing = Backend::start(&["--status", "429"]).await;
        let serving = Backend::start(&["--usage", "prompt=30,completion=40", "--chunks", "20"]).await;
        let setup = Setup { backends: &[&failing, &serving], config: config(), asks, picked: false };
        let Some(rig) = Rig::start(setup).await else { return };
        let body = chat(10, true);
        let answer = rig.peer().send(post(CHAT, &[("x-request-id", "s")], body.clone())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
        // The client of a Go gateway sees the usage that the gateway asked for.
        assert!(answer.text().contains("\"usage\":{"), "{asks:?} {}", answer.text());
        is_for_the_second(&serving, &body);
        until("the tokens are logged", async || rig.log().iter().any(|entry| entry["tokens"] == 70)).await;
    }
}

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_attempt_the_clients_bytes_pass_untouched() {
    for asks in [ONE, APART] {
        let backend = Backend::start(&[]).await;
        let setup = Setup {
            backends: &[&backend],
            config: vec![json!({"schema": {"name": "OpenAI"}})],
            asks,
            picked: false,
        };
        let Some(rig) = Rig::start(setup).await else { return };
        let body = "{ \"model\" :\"m\",\n\"messages\":[ ]  }";
        let answer = rig.peer().send(post(CHAT, &[("x-ai-eg-upstream-host", "forged")], body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(backend.last().body_sha256, sha256(body));
        assert_eq!(header(&backend.last(), "x-ai-eg-upstream-host"), [""; 0]);
        assert_eq!(header(&backend.last(), "host"), ["b0.example"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_backend_gets_nothing() {
    for asks in [ONE, APART] {
        let backend = Backend::start(&[]).await;
        // Envoy's name for the only backend is not among these.
        let setup = Setup { backends: &[&backend], config: vec![], asks, picked: false };
        let Some(rig) = Rig::start(setup).await else { return };
        let answer = rig.peer().send(post(CHAT, &[], chat(1, false))).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (500, ""), "{asks:?}");
        assert_eq!(backend.counters().requests, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_provider_is_answered_as_by_the_go_gateway() {
    let backend = Backend::start(&[]).await;
    let setup = Setup { backends: &[&backend], config: config(), asks: ONE, picked: false };
    let Some(rig) = Rig::start(setup).await else { return };
    let answer = rig.peer().send(get("/nowhere?x=1")).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (404, "unsupported path: /nowhere?x=1"));
    assert_eq!(answer.headers["content-type"], "text/plain");
    let models = rig.peer().send(get("/v1/models")).await.json();
    assert_eq!(models["data"][0]["id"], "m");
    let answer = rig.peer().send(post(CHAT, &[], "{\"model\": 1}")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["type"]), (400, &json!("BadRequest")));
    // Whether there is a route is Envoy's to say.
    let answer = rig.peer().send(post(CHAT, &[], r#"{"model":"other","messages":[]}"#)).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (404, "no route"));
    until("every exchange is over", async || rig.active() == 0).await;
    assert_eq!(backend.counters().requests, 0);
}

/// An endpoint the second backend's dialect does not have.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_front_of_a_provider_reaches_the_client() {
    for asks in [ONE, APART] {
        let backend = Backend::start(&[]).await;
        let config = vec![json!({"schema": {"name": "Cohere", "version": "v2"}})];
        let setup = Setup { backends: &[&backend], config, asks, picked: false };
        let Some(rig) = Rig::start(setup).await else { return };
        let answer = rig.peer().send(post(CHAT, &[], chat(1, false))).await;
        assert_eq!(answer.status, 422, "{asks:?}");
        assert_eq!(answer.json()["error"]["type"], "UnprocessableEntity");
        assert_eq!(backend.counters().requests, 0);
        until("every exchange is over", async || rig.active() == 0).await;
    }
}

/// The picker chooses a host, whose metadata say nothing about the backend then; the cluster's do.
#[tokio::test(flavor = "multi_thread")]
async fn behind_an_endpoint_picker_the_cluster_names_the_backend() {
    for asks in [ONE, APART] {
        let backend = Backend::start(&[]).await;
        let setup = Setup { backends: &[&backend], config: vec![config().remove(0)], asks, picked: true };
        let Some(rig) = Rig::start(setup).await else { return };
        let picked = [("x-gateway-destination-endpoint", "10.0.0.1:8000")];
        assert_eq!(rig.peer().send(post(CHAT, &picked, chat(1, false))).await.status, 200);
        assert_eq!(header(&backend.last(), "authorization"), ["Bearer sk-of-0"]);
        backend.reset();
        // Without the picker's header the host's own name counts, which the configuration does not know.
        assert_eq!(rig.peer().send(post(CHAT, &[], chat(1, false))).await.status, 500);
        assert_eq!(backend.counters().requests, 0);
    }
}

/// While the configuration changes, requests go on, and no backend ever sees another's key.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_swaps_under_load_never_misdeliver_a_key() {
    let failing = Backend::start(&["--status", "503"]).await;
    let serving = Backend::start(&[]).await;
    let setup = Setup { backends: &[&failing, &serving], config: config(), asks: MIXED, picked: false };
    let Some(rig) = Rig::start(setup).await else { return };
    let (ended, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let stop = tokio_util::sync::CancellationToken::new();
    for _ in 0..4 {
        let (peer, ended, stop) = (rig.peer(), ended.clone(), stop.clone());
        spawn(async move {
            let mut connection = peer.keep().await;
            while !stop.is_cancelled() {
                let answer = connection.send(post(CHAT, &[], chat(100, false))).await;
                if ended.send(answer.status.as_u16()).is_err() {
                    break;
                }
            }
        });
    }
    drop(ended);
    for swap in 0..1000 {
        // Keys, order and everything else change; names stay with their backends.
        let mut config = config();
        config[0]["auth"] = json!({"apiKey": {"key": format!("sk-of-0-{swap}")}});
        config[1]["auth"] = match swap % 3 {
            0 => json!({"apiKey": {"key": format!("sk-of-1-{swap}")}}),
            1 => json!({"azureAPIKey": {"key": format!("sk-of-1-{swap}")}}),
            _ => json!({"anthropicAPIKey": {"key": format!("sk-of-1-{swap}")}}),
        };
        rig.publish(&config);
        // At least every few swaps a request has ended, so that the load is there all along.
        if swap % 5 == 0 {
            assert_eq!(answers.recv().await, Some(200));
        }
    }
    stop.cancel();
    while let Some(status) = answers.recv().await {
        assert_eq!(status, 200);
    }
    for (backend, own, foreign) in [(&failing, "sk-of-0", "sk-of-1"), (&serving, "sk-of-1", "sk-of-0")] {
        let all = backend.all();
        assert!(!all.is_empty());
        for recorded in all {
            let headers = Value::Object(recorded.headers).to_string();
            assert!(!headers.contains(foreign), "{headers}");
            assert_eq!(headers.matches(own).count(), 1, "{headers}");
        }
    }
}

/// Clients that leave, at every phase, leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_leave_nothing_behind() {
    for asks in [ONE, APART] {
        let failing = Backend::start(&["--status", "503"]).await;
        let endless = Backend::start(&["--fault", "endless", "--pace", "5ms"]).await;
        let setup = Setup { backends: &[&failing, &endless], config: config(), asks, picked: false };
        let Some(rig) = Rig::start(setup).await else { return };
        for _ in 0..20 {
            let answer = rig.peer().open(post(CHAT, &[], chat(1, true))).await.expect("headers");
            assert_eq!(answer.status(), 200);
            drop(answer);
        }
        until("every exchange is over", async || rig.active() == 0).await;
        endless.idle().await;
        let interrupted = |metrics: &str| {
            metrics.lines().any(|line| line.contains("outcome=\"interrupted\"") && line.ends_with(" 20"))
        };
        until("each is settled", async || interrupted(&rig.metrics(0).await)).await;
    }
}
