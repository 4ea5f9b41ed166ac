//! Requests of every shape through a real Envoy: what arrives at the provider and what comes back.

use std::io::Read;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Version};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::backend::{Backend, header};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{collect, get, post};
use crate::support::yaml;

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi."}]}"#;
const STREAM: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// One model `m` on one backend with a key, another `other` on the same backend under another name and key.
async fn start(flags: &[&str]) -> Option<(Backend, Gateway)> {
    let setup = Setup::new().await?;
    let backend = Backend::start(flags).await;
    let gateway = setup
        .yaml(yaml::gateway("50Mi"))
        .yaml(yaml::backend("one", backend.addr) + &yaml::api_key("one", "sk-one"))
        .yaml(yaml::backend("two", backend.addr) + &yaml::api_key("two", "sk-two"))
        .yaml(yaml::route(&[("m", "one"), ("other", "two")], ""))
        .start()
        .await;
    Some((backend, gateway))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_model_takes_its_own_key_and_nothing_of_the_clients() {
    let Some((backend, gateway)) = start(&[]).await else { return };
    for (model, key) in [("m", "Bearer sk-one"), ("other", "Bearer sk-two")] {
        let sent = [
            ("authorization", "Bearer client"),
            ("api-key", "client"),
            ("x-api-key", "client"),
            ("x-ai-eg-model", "other"),
            ("x-ai-eg-route", "forged"),
            ("x-ai-eg-processed", "forged"),
            ("x-ai-eg-anything", "forged"),
            ("x-custom", "kept"),
        ];
        let body = BODY.replace("\"m\"", &format!("\"{model}\""));
        let answer = gateway.peer().send(post(CHAT, &sent, body.clone())).await;
        assert_eq!(answer.status, 200);
        let seen = backend.last();
        assert_eq!(header(&seen, "authorization"), [key]);
        assert_eq!(header(&seen, "x-custom"), ["kept"]);
        assert_eq!(seen.body, body);
        let all = serde_json::to_string(&seen.headers).unwrap();
        assert!(!all.contains("client") && !all.contains("forged"), "{all}");
        for name in ["x-ai-eg-route", "x-ai-eg-processed"] {
            assert!(header(&seen, name).is_empty(), "{name} is for Envoy alone: {all}");
        }
        let returned = format!("{:?}", answer.headers);
        assert!(!returned.contains("sk-"), "{returned}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_choose_the_rule_by_header() {
    let Some((backend, gateway)) = start(&[]).await else { return };
    let unknown = BODY.replace("\"m\"", "\"unknown\"");
    let answer = gateway.peer().send(post(CHAT, &[("x-ai-eg-model", "m")], unknown)).await;
    assert_eq!(answer.status, 404);
    assert_eq!(backend.counters().requests, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_fifty_mebibytes_passes_whole() {
    let Some((backend, gateway)) = start(&[]).await else { return };
    let start = r#"{"model":"m","messages":[{"role":"user","content":""#;
    let end = r#""}]}"#;
    // The limit counts the whole body.
    let filling = "x".repeat((50 << 20) - start.len() - end.len());
    let body = format!("{start}{filling}{end}");
    let sha256 = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
    let sha256: String = sha256.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let answer = gateway.peer().send(post(CHAT, &[], body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = backend.last();
    assert_eq!((seen.body_bytes, seen.body_sha256), (50 << 20, sha256));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_chunked_and_expecting_clients() {
    let Some((backend, gateway)) = start(&[]).await else { return };

    let mut request = post(CHAT, &[], BODY);
    request.headers_mut().remove("host");
    *request.uri_mut() = format!("http://localhost{CHAT}").parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    let answer = gateway.peer().send(request).await;
    assert_eq!((answer.status.as_u16(), answer.version), (200, Version::HTTP_2));
    assert_eq!(backend.last().body, BODY);

    let pieces: Vec<_> = BODY
        .as_bytes()
        .chunks(7)
        .map(|p| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(p))))
        .collect();
    let request = Request::post(CHAT).header("host", "localhost").header("content-type", "application/json");
    let request = request.body(StreamBody::new(stream::iter(pieces))).unwrap();
    let answer = collect(gateway.peer().open(request).await.unwrap()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(backend.last().body, BODY);

    let mut socket = TcpStream::connect(gateway.addr).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut interim = vec![0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    socket.read_exact(&mut interim).await.unwrap();
    assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(BODY.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(backend.last().body, BODY);
    gateway.stop().await;
}

fn decode(encoding: &str, wire: &[u8]) -> String {
    let mut text = String::new();
    match encoding {
        "gzip" => flate2::read::MultiGzDecoder::new(wire).read_to_string(&mut text).unwrap(),
        _ => brotli_decompressor::Decompressor::new(wire, 4096).read_to_string(&mut text).unwrap(),
    };
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_answers_pass_as_they_are_unless_usage_has_to_be_hidden() {
    let Some((_backend, gateway)) = start(&["--encoding=auto", "--usage=prompt=9,completion=11"]).await
    else {
        return;
    };
    let asked = STREAM.replace("}", r#","stream_options":{"include_usage":true}}"#);
    for encoding in ["gzip", "br"] {
        let send = async |body: &str| {
            let answer =
                gateway.peer().send(post(CHAT, &[("accept-encoding", encoding)], body.to_owned())).await;
            assert_eq!(answer.status, 200);
            let encoded =
                answer.headers.get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
            let text =
                encoded.as_ref().map_or_else(|| answer.text(), |encoding| decode(encoding, &answer.body));
            (encoded, text)
        };
        let (encoded, text) = send(BODY).await;
        assert_eq!(encoded.as_deref(), Some(encoding));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["usage"]["total_tokens"], 20);

        let (encoded, text) = send(&asked).await;
        assert_eq!(encoded.as_deref(), Some(encoding));
        assert!(text.contains("\"prompt_tokens\":9") && text.ends_with("data: [DONE]\n\n"), "{text}");

        // An event cannot be taken out of a compressed stream: the client gets it plain.
        let (encoded, text) = send(STREAM).await;
        assert_eq!(encoded, None);
        assert!(!text.contains("prompt_tokens") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_usage_to_those_who_asked_and_is_asked_for_it_always() {
    let Some((backend, gateway)) = start(&["--usage=prompt=9,completion=11"]).await else { return };
    let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let declined = r#"{"model":"m","stream":true,"stream_options":{"include_usage":false},"messages":[]}"#;
    for (body, shown) in [(STREAM, false), (asked, true), (declined, false)] {
        let answer = gateway.peer().send(post(CHAT, &[], body)).await;
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        let text = answer.text();
        let events: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!(events.last(), Some(&"data: [DONE]"));
        let said: String = events
            .iter()
            .filter_map(|e| serde_json::from_str::<Value>(e.strip_prefix("data: ")?).ok())
            .filter_map(|e| Some(e["choices"][0]["delta"]["content"].as_str()?.to_owned()))
            .collect();
        assert_eq!(said, "I am inevitable.");
        assert_eq!(text.contains("\"prompt_tokens\":9"), shown, "{body}: {text}");
        let seen: Value = serde_json::from_str(backend.last().body.as_str().unwrap()).unwrap();
        assert_eq!(seen["stream_options"]["include_usage"], true, "{body}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one() {
    let Some((backend, gateway)) = start(&[]).await else { return };
    // The stream stalls after its second event: what is read must have come before its end.
    let response =
        gateway.peer().open(post(CHAT, &[("x-testbackend-fault", "stall:2")], STREAM)).await.unwrap();
    let mut body = response.into_body();
    let mut text = String::new();
    while text.matches("\n\n").count() < 2 {
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    }
    assert!(text.contains("\"role\":\"assistant\"") && text.contains("\"content\":\"I \""), "{text}");
    drop(body);
    backend.idle().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_embeddings_and_models() {
    let Some((backend, gateway)) = start(&[]).await else { return };
    let answer = gateway.peer().send(post("/v1/completions", &[], r#"{"model":"m","prompt":"Hi."}"#)).await;
    assert_eq!(answer.json()["object"], "text_completion");
    assert_eq!(backend.last().path, "/v1/completions");
    let answer =
        gateway.peer().send(post("/v1/embeddings", &[], r#"{"model":"other","input":["a","b"]}"#)).await;
    assert_eq!(answer.json()["data"].as_array().unwrap().len(), 2);
    let seen = backend.last();
    assert_eq!(
        (&*seen.path, header(&seen, "authorization")),
        ("/v1/embeddings", vec!["Bearer sk-two".to_owned()])
    );

    backend.reset();
    let answer = gateway.peer().send(get("/v1/models")).await;
    let json = answer.json();
    let mut models: Vec<&str> =
        json["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    models.sort_unstable();
    assert_eq!(models, ["m", "other"]);
    assert_eq!(backend.counters().requests, 0, "the gateway answers this itself");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_with_trailers_are_whole_and_end() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&["--trailers=x-checksum=5", "--usage=prompt=9,completion=11"]).await;
    let h2c = yaml::backend("two", backend.addr)
        .replace("  endpoints:", "  appProtocols: [gateway.envoyproxy.io/h2c]\n  endpoints:");
    let gateway = setup
        .yaml(yaml::gateway("1Mi"))
        .yaml(yaml::backend("one", backend.addr) + &h2c)
        .yaml(yaml::route(&[("m", "one"), ("other", "two")], ""))
        .start()
        .await;
    let asked = STREAM.replace("}", r#","stream_options":{"include_usage":true}}"#);
    for (model, version) in [("m", "HTTP/1.1"), ("other", "HTTP/2.0")] {
        for body in [BODY, STREAM, &asked] {
            let body = body.replace("\"m\"", &format!("\"{model}\""));
            let mut request = post(CHAT, &[("te", "trailers")], body.clone());
            request.headers_mut().remove("host");
            *request.uri_mut() = format!("http://localhost{CHAT}").parse().unwrap();
            *request.version_mut() = Version::HTTP_2;
            let answer = gateway.peer().send(request).await;
            assert_eq!(backend.last().version, version);
            if body.contains("stream") {
                let text = answer.text();
                assert!(text.ends_with("data: [DONE]\n\n"), "{version} {body}: {text}");
                assert_eq!(
                    text.contains("\"prompt_tokens\":9"),
                    body.contains("include_usage"),
                    "{version} {body}"
                );
            } else {
                assert_eq!(answer.json()["usage"]["total_tokens"], 20);
            }
            let trailers = answer.trailers.unwrap_or_else(|| panic!("{version} {body}: no trailers"));
            assert_eq!(trailers["x-checksum"], "5", "{version} {body}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_mutations_and_another_model_name_reach_the_provider() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let mutation = "  headerMutation: {set: [{name: x-set, value: ours}], remove: [x-gone]}";
    let route = yaml::route(&[("m", "one")], "")
        .replace("{name: one}", "{name: one, modelNameOverride: provider-model}");
    let resources = yaml::gateway("1Mi") + &yaml::backend_with("one", backend.addr, mutation) + &route;
    let gateway = setup.yaml(resources).start().await;
    // What the gateway does not know must survive, in its place.
    let body = r#"{"messages": [ ], "model":"m", "unheard_of": {"b":1.0, "a":[null]}}"#;
    let sent = [("x-set", "client"), ("x-gone", "client"), ("x-kept", "client")];
    assert_eq!(gateway.peer().send(post(CHAT, &sent, body)).await.status, 200);
    let seen = backend.last();
    assert_eq!(seen.body, body.replace("\"m\"", "\"provider-model\""));
    assert_eq!(
        (header(&seen, "x-set"), header(&seen, "x-kept")),
        (vec!["ours".to_owned()], vec!["client".to_owned()])
    );
    assert!(header(&seen, "x-gone").is_empty());
    assert_eq!(header(&seen, "content-length"), [seen.body_bytes.to_string()]);
    gateway.stop().await;
}
