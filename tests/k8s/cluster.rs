//! The cluster itself: what the other tests build on.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};

use crate::support::cluster::Cluster;
use crate::support::http::{Peer, get};
use crate::support::{isolated, until};

#[test]
fn an_api_server_answers_and_rbac_decides() {
    isolated(async |mut cluster| {
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some("kept".to_owned()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        };
        maps.create(&PostParams::default(), &map).await.expect("an administrator may");
        let theirs = cluster.client_as("default", "default").await;
        let secrets: Api<Secret> = Api::namespaced(theirs, "default");
        let refused = secrets.list(&ListParams::default()).await.expect_err("nobody gave it the right");
        assert!(refused.to_string().contains("cannot list resource"), "{refused}");

        cluster.stop().await;
        maps.get("kept").await.expect_err("there is no API server");
        cluster.resume().await;
        maps.get("kept").await.expect("what was stored is still there");
    });
}

#[test]
fn pods_of_deployments_run_and_services_lead_to_them() {
    isolated(async |api| {
        let cluster = Cluster::start(api, "", Vec::new()).await;
        // Its Service and Deployment, and what a cluster without Envoy Gateway knows nothing of.
        let documents = std::fs::read_to_string("examples/basic/basic.yaml").expect("the example");
        let known =
            |document: &&str| document.contains("kind: Deployment") || document.contains("kind: Service\n");
        let documents: Vec<&str> = documents.split("\n---\n").filter(known).collect();
        assert_eq!(documents.len(), 2);
        cluster.api.apply(&documents.join("\n---\n")).await;
        let name = "envoy-ai-gateway-basic-testupstream";
        cluster.wait("default", "condition=Available", &["deployment", name]).await;

        let services: Api<Service> = Api::namespaced(cluster.client(), "default");
        let address = services.get(name).await.expect("the Service").spec.and_then(|spec| spec.cluster_ip);
        let peer = Peer::Tcp(format!("{}:80", address.expect("an address")).parse().expect("an address"));
        until("the Service answers", async || {
            peer.open(get("/health")).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;

        // A process that is gone is started again; a pod that is deleted is replaced by another.
        let first = cluster.pods("default", &format!("app={name}")).await.remove(0).name_any();
        cluster.node.kill("default", &first);
        until("it is started again", async || {
            let pod = cluster.pods("default", &format!("app={name}")).await.remove(0);
            let states = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            states.iter().any(|state| state.restart_count == 1 && state.ready)
        })
        .await;
        cluster.api.kubectl(&["-n", "default", "delete", "pod", &first]).await;
        until("another takes its place", async || {
            let pods = cluster.pods("default", &format!("app={name}")).await;
            pods.len() == 1 && pods[0].name_any() != first && peer.open(get("/health")).await.is_ok()
        })
        .await;
    });
}
