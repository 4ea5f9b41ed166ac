//! Steps that come at the same time go to Redis in one call, and are done as if each had come alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ai_gateway::quota::{Ask, BucketKey, Claim, ReservationId, Settle, Settled, Verdict};
use ai_gateway::quotastore::{Answer, Away, Store, StoreError};
use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Builder;

use super::stores::{Timed, connect};
use super::{MINUTE, ask, attended, claim, limits, look, settle, start};
use crate::support::redis::Redis;
use crate::support::until;

/// A step that is asked for beside others.
#[derive(Debug, Clone)]
enum Step {
    Reserve(Ask),
    Renew(ReservationId),
    Settle(Settle),
}

/// What came of it.
#[derive(Debug, PartialEq)]
enum Outcome {
    Answer(Result<Answer, StoreError>),
    Alive(Vec<bool>),
    Settled(Result<Settled, StoreError>),
}

impl Step {
    async fn done_by(&self, store: &Store) -> Outcome {
        match self {
            Self::Reserve(ask) => Outcome::Answer(store.reserve(ask).await),
            Self::Renew(id) => Outcome::Alive(store.renew(&[(*id, 10_000)]).await.unwrap()),
            Self::Settle(settle) => Outcome::Settled(store.settle(settle).await),
        }
    }
}

/// What a step is made of: which, of which exchange, how much, whether it may be cut, which limits, and whose.
type Seed = (u8, u64, u64, bool, u8, u64);

fn seeds() -> impl Strategy<Value = Vec<(u64, Vec<Seed>)>> {
    let seed = (0..8u8, 0..30u64, 1..400u64, any::<bool>(), 1..32u8, 0..6u64);
    prop::collection::vec((1..9_000u64, prop::collection::vec(seed, 1..90)), 1..5)
}

/// The limits that a seed names, at that time; one of them tells three subjects apart.
fn claims(bits: u8, whose: u64, now: u64, run: u64) -> Vec<Claim> {
    let mut claims = limits(bits & 15, 0, now);
    if bits & 16 != 0 || claims.is_empty() {
        let bucket = BucketKey { limit: "told-apart".into(), subject: format!("{whose:064x}").into() };
        claims.push(Claim { bucket, most_subjects: Some(3), ..claim("told-apart", MINUTE) });
    }
    for claim in &mut claims {
        claim.bucket.limit = format!("{}{run}", claim.bucket.limit).into();
    }
    claims
}

#[test]
fn steps_in_one_call_are_done_as_if_each_were_alone() {
    // On one thread everything that is asked for at once is there before the first call goes out.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let Some(redis) = runtime.block_on(Redis::start()) else { return };
    let other = {
        let _entered = runtime.enter();
        Timed::redis(&redis)
    };
    let calls = || {
        let stats = redis.command(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    // Once there is a connection, and the script is known, calls go out in the order in which they are made.
    let first = ask(u64::MAX, 1, 1, vec![claim("first", MINUTE)]);
    other.set(start());
    runtime.block_on(other.store.reserve(&first)).unwrap();
    let before = calls();
    let (runs, expected_calls) = (AtomicU64::new(0), AtomicU64::new(0));
    let config = Config { cases: 96, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&seeds(), |rounds| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        let (memory, mut now) = (Timed::memory(), start() / 30_000 * 30_000);
        let mut asked: HashMap<u64, Ask> = HashMap::new();
        for (wait, seeds) in rounds {
            now += wait;
            memory.set(now);
            other.set(now);
            let mut step = |(kind, exchange, amount, clamp, bits, whose): Seed| {
                let id = ReservationId { process: run, exchange, part: 0 };
                let known = asked.entry(exchange).or_insert_with(|| Ask {
                    id,
                    ..ask(0, amount, if clamp { 1 } else { amount }, claims(bits, whose, now, run))
                });
                match kind {
                    0..=4 => Step::Reserve(known.clone()),
                    5 => Step::Renew(id),
                    _ => Step::Settle(settle(known, amount)),
                }
            };
            let steps: Vec<Step> = seeds.into_iter().map(&mut step).collect();
            runtime.block_on(async {
                let together = join_all(steps.iter().map(|step| step.done_by(&other.store))).await;
                for (step, outcome) in steps.iter().zip(together) {
                    assert_eq!(step.done_by(&memory.store).await, outcome, "{step:?} of {steps:#?}");
                }
            });
            expected_calls.fetch_add(steps.len().div_ceil(64) as u64, Ordering::SeqCst);
        }
        Ok(())
    });
    result.unwrap();
    assert_eq!(calls() - before, expected_calls.into_inner(), "64 go together");
}

/// One that cannot be done does not keep the others from being done, once.
#[tokio::test]
async fn what_is_wrong_with_one_step_is_no_matter_to_the_others() {
    let Some(redis) = Redis::start().await else { return };
    let store = Store::Redis(connect(&redis.url()));
    assert_eq!(redis.command(&["SET", "{aigw}:q:b:spoilt::r60000", "not a bucket"]), "OK");
    let asks: Vec<Ask> = (0..20)
        .map(|exchange| {
            let limit = if exchange == 7 { "spoilt" } else { "sound" };
            ask(exchange, 30, 30, vec![claim(limit, MINUTE)])
        })
        .collect();
    let answers = join_all(asks.iter().map(|ask| store.reserve(ask))).await;
    for (exchange, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(Answer { verdict: Verdict::Granted(_), .. }) => assert_ne!(exchange, 7),
            Err(StoreError::Away(_)) => assert_eq!(exchange, 7),
            other => panic!("{exchange}: {other:?}"),
        }
    }
    assert_eq!(look(&store, &claim("sound", MINUTE)).await, (0, 19 * 40));
}

/// Each thread has a connection of its own; those may be lost, and a thread may end before all is told.
#[tokio::test(flavor = "multi_thread")]
async fn threads_beside_each_other_keep_one_account() {
    let Some(redis) = Redis::start().await else { return };
    let store = Store::Redis(connect(&redis.url()));
    let (desk, background) = attended(&store, Duration::from_secs(20));
    let granted = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..3u64)
        .map(|thread| {
            let ((desk, driving), granted) = (desk.beside(), Arc::clone(&granted));
            std::thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut beside = tokio::task::JoinSet::new();
                    beside.spawn(driving);
                    let exchanges = (0..100u64).map(|exchange| {
                        let (desk, granted) = (desk.clone(), &granted);
                        async move {
                            let asked = ask(thread << 32 | exchange, 10, 10, vec![claim("a", MINUTE)]);
                            match desk.reserve(Arc::new(asked.clone())).await {
                                Ok(Verdict::Granted(_)) => {
                                    granted.fetch_add(1, Ordering::SeqCst);
                                    desk.settle(settle(&asked, 20));
                                }
                                Ok(Verdict::Refused(_)) => {}
                                Err(Away(error)) => panic!("{error}"),
                            }
                        }
                    });
                    join_all(exchanges).await;
                });
                // What is settled once nobody drives it here is told by another.
                drop(runtime);
                desk.settle(settle(&ask(thread << 32 | 1000, 10, 10, vec![claim("late", MINUTE)]), 7));
            })
        })
        .collect();
    // One that nobody ever drives.
    let (idle, never) = desk.beside();
    idle.settle(settle(&ask(1 << 40, 10, 10, vec![claim("late", MINUTE)]), 7));
    drop(never);
    let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    redis.command(&kill);
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();
    let granted = granted.load(Ordering::SeqCst);
    assert_eq!(granted, 50, "there is room for just so many");
    until("all is settled", async || desk.unsettled() == 0).await;
    assert_eq!(look(&store, &claim("a", MINUTE)).await, (granted * 20, 0));
    assert_eq!(look(&store, &claim("late", MINUTE)).await, (28, 0));
    background.end().await;
}
