//! The desk before quotas in this process.

use std::sync::Arc;
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
