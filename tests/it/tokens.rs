//! Token usage, from the provider's answer to the access log, through a real Envoy.

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::post;
use crate::support::{shared_data, until, yaml};

const CHAT: &str = "/v1/chat/completions";
const USAGE: (&str, &str) =
    ("x-testbackend-usage", "prompt=100,completion=40,cached=30,cache-creation=20,reasoning=10");

/// The access log's next line about this request id.
async fn logged(gateway: &Gateway, id: &str) -> Value {
    let mut found = None;
    until("the request is in the access log", async || {
        let lines = gateway.lines();
        let mut entries =
            lines.iter().filter(|l| l.starts_with('{')).filter_map(|l| serde_json::from_str::<Value>(l).ok());
        found = entries.find(|entry| entry["x-request-id"] == id);
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// The same requests in each form an answer can take.
async fn every_form(gateway: &Gateway, model: &str, check: impl Fn(&Value)) {
    let unary = format!(r#"{{"model":"{model}","messages":[]}}"#);
    let stream = format!(r#"{{"model":"{model}","messages":[],"stream":true}}"#);
    let forms = [
        (&unary, "identity", ("x-a", "")),
        (&unary, "gzip", ("x-a", "")),
        (&unary, "br", ("x-a", "")),
        (&stream, "identity", ("x-a", "")),
        (&stream, "gzip", ("x-a", "")),
        (&stream, "br", ("x-a", "")),
        (&stream, "identity", ("x-testbackend-usage-every-chunk", "true")),
        (&stream, "identity", ("x-testbackend-chunks", "500")),
    ];
    for (number, (body, encoding, extra)) in forms.into_iter().enumerate() {
        let headers = [USAGE, ("x-testbackend-encoding", encoding), ("x-request-id", &id(number)), extra];
        let answer = gateway.peer().send(post(CHAT, &headers, body.clone())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // Envoy writes its log in batches, so it is read when all is sent.
    for (number, form) in forms.into_iter().enumerate() {
        let entry = logged(gateway, &id(number)).await;
        println!("{form:?}: {entry}");
        check(&entry);
    }
}

fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_example_shows_tokens() {
    let (Some(data), Some(setup)) = (shared_data(), Setup::new().await) else { return };
    let file = std::fs::read_dir(data.join("examples/access-log")).unwrap().next().unwrap().unwrap().path();
    let gateway = setup.file(file).start().await;
    every_form(&gateway, "some-cool-self-hosted-model", |entry| {
        assert_eq!(entry["gen_ai.usage.input_tokens"], 100);
        assert_eq!(entry["gen_ai.usage.output_tokens"], 40);
        assert_eq!(entry["gen_ai.usage.reasoning_tokens"], 10);
        assert_eq!(entry["gen_ai.request.model"], "some-cool-self-hosted-model");
        assert!(
            entry["gen_ai.provider.name"].as_str().unwrap().contains("envoy-ai-gateway-basic-testupstream")
        );
        assert_eq!(entry["response_code"], 200);
    })
    .await;
    gateway.stop().await;
}

const LOG: &str = r#"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: log, namespace: default}
spec:
  telemetry:
    accessLog:
      settings:
        - sinks: [{type: File, file: {path: /dev/stdout}}]
          format:
            type: JSON
            json:
              x-request-id: "%REQ(X-REQUEST-ID)%"
              code: "%RESPONSE_CODE%"
              input: "%DYNAMIC_METADATA(io.envoy.ai_gateway:input)%"
              cached: "%DYNAMIC_METADATA(io.envoy.ai_gateway:cached)%"
              created: "%DYNAMIC_METADATA(io.envoy.ai_gateway:created)%"
              output: "%DYNAMIC_METADATA(io.envoy.ai_gateway:output)%"
              reasoning: "%DYNAMIC_METADATA(io.envoy.ai_gateway:reasoning)%"
              total: "%DYNAMIC_METADATA(io.envoy.ai_gateway:total)%"
              price: "%DYNAMIC_METADATA(io.envoy.ai_gateway:price)%"
---
"#;

const COSTS: &str = r#"
  llmRequestCosts:
    - {metadataKey: input, type: InputToken}
    - {metadataKey: cached, type: CachedInputToken}
    - {metadataKey: created, type: CacheCreationInputToken}
    - {metadataKey: output, type: OutputToken}
    - {metadataKey: reasoning, type: ReasoningToken}
    - {metadataKey: total, type: TotalToken}
    - metadataKey: price
      type: CEL
      cel: "model == 'm' ? (input_tokens - cached_input_tokens) * 3u + cached_input_tokens + output_tokens * 15u : 0u"
"#;

fn gateway_with_log() -> String {
    let parameters =
        "  infrastructure: {parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: log}}\n";
    let spec = "  gatewayClassName: test\n";
    yaml::gateway("1Mi").replace(spec, &format!("{spec}{parameters}")) + LOG
}

#[tokio::test(flavor = "multi_thread")]
async fn every_class_of_token_and_an_expression_become_metadata() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let resources =
        gateway_with_log() + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], COSTS);
    let gateway = setup.yaml(resources).start().await;
    every_form(&gateway, "m", |entry| {
        let expected = [
            ("input", 100),
            ("cached", 30),
            ("created", 20),
            ("output", 40),
            ("reasoning", 10),
            ("total", 140),
            ("price", (100 - 30) * 3 + 30 + 40 * 15),
        ];
        for (key, value) in expected {
            assert_eq!(entry[key], value, "{key}");
        }
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_error_costs_nothing() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let resources =
        gateway_with_log() + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], COSTS);
    let gateway = setup.yaml(resources).start().await;
    let statuses = ["400", "429", "500"];
    for (number, status) in statuses.into_iter().enumerate() {
        let headers = [("x-testbackend-status", status), ("x-request-id", &id(number))];
        gateway.peer().send(post(CHAT, &headers, r#"{"model":"m","messages":[]}"#)).await;
    }
    for (number, status) in statuses.into_iter().enumerate() {
        let entry = logged(&gateway, &id(number)).await;
        assert_eq!(entry["code"].to_string(), status);
        assert!(entry["total"].is_null() || entry["total"] == 0, "{entry}");
    }
    gateway.stop().await;
}
