//! Quotas of a processor without Redis survive its end, whichever it is.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use ai_gateway::proto::ext_proc::processing_response::Response as Reply;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::scripted::{
    AUTHORITY, Envoy, channel, headers, request_body, response_body, response_headers,
};
use crate::support::{spawn, until};

/// What each answer uses.
const USED: u64 = 300;

/// A processor's process, in a folder. Dropping it kills it.
struct Process {
    child: Child,
    socket: PathBuf,
}

impl Process {
    /// Starts one with a limit of so many tokens an hour.
    async fn start(folder: &Path, amount: u64) -> Self {
        std::fs::write(folder.join("config"), configuration(amount).to_string()).unwrap();
        let mut child = command(folder).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = String::new();
        loop {
            let line = log.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended:\n{told}"));
            if line.ends_with("is ready") {
                break;
            }
            told += &line;
        }
        // Who writes to a pipe that nobody reads stands still.
        spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { child, socket: folder.join("s") }
    }

    /// A request up to the reply to its body.
    async fn ask(&self, max_tokens: u64) -> (Envoy, Reply) {
        let mut envoy = Envoy::open(channel(self.socket.clone())).await;
        let own = [(":method", "POST"), (":path", "/v1/chat/completions")];
        envoy.send(Some(headers(&own))).await.unwrap();
        let message = json!({"role": "user", "content": "Who are you?"});
        let body = json!({"model": "m", "max_tokens": max_tokens, "messages": [message]});
        let reply = envoy.send(Some(request_body(body))).await.unwrap();
        (envoy, reply.response.unwrap())
    }

    /// A request that is let in.
    async fn sent(&self, max_tokens: u64) -> Envoy {
        let (envoy, reply) = self.ask(max_tokens).await;
        assert!(matches!(reply, Reply::RequestBody(_)), "{reply:?}");
        envoy
    }

    /// A request and its answer.
    async fn spend(&self) {
        let mut envoy = self.sent(2_000).await;
        let head = [(":status", "200"), ("content-type", "application/json")];
        envoy.send(Some(response_headers(&head))).await.unwrap();
        let usage = json!({"prompt_tokens": 50, "completion_tokens": USED - 50, "total_tokens": USED});
        let answer = json!({"object": "chat.completion", "model": "m", "choices": [], "usage": usage});
        envoy.send(Some(response_body(answer.to_string(), true))).await.unwrap();
    }

    /// What is left, by a request that can never fit: it is refused and costs nothing.
    async fn left(&self) -> u64 {
        let (_, Reply::ImmediateResponse(refusal)) = self.ask(1_000_000_000).await else {
            panic!("it was let in")
        };
        let refusal: Value = serde_json::from_slice(&refusal.body).unwrap();
        refusal["error"]["quota"]["remaining"].as_u64().unwrap()
    }

    async fn end(mut self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
        self.child.wait().await.unwrap();
    }
}

fn command(folder: &Path) -> Command {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aigw"));
    command.args(["extproc", "--config", &path("config"), "--listen", &format!("unix://{}", path("s"))]);
    command.args(["--admin", "127.0.0.1:0", "--quota-snapshot", &path("quotas")]);
    command.args(["--quota-snapshot-interval", "10ms"]).env_remove("AIGW_REDIS").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn configuration(amount: u64) -> Value {
    let backend = "default/b/route/r/rule/0/ref/0";
    let window = json!({"kind": "Rolling", "seconds": 3600});
    let limit = json!({
        "id": "tokens", "name": "tokens", "metric": "TotalToken", "amount": amount, "per": [], "window": window,
    });
    let matches = json!([{"headers": [{"name": "x-ai-eg-model", "value": "m"}], "rule": 0}]);
    json!({
        "backends": [{"name": backend, "auth": {"apiKey": {"key": "sk-1"}}}],
        "quotas": [{"policy": "p", "limits": [limit]}],
        "gateways": [{
            "authority": AUTHORITY, "name": "default/gw", "models": {},
            "hosts": [{"hostname": "*", "matches": matches}],
            "rules": [{"route": "default/r", "backend": backend, "routingKey": "key"}],
        }],
    })
}

#[tokio::test]
async fn a_limit_holds_over_a_restart_and_an_edit() {
    let folder = tempfile::tempdir().unwrap();
    let first = Process::start(folder.path(), 10_000).await;
    for _ in 0..10 {
        first.spend().await;
    }
    until("all is settled", async || first.left().await == 10_000 - 10 * USED).await;
    first.end("-TERM").await;
    let second = Process::start(folder.path(), 6_000).await;
    assert_eq!(second.left().await, 6_000 - 10 * USED);
    second.spend().await;
    // Whatever is under way at the end is settled, and in the file.
    second.end("-TERM").await;
    let third = Process::start(folder.path(), 6_000).await;
    assert_eq!(third.left().await, 6_000 - 11 * USED);
    third.end("-KILL").await;
}

#[tokio::test]
async fn who_is_killed_has_left_what_was_written_and_what_was_reserved() {
    let folder = tempfile::tempdir().unwrap();
    let first = Process::start(folder.path(), 10_000).await;
    first.spend().await;
    let _open = first.sent(4_000).await;
    let left = first.left().await;
    assert!(left < 10_000 - USED - 4_000, "it is held");
    until("it is in the file", async || {
        let file = std::fs::read(folder.path().join("quotas")).unwrap();
        let file = String::from_utf8_lossy(&file);
        file.contains(&format!(r#""spent":{USED},"#)) && file.contains(r#""held":4"#)
    })
    .await;
    first.end("-KILL").await;
    let second = Process::start(folder.path(), 10_000).await;
    assert_eq!(second.left().await, left, "until the lease runs out");
    second.end("-KILL").await;
}

#[tokio::test]
async fn a_file_is_of_one_process_and_of_no_redis() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Process::start(folder.path(), 10_000).await;
    let refused = async |redis: &[&str]| {
        let mut other = command(folder.path());
        let output = other.args(redis).output().await.unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let problem = refused(&[]).await;
    assert!(problem.contains("quotas: another process"), "{problem}");
    let problem = refused(&["--redis", "redis://127.0.0.1:1"]).await;
    assert!(problem.contains("leave one of the two out"), "{problem}");
}
