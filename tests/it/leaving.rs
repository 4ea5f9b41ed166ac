//! Clients that leave in the middle of a stream leave nothing behind.

use http_body_util::BodyExt;

use crate::support::backend::Backend;
use crate::support::http::post;
use crate::support::planes::{GRACE, Planes};
use crate::support::{until, yaml};

const CHAT: &str = "/v1/chat/completions";
const STREAM: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

async fn leave_after_two_events(planes: &Planes) {
    let request = post(CHAT, &[("x-testbackend-fault", "endless"), ("x-testbackend-pace", "1ms")], STREAM);
    let mut body = planes.peer().open(request).await.unwrap().into_body();
    let mut seen = 0;
    while seen < 2 {
        let frame = body.frame().await.unwrap().unwrap();
        seen += frame.data_ref().unwrap().windows(2).filter(|w| w == b"\n\n").count();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_leave_mid_stream_leave_nothing_behind() {
    const CLIENTS: u64 = 1_000;
    let backend = Backend::start(&[]).await;
    let resources =
        yaml::gateway("1Mi") + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], "");
    let Some(planes) = Planes::envoy(&resources).await else { return };
    let processor = planes.processor(&resources);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();

    // The first opens the connection to the processor, which stays.
    leave_after_two_events(&planes).await;
    backend.idle().await;
    until("the first is over", async || processor.active().count() == 0).await;
    let before = tasks();
    for _ in 0..CLIENTS / 20 {
        futures_util::future::join_all((0..20).map(|_| leave_after_two_events(&planes))).await;
    }

    let counters = backend.idle().await;
    assert_eq!((counters.requests, counters.aborted), (CLIENTS + 1, CLIENTS + 1));
    assert_eq!(counters.chunks_after_gone, 0);
    until("the processor has no exchange", async || processor.active().count() == 0).await;
    until("the backend has no connection", async || backend.counters().connections_active == 0).await;
    until("no task is left", async || tasks() <= before).await;
    for gauge in ["upstream_rq_active", "downstream_rq_active"] {
        let name = format!("{gauge}$");
        until(gauge, async || {
            planes.envoy.stats(&name).await.iter().all(|(name, value)| name.contains("admin") || *value == 0)
        })
        .await;
    }
    // Each was settled, once, with what had been delivered.
    assert_eq!(planes.metric("aigw_exchanges_active").await, 0.0);
    // Settlements are worked off in batches, a moment later.
    let settled = async || planes.metric("aigw_exchanges_settled_total").await;
    until("every exchange is settled", async || settled().await >= (CLIENTS + 1) as f64).await;
    assert_eq!(planes.metric("aigw_exchanges_settled_total").await, (CLIENTS + 1) as f64);
    assert_eq!(planes.metric("aigw_exchanges_estimated_total").await, (CLIENTS + 1) as f64);
    processor.shutdown(GRACE).await;
}
