//! One pod: its network, its containers, and what its status says.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::container::{self, State};
use super::volumes::Volumes;
use super::{NAME, Shared};
use crate::support::apiserver::NODE;
use crate::support::network::LOOK;

/// What the containers of a pod share.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Pod,
    pub(super) address: Ipv4Addr,
    /// The name of its network namespace.
    pub(super) network: String,
    pub(super) folder: PathBuf,
    pub(super) volumes: Volumes,
}

/// Runs a pod until its containers have ended for good, or it is deleted.
pub(super) async fn run(shared: &Arc<Shared>, pod: Pod, number: u16, ending: watch::Receiver<bool>) {
    let name = format!("{}_{}", pod.namespace().unwrap_or_default(), pod.name_any());
    let folder = shared.folder.join(&name);
    let volumes = Volumes::new(shared.client.clone(), folder.join("volumes"));
    std::fs::create_dir_all(folder.join("volumes")).expect("a folder");
    let [high, low] = (number + 1).to_be_bytes();
    let address = Ipv4Addr::new(10, 244, high + 1, low);
    let network = format!("p{number}");
    connect(&network, address).await;
    let place = Arc::new(Place { shared: Arc::clone(shared), pod, address, network, folder, volumes });
    let containers = place.pod.spec.as_ref().map(|spec| spec.containers.clone()).unwrap_or_default();
    let (states, seen) = watch::channel(vec![State::default(); containers.len()]);
    let mut tasks = JoinSet::new();
    for (index, container) in containers.into_iter().enumerate() {
        tasks.spawn(container::run(Arc::clone(&place), container, index, states.clone(), ending.clone()));
    }
    drop(states);
    tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => {}
        () = report(&place, seen.clone()) => {}
        () = refresh(&place) => {}
    }
    // What the containers' ends were is still to be told.
    let last = seen.borrow().clone();
    publish(&place, &last, &ending).await;
    let deleted = *ending.borrow();
    if deleted {
        delete(&place.shared.client, &place.pod).await;
    } else {
        // A pod that has run to its end stays until it is deleted.
        let mut ending = ending;
        _ = ending.wait_for(|ending| *ending).await;
        delete(&place.shared.client, &place.pod).await;
    }
    // Its name may be used again by a pod of a StatefulSet; nothing else has a use for the link.
    _ = Command::new("ip").args(["netns", "delete", &place.network]).status().await;
}

async fn connect(network: &str, address: Ipv4Addr) {
    let script = format!(
        "ip netns add {network}
        ip link add {network} type veth peer name eth0 netns {network}
        ip link set {network} master br0 up
        ip -n {network} link set lo up
        ip -n {network} addr add {address}/16 dev eth0
        ip -n {network} link set eth0 up
        ip -n {network} route add default via {NODE}"
    );
    let status = Command::new("sh").args(["-ec", &script]).status().await.expect("sh");
    assert!(status.success(), "the pod's network cannot be set up");
}

/// Keeps volumes in step with their Secrets and ConfigMaps, as a kubelet does once a minute or so.
async fn refresh(place: &Place) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // What cannot be read now stays as it is.
        _ = place.volumes.write(&place.pod).await;
    }
}

/// Tells the API server whatever changes.
async fn report(place: &Place, mut seen: watch::Receiver<Vec<State>>) {
    let (_never, not_ending) = watch::channel(false);
    loop {
        let states = seen.borrow_and_update().clone();
        publish(place, &states, &not_ending).await;
        if seen.changed().await.is_err() {
            // The containers have ended; the other side of the select is about to see it.
            std::future::pending::<()>().await;
        }
    }
}

/// Tries until it is told, the pod is gone, or (where there may be no API server) it is to end.
async fn publish(place: &Place, states: &[State], ending: &watch::Receiver<bool>) {
    let pods: Api<Pod> =
        Api::namespaced(place.shared.client.clone(), &place.pod.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"metadata": {"uid": place.pod.uid()}, "status": status(place, states)}));
    loop {
        match pods.patch_status(&place.pod.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => return,
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => return,
            Err(_) if *ending.borrow() => return,
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

fn status(place: &Place, states: &[State]) -> Value {
    let containers = place.pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let ready = states.iter().all(|state| state.ready);
    let phase = if states.iter().any(|state| state.exit.is_some_and(|code| code != 0)) {
        "Failed"
    } else if states.iter().all(|state| state.exit == Some(0)) {
        "Succeeded"
    } else if states.iter().all(|state| state.runs || state.restarts > 0) {
        "Running"
    } else {
        "Pending"
    };
    let condition =
        |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }});
    let of = |(container, state): (&k8s_openapi::api::core::v1::Container, &State)| {
        let now = if let Some(code) = state.exit {
            json!({"terminated": {"exitCode": code}})
        } else if state.runs {
            json!({"running": {}})
        } else {
            json!({"waiting": {"reason": "StandIn", "message": state.waits_for}})
        };
        json!({
            "name": container.name, "image": container.image, "imageID": "", "ready": state.ready,
            "started": state.started, "restartCount": state.restarts, "state": now,
        })
    };
    json!({
        "phase": phase,
        "hostIP": NODE,
        "podIP": place.address,
        "podIPs": [{"ip": place.address}],
        "conditions": [
            condition("PodScheduled", true), condition("Initialized", true),
            condition("ContainersReady", ready), condition("Ready", ready),
        ],
        "containerStatuses": containers.iter().zip(states).map(of).collect::<Vec<_>>(),
    })
}

/// What a kubelet does last.
pub(super) async fn delete(client: &Client, pod: &Pod) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
    let now = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
    loop {
        match pods.delete(&pod.name_any(), &now).await {
            Ok(_) | Err(kube::Error::Api(_)) => return,
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The value of a field as the downward API names it.
pub(super) fn field(pod: &Pod, path: &str) -> Option<String> {
    let keyed =
        |start: &str| path.strip_prefix(start).and_then(|rest| rest.strip_suffix("']")).map(str::to_owned);
    if let Some(key) = keyed("metadata.labels['") {
        return Some(pod.labels().get(&key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations['") {
        return Some(pod.annotations().get(&key).cloned().unwrap_or_default());
    }
    match path {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => pod.namespace(),
        "metadata.uid" => pod.uid(),
        "spec.nodeName" => Some(NAME.to_owned()),
        "spec.serviceAccountName" => pod.spec.as_ref()?.service_account_name.clone(),
        "status.hostIP" => Some(NODE.to_owned()),
        _ => None,
    }
}
