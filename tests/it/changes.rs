//! A rule whose backends differ, while its configuration changes under load.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ai_gateway::runtime::Runtime;
use http::StatusCode;

use crate::failover::{IN_ORDER, RETRY};
use crate::support::gateway::Setup;
use crate::support::http::post;
use crate::support::planes::{GRACE, Planes};
use crate::support::provider::{Provider, Seen, answer};
use crate::support::{until, yaml};

const CHAT: &str = "/v1/chat/completions";
const REQUEST: &str = r#"{"model":"m","messages":[]}"#;

/// What one provider of several was sent that it should not have been.
type Wrong = Arc<Mutex<BTreeSet<String>>>;

/// A provider that takes its own keys only, of whatever edition, and fails every request that it is the first to get.
async fn strict(own: &'static str, wrong: &Wrong) -> Provider {
    let wrong = Arc::clone(wrong);
    Provider::start(move |seen: Seen| {
        let edition = seen.header("x-edition").concat();
        let signed = seen.header("authorization") == [format!("Bearer {own}-{edition}")];
        let text = format!("{:?}", seen.head);
        if !signed
            || ["a-", "b-"]
                .iter()
                .any(|key| *key != format!("{own}-") && text.contains(&format!("Bearer {key}")))
        {
            wrong.lock().unwrap().insert(format!("{own}: {text}"));
        }
        let status = if seen.header("x-role") == ["first"] { 503 } else { 200 };
        async move { answer(status, "{}") }
    })
    .await
}

/// A rule over both, whose order changes with every edition, and whose keys are each edition's own.
fn edition(a: &Provider, b: &Provider, number: usize) -> String {
    let mut order = [("a", a.addr), ("b", b.addr)];
    order.rotate_left(number % 2);
    let roles = [("one", "first"), ("two", "second")];
    let backends = roles.iter().zip(order).map(|((name, role), (key, addr))| {
        let told = format!(
            "  headerMutation: {{set: [{{name: x-edition, value: \"{number}\"}}, {{name: x-role, value: {role}}}]}}"
        );
        yaml::backend_with(name, addr, &told) + &yaml::api_key(name, &format!("{key}-{number}"))
    });
    let rest = yaml::shared_rule(IN_ORDER, "") + &yaml::retries(RETRY, "");
    yaml::gateway("1Mi") + &backends.collect::<String>() + &rest
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_the_file_under_load_cross_no_key_and_lose_no_request() {
    const EDITS: usize = 20;
    let edits = std::env::var("AIGW_TEST_EDITS").ok().and_then(|edits| edits.parse().ok()).unwrap_or(EDITS);
    let wrong = Wrong::default();
    let (a, b) = (strict("a", &wrong).await, strict("b", &wrong).await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rule.yaml");
    std::fs::write(&file, edition(&a, &b, 0)).unwrap();
    let Some(setup) = Setup::new().await else { return };
    let gateway = setup.file(&file).start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (peer, stop) = (gateway.peer(), Arc::clone(&stop));
        clients.spawn(async move {
            let mut connection = peer.keep().await;
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.send(post(CHAT, &[], REQUEST)).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                answered += 1;
            }
            answered
        });
    }
    for number in 1..=edits {
        std::fs::write(&file, edition(&a, &b, number)).unwrap();
        let told = number.to_string();
        until(&format!("edit {number} is in force"), async || {
            a.last_seen().is_some_and(|seen| seen.header("x-edition") == [told.as_str()])
                || clients.is_empty()
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client.unwrap();
    }
    let wrong = wrong.lock().unwrap().clone();
    assert!(wrong.is_empty(), "{} of these: {:?}", wrong.len(), wrong.first());
    assert_eq!(a.seen().len() + b.seen().len(), 2 * answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_under_load_cross_no_key_and_lose_no_request() {
    const CHANGES: usize = 1_000;
    const EDITIONS: usize = 8;
    let wrong = Wrong::default();
    let (a, b) = (strict("a", &wrong).await, strict("b", &wrong).await);
    let edition = |number| edition(&a, &b, number);
    let editions: Vec<String> = (0..EDITIONS).map(edition).collect();
    let Some((planes, configs)) = Planes::envoy_for_all(&editions).await else { return };
    let (processor, slot) = planes.bare_processor();
    let publish = |number: usize| {
        let (runtime, problems) = Runtime::new(configs[number % EDITIONS].clone());
        assert!(problems.is_empty(), "{problems:?}");
        slot.publish(runtime);
    };
    publish(0);

    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (peer, stop, answered) = (planes.peer(), Arc::clone(&stop), Arc::clone(&answered));
        clients.spawn(async move {
            let mut connection = peer.keep().await;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.send(post(CHAT, &[], REQUEST)).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for change in 1..=CHANGES {
        publish(change);
        let before = answered.load(Ordering::Relaxed);
        until("a request is answered", async || {
            answered.load(Ordering::Relaxed) > before || clients.try_join_next().is_some()
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let wrong = wrong.lock().unwrap().clone();
    assert!(wrong.is_empty(), "{} of these: {:?}", wrong.len(), wrong.first());
    let answered = usize::try_from(answered.load(Ordering::Relaxed)).unwrap();
    assert!(answered > CHANGES, "{answered}");
    // Each was tried twice.
    assert_eq!(a.seen().len() + b.seen().len(), 2 * answered);
    processor.shutdown(GRACE).await;
}
