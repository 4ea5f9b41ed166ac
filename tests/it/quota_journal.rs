//! What the store of quotas is owed survives the store's absence and the processor's end, and counts once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ai_gateway::keystore::Location;
use ai_gateway::quota::{
    Ask, Bound, BucketKey, Claim, Group, Mode, OnExpiry, OutputCap, ReservationId, Settle, Verdict, Window,
};
use ai_gateway::quotastore::{
    Away, Desk, DeskOptions, Journal, JournalOptions, RedisStore, Store, StoreError, Sync,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::redis::Redis;
use crate::support::{spawn, until};

const FILE: &str = "settlements.journal";

fn claim() -> Claim {
    Claim {
        bucket: BucketKey { limit: "l".into(), subject: "".into() },
        amount: 1000,
        window: Window::Rolling { length: 3_600_000 },
        bound: Bound::fixed(100),
        mode: Mode::Reserve,
        shadow: false,
        on_expiry: OnExpiry::Charge,
        group: 0,
        most_subjects: None,
    }
}

fn ask(exchange: u64) -> Arc<Ask> {
    Arc::new(Ask {
        id: ReservationId { process: 1, exchange, part: 0 },
        claims: vec![claim()],
        groups: vec![Group::All],
        output: OutputCap { wanted: 0, least: 0 },
        lease: Duration::from_secs(600),
    })
}

fn settle(ask: &Ask, spent: u64) -> Settle {
    Settle { id: ask.id, spent: vec![(claim(), spent)] }
}

fn store(redis: &Redis) -> Store {
    let Location::Redis(info) = redis.url().parse().unwrap() else { panic!("a server") };
    Store::Redis(RedisStore::new(*info, None).unwrap())
}

/// What is spent and held, by a look that holds nothing.
async fn look(store: &Store) -> Option<(u64, u64)> {
    let mut looking = (*ask(u64::MAX)).clone();
    looking.claims[0].bound = Bound::fixed(1_000_000);
    match store.reserve(&looking).await.ok()?.verdict {
        Verdict::Refused(refusal) => Some((refusal.readings[0].spent, refusal.readings[0].held)),
        Verdict::Granted(_) => panic!("there cannot be that much"),
    }
}

/// A store that stays connected.
fn looking_at(redis: &Redis) -> Store {
    let store = store(redis);
    let connecting = store.clone();
    spawn(async move { connecting.connect().await });
    store
}

fn open(folder: &Path) -> (Journal, Vec<Settle>) {
    Journal::open(&JournalOptions { folder: folder.to_owned(), sync: Sync::Always, most: 1 << 20 }).unwrap()
}

fn options() -> DeskOptions {
    DeskOptions { deadline: Duration::from_secs(30), flush: Duration::from_millis(10) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_redis_is_away_survives_the_processor_and_is_charged_once() {
    let Some(mut redis) = Redis::start().await else { return };
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut running = JoinSet::new();
    let stop = CancellationToken::new();
    let (desk, background) = Desk::journaled(store(&redis), options(), open(first.path()));
    running.spawn(background.run(stop.clone()));
    let asks = [ask(1), ask(2)];
    for asked in &asks {
        assert!(matches!(desk.reserve(Arc::clone(asked)).await, Ok(Verdict::Granted(_))));
    }
    redis.kill();
    let journal = first.path().join(FILE);
    for asked in &asks {
        desk.settle(settle(asked, 21));
    }
    // The disk as it would be found after the process was killed.
    let killed = second.path().join(FILE);
    until("both are on the disk", async || {
        std::fs::copy(&journal, &killed).unwrap();
        open(second.path()).1.len() == 2
    })
    .await;

    redis.run().await;
    let (journal, owed) = open(second.path());
    assert_eq!(owed.len(), 2);
    let (next, background) = Desk::journaled(store(&redis), options(), (journal, owed));
    assert_eq!(next.unsettled(), 2);
    running.spawn(background.run(stop.clone()));
    // Both processes deliver: it counts once all the same.
    until("both have delivered", async || desk.unsettled() + next.unsettled() == 0).await;
    assert_eq!(look(&looking_at(&redis)).await, Some((42, 0)));
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    drop((desk, next));
    for folder in [first, second] {
        assert_eq!(open(folder.path()).1, [], "nothing is owed any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processor_that_stops_while_redis_is_away_leaves_what_is_owed_to_the_next() {
    let Some(mut redis) = Redis::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let (desk, background) = Desk::journaled(store(&redis), options(), open(folder.path()));
    let running = {
        let mut running = JoinSet::new();
        running.spawn(background.run(stop.clone()));
        running
    };
    let asked = ask(1);
    assert!(matches!(desk.reserve(Arc::clone(&asked)).await, Ok(Verdict::Granted(_))));
    redis.kill();
    desk.settle(settle(&asked, 42));
    stop.cancel();
    running.join_all().await;
    drop(desk);
    redis.run().await;
    let (desk, background) = Desk::journaled(store(&redis), options(), open(folder.path()));
    spawn(background.run(CancellationToken::new()));
    until("it is delivered", async || desk.unsettled() == 0).await;
    assert_eq!(look(&looking_at(&redis)).await, Some((42, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_does_not_wait_for_a_redis_that_is_silent_and_its_end_is_charged_later() {
    let Some(redis) = Redis::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let options = DeskOptions { deadline: Duration::from_millis(50), flush: Duration::from_secs(30) };
    let (desk, background) = Desk::journaled(store(&redis), options, open(folder.path()));
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(background.run(stop.clone()));
    until("it is connected", async || {
        desk.reserve(ask(1)).await.is_ok_and(|verdict| matches!(verdict, Verdict::Granted(_)))
    })
    .await;
    redis.signal("STOP");
    // It is answered although Redis is not.
    let away = desk.reserve(ask(2)).await;
    assert!(matches!(away, Err(Away(StoreError::Away(_)))), "{away:?}");
    // Let in by an open policy, it is charged nonetheless. So is the one that was reserved.
    desk.settle(settle(&ask(1), 21));
    desk.settle(settle(&ask(2), 21));
    redis.signal("CONT");
    until("both are charged", async || desk.unsettled() == 0).await;
    assert_eq!(look(&looking_at(&redis)).await, Some((42, 0)));
    stop.cancel();
    running.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_before_a_processor_stops_is_in_redis_afterwards() {
    let Some(redis) = Redis::start().await else { return };
    let flush = Duration::from_secs(60);
    let (desk, background) = Desk::new(store(&redis), DeskOptions { flush, ..options() });
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(background.run(stop.clone()));
    for exchange in 1..=500 {
        desk.settle(settle(&ask(exchange), 1));
    }
    stop.cancel();
    running.join_all().await;
    assert_eq!(desk.unsettled(), 0);
    assert_eq!(look(&looking_at(&redis)).await, Some((500, 0)));
}
