//! A controller's end of the stream of configurations, with certificates of its own, and processors that follow it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use ai_gateway::push::certificates::{Authorities, Issued};
use ai_gateway::push::{Edition, Grant, Publisher, Tls};
use ai_gateway::server::Listen;
use ai_gateway::source::{Controller, ControllerFiles, PushedStatus, Slot, follow_controller};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{spawn, until};

/// The certificates of one installation.
pub(crate) struct Trust {
    pub(crate) authorities: Authorities,
    folder: tempfile::TempDir,
}

impl Trust {
    pub(crate) fn new() -> Self {
        let authorities = Authorities::new(SystemTime::now()).unwrap();
        Self { authorities, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn server(&self) -> Issued {
        self.authorities.server(&["localhost".to_owned()], SystemTime::now()).unwrap()
    }

    pub(crate) fn tls(&self) -> Tls {
        let Issued { certificate, key } = self.server();
        Tls::new(&certificate, &key, &self.authorities.certificates()).unwrap()
    }

    /// Writes what a processor needs that may see that.
    pub(crate) fn files(&self, name: &str, grants: &[Grant]) -> ControllerFiles {
        let issued = self.authorities.client(grants, SystemTime::now()).unwrap();
        let write = |ending: &str, text: &str| {
            let path = self.folder.path().join(format!("{name}.{ending}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        ControllerFiles {
            ca: write("ca", &self.authorities.certificates()),
            certificate: write("crt", &issued.certificate),
            key: write("key", issued.key.expose_secret()),
        }
    }
}

/// A controller that serves processors until it is dropped.
pub(crate) struct Plane {
    pub(crate) publisher: Publisher,
    pub(crate) tls: Tls,
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

impl Plane {
    pub(crate) fn new(trust: &Trust) -> Self {
        Self::at(trust, ([127, 0, 0, 1], 0).into())
    }

    pub(crate) fn at(trust: &Trust, address: SocketAddr) -> Self {
        let listener = Listen::Tcp(address).bind().unwrap();
        let Listen::Tcp(address) = *listener.local() else { panic!("no TCP") };
        let (publisher, tls, stop) = (Publisher::default(), trust.tls(), CancellationToken::new());
        let (serving, shown, stopped) = (publisher.clone(), tls.clone(), stop.clone());
        spawn(async move { serving.serve(listener, shown, stopped.cancelled()).await.unwrap() });
        Self { publisher, tls, address, _stop: stop.drop_guard() }
    }

    pub(crate) fn publish(&self, gateway: &str, generation: u64, document: &Value) {
        let edition = Edition { generation, document: document.to_string().into() };
        self.publisher.publish(gateway, edition).unwrap();
    }

    /// Waits until every one of so many replicas has an edition.
    pub(crate) async fn taken(&self, gateway: &str, generation: u64, replicas: usize) {
        let all = async || {
            let taken = self.publisher.taken(gateway, generation, std::time::Duration::from_secs(1)).await;
            taken.in_force.len() == replicas
        };
        until("the edition is taken", all).await;
    }
}

/// A processor that follows a controller until it is dropped.
pub(crate) struct Follower {
    pub(crate) slot: Slot,
    _stop: DropGuard,
}

impl Follower {
    pub(crate) fn new(controller: Controller) -> Self {
        let (slot, stop) = (Slot::default(), CancellationToken::new());
        let (following, stopped) = (follow_controller(controller, slot.clone()).unwrap(), stop.clone());
        spawn(
            async move { stopped.run_until_cancelled(Box::pin(following)).await.map(|never| match never {}) },
        );
        Self { slot, _stop: stop.drop_guard() }
    }

    pub(crate) fn serves(&self, authority: &str) -> bool {
        self.slot.load().is_some_and(|runtime| runtime.gateway(authority).is_some())
    }

    pub(crate) fn status(&self) -> PushedStatus {
        self.slot.pushed().status().unwrap()
    }

    /// The generation in force.
    pub(crate) fn generation(&self, gateway: &str) -> Option<u64> {
        let status = self.status();
        let known = status.gateways.into_iter().find(|known| &*known.name == gateway)?;
        known.in_force.map(|(generation, _)| generation)
    }

    /// Waits until something is said to be wrong.
    pub(crate) async fn problem(&self, text: &str) {
        let told = async || self.status().problem.is_some_and(|problem| problem.contains(text));
        until(text, told).await;
    }
}

/// A controller's address and files, for a processor of that name.
pub(crate) fn controller(address: SocketAddr, files: ControllerFiles, replica: &str) -> Controller {
    Controller {
        url: format!("https://localhost:{}", address.port()).parse().unwrap(),
        files,
        gateways: Vec::new(),
        cache: None,
        replica: replica.to_owned(),
        accept: "*".parse().unwrap(),
    }
}

/// A document with so many rules.
pub(crate) fn document(gateway: &str, authority: &str, rules: usize) -> Value {
    let backend = |index: usize| json!({"name": format!("default/b/route/r/rule/{index}/ref/0"), "auth": {"apiKey": {"key": format!("sk-{index}")}}});
    let matches = |index: usize| json!({"headers": [{"name": "x-ai-eg-model", "value": format!("m{index}")}], "rule": index});
    let rule = |index: usize| {
        let backend = format!("default/b/route/r/rule/{index}/ref/0");
        json!({"route": "default/r", "backend": backend, "routingKey": format!("key-{index}")})
    };
    let all = |item: &dyn Fn(usize) -> Value| (0..rules).map(item).collect::<Vec<_>>();
    json!({
        "backends": all(&backend),
        "gateways": [{
            "authority": authority, "name": gateway, "models": {},
            "hosts": [{"hostname": "*", "matches": all(&matches)}],
            "rules": all(&rule),
        }],
    })
}

/// Stands between a processor and its controller, counts, and cuts.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// What the controller sent.
    pub(crate) sent: Arc<AtomicU64>,
    /// How much it may send on one connection.
    pub(crate) most: Arc<AtomicU64>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
}

impl Proxy {
    pub(crate) async fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
        let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let proxy = Self { address, sent: Arc::clone(&sent), most: Arc::clone(&most), cut: Arc::clone(&cut) };
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(to).await else { continue };
                let (sent, most, cut) =
                    (Arc::clone(&sent), most.load(Ordering::SeqCst), cut.lock().unwrap().clone());
                spawn(async move {
                    _ = cut.run_until_cancelled(pass(client, server, &sent, most)).await;
                });
            }
        });
        proxy
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }
}

async fn pass(client: TcpStream, server: TcpStream, sent: &AtomicU64, most: u64) {
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let down = async {
        let (mut buffer, mut passed) = (vec![0; 16 << 10], 0_u64);
        while let Ok(read @ 1..) = server_in.read(&mut buffer).await {
            passed += read as u64;
            sent.fetch_add(read as u64, Ordering::SeqCst);
            if passed > most || client_out.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        _ = tokio::io::copy(&mut client_in, &mut server_out) => {}
    }
}

/// The files of a cache.
pub(crate) fn cached(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "cache")).collect()
}
