//! etcd, an API server and a controller manager, with RBAC, ServiceAccount tokens and admission as in a cluster.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::tools::Tools;
use super::until;

/// The node's address, which pods reach.
pub(crate) const NODE: &str = "10.244.0.1";

const PORT: u16 = 6443;

/// The controllers of the controller manager that tests have a use for.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,deployment-controller,\
    replicaset-controller,job-controller,serviceaccount-controller,endpointslice-controller,\
    root-ca-certificate-publisher-controller,disruption-controller";

/// A running control plane. Everything ends with the test's namespaces.
pub(crate) struct ApiServer {
    pub(crate) tools: Tools,
    dir: TempDir,
    client: Client,
    server: Child,
    _others: [Child; 2],
}

impl ApiServer {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(tools: Tools) -> Self {
        let dir = tempfile::Builder::new().prefix("k8s-").tempdir_in("/mnt").expect("a folder");
        let at = |name: &str| dir.path().join(name);
        write_certificates(dir.path());
        fs::write(at("tokens.csv"), "admintoken,admin,admin,\"system:masters\"\n").expect("write");
        let ca = fs::read(at("ca.crt")).expect("the certificate");
        fs::write(at("kubeconfig"), kubeconfig(&ca, "admintoken")).expect("write");
        let etcd = start(&tools, dir.path(), "etcd", &etcd_arguments(dir.path()));
        let server = start(&tools, dir.path(), "kube-apiserver", &server_arguments(dir.path()));
        let client = client(&ca, "admintoken").await;
        let mut this = Self { tools, dir, client, server, _others: [etcd, idle()] };
        this.ready().await;
        this._others[1] = start(
            &this.tools,
            this.dir.path(),
            "kube-controller-manager",
            &manager_arguments(this.dir.path()),
        );
        // Without it no pod is admitted.
        until("the default ServiceAccount", async || {
            this.try_kubectl(&["-n", "default", "get", "serviceaccount", "default"]).await.is_ok()
        })
        .await;
        this
    }

    /// The client of an administrator.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client with a token of this ServiceAccount, which may do what RBAC says.
    pub(crate) async fn client_as(&self, namespace: &str, account: &str) -> Client {
        client(&self.ca(), &self.token(namespace, account).await).await
    }

    /// A token of this ServiceAccount.
    pub(crate) async fn token(&self, namespace: &str, account: &str) -> String {
        self.kubectl(&["-n", namespace, "create", "token", account]).await.trim().to_owned()
    }

    /// A kubeconfig file with a token of this ServiceAccount, for a process of ours.
    pub(crate) async fn kubeconfig_as(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.token(namespace, account).await;
        let path = self.dir.path().join(format!("kubeconfig-{namespace}-{account}"));
        fs::write(&path, kubeconfig(&self.ca(), &token)).expect("write");
        path
    }

    /// The kubeconfig file of an administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// PEM.
    pub(crate) fn ca(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("ca.crt")).expect("the certificate")
    }

    /// The folder of this cluster, in memory.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// What kubectl prints; it has to succeed.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments)
            .await
            .unwrap_or_else(|error| panic!("kubectl {}: {error}", arguments.join(" ")))
    }

    /// What kubectl prints, or what it says when it fails.
    pub(crate) async fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.tools.path("kubebox"));
        command.arg("kubectl").args(arguments);
        self.run(command, "").await
    }

    /// `kubectl apply --server-side` of this text; it has to succeed.
    pub(crate) async fn apply(&self, yaml: &str) {
        self.try_apply(yaml).await.unwrap_or_else(|error| panic!("kubectl apply: {error}"));
    }

    /// As [`ApiServer::apply`], with what is wrong.
    pub(crate) async fn try_apply(&self, yaml: &str) -> Result<String, String> {
        let mut command = Command::new(self.tools.path("kubebox"));
        command.args(["kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-"]);
        self.run(command, yaml).await
    }

    /// What Helm prints; it has to succeed.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.tools.path("helm"));
        command.args(arguments);
        let output = self.run(command, "").await;
        output.unwrap_or_else(|error| panic!("helm {}: {error}", arguments.join(" ")))
    }

    async fn run(&self, mut command: Command, input: &str) -> Result<String, String> {
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.folder()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let mut stdin = child.stdin.take().expect("piped");
        // One that fails early does not read it.
        _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.expect("its output");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Takes the API server away, as a failure of its machine would.
    pub(crate) async fn stop(&mut self) {
        // On SIGTERM it would drain for up to a minute.
        self.server.kill().await.expect("kill");
    }

    /// Brings it back, with what it had.
    pub(crate) async fn resume(&mut self) {
        self.server = start(&self.tools, self.folder(), "kube-apiserver", &server_arguments(self.folder()));
        self.ready().await;
    }

    async fn ready(&mut self) {
        let client = self.client.clone();
        let (server, folder) = (&mut self.server, self.dir.path());
        until("the API server is ready", async || {
            if let Some(status) = server.try_wait().expect("a child") {
                panic!("the API server ended with {status}:\n{}", log_tail(folder, "kube-apiserver"));
            }
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            let asked = tokio::time::timeout(Duration::from_secs(5), client.request_text(request));
            asked.await.is_ok_and(|answer| answer.is_ok())
        })
        .await;
    }
}

/// The end of what a process of this cluster has logged.
pub(crate) fn log_tail(folder: &Path, name: &str) -> String {
    let log = fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn start(tools: &Tools, folder: &Path, name: &str, arguments: &[String]) -> Child {
    let log =
        File::options().create(true).append(true).open(folder.join(format!("{name}.log"))).expect("a log");
    let mut command = Command::new(tools.path("kubebox"));
    command.arg(name).args(arguments).current_dir(folder).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a log")).stderr(log).kill_on_drop(true);
    command.spawn().expect("kubebox")
}

/// In the place of what is not started yet.
fn idle() -> Child {
    Command::new("true").kill_on_drop(true).spawn().expect("true")
}

fn etcd_arguments(folder: &Path) -> Vec<String> {
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn server_arguments(folder: &Path) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    let mut arguments = vec![
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        file("cert-dir", "certs"),
        file("token-auth-file", "tokens.csv"),
        file("service-account-key-file", "account.pub"),
        file("service-account-signing-key-file", "account.key"),
        format!("--advertise-address={NODE}"),
        format!("--secure-port={PORT}"),
    ];
    arguments.extend(
        [
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=0.0.0.0",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--authorization-mode=RBAC",
            "--enable-priority-and-fairness=false",
            "--profiling=false",
        ]
        .map(str::to_owned),
    );
    arguments
}

fn manager_arguments(folder: &Path) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    vec![
        file("kubeconfig", "kubeconfig"),
        file("root-ca-file", "ca.crt"),
        file("service-account-private-key-file", "account.key"),
        format!("--controllers={CONTROLLERS}"),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
    ]
}

fn write_certificates(folder: &Path) {
    let write = |name: &str, text: String| fs::write(folder.join(name), text).expect("write");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the tests' cluster");
    let key = KeyPair::generate().expect("a key");
    write("ca.crt", params.self_signed(&key).expect("a certificate").pem());
    let issuer = Issuer::new(params, key);
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        NODE,
    ];
    let mut params = CertificateParams::new(names.map(str::to_owned).to_vec()).expect("names");
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let key = KeyPair::generate().expect("a key");
    write("server.crt", params.signed_by(&key, &issuer).expect("a certificate").pem());
    write("server.key", key.serialize_pem());
    let key = KeyPair::generate().expect("a key");
    write("account.key", key.serialize_pem());
    write("account.pub", key.public_key_pem());
}

fn kubeconfig(ca: &[u8], token: &str) -> String {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": format!("https://{NODE}:{PORT}"), "certificate-authority-data": ca}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    })
    .to_string()
}

async fn client(ca: &[u8], token: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig(ca, token)).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}
