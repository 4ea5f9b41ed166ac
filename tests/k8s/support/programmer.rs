//! In Envoy Gateway's place where no Envoy is needed: accepts every HTTPRoute and EnvoyExtensionPolicy, as soon as it is seen.

use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::spawn;

/// Accepts whatever comes, until the test ends.
pub(crate) fn start(client: &Client) {
    let http_routes = resource("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes");
    let policies =
        resource("gateway.envoyproxy.io", "v1alpha1", "EnvoyExtensionPolicy", "envoyextensionpolicies");
    for (resource, list, reference) in
        [(http_routes, "parents", "parentRef"), (policies, "ancestors", "ancestorRef")]
    {
        spawn(accept(Api::all_with(client.clone(), &resource), client.clone(), (resource, list, reference)));
    }
}

pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{group}/{version}"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

async fn accept(
    all: Api<DynamicObject>,
    client: Client,
    (resource, list, reference): (ApiResource, &'static str, &'static str),
) {
    let seen = watcher::watcher(all, watcher::Config::default());
    let objects = seen.filter_map(async |event| match event {
        Ok(Event::Apply(object) | Event::InitApply(object)) => Some(object),
        _ => None,
    });
    let answers = objects.for_each_concurrent(8, |object| {
        let api = Api::<DynamicObject>::namespaced_with(
            client.clone(),
            &object.namespace().unwrap_or_default(),
            &resource,
        );
        async move {
            let generation = object.metadata.generation.unwrap_or_default();
            let said = &object.data["status"][list][0]["conditions"][0]["observedGeneration"];
            if said.as_i64() == Some(generation) {
                return;
            }
            let status = json!({ list: [accepted(reference, generation)] });
            let patch = Patch::Merge(json!({ "status": status }));
            // One that is gone meanwhile needs no answer.
            _ = api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await;
        }
    });
    answers.await;
}

fn accepted(reference: &str, generation: i64) -> Value {
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    json!({
        reference: {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"},
        "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
        "conditions": [condition("Accepted"), condition("ResolvedRefs")],
    })
}
