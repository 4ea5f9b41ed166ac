//! A whole cluster: a control plane and the stand-ins for what is not built here.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

use super::apiserver::ApiServer;
use super::network::Network;
use super::node::{Image, Node};

/// Where the outside world of the tests is: an address of TEST-NET-3.
pub(crate) const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// The certificate authorities of this machine, which pods trust too.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A running cluster of one node.
pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    pub(crate) network: Network,
    pub(crate) node: Node,
}

impl Cluster {
    /// Starts the stand-ins beside a control plane. Pods trust this authority (PEM) besides the machine's.
    pub(crate) async fn start(api: ApiServer, authority: &str, others: Vec<Image>) -> Self {
        let authorities = api.folder().join("authorities.crt");
        let system = std::fs::read_to_string(SYSTEM_AUTHORITIES).unwrap_or_default();
        std::fs::write(&authorities, system + authority).expect("write");
        let network = Network::start(api.client()).await;
        let mut images = ours();
        images.extend(others);
        let node = Node::start(api.client(), api.folder(), images, authorities).await;
        Self { api, network, node }
    }

    pub(crate) fn client(&self) -> Client {
        self.api.client()
    }

    /// The pods of a namespace that a selector finds.
    pub(crate) async fn pods(&self, namespace: &str, selector: &str) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        pods.list(&ListParams::default().labels(selector)).await.expect("pods").items
    }

    /// Waits as a user does, with `kubectl wait`.
    pub(crate) async fn wait(&self, namespace: &str, condition: &str, what: &[&str]) {
        let arguments = ["-n", namespace, "wait", "--timeout=100s", "--for", condition];
        self.api.kubectl(&[&arguments, what].concat()).await;
    }
}

/// What the images of our own manifests stand for.
fn ours() -> Vec<Image> {
    let aigw = PathBuf::from(env!("CARGO_BIN_EXE_aigw"));
    let backend = &["aigw", "testbackend", "--listen", "0.0.0.0:8080"];
    vec![
        Image { name: "aigw", executable: aigw.clone(), entrypoint: &["aigw"] },
        Image { name: "ai-gateway-testupstream", executable: aigw, entrypoint: backend },
    ]
}

/// What Envoy Gateway's images stand for.
pub(crate) fn envoy_gateway(gateway: &Path, envoy: &Path) -> Vec<Image> {
    vec![
        Image { name: "gateway", executable: gateway.join("envoy-gateway"), entrypoint: &["envoy-gateway"] },
        Image { name: "envoy", executable: envoy.to_owned(), entrypoint: &["envoy"] },
    ]
}
