//! Where keys are managed over HTTP: by TLS, on this machine, on a socket; and what is told of the store.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ai_gateway::server::{KeyOptions, Listen, Processor, ProcessorOptions};
use ai_gateway::source::Slot;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::http::{Answer, Peer, collect, get, post};
use crate::support::planes::GRACE;
use crate::support::redis::Redis;
use crate::support::{spawn, until};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const BEARER: &str = "Bearer 0123456789abcdef0123456789abcdef";

/// A processor with keys in that store, and a listener for managing them.
fn start(folder: &Path, store: &str, listen: &str, tls: bool) -> anyhow::Result<Processor> {
    std::fs::write(folder.join("token"), TOKEN)?;
    let file = |name: &str| tls.then(|| folder.join(name));
    let keys = KeyOptions {
        keys: Some(store.to_owned().into()),
        key_admin: Some(listen.parse()?),
        key_admin_token_file: Some(folder.join("token")),
        key_admin_tls_cert: file("cert.pem"),
        key_admin_tls_key: file("key.pem"),
        ..KeyOptions::default()
    };
    let options = ProcessorOptions {
        admin: Some(Listen::Unix(folder.join("admin.sock"))),
        keys,
        ..ProcessorOptions::new(Listen::Unix(folder.join("extproc.sock")), Slot::default())
    };
    Processor::start(options)
}

fn file_store(folder: &TempDir) -> String {
    format!("file:{}", folder.path().join("keys.jsonl").display())
}

/// Asks by TLS, trusting that certificate alone. Nothing if the server is not taken for who it is.
async fn ask(addr: SocketAddr, trusted: &rcgen::Certificate, name: &'static str) -> Option<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(addr).await.expect("connect");
    let name = ServerName::try_from(name).expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    spawn(connection);
    let request = post("/v1/keys", &[("authorization", BEARER)], r#"{"name":"n"}"#);
    Some(collect(sender.send_request(request).await.expect("an answer")).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_managed_by_tls_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), certified.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let processor = start(folder.path(), &file_store(&folder), "0.0.0.0:0", true).unwrap();
    let port = processor.key_admin().and_then(Listen::socket_addr).unwrap().port();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    // Whoever says nothing keeps nobody else waiting.
    let silent = TcpStream::connect(addr).await.unwrap();
    let answer = ask(addr, &certified.cert, "localhost").await.expect("TLS");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    assert!(ask(addr, &other.cert, "localhost").await.is_none());
    assert!(ask(addr, &certified.cert, "elsewhere").await.is_none());
    // Without TLS nothing is told.
    let mut plain = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET /v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: {BEARER}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut plain, request.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    _ = plain.read_to_end(&mut told).await;
    assert!(!told.starts_with(b"HTTP"), "{}", told.escape_ascii());
    drop(silent);
    processor.shutdown(GRACE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_keys_are_managed_on_this_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = file_store(&folder);
    for beyond in ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0"] {
        let error = format!("{:#}", start(folder.path(), &store, beyond, false).unwrap_err());
        assert!(error.contains("--key-admin-tls-cert") && error.contains("127.0.0.1"), "{beyond}: {error}");
    }
    let missing = format!("{:#}", start(folder.path(), &store, "127.0.0.1:0", true).unwrap_err());
    assert!(missing.contains("cert.pem"), "{missing}");
    let socket = folder.path().join("keys.sock");
    for listen in ["127.0.0.1:0".to_owned(), format!("unix://{}", socket.display())] {
        let processor = start(folder.path(), &store, &listen, false).unwrap();
        let peer = match processor.key_admin().unwrap() {
            Listen::Tcp(addr) => Peer::Tcp(*addr),
            Listen::Unix(path) => {
                let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
                assert_eq!(mode & 0o777, 0o600);
                Peer::Unix(path.clone())
            }
        };
        assert_eq!(peer.send(get("/v1/keys")).await.status, 401);
        let made = peer.send(post("/v1/keys", &[("authorization", BEARER)], r#"{"name":"n"}"#)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        processor.shutdown(GRACE).await;
    }
}

/// The value of a gauge, as Prometheus would read it.
async fn gauge(admin: &Peer, name: &str) -> Option<f64> {
    let text = admin.send(get("/metrics")).await.text();
    let lines =
        text.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).next()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_told_of() {
    let Some(mut redis) = Redis::start().await else { return };
    let manager = ai_gateway::keystore::Manager::new(super::open(&redis.url()));
    let key = super::create(&manager, "k").await;
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("unix://{}", folder.path().join("keys.sock").display());
    let processor = start(folder.path(), &redis.url(), &listen, false).unwrap();
    let admin = Peer::Unix(folder.path().join("admin.sock"));
    let health = async || admin.send(get("/health")).await.text();
    until("keys have come", async || gauge(&admin, "aigw_keys_held").await == Some(1.0)).await;
    assert_eq!(gauge(&admin, "aigw_keys_store_up").await, Some(1.0));
    assert!(gauge(&admin, "aigw_keys_age_seconds").await.is_some());
    redis.kill();
    until("it is told that the store is away", async || {
        gauge(&admin, "aigw_keys_store_up").await == Some(0.0)
    })
    .await;
    let told = health().await;
    // Without a configuration it serves nobody, and says that first.
    assert!(told.contains("no configuration"), "{told}");
    let secret = secrecy::ExposeSecret::expose_secret(&key.key)[18..].to_owned();
    assert!(!told.contains(&secret));
    assert_eq!(gauge(&admin, "aigw_keys_held").await, Some(1.0), "what is known stays");
    redis.run().await;
    until("it is told that it is back", async || gauge(&admin, "aigw_keys_store_up").await == Some(1.0))
        .await;
    processor.shutdown(GRACE).await;
}

#[test]
fn both_halves_of_an_identity_are_wanted() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aigw"));
        let output = command.args(["extproc", "--config", "none.yaml"]).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let base = ["--keys", "file:x", "--key-admin", "127.0.0.1:0", "--key-admin-token-file", "t"];
    for (half, other) in
        [("--key-admin-tls-cert", "--key-admin-tls-key"), ("--key-admin-tls-key", "--key-admin-tls-cert")]
    {
        let told = run(&[&base[..], &[half, "f"]].concat());
        assert!(told.contains(other), "{told}");
    }
}
