//! HTTPS listeners through a real Envoy: who is shown which certificate, and what becomes of the keys.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::backend::Backend;
use crate::support::gateway::Setup;
use crate::support::http::{Answer, collect, get, post};
use crate::support::{spawn, until, yaml};

const CHAT: &str = "/v1/chat/completions";

/// An authority of this test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A Secret for a host name, and a line of its private key.
    fn secret(&self, name: &str, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let (chain, key) = (certificate.pem(), key.serialize_pem());
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData: {{tls.crt: {chain:?}, tls.key: {key:?}}}\n---\n"
        );
        (secret, key.lines().nth(1).unwrap().to_owned())
    }

    /// A client that trusts only this authority and speaks this protocol.
    async fn connect(
        &self,
        addr: SocketAddr,
        host: &str,
        alpn: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = versions.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from(host.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(addr).await?).await
    }

    /// The certificate that is shown for a host, if it is one of this authority's for it.
    async fn shown(&self, addr: SocketAddr, host: &str) -> Option<Vec<u8>> {
        let stream = self.connect(addr, host, "h2").await.ok()?;
        Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
    }
}

async fn send(stream: TlsStream<TcpStream>, mut request: Request<Full<Bytes>>) -> Answer {
    let negotiated = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let io = TokioIo::new(stream);
    let response = if negotiated.as_deref() == Some(b"h2") {
        *request.version_mut() = Version::HTTP_2;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        spawn(connection);
        sender.send_request(request).await
    };
    collect(response.unwrap()).await
}

fn chat(host: &str, version: &str) -> Request<Full<Bytes>> {
    let mut request = post(CHAT, &[], r#"{"model":"m","messages":[]}"#);
    if version == "h2" {
        request.headers_mut().remove("host");
        *request.uri_mut() = format!("https://{host}{CHAT}").parse().unwrap();
    } else {
        request.headers_mut().insert("host", host.parse().unwrap());
    }
    request
}

fn resources(backend: &Backend) -> String {
    let gateway = yaml::gateway("1Mi").replace(
        "port: 80}]",
        "port: 80}, {name: https, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: a}, {name: b}]}}]",
    );
    gateway + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], "")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_is_shown_its_certificate_and_a_new_one_once_its_secret_changes() {
    let Some(setup) = Setup::new().await else { return };
    let (authority, backend) = (Authority::new(), Backend::start(&[]).await);
    let (dir, (one, key)) = (tempfile::tempdir().unwrap(), authority.secret("a", "a.example.com"));
    let file = dir.path().join("secrets.yaml");
    let (two, _) = authority.secret("b", "b.example.com");
    std::fs::write(&file, one + &two).unwrap();
    let gateway = setup.yaml(resources(&backend)).file(&file).arg("--listen").arg("https=0").start().await;
    let addr = gateway.listener("https");
    for host in ["a.example.com", "b.example.com"] {
        for protocol in ["h2", "http/1.1"] {
            let stream = authority.connect(addr, host, protocol).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
            let answer = send(stream, chat(host, protocol)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.version == Version::HTTP_2, protocol == "h2");
        }
    }
    assert_eq!(gateway.peer().send(get("/v1/models")).await.status, 200, "the other listener speaks no TLS");

    let folder = gateway.runtime_dir();
    let mut holders = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        let text = if entry.file_type().unwrap().is_file() {
            std::fs::read_to_string(entry.path()).unwrap()
        } else {
            String::new()
        };
        if text.contains(&key) {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            holders.push(entry.file_name().into_string().unwrap());
        }
    }
    assert_eq!(holders, ["certificate-default+a.json"]);

    let (before, other) =
        (authority.shown(addr, "a.example.com").await, authority.shown(addr, "b.example.com").await);
    assert!(before.is_some() && other.is_some());
    let (renewed, _) = authority.secret("a", "a.example.com");
    std::fs::write(&file, renewed + &two).unwrap();
    until("the new certificate is shown", async || {
        let now = authority.shown(addr, "a.example.com").await;
        assert!(now.is_some());
        now != before
    })
    .await;
    assert_eq!(authority.shown(addr, "b.example.com").await, other);
    until("the change is told", async || {
        gateway.lines().iter().any(|line| line.contains("are in force as generation 2"))
    })
    .await;
    // A key that does not belong to the certificate is told, and what was in force stays.
    let now = authority.shown(addr, "a.example.com").await;
    std::fs::write(
        &file,
        std::fs::read_to_string(&file).unwrap().replacen("BEGIN PRIVATE", "BEGIN SECRET", 1),
    )
    .unwrap();
    until("the bad key is told", async || {
        gateway.lines().iter().any(|line| line.contains("`tls.key` of Secret"))
    })
    .await;
    assert_eq!(authority.shown(addr, "a.example.com").await, now);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_a_certificate_leaves_the_others_alone_and_no_key_is_printed() {
    let Some(setup) = Setup::new().await else { return };
    let (authority, backend) = (Authority::new(), Backend::start(&[]).await);
    let (one, key) = authority.secret("a", "a.example.com");
    let gateway = setup.yaml(resources(&backend) + &one).start().await;
    assert_eq!(gateway.peer().send(get("/v1/models")).await.status, 200);
    let said = gateway.lines().join("\n");
    assert!(said.contains("there is no Secret default/b") && !said.contains(&key), "{said}");
    gateway.stop().await;

    let both = one + &authority.secret("b", "b.example.com").0;
    for option in ["--print-envoy", "--print-config"] {
        let setup = Setup::new().await.unwrap().yaml(resources(&backend) + &both).arg(option);
        let output = setup.output().await;
        assert!(output.status.success());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains(&key) && text.contains("default"), "{text}");
        assert_eq!(text.contains("tls_certificate_sds_secret_configs"), option == "--print-envoy");
    }
}
