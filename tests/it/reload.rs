//! Files that change while the gateway serves.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::StatusCode;
use http_body_util::BodyExt;

use crate::support::backend::{Backend, header};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::{get, post};
use crate::support::{until, yaml};

const CHAT: &str = "/v1/chat/completions";
const REQUEST: &str = r#"{"model":"m","messages":[]}"#;

/// A gateway between two backends, and the file that says which of them serves model `m`, with which key.
struct Rig {
    gateway: Gateway,
    one: Backend,
    two: Backend,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Option<Self> {
        let (one, two) = (Backend::start(&["--id", "one"]).await, Backend::start(&["--id", "two"]).await);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("route.yaml");
        std::fs::write(&file, serving("m", "one", "key-of-one")).unwrap();
        let backends = yaml::backend("one", one.addr) + &yaml::backend("two", two.addr);
        let setup = Setup::new().await?.yaml(yaml::gateway("1Mi") + &backends).file(&file);
        Some(Self { gateway: setup.start().await, one, two, file, _dir: dir })
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    /// Which backend answers, if any.
    async fn who(&self) -> Option<String> {
        let answer = self.gateway.peer().send(post(CHAT, &[], REQUEST)).await;
        Some(answer.headers.get("x-testbackend-id")?.to_str().unwrap().to_owned())
    }

    async fn says(&self, part: &str) {
        until(part, async || self.gateway.lines().iter().any(|line| line.contains(part))).await;
    }
}

fn serving(model: &str, backend: &str, key: &str) -> String {
    yaml::route(&[(model, backend)], "") + &yaml::api_key(backend, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_under_load_lose_no_request_and_cross_no_key() {
    const EDITS: usize = 30;
    let Some(rig) = Rig::new().await else { return };
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let answered = std::sync::Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (peer, stop, answered) = (rig.gateway.peer(), stop.clone(), answered.clone());
        clients.spawn(async move {
            let mut connection = peer.keep().await;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.send(post(CHAT, &[], REQUEST)).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for edit in 0..EDITS {
        let (name, backend) = if edit % 2 == 0 { ("two", &rig.two) } else { ("one", &rig.one) };
        let key = format!("key-of-{name}-{edit}");
        rig.write(&serving("m", name, &key));
        let wanted = format!("Bearer {key}");
        until(&format!("edit {edit} is in force"), async || {
            rig.who().await.as_deref() == Some(name)
                && header(&backend.last(), "authorization") == [wanted.as_str()]
        })
        .await;
        for (name, backend) in [("one", &rig.one), ("two", &rig.two)] {
            for request in backend.all() {
                let sent = header(&request, "authorization").concat();
                assert!(sent.starts_with(&format!("Bearer key-of-{name}")), "{name} was sent {sent}");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > EDITS as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_edit_keeps_what_was_and_says_where_it_is_wrong() {
    let Some(rig) = Rig::new().await else { return };
    let good = serving("m", "one", "key-of-one");
    let line = good.lines().position(|line| line.contains("parentRefs")).unwrap() + 1;
    rig.write(&good.replace("parentRefs", "parentRefz"));
    rig.says("unknown field `parentRefz`").await;
    rig.says(&format!("route.yaml:{line}:")).await;
    rig.says("did you mean `parentRefs`?").await;
    rig.says("what was in force before is kept of").await;
    assert_eq!(rig.who().await.as_deref(), Some("one"));

    rig.write(&good.replace("backendRefs: [{name: one}]", "backendRefs: [{name: missing}]"));
    rig.says("there is no AIServiceBackend default/missing").await;
    rig.says("the configuration stays as it was").await;
    assert_eq!(rig.who().await.as_deref(), Some("one"));

    std::fs::remove_file(&rig.file).unwrap();
    rig.says("route.yaml: ").await;
    assert_eq!(rig.who().await.as_deref(), Some("one"));

    rig.write(&serving("m", "two", "key-of-two"));
    until("the next good edit is in force", async || rig.who().await.as_deref() == Some("two")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_the_route_it_came_by() {
    let Some(rig) = Rig::new().await else { return };
    let knobs = [("x-testbackend-chunks", "40"), ("x-testbackend-pace", "50ms")];
    let stream = r#"{"model":"m","stream":true,"messages":[]}"#;
    let mut body = rig.gateway.peer().open(post(CHAT, &knobs, stream)).await.unwrap().into_body();
    let mut text = String::new();
    let mut changed = false;
    while let Some(frame) = body.frame().await {
        text += std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap();
        if !changed {
            rig.write(&serving("m", "two", "key-of-two"));
            until("the edit is in force", async || rig.who().await.as_deref() == Some("two")).await;
            changed = true;
        }
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_in_force_is_shown_without_its_keys() {
    let Some(rig) = Rig::new().await else { return };
    let lines = rig.gateway.lines().join("\n");
    let admin = lines.split("http://").find_map(|part| part.split_once("/metrics")).expect("announced").0;
    let admin = crate::support::http::Peer::Tcp(admin.parse().unwrap());
    let shown = async || admin.send(get("/config")).await.json();
    let first = shown().await;
    assert_eq!(first["generation"], 1);
    assert_eq!(first["config"]["gateways"][0]["rules"][0]["route"], "default/test");
    assert!(first.to_string().contains("[REDACTED]") && !first.to_string().contains("key-of-one"), "{first}");

    rig.write(&serving("renamed", "one", "key-of-one"));
    until("the second generation", async || shown().await["generation"] == 2).await;
    let second = shown().await.to_string();
    assert!(second.contains("renamed") && !second.contains("key-of-one"), "{second}");
    // A change of nothing is no generation of its own.
    rig.write(&(serving("renamed", "one", "key-of-one") + "# a comment\n"));
    rig.write(&serving("again", "one", "key-of-one"));
    until("the next one", async || shown().await.to_string().contains("again")).await;
    assert_eq!(shown().await["generation"], 3);
}
