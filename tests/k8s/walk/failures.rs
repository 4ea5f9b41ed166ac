//! Controllers and API servers that go away.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{BASIC, KIMI};
use crate::support::guide::{Entrance, Guide, SYSTEM};
use crate::support::{isolated_with_envoy, until, until_some};

/// Two controllers, and a Lease that is soon free when its holder is gone.
const VALUES: [&str; 2] = [
    "controller.replicaCount=2",
    "controller.extraArgs={--lease-duration=5s,--renew-deadline=3s,--retry-period=500ms}",
];

#[test]
fn controllers_and_the_api_server_may_go_away() {
    isolated_with_envoy(async |api, envoy| {
        let mut guide = Guide::begin(api, envoy, "v1.9.1", &VALUES).await;
        let entrance = guide.basic_and_kimi("sk-kimi").await;
        until("both models are served", async || entrance.serves(BASIC).await && entrance.serves(KIMI).await)
            .await;
        a_controller_dies(&guide, &entrance).await;
        the_api_server_is_away(&mut guide, &entrance).await;
    });
}

/// Routes with a model each, all on the backend of the example.
fn routes(prefix: &str, count: usize) -> String {
    let route = |number| {
        json!({
            "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIGatewayRoute",
            "metadata": {"name": format!("{prefix}-{number}"), "namespace": "default"},
            "spec": {
                "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "envoy-ai-gateway-basic"}],
                "rules": [{
                    "matches": [{"headers": [{"name": "x-ai-eg-model", "value": format!("{prefix}-{number}")}]}],
                    "backendRefs": [{"name": "envoy-ai-gateway-basic-testupstream"}],
                }],
            },
        })
        .to_string()
    };
    (0..count).map(route).collect::<Vec<_>>().join("\n---\n")
}

/// The pod that holds the Lease.
async fn leader(guide: &Guide) -> String {
    let leases: Api<Lease> = Api::namespaced(guide.cluster.client(), SYSTEM);
    let pods = guide.cluster.pods(SYSTEM, "app.kubernetes.io/name=ai-gateway-controller").await;
    let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    until_some("a controller leads", async || {
        let lease = leases.get_opt("envoy-ai-gateway-controller").await.expect("an answer")?;
        let holder = lease.spec?.holder_identity?;
        names.iter().find(|name| holder.starts_with(name.as_str())).cloned()
    })
    .await
}

/// The leader is killed while it applies many changes: the other goes on where it has stopped.
async fn a_controller_dies(guide: &Guide, entrance: &Entrance) {
    const MANY: usize = 12;
    let first = leader(guide).await;
    guide.cluster.api.apply(&routes("before", MANY)).await;
    guide.cluster.node.kill(SYSTEM, &first);
    until("all models are served", async || {
        assert_eq!(entrance.chat(KIMI).await.status, 200, "the change of controllers is felt");
        let mut served = true;
        for number in 0..MANY {
            served &= entrance.serves(&format!("before-{number}")).await;
        }
        served
    })
    .await;
    until("another leads", async || leader(guide).await != first).await;
    let routes = ["-n", "default", "get", "httproutes", "-o", "jsonpath={.items[*].metadata.name}", "-l"];
    let label = "app.kubernetes.io/managed-by=envoy-ai-gateway";
    let routes = guide.cluster.api.kubectl(&[&routes[..], &[label]].concat()).await;
    let mut names: Vec<&str> = routes.split_whitespace().collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), MANY + 2, "one for each route and none besides: {names:?}");
}

/// Half a minute without an API server: requests are served as before. Then changes come through again.
async fn the_api_server_is_away(guide: &mut Guide, entrance: &Entrance) {
    guide.cluster.api.stop().await;
    let gone = Instant::now();
    let mut count = 0;
    while gone.elapsed() < Duration::from_secs(30) {
        for model in [BASIC, KIMI] {
            let answer = entrance.chat(model).await;
            assert_eq!(answer.status, 200, "after {:?}: {}", gone.elapsed(), answer.text());
            count += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(count > 100, "only {count} requests");
    guide.cluster.api.resume().await;
    guide.cluster.api.apply(&routes("after", 1)).await;
    until("a change comes through", async || {
        assert_eq!(entrance.chat(KIMI).await.status, 200, "the return of the API server is felt");
        entrance.serves("after-0").await
    })
    .await;
}
