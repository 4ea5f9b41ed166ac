//! Probes, asked as a kubelet asks them: from the node, over the network.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ai_gateway::proto::health::HealthCheckRequest;
use ai_gateway::proto::health::health_check_response::ServingStatus;
use ai_gateway::proto::health::health_client::HealthClient;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whether the answer is yes. No answer within the probe's time is a no.
pub(super) async fn ask(probe: &Probe, container: &Container, address: Ipv4Addr) -> bool {
    let time = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1));
    tokio::time::timeout(time, answer(probe, container, address)).await.unwrap_or(false)
}

async fn answer(probe: &Probe, container: &Container, address: Ipv4Addr) -> bool {
    if let Some(get) = &probe.http_get {
        let at = SocketAddr::from((address, number(&get.port, container)));
        return http(at, get.path.as_deref().unwrap_or("/"))
            .await
            .is_some_and(|code| (200..400).contains(&code));
    }
    if let Some(grpc) = &probe.grpc {
        let at = SocketAddr::from((address, u16::try_from(grpc.port).expect("a port")));
        return health(at, grpc.service.clone().unwrap_or_default()).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        return TcpStream::connect((address, number(&tcp.port, container))).await.is_ok();
    }
    panic!("the stand-in does not know this probe of {}: {probe:?}", container.name);
}

fn number(port: &IntOrString, container: &Container) -> u16 {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            ports
                .find(|port| port.name.as_ref() == Some(name))
                .unwrap_or_else(|| panic!("no port {name}"))
                .container_port
        }
    };
    u16::try_from(number).expect("a port")
}

async fn http(at: SocketAddr, path: &str) -> Option<u16> {
    let mut socket = TcpStream::connect(at).await.ok()?;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nuser-agent: kube-probe\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.ok()?;
    // `HTTP/1.1 200`
    let mut line = [0; 12];
    socket.read_exact(&mut line).await.ok()?;
    std::str::from_utf8(&line).ok()?.split(' ').nth(1)?.parse().ok()
}

async fn health(at: SocketAddr, service: String) -> bool {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{at}")).expect("an address");
    let Ok(channel) = endpoint.connect().await else { return false };
    let answer = HealthClient::new(channel).check(HealthCheckRequest { service }).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}
