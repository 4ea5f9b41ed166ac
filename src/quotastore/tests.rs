//! The desk before quotas in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::quota::{Bound, BucketKey, Claim, Group, Mode, OnExpiry, OutputCap, PerOutput, Refusal, Window};

fn id(exchange: u64) -> ReservationId {
    ReservationId { process: 7, exchange, part: 0 }
}

fn claim(limit: &str, amount: u64) -> Claim {
    Claim {
        bucket: BucketKey { limit: limit.into(), subject: "".into() },
        amount,
        window: Window::Rolling { length: 60_000 },
        bound: Bound { fixed: 10, per_output: PerOutput { numerator: 1, denominator: 1 } },
        mode: Mode::Reserve,
        shadow: false,
        on_expiry: OnExpiry::Charge,
        group: 0,
        most_subjects: None,
    }
}

fn ask(exchange: u64, wanted: u64, least: u64, claims: Vec<Claim>) -> Arc<Ask> {
    let output = OutputCap { wanted, least };
    Arc::new(Ask {
        id: id(exchange),
        claims,
        groups: vec![Group::All],
        output,
        lease: Duration::from_secs(60),
    })
}

#[tokio::test]
async fn what_is_reserved_is_held_until_it_is_settled() {
    let desk = Desk::memory();
    let first = ask(1, 90, 90, vec![claim("a", 100)]);
    let Ok(Verdict::Granted(grant)) = desk.reserve(Arc::clone(&first)).await else { panic!("there is room") };
    assert_eq!((grant.output, grant.readings[0].held, grant.readings[0].remaining()), (90, 100, 0));
    let second = ask(2, 0, 0, vec![claim("a", 100)]);
    let Ok(Verdict::Refused(refusal)) = desk.reserve(Arc::clone(&second)).await else {
        panic!("all is held")
    };
    assert_eq!((refusal.claim, refusal.readings[0].held), (0, 100));
    desk.settle(Settle { id: first.id, spent: vec![(first.claims[0].clone(), 30)] });
    let Ok(Verdict::Granted(grant)) = desk.reserve(second).await else { panic!("there is room again") };
    assert_eq!((grant.readings[0].spent, grant.readings[0].held), (30, 10));
    let again = desk.reserve(first).await.unwrap_err();
    assert_eq!(again, Away(StoreError::Ended), "never held again");
}

#[tokio::test]
async fn an_answer_is_made_as_short_as_what_is_left() {
    let desk = Desk::memory();
    let short = ask(1, 1000, 20, vec![claim("a", 100), claim("b", 50)]);
    let Ok(Verdict::Granted(grant)) = desk.reserve(short).await else { panic!("there is room") };
    assert_eq!(grant.output, 40);
    let shorter = ask(2, 1000, 41, vec![claim("d", 100), claim("c", 50)]);
    assert!(matches!(desk.reserve(shorter).await, Ok(Verdict::Refused(Refusal { claim: 1, .. }))));
}

#[tokio::test]
async fn subjects_beyond_those_that_a_limit_tells_apart_share_a_bucket_and_are_counted() {
    let desk = Desk::memory();
    let of = |subject: &str| {
        let bucket = BucketKey { limit: "a".into(), subject: subject.into() };
        vec![Claim { bucket, most_subjects: Some(2), ..claim("a", 100) }]
    };
    for (number, subject, overflowed) in
        [(1, "one", 0), (2, "two", 0), (3, "three", 1), (4, "four", 2), (5, "one", 2)]
    {
        let granted = desk.reserve(ask(number, 20, 20, of(subject))).await;
        assert!(matches!(granted, Ok(Verdict::Granted(_))), "{granted:?}");
        assert_eq!(desk.overflowed(), overflowed, "{subject}");
    }
    // What shares a bucket shares its room, and takes nothing from the others.
    let refused = desk.reserve(ask(6, 40, 40, of("five"))).await;
    assert!(matches!(refused, Ok(Verdict::Refused(_))), "{refused:?}");
    let granted = desk.reserve(ask(7, 40, 40, of("two"))).await;
    assert!(matches!(granted, Ok(Verdict::Granted(_))), "{granted:?}");
}

/// A claim on the bucket of a value that a tenant's client chose.
fn chosen(owner: &str, value: usize, most: u32) -> Vec<Claim> {
    let bucket = BucketKey { limit: "a".into(), subject: format!("{owner}.{value:032x}").into() };
    vec![Claim { bucket, most_subjects: Some(most), ..claim("a", 100) }]
}

#[tokio::test]
async fn who_sends_a_hundred_thousand_values_takes_neither_anothers_buckets_nor_its_room() {
    let desk = Desk::memory();
    let granted = async |number, claims| {
        let answer = desk.reserve(ask(number, 80, 80, claims)).await;
        matches!(answer, Ok(Verdict::Granted(_)))
    };
    let mut let_in = 0;
    for value in 0..100_000 {
        let_in += u64::from(granted(value as u64, chosen("aa", value, 10_000)).await);
    }
    assert_eq!(let_in, 10_001, "each of its own buckets once, and once the one of the rest");
    assert_eq!(desk.overflowed(), 90_000, "and it is counted how often");
    for value in 0..10_000 {
        assert!(granted(200_000 + value as u64, chosen("bb", value, 10_000)).await, "{value}");
    }
    assert_eq!(desk.overflowed(), 90_000);
}

#[tokio::test]
async fn values_that_clients_choose_leave_room_in_memory_for_what_they_do_not() {
    // 64 buckets in each of 64 shards, and time that goes on, so that ends are forgotten.
    let now = Arc::new(AtomicU64::new(1_000_000_000));
    let clock = Arc::clone(&now);
    let store = Store::Memory(MemoryStore::new(move || clock.fetch_add(1, Ordering::SeqCst), 64 * 64));
    let pay = async |number, claims: Vec<Claim>| {
        let asked = ask(number, 0, 0, claims);
        let answer = store.reserve(&asked).await;
        store.settle(&Settle { id: asked.id, spent: vec![(asked.claims[0].clone(), 1)] }).await.unwrap();
        store.confirm(&[asked.id]).await.unwrap();
        answer
    };
    let mut overflowed = 0;
    for value in 0..5_000 {
        let claims =
            chosen("aa", value, 1_000_000).into_iter().map(|claim| Claim { amount: 1_000_000, ..claim });
        overflowed += pay(value as u64, claims.collect()).await.unwrap().overflowed;
    }
    assert!((2_000..4_000).contains(&overflowed), "{overflowed}");
    for tenant in 0..500 {
        let answer = pay(10_000 + tenant, vec![claim(&format!("tenant{tenant}"), 100)]).await;
        assert!(answer.is_ok(), "{tenant}: {answer:?}");
    }
}

#[tokio::test]
async fn ends_that_are_remembered_are_no_reason_to_refuse() {
    let now = Arc::new(AtomicU64::new(1_000_000_000));
    let clock = Arc::clone(&now);
    let store = Store::Memory(MemoryStore::new(move || clock.load(Ordering::SeqCst), 64));
    for number in 0..2_000 {
        // Each shard looks for what is over once a second.
        now.fetch_add(1_000, Ordering::SeqCst);
        let asked = ask(number, 0, 0, vec![claim("a", 1_000_000)]);
        store.reserve(&asked).await.unwrap();
        store.settle(&Settle { id: asked.id, spent: vec![(asked.claims[0].clone(), 1)] }).await.unwrap();
        store.confirm(&[asked.id]).await.unwrap();
    }
}
