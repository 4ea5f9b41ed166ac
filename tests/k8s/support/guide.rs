//! The steps of the guide's walkthrough, as a user does them.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::apiserver::ApiServer;
use super::cluster::{Cluster, WORLD, envoy_gateway};
use super::http::{Answer, Peer, post};
use super::provider::Provider;
use super::until;
use crate::walk::KIMI;

/// Where the AI gateway is.
pub(crate) const SYSTEM: &str = "envoy-ai-gateway-system";

/// Where Envoy Gateway and its Envoys are.
pub(crate) const ENVOYS: &str = "envoy-gateway-system";

/// The provider of `kimi.yaml`.
const PROVIDER: &str = "api.moonshot.cn";

/// A cluster on which the guide is followed.
pub(crate) struct Guide {
    pub(crate) cluster: Cluster,
    pub(crate) provider: Provider,
}

/// One Gateway, as clients see it.
#[derive(Debug, Clone)]
pub(crate) struct Entrance(Peer);

impl Guide {
    /// Points 1 to 4: Envoy Gateway, this project with these values of its chart, Redis and the configuration.
    pub(crate) async fn begin(api: ApiServer, envoy: PathBuf, version: &str, values: &[&str]) -> Self {
        let provider = Provider::start(PROVIDER).await;
        let gateway = api.tools.path(&format!("eg-{version}"));
        let cluster = Cluster::start(api, &provider.authority, envoy_gateway(&gateway, &envoy)).await;
        cluster.network.outside(PROVIDER, WORLD);
        let api = &cluster.api;
        let chart = gateway.join("chart");
        api.helm(&["install", "eg", text(&chart), "-n", ENVOYS, "--create-namespace"]).await;
        cluster.wait(ENVOYS, "condition=Available", &["deployment/envoy-gateway"]).await;

        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/charts/ai-gateway-helm");
        let install = ["install", "aieg", text(&chart), "-n", SYSTEM, "--create-namespace"];
        let values: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
        api.helm(&[&install[..], &values].concat()).await;
        cluster.wait(SYSTEM, "condition=Available", &["deployment/ai-gateway-controller"]).await;

        for file in ["redis", "config", "rbac"] {
            api.kubectl(&["apply", "-f", &format!("manifests/envoy-gateway-config/{file}.yaml")]).await;
        }
        api.kubectl(&["-n", ENVOYS, "rollout", "restart", "deployment/envoy-gateway"]).await;
        let status = ["-n", ENVOYS, "rollout", "status", "deployment/envoy-gateway", "--timeout=100s"];
        api.kubectl(&status).await;
        for namespace in [SYSTEM, ENVOYS] {
            until("all pods are running and ready", async || {
                let pods = cluster.pods(namespace, "").await;
                // What certificates were made by has ended.
                let mut pods = pods.iter().filter(|pod| !pod.labels().contains_key("job-name"));
                pods.all(is_ready)
            })
            .await;
        }
        Self { cluster, provider }
    }

    /// Point 5, for this Gateway of the default namespace.
    pub(crate) async fn entrance(&self, gateway: &str) -> Entrance {
        let label = format!("gateway.envoyproxy.io/owning-gateway-name={gateway}");
        until("an Envoy is ready", async || {
            let pods = self.cluster.pods(ENVOYS, &label).await;
            !pods.is_empty() && pods.iter().all(is_ready)
        })
        .await;
        let gateway = format!("gateway/{gateway}");
        self.cluster.wait("default", "condition=Programmed", &[&gateway]).await;
        let address = ["get", &gateway, "-o", "jsonpath={.status.addresses[0].value}"];
        let address = self.cluster.api.kubectl(&address).await;
        Entrance(Peer::Tcp(format!("{address}:80").parse().expect("an address")))
    }

    /// Waits until both processors sign requests to the provider with this key: one may have it before the other. Until then it is
    /// the old one, and no request fails.
    pub(crate) async fn signs_with(&self, entrance: &Entrance, new: &str, old: &str) {
        let mut streak = 0;
        self.provider.take();
        until("both processors sign with the new key", async || {
            assert_eq!(entrance.chat(KIMI).await.status, 200, "a rotation is felt");
            let seen = self.provider.take();
            let [seen] = &seen[..] else { panic!("one request, not {seen:?}") };
            assert!([new, old].contains(&seen.authorization.as_str()), "{seen:?}");
            streak = if seen.authorization == new { streak + 1 } else { 0 };
            streak == 20
        })
        .await;
    }

    /// `examples/basic/basic.yaml` as it is, and the guide's `kimi.yaml` with a key.
    pub(crate) async fn basic_and_kimi(&self, key: &str) -> Entrance {
        self.cluster.api.kubectl(&["apply", "-f", "examples/basic/basic.yaml"]).await;
        let entrance = self.entrance("envoy-ai-gateway-basic").await;
        self.cluster.api.apply(&kimi(key)).await;
        entrance
    }
}

impl Entrance {
    /// What a chat with this model is answered.
    pub(crate) async fn chat(&self, model: &str) -> Answer {
        self.chat_with(model, &[]).await
    }

    /// As [`Entrance::chat`], with these headers.
    pub(crate) async fn chat_with(&self, model: &str, headers: &[(&str, &str)]) -> Answer {
        self.0.send(post("/v1/chat/completions", headers, chat(model))).await
    }

    /// Whether a chat with this model is served. Where nobody listens (yet) it is not.
    pub(crate) async fn serves(&self, model: &str) -> bool {
        self.0.open(post("/v1/chat/completions", &[], chat(model))).await.is_ok_and(|a| a.status() == 200)
    }

    /// Sends this body.
    pub(crate) async fn send(&self, body: &str) -> Answer {
        self.0.send(post("/v1/chat/completions", &[], body.to_owned())).await
    }
}

fn chat(model: &str) -> String {
    json!({"model": model, "messages": [{"role": "user", "content": "Hi."}]}).to_string()
}

/// The guide's second file with a key.
pub(crate) fn kimi(key: &str) -> String {
    let example = std::fs::read_to_string("examples/basic/kimi.yaml").expect("the example");
    example.replace("${KIMI_API_KEY:-replace-me}", key)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
