//! `extproc` as a controller of the Go gateway starts it: its flags, its configurations, its life and its end.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use ai_gateway::proto::ext_proc::processing_response::Response as Reply;
use ai_gateway::proto::health::health_check_response::ServingStatus;
use ai_gateway::proto::health::health_client::HealthClient;
use ai_gateway::proto::health::{HealthCheckRequest, HealthListRequest};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::extproc::{Envoy, USAGE, channel, code, headers, request_body, response_body, response_headers};
use crate::support::backend::{Backend, header};
use crate::support::classic;
use crate::support::http::{Peer, collect, get, post};
use crate::support::{spawn, until};

const READY: &str = "AI Gateway External Processor is ready";

/// A folder with a configuration and a socket.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Parts in any order, and the index last.
    fn write_bundle(&self, document: &str) {
        let (first, second) = document.split_at(document.len() / 2);
        self.write("parts/000", first);
        self.write("parts/001", second);
        self.write("index.yaml", &index(document));
    }

    /// `extproc` with these flags, its socket and admin listener here.
    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_extproc"));
        command.args(["-extProcAddr", &format!("unix://{}", self.text("s")), "-adminPort=0"]).args(flags);
        command.env_remove("AIGW_ACCEPT_VERSION").env_remove("RUST_LOG").env("DISABLE_PPROF", "1");
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn start(&self, flags: &[&str]) -> Process {
        Process::start(self.command(flags), self.path("s")).await
    }

    /// Starts what must not start: the exit code and what was said.
    async fn refused(&self, flags: &[&str]) -> (Option<i32>, String) {
        let output = self.command(flags).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

fn index(document: &str) -> String {
    let sum: String =
        digest(&SHA256, document.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let half = document.len() / 2;
    let part = |name: &str, size| json!({"name": name, "path": format!("parts/{name}"), "sizeBytes": size});
    let parts = [part("000", half), part("001", document.len() - half)];
    json!({"version": "dev", "uuid": "u", "checksum": sum, "parts": parts, "createdAt": "2025-01-01T00:00:00Z"}).to_string()
}

/// A controller's configuration that lists this model.
fn document(model: &str) -> String {
    format!("version: dev\nmodels:\n- Name: {model}\n  OwnedBy: me\n  CreatedAt: 2025-01-01T00:00:00Z\n")
}

/// A running processor. Dropping it kills it.
struct Process {
    child: Child,
    socket: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    async fn start(mut command: Command, socket: PathBuf) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (ready, mut told) = watch::channel(false);
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&lines);
        spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                if line == READY {
                    ready.send_replace(true);
                }
                kept.lock().unwrap().push(line);
            }
        });
        let process = Self { child, socket, lines };
        assert!(told.wait_for(|ready| *ready).await.is_ok(), "it ended:\n{}", process.log());
        process
    }

    fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    async fn logs(&self, text: &str) {
        until(text, async || self.log().contains(text)).await;
    }

    async fn envoy(&self) -> Envoy {
        Envoy::open(channel(self.socket.clone())).await
    }

    /// The reply to a request for the list of models.
    async fn get(&self, path: &'static str) -> (u32, String) {
        let reply = self.envoy().await.send(Some(headers(&[(":method", "GET"), (":path", path)]))).await;
        let Some(Reply::ImmediateResponse(reply)) = reply.unwrap().response else { panic!("it went on") };
        (reply.status.unwrap().code.try_into().unwrap(), String::from_utf8(reply.body.to_vec()).unwrap())
    }

    /// The models it lists.
    async fn models(&self) -> Vec<String> {
        let (_, body) = self.get("/v1/models").await;
        let list: Value = serde_json::from_str(&body).unwrap();
        // Without a configuration there is no list.
        list["data"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn serves(&self, model: &str) {
        until(model, async || self.models().await == [model]).await;
    }

    /// Where the admin listener is, as the log says.
    fn admin(&self) -> Peer {
        let log = self.log();
        let address = log.lines().find_map(|line| line.split_once(" admin=")).expect("an address").1;
        let port = address.trim_matches('"').rsplit_once(':').unwrap().1;
        Peer::Tcp(([127, 0, 0, 1], port.parse().unwrap()).into())
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(180), self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it does not end:\n{}", self.log())).unwrap()
    }
}

#[tokio::test]
async fn what_cannot_work_is_said_with_exit_code_1() {
    let folder = Folder::new();
    folder.write("good", &document("m"));
    folder.write("v9", "version: v9");
    folder.write("typo", "version: dev\nbackends: [{name: b, schema: {name: Nonsense}}]");
    folder.write("key", "version: dev\nbackends: [{name: b, auth: {apiKey: {key: ''}}}]");
    folder.write(
        "cel",
        "version: dev\nglobalLLMRequestCosts: [{metadataKey: k, type: CEL, cel: '1u / input_tokens'}]",
    );
    folder.write("not-a-socket", "precious");
    folder.write("bundle/index.yaml", "{checksum: aa, parts: [{path: ../../good}]}");
    let [good, v9, typo, key, cel] = ["good", "v9", "typo", "key", "cel"].map(|name| folder.text(name));
    let (none, bundle) = (folder.text("none"), folder.text("bundle"));
    let taken = format!("unix://{}", folder.text("not-a-socket"));
    for (flags, told) in [
        (&[][..], "-configPath"),
        (&["-nonsense", "1"], "--nonsense"),
        (&["-configPath", &good, "-logLevel", "loud"], "\"loud\""),
        (&["-configPath", &good, "-logFormat", "xml"], "logFormat"),
        (&["-configPath", &good, "-endpointPrefixes", "openai:/,mistral:/m"], "mistral"),
        (&["-configPath", &good, "-mcpWriteTimeout", "soon"], "mcpWriteTimeout"),
        (&["-configPath", &good, "-extProcAddr", &taken], "not a socket"),
        (&["-configPath", &none], "none"),
        (&["-configPath", &v9], "AIGW_ACCEPT_VERSION=v9"),
        (&["-configPath", &typo], "line 2"),
        (&["-configPath", &key], "backends[0].auth.apiKey.key"),
        (&["-configPath", &cel], "globalLLMRequestCosts[0]"),
        // The bundle goes first, whatever the file is.
        (&["-configPath", &good, "-configBundlePath", &bundle], "parts[0].path"),
    ] {
        let (code, said) = folder.refused(flags).await;
        assert_eq!(code, Some(1), "{flags:?}: {said}");
        assert!(said.contains(told) && !said.contains(READY), "{flags:?}: {said}");
    }
    assert_eq!(std::fs::read(folder.path("not-a-socket")).unwrap(), b"precious");
    let help = folder.command(&["-h"]).stdout(Stdio::piped()).output().await.unwrap();
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--endpointPrefixes"));
}

#[tokio::test]
async fn a_file_is_followed() {
    let folder = Folder::new();
    folder.write("config", &document("one"));
    // What a process that was killed leaves behind.
    drop(std::os::unix::net::UnixListener::bind(folder.path("s")).unwrap());
    let process = folder.start(&["-configPath", &folder.text("config"), "-logLevel", "info-1"]).await;
    let socket = std::fs::metadata(folder.path("s")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o775);
    assert_eq!(process.models().await, ["one"]);

    folder.write("config", &document("two"));
    process.serves("two").await;
    for (bad, told) in [
        ("version: v9", "AIGW_ACCEPT_VERSION"),
        ("models: [", "configuration not loaded"),
        ("version: dev\nbackends: [{name: b, auth: {azureAPIKey: {key: ''}}}]", "azureAPIKey"),
    ] {
        folder.write("config", bad);
        process.logs(told).await;
        assert_eq!(process.models().await, ["two"]);
    }
    let log = process.log();
    assert!(!log.contains("exchange settled"), "single exchanges are told at level debug only");
    let error = log.lines().find(|line| line.contains("level=ERROR")).expect("an error");
    assert!(error.starts_with("time=") && error.contains(" msg=\"configuration not loaded"), "{error}");

    for round in 0..200 {
        folder.write("config", &document(&format!("round-{round:03}")));
        if round % 50 == 0 {
            // Whatever is read in the middle of a write, something is always served.
            assert_eq!(process.models().await.len(), 1);
        }
    }
    process.serves("round-199").await;
}

#[tokio::test]
async fn a_bundle_may_arrive_in_pieces() {
    let folder = Folder::new();
    let first = document("one");
    folder.write("index.yaml", &index(&first));
    folder.write("parts/000", &first[..first.len() / 2]);
    let bundle = folder.0.path().to_str().unwrap();
    let mut process = folder.start(&["-configBundlePath", bundle, "-configPath", "/nonexistent"]).await;
    assert!(process.log().contains("parts/001 is missing"), "{}", process.log());
    let (status, _) = process.get("/v1/models").await;
    assert_eq!(status, 503);
    // As long as it may be whole later, it serves in the eyes of probes.
    health_is_that_of_the_go_processor(&process).await;

    folder.write_bundle(&first);
    process.serves("one").await;
    folder.write("parts/001", "half of another edition");
    process.logs("checksum mismatch").await;
    std::fs::remove_file(folder.path("parts/000")).unwrap();
    process.logs("parts/000 is missing").await;
    assert_eq!(process.models().await, ["one"]);
    folder.write_bundle(&document("two"));
    process.serves("two").await;
    folder.write_bundle("version: v9");
    process.logs("AIGW_ACCEPT_VERSION").await;
    assert_eq!(process.models().await, ["two"]);
    health_is_that_of_the_go_processor(&process).await;
    process.child.kill().await.unwrap();
}

async fn health_is_that_of_the_go_processor(process: &Process) {
    let mut health = HealthClient::new(channel(process.socket.clone()));
    for service in ["", "extproc", "anything"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let listed = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert_eq!(listed.keys().collect::<Vec<_>>(), ["extproc"]);
    let watched = health.watch(HealthCheckRequest::default()).await;
    assert_eq!(watched.map(drop).map_err(|status: Status| status.code()), Err(Code::Unimplemented));
    assert_eq!(process.admin().send(get("/health")).await.text(), "OK\n");
}

#[tokio::test]
async fn listeners_prefixes_and_limits_are_as_the_flags_say() {
    let folder = Folder::new();
    folder.write("config", &document("m"));
    let process = folder
        .start(&[
            "-configPath",
            &folder.text("config"),
            "--rootPrefix=/ai",
            "-endpointPrefixes",
            "openai:/o",
            "-maxRecvMsgSize",
            "2000",
            "-mcpAddr",
            &format!("unix://{}", folder.text("mcp")),
            "-mcpWriteTimeout",
            "2m0s",
            "-mcpSessionEncryptionSeed",
            "seed",
        ])
        .await;
    assert_eq!(process.get("/ai/o/v1/models").await.0, 200);
    assert_eq!(process.get("/ai/anthropic/v1/models").await.0, 200);
    assert_eq!(process.get("/v1/models").await, (404, "unsupported path: /v1/models".to_owned()));

    let admin = process.admin();
    let metrics = admin.send(get("/metrics")).await;
    assert!(metrics.text().contains("target_info"));
    assert_eq!(metrics.headers["content-type"].to_str().unwrap().split(';').next(), Some("text/plain"));
    for path in ["/", "/config", "/debug/pprof/"] {
        assert_eq!(admin.send(get(path)).await.status, 404, "{path}");
    }

    let mode = std::fs::metadata(folder.path("mcp")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o775);
    let answer = Peer::Unix(folder.path("mcp")).send(post("/mcp", &[], r#"{"jsonrpc":"2.0"}"#)).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (501, &"application/json".parse().unwrap())
    );
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("MCP"));

    let mut envoy = process.envoy().await;
    let path = ":path";
    envoy.send(Some(headers(&[(":method", "POST"), (path, "/ai/o/v1/chat/completions")]))).await.unwrap();
    let long = request_body(json!({"model": "m", "user": "x".repeat(2000)}));
    assert_eq!(code(envoy.send(Some(long)).await), Code::OutOfRange);
}

#[tokio::test]
async fn debug_logs_show_neither_credentials_nor_content() {
    let folder = Folder::new();
    folder.write("config", &super::extproc::config().to_string());
    let config = folder.text("config");
    for (flags, shown, hidden) in [
        (&["-enableRedaction"][..], "[REDACTED LENGTH=7 HASH=", "level=INFO-"),
        (&["-enableRedaction=false", "-logFormat", "json"], "\"length\":", "LENGTH="),
    ] {
        let process = folder.start(&[&["-configPath", &config, "-logLevel", "DEBUG"], flags].concat()).await;
        let mut envoy = process.envoy().await;
        let request = [
            (":method", "POST"),
            (":path", "/v1/chat/completions?key=hushhush"),
            ("authorization", "Bearer hushhush"),
            ("x-aigw-anything", "hushhush"),
            ("tenant-session-token", "hushhush"),
            ("x-shown", "loudloud"),
        ];
        envoy.send(Some(headers(&request))).await.unwrap();
        envoy.send(Some(request_body(json!({"model": "m", "user": "private"})))).await.unwrap();
        envoy.send(Some(response_headers(&[(":status", "200"), ("set-cookie", "hushhush")]))).await.unwrap();
        process.logs("response headers").await;
        let log = process.log();
        assert!(log.contains("x-shown: loudloud") && log.contains("authorization: [REDACTED]"), "{log}");
        assert!(log.contains(shown) && !log.contains(hidden), "{log}");
        for secret in ["hushhush", "private", "sk-1"] {
            assert!(!log.contains(secret), "{secret} in\n{log}");
        }
    }
}

/// A streamed exchange that has begun.
async fn begun(process: &Process) -> Envoy {
    let mut envoy = process.envoy().await;
    envoy.request("m").await;
    let answer = response_headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
    envoy.send(Some(answer)).await.unwrap();
    envoy
}

fn ours(folder: &Folder) -> String {
    folder.write("config", &super::extproc::config().to_string());
    folder.text("config")
}

#[tokio::test]
async fn a_signal_lets_a_stream_end() {
    let folder = Folder::new();
    let mut process =
        folder.start(&["-configPath", &ours(&folder), "-drainDelay", "0s", "-logLevel", "debug"]).await;
    let mut envoy = begun(&process).await;
    process.signal("-TERM");
    // No connection is taken any more.
    until("the listener is closed", async || !exists(&folder.path("s"))).await;
    envoy.send(Some(response_body("data: {\"model\":\"m\"}\n\n", false))).await.unwrap();
    assert!(process.child.try_wait().unwrap().is_none(), "it waits for the stream");
    envoy.send(Some(response_body(USAGE, true))).await.unwrap();
    drop(envoy);
    assert!(process.ended().await.success());
    process.logs("total_tokens=5").await;
}

#[tokio::test]
async fn in_the_delay_everything_is_served_and_a_second_signal_ends_it() {
    let folder = Folder::new();
    let mut process =
        folder.start(&["-configPath", &ours(&folder), "-drainDelay", "1h", "-logLevel=debug"]).await;
    let mut envoy = begun(&process).await;
    process.signal("-INT");
    process.logs("told to stop").await;
    health_is_that_of_the_go_processor(&process).await;
    drop(begun(&process).await);
    process.signal("-TERM");
    assert!(process.ended().await.success());
    // Never OK in the middle, and accounted for.
    assert_ne!(code(envoy.send(Some(response_body(USAGE, true))).await), Code::Ok);
    process.logs("outcome=interrupted").await;
    assert!(!exists(&folder.path("s")));
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

#[tokio::test]
async fn any_version_can_be_let_in() {
    let folder = Folder::new();
    folder.write("config", &document("m").replace("dev", "v7.8.9"));
    let config = folder.text("config");
    let mut command = folder.command(&["-configPath", &config]);
    command.env("AIGW_ACCEPT_VERSION", "*");
    drop(Process::start(command, folder.path("s")).await);
    drop(folder.start(&["-configPath", &config, "-versionString", "v7.8.9"]).await);
}

/// What a controller writes for one backend with this key.
fn signing(key: &str) -> String {
    classic::document(&[json!({"schema": {"name": "OpenAI"}, "auth": {"apiKey": {"key": key}}})]).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn under_envoy_neither_new_configurations_nor_the_end_lose_a_request() {
    const CHAT: &str = "/v1/chat/completions";
    let backend = Backend::start(&["--chunks", "50"]).await;
    let setup =
        classic::Setup { backends: &[&backend], config: Vec::new(), picked: false, asks: [&[0], &[0]] };
    let Some(envoy) = classic::envoy(&setup).await else { return };
    let folder = Folder::new();
    folder.write_bundle(&signing("key-0"));
    let socket = envoy.path().join("extproc0.sock");
    let address = format!("unix://{}", socket.display());
    let bundle = folder.0.path().to_str().unwrap();
    let command =
        folder.command(&["-configBundlePath", bundle, "-extProcAddr", &address, "-drainDelay", "0"]);
    let mut process = Process::start(command, socket.clone()).await;

    let peer = envoy.peer("http.sock");
    let body = r#"{"model":"m","messages":[]}"#;
    for edition in 1..=5 {
        let key = format!("key-{edition}");
        folder.write_bundle(&signing(&key));
        until(&key, async || {
            let answers = (0..4).map(|_| peer.send(post(CHAT, &[], body)));
            for answer in futures_util::future::join_all(answers).await {
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            header(&backend.last(), "authorization") == [format!("Bearer {key}")]
        })
        .await;
    }

    let stream = r#"{"model":"m","stream":true,"messages":[]}"#;
    let answer = peer.open(post(CHAT, &[("x-testbackend-pace", "10ms")], stream)).await.unwrap();
    process.signal("-TERM");
    until("the listener is closed", async || !exists(&socket)).await;
    let answer = collect(answer).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
    assert!(process.ended().await.success());
}
