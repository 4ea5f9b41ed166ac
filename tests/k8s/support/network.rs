//! Stand-ins for what gives Services their addresses and names: kube-proxy, CoreDNS and a load balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;

use super::apiserver::NODE;
use super::spawn;

/// How often the stand-ins look at the API server.
pub(crate) const LOOK: Duration = Duration::from_millis(150);

/// The addresses of load balancers are in this network (TEST-NET-2), and those of the outside world in TEST-NET-3.
const BALANCERS: [u8; 3] = [198, 51, 100];

/// A port of a Service.
type Front = SocketAddr;

#[derive(Debug, Default)]
struct State {
    /// Where connections to a port of a Service go: pods that are ready.
    targets: BTreeMap<Front, Vec<SocketAddr>>,
    /// Full names, without the last dot.
    names: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Names outside of the cluster.
    world: BTreeMap<String, Ipv4Addr>,
    balancers: BTreeMap<String, Ipv4Addr>,
}

/// The stand-ins. They end with the test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network(Arc<Mutex<State>>);

impl Network {
    /// Starts them.
    pub(crate) async fn start(client: Client) -> Self {
        let network = Self::default();
        network.serve_names().await;
        let this = network.clone();
        spawn(async move {
            let mut listening = BTreeMap::new();
            loop {
                // Without an API server everything stays as it is.
                if let Ok((services, slices)) = look(&client).await {
                    this.update(&client, &services, &slices).await;
                    this.listen(&mut listening);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        network
    }

    /// Gives a name of the outside world an address.
    pub(crate) fn outside(&self, name: &str, address: Ipv4Addr) {
        self.0.lock().expect("state").world.insert(name.to_owned(), address);
    }

    async fn update(&self, client: &Client, services: &[Service], slices: &[EndpointSlice]) {
        let mut targets = BTreeMap::new();
        let mut names = BTreeMap::new();
        for service in services {
            let Some(spec) = &service.spec else { continue };
            let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
            let mine: Vec<&EndpointSlice> =
                slices.iter().filter(|slice| belongs(slice, &namespace, &name)).collect();
            let address = spec.cluster_ip.as_deref().and_then(|address| address.parse::<Ipv4Addr>().ok());
            let mut fronts: Vec<Ipv4Addr> = address.into_iter().collect();
            if spec.type_.as_deref() == Some("LoadBalancer") {
                fronts.push(self.balancer(client, service).await);
            }
            for port in spec.ports.iter().flatten() {
                let backends = ready(&mine, port.name.as_deref().unwrap_or_default());
                for front in &fronts {
                    let number = u16::try_from(port.port).expect("a port");
                    targets.insert(SocketAddr::from((*front, number)), backends.clone());
                }
            }
            let resolved = address.map_or_else(|| pods(&mine), |address| vec![address]);
            names.insert(format!("{name}.{namespace}.svc.cluster.local"), resolved);
        }
        let mut state = self.0.lock().expect("state");
        (state.targets, state.names) = (targets, names);
    }

    /// The load balancer's address of a Service, which its status says too.
    async fn balancer(&self, client: &Client, service: &Service) -> Ipv4Addr {
        let uid = service.uid().unwrap_or_default();
        let address = {
            let mut state = self.0.lock().expect("state");
            let next = u8::try_from(state.balancers.len() + 1).expect("fewer than 255");
            let [a, b, c] = BALANCERS;
            *state.balancers.entry(uid).or_insert_with(|| Ipv4Addr::new(a, b, c, next))
        };
        let status =
            service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        if status.is_none_or(Vec::is_empty) {
            let services: Api<Service> =
                Api::namespaced(client.clone(), &service.namespace().unwrap_or_default());
            let patch =
                serde_json::json!({"status": {"loadBalancer": {"ingress": [{"ip": address.to_string()}]}}});
            // The next look tries again.
            _ = services
                .patch_status(&service.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await;
        }
        address
    }

    /// Listens on every port of every Service, and no longer on those that are gone.
    fn listen(&self, listening: &mut BTreeMap<Front, AbortHandle>) {
        let wanted: BTreeSet<Front> = self.0.lock().expect("state").targets.keys().copied().collect();
        listening.retain(|front, task| {
            wanted.contains(front) || {
                task.abort();
                false
            }
        });
        for front in wanted {
            if !listening.contains_key(&front)
                && let Ok(listener) = std::net::TcpListener::bind(front)
            {
                listener.set_nonblocking(true).expect("a listener");
                let listener = TcpListener::from_std(listener).expect("a listener");
                listening.insert(front, self.clone().forward(front, listener));
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "ended by the handle that is returned")]
    fn forward(self, front: Front, listener: TcpListener) -> AbortHandle {
        let turn = AtomicUsize::new(0);
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let targets = self.0.lock().expect("state").targets.get(&front).cloned().unwrap_or_default();
                let Some(target) =
                    targets.get(turn.fetch_add(1, Ordering::Relaxed) % targets.len().max(1)).copied()
                else {
                    // Nobody is ready: the connection is closed, where kube-proxy would refuse it.
                    continue;
                };
                spawn(async move {
                    if let Ok(mut pod) = TcpStream::connect(target).await {
                        // Whichever side ends it, the other sees the end.
                        _ = tokio::io::copy_bidirectional(&mut socket, &mut pod).await;
                    }
                });
            }
        });
        task.abort_handle()
    }

    /// A name server for pods: addresses of Services and of what [`Network::outside`] names.
    async fn serve_names(&self) {
        let socket = UdpSocket::bind((NODE, 53)).await.expect("port 53");
        let this = self.clone();
        spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                if let Some(answer) = this.answer(&packet[..length]) {
                    _ = socket.send_to(&answer, peer).await;
                }
            }
        });
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let (mut name, mut at) = (Vec::new(), 12);
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            name.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
            at += length;
        }
        let question = query.get(12..at + 4)?;
        let is_a = query.get(at..at + 2)? == [0, 1];
        let found = self.resolve(&name.join("."));
        let addresses = if is_a { found.clone().unwrap_or_default() } else { Vec::new() };
        let mut answer = query.get(..2)?.to_vec();
        // An authoritative answer, or none of that name.
        answer.extend([0x85, if found.is_some() { 0x80 } else { 0x83 }, 0, 1, 0]);
        answer.extend([u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
        answer.extend(question);
        for address in addresses {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }

    fn resolve(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        let state = self.0.lock().expect("state");
        let outside = state.world.get(name).map(|address| vec![*address]);
        outside.or_else(|| state.names.get(name).cloned())
    }
}

async fn look(client: &Client) -> kube::Result<(Vec<Service>, Vec<EndpointSlice>)> {
    let all = ListParams::default();
    let services = Api::<Service>::all(client.clone()).list(&all).await?;
    let slices = Api::<EndpointSlice>::all(client.clone()).list(&all).await?;
    Ok((services.items, slices.items))
}

fn belongs(slice: &EndpointSlice, namespace: &str, service: &str) -> bool {
    slice.namespace().as_deref() == Some(namespace)
        && slice.labels().get("kubernetes.io/service-name").is_some_and(|name| name == service)
}

/// The ready endpoints of a port.
fn ready(slices: &[&EndpointSlice], port: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices {
        let numbers = slice.ports.iter().flatten().filter(|p| p.name.as_deref().unwrap_or_default() == port);
        for number in numbers.filter_map(|port| u16::try_from(port.port?).ok()) {
            for endpoint in &slice.endpoints {
                if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(false) {
                    continue;
                }
                let addresses =
                    endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
                found.extend(addresses.map(|address| SocketAddr::new(address, number)));
            }
        }
    }
    found.sort();
    found
}

fn pods(slices: &[&EndpointSlice]) -> Vec<Ipv4Addr> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok()).collect()
}
