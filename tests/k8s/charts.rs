//! The Helm charts, installed on a real API server: what they ask for is admitted, and grants no more than it should.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::apiserver::ApiServer;
use crate::support::guide::SYSTEM;
use crate::support::{isolated, until, until_some};

const CHART: &str = "manifests/charts/ai-gateway-helm";

/// In a namespace that takes only pods which Kubernetes' restricted Pod Security Standard allows.
async fn install(api: &ApiServer, values: &[&str]) {
    let namespace = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {SYSTEM}, \
         labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
    );
    api.apply(&namespace).await;
    let values: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
    api.helm(&[&["install", "aieg", CHART, "-n", SYSTEM], &values[..]].concat()).await;
}

/// Whether the controller may do this, `VERB RESOURCE[.GROUP][/NAME]`, in a namespace; in all if it is empty. Its kind need not exist.
async fn may(api: &ApiServer, what: &str, namespace: &str) -> bool {
    let (verb, object) = what.split_once(' ').expect("a verb and a resource");
    let (resource, name) = object.split_once('/').unwrap_or((object, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {
            "user": format!("system:serviceaccount:{SYSTEM}:ai-gateway-controller"),
            "resourceAttributes": {
                "verb": verb, "resource": resource, "group": group, "name": name, "namespace": namespace,
            },
        },
    }))
    .expect("a review");
    let reviews: Api<SubjectAccessReview> = Api::all(api.client());
    let reviewed = reviews.create(&PostParams::default(), &review).await.expect("a verdict");
    reviewed.status.expect("a verdict").allowed
}

const ROUTES: &str = "list aigatewayroutes.aigateway.envoyproxy.io";
const MADE: &str = "create httproutes.gateway.networking.k8s.io";

fn explicit(name: &str, rules: Option<Vec<PolicyRule>>) {
    for rule in rules.into_iter().flatten() {
        let words = [rule.api_groups, rule.resources].into_iter().flatten().flatten().chain(rule.verbs);
        assert!(words.into_iter().all(|word| !word.contains('*')), "{name} has a wildcard");
    }
}

#[test]
fn charts_are_admitted_and_grant_no_more_than_they_should() {
    isolated(async |api| {
        for chart in [CHART, "manifests/charts/ai-gateway-crds-helm"] {
            api.helm(&["lint", "--strict", chart]).await;
        }
        install(&api, &["controller.replicaCount=2", "controller.podDisruptionBudget.enabled=true"]).await;
        let pods: Api<Pod> = Api::namespaced(api.client(), SYSTEM);
        let pods = until_some("two controllers and two processors are admitted", async || {
            let pods = pods.list(&ListParams::default()).await.expect("pods").items;
            (pods.len() == 4).then_some(pods)
        })
        .await;
        for pod in &pods {
            let container = &pod.spec.as_ref().expect("a spec").containers[0];
            let name = pod.name_any();
            for probe in [&container.startup_probe, &container.liveness_probe, &container.readiness_probe] {
                assert!(probe.is_some(), "{name} lacks a probe");
            }
            let context = container.security_context.as_ref().expect("a context");
            assert_eq!(context.read_only_root_filesystem, Some(true), "{name}");
            assert!(
                container.resources.as_ref().is_some_and(|resources| resources.requests.is_some()),
                "{name}"
            );
            let mounts = container.volume_mounts.iter().flatten();
            let token = mounts.into_iter().any(|mount| mount.mount_path.contains("serviceaccount"));
            assert_eq!(
                token,
                name.contains("controller"),
                "{name}: who does not ask the API server gets no token"
            );
        }
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(api.client(), SYSTEM);
        assert_eq!(budgets.list(&ListParams::default()).await.expect("budgets").items.len(), 2);
        let policies: Api<NetworkPolicy> = Api::namespaced(api.client(), SYSTEM);
        assert_eq!(policies.list(&ListParams::default()).await.expect("policies").items.len(), 2);

        let ours = ListParams::default().labels("app.kubernetes.io/part-of=envoy-ai-gateway");
        let cluster_roles = Api::<ClusterRole>::all(api.client()).list(&ours).await.expect("roles").items;
        let roles = Api::<Role>::all(api.client()).list(&ours).await.expect("roles").items;
        assert_eq!((cluster_roles.len(), roles.len()), (1, 1));
        cluster_roles.into_iter().for_each(|role| explicit(&role.name_any(), role.rules));
        roles.into_iter().for_each(|role| explicit(&role.name_any(), role.rules));
        until("what was granted is in force", async || {
            may(&api, "patch secrets/ai-gateway-ca", SYSTEM).await
                && may(&api, "get secrets", "default").await
                && may(&api, ROUTES, "").await
                && may(&api, MADE, "default").await
                && may(&api, "create referencegrants.gateway.networking.k8s.io", SYSTEM).await
        })
        .await;
        for (beyond, namespace) in [
            ("patch secrets", "default"),
            ("delete secrets", SYSTEM),
            ("patch secrets", SYSTEM),
            ("create pods", SYSTEM),
            ("patch deployments.apps", SYSTEM),
            ("create services", "default"),
            ("create referencegrants.gateway.networking.k8s.io", "default"),
            ("delete aigatewayroutes.aigateway.envoyproxy.io", "default"),
            ("create clusterroles.rbac.authorization.k8s.io", ""),
        ] {
            assert!(!may(&api, beyond, namespace).await, "the controller may {beyond} in {namespace}");
        }
        let account = format!("system:serviceaccount:{SYSTEM}:ai-gateway-extproc");
        let list = api.kubectl(&["auth", "can-i", "--list", "--as", &account, "-n", SYSTEM]).await;
        assert!(!list.contains("secrets") && !list.contains("aigateway"), "{list}");
    });
}

#[test]
fn with_namespaces_named_rights_are_given_there_alone() {
    isolated(async |api| {
        for name in ["team-a", "team-b", "keys"] {
            api.kubectl(&["create", "namespace", name]).await;
        }
        let values =
            ["controller.watch.namespaces={team-a,team-b}", "controller.rbac.secretNamespaces={keys}"];
        install(&api, &values).await;
        until("what was granted is in force", async || {
            may(&api, "get secrets", "keys").await
                && may(&api, ROUTES, "team-a").await
                && may(&api, MADE, "team-b").await
        })
        .await;
        for namespace in ["keys", "default"] {
            assert!(
                !may(&api, ROUTES, namespace).await && !may(&api, MADE, namespace).await,
                "routes in {namespace}"
            );
        }
        for namespace in ["team-a", "default", ""] {
            assert!(!may(&api, "get secrets", namespace).await, "Secrets in {namespace}");
        }
        assert!(!may(&api, ROUTES, "").await);
    });
}
