//! A stand-in for a node: the scheduler's choice, and what a kubelet does with processes in place of containers.
//!
//! Each pod gets a network namespace with an address of its own. Each container is a process on a root of its own, with the
//! arguments, environment, volumes, ServiceAccount token, user and read-only root that its spec asks for; images stand for
//! executables ([`Images`]). Probes are really asked, once a second. Not done: resource limits, seccomp, hooks, init
//! containers, images.

mod container;
mod pod;
mod probe;
mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::{Binding, Node as NodeObject, ObjectReference, Pod};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use super::network::LOOK;
use super::{apiserver, spawn};

/// The node's name.
pub(crate) const NAME: &str = "node-1";

/// What an image stands for.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The last part of the image's repository.
    pub(crate) name: &'static str,
    /// The executable, found under this file name by the commands of containers.
    pub(crate) executable: PathBuf,
    /// The image's entry point.
    pub(crate) entrypoint: &'static [&'static str],
}

/// What every pod has in common.
struct Shared {
    client: Client,
    images: Vec<Image>,
    folder: PathBuf,
    /// In place of the system's certificate authorities.
    authorities: PathBuf,
    pods: Mutex<Pods>,
}

#[derive(Debug, Default)]
struct Pods {
    /// By uid; dropping the sender, or sending `true`, ends the pod.
    running: BTreeMap<String, watch::Sender<bool>>,
    /// How many there were.
    count: u16,
}

/// A running stand-in.
#[derive(Clone)]
pub(crate) struct Node(Arc<Shared>);

impl Node {
    /// Starts it: from now on pods run. `authorities` are the certificate authorities that pods find in the system's file.
    pub(crate) async fn start(
        client: Client,
        folder: &Path,
        images: Vec<Image>,
        authorities: PathBuf,
    ) -> Self {
        let folder = folder.join("pods");
        std::fs::create_dir(&folder).expect("a folder");
        let pods = Mutex::default();
        let shared = Arc::new(Shared { client: client.clone(), images, folder, authorities, pods });
        register(&client).await;
        let this = Self(Arc::clone(&shared));
        spawn(async move {
            let all: Api<Pod> = Api::all(shared.client.clone());
            loop {
                // Without an API server pods go on as they are.
                if let Ok(pods) = all.list(&ListParams::default()).await {
                    shared.look_at(pods.items).await;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        this
    }

    /// What the containers have logged whose pod's name begins so.
    pub(crate) fn logs(&self, namespace: &str, pod: &str) -> String {
        let start = format!("{namespace}_{pod}");
        let mut texts = Vec::new();
        for entry in std::fs::read_dir(&self.0.folder).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&start) && name.ends_with(".log") {
                let text = std::fs::read(entry.path()).unwrap_or_default();
                texts.push(format!("--- {name}\n{}", String::from_utf8_lossy(&text)));
            }
        }
        texts.join("\n")
    }

    /// Kills the processes of a pod's container as the kernel would for want of memory; the container is started again.
    pub(crate) fn kill(&self, namespace: &str, pod: &str) {
        let folder = self.0.folder.join(format!("{namespace}_{pod}"));
        let mut killed = 0;
        for entry in std::fs::read_dir(folder).expect("the pod's folder").flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "pid") {
                let pid = std::fs::read_to_string(entry.path()).expect("a pid");
                let status =
                    std::process::Command::new("kill").args(["-KILL", pid.trim()]).status().expect("kill");
                killed += usize::from(status.success());
            }
        }
        assert!(killed > 0, "no process of {namespace}/{pod} was running");
    }
}

impl Shared {
    async fn look_at(self: &Arc<Self>, pods: Vec<Pod>) {
        let mut gone: Vec<String> = self.pods.lock().expect("pods").running.keys().cloned().collect();
        for pod in pods {
            let uid = pod.uid().unwrap_or_default();
            gone.retain(|other| *other != uid);
            let known = self.pods.lock().expect("pods").running.contains_key(&uid);
            let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let ended = matches!(ended, Some("Succeeded" | "Failed"));
            if pod.metadata.deletion_timestamp.is_some() {
                if let Some(sender) = self.pods.lock().expect("pods").running.get(&uid) {
                    sender.send_replace(true);
                } else {
                    pod::delete(&self.client, &pod).await;
                }
            } else if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
                bind(&self.client, &pod).await;
            } else if !known && !ended {
                self.begin(uid, pod);
            }
        }
        // Those that were deleted without waiting.
        let pods = self.pods.lock().expect("pods");
        for uid in gone {
            if let Some(sender) = pods.running.get(&uid) {
                sender.send_replace(true);
            }
        }
    }

    fn begin(self: &Arc<Self>, uid: String, pod: Pod) {
        let (sender, ending) = watch::channel(false);
        let number = {
            let mut pods = self.pods.lock().expect("pods");
            pods.running.insert(uid.clone(), sender);
            pods.count += 1;
            pods.count
        };
        let this = Arc::clone(self);
        spawn(async move {
            pod::run(&this, pod, number, ending).await;
            this.pods.lock().expect("pods").running.remove(&uid);
        });
    }
}

/// What a scheduler does where there is one node.
async fn bind(client: &Client, pod: &Pod) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let target = ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(NAME.to_owned()),
        ..ObjectReference::default()
    };
    let metadata = ObjectMeta { name: Some(pod.name_any()), ..ObjectMeta::default() };
    let binding = Binding { metadata, target };
    // The next look tries again.
    _ = pods
        .create_subresource::<_, serde_json::Value>(
            "binding",
            &pod.name_any(),
            &PostParams::default(),
            &binding,
        )
        .await;
}

async fn register(client: &Client) {
    let nodes: Api<NodeObject> = Api::all(client.clone());
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
    let node = NodeObject { metadata, ..NodeObject::default() };
    nodes.create(&PostParams::default(), &node).await.expect("a node");
    let status = serde_json::json!({"status": {
        "conditions": [{"type": "Ready", "status": "True", "reason": "StandIn"}],
        "addresses": [{"type": "InternalIP", "address": apiserver::NODE}],
    }});
    nodes.patch_status(NAME, &PatchParams::default(), &Patch::Merge(status)).await.expect("its status");
}
