//! Two gateways of one process: what opens one is nothing at the other.

use std::net::SocketAddr;

use super::smuggling::proof_headers;
use super::*;
use crate::support::http::Peer;

/// A second Gateway with a route and a backend like those of the first.
fn second() -> String {
    "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: second, namespace: default}
spec:
  gatewayClassName: test
  listeners: [{name: other, protocol: HTTP, port: 80}]
---
"
    .to_owned()
        + &route("theirs", "paid").replace("name: test}", "name: second}")
}

const ON_SECOND: &str = "{group: gateway.networking.k8s.io, kind: Gateway, name: second}";

/// The same policies under other names, with other keys, for the second one.
fn theirs(target: &str) -> String {
    keys(target)
        .replace("name: clients", "name: theirs")
        .replace("name: keys", "name: their-keys")
        .replace("name: tenants", "name: their-tenants")
        .replace(SECRETS[0], "their-key-of-acme-9c1d")
        .replace(SECRETS[1], "their-key-of-other-20fe")
}

async fn ask(addr: SocketAddr, headers: &[(&str, &str)]) -> u16 {
    Peer::Tcp(addr).send(post(CHAT, headers, body("paid"))).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_proof_of_one_gateway_is_nothing_at_the_other() {
    let on_their_route = ON_ROUTE.replace("name: protected", "name: theirs");
    for (ours, of_theirs) in [(ON_GATEWAY, ON_SECOND), (ON_ROUTE, on_their_route.as_str())] {
        let backend = Backend::start(&[]).await;
        let resources = resources(&backend, &(keys(ours) + &second() + &theirs(of_theirs)));
        let Some(setup) = Setup::new().await else { return };
        let gateway = setup.yaml(resources).arg("--listen").arg("other=0").start().await;
        let (first, other) = (gateway.addr, gateway.listener("other"));
        let (our_key, their_key) = (format!("Bearer {}", SECRETS[0]), "Bearer their-key-of-acme-9c1d");
        assert_eq!(ask(first, &[("authorization", &our_key)]).await, 200);
        assert_eq!(ask(other, &[("authorization", their_key)]).await, 200);
        let before = backend.counters().requests;
        assert_eq!(ask(other, &[("authorization", &our_key)]).await, 401);
        assert_eq!(ask(first, &[("authorization", their_key)]).await, 401);
        // The proofs of the two have names of their own, and neither takes one from a client.
        let names = proof_headers(&gateway);
        assert!(names.len() >= 2, "{names:?}");
        for name in &names {
            for addr in [first, other] {
                assert_eq!(ask(addr, &[(name, "acme.research.ci")]).await, 401, "{name}");
            }
        }
        assert_eq!(backend.counters().requests, before);
        gateway.stop().await;
    }
}

/// One policy for both: the same clients, and still a proof for one of them is none for the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_for_two_gateways_leaves_each_its_own_proof() {
    let backend = Backend::start(&[]).await;
    let both = format!("{ON_GATEWAY}, {ON_SECOND}");
    let resources = resources(&backend, &(keys(&both) + &second()));
    let Some(setup) = Setup::new().await else { return };
    let gateway = setup.yaml(resources).arg("--listen").arg("other=0").start().await;
    let key = format!("Bearer {}", SECRETS[0]);
    for addr in [gateway.addr, gateway.listener("other")] {
        assert_eq!(ask(addr, &[("authorization", &key)]).await, 200);
        for name in proof_headers(&gateway) {
            assert_eq!(ask(addr, &[(name.as_str(), "acme.research.ci")]).await, 401);
        }
    }
    gateway.stop().await;
}
