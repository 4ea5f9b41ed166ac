//! The walkthrough of the guide, on a cluster, with a real Envoy that a real Envoy Gateway programs.

mod changes;
mod failures;
mod tenants;

use std::path::PathBuf;

use crate::support::apiserver::ApiServer;
use crate::support::guide::{Guide, kimi};
use crate::support::{isolated_with_envoy, shared_data, until};

/// The models of the two examples.
pub(crate) const BASIC: &str = "some-cool-self-hosted-model";
pub(crate) const KIMI: &str = "kimi-k2-0905-preview";

/// The answer for a model that no route names.
pub(crate) const NO_ROUTE: &str = "No matching route found. It is likely that the model specified your request is not configured in the Gateway";

#[test]
fn the_walkthrough_with_envoy_gateway_1_8() {
    isolated_with_envoy(async |api, envoy| walk(api, envoy, "v1.8.1").await);
}

#[test]
fn the_walkthrough_with_envoy_gateway_1_9() {
    isolated_with_envoy(async |api, envoy| walk(api, envoy, "v1.9.1").await);
}

async fn walk(api: ApiServer, envoy: PathBuf, version: &str) {
    let guide = Guide::begin(api, envoy, version, &[]).await;
    guide.cluster.api.kubectl(&["apply", "-f", "examples/basic/basic.yaml"]).await;
    let entrance = guide.entrance("envoy-ai-gateway-basic").await;
    until("the model is served", async || entrance.serves(BASIC).await).await;
    let body = r#"{"model":"some-cool-self-hosted-model","messages":[{"role":"system","content":"Hi."}]}"#;
    let answer = entrance.send(body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.json()["choices"][0]["message"],
        serde_json::json!({"role": "assistant", "content": "I am inevitable."})
    );

    // The guide's file has been written for the Go gateway, in its older version.
    let theirs = shared_data().map(|data| data.join("seed/kimi.yaml"));
    if let Some(theirs) = theirs {
        guide.cluster.api.kubectl(&["apply", "-f", theirs.to_str().expect("UTF-8")]).await;
        until("the guide's model is served", async || entrance.serves(KIMI).await).await;
    }
    guide.cluster.api.apply(&kimi("sk-kimi")).await;
    until("the key has reached a processor", async || {
        guide.provider.take();
        entrance.serves(KIMI).await
            && guide.provider.take().iter().any(|seen| seen.authorization == "Bearer sk-kimi")
    })
    .await;
    guide.signs_with(&entrance, "Bearer sk-kimi", "Bearer sk-xxxxxxxxxxxxxx").await;
    let answer = entrance.chat_with(KIMI, &[("authorization", "Bearer the-clients-own")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(answer["choices"][0]["message"]["content"].is_string());
    assert_eq!(
        answer["usage"],
        serde_json::json!({"prompt_tokens": 9, "completion_tokens": 11, "total_tokens": 20})
    );
    let seen = guide.provider.take();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].authorization.as_str(), seen[0].model.as_str()), ("Bearer sk-kimi", KIMI));
    assert_eq!(seen[0].path, "/v1/chat/completions");
    let routing = ["x-ai-eg-route", "x-ai-eg-processed"];
    let internal = &seen[0].internal;
    assert!(
        !internal.iter().any(|name| routing.contains(&name.as_str())),
        "the routing key got out: {internal:?}"
    );

    let answer = entrance.chat("nobody-serves-this").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains(NO_ROUTE), "{}", answer.text());
}
